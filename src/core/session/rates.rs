//! How often a device may send, and ask: its own rate, and its share of what all devices of its
//! user may send together.
//!
//! The device's own rate is exact: the session counts it, and the home shard of the user keeps it
//! from one session to the next. The user's rate is counted by the home shard, which is told of
//! what was sent a batch at a time, and tells all sessions of the user to wait when it is used up.
//! So a user's devices overstep it by a batch each at most, and what they overstepped is waited
//! for: over time the rate holds.
//!
//! A repeat costs nothing, which only the channel's shard can tell. What may be one, since its key
//! is no younger than those that were let through before, is let through where nothing is left,
//! at most [`REPEATS_AHEAD_MAX`] on credit: an answer that it was one gives that back, and what
//! was none after all is waited for before the next.

use tern_protocol::limits::UNACKED_SENDS_MAX;
use tern_protocol::{Code, Epoch, Flags, Kind, SendCounter, SendKey};

use super::State;
use super::front::Front;
use crate::context::Context;
use crate::io::{Effect, LinkId, Outgoing};
use crate::limiter::Limiter;
use crate::log::Reader;
use crate::mail::{Address, Mail, Rates, SessionRef};
use crate::time::Mono;

/// Repeats that may be under way on credit: as many messages as a device may have unanswered.
const REPEATS_AHEAD_MAX: u32 = UNACKED_SENDS_MAX;

/// What a session knows of how much its device, and its user, have sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sending {
    /// By this device.
    used: Limiter,
    /// Until when the user's devices wait.
    user_waits_until: Mono,
    /// Messages that the home shard was not told of yet.
    untold: i32,
    /// The youngest key that was let through, or that older logins may have used.
    youngest: SendKey,
}

impl Sending {
    /// In a session of this epoch.
    pub(super) fn new(rates: Rates, epoch: Epoch) -> Self {
        let youngest = SendKey { epoch, counter: SendCounter(0) };
        Self { used: rates.used, user_waits_until: rates.user_waits_until, untold: 0, youngest }
    }

    /// Takes one message, or says with which code it is refused and for how many milliseconds.
    pub(super) fn take(&mut self, context: &Context<'_>, key: SendKey) -> Result<(), (Code, u32)> {
        let now = context.now.mono;
        let may_be_repeat = key <= self.youngest;
        let wait_ms = self.user_waits_until.since_ms(now);
        if wait_ms > 0 && !may_be_repeat {
            return Err((Code::UserRateLimited, u32::try_from(wait_ms).unwrap_or(u32::MAX)));
        }
        let ahead = if may_be_repeat { REPEATS_AHEAD_MAX } else { 0 };
        let taken = self.used.take_ahead(now, context.config.device_rate(), ahead);
        taken.map_err(|wait_ms| (Code::RateLimited, wait_ms))?;
        self.youngest = self.youngest.max(key);
        self.untold += 1;
        Ok(())
    }

    /// Gives one back: it was a repeat, or went nowhere.
    pub(super) fn refund(&mut self, context: &Context<'_>) {
        self.used.refund(context.config.device_rate());
        self.untold -= 1;
    }

    /// What the home shard is to know when the connection goes.
    pub(super) fn left(&self) -> (Limiter, i32) {
        (self.used, self.untold)
    }
}

impl<R: Reader> Front<R> {
    /// Tells the home shard what was sent, or given back, if it is a batch.
    pub(super) fn tell_sent(&mut self, context: &mut Context<'_>, link: LinkId) {
        let Some(session) = self.sessions.get_mut(&link) else { return };
        let State::Live(live) = &mut session.state else { return };
        if live.sending.untold.unsigned_abs() >= context.config.user_rate().batch() {
            let sent = std::mem::take(&mut live.sending.untold);
            let home = Address::Shard(context.placement.home_of(live.device.uin));
            let mail = Mail::Sent { device: live.device, sent };
            context.post.send(context.counters, home, mail);
        }
    }

    /// The home shard knows of more than this session sent.
    pub(super) fn rates(&mut self, to: SessionRef, rates: Rates) {
        let Some(session) = self.sessions.get_mut(&to.link) else { return };
        let State::Live(live) = &mut session.state else { return };
        live.sending.used = live.sending.used.or_later(rates.used);
        live.sending.user_waits_until = rates.user_waits_until;
    }

    /// Whether the session may ask this now; if not, it is told when.
    pub(super) fn may_ask(&mut self, context: &mut Context<'_>, link: LinkId, kind: Kind) -> bool {
        let session = self.sessions.get_mut(&link).expect("the frame's session is there");
        let State::Live(live) = &mut session.state else { return true };
        let Err(retry_after_ms) = live.asks.take(context.now.mono, context.config.asks_rate())
        else {
            return true;
        };
        context.counters.frames_refused += 1;
        let (code, flags) = (Code::TooManyRequests, Flags::NONE);
        let error = Outgoing::Error { code, kind, flags, retry_after_ms };
        context.effect(Effect::Frame(link, error));
        false
    }
}
