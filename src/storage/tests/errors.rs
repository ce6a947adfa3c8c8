//! B-05, B-07: every single operation on the disk fails once. Nothing is acked that
//! is not there afterwards, a failed write or sync is final and never tried again, other shards go
//! on, and the next start finds a log that makes sense.
//!
//! `TERN_SOAK=2` and more tries every way to fail for each operation, not two of five.
#![allow(clippy::unwrap_used)] // also in the helpers of tests

mod support;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use support::countdown::{Countdown, CountdownDisk, Done, Fault};
use support::{Rig, SHARD, segments_at};
use tern_core::log::{AppendError, Log, RecordKind};
use tern_core::placement::ShardId;
use tern_diskmodel::quick::QuickDisk;
use tern_random::soaked;
use tern_storage::{Folder, FolderOptions, MappedLog, Storage};

/// Records of a run: enough for a second segment.
const RECORDS: usize = 40;

/// Bytes of each.
const BODY_BYTES: usize = 9000;

/// Starts in a run.
const STARTS: usize = 3;

/// Runs at the same time: most of each waits for the I/O thread's next attempt.
const THREADS: usize = 24;

/// No run has more operations than this.
const OPS_MAX: u64 = 1000;

/// What a run with a fault in it came to.
#[derive(Default)]
struct Run {
    bodies: Vec<Vec<u8>>,
    /// How many of them were shown as durable.
    acked: usize,
    /// Records that were refused for want of room, and appended later.
    refused_full: u64,
}

fn rig(plan: &mut Arc<Mutex<Countdown>>) -> Rig {
    let disk = CountdownDisk::default();
    *plan = Arc::clone(&disk.plan);
    Rig { disk: Arc::new(disk), ..Rig::new() }
}

impl Run {
    /// Starts, appends and ends, some times; a start that fails is tried once more by the next.
    fn live(&mut self, rig: &Rig) {
        for start in 0..STARTS {
            let options = FolderOptions { shards: 1, disk: Arc::clone(&rig.disk) };
            let Ok(folder) = Folder::open(rig.path(), options) else { continue };
            drop(folder);
            let running = rig.start();
            let Ok((opened, _, told)) = running.try_open() else { continue };
            assert!(told.records.len() >= self.acked, "an acked record is lost");
            assert!(told.bodies() == self.bodies[..told.records.len()], "torn or foreign records");
            self.bodies.truncate(told.records.len());
            self.acked = self.bodies.len();
            let mut log = opened.log;
            self.append(&running, &mut log, start);
            if start == 0 { running.kill(log) } else { running.close(log) }
        }
    }

    /// Appends until the records of this start are durable, or the log fails.
    fn append(&mut self, running: &support::Running, log: &mut MappedLog, start: usize) {
        for _ in 0..RECORDS / STARTS {
            let body = vec![self.bodies.len() as u8 ^ (start as u8) << 6; BODY_BYTES];
            let (mut at, mut failed) = (None, false);
            running.until(|| {
                match at {
                    None => match log.append(RecordKind::Message, Default::default(), &[&body]) {
                        Ok(offset) => at = Some(offset),
                        Err(AppendError::Failed) => failed = true,
                        Err(AppendError::Full) => self.refused_full += 1,
                        Err(AppendError::Busy) => {}
                    },
                    Some(at) => {
                        log.commit();
                        match log.durable() {
                            Ok(proof) => return proof.covers(at),
                            Err(_) => failed = true,
                        }
                    }
                }
                failed
            });
            if at.is_some() {
                self.bodies.push(body);
            }
            if failed {
                return;
            }
            self.acked = self.bodies.len();
        }
    }
}

/// A run in which the n-th operation fails, and then one on a good disk: whether there was an n-th
/// operation, and how many records were refused for want of room meanwhile.
fn with_fault(n: u64, fault: Fault) -> (bool, u64) {
    let mut plan = Arc::default();
    let mut rig = rig(&mut plan);
    plan.lock().unwrap().left = Some((n, fault));
    let mut run = Run::default();
    run.live(&rig);
    let fired = plan.lock().unwrap().fired.is_some();
    rig.disk = Arc::new(QuickDisk);
    let before = run.acked;
    let mut after = Run { refused_full: 0, ..run };
    after.live(&rig);
    let expected = before + STARTS * (RECORDS / STARTS);
    assert!(after.acked >= expected, "{fault:?} at {n}: {} of {expected}", after.acked);
    (fired, run.refused_full)
}

#[test]
fn b_05_every_operation_fails_once_in_every_way() {
    // With more time, in every other way too.
    let ways = if soaked(1) > 1 { &Fault::ALL[..] } else { &[Fault::Full, Fault::Half] };
    for &fault in ways {
        let (next, covered, full) = (AtomicU64::new(1), AtomicU64::new(0), AtomicU64::new(0));
        let ops = AtomicU64::new(OPS_MAX);
        std::thread::scope(|scope| {
            let work = || {
                loop {
                    let n = next.fetch_add(1, Ordering::AcqRel);
                    if n > ops.load(Ordering::Acquire) {
                        return;
                    }
                    let (fired, refused) = with_fault(n, fault);
                    full.fetch_add(refused, Ordering::AcqRel);
                    if fired {
                        covered.fetch_add(1, Ordering::AcqRel);
                    } else {
                        ops.fetch_min(n - 1, Ordering::AcqRel);
                    }
                }
            };
            (0..THREADS).for_each(|_| drop(scope.spawn(work)));
        });
        let (covered, ops, full) = (covered.into_inner(), ops.into_inner(), full.into_inner());
        println!("TEST B-05 fault={fault:?} n={covered}/{ops} full={full} lost=0");
        assert!(ops > 40 && covered >= ops && ops < OPS_MAX, "{covered} of {ops}");
        assert!(fault != Fault::Full || full > 0, "a full disk refuses as full");
    }
}

/// B-07: the sync fails once and would succeed the second time. There is no second time.
#[test]
fn b_07_a_failed_sync_or_write_is_never_tried_again() {
    for (kind, fault) in
        [(Done::Sync, Fault::Broken), (Done::Sync, Fault::Full), (Done::Write, Fault::Half)]
    {
        let mut plan = Arc::default();
        let mut rig = rig(&mut plan);
        rig.shards = 2;
        let running = rig.start();
        let mut logs = [ShardId(0), ShardId(1)].map(|shard| running.open_shard(shard).0.log);
        for log in &mut logs {
            running.write(log, b"acked");
        }
        let [log, other] = &mut logs;
        settle(&running.storage, &running, &plan);
        *plan.lock().unwrap() =
            Countdown { left: Some((1, fault)), only: Some(kind.clone()), ..Countdown::default() };
        log.append(RecordKind::Message, Default::default(), &[b"never acked"]).unwrap();
        log.commit();
        running.until(|| log.durable().is_err());
        assert_eq!(plan.lock().unwrap().fired, Some(kind.clone()));
        let ops = plan.lock().unwrap().ops;
        for _ in 0..100 {
            log.commit();
            assert!(log.durable().is_err(), "a failure is final");
            let again = log.append(RecordKind::Message, Default::default(), &[b"x"]);
            assert_eq!(again, Err(AppendError::Failed));
        }
        assert_eq!(plan.lock().unwrap().ops, ops, "nobody asked the disk again");
        running.write(other, b"another shard serves");
        assert!(running.storage.failure(SHARD).is_some());
        assert_eq!(running.storage.failure(ShardId(1)), None);
        logs.into_iter().for_each(std::mem::forget);
        running.storage.shutdown();
        println!("TEST B-07 kind={kind:?} fault={fault:?} n=100 retried=0 acked_after=0");
    }
}

/// A file system that copies on write may want room even for what was allocated. Nothing was
/// synced yet, so this write alone is tried again.
#[test]
fn a_write_without_room_waits_for_it() {
    let mut plan = Arc::default();
    let rig = rig(&mut plan);
    let running = rig.start();
    let mut log = running.log();
    running.write(&mut log, b"first");
    *plan.lock().unwrap() = Countdown {
        left: Some((1, Fault::Full)),
        only: Some(Done::Write),
        again: true,
        ..Countdown::default()
    };
    let body = [2; 999];
    let at = log.append(RecordKind::Message, Default::default(), &[&body]).unwrap();
    log.commit();
    let append = |log: &mut MappedLog| log.append(RecordKind::Message, Default::default(), &[b"x"]);
    running.until(|| append(&mut log) == Err(AppendError::Full));
    assert!(running.storage.is_full(SHARD) && !log.durable().unwrap().covers(at));
    plan.lock().unwrap().again = false;
    running.until(|| log.durable().unwrap().covers(at));
    running.until(|| !running.storage.is_full(SHARD));
    assert_eq!(running.storage.failure(SHARD), None);
    running.kill(log);
    assert!(rig.peek().bodies()[..2] == [b"first".to_vec(), body.to_vec()]);
}

/// Waits until the I/O thread has made the spare segments, so that nobody else uses the disk.
fn settle(storage: &Storage, running: &support::Running, plan: &Mutex<Countdown>) {
    let spare = |shard| storage.stats(ShardId(shard)).segments >= 2;
    running.until(|| spare(0) && spare(1) && plan.lock().unwrap().left.is_none());
    assert!(segments_at(storage.folder().path()).len() >= 2);
}
