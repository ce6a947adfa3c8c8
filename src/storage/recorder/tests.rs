//! The recorder is written and read back: whole, wrapped, torn, damaged, by two runs, and while it
//! is written.

use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::sync::atomic::AtomicBool;

use proptest::prelude::*;
use tempfile::TempDir;
use tern_core::moments::Happened;
use tern_protocol::{Code, DeviceId, Epoch, MessageId, SendCounter, SendKey, Uin};

use super::*;

/// The data folder of all tests.
const FOLDER: Id = [7; 16];

/// Bytes with which each of two rings has the fewest entries that there are.
const SMALL: u64 = 1;

fn open(place: &TempDir, workers: u16, bytes: u64) -> Vec<Recorder> {
    let places = [place.path().to_owned()];
    Recorder::open_all(&places, &FOLDER, workers, bytes, 1).unwrap().1
}

fn read(place: &TempDir) -> (Recording, Vec<(u16, Entry)>) {
    let mut all = Vec::new();
    let path = recording_path(place.path(), &FOLDER);
    let facts = read_recording(&path, &FOLDER, |worker, entry| all.push((worker, *entry)));
    (facts.unwrap(), all)
}

/// An entry of every kind, told apart by its number.
fn entry(number: u64) -> (Stamp, ChannelId, Option<Device>, What) {
    let id = MessageId(number + 1);
    let key = SendKey { epoch: Epoch(number as u32), counter: SendCounter(9) };
    let what = match number % 11 {
        0 => What::Happened(Happened::Received(key)),
        1 => What::Happened(Happened::Refused(key, Code::DiskFull)),
        2 => What::Happened(Happened::Repeated(id)),
        3 => What::Happened(Happened::Appended(id)),
        4 => What::Happened(Happened::Committed(id)),
        5 => What::Happened(Happened::Granted(id)),
        6 => What::Pushed(id, Carrier::Stream),
        7 => What::Pushed(id, Carrier::Datagram),
        8 => What::Pushed(id, Carrier::Repair),
        9 => What::Pushed(id, Carrier::Copy),
        _ => What::Happened(Happened::Acked(id)),
    };
    let stamp = Stamp { wall_us: 1_000_000 + number, mono_us: number };
    let device = Device { uin: Uin(10_001), device: DeviceId(number as u32) };
    (
        stamp,
        ChannelId::direct(Uin(1), Uin(number + 2)),
        (!number.is_multiple_of(3)).then_some(device),
        what,
    )
}

fn write(recorder: &mut Recorder, numbers: std::ops::Range<u64>) {
    for number in numbers {
        let (stamp, channel, device, what) = entry(number);
        recorder.record(stamp, channel, device, what);
    }
}

fn numbers(all: &[(u16, Entry)], worker: u16) -> Vec<u64> {
    let own = all.iter().filter(|(other, _)| *other == worker);
    let mut numbers: Vec<u64> = own.map(|(_, entry)| entry.stamp.mono_us).collect();
    numbers.sort_unstable();
    numbers
}

#[test]
fn what_is_written_is_read() {
    let place = tempfile::tempdir().unwrap();
    let mut recorders = open(&place, 2, SMALL);
    write(&mut recorders[0], 0..30);
    write(&mut recorders[1], 30..40);
    let (facts, all) = read(&place);
    assert_eq!((facts.created_ms, facts.run, facts.rings.len()), (1, 1, 2));
    assert_eq!((facts.rings[0].entries, facts.rings[0].overwritten), (30, 0));
    assert_eq!(facts.whole_from_us(), 1_000);
    for (worker, found) in &all {
        let (stamp, channel, device, what) = entry(found.stamp.mono_us);
        assert_eq!(*found, Entry { stamp, run: 1, channel, device, what });
        assert_eq!(*worker, u16::from(found.stamp.mono_us >= 30));
    }
    assert_eq!(all.len(), 40);
}

#[test]
fn the_oldest_are_overwritten_and_it_says_so() {
    let place = tempfile::tempdir().unwrap();
    let mut recorders = open(&place, 2, SMALL);
    write(&mut recorders[0], 0..1_000);
    write(&mut recorders[1], 0..3);
    let (facts, all) = read(&place);
    let kept = RING_ENTRIES_MIN as u64;
    assert_eq!(numbers(&all, 0), (1_000 - kept..1_000).collect::<Vec<_>>());
    assert_eq!(numbers(&all, 1), [0, 1, 2]);
    assert_eq!(facts.rings[0].overwritten, 1_000 - kept);
    assert_eq!(facts.whole_from_us(), 1_000_000 + 1_000 - kept, "of the one that goes back less");
    println!("TEST recorder-wrap n=1003 kept={} unreadable=0", all.len());
}

#[test]
fn a_later_run_goes_on_behind_an_earlier_one() {
    let place = tempfile::tempdir().unwrap();
    write(&mut open(&place, 1, SMALL)[0], 0..50);
    write(&mut open(&place, 1, SMALL)[0], 50..70);
    let (facts, all) = read(&place);
    assert_eq!((facts.run, facts.rings[0].overwritten), (2, 70 - RING_ENTRIES_MIN as u64));
    assert_eq!(numbers(&all, 0), (6..70).collect::<Vec<_>>());
    assert!(all.iter().all(|(_, e)| e.run == 1 + u16::from(e.stamp.mono_us >= 50)));
    write(&mut open(&place, 2, SMALL)[0], 0..1);
    let (facts, all) = read(&place);
    assert_eq!((facts.run, all.len()), (1, 1), "made anew for two workers");
}

#[test]
fn a_torn_entry_is_passed_over() {
    let place = tempfile::tempdir().unwrap();
    let mut recorders = open(&place, 1, SMALL);
    write(&mut recorders[0], 0..RING_ENTRIES_MIN as u64 + 5);
    // The writer was killed within an entry: each number of its words is new, the rest is old.
    let ring = HEADER_WORDS + RING_HEAD_WORDS;
    let slot = &recorders[0].words.all()[ring + 9 * ENTRY_WORDS..][..ENTRY_WORDS];
    let old: Vec<u64> = slot.iter().map(|word| word.load(Relaxed)).collect();
    let (stamp, channel, device, what) = entry(1_009);
    let new = Entry { stamp, run: 1, channel, device, what }.to_words();
    for torn_at in 1..ENTRY_WORDS {
        slot.iter().zip(&old).for_each(|(word, old)| word.store(*old, Relaxed));
        let fresh = slot[1..].iter().zip(new).take(torn_at);
        fresh.for_each(|(word, new)| word.store(new.to_le(), Relaxed));
        let (facts, all) = read(&place);
        assert_eq!(facts.rings[0].unreadable, 1, "torn behind {torn_at} words");
        assert_eq!(all.len(), RING_ENTRIES_MIN - 1);
        assert!(!numbers(&all, 0).contains(&9) && !numbers(&all, 0).contains(&1_009));
    }
}

#[test]
fn a_reader_beside_the_writer_sees_only_what_was_written() {
    let place = tempfile::tempdir().unwrap();
    let mut recorders = open(&place, 1, SMALL);
    let (over, enough) = (AtomicBool::new(false), tern_random::soaked(2_000) as usize);
    let (mut seen, mut torn) = (0, 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut next = 0;
            while !over.load(Relaxed) {
                write(&mut recorders[0], next..next + 100);
                next += 100;
            }
        });
        while seen < enough {
            let (facts, all) = read(&place);
            torn += facts.rings[0].unreadable;
            for (_, found) in &all {
                let (stamp, channel, device, what) = entry(found.stamp.mono_us);
                assert_eq!(*found, Entry { stamp, run: 1, channel, device, what });
            }
            seen += all.len();
        }
        over.store(true, Relaxed);
    });
    println!("TEST recorder-beside n={seen} torn={torn} wrong=0");
}

#[test]
fn files_that_are_none_are_refused() {
    let place = tempfile::tempdir().unwrap();
    let path = recording_path(place.path(), &FOLDER);
    let refused = |folder: &Id| read_recording(&path, folder, |_, _| {}).unwrap_err().to_string();
    assert!(refused(&FOLDER).contains("no flight recorder"));
    drop(open(&place, 1, SMALL));
    assert!(refused(&[8; 16]).contains("another data folder"));
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    file.set_len(8 << 10).unwrap();
    assert!(refused(&FOLDER).contains("length"));
    file.write_all_at(b"nothing", 0).unwrap();
    assert!(refused(&FOLDER).contains("checksum"));
    file.set_len(100).unwrap();
    assert!(refused(&FOLDER).contains("odd length"));
    std::fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink("/etc/hostname", &path).unwrap();
    assert!(refused(&FOLDER).contains("can't be read"), "a link is not followed");
    // A server makes its own over all of these.
    write(&mut open(&place, 1, SMALL)[0], 0..1);
    assert_eq!(read(&place).1.len(), 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(tern_random::soaked(200) as u32))]

    /// Whatever bytes change, it is an error or whole entries, each as it was written; and a
    /// server goes on.
    #[test]
    fn any_damage_is_an_error_or_entries_that_were_written(
        flips in proptest::collection::vec((0usize..4096 + 64 + 64 * 64, 1u8..), 1..40),
        cut in proptest::option::of(0u64..9000),
        written in 0u64..200,
    ) {
        let place = tempfile::tempdir().unwrap();
        write(&mut open(&place, 1, SMALL)[0], 0..written);
        let path = recording_path(place.path(), &FOLDER);
        let mut bytes = std::fs::read(&path).unwrap();
        flips.iter().for_each(|(at, flip)| bytes[*at] ^= flip);
        if let Some(cut) = cut {
            bytes.truncate(cut as usize);
        }
        std::fs::remove_file(&path).unwrap();
        let mut options = std::fs::File::options();
        let file = options.write(true).create_new(true).mode(0o600).open(&path).unwrap();
        file.write_all_at(&bytes, 0).unwrap();
        let mut all = Vec::new();
        let read_back = read_recording(&path, &FOLDER, |_, entry| all.push(*entry));
        prop_assert!(read_back.is_ok() || all.is_empty());
        for found in &all {
            let (stamp, channel, device, what) = entry(found.stamp.mono_us);
            prop_assert_eq!(*found, Entry { stamp, run: 1, channel, device, what });
        }
        write(&mut open(&place, 1, SMALL)[0], 0..3);
        prop_assert!(read(&place).1.len() >= 3);
    }
}
