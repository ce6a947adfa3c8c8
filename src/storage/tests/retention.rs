//! Retention: what is past it goes, nothing else does, and no crash on the way takes more.

#![allow(clippy::unwrap_used)] // also in the helpers of tests

mod support;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use support::chat::{
    Chat, Hands, NOTER, Rows, checkpoints_at, open_rows, rows_of_copy, upkeep_rig,
};
use support::countdown::{CountdownDisk, Fault};
use support::{Rig, Running, SHARD, copy_dir};
use tern_core::log::{AppendError, Log, Offset, ReadError, Reader};
use tern_core::shard::state::{ChannelRow, StateKind};
use tern_diskmodel::model::{Luck, Model};
use tern_diskmodel::quick::QuickDisk;
use tern_diskmodel::trace::{Kept, TraceDisk};
use tern_random::{Stream, seed_from_env, soaked};
use tern_storage::{Eviction, MappedLog, SEGMENT_BYTES_MIN, StorageConfig};
use zerocopy::FromBytes;

const DAY: u64 = 24 * 60 * 60 * 1000;
const RETENTION: u64 = 8 * DAY;

fn rig() -> (Rig, Arc<Hands>) {
    let (mut rig, hands) = upkeep_rig();
    rig.config.retention = Some(Duration::from_millis(RETENTION));
    (rig, hands)
}

/// Confirmed time goes by, in steps that a running server takes.
fn pass(running: &Running, hands: &Hands, ms: u64) {
    let step = 30 * 60 * 1000;
    for _ in 0..ms / step {
        hands.pass(step);
        running.storage.clock();
    }
}

/// Writes until the log has gone through this many more segments, all durable.
fn fill(chat: &mut Chat, running: &Running, log: &mut MappedLog, segments: u64) {
    let goal = log.tail().0 + segments * SEGMENT_BYTES_MIN;
    while log.tail().0 < goal {
        let at = chat.act(running, log, 20_000);
        running.make_durable(log, at);
    }
}

/// The rows, without what expiry changes; and the oldest id of each channel.
fn split(rows: &Rows) -> (Rows, Vec<u64>) {
    let mut oldest = Vec::new();
    let strip = |(kind, row): &(StateKind, Vec<u8>)| {
        let mut row = row.clone();
        if *kind == StateKind::Channel {
            let (fixed, _) = ChannelRow::mut_from_prefix(&mut row).unwrap();
            oldest.push(fixed.oldest.get());
            fixed.oldest = 0.into();
        }
        (*kind, row)
    };
    let noted = |row: &&(StateKind, Vec<u8>)| {
        row.0 == StateKind::Entry && row.1[..8] == NOTER.to_le_bytes()
    };
    (rows.iter().filter(|row| !noted(row)).map(strip).collect(), oldest)
}

/// Each message is either read back or past its channel's oldest; how many are read.
fn read_all(chat: &Chat, log: &mut MappedLog, oldest: &[u64]) -> usize {
    let mut read = 0;
    for ((_, messages), oldest) in chat.channels.iter().zip(oldest) {
        for (index, at) in messages.iter().enumerate() {
            let found = log.with_record(*at, |record| record.body.len());
            if index as u64 + 1 >= *oldest {
                assert!(found.is_ok(), "id {} of {}: {found:?}", index + 1, messages.len());
                read += 1;
            }
        }
    }
    read
}

#[test]
fn what_is_past_its_retention_goes_and_nothing_else() {
    let (rig, hands) = rig();
    let running = rig.start();
    let (opened, _) = open_rows(&running).unwrap();
    let (mut log, mut reader) = (opened.log, running.storage.reader());
    let mut chat = Chat::new(seed_from_env(1), 5, 2);
    fill(&mut chat, &running, &mut log, 3);
    let old = chat.newest();
    pass(&running, &hands, RETENTION / 2);
    fill(&mut chat, &running, &mut log, 3);
    let before = rig.segments();
    running.storage.maintain();
    assert!(before.iter().all(|path| path.exists()), "nothing is old enough");
    pass(&running, &hands, RETENTION / 2 + DAY);
    running.storage.maintain();
    let upkeep = running.storage.upkeep(SHARD);
    assert_eq!(upkeep.suspended, None);
    assert!(upkeep.segments_deleted >= 2 && upkeep.bytes_freed > 0, "{upkeep:?}");
    let gone = before.iter().filter(|path| !path.exists()).count();
    assert_eq!(gone as u64, upkeep.segments_deleted);
    let mut told = std::collections::BTreeMap::new();
    while let Some((channel, up_to)) = log.poll_expired() {
        assert!(told.insert(channel.halves(), up_to.0).is_none(), "said twice");
    }
    assert!(!told.is_empty() && told.iter().all(|(channel, up_to)| *up_to <= old[channel]));
    let mut gone = 0;
    for (channel, messages) in &chat.channels {
        for (index, at) in messages.iter().enumerate() {
            let expired = told.get(channel).is_some_and(|up_to| (index as u64) < *up_to);
            let read = reader.with_record(SHARD, *at, |record| record.body.len());
            assert_eq!(matches!(read, Err(ReadError::Expired)), expired, "{read:?}");
            gone += u64::from(expired);
        }
    }
    running.kill(log);
    let running = rig.start();
    let (mut opened, rows) = open_rows(&running).unwrap();
    let (_, oldest) = split(&rows);
    for ((channel, _), oldest) in chat.channels.iter().zip(&oldest) {
        assert_eq!(*oldest, told.get(channel).map_or(1, |up_to| up_to + 1));
    }
    let kept = read_all(&chat, &mut opened.log, &oldest);
    println!("TEST retention expired={gone} kept={kept} lost=0 {upkeep:?}");
    running.close(opened.log);
}

/// A log in which something is about to expire, the power off after each step of doing so.
#[test]
fn a_power_cut_after_every_step_leaves_a_shard_that_opens_right() {
    let (rig, hands) = rig();
    let mut chat = Chat::new(seed_from_env(1), 3, 1);
    let running = rig.start();
    let mut log = open_rows(&running).unwrap().0.log;
    fill(&mut chat, &running, &mut log, 2);
    running.storage.maintain();
    fill(&mut chat, &running, &mut log, 2);
    running.close(log);
    let (expected, _) = split(&rows_of_copy(&rig, rig.path(), false).1);

    let (disk, trace) = TraceDisk::new(rig.path(), Kept::All);
    let rig = Rig { disk: Arc::new(disk), ..rig };
    let running = rig.start();
    let mut log = open_rows(&running).unwrap().0.log;
    // Proves that what is before it is sealed.
    Chat::note(&running, &mut log);
    let from = trace.lock().unwrap().ops.len();
    pass(&running, &hands, 2 * RETENTION);
    running.storage.maintain();
    let deleted = running.storage.upkeep(SHARD).segments_deleted;
    assert!(deleted >= 2, "{:?}", running.storage.upkeep(SHARD));
    running.kill(log);

    let trace = trace.lock().unwrap();
    let (mut model, mut random) = (Model::new(&trace), Stream::new(seed_from_env(1)));
    let (mut images, mut kept, mut with) = (0, 0, 0);
    for (number, op) in trace.ops.iter().enumerate() {
        model.apply(op);
        if number < from {
            continue;
        }
        for image in 0..soaked(3) {
            let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
            let chance = [0, 8, 1 + random.below(7)][image.min(2) as usize];
            let in_order = random.below(2) == 0;
            let mut arrives = || random.below(8) < chance;
            let mut luck = Luck { piece: 512, in_order, arrives: &mut arrives };
            model.power_cut(dir.path(), &mut luck);
            let (report, rows) = open_image(dir.path(), &chat, &mut kept);
            let (rows, _) = split(&rows);
            assert_eq!(rows, expected, "after step {number}, image {image}: {op:?}");
            with += u64::from(report.is_some());
            images += 1;
        }
    }
    assert!(with > 0 && images > 20);
    println!("TEST retention power_cuts n={images} from_checkpoint={with} read={kept} lost=0");
}

fn open_image(path: &Path, chat: &Chat, kept: &mut usize) -> (Option<u64>, Rows) {
    let (mut rig, _) = rig();
    rig.disk = Arc::new(QuickDisk);
    rig.config = StorageConfig { boot: Some([9; 16]), ..rig.config };
    let running = rig.start_at(path);
    let (mut opened, rows) = open_rows(&running).unwrap();
    *kept += read_all(chat, &mut opened.log, &split(&rows).1);
    let checkpoint = opened.report.checkpoint;
    running.kill(opened.log);
    (checkpoint, rows)
}

#[test]
fn each_step_fails_once_and_the_next_pass_does_it() {
    let (rig, hands) = rig();
    let mut chat = Chat::new(seed_from_env(1), 3, 1);
    let running = rig.start();
    let mut log = open_rows(&running).unwrap().0.log;
    fill(&mut chat, &running, &mut log, 3);
    running.storage.maintain();
    pass(&running, &hands, 2 * RETENTION);
    running.close(log);
    let (mut tried, mut step) = (0, 0);
    loop {
        let fault = Fault::ALL[step as usize % Fault::ALL.len()];
        let copy = tempfile::tempdir().unwrap();
        copy_dir(rig.path(), copy.path());
        let disk = CountdownDisk::default();
        let plan = Arc::clone(&disk.plan);
        let faulty = Rig { disk: Arc::new(disk), ..self::rig().0 };
        let faulty =
            Rig { config: StorageConfig { clock: hands.clone(), ..faulty.config }, ..faulty };
        let running = faulty.start_at(copy.path());
        let mut log = open_rows(&running).unwrap().0.log;
        Chat::note(&running, &mut log);
        pass(&running, &hands, 2 * RETENTION);
        plan.lock().unwrap().left = Some((step, fault));
        running.storage.maintain();
        let fired = plan.lock().unwrap().fired.is_some();
        plan.lock().unwrap().left = None;
        running.kill(log);
        let expected = split(&rows_of_copy(&rig, rig.path(), false).1).0;
        let found = rows_of_copy(&faulty, copy.path(), true).1;
        assert_eq!(split(&found).0, expected, "step {step} fails as {fault:?}");
        if !fired {
            break;
        }
        (tried, step) = (tried + 1, step + 1);
    }
    println!("TEST retention failing steps n={tried}/{tried}");
}

#[test]
fn counters_and_epochs_go_on_after_everything_has_expired() {
    let (rig, hands) = rig();
    let mut chat = Chat::new(seed_from_env(1), 4, 2);
    let running = rig.start();
    let mut log = open_rows(&running).unwrap().0.log;
    fill(&mut chat, &running, &mut log, 2);
    running.close(log);
    let expected = split(&rows_of_copy(&rig, rig.path(), false).1).0;
    // Each round closes a segment that has got old, until none with a message is left.
    for _ in 0..3 {
        let running = rig.start();
        let mut log = open_rows(&running).unwrap().0.log;
        Chat::note(&running, &mut log);
        running.storage.maintain();
        pass(&running, &hands, RETENTION);
        running.storage.maintain();
        Chat::note(&running, &mut log);
        Chat::note(&running, &mut log);
        pass(&running, &hands, RETENTION);
        running.storage.maintain();
        running.close(log);
    }
    // A reboot: no table, another boot.
    let mut after = Rig { config: StorageConfig { boot: Some([8; 16]), ..rig.config }, ..rig };
    let shm = tempfile::tempdir().unwrap();
    after.config.dedup_dir = shm.path().into();
    let running = after.start();
    let (mut opened, rows) = open_rows(&running).unwrap();
    let (rows, oldest) = split(&rows);
    assert_eq!(rows, expected, "ids, epochs and windows are what they were");
    let newest = chat.newest();
    assert!(newest.values().zip(&oldest).all(|(newest, oldest)| *oldest == newest + 1));
    assert_eq!(read_all(&chat, &mut opened.log, &oldest), 0);
    let messages: u64 = newest.values().sum();
    println!("TEST retention all_expired n={messages} channels={} reused=0", newest.len());
    running.close(opened.log);
}

#[test]
fn a_jump_of_the_clock_deletes_nothing() {
    let (rig, hands) = rig();
    let running = rig.start();
    let mut log = open_rows(&running).unwrap().0.log;
    fill(&mut Chat::new(seed_from_env(1), 5, 2), &running, &mut log, 4);
    let (before, years) = (rig.segments(), 10 * 365 * DAY);
    use std::sync::atomic::Ordering::Relaxed;
    for round in 1..=3 {
        hands.wall_ms.fetch_add(years, Relaxed);
        running.storage.maintain();
        hands.wall_ms.fetch_sub(2 * years, Relaxed);
        running.storage.maintain();
        hands.wall_ms.fetch_add(years, Relaxed);
        hands.pass(years); // a machine that slept
        running.storage.maintain();
        assert!(before.iter().all(|path| path.exists()), "round {round}");
    }
    let clock = running.storage.clock();
    assert!(clock.jumps >= 9 && clock.newest_jump.is_some(), "{clock:?}");
    running.close(log);
    // Nor does a clock that is lost, or old, over a reboot that took ten years.
    for lost in [true, false] {
        if lost {
            std::fs::remove_file(rig.path().join("clock")).unwrap();
        }
        hands.wall_ms.fetch_add(years, Relaxed);
        let boot = Some([40 + u8::from(lost); 16]);
        let config = StorageConfig { boot, clock: hands.clone(), ..rig.config.clone() };
        let again = Rig { config, dir: tempfile::tempdir().unwrap(), ..self::rig().0 };
        copy_dir(rig.path(), again.path());
        let running = again.start();
        let mut log = open_rows(&running).unwrap().0.log;
        Chat::note(&running, &mut log);
        running.storage.maintain();
        assert_eq!(running.storage.upkeep(SHARD).segments_deleted, 0);
        running.close(log);
    }
    println!("TEST clock jumps={} deleted=0", clock.jumps);
}

/// Writes until the log takes no more; whether that happened.
fn fill_up(chat: &mut Chat, running: &Running, log: &mut MappedLog, segments: u64) -> bool {
    let mut refused = false;
    let goal = log.tail().0 + segments * SEGMENT_BYTES_MIN;
    while log.tail().0 < goal && !refused {
        let body = vec![0; 60_000];
        running.until(|| {
            let result =
                log.append(tern_core::log::RecordKind::Entry, Default::default(), &[&body]);
            refused = result == Err(AppendError::Full);
            log.commit();
            log.durable().unwrap();
            result.is_ok() || refused
        });
    }
    chat.random.draw();
    refused
}

#[test]
fn a_full_bound_refuses_and_keeps_everything() {
    let (mut rig, _) = rig();
    rig.config.bytes_max = 6 * SEGMENT_BYTES_MIN;
    let running = rig.start();
    let mut log = open_rows(&running).unwrap().0.log;
    let mut chat = Chat::new(seed_from_env(1), 4, 2);
    assert!(fill_up(&mut chat, &running, &mut log, 12), "the bound holds");
    running.until(|| {
        log.commit();
        log.durable().unwrap().end() == log.tail()
    });
    let space = running.storage.space();
    assert!(space.used <= 6 * SEGMENT_BYTES_MIN && space.room < SEGMENT_BYTES_MIN, "{space:?}");
    assert_eq!((space.bound, space.eviction), (Some(6 * SEGMENT_BYTES_MIN), Eviction::Refuse));
    assert_eq!(running.storage.upkeep(SHARD).segments_deleted, 0);
    running.close(log);
}

#[test]
fn eviction_makes_room_from_the_oldest_on() {
    let (mut rig, _) = rig();
    rig.config.bytes_max = 8 * SEGMENT_BYTES_MIN;
    rig.config.eviction = Eviction::Oldest;
    let running = rig.start();
    let (mut log, mut reader) = (open_rows(&running).unwrap().0.log, running.storage.reader());
    let mut chat = Chat::new(seed_from_env(1), 4, 2);
    let mut written = 0u64;
    while written < 24 * SEGMENT_BYTES_MIN {
        let before = log.tail().0;
        let at = act_or_maintain(&mut chat, &running, &mut log);
        running.make_durable(&mut log, at);
        written += log.tail().0 - before;
        assert!(running.storage.space().used <= 9 * SEGMENT_BYTES_MIN, "a checkpoint beyond it");
    }
    let upkeep = running.storage.upkeep(SHARD);
    assert!(upkeep.segments_evicted > 10 && upkeep.suspended.is_none(), "{upkeep:?}");
    let (mut gone, mut kept) = (0, 0);
    for messages in chat.channels.values() {
        let mut read = |at| reader.with_record(SHARD, at, |_| ());
        let first = messages.iter().position(|at| read(*at) != Err(ReadError::Expired));
        let first = first.unwrap_or(messages.len());
        gone += first;
        kept += messages[first..].iter().filter(|at| log.with_record(**at, |_| ()).is_ok()).count();
        assert_eq!(first + messages[first..].len(), messages.len());
    }
    println!("TEST eviction evicted={gone} kept={kept} {upkeep:?}");
    assert!(gone > 0 && kept > 0);
    running.close(log);
}

/// The upkeep happens while the log has no room, as its thread would see it.
fn act_or_maintain(chat: &mut Chat, running: &Running, log: &mut MappedLog) -> Offset {
    running.storage.maintain();
    chat.act(running, log, 60_000)
}

#[test]
fn nothing_is_deleted_under_a_reader() {
    let (rig, hands) = rig();
    let running = rig.start();
    let mut log = open_rows(&running).unwrap().0.log;
    let mut chat = Chat::new(seed_from_env(1), 1, 1);
    let first = chat.send(&running, &mut log, 9_000);
    fill(&mut chat, &running, &mut log, 3);
    let mut reader = running.storage.reader();
    let seen = reader.with_record(SHARD, first, |record| {
        let before = record.body.to_vec();
        pass(&running, &hands, 2 * RETENTION);
        running.storage.maintain();
        assert!(running.storage.upkeep(SHARD).segments_deleted > 0);
        record.body == before && before.len() == 9_064
    });
    assert_eq!(seen, Ok(true), "it stays what it is as long as it is read");
    assert_eq!(reader.with_record(SHARD, first, |_| ()), Err(ReadError::Expired));
    running.close(log);
}

#[test]
fn without_two_good_checkpoints_nothing_is_deleted() {
    let (rig, hands) = rig();
    let running = rig.start();
    let mut log = open_rows(&running).unwrap().0.log;
    let mut chat = Chat::new(seed_from_env(1), 3, 1);
    for _ in 0..2 {
        fill(&mut chat, &running, &mut log, 2);
        running.storage.maintain();
    }
    let before = rig.segments();
    for path in checkpoints_at(rig.path()) {
        let file = File::options().write(true).open(&path).unwrap();
        file.write_all_at(&[0xff; 16], 4096 + 64).unwrap();
    }
    pass(&running, &hands, 2 * RETENTION);
    for bad in 1..=2 {
        running.storage.maintain();
        let upkeep = running.storage.upkeep(SHARD);
        // A spare one may have come meanwhile.
        assert!(before.iter().all(|path| path.exists()), "attempt {bad}");
        assert!(upkeep.suspended.unwrap().contains(".ckpt"), "the file is named");
        assert_eq!(upkeep.checkpoints_failed, bad);
    }
    running.storage.maintain();
    let upkeep = running.storage.upkeep(SHARD);
    assert!(upkeep.suspended.is_none() && upkeep.segments_deleted > 0, "{upkeep:?}");
    assert_eq!(checkpoints_at(rig.path()).len(), 2, "two new ones, from the whole log");
    running.close(log);
}

#[test]
fn a_segment_that_gets_old_is_closed() {
    let (rig, hands) = rig();
    let running = rig.start();
    let mut log = open_rows(&running).unwrap().0.log;
    let first = Chat::note(&running, &mut log);
    running.storage.maintain();
    assert!(Chat::note(&running, &mut log).0 < first.0 + SEGMENT_BYTES_MIN, "it is young");
    pass(&running, &hands, RETENTION / 8);
    running.storage.maintain();
    // As soon as there is a segment to go on in.
    running.until(|| running.storage.stats(SHARD).segments == 2);
    while Chat::note(&running, &mut log).0 < SEGMENT_BYTES_MIN {}
    running.storage.maintain();
    let len = std::fs::metadata(&rig.segments()[0]).unwrap().len();
    assert_eq!(len, 8192, "what was never written is given back");
    running.close(log);
    let running = rig.start();
    assert_eq!(open_rows(&running).unwrap().0.report.records, 1, "the rest is in a checkpoint");
}
