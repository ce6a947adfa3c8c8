//! Opening a shard's log: find where it ends, replay it, go on in a new segment.
//!
//! Two passes. The first finds the end by checksums alone and decides between a torn tail, which
//! is cut, and damage (`scan`, `verdict`); the deduplication table is judged by that end. The
//! second feeds every record, and every loss, to a [`Visitor`]. Until [`ShardScan::replay`] has
//! visited all records nothing is changed on disk.
//!
//! A log that may have lost state opens read-only: what can be read is served, nothing is taken,
//! nothing but its unproven tail is written, until the losses are accepted (`repair`).

pub(crate) mod accepted;
pub(crate) mod loss;
pub mod repair;
pub(crate) mod replay;
pub(crate) mod salvage;
pub(crate) mod scan;
pub(crate) mod verdict;
pub(crate) mod visitor;

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;
use tern_core::log::Offset;
use tern_core::shard::state::TombstoneRow;
use tern_protocol::Incarnation;

use crate::backup;
use crate::dedup::{Attached, ShmTable};
use crate::disk::Disk;
use crate::error::{Naming, RecoverError};
use crate::folder::{INCARNATION_FIRST, random_id};
use crate::format::Id;
use crate::header::{SEGMENT_HEADER_BYTES, SegmentHeader};
use crate::log::MappedLog;
use crate::recovery::loss::Loss;
use crate::recovery::replay::{LogScan, raise};
use crate::recovery::scan::{LogPlace, STEP_BYTES, files};
use crate::recovery::visitor::Visitor;
use crate::segment::prepare::Next;
use crate::segment::{Segment, SegmentList, UNFINISHED_SUFFIX};
use crate::shard::ShardContext;
use crate::shared::Tombstone;

/// Losses that are said one by one when a log is opened; the report has all of them.
const LOSSES_SAID_MAX: usize = 20;

/// Why recovery raised the incarnation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Raised {
    /// The machine went down while acks did not wait for the disk.
    PowerCut,
    /// The last segment is shorter than it was made.
    Shortened,
    /// The log was restored from a backup.
    Restored,
    /// An operator has accepted that a part of the log is lost.
    Accepted,
}

/// What a scan found, for people.
#[derive(Clone, Debug, Default)]
pub struct RecoveryReport {
    /// Records of the log; behind the checkpoint, if there is one.
    pub records: u64,
    /// Bytes of records and marks.
    pub bytes: u64,
    /// Segments with records.
    pub segments: usize,
    /// Where the log ends.
    pub end: Offset,
    /// Whether it was closed in order.
    pub clean: bool,
    /// Whether a write that was never acked was cut off.
    pub torn: bool,
    /// Number of the checkpoint that the replay began with, if there was one.
    pub checkpoint: Option<u64>,
    /// Rows of it.
    pub checkpoint_rows: u64,
    /// Checkpoints that can't be used, and why.
    pub checkpoints_bad: Vec<String>,
    /// Everything that was durable and is lost, by growing offset.
    pub losses: Vec<Loss>,
    /// Time of the pass that finds the end.
    pub scan_took: Duration,
    /// Time of the pass that replays.
    pub replay_took: Duration,
    /// Why the deduplication table was not taken over; `None` if it was.
    pub table_rebuilt: Option<&'static str>,
}

/// A shard that is open.
#[derive(Debug)]
pub struct Opened {
    /// Its log.
    pub log: MappedLog,
    /// Life of the log.
    pub incarnation: Incarnation,
    /// Whether and why that is a new one.
    pub raised: Option<Raised>,
    /// Why the log takes nothing, and what to do, if it does not.
    pub read_only: Option<String>,
    /// What was found.
    pub report: RecoveryReport,
}

/// A log whose end is known.
#[derive(Debug)]
pub struct ShardScan {
    context: Arc<ShardContext>,
    scan: LogScan,
    incarnation: Incarnation,
    raised: Option<Raised>,
    /// Names this opening of the log.
    opening: Id,
    report: RecoveryReport,
}

impl ShardScan {
    /// The first pass.
    pub(crate) fn new(context: Arc<ShardContext>) -> Result<Self, RecoverError> {
        let begin = Instant::now();
        let shared = &context.shared;
        let place = LogPlace {
            disk: &*context.disk,
            dir: &shared.dir,
            folder: context.run.folder,
            shard: shared.id.0,
        };
        let scan = LogScan::new(&place)?;
        let restored = backup::lives_restored(&shared.dir)?;
        let raised = match restored {
            Some(_) => Some(Raised::Restored),
            None => scan.why_raised(&context.run.boot),
        };
        let lives = restored.unwrap_or(u32::from(raised.is_some()));
        let checkpoint = scan.found.origin();
        let verdict = &scan.verdict;
        let report = RecoveryReport {
            records: verdict.records,
            bytes: verdict.bytes,
            segments: verdict.kept.len(),
            end: Offset(verdict.end),
            clean: verdict.clean,
            torn: verdict.torn,
            losses: verdict.losses.clone(),
            checkpoint: checkpoint.map(|header| header.number),
            checkpoint_rows: checkpoint.map_or(0, |header| header.rows_all()),
            checkpoints_bad: scan.checkpoints_bad.clone(),
            scan_took: begin.elapsed(),
            ..RecoveryReport::default()
        };
        let raised_to = Incarnation(scan.newest.incarnation.0 + lives);
        let incarnation = raised_to.max(scan.accepted.incarnation);
        Ok(Self { context, scan, incarnation, raised, opening: random_id(), report })
    }

    /// The deduplication table and the offset up to which it knows the log: the one that was left
    /// behind if there is no doubt about it, else an empty one.
    ///
    /// # Errors
    /// When there is no room for a table anywhere.
    pub fn attach_table(&mut self) -> Result<(ShmTable, Offset), RecoverError> {
        let (end, openings) = (self.report.end, [self.scan.newest.opening, self.opening]);
        let Attached { table, applied, rebuilt } =
            ShmTable::attach(&self.context.supply, self.incarnation, openings, end)?;
        self.report.table_rebuilt = rebuilt;
        Ok((table, applied))
    }

    /// What was found so far.
    pub fn report(&self) -> &RecoveryReport {
        &self.report
    }

    /// The second pass; then the log is open.
    ///
    /// # Errors
    /// When a record makes no sense to the visitor, or the file system refuses.
    pub fn replay(mut self, visitor: &mut impl Visitor) -> Result<Opened, RecoverError> {
        let begin = Instant::now();
        let mut known = INCARNATION_FIRST;
        self.scan.replay(visitor, &mut known)?;
        raise(visitor, &mut known, self.incarnation);
        self.report.replay_took = begin.elapsed();
        self.report.losses.clone_from(&self.scan.verdict.losses);
        self.open(visitor.tombstones())
    }

    /// Makes durable what may not be, and lets the log go on behind it.
    fn open(mut self, tombstones: Vec<TombstoneRow>) -> Result<Opened, RecoverError> {
        self.sync_tail()?;
        let (context, read_only) = (&self.context, self.why_read_only());
        let (shared, end) = (&context.shared, self.report.end.0);
        for loss in self.report.losses.iter().take(LOSSES_SAID_MAX) {
            tracing::error!(shard = shared.id.0, accepted = loss.accepted, "lost: {loss}");
        }
        if read_only.is_none() {
            self.tidy()?;
        }
        self.publish()?;
        self.context.shared.set_losses(self.report.losses.clone());
        shared.tombstones.store(Arc::new(by_place(&tombstones)));
        shared.prove(end);
        let next = self.next();
        shared.set_run_start(next.base);
        match &read_only {
            Some(why) => shared.close(why.clone()),
            None => {
                self.go_on(next)?;
                context.keeper.begin(std::mem::take(&mut self.scan.found));
            }
        }
        context.supply.leave_to_io_thread();
        let log = MappedLog::new(
            Arc::clone(shared),
            context.run.durability,
            end,
            context.committer.clone(),
            context.io.clone(),
        );
        let Self { incarnation, raised, report, .. } = self;
        Ok(Opened { log, incarnation, raised, read_only, report })
    }

    /// What keeps the log from taking anything.
    fn why_read_only(&self) -> Option<String> {
        let stopping: Vec<&Loss> =
            self.scan.verdict.losses.iter().filter(|loss| loss.stops).collect();
        let first = stopping.first()?;
        let more = match stopping.len() - 1 {
            0 => String::new(),
            more => format!(" (and {more} more)"),
        };
        Some(format!(
            "it is read-only, for a part of its log is lost that may have held state: {first}\
             {more}. Restore the files from a backup, or stop the server and run `tern repair`, \
             which says what is lost and accepts it"
        ))
    }

    /// Opens the segments for readers.
    fn publish(&self) -> Result<(), RecoverError> {
        let (context, shared) = (&self.context, &self.context.shared);
        let mut list = Vec::new();
        for (segment, end) in &self.scan.verdict.kept {
            heal_header(&*context.disk, segment)?;
            context.limits.hold(shared, segment.file.len() as u64);
            let opened = Segment::open(&*context.disk, &segment.path, Some(*end))?;
            opened.file.close(); // it is read, and cut at most
            list.push(Arc::new(opened));
        }
        shared.counts.segments.store(list.len() as u64, Relaxed);
        shared.segments.store(Arc::new(SegmentList(list)));
        Ok(())
    }

    fn go_on(&self, next: Next) -> Result<(), RecoverError> {
        let (context, shared) = (&self.context, &self.context.shared);
        context.preparer.begin(next);
        // Without room there is no segment yet that carries the raised incarnation.
        if !shared.spare.is_empty() {
            backup::forget_restored(&*context.disk, &shared.dir)?;
        }
        Ok(())
    }

    fn next(&self) -> Next {
        let verdict = &self.scan.verdict;
        Next {
            number: verdict.next.0,
            base: verdict.next.1,
            // The end of a segment that can't be used is not known.
            cut: if verdict.ends_well { self.report.end.0 } else { 0 },
            incarnation: self.incarnation,
            capacity: self.context.limits.segment_bytes_min,
            opening: self.opening,
            made: 0,
            made_at: Instant::now(),
        }
    }

    /// Writes again, and syncs, what is not known to be on the disk: after a failed sync the
    /// kernel holds pages that look clean and are not, so a sync alone would prove nothing.
    fn sync_tail(&self) -> Result<(), RecoverError> {
        let Some((segment, end)) = self.scan.verdict.kept.last() else { return Ok(()) };
        let file = segment.file(&*self.context.disk).naming("open", &segment.path)?;
        let end = (*end).min(segment.settled_end());
        let mut at = self.scan.verdict.proven.max(segment.header.first());
        while at < end {
            let (from, to) = (segment.place(at), segment.place(end));
            let to = to.min(from + STEP_BYTES);
            let bytes = segment.file.bytes(from, to).expect("all of it is settled").to_vec();
            file.write_at(from as u64, &bytes).naming("write to", &segment.path)?;
            at += bytes.len() as u64;
        }
        file.sync().naming("sync", &segment.path)?;
        Ok(())
    }

    /// Removes what never held anything. Of the first empty segment the header stays until the
    /// next one is moved over it: it may be what names the cut of the one before. It gets short
    /// only when those behind it are gone for good, for they begin where its room ended.
    fn tidy(&self) -> Result<(), RecoverError> {
        let (disk, dir) = (&self.context.disk, &self.context.shared.dir);
        let empty = &self.scan.verdict.empty;
        for segment in empty.iter().skip(1).rev() {
            disk.remove(&segment.path).naming("remove", &segment.path)?;
        }
        let has_room = |empty: &&Segment| empty.header.capacity > SEGMENT_HEADER_BYTES as u64;
        if let Some(first) = empty.first().filter(has_room) {
            disk.sync_dir(dir).naming("sync", dir)?;
            let capacity = SEGMENT_HEADER_BYTES as u64;
            let header = SegmentHeader { capacity, ..first.header };
            Segment::make(&**disk, dir, header).naming("make a segment in", dir)?;
        }
        for path in files(dir)? {
            if path.to_string_lossy().ends_with(UNFINISHED_SUFFIX) {
                disk.remove(&path).naming("remove", &path)?;
            }
        }
        disk.sync_dir(dir).naming("sync", dir)?;
        Ok(())
    }
}

fn by_place(rows: &[TombstoneRow]) -> FxHashMap<u64, Tombstone> {
    let tombstone = |row: &TombstoneRow| {
        let links = row.links();
        Tombstone { links, has_channel: links.channel != Offset::NONE }
    };
    rows.iter().map(|row| (row.at.get(), tombstone(row))).collect()
}

/// Writes both copies of a header again where one is damaged, while the other still is not.
fn heal_header(disk: &dyn Disk, segment: &Segment) -> Result<(), RecoverError> {
    if !segment.has_whole_header() {
        let file = segment.file(disk).naming("open", &segment.path)?;
        file.write_at(0, &segment.header.encode()).naming("write to", &segment.path)?;
        file.sync().naming("sync", &segment.path)?;
    }
    Ok(())
}
