//! The one table of what an operator may set, and where the values come from.
//!
//! A row of [`TABLE`] feeds the flag of `tern serve`, the environment variable, the key of the
//! TOML file, the list that `tern options` prints and `OPTIONS.md` (compared by a test). In comes
//! text from four layers, of which the first that names an option wins: flag, environment, file,
//! default (a preset replaces defaults). Out go [`Options`], each value within its limits, or an
//! [`OptionError`] that says option, value, limit and where the value came from.

mod error;
mod layers;
mod text;
mod value;

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;

use tern_core::placement::SHARDS_MAX;
use tern_protocol::limits::{CONTENT_BYTES_MAX, PAYLOAD_BYTES_MAX};
use tern_storage::{SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN};

pub use error::OptionError;
pub use layers::{Environment, Flags, Source, Values};
pub use text::{listing, markdown};
pub use value::{
    Advertise, Datagrams, Days, Durability, Names, OptionalPath, Preset, Switch, Text, TokenAdds,
    WhenFull,
};

/// One row of the table.
#[derive(Clone, Debug)]
pub struct Row {
    /// The flag without its dashes, and the key in the file.
    pub name: &'static str,
    /// Its value unless set.
    pub default: &'static str,
    /// What the value counts, or its form.
    pub unit: &'static str,
    /// Least and most, for a number.
    pub limits: Option<RangeInclusive<u64>>,
    /// What it does.
    pub sentence: &'static str,
    /// What it costs, or what it trades.
    pub cost: &'static str,
}

impl Row {
    /// The environment variable.
    pub fn variable(&self) -> String {
        format!("TERN_{}", self.name.to_uppercase().replace('-', "_"))
    }
}

macro_rules! options {
    ($($field:ident $name:literal: $type:ty = $default:literal $unit:literal [$($limits:expr)?]
        $sentence:literal $cost:literal;)*) => {
        /// Everything an operator may set, read and within its limits.
        #[derive(Clone, Debug)]
        pub struct Options { $(#[doc = $sentence] pub $field: $type,)* }

        /// Every row of the table.
        pub static TABLE: &[Row] = &[$(Row {
            name: $name,
            default: $default,
            unit: $unit,
            limits: options!(@limits $($limits)?),
            sentence: $sentence,
            cost: $cost,
        },)*];

        impl Options {
            fn read(values: &Values) -> Result<Self, OptionError> {
                Ok(Self { $($field: values.read::<$type>($name)?,)* })
            }
        }
    };
    (@limits) => { None };
    (@limits $limits:expr) => { Some($limits) };
}

options! {
    data "data": PathBuf = "./tern-data" "DIR" []
        "The data folder; made if absent, for its owner only."
        "Log, directory, keys and profiles lie in it; one server at a time holds it.";
    listen "listen": SocketAddr = "127.0.0.1:5190" "ADDR:PORT" []
        "Where to listen for QUIC, one UDP port for all workers; port 0 takes a free one."
        "Beyond loopback every machine that reaches the port may try to log in.";
    advertise "advertise": Advertise = "" "HOST:PORT" []
        "The address that profiles name; empty: the one listened on, loopback if that is every one."
        "None; devices that can't reach it can't connect.";
    name "name": Names = "" "NAME,…" []
        "Further names and addresses for the self-signed certificate, used only when it is made."
        "None; clients that pin the certificate don't need it.";
    workers "workers": u16 = "0" "threads" [0..=256]
        "Threads that each own a socket, its connections and some shards; 0: one per core."
        "A core each under load; may change at every start.";
    pin_workers "pin-workers": Switch = "on" "on|off" []
        "Whether each worker stays on a core of its own."
        "on: several servers on one machine share the first cores; off: threads move, with cold caches.";
    shards "shards": u16 = "0" "shards" [0..=SHARDS_MAX as u64]
        "Logs that the data folder is made with, fixed from then on; 0: what it has, 4 if new."
        "Each reserves disk and has commits of its own; more shards than workers leave room to grow.";
    durability "durability": Durability = "disk" "disk|process" []
        "When an ack may leave: after fdatasync, or once the kernel has the bytes."
        "disk: a sync of the disk in each ack's time; process: a power cut loses acked messages.";
    commit_threads "commit-threads": usize = "1" "threads" [1..=64]
        "Threads that write and sync the logs."
        "More of them than disks split the group commit and slow it.";
    log_bytes_max "log-bytes-max": u64 = "0" "bytes" [0..=u64::MAX >> 1]
        "Most that all logs together may reserve; 0: until the disk is full. `when-full` says what happens then."
        "That much disk.";
    retention_days "retention-days": Days = "7" "days" []
        "How long messages are kept, such as 7 or 0.5; 0: for ever. Only confirmed time counts, so a clock that jumps deletes nothing."
        "Disk for that many days; devices that were away longer are told which messages have expired.";
    when_full "when-full": WhenFull = "refuse" "refuse|evict" []
        "When the room for logs is used up: refuse sends until there is some, or let the oldest messages go before their time."
        "refuse: nobody can send; evict: devices that were away are told which messages have expired.";
    segment_bytes "segment-bytes": u64 = "4194304" "bytes" [SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX]
        "The first files of a log; each is twice as long as the one before while they fill fast."
        "Disk reserved ahead, twice for each shard; short files delete finely, and are made often.";
    segment_bytes_max "segment-bytes-max": u64 = "67108864" "bytes" [SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX]
        "The longest files of a log."
        "As for `segment-bytes`; messages are deleted by whole files, and a start reads the newest again.";
    checkpoint_bytes "checkpoint-bytes": u64 = "67108864" "bytes" [1..=u64::MAX >> 1]
        "Finished log that is worth a checkpoint: what a start reads again at most, or twice a checkpoint if that is more."
        "Few bytes: checkpoints are made often; many: a start takes longer.";
    shared_memory "shared-memory": PathBuf = "/dev/shm" "DIR" []
        "A file system in memory, for what outlives a killed server: tables against repeats, lists of connections."
        "Up to 64 bytes of memory per device and shard; without it they go into the data folder.";
    trace_bytes "trace-bytes": u64 = "8388608" "bytes" [0..=1 << 34]
        "Room of the flight recorder, which says what happened to messages lately (`tern trace`); 0: none. A message to one device takes about 500 bytes, each further device 200."
        "That much shared memory, as long as the machine runs, and about 0.1 µs of processor time a message.";
    content_bytes_max "content-bytes-max": u32 = "1440" "bytes" [1..=CONTENT_BYTES_MAX as u64]
        "Longest content of a message."
        "Up to 1,440 bytes a message is one datagram; a longer one needs all of its packets to come.";
    preset "preset": Preset = "none" "none|strict" []
        "Replaces defaults by a set of others; strict: one message a second for a user, without a burst."
        "None; a value set by hand goes before the preset.";
    sends_per_second "sends-per-second": u32 = "50" "messages/s per device" [1..=1_000_000]
        "Messages that a device may send over time."
        "Bounds what one device can cost everyone in disk and processor.";
    sends_burst "sends-burst": u32 = "500" "messages per device" [1..=1_000_000]
        "Messages that a device may send at once after a pause."
        "That many messages of each device may come in the same second.";
    user_sends_per_second "user-sends-per-second": u32 = "0" "messages/s per user" [0..=1_000_000]
        "Messages that all devices of a user together may send over time; 0: four times what one device may."
        "Bounds what one user can cost everyone, with however many devices.";
    user_sends_burst "user-sends-burst": u32 = "0" "messages per user" [0..=1_000_000]
        "Messages that all devices of a user together may send at once after a pause; 0: four times what one device may."
        "That many messages of each user may come in the same second.";
    asks_per_second "asks-per-second": u32 = "50" "requests/s per connection" [1..=1_000_000]
        "FETCH and PING that a client may say over time."
        "Each FETCH reads up to a page of the log again.";
    asks_burst "asks-burst": u32 = "500" "requests per connection" [1..=1_000_000]
        "FETCH and PING that a client may say at once after a pause."
        "That many pages of the log may be read again in the same second, for each connection.";
    sessions_per_user "sessions-per-user": u32 = "32" "devices per user" [1..=1_000_000]
        "Devices of a user that may be connected at the same time; one more is told to come back in half a minute."
        "Each message of a user's channels goes to all of them.";
    channels_per_hour "channels-per-hour": u32 = "200" "channels/h per user" [1..=1_000_000]
        "New channels that a user may open."
        "Each new channel costs a directory look-up, a record for each member and memory.";
    channels_per_user "channels-per-user": usize = "16384" "channels per user" [1..=1_000_000]
        "Channels that a user may be in, direct ones and groups together; groups that he left do not count."
        "Some hundred bytes of memory each, and a row of the list that each login reads.";
    devices_per_user "devices-per-user": u32 = "100" "devices per user" [1..=1_000_000]
        "Devices that a user may have, revoked ones not counted."
        "Up to 64 bytes of memory per device and shard, and a row of the directory.";
    group_members_max "group-members-max": usize = "100000" "members per group" [1..=10_000_000]
        "Members that a group may have."
        "Some hundred bytes of memory each; a message costs a delivery for each session that is online.";
    token_keys "token-keys": OptionalPath = "" "FILE" []
        "Public keys of your own system, whose tokens (JWT, by EdDSA or RS256) are then taken for logins: a JSON Web Key Set or PEM. Read again when it changes, on SIGHUP and by `tern tokens reload`; empty: no tokens."
        "Whoever has one of the private keys is everybody.";
    token_issuer "token-issuer": Text = "" "TEXT" []
        "What the claim `iss` of a token must be; empty: anything."
        "None.";
    token_audience "token-audience": Text = "" "TEXT" []
        "What the claim `aud` of a token must be or hold; empty: the token must have none."
        "Without it a token for another service by the same keys may be taken here.";
    token_skew_seconds "token-skew-seconds": u32 = "60" "s" [0..=3_600]
        "How far the clock of your own system may differ, for `exp` and `nbf` of a token."
        "An expired token is taken for that long.";
    token_user_claim "token-user-claim": Text = "sub" "CLAIM" []
        "The claim of a token that holds the user's name."
        "None.";
    token_user_prefix "token-user-prefix": Text = "" "TEXT" []
        "What stands before that claim in the user's name here; needed where it is a number, which no name may be."
        "None.";
    token_device_claim "token-device-claim": Text = "device" "CLAIM" []
        "The claim of a token that holds the device's label."
        "None.";
    token_adds "token-adds": TokenAdds = "nothing" "nothing|devices|users" []
        "What a first token adds: nothing; unknown devices of users that are there; or unknown users with their devices."
        "users: your own system decides alone who there is; users are never removed here, only disabled.";
    recall_seconds "recall-seconds": u32 = "172800" "s" [0..=31_536_000]
        "For how long after it was accepted a message can be recalled, by its author or who stands above the author in a group."
        "A bit of memory for each recalled message that is kept; a long time lets people unsay what others rely on.";
    edit_seconds "edit-seconds": u32 = "172800" "s" [0..=31_536_000]
        "For how long after it was accepted its author can edit a message."
        "Each edit is a message more; a long time lets people change what others rely on.";
    blocks_per_user "blocks-per-user": usize = "1000" "users per user and shard" [1..=1_000_000]
        "Others that a user may have blocked; each shard counts those whose direct channel it owns."
        "Some hundred bytes of memory each.";
    login_ms_max "login-ms-max": u64 = "5000" "ms" [100..=600_000]
        "From connecting to a complete login; who takes longer is disconnected."
        "A connection's memory, about 30 KB, for that long per stranger.";
    resume_seconds "resume-seconds": u32 = "600" "s" [0..=604_800]
        "How long a session outlives its connection and can be resumed without a login."
        "Up to 256 bytes per session that left.";
    window_messages "window-messages": u32 = "64" "messages per session" [1..=65_536]
        "Pushed messages that a device may leave unacked before more wait in the log, to begin with."
        "Memory for that many messages per busy session, in QUIC's send buffer.";
    window_messages_max "window-messages-max": u32 = "1024" "messages per session" [1..=65_536]
        "What this window grows to while a device acks as fast as it is pushed to; `window-bytes` bounds it too."
        "As for `window-messages`; less than that counts as equal.";
    window_bytes "window-bytes": u32 = "131072" "bytes per session" [PAYLOAD_BYTES_MAX as u64 + 1..=1 << 28]
        "The same window, in bytes of pushed messages."
        "That much memory per busy session.";
    heartbeat_wired_ms "heartbeat-wired-ms": u32 = "10000" "ms" [1_000..=600_000]
        "Heartbeat of clients on a cable; after three missed ones a device is offline."
        "A datagram each way per beat and session.";
    heartbeat_wifi_ms "heartbeat-wifi-ms": u32 = "30000" "ms" [1_000..=600_000]
        "Heartbeat of clients on wireless LAN."
        "A datagram each way per beat and session, and the phone's radio wakes.";
    heartbeat_cellular_ms "heartbeat-cellular-ms": u32 = "25000" "ms" [1_000..=600_000]
        "Heartbeat of clients on cellular and unknown networks; many NATs forget a binding after 30 s."
        "A datagram each way per beat and session, and the phone's radio wakes.";
    heartbeat_ms_max "heartbeat-ms-max": u32 = "30000" "ms" [1_000..=600_000]
        "The longest heartbeat that clients learn on a network that forgets nothing meanwhile; a longer one set above counts for its network."
        "Beyond 30 s pushes may reach nobody until the next beat, where a NAT forgets earlier; a silent client is noticed after three beats.";
    datagrams "datagrams": Datagrams = "on" "on|single|repeat|off" []
        "Whether single messages may travel by QUIC datagram, to and from clients that can do it; on: those to them by two, 20 ms apart, where the path is new or has just lost a packet."
        "single: fewer bytes where packets are lost, and a lost message waits for its repair. repeat: by stream first, and by datagram what is not acknowledged in time. off: that waits a round trip more, and holds up those behind it. Nothing else changes.";
    sessions_max "sessions-max": usize = "1000000" "sessions per worker" [1..=100_000_000]
        "Sessions of one worker; further logins are asked to come back."
        "About 15 KB per connected session, 256 bytes per one that may resume.";
    requests_max "requests-max": usize = "32768" "requests per pair of workers" [16..=1_000_000]
        "Requests from one worker that another may still have to answer; more are refused as BUSY."
        "Memory for that many messages when a worker falls behind; parked sends count too.";
    retry_threshold "retry-threshold": usize = "64" "handshakes per worker" [0..=1_000_000]
        "Handshakes under way from which on a stranger must first prove its address (QUIC Retry)."
        "Above it a connection takes one more round trip; below it a forged address costs a handshake.";
    come_back_ms "come-back-ms": u32 = "1000" "ms" [0..=600_000]
        "When the server goes down in order or is full, how long clients wait; then they come back at random within as long again, or within half a second for every 1,000 sessions of a worker if that is longer."
        "A longer time spreads the logins after a restart, and delays messages by as much.";
    spin_us "spin-us": u32 = "0" "µs" [0..=1_000_000]
        "How long an idle worker polls its socket before it sleeps; a wake-up costs about 35 µs."
        "Processor time while there is nothing to do.";
    keylog "keylog": OptionalPath = "" "FILE" []
        "Appends the TLS secrets of all connections to this file, for packet analysis; empty: off."
        "Whoever reads the file reads all traffic.";
}

impl Options {
    /// The options after all layers, and where each value came from.
    ///
    /// # Errors
    /// When a layer can't be read, names an unknown option, or holds a value that is no value or
    /// outside of its limits.
    pub fn load(flags: &Flags, environment: &Environment) -> Result<(Self, Values), OptionError> {
        let values = Values::gather(flags, environment)?;
        Ok((Self::read(&values)?, values))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tern_core::config::Config;

    #[test]
    fn defaults_and_limits_are_values() {
        for row in TABLE {
            let Some(limits) = &row.limits else { continue };
            for value in [*limits.start(), *limits.end()] {
                let flags = Flags::new([(row.name, value.to_string())]);
                let read = Options::load(&flags, &Environment::default());
                assert!(read.is_ok(), "{} = {value}: {read:?}", row.name);
            }
        }
    }

    #[test]
    fn names_are_unique_and_sorted_out() {
        let mut names: Vec<_> = TABLE.iter().map(|row| row.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), TABLE.len());
        assert!(!names.contains(&"config"), "the file's own flag");
    }

    #[test]
    fn the_machine_has_the_same_defaults() {
        let (options, _) =
            Options::load(&Flags::default(), &Environment::default()).expect("defaults");
        let machine = Config::default();
        assert_eq!(options.content_bytes_max, machine.content_bytes_max);
        assert_eq!(options.sends_per_second, machine.sends_per_second);
        assert_eq!(options.sends_burst, machine.sends_burst);
        assert_eq!(options.user_sends_per_second, machine.user_sends_per_second);
        assert_eq!(options.user_sends_burst, machine.user_sends_burst);
        assert_eq!(options.asks_per_second, machine.asks_per_second);
        assert_eq!(options.asks_burst, machine.asks_burst);
        assert_eq!(options.sessions_per_user, machine.sessions_per_user);
        assert_eq!(options.channels_per_hour, machine.channels_per_hour);
        assert_eq!(options.channels_per_user, machine.channels_per_user);
        assert_eq!(options.group_members_max, machine.group_members_max);
        assert_eq!(u64::from(options.recall_seconds) * 1_000, machine.recall_ms_max);
        assert_eq!(u64::from(options.edit_seconds) * 1_000, machine.edit_ms_max);
        assert_eq!(options.blocks_per_user, machine.blocks_per_user);
        assert_eq!(options.login_ms_max, machine.login_ms_max);
        assert_eq!(options.resume_seconds * 1_000, machine.resume_ms);
        assert_eq!(options.window_messages, machine.window_messages);
        assert_eq!(options.window_messages_max, machine.window_messages_max);
        assert_eq!(options.window_bytes, machine.window_bytes);
        assert_eq!(options.sessions_max, machine.sessions_max);
        assert_eq!(options.requests_max, machine.requests_max);
        assert_eq!(options.come_back_ms, machine.come_back_ms);
        assert_eq!(options.heartbeat_wired_ms, machine.heartbeat_wired_ms);
        assert_eq!(options.heartbeat_wifi_ms, machine.heartbeat_wifi_ms);
        assert_eq!(options.heartbeat_cellular_ms, machine.heartbeat_cellular_ms);
        assert_eq!(options.heartbeat_ms_max, machine.heartbeat_ms_max);
    }
}
