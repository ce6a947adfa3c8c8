//! Frames that carry messages and their answers.

use zerocopy::little_endian::{U16, U32, U64};

use super::wire_struct;
use crate::ids::{ChannelId, SendKey};

/// What a message is, in [`Send::kind`] and [`PushBody::kind`].
pub mod message_kind {
    /// Content from a person or program, opaque to the server.
    pub const CONTENT: u8 = 1;
}

/// What a message's content is, in [`Send::content_type`] and [`PushBody::content_type`]. The
/// server passes all of them on; numbers from 0x8000 are the application's own.
pub mod content_type {
    /// Bytes without further meaning, for instance encrypted end to end.
    pub const OPAQUE: u16 = 0;
    /// Text in UTF-8.
    pub const TEXT: u16 = 1;
}

wire_struct!(
    /// The fixed part of SEND; the content follows.
    Send, 40 {
        /// Where to.
        channel: ChannelId,
        /// Epoch of the send key.
        epoch: U32,
        /// Counter of the send key.
        counter: U32,
        /// Counter of the newest earlier send of this epoch to this channel that was not finally
        /// refused; 0 if there is none. The server appends no message before its predecessor.
        predecessor: U32,
        /// See [`content_type`].
        content_type: U16,
        /// See [`message_kind`].
        kind: u8,
        /// Version of the body: 1.
        version: u8,
        /// The message that this one speaks of, in the same channel; 0 if none.
        refers_to: U64,
    }
);

wire_struct!(
    /// SEND_ACK: the message is durable. A repeated SEND gets the same again.
    SendAck, 40 {
        /// Where it stands.
        channel: ChannelId,
        /// Epoch of the send key.
        epoch: U32,
        /// Counter of the send key.
        counter: U32,
        /// Its place in the channel.
        id: U64,
        /// When the server accepted it, in milliseconds since 1970 UTC.
        server_time: U64,
    }
);

wire_struct!(
    /// SEND_REFUSED: the message was not accepted.
    SendRefused, 32 {
        /// Where it was to go.
        channel: ChannelId,
        /// Epoch of the send key.
        epoch: U32,
        /// Counter of the send key.
        counter: U32,
        /// See [`crate::Code`]; its class says whether the key is dead.
        code: U16,
        /// Zero; ignored.
        reserved: U16,
        /// Milliseconds to wait before the same key is sent again, for codes of class retry.
        retry_after_ms: U32,
    }
);

wire_struct!(
    /// The fixed part of PUSH, which is also how a message stands in the log; the content
    /// follows.
    PushBody, 64 {
        /// The channel.
        channel: ChannelId,
        /// The message's place in it.
        id: U64,
        /// Who sent it.
        sender: U64,
        /// With which device.
        device: U32,
        /// Epoch of the send key.
        epoch: U32,
        /// Counter of the send key.
        counter: U32,
        /// See [`content_type`].
        content_type: U16,
        /// See [`message_kind`].
        kind: u8,
        /// Version of the body: 1.
        version: u8,
        /// When the server accepted it, in milliseconds since 1970 UTC.
        server_time: U64,
        /// The message that this one speaks of; 0 if none.
        refers_to: U64,
    }
);

impl Send {
    /// The send key.
    pub fn key(&self) -> SendKey {
        SendKey { epoch: self.epoch.into(), counter: self.counter.into() }
    }
}

impl SendAck {
    /// The send key.
    pub fn key(&self) -> SendKey {
        SendKey { epoch: self.epoch.into(), counter: self.counter.into() }
    }
}

impl SendRefused {
    /// The send key.
    pub fn key(&self) -> SendKey {
        SendKey { epoch: self.epoch.into(), counter: self.counter.into() }
    }
}

impl PushBody {
    /// The send key under which its sender sent it.
    pub fn key(&self) -> SendKey {
        SendKey { epoch: self.epoch.into(), counter: self.counter.into() }
    }
}
