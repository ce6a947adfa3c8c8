//! A shard's log as a whole: its segments, and which of its gaps are damage.
//!
//! As in recovery, bad bytes are damage if anything proves that they were durable: a mark that
//! names an offset behind them, or a cut that does. What nothing proves is a torn end, never
//! acked, and the next start cuts it off; records behind it are dead.

use std::convert::Infallible;
use std::io;
use std::ops::ControlFlow;
use std::thread;
use std::time::Duration;

use tern_core::log::Record;
use tern_core::placement::ShardId;
use tern_storage::SEGMENT_HEADER_BYTES;

use crate::checkpoints::{self, CheckpointFile};
use crate::folder::Folder;
use crate::segment::SegmentFile;
use crate::walk::{Gap, Looks, Piece, walk};

/// How often a torn end of a live log is looked at again: a batch may be under way.
const LOOKS_MAX: usize = 20;

/// Time between two looks: some commits.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// What a segment is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum State {
    /// Has records, and later ones are elsewhere.
    Full,
    /// As full, and a later start cut off what was torn.
    Cut,
    /// Has the newest records.
    Active,
    /// Has no records yet.
    Spare,
    /// A header without room for records.
    Empty,
    /// Its header can't be used.
    Unreadable,
}

impl State {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Cut => "cut",
            Self::Active => "active",
            Self::Spare => "spare",
            Self::Empty => "empty",
            Self::Unreadable => "unreadable",
        }
    }
}

/// What is wrong.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Problem {
    /// Number of the segment.
    pub(crate) segment: u64,
    pub(crate) kind: ProblemKind,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum ProblemKind {
    /// Something that was durable can't be read.
    Damage(Gap),
    /// A batch that was never acked.
    Torn(Gap),
    /// The whole file.
    File(String),
}

impl ProblemKind {
    fn of(gap: &Gap, durable: bool) -> Self {
        match &gap.looks {
            Looks::Unknown(..) => {
                let (looks, at) = (gap.looks.text(), gap.at);
                Self::File(format!("{looks}, at offset {at}: use the server that wrote it"))
            }
            _ if durable => Self::Damage(gap.clone()),
            _ => Self::Torn(gap.clone()),
        }
    }
}

/// One segment, walked.
pub(crate) struct Segment {
    pub(crate) file: SegmentFile,
    /// Where the next segment's header says that its data ends.
    pub(crate) cut: Option<u64>,
    pub(crate) state: State,
    pub(crate) records: u64,
    pub(crate) marks: u64,
    /// Bytes of records and marks.
    pub(crate) used: u64,
    /// Where its records end, and the gaps before.
    end: Option<Gap>,
    gaps: Vec<Gap>,
    /// The newest offset inside of it that a mark proves.
    proven_inside: u64,
}

/// A shard's log, judged.
pub(crate) struct Shard {
    pub(crate) id: ShardId,
    pub(crate) segments: Vec<Segment>,
    pub(crate) problems: Vec<Problem>,
    pub(crate) checkpoints: Vec<CheckpointFile>,
    /// Files that were not finished.
    pub(crate) unfinished: usize,
    /// The newest offset that a mark proves.
    pub(crate) proven: u64,
    /// Offset behind the last good record.
    pub(crate) end: u64,
    /// Whether it was closed in order.
    pub(crate) clean: bool,
    /// Records from here on are dead: the next start cuts them off.
    pub(crate) dead_from: Option<u64>,
}

impl Shard {
    /// Walks all of a shard; `progress` is told the bytes of each file when it was walked.
    ///
    /// # Errors
    /// When its folder can't be read. What is wrong with a file is a problem, not an error.
    pub(crate) fn read(
        folder: &Folder,
        id: ShardId,
        mut progress: impl FnMut(u64),
    ) -> io::Result<Self> {
        let mut shard = Self::look(folder, id, &mut progress)?;
        for _ in 0..LOOKS_MAX {
            if folder.owner.is_none() || shard.dead_from.is_none() {
                break;
            }
            thread::sleep(LOOK_EVERY);
            shard = Self::look(folder, id, &mut |_| {})?;
        }
        Ok(shard)
    }

    fn look(folder: &Folder, id: ShardId, progress: &mut impl FnMut(u64)) -> io::Result<Self> {
        let (mut segments, mut problems) = (Vec::new(), Vec::new());
        let (paths, unfinished) = folder.segments(id)?;
        let checkpoints = checkpoints::read(folder, id)?;
        let origin = checkpoints::newest(&checkpoints);
        let (first, start) = origin.map_or((1, 0), |origin| (origin.start_number, origin.start));
        let (mut expected, mut base) = (first, Some(start));
        // What a checkpoint has given up may be there, or not.
        for (number, path) in paths.into_iter().filter(|(number, _)| *number >= first) {
            if number != expected {
                let what = missing(expected, number - 1);
                problems.push(Problem { segment: expected, kind: ProblemKind::File(what) });
                base = None;
            }
            let segment = match SegmentFile::open(&path, number, base) {
                Ok(file) => Segment::new(file),
                Err(error) => {
                    let kind = ProblemKind::File(format!("can't read {}: {error}", path.display()));
                    problems.push(Problem { segment: number, kind });
                    (expected, base) = (number + 1, None);
                    continue;
                }
            };
            let header = segment.file.decoder.map(|decoder| decoder.header);
            problems.extend(segment.complaints(folder, id, base));
            (expected, base) = (number + 1, header.map(|header| header.end()));
            segments.push(segment);
        }
        if segments.is_empty() {
            let what = "all segments of this shard are missing".into();
            problems.push(Problem { segment: 1, kind: ProblemKind::File(what) });
        }
        let (proven, end) = (0, 0);
        let clean = false;
        let mut shard = Self {
            id,
            segments,
            problems,
            checkpoints,
            unfinished,
            proven,
            end,
            clean,
            dead_from: None,
        };
        shard.find_cuts();
        shard.walk(progress);
        shard.judge();
        shard.name_states();
        Ok(shard)
    }

    /// Everything in the order of the log, with the number of its segment.
    pub(crate) fn visit<E>(
        &self,
        mut visit: impl FnMut(&Segment, Piece<'_>) -> Result<ControlFlow<()>, E>,
    ) -> Result<(), E> {
        for segment in &self.segments {
            let Some(decoder) = &segment.file.decoder else { continue };
            let whole = walk(&segment.file, decoder, segment.cut, |piece| visit(segment, piece))?;
            if whole.is_none() {
                break;
            }
        }
        Ok(())
    }

    /// Only the records that a start would keep.
    pub(crate) fn records<E>(
        &self,
        mut visit: impl FnMut(u64, Record<'_>) -> Result<ControlFlow<()>, E>,
    ) -> Result<(), E> {
        self.visit(|_, piece| match piece {
            Piece::Record { at, record, .. } if !self.is_dead(at) => visit(at, record),
            _ => Ok(ControlFlow::Continue(())),
        })
    }

    /// Whether the next start cuts off what stands here.
    pub(crate) fn is_dead(&self, at: u64) -> bool {
        self.dead_from.is_some_and(|from| at >= from)
    }

    /// Whether anything that was durable is lost.
    pub(crate) fn is_damaged(&self) -> bool {
        self.problems.iter().any(|problem| !matches!(problem.kind, ProblemKind::Torn(_)))
            || self.checkpoints.iter().any(|file| file.found.is_err())
    }

    /// Where the kept log begins: what stood before is deleted.
    pub(crate) fn start(&self) -> u64 {
        let header = |segment: &Segment| segment.file.decoder.map(|decoder| decoder.header.base);
        checkpoints::newest(&self.checkpoints)
            .map(|header| header.start)
            .or_else(|| self.segments.first().and_then(header))
            .unwrap_or(0)
    }

    /// The segment that an offset lies in.
    pub(crate) fn segment_at(&self, at: u64) -> Option<&Segment> {
        self.segments.iter().find(|segment| {
            let header = segment.file.decoder.map(|decoder| decoder.header);
            header.is_some_and(|header| (header.base..header.end()).contains(&at))
        })
    }

    fn find_cuts(&mut self) {
        for index in 1..self.segments.len() {
            let next = &self.segments[index].file;
            let cut = next.decoder.map_or(0, |decoder| decoder.header.cut);
            let follows = self.segments[index - 1].file.number + 1 == next.number;
            if cut != 0 && follows && next.complaint.is_none() {
                self.segments[index - 1].cut = Some(cut);
            }
        }
    }

    fn walk(&mut self, progress: &mut impl FnMut(u64)) {
        for index in 0..self.segments.len() {
            let Some(decoder) = self.segments[index].file.decoder else {
                progress(self.segments[index].file.bytes);
                continue;
            };
            let mut found = Found::default();
            let segment = &self.segments[index];
            let end = walk(&segment.file, &decoder, segment.cut, |piece| {
                found.add(piece);
                Ok::<_, Infallible>(ControlFlow::Continue(()))
            });
            let Ok(end) = end;
            progress(segment.file.bytes);
            self.take(index, found, end);
        }
    }

    fn take(&mut self, index: usize, found: Found, end: Option<Gap>) {
        for proven in &found.proven {
            self.proven = self.proven.max(*proven);
            let inside = |segment: &&mut Segment| {
                let header = segment.file.decoder.map(|decoder| decoder.header);
                header.is_some_and(|h| h.base < *proven && *proven <= h.end())
            };
            if let Some(segment) = self.segments.iter_mut().find(inside) {
                segment.proven_inside = segment.proven_inside.max(*proven);
            }
        }
        let segment = &mut self.segments[index];
        (segment.records, segment.marks) = (found.records, found.marks);
        (segment.used, segment.gaps) = (found.used, found.gaps);
        if segment.has_records() {
            self.clean = found.clean;
            self.end = end.as_ref().map_or(self.end, |gap| gap.at);
        }
        segment.end = end;
    }

    fn judge(&mut self) {
        let mut judged = Vec::new();
        for (index, segment) in self.segments.iter().enumerate() {
            let number = segment.file.number;
            let open = segment.cut.is_none() && self.is_open_ended(index);
            let last = segment.end.iter().filter(|end| {
                let cut = segment.cut.is_some_and(|cut| end.at != cut);
                end.looks != Looks::Zeros || segment.proven_inside > end.at || cut || open
            });
            for gap in segment.gaps.iter().chain(last) {
                let durable = self.proven > gap.at || segment.cut.is_some();
                judged.push(Problem { segment: number, kind: ProblemKind::of(gap, durable) });
            }
        }
        judged.extend(self.shortened());
        self.dead_from = judged.iter().find_map(|problem| match &problem.kind {
            ProblemKind::Torn(gap) => Some(gap.at),
            _ => None,
        });
        self.end = self.dead_from.unwrap_or(self.end);
        self.problems.extend(judged);
        self.problems.sort_by_key(|problem| problem.segment);
    }

    /// Whether what would say where a segment ended is damaged: the first mark of the next one,
    /// which was durable. Then the rest of it may have held records, as a start must fear.
    fn is_open_ended(&self, index: usize) -> bool {
        let next = self.segments.get(index + 1);
        let first = next.and_then(|next| Some((next, next.file.decoder?.header.first())));
        first.is_some_and(|(next, first)| {
            let bad = next.gaps.first().is_some_and(|gap| gap.at == first);
            bad && self.proven > first
        })
    }

    /// Files from the newest records on that are shorter than they were made, and no header says
    /// why: what stood there may be lost.
    fn shortened(&self) -> Vec<Problem> {
        let last = self.segments.iter().rposition(Segment::has_records).unwrap_or(0);
        let short = self.segments.iter().skip(last).filter_map(|segment| {
            let (bytes, capacity) = (segment.file.bytes, segment.file.decoder?.header.capacity);
            let what =
                format!("the file has {bytes} bytes of the {capacity} that it was made with");
            let kind = ProblemKind::File(what);
            let short = bytes < capacity && segment.cut.is_none();
            short.then_some(Problem { segment: segment.file.number, kind })
        });
        short.collect()
    }

    fn name_states(&mut self) {
        let last = self.segments.iter().rposition(Segment::has_records);
        for (index, segment) in self.segments.iter_mut().enumerate() {
            let capacity = segment.file.decoder.map(|decoder| decoder.header.capacity);
            segment.state = match capacity {
                None => State::Unreadable,
                Some(capacity) if capacity <= SEGMENT_HEADER_BYTES as u64 => State::Empty,
                Some(_) if segment.cut.is_some() => State::Cut,
                Some(_) if Some(index) == last => State::Active,
                Some(_) if segment.has_records() => State::Full,
                Some(_) => State::Spare,
            };
        }
    }
}

impl Segment {
    fn new(file: SegmentFile) -> Self {
        Self {
            file,
            cut: None,
            state: State::Unreadable,
            records: 0,
            marks: 0,
            used: 0,
            end: None,
            gaps: Vec::new(),
            proven_inside: 0,
        }
    }

    fn has_records(&self) -> bool {
        self.records + self.marks > 0
    }

    /// Bytes of the capacity that no record has.
    pub(crate) fn spare(&self) -> u64 {
        let capacity = self.file.decoder.map_or(0, |decoder| decoder.header.capacity);
        capacity.saturating_sub(SEGMENT_HEADER_BYTES as u64 + self.used)
    }

    /// What the header says against its name, its place and its folder.
    fn complaints(&self, folder: &Folder, id: ShardId, base: Option<u64>) -> Vec<Problem> {
        let mut complaints: Vec<String> = self.file.complaint.iter().cloned().collect();
        match self.file.decoder.map(|decoder| decoder.header) {
            None => complaints.push("none of its records can be proven without the header".into()),
            Some(_) if self.file.complaint.is_some() => {
                complaints.push("its salt is intact, so its records were read all the same".into());
            }
            Some(header) => {
                if self.file.is_half {
                    let what = "one of the two copies of its header is damaged; a start mends it";
                    complaints.push(what.into());
                }
                let facts = folder.facts.as_ref();
                if facts.is_ok_and(|facts| facts.id != header.folder) || header.shard != id.0 {
                    complaints.push("it belongs to another data folder or shard".into());
                }
                if header.number != self.file.number || base.is_some_and(|base| base != header.base)
                {
                    complaints.push("it does not follow the segment before it".into());
                }
            }
        }
        let segment = self.file.number;
        let file = |what| Problem { segment, kind: ProblemKind::File(what) };
        complaints.into_iter().map(file).collect()
    }
}

/// What one walk found.
#[derive(Default)]
struct Found {
    records: u64,
    marks: u64,
    used: u64,
    gaps: Vec<Gap>,
    proven: Vec<u64>,
    clean: bool,
}

impl Found {
    fn add(&mut self, piece: Piece<'_>) {
        self.clean = false;
        match piece {
            Piece::Record { bytes, .. } => {
                self.records += 1;
                self.used += bytes as u64;
            }
            Piece::Mark { mark, bytes, .. } => {
                self.marks += 1;
                self.used += bytes as u64;
                self.clean = mark.clean;
                self.add_proven(mark.proven);
            }
            Piece::Gap(gap) => self.gaps.push(gap),
        }
    }

    /// Marks grow, and only the newest in each segment matters: few are kept.
    fn add_proven(&mut self, proven: u64) {
        if self.proven.len() < 2 {
            self.proven.push(proven);
        } else if let Some(last) = self.proven.last_mut() {
            *last = proven.max(*last);
        }
    }
}

fn missing(first: u64, last: u64) -> String {
    match last - first {
        0 => format!("segment {first} is missing"),
        _ => format!("segments {first} to {last} are missing"),
    }
}
