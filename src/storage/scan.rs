//! The first pass over a shard's log: where does it end, and is that the end?
//!
//! Bad bytes are damage if anything proves that they were durable: a later mark, or the next
//! segment's header or first mark. So everything behind them is searched for marks first. What
//! nothing proves was in the last batch, and is a torn tail.

use std::fs;
use std::path::{Path, PathBuf};

use crate::checkpoint::CheckpointHeader;
use crate::error::{IoError, Naming, RecoverError};
use crate::format::{Bad, Content, MARK_BYTES, Mark, RECORD_ALIGN};
use crate::header::{Durability, SEGMENT_HEADER_BYTES};
use crate::map::PAGE_BYTES;
use crate::recovery::{Raised, RecoveryReport};
use crate::segment::{Segment, segment_number};
use crate::shard::ShardContext;

/// Bytes read from the disk at once.
pub(crate) const STEP_BYTES: usize = 4 * 1024 * 1024;

/// The files of all segments of a shard, by number.
pub(crate) fn segment_files(dir: &Path) -> Result<Vec<(u64, PathBuf)>, IoError> {
    let mut paths: Vec<_> =
        files(dir)?.into_iter().filter_map(|path| Some((segment_number(&path)?, path))).collect();
    paths.sort();
    Ok(paths)
}

/// Opens all segments of a shard, from the oldest that `origin` keeps, and checks that they
/// follow each other.
pub(crate) fn open_all(
    context: &ShardContext,
    origin: Option<&CheckpointHeader>,
) -> Result<Vec<Segment>, RecoverError> {
    let dir = &context.shared.dir;
    let (first, mut base) = origin.map_or((1, 0), |header| (header.start_number, header.start));
    let paths = segment_files(dir)?.into_iter().filter(|(number, _)| *number >= first);
    let mut segments: Vec<Segment> = Vec::new();
    for (expected, (number, path)) in (first..).zip(paths) {
        let damaged = |why: String| RecoverError::Damaged { path: path.clone(), at: 0, to: 0, why };
        if number != expected {
            return Err(damaged(format!("segment {expected}, which comes before it, is missing")));
        }
        let segment = Segment::open(&*context.disk, &path, None)?;
        let header = &segment.header;
        if (header.folder, header.shard) != (context.run.folder, context.shared.id.0) {
            return Err(damaged("it belongs to another data folder or shard".into()));
        }
        if (header.number, header.base) != (number, base) {
            return Err(damaged("it does not follow the segment before it".into()));
        }
        if segments.last().is_some_and(|last| last.header.incarnation > header.incarnation) {
            return Err(damaged("its incarnation is older than that of the one before it".into()));
        }
        base = header.end();
        segments.push(segment);
    }
    if segments.is_empty() {
        let why = "all segments of this shard are missing".into();
        return Err(RecoverError::Damaged { path: dir.clone(), at: 0, to: 0, why });
    }
    let newest = segments.last().map_or(0, |segment| segment.header.number);
    if let Some(origin) = origin.filter(|origin| newest < origin.at_number) {
        let why = format!("segment {}, which comes behind it, is missing", origin.at_number);
        let path = segments.last().expect("there is one").path.clone();
        return Err(RecoverError::Damaged { path, at: origin.end, to: origin.at, why });
    }
    Ok(segments)
}

/// Where the data of a segment ends that a checkpoint covers: at what the first mark of the next
/// one proves. Where that can't be told, no byte of the file changes any more either.
fn covered_end(segment: &Segment, next: Option<&Segment>) -> u64 {
    let proven = next.and_then(|next| {
        next.file.populate(SEGMENT_HEADER_BYTES, SEGMENT_HEADER_BYTES + MARK_BYTES).ok()?;
        match next.parse(next.header.first()) {
            Ok((_, Content::Mark(mark))) => Some(mark.proven),
            _ => None,
        }
    });
    let whole = segment.settled_end();
    proven.filter(|end| (segment.header.first()..=whole).contains(end)).unwrap_or(whole)
}

/// Whether something that was shown may be lost. `used` segments have records.
pub(crate) fn why_raised(
    context: &ShardContext,
    segments: &[Segment],
    used: usize,
    walk: &Walk,
) -> Option<Raised> {
    let newest = &segments.last()?.header;
    let next = segments.get(used);
    // A later run left nothing but its first segment: the mark in front of it is not its own.
    let clean = walk.report.clean && next.is_none_or(|next| next.header.cut == 0);
    let same_boot = newest.boot == context.run.boot && newest.boot != [0; 16];
    if newest.durability == Durability::Process && !same_boot && !clean {
        return Some(Raised::PowerCut);
    }
    // Only the next segment's header says that a shorter file is no loss.
    let short = (used.saturating_sub(1)..segments.len()).any(|index| {
        let (segment, next) = (&segments[index], segments.get(index + 1));
        let named = next.is_some_and(|next| next.header.cut != 0);
        !named && (segment.file.len() as u64) < segment.header.capacity
    });
    short.then_some(Raised::Shortened)
}

/// The first pass over a log.
#[derive(Default)]
pub(crate) struct Walk {
    /// Offset behind the last good record.
    pub(crate) end: u64,
    /// The newest offset that a good mark calls durable.
    pub(crate) proven: u64,
    /// Number of the last segment with a good record.
    pub(crate) last_used: Option<u64>,
    /// File of the segment before the one that is walked, and where its records stopped.
    before: PathBuf,
    stop: u64,
    pub(crate) report: RecoveryReport,
}

impl Walk {
    /// A walk over what a checkpoint does not cover, or over everything.
    pub(crate) fn from(origin: Option<&CheckpointHeader>) -> Self {
        let Some(origin) = origin else { return Self::default() };
        Self {
            end: origin.end,
            proven: origin.end,
            last_used: Some(origin.at_number - 1),
            ..Self::default()
        }
    }

    /// Walks all segments, those that a checkpoint covers by their headers alone; says where the
    /// data of each ends.
    pub(crate) fn all(
        &mut self,
        segments: &[Segment],
        origin: Option<&CheckpointHeader>,
    ) -> Result<Vec<u64>, RecoverError> {
        let covered = origin.map_or(0, |origin| origin.at_number);
        let end = |(index, segment): (usize, &Segment)| {
            let next = segments.get(index + 1);
            if segment.header.number < covered {
                return Ok(covered_end(segment, next));
            }
            self.segment(segment, next.map_or(0, |next| next.header.cut))
        };
        segments.iter().enumerate().map(end).collect()
    }

    /// Walks one segment, to `cut` if the next one names it; says where its data ends.
    fn segment(&mut self, segment: &Segment, cut: u64) -> Result<u64, RecoverError> {
        let (mut at, mut steps) = (segment.header.first(), Steps::new(segment));
        let bad = loop {
            if cut != 0 && at >= cut {
                break Bad::Empty;
            }
            steps.reach(at)?;
            match segment.parse(at) {
                Ok((len, content)) => {
                    self.content(segment, content)?;
                    at += len as u64;
                    self.end = at;
                }
                Err(bad) => break bad,
            }
        };
        self.judge(segment, at, bad, cut, steps)?;
        (self.before, self.stop) = (segment.path.clone(), at);
        Ok(at)
    }

    fn content(&mut self, segment: &Segment, content: Content<'_>) -> Result<(), RecoverError> {
        self.report.clean = false;
        if let Content::Mark(Mark { proven, clean }) = content {
            if proven > self.end {
                let why = "records that were durable are missing at its end".into();
                let (path, at) = (self.before.clone(), self.stop);
                return Err(RecoverError::Damaged { path, at, to: proven, why });
            }
            self.proven = proven;
            self.report.clean = clean;
        } else {
            self.report.records += 1;
        }
        self.last_used = Some(segment.header.number);
        Ok(())
    }

    /// The records stop at `at`: is that the end, a torn tail, or damage?
    fn judge(
        &mut self,
        segment: &Segment,
        at: u64,
        bad: Bad,
        cut: u64,
        steps: Steps<'_>,
    ) -> Result<(), RecoverError> {
        self.report.bytes += at - segment.header.first();
        let path = segment.path.clone();
        if let Bad::Unknown(kind, version) = bad {
            return Err(RecoverError::Unknown { path, at, kind, version });
        }
        let evidence = match cut {
            0 => newest_mark(segment, at, steps)?,
            cut => cut,
        };
        if evidence > at {
            let why = "a record in front of a durable one is broken".into();
            return Err(RecoverError::Damaged { path, at, to: evidence, why });
        }
        if at != evidence && cut != 0 {
            let why = "it has records behind its end".into();
            return Err(RecoverError::Damaged { path, at: cut, to: at, why });
        }
        self.report.torn |= bad != Bad::Empty;
        Ok(())
    }
}

/// A page that was never written.
static ZEROS: [u8; PAGE_BYTES] = [0; PAGE_BYTES];

/// The newest offset that any mark behind `at` calls durable; 0 if there is none.
fn newest_mark(segment: &Segment, at: u64, mut steps: Steps<'_>) -> Result<u64, RecoverError> {
    let mut newest = 0;
    for page in (at..segment.settled_end()).step_by(PAGE_BYTES) {
        steps.reach(page)?;
        let rest = segment.file.bytes(segment.place(page), segment.file.settled());
        let rest = rest.expect("all of it is settled");
        let len = rest.len().min(PAGE_BYTES);
        // Most of what is left of a segment was never written.
        if rest[..len] == ZEROS[..len] {
            continue;
        }
        for place in (0..len).step_by(RECORD_ALIGN) {
            let mark = segment.seed.parse_mark(page + place as u64, &rest[place..]);
            newest = newest.max(mark.map_or(0, |mark| mark.proven));
        }
    }
    Ok(newest)
}

/// Reads a segment in steps, so that a bad sector is an error and not a signal that kills.
pub(crate) struct Steps<'a> {
    segment: &'a Segment,
    /// Bytes from the start that were read.
    read: usize,
}

impl<'a> Steps<'a> {
    pub(crate) fn new(segment: &'a Segment) -> Self {
        Self { segment, read: 0 }
    }

    /// Makes sure that the longest record at `at` was read.
    #[inline]
    pub(crate) fn reach(&mut self, at: u64) -> Result<(), IoError> {
        let place = self.segment.place(at);
        if place + STEP_BYTES / 2 > self.read && self.read < self.segment.file.settled() {
            let to = place + STEP_BYTES;
            self.segment.file.populate(self.read, to).naming("read", &self.segment.path)?;
            self.read = to;
        }
        Ok(())
    }
}

const _: () = assert!(crate::format::BODY_BYTES_MAX < STEP_BYTES / 2 - 4096);

/// What is in a folder.
pub(crate) fn files(dir: &Path) -> Result<Vec<PathBuf>, IoError> {
    let entries = fs::read_dir(dir).naming("read", dir)?;
    entries.map(|entry| Ok(entry?.path())).collect::<Result<_, _>>().naming("read", dir)
}
