//! One channel as its shard keeps it in memory: the newest id, the way back, and what is durable.

use std::collections::VecDeque;
use std::sync::Arc;

use tern_protocol::{ChannelId, Incarnation, MessageId, UnixMillis};
use zerocopy::FromBytes;
use zerocopy::little_endian::{U32, U64};

use super::state::{ChannelRow, RecallRow};
use crate::log::{Durable, Links, Offset};
use crate::mail::{Grant, Proven};
use crate::recalled::Recalled;

/// A channel that has been opened.
#[derive(Clone, Debug)]
pub(super) struct Channel {
    /// Offsets of the messages `newest`, `newest.skip()`, and so on to the first, oldest in
    /// front: as many as `newest` has bits set. The next message's links come from here, so that
    /// appending reads nothing. In place of a lost message stands the newest one before it that
    /// could be read, or none.
    spine: Vec<Offset>,
    newest: MessageId,
    /// When the newest message that was not lost came, in s since 1970 UTC.
    newest_s: u32,
    /// The oldest id within retention; the one after the newest if there is none.
    oldest: MessageId,
    durable: MessageId,
    durable_at: Offset,
    restarted_at: MessageId,
    /// `None` where nothing was recalled.
    recalls: Option<Box<Recalls>>,
}

/// What was recalled of a channel.
#[derive(Clone, Debug, Default)]
struct Recalls {
    /// By recalls that are durable.
    durable: Arc<Recalled>,
    /// Each of these, oldest recall first: what was recalled is known as long as the recall is
    /// kept, since edits of it stand between the two and may outlive it.
    kept: VecDeque<Recall>,
    /// Recalls that are not, oldest first.
    unproven: VecDeque<Recall>,
}

/// A recall, and what it took back.
#[derive(Clone, Copy, Debug)]
struct Recall {
    id: MessageId,
    at: Offset,
    recalled: MessageId,
}

impl Channel {
    /// A channel whose first message comes under this incarnation. What an earlier one may have
    /// shown of it was lost.
    pub(super) fn new(incarnation: Incarnation) -> Self {
        let restarted_at = if incarnation.0 > 1 { 1 } else { u64::MAX };
        Self {
            spine: Vec::new(),
            newest: MessageId(0),
            newest_s: 0,
            oldest: MessageId(1),
            durable: MessageId(0),
            durable_at: Offset::NONE,
            restarted_at: MessageId(restarted_at),
            recalls: None,
        }
    }

    /// The id that the next message gets.
    pub(super) fn next_id(&self) -> MessageId {
        self.newest.next()
    }

    /// The links of the next message within the channel.
    pub(super) fn next_links(&self, device: Offset) -> Links {
        let after_pop = self.spine.len() - self.spine_pops();
        let skip = after_pop.checked_sub(1).map_or(Offset::NONE, |last| self.spine[last]);
        Links { channel: self.newest_at(), device, skip }
    }

    /// The message after the newest was appended at `at`, and came at this time.
    pub(super) fn appended(&mut self, at: Offset, time: UnixMillis) -> MessageId {
        self.newest_s = (time.0 / 1_000) as u32; // fits until 2106; it only orders channels
        self.push(at)
    }

    fn push(&mut self, at: Offset) -> MessageId {
        self.spine.truncate(self.spine.len() - self.spine_pops());
        self.spine.push(at);
        self.newest = self.newest.next();
        self.newest
    }

    /// The newest message that was not lost.
    pub(super) fn newest_at(&self) -> Offset {
        self.spine.last().copied().unwrap_or_default()
    }

    /// Where the newest message's skip link should lead.
    pub(super) fn skip_at(&self) -> Offset {
        self.spine.iter().rev().nth(1).copied().unwrap_or_default()
    }

    /// All messages up to `up_to` that are not known were given out, were durable, and are lost.
    pub(super) fn lose(&mut self, up_to: MessageId) {
        let newest_at = self.newest_at();
        while self.newest < up_to {
            self.push(newest_at);
        }
        (self.durable, self.durable_at) = (self.newest, newest_at);
    }

    /// `id`, whose record is at `at`, is durable. Says whether by that something is recalled.
    pub(super) fn proven(&mut self, id: MessageId, at: Offset) -> bool {
        debug_assert!(self.durable <= id && id <= self.newest);
        (self.durable, self.durable_at) = (id, at);
        let Some(recalls) = &mut self.recalls else { return false };
        let mut any = false;
        while let Some(recall) = recalls.unproven.pop_front_if(|recall| recall.id <= id) {
            any = true;
            if recall.id >= self.oldest {
                Arc::make_mut(&mut recalls.durable).insert(recall.recalled);
                recalls.kept.push_back(recall);
            }
        }
        any
    }

    /// The newest message, which is at `at`, recalls another one.
    pub(super) fn recall_appended(&mut self, at: Offset, recalled: MessageId) {
        let recall = Recall { id: self.newest, at, recalled };
        self.recalls.get_or_insert_default().unproven.push_back(recall);
    }

    /// Whether this message was recalled, durably or not, and if not, by the record at which place.
    pub(super) fn recall_of(&self, id: MessageId) -> Option<Offset> {
        let recalls = self.recalls.as_ref()?;
        if recalls.durable.contains(id) {
            return Some(Offset::NONE);
        }
        let unproven = recalls.unproven.iter().find(|recall| recall.recalled == id);
        unproven.map(|recall| recall.at)
    }

    /// Where a walk to an older message begins: a message from it on, and its place, or that of
    /// the newest one before it that could be read.
    pub(super) fn way_to(&self, id: MessageId) -> (MessageId, Offset) {
        let (mut top, mut start) = (self.newest, (self.newest, Offset::NONE));
        for at in self.spine.iter().rev() {
            if top < id {
                break;
            }
            start = (top, *at);
            top = top.skip();
        }
        start
    }

    /// The newest id, durable or not.
    pub(super) fn newest(&self) -> MessageId {
        self.newest
    }

    /// The log's incarnation was raised: later messages may reuse ids that were shown.
    pub(super) fn restart(&mut self) {
        if !mutant!(RestartUnnamed) {
            self.restarted_at = self.restarted_at.min(self.newest.next());
        }
    }

    /// Messages up to `up_to` are past their retention; says whether that is news.
    pub(super) fn expire(&mut self, up_to: MessageId) -> bool {
        let oldest = up_to.min(self.durable).next();
        let is_news = self.oldest < oldest;
        self.oldest = self.oldest.max(oldest);
        if let Some(recalls) = &mut self.recalls {
            let is_over = |recall: &mut Recall| {
                recall.id < oldest || (mutant!(RecallExpires) && recall.recalled < oldest)
            };
            while let Some(recall) = recalls.kept.pop_front_if(is_over) {
                Arc::make_mut(&mut recalls.durable).remove(recall.recalled);
            }
            if recalls.durable.is_empty() && recalls.unproven.is_empty() {
                self.recalls = None;
            }
        }
        is_news
    }

    /// The oldest id within retention.
    pub(super) fn oldest(&self) -> MessageId {
        self.oldest
    }

    /// As a row of a checkpoint, which holds durable state only; the spine follows it.
    pub(super) fn to_row(&self, channel: ChannelId) -> (ChannelRow, Vec<u8>) {
        let row = ChannelRow {
            channel,
            newest: self.newest.into(),
            oldest: self.oldest.into(),
            restarted_at: self.restarted_at.into(),
            links: U32::new(self.spine.len() as u32), // fits: at most 64
            newest_s: self.newest_s.into(),
        };
        let spine = self.spine.iter().flat_map(|at| at.0.to_le_bytes()).collect();
        (row, spine)
    }

    /// From such a row; `None` if it contradicts itself.
    pub(super) fn from_row(row: &ChannelRow, spine: &[u8]) -> Option<Self> {
        let newest = MessageId::from(row.newest);
        let links = <[U64]>::ref_from_bytes(spine).ok()?;
        let spine: Vec<Offset> = links.iter().map(|at| Offset(at.get())).collect();
        let bits = newest.0.count_ones();
        if spine.len() != bits as usize || row.links.get() != bits || newest.0 == 0 {
            return None;
        }
        let (oldest, at) = (MessageId::from(row.oldest), *spine.last()?);
        (oldest.0 > 0 && oldest <= newest.next()).then_some(())?;
        let restarted_at = row.restarted_at.into();
        let (durable, durable_at) = (newest, at);
        let newest_s = row.newest_s.get();
        Some(Self {
            spine,
            newest,
            newest_s,
            oldest,
            durable,
            durable_at,
            restarted_at,
            recalls: None,
        })
    }

    /// What was recalled, as rows of a checkpoint in their order.
    pub(super) fn recall_rows(&self, channel: ChannelId) -> impl Iterator<Item = RecallRow> {
        let recalls = self.recalls.iter().filter(|_| !mutant!(RecallForgotten));
        let words = recalls.flat_map(|recalls| recalls.durable.words());
        words.map(move |(first, bits)| RecallRow {
            channel,
            first: first.into(),
            bits: bits.into(),
        })
    }

    /// Takes such a row; `None` if it contradicts itself or the channel.
    pub(super) fn restore_recalls(&mut self, row: &RecallRow) -> Option<()> {
        let (first, bits) = (MessageId::from(row.first), row.bits.get());
        let last = first.0.checked_add(u64::from(bits.checked_ilog2()?))?;
        (last <= self.newest.0).then_some(())?;
        let recalls = self.recalls.get_or_insert_default();
        Arc::make_mut(&mut recalls.durable).insert_word(first, bits)?;
        // By which messages is not in the row: by none that is newer than the newest.
        let (id, at) = (self.newest, Offset::NONE);
        let ids = (0..u64::BITS).filter(|bit| bits >> bit & 1 == 1);
        let ids = ids.map(|bit| MessageId(first.0 + u64::from(bit)));
        recalls.kept.extend(ids.map(|recalled| Recall { id, at, recalled }));
        Some(())
    }

    /// What may be read; `None` while nothing is durable.
    pub(super) fn grant(&self, proof: Durable, incarnation: Incarnation) -> Option<Grant> {
        let at = self.durable_at.some()?;
        Some(Grant {
            from: self.oldest,
            to: if mutant!(GrantUnproven) { self.newest } else { self.durable },
            visible_from: MessageId(1),
            newest: self.durable,
            newest_s: self.newest_s,
            at,
            incarnation,
            restarted_at: self.restarted_at.min(self.newest.next()),
            recalled: self.recalled(),
            proven: Proven::by(proof, at),
        })
    }

    fn recalled(&self) -> Option<Arc<Recalled>> {
        if mutant!(RecalledShown) {
            return None;
        }
        let recalls = self.recalls.as_ref().filter(|recalls| !recalls.durable.is_empty())?;
        Some(Arc::clone(&recalls.durable))
    }

    /// Entries of the spine that the next id's skip link passes by: the trailing ones of the
    /// newest id, since the next one carries over them.
    fn spine_pops(&self) -> usize {
        self.newest.0.trailing_ones() as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_lead_to_the_previous_and_the_skipped_id() {
        let mut channel = Channel::new(Incarnation(1));
        let at = |id: u64| if id == 0 { Offset::NONE } else { Offset(id * 100) };
        for id in 1..=5_000u64 {
            assert_eq!(channel.next_id(), MessageId(id));
            let links = channel.next_links(Offset(7));
            let expected =
                Links { channel: at(id - 1), device: Offset(7), skip: at(MessageId(id).skip().0) };
            assert_eq!(links, expected, "links of id {id}");
            channel.appended(at(id), UnixMillis(0));
        }
    }

    #[test]
    fn a_walk_begins_at_the_message_or_near_behind_it() {
        let mut channel = Channel::new(Incarnation(1));
        for newest in 1..=300u64 {
            channel.appended(Offset(newest * 100), UnixMillis(0));
            for id in 1..=newest {
                let (top, at) = channel.way_to(MessageId(id));
                assert!(top.0 >= id && top.skip().0 < id, "from {top} to {id} of {newest}");
                assert_eq!(at, Offset(top.0 * 100));
            }
        }
    }

    #[test]
    fn what_was_recalled_is_told_once_it_is_durable_and_forgotten_with_the_recall() {
        let mut channel = Channel::new(Incarnation(1));
        (1..=4).for_each(|id| _ = channel.appended(Offset(id * 100), UnixMillis(0)));
        channel.recall_appended(Offset(400), MessageId(2));
        assert_eq!(channel.recall_of(MessageId(2)), Some(Offset(400)));
        channel.proven(MessageId(3), Offset(300));
        assert_eq!(channel.recalled(), None, "a power cut can still undo it");
        channel.proven(MessageId(4), Offset(400));
        let recalled = channel.recalled().expect("it is durable");
        assert!(recalled.contains(MessageId(2)) && !recalled.contains(MessageId(4)));
        assert_eq!(channel.recall_of(MessageId(2)), Some(Offset::NONE));
        assert_eq!(channel.recall_of(MessageId(3)), None);
        assert!(channel.expire(MessageId(3)));
        assert!(channel.recalled().is_some(), "an edit of it may still be there");
        assert!(channel.expire(MessageId(4)));
        assert_eq!((channel.recalled(), channel.recalls.is_none()), (None, true));
    }
}
