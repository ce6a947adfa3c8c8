//! What an operator may set of the machine's behaviour; the server's table of options fills it.

use tern_protocol::frames::Network;
use tern_protocol::limits::CONTENT_BYTES_DEFAULT;

use crate::limiter::Rate;

/// The shortest heartbeat in ms that a client may ask for, unless the start is shorter: where not
/// even this works, bindings are not what is lost.
const HEARTBEAT_MS_MIN: u32 = 5_000;

/// Milliseconds in a second.
const MS_PER_SECOND: u64 = 1_000;

/// Settings of a [`crate::Worker`], the same for all workers.
#[derive(Clone, Debug)]
pub struct Config {
    /// Longest content of a message in bytes.
    pub content_bytes_max: u32,
    /// Messages a device may send a second, over time.
    pub sends_per_second: u32,
    /// Messages a device may send at once after a pause.
    pub sends_burst: u32,
    /// Messages that all devices of a user together may send a second, over time; 0: four times
    /// what one device may.
    pub user_sends_per_second: u32,
    /// Messages that they may send at once after a pause; 0: four times what one device may.
    pub user_sends_burst: u32,
    /// FETCH and PING that a connection may say a second, over time.
    pub asks_per_second: u32,
    /// FETCH and PING that it may say at once after a pause.
    pub asks_burst: u32,
    /// Devices of a user that may be connected at the same time.
    pub sessions_per_user: u32,
    /// New channels that a user may open an hour.
    pub channels_per_hour: u32,
    /// Channels that a user may be in. Groups that he left do not count, unless they are as many
    /// again and hold something for him.
    pub channels_per_user: usize,
    /// Members of a group.
    pub group_members_max: usize,
    /// For how long after it was accepted a message can be recalled, in ms.
    pub recall_ms_max: u64,
    /// For how long after it was accepted a message can be edited, in ms.
    pub edit_ms_max: u64,
    /// Others that a user may have blocked, in each shard.
    pub blocks_per_user: usize,
    /// Time in ms from connecting to a complete login.
    pub login_ms_max: u64,
    /// Time in ms that a session outlives its connection and can be resumed.
    pub resume_ms: u32,
    /// Unacked pushes per session, at its start.
    pub window_messages: u32,
    /// Unacked pushes per session that acks as quickly as they come.
    pub window_messages_max: u32,
    /// Unacked pushes per session, in bytes of body.
    pub window_bytes: u32,
    /// Sessions of one worker.
    pub sessions_max: usize,
    /// Requests from one worker that another may still have to answer; more are refused as BUSY.
    /// Well above what may be parked in a few shards, so that parked sends alone never stop
    /// others.
    pub requests_max: usize,
    /// Time in ms that clients are asked to wait when the server drains or is full, before the slot
    /// in which they come back.
    pub come_back_ms: u32,
    /// Heartbeat on a cable in ms.
    pub heartbeat_wired_ms: u32,
    /// Heartbeat on wireless LAN in ms.
    pub heartbeat_wifi_ms: u32,
    /// Heartbeat on cellular and unknown networks in ms: below the 30 s after which many NATs
    /// forget a UDP binding (RFC 9308 §3.2).
    pub heartbeat_cellular_ms: u32,
    /// The longest heartbeat in ms that a client may learn, on whatever network; one that is
    /// configured to be longer counts for its network.
    pub heartbeat_ms_max: u32,
    /// Whether the transport can carry single frames that may be lost and overtake each other, and
    /// repairs them; announced to clients.
    pub datagrams: bool,
    /// Whether the directory can check tokens; announced to clients.
    pub tokens: bool,
}

/// What all devices of a user together may send, as many times what one device may, unless the
/// operator set it: few people write on more than a few devices at once.
const DEVICES_AT_ONCE: u32 = 4;

impl Default for Config {
    fn default() -> Self {
        Self {
            content_bytes_max: CONTENT_BYTES_DEFAULT as u32,
            sends_per_second: 50,
            sends_burst: 500,
            user_sends_per_second: 0,
            user_sends_burst: 0,
            asks_per_second: 50,
            asks_burst: 500,
            sessions_per_user: 32,
            channels_per_hour: 200,
            channels_per_user: 16_384,
            group_members_max: 100_000,
            recall_ms_max: 48 * 3_600_000,
            edit_ms_max: 48 * 3_600_000,
            blocks_per_user: 1_000,
            login_ms_max: 5_000,
            resume_ms: 600_000,
            window_messages: 64,
            window_messages_max: 1_024,
            window_bytes: 128 * 1024,
            sessions_max: 1_000_000,
            requests_max: 32_768,
            come_back_ms: 1_000,
            heartbeat_wired_ms: 10_000,
            heartbeat_wifi_ms: 30_000,
            heartbeat_cellular_ms: 25_000,
            heartbeat_ms_max: 30_000,
            datagrams: true,
            tokens: false,
        }
    }
}

impl Config {
    /// How often a device may send.
    pub fn device_rate(&self) -> Rate {
        Rate::new(self.sends_per_second, MS_PER_SECOND, self.sends_burst)
    }

    /// How often all devices of a user together may send.
    pub fn user_rate(&self) -> Rate {
        let or_many = |user: u32, device: u32| match user {
            0 => device.saturating_mul(DEVICES_AT_ONCE),
            set => set,
        };
        Rate::new(
            or_many(self.user_sends_per_second, self.sends_per_second),
            MS_PER_SECOND,
            or_many(self.user_sends_burst, self.sends_burst),
        )
    }

    /// How often a connection may say FETCH or PING.
    pub fn asks_rate(&self) -> Rate {
        Rate::new(self.asks_per_second, MS_PER_SECOND, self.asks_burst)
    }

    /// Milliseconds until the next heartbeat on a network, if the client wants so many; 0: it
    /// wants what is usual there.
    pub fn beat_ms(&self, network: Network, wanted_ms: u32) -> u32 {
        let start_ms = self.heartbeat_ms(network);
        match wanted_ms {
            0 => start_ms,
            wanted_ms => {
                wanted_ms.clamp(start_ms.min(HEARTBEAT_MS_MIN), start_ms.max(self.heartbeat_ms_max))
            }
        }
    }

    /// Milliseconds between two heartbeats on a network, to begin with.
    fn heartbeat_ms(&self, network: Network) -> u32 {
        match network {
            Network::Wired => self.heartbeat_wired_ms,
            Network::Wifi => self.heartbeat_wifi_ms,
            Network::Cellular | Network::Unknown => self.heartbeat_cellular_ms,
        }
    }

    /// Messages that may be unacked in a window that has grown as far as it may.
    pub fn longest_window(&self) -> u32 {
        self.window_messages_max.max(self.window_messages)
    }

    /// The longest that a client is told.
    pub fn longest_heartbeat_ms(&self) -> u32 {
        let networks =
            [self.heartbeat_wired_ms, self.heartbeat_wifi_ms, self.heartbeat_cellular_ms];
        networks.into_iter().fold(self.heartbeat_ms_max, u32::max)
    }
}
