//! A conversation that passes a real interface, heard there and decoded: the same frames as in the
//! file that it was taken from.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first thing that is wrong")]

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use tern_wirecat::capture::{CaptureError, Item, Live, Reader, Wanted, datagram};
use tern_wirecat::event::What;
use tern_wirecat::keylog::KeyLog;
use tern_wirecat::{Decoder, Event};

/// A conversation that was really held.
const CAPTURE: &[u8] = include_bytes!("../testdata/hello.pcap");

/// Its secrets.
const KEYS: &str = include_str!("../testdata/hello.keys");

/// The datagrams of the file: from, to, what they say.
fn datagrams() -> Vec<(SocketAddr, SocketAddr, Vec<u8>)> {
    let mut reader = Reader::new(CAPTURE).unwrap();
    let mut all = Vec::new();
    while let Some(item) = reader.next_item().unwrap() {
        let Item::Packet(packet) = item else { continue };
        let said = datagram(&packet).expect("the file holds nothing else");
        all.push((said.from, said.to, said.payload.to_vec()));
    }
    all
}

fn frames(events: &[Event]) -> Vec<&[u8]> {
    let frames = events.iter().filter_map(|event| match &event.what {
        What::Frame { bytes, .. } => Some(bytes.as_slice()),
        _ => None,
    });
    frames.collect()
}

/// Why nobody may listen here, if it is the right that is missing.
fn refused(error: &CaptureError) -> bool {
    matches!(error, CaptureError::Interface(_, error) if error.kind() == ErrorKind::PermissionDenied)
}

#[test]
fn what_passes_an_interface_is_decoded_as_it_passes() {
    let said = datagrams();
    let mut sockets = BTreeMap::new();
    for address in said.iter().flat_map(|(from, to, _)| [from, to]) {
        sockets.entry(*address).or_insert_with(|| UdpSocket::bind("127.0.0.1:0").unwrap());
    }
    // One end of all of them, the server's, is where the first datagram goes.
    let port = sockets[&said[0].1].local_addr().unwrap().port();
    let lasts = Some(Duration::from_secs(60)); // for a capture that never hears them
    let wanted = Wanted { interface: "lo".to_owned(), port: Some(port), lasts };
    let mut live = match Live::listen(&wanted) {
        Err(error) if refused(&error) => {
            assert!(error.to_string().contains("CAP_NET_RAW"), "{error}");
            println!("TEST wirecat-live SKIPPED: {error}");
            return;
        }
        live => live.unwrap(),
    };
    let folder = tempfile::tempdir().unwrap();
    let keys = folder.path().join("keys");
    std::fs::write(&keys, "").unwrap();
    let mut log = KeyLog::default();
    log.follow(keys.clone()).unwrap();
    let mut decoder = Decoder::new(log);
    std::fs::write(&keys, KEYS).unwrap(); // it grows while the capture runs
    let mut events = Vec::new();
    for (from, to, payload) in &said {
        sockets[from].send_to(payload, sockets[to].local_addr().unwrap()).unwrap();
        let item = live.next_item().unwrap().expect("it passes within the minute");
        let Item::Packet(packet) = &item else { panic!("{item:?}") };
        assert_eq!(datagram(packet).unwrap().payload, payload, "once, and whole");
        events.extend(decoder.handle(&item));
    }
    assert_eq!(live.lost(), 0);

    let mut log = KeyLog::default();
    log.add(KEYS.as_bytes());
    let (mut decoder, mut there) = (Decoder::new(log), Vec::new());
    let mut reader = Reader::new(CAPTURE).unwrap();
    while let Some(item) = reader.next_item().unwrap() {
        there.extend(decoder.handle(&item));
    }
    assert!(frames(&events) == frames(&there));
    println!("TEST wirecat-live n={} frames={}", said.len(), frames(&events).len());
    assert!(!frames(&events).is_empty());
}

#[test]
fn an_interface_that_is_not_there_is_named() {
    let wanted = Wanted { interface: "no-such-one".to_owned(), ..Wanted::default() };
    let error = Live::listen(&wanted).unwrap_err().to_string();
    assert!(error.contains("no-such-one") && error.contains("lo"), "{error}");
}

#[test]
fn a_capture_of_an_interface_ends_in_time() {
    let lasts = Some(Duration::from_millis(1));
    // Nobody may listen on this port, so nothing is wanted of what passes.
    let wanted = Wanted { interface: "any".to_owned(), port: Some(0), lasts };
    match Live::listen(&wanted) {
        Err(error) if refused(&error) => println!("TEST wirecat-live SKIPPED: {error}"),
        live => assert!(live.unwrap().next_item().unwrap().is_none()),
    }
}
