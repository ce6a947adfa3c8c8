//! A shard: a set of channels and uins with its own log, counters and deduplication, changed only
//! by the worker that owns it.
//!
//! Comes in: mail from sessions (messages, logins) and from other shards (entries, notifies),
//! proofs of the log, answers of the directory. Goes out: acks and refusals, notifies, grants.
//! Worth naming: a message id is given once and in the order of the log; nothing is shown that
//! the newest proof does not cover; everything here can be rebuilt from the log.

pub mod records;
pub mod state;

mod audience;
mod block;
mod channel;
mod chat;
mod commit;
mod doubts;
mod expiry;
mod group;
mod home;
mod late;
mod left;
mod login;
mod lost;
mod marks;
mod notify;
mod open;
mod pace;
mod park;
mod rates;
mod recall;
mod recovery;
mod refused;

pub(crate) use audience::TOLD_PER_TURN;
pub use commit::DurableAck;
pub(crate) use login::CHANNELS_PER_PAGE;
pub use recovery::{Recovery, ReplayError};

use rustc_hash::{FxHashMap, FxHashSet};
use tern_protocol::{ChannelId, Incarnation};

use crate::context::Context;
use crate::dedup::DedupTable;
use crate::log::{Durable, Log};
use crate::mail::{Device, Mail};
use crate::placement::ShardId;
use crate::time::Mono;
use block::Blocks;
use channel::Channel;
use chat::Offer;
use commit::Waiting;
use doubts::Doubts;
use group::{Entering, Group, PagePromise};
use home::{Home, Login};
use marks::Marks;
use notify::Telling;
use open::Opening;
use pace::Paced;
use park::Parked;
use refused::Refused;

/// A shard that runs; made by [`Recovery::finish`].
pub struct Shard<L, T> {
    id: ShardId,
    log: Paced<L>,
    table: T,
    incarnation: Incarnation,
    /// The newest proof: the end of everything that may be shown.
    proof: Durable,
    /// A sync failed; only an operator can help.
    stopped: bool,
    channels: FxHashMap<ChannelId, Channel>,
    opening: FxHashMap<ChannelId, Opening>,
    groups: FxHashMap<ChannelId, Group>,
    entering: FxHashMap<ChannelId, Entering>,
    page_promises: Vec<PagePromise>,
    blocks: Blocks,
    parked: Parked,
    /// Sends that wait for a cold read.
    cold: Vec<Offer>,
    /// Sends whose final refusal waits for a proof.
    unproven: Vec<Offer>,
    refused: Refused,
    waiting: Waiting,
    /// By home shard.
    telling: Vec<Telling>,
    /// Whether home shards were told of everything there was at start.
    exchange_begun: bool,
    home: Home,
    marks: Marks,
    doubts: Doubts,
    /// Devices that were removed for good since the start, and are forgotten.
    removed: FxHashSet<Device>,
    /// The log may have more to say of what expired.
    expiry_goes_on: bool,
}

impl<L: Log, T: DedupTable> Shard<L, T> {
    /// The shard's number.
    pub fn id(&self) -> ShardId {
        self.id
    }

    /// Channels that it owns and that are open.
    pub fn channels(&self) -> usize {
        self.channels.len()
    }

    /// Mail for this shard.
    pub(crate) fn handle_mail(&mut self, context: &mut Context<'_>, mail: Mail) {
        match mail {
            Mail::Send { from, device, epoch, frame } => {
                self.offer(context, Offer { from, device, epoch, frame, entered: false });
            }
            Mail::GroupInfo { from, device, channel, after } => {
                self.handle_group_info(context, from, device, channel, after);
            }
            Mail::Block { from, wish } => self.handle_block(context, from, wish),
            Mail::AskBlocked { from, blocker, after } => {
                self.handle_ask_blocked(context, from, blocker, after);
            }
            Mail::AskMembers { from, channel, after } => {
                self.handle_ask_members(context, from, channel, after);
            }
            Mail::Members(members) => self.handle_members(context, *members),
            Mail::Attach { from, device, proof, network, begun, digest } => {
                let login = Login { from, device, proof, network, begun, digest };
                self.handle_attach(context, login);
            }
            Mail::Subscribe { from, device, after } => {
                self.handle_subscribe(context, from, device, after);
            }
            Mail::Network { from, device, network } => {
                self.handle_network(from, device, network);
            }
            Mail::Detach { from, device, ended, used, sent, cursors } => {
                self.handle_detach(context, from, device, ended, cursors);
                self.keep_used(context, device, used, sent);
            }
            Mail::Sent { device, sent } => self.handle_sent(context, device, sent),
            Mail::Enter { from, uin, channel, opens } => {
                self.handle_enter(context, from, uin, channel, opens);
            }
            Mail::Entered { uin, channel, refused, .. } => {
                self.handle_entered(context, channel, uin, refused);
            }
            Mail::Notify { from, sequence, change, .. } => {
                self.handle_notify(context, from, sequence, change);
            }
            Mail::Confirm { from, sequence, .. } => self.handle_confirm(context, from, sequence),
            Mail::Marks(mail) => self.handle_marks_mail(context, mail),
            Mail::SendAcked { .. }
            | Mail::SendRefused { .. }
            | Mail::GroupPage { .. }
            | Mail::BlockDone { .. }
            | Mail::BlockedPart { .. }
            | Mail::Attached(_)
            | Mail::AttachRefused { .. }
            | Mail::Channels { .. }
            | Mail::Deliver { .. }
            | Mail::Rates { .. }
            | Mail::Fence { .. } => unreachable!("mail for a front came to a shard: {mail:?}"),
        }
    }

    /// A deadline may have passed.
    pub(crate) fn handle_tick(&mut self, context: &mut Context<'_>) {
        self.expire_parked(context);
        self.repeat_opening(context);
        self.repeat_entering(context);
        self.repeat_asks(context);
        self.repeat_notifies(context);
        self.expire_counts(context);
    }

    /// Ends a turn: what it appended goes to the commit as one batch. The members of groups are
    /// told behind it, see [`serve_audiences`](Self::serve_audiences).
    pub(crate) fn end_turn(&mut self, context: &mut Context<'_>) {
        if !std::mem::replace(&mut self.exchange_begun, true) {
            self.notify(context);
        }
        self.drain_expired(context);
        self.confirm_notifies(context);
        self.serve_marks(context);
        self.log.commit(context.now.mono);
        self.handle_durable(context);
    }

    pub(crate) fn poll_timeout(&self) -> Option<(Mono, &'static str)> {
        [
            (!self.exchange_begun).then_some((Mono(0), "home shards are told of everything")),
            self.expiry_goes_on.then_some((Mono(0), "home shards are told of what expired")),
            self.parked_deadline().map(|at| (at, "a parked send is given up")),
            self.opening_deadline().map(|at| (at, "a step of opening a channel is repeated")),
            self.entering_deadline().map(|at| (at, "a step of a newcomer's entry is repeated")),
            self.home.audiences.is_busy().then_some((Mono(0), "sessions are told of a group")),
            self.home.audiences.deadline().map(|at| (at, "members are asked for again")),
            self.notify_deadline().map(|at| (at, "unconfirmed notifies are repeated")),
            self.log.deadline().map(|at| (at, "what could wait is committed")),
            self.marks_deadline(),
        ]
        .into_iter()
        .flatten()
        .min_by_key(|(at, _)| *at)
    }
}
