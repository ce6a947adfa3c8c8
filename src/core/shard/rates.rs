//! What a user's devices may do at home: how many are connected, and how much they send together.
//!
//! Comes in: what sessions say that they sent. Goes out: until when all sessions of a user wait.
//! What a device has used of its own rate is kept here from one session to the next, so that
//! connecting again gives no more than before.

use tern_protocol::{Code, DeviceId};

use super::Shard;
use super::home::User;
use crate::context::Context;
use crate::dedup::DedupTable;
use crate::limiter::Limiter;
use crate::log::Log;
use crate::mail::{Address, Device, Mail, Rates};
use crate::time::Mono;

/// Asked of a device for which there is no room beside its user's others, in ms: often enough to
/// be there soon after one of them has left, and little work while none does.
const TOO_MANY_SESSIONS_MS: u32 = 30_000;

impl<L: Log, T: DedupTable> Shard<L, T> {
    /// A session of a user has sent a batch.
    pub(super) fn handle_sent(&mut self, context: &mut Context<'_>, device: Device, sent: i32) {
        let Some(user) = self.home.users.get_mut(&device.uin) else { return };
        user.settle(context, sent);
    }

    /// A connection is gone: keeps what its device has used, or tells the session that took its
    /// place.
    pub(super) fn keep_used(
        &mut self,
        context: &mut Context<'_>,
        device: Device,
        used: Limiter,
        sent: i32,
    ) {
        let Some(user) = self.home.users.get_mut(&device.uin) else { return };
        user.settle(context, sent);
        let user_waits_until = user.waits_until(context);
        let state = user.device(device.device);
        let known = state.used;
        state.used = known.or_later(used);
        let later = state.used != known;
        if let Some(to) = state.session().filter(|_| later) {
            let mail = Mail::Rates { to, rates: Rates { used: state.used, user_waits_until } };
            context.post.send(context.counters, Address::Front(to.worker), mail);
        }
    }
}

impl User {
    /// What a session of this device may send.
    pub(super) fn rates(&mut self, context: &Context<'_>, device: DeviceId) -> Rates {
        let user_waits_until = self.waits_until(context);
        Rates { used: self.device(device).used, user_waits_until }
    }

    /// Refuses one more device than may be connected at a time; one that is connected stays.
    ///
    /// # Errors
    /// The code, and when to come back.
    pub(super) fn has_room(
        &self,
        context: &Context<'_>,
        device: DeviceId,
    ) -> Result<(), (Code, u32)> {
        let others = self.devices.iter().filter(|state| state.device != device);
        let connected = others.filter(|state| state.session().is_some()).count();
        match connected < context.config.sessions_per_user as usize {
            true => Ok(()),
            false => Err((Code::TooManySessions, TOO_MANY_SESSIONS_MS)),
        }
    }

    fn waits_until(&mut self, context: &Context<'_>) -> Mono {
        let (now, rate) = (context.now.mono, context.config.user_rate());
        self.sent.settle(now, rate, 0).unwrap_or_default()
    }

    /// Counts what was sent. If that was too much, all sessions wait; if it was given back, they
    /// need not any more.
    fn settle(&mut self, context: &mut Context<'_>, sent: i32) {
        let (now, rate) = (context.now.mono, context.config.user_rate());
        let waited = self.sent.settle(now, rate, 0).is_some();
        let waits_until = self.sent.settle(now, rate, sent);
        if waits_until.is_none() && !waited {
            return;
        }
        let user_waits_until = waits_until.unwrap_or_default();
        for state in &self.devices {
            if let Some(to) = state.session() {
                let mail = Mail::Rates { to, rates: Rates { used: state.used, user_waits_until } };
                context.post.send(context.counters, Address::Front(to.worker), mail);
            }
        }
    }
}
