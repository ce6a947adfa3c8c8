//! Captures that are cut, mutated and made up: nothing panics, nothing hangs, and no frame is
//! found that was not said.
//!
//! `TERN_SEED` picks the mutations, `TERN_SOAK` multiplies them.

mod support;

use std::collections::HashSet;

use support::file::{Link, decode, pcap, pcapng};
use support::{Setup, talk};
use tern_random::{Stream, seed_from_env, soaked};
use tern_wirecat::event::{Event, What};
use tern_wirecat::quic::frame::Frames;
use tern_wirecat::quic::{header, hello};

/// Mutated files of each kind.
const FILES: u64 = 400;

/// Payloads that are made up.
const PAYLOADS: u64 = 20_000;

fn frames(events: &[Event]) -> HashSet<Vec<u8>> {
    let bytes = events.iter().filter_map(|event| match &event.what {
        What::Frame { bytes, .. } => Some(bytes.clone()),
        _ => None,
    });
    bytes.collect()
}

/// Flips, cuts, doubles and overwrites a few places.
fn mutate(random: &mut Stream, bytes: &mut Vec<u8>) {
    for _ in 0..=random.below(6) {
        if bytes.is_empty() {
            return;
        }
        let at = random.below(bytes.len() as u64) as usize;
        match random.below(6) {
            0 => bytes[at] ^= 1 << random.below(8),
            1 => bytes[at] = random.draw() as u8,
            2 => bytes.truncate(at),
            3 => {
                let end = (at + 1 + random.below(64) as usize).min(bytes.len());
                bytes.drain(at..end);
            }
            4 => {
                let end = (at + 1 + random.below(64) as usize).min(bytes.len());
                let copy = bytes[at..end].to_vec();
                bytes.splice(at..at, copy);
            }
            _ => {
                let end = (at + 4).min(bytes.len());
                bytes[at..end].fill([0, 0xff][random.below(2) as usize]);
            }
        }
    }
}

#[test]
fn mutated_captures_never_say_what_was_not_said() {
    let seed = seed_from_env(1);
    let mut random = Stream::of(seed, "captures");
    let talk = talk(Setup::default());
    let real = include_bytes!("../testdata/hello.pcap").to_vec();
    let keys = format!("{}{}", talk.keys, include_str!("../testdata/hello.keys"));
    let files = [
        pcap(&talk.passed, Link::Ethernet),
        pcap(&talk.passed, Link::LinuxSll2),
        pcapng(&talk.passed, &talk.keys),
        real,
    ];
    let (mut runs, mut found) = (0, 0);
    for whole in files {
        let said = frames(&decode(&whole, &keys).1);
        assert!(said.len() > 5, "{} frames", said.len());
        for _ in 0..soaked(FILES) {
            let mut file = whole.clone();
            mutate(&mut random, &mut file);
            let heard = frames(&decode(&file, &keys).1);
            assert!(heard.is_subset(&said), "seed {seed}: {:?}", heard.difference(&said));
            (runs, found) = (runs + 1, found + heard.len());
        }
    }
    println!("TEST wirecat-mutated seed={seed} n={runs} frames={found} invented=0");
}

#[test]
fn a_mutated_key_log_opens_nothing_wrong() {
    let mut random = Stream::of(seed_from_env(1), "keys");
    let talk = talk(Setup::default());
    let file = pcap(&talk.passed, Link::Raw);
    let said = frames(&decode(&file, &talk.keys).1);
    for _ in 0..soaked(FILES) {
        let mut keys = talk.keys.clone().into_bytes();
        mutate(&mut random, &mut keys);
        let keys = String::from_utf8_lossy(&keys).into_owned();
        assert!(frames(&decode(&file, &keys).1).is_subset(&said));
    }
}

/// Behind the encryption nothing is mutated by accident, but who has the keys can say anything.
#[test]
fn made_up_payloads_are_read_without_harm() {
    let mut random = Stream::of(seed_from_env(1), "payloads");
    let (mut frames, mut broken) = (0, 0);
    for _ in 0..soaked(PAYLOADS) {
        let length = random.below(80) as usize;
        let mut bytes: Vec<u8> = (0..length).map(|_| random.draw() as u8).collect();
        if let Some(first) = bytes.first_mut() {
            *first %= 0x32; // a kind that exists, mostly
        }
        let mut read = Frames::new(&bytes);
        frames += read.by_ref().count();
        broken += u64::from(read.is_broken);
        header::long(&bytes);
        hello::client_hello(&bytes);
        hello::server_hello(&bytes);
        hello::reset_token(&bytes);
    }
    println!("TEST wirecat-payloads frames={frames} broken={broken}");
    assert!(frames > 1_000 && broken > 1_000);
}
