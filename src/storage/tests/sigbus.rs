//! B-11: a segment's file is cut, or a hole is punched into it, while threads read from its
//! mapping. The process lives, what is gone is told as lost, nothing else is, and other shards
//! serve.
#![allow(clippy::unwrap_used)] // also in the helpers of tests

mod support;

use std::fs::File;
use std::path::Path;
use std::sync::RwLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::{FallocateFlags, fallocate};
use support::{Rig, Running};
use tern_core::log::{Log, Offset, ReadError, Reader, RecordKind};
use tern_core::placement::ShardId;
use tern_storage::{MappedLog, MappedReader, SEGMENT_BYTES_MIN, guard_mappings};

/// Bytes of each body: some hundred records a segment.
const BODY_BYTES: usize = 900;

/// Threads that read all the while.
const READERS: usize = 2;

/// What is done to a file under its readers.
#[derive(Clone, Copy, Debug)]
enum Harm {
    Cut,
    Hole,
}

impl Harm {
    fn apply(self, path: &Path, from: u64) {
        let file = File::options().write(true).open(path).unwrap();
        let len = file.metadata().unwrap().len();
        match self {
            Self::Cut => file.set_len(from).unwrap(),
            Self::Hole => {
                let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                fallocate(&file, flags, from, len - from).unwrap();
            }
        }
    }
}

/// Two shards with records, open and served.
struct Stage {
    rig: Rig,
    running: Running,
    logs: Vec<MappedLog>,
    written: Vec<Vec<Offset>>,
}

impl Stage {
    fn new() -> Self {
        guard_mappings().unwrap();
        let mut rig = Rig::new();
        rig.shards = 2;
        let running = rig.start();
        let logs = [ShardId(0), ShardId(1)].map(|shard| running.open_shard(shard).0.log).into();
        let mut stage = Self { rig, running, logs, written: vec![Vec::new(); 2] };
        while stage.rig.segments().len() < 4 {
            stage.append(0);
            stage.append(1);
        }
        stage
    }

    /// Appends a record and makes it durable; whether that was possible.
    fn append(&mut self, shard: usize) -> bool {
        let (running, log) = (&self.running, &mut self.logs[shard]);
        let number = self.written[shard].len() as u64;
        let mut body = vec![number as u8; BODY_BYTES];
        body[..8].copy_from_slice(&number.to_le_bytes());
        let mut failed = false;
        let mut at = None;
        running.until(|| {
            log.commit();
            failed = log.durable().is_err();
            at = at.or_else(|| log.append(RecordKind::Message, Default::default(), &[&body]).ok());
            log.commit();
            failed || at.is_some_and(|at| log.durable().is_ok_and(|proof| proof.covers(at)))
        });
        if !failed {
            self.written[shard].push(at.expect("it is durable"));
        }
        !failed
    }

    /// Reads every record; the numbers of those that are lost.
    fn lost(&self, shard: usize) -> Vec<u64> {
        lost_of(&mut self.running.storage.reader(), shard, &self.written[shard])
    }
}

fn lost_of(reader: &mut MappedReader, shard: usize, written: &[Offset]) -> Vec<u64> {
    let mut lost = Vec::new();
    for (number, at) in (0..).zip(written) {
        let read = |reader: &mut MappedReader| {
            reader.with_record(ShardId(shard as u16), *at, |record| record.body.to_vec())
        };
        // Asked for again, as its owner does, when a page went away meanwhile.
        let body = match read(reader) {
            Err(ReadError::Cold) => read(reader),
            other => other,
        };
        match body {
            Ok(body) => {
                let said = u64::from_le_bytes(body[..8].try_into().unwrap());
                assert!(said == number && body.len() == BODY_BYTES, "{number} is not itself");
                assert!(body[8..].iter().all(|byte| *byte == number as u8), "{number} is torn");
            }
            Err(_) => lost.push(number),
        }
    }
    lost
}

/// The numbers of the records that touch a file from a place on.
fn touching(stage: &Stage, segment: usize, from: u64) -> Vec<u64> {
    let base = segment as u64 * SEGMENT_BYTES_MIN;
    let record = BODY_BYTES as u64 + 40;
    let inside = |at: u64| at + record > base + from && at < base + SEGMENT_BYTES_MIN;
    let numbers = (0u64..).zip(&stage.written[0]);
    numbers.filter(|(_, at)| inside(at.0)).map(|(number, _)| number).collect()
}

#[test]
fn b_11_a_sealed_segment_is_harmed_under_its_readers() {
    for harm in [Harm::Cut, Harm::Hole] {
        let mut stage = Stage::new();
        let (victim, from) = (stage.rig.segments()[1].clone(), 5 * 4096);
        let expected = touching(&stage, 1, from);
        let (stop, reads, stall_us) =
            (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
        let round = RwLock::new(());
        std::thread::scope(|scope| {
            for _ in 0..READERS {
                let (mut reader, written) = (stage.running.storage.reader(), stage.written.clone());
                let (stop, reads, stall_us) = (&stop, &reads, &stall_us);
                let round = &round;
                scope.spawn(move || {
                    let mut broken = 0;
                    while !stop.load(Ordering::Acquire) {
                        let _in_round = round.read().unwrap();
                        // Torn or foreign bytes would panic in there.
                        broken = lost_of(&mut reader, 0, &written[0]).len().max(broken);
                        let start = Instant::now();
                        assert!(lost_of(&mut reader, 1, &written[1]).is_empty());
                        let took = start.elapsed().max(Duration::ZERO).as_micros() as u64;
                        stall_us.fetch_max(took, Ordering::AcqRel);
                        reads.fetch_add(1, Ordering::AcqRel);
                    }
                });
            }
            let more = |rounds| {
                let goal = reads.load(Ordering::Acquire) + rounds;
                while reads.load(Ordering::Acquire) < goal {
                    std::thread::yield_now();
                }
            };
            more(3);
            match harm {
                Harm::Cut => harm.apply(&victim, from),
                // Zeros that come without a fault, between a checksum and the use of what it
                // proved, are not found out: no reader is in between.
                Harm::Hole => {
                    let _alone = round.write().unwrap();
                    harm.apply(&victim, from);
                }
            }
            more(3);
            stop.store(true, Ordering::Release);
        });
        let lost = stage.lost(0);
        assert_eq!(lost, expected, "{harm:?}: exactly what is gone is lost");
        let faults = stage.running.storage.read_faults(ShardId(0));
        match harm {
            Harm::Cut => assert!(faults.len() == 1 && faults[0].path == victim, "{faults:?}"),
            // A hole reads as zeros without a fault; the checksum tells.
            Harm::Hole => assert!(faults.is_empty()),
        }
        assert!(stage.running.storage.read_faults(ShardId(1)).is_empty());
        assert!(stage.append(0) && stage.append(1), "the log goes on behind its harmed past");
        println!(
            "TEST B-11 harm={harm:?} n={} lost={} others_lost={} longest_round_us={}",
            stage.written[0].len() + stage.written[1].len(),
            lost.len(),
            stage.lost(1).len(),
            stall_us.into_inner(),
        );
        stage.logs.drain(..).for_each(std::mem::forget);
        stage.running.storage.shutdown();
    }
}

#[test]
fn b_11_a_log_whose_own_segment_is_cut_acks_nothing_more() {
    let mut stage = Stage::new();
    let newest = *stage.written[0].last().unwrap();
    let segments = stage.rig.segments();
    let active = segments.iter().rev().nth(1).unwrap().clone(); // behind it is the spare one
    assert!(newest.0 / SEGMENT_BYTES_MIN + 2 == segments.len() as u64);
    Harm::Cut.apply(&active, 4096);
    assert!(!stage.lost(0).is_empty(), "what was acked is gone, and that is seen");
    assert!(!stage.append(0), "nothing more is acked on such ground");
    let why = stage.running.storage.failure(ShardId(0)).unwrap();
    assert!(why.contains(active.to_str().unwrap()), "{why}");
    assert!(stage.append(1), "another shard serves");
    assert_eq!(stage.running.storage.failure(ShardId(1)), None);
    println!("TEST B-11 harm=active n=1 acked_after=0 others_serve=1");
    stage.logs.drain(..).for_each(std::mem::forget);
    stage.running.storage.shutdown();
}
