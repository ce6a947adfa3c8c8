//! When a frame that leaves by datagram leaves twice, SPEC.md §2.5: on a path that loses packets,
//! and on one that is not known yet. Of two copies that leave 20 ms apart, both are lost far less
//! often than one, and a repair costs a round trip.
//!
//! What comes in: how many packets QUIC has lost on the path, and its round trip. Nothing here
//! sends, or reads a clock.

use core::time::Duration;

/// How long after the first the second copy leaves: behind most bursts of loss, and before any
/// answer to the first could be there.
pub const COPY_AFTER: Duration = Duration::from_millis(20);

/// On a path with a shorter round trip a repair is there nearly as soon as a second copy.
const ROUND_TRIP_MIN: Duration = Duration::from_millis(10);

/// Bytes of the longest frame that is doubled: most chat messages. Longer ones would double what
/// the path must carry for the few that are lost.
const FRAME_BYTES_MAX: usize = 400;

/// Frames that are doubled on a path that nothing is known of.
const UNKNOWN: u16 = 32;

/// Frames that are doubled after a loss. At 1 % lost packets that is three of four frames, at
/// 3.5 % nearly all, at 0.1 % one of eight.
const AFTER_LOSS: u16 = 128;

/// What is known of one direction of a path.
#[derive(Clone, Copy, Debug)]
pub struct Doubling {
    /// Packets that were lost, as far as was noticed.
    lost: u64,
    /// So many more frames leave twice.
    distrust: u16,
    is_off: bool,
}

impl Default for Doubling {
    fn default() -> Self {
        Self { lost: 0, distrust: UNKNOWN, is_off: false }
    }
}

impl Doubling {
    /// No frame leaves twice, whatever is lost.
    pub fn never() -> Self {
        Self { is_off: true, ..Self::default() }
    }

    /// The path is another.
    pub fn moved(&mut self) {
        self.distrust = self.distrust.max(UNKNOWN);
    }

    /// Whether a frame of so many bytes, which leaves now, leaves a second time [`COPY_AFTER`]
    /// later. `lost` is QUIC's count of lost packets since the connection began.
    pub fn is_due(&mut self, bytes: usize, round_trip: Duration, lost: u64) -> bool {
        if lost > self.lost {
            (self.lost, self.distrust) = (lost, AFTER_LOSS);
        }
        if self.is_off
            || bytes > FRAME_BYTES_MAX
            || round_trip < ROUND_TRIP_MIN
            || self.distrust == 0
        {
            return false;
        }
        self.distrust -= 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAR: Duration = Duration::from_millis(100);

    /// Of so many frames, how many are doubled while one of `of` packets is lost.
    fn doubled(doubling: &mut Doubling, frames: u64, of: u64) -> u64 {
        (1..=frames).filter(|frame| doubling.is_due(100, FAR, frame / of)).count() as u64
    }

    #[test]
    fn a_good_path_is_trusted_after_a_while() {
        let mut doubling = Doubling::default();
        assert_eq!(doubled(&mut doubling, 1_000, u64::MAX), u64::from(UNKNOWN));
        doubling.moved();
        assert_eq!(doubled(&mut doubling, 1_000, u64::MAX), u64::from(UNKNOWN));
    }

    #[test]
    fn a_loss_makes_the_next_frames_leave_twice() {
        let mut doubling = Doubling::default();
        assert_eq!(doubled(&mut doubling, 4_000, 28), 4_000);
        let mut doubling = Doubling::default();
        assert_eq!(doubled(&mut doubling, 4_000, 1_000), u64::from(UNKNOWN + 4 * AFTER_LOSS - 127));
    }

    #[test]
    fn long_frames_and_short_paths_are_left_alone() {
        let mut doubling = Doubling::default();
        assert!(!doubling.is_due(FRAME_BYTES_MAX + 1, FAR, 0));
        assert!(!doubling.is_due(100, Duration::from_millis(1), 0));
        assert!(doubling.is_due(FRAME_BYTES_MAX, FAR, 0));
        assert!(!doubling.is_due(100, Duration::from_millis(1), 7));
        assert!(doubling.is_due(100, FAR, 7));
    }
}
