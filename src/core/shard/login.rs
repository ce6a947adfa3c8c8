//! Sessions at home: which device of which user is where, by which right, in which epoch.
//!
//! A session outlives its connection; a later login of its device ends it. An epoch is durable
//! before the login that it was granted to is answered.

use std::ops::Bound;

use tern_protocol::frames::{Cursor, Network};
use tern_protocol::{ChannelId, Code, DeviceId, Epoch, Incarnation, Uin};
use zerocopy::IntoBytes;

use super::Shard;
use super::chat::refusal;
use super::home::{DeviceState, Home, Login, Presence, Promise};
use super::records::EpochBody;
use crate::context::Context;
use crate::dedup::DedupTable;
use crate::log::{Links, Log, RecordKind};
use crate::mail::{Address, Attached, Device, Mail, Proof, SessionRef, Token};
use crate::session::login_ms;

/// Channels in one page of a user's list.
pub(crate) const CHANNELS_PER_PAGE: usize = 128;

/// Binary logarithm of the epochs that a device can be granted in one incarnation of its log: a
/// login every minute for two years. It leaves room for 4,095 raises.
const EPOCHS_PER_INCARNATION_BITS: u32 = 20;

/// Logins that wait for the exchange at start; more are asked to come again.
const WAITING_LOGINS_MAX: usize = 65_536;

/// Asked of a client whose login can't be served now, in ms.
pub(super) const RETRY_AFTER_MS: u32 = 1_000;

impl<L: Log, T: DedupTable> Shard<L, T> {
    /// A device wants its session. A login that comes late, on a connection that began before
    /// that of the newest login, is turned away: granted, it would fence the device's own live session.
    pub(super) fn handle_attach(&mut self, context: &mut Context<'_>, login: Login) {
        let from = login.from;
        if self.stopped {
            return refuse_login(context, from, Code::ShardStopped, RETRY_AFTER_MS);
        }
        if !self.home.exchange_ended() {
            if self.home.waiting_logins.len() >= WAITING_LOGINS_MAX {
                // Those who wait are logged in first.
                let wait_ms = u32::try_from(login_ms(WAITING_LOGINS_MAX)).unwrap_or(u32::MAX);
                return refuse_login(context, from, Code::Busy, wait_ms);
            }
            return self.home.waiting_logins.push(login);
        }
        if self.home.newest_connection(login.device) > login.begun && !mutant!(LateLogin) {
            return refuse_login(context, from, Code::TooSlow, RETRY_AFTER_MS);
        }
        let user = self.home.users.entry(login.device.uin).or_default();
        if let Err((code, wait_ms)) = user.has_room(context, login.device.device) {
            return refuse_login(context, from, code, wait_ms);
        }
        match login.proof {
            Proof::Secret(token) => self.grant_epoch(context, login, token),
            Proof::Token(epoch, token) => self.resume(context, &login, epoch, token),
        }
    }

    fn grant_epoch(&mut self, context: &mut Context<'_>, login: Login, token: Token) {
        let Device { uin, device } = login.device;
        let state = self.home.users.entry(uin).or_default().device(device);
        let Some(epoch) = next_epoch(state.appended, self.incarnation) else {
            // Its numbers are used up; a new device of the user begins with fresh ones.
            return refuse_login(context, login.from, Code::DeviceRevoked, 0);
        };
        let body = EpochBody {
            uin: uin.into(),
            device: device.into(),
            epoch: epoch.into(),
            server_time: context.now.wall.into(),
        };
        match self.log.append(RecordKind::Epoch, Links::default(), &[body.as_bytes()]) {
            Ok(at) => {
                state.appended = epoch;
                state.begun = login.begun;
                self.home.unproven.push_back((at, Promise::Grant { login, epoch, token }));
            }
            Err(error) => {
                let (code, retry_after_ms) = refusal(error);
                refuse_login(context, login.from, code, retry_after_ms);
            }
        }
    }

    fn resume(&mut self, context: &mut Context<'_>, login: &Login, epoch: Epoch, token: Token) {
        let Device { uin, device } = login.device;
        let resume_ms = context.config.resume_ms;
        let user = self.home.users.get_mut(&uin);
        let state = user.and_then(|user| user.devices.iter_mut().find(|s| s.device == device));
        match state {
            Some(state) if state.may_resume(epoch, &token, context.now.mono, resume_ms) => {
                take_over(context, state, login);
                self.home.unlisten(login.device);
                self.attach(context, login, (epoch, token), true);
            }
            _ => refuse_login(context, login.from, Code::ResumeUnknown, 0),
        }
    }

    /// The session has the client's cursors and wants to know the user's channels.
    pub(super) fn handle_subscribe(
        &mut self,
        context: &mut Context<'_>,
        from: SessionRef,
        device: Device,
        after: Option<ChannelId>,
    ) {
        let Some(user) = self.home.users.get_mut(&device.uin) else { return };
        let state = user.device(device.device);
        if state.session() != Some(from) {
            return; // fenced meanwhile; the news is on its way
        }
        state.presence = Presence::Online { session: from, subscribed: true };
        if after.is_none() {
            self.home.listen(device, from);
            return self.show_when_known(context, (from, device), None);
        }
        self.show_channels(context, (from, device), after);
    }

    /// Shows a session its user's channels once it is known what he may read of all his groups: right
    /// after a start that takes an answer of each group's shard. The groups up to `known` are.
    pub(super) fn show_when_known(
        &mut self,
        context: &mut Context<'_>,
        (from, device): (SessionRef, Device),
        known: Option<ChannelId>,
    ) {
        let Home { users, audiences, .. } = &mut self.home;
        let user = &users[&device.uin];
        if !user.is_session(from) {
            return; // gone meanwhile
        }
        let unknown = user.groups_behind(known).find(|channel| audiences.is_unknown(*channel));
        match unknown {
            Some(channel) => audiences.wait_for(channel, from, device),
            None => self.show_channels(context, (from, device), None),
        }
    }

    fn show_channels(
        &self,
        context: &mut Context<'_>,
        (from, device): (SessionRef, Device),
        after: Option<ChannelId>,
    ) {
        let Home { users, audiences, .. } = &self.home;
        let user = &users[&device.uin];
        let range = match after {
            Some(after) => (Bound::Excluded(after), Bound::Unbounded),
            None => (Bound::Unbounded, Bound::Unbounded),
        };
        let readable = user.channels.range(range).filter_map(|(channel, grant)| {
            let group = || audiences.grant(*channel, device.uin);
            Some((*channel, grant.clone().or_else(group)?))
        });
        let page = readable.take(CHANNELS_PER_PAGE).collect();
        let mail = Mail::Channels { to: from, page };
        context.post.send(context.counters, Address::Front(from.worker), mail);
    }

    /// A connection is gone; the session waits for its device, or ended.
    pub(super) fn handle_detach(
        &mut self,
        context: &mut Context<'_>,
        from: SessionRef,
        device: Device,
        ended: bool,
        cursors: Vec<Cursor>,
    ) {
        let Some(user) = self.home.users.get_mut(&device.uin) else { return };
        let state = user.device(device.device);
        if state.session() == Some(from) {
            let now = context.now.mono;
            state.presence = Presence::Away(now);
            if ended {
                state.token = None;
            }
            self.home.left.keep(now, context.config.resume_ms, device, cursors);
            self.home.unlisten(device);
        }
    }

    /// A device is on another kind of network.
    pub(super) fn handle_network(&mut self, from: SessionRef, device: Device, network: Network) {
        let Some(user) = self.home.users.get_mut(&device.uin) else { return };
        let state = user.device(device.device);
        if state.session() == Some(from) {
            state.network = network;
        }
    }

    /// A device was removed for good: no key of it is accepted any more, so none has to be
    /// remembered. What of it is still on its way here is answered as unknown.
    pub(crate) fn forget_device(&mut self, uin: Uin, device: DeviceId) {
        self.removed.insert(Device { uin, device });
        self.table.remove(uin, device);
    }

    /// The operator ends a user's sessions, or one device's; none can be resumed.
    pub(crate) fn handle_kick(
        &mut self,
        context: &mut Context<'_>,
        uin: Uin,
        device: Option<DeviceId>,
        code: Code,
    ) {
        let Some(user) = self.home.users.get_mut(&uin) else { return };
        let chosen = |state: &&mut DeviceState| device.is_none_or(|device| device == state.device);
        let mut ended = Vec::new();
        for state in user.devices.iter_mut().filter(chosen) {
            state.token = None;
            ended.push(Device { uin, device: state.device });
            state.kicked = Some((state.appended, code));
            if let Some(to) = state.session() {
                state.presence = Presence::Away(context.now.mono);
                let mail = Mail::Fence { to, code };
                context.post.send(context.counters, Address::Front(to.worker), mail);
            }
        }
        for device in ended {
            self.home.left.forget(device);
            self.home.unlisten(device);
        }
    }

    pub(super) fn granted(
        &mut self,
        context: &mut Context<'_>,
        login: &Login,
        epoch: Epoch,
        token: Token,
    ) {
        let Device { uin, device } = login.device;
        let user = self.home.users.entry(uin).or_default();
        let room = user.has_room(context, device);
        let state = user.device(device);
        state.granted = epoch;
        if let Some((_, code)) = state.kicked.filter(|(kicked, _)| epoch <= *kicked) {
            return refuse_login(context, login.from, code, 0);
        }
        if let Err((code, wait_ms)) = room {
            return refuse_login(context, login.from, code, wait_ms); // others were quicker
        }
        state.token = Some(token);
        state.note_login(context.now.wall);
        take_over(context, state, login);
        self.home.unlisten(login.device);
        self.attach(context, login, (epoch, token), false);
    }

    /// The session is the device's; says so.
    fn attach(
        &mut self,
        context: &mut Context<'_>,
        login: &Login,
        (epoch, token): (Epoch, Token),
        resumed: bool,
    ) {
        let (to, device) = (login.from, login.device);
        let user = self.home.users.entry(device.uin).or_default();
        let rates = user.rates(context, device.device);
        let (now, resume_ms) = (context.now.mono, context.config.resume_ms);
        let cursors = self.home.left.take(now, resume_ms, device, login.digest);
        let attached = Attached { to, device, epoch, token, resumed, rates, cursors };
        let mail = Mail::Attached(Box::new(attached));
        context.post.send(context.counters, Address::Front(to.worker), mail);
    }
}

/// The epoch after `newest`. A log whose incarnation was raised may have lost the newest grant, so
/// each incarnation begins far above what the one before can have reached. `None` after the last.
fn next_epoch(newest: Epoch, incarnation: Incarnation) -> Option<Epoch> {
    let raises = (incarnation.0 - 1).min(u32::MAX >> EPOCHS_PER_INCARNATION_BITS);
    let first = if raises == 0 || mutant!(EpochReused) {
        1
    } else {
        raises << EPOCHS_PER_INCARNATION_BITS | 1
    };
    newest.0.checked_add(1).map(|next| Epoch(first.max(next)))
}

/// The device's session is this one now; the one before is fenced.
fn take_over(context: &mut Context<'_>, state: &mut DeviceState, login: &Login) {
    if let Some(to) =
        state.session().filter(|session| *session != login.from && !mutant!(NotFenced))
    {
        let mail = Mail::Fence { to, code: Code::Fenced };
        context.post.send(context.counters, Address::Front(to.worker), mail);
    }
    state.presence = Presence::Online { session: login.from, subscribed: false };
    state.network = login.network;
    state.begun = state.begun.max(login.begun);
}

pub(super) fn refuse_login(
    context: &mut Context<'_>,
    to: SessionRef,
    code: Code,
    retry_after_ms: u32,
) {
    let mail = Mail::AttachRefused { to, code, retry_after_ms };
    context.post.send(context.counters, Address::Front(to.worker), mail);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epochs_grow_over_logins_and_over_lost_history() {
        let next = |newest, incarnation| next_epoch(Epoch(newest), Incarnation(incarnation));
        assert_eq!(next(0, 1), Some(Epoch(1)));
        assert_eq!(next(7, 1), Some(Epoch(8)));
        assert_eq!(next(7, 2), Some(Epoch(1 << 20 | 1)), "far above what may have been lost");
        assert_eq!(next(1 << 20 | 1, 2), Some(Epoch(1 << 20 | 2)));
        assert_eq!(next(u32::MAX - 1, u32::MAX), Some(Epoch(u32::MAX)));
        assert_eq!(next(u32::MAX, u32::MAX), None, "none is used twice");
    }
}
