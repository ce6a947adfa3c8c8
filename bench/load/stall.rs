//! How a device that does not keep up treats its connection.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// Time between two bytes of a device that reads slowly.
const BYTE_EVERY: Duration = Duration::from_secs(1);

/// What is wrong with a device.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stall {
    /// Its app reads and acknowledges nothing, while QUIC answers and heartbeats leave.
    App,
    /// Its network carries nothing in either direction.
    Network,
    /// As `App`, but it reads a byte of the stream each second.
    Trickle,
}

/// The state of one device's stall.
#[derive(Clone, Copy, Default, Debug)]
pub struct Stalled {
    how: Option<Stall>,
    /// When the next byte is read.
    byte_at: Option<Instant>,
}

impl Stalled {
    /// It begins now.
    pub fn begin(now: Instant, how: Stall) -> Self {
        Self { how: Some(how), byte_at: (how == Stall::Trickle).then_some(now) }
    }

    /// Whether there is one.
    pub fn is_one(&self) -> bool {
        self.how.is_some()
    }

    /// Whether no packet passes.
    pub fn is_cut_off(&self) -> bool {
        self.how == Some(Stall::Network)
    }

    /// When the next byte is read, if any is.
    pub fn byte_at(&self) -> Option<Instant> {
        self.byte_at
    }

    /// Takes the turn to read a byte, if it has come.
    pub fn take_byte(&mut self, now: Instant) -> bool {
        let is_due = self.byte_at.is_some_and(|at| at <= now);
        if is_due {
            self.byte_at = Some(now + BYTE_EVERY);
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_trickles_reads_and_a_byte_a_second() {
        let start = Instant::now();
        for how in [Stall::App, Stall::Network] {
            let mut stalled = Stalled::begin(start, how);
            assert!(stalled.is_one() && !stalled.take_byte(start + 9 * BYTE_EVERY));
        }
        let mut slow = Stalled::begin(start, Stall::Trickle);
        let millis = (0..5_000).map(|ms| start + Duration::from_millis(ms));
        assert_eq!(millis.filter(|now| slow.take_byte(*now)).count(), 5);
        assert!(!Stalled::default().is_one());
    }
}
