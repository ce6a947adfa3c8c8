//! What is seen on the wire, one value for each thing that happened.

use std::net::SocketAddr;

use tern_protocol::{DeviceId, Uin};

use crate::capture::Stamp;
use crate::quic::Way;

/// A connection's number in a capture, from 1 in the order in which they open.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ConnectionId(pub u32);

/// Who speaks on a connection, told by LOGIN or RESUME.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Who {
    /// The user.
    pub uin: Uin,
    /// The device.
    pub device: DeviceId,
}

/// Something that happened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Event {
    /// The packet of the capture that completed it, from 1.
    pub packet: u64,
    /// When that was captured.
    pub at: Stamp,
    /// On which connection.
    pub connection: ConnectionId,
    /// Who is at the client's end, once that was said.
    pub who: Option<Who>,
    /// What it was.
    pub what: What,
}

/// By what a frame came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Carrier {
    /// The control stream.
    Stream,
    /// A QUIC datagram.
    Datagram,
}

/// What happened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum What {
    /// A connection began.
    Opened {
        /// The client's address.
        client: SocketAddr,
        /// The server's.
        server: SocketAddr,
    },
    /// A frame was said.
    Frame {
        /// By whom.
        way: Way,
        /// How it came.
        carrier: Carrier,
        /// Whether the same message was said on this connection before.
        is_again: bool,
        /// Header and payload.
        bytes: Vec<u8>,
    },
    /// A side came from another address.
    Moved {
        /// Which side: who sends this way.
        way: Way,
        /// The address that it had.
        from: SocketAddr,
        /// The one that it has.
        to: SocketAddr,
    },
    /// A side changed its keys.
    KeysUpdated {
        /// Which side.
        way: Way,
    },
    /// The key log has no secrets of this connection; what it says stays hidden.
    Sealed,
    /// The connection speaks another protocol than Tern's.
    Foreign {
        /// What it offered.
        protocols: Vec<String>,
    },
    /// The control stream was given up, or another stream used.
    StreamReset {
        /// By whom.
        way: Way,
        /// The stream.
        stream: u64,
        /// Why.
        code: u64,
    },
    /// A side ended the connection.
    Closed {
        /// Which side.
        way: Way,
        /// Why.
        code: u64,
        /// Whether the code is one of Tern's.
        by_application: bool,
        /// Words about it.
        reason: String,
    },
    /// The server no longer knows the connection.
    StatelessReset,
}
