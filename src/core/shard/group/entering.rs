//! Newcomers of a change: do they exist, and do their home shards know of the channel, durably?
//! Until all of them do, the change waits here, and behind it others that make new members.

use std::collections::VecDeque;

use tern_protocol::frames::action;
use tern_protocol::group::ChangeView;
use tern_protocol::{ChannelId, Code, Uin};

use super::Refusal;
use crate::context::Context;
use crate::dedup::DedupTable;
use crate::io::{Effect, Query};
use crate::log::Log;
use crate::mail::{Address, Mail};
use crate::shard::Shard;
use crate::shard::chat::{Offer, refuse};
use crate::time::Mono;

/// Groups of one shard with a change whose newcomers enter: with the longest changes 0.3 MB.
const ENTERING_MAX: usize = 256;

/// Changes that wait behind one of the same group.
const WAITING_MAX: usize = 64;

/// Newcomers of one change that are looked up or enter at once: two such changes in one turn
/// leave the directory's queue room for logins.
const AT_ONCE_MAX: usize = 32;

/// After this long without an answer a step is taken again, in ms: each is harmless to repeat.
const REPEAT_MS: u64 = 1_000;

/// Asked of a client where a queue is full or the directory can't answer, in ms.
const RETRY_AFTER_MS: u32 = 500;

/// A change whose newcomers enter.
pub(in crate::shard) struct Entering {
    offer: Offer,
    /// Newcomers whose turn has not come.
    later: VecDeque<Uin>,
    under_way: Vec<(Uin, Step)>,
    repeat_at: Mono,
    waiting: VecDeque<Offer>,
}

/// What is waited for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    /// The directory: does the user exist?
    Exists,
    /// The user's home shard.
    Enters,
}

impl<L: Log, T: DedupTable> Shard<L, T> {
    /// Keeps a change until its newcomers have entered.
    pub(super) fn enter_all(
        &mut self,
        context: &mut Context<'_>,
        offer: Offer,
        newcomers: Vec<Uin>,
    ) {
        let channel = offer.channel();
        if let Some(entering) = self.entering.get_mut(&channel) {
            if entering.waiting.len() >= WAITING_MAX {
                return refuse(context, &offer, Code::Busy, RETRY_AFTER_MS);
            }
            context.counters.sends_parked += 1;
            return entering.waiting.push_back(offer);
        }
        if self.entering.len() >= ENTERING_MAX {
            return refuse(context, &offer, Code::Busy, RETRY_AFTER_MS);
        }
        context.counters.sends_parked += 1;
        let entering = Entering {
            offer,
            later: newcomers.into(),
            under_way: Vec::new(),
            repeat_at: context.now.mono.after_ms(REPEAT_MS),
            waiting: VecDeque::new(),
        };
        self.entering.insert(channel, entering);
        self.enter_more(context, channel);
    }

    /// The directory knows whether a newcomer exists.
    pub(in crate::shard) fn newcomer_exists(
        &mut self,
        context: &mut Context<'_>,
        channel: ChannelId,
        uin: Uin,
        exists: Option<bool>,
    ) {
        let Some(entering) = self.entering.get_mut(&channel) else { return };
        let asked = entering.under_way.iter_mut().find(|asked| **asked == (uin, Step::Exists));
        let Some((_, step)) = asked else { return }; // an answer to a step taken twice
        match exists {
            Some(true) => {
                *step = Step::Enters;
                self.take_entering_step(context, channel, uin, Step::Enters);
            }
            Some(false) => self.refuse_entering(context, channel, uin, Code::NoSuchUser, 0),
            None => self.refuse_entering(context, channel, uin, Code::Busy, RETRY_AFTER_MS),
        }
    }

    /// A home shard answers: the entry is durable, or refused.
    pub(in crate::shard) fn newcomer_entered(
        &mut self,
        context: &mut Context<'_>,
        channel: ChannelId,
        uin: Uin,
        refused: Option<(Code, u32)>,
    ) {
        let Some(entering) = self.entering.get_mut(&channel) else { return };
        let asked = entering.under_way.iter().position(|asked| *asked == (uin, Step::Enters));
        let Some(index) = asked else { return };
        if let Some((code, retry_after_ms)) = refused {
            return self.refuse_entering(context, channel, uin, code, retry_after_ms);
        }
        entering.under_way.swap_remove(index);
        self.enter_more(context, channel);
    }

    /// Lets more newcomers enter; when all have, the change goes on.
    fn enter_more(&mut self, context: &mut Context<'_>, channel: ChannelId) {
        let entering = self.entering.get_mut(&channel).expect("the caller has looked it up");
        if entering.later.is_empty() && entering.under_way.is_empty() {
            let Entering { offer, waiting, .. } =
                self.entering.remove(&channel).expect("looked up above");
            self.offer(context, Offer { entered: true, ..offer });
            return self.offer_again(context, waiting);
        }
        entering.repeat_at = context.now.mono.after_ms(REPEAT_MS);
        let sender = entering.offer.device.uin;
        while let Some(entering) = self.entering.get_mut(&channel)
            && entering.under_way.len() < AT_ONCE_MAX
            && let Some(uin) = entering.later.pop_front()
        {
            let step = if uin == sender { Step::Enters } else { Step::Exists };
            entering.under_way.push((uin, step));
            self.take_entering_step(context, channel, uin, step);
        }
    }

    fn take_entering_step(
        &mut self,
        context: &mut Context<'_>,
        channel: ChannelId,
        uin: Uin,
        step: Step,
    ) {
        let entering = &self.entering[&channel];
        match step {
            Step::Exists => {
                let query = Query::UserExists { shard: self.id, channel, uin };
                context.effect(Effect::Directory(query));
            }
            Step::Enters => {
                let opens = uin == entering.offer.device.uin;
                let mail = Mail::Enter { from: self.id, uin, channel, opens };
                let home = Address::Shard(context.placement.home_of(uin));
                context.post.send(context.counters, home, mail);
            }
        }
    }

    /// The change can't be: this newcomer can't enter.
    fn refuse_entering(
        &mut self,
        context: &mut Context<'_>,
        channel: ChannelId,
        uin: Uin,
        code: Code,
        retry_after_ms: u32,
    ) {
        let Entering { offer, waiting, .. } =
            self.entering.remove(&channel).expect("the caller has looked it up");
        let refusal = Refusal { code, member: place_of(&offer, uin) };
        self.refuse_by_state(context, &offer, refusal, retry_after_ms);
        self.offer_again(context, waiting);
    }

    fn offer_again(&mut self, context: &mut Context<'_>, waiting: VecDeque<Offer>) {
        for offer in waiting {
            self.offer(context, offer);
        }
    }

    /// Takes the steps of each change again whose answers did not come.
    pub(in crate::shard) fn repeat_entering(&mut self, context: &mut Context<'_>) {
        let now = context.now.mono;
        let late = self.entering.iter().filter(|(_, entering)| entering.repeat_at <= now);
        let mut late: Vec<ChannelId> = late.map(|(channel, _)| *channel).collect();
        late.sort_unstable();
        for channel in late {
            let entering = self.entering.get_mut(&channel).expect("it is one of them");
            entering.repeat_at = now.after_ms(REPEAT_MS);
            for (uin, step) in entering.under_way.clone() {
                self.take_entering_step(context, channel, uin, step);
            }
        }
    }

    pub(in crate::shard) fn entering_deadline(&self) -> Option<Mono> {
        self.entering.values().map(|entering| entering.repeat_at).min()
    }

    pub(in crate::shard) fn take_all_entering(&mut self) -> Vec<Offer> {
        let mut entering: Vec<_> = std::mem::take(&mut self.entering).into_iter().collect();
        entering.sort_unstable_by_key(|(channel, _)| *channel);
        let offers = entering.into_iter().map(|(_, entering)| (entering.offer, entering.waiting));
        offers.flat_map(|(offer, waiting)| std::iter::once(offer).chain(waiting)).collect()
    }
}

/// Which of the users that a change names this is, from 1; 0 if it is the sender.
fn place_of(offer: &Offer, uin: Uin) -> u16 {
    let change = ChangeView::parse(offer.view().1).expect("it was read before");
    debug_assert!(matches!(change.head.action, action::CREATE | action::ADD | action::JOIN));
    change.uins().position(|named| named == uin).map_or(0, |index| index as u16 + 1) // at most 128
}
