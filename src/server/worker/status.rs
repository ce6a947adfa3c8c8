//! What a worker counts and measures, and the board where others read it.
//!
//! The worker keeps plain numbers and, a few times a second or when asked, stores them into
//! atomics; a reader adds nothing to the worker's work and never makes it wait. Figures of one
//! [`Snapshot`] may be one publication apart from each other.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tern_core::counters::Counters;

macro_rules! counts {
    ($($name:ident: $doc:literal,)*) => {
        /// What a worker's driver counts since its start, in events unless said otherwise; the
        /// last ones are the state of the moment.
        #[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
        pub struct Counts { $(#[doc = $doc] pub $name: u64,)* }

        impl Counts {
            /// Number of counters.
            pub const LEN: usize = [$(stringify!($name)),*].len();

            /// Names and sentences, in the order of [`Counts::values`].
            pub const DESCRIPTORS: [(&'static str, &'static str); Self::LEN] =
                [$((stringify!($name), $doc)),*];

            /// The counts in the order of their descriptors.
            pub fn values(&self) -> [u64; Self::LEN] {
                [$(self.$name),*]
            }

            pub(super) fn from_values(values: [u64; Self::LEN]) -> Self {
                let [$($name),*] = values;
                Self { $($name),* }
            }
        }
    };
}

counts! {
    turns: "turns of the loop",
    sleeps: "times the worker slept for want of work",
    receives: "system calls that received datagrams",
    datagrams_in: "datagrams received",
    bytes_in: "bytes of UDP payload received",
    transmits: "system calls that sent datagrams",
    datagrams_out: "datagrams sent",
    bytes_out: "bytes of UDP payload sent",
    transmits_blocked: "times the socket took no more and sending waited",
    responses_dropped: "answers without a connection that the socket did not take",
    strays_out: "datagrams that came to this worker's socket and were handed to another",
    strays_in: "datagrams that came to another worker's socket and were handed to this one",
    strays_dropped: "datagrams for another worker that had no room for them",
    datagrams_ignored: "datagrams that no connection knows and that get no answer",
    moves_dropped: "datagrams of connections that changed their address too often",
    attempts: "connection attempts",
    attempts_invalid: "attempts in another version of QUIC or with another address's token",
    attempts_retried: "attempts told to prove their address first",
    attempts_refused: "attempts refused because the server drains or is full",
    attempts_ignored: "attempts left unanswered for too many handshakes under way",
    attempts_delayed: "attempts that waited for a turn with room for them",
    guests_delayed: "packets of clients not logged in yet that waited for a later turn",
    guests_dropped: "packets of clients not logged in yet that found too many waiting",
    handshakes: "handshakes completed",
    handshakes_failed: "handshakes that failed, also for a wrong ALPN protocol",
    handshakes_slow: "handshakes ended because they took too long",
    resets: "stateless resets in answer to packets of unknown connections",
    resets_restart: "stateless resets to clients of the process before this one",
    migrations: "connections whose client came from a new address",
    frames: "frames cut from streams",
    frames_free: "frames that came by datagram",
    datagrams_bad: "connections closed for a datagram that is no SEND",
    pushes_free: "pushes that left by datagram",
    pushes_doubled: "of these, pushes that left by a second datagram, on a path that may lose packets",
    pushes_repeated: "pushes by stream that were not acknowledged in time and went once more by datagram",
    pushes_repaired: "of these, pushes that were not acknowledged in time and went by stream",
    streams_forbidden: "connections closed for a stream that clients may not open",
    streams_cut: "connections closed because the control stream ended inside a frame",
    slow_readers: "connections closed because they read too slowly",
    spilled_bytes: "bytes that a stream did not take at once",
    pushes_unreadable: "pushes whose record could not be read when it was their turn",
    links_opened: "connections established",
    links_closed: "established connections that ended",
    mail_out: "letters to other workers",
    mail_in: "letters from other workers",
    datagrams_dropped: "datagrams that the kernel dropped because the socket's buffer was full",
    receive_errors: "system calls that failed to receive",
    proofs: "notices of durability taken",
    major_faults: "page faults of this thread that waited for a disk",
    allocations_ours: "heap allocations of this thread outside of quinn-proto",
    allocations_quic: "heap allocations of this thread inside quinn-proto",
    cpu_us: "CPU time of this thread in microseconds",
    attempts_turn_max: "most attempts that were taken in one turn",
    links_now: "connections at the moment, handshakes included",
    handshakes_now: "handshakes under way at the moment",
    sessions_now: "sessions logged in at the moment",
    sessions_wired_now: "of these, sessions on a cable",
    sessions_wifi_now: "of these, sessions on wireless LAN",
    sessions_cellular_now: "of these, sessions on a mobile network",
    sessions_elsewhere_now: "of these, sessions whose client does not know its network",
    queries_now: "questions to the directory open or waiting at the moment",
}

/// Buckets of a [`Histogram`]: four per power of two of microseconds, up to 2^20 µs.
const BUCKETS: usize = 80;

/// Durations of turns, in buckets that are a quarter of a power of two wide: a percentile is
/// right within 25 %.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Histogram {
    counts: [u64; BUCKETS],
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: [0; BUCKETS] }
    }
}

impl Histogram {
    /// Adds one duration.
    pub fn record(&mut self, duration: Duration) {
        let us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        self.counts[Self::bucket(us)] += 1;
    }

    fn bucket(us: u64) -> usize {
        if us < 4 {
            return us as usize; // fits: below four
        }
        let power = us.ilog2() as usize; // fits: below 64
        let quarter = (us >> (power - 2)) as usize & 3; // fits: two bits
        (4 * (power - 1) + quarter).min(BUCKETS - 1)
    }

    /// The least microseconds of the bucket behind this one.
    fn end_us(bucket: usize) -> u64 {
        let next = bucket + 1;
        if next < 4 {
            return next as u64;
        }
        let (power, quarter) = (next / 4 + 1, next % 4);
        (4 + quarter as u64) << (power - 2)
    }

    /// How many durations were added.
    pub fn len(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Whether none was added.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The microseconds that this share of all durations (0 to 1) stayed below; 0 if there are
    /// none.
    pub fn percentile_us(&self, share: f64) -> u64 {
        let wanted = (self.len() as f64 * share).ceil() as u64;
        let mut seen = 0;
        let reached = self.counts.iter().position(|count| {
            seen += count;
            seen >= wanted.max(1)
        });
        reached.map_or(0, Self::end_us)
    }

    /// Adds another worker's durations.
    pub fn merge(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(other.counts) {
            *count += more;
        }
    }
}

/// A worker's figures at one moment.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// How often figures were published; 0 before the first time.
    pub published: u64,
    /// What the machine counts.
    pub core: [u64; Counters::LEN],
    /// What the driver counts.
    pub driver: Counts,
    /// Durations of the turns, without the sleep between them.
    pub turns: Histogram,
}

/// Where a worker publishes and others read.
#[derive(Debug)]
pub struct Board {
    published: AtomicU64,
    core: [AtomicU64; Counters::LEN],
    driver: [AtomicU64; Counts::LEN],
    turns: [AtomicU64; BUCKETS],
}

impl Board {
    pub(super) fn new() -> Self {
        Self {
            published: AtomicU64::new(0),
            core: std::array::from_fn(|_| AtomicU64::new(0)),
            driver: std::array::from_fn(|_| AtomicU64::new(0)),
            turns: std::array::from_fn(|_| AtomicU64::new(0)),
        }
    }

    pub(super) fn publish(&self, core: &Counters, driver: &Counts, turns: &Histogram) {
        store(&self.core, &core.values());
        store(&self.driver, &driver.values());
        store(&self.turns, &turns.counts);
        self.published.fetch_add(1, Ordering::Release);
    }

    /// The figures last published.
    pub fn snapshot(&self) -> Snapshot {
        let published = self.published.load(Ordering::Acquire);
        Snapshot {
            published,
            core: load(&self.core),
            driver: Counts::from_values(load(&self.driver)),
            turns: Histogram { counts: load(&self.turns) },
        }
    }
}

fn store<const N: usize>(board: &[AtomicU64; N], values: &[u64; N]) {
    for (place, value) in board.iter().zip(values) {
        place.store(*value, Ordering::Relaxed);
    }
}

fn load<const N: usize>(board: &[AtomicU64; N]) -> [u64; N] {
    std::array::from_fn(|index| board[index].load(Ordering::Relaxed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_follow_each_other() {
        for bucket in 1..BUCKETS {
            let start = Histogram::end_us(bucket - 1);
            assert_eq!(Histogram::bucket(start), bucket);
            assert_eq!(Histogram::bucket(start - 1), bucket - 1);
        }
        assert_eq!(Histogram::bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn percentiles_are_right_within_a_quarter() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.percentile_us(0.5), 0);
        (1..=1_000).for_each(|us| histogram.record(Duration::from_micros(us)));
        for (share, exact) in [(0.5, 500.0), (0.99, 990.0), (1.0, 1_000.0)] {
            let shown = histogram.percentile_us(share) as f64;
            assert!((exact..=exact * 1.25).contains(&shown), "{share}: {shown}");
        }
    }

    #[test]
    fn the_board_shows_what_was_published() {
        let board = Board::new();
        assert_eq!(board.snapshot().published, 0);
        let counts = Counts { frames: 7, queries_now: 3, ..Default::default() };
        let core = Counters { sends: 5, ..Default::default() };
        let mut turns = Histogram::default();
        turns.record(Duration::from_micros(9));
        board.publish(&core, &counts, &turns);
        let shown = board.snapshot();
        assert_eq!((shown.published, shown.driver), (1, counts));
        assert_eq!((shown.core, shown.turns), (core.values(), turns));
    }
}
