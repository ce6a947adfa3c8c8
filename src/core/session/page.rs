//! One page of a channel, read back to front: for each id after a cursor the place of its record,
//! or that it is lost, or was recalled.
//!
//! Comes in: a grant, and the id after which the page begins. Goes out: the ids of the page in
//! their order, each once. Worth naming: a link leads to the message it names or, past what is
//! lost, to the newest one before it that can be read; so what was found below the id that was
//! expected proves the ids between to be lost, and the walk never ends at damage.

use tern_protocol::frames::{PushBody, message_kind};
use tern_protocol::{ChannelId, Code, MessageId};
use zerocopy::FromBytes;

use crate::log::{Links, Offset, ReadError, Reader, Record};
use crate::mail::Grant;
use crate::placement::ShardId;

/// Messages of one channel that are pushed before another channel's turn.
pub(super) const PAGE_MESSAGES: usize = 32;

/// What a page says of the ids after `after`, up to `end`.
pub(super) struct Page {
    after: MessageId,
    /// The last id that has a slot.
    last: MessageId,
    /// At least `last`; ids behind that one are lost like it.
    end: MessageId,
    /// Place and length of each message; no place where it is lost.
    slots: [(Offset, u32); PAGE_MESSAGES],
    /// Bit i: the message of slot i was recalled, or is an edit of one that was.
    recalled: u32,
    records_read: u32,
}

const _: () = assert!(PAGE_MESSAGES <= u32::BITS as usize);

/// The next thing that a page says.
pub(super) enum Item {
    /// The next id is the message at this place, with so many bytes of body.
    Message { at: Offset, bytes: u32 },
    /// The ids up to this one are lost, or were recalled.
    Gap { to: MessageId, code: Code },
}

/// Where a walk back through a channel stands: `at` is the message `top`, or the newest one
/// before it that could be read when the link was made.
pub(super) struct Walk {
    pub(super) top: MessageId,
    pub(super) at: Offset,
}

impl Page {
    /// Finds the records of the `count` ids after `after`, walking back from the grant's end by
    /// skip links to the page and by previous links through it.
    ///
    /// A grant begins behind what its owner knows to be expired. So an expired record in the way
    /// is one of which the owner is only just told: then its word comes during a wait for the
    /// I/O thread. Or it stands for lost messages behind it, if nothing has changed after the
    /// wait for the place `waited_for`. A lost record from which nothing leads back may be one of
    /// which somebody else asked who did not know its channel: the I/O thread is asked once more.
    ///
    /// # Errors
    /// The place of a record that must be waited for.
    pub(super) fn read<R: Reader>(
        reader: &mut R,
        (shard, channel): (ShardId, ChannelId),
        grant: &Grant,
        after: MessageId,
        count: u64,
        waited_for: Offset,
    ) -> Result<Self, Offset> {
        let last = MessageId(after.0 + count);
        let slots = [(Offset::NONE, 0); PAGE_MESSAGES];
        let mut page = Self { after, last, end: last, slots, recalled: 0, records_read: 0 };
        let mut walk = Walk { top: grant.newest, at: grant.at };
        while walk.top > after && walk.at != Offset::NONE {
            let at = walk.at;
            page.records_read += 1;
            let read = reader.with_record(shard, at, |record| {
                let bytes = record.body.len() as u32; // fits: a record is below 64 KiB
                (message_in(channel, &record), record.links, bytes)
            });
            match read {
                Ok((Some((id, original)), links, bytes)) if id <= walk.top => {
                    let is_recalled = grant.is_recalled(original.unwrap_or(id));
                    page.found(walk.top, id, (at, bytes), is_recalled);
                    walk.go_on(id, at, links, last);
                }
                Ok(_) => walk.at = Offset::NONE, // no message of this channel that can be meant
                Err(ReadError::Lost(links)) => {
                    let before = back(at, links.channel);
                    if before == Offset::NONE && walk.top > after.next() && at != waited_for {
                        return Err(at);
                    }
                    walk.at = before;
                }
                Err(ReadError::Expired) if at == waited_for => walk.at = Offset::NONE,
                Err(ReadError::Expired | ReadError::Cold) => return Err(at),
            }
        }
        if walk.top > after {
            page.end = page.end.max(walk.top); // nothing is left: all of them are lost
        }
        page.end = page.end.min(grant.to);
        Ok(page)
    }

    /// The newest message up to `top` that can be read is `id`.
    fn found(&mut self, top: MessageId, id: MessageId, slot: (Offset, u32), is_recalled: bool) {
        if id <= self.last {
            self.end = self.end.max(top);
        }
        if self.after < id && id <= self.last {
            let index = self.index(id);
            self.slots[index] = slot;
            self.recalled |= u32::from(is_recalled) << index;
        }
    }

    /// Records that were looked at to find it.
    pub(super) fn records_read(&self) -> u32 {
        self.records_read
    }

    /// What it says, in the order of the ids.
    pub(super) fn items(&self) -> impl Iterator<Item = Item> {
        let mut told = self.after;
        std::iter::from_fn(move || {
            let item = self.item_after(told)?;
            told = match item {
                Item::Message { .. } => told.next(),
                Item::Gap { to, .. } => to,
            };
            Some(item)
        })
    }

    fn item_after(&self, told: MessageId) -> Option<Item> {
        if told >= self.end {
            return None;
        }
        let mut ids = (told.0 + 1..=self.last.0).map(MessageId);
        let state = |id: &MessageId| {
            let (at, _) = self.slots[self.index(*id)];
            (at != Offset::NONE, self.recalled >> self.index(*id) & 1 == 1)
        };
        let first = ids.next().map(|id| (id, state(&id)));
        if let Some((id, (true, false))) = first {
            let (at, bytes) = self.slots[self.index(id)];
            return Some(Item::Message { at, bytes });
        }
        let (_, kind) = first.unwrap_or_default();
        let code = if kind.1 { Code::Recalled } else { Code::Lost };
        let other = ids.find(|id| state(id) != kind);
        let end = if kind.1 { self.last } else { self.end };
        Some(Item::Gap { to: other.map_or(end, |id| MessageId(id.0 - 1)), code })
    }

    fn index(&self, id: MessageId) -> usize {
        (id.0 - self.after.0 - 1) as usize // fits: the page has as many slots
    }
}

impl Walk {
    /// From the message `id` at `at` on to the next one of interest.
    pub(super) fn go_on(&mut self, id: MessageId, at: Offset, links: Links, last: MessageId) {
        let (top, link) = if id.skip() >= last {
            (id.skip(), links.skip)
        } else {
            (MessageId(id.0.saturating_sub(1)), links.channel)
        };
        *self = Self { top, at: back(at, link) };
    }
}

/// A link of the record at `from`: what does not lead back leads nowhere.
pub(super) fn back(from: Offset, link: Offset) -> Offset {
    if link < from { link } else { Offset::NONE }
}

/// Of a record that is a message of this channel: its id, and that of the message which it edits.
fn message_in(channel: ChannelId, record: &Record<'_>) -> Option<(MessageId, Option<MessageId>)> {
    let (body, _) = PushBody::ref_from_prefix(record.body).ok()?;
    let original = (body.kind == message_kind::EDIT).then(|| MessageId::from(body.refers_to));
    (body.channel == channel).then(|| (MessageId::from(body.id), original))
}
