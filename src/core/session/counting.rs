//! How much is unread: walks back through channels from their newest message, and counts.
//!
//! Comes in: channels, each with the id behind which counting begins. Goes out: a count each, in
//! the same order. Worth naming: a turn looks at [`LOOKED_AT_PER_TURN`] messages for all sessions
//! of the worker together, in turns, and what is not in memory is waited for elsewhere; so who
//! counts far back delays nobody.

use std::collections::VecDeque;

use tern_protocol::frame::header;
use tern_protocol::frames::{Cursor, PushBody, UnreadCount, message_kind};
use tern_protocol::header::HEADER_BYTES;
use tern_protocol::limits::{UNREAD_CHANNELS_MAX, UNREAD_COUNT_MAX};
use tern_protocol::{ChannelId, Code, Flags, Incarnation, Kind, MessageId, Uin};
use zerocopy::{FromBytes, IntoBytes};

use super::State;
use super::delivery::Delivery;
use super::front::{Front, Verdict, error};
use super::page::{Walk, back};
use crate::context::Context;
use crate::io::{ColdRecord, Effect, LinkId, Waiter};
use crate::log::{Offset, ReadError, Reader};
use crate::mail::Grant;
use crate::placement::ShardId;

/// Messages that a worker looks at in one turn to count: some 100 µs.
const LOOKED_AT_PER_TURN: u32 = 1_024;

/// Messages of one session that are looked at before another session's turn.
const LOOKED_AT_AT_ONCE: u32 = 256;

/// Messages of one channel that are looked at: the user's own, and changes, may be many.
const LOOKED_AT_MAX: u32 = 4_096;

/// A session's UNREAD_ASK.
pub(super) struct Counting {
    uin: Uin,
    /// What is still to be counted; the first one is under way if `tally` is.
    asked: VecDeque<Cursor>,
    tally: Option<Tally>,
    counts: Vec<UnreadCount>,
    /// The place of the newest cold read.
    waited_for: Offset,
}

/// A channel that is being counted.
struct Tally {
    shard: ShardId,
    channel: ChannelId,
    walk: Walk,
    after: MessageId,
    /// What may be read.
    grant: Grant,
    count: u16,
    looked_at: u32,
}

/// What became of a part of the work.
enum Step {
    /// All is counted.
    Done,
    /// There is more to look at.
    More,
    /// Waits for this record.
    Cold(ColdRecord),
}

impl<R: Reader> Front<R> {
    /// The device asks how much is unread.
    pub(super) fn unread_ask(
        &mut self,
        context: &mut Context<'_>,
        link: LinkId,
        list: &[Cursor],
    ) -> Verdict {
        let session = self.sessions.get_mut(&link).expect("the frame's session is there");
        let State::Live(live) = &mut session.state else { return Err(Code::WrongState) };
        let refused = if live.looking.counting().is_some() {
            Some(Code::Busy)
        } else if list.len() > UNREAD_CHANNELS_MAX {
            Some(Code::RangeTooLong)
        } else {
            None
        };
        if let Some(code) = refused {
            context.counters.frames_refused += 1;
            error(context, link, code, Kind::UnreadAsk, Flags::NONE);
            return Ok(());
        }
        *live.looking.counting() = Some(Counting::new(live.device.uin, list));
        self.counting.push_back(link);
        Ok(())
    }

    /// Counts a turn's worth.
    pub(crate) fn count_some(&mut self, context: &mut Context<'_>) {
        let mut room = LOOKED_AT_PER_TURN;
        while room > 0
            && let Some(link) = self.counting.pop_front()
        {
            let Some(session) = self.sessions.get_mut(&link) else { continue };
            let State::Live(live) = &mut session.state else { continue };
            let Some(counting) = live.looking.counting() else { continue };
            let mut part = room.min(LOOKED_AT_AT_ONCE);
            room -= part;
            let step = counting.go_on(context, &mut self.reader, &live.delivery, &mut part);
            room += part;
            match step {
                Step::Done => {
                    context.counters.unread_counted += counting.counts.len() as u64;
                    context.effect(Effect::Whole(link, counting.frame().into()));
                    *live.looking.counting() = None;
                }
                Step::More => self.counting.push_back(link),
                Step::Cold(record) => {
                    context.counters.reads_cold += 1;
                    counting.waited_for = record.at;
                    context.effect(Effect::Warm { record, waiter: Waiter::Count(link) });
                }
            }
        }
    }

    /// What a count waited for is in memory.
    pub(crate) fn handle_count_warmed(&mut self, link: LinkId) {
        if self.sessions.contains_key(&link) {
            self.counting.push_back(link);
        }
    }
}

impl Counting {
    fn new(uin: Uin, list: &[Cursor]) -> Self {
        let asked = list.iter().copied().collect();
        Self { uin, asked, tally: None, counts: Vec::new(), waited_for: Offset::NONE }
    }

    /// Looks at as many messages as there is room for; leaves what is left of it.
    fn go_on<R: Reader>(
        &mut self,
        context: &mut Context<'_>,
        reader: &mut R,
        delivery: &Delivery,
        room: &mut u32,
    ) -> Step {
        while let Some(asked) = self.asked.front() {
            let Some(tally) = &mut self.tally else {
                match delivery.grant(asked.channel) {
                    Some(grant) => {
                        let shard = context.placement.shard_of_channel(asked.channel);
                        self.tally = Some(Tally::new(shard, asked, grant));
                    }
                    None => {
                        let nothing = (MessageId(0), 0, false);
                        self.counts.push(answer(asked, nothing, Some(Code::NotGranted)));
                        self.asked.pop_front();
                    }
                }
                continue;
            };
            while !tally.is_done() {
                if *room == 0 {
                    return Step::More;
                }
                *room -= 1;
                context.counters.unread_looked_at += 1;
                if let Err(at) = tally.look(reader, self.uin, self.waited_for) {
                    let (shard, channel) = (tally.shard, Some(tally.channel));
                    return Step::Cold(ColdRecord { shard, at, channel });
                }
            }
            let more = tally.count > UNREAD_COUNT_MAX || tally.is_cut();
            let counted = (tally.grant.to, tally.count.min(UNREAD_COUNT_MAX), more);
            self.counts.push(answer(asked, counted, None));
            self.asked.pop_front();
            self.tally = None;
        }
        Step::Done
    }

    fn frame(&self) -> Vec<u8> {
        let payload = self.counts.as_bytes();
        let header = header(Kind::Unread, Flags::LAST, payload.len());
        let mut frame = Vec::with_capacity(HEADER_BYTES + payload.len());
        frame.extend_from_slice(header.as_bytes());
        frame.extend_from_slice(payload);
        frame
    }
}

impl Tally {
    fn new(shard: ShardId, asked: &Cursor, grant: &Grant) -> Self {
        let known = Incarnation::from(asked.incarnation) == grant.incarnation;
        let kept = if known { u64::MAX } else { grant.restarted_at.0.saturating_sub(1) };
        let after = asked.id.get().min(kept).max(grant.from.0.saturating_sub(1));
        Self {
            shard,
            channel: asked.channel,
            walk: Walk { top: grant.newest, at: grant.at },
            after: MessageId(after),
            grant: grant.clone(),
            count: 0,
            looked_at: 0,
        }
    }

    /// Whether there is nothing more to count, or enough was counted. One above the most that is
    /// told stands for more.
    fn is_done(&self) -> bool {
        self.walk.top <= self.after
            || self.walk.at == Offset::NONE
            || self.count > UNREAD_COUNT_MAX
            || self.looked_at >= LOOKED_AT_MAX
    }

    /// Whether it ended although there is more to look at.
    fn is_cut(&self) -> bool {
        self.looked_at >= LOOKED_AT_MAX
            && self.walk.top > self.after
            && self.walk.at != Offset::NONE
    }

    /// Looks at the next record on the way back.
    ///
    /// # Errors
    /// Its place, if it must be waited for.
    fn look<R: Reader>(&mut self, reader: &mut R, uin: Uin, waited: Offset) -> Result<(), Offset> {
        self.looked_at += 1;
        let at = self.walk.at;
        let read = reader.with_record(self.shard, at, |record| {
            let (body, _) = PushBody::ref_from_prefix(record.body).ok()?;
            let is_own = Uin::from(body.sender) == uin && !mutant!(OwnUnread);
            let counts = body.kind == message_kind::CONTENT && !is_own;
            let id = MessageId::from(body.id);
            (body.channel == self.channel).then_some((id, counts, record.links))
        });
        match read {
            Ok(Some((id, counts, links))) if id <= self.walk.top => {
                let newest = self.grant.to;
                let may_be_read = self.after < id && id <= newest && !self.grant.is_recalled(id);
                self.count += u16::from(counts && may_be_read);
                self.walk.go_on(id, at, links, newest);
            }
            Ok(_) => self.walk.at = Offset::NONE, // no message of this channel that can be meant
            Err(ReadError::Lost(links)) => self.walk.at = back(at, links.channel),
            Err(ReadError::Expired) if at == waited => self.walk.at = Offset::NONE,
            Err(ReadError::Expired | ReadError::Cold) => {
                self.looked_at -= 1;
                return Err(at);
            }
        }
        Ok(())
    }
}

fn answer(
    asked: &Cursor,
    (newest, count, more): (MessageId, u16, bool),
    code: Option<Code>,
) -> UnreadCount {
    UnreadCount {
        channel: asked.channel,
        after: asked.id,
        newest: newest.into(),
        count: count.into(),
        code: code.map_or(0, |code| code.0).into(),
        more: u8::from(more),
        reserved: [0; 3],
    }
}
