//! A log as it is on disk, judged; and its records and losses in order, for a [`Visitor`].
//!
//! Needs no running server: repair reads logs by it as well.

use std::collections::BTreeMap;

use tern_core::log::{Links, Offset, Record};
use tern_core::shard::ReplayError;
use tern_protocol::frames::PushBody;
use tern_protocol::{ChannelId, Incarnation, MessageId};
use zerocopy::FromBytes;

use crate::error::RecoverError;
use crate::format::{Content, Id};
use crate::header::{Durability, SegmentHeader};
use crate::recovery::Raised;
use crate::recovery::accepted::Accepted;
use crate::recovery::loss::{Loss, Lost};
use crate::recovery::scan::{LogPlace, Origin, Slot, Steps, open_all, walk};
use crate::recovery::verdict::{Verdict, judge};
use crate::recovery::visitor::Visitor;
use crate::segment::Segment;
use crate::upkeep::keeper::Found;

/// A log whose end is known.
#[derive(Debug)]
pub(crate) struct LogScan {
    pub(crate) verdict: Verdict,
    /// The newest header that can be read.
    pub(crate) newest: SegmentHeader,
    pub(crate) accepted: Accepted,
    /// Checkpoints; the newest is where the replay begins. And what is before all of them.
    pub(crate) found: Found,
    /// Checkpoints that can't be used, and why.
    pub(crate) checkpoints_bad: Vec<String>,
    origin: Origin,
}

impl LogScan {
    /// The first pass.
    pub(crate) fn new(place: &LogPlace<'_>) -> Result<Self, RecoverError> {
        let (found, checkpoints_bad) = Found::look(place)?;
        let origin = Origin::of(found.origin());
        let slots = open_all(place, &origin)?;
        let accepted = Accepted::read(place.dir, place.folder, place.shard)?;
        let mut walks = Vec::new();
        let mut newest = None;
        for (index, slot) in slots.iter().enumerate() {
            let Slot::Good(segment) = slot else {
                walks.push(None);
                continue;
            };
            newest = Some(segment.header);
            let cut = match slots.get(index + 1) {
                Some(Slot::Good(next)) => next.header.cut,
                _ => 0,
            };
            let is_read = segment.header.base >= origin.at.0;
            walks.push(if is_read { Some(walk(segment, cut)?) } else { None });
        }
        let newest = newest.expect("a log without a usable segment was refused");
        let mut verdict = judge(slots, &walks, &origin);
        for loss in &mut verdict.losses {
            loss.accepted = accepted.covers(loss.at, loss.to);
            loss.stops = loss.what.may_be_state() && !loss.accepted;
        }
        Ok(Self { verdict, newest, accepted, origin, found, checkpoints_bad })
    }

    /// Whether something that was shown may be lost.
    pub(crate) fn why_raised(&self, boot: &Id) -> Option<Raised> {
        if self.accepted.incarnation > self.newest.incarnation {
            return Some(Raised::Accepted);
        }
        let Verdict { kept, empty, clean, .. } = &self.verdict;
        // A later run left nothing but its first segment: the mark in front of it is not its own.
        let clean = *clean && empty.first().is_none_or(|next| next.header.cut == 0);
        let same_boot = self.newest.boot == *boot && self.newest.boot != [0; 16];
        if self.newest.durability == Durability::Process && !same_boot && !clean {
            return Some(Raised::PowerCut);
        }
        // Only the next segment's header says that a shorter file is no loss.
        let last = kept.last().map(|(segment, _)| segment);
        let newest: Vec<&Segment> = last.into_iter().chain(empty).collect();
        let short = newest.iter().enumerate().any(|(index, segment)| {
            let named = newest.get(index + 1).is_some_and(|next| next.header.cut != 0);
            !named && (segment.file.len() as u64) < segment.header.capacity
        });
        short.then_some(Raised::Shortened)
    }

    /// The second pass: tells everything in order, `known` being the incarnation that the visitor
    /// knows. Then each loss has the messages that are known of it, and whether it stops the log.
    pub(crate) fn replay(
        &mut self,
        visitor: &mut impl Visitor,
        known: &mut Incarnation,
    ) -> Result<(), RecoverError> {
        self.restore(visitor, known)?;
        let mut names = Names::default();
        let losses = self.verdict.losses.iter();
        let mut losses = losses.filter(|loss| loss.to > self.origin.at.0).peekable();
        for (segment, end) in &self.verdict.kept {
            let first = segment.header.first();
            if segment.header.base < self.origin.at.0 {
                continue;
            }
            while let Some(loss) = losses.next_if(|loss| loss.at < first) {
                self.tell(loss, visitor, &mut names)?;
            }
            raise(visitor, known, segment.header.incarnation);
            let (mut steps, mut at) = (Steps::new(segment), first);
            while at < *end {
                if let Some(loss) = losses.next_if(|loss| loss.at == at) {
                    self.tell(loss, visitor, &mut names)?;
                    at = loss.to;
                    continue;
                }
                steps.reach(at)?;
                let (len, content) = segment.parse(at).map_err(|_| changed(segment, at))?;
                let next = at + len as u64;
                if let Content::Record(record) = content {
                    visitor.record(Offset(at), Offset(next), record).map_err(refused)?;
                    self.name(&record, &mut names);
                }
                at = next;
            }
        }
        for loss in losses {
            self.tell(loss, visitor, &mut names)?;
        }
        self.settle(names, &visitor.unexplained());
        Ok(())
    }

    /// Hands out the rows of the checkpoint.
    fn restore(
        &self,
        visitor: &mut impl Visitor,
        known: &mut Incarnation,
    ) -> Result<(), RecoverError> {
        let Some(checkpoint) = self.found.shelf.newest() else { return Ok(()) };
        let header = &checkpoint.header;
        raise(visitor, known, header.incarnation);
        checkpoint.rows(|kind, row| Ok(visitor.state(Offset(header.end), kind, row)?))?;
        Ok(())
    }

    fn tell(
        &self,
        loss: &Loss,
        visitor: &mut impl Visitor,
        names: &mut Names,
    ) -> Result<(), RecoverError> {
        let Some(links) = loss.told() else { return Ok(()) };
        if let Some(before) = links.and_then(|links| links.channel.some()) {
            // A whole header proves that it follows this message in its channel.
            let known = names.0.get(&before.0).copied().or_else(|| self.message_at(before.0));
            if let Some((channel, id)) = known {
                names.0.insert(loss.at, (channel, id.next()));
            }
        }
        visitor.lost(Offset(loss.first()), Offset(loss.to), links).map_err(refused)
    }

    /// Names the lost messages that a record points to.
    fn name(&self, record: &Record<'_>, names: &mut Names) {
        if self.verdict.losses.is_empty() || !record.kind.is_in_channel() {
            return;
        }
        if let Ok((body, _)) = PushBody::ref_from_prefix(record.body) {
            self.name_links(body.channel, body.id.into(), &record.links, names);
        }
    }

    fn name_links(&self, channel: ChannelId, id: MessageId, links: &Links, names: &mut Names) {
        let before = (links.channel, MessageId(id.0.saturating_sub(1)));
        for (at, id) in [before, (links.skip, id.skip())] {
            let Some(at) = at.some() else { continue }; // the first of its channel
            let Some(loss) = self.loss_at(at.0).filter(|_| !names.0.contains_key(&at.0)) else {
                continue;
            };
            names.0.insert(at.0, (channel, id));
            if let Lost::Message(links) | Lost::Change(links) | Lost::Recall(links) = &loss.what {
                self.name_links(channel, id, links, names);
            }
        }
    }

    fn loss_at(&self, at: u64) -> Option<&Loss> {
        let losses = &self.verdict.losses;
        let after = losses.partition_point(|loss| loss.at <= at);
        losses[..after].iter().rev().find(|loss| loss.at < loss.to).filter(|loss| at < loss.to)
    }

    fn message_at(&self, at: u64) -> Option<(ChannelId, MessageId)> {
        let kept = &self.verdict.kept;
        let after = kept.partition_point(|(segment, _)| segment.header.first() <= at);
        match kept[after.checked_sub(1)?].0.parse(at).ok()? {
            (_, Content::Record(Record { kind, body, .. })) if kind.is_in_channel() => {
                let (body, _) = PushBody::ref_from_prefix(body).ok()?;
                Some((body.channel, body.id.into()))
            }
            _ => None,
        }
    }

    fn settle(&mut self, names: Names, unexplained: &[Offset]) {
        for loss in &mut self.verdict.losses {
            let named = names.0.range(loss.at..loss.to);
            loss.messages = named.map(|(at, (channel, id))| (*at, *channel, *id)).collect();
            loss.stops |= !loss.accepted && unexplained.contains(&Offset(loss.at));
        }
    }
}

/// Lost messages of which it is known which they are, by their offset.
#[derive(Default)]
struct Names(BTreeMap<u64, (ChannelId, MessageId)>);

/// Tells a visitor of a new incarnation.
pub(crate) fn raise(visitor: &mut impl Visitor, known: &mut Incarnation, incarnation: Incarnation) {
    if incarnation > *known {
        *known = incarnation;
        visitor.raise(incarnation);
    }
}

fn refused(error: ReplayError) -> RecoverError {
    RecoverError::Replay { at: error.at.0, why: error.what }
}

/// The file was intact a moment ago.
fn changed(segment: &Segment, at: u64) -> RecoverError {
    let why = "it changed while it was read, so another process writes to it".into();
    RecoverError::Damaged { path: segment.path.clone(), at, to: at, why }
}
