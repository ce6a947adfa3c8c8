//! One channel as its shard keeps it in memory: the newest id, the way back, and what is durable.

use tern_protocol::{ChannelId, Incarnation, MessageId};
use zerocopy::FromBytes;
use zerocopy::little_endian::{U32, U64};

use super::state::ChannelRow;
use crate::log::{Durable, Links, Offset};
use crate::mail::{Grant, Proven};

/// A channel that has been opened.
#[derive(Clone, Debug)]
pub(super) struct Channel {
    /// Offsets of the messages `newest`, `newest.skip()`, and so on to the first, oldest in
    /// front: as many as `newest` has bits set. The next message's links come from here, so that
    /// appending reads nothing. In place of a lost message stands the newest one before it that
    /// could be read, or none.
    spine: Vec<Offset>,
    newest: MessageId,
    /// The oldest id within retention; the one after the newest if there is none.
    oldest: MessageId,
    durable: MessageId,
    durable_at: Offset,
    restarted_at: MessageId,
}

impl Channel {
    /// A channel whose first message comes under this incarnation. What an earlier one may have
    /// shown of it was lost.
    pub(super) fn new(incarnation: Incarnation) -> Self {
        let restarted_at = if incarnation.0 > 1 { 1 } else { u64::MAX };
        Self {
            spine: Vec::new(),
            newest: MessageId(0),
            oldest: MessageId(1),
            durable: MessageId(0),
            durable_at: Offset::NONE,
            restarted_at: MessageId(restarted_at),
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

    /// The message after the newest was appended at `at`.
    pub(super) fn appended(&mut self, at: Offset) -> MessageId {
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
            self.appended(newest_at);
        }
        (self.durable, self.durable_at) = (self.newest, newest_at);
    }

    /// `id`, whose record is at `at`, is durable.
    pub(super) fn proven(&mut self, id: MessageId, at: Offset) {
        debug_assert!(self.durable <= id && id <= self.newest);
        (self.durable, self.durable_at) = (id, at);
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
            reserved: U32::ZERO,
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
        Some(Self { spine, newest, oldest, durable: newest, durable_at: at, restarted_at })
    }

    /// What may be read; `None` while nothing is durable.
    pub(super) fn grant(&self, proof: Durable, incarnation: Incarnation) -> Option<Grant> {
        let at = self.durable_at.some()?;
        Some(Grant {
            from: self.oldest,
            to: if mutant!(GrantUnproven) { self.newest } else { self.durable },
            visible_from: MessageId(1),
            newest: self.durable,
            at,
            incarnation,
            restarted_at: self.restarted_at.min(self.newest.next()),
            proven: Proven::by(proof, at),
        })
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
            channel.appended(at(id));
        }
    }
}
