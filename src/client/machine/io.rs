//! The two closed lists: everything that can wake the machine, and everything that leaves it.

use bytes::Bytes;
use tern_protocol::frames::{Network, PushBody, message_kind};
use tern_protocol::limits::SECRET_BYTES;
use tern_protocol::{
    ChannelId, Code, DeviceId, Epoch, Incarnation, Kind, MessageId, SendKey, Uin, UnixMillis,
};

use crate::group::{GroupChange, GroupPage};
use crate::history::{HistoryPage, Newcomer};
use crate::marks::{GroupReceipts, Receipt, Unread, Which};

/// Whose machine it is.
#[derive(Clone, PartialEq, Eq)]
pub struct Identity {
    /// The user; 0 if a token knows it and the server has not told yet.
    pub uin: Uin,
    /// The device; 0 as for the user.
    pub device: DeviceId,
    /// What proves it.
    pub proof: Proof,
}

/// What proves a device in a full login.
#[derive(Clone, PartialEq, Eq)]
pub enum Proof {
    /// The secret that the directory gave it.
    Secret([u8; SECRET_BYTES]),
    /// A token of the operator's own system, in its compact form.
    Token(Bytes),
}

impl std::fmt::Debug for Proof {
    /// Without secret or token.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Secret(_) => "Secret(…)",
            Self::Token(_) => "Token(…)",
        })
    }
}

impl std::fmt::Debug for Identity {
    /// Without the proof.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Identity({}.{})", self.uin, self.device)
    }
}

/// A send as the device itself numbers it; unique among all that are stored. Messages leave in
/// the order of these numbers.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SendId(pub u64);

/// Names a batch of changes; a later batch has a higher number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Ticket(pub u64);

/// A place in a channel's history, in one life of it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Position {
    /// The channel.
    pub channel: ChannelId,
    /// The message; everything up to it is meant where a position is a cursor.
    pub id: MessageId,
    /// The life of the history; 0 if none is known.
    pub incarnation: Incarnation,
}

/// What can wake the machine.
#[derive(Clone, Debug)]
pub enum Input {
    /// The connection that [`Effect::Connect`] asked for is there, with its stream.
    Connected,
    /// One whole frame came, header included (the driver cuts the stream by the header's length).
    Frame(Bytes),
    /// The connection is gone or never came, for whatever reason; with the server's code, if it
    /// gave one. Not said after [`Effect::Disconnect`].
    Disconnected {
        /// The code that the server closed with.
        code: Option<Code>,
    },
    /// The application sends. The message gets the number that [`super::Machine::next_send`]
    /// told before.
    Send {
        /// Where to.
        channel: ChannelId,
        /// See [`tern_protocol::frames::content_type`].
        content_type: u16,
        /// What.
        content: Bytes,
        /// The application's own mark, which comes back with the result, also after a crash.
        tag: u64,
    },
    /// The application changes a group, or makes one. Numbered and answered as a message is.
    Change {
        /// Which group; `None` for the one that this change makes, which has an id as soon as it
        /// has a key.
        channel: Option<ChannelId>,
        /// See [`crate::group::GroupChange::encode`].
        content: Bytes,
        /// The application's own mark.
        tag: u64,
    },
    /// The application takes a message back. Numbered and answered as a message is.
    Recall {
        /// Where it stands.
        channel: ChannelId,
        /// Which.
        id: MessageId,
        /// The application's own mark.
        tag: u64,
    },
    /// The application puts another content in the place of a message's. Numbered and answered as
    /// a message is.
    Edit {
        /// Where it stands.
        channel: ChannelId,
        /// Which; the original, also for a second edit.
        id: MessageId,
        /// See [`tern_protocol::frames::content_type`].
        content_type: u16,
        /// What it says from now on.
        content: Bytes,
        /// The application's own mark.
        tag: u64,
    },
    /// The user takes no more messages from another, or does again.
    Block {
        /// Whom.
        uin: Uin,
        /// Whether the block begins, or ends.
        begins: bool,
    },
    /// The application asks whom the user has blocked: a page of them, above a uin.
    BlockList {
        /// The page begins with the first above this uin; 0 for the first page.
        after: Uin,
    },
    /// The application asks who is in a group: a page of its members, above a uin.
    GroupInfo {
        /// Which.
        channel: ChannelId,
        /// The page begins with the first member above this uin; 0 for the first page.
        after: Uin,
    },
    /// The user has read everything of the channel up to here, as far as the application was
    /// given it.
    Read {
        /// Where.
        channel: ChannelId,
        /// Up to which message.
        id: MessageId,
    },
    /// The application asks how many members of a group have a message.
    GroupReceipts {
        /// The group.
        channel: ChannelId,
        /// The message.
        id: MessageId,
    },
    /// The application looks back in a channel: asks for a page.
    History {
        /// Which.
        channel: ChannelId,
        /// Below which id; 0 for the newest.
        before: MessageId,
        /// How many ids at most.
        limit: u32,
    },
    /// The application asks how much is unread.
    Unread(Which),
    /// The application knows the result of this send; it may be forgotten.
    Settled(SendId),
    /// The application has consumed everything of the channel up to here.
    Delivered(Position),
    /// All batches up to this one are on the disk.
    Stored(Ticket),
    /// The store failed for good.
    StoreFailed,
    /// From the next full login on the device is proved by this: a token that expires later, or a
    /// new secret.
    Prove(Proof),
    /// The client is on another network, or on another address of the same.
    NetworkChanged(Network),
    /// The application ends the session. What is unsent stays stored.
    Logout,
    /// A deadline has come; see [`super::Machine::poll_timeout`].
    Tick,
}

/// What leaves the machine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Effect {
    /// Send this frame on the connection, in order.
    Transmit(Bytes),
    /// Send this frame by datagram if it fits one; else in order. It may be lost: the machine
    /// sends it again, in order, if it is not answered in time.
    TransmitFree(Bytes),
    /// Put these changes on the disk, all or none and after those of earlier batches, then say
    /// [`Input::Stored`].
    Persist {
        /// The changes, in order.
        changes: Vec<Change>,
        /// The name of the batch.
        ticket: Ticket,
    },
    /// Open a connection and its stream, now.
    Connect,
    /// Send what was said to be sent, then close the connection, or stop opening it. Whatever
    /// comes from it after this is not for the machine.
    Disconnect {
        /// The code to close with.
        code: Code,
    },
    /// Tell the application.
    Tell(Event),
}

/// A change of what is stored.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// A send is there, or has changed.
    Send(SavedSend),
    /// A send is settled.
    Forget(SendId),
    /// Everything of the channel up to here is consumed.
    Cursor(Position),
    /// Everything of the channel up to here is read.
    Read(Position),
    /// How far a new device is with the channels that its user had before it.
    Newcomer(Newcomer),
    /// On this kind of network heartbeats were answered at this interval.
    Interval {
        /// The kind of network.
        network: Network,
        /// In milliseconds.
        ms: u32,
    },
}

/// A send as it is stored.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SavedSend {
    /// Its number.
    pub id: SendId,
    /// The application's mark.
    pub tag: u64,
    /// Its key, from the moment at which it has one; never changed after.
    pub key: Option<SendKey>,
    /// The final answer, if that was no.
    pub refused: Option<Code>,
    /// Which of the users named by a change was the reason, counted from 1; 0 if none was.
    pub refused_member: u8,
    /// See [`tern_protocol::frames::message_kind`].
    pub kind: u8,
    /// Where to; [`UNMADE`] while the group that it makes has no id yet.
    pub channel: ChannelId,
    /// See [`tern_protocol::frames::content_type`].
    pub content_type: u16,
    /// The message that a recall or an edit is about; else 0.
    pub refers_to: MessageId,
    /// What.
    pub content: Bytes,
}

/// The channel of a change that makes a group, until it has a key and the group an id by it.
pub const UNMADE: ChannelId = ChannelId::group(0);

/// Everything that is stored.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Saved {
    /// All sends that are not settled, in the order of their numbers.
    pub sends: Vec<SavedSend>,
    /// How far each channel is consumed.
    pub cursors: Vec<Position>,
    /// How far each channel is read.
    pub reads: Vec<Position>,
    /// The heartbeat's interval that last worked, in ms, by kind of network.
    pub intervals: Vec<(Network, u32)>,
    /// How far a new device is with the channels that its user had before it.
    pub newcomer: Newcomer,
}

/// What the application is told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// The next message of a channel; each comes once, in order. Confirm it by
    /// [`Input::Delivered`] with its position.
    Message(Message),
    /// What became of a send. Confirm it by [`Input::Settled`].
    Result(SendResult),
    /// These ids of a channel never come.
    Gap {
        /// The channel.
        channel: ChannelId,
        /// First id.
        from: MessageId,
        /// Last id.
        to: MessageId,
        /// Why.
        code: Code,
    },
    /// The server lost the end of a channel's history: what was known of this id and later ones
    /// is void, and other messages will stand there.
    HistoryRestarted {
        /// The channel.
        channel: ChannelId,
        /// The first void id.
        at: MessageId,
    },
    /// Answers [`Input::GroupInfo`].
    GroupPage(GroupPage),
    /// Answers [`Input::GroupInfo`]: no.
    GroupRefused {
        /// The group.
        channel: ChannelId,
        /// Why.
        code: Code,
    },
    /// Answers [`Input::Block`]: durable, or why not.
    Blocked {
        /// Whom.
        uin: Uin,
        /// Whether the block begins, or ends.
        begins: bool,
        /// Why not.
        refused: Option<Code>,
    },
    /// Answers [`Input::BlockList`], or tells why not.
    BlockPage(Result<BlockPage, Code>),
    /// The server has the mark of this user: everything up to here is read, on whatever device.
    Read(Position),
    /// The other user of a direct channel has got further.
    Receipt(Receipt),
    /// Answers [`Input::GroupReceipts`].
    GroupReceipts(Result<GroupReceipts, Code>),
    /// Answers [`Input::History`], or tells why not.
    History(Result<HistoryPage, Code>),
    /// Answers [`Input::Unread`].
    Unread(Result<Vec<Unread>, Code>),
    /// The numbers that the token stands for. An application that knew none keeps them for its
    /// next start, beside the store: both belong to this device.
    Identity {
        /// The user.
        uin: Uin,
        /// The device.
        device: DeviceId,
    },
    /// The connection's state changed.
    State(State),
    /// The server did not act on a frame.
    ServerError {
        /// Why.
        code: Code,
        /// The kind of the frame.
        kind: Kind,
    },
}

/// Some of those whom the user has blocked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BlockPage {
    /// In ascending order.
    pub uins: Vec<Uin>,
    /// Whether there are no more.
    pub is_last: bool,
}

/// A message as it came.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Message {
    /// Where it stands.
    pub position: Position,
    /// Who sent it.
    pub sender: Uin,
    /// With which device.
    pub device: DeviceId,
    /// Under which key.
    pub key: SendKey,
    /// When the server accepted it.
    pub server_time: UnixMillis,
    /// See [`tern_protocol::frames::message_kind`].
    pub kind: u8,
    /// See [`tern_protocol::frames::content_type`].
    pub content_type: u16,
    /// The message that this one speaks of; 0 if none.
    pub refers_to: MessageId,
    /// What it says.
    pub content: Bytes,
}

impl Message {
    /// A message as a frame has it.
    pub(crate) fn of(body: &PushBody, content: Bytes, incarnation: Incarnation) -> Self {
        Self {
            position: Position { channel: body.channel, id: body.id.into(), incarnation },
            sender: body.sender.into(),
            device: body.device.into(),
            key: body.key(),
            server_time: body.server_time.into(),
            kind: body.kind,
            content_type: body.content_type.get(),
            refers_to: body.refers_to.into(),
            content,
        }
    }

    /// The message that this one takes back, if it is a recall. Whoever has it takes it out of
    /// sight; a device that was late was told of a gap instead.
    pub fn recalls(&self) -> Option<MessageId> {
        (self.kind == message_kind::RECALL).then_some(self.refers_to)
    }

    /// The message whose content this one replaces, if it is an edit.
    pub fn edits(&self) -> Option<MessageId> {
        (self.kind == message_kind::EDIT).then_some(self.refers_to)
    }

    /// The change of a group that the message is, if it is one.
    pub fn change(&self) -> Option<GroupChange> {
        if self.kind != message_kind::CHANGE {
            return None;
        }
        GroupChange::decode(&self.content)
    }
}

/// What became of a send.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SendResult {
    /// Which.
    pub send: SendId,
    /// The application's mark.
    pub tag: u64,
    /// Where it was to go.
    pub channel: ChannelId,
    /// Its key; `None` if it was refused before it got one.
    pub key: Option<SendKey>,
    /// Yes, no, or not known.
    pub outcome: SendOutcome,
    /// For a change that was refused: the user because of whom.
    pub member: Option<Uin>,
}

/// The answer to a send; it is final.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SendOutcome {
    /// Durable on the server.
    Acked {
        /// Its place in the channel.
        id: MessageId,
        /// When the server accepted it.
        server_time: UnixMillis,
    },
    /// Not accepted, and never will be.
    Refused(Code),
    /// The server no longer knows whether it was accepted (`KEY_UNKNOWN`). It is not sent again
    /// unless the application does so, at the price of a possible repeat.
    Unknown,
}

/// The state of the connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// A connection is being opened, or the login is under way.
    Connecting,
    /// Logged in.
    Online {
        /// The epoch in which the device counts.
        epoch: Epoch,
        /// Whether a live session went on.
        resumed: bool,
    },
    /// No connection; a new one is tried after this time.
    Offline {
        /// Milliseconds until then.
        retry_in_ms: u64,
        /// What the server or the machine gave as reason, if any.
        code: Option<Code>,
    },
    /// It is over; nothing is tried any more.
    Ended(End),
}

/// Why it is over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// The application logged out.
    LoggedOut,
    /// The server refuses this device, this user or this version.
    Refused(Code),
    /// The store failed: nothing could be sent or consumed safely.
    StoreFailed,
}
