//! The words for the mailbox: the messages that a device keeps on its disk, its own and others'.
//!
//! A store that keeps mail takes a message in the same step in which the device's cursor passes
//! it, so after a crash at any moment each message stands in it once and none is missing. What
//! the device sends stands in it from the call on. It is bounded: of too many messages the oldest
//! that came go, and can be had from the server as long as that keeps them.

use bytes::Bytes;
use tern_protocol::{ChannelId, Code, DeviceId, MessageId, SendKey, Uin, UnixMillis};

use crate::machine::{Message, SendId};

/// How much mail a device keeps.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MailLimits {
    /// Messages, in all channels together.
    pub messages_max: u64,
    /// Bytes of their contents and some 100 for each.
    pub bytes_max: u64,
}

impl Default for MailLimits {
    /// Some months of a busy person: 100,000 messages or 64 MiB.
    fn default() -> Self {
        Self { messages_max: 100_000, bytes_max: 64 << 20 }
    }
}

/// What changes in the mailbox.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Mail {
    /// A message came. A recall empties the message that it takes back.
    Received(Message),
    /// A send of this device stands in its channel.
    Acked {
        /// Which send.
        send: SendId,
        /// Its place.
        id: MessageId,
        /// When the server accepted it.
        server_time: UnixMillis,
    },
    /// What was known of a channel from this id on is void: history restarted there.
    Void {
        /// The channel.
        channel: ChannelId,
        /// The first void id.
        at: MessageId,
    },
}

/// How far a message in the mailbox is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MailState {
    /// Of this device; it waits for its turn.
    Unsent,
    /// Of this device; it leaves, until the server has answered.
    Sending,
    /// Of this device; the server does not take it.
    Refused(Code),
    /// Of this user: it stands in its channel.
    Acked,
    /// Of another user.
    Received,
    /// Of another user, who has read up to it on some device of this user.
    Read,
    /// It was taken back; its content is gone.
    Recalled,
}

/// A message in the mailbox.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeptMessage {
    /// How far it is.
    pub state: MailState,
    /// Its place in the channel; 0 while it has none.
    pub id: MessageId,
    /// Who sent it.
    pub sender: Uin,
    /// With which device.
    pub device: DeviceId,
    /// Under which key; `None` while it has none.
    pub key: Option<SendKey>,
    /// When the server accepted it; 0 before.
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

/// What is asked of the mailbox.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MailQuery {
    /// The channel.
    pub channel: ChannelId,
    /// Only messages with an id below this one; `None` begins with what has no id yet.
    pub before: Option<MessageId>,
    /// How many messages at most.
    pub limit: usize,
}
