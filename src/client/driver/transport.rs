//! QUIC as a client of Tern uses it: every setting that matters is named here, none is left to
//! the library's default by accident.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use quinn::{ClientConfig, IdleTimeout, TransportConfig, VarInt};

use super::ConnectError;
use super::tls::{self, Trust};

/// Round-trip time in ms that is assumed on a network not seen before. QUIC's 333 ms make a lost
/// first packet cost a second; at 100 ms it costs 300 ms, and a path that is slower only sends
/// its first packet twice.
const INITIAL_RTT_MS: u32 = 100;

/// Bounds in ms of what a remembered round-trip time may set: below, a hiccup would already send
/// twice; above, a lost first packet costs over a second again.
const INITIAL_RTT_MS_BOUNDS: (u32, u32) = (20, 400);

/// Silence in ms after which QUIC forgets the connection: three of the longest heartbeats. The
/// machine notices far earlier.
const IDLE_MS_MAX: u32 = 90_000;

/// Bytes that the server may send ahead of the application: twice its own window of pushes, so
/// that its answers are never stuck behind them.
const RECEIVE_WINDOW_BYTES: u32 = 256 * 1024;

/// Bytes that may be on their way to the server, and be kept for sending again: all 64 sends of
/// the default content limit fit.
const SEND_WINDOW_BYTES: u64 = 256 * 1024;

/// Bytes of datagrams that may wait to be read. QUIC has acknowledged them, so none may be dropped:
/// four times the server's default window.
const DATAGRAMS_IN_BYTES: usize = 512 * 1024;

/// Bytes of datagrams that may wait to be sent; what finds no room goes by stream.
const DATAGRAMS_OUT_BYTES: usize = 64 * 1024;

/// The configuration of a connection.
pub(super) fn client_config(
    trust: &Trust,
    rtt_ms: Option<u32>,
) -> Result<ClientConfig, ConnectError> {
    let mut config = ClientConfig::new(Arc::new(tls::client_config(trust)?));
    config.transport_config(Arc::new(quic_settings(rtt_ms)));
    Ok(config)
}

/// QUIC's settings for a connection, with the round trip of the network if it is known, in ms.
pub fn quic_settings(rtt_ms: Option<u32>) -> TransportConfig {
    let (low, high) = INITIAL_RTT_MS_BOUNDS;
    let rtt_ms = rtt_ms.unwrap_or(INITIAL_RTT_MS).clamp(low, high);
    let mut transport = TransportConfig::default();
    transport
        .initial_rtt(Duration::from_millis(u64::from(rtt_ms)))
        .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(IDLE_MS_MAX))))
        .keep_alive_interval(None) // the heartbeat is the machine's
        .max_concurrent_bidi_streams(VarInt::from_u32(0)) // the server opens none
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .stream_receive_window(VarInt::from_u32(RECEIVE_WINDOW_BYTES))
        .receive_window(VarInt::from_u32(RECEIVE_WINDOW_BYTES))
        .send_window(SEND_WINDOW_BYTES)
        .mtu_discovery_config(None) // eight packets more at each start, for messages of 100 bytes
        .datagram_receive_buffer_size(Some(DATAGRAMS_IN_BYTES))
        .datagram_send_buffer_size(DATAGRAMS_OUT_BYTES);
    transport
}

/// An address of this machine from which `server` can be reached, any port.
pub(super) fn local_address(bind: Option<SocketAddr>, server: SocketAddr) -> SocketAddr {
    match bind {
        Some(bind) => bind,
        None if server.is_ipv4() => SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0),
        None => SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0),
    }
}
