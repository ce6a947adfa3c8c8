//! What the gaps of a log mean: damage, or a batch that was never acked.
//!
//! A place was durable if anything proves it: a mark that names an offset behind it, a segment
//! with records behind it (its first batch is written only after everything before is synced), a
//! cut that a later start made behind it. What nothing proves was in the last batch: the log ends
//! in front of it, and valid records behind it stay dead. Where a segment can't be used it is not
//! known how far the log went, and everything before counts as durable.

use crate::format::{Bad, CORE_RECORD_BYTES_MIN, Head};
use crate::header::SEGMENT_HEADER_BYTES;
use crate::recovery::loss::{Loss, Lost};
use crate::recovery::scan::{BadSlot, Gap, Origin, Slot, Tally, Walked, covered_end};
use crate::segment::Segment;
use crate::segment::map::PAGE_BYTES;

use tern_core::log::RecordKind;

/// A log whose end is known.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    /// The segments of the log, and where the data of each ends.
    pub(crate) kept: Vec<(Segment, u64)>,
    /// Segments behind them, without a record.
    pub(crate) empty: Vec<Segment>,
    /// What is lost, by growing offset.
    pub(crate) losses: Vec<Loss>,
    /// Offset behind the last good record.
    pub(crate) end: u64,
    /// Everything before was synced by the run that wrote it.
    pub(crate) proven: u64,
    /// Number and base of the segment that is made next.
    pub(crate) next: (u64, u64),
    /// Whether the last of the segments of the log can be used, so that its end can be named.
    pub(crate) ends_well: bool,
    /// Whether something that was never acked is cut off.
    pub(crate) torn: bool,
    /// Whether the log was closed in order.
    pub(crate) clean: bool,
    pub(crate) records: u64,
    pub(crate) bytes: u64,
    /// Where in `losses` the slots in a row begin that can't be used.
    run: usize,
}

/// What all marks, segments and cuts of a log prove together.
struct Evidence {
    /// Everything before was durable.
    durable: u64,
    /// The newest offset that a mark names.
    marked: u64,
    /// Slots from here on hold nothing.
    kept: usize,
    /// Slots from here on hold no record.
    used: usize,
}

/// Judges a log; `walks` has an entry for each slot that was walked.
pub(crate) fn judge(slots: Vec<Slot>, walks: &[Option<Walked>], origin: &Origin) -> Verdict {
    let evidence = Evidence::gather(&slots, walks, origin);
    let mut verdict = Verdict {
        ends_well: true,
        end: origin.end,
        next: (origin.start.1, origin.start.0),
        ..Verdict::default()
    };
    let ends: Vec<End> =
        (0..evidence.kept).map(|index| end_of(&slots, walks, index, &evidence)).collect();
    for (index, slot) in slots.into_iter().enumerate() {
        match slot {
            Slot::Good(segment) if index >= evidence.kept => verdict.empty.push(segment),
            Slot::Good(segment) => {
                verdict.keep(segment, walks[index].as_ref(), &ends[index], &evidence)
            }
            Slot::Bad(bad) => verdict.miss(bad),
        }
    }
    verdict.drop_unwritten(origin);
    verdict.find_covered(origin);
    verdict.proven = evidence.marked;
    verdict
}

/// Where the data of a segment should end.
#[derive(Clone, Copy)]
enum End {
    /// A later segment says so.
    Known(u64),
    /// It had data up to its end, or so it must be feared.
    Full,
    /// Where its records stop.
    Unknown,
}

impl Evidence {
    fn gather(slots: &[Slot], walks: &[Option<Walked>], origin: &Origin) -> Self {
        let holds = |walk: &Option<Walked>| walk.as_ref().is_some_and(|w| w.tally.headers > 0);
        let covered = |slot: &Slot| match slot {
            Slot::Good(segment) => segment.header.base < origin.at.0,
            Slot::Bad(_) => false,
        };
        let used = walks.iter().rposition(holds).or_else(|| slots.iter().rposition(covered));
        let used = used.map_or(0, |last| last + 1);
        let bad = slots.iter().rposition(|slot| matches!(slot, Slot::Bad(_)));
        let kept = used.max(bad.map_or(0, |last| last + 1));
        let mut evidence = Self { durable: origin.at.0, marked: origin.end, kept, used };
        for (index, slot) in slots.iter().enumerate() {
            let Slot::Good(segment) = slot else { continue };
            evidence.durable = evidence.durable.max(segment.header.cut);
            if index + 1 == used {
                evidence.durable = evidence.durable.max(segment.header.base);
            }
            if bad.is_some_and(|last| index < last) {
                evidence.durable = evidence.durable.max(segment.header.end());
            }
            if let Some(walk) = &walks[index] {
                evidence.marked = evidence.marked.max(walk.proven);
            }
        }
        evidence.durable = evidence.durable.max(evidence.marked);
        evidence
    }
}

fn end_of(slots: &[Slot], walks: &[Option<Walked>], index: usize, evidence: &Evidence) -> End {
    let Slot::Good(segment) = &slots[index] else { return End::Unknown };
    let Some(walk) = &walks[index] else {
        let next = match slots.get(index + 1) {
            Some(Slot::Good(next)) => Some(next),
            _ => None,
        };
        return End::Known(covered_end(segment, next));
    };
    let is_empty = walk.behind.is_none_or(|bad| bad == Bad::Empty);
    match slots.get(index + 1) {
        Some(Slot::Good(next)) if next.header.cut != 0 => End::Known(next.header.cut),
        Some(Slot::Good(next)) if index + 1 < evidence.used => {
            let mark = walks[index + 1].as_ref().and_then(|walk| walk.first_mark);
            let was_durable = evidence.marked > next.header.first();
            let inside = segment.header.first()..=next.header.base;
            match mark.filter(|mark| inside.contains(&mark.proven)) {
                Some(mark) => End::Known(mark.proven),
                // Nothing proves that it ever reached the disk, and then what is before it ended
                // where its records do.
                None if !was_durable && is_empty => End::Unknown,
                None => End::Full,
            }
        }
        Some(Slot::Bad(_)) if !is_empty => End::Full,
        _ => End::Unknown,
    }
}

impl Verdict {
    fn keep(&mut self, segment: Segment, walk: Option<&Walked>, end: &End, evidence: &Evidence) {
        let header = segment.header;
        self.close_range(header.base);
        self.next = (header.number + 1, header.end());
        self.ends_well = true;
        if header.cut != 0 {
            self.clean = false; // a later run began here: the mark of an end before is not its own
        }
        let end = match walk {
            None => match end {
                End::Known(end) => *end,
                End::Full | End::Unknown => segment.settled_end(),
            },
            Some(walk) => self.judge_segment(&segment, walk, end, evidence),
        };
        self.end = end;
        self.kept.push((segment, end));
    }

    fn judge_segment(
        &mut self,
        segment: &Segment,
        walk: &Walked,
        end: &End,
        evidence: &Evidence,
    ) -> u64 {
        let torn = walk.gaps.iter().find(|gap| gap.from >= evidence.durable);
        let (stop, tally) = torn.map_or((walk.stop, walk.tally), |gap| (gap.from, gap.before));
        let damage = walk.gaps.iter().filter(|gap| gap.from < stop);
        self.losses.extend(damage.map(|gap| loss(segment, gap)));
        let end = match end {
            End::Known(end) => stop.max(*end),
            End::Full => stop.max(segment.header.end()),
            End::Unknown => stop,
        };
        if stop < end {
            let gap = Gap { from: stop, to: end, head: None, before: tally };
            self.losses.push(Loss { what: Lost::Unproven, ..loss(segment, &gap) });
        } else {
            self.torn |= torn.is_some() || walk.behind.is_some_and(|bad| bad != Bad::Empty);
        }
        self.count(&tally, end - segment.header.first());
        end
    }

    fn count(&mut self, tally: &Tally, bytes: u64) {
        self.records += tally.records;
        self.bytes += bytes;
        if tally.headers > 0 {
            self.clean = tally.clean;
        }
    }

    /// A slot that can't be used.
    fn miss(&mut self, bad: BadSlot) {
        if self.ends_well {
            self.run = self.losses.len();
        }
        let at = self.next.1;
        let bytes = bad.bytes.max(SEGMENT_HEADER_BYTES as u64).next_multiple_of(PAGE_BYTES as u64);
        self.losses.push(Loss {
            path: bad.path,
            segment: bad.number,
            at,
            to: at + bytes,
            what: Lost::Segment(bad.why),
            messages: Vec::new(),
            stops: false,
            accepted: false,
        });
        self.next = (bad.number + 1, at + bytes);
        (self.ends_well, self.clean) = (false, false);
    }

    /// The segment behind ones that can't be used says how far those reached.
    fn close_range(&mut self, base: u64) {
        if self.ends_well {
            return;
        }
        // Of several in a row the first has the whole range: where each began is not known.
        for (index, loss) in self.losses[self.run..].iter_mut().enumerate() {
            loss.to = base;
            if index > 0 {
                loss.at = base;
            }
        }
    }

    /// A segment at the end of which nothing is left counts as empty, whatever lies dead in it: the
    /// next run begins in its place. So the first empty one is always of the newest run, and says
    /// which life of the log that was.
    fn drop_unwritten(&mut self, origin: &Origin) {
        let is_unwritten = |(segment, end): &mut (Segment, u64)| {
            segment.header.base >= origin.at.0 && *end == segment.header.first()
        };
        while self.ends_well
            && self.kept.len() > 1
            && let Some((segment, _)) = self.kept.pop_if(is_unwritten)
        {
            self.next = (segment.header.number, segment.header.base);
            self.end = self.kept.last().expect("there was more than one").1;
            self.empty.insert(0, segment);
        }
    }

    fn find_covered(&mut self, origin: &Origin) {
        for loss in &mut self.losses {
            if let Lost::Segment(why) = &loss.what
                && loss.to <= origin.at.0
            {
                loss.what = Lost::Covered(why.clone());
            }
        }
    }
}

fn loss(segment: &Segment, gap: &Gap) -> Loss {
    let bytes = gap.to - gap.from;
    let what = match gap.head {
        Some(Head { kind: RecordKind::Message, links, .. }) => Lost::Message(links),
        Some(Head { kind: RecordKind::Change, links, .. }) => Lost::Change(links),
        Some(Head { kind: RecordKind::Recall, links, .. }) => Lost::Recall(links),
        Some(Head { kind: RecordKind::Read, .. }) => Lost::Read,
        Some(Head { kind, .. }) => Lost::State(kind),
        None if bytes < CORE_RECORD_BYTES_MIN as u64 => Lost::Mark,
        None => Lost::Unproven,
    };
    Loss {
        path: segment.path.clone(),
        segment: segment.header.number,
        at: gap.from,
        to: gap.to,
        what,
        messages: Vec::new(),
        stops: false,
        accepted: false,
    }
}
