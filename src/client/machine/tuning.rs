//! What may be set of the machine's behaviour, and why the defaults are what they are.

use tern_protocol::limits::UNACKED_SENDS_MAX;

/// Settings of a [`super::Machine`]; times in milliseconds.
#[derive(Clone, Debug)]
pub struct Tuning {
    /// The first reconnect after a good connection comes at a random time within this: nearly at
    /// once, but not all clients in the same instant.
    pub reconnect_first_ms: u64,
    /// The second comes within this; each further one within twice as much.
    pub reconnect_base_ms: u64,
    /// No reconnect waits longer: what a person accepts after a network is back.
    pub reconnect_ms_max: u64,
    /// A connection that was logged in for this long was a good one and ends the back-off.
    pub good_after_ms: u64,
    /// Time from the wish to connect to the connection: three addresses of the server, or three
    /// lost handshake flights at one second of round trip.
    pub open_ms_max: u64,
    /// Time from the connection to the answer to the login: the 5 s that a server allows by
    /// default, and a second in which its answer travels. Waiting longer would be for a connection
    /// that the server has closed.
    pub login_ms_max: u64,
    /// A ping, or a silence during sends, that stays without any frame for this long ends the
    /// connection: five lost packets in a row at 350 ms of round trip.
    pub answer_ms_max: u64,
    /// After this much silence while sends are unanswered a ping asks whether anyone is there.
    pub probe_after_ms: u64,
    /// A send that is unanswered for this long on a connection that lives is sent again.
    pub resend_after_ms: u64,
    /// Whether single messages may travel by datagram, if the server can do that too.
    pub datagrams: bool,
    /// A send that left by datagram and is unanswered for 5/4 of the round trip and this much more
    /// leaves again, in order: a commit of the server and the moments in which both sides collect
    /// what they acknowledge.
    pub repair_slack_ms: u64,
    /// Random time added to what the server asks to wait before a send is tried again.
    pub retry_jitter_ms: u64,
    /// What has been consumed is told the server after this time at the latest.
    pub receive_ack_ms: u64,
    /// What has been consumed is told the server after this many messages at the latest: a
    /// quarter of the server's default window.
    pub receive_ack_messages: u32,
    /// What has been read is told the server after this time at the latest.
    pub read_ms: u64,
    /// Whether what was read is told to the user's own devices alone.
    pub quiet_reads: bool,
    /// Whether the server is asked how far users have got, if it can tell.
    pub marks: bool,
    /// How many messages of each channel that its user has already a new device wants; `None` for
    /// all that the server still has. A device that has any cursor is not new.
    pub newest_wanted: Option<u32>,
    /// A hole that is not filled for this long is asked for again.
    pub fetch_again_ms: u64,
    /// After this many fetches of the same hole the client connects anew, which fills all holes.
    pub fetches_max: u32,
    /// Messages of one channel that wait behind a hole; further ones are dropped and fetched
    /// later. Each costs its content and 160 bytes.
    pub held_messages_max: usize,
    /// How far the oldest unsettled and the newest counter may differ, exclusive; the server's
    /// own limit counts if it is lower.
    pub unsettled_sends_max: u32,
    /// The last counter to use in an epoch; then a full login brings a new one to count in.
    pub counter_max: u32,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            reconnect_first_ms: 50,
            reconnect_base_ms: 500,
            reconnect_ms_max: 30_000,
            good_after_ms: 5_000,
            open_ms_max: 10_000,
            login_ms_max: 6_000,
            answer_ms_max: 5_000,
            probe_after_ms: 2_000,
            resend_after_ms: 10_000,
            datagrams: true,
            repair_slack_ms: 20,
            retry_jitter_ms: 50,
            receive_ack_ms: 50,
            receive_ack_messages: 16,
            read_ms: 100,
            quiet_reads: false,
            marks: true,
            newest_wanted: None,
            fetch_again_ms: 3_000,
            fetches_max: 5,
            held_messages_max: 256,
            unsettled_sends_max: UNACKED_SENDS_MAX,
            counter_max: u32::MAX - 2 * UNACKED_SENDS_MAX,
        }
    }
}
