//! A uin's home: its channels, its devices with their epochs, and which of them are online where.

use std::collections::BTreeMap;
use std::collections::VecDeque;
use std::ops::Bound;

use rustc_hash::FxHashMap;
use tern_protocol::frames::Network;
use tern_protocol::{ChannelId, Code, DeviceId, Epoch, Uin, UnixMillis};
use zerocopy::IntoBytes;

use super::Shard;
use super::audience::Audiences;
use super::chat::refusal;
use super::left::Left;
use super::login::{RETRY_AFTER_MS, refuse_login};
use super::records::{EntryBody, EpochBody};
use super::state::{DeviceRow, EntryRow};
use crate::context::Context;
use crate::dedup::DedupTable;
use crate::limiter::{Limiter, Rate};
use crate::log::{Links, Log, Offset, RecordKind};
use crate::mail::{Address, Changed, Device, Grant, Mail, Proof, SessionRef, Token};
use crate::placement::ShardId;
use crate::sight::{DeviceSight, LOGINS_KEPT, Place};
use crate::time::Mono;

/// How many times `channels_per_user` may be in a user's list, with the groups that he left: what
/// of them he may still read is told to devices that were away, and a session has room for as many.
const LISTED_PER_CHANNEL: usize = 2;

/// The home part of a shard.
pub(super) struct Home {
    pub(super) users: FxHashMap<Uin, User>,
    pub(super) unproven: VecDeque<(Offset, Promise)>,
    /// Per channel shard: the newest number up to which all notifies came, and whether its
    /// exchange at start has ended.
    heard: Vec<Heard>,
    /// Channel shards whose notifies of this turn are to be confirmed.
    confirms_due: Vec<ShardId>,
    pub(super) waiting_logins: Vec<Login>,
    pub(super) audiences: Audiences,
    pub(super) left: Left,
}

#[derive(Clone, Copy, Default)]
struct Heard {
    sequence: u64,
    exchange_ended: bool,
    confirm_due: bool,
}

#[derive(Default)]
pub(super) struct User {
    /// The channels entered, durably; of direct ones with what may be read, once a message is
    /// durable. What may be read of groups is with their audience.
    pub(super) channels: BTreeMap<ChannelId, Option<Grant>>,
    pub(super) devices: Vec<DeviceState>,
    opened: Limiter,
    /// What all devices of the user have sent.
    pub(super) sent: Limiter,
}

pub(super) struct DeviceState {
    pub(super) device: DeviceId,
    /// The newest epoch in the log, and the newest that is durable and was granted.
    pub(super) appended: Epoch,
    pub(super) granted: Epoch,
    pub(super) token: Option<Token>,
    /// When the connection of its newest login began: no older one may take the session.
    pub(super) begun: Mono,
    /// Logins up to this epoch were ended by the operator with this code, granted or not.
    pub(super) kicked: Option<(Epoch, Code)>,
    pub(super) presence: Presence,
    pub(super) network: Network,
    /// What it had used of its own rate when a session of it last ended.
    pub(super) used: Limiter,
    /// The newest logins, newest first.
    logins: [UnixMillis; LOGINS_KEPT],
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Presence {
    /// Connected; `subscribed` once it wants to be told of changes.
    Online { session: SessionRef, subscribed: bool },
    /// Not connected since then.
    Away(Mono),
}

/// A wish for a session.
pub(super) struct Login {
    pub(super) from: SessionRef,
    pub(super) device: Device,
    pub(super) proof: Proof,
    pub(super) network: Network,
    pub(super) begun: Mono,
    /// Of the cursors that the client would say.
    pub(super) digest: u64,
}

/// What is done once a record is durable.
pub(super) enum Promise {
    Grant { login: Login, epoch: Epoch, token: Token },
    Enter { from: ShardId, uin: Uin, channel: ChannelId },
}

impl Home {
    pub(super) fn new(shards: u16) -> Self {
        Self {
            users: FxHashMap::default(),
            unproven: VecDeque::new(),
            heard: vec![Heard::default(); usize::from(shards)],
            confirms_due: Vec::new(),
            waiting_logins: Vec::new(),
            audiences: Audiences::default(),
            left: Left::default(),
        }
    }

    pub(super) fn replay_epoch(&mut self, body: &EpochBody) {
        let user = self.users.entry(body.uin.into()).or_default();
        let state = user.device(body.device.into());
        state.appended = state.appended.max(body.epoch.into());
        state.granted = state.appended;
        state.note_login(body.server_time.into());
    }

    pub(super) fn replay_entry(&mut self, body: &EntryBody) {
        self.users.entry(body.uin.into()).or_default().channels.entry(body.channel).or_default();
    }

    pub(super) fn restore_entry(&mut self, row: &EntryRow) {
        self.users.entry(row.uin.into()).or_default().channels.entry(row.channel).or_default();
    }

    pub(super) fn restore_device(&mut self, row: &DeviceRow) {
        let state = self.users.entry(row.uin.into()).or_default().device(row.device.into());
        state.appended = row.epoch.into();
        state.granted = state.appended;
        state.logins = row.logins.map(UnixMillis::from);
    }

    /// Who is in which channel, as rows of a checkpoint.
    pub(super) fn entry_rows(&self) -> impl Iterator<Item = EntryRow> {
        self.sorted().into_iter().flat_map(|(uin, user)| {
            user.channels.keys().map(move |channel| EntryRow { uin: uin.into(), channel: *channel })
        })
    }

    /// All devices, as rows of a checkpoint.
    pub(super) fn device_rows(&self) -> impl Iterator<Item = DeviceRow> {
        self.sorted().into_iter().flat_map(|(uin, user)| {
            let mut devices: Vec<_> = user.devices.iter().collect();
            devices.sort_unstable_by_key(|state| state.device);
            devices.into_iter().map(move |state| DeviceRow {
                uin: uin.into(),
                device: state.device.into(),
                epoch: state.granted.into(),
                logins: state.logins.map(Into::into),
            })
        })
    }

    fn sorted(&self) -> Vec<(Uin, &User)> {
        let mut users: Vec<_> = self.users.iter().map(|(uin, user)| (*uin, user)).collect();
        users.sort_unstable_by_key(|(uin, _)| *uin);
        users
    }

    /// When the connection of a device's newest login began.
    pub(super) fn newest_connection(&self, device: Device) -> Mono {
        let user = self.users.get(&device.uin);
        let state = user.and_then(|user| user.devices.iter().find(|s| s.device == device.device));
        state.map_or(Mono(0), |state| state.begun)
    }

    /// The device's session is to be told of what is new in the groups of its user.
    pub(super) fn listen(&mut self, device: Device, session: SessionRef) {
        let Some(user) = self.users.get(&device.uin) else { return };
        self.audiences.listen(device, session, user.groups());
    }

    /// The device's session is no more.
    pub(super) fn unlisten(&mut self, device: Device) {
        let Some(user) = self.users.get(&device.uin) else { return };
        self.audiences.unlisten(device, user.groups());
    }

    /// What a user may read of a channel.
    pub(super) fn grant(&self, channel: ChannelId, uin: Uin) -> Option<Grant> {
        let known = self.users.get(&uin)?.channels.get(&channel)?;
        known.clone().or_else(|| self.audiences.grant(channel, uin))
    }

    pub(super) fn exchange_ended(&self) -> bool {
        self.heard.iter().all(|heard| heard.exchange_ended)
    }
}

impl User {
    fn groups(&self) -> impl Iterator<Item = ChannelId> {
        self.groups_behind(None)
    }

    /// His groups behind this one in their order; all, if there is none.
    pub(super) fn groups_behind(
        &self,
        after: Option<ChannelId>,
    ) -> impl Iterator<Item = ChannelId> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let groups = self.channels.range((from, Bound::Included(ChannelId::group(u64::MAX))));
        groups.map(|(channel, _)| *channel)
    }

    /// Whether he may enter one more channel, having this many or more in his list. Groups that he
    /// left do not count, but the list is bounded too; those of which nothing is left to read go.
    fn make_room(&mut self, audiences: &Audiences, uin: Uin, channels_max: usize) -> bool {
        let listed_max = channels_max.saturating_mul(LISTED_PER_CHANNEL);
        let left = |channel: &ChannelId| audiences.has_left(*channel, uin);
        if self.channels.keys().filter(|channel| !left(channel)).count() >= channels_max {
            return false;
        }
        if self.channels.len() >= listed_max {
            self.channels.retain(|channel, _| !audiences.has_left_nothing(*channel, uin));
        }
        self.channels.len() < listed_max
    }

    /// Whether he has entered the channel.
    pub(super) fn is_in(&self, channel: ChannelId) -> bool {
        self.channels.contains_key(&channel)
    }

    /// Whether this is the session of one of his devices.
    pub(super) fn is_session(&self, session: SessionRef) -> bool {
        self.devices.iter().any(|state| state.session() == Some(session))
    }

    pub(super) fn device(&mut self, device: DeviceId) -> &mut DeviceState {
        let found = self.devices.iter().position(|state| state.device == device);
        let index = found.unwrap_or_else(|| {
            self.devices.reserve_exact(1); // most users have one or two, and room for four by default
            self.devices.push(DeviceState::new(device));
            self.devices.len() - 1
        });
        &mut self.devices[index]
    }
}

impl DeviceState {
    fn new(device: DeviceId) -> Self {
        Self {
            device,
            appended: Epoch(0),
            granted: Epoch(0),
            token: None,
            begun: Mono(0),
            kicked: None,
            presence: Presence::Away(Mono(0)),
            network: Network::Unknown,
            used: Limiter::default(),
            logins: [UnixMillis(0); LOGINS_KEPT],
        }
    }

    pub(super) fn note_login(&mut self, at: UnixMillis) {
        self.logins.rotate_right(1);
        self.logins[0] = at;
    }

    fn see(&self, now: Mono, resume_ms: u32) -> DeviceSight {
        let place = match self.presence {
            Presence::Online { session, .. } => Place::Online(session),
            Presence::Away(since) => {
                let for_ms = (since != Mono(0)).then(|| now.since_ms(since));
                let is_kept = for_ms.is_some_and(|ms| ms <= u64::from(resume_ms));
                Place::Away { for_ms, resumable: is_kept && self.token.is_some() }
            }
        };
        let Self { device, network, logins, .. } = *self;
        DeviceSight { device, place, network, logins }
    }

    pub(super) fn session(&self) -> Option<SessionRef> {
        match self.presence {
            Presence::Online { session, .. } => Some(session),
            Presence::Away(_) => None,
        }
    }

    /// Whether the session of this token and epoch is still alive.
    pub(super) fn may_resume(
        &self,
        epoch: Epoch,
        token: &Token,
        now: Mono,
        resume_ms: u32,
    ) -> bool {
        let alive = match self.presence {
            Presence::Online { .. } => true,
            Presence::Away(since) => now.since_ms(since) <= u64::from(resume_ms),
        };
        alive
            && epoch == self.granted
            && epoch == self.appended
            && self.token.as_ref().is_some_and(|own| same_token(own, token))
    }
}

/// Compares without telling by its time where the tokens differ.
fn same_token(a: &Token, b: &Token) -> bool {
    a.iter().zip(b).fold(0, |difference, (a, b)| difference | (a ^ b)) == 0
}

impl<L: Log, T: DedupTable> Shard<L, T> {
    /// The devices of a user of this shard, by number.
    pub(crate) fn see(&self, now: Mono, resume_ms: u32, uin: Uin) -> Vec<DeviceSight> {
        let devices = self.home.users.get(&uin).into_iter().flat_map(|user| &user.devices);
        let mut seen: Vec<_> = devices.map(|state| state.see(now, resume_ms)).collect();
        seen.sort_unstable_by_key(|sight| sight.device);
        seen
    }

    /// A uin enters a channel: durable before it is confirmed.
    pub(super) fn handle_enter(
        &mut self,
        context: &mut Context<'_>,
        from: ShardId,
        uin: Uin,
        channel: ChannelId,
        opens: bool,
    ) {
        let user = self.home.users.entry(uin).or_default();
        if user.channels.contains_key(&channel) {
            return entered(context, from, uin, channel, None);
        }
        let rate = Rate::new(
            context.config.channels_per_hour,
            3_600_000,
            context.config.channels_per_hour,
        );
        if user.channels.len() >= context.config.channels_per_user
            && !user.make_room(&self.home.audiences, uin, context.config.channels_per_user)
        {
            return entered(context, from, uin, channel, Some((Code::ChannelsFull, 0)));
        }
        if opens && let Err(wait_ms) = user.opened.take(context.now.mono, rate) {
            return entered(context, from, uin, channel, Some((Code::TooManyChannels, wait_ms)));
        }
        let body = EntryBody { uin: uin.into(), channel, server_time: context.now.wall.into() };
        match self.log.append(RecordKind::Entry, Links::default(), &[body.as_bytes()]) {
            Ok(at) => {
                self.home.unproven.push_back((at, Promise::Enter { from, uin, channel }));
            }
            Err(error) => entered(context, from, uin, channel, Some(refusal(error))),
        }
    }

    /// Keeps the promises that the newest proof covers.
    pub(super) fn settle_home(&mut self, context: &mut Context<'_>) {
        while let Some((at, _)) = self.home.unproven.front() {
            if !self.proof.covers(*at) && !mutant!(EpochUnproven) {
                break;
            }
            match self.home.unproven.pop_front() {
                Some((_, Promise::Grant { login, epoch, token })) => {
                    self.granted(context, &login, epoch, token);
                }
                Some((_, Promise::Enter { from, uin, channel })) => {
                    let user = self.home.users.entry(uin).or_default();
                    user.channels.entry(channel).or_default();
                    entered(context, from, uin, channel, None);
                }
                None => {}
            }
        }
    }

    /// A channel of some of this shard's users has more to read, or an exchange ended.
    pub(super) fn handle_notify(
        &mut self,
        context: &mut Context<'_>,
        from: ShardId,
        sequence: u64,
        change: Option<Changed>,
    ) {
        let heard = &mut self.home.heard[usize::from(from.0)];
        if !std::mem::replace(&mut heard.confirm_due, true) {
            self.home.confirms_due.push(from);
        }
        let is_hole_passed = mutant!(HolesConfirmed) && sequence > heard.sequence;
        if sequence == heard.sequence + 1 || is_hole_passed {
            heard.sequence = sequence;
        }
        match change {
            Some(changed) if changed.channel.is_group() => self.handle_group_changed(changed),
            Some(Changed { channel, grant, .. }) => self.tell_members(context, channel, grant),
            // What was lost before it is said again, and this with it.
            None if heard.sequence < sequence => {}
            None => {
                heard.exchange_ended = true;
                self.admit_waiting(context);
            }
        }
    }

    fn tell_members(&mut self, context: &mut Context<'_>, channel: ChannelId, grant: Grant) {
        let Some((low, high)) = channel.members() else { return };
        for uin in [Some(low), (high != low).then_some(high)].into_iter().flatten() {
            if context.placement.home_of(uin) != self.id {
                continue;
            }
            let user = self.home.users.entry(uin).or_default();
            let known = user.channels.entry(channel).or_default();
            if known.as_ref().is_some_and(|known| !grant.is_newer_than(known)) {
                continue; // said again
            }
            if known.replace(grant.clone()).is_none() {
                self.marks.granted(channel, uin);
            }
            for state in &user.devices {
                if let Presence::Online { session: to, subscribed: true } = state.presence {
                    let mail = Mail::Deliver { to, channel, grant: grant.clone() };
                    context.post.send(context.counters, Address::Front(to.worker), mail);
                }
            }
        }
    }

    fn admit_waiting(&mut self, context: &mut Context<'_>) {
        if self.home.exchange_ended() {
            for login in std::mem::take(&mut self.home.waiting_logins) {
                self.handle_attach(context, login);
            }
        }
    }

    /// Confirms what came in this turn, once per channel shard.
    pub(super) fn confirm_notifies(&mut self, context: &mut Context<'_>) {
        while let Some(to) = self.home.confirms_due.pop() {
            let heard = &mut self.home.heard[usize::from(to.0)];
            heard.confirm_due = false;
            let mail = Mail::Confirm { from: self.id, to, sequence: heard.sequence };
            context.post.send(context.counters, Address::Shard(to), mail);
        }
    }

    /// The log failed: no promise can be kept.
    pub(super) fn refuse_home(&mut self, context: &mut Context<'_>) {
        let waiting = std::mem::take(&mut self.home.waiting_logins);
        for login in waiting {
            refuse_login(context, login.from, Code::ShardStopped, RETRY_AFTER_MS);
        }
        for (_, promise) in std::mem::take(&mut self.home.unproven) {
            match promise {
                Promise::Grant { login, .. } => {
                    refuse_login(context, login.from, Code::ShardStopped, RETRY_AFTER_MS);
                }
                Promise::Enter { from, uin, channel } => {
                    let refused = Some((Code::ShardStopped, RETRY_AFTER_MS));
                    entered(context, from, uin, channel, refused);
                }
            }
        }
    }
}

fn entered(
    context: &mut Context<'_>,
    to: ShardId,
    uin: Uin,
    channel: ChannelId,
    refused: Option<(Code, u32)>,
) {
    let mail = Mail::Entered { to, uin, channel, refused };
    context.post.send(context.counters, Address::Shard(to), mail);
}
