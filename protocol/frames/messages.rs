//! Frames that carry messages and their answers.

use zerocopy::little_endian::{U16, U32, U64};

use super::wire_struct;
use crate::ids::{ChannelId, SendKey};

/// What a message is, in [`Send::kind`] and [`PushBody::kind`].
pub mod message_kind {
    /// Content from a person or program, opaque to the server.
    pub const CONTENT: u8 = 1;
    /// A change of a group, in the order of its messages: a [`crate::frames::Change`].
    pub const CHANGE: u8 = 2;
    /// Takes back the message that it refers to: nobody is shown that one from now on.
    pub const RECALL: u8 = 3;
    /// What the message that it refers to says from now on.
    pub const EDIT: u8 = 4;
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
        @0 channel: ChannelId,
        /// Epoch of the send key.
        @16 epoch: U32,
        /// Counter of the send key.
        @20 counter: U32,
        /// Counter of the newest earlier send of this epoch to this channel that is not answered
        /// yet; 0 if there is none. The server appends no message before its predecessor.
        @24 predecessor: U32,
        /// See [`content_type`].
        @28 content_type: U16,
        /// See [`message_kind`].
        @30 kind: u8,
        /// Version of the body: 1.
        @31 version: u8,
        /// The message that this one speaks of, in the same channel; 0 if none.
        @32 refers_to: U64,
    }
);

wire_struct!(
    /// SEND_ACK: the message is durable. A repeated SEND gets the same again.
    SendAck, 40 {
        /// Where it stands.
        @0 channel: ChannelId,
        /// Epoch of the send key.
        @16 epoch: U32,
        /// Counter of the send key.
        @20 counter: U32,
        /// Its place in the channel.
        @24 id: U64,
        /// When the server accepted it, in milliseconds since 1970 UTC.
        @32 server_time: U64,
    }
);

wire_struct!(
    /// SEND_REFUSED: the message was not accepted.
    SendRefused, 32 {
        /// Where it was to go.
        @0 channel: ChannelId,
        /// Epoch of the send key.
        @16 epoch: U32,
        /// Counter of the send key.
        @20 counter: U32,
        /// See [`crate::Code`]; its class says whether the key is dead.
        @24 code: U16,
        /// Which of the users named by a change the code speaks of, counted from 1; 0 if none.
        @26 member: U16,
        /// Milliseconds to wait before the same key is sent again, for codes of class retry.
        @28 retry_after_ms: U32,
    }
);

wire_struct!(
    /// The fixed part of PUSH, which is also how a message stands in the log; the content
    /// follows.
    PushBody, 64 {
        /// The channel.
        @0 channel: ChannelId,
        /// The message's place in it.
        @16 id: U64,
        /// Who sent it.
        @24 sender: U64,
        /// With which device.
        @32 device: U32,
        /// Epoch of the send key.
        @36 epoch: U32,
        /// Counter of the send key.
        @40 counter: U32,
        /// See [`content_type`].
        @44 content_type: U16,
        /// See [`message_kind`].
        @46 kind: u8,
        /// Version of the body: 1.
        @47 version: u8,
        /// When the server accepted it, in milliseconds since 1970 UTC.
        @48 server_time: U64,
        /// The message that this one speaks of; 0 if none.
        @56 refers_to: U64,
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
