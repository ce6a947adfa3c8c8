//! Opening a shard's log: find where it ends, replay it, go on in a new segment.
//!
//! Two passes. The first finds the end by checksums alone and decides between a torn tail, which
//! is cut, and damage, which is refused; the deduplication table is judged by that end. The
//! second feeds every record to a [`Visitor`]. Until [`ShardScan::replay`] has visited all
//! records nothing is changed on disk.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tern_core::dedup::DedupTable;
use tern_core::log::{Links, Offset, Record};
use tern_core::shard::state::{StateKind, TombstoneRow};
use tern_core::shard::{Recovery, ReplayError};
use tern_protocol::Incarnation;

use crate::backup;
use crate::dedup::{Attached, ShmTable};
use crate::error::{Naming, RecoverError};
use crate::folder::{INCARNATION_FIRST, random_id};
use crate::format::{Content, Id};
use crate::header::{SEGMENT_HEADER_BYTES, SegmentHeader};
use crate::keeper::Found;
use crate::log::MappedLog;
use crate::prepare::Next;
use crate::scan::{STEP_BYTES, Steps, Walk, files, open_all, why_raised};
use crate::segment::{Segment, SegmentList, UNFINISHED_SUFFIX};
use crate::shard::ShardContext;

/// Who is told what the log says, in order.
pub trait Visitor {
    /// The next record. `end` is where the one after it can begin.
    ///
    /// # Errors
    /// When the record contradicts those before it.
    fn record(&mut self, at: Offset, end: Offset, record: Record<'_>) -> Result<(), ReplayError>;

    /// What comes from here on is of a new incarnation; a log begins with 1.
    fn raise(&mut self, incarnation: Incarnation);

    /// The next row of the checkpoint that the log is replayed from; all of them come before any
    /// record. `at` is where the records begin.
    ///
    /// # Errors
    /// When the row is not what its kind says, or, as by default, when rows mean nothing to it.
    fn state(&mut self, at: Offset, kind: StateKind, _row: &[u8]) -> Result<(), ReplayError> {
        Err(ReplayError { at, what: format!("a row of kind {kind:?} is not understood") })
    }

    /// The message at `at` is lost, in the place of its record; `end` is as there. What it pointed
    /// to is known if its header was whole.
    ///
    /// # Errors
    /// When nothing can go on without it, as by default.
    fn lost(&mut self, at: Offset, _end: Offset, _links: Option<Links>) -> Result<(), ReplayError> {
        Err(ReplayError { at, what: "a message was lost here".to_owned() })
    }

    /// After the last record: places that later links point to and whose own links are known from
    /// elsewhere, for readers.
    fn tombstones(&self) -> Vec<TombstoneRow> {
        Vec::new()
    }

    /// After the last record: lost messages of which nothing tells the channel. Their ids would be
    /// given once more, so the log takes nothing then.
    fn unexplained(&self) -> Vec<Offset> {
        Vec::new()
    }
}

impl<T: DedupTable> Visitor for Recovery<T> {
    fn record(&mut self, at: Offset, end: Offset, record: Record<'_>) -> Result<(), ReplayError> {
        self.replay(at, end, record)
    }

    fn raise(&mut self, incarnation: Incarnation) {
        Recovery::raise(self, incarnation);
    }

    fn state(&mut self, at: Offset, kind: StateKind, row: &[u8]) -> Result<(), ReplayError> {
        self.restore(at, kind, row)
    }

    fn lost(&mut self, at: Offset, end: Offset, links: Option<Links>) -> Result<(), ReplayError> {
        Recovery::lost(self, at, end, links);
        Ok(())
    }

    fn tombstones(&self) -> Vec<TombstoneRow> {
        Recovery::tombstones(self)
    }

    fn unexplained(&self) -> Vec<Offset> {
        Recovery::unexplained(self)
    }
}

/// Why recovery raised the incarnation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Raised {
    /// The machine went down while acks did not wait for the disk.
    PowerCut,
    /// The last segment is shorter than it was made.
    Shortened,
    /// The log was restored from a backup.
    Restored,
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
    /// What was found.
    pub report: RecoveryReport,
}

/// A log whose end is known.
#[derive(Debug)]
pub struct ShardScan {
    context: Arc<ShardContext>,
    /// Segments with records, all bytes settled, and where the data of each ends.
    segments: Vec<(Segment, u64)>,
    /// Segments behind them, without a record.
    empty: Vec<PathBuf>,
    /// The header of the first of them, if it has room behind it.
    empty_header: Option<SegmentHeader>,
    /// Everything before was synced by the run that wrote it.
    proven: u64,
    incarnation: Incarnation,
    raised: Option<Raised>,
    /// The newest opening of the log, and this one.
    openings: [Id; 2],
    /// Checkpoints; the newest is where the replay begins. And what is before all of them.
    found: Found,
    report: RecoveryReport,
}

impl ShardScan {
    /// The first pass.
    pub(crate) fn new(context: Arc<ShardContext>) -> Result<Self, RecoverError> {
        let begin = Instant::now();
        let (found, checkpoints_bad) = Found::look(&context)?;
        let origin = found.origin().copied();
        let segments = open_all(&context, origin.as_ref())?;
        let mut walk = Walk::from(origin.as_ref());
        let ends = walk.all(&segments, origin.as_ref())?;
        let before = origin.map_or(0, |origin| origin.start_number - 1);
        let used = walk.last_used.map_or(0, |number| (number - before) as usize);
        let restored = backup::lives_restored(&context.shared.dir)?;
        let raised = match restored {
            Some(_) => Some(Raised::Restored),
            None => why_raised(&context, &segments, used, &walk),
        };
        let lives = restored.unwrap_or(u32::from(raised.is_some()));
        let newest = &segments.last().expect("a shard without segments was refused").header;
        let (opening, incarnation) = (newest.opening, newest.incarnation.0);
        let mut report = walk.report;
        report.segments = used;
        report.checkpoint = origin.map(|origin| origin.number);
        report.checkpoint_rows = origin.map_or(0, |origin| origin.rows_all());
        report.checkpoints_bad = checkpoints_bad;
        report.end = Offset(walk.end);
        let room = |empty: &&Segment| empty.header.capacity > SEGMENT_HEADER_BYTES as u64;
        let empty_header = segments.get(used).filter(room).map(|empty| empty.header);
        let empty = segments[used..].iter().map(|segment| segment.path.clone()).collect();
        report.scan_took = begin.elapsed();
        Ok(Self {
            context,
            segments: segments.into_iter().zip(ends).take(used).collect(),
            empty,
            empty_header,
            proven: walk.proven,
            incarnation: Incarnation(incarnation + lives),
            raised,
            openings: [opening, random_id()],
            found,
            report,
        })
    }

    /// The deduplication table and the offset up to which it knows the log: the one that was left
    /// behind if there is no doubt about it, else an empty one.
    ///
    /// # Errors
    /// When there is no room for a table anywhere.
    pub fn attach_table(&mut self) -> Result<(ShmTable, Offset), RecoverError> {
        let end = self.report.end;
        let Attached { table, applied, rebuilt } =
            ShmTable::attach(&self.context.supply, self.incarnation, self.openings, end)?;
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
        let mut incarnation = INCARNATION_FIRST;
        let covered = self.restore(visitor, &mut incarnation)?;
        for (segment, end) in self.segments.iter().filter(|(s, _)| s.header.base >= covered) {
            raise(visitor, &mut incarnation, segment.header.incarnation);
            let mut steps = Steps::new(segment);
            let mut at = segment.header.first();
            while at < *end {
                steps.reach(at)?;
                let (len, content) = segment.parse(at).map_err(|_| changed(segment, at))?;
                let next = at + len as u64;
                if let Content::Record(record) = content {
                    let told = visitor.record(Offset(at), Offset(next), record);
                    told.map_err(|ReplayError { at, what }| RecoverError::Replay {
                        at: at.0,
                        why: what,
                    })?;
                }
                at = next;
            }
        }
        raise(visitor, &mut incarnation, self.incarnation);
        self.report.replay_took = begin.elapsed();
        self.open()
    }

    /// Hands out the rows of the checkpoint; says from which offset on records follow.
    fn restore(
        &self,
        visitor: &mut impl Visitor,
        incarnation: &mut Incarnation,
    ) -> Result<u64, RecoverError> {
        let Some(checkpoint) = self.found.shelf.newest() else { return Ok(0) };
        let header = &checkpoint.header;
        raise(visitor, incarnation, header.incarnation);
        checkpoint.rows(|kind, row| Ok(visitor.state(Offset(header.end), kind, row)?))?;
        Ok(header.at)
    }

    /// Makes durable what may not be, and lets the log go on behind it.
    fn open(self) -> Result<Opened, RecoverError> {
        self.sync_tail()?;
        self.tidy()?;
        let (context, end) = (&self.context, self.report.end.0);
        let shared = &context.shared;
        let mut list = Vec::new();
        for (segment, end) in &self.segments {
            heal_header(segment)?;
            context.limits.hold(shared, segment.file.len() as u64);
            list.push(Arc::new(Segment::open(&*context.disk, &segment.path, Some(*end))?));
        }
        shared.counts.segments.store(list.len() as u64, std::sync::atomic::Ordering::Relaxed);
        shared.segments.store(Arc::new(SegmentList(list)));
        shared.prove(end);
        let next = self.next();
        shared.set_run_start(next.base);
        context.preparer.begin(next);
        // Without room there is no segment yet that carries the raised incarnation.
        if !shared.spare.is_empty() {
            backup::forget_restored(&*context.disk, &shared.dir)?;
        }
        context.keeper.begin(self.found);
        context.supply.leave_to_io_thread();
        let log = MappedLog::new(
            Arc::clone(shared),
            context.run.durability,
            end,
            context.committer.clone(),
            context.io.clone(),
        );
        let Self { incarnation, raised, report, .. } = self;
        Ok(Opened { log, incarnation, raised, report })
    }

    fn next(&self) -> Next {
        let last = self.segments.last().map(|(segment, _)| segment.header);
        let last = last.map(|last| (last.number + 1, last.end()));
        let origin = self.found.origin().map(|origin| (origin.at_number, origin.at));
        let (number, base) = last.or(origin).unwrap_or((1, 0));
        Next {
            number,
            base,
            cut: self.report.end.0,
            incarnation: self.incarnation,
            capacity: self.context.limits.segment_bytes_min,
            opening: self.openings[1],
            made: 0,
            made_at: Instant::now(),
        }
    }

    /// Writes again, and syncs, what is not known to be on the disk: after a failed sync the
    /// kernel holds pages that look clean and are not, so a sync alone would prove nothing.
    fn sync_tail(&self) -> Result<(), RecoverError> {
        let Some((segment, end)) = self.segments.last() else { return Ok(()) };
        let file = segment.file.file();
        let mut at = self.proven.max(segment.header.first());
        while at < *end {
            let (from, to) = (segment.place(at), segment.place(*end));
            let to = to.min(from + STEP_BYTES);
            let bytes = segment.file.bytes(from, to).expect("all of it is settled").to_vec();
            file.write_at(from as u64, &bytes).naming("write to", &segment.path)?;
            at += bytes.len() as u64;
        }
        file.sync().naming("sync", &segment.path)?;
        Ok(())
    }

    /// Removes what never held anything. Of the first empty segment the header stays until the
    /// next one is moved over it: it may be what names the cut of the one before.
    fn tidy(&self) -> Result<(), RecoverError> {
        let (disk, dir) = (&self.context.disk, &self.context.shared.dir);
        if let Some(header) = self.empty_header {
            let header = SegmentHeader { capacity: SEGMENT_HEADER_BYTES as u64, ..header };
            Segment::make(&**disk, dir, header).naming("make a segment in", dir)?;
        }
        for path in self.empty.iter().skip(1).rev() {
            disk.remove(path).naming("remove", path)?;
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

/// Writes both copies of a header again where one is damaged, while the other still is not.
fn heal_header(segment: &Segment) -> Result<(), RecoverError> {
    if !segment.has_whole_header() {
        let file = segment.file.file();
        file.write_at(0, &segment.header.encode()).naming("write to", &segment.path)?;
        file.sync().naming("sync", &segment.path)?;
    }
    Ok(())
}

fn raise(visitor: &mut impl Visitor, known: &mut Incarnation, incarnation: Incarnation) {
    if incarnation > *known {
        *known = incarnation;
        visitor.raise(incarnation);
    }
}

/// The file was intact a moment ago.
fn changed(segment: &Segment, at: u64) -> RecoverError {
    let why = "it changed while it was read, so another process writes to it".into();
    RecoverError::Damaged { path: segment.path.clone(), at, to: at, why }
}
