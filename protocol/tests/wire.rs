//! What a peer may send: any bytes at all. Decoding never panics, and what decodes is what was
//! sent.
//!
//! `TERN_FUZZ=1000000 cargo test -p tern-protocol --test wire` mutates as often as it says;
//! `TERN_FUZZ_SEED` repeats a run.

mod vectors;

use proptest::prelude::*;
use tern_protocol::frames::layout;
use tern_protocol::limits::{CURSORS_PER_FRAME_MAX, FRAME_BYTES_MAX, PAYLOAD_BYTES_MAX};
use tern_protocol::{DecodeError, Flags, Frame, Kind};
use tern_random::{Stream, number_from_env};

/// Mutated frames of an everyday run: well below a second unoptimised.
const MUTATIONS_DEFAULT: u64 = 100_000;

/// Seed of an everyday run, so that a failure in it is seen by everybody.
const SEED_DEFAULT: u64 = 0x7e12;

/// Decodes `bytes` and checks everything that must hold of the outcome.
fn check(bytes: &[u8]) {
    match Frame::parse(bytes) {
        Ok((frame, flags)) => {
            let mut buffer = vec![0; FRAME_BYTES_MAX];
            let written = frame.encode(flags, &mut buffer);
            assert_eq!(&buffer[..written], bytes, "{frame:?} is written as it was read");
            let payload_bytes = bytes.len() - 4;
            assert!(layout(frame.kind()).is_none_or(|layout| layout.fits(payload_bytes)));
        }
        Err(DecodeError::Length { kind, bytes: payload_bytes }) => {
            let layout = layout(kind).expect("an unknown kind has no wrong length");
            assert!(!layout.fits(payload_bytes), "{kind} of {payload_bytes} bytes fits");
        }
        Err(DecodeError::Bounds { expected, bytes: came }) => {
            assert_eq!(came, bytes.len());
            assert_ne!(expected, came);
        }
    }
}

proptest! {
    #[test]
    fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        check(&bytes);
    }

    /// Bytes whose header tells their length, so that the payload is looked at.
    #[test]
    fn any_payload(kind: u8, flags: u8, payload in prop::collection::vec(any::<u8>(), 0..300)) {
        let mut bytes = (payload.len() as u16).to_le_bytes().to_vec();
        bytes.extend([kind, flags]);
        bytes.extend(payload);
        check(&bytes);
    }
}

#[test]
fn each_kind_at_each_length() {
    for kind in 0..=u8::MAX {
        for payload_bytes in 0..200u16 {
            let mut bytes = payload_bytes.to_le_bytes().to_vec();
            bytes.extend([kind, 0]);
            bytes.resize(4 + usize::from(payload_bytes), 0xff);
            check(&bytes);
            let fits = layout(Kind(kind)).is_none_or(|l| l.fits(usize::from(payload_bytes)));
            assert_eq!(Frame::parse(&bytes).is_ok(), fits, "{} at {payload_bytes}", Kind(kind));
        }
    }
}

#[test]
fn a_frame_cut_short_or_too_long_is_an_error() {
    for (name, bytes) in vectors::all() {
        for end in 0..bytes.len() {
            let error = Frame::parse(&bytes[..end]).expect_err(&name);
            assert!(matches!(error, DecodeError::Bounds { bytes, .. } if bytes == end), "{name}");
        }
        let longer: Vec<u8> = bytes.iter().copied().chain([0]).collect();
        assert!(Frame::parse(&longer).is_err(), "{name} with a byte too many");
    }
}

/// The same with a header that agrees with the shorter payload: a frame of a fixed size is
/// refused at every other length.
#[test]
fn a_payload_of_the_wrong_size_is_an_error() {
    for (name, bytes) in vectors::all() {
        for end in 4..bytes.len() {
            let mut cut = bytes[..end].to_vec();
            set_length(&mut cut);
            check(&cut);
            let kind = Kind(cut[2]);
            let fits = layout(kind).is_none_or(|layout| layout.fits(end - 4));
            assert_eq!(Frame::parse(&cut).is_ok(), fits, "{name} cut to {end} bytes");
        }
    }
}

#[test]
fn the_largest_frames() {
    let mut bytes = vec![0x5a; FRAME_BYTES_MAX];
    for kind in 0..=u8::MAX {
        bytes[..4].copy_from_slice(&[0xff, 0xff, kind, 0]);
        check(&bytes);
    }
    let cursors = [[0; 32]; CURSORS_PER_FRAME_MAX].concat();
    let mut bytes = vec![0, 0, Kind::Cursors.0, Flags::LAST.0];
    bytes.extend(cursors);
    set_length(&mut bytes);
    assert!(matches!(
        Frame::parse(&bytes),
        Ok((Frame::Cursors(list), Flags::LAST)) if list.len() == CURSORS_PER_FRAME_MAX
    ));
}

#[test]
#[should_panic(expected = "a payload of 65536 bytes")]
fn no_header_lies_about_a_payload_that_is_too_long() {
    let payload = vec![0; PAYLOAD_BYTES_MAX + 1];
    Frame::Unknown(Kind(0x7f), &payload).encode(Flags::NONE, &mut vec![0; FRAME_BYTES_MAX + 1]);
}

#[test]
fn mutated_frames() {
    let mutations = number_from_env("TERN_FUZZ", MUTATIONS_DEFAULT);
    let seed = number_from_env("TERN_FUZZ_SEED", SEED_DEFAULT);
    eprintln!("TERN_FUZZ={mutations} TERN_FUZZ_SEED={seed}");
    let mut random = Stream::new(seed);
    let golden = vectors::all();
    let mut decoded = 0_u64;
    for _ in 0..mutations {
        let (_, bytes) = &golden[random.index(golden.len())];
        let mut bytes = bytes.clone();
        for _ in 0..=random.index(4) {
            mutate(&mut bytes, &golden, &mut random);
        }
        check(&bytes);
        decoded += u64::from(Frame::parse(&bytes).is_ok());
    }
    let some_of_each = mutations / 20..=mutations - mutations / 20;
    assert!(some_of_each.contains(&decoded), "{decoded} of {mutations} decode: a lopsided run");
}

/// One change of a kind that real damage and real attackers make.
fn mutate(bytes: &mut Vec<u8>, golden: &[(String, Vec<u8>)], random: &mut Stream) {
    let at = random.index(bytes.len().max(1));
    match random.index(10) {
        0 if !bytes.is_empty() => bytes[at] ^= 1 << random.below(8),
        1 if !bytes.is_empty() => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][random.index(5)],
        2 => bytes.truncate(at),
        3 => bytes.insert(at, random.draw() as u8),
        4 => bytes.extend(golden[random.index(golden.len())].1.iter()),
        5 if bytes.len() > 4 => drop(bytes.drain(4..at.max(4))),
        6 if bytes.len() > 2 => bytes[2] = Kind::ALL[random.index(Kind::ALL.len())].kind.0,
        7 if bytes.len() > 3 => bytes[3] = random.draw() as u8,
        _ => set_length(bytes),
    }
}

/// Makes the header tell the length that the payload has.
fn set_length(bytes: &mut [u8]) {
    if let Some(payload_bytes) = bytes.len().checked_sub(4) {
        let payload_bytes = u16::try_from(payload_bytes).unwrap_or(u16::MAX);
        bytes[..2].copy_from_slice(&payload_bytes.to_le_bytes());
    }
}
