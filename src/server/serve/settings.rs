//! What the options mean to the machine and to the transport.

use std::num::NonZero;

use tern_core::config::Config;

use crate::directory::token::{Adds, Rules};
use crate::options::{Datagrams, Options, TokenAdds};
use crate::transport::settings::{FreePushes, TransportSettings};

/// Workers if the system does not tell its cores.
const WORKERS_UNKNOWN: NonZero<u16> = NonZero::<u16>::MIN;

/// Connections per worker beyond its sessions: who finds no room is told when to come back, which
/// takes a connection for a round trip. Beyond them QUIC refuses, and clients try ever less often.
const TOLD_AT_ONCE: usize = 1_024;

/// Threads that serve connections: as many as asked for, or one per core this process may use.
pub(super) fn workers(options: &Options) -> u16 {
    NonZero::new(options.workers).unwrap_or_else(cores).get()
}

fn cores() -> NonZero<u16> {
    let cores = std::thread::available_parallelism().ok();
    cores.and_then(|cores| NonZero::<u16>::try_from(cores).ok()).unwrap_or(WORKERS_UNKNOWN)
}

/// What the machine is told.
pub(super) fn machine(options: &Options) -> Config {
    Config {
        content_bytes_max: options.content_bytes_max,
        sends_per_second: options.sends_per_second,
        sends_burst: options.sends_burst,
        user_sends_per_second: options.user_sends_per_second,
        user_sends_burst: options.user_sends_burst,
        asks_per_second: options.asks_per_second,
        asks_burst: options.asks_burst,
        sessions_per_user: options.sessions_per_user,
        channels_per_hour: options.channels_per_hour,
        channels_per_user: options.channels_per_user,
        group_members_max: options.group_members_max,
        recall_ms_max: u64::from(options.recall_seconds) * 1_000,
        edit_ms_max: u64::from(options.edit_seconds) * 1_000,
        blocks_per_user: options.blocks_per_user,
        login_ms_max: options.login_ms_max,
        resume_ms: options.resume_seconds * 1_000, // the option's limit is a week
        window_messages: options.window_messages,
        window_messages_max: options.window_messages_max,
        window_bytes: options.window_bytes,
        sessions_max: options.sessions_max,
        requests_max: options.requests_max,
        come_back_ms: options.come_back_ms,
        heartbeat_wired_ms: options.heartbeat_wired_ms,
        heartbeat_wifi_ms: options.heartbeat_wifi_ms,
        heartbeat_cellular_ms: options.heartbeat_cellular_ms,
        heartbeat_ms_max: options.heartbeat_ms_max,
        datagrams: options.datagrams != Datagrams::Off,
        tokens: options.token_keys.path().is_some(),
    }
}

/// What is asked of tokens, if they are taken.
pub(super) fn tokens(options: &Options) -> Option<Rules> {
    Some(Rules {
        keys: options.token_keys.path()?.to_owned(),
        issuer: options.token_issuer.some().map(str::to_owned),
        audience: options.token_audience.some().map(str::to_owned),
        skew_seconds: options.token_skew_seconds.into(),
        user_claim: options.token_user_claim.0.clone(),
        user_prefix: options.token_user_prefix.0.clone(),
        device_claim: options.token_device_claim.0.clone(),
        adds: match options.token_adds {
            TokenAdds::Nothing => Adds::Nothing,
            TokenAdds::Devices => Adds::Devices,
            TokenAdds::Users => Adds::Users,
        },
    })
}

/// What the transport is told.
pub(super) fn transport(options: &Options) -> TransportSettings {
    TransportSettings {
        heartbeat_ms_max: machine(options).longest_heartbeat_ms(),
        retry_threshold: options.retry_threshold,
        handshake_ms_max: options.login_ms_max,
        connections_max: options.sessions_max.saturating_add(TOLD_AT_ONCE),
        window_bytes: options.window_bytes,
        datagrams: options.datagrams != Datagrams::Off,
        free_pushes: match options.datagrams {
            Datagrams::On | Datagrams::Off => FreePushes::Doubled,
            Datagrams::Single => FreePushes::Single,
            Datagrams::Repeat => FreePushes::Repeated,
        },
        ..TransportSettings::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::{Environment, Flags};

    fn options(name: &'static str, value: &str) -> Options {
        let flags = Flags::new([(name, value.to_owned())]);
        Options::load(&flags, &Environment::default()).expect("valid").0
    }

    #[test]
    fn the_longest_heartbeat_bounds_silence() {
        let options = options("heartbeat-wired-ms", "600000");
        assert_eq!(transport(&options).heartbeat_ms_max, 600_000);
    }

    #[test]
    fn the_longest_resume_fits() {
        assert_eq!(machine(&options("resume-seconds", "604800")).resume_ms, 604_800_000);
    }

    #[test]
    fn there_is_a_worker() {
        assert_eq!(workers(&options("workers", "3")), 3);
        assert!(workers(&options("workers", "0")) > 0);
    }
}
