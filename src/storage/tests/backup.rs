//! Copies of a running log: each holds all that was acked when it was taken, opens as it is, and
//! begins a new life once when it was restored.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first thing that is wrong")]

mod support;

use std::path::Path;

use support::{Rig, Told};
use tern_storage::backup::{
    CopyError, LogSnapshot, RESTORED_FILE, check_segment, digest, mark_restored,
};
use tern_storage::{Folder, FolderOptions, Raised};

/// Bytes of a test's message: some hundred fill a segment.
const BODY_BYTES: usize = 1_000;

/// Bytes of segments that were never written must not be copied: less than a segment is.
const EMPTY_COPY_BYTES_MAX: u64 = 16 * 1024;

fn body(number: u32) -> Vec<u8> {
    let mut body = number.to_le_bytes().to_vec();
    body.resize(BODY_BYTES, number as u8);
    body
}

/// Copies as a server does, with every digest compared; the records that its segments hold.
fn copy(snapshot: &LogSnapshot, to: &Path) -> u64 {
    let mut records = 0;
    for file in snapshot.files() {
        let target = to.join(&file.name);
        std::fs::create_dir_all(target.parent().unwrap()).unwrap();
        let copied = file.copy(&target, &mut |_| true).unwrap();
        assert_eq!(digest(&target, file.bytes, &mut |_| true).unwrap(), copied);
        assert_eq!(std::fs::metadata(&target).unwrap().len(), file.len);
        if target.extension().is_some_and(|it| it == "seg") {
            let check = check_segment(&target).unwrap();
            assert_eq!(check.damage, None);
            records += check.records;
        }
    }
    records
}

/// What a copy says, and why it was raised.
fn open(rig: &Rig, at: &Path) -> (Told, Option<Raised>, u32) {
    let running = rig.start_at(at);
    let (opened, _, told) = running.open();
    let life = (opened.raised, opened.incarnation.0);
    running.close(opened.log);
    (told, life.0, life.1)
}

#[test]
fn a_copy_of_a_running_log_has_all_that_was_acked() {
    let (rig, copies) = (Rig::new(), tempfile::tempdir().unwrap());
    let running = rig.start();
    let mut log = running.log();
    let (count, every) = (900, 97);
    let mut taken = Vec::new();
    for number in 0..count {
        running.write(&mut log, &body(number));
        if number % every == 0 {
            // What follows is in memory or half way to the disk while the copy is made.
            for _ in 0..3 {
                running.append(&mut log, b"not acked yet");
            }
            let snapshot = running.storage.snapshot().unwrap();
            let to = copies.path().join(number.to_string());
            let records = copy(&snapshot, &to);
            taken.push((number, records, to));
        }
    }
    running.close(log);
    let mut segments = 0;
    for (number, records, to) in &taken {
        let (told, raised, incarnation) = open(&rig, to);
        let acked: Vec<_> = (0..=*number).map(body).collect();
        let bodies = told.bodies();
        assert_eq!(bodies.len() as u64, *records);
        let kept = bodies.into_iter().filter(|body| body.len() == BODY_BYTES);
        assert_eq!(kept.collect::<Vec<_>>(), acked, "copy {number}");
        assert_eq!((raised, incarnation), (None, 1), "nothing says that it is a copy");
        segments = segments.max(rig.segments().len());
    }
    let copies = taken.len();
    println!(
        "TEST B-15 copies of a running log n={copies} messages={count} segments={segments} lost=0"
    );
    assert!(segments > 3, "the log rolled while it was copied");
}

#[test]
fn a_restored_log_begins_one_new_life() {
    let (rig, copies) = (Rig::new(), tempfile::tempdir().unwrap());
    let running = rig.start();
    let mut log = running.log();
    for number in 0..5 {
        running.write(&mut log, &body(number));
    }
    let to = copies.path().join("copy");
    copy(&running.storage.snapshot().unwrap(), &to);
    running.close(log);
    mark_restored(&to, 1).unwrap();
    let marker = to.join("log/shard-00").join(RESTORED_FILE);
    assert!(marker.exists());
    let (told, raised, incarnation) = open(&rig, &to);
    assert_eq!((told.records.len(), raised, incarnation), (5, Some(Raised::Restored), 2));
    assert!(!marker.exists());
    let (told, raised, incarnation) = open(&rig, &to);
    assert_eq!((told.records.len(), raised, incarnation), (5, None, 2), "and stays so");
    assert_eq!(told.raised, [(5, 2)]);
}

#[test]
fn without_room_the_word_stays_until_there_is_some() {
    let (mut rig, copies) = (Rig::new(), tempfile::tempdir().unwrap());
    let running = rig.start();
    let log = running.log();
    let to = copies.path().join("copy");
    copy(&running.storage.snapshot().unwrap(), &to);
    running.close(log);
    mark_restored(&to, 1).unwrap();
    let room = std::mem::replace(&mut rig.config.bytes_max, 0);
    for _ in 0..3 {
        let (_, raised, incarnation) = open(&rig, &to);
        assert_eq!((raised, incarnation), (Some(Raised::Restored), 2), "never durable so far");
    }
    rig.config.bytes_max = room;
    assert_eq!(open(&rig, &to).1, Some(Raised::Restored));
    assert_eq!(open(&rig, &to).1, None);
}

#[test]
fn no_life_is_lived_twice() {
    let (rig, copies) = (Rig::new(), tempfile::tempdir().unwrap());
    let running = rig.start();
    let log = running.log();
    let snapshot = running.storage.snapshot().unwrap();
    running.close(log);
    let lives = [1, 2, 3].map(|lives| {
        let to = copies.path().join(lives.to_string());
        copy(&snapshot, &to);
        mark_restored(&to, lives).unwrap();
        open(&rig, &to).2
    });
    assert_eq!(lives, [2, 3, 4]);
}

#[test]
fn a_closed_folder_is_copied_whole_and_empty_segments_cost_nothing() {
    let (rig, copies) = (Rig::new(), tempfile::tempdir().unwrap());
    let running = rig.start();
    let mut log = running.log();
    running.write(&mut log, &body(7));
    let running_bytes = running.storage.snapshot().unwrap().bytes();
    assert!(running_bytes < EMPTY_COPY_BYTES_MAX, "{running_bytes} bytes");
    running.close(log);
    let to = copies.path().join("copy");
    let folder = Folder::open(rig.path(), FolderOptions::default()).unwrap();
    let snapshot = LogSnapshot::of_closed(&folder).unwrap();
    drop(folder);
    assert_eq!(copy(&snapshot, &to), 1);
    let file = snapshot.files().first().unwrap();
    let again = file.copy(&to.join(&file.name), &mut |_| true);
    assert!(matches!(again, Err(CopyError::Io(_))), "never over a file that is there");
    let stopped = file.copy(&to.join("other"), &mut |_| false);
    assert!(matches!(stopped, Err(CopyError::Stopped)));
    assert_eq!(open(&rig, &to).0.bodies(), [body(7)]);
}

#[test]
fn a_damaged_record_is_named() {
    let rig = Rig::new();
    let running = rig.start();
    let mut log = running.log();
    for number in 0..3 {
        running.write(&mut log, &body(number));
    }
    running.close(log);
    let path = rig.segments().remove(0);
    assert_eq!(check_segment(&path).unwrap().records, 3);
    let mut bytes = std::fs::read(&path).unwrap();
    let at = bytes.windows(BODY_BYTES).position(|window| window == body(1)).unwrap();
    bytes[at + 100] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let check = check_segment(&path).unwrap();
    assert_eq!(check.records, 1);
    assert!(check.damage.unwrap().contains("0000000001.seg: a bad record at offset"));
}
