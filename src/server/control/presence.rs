//! Where devices are and when they logged in: what a running server knows beside the accounts.

use serde::{Deserialize, Serialize};

/// Users that one request may ask about: a worker looks at them within one turn of its loop.
pub const USERS_MAX: usize = 256;

/// One device, as the router sees it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Presence {
    /// Its user's number.
    pub uin: u64,
    /// Its number within the user.
    pub device: u32,
    /// Whether it has a connection with a session.
    pub online: bool,
    /// The network it is on, or was on when it was last here.
    pub network: Network,
    /// How long its connection has been there, in ms; `None` if it is away.
    pub online_ms: Option<u64>,
    /// How long it has said nothing, in ms; `None` if it is away.
    pub silent_ms: Option<u64>,
    /// The interval of its heartbeats in ms; `None` if it is away.
    pub beat_ms: Option<u32>,
    /// How long it has been away, in ms; `None` if it is here, or was not since the server began.
    pub away_ms: Option<u64>,
    /// Whether it is away and its session waits for it.
    pub resumable: bool,
    /// Its newest logins, newest first, in milliseconds since 1970 UTC: four at most. A session
    /// that is resumed is no login.
    pub logins_ms: Vec<u64>,
}

/// A kind of network.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Network {
    /// Its client does not know.
    Unknown,
    /// A cable.
    Wired,
    /// Wireless LAN.
    Wifi,
    /// 3G to 5G.
    Cellular,
}

impl From<tern_protocol::frames::Network> for Network {
    fn from(network: tern_protocol::frames::Network) -> Self {
        use tern_protocol::frames::Network as Wire;
        match network {
            Wire::Unknown => Self::Unknown,
            Wire::Wired => Self::Wired,
            Wire::Wifi => Self::Wifi,
            Wire::Cellular => Self::Cellular,
        }
    }
}

impl std::fmt::Display for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Unknown => "unknown network",
            Self::Wired => "wired",
            Self::Wifi => "wifi",
            Self::Cellular => "cellular",
        })
    }
}
