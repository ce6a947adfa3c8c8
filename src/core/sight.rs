//! What an operator may see of users' devices: where each is, since when, and its newest logins.
//!
//! Only looked at, never decided by. A device's home shard knows whether it has a session and on
//! which connection; the worker of that connection knows when it was last heard.

use tern_protocol::frames::Network;
use tern_protocol::{DeviceId, UnixMillis};

use crate::mail::SessionRef;

/// Login times that are kept of a device: three intervals.
pub const LOGINS_KEPT: usize = 4;

/// What a device's home shard knows of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DeviceSight {
    /// Its number within its user.
    pub device: DeviceId,
    /// Where it is.
    pub place: Place,
    /// The network it is on, or was on when it was last here.
    pub network: Network,
    /// When it newest logged in, newest first; 0 where it did not as often.
    pub logins: [UnixMillis; LOGINS_KEPT],
}

/// Where a device is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// It has this session.
    Online(SessionRef),
    /// It has none, since so many ms ago; one that ended waits for it if `resumable`.
    Away {
        /// `None`: since this process began, or earlier.
        for_ms: Option<u64>,
        /// Whether the session can still be resumed.
        resumable: bool,
    },
}

/// What the worker of a session knows of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SessionSight {
    /// How long its connection has been there, in ms.
    pub online_ms: u64,
    /// How long it has said nothing, in ms.
    pub silent_ms: u64,
    /// The interval of its heartbeats in ms; after three of them in silence it is offline.
    pub beat_ms: u32,
}
