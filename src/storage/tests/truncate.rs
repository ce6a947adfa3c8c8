//! B-01: files that end anywhere. A log of some hundred records in three segments, each segment
//! cut off at every byte in turn and the log replayed through the real state machine each time;
//! the model knows each record by what was appended, and shares nothing with recovery.
//!
//! A cut older segment is damage: all others are there, what is gone is named. A cut newest one
//! loses its end and nothing else, under a new incarnation, and the log goes on behind it.
//!
//! `TERN_SOAK` multiplies the logs that are cut, and how many of the cuts the log goes on from.
//! `TERN_SEED` says which logs.

#![allow(clippy::unwrap_used)] // also in the helpers of tests

mod support;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use support::chat::{Hands, upkeep_rig};
use support::model::{Known, Model, SEGMENT, Seen};
use support::{Rig, SHARD, copy_dir, segments_at};
use tern_core::log::{Log, Offset};
use tern_diskmodel::quick::QuickDisk;
use tern_protocol::MessageId;
use tern_random::{Stream, seed_from_env, soaked};
use tern_storage::inspect::Decoder;
use tern_storage::repair::{Plan, examine};
use tern_storage::{
    Folder, FolderOptions, Loss, Lost, MappedLog, Raised, SEGMENT_BYTES_MIN, SEGMENT_HEADER_BYTES,
};

/// Records of each kind of batch, and batches in each segment.
const RECORDS: u64 = 8;
const BATCHES: u64 = 7;

/// Of the cuts of the newest segment between records, every how many the log goes on from.
const GOES_ON_EACH: u64 = 97;

/// A killed log of three segments with records, an empty one behind them.
struct Cut {
    rig: Rig,
    model: Model,
    /// Offset of the first byte of each segment with records.
    bases: Vec<u64>,
}

impl Cut {
    fn new(seed: u64) -> Self {
        let (mut rig, hands) = upkeep_rig();
        rig.config.retention = Some(std::time::Duration::from_millis(RETENTION_MS));
        rig.config.checkpoint_bytes_min = u64::MAX;
        let (mut model, mut random) = (Model::default(), Stream::new(seed));
        // The first segment is left for the next one by a running log, the second by a kill.
        let running = rig.start();
        let mut log = running.log();
        let mut fill = |running: &support::Running, log: &mut MappedLog| {
            (0..BATCHES).for_each(|_| model.batch(running, log, &mut random, RECORDS));
        };
        fill(&running, &mut log);
        roll(&running, &hands);
        fill(&running, &mut log);
        running.kill(log);
        let running = rig.start();
        let mut log = running.log();
        fill(&running, &mut log);
        running.kill(log);
        let bases = bases(rig.path(), &model);
        assert_eq!(bases.len(), 3, "{bases:?}");
        Self { rig, model, bases }
    }

    /// Where the data of a segment ends, as a place in its file.
    fn used(&self, segment: usize) -> u64 {
        let next = self.bases.get(segment + 1).copied().unwrap_or(u64::MAX);
        let last = self.model.records.iter().rfind(|record| record.at < next).unwrap();
        last.end - self.bases[segment]
    }

    fn copy(&self) -> tempfile::TempDir {
        let copy = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        copy_dir(self.rig.path(), copy.path());
        copy
    }
}

/// The retention of these logs in ms: an eighth of it closes a segment.
const RETENTION_MS: u64 = 8 * 60 * 60 * 1000;

/// Has the log go on in the next segment.
fn roll(running: &support::Running, hands: &Hands) {
    // Without a spare segment there is nothing to go on in.
    running.until(|| running.storage.stats(SHARD).segments >= 2);
    running.storage.maintain();
    for _ in 0..3 {
        hands.pass(RETENTION_MS / 16);
        running.storage.maintain();
    }
}

/// The bases of the segments that hold records.
fn bases(path: &Path, model: &Model) -> Vec<u64> {
    let base = |path: &PathBuf| {
        let bytes = fs::read(path).unwrap();
        Decoder::new(path, &bytes[..SEGMENT_HEADER_BYTES]).unwrap().header.base
    };
    let all: Vec<u64> = segments_at(path).iter().map(base).collect();
    let last = model.records.last().unwrap().at;
    all.into_iter().filter(|base| *base < last).collect()
}

fn cut_to(path: &Path, len: u64) {
    File::options().write(true).open(path).unwrap().set_len(len).unwrap();
}

/// Lengths of a file, longest first: every one up to a little behind the data, and behind that,
/// where nothing was ever written, the sectors and what is next to them.
fn lengths(used: u64, file: u64) -> impl Iterator<Item = u64> {
    let near = |at: u64| [at + 1, at, at - 1];
    let sparse = (used + 64..file).filter(|len| len % 512 == 0).rev().flat_map(near);
    sparse.chain((0..used + 64).rev())
}

#[derive(Default, Debug)]
struct Tally {
    cuts: u64,
    told: u64,
    lost: u64,
    named: u64,
}

/// One segment, shorter and shorter; each time the whole log is replayed.
fn cut_everywhere(cut: &Cut, segment: usize) -> Tally {
    let copy = cut.copy();
    let folder = Folder::open(copy.path(), FolderOptions::default()).unwrap();
    let path = segments_at(copy.path())[segment].clone();
    let (used, whole) = (cut.used(segment), fs::metadata(&path).unwrap().len());
    let is_newest = segment + 1 == cut.bases.len();
    let mut tally = Tally::default();
    for len in lengths(used, whole) {
        cut_to(&path, len);
        let what = format!("segment {} cut to {len} of {used} bytes", segment + 1);
        let mut seen = Seen::new();
        let plan = examine(&folder, SHARD, &mut seen).unwrap_or_else(|e| panic!("{what}: {e}"));
        judge(cut, segment, len, &seen, &plan, &what);
        if !is_newest {
            assert_eq!(plan.losses.is_empty(), len >= used, "{what}: {:?}", plan.losses);
            // A header that is whole says that it was one message, and which.
            let known = |loss: &Loss| matches!(loss.what, Lost::Message(_));
            let goes_on = plan.losses.iter().all(known);
            assert_eq!(plan.is_stopped(), !goes_on, "{what}: {:?}", plan.losses);
        }
        tally.cuts += 1;
        tally.told += seen.records.len() as u64;
        tally.lost += (cut.model.records.len() - seen.records.len()) as u64;
        tally.named += plan.losses.iter().map(|loss| loss.messages.len() as u64).sum::<u64>();
    }
    assert_eq!(fs::metadata(&path).unwrap().len(), 0, "down to nothing");
    tally
}

fn judge(cut: &Cut, segment: usize, len: u64, seen: &Seen, plan: &Plan, what: &str) {
    let base = cut.bases[segment];
    if segment + 1 == cut.bases.len() {
        let expected = whole_before(&cut.model.records, base + len);
        assert!(seen.records == expected, "{what}: {} are told", seen.records.len());
        let header = len < SEGMENT_HEADER_BYTES as u64;
        let whole = matches!(&plan.losses[..], [loss] if matches!(loss.what, Lost::Segment(_)));
        assert_eq!(whole && plan.is_stopped(), header, "{what}: {:?}", plan.losses);
        return;
    }
    let bad = base + len..base + SEGMENT;
    cut.model.judge(seen, plan, std::slice::from_ref(&bad), what);
    for (at, channel, id) in plan.losses.iter().flat_map(|loss| &loss.messages) {
        let record = cut.model.records.iter().find(|record| record.at == *at);
        let name = record.and_then(|record| record.name);
        assert_eq!(name.map(|(c, id)| (c, MessageId(id))), Some((*channel, *id)), "{what}");
    }
}

fn whole_before(records: &[Known], end: u64) -> &[Known] {
    &records[..records.partition_point(|record| record.end <= end)]
}

/// Each byte of each segment.
#[test]
fn b_01_every_segment_cut_at_every_byte() {
    let first = seed_from_env(1);
    for seed in first..first + soaked(1) {
        let cut = Cut::new(seed);
        let tallies: Vec<Tally> = std::thread::scope(|scope| {
            let cut = &cut;
            let each = (0..cut.bases.len()).map(|n| scope.spawn(move || cut_everywhere(cut, n)));
            let each: Vec<_> = each.collect();
            each.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let sum = |count: fn(&Tally) -> u64| tallies.iter().map(count).sum::<u64>();
        let bytes: u64 = (0..cut.bases.len()).map(|segment| cut.used(segment)).sum();
        assert!(sum(|t| t.cuts) > bytes && sum(|t| t.named) > 0);
        println!(
            "TEST B-01 seed={seed} n={} bytes={bytes} segments={} records={} replayed={} \
             gone_with_the_cut={} named={} lost=0",
            sum(|t| t.cuts),
            cut.bases.len(),
            cut.model.records.len(),
            sum(|t| t.told),
            sum(|t| t.lost),
            sum(|t| t.named),
        );
    }
}

/// The newest segment, cut between records, next to there, and at places between: the log opens
/// under a new incarnation, goes on, and is the same at the start after that.
#[test]
fn b_01_the_log_goes_on_from_a_cut() {
    let cut = Cut::new(seed_from_env(1));
    let segment = cut.bases.len() - 1;
    let (base, used) = (cut.bases[segment], cut.used(segment));
    let each = (GOES_ON_EACH / soaked(1)).max(1) as usize;
    let ends = cut.model.records.iter().filter(|record| record.at >= base);
    let near =
        ends.flat_map(|record| [-1, 0, 1].map(|by| (record.end - base).wrapping_add_signed(by)));
    let first = SEGMENT_HEADER_BYTES as u64;
    let between = (first..used + 64).step_by(each);
    let lengths: BTreeSet<u64> =
        near.chain(between).chain([first, SEGMENT_BYTES_MIN - 1]).collect();
    for len in &lengths {
        let what = format!("cut to {len} of {used} bytes");
        let copy = cut.copy();
        cut_to(&segments_at(copy.path())[segment], *len);
        let expected = whole_before(&cut.model.records, base + len);
        let mut rig = Rig { disk: Arc::new(QuickDisk), ..Rig::new() };
        for start in 0..2_u8 {
            rig.config.boot = Some([start + 1; 16]);
            let running = rig.start_at(copy.path());
            let (opened, _, mut told) = running.open();
            let raised = (start == 0).then_some(Raised::Shortened);
            assert_eq!((opened.raised, &opened.read_only), (raised, &None), "{what}");
            assert_eq!(opened.incarnation.0, 2, "{what}: raised, and once");
            let more = told.bodies().iter().filter(|body| **body == b"more").count();
            assert_eq!(more, usize::from(start), "{what}");
            told.records.truncate(told.records.len() - more);
            let same = told.records.iter().map(|(at, links, body)| (at.0, links, body));
            assert!(same.eq(expected.iter().map(|r| (r.at, &r.links, &r.body))), "{what}");
            let mut log = opened.log;
            let at = running.write(&mut log, b"more");
            assert!(at >= Offset(base + len) && log.tail() > at, "{what}: offsets never go back");
            running.kill(log);
        }
    }
    println!("TEST B-01 goes_on n={} of={used} starts={} lost=0", lengths.len(), 2 * lengths.len());
}
