//! Every setting of QUIC, each set explicitly: a default that changes with a version of the
//! library must not change this server.
//!
//! [`TransportSettings`] is what an operator may choose; the rest are constants with their
//! reasons.

use std::sync::Arc;
use std::time::Duration;

use quinn_proto::{
    EndpointConfig, IdleTimeout, ServerConfig, TransportConfig, ValidationTokenConfig, VarInt,
};
use ring::{hkdf, hmac};
use tern_core::config::Config;
use tern_core::placement::WorkerId;
use tern_protocol::limits::{FRAME_BYTES_MAX, MISSED_BEATS_MAX};

use crate::arrivals::ListeningConfig;
use crate::session::{BriefTls, QUIC_VERSION};
use crate::steering::WorkerIds;

/// Bytes of the key that seals Retry and address tokens.
pub const TOKEN_KEY_BYTES: usize = 64;

/// Bytes of the key from which stateless reset tokens are derived.
pub const RESET_KEY_BYTES: usize = 32;

/// Bidirectional streams a client may have open: its control stream, and one more that is
/// answered with a named close instead of leaving the client to wait for credit for ever. Each
/// permitted stream costs an entry of about 16 bytes per connection from the start.
const BIDI_STREAMS: u32 = 2;

/// Unidirectional streams a client may have open: none is used, so the one it can open is
/// answered with a named close.
const UNI_STREAMS: u32 = 1;

/// Bytes a client may send ahead on its stream: one frame of the largest size.
const STREAM_WINDOW_BYTES: u32 = 64 << 10;

/// Bytes a client may send ahead in all.
const CONNECTION_WINDOW_BYTES: u32 = 256 << 10;

/// Bytes sent to a client and not acknowledged that quinn keeps; what is more waits in the log.
const SEND_WINDOW_BYTES: u64 = 256 << 10;

/// Bytes of a client's datagrams that may wait to be read: all 64 unanswered sends of a device, if
/// each fills a packet. They are read in the turn in which they come.
const DATAGRAMS_IN_BYTES: usize = 96 << 10;

/// Bytes of datagrams that may wait to be sent to a client; what finds no room goes by stream.
const DATAGRAMS_OUT_BYTES: usize = 64 << 10;

/// First guess of the round trip. The RFC's 333 ms make a lost first packet cost a second; at
/// 100 ms it costs 300 (measured: 99 % of logins within a second at 3.5 % loss, against 93 %).
const INITIAL_RTT: Duration = Duration::from_millis(100);

/// Bytes of datagrams until a larger size were proven, which is never tried: RFC 9000 §14.1
/// demands that every path carries this, and a chat message seldom needs more.
const MTU_BYTES: u16 = 1_200;

/// Largest UDP payload accepted, in bytes: an Ethernet frame less the headers of IPv4 and UDP.
const UDP_PAYLOAD_BYTES_MAX: u16 = 1_472;

/// Packets that may overtake one before it counts as lost (RFC 9002 §6.1.1).
const PACKET_THRESHOLD: u32 = 3;

/// How many round trips late a packet may be before it counts as lost (RFC 9002 §6.1.2).
const TIME_THRESHOLD: f32 = 9.0 / 8.0;

/// Probe timeouts that make persistent congestion (RFC 9002 §7.6.1).
const PERSISTENT_CONGESTION: u32 = 3;

/// Bytes of handshake data that may come out of order: a client's hello fits many times.
const CRYPTO_BUFFER_BYTES: usize = 16 << 10;

/// Connection attempts that may wait in the endpoint. The worker decides about each at once, so
/// this bounds an attempt that comes while it decides.
const INCOMING_MAX: usize = 1_024;

/// Bytes that one such attempt may buffer.
const INCOMING_BYTES: u64 = 16 << 10;

/// Bytes that all of them may buffer.
const INCOMING_BYTES_ALL: u64 = 4 << 20;

/// How long a Retry token is good: a client answers within a round trip.
const RETRY_TOKEN_LIFE: Duration = Duration::from_secs(15);

/// Address tokens given for later connections: none, since only a connection under attack would
/// spare a round trip by one, and each costs memory to be used once only.
const ADDRESS_TOKENS: u32 = 0;

/// Their life, were any given.
const ADDRESS_TOKEN_LIFE: Duration = Duration::from_secs(24 * 60 * 60);

/// Least time between two stateless resets that answer unknown packets, per worker: 5,000 a
/// second, so that a crowd of clients that outlived a restart is told within seconds, while
/// spoofed packets draw less traffic than they cost (a reset is smaller than what it answers).
const RESET_INTERVAL: Duration = Duration::from_micros(200);

/// What an operator chooses about the transport.
#[derive(Clone, Debug)]
pub struct TransportSettings {
    /// Longest heartbeat of a client in ms; a connection that is silent for three of them is
    /// gone. See `tern_core::config::Config::heartbeat_ms_max`.
    pub heartbeat_ms_max: u32,
    /// Handshakes of unproven addresses under way per worker from which on a new one must first
    /// answer a Retry: one more round trip for clients, bounded memory (about 17 KB each) for the
    /// server.
    pub retry_threshold: usize,
    /// Handshakes under way per worker, proven addresses included, beyond which a new one is
    /// ignored; the client tries again by itself.
    pub handshakes_max: usize,
    /// Time in ms for a handshake; slower ones are dropped.
    pub handshake_ms_max: u64,
    /// Connections per worker; more are refused.
    pub connections_max: usize,
    /// The window of unacknowledged pushes of a session in bytes; see
    /// `tern_core::config::Config::window_bytes`. What of it a client's stream does not take
    /// waits in memory.
    pub window_bytes: u32,
    /// Whether clients may send by QUIC datagram, and be pushed so; see
    /// `tern_core::config::Config::datagrams`.
    pub datagrams: bool,
    /// How they are pushed so.
    pub free_pushes: FreePushes,
}

/// How pushes travel whose order need not be kept, to clients that take datagrams.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FreePushes {
    /// By datagram, and by two where the path may lose packets (`tern_protocol::doubling`); what is
    /// not acknowledged in time goes by stream.
    Doubled,
    /// By one datagram, and by stream what is not acknowledged in time.
    Single,
    /// By stream, and by datagram what is not acknowledged in time.
    Repeated,
}

impl Default for TransportSettings {
    fn default() -> Self {
        let machine = Config::default();
        Self {
            heartbeat_ms_max: machine.longest_heartbeat_ms(),
            retry_threshold: 64,
            handshakes_max: 1_024,
            handshake_ms_max: machine.login_ms_max,
            connections_max: machine.sessions_max,
            window_bytes: machine.window_bytes,
            datagrams: machine.datagrams,
            free_pushes: FreePushes::Doubled,
        }
    }
}

/// The keys that outlive the process; they stand in the data folder and all workers share them.
#[derive(Clone)]
pub struct TransportKeys {
    /// Seals Retry tokens, so that any worker accepts what another one gave.
    pub token: [u8; TOKEN_KEY_BYTES],
    /// Makes reset tokens, so that a restarted server can end the connections of the old one.
    pub reset: [u8; RESET_KEY_BYTES],
}

impl std::fmt::Debug for TransportKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TransportKeys")
    }
}

impl TransportKeys {
    /// The key of the reset tokens.
    pub fn reset_key(&self) -> hmac::Key {
        hmac::Key::new(hmac::HMAC_SHA256, &self.reset)
    }
}

/// QUIC's settings for connections.
pub fn transport(settings: &TransportSettings) -> TransportConfig {
    let idle_ms = settings.heartbeat_ms_max.saturating_mul(MISSED_BEATS_MAX);
    let mut config = TransportConfig::default();
    config
        .max_concurrent_bidi_streams(VarInt::from_u32(BIDI_STREAMS))
        .max_concurrent_uni_streams(VarInt::from_u32(UNI_STREAMS))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW_BYTES))
        .receive_window(VarInt::from_u32(CONNECTION_WINDOW_BYTES))
        .send_window(SEND_WINDOW_BYTES)
        .send_fairness(false) // one stream: nothing to be fair between
        .datagram_receive_buffer_size(settings.datagrams.then_some(DATAGRAMS_IN_BYTES))
        .datagram_send_buffer_size(DATAGRAMS_OUT_BYTES)
        .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(idle_ms))))
        .keep_alive_interval(None) // the client's heartbeat does it
        .initial_rtt(INITIAL_RTT)
        .initial_mtu(MTU_BYTES)
        .min_mtu(MTU_BYTES)
        .mtu_discovery_config(None) // eight packets each way per connection, for small messages
        .pad_to_mtu(false)
        .packet_threshold(PACKET_THRESHOLD)
        .time_threshold(TIME_THRESHOLD)
        .persistent_congestion_threshold(PERSISTENT_CONGESTION)
        .ack_frequency_config(None)
        .crypto_buffer_size(CRYPTO_BUFFER_BYTES)
        .allow_spin(false) // it would tell an observer the round trip
        .congestion_controller_factory(Arc::new(ListeningConfig::default()))
        .enable_segmentation_offload(true);
    config
}

/// QUIC's settings for accepting connections.
///
/// # Panics
/// If `tls` has no AES-128-GCM, which QUIC needs for its first packets.
pub fn server(
    settings: &TransportSettings,
    keys: &TransportKeys,
    tls: Arc<rustls::ServerConfig>,
) -> ServerConfig {
    let crypto = BriefTls::new(tls).expect("the server's provider has AES-128-GCM");
    server_over(settings, keys, crypto)
}

/// The same over any cryptography.
pub fn server_over(
    settings: &TransportSettings,
    keys: &TransportKeys,
    crypto: Arc<dyn quinn_proto::crypto::ServerConfig>,
) -> ServerConfig {
    let token_key = hkdf::Salt::new(hkdf::HKDF_SHA256, &[]).extract(&keys.token);
    let mut tokens = ValidationTokenConfig::default();
    tokens.sent(ADDRESS_TOKENS).lifetime(ADDRESS_TOKEN_LIFE);
    let mut config = ServerConfig::new(crypto, Arc::new(token_key));
    config
        .transport_config(Arc::new(transport(settings)))
        .validation_token_config(tokens)
        .retry_token_lifetime(RETRY_TOKEN_LIFE)
        .migration(true) // phones change networks
        .preferred_address_v4(None)
        .preferred_address_v6(None)
        .max_incoming(INCOMING_MAX)
        .incoming_buffer_size(INCOMING_BYTES)
        .incoming_buffer_size_total(INCOMING_BYTES_ALL);
    config
}

/// QUIC's settings for a worker's endpoint.
///
/// # Panics
/// If there are more workers than connection ids can name.
pub fn endpoint(keys: &TransportKeys, worker: WorkerId, workers: u16) -> EndpointConfig {
    endpoint_over(keys, move || WorkerIds::new(worker, workers))
}

/// The same with connection ids from elsewhere.
pub fn endpoint_over(
    keys: &TransportKeys,
    ids: impl Fn() -> WorkerIds + Send + Sync + 'static,
) -> EndpointConfig {
    let mut config = EndpointConfig::new(Arc::new(keys.reset_key()));
    config
        .cid_generator(move || Box::new(ids()))
        .supported_versions(vec![QUIC_VERSION])
        .grease_quic_bit(true)
        .min_reset_interval(RESET_INTERVAL)
        .rng_seed(None) // from the system
        .max_udp_payload_size(UDP_PAYLOAD_BYTES_MAX)
        .expect("within the bounds of RFC 9000 §18.2");
    config
}

const _: () = {
    // A frame must be able to come whole: the window is renewed as it is read, so it only needs
    // to hold a good part of the largest one.
    assert!(STREAM_WINDOW_BYTES as usize * 2 > FRAME_BYTES_MAX);
    assert!(CONNECTION_WINDOW_BYTES >= STREAM_WINDOW_BYTES);
    assert!(UDP_PAYLOAD_BYTES_MAX >= MTU_BYTES);
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_idle_timeout_is_three_heartbeats() {
        let settings = TransportSettings { heartbeat_ms_max: 7_000, ..Default::default() };
        let shown = format!("{:?}", transport(&settings));
        assert!(shown.contains("max_idle_timeout: Some(21000)"), "{shown}");
    }

    #[test]
    fn every_setting_is_as_written_here() {
        let shown = format!("{:?}", transport(&TransportSettings::default()));
        for setting in [
            "max_concurrent_bidi_streams: 2",
            "max_concurrent_uni_streams: 1",
            "stream_receive_window: 65536",
            "receive_window: 262144",
            "send_window: 262144",
            "initial_rtt: 100ms",
            "mtu_discovery_config: None",
            "keep_alive_interval: None",
            "datagram_receive_buffer_size: Some(98304)",
        ] {
            assert!(shown.contains(setting), "{setting} is not in {shown}");
        }
    }
}
