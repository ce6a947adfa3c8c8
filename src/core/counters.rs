//! What a worker counts, each with a sentence; the server shows them all in `tern status`.

macro_rules! counters {
    ($($name:ident: $doc:literal,)*) => {
        /// Counts of one worker since it started, in events.
        #[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
        pub struct Counters { $(#[doc = $doc] pub $name: u64,)* }

        impl Counters {
            /// Number of counters.
            pub const LEN: usize = [$(stringify!($name)),*].len();

            /// Names and sentences, in the order of [`Counters::values`].
            pub const DESCRIPTORS: [(&'static str, &'static str); Self::LEN] =
                [$((stringify!($name), $doc)),*];

            /// The counts in the order of their descriptors.
            pub fn values(&self) -> [u64; Self::LEN] {
                [$(self.$name),*]
            }
        }
    };
}

counters! {
    frames_in: "frames from clients",
    frames_malformed: "frames whose bytes did not fit their kind",
    frames_unknown: "frames of a kind or with a flag this server does not know",
    frames_refused: "frames answered with an error for their state, direction or range",
    logins: "full logins answered",
    resumes: "sessions resumed",
    logins_refused: "logins and resumes refused",
    logins_slow: "connections ended because no login came in time",
    sessions_fenced: "sessions ended by a later login of their device or by the operator",
    beats: "heartbeats answered",
    beats_moved: "heartbeats from another address than the one before",
    cursors_asked: "devices asked for their cursors because digests differed",
    cursors_known: "logins and resumes that needed no list of cursors",
    sessions_offline: "sessions that missed three heartbeats",
    sends: "messages offered by clients",
    sends_appended: "messages appended to a log",
    recalls: "recalls appended to a log",
    edits: "edits appended to a log",
    blocks: "blocks of users begun or ended",
    sends_duplicate: "repeated sends answered with the first one's ack",
    sends_refused_final: "sends refused for good",
    sends_refused_retry: "sends refused for now",
    sends_parked: "sends that waited for their predecessor or for a channel to open",
    acks: "acks sent for durable messages",
    pushes: "messages pushed to devices",
    records_read: "records looked at to find what is pushed",
    receive_acks: "cursors moved by devices",
    news: "channels that a device which does not ack was told of instead of being pushed to",
    gaps: "ranges that a device was told to step over",
    reads_cold: "reads left to the I/O thread because they would have waited for the disk",
    notifies: "channel changes told to home shards",
    notifies_repeated: "channel changes told again for want of a confirmation",
    marks_read: "read markers that moved",
    marks_records: "records in which read markers were written down",
    marks_told: "marks told to devices",
    receipts_told: "marks of direct channels told to the other side's home shard",
    receipts_counted: "counts of who has a message of a group",
    unread_counted: "channels whose unread messages were counted",
    unread_looked_at: "messages looked at for that",
    history_pages: "pages of history told",
    channels_expired: "channels whose oldest messages were deleted past their retention",
    mail_refused: "requests refused because another worker's mailbox was full",
    mail_coalesced: "hints merged because another worker's mailbox was full",
}
