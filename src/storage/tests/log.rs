//! Appending, committing and reading, while everything is well and while it is not.

#![allow(clippy::unwrap_used)] // also in the helpers of tests

mod support;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};

use support::faulty::FaultyDisk;
use support::{Rig, SHARD};
use tern_core::log::{AppendError, Links, Log, Offset, ReadError, Reader, RecordKind};
use tern_storage::{Durability, PENDING_BYTES_MAX, SEGMENT_BYTES_MIN};

fn body(number: usize) -> Vec<u8> {
    let mut body = format!("message {number} ").into_bytes();
    body.resize(20 + number * 37 % 3000, number as u8);
    body
}

#[test]
fn what_is_appended_is_read_over_many_segments_and_a_restart() {
    let rig = Rig::new();
    let running = rig.start();
    let (mut log, mut reader) = (running.log(), running.storage.reader());
    let mut written: Vec<(Offset, Links)> = Vec::new();
    for number in 0..800 {
        let older = |back: usize| written.iter().rev().nth(back).map_or(Offset(0), |w| w.0);
        let links = Links { channel: older(0), device: older(6), skip: older(40) };
        let at = running.append_linked(&mut log, links, &body(number));
        assert!(written.last().is_none_or(|last| last.0 < at));
        written.push((at, links));
        let own = log.with_record(at, |record| (record.links, record.body.to_vec()));
        assert_eq!(own, Ok((links, body(number))), "from memory");
        if number % 50 == 49 {
            running.make_durable(&mut log, at);
        }
    }
    assert!(rig.segments().len() > 3, "{:?}", rig.segments());
    for (number, (at, links)) in written.iter().enumerate() {
        let read =
            |record: tern_core::log::Record<'_>| (record.kind, record.links, record.body.to_vec());
        let expected = Ok((RecordKind::Message, *links, body(number)));
        assert_eq!(reader.with_record(SHARD, *at, read), expected);
        assert_eq!(log.with_record(*at, read), expected);
    }
    running.close(log);

    let running = rig.start();
    let (opened, _, told) = running.open();
    let bodies: Vec<_> = (0..800).map(body).collect();
    assert_eq!(told.bodies(), bodies);
    assert!(told.records.iter().map(|r| (r.0, r.1)).eq(written.iter().copied()));
    assert!(told.raised.is_empty() && opened.raised.is_none());
    assert!(opened.report.clean && !opened.report.torn);
    assert_eq!(opened.report.records, 800);
    let mut log = opened.log;
    let at = running.write(&mut log, b"and on");
    assert!(at > written.last().unwrap().0);
    for (number, (at, _)) in written.iter().enumerate() {
        let read = reader_of(&running, *at);
        assert_eq!(read, Ok(body(number)), "of an earlier run");
    }
    running.close(log);
}

fn reader_of(running: &support::Running, at: Offset) -> Result<Vec<u8>, ReadError> {
    running.storage.reader().with_record(SHARD, at, |record| record.body.to_vec())
}

#[test]
fn nothing_is_shown_before_it_is_durable() {
    let rig = Rig::new();
    let running = rig.start();
    let mut log = running.log();
    let before = log.durable().unwrap();
    let at = running.append(&mut log, b"soon");
    assert!(!before.covers(at) && !log.durable().unwrap().covers(at));
    assert_eq!(reader_of(&running, at), Err(ReadError::LOST));
    running.make_durable(&mut log, at);
    assert_eq!(reader_of(&running, at), Ok(b"soon".to_vec()));
    assert_eq!(log.tail(), log.durable().unwrap().end());
    running.close(log);
}

#[test]
fn a_reader_on_another_thread_follows() {
    let rig = Rig::new();
    let running = rig.start();
    let mut log = running.log();
    let mut reader = running.storage.reader();
    let (offsets, appended) = mpsc::sync_channel::<(usize, Offset)>(1);
    let follower = std::thread::spawn(move || {
        let mut all = Vec::new();
        for (number, at) in appended {
            all.push((number, at));
            // The new one, and an old one, perhaps of another segment.
            for (number, at) in [(number, at), all[number * 7919 % all.len()]] {
                let read = reader.with_record(SHARD, at, |record| record.body.to_vec());
                assert_eq!(read, Ok(body(number)));
            }
        }
        all.len()
    });
    for number in 0..600 {
        let at = running.append(&mut log, &body(number));
        running.make_durable(&mut log, at);
        offsets.send((number, at)).unwrap();
    }
    drop(offsets);
    assert_eq!(follower.join().unwrap(), 600);
    running.close(log);
}

#[test]
fn offsets_that_are_no_records_are_lost_not_read() {
    let rig = Rig::new();
    let running = rig.start();
    let mut log = running.log();
    let at = running.write(&mut log, b"one");
    for wrong in [0, 8, 4096, log.tail().0, u64::MAX] {
        assert_eq!(reader_of(&running, Offset(wrong)), Err(ReadError::LOST), "at {wrong}");
        assert!(log.with_record(Offset(wrong), |_| ()).is_err());
    }
    for wrong in [at.0 + 8, at.0 - 8] {
        assert_eq!(reader_of(&running, Offset(wrong)), Err(ReadError::Cold), "looks first");
        running.warm(Offset(wrong), None);
        assert_eq!(reader_of(&running, Offset(wrong)), Err(ReadError::LOST), "at {wrong}");
    }
    running.close(log);
}

#[test]
fn a_failed_sync_is_final_and_acks_nothing() {
    for process in [false, true] {
        let mut rig = Rig::new();
        let disk = FaultyDisk::default();
        let plan = Arc::clone(&disk.plan);
        rig.disk = Arc::new(disk);
        if process {
            rig.config.durability = Durability::Process;
        }
        let running = rig.start();
        let mut log = running.log();
        let kept = running.write(&mut log, b"kept");
        {
            let mut plan = plan.lock().unwrap();
            plan.syncs_left = Some(0);
            plan.writes_fail = process;
        }
        let at = running.append(&mut log, b"not acked");
        log.commit();
        running.until(|| log.durable().is_err());
        *plan.lock().unwrap() = support::faulty::Plan::default();
        log.commit();
        assert!(log.durable().is_err(), "the disk works again, and that proves nothing");
        assert_eq!(
            log.append(RecordKind::Message, Links::default(), &[]),
            Err(AppendError::Failed)
        );
        assert_eq!(reader_of(&running, at), Err(ReadError::LOST));
        assert_eq!(reader_of(&running, kept), Ok(b"kept".to_vec()));
        let why = log.failure().unwrap();
        assert!(why.contains("the disk") && why.contains(".seg"), "{why}");
        running.kill(log);
        assert_eq!(rig.peek().bodies()[0], b"kept");
    }
}

#[test]
fn a_full_disk_refuses_and_recovers() {
    let mut rig = Rig::new();
    rig.config.bytes_max = 3 * SEGMENT_BYTES_MIN;
    let running = rig.start();
    let mut log = running.log();
    let mut written = 0;
    loop {
        match log.append(RecordKind::Message, Links::default(), &[&body(written)]) {
            Ok(_) => written += 1,
            Err(AppendError::Full) => break,
            Err(AppendError::Busy) => std::thread::yield_now(),
            Err(AppendError::Failed) => panic!("a full disk is no failure"),
        }
        log.commit();
        log.durable().unwrap();
    }
    assert!(running.storage.stats(SHARD).bytes_reserved <= rig.config.bytes_max);
    let last = Offset(log.tail().0 - 1);
    running.make_durable(&mut log, last);
    running.close(log);
    // More may be used: all is there, and it goes on.
    rig.config.bytes_max = 6 * SEGMENT_BYTES_MIN;
    let running = rig.start();
    let (opened, _, told) = running.open();
    assert_eq!(told.bodies(), (0..written).map(body).collect::<Vec<_>>());
    let mut log = opened.log;
    running.write(&mut log, b"and on");
    running.close(log);
}

#[test]
fn a_disk_that_others_fill_refuses_and_recovers() {
    let mut rig = Rig::new();
    let disk = FaultyDisk::default();
    let plan = Arc::clone(&disk.plan);
    rig.disk = Arc::new(disk);
    let running = rig.start();
    let mut log = running.log();
    running.write(&mut log, b"first");
    plan.lock().unwrap().room = Some(0);
    let mut seen = [false; 2];
    while !seen[1] {
        match log.append(RecordKind::Message, Links::default(), &[&[7; 4000]]) {
            Ok(_) => {}
            Err(AppendError::Full) => seen[1] = true,
            Err(_) => std::thread::yield_now(),
        }
        log.commit();
        log.durable().unwrap();
    }
    plan.lock().unwrap().room = None;
    running.write(&mut log, b"there is room again");
    running.close(log);
    assert_eq!(rig.peek().bodies().pop().unwrap(), b"there is room again");
}

#[test]
fn too_much_that_is_not_durable_is_busy() {
    let mut rig = Rig::new();
    rig.config.segment_bytes_min = 4 * PENDING_BYTES_MAX as u64;
    rig.config.segment_bytes_max = rig.config.segment_bytes_min;
    let running = rig.start();
    let mut log = running.log();
    running.write(&mut log, b"first");
    let (mut bytes, big) = (0, vec![1; 100_000]);
    let refused = loop {
        match log.append(RecordKind::Message, Links::default(), &[&big]) {
            Ok(_) => bytes += big.len(),
            Err(error) => break error,
        }
    };
    assert_eq!(refused, AppendError::Busy);
    assert!((PENDING_BYTES_MAX - 200_000..PENDING_BYTES_MAX).contains(&bytes), "{bytes}");
    let last = Offset(log.tail().0 - 1);
    running.make_durable(&mut log, last);
    running.append(&mut log, &big);
    running.close(log);
}

#[test]
fn cold_records_are_warmed_by_the_io_thread() {
    let rig = Rig::new();
    let running = rig.start();
    let mut log = running.log();
    let offsets: Vec<_> = (0..300).map(|number| running.append(&mut log, &body(number))).collect();
    running.make_durable(&mut log, offsets[299]);
    running.close(log);
    for path in rig.segments() {
        let file = std::fs::File::open(path).unwrap();
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
    }
    // The recovery has just read everything, so the pages are warm until they are dropped again.
    let running = rig.start();
    let log = running.log();
    for path in rig.segments() {
        let file = std::fs::File::open(path).unwrap();
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
    }
    let mut reader = running.storage.reader();
    let asked = AtomicU64::new(0);
    for (number, at) in offsets.iter().enumerate().rev() {
        let read = loop {
            match reader.with_record(SHARD, *at, |record| record.body.to_vec()) {
                Err(ReadError::Cold) => {
                    running.warm(*at, None);
                    asked.fetch_add(1, Ordering::Relaxed);
                }
                result => break result,
            }
        };
        assert_eq!(read, Ok(body(number)));
    }
    let asked = asked.into_inner();
    assert!(asked <= 20, "asked {asked} times for {} segments", rig.segments().len());
    assert_eq!(running.storage.stats(SHARD).warmed, asked);
    running.close(log);
}

#[test]
fn stats_count() {
    let rig = Rig::new();
    let running = rig.start();
    let mut log = running.log();
    for number in 0..10 {
        running.write(&mut log, &body(number));
    }
    log.durable().unwrap();
    let stats = running.storage.stats(SHARD);
    assert_eq!((stats.records, stats.batches, stats.bytes_pending), (10, 10, 0));
    assert!(stats.bytes_used > (0..10).map(|number| body(number).len() as u64).sum());
    assert!(stats.commit_us_max >= stats.commit_us_mean && stats.commit_us_p99 > 0);
    assert_eq!(stats.bytes_reserved % 4096, 0);
    running.close(log);
}
