//! Checkpoints: the same state as the log they stand for, whatever happens to them.

#![allow(clippy::unwrap_used)] // also in the helpers of tests

mod support;

use std::fs::{self, File};
use std::os::unix::fs::FileExt;

use support::chat::{Chat, checkpoints_at, open_rows, rows_of_copy, upkeep_rig};
use support::{Rig, Running, SHARD};
use tern_core::shard::state::StateKind;
use tern_random::{seed_from_env, soaked};
use tern_storage::{MappedLog, RecoverError};

/// Writes until the log has this many more segments, all durable.
fn fill(chat: &mut Chat, running: &Running, log: &mut MappedLog, segments: u64) {
    let goal = running.storage.stats(SHARD).segments + segments;
    while running.storage.stats(SHARD).segments < goal {
        let at = match chat.random.below(8) {
            0 => chat.take_back(running, log),
            _ => chat.act(running, log, 20_000),
        };
        running.make_durable(log, at);
    }
}

#[test]
fn a_checkpoint_and_the_log_behind_it_are_the_whole_log() {
    let (mut logs, mut rows_all, mut made) = (0, 0, 0);
    let (mut recalled, mut blocked) = (0, 0);
    let first = seed_from_env(1);
    for seed in first..first + soaked(4) {
        let (rig, _) = upkeep_rig();
        let mut chat = Chat::new(seed, 6, 3);
        for _ in 0..3 {
            let running = rig.start();
            let (opened, _) = open_rows(&running).unwrap();
            let mut log = opened.log;
            for _ in 0..2 {
                fill(&mut chat, &running, &mut log, 1);
                running.storage.maintain();
            }
            made += running.storage.upkeep(SHARD).checkpoints_made;
            assert_eq!(running.storage.upkeep(SHARD).suspended, None);
            if chat.random.below(2) == 0 {
                running.close(log);
            } else {
                running.kill(log);
            }
            let (with, rows) = rows_of_copy(&rig, rig.path(), true);
            let (without, expected) = rows_of_copy(&rig, rig.path(), false);
            assert!(with.checkpoint.is_some() && without.checkpoint.is_none(), "seed {seed}");
            assert!(with.records < without.records, "the checkpoint spares something");
            assert_eq!(rows, expected, "seed {seed}");
            let of = |kind| rows.iter().filter(|(of, _)| *of == kind).count();
            recalled += of(StateKind::Recall);
            blocked += of(StateKind::Block);
            rows_all += rows.len();
            logs += 1;
        }
        assert_eq!(checkpoints_at(rig.path()).len(), 2, "two are kept");
    }
    assert!(recalled > 0 && blocked > 0, "every kind that these logs make is tried");
    println!(
        "TEST checkpoint=replay seed={} n={logs} rows={rows_all} made={made} lost=0",
        seed_from_env(1)
    );
}

/// A folder with two checkpoints, and a log behind them; and its state.
fn two_checkpoints(rig: &Rig) {
    let running = rig.start();
    let (opened, _) = open_rows(&running).unwrap();
    let (mut log, mut chat) = (opened.log, Chat::new(seed_from_env(1), 2, 1));
    for _ in 0..2 {
        fill(&mut chat, &running, &mut log, 2);
        running.storage.maintain();
    }
    running.close(log);
    assert_eq!(checkpoints_at(rig.path()).len(), 2);
}

#[test]
fn every_flipped_bit_falls_back_to_the_older_one() {
    let (rig, _) = upkeep_rig();
    two_checkpoints(&rig);
    let expected = rows_of_copy(&rig, rig.path(), false).1;
    let newest = checkpoints_at(rig.path()).pop().unwrap();
    let file = File::options().read(true).write(true).open(&newest).unwrap();
    let len = file.metadata().unwrap().len();
    let running = rig.start();
    let mut flips = 0u64;
    for place in 0..len {
        // Most of the header's page is zeros.
        let bits = if (256..4092).contains(&place) { place % 8..place % 8 + 1 } else { 0..8 };
        for bit in bits {
            let mut byte = [0];
            file.read_exact_at(&mut byte, place).unwrap();
            file.write_all_at(&[byte[0] ^ 1 << bit], place).unwrap();
            let scan = running.storage.scan_shard(SHARD).unwrap();
            let report = scan.report();
            assert_eq!(report.checkpoint, Some(1), "bit {bit} of byte {place} went unseen");
            assert!(report.checkpoints_bad[0].contains("0000000002.ckpt"), "{report:?}");
            file.write_all_at(&byte, place).unwrap();
            flips += 1;
        }
    }
    assert_eq!(running.storage.scan_shard(SHARD).unwrap().report().checkpoint, Some(2));
    drop(running);
    file.write_all_at(&[0xff; 64], len / 2).unwrap();
    let (report, rows) = rows_of_copy(&rig, rig.path(), true);
    assert_eq!((report.checkpoint, &rows), (Some(1), &expected), "the older one has the same");
    println!("TEST checkpoint flips={flips} detected={flips} fell_back={flips} bytes={len}");
}

#[test]
fn a_truncated_or_foreign_one_is_not_used() {
    let (rig, _) = upkeep_rig();
    two_checkpoints(&rig);
    let paths = checkpoints_at(rig.path());
    let whole = fs::read(&paths[1]).unwrap();
    let running = rig.start();
    for len in [0, 1, 4095, 4096, whole.len() - 1] {
        fs::write(&paths[1], &whole[..len]).unwrap();
        let scan = running.storage.scan_shard(SHARD).unwrap();
        assert_eq!(scan.report().checkpoint, Some(1), "{len} bytes");
    }
    let (other, _) = upkeep_rig();
    two_checkpoints(&other);
    fs::copy(&checkpoints_at(other.path())[1], &paths[1]).unwrap();
    let scan = running.storage.scan_shard(SHARD).unwrap();
    assert!(scan.report().checkpoints_bad[0].contains("another data folder"));
    fs::copy(&paths[0], &paths[1]).unwrap();
    let scan = running.storage.scan_shard(SHARD).unwrap();
    assert!(scan.report().checkpoints_bad[0].contains("another number than its name"));
}

#[test]
fn without_a_good_one_and_without_the_first_segment_nothing_begins_anew() {
    let (rig, _) = upkeep_rig();
    two_checkpoints(&rig);
    let first = rig.segments()[0].clone();
    for path in checkpoints_at(rig.path()) {
        let len = fs::metadata(&path).unwrap().len();
        File::options().write(true).open(&path).unwrap().set_len(len - 8).unwrap();
    }
    let before = rows_of_copy(&rig, rig.path(), true);
    assert_eq!((before.0.checkpoint, before.0.checkpoints_bad.len()), (None, 2));
    assert_eq!(before.1, rows_of_copy(&rig, rig.path(), false).1, "the whole log is there");
    fs::remove_file(first).unwrap();
    let running = rig.start();
    let error = running.storage.scan_shard(SHARD).unwrap_err();
    assert!(matches!(error, RecoverError::NoState { oldest: 2, .. }), "{error}");
    let text = error.to_string();
    for part in ["no good checkpoint", "0000000001.ckpt", "0000000002.ckpt", "backup"] {
        assert!(text.contains(part), "{text}");
    }
}
