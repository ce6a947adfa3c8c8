//! A group as the home shards of its members see it: who of their users may read what, and which
//! sessions are to be told of each message.
//!
//! Comes in: what the channel's shard tells of the group (`Notify`), pages of members that were
//! asked for, sessions that come and go. Goes out: a delivery per session that is online, a turn's
//! worth at a time. Worth naming: nothing of the channel is told to anybody before every change
//! up to it that touched a user here is known, so nobody who left is told of a message behind
//! that; and a message costs nothing for who is not online.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;

use rustc_hash::FxHashMap;
use tern_protocol::{ChannelId, MessageId, Uin};

use super::Shard;
use super::home::{Home, Presence};
use crate::context::Context;
use crate::dedup::DedupTable;
use crate::log::Log;
use crate::mail::{
    Address, Changed, Device, Grant, Mail, MemberPlace, Members, SessionRef, Visible,
};
use crate::placement::ShardId;
use crate::time::Mono;

/// Deliveries to members of groups in one turn, of all shards of a worker together. With page, push
/// and packet each takes some 10 µs, for which everybody else waits; the others' turn comes at once
/// behind it.
pub(crate) const TOLD_PER_TURN: usize = 32;

/// Groups of one shard whose members are asked for at once: bounds what waits in mailboxes at a
/// start with many groups.
const ASKED_AT_ONCE: usize = 64;

/// After this long without an answer members are asked for again, in ms.
const REPEAT_MS: u64 = 1_000;

/// All groups of a home shard's users.
#[derive(Default)]
pub(super) struct Audiences {
    groups: FxHashMap<ChannelId, Audience>,
    /// Groups with something new, of which sessions are still to be told, each once.
    telling: VecDeque<ChannelId>,
    /// Groups whose members are to be asked for, each once.
    to_ask: VecDeque<ChannelId>,
    /// Those that were asked for, and when they are asked for again, in this order. What was
    /// answered is passed over.
    asked: VecDeque<(Mono, ChannelId)>,
    asked_count: usize,
}

/// One group.
#[derive(Default)]
struct Audience {
    /// What may be read by those who may read all: nothing newer is told to anybody.
    grant: Option<Grant>,
    users: FxHashMap<Uin, Visible>,
    /// The newest change that touched a user here, of which all is known, and the newest of which
    /// the channel's shard told.
    known: MessageId,
    wanted: MessageId,
    /// What may be read once all is known up to this change.
    ahead: Option<(MessageId, Grant)>,
    /// The place up to which members are known.
    place: MemberPlace,
    asking: Asking,
    /// Sessions of members that are online and subscribed.
    listeners: BTreeMap<Device, (SessionRef, Visible)>,
    told: Told,
    /// Sessions that are shown their channels once it is known what may be read of this one.
    waiting: Vec<(SessionRef, Device)>,
}

#[derive(Clone, Copy, PartialEq, Eq, Default)]
enum Asking {
    #[default]
    No,
    /// In the queue.
    Soon,
    /// An answer is waited for until then.
    Until(Mono),
}

/// How far the listeners were told of the newest grant.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
enum Told {
    #[default]
    All,
    /// Up to this one; `again` once there is a newer grant than the first of them heard of.
    Upto { after: Option<Device>, again: bool },
}

impl Audiences {
    /// What a user may read of a group.
    pub(super) fn grant(&self, channel: ChannelId, uin: Uin) -> Option<Grant> {
        let audience = self.groups.get(&channel)?;
        audience.grant.as_ref()?.clipped(*audience.users.get(&uin)?)
    }

    /// What may be read of a group by those who may read all.
    pub(super) fn whole_grant(&self, channel: ChannelId) -> Option<Grant> {
        self.groups.get(&channel)?.grant.clone()
    }

    /// Whether a user at home here is a member of a group now.
    pub(super) fn is_member(&self, channel: ChannelId, uin: Uin) -> bool {
        let visible = self.groups.get(&channel).and_then(|audience| audience.users.get(&uin));
        visible.is_some_and(Visible::is_open)
    }

    /// Whether a user at home here left a group, or was made to.
    pub(super) fn has_left(&self, channel: ChannelId, uin: Uin) -> bool {
        let visible = self.groups.get(&channel).and_then(|audience| audience.users.get(&uin));
        visible.is_some_and(|visible| !visible.is_open())
    }

    /// Whether he left it and all that he could read has expired.
    pub(super) fn has_left_nothing(&self, channel: ChannelId, uin: Uin) -> bool {
        let Some(audience) = self.groups.get(&channel) else { return false };
        let oldest = audience.grant.as_ref().map(|grant| grant.from);
        let visible = audience.users.get(&uin).filter(|visible| !visible.is_open());
        visible.zip(oldest).is_some_and(|(visible, oldest)| visible.until < oldest)
    }

    /// Whether it is not known yet what users here may read of a group, as right after a start.
    pub(super) fn is_unknown(&self, channel: ChannelId) -> bool {
        let audience = self.groups.get(&channel);
        audience.is_some_and(|audience| audience.grant.is_none()) && !mutant!(GroupsUnawaited)
    }

    /// A session that waits until that is known.
    pub(super) fn wait_for(&mut self, channel: ChannelId, session: SessionRef, device: Device) {
        let audience = self.groups.get_mut(&channel).expect("what is unknown was told of");
        audience.waiting.push((session, device));
    }

    /// A session that wants to be told of what is new in the groups of its user.
    pub(super) fn listen(
        &mut self,
        device: Device,
        session: SessionRef,
        groups: impl Iterator<Item = ChannelId>,
    ) {
        for channel in groups {
            let Some(audience) = self.groups.get_mut(&channel) else { continue };
            if let Some(visible) = audience.users.get(&device.uin).filter(|v| v.is_open()) {
                audience.listeners.insert(device, (session, *visible));
            }
        }
    }

    /// The device's session is no more.
    pub(super) fn unlisten(&mut self, device: Device, groups: impl Iterator<Item = ChannelId>) {
        for channel in groups {
            if let Some(audience) = self.groups.get_mut(&channel) {
                audience.listeners.remove(&device);
            }
        }
    }

    /// Something is to be told, or asked for, in this turn.
    pub(super) fn is_busy(&self) -> bool {
        !self.telling.is_empty() || (!self.to_ask.is_empty() && self.asked_count < ASKED_AT_ONCE)
    }

    /// When members are asked for again at the earliest.
    pub(super) fn deadline(&self) -> Option<Mono> {
        self.asked.front().map(|(at, _)| *at)
    }

    fn tell(&mut self, channel: ChannelId) {
        let audience = self.groups.get_mut(&channel).expect("the caller has looked it up");
        match &mut audience.told {
            _ if audience.listeners.is_empty() => {}
            told @ Told::All => {
                *told = Told::Upto { after: None, again: false };
                self.telling.push_back(channel);
            }
            Told::Upto { again, after } => *again |= after.is_some(),
        }
    }

    fn ask(&mut self, channel: ChannelId) {
        let audience = self.groups.get_mut(&channel).expect("the caller has looked it up");
        if audience.asking == Asking::No {
            audience.asking = Asking::Soon;
            self.to_ask.push_back(channel);
        }
    }
}

impl Audience {
    /// Takes a newer grant; says whether it is one.
    fn take_grant(&mut self, grant: Grant) -> bool {
        if self.grant.as_ref().is_some_and(|known| !grant.is_newer_than(known)) {
            return false; // said again
        }
        self.grant = Some(grant);
        true
    }
}

impl<L: Log, T: DedupTable> Shard<L, T> {
    /// A group with users of this shard has more to read.
    pub(super) fn handle_group_changed(&mut self, changed: Changed) {
        let Changed { channel, grant, version } = changed;
        let audiences = &mut self.home.audiences;
        let audience = audiences.groups.entry(channel).or_default();
        if audience.grant.as_ref().is_some_and(|known| known.incarnation < grant.incarnation) {
            // Another life of its history: nothing that was known of it holds.
            let Audience { listeners, asking, told, waiting, .. } = std::mem::take(audience);
            *audience = Audience { listeners, asking, told, waiting, ..Audience::default() };
        }
        if version > audience.known {
            audience.wanted = audience.wanted.max(version);
            audience.ahead = Some((version, grant));
            return audiences.ask(channel);
        }
        if audience.take_grant(grant) {
            audiences.tell(channel);
        }
    }

    /// A page of the users of this shard that are in a group, or were.
    pub(super) fn handle_members(&mut self, context: &mut Context<'_>, members: Members) {
        let Members { channel, after, page, upto, more, version, grant, .. } = members;
        let audiences = &mut self.home.audiences;
        let Some(audience) = audiences.groups.get_mut(&channel) else { return };
        if !matches!(audience.asking, Asking::Until(_)) || audience.place != after {
            return; // an answer to a question that was asked twice
        }
        audience.asking = Asking::No;
        audience.place = upto;
        audiences.asked_count -= 1;
        if upto < after {
            // Users were forgotten of whom this shard does not know that they left.
            audience.users.clear();
            audience.listeners.clear();
            audience.known = MessageId(0);
        }
        for (uin, visible) in page {
            self.home.take_member(context, channel, (uin, visible), &grant);
            self.marks.readable(channel, uin);
        }
        let audiences = &mut self.home.audiences;
        let audience = audiences.groups.get_mut(&channel).expect("it was there above");
        if more {
            return audiences.ask(channel);
        }
        audience.known = audience.known.max(version);
        let known = audience.known;
        let ahead = audience.ahead.take_if(|(version, _)| *version <= known);
        let is_newer = audience.take_grant(grant);
        let is_newer = ahead.is_some_and(|(_, grant)| audience.take_grant(grant)) || is_newer;
        let is_behind = known < audience.wanted;
        let waiting = std::mem::take(&mut audience.waiting);
        if is_newer {
            audiences.tell(channel);
        }
        if is_behind {
            audiences.ask(channel);
        }
        for (session, device) in waiting {
            self.show_when_known(context, (session, device), Some(channel));
        }
    }

    /// Asks for members, and tells at most `room` listeners; how much room is left.
    pub(crate) fn serve_audiences(&mut self, context: &mut Context<'_>, room: usize) -> usize {
        self.ask_members(context);
        let mut room = room;
        while room > 0
            && let Some(channel) = self.home.audiences.telling.pop_front()
        {
            room -= self.home.audiences.tell_some(context, channel, room);
        }
        room
    }

    fn ask_members(&mut self, context: &mut Context<'_>) {
        let audiences = &mut self.home.audiences;
        while audiences.asked_count < ASKED_AT_ONCE
            && let Some(channel) = audiences.to_ask.pop_front()
        {
            audiences.asked_count += 1;
            audiences.ask_now(context, self.id, channel);
        }
    }

    /// Asks again where no answer came.
    pub(super) fn repeat_asks(&mut self, context: &mut Context<'_>) {
        let audiences = &mut self.home.audiences;
        while let Some((at, channel)) = audiences.asked.front().copied()
            && at <= context.now.mono
        {
            audiences.asked.pop_front();
            if audiences.groups[&channel].asking == Asking::Until(at) && !mutant!(MembersAskedOnce)
            {
                audiences.ask_now(context, self.id, channel);
            }
        }
    }
}

impl Audiences {
    fn ask_now(&mut self, context: &mut Context<'_>, from: ShardId, channel: ChannelId) {
        let audience = self.groups.get_mut(&channel).expect("a group in a queue is there");
        let until = context.now.mono.after_ms(REPEAT_MS);
        audience.asking = Asking::Until(until);
        self.asked.push_back((until, channel));
        let mail = Mail::AskMembers { from, channel, after: audience.place };
        let shard = Address::Shard(context.placement.shard_of_channel(channel));
        context.post.send(context.counters, shard, mail);
    }

    /// Tells up to `room` listeners of a group; how many it were. The group comes again after the
    /// others if that was not all.
    fn tell_some(&mut self, context: &mut Context<'_>, channel: ChannelId, room: usize) -> usize {
        let audience = self.groups.get_mut(&channel).expect("a group in a queue is there");
        let Told::Upto { after, again } = audience.told else { return 0 };
        let grant = audience.grant.as_ref().expect("there is something to tell");
        let begin = after.map_or(Bound::Unbounded, Bound::Excluded);
        let (mut told, mut last) = (0, after);
        for (device, (to, visible)) in
            audience.listeners.range((begin, Bound::Unbounded)).take(room)
        {
            deliver(context, *to, channel, grant.clipped(*visible));
            (told, last) = (told + 1, Some(*device));
        }
        audience.told = match (told == room, again) {
            (true, again) => Told::Upto { after: last, again },
            (false, true) => Told::Upto { after: None, again: false },
            (false, false) => Told::All,
        };
        if audience.told != Told::All {
            self.telling.push_back(channel);
        }
        told
    }
}

impl Home {
    /// What a user may read of a group is another range now.
    fn take_member(
        &mut self,
        context: &mut Context<'_>,
        channel: ChannelId,
        (uin, visible): (Uin, Visible),
        grant: &Grant,
    ) {
        let audience = self.audiences.groups.get_mut(&channel).expect("the caller has it");
        audience.users.insert(uin, visible);
        let user = self.users.entry(uin).or_default();
        user.channels.entry(channel).or_default();
        for state in &user.devices {
            let Presence::Online { session, subscribed: true } = state.presence else { continue };
            let device = Device { uin, device: state.device };
            if visible.is_open() {
                audience.listeners.insert(device, (session, visible));
            } else {
                audience.listeners.remove(&device);
            }
            deliver(context, session, channel, grant.clipped(visible));
        }
    }
}

fn deliver(context: &mut Context<'_>, to: SessionRef, channel: ChannelId, grant: Option<Grant>) {
    let Some(grant) = grant else { return };
    let mail = Mail::Deliver { to, channel, grant };
    context.post.send(context.counters, Address::Front(to.worker), mail);
}
