//! A line of limited bandwidth with a queue before it that drops at its tail.

use std::time::Duration;

use crate::conditions::Bandwidth;

/// The line of one direction.
#[derive(Clone, Debug)]
pub struct Line {
    bandwidth: Bandwidth,
    /// When everything that was taken has gone.
    free_at: Duration,
}

impl Line {
    /// An empty line.
    pub fn new(bandwidth: Bandwidth) -> Self {
        Self { bandwidth, free_at: Duration::ZERO }
    }

    /// A packet of so many bytes comes: when its last bit has gone; `None` if the queue has no
    /// room.
    pub fn take(&mut self, now: Duration, bytes: usize) -> Option<Duration> {
        if self.queued_bytes(now) + bytes as u64 > self.bandwidth.queue_bytes {
            return None;
        }
        self.free_at = self.free_at.max(now) + self.time_of(bytes as u64);
        Some(self.free_at)
    }

    /// Bytes that wait or are being sent at this moment.
    pub fn queued_bytes(&self, now: Duration) -> u64 {
        let left = self.free_at.saturating_sub(now).as_micros();
        // A kbit per second is a bit per ms: micros * kbit / 8,000 are bytes.
        (left * u128::from(self.bandwidth.kbit_per_s) / 8_000) as u64 // fits: a queue's bytes
    }

    fn time_of(&self, bytes: u64) -> Duration {
        Duration::from_micros(bytes.saturating_mul(8_000) / self.bandwidth.kbit_per_s.max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_leave_one_after_the_other_and_the_queue_has_an_end() {
        let mut line = Line::new(Bandwidth { kbit_per_s: 80, queue_bytes: 3_000 });
        let now = Duration::from_secs(1);
        let taken: Vec<_> = (0..4).map(|_| line.take(now, 1_000)).collect();
        let after = |ms| Some(now + Duration::from_millis(ms));
        assert_eq!(taken, [after(100), after(200), after(300), None], "10,000 bytes a second");
        assert_eq!(line.queued_bytes(now + Duration::from_millis(150)), 1_500);
        assert_eq!(line.take(now + Duration::from_millis(150), 1_000), after(400));
        assert_eq!(line.take(now + Duration::from_secs(9), 1_000), after(9_100));
    }
}
