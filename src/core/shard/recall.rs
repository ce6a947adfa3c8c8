//! Recalls and edits: messages that speak of an older message of their channel. That one is read
//! before they are judged: is it there, is it content, is it the sender's, is there still time?
//!
//! Comes in: a recall or an edit under a new key, whose predecessor is there. Goes out: it is
//! appended, or refused, or kept until a cold record is in memory. Worth naming: a refusal leaves
//! only when the records that it rests on are durable.

use tern_protocol::frames::{PushBody, Send, message_kind};
use tern_protocol::{ChannelId, Code, MessageId, Uin, UnixMillis};
use zerocopy::FromBytes;

use super::Shard;
use super::chat::Offer;
use crate::context::Context;
use crate::dedup::{DedupEntry, DedupTable};
use crate::log::{Links, Log, Offset, ReadError};

/// Whether this message speaks of an older one that the shard must look at.
pub(super) fn refers(head: &Send) -> bool {
    matches!(head.kind, message_kind::RECALL | message_kind::EDIT)
}

/// Why a recall or an edit is not appended now.
enum Unfit {
    /// Never, because of what stands at this place, or of nothing in the log.
    Refused(Code, Offset),
    /// Not before the record at this place is in memory.
    Cold(Offset),
}

/// The message that is meant, as far as it matters.
struct Original {
    at: Offset,
    sender: Uin,
    kind: u8,
    server_time: UnixMillis,
}

impl<L: Log, T: DedupTable> Shard<L, T> {
    /// A recall or an edit under a new key, whose predecessor is there; its sender may speak here.
    pub(super) fn offer_reference(
        &mut self,
        context: &mut Context<'_>,
        offer: Offer,
        entry: Option<&DedupEntry>,
    ) {
        match self.judge_reference(context, &offer) {
            Ok(()) => self.append(context, &offer, entry),
            Err(Unfit::Refused(code, at)) => {
                self.refuse_when_durable(context, offer, at, code.into());
            }
            Err(Unfit::Cold(at)) => {
                let channel = Some(offer.channel());
                self.wait_for(context, offer, (at, channel));
            }
        }
    }

    fn judge_reference(&mut self, context: &Context<'_>, offer: &Offer) -> Result<(), Unfit> {
        let (head, _) = offer.view();
        let (kind, channel, id) = (head.kind, head.channel, MessageId::from(head.refers_to));
        self.judge_place(offer.device.uin, channel, id)?;
        let original = self.find_message(channel, id)?;
        let refused = |code, at| Err(Unfit::Refused(code, at));
        if original.kind != message_kind::CONTENT {
            return refused(Code::NotContent, original.at);
        }
        self.judge_author(offer.device.uin, channel, kind, &original)?;
        let ms_max = match kind {
            message_kind::RECALL => context.config.recall_ms_max,
            _ => context.config.edit_ms_max,
        };
        let age_ms = context.now.wall.0.saturating_sub(original.server_time.0);
        if age_ms > ms_max && !mutant!(HoursIgnored) {
            return refused(Code::TooLate, original.at);
        }
        Ok(())
    }

    /// Whether there is such a message for this user, and it was not recalled.
    fn judge_place(&self, sender: Uin, channel: ChannelId, id: MessageId) -> Result<(), Unfit> {
        let Some(state) = self.channels.get(&channel).filter(|state| id <= state.newest()) else {
            return Err(Unfit::Refused(Code::NoSuchMessage, Offset::NONE));
        };
        if id < state.oldest() {
            return Err(Unfit::Refused(Code::TooLate, Offset::NONE));
        }
        if let Some(group) = self.groups.get(&channel).filter(|group| !group.shows(sender, id)) {
            return Err(Unfit::Refused(Code::NoSuchMessage, group.changed_at()));
        }
        match state.recall_of(id) {
            Some(at) => Err(Unfit::Refused(Code::AlreadyRecalled, at)),
            None => Ok(()),
        }
    }

    fn judge_author(
        &self,
        sender: Uin,
        channel: ChannelId,
        kind: u8,
        original: &Original,
    ) -> Result<(), Unfit> {
        let group = self.groups.get(&channel);
        let stands_above = |author| group.is_some_and(|group| group.stands_above(sender, author));
        let is_allowed = sender == original.sender
            || mutant!(AuthorIgnored)
            || (kind == message_kind::RECALL && stands_above(original.sender));
        let changed_at = group.map_or(Offset::NONE, |group| group.changed_at());
        match is_allowed {
            true => Ok(()),
            false => Err(Unfit::Refused(Code::NotYours, original.at.max(changed_at))),
        }
    }

    /// Walks back to a message of a channel, as readers do: by skip links to it, and where one
    /// passes it, by previous links.
    fn find_message(&mut self, channel: ChannelId, id: MessageId) -> Result<Original, Unfit> {
        let gone = |code| Err(Unfit::Refused(code, Offset::NONE));
        let (mut top, mut next) = self.channels[&channel].way_to(id);
        while let Some(at) = next.some() {
            let read = self.log.with_record(at, |record| {
                let body = PushBody::ref_from_prefix(record.body).ok().map(|(body, _)| *body);
                (body.filter(|body| body.channel == channel), record.links)
            });
            (top, next) = match read {
                Ok((Some(body), _)) if body.id.get() == id.0 => return Ok(Original::of(&body, at)),
                Ok((Some(body), links)) if id.0 < body.id.get() && body.id.get() <= top.0 => {
                    step(body.id.into(), links, id)
                }
                Ok(_) => return gone(Code::NoSuchMessage), // the way passes it: it is lost
                Err(ReadError::Lost(links)) => (top, links.channel),
                Err(ReadError::Cold) => return Err(Unfit::Cold(at)),
                Err(ReadError::Expired) => return gone(Code::TooLate),
            };
            if next >= at {
                break; // a damaged link: only what leads back is one
            }
        }
        gone(Code::NoSuchMessage)
    }
}

impl Original {
    fn of(body: &PushBody, at: Offset) -> Self {
        let (sender, server_time) = (body.sender.into(), body.server_time.into());
        Self { at, sender, kind: body.kind, server_time }
    }
}

/// The next message on the way from this one to `id`, and where it is.
fn step(from: MessageId, links: Links, id: MessageId) -> (MessageId, Offset) {
    if from.skip() >= id {
        (from.skip(), links.skip)
    } else {
        (MessageId(from.0 - 1), links.channel)
    }
}
