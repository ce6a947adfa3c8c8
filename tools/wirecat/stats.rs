//! What a connection's packets tell about its path.
//!
//! All of it is seen from the tap: a packet that is lost before it is a hole in the packet
//! numbers, one that is lost behind it is never acknowledged, and a round trip is the one between
//! the tap and an end. A tap at the client sees nearly the whole round trip on the server's side.

use std::net::SocketAddr;

use crate::event::{ConnectionId, Who};
use crate::quic::Way;

/// Round trips kept for percentiles; of more, every second one is dropped in turn.
const SAMPLES_MAX: usize = 1 << 16;

/// The statistics of one connection.
#[derive(Clone, Debug)]
pub struct Stats {
    /// Which.
    pub connection: ConnectionId,
    /// Who is at the client's end.
    pub who: Option<Who>,
    /// The client's newest address.
    pub client: SocketAddr,
    /// The server's.
    pub server: SocketAddr,
    /// The cipher suite, once agreed on.
    pub suite: Option<&'static str>,
    /// Nanoseconds from the first packet to the last.
    pub lasted: u64,
    /// Times that the client came from another address.
    pub moves: u64,
    /// Packets that came before their keys, and were never opened.
    pub held: u64,
    /// What each side sent: the client first.
    pub sides: [Side; 2],
}

/// What one side sent.
#[derive(Clone, Debug, Default)]
pub struct Side {
    /// UDP datagrams.
    pub datagrams: u64,
    /// Bytes in them.
    pub bytes: u64,
    /// Packets that were opened.
    pub packets: u64,
    /// Packets whose number had come before: doubled on the path.
    pub doubled: u64,
    /// Packets that could not be opened though keys are there: damaged, or resets.
    pub unopened: u64,
    /// Packets with frames that make no sense.
    pub broken: u64,
    /// Numbers never seen: packets lost before the tap, and the few that QUIC skips on purpose.
    pub missing: u64,
    /// Packets seen here and passed over by the other side's acknowledgements: lost behind the
    /// tap.
    pub unacknowledged: u64,
    /// Bytes of the control stream, each counted once.
    pub stream_bytes: u64,
    /// Bytes of streams that were sent again.
    pub repeated_bytes: u64,
    /// Bytes of streams that wait for some before them, lost before the tap and not yet repeated.
    pub waiting_bytes: u64,
    /// Frames of Tern.
    pub frames: u64,
    /// Of these, by QUIC datagram.
    pub frames_by_datagram: u64,
    /// Of these, messages that were said before on this connection.
    pub frames_again: u64,
    /// Times that this side changed its keys.
    pub key_updates: u64,
    /// Round trips between the tap and the other end, by its acknowledgements of this side's
    /// packets.
    pub round_trips: RoundTrips,
}

/// Round trips, in microseconds.
#[derive(Clone, Debug, Default)]
pub struct RoundTrips {
    samples: Vec<u64>,
    count: u64,
    /// Each so many samples one is kept.
    stride: u64,
}

impl RoundTrips {
    /// Adds one.
    pub fn add(&mut self, micros: u64) {
        self.stride = self.stride.max(1);
        if self.count.is_multiple_of(self.stride) {
            if self.samples.len() >= SAMPLES_MAX {
                let mut is_kept = false;
                self.samples.retain(|_| {
                    is_kept = !is_kept;
                    is_kept
                });
                self.stride *= 2;
            }
            self.samples.push(micros);
        }
        self.count += 1;
    }

    /// How many there were.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Least, half, 99 of 100 and most, in microseconds; `None` without any.
    pub fn summary(&self) -> Option<[u64; 4]> {
        let mut sorted = self.samples.clone();
        sorted.sort_unstable();
        let last = sorted.len().checked_sub(1)?;
        Some([sorted[0], sorted[last / 2], sorted[last * 99 / 100], sorted[last]])
    }
}

/// Which of two sides.
pub fn index(way: Way) -> usize {
    match way {
        Way::ToServer => 0,
        Way::ToClient => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips_stay_bounded_and_true() {
        let mut trips = RoundTrips::default();
        assert_eq!(trips.summary(), None);
        (1..=1_000_000).for_each(|micros| trips.add(micros));
        assert!(trips.samples.len() <= SAMPLES_MAX);
        let [least, half, most, _] = trips.summary().expect("there are many");
        assert_eq!((least, trips.count()), (1, 1_000_000));
        assert!(half.abs_diff(500_000) < 1_000 && most.abs_diff(990_000) < 1_000, "{half} {most}");
    }
}
