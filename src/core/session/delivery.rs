//! What goes out to one device: per channel the range between what was pushed and what may be
//! read, within a window of unacked pushes, straight from the log. Each id of it is pushed, or
//! named in a gap with its reason, in order.

use std::cmp::Reverse;
use std::collections::VecDeque;

use rustc_hash::FxHashMap;
use tern_protocol::digest::CursorDigest;
use tern_protocol::frames::{ChannelState, Cursor, Gap};
use tern_protocol::{ChannelId, Code, Incarnation, MessageId};

use super::cursors::by_channel;
use super::page::{Item, PAGE_MESSAGES, Page};
use super::window::Window;
use crate::context::Context;
use crate::io::{ColdRecord, Effect, LinkId, Order, Outgoing, Waiter};
use crate::log::{Offset, Reader};
use crate::mail::Grant;
use crate::placement::ShardId;

/// Messages of one channel that are pushed at once and may still travel each for itself. More are
/// a backlog, for which an ordered stream is cheaper, and which lets shorter news pass.
const FREE_MESSAGES: usize = 8;

/// Channels of which a device that does not ack is told with one heartbeat; the others' turn comes
/// once it acks.
const NEWS_PER_BEAT: usize = 64;

/// Channels with pushes that left in free order, and the cursor that each had at the last
/// heartbeat, if it was there then.
#[derive(Default)]
struct FreeChannels(Vec<(ChannelId, Option<MessageId>)>);

/// The deliveries of one session.
#[derive(Default)]
pub(super) struct Delivery {
    /// Whether the client takes pushes in any order: once it is heard on this connection, since a
    /// push may not overtake LOGGED_IN.
    takes_free: bool,
    /// Channels with pushes that left in free order; none for most sessions.
    free: Option<Box<FreeChannels>>,
    views: FxHashMap<ChannelId, View>,
    /// Channels with something to push, each once.
    ready: VecDeque<ChannelId>,
    /// Whether all channels of the user were granted; before, nothing is pushed, so that the
    /// newest come first.
    all_granted: bool,
    window: Window,
    /// Of what the device said that it has consumed.
    digest: CursorDigest,
    /// The place of the newest cold read, and whether it is under way.
    waited_for: Offset,
    warming: bool,
}

/// One channel as one device reads it. `acked <= pushed <= sent`.
#[derive(Clone, Default)]
struct View {
    acked: MessageId,
    pushed: MessageId,
    /// The newest id that was ever pushed in this session; `pushed` can go back.
    sent: MessageId,
    unacked_bytes: u64,
    /// What the device said that it has consumed, and in which incarnation.
    told: (MessageId, Incarnation),
    /// The newest id that it was told of while nothing was pushed.
    news: MessageId,
    /// The incarnation that the client knows; 0 if none.
    known: Incarnation,
    /// The incarnation that the client itself has named. A push may overtake CHANNEL only if that
    /// says nothing new to it.
    named: Incarnation,
    /// Up to this id pushes keep their order: they were missed before.
    kept_to: MessageId,
    /// Up to this id a heartbeat took back what was under way. It may still be, so its room in
    /// the window is its own: it is pushed again before anything else.
    healed_to: MessageId,
    grant: Option<Grant>,
    is_ready: bool,
    /// Whether the channel is in the list of those with free pushes.
    is_free: bool,
}

impl Delivery {
    /// The client said something behind LOGGED_IN, so it has that.
    pub(super) fn heard(&mut self, takes_datagrams: bool) {
        self.takes_free = takes_datagrams;
    }

    /// Channels that this session has a cursor or a grant in.
    pub(super) fn channels(&self) -> usize {
        self.views.len()
    }

    /// Of what the device said that it has consumed; as on the wire.
    pub(super) fn digest(&self) -> u64 {
        self.digest.to_wire()
    }

    /// What the device said that it has consumed, in the order of the channels.
    pub(super) fn cursors(&self) -> Vec<Cursor> {
        let told = self.views.iter().filter(|(_, view)| view.told.0 > MessageId(0));
        let mut list: Vec<Cursor> = told
            .map(|(channel, view)| Cursor {
                channel: *channel,
                id: view.told.0.into(),
                incarnation: view.told.1.into(),
                reserved: 0.into(),
            })
            .collect();
        list.sort_unstable_by_key(|cursor| cursor.channel);
        list
    }

    /// The client has consumed each of these channels up to there.
    pub(super) fn set_cursors(&mut self, list: &[Cursor]) {
        for cursor in list {
            self.set_cursor(cursor.channel, cursor.id.into(), cursor.incarnation.into());
        }
    }

    /// The client has said all its cursors once more. Where one is not what was known, delivery
    /// goes on from the client's.
    pub(super) fn say_again(&mut self, context: &mut Context<'_>, link: LinkId, list: &[Cursor]) {
        let said = by_channel(list);
        let channels = said.keys().chain(self.views.keys().filter(|id| !said.contains_key(*id)));
        let mut channels: Vec<ChannelId> = channels.copied().collect();
        channels.sort_unstable(); // the map's order must not show
        for channel in channels {
            let told = said.get(&channel).map_or((MessageId(0), Incarnation(0)), |cursor| {
                (cursor.id.into(), cursor.incarnation.into())
            });
            let old = self.views.entry(channel).or_default();
            let is_none = told.0 == MessageId(0) && old.told.0 == MessageId(0);
            if old.told == told || is_none {
                continue;
            }
            self.window.take_back(old.ack(old.pushed));
            let old = std::mem::take(old);
            self.digest.remove(channel, old.told.0, old.told.1);
            self.set_cursor(channel, told.0, told.1);
            let view = self.views.get_mut(&channel).expect("it was just set");
            view.sent = view.sent.max(old.sent); // an ack of it may be on its way
            (view.is_ready, view.is_free, view.kept_to) = (old.is_ready, old.is_free, old.sent);
            if let Some(grant) = old.grant {
                self.granted(context, link, (channel, grant), None);
            }
        }
    }

    /// The client has consumed up to `id`.
    fn set_cursor(&mut self, channel: ChannelId, id: MessageId, known: Incarnation) {
        let told = (id, known);
        let view =
            View { acked: id, pushed: id, sent: id, told, known, named: known, ..View::default() };
        if let Some(old) = self.views.insert(channel, view) {
            self.digest.remove(channel, old.told.0, old.told.1); // named twice: the last one counts
        }
        self.digest.add(channel, id, known);
    }

    /// What the session may read of a channel.
    pub(super) fn grant(&self, channel: ChannelId) -> Option<&Grant> {
        self.views.get(&channel)?.grant.as_ref()
    }

    /// Up to which id the device has consumed a channel.
    pub(super) fn acked_to(&self, channel: ChannelId) -> Option<MessageId> {
        self.views.get(&channel).map(|view| view.acked)
    }

    /// More may be read. Tells the client what it must know before the first push. Of a channel
    /// that the device did not name, it may want only so many of the newest messages.
    pub(super) fn granted(
        &mut self,
        context: &mut Context<'_>,
        link: LinkId,
        (channel, grant): (ChannelId, Grant),
        wanted: Option<u32>,
    ) {
        let view = self.views.entry(channel).or_default();
        if view.grant.as_ref().is_some_and(|old| !grant.is_newer_than(old)) {
            return;
        }
        let first = view.grant.is_none();
        let is_far = first && grant.to.0 > view.pushed.0 + 8;
        let grant = match mutant!(TruncatedEarly) && is_far {
            true => Grant { from: grant.to.max(grant.from), ..grant },
            false => grant,
        };
        if view.known != grant.incarnation || (first && view.pushed > grant.to) {
            let is_told = view.known.0 != 0 || !mutant!(LifeUntold);
            view.restart(&grant);
            if is_told {
                context.effect(Effect::Frame(link, Outgoing::Channel(state_of(channel, &grant))));
            }
        }
        let is_new = first && view.told.0 == MessageId(0);
        let wanted = wanted.filter(|_| is_new && !mutant!(WantedIgnored));
        let wanted = wanted.map(|newest| newest.saturating_sub(u32::from(mutant!(WantedShort))));
        let wanted_from =
            wanted.map_or(0, |newest| grant.to.next().0.saturating_sub(newest.into()));
        self.step_to_readable(context, link, channel, (&grant, MessageId(wanted_from)));
        let view = self.views.get_mut(&channel).expect("it was just made");
        view.grant = Some(grant);
        self.make_ready(channel);
    }

    /// All channels of the user were granted: those with the newest messages come first.
    pub(super) fn all_granted(&mut self) {
        if std::mem::replace(&mut self.all_granted, true) {
            return; // asked for again
        }
        let views = &self.views;
        let newest_s = |channel: &ChannelId| {
            let grant = views[channel].grant.as_ref().expect("a ready channel has a grant");
            grant.newest_s
        };
        self.ready
            .make_contiguous()
            .sort_unstable_by_key(|channel| (Reverse(newest_s(channel)), *channel));
        if mutant!(OldestFirst) {
            self.ready.make_contiguous().reverse();
        }
    }

    /// The device has consumed up to `id`, in this incarnation. Says whether that is news.
    ///
    /// # Errors
    /// If that was never pushed to it.
    pub(super) fn acked(
        &mut self,
        context: &Context<'_>,
        channel: ChannelId,
        id: MessageId,
        incarnation: Incarnation,
    ) -> Result<bool, Code> {
        let view = self.views.get_mut(&channel).filter(|view| id <= view.sent);
        let view = view.ok_or(Code::NotGranted)?;
        view.named = incarnation;
        let before = view.told;
        let newest = if incarnation == before.1 { before.0.max(id) } else { id };
        view.told = (newest, incarnation);
        self.digest.remove(channel, before.0, before.1);
        self.digest.add(channel, newest, incarnation);
        let (messages, bytes) = view.ack(id.min(view.pushed));
        self.window.ack(context.config, (messages, bytes));
        Ok(messages > 0)
    }

    /// The device asks for `from` to `to` again: delivery goes back to there. What of it is past
    /// retention meanwhile, or not for this member, is told as such.
    ///
    /// # Errors
    /// If the range was not granted.
    pub(super) fn go_back(
        &mut self,
        context: &mut Context<'_>,
        link: LinkId,
        channel: ChannelId,
        (from, to): (MessageId, MessageId),
    ) -> Result<(), Code> {
        let view = self.views.get_mut(&channel).ok_or(Code::NotGranted)?;
        let grant = view.grant.as_ref().filter(|grant| to <= grant.to).ok_or(Code::NotGranted)?;
        let mut from = from;
        for (first, code) in [(grant.visible_from, Code::NotVisible), (grant.from, Code::Expired)] {
            if from < first && from <= to {
                let gap_to = to.min(MessageId(first.0 - 1));
                gap(context, link, channel, from, gap_to, code);
            }
            from = from.max(first);
        }
        self.window.resume();
        if from <= to && from <= view.pushed {
            self.push_again_after(channel, MessageId(from.0 - 1));
        }
        self.make_ready(channel);
        Ok(())
    }

    /// A heartbeat. A device that does not ack is told what there is instead of being pushed to.
    pub(super) fn beat(&mut self, context: &mut Context<'_>, link: LinkId) {
        self.heal(context, link);
        if self.warming || !self.window.beat(context.config) {
            return;
        }
        let views = &mut self.views;
        let news = self.ready.iter().filter_map(|channel| {
            let view = views.get_mut(channel).expect("a ready channel has a view");
            let grant = view.grant.as_ref().filter(|grant| grant.to > view.news)?;
            view.news = grant.to;
            Some(state_of(*channel, grant))
        });
        for state in news.take(NEWS_PER_BEAT) {
            context.counters.news += 1;
            context.effect(Effect::Frame(link, Outgoing::Channel(state)));
        }
    }

    /// Tells of what comes next and is not to be read, or not wanted, and steps over it.
    fn step_to_readable(
        &mut self,
        context: &mut Context<'_>,
        link: LinkId,
        channel: ChannelId,
        (grant, wanted_from): (&Grant, MessageId),
    ) {
        let view = self.views.get_mut(&channel).expect("the caller has looked it up");
        for (first, code) in [
            (grant.visible_from, Code::NotVisible),
            (grant.from, Code::Expired),
            (wanted_from, Code::Skipped),
        ] {
            if view.pushed.next() < first {
                let to = MessageId(first.0 - 1);
                gap(context, link, channel, view.pushed.next(), to, code);
                self.window.step(view.step_over(to));
            }
        }
    }

    /// The transport holds what left in free order for delivered, but only the ack
    /// of the device proves that: a channel without any since the heartbeat before is pushed once
    /// more, in order, as far as it may still be read.
    fn heal(&mut self, context: &mut Context<'_>, link: LinkId) {
        let Some(free) = self.free.take() else { return };
        for (channel, before) in free.0 {
            let view = self.views.get_mut(&channel).expect("a pushed channel has a view");
            if view.acked < view.pushed && before != Some(view.acked) {
                self.free.get_or_insert_default().0.push((channel, Some(view.acked)));
                continue;
            }
            view.is_free = false;
            if view.acked < view.pushed {
                let (acked, healed_to) = (view.acked, view.pushed);
                let grant = view.grant.clone().expect("a pushed channel has a grant");
                self.push_again_after(channel, acked);
                self.step_to_readable(context, link, channel, (&grant, MessageId(0)));
                self.make_next(channel, healed_to);
            }
        }
    }

    /// Goes back to `id`; what comes behind it keeps its order.
    fn push_again_after(&mut self, channel: ChannelId, id: MessageId) {
        let view = self.views.get_mut(&channel).expect("the caller has looked it up");
        self.window.take_back(view.ack(view.pushed));
        view.kept_to = view.kept_to.max(view.pushed);
        (view.pushed, view.acked, view.healed_to) = (id, id, MessageId(0));
    }

    /// What a heartbeat took back up to `healed_to` is pushed before anything else: another
    /// channel would fill its room, and more would be under way than the window holds.
    fn make_next(&mut self, channel: ChannelId, healed_to: MessageId) {
        let view = self.views.get_mut(&channel).expect("the caller has looked it up");
        view.healed_to = healed_to;
        if std::mem::take(&mut view.is_ready) {
            self.ready.retain(|other| *other != channel);
        }
        self.make_ready(channel);
    }

    /// The cold read is done.
    pub(super) fn warmed(&mut self) {
        self.warming = false;
    }

    /// Pushes what the window has room for: first what is healed, then a page a channel in turn.
    pub(super) fn pump<R: Reader>(
        &mut self,
        context: &mut Context<'_>,
        reader: &mut R,
        link: LinkId,
    ) {
        while !self.warming
            && self.all_granted
            && let room @ 1.. = self.window.room(context.config)
            && let Some(channel) = self.ready.pop_front()
        {
            let view = self.views.get_mut(&channel).expect("a ready channel has a view");
            view.is_ready = false;
            let grant = view.grant.as_ref().expect("a ready channel has a grant");
            let shard = context.placement.shard_of_channel(channel);
            let count = room.min(PAGE_MESSAGES as u64).min(view.turn_to(grant).0 - view.pushed.0);
            let page = (shard, channel);
            match Page::read(reader, page, grant, view.pushed, count, self.waited_for) {
                Ok(page) => {
                    context.counters.records_read += u64::from(page.records_read());
                    self.push(context, link, (shard, channel), &page);
                }
                Err(at) => {
                    context.counters.reads_cold += 1;
                    (self.warming, self.waited_for) = (true, at);
                    let waiter = Waiter::Link(link);
                    let record = ColdRecord { shard, at, channel: Some(channel) };
                    context.effect(Effect::Warm { record, waiter });
                    return self.stay_ready(channel); // or two that wait would wait in turn
                }
            }
            self.make_ready(channel);
        }
    }

    fn push(
        &mut self,
        context: &mut Context<'_>,
        link: LinkId,
        (shard, channel): (ShardId, ChannelId),
        page: &Page,
    ) {
        let view = self.views.get_mut(&channel).expect("the caller has looked it up");
        let is_short = page.items().nth(FREE_MESSAGES).is_none();
        let may_be_free = self.takes_free && is_short && view.is_named();
        for item in page.items() {
            match item {
                Item::Message { at, bytes } => {
                    context.counters.pushes += 1;
                    view.pushed = view.pushed.next();
                    let is_free = may_be_free && view.pushed > view.kept_to;
                    let order = if is_free { Order::Free } else { Order::Kept };
                    if !(mutant!(PushLeftOut) && view.pushed.0 % 16 == 15) {
                        context.effect(Effect::Push { link, shard, at, order });
                    }
                    if is_free && !std::mem::replace(&mut view.is_free, true) {
                        self.free.get_or_insert_default().0.push((channel, None));
                    }
                    view.unacked_bytes += u64::from(bytes);
                    self.window.push(bytes);
                }
                Item::Gap { to, code } => {
                    gap(context, link, channel, view.pushed.next(), to, code);
                    self.window.step(view.step_over(to));
                }
            }
        }
        view.sent = view.sent.max(view.pushed);
        if mutant!(CursorOnPush) {
            self.window.ack(context.config, view.ack(view.pushed));
        }
    }

    /// The channel is the next one.
    fn stay_ready(&mut self, channel: ChannelId) {
        let view = self.views.get_mut(&channel).expect("the caller has looked it up");
        view.is_ready = true;
        self.ready.push_front(channel);
    }

    fn make_ready(&mut self, channel: ChannelId) {
        let view = self.views.get_mut(&channel).expect("the caller has looked it up");
        let to = view.grant.as_ref().map_or(MessageId(0), |grant| grant.to);
        if view.is_ready || view.pushed >= to {
            return;
        }
        view.is_ready = true;
        let missing = to.0 - view.pushed.0;
        if view.is_healing() {
            self.ready.push_front(channel);
        } else if missing <= FREE_MESSAGES as u64 {
            let healed = self.ready.iter().take_while(|other| self.views[*other].is_healing());
            self.ready.insert(healed.count(), channel);
        } else {
            self.ready.push_back(channel);
        }
    }
}

impl View {
    /// Whether the client is known to be in the incarnation of what is pushed.
    fn is_named(&self) -> bool {
        self.grant.as_ref().is_some_and(|grant| grant.incarnation == self.named)
    }

    /// Whether what a heartbeat took back is still to be pushed.
    fn is_healing(&self) -> bool {
        self.pushed < self.healed_to
    }

    /// How far its turn may go: what is healed takes no room for more.
    fn turn_to(&self, grant: &Grant) -> MessageId {
        if self.is_healing() { self.healed_to.min(grant.to) } else { grant.to }
    }

    /// The client's history ends where this grant's incarnation began, or where the grant does.
    fn restart(&mut self, grant: &Grant) {
        if self.known != grant.incarnation && self.known.0 != 0 {
            self.pushed = self.pushed.min(MessageId(grant.restarted_at.0 - 1));
        }
        self.pushed = self.pushed.min(grant.to);
        self.acked = self.acked.min(self.pushed);
        self.known = grant.incarnation;
        self.named = Incarnation(0); // until it acks something behind the CHANNEL
    }

    /// Moves the acked end, and says how many messages and bytes left the window. Bytes are
    /// shared out evenly over the messages of the channel, so that none must be remembered.
    fn ack(&mut self, id: MessageId) -> (u64, u64) {
        let in_flight = self.pushed.0 - self.acked.0;
        let messages = id.0.saturating_sub(self.acked.0);
        if messages == 0 {
            return (0, 0);
        }
        let bytes = self.unacked_bytes * messages / in_flight;
        self.acked = id;
        self.unacked_bytes -= bytes;
        (messages, bytes)
    }

    /// Ids up to `to` never come. Behind pushes that await their ack they count as such, since
    /// one ack covers all; says how many that are.
    fn step_over(&mut self, to: MessageId) -> u64 {
        let stepped = to.0 - self.pushed.0;
        let all_acked = self.acked == self.pushed;
        self.pushed = to;
        self.sent = self.sent.max(to);
        if all_acked {
            self.acked = to;
            return 0;
        }
        stepped
    }
}

fn state_of(channel: ChannelId, grant: &Grant) -> ChannelState {
    ChannelState {
        channel,
        incarnation: grant.incarnation.into(),
        reserved: 0.into(),
        oldest: grant.from.into(),
        newest: if mutant!(NewestAhead) { grant.to.next() } else { grant.to }.into(),
        restarted_at: grant.restarted_at.into(),
    }
}

fn gap(
    context: &mut Context<'_>,
    link: LinkId,
    channel: ChannelId,
    from: MessageId,
    to: MessageId,
    code: Code,
) {
    context.counters.gaps += 1;
    let gap =
        Gap { channel, from: from.into(), to: to.into(), code: code.0.into(), reserved: [0; 6] };
    context.effect(Effect::Frame(link, Outgoing::Gap(gap)));
}
