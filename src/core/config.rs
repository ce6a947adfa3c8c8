//! What an operator may set of the machine's behaviour; the server's table of options fills it.

use tern_protocol::frames::Network;
use tern_protocol::limits::CONTENT_BYTES_DEFAULT;

/// Settings of a [`crate::Worker`], the same for all workers.
#[derive(Clone, Debug)]
pub struct Config {
    /// Longest content of a message in bytes.
    pub content_bytes_max: u32,
    /// Messages a device may send a second, over time.
    pub sends_per_second: u32,
    /// Messages a device may send at once after a pause.
    pub sends_burst: u32,
    /// New channels that a user may open an hour.
    pub channels_per_hour: u32,
    /// Channels that a user may be in, groups he left included while they hold something for him.
    pub channels_per_user: usize,
    /// Members of a group.
    pub group_members_max: usize,
    /// Time in ms from connecting to a complete login.
    pub login_ms_max: u64,
    /// Time in ms that a session outlives its connection and can be resumed.
    pub resume_ms: u32,
    /// Unacked pushes per session.
    pub window_messages: u32,
    /// Unacked pushes per session, in bytes of body.
    pub window_bytes: u32,
    /// Sessions of one worker.
    pub sessions_max: usize,
    /// Requests from one worker that another may still have to answer; more are refused as BUSY.
    /// Well above what may be parked in a few shards, so that parked sends alone never stop
    /// others.
    pub requests_max: usize,
    /// Time in ms that clients are asked to wait when the server drains.
    pub come_back_ms: u32,
    /// Heartbeat on a cable in ms.
    pub heartbeat_wired_ms: u32,
    /// Heartbeat on wireless LAN in ms.
    pub heartbeat_wifi_ms: u32,
    /// Heartbeat on cellular and unknown networks in ms: below the 30 s after which many NATs
    /// forget a UDP binding (RFC 9308 §3.2).
    pub heartbeat_cellular_ms: u32,
    /// Whether the transport can carry single frames that may be lost and overtake each other, and
    /// repairs them; announced to clients.
    pub datagrams: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            content_bytes_max: CONTENT_BYTES_DEFAULT as u32,
            sends_per_second: 50,
            sends_burst: 500,
            channels_per_hour: 200,
            channels_per_user: 16_384,
            group_members_max: 100_000,
            login_ms_max: 5_000,
            resume_ms: 600_000,
            window_messages: 64,
            window_bytes: 128 * 1024,
            sessions_max: 1_000_000,
            requests_max: 32_768,
            come_back_ms: 1_000,
            heartbeat_wired_ms: 10_000,
            heartbeat_wifi_ms: 30_000,
            heartbeat_cellular_ms: 25_000,
            datagrams: true,
        }
    }
}

impl Config {
    /// Milliseconds between two heartbeats on a network.
    pub fn heartbeat_ms(&self, network: Network) -> u32 {
        match network {
            Network::Wired => self.heartbeat_wired_ms,
            Network::Wifi => self.heartbeat_wifi_ms,
            Network::Cellular | Network::Unknown => self.heartbeat_cellular_ms,
        }
    }

    /// The longest of them.
    pub fn heartbeat_ms_max(&self) -> u32 {
        self.heartbeat_wired_ms.max(self.heartbeat_wifi_ms).max(self.heartbeat_cellular_ms)
    }
}
