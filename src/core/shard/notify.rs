//! What home shards must still be told: which channels have a new durable end.
//!
//! Per home shard it is a set, so a busy channel costs one place however often it changes. A
//! change stays until the home shard confirms it; at start everything is a change, so that home
//! shards learn all they lost with the process.

use std::collections::VecDeque;

use rustc_hash::FxHashSet;
use tern_protocol::{ChannelId, MessageId};

use super::Shard;
use super::group::Group;
use crate::context::Context;
use crate::dedup::DedupTable;
use crate::log::Log;
use crate::mail::{Address, Changed, Mail};
use crate::placement::{Placement, ShardId};
use crate::time::Mono;

/// Notifies to one home shard that await its confirmation: bounds what waits in mailboxes.
const UNCONFIRMED_MAX: usize = 256;

/// After this long without progress the unconfirmed ones are said again, in ms.
const REPEAT_MS: u64 = 1_000;

/// What one home shard must be told.
pub(super) struct Telling {
    /// Changed channels, oldest change first, and the same as a set.
    changed: VecDeque<ChannelId>,
    is_changed: FxHashSet<ChannelId>,
    /// Told and not confirmed, in the order of their numbers; `None` ends the exchange at start.
    unconfirmed: VecDeque<(u64, Option<ChannelId>)>,
    next_sequence: u64,
    exchange_ended: bool,
    repeat_at: Mono,
}

impl Telling {
    pub(super) fn new() -> Self {
        Self {
            changed: VecDeque::new(),
            is_changed: FxHashSet::default(),
            unconfirmed: VecDeque::new(),
            next_sequence: 1,
            exchange_ended: false,
            repeat_at: Mono(0),
        }
    }

    fn mark(&mut self, channel: ChannelId) {
        if self.is_changed.insert(channel) {
            self.changed.push_back(channel);
        }
    }

    /// The next thing to tell, if the home shard has confirmed enough of those before.
    fn next(&mut self) -> Option<(u64, Option<ChannelId>)> {
        if self.unconfirmed.len() >= UNCONFIRMED_MAX {
            return None;
        }
        let channel = self.changed.pop_front();
        match channel {
            Some(channel) => _ = self.is_changed.remove(&channel),
            None if self.exchange_ended => return None,
            None => self.exchange_ended = true,
        }
        let told = (self.next_sequence, channel);
        self.next_sequence += 1;
        self.unconfirmed.push_back(told);
        Some(told)
    }

    fn confirm(&mut self, sequence: u64, now: Mono) {
        while self.unconfirmed.front().is_some_and(|(told, _)| *told <= sequence) {
            self.unconfirmed.pop_front();
            self.repeat_at = now.after_ms(REPEAT_MS);
        }
    }
}

impl<L: Log, T: DedupTable> Shard<L, T> {
    /// A channel's durable end moved: its members' home shards must be told. Those of everybody
    /// who can read something of it, if `everybody`.
    pub(super) fn mark_changed(
        &mut self,
        context: &Context<'_>,
        channel: ChannelId,
        everybody: bool,
    ) {
        let group = self.groups.get(&channel);
        mark(&mut self.telling, context.placement, channel, group, everybody);
    }

    /// Tells home shards as much as they have room for.
    pub(super) fn notify(&mut self, context: &mut Context<'_>) {
        for home in 0..self.telling.len() {
            while let Some(told) = self.telling[home].next() {
                if self.telling[home].unconfirmed.len() == 1 {
                    self.telling[home].repeat_at = context.now.mono.after_ms(REPEAT_MS);
                }
                self.tell(context, ShardId(home as u16), told); // fits: at most SHARDS_MAX
            }
        }
    }

    fn tell(
        &mut self,
        context: &mut Context<'_>,
        home: ShardId,
        (sequence, channel): (u64, Option<ChannelId>),
    ) {
        let change = channel.map(|channel| {
            let state = self.channels.get(&channel).expect("channels are never closed");
            let grant = state.grant(self.proof, self.incarnation);
            let grant = grant.expect("only channels with a durable message change");
            let group = self.groups.get(&channel);
            let version = group.map_or(MessageId(0), |group| group.version_for(home));
            Changed { channel, grant, version }
        });
        context.counters.notifies += 1;
        let mail = Mail::Notify { from: self.id, to: home, sequence, change };
        context.post.send(context.counters, Address::Shard(home), mail);
    }

    /// A home shard has all up to this number.
    pub(super) fn handle_confirm(
        &mut self,
        context: &mut Context<'_>,
        home: ShardId,
        sequence: u64,
    ) {
        self.telling[usize::from(home.0)].confirm(sequence, context.now.mono);
        self.notify(context);
    }

    /// Says again what was not confirmed in time.
    pub(super) fn repeat_notifies(&mut self, context: &mut Context<'_>) {
        for home in 0..self.telling.len() {
            let telling = &mut self.telling[home];
            if telling.unconfirmed.is_empty() || telling.repeat_at > context.now.mono {
                continue;
            }
            telling.repeat_at = context.now.mono.after_ms(REPEAT_MS);
            for index in 0..self.telling[home].unconfirmed.len() {
                context.counters.notifies_repeated += 1;
                let told = self.telling[home].unconfirmed[index];
                self.tell(context, ShardId(home as u16), told); // fits: at most SHARDS_MAX
            }
        }
    }

    pub(super) fn notify_deadline(&self) -> Option<Mono> {
        let waiting = self.telling.iter().filter(|telling| !telling.unconfirmed.is_empty());
        waiting.map(|telling| telling.repeat_at).min()
    }
}

/// A channel changed for the home shards of its members.
pub(super) fn mark(
    telling: &mut [Telling],
    placement: &Placement,
    channel: ChannelId,
    group: Option<&Group>,
    everybody: bool,
) {
    for home in homes_of(placement, channel).into_iter().flatten() {
        telling[usize::from(home.0)].mark(channel);
    }
    for home in group.into_iter().flat_map(|group| group.homes(everybody)) {
        telling[usize::from(home.0)].mark(channel);
    }
}

/// The home shards of a direct channel's members, each once.
fn homes_of(placement: &Placement, channel: ChannelId) -> [Option<ShardId>; 2] {
    let Some((low, high)) = channel.members() else { return [None, None] };
    let (low, high) = (placement.home_of(low), placement.home_of(high));
    [Some(low), (high != low).then_some(high)]
}
