//! The first message of a direct channel: does the other user exist, and do both home shards know
//! of the channel, durably? Until then its sends wait here in order.

use std::collections::VecDeque;

use tern_protocol::{ChannelId, Code, Uin};

use super::Shard;
use super::channel::Channel;
use super::chat::{Offer, refuse};
use crate::context::Context;
use crate::dedup::DedupTable;
use crate::io::{Effect, Query};
use crate::log::Log;
use crate::mail::{Address, Mail};
use crate::time::Mono;

/// Channels of one shard that are being opened at once.
const OPENING_MAX: usize = 1_024;

/// Sends that wait for one channel to open: what one device may have unanswered.
const WAITING_MAX: usize = 64;

/// After this long without an answer a step is taken again, in ms: each is harmless to repeat.
const REPEAT_MS: u64 = 1_000;

/// Asked of a client where a queue is full or the directory can't answer, in ms.
const RETRY_AFTER_MS: u32 = 500;

/// A channel on its way to being open.
pub(super) struct Opening {
    opener: Uin,
    peer: Uin,
    step: Step,
    repeat_at: Mono,
    waiting: VecDeque<Offer>,
}

/// What is waited for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    /// The directory: does the peer exist?
    Peer,
    /// The opener's home shard.
    OpenerEnters,
    /// The peer's home shard.
    PeerEnters,
}

impl<L: Log, T: DedupTable> Shard<L, T> {
    /// Keeps a send of a channel that is not open, and starts to open it.
    pub(super) fn open(&mut self, context: &mut Context<'_>, offer: Offer) {
        let channel = offer.channel();
        if let Some(opening) = self.opening.get_mut(&channel) {
            if opening.waiting.len() >= WAITING_MAX {
                return refuse(context, &offer, Code::Busy, RETRY_AFTER_MS);
            }
            context.counters.sends_parked += 1;
            return opening.waiting.push_back(offer);
        }
        if self.opening.len() >= OPENING_MAX {
            return refuse(context, &offer, Code::Busy, RETRY_AFTER_MS);
        }
        let opener = offer.device.uin;
        let peer = channel.peer_of(opener).expect("the session lets only members send");
        let step = if peer == opener { Step::OpenerEnters } else { Step::Peer };
        let repeat_at = context.now.mono.after_ms(REPEAT_MS);
        let waiting = VecDeque::from([offer]);
        context.counters.sends_parked += 1;
        self.opening.insert(channel, Opening { opener, peer, step, repeat_at, waiting });
        self.take_step(context, channel);
    }

    /// The directory knows whether the peer exists.
    pub(crate) fn handle_user_exists(
        &mut self,
        context: &mut Context<'_>,
        channel: ChannelId,
        uin: Uin,
        exists: Option<bool>,
    ) {
        if channel.is_group() {
            return self.newcomer_exists(context, channel, uin, exists);
        }
        let Some(opening) = self.opening.get(&channel) else { return };
        if opening.step != Step::Peer || opening.peer != uin {
            return; // an answer to a step taken twice
        }
        match exists {
            Some(true) if opening.waiting.iter().any(|offer| self.blocked_at(offer).is_some()) => {
                self.refuse_blocked(context, channel);
            }
            Some(true) => {
                let opening = self.opening.get_mut(&channel).expect("looked up above");
                opening.step = Step::OpenerEnters;
                self.take_step(context, channel);
            }
            Some(false) => self.refuse_opening(context, channel, Code::NoSuchUser, 0),
            None => self.refuse_opening(context, channel, Code::Busy, RETRY_AFTER_MS),
        }
    }

    /// A home shard answers: the entry is durable, or refused.
    pub(super) fn handle_entered(
        &mut self,
        context: &mut Context<'_>,
        channel: ChannelId,
        uin: Uin,
        refused: Option<(Code, u32)>,
    ) {
        if channel.is_group() {
            return self.newcomer_entered(context, channel, uin, refused);
        }
        let Some(opening) = self.opening.get_mut(&channel) else { return };
        match (opening.step, refused) {
            (Step::Peer, _) => {}
            (_, Some((code, retry_after_ms))) => {
                self.refuse_opening(context, channel, code, retry_after_ms);
            }
            (Step::OpenerEnters, None) if uin == opening.opener && uin != opening.peer => {
                opening.step = Step::PeerEnters;
                self.take_step(context, channel);
            }
            (Step::OpenerEnters, None) if uin == opening.opener => self.opened(context, channel),
            (Step::PeerEnters, None) if uin == opening.peer => self.opened(context, channel),
            (Step::OpenerEnters | Step::PeerEnters, None) => {}
        }
    }

    /// The peer blocks the opener, who is told the same, and after the same steps, as if the peer
    /// did not exist.
    fn refuse_blocked(&mut self, context: &mut Context<'_>, channel: ChannelId) {
        let opening = self.opening.remove(&channel).expect("the caller has looked it up");
        for offer in opening.waiting {
            match self.blocked_at(&offer) {
                Some(at) => {
                    self.refuse_when_durable(context, offer, at, Code::NoSuchUser.into());
                }
                None => self.offer(context, offer), // of the one who blocks
            }
        }
    }

    fn take_step(&mut self, context: &mut Context<'_>, channel: ChannelId) {
        let opening = self.opening.get_mut(&channel).expect("the caller has looked it up");
        opening.repeat_at = context.now.mono.after_ms(REPEAT_MS);
        let (uin, opens) = match opening.step {
            Step::Peer => {
                let query = Query::UserExists { shard: self.id, channel, uin: opening.peer };
                return context.effect(Effect::Directory(query));
            }
            Step::OpenerEnters => (opening.opener, true),
            Step::PeerEnters => (opening.peer, false),
        };
        let mail = Mail::Enter { from: self.id, uin, channel, opens };
        let home = Address::Shard(context.placement.home_of(uin));
        context.post.send(context.counters, home, mail);
    }

    fn opened(&mut self, context: &mut Context<'_>, channel: ChannelId) {
        let opening = self.opening.remove(&channel).expect("the caller has looked it up");
        self.channels.insert(channel, Channel::new(self.incarnation));
        for offer in opening.waiting {
            self.offer(context, offer);
        }
    }

    fn refuse_opening(
        &mut self,
        context: &mut Context<'_>,
        channel: ChannelId,
        code: Code,
        retry_after_ms: u32,
    ) {
        let opening = self.opening.remove(&channel).expect("the caller has looked it up");
        for offer in opening.waiting {
            self.refuse_by_state(context, &offer, code.into(), retry_after_ms);
        }
    }

    /// Takes the step of each channel again whose answer did not come.
    pub(super) fn repeat_opening(&mut self, context: &mut Context<'_>) {
        let now = context.now.mono;
        let mut late: Vec<ChannelId> = self
            .opening
            .iter()
            .filter(|(_, opening)| opening.repeat_at <= now)
            .map(|(channel, _)| *channel)
            .collect();
        late.sort_unstable();
        for channel in late {
            self.take_step(context, channel);
        }
    }

    pub(super) fn opening_deadline(&self) -> Option<Mono> {
        self.opening.values().map(|opening| opening.repeat_at).min()
    }

    pub(super) fn take_opening(&mut self) -> Vec<Offer> {
        let mut opening: Vec<_> = std::mem::take(&mut self.opening).into_iter().collect();
        opening.sort_unstable_by_key(|(channel, _)| *channel);
        opening.into_iter().flat_map(|(_, opening)| opening.waiting).collect()
    }
}
