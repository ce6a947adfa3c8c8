//! How many members of a group have a message: the group's shard asks each home shard that has
//! members, and each counts its own, a turn's worth at a time.
//!
//! Worth naming: nothing of it is kept, and a question that gets no answer in time is answered as
//! busy; so a lost piece of mail costs the one who asked a repeat.

use std::collections::VecDeque;
use std::ops::Bound;

use bytes::Bytes;
use rustc_hash::FxHashMap;
use tern_protocol::frame::{encode, frame_bytes};
use tern_protocol::frames::Receipts;
use tern_protocol::{ChannelId, Code, Flags, Kind, MessageId, Uin};

use super::Marks;
use crate::context::Context;
use crate::dedup::DedupTable;
use crate::log::Log;
use crate::mail::{Address, Device, Mail, SessionRef};
use crate::placement::ShardId;
use crate::progress::{MarksMail, Question};
use crate::shard::Shard;
use crate::shard::home::Home;
use crate::time::Mono;

/// Marks that one shard looks at in one turn: of 4,096 some 200 µs.
const COUNTED_PER_TURN: usize = 4_096;

/// Questions of sessions to one shard that wait for home shards at once.
const QUESTIONS_MAX: usize = 64;

/// After this long a question is given up, in ms.
const GIVEN_UP_AFTER_MS: u64 = 2_000;

/// What is being counted.
#[derive(Default)]
pub(super) struct Counts {
    /// Questions of groups' shards, the first under way.
    counting: VecDeque<Counting>,
    /// Questions of sessions, by their numbers.
    asked: FxHashMap<u64, Asked>,
    /// When each is given up, in this order; what was answered is passed over.
    until: VecDeque<(Mono, u64)>,
    last: u64,
}

/// A count under way at a home shard.
struct Counting {
    question: Question,
    /// The last user who was looked at.
    after: Uin,
    delivered: u32,
    read: u32,
}

/// A question of a session to a group's shard.
struct Asked {
    to: SessionRef,
    channel: ChannelId,
    id: MessageId,
    members: u32,
    delivered: u32,
    read: u32,
    /// Home shards that have not answered.
    open: Vec<ShardId>,
}

impl Counts {
    pub(super) fn count_soon(&mut self, question: Question) {
        self.counting.push_back(Counting { question, after: Uin(0), delivered: 0, read: 0 });
    }

    pub(super) fn deadline(&self) -> Option<(Mono, &'static str)> {
        let counting = (!self.counting.is_empty()).then_some((Mono(0), "members are counted"));
        let until = self.until.front().map(|(at, _)| (*at, "a count of members is given up"));
        counting.or(until)
    }
}

impl Marks {
    /// Looks at a turn's worth of marks.
    pub(super) fn count_some(&mut self, context: &mut Context<'_>, here: ShardId, home: &Home) {
        let mut room = COUNTED_PER_TURN;
        while room > 0
            && let Some(counting) = self.counts.counting.front_mut()
        {
            let Question { from, number, channel, id, except } = counting.question;
            let grant = home.audiences.whole_grant(channel);
            let begin = Bound::Excluded((channel, counting.after));
            let end = Bound::Included((channel, Uin(u64::MAX)));
            let mut marks = self.own.range((begin, end));
            for ((_, uin), mark) in marks.by_ref().take(room) {
                room -= 1;
                counting.after = *uin;
                let Some(grant) = grant.as_ref().filter(|_| *uin != except) else { continue };
                if home.audiences.is_member(channel, *uin) {
                    let progress = mark.progress.within(grant);
                    counting.delivered += u32::from(progress.delivered >= id);
                    counting.read += u32::from(progress.shown >= id);
                }
            }
            if marks.next().is_some() {
                break; // the room is used up
            }
            let (delivered, read) = (counting.delivered, counting.read);
            self.counts.counting.pop_front();
            let mail = Mail::Marks(MarksMail::Counted { number, home: here, delivered, read });
            context.post.send(context.counters, Address::Shard(from), mail);
        }
    }
}

impl<L: Log, T: DedupTable> Shard<L, T> {
    /// A member asks how many others have a message.
    pub(super) fn handle_ask_receipts(
        &mut self,
        context: &mut Context<'_>,
        to: SessionRef,
        device: Device,
        (channel, id): (ChannelId, MessageId),
    ) {
        let members = match self.members_to_count(device.uin, channel, id) {
            Ok(members) => members,
            Err(code) => return answer(context, to, channel, Err(code)),
        };
        let counts = &mut self.marks.counts;
        counts.last += 1;
        let number = counts.last;
        let group = self.groups.get(&channel).expect("a group with members is there");
        let question = Question { from: self.id, number, channel, id, except: device.uin };
        let open: Vec<ShardId> = group.homes(false).collect();
        for home in open.iter().copied() {
            let mail = Mail::Marks(MarksMail::Count(question));
            context.post.send(context.counters, Address::Shard(home), mail);
        }
        let asked = Asked { to, channel, id, members, delivered: 0, read: 0, open };
        counts.asked.insert(number, asked);
        counts.until.push_back((context.now.mono.after_ms(GIVEN_UP_AFTER_MS), number));
    }

    /// How many members besides this one are to be counted, if he may know.
    fn members_to_count(&self, uin: Uin, channel: ChannelId, id: MessageId) -> Result<u32, Code> {
        if self.stopped {
            return Err(Code::ShardStopped);
        }
        let group = self.groups.get(&channel).ok_or(Code::NotAMember)?;
        let (visible, members) = group.seen_by(uin).ok_or(Code::NotAMember)?;
        let state = self.channels.get(&channel).ok_or(Code::NotAMember)?;
        let grant = state.grant(self.proof, self.incarnation).ok_or(Code::NotGranted)?;
        if id < visible.from.max(MessageId(1)) || id > grant.to {
            return Err(Code::NotGranted);
        }
        if self.marks.counts.asked.len() >= QUESTIONS_MAX {
            return Err(Code::Busy);
        }
        Ok(members)
    }

    /// A home shard has counted.
    pub(super) fn handle_counted(
        &mut self,
        context: &mut Context<'_>,
        (number, home): (u64, ShardId),
        (delivered, read): (u32, u32),
    ) {
        let Some(asked) = self.marks.counts.asked.get_mut(&number) else { return };
        let Some(index) = asked.open.iter().position(|open| *open == home) else { return };
        asked.open.swap_remove(index);
        asked.delivered += delivered;
        asked.read += read;
        if asked.open.is_empty()
            && let Some(asked) = self.marks.counts.asked.remove(&number)
        {
            context.counters.receipts_counted += 1;
            answer(context, asked.to, asked.channel, Ok(asked.frame()));
        }
    }

    /// Gives up questions that were not answered in time.
    pub(in crate::shard) fn expire_counts(&mut self, context: &mut Context<'_>) {
        let counts = &mut self.marks.counts;
        while let Some((_, number)) = counts.until.pop_front_if(|(at, _)| *at <= context.now.mono) {
            if let Some(asked) = counts.asked.remove(&number) {
                answer(context, asked.to, asked.channel, Err(Code::Busy));
            }
        }
    }
}

impl Asked {
    fn frame(&self) -> Bytes {
        let head = Receipts {
            channel: self.channel,
            id: self.id.into(),
            members: self.members.into(),
            delivered: self.delivered.min(self.members).into(),
            read: self.read.min(self.members).into(),
            reserved: 0.into(),
        };
        let mut frame = vec![0; frame_bytes::<Receipts>(0)];
        encode(Kind::Receipts, Flags::NONE, &head, &[], &mut frame);
        frame.into()
    }
}

fn answer(
    context: &mut Context<'_>,
    to: SessionRef,
    channel: ChannelId,
    frame: Result<Bytes, Code>,
) {
    let mail = Mail::Marks(MarksMail::Receipts { to, channel, frame });
    context.post.send(context.counters, Address::Front(to.worker), mail);
}
