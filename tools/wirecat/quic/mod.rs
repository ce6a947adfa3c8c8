//! QUIC version 1 as a listener sees it: RFC 9000 (packets and frames), RFC 9001 (protection),
//! RFC 9221 (datagrams).
//!
//! - [`bytes`]: reading numbers; [`header`]: where packets begin and end.
//! - [`protection`]: keys, and packets opened with them.
//! - [`frame`]: what a packet says; [`hello`]: the little of TLS that a listener needs.
//! - [`ranges`], [`assembler`]: packet numbers seen, and stream bytes put in order.
//! - [`connection`]: one connection; [`tracker`]: which connection a datagram belongs to.

pub mod bytes;
pub mod header;

pub mod protection;

pub mod frame;
pub mod hello;

pub mod assembler;
pub mod ranges;

pub mod connection;
pub mod tracker;

/// Who sent something.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Way {
    /// The client, to the server.
    ToServer,
    /// The server, to the client.
    ToClient,
}

impl Way {
    /// The other way.
    pub fn back(self) -> Self {
        match self {
            Self::ToServer => Self::ToClient,
            Self::ToClient => Self::ToServer,
        }
    }
}
