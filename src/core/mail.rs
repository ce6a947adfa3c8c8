//! What workers and shards say to each other: values that could cross a network, and what becomes
//! of each when the other side's mailbox is full.

use std::sync::Arc;

use bytes::Bytes;
use tern_protocol::frames::{Cursor, Network};
use tern_protocol::limits::SECRET_BYTES;
use tern_protocol::{ChannelId, Code, DeviceId, Epoch, Incarnation, MessageId, SendKey, Uin};

use crate::io::LinkId;
use crate::limiter::Limiter;
use crate::log::{Durable, Offset};
use crate::placement::{ShardId, WorkerId};
use crate::progress::MarksMail;
use crate::recalled::Recalled;
use crate::shard::DurableAck;
use crate::time::Mono;

/// Where a session can be reached: its worker and its connection there. Never reused, so that a
/// late answer finds nobody rather than somebody else.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub struct SessionRef {
    /// The worker.
    pub worker: WorkerId,
    /// The connection.
    pub link: LinkId,
}

/// A resume token: 256 bits by the driver's random source.
pub type Token = [u8; SECRET_BYTES];

/// How far a member may read a channel, from the channel's owner; built only from a proof of
/// durability.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Grant {
    /// First id.
    pub from: MessageId,
    /// Last id: durable. Less than `from` if there is none.
    pub to: MessageId,
    /// What comes before this id is not for this member; what lies from here to `from` expired.
    pub visible_from: MessageId,
    /// The newest durable id of the channel: `to`, or behind it for who was a member.
    pub newest: MessageId,
    /// When it came, or one behind it that is not durable yet, in s since 1970 UTC; it only orders
    /// channels.
    pub newest_s: u32,
    /// Where the record of `newest` is, or if it is lost, the newest one before it that could be
    /// read at start; only within this node.
    pub at: Offset,
    /// Life of the shard's log.
    pub incarnation: Incarnation,
    /// First id that a client of an older incarnation must forget.
    pub restarted_at: MessageId,
    /// Messages that were recalled by one up to `newest`; most channels have none.
    pub recalled: Option<Arc<Recalled>>,
    /// That `newest` is durable.
    pub proven: Proven,
}

impl Grant {
    /// Whether this one was given after `old`: of the newest message, or of what has expired, it
    /// says more.
    pub fn is_newer_than(&self, old: &Self) -> bool {
        (self.incarnation, self.to, self.from) > (old.incarnation, old.to, old.from)
    }

    /// Whether this message was recalled.
    pub fn is_recalled(&self, id: MessageId) -> bool {
        self.recalled.as_ref().is_some_and(|recalled| recalled.contains(id))
    }

    /// What of it a member may read; `None` if there is nothing yet.
    pub fn clipped(&self, visible: Visible) -> Option<Self> {
        (visible.from <= self.to).then_some(())?;
        let to = self.to.min(visible.until);
        let from = self.from.max(visible.from).min(to.next());
        Some(Self { from, to, visible_from: visible.from, ..self.clone() })
    }
}

/// The messages of a group that a member may read, as far as there are any.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Visible {
    /// First id.
    pub from: MessageId,
    /// Last id: that of the change that ended the membership; all ones if none did.
    pub until: MessageId,
}

impl Visible {
    /// All from this id on.
    pub fn since(from: MessageId) -> Self {
        Self { from, until: MessageId(u64::MAX) }
    }

    /// Whether it belongs to a member, rather than to somebody who was one.
    pub fn is_open(&self) -> bool {
        self.until == MessageId(u64::MAX)
    }
}

/// A channel that has more to read than its members' home shard was told of, or of which less can
/// be read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Changed {
    /// The channel.
    pub channel: ChannelId,
    /// What may be read.
    pub grant: Grant,
    /// Of a group: the newest change that touched users of that home shard.
    pub version: MessageId,
}

/// A page of the users of a home shard that are in a group, or were.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Members {
    /// The home shard.
    pub to: ShardId,
    /// The group.
    pub channel: ChannelId,
    /// That of the question.
    pub after: MemberPlace,
    /// Users of that home shard and what they may read.
    pub page: Vec<(Uin, Visible)>,
    /// The place behind which the next page begins; before that of the question if the list begins
    /// anew, without those that are known.
    pub upto: MemberPlace,
    /// Whether there is one.
    pub more: bool,
    /// The newest durable change that touched users of that home shard.
    pub version: MessageId,
    /// What may be read when all of them up to `version` are known.
    pub grant: Grant,
}

/// Place in the list of a group's members that is ordered by the change that touched each last,
/// then by uin.
pub type MemberPlace = (MessageId, Uin);

/// Shows that a value was built from a proof of durability.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Proven(());

impl Proven {
    /// The record at `at` is covered by `proof`.
    ///
    /// # Panics
    /// If it is not: showing it could give its id to another message after a crash.
    pub fn by(proof: Durable, at: Offset) -> Self {
        assert!(proof.covers(at), "{at:?} is shown before it is durable");
        Self(())
    }
}

/// Who a piece of mail is for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Address {
    /// The sessions of a worker.
    Front(WorkerId),
    /// A shard, wherever it runs.
    Shard(ShardId),
}

/// How a device proves its session.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Proof {
    /// Its secret was checked; grant an epoch and this token.
    Secret(Token),
    /// It shows the token of a live session of this epoch.
    Token(Epoch, Token),
}

/// What a session may send, as far as its user's home shard knows.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Rates {
    /// What the device has used of its own rate.
    pub used: Limiter,
    /// Until when no device of the user may send.
    pub user_waits_until: Mono,
}

/// A session that is a device's now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Attached {
    /// The session.
    pub to: SessionRef,
    /// The device.
    pub device: Device,
    /// Granted or gone on with.
    pub epoch: Epoch,
    /// For a later resume.
    pub token: Token,
    /// Whether a session went on.
    pub resumed: bool,
    /// What it may send.
    pub rates: Rates,
    /// Its cursors, if they are those of the digest that it said.
    pub cursors: Option<Vec<Cursor>>,
}

/// A device that a session speaks for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub struct Device {
    /// Whose.
    pub uin: Uin,
    /// Which.
    pub device: DeviceId,
}

/// What a user wishes of another one's messages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BlockWish {
    /// Who.
    pub blocker: Uin,
    /// Of whom.
    pub blocked: Uin,
    /// Whether the block begins, or ends.
    pub begins: bool,
}

/// A page of those whom a user has blocked, as far as one shard knows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BlockedPart {
    /// That of the question.
    pub after: Uin,
    /// The first of them above it, in ascending order.
    pub uins: Vec<Uin>,
    /// Whether this shard has more.
    pub more: bool,
}

/// Mail. The sender's order holds between two workers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Mail {
    /// A device's message, to the channel's shard. `frame` is a whole SEND that parses.
    Send {
        /// Who gets the answer.
        from: SessionRef,
        /// Who sends.
        device: Device,
        /// The epoch of its session.
        epoch: Epoch,
        /// The frame.
        frame: Bytes,
    },
    /// Answers a `Send`: durable.
    SendAcked {
        /// The session that asked.
        to: SessionRef,
        /// The frame to pass on.
        ack: DurableAck,
        /// Whether it was a repeat.
        duplicate: bool,
    },
    /// Answers a `Send`: not accepted.
    SendRefused {
        /// The session that asked.
        to: SessionRef,
        /// Where it was to go.
        channel: ChannelId,
        /// Its key.
        key: SendKey,
        /// Why.
        code: Code,
        /// Of a change: which of the users that it names the code is about, from 1; 0 for none.
        member: u16,
        /// For codes of class retry.
        retry_after_ms: u32,
    },
    /// A member asks for a page of the members of a group, to the channel's shard.
    GroupInfo {
        /// Who gets the answer.
        from: SessionRef,
        /// Who asks.
        device: Device,
        /// The group.
        channel: ChannelId,
        /// The page begins behind this uin.
        after: Uin,
    },
    /// Answers a `GroupInfo`.
    GroupPage {
        /// The session that asked.
        to: SessionRef,
        /// The group.
        channel: ChannelId,
        /// A whole GROUP_PAGE frame, or why there is none.
        page: Result<Bytes, Code>,
    },
    /// A user wants to block another, or no more, to the shard of their direct channel.
    Block {
        /// Who gets the answer.
        from: SessionRef,
        /// What is wished.
        wish: BlockWish,
    },
    /// Answers a `Block`: durable, or refused by this code, to be asked again after so many ms.
    BlockDone {
        /// The session that asked.
        to: SessionRef,
        /// What was wished.
        wish: BlockWish,
        /// What came of it.
        refused: Option<(Code, u32)>,
    },
    /// A user asks whom it has blocked, to every shard.
    AskBlocked {
        /// Who gets the answer.
        from: SessionRef,
        /// Whose blocks.
        blocker: Uin,
        /// The page begins behind this uin.
        after: Uin,
    },
    /// Answers an `AskBlocked`.
    BlockedPart {
        /// The session that asked.
        to: SessionRef,
        /// What this shard has to say, or why nothing.
        part: Result<Box<BlockedPart>, Code>,
    },

    /// A device wants its session, to its user's home shard.
    Attach {
        /// The session.
        from: SessionRef,
        /// Whose it shall be.
        device: Device,
        /// By what right.
        proof: Proof,
        /// The client's network.
        network: Network,
        /// When its connection began, by the clock that all workers of a node share.
        begun: Mono,
        /// Of the cursors that its client would say; [`tern_protocol::digest::UNSAID`] if it says
        /// them anyway.
        digest: u64,
    },
    /// Answers `Attach`: the session is the device's.
    Attached(Box<Attached>),
    /// Answers `Attach`: no.
    AttachRefused {
        /// The session.
        to: SessionRef,
        /// Why.
        code: Code,
        /// For codes of class retry.
        retry_after_ms: u32,
    },
    /// The session has the client's cursors: tell it the user's channels, page by page, and from
    /// then on each change. To the home shard.
    Subscribe {
        /// The session.
        from: SessionRef,
        /// Its device.
        device: Device,
        /// The last channel of the page before; `None` for the first page.
        after: Option<ChannelId>,
    },
    /// Answers `Subscribe` with one page; empty if there are no more.
    Channels {
        /// The session.
        to: SessionRef,
        /// Channels and what may be read of them, in the order of their ids.
        page: Vec<(ChannelId, Grant)>,
    },
    /// A channel of the user has more to read. From the home shard.
    Deliver {
        /// The session.
        to: SessionRef,
        /// The channel.
        channel: ChannelId,
        /// What may be read.
        grant: Grant,
    },
    /// The connection of a session is gone. To the home shard.
    Detach {
        /// The session.
        from: SessionRef,
        /// Its device.
        device: Device,
        /// Whether the session ended too, rather than waits to be resumed.
        ended: bool,
        /// What the device had used of its own rate.
        used: Limiter,
        /// Messages sent that the home shard was not told of.
        sent: i32,
        /// What the client had said of its cursors.
        cursors: Vec<Cursor>,
    },
    /// A device that is connected is on another kind of network. To the home shard.
    Network {
        /// The session.
        from: SessionRef,
        /// Its device.
        device: Device,
        /// The network.
        network: Network,
    },
    /// Devices of a user send: count it for the user. To the home shard.
    Sent {
        /// Which device.
        device: Device,
        /// Messages sent, less those that were given back.
        sent: i32,
    },
    /// What was used elsewhere of what a session may send. From the home shard.
    Rates {
        /// The session.
        to: SessionRef,
        /// As far as the home shard knows.
        rates: Rates,
    },
    /// The session is over: close its connection. From the home shard.
    Fence {
        /// The session.
        to: SessionRef,
        /// Why.
        code: Code,
    },

    /// A uin enters a channel: make it durable. From the channel's shard to the uin's home.
    Enter {
        /// Who asks.
        from: ShardId,
        /// The uin.
        uin: Uin,
        /// The channel.
        channel: ChannelId,
        /// Whether the uin itself opens the channel, which is limited.
        opens: bool,
    },
    /// Answers `Enter`: durable, or refused by this code.
    Entered {
        /// Who asked.
        to: ShardId,
        /// The uin.
        uin: Uin,
        /// The channel.
        channel: ChannelId,
        /// What came of it.
        refused: Option<(Code, u32)>,
    },
    /// A channel's durable end moved. From its shard to the home shard of members.
    Notify {
        /// Which shard.
        from: ShardId,
        /// The home shard.
        to: ShardId,
        /// Counts the notifies of this pair of shards, from 1.
        sequence: u64,
        /// The channel and what may be read; `None` ends the exchange of everything at start.
        change: Option<Changed>,
    },
    /// A home shard lacks who of its users is in a group. To the channel's shard; asked again if
    /// no answer comes.
    AskMembers {
        /// The home shard.
        from: ShardId,
        /// The group.
        channel: ChannelId,
        /// The place behind which the page begins.
        after: MemberPlace,
    },
    /// Answers `AskMembers`.
    Members(Box<Members>),
    /// All notifies of this pair up to a sequence number have come.
    Confirm {
        /// The home shard.
        from: ShardId,
        /// The channel's shard.
        to: ShardId,
        /// The number.
        sequence: u64,
    },
    /// How far users have got.
    Marks(MarksMail),
}

/// What becomes of mail when the mailbox of the other worker is full.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WhenFull {
    /// Refused to whoever asked, with a code.
    Refuse,
    /// Waits here: there is at most one per request under way, per login under way, or per pair
    /// of shards, or a bounded number of these, so what waits is bounded by what was admitted.
    Wait,
    /// Merged with an older one about the same thing.
    Coalesce,
}

impl Mail {
    /// The rule for this kind of mail.
    pub fn when_full(&self) -> WhenFull {
        match self {
            Self::Send { .. } | Self::GroupInfo { .. } => WhenFull::Refuse,
            Self::Deliver { .. } => WhenFull::Coalesce,
            Self::Marks(mail) => mail.when_full(),
            Self::SendAcked { .. }
            | Self::SendRefused { .. }
            | Self::GroupPage { .. }
            | Self::Block { .. }
            | Self::BlockDone { .. }
            | Self::AskBlocked { .. }
            | Self::BlockedPart { .. }
            | Self::Attach { .. }
            | Self::Attached(_)
            | Self::AttachRefused { .. }
            | Self::Subscribe { .. }
            | Self::Channels { .. }
            | Self::Detach { .. }
            | Self::Network { .. }
            | Self::Sent { .. }
            | Self::Rates { .. }
            | Self::Fence { .. }
            | Self::Enter { .. }
            | Self::Entered { .. }
            | Self::Notify { .. }
            | Self::AskMembers { .. }
            | Self::Members(_)
            | Self::Confirm { .. } => WhenFull::Wait,
        }
    }
}
