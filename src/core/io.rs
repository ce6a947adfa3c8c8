//! The two closed lists: everything that can wake a worker, and everything that leaves one.

use bytes::Bytes;
use tern_protocol::frames::{
    AskCursors, Blocked, ChannelState, Gap, Identity, LoggedIn, Pong, SendAck, SendRefused, Welcome,
};
use tern_protocol::{ChannelId, Code, DeviceId, Flags, Kind, Uin};

use crate::log::Offset;
use crate::mail::{Address, Device, Mail, SessionRef, Token};
use crate::placement::ShardId;
use crate::time::Mono;

/// A connection as the machine knows it; given by the driver, never reused within a process.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub struct LinkId(pub u64);

/// What can wake a worker.
#[derive(Debug)]
pub enum Input {
    /// A client connected; the server had taken its first packet at this moment. A client that
    /// gives a connection up for another had its first packet there answered before, so these
    /// moments are in the order in which a device meant its logins.
    LinkOpened(LinkId, Mono),
    /// One whole frame came, header included (the driver cuts the stream by the header's length).
    Frame(LinkId, Bytes),
    /// The connection is gone, for whatever reason. The driver sends nothing more for this link.
    LinkClosed(LinkId),
    /// The client's packets come from another address since now, which its QUIC has proven.
    Moved(LinkId),
    /// Mail from another worker.
    Mail(Address, Mail),
    /// The log of a shard has a new proof, or failed.
    Durable(ShardId),
    /// The directory answers.
    Directory(Answer),
    /// What [`Effect::Warm`] asked for is in memory now.
    Warmed(Waiter),
    /// The operator ends sessions of a user, or of one device, with this code. A device that is
    /// revoked is gone for good: shards forget what they know of it.
    Kick {
        /// Whose.
        uin: Uin,
        /// One device, or all.
        device: Option<DeviceId>,
        /// Why.
        code: Code,
    },
    /// The server goes down in order: every session is told to come back.
    Drain,
    /// A deadline has come; see [`crate::Worker::poll_timeout`].
    Tick,
}

/// What leaves a worker, besides mail.
#[derive(Debug)]
pub enum Effect {
    /// Send a frame.
    Frame(LinkId, Outgoing),
    /// Send this whole frame, header included.
    Whole(LinkId, Bytes),
    /// Send the body of this durable message record as a PUSH, straight from the log.
    Push {
        /// To whom.
        link: LinkId,
        /// In which log.
        shard: ShardId,
        /// Where.
        at: Offset,
        /// How it may travel.
        order: Order,
    },
    /// Send CLOSE with this, then close the connection with the same code. `Input::LinkClosed`
    /// must not follow.
    Close {
        /// Which.
        link: LinkId,
        /// Why.
        code: Code,
        /// When its client may come back.
        come_back: ComeBack,
    },
    /// Ask the directory.
    Directory(Query),
    /// Have the I/O thread read this record, and what lies around it, into memory; then say
    /// [`Input::Warmed`].
    Warm {
        /// Which.
        record: ColdRecord,
        /// Who waits.
        waiter: Waiter,
    },
}

/// When a client may come back, as CLOSE says it; all 0 where it may not.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct ComeBack {
    /// No earlier than this, in ms.
    pub ms: u32,
    /// At a random time within this many tenths of a second from then on; 0: as long as `ms`.
    pub slot_tenths: u16,
}

/// What a push needs of its transport.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Order {
    /// To come behind all frames before it.
    Kept,
    /// To come. It may overtake others, and they it; the client puts it into its place.
    Free,
}

/// A record that is not in memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ColdRecord {
    /// In which log.
    pub shard: ShardId,
    /// Where.
    pub at: Offset,
    /// The channel whose message it is, if who asks knows that: where nothing of the record is
    /// left, it tells which message comes before it.
    pub channel: Option<ChannelId>,
}

/// Who waits for a cold read.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Waiter {
    /// A session's delivery.
    Link(LinkId),
    /// A shard's look-up of old keys.
    Shard(ShardId),
    /// A session's count of what is unread.
    Count(LinkId),
    /// A page of history.
    History(LinkId),
}

/// A frame to send, small enough to stand here whole.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)] // each is the frame of its name
pub enum Outgoing {
    Welcome(Welcome),
    Identity(Identity),
    LoggedIn(LoggedIn),
    SendAck(SendAck),
    SendRefused(SendRefused),
    Channel(ChannelState),
    Gap(Gap),
    Blocked(Blocked),
    Pong(Pong),
    AskCursors(AskCursors),
    /// ERROR about a frame of this kind and flags; its text is the code's sentence.
    Error {
        code: Code,
        kind: Kind,
        flags: Flags,
        retry_after_ms: u32,
    },
}

/// What a worker asks the directory; never waited for.
#[derive(Clone, PartialEq, Eq)]
pub enum Query {
    /// Does this secret belong to this device?
    Authenticate {
        /// Who asks.
        session: SessionRef,
        /// The device.
        device: Device,
        /// Its secret.
        secret: Token,
    },
    /// Who is it that this token stands for?
    Identify {
        /// Who asks.
        session: SessionRef,
        /// Who the client takes itself for; 0 where it does not know.
        claimed: Device,
        /// The token, as it came.
        token: Box<[u8]>,
    },
    /// Is there such a user, to whom a first message may go?
    UserExists {
        /// Who asks.
        shard: ShardId,
        /// For which channel.
        channel: ChannelId,
        /// The user.
        uin: Uin,
    },
}

impl std::fmt::Debug for Query {
    /// Without secret or token.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Authenticate { session, device, .. } => {
                write!(f, "Authenticate({session:?}, {device:?})")
            }
            Self::Identify { session, claimed, .. } => {
                write!(f, "Identify({session:?}, {claimed:?})")
            }
            Self::UserExists { shard, channel, uin } => {
                write!(f, "UserExists({shard:?}, {channel}, {uin})")
            }
        }
    }
}

/// What the directory answers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    /// To [`Query::Authenticate`]: a fresh random token for the session, or the code of refusal.
    Authenticated {
        /// Who asked.
        session: SessionRef,
        /// Yes or no.
        result: Result<Token, Code>,
    },
    /// To [`Query::Identify`]: the device, and a fresh random token for the session, or the code
    /// of refusal.
    Identified {
        /// Who asked.
        session: SessionRef,
        /// Yes or no.
        result: Result<(Device, Token), Code>,
    },
    /// To [`Query::UserExists`].
    UserExists {
        /// Who asked.
        shard: ShardId,
        /// For which channel.
        channel: ChannelId,
        /// The user.
        uin: Uin,
        /// Yes or no; `None` if the directory can't say now.
        exists: Option<bool>,
    },
}
