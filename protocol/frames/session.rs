//! Frames of a session: greeting, login, heartbeat, end.

use zerocopy::little_endian::{U16, U32, U64};

use super::wire_struct;
use crate::limits::SECRET_BYTES;

/// Bits of the `capabilities` fields. Unknown ones are ignored, so either side may announce what
/// the other does not know.
pub mod capabilities {
    /// Nothing beyond this version.
    pub const NONE: u64 = 0;
    /// SEND and PUSH may also come by QUIC datagram, lost or out of order.
    pub const DATAGRAMS: u64 = 1;
    /// Messages of kind CHANGE, and the frames of groups.
    pub const GROUPS: u64 = 1 << 1;
    /// The server takes TOKEN_LOGIN.
    pub const TOKENS: u64 = 1 << 2;
    /// READ, MARKS and what else is said of reading on.
    pub const MARKS: u64 = 1 << 4;
    /// Messages of kinds RECALL and EDIT.
    pub const RECALLS: u64 = 1 << 8;
    /// The frames of blocks.
    pub const BLOCKS: u64 = 1 << 9;
    /// HISTORY_ASK and HISTORY_WANTED.
    pub const HISTORY: u64 = 1 << 10;
}

/// The kind of network a client is on, by which the server chooses its heartbeat.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Network {
    /// Not known: treated as cellular, the most careful.
    #[default]
    Unknown,
    /// A cable.
    Wired,
    /// Wireless LAN.
    Wifi,
    /// 3G to 5G.
    Cellular,
}

impl Network {
    /// How many kinds there are.
    pub const COUNT: usize = 4;

    /// Its place in a table of all kinds: its number on the wire.
    pub fn index(self) -> usize {
        self.to_wire().into()
    }

    /// From the wire; numbers not known count as unknown.
    pub fn from_wire(number: u8) -> Self {
        match number {
            1 => Self::Wired,
            2 => Self::Wifi,
            3 => Self::Cellular,
            _ => Self::Unknown,
        }
    }

    /// As on the wire.
    pub fn to_wire(self) -> u8 {
        match self {
            Self::Unknown => 0,
            Self::Wired => 1,
            Self::Wifi => 2,
            Self::Cellular => 3,
        }
    }
}

wire_struct!(
    /// HELLO: the first frame of a connection.
    Hello, 32 {
        /// [`crate::limits::MAGIC`].
        @0 magic: [u8; 4],
        /// [`crate::limits::VERSION`] of the client.
        @4 version: U16,
        /// See [`Network`].
        @6 network: u8,
        /// Zero; ignored.
        @7 reserved: u8,
        /// See [`capabilities`].
        @8 capabilities: U64,
        /// Of the cursors that CURSORS would say; 0: none said.
        @16 digest: U64,
        /// Milliseconds between heartbeats that last worked on this network; 0: none known.
        @24 heartbeat_ms: U32,
        /// Zero; ignored.
        @28 reserved_end: U32,
    }
);

wire_struct!(
    /// WELCOME: the server's answer to HELLO.
    Welcome, 32 {
        /// [`crate::limits::VERSION`] of the server.
        @0 version: U16,
        /// How far the oldest unanswered and the newest sent counter may differ, exclusive.
        @2 unacked_sends_max: U16,
        /// Longest content of a message in bytes.
        @4 content_bytes_max: U32,
        /// See [`capabilities`].
        @8 capabilities: U64,
        /// The server's time in milliseconds since 1970 UTC.
        @16 server_time: U64,
        /// Zero; ignored.
        @24 reserved: U64,
    }
);

wire_struct!(
    /// LOGIN: a full login.
    Login, 48 {
        /// Who.
        @0 uin: U64,
        /// With which device.
        @8 device: U32,
        /// Zero; ignored.
        @12 reserved: U32,
        /// The device's secret.
        @16 secret: [u8; SECRET_BYTES],
    }
);

wire_struct!(
    /// The fixed part of TOKEN_LOGIN; the token follows, a JSON Web Token in its compact form.
    TokenLogin, 16 {
        /// Who; 0 if the client does not know its numbers yet.
        @0 uin: U64,
        /// With which device; 0 as for the uin.
        @8 device: U32,
        /// Zero; ignored.
        @12 reserved: U32,
    }
);

wire_struct!(
    /// IDENTITY: the account that a token stands for.
    Identity, 16 {
        /// The user.
        @0 uin: U64,
        /// The device.
        @8 device: U32,
        /// Zero; ignored.
        @12 reserved: U32,
    }
);

wire_struct!(
    /// RESUME: goes on with a live session.
    Resume, 48 {
        /// Who.
        @0 uin: U64,
        /// With which device.
        @8 device: U32,
        /// The epoch of the session.
        @12 epoch: U32,
        /// The token that LOGGED_IN gave.
        @16 token: [u8; SECRET_BYTES],
    }
);

wire_struct!(
    /// LOGGED_IN: answers LOGIN and RESUME.
    LoggedIn, 48 {
        /// The device's epoch: new after LOGIN, unchanged after RESUME.
        @0 epoch: U32,
        /// Milliseconds until the first heartbeat.
        @4 heartbeat_ms: U32,
        /// Milliseconds that the session outlives its connection.
        @8 resume_ms: U32,
        /// 1 if a session went on, 0 if a new epoch was granted.
        @12 resumed: u8,
        /// 1 if the server has the cursors of the digest in HELLO, and delivery begins; 0 if it
        /// waits for CURSORS.
        @13 known: u8,
        /// Zero; ignored.
        @14 reserved: [u8; 2],
        /// What RESUME must show.
        @16 token: [u8; SECRET_BYTES],
    }
);

wire_struct!(
    /// PING: the client's heartbeat.
    Ping, 24 {
        /// Counted by the client; comes back in PONG.
        @0 sequence: U32,
        /// See [`Network`].
        @4 network: u8,
        /// Zero; ignored.
        @5 reserved: [u8; 3],
        /// Of the cursors that the server was told on this connection; 0: none said.
        @8 digest: U64,
        /// Milliseconds that the client wants until the next heartbeat; 0: the server's choice.
        @16 heartbeat_ms: U32,
        /// Zero; ignored.
        @20 reserved_end: U32,
    }
);

wire_struct!(
    /// PONG: answers PING.
    Pong, 24 {
        /// That of the PING.
        @0 sequence: U32,
        /// Milliseconds until the next heartbeat.
        @4 heartbeat_ms: U32,
        /// The server's time in milliseconds since 1970 UTC.
        @8 server_time: U64,
        /// 1 if the client's packets came from another address since the last PONG.
        @16 moved: u8,
        /// Zero; ignored.
        @17 reserved: [u8; 7],
    }
);

wire_struct!(
    /// ASK_CURSORS: the digest of a PING was not that of the server.
    AskCursors, 16 {
        /// The server's digest.
        @0 digest: U64,
        /// Counts the questions of this connection, from 1.
        @8 sequence: U32,
        /// Zero; ignored.
        @12 reserved: U32,
    }
);

wire_struct!(
    /// The fixed part of ERROR; text in UTF-8 for people follows.
    ErrorHead, 8 {
        /// See [`crate::Code`].
        @0 code: U16,
        /// The kind of the frame that it answers; 0 if none.
        @2 kind: u8,
        /// That frame's flags.
        @3 flags: u8,
        /// Milliseconds to wait before trying again; 0 where the code is not of class retry.
        @4 retry_after_ms: U32,
    }
);

wire_struct!(
    /// CLOSE: the last frame before a close; text in UTF-8 may follow.
    Close, 8 {
        /// See [`crate::Code`].
        @0 code: U16,
        /// How long the slot to come back in is, in tenths of a second; 0: as long as the wait
        /// before it.
        @2 slot_tenths: U16,
        /// Come back no earlier than this many milliseconds, and at a random time within the slot
        /// that follows; 0 where the code is not of class retry.
        @4 come_back_ms: U32,
    }
);
