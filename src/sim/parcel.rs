//! What travels between a client and the server, and how late, where no transport is run.

use std::time::Duration;

use bytes::Bytes;
use tern_netmodel::Conditions;
use tern_netmodel::conditions::{Bandwidth, Bursts};
use tern_protocol::Code;

/// What the transport adds to a frame, in bytes: headers of IP, UDP and QUIC, and the tag.
const OVERHEAD_BYTES: usize = 60;

/// What travels.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Parcel {
    /// A whole frame.
    Frame(Bytes),
    /// The connection's end, with the code of whoever closed it.
    End(Option<Code>),
}

impl Parcel {
    /// Its size on the network.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Frame(frame) => frame.len() + OVERHEAD_BYTES,
            Self::End(_) => OVERHEAD_BYTES,
        }
    }
}

/// What the weather adds to the path of a device.
#[derive(Clone, Copy, Default, Debug)]
pub struct Weather {
    /// Everything takes up to two seconds.
    pub is_slow: bool,
    /// A fifth is lost.
    pub is_lossy: bool,
    /// Losses come in bursts.
    pub has_bursts: bool,
    /// A fifth is overtaken.
    pub is_reordered: bool,
    /// The line is slow.
    pub is_narrow: bool,
}

/// The conditions on the path of a device: milliseconds one way, and by how much it varies.
pub fn conditions((latency, jitter): (u64, u64), weather: Weather) -> Conditions {
    /// The middle, and the half, of what a slow network adds, in ms.
    const SLOW_MS: u64 = 1_000;
    /// What a lossy network loses.
    const LOSS_PERCENT: f64 = 20.0;
    /// What it doubles.
    const DUPLICATE_PERCENT: f64 = 2.0;
    /// What is held back on a network that reorders, and for how long at most in ms.
    const LATE_PERCENT: f64 = 20.0;
    const LATE_MS: u64 = 800;
    /// Times without and with losses on average, in ms, and what is lost in a burst.
    const BURSTS: Bursts = Bursts { good_ms: 2_000, bad_ms: 400, loss_percent: 80.0 };
    /// An old modem, with a queue for two seconds.
    const NARROW: Bandwidth = Bandwidth { kbit_per_s: 56, queue_bytes: 14_000 };
    let slow = if weather.is_slow { SLOW_MS } else { 0 };
    Conditions {
        loss_percent: if weather.is_lossy { LOSS_PERCENT } else { 0.0 },
        duplicate_percent: if weather.is_lossy { DUPLICATE_PERCENT } else { 0.0 },
        bursts: weather.has_bursts.then_some(BURSTS),
        late_percent: if weather.is_reordered { LATE_PERCENT } else { 0.0 },
        late_ms: if weather.is_reordered { LATE_MS } else { 0 },
        bandwidth: weather.is_narrow.then_some(NARROW),
        delay_ms: latency + jitter.div_ceil(2) + slow,
        jitter_ms: jitter / 2 + slow,
        ..Conditions::default()
    }
}

/// A moment of the world as the network's model counts it.
pub fn at(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// The millisecond of the world in which something is over.
pub fn ms(at: Duration) -> u64 {
    at.as_nanos().div_ceil(1_000_000) as u64 // fits: 584 million years
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_over_within_a_millisecond_is_over_in_the_next() {
        assert_eq!(ms(at(10)), 10);
        assert_eq!(ms(at(10) + Duration::from_nanos(1)), 11);
    }
}
