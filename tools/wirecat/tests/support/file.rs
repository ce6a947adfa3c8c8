//! Capture files, written by hand in all the forms that are read.

use std::net::SocketAddr;

use etherparse::PacketBuilder;
use tern_wirecat::capture::Reader;
use tern_wirecat::keylog::KeyLog;
use tern_wirecat::{Decoder, Event};

use super::Passed;

/// What packets begin with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Link {
    Ethernet = 1,
    Raw = 101,
    Null = 0,
    LinuxSll2 = 276,
}

/// A pcap file with nanoseconds.
pub fn pcap(passed: &[Passed], link: Link) -> Vec<u8> {
    let mut file = 0xa1b2_3c4d_u32.to_le_bytes().to_vec();
    file.extend([2, 0, 4, 0]);
    file.extend([0; 8]);
    file.extend(65_535_u32.to_le_bytes());
    file.extend((link as u32).to_le_bytes());
    for one in passed {
        let bytes = packet(one, link);
        let (seconds, nanos) = (one.at.0 / 1_000_000_000, one.at.0 % 1_000_000_000);
        for part in [seconds as u32, nanos as u32, bytes.len() as u32, bytes.len() as u32] {
            file.extend(part.to_le_bytes());
        }
        file.extend(bytes);
    }
    file
}

/// A pcapng file of raw packets, with the key log in it, as big-endian machines write it.
pub fn pcapng(passed: &[Passed], keys: &str) -> Vec<u8> {
    let mut file = Vec::new();
    let section = [&0x1a2b_3c4d_u32.to_be_bytes()[..], &[0, 1, 0, 0], &[0xff; 8]].concat();
    block(&mut file, 0x0a0d_0d0a, &section);
    // Raw packets, any length; if_tsresol 9: nanoseconds.
    let interface = [0, 101, 0, 0, 0, 0, 0, 0, 0, 9, 0, 1, 9, 0, 0, 0, 0, 0, 0, 0];
    block(&mut file, 1, &interface);
    let mut secrets = 0x544c_534b_u32.to_be_bytes().to_vec();
    secrets.extend((keys.len() as u32).to_be_bytes());
    secrets.extend(keys.as_bytes());
    block(&mut file, 10, &secrets);
    for one in passed {
        let bytes = packet(one, Link::Raw);
        let mut body = 0_u32.to_be_bytes().to_vec();
        body.extend(((one.at.0 >> 32) as u32).to_be_bytes());
        body.extend((one.at.0 as u32).to_be_bytes());
        body.extend((bytes.len() as u32).to_be_bytes());
        body.extend((bytes.len() as u32).to_be_bytes());
        body.extend(bytes);
        block(&mut file, 6, &body);
    }
    file
}

fn block(file: &mut Vec<u8>, kind: u32, body: &[u8]) {
    let padded = body.len().next_multiple_of(4);
    let total = (padded + 12) as u32;
    file.extend(kind.to_be_bytes());
    file.extend(total.to_be_bytes());
    file.extend(body);
    file.resize(file.len() + padded - body.len(), 0);
    file.extend(total.to_be_bytes());
}

fn packet(passed: &Passed, link: Link) -> Vec<u8> {
    let (SocketAddr::V4(from), SocketAddr::V4(to)) = (passed.from, passed.to) else {
        panic!("the tests speak IPv4");
    };
    let (source, target) = (from.ip().octets(), to.ip().octets());
    let mut bytes = match link {
        Link::Ethernet | Link::Raw => Vec::new(),
        Link::Null => vec![2, 0, 0, 0],
        Link::LinuxSll2 => [&[8, 0][..], &[0; 18]].concat(),
    };
    let write = |result: Result<(), _>| result.unwrap();
    if link == Link::Ethernet {
        let builder = PacketBuilder::ethernet2([1; 6], [2; 6]).ipv4(source, target, 64);
        write(builder.udp(from.port(), to.port()).write(&mut bytes, &passed.payload));
    } else {
        let builder = PacketBuilder::ipv4(source, target, 64);
        write(builder.udp(from.port(), to.port()).write(&mut bytes, &passed.payload));
    }
    bytes
}

/// Decodes a file as far as it can be read.
pub fn decode(file: &[u8], keys: &str) -> (Decoder, Vec<Event>) {
    let mut log = KeyLog::default();
    log.add(keys.as_bytes());
    let mut decoder = Decoder::new(log);
    let mut events = Vec::new();
    if let Ok(mut reader) = Reader::new(std::io::Cursor::new(file.to_vec())) {
        while let Ok(Some(item)) = reader.next_item() {
            events.extend(decoder.handle(&item));
        }
    }
    events.extend(decoder.end());
    (decoder, events)
}
