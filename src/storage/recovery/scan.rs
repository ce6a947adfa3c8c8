//! The files of a shard's log, and the first pass over each: what stands in it, and where not.
//!
//! Nothing is decided here. A place without a valid record is a gap; behind it the next valid
//! header is looked for, so that nothing good is ever given up. What a gap means (damage, or a
//! batch that was never acked) is told by `verdict`, once all marks are known.

use std::fs;
use std::path::{Path, PathBuf};

use crate::checkpoint::CheckpointHeader;
use crate::disk::Disk;
use crate::error::{IoError, Naming, RecoverError};
use crate::format::{Bad, Content, Head, Id, MARK_BYTES, Mark, RECORD_ALIGN};
use crate::header::SEGMENT_HEADER_BYTES;
use crate::segment::map::PAGE_BYTES;
use crate::segment::{Segment, segment_number, segment_path};

/// Bytes read from the disk at once.
pub(crate) const STEP_BYTES: usize = 4 * 1024 * 1024;

/// Where a shard's log is, and whose it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LogPlace<'a> {
    pub(crate) disk: &'a dyn Disk,
    pub(crate) dir: &'a Path,
    pub(crate) folder: Id,
    pub(crate) shard: u16,
}

/// Where the replay begins: behind what a checkpoint covers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Origin {
    /// Base and number of the first segment whose records are read.
    pub(crate) at: (u64, u64),
    /// Offset behind the last record that is not.
    pub(crate) end: u64,
    /// Base and number of the oldest segment that is kept.
    pub(crate) start: (u64, u64),
}

impl Origin {
    /// Behind a checkpoint; without one the first record of all.
    pub(crate) fn of(checkpoint: Option<&CheckpointHeader>) -> Self {
        let Some(header) = checkpoint else { return Self { at: (0, 1), end: 0, start: (0, 1) } };
        Self {
            at: (header.at, header.at_number),
            end: header.end,
            start: (header.start, header.start_number),
        }
    }
}

/// The place of one segment in the log.
#[derive(Debug)]
pub(crate) enum Slot {
    Good(Segment),
    /// A file that can't be used, or none.
    Bad(BadSlot),
}

#[derive(Debug)]
pub(crate) struct BadSlot {
    pub(crate) number: u64,
    pub(crate) path: PathBuf,
    /// Length of the file.
    pub(crate) bytes: u64,
    pub(crate) why: String,
}

/// Opens all segments of a shard, in order, with a slot for each that should be there.
pub(crate) fn open_all(place: &LogPlace<'_>, origin: &Origin) -> Result<Vec<Slot>, RecoverError> {
    let mut paths = segment_files(place.dir)?;
    paths.retain(|(number, _)| *number >= origin.start.1);
    let mut slots: Vec<Slot> = Vec::new();
    let mut before = Before { end: origin.start.0, is_exact: true, incarnation: 0 };
    let mut expected = origin.start.1;
    for (number, path) in paths {
        slots.extend((expected..number).map(|number| missing(place, number)));
        before.is_exact &= expected == number;
        slots.push(open_one(place, number, path, &mut before)?);
        expected = number + 1;
    }
    // The one behind a checkpoint has a proven record, or there would be no checkpoint.
    slots.extend((expected..=origin.at.1).filter(|_| origin.end > 0).map(|n| missing(place, n)));
    if !slots.iter().any(|slot| matches!(slot, Slot::Good(_))) {
        let why = "no segment of this shard can be used, or all are missing".into();
        return Err(RecoverError::Damaged { path: place.dir.into(), at: 0, to: 0, why });
    }
    Ok(slots)
}

fn missing(place: &LogPlace<'_>, number: u64) -> Slot {
    let (path, why) = (segment_path(place.dir, number), "it is missing".to_owned());
    Slot::Bad(BadSlot { number, path, bytes: 0, why })
}

/// The files of all segments of a shard, by number.
pub(crate) fn segment_files(dir: &Path) -> Result<Vec<(u64, PathBuf)>, IoError> {
    let mut paths: Vec<_> =
        files(dir)?.into_iter().filter_map(|path| Some((segment_number(&path)?, path))).collect();
    paths.sort();
    Ok(paths)
}

/// Where the data of a segment ends that a checkpoint covers: where the next one says, or at what
/// its first mark proves. Where that can't be told, no byte of the file changes any more either.
pub(crate) fn covered_end(segment: &Segment, next: Option<&Segment>) -> u64 {
    let proven = next.and_then(|next| {
        if next.header.cut != 0 {
            return Some(next.header.cut);
        }
        next.file.populate(SEGMENT_HEADER_BYTES, SEGMENT_HEADER_BYTES + MARK_BYTES).ok()?;
        match next.parse(next.header.first()) {
            Ok((_, Content::Mark(mark))) => Some(mark.proven),
            _ => None,
        }
    });
    let whole = segment.settled_end();
    proven.filter(|end| (segment.header.first()..=whole).contains(end)).unwrap_or(whole)
}

/// What the segments before say of the next one.
struct Before {
    /// Where the last good one ends.
    end: u64,
    /// Whether that one is right before it.
    is_exact: bool,
    incarnation: u32,
}

fn open_one(
    place: &LogPlace<'_>,
    number: u64,
    path: PathBuf,
    before: &mut Before,
) -> Result<Slot, RecoverError> {
    let why = match Segment::open(place.disk, &path, None) {
        Ok(segment) => match before.complaint(place, number, &segment) {
            None => {
                let incarnation = segment.header.incarnation.0;
                *before = Before { end: segment.header.end(), is_exact: true, incarnation };
                segment.file.close(); // there may be thousands
                return Ok(Slot::Good(segment));
            }
            Some(why) => why,
        },
        Err(RecoverError::Header { why, .. }) => format!("its header {why}"),
        Err(error) => return Err(error),
    };
    before.is_exact = false;
    let bytes = fs::metadata(&path).naming("look at", &path)?.len();
    Ok(Slot::Bad(BadSlot { number, path, bytes, why }))
}

impl Before {
    fn complaint(&self, place: &LogPlace<'_>, number: u64, segment: &Segment) -> Option<String> {
        let header = &segment.header;
        let follows = match self.is_exact {
            true => header.base == self.end,
            false => header.base >= self.end,
        };
        if (header.folder, header.shard) != (place.folder, place.shard) {
            Some("it belongs to another data folder or shard".into())
        } else if header.number != number {
            let right = segment_path(Path::new(""), header.number);
            let right = right.display();
            Some(format!("by its header it is {right}: give it that name if that one is missing"))
        } else if !follows {
            Some("it does not follow the segment before it".into())
        } else if header.incarnation.0 < self.incarnation {
            Some("its incarnation is older than that of the one before it".into())
        } else {
            None
        }
    }
}

/// What one segment holds.
#[derive(Debug, Default)]
pub(crate) struct Walked {
    /// Places without a valid record, valid ones behind each.
    pub(crate) gaps: Vec<Gap>,
    /// Behind the last valid header.
    pub(crate) stop: u64,
    /// What stands there.
    pub(crate) behind: Option<Bad>,
    /// Up to there.
    pub(crate) tally: Tally,
    /// What the mark says that the segment begins with, if that is whole.
    pub(crate) first_mark: Option<Mark>,
    /// The newest offset that a mark here calls durable.
    pub(crate) proven: u64,
}

/// Bytes between valid headers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Gap {
    pub(crate) from: u64,
    pub(crate) to: u64,
    /// What a whole header says of it.
    pub(crate) head: Option<Head>,
    /// What came before it in the segment.
    pub(crate) before: Tally,
}

/// What was counted on the way.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Tally {
    pub(crate) records: u64,
    /// Valid headers of any kind.
    pub(crate) headers: u64,
    /// Whether the newest of them is the mark of a log that was closed in order.
    pub(crate) clean: bool,
}

/// Walks one segment, to `cut` if the next one names it.
///
/// # Errors
/// When a newer server wrote it, or the disk does not give it.
pub(crate) fn walk(segment: &Segment, cut: u64) -> Result<Walked, RecoverError> {
    let (mut at, mut steps) = (segment.header.first(), Steps::new(segment));
    let until = if cut == 0 { segment.settled_end() } else { cut };
    let mut walked = Walked { stop: at, ..Walked::default() };
    while at < until {
        steps.reach(at)?;
        let (next, head) = match segment.parse(at) {
            Ok((len, content)) if at + len as u64 <= until => {
                walked.add(content, at == segment.header.first());
                at += len as u64;
                walked.stop = at;
                continue;
            }
            Err(Bad::Unknown(kind, version)) => {
                return Err(RecoverError::Unknown {
                    path: segment.path.clone(),
                    at,
                    kind,
                    version,
                });
            }
            Err(Bad::Body(head)) if at + head.bytes as u64 <= until => {
                (Some(at + head.bytes as u64), Some(head))
            }
            Ok(_) => (None, None), // beyond the cut
            Err(bad) => {
                walked.behind = Some(bad);
                (next_header(segment, at + RECORD_ALIGN as u64, until, &mut steps)?, None)
            }
        };
        let Some(next) = next else { break };
        walked.gaps.push(Gap { from: at, to: next, head, before: walked.tally });
        walked.tally.headers += u64::from(head.is_some());
        walked.tally.clean = false;
        walked.behind = None;
        (at, walked.stop) = (next, next);
    }
    Ok(walked)
}

impl Walked {
    fn add(&mut self, content: Content<'_>, is_first: bool) {
        self.tally.headers += 1;
        match content {
            Content::Record(_) => {
                self.tally.records += 1;
                self.tally.clean = false;
            }
            Content::Mark(mark) => {
                self.tally.clean = mark.clean;
                self.proven = self.proven.max(mark.proven);
                self.first_mark = self.first_mark.or(is_first.then_some(mark));
            }
        }
    }
}

/// A page that was never written.
static ZEROS: [u8; PAGE_BYTES] = [0; PAGE_BYTES];

/// The next place from `from` on with a whole header.
fn next_header(
    segment: &Segment,
    from: u64,
    until: u64,
    steps: &mut Steps<'_>,
) -> Result<Option<u64>, RecoverError> {
    for page in (from..until).step_by(PAGE_BYTES) {
        steps.reach(page)?;
        let rest = segment.file.bytes(segment.place(page), segment.file.settled());
        let rest = rest.unwrap_or_default();
        let len = rest.len().min(PAGE_BYTES).min((until - page) as usize);
        // Most of what is left of a segment was never written.
        if rest[..len] == ZEROS[..len] {
            continue;
        }
        for place in (0..len).step_by(RECORD_ALIGN) {
            let at = page + place as u64;
            if segment.seed.parse_frame(at, &rest[place..]).is_ok() {
                return Ok(Some(at));
            }
        }
    }
    Ok(None)
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
