//! When messages are due: an open loop. The schedule is fixed before the first message and asks
//! nobody whether earlier ones were answered, so that a server that stalls is measured by all the
//! messages that were due while it did (no "coordinated omission").

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tern_random::Stream;

/// How messages are spread over time.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Arrivals {
    /// Independent of each other, as people write: gaps are exponential.
    Poisson,
    /// At equal distances.
    Even,
}

/// The moments at which messages are due, since the start of the load.
#[derive(Clone, Debug)]
pub struct Schedule {
    arrivals: Arrivals,
    gap_s: f64,
    next_s: f64,
    random: Stream,
}

impl Schedule {
    /// `rate` messages a second from the start on.
    ///
    /// # Panics
    /// If the rate is not above 0.
    pub fn new(arrivals: Arrivals, rate: f64, seed: u64) -> Self {
        assert!(rate > 0.0, "a rate of {rate}");
        let mut schedule =
            Self { arrivals, gap_s: 1.0 / rate, next_s: 0.0, random: Stream::new(seed) };
        schedule.advance();
        schedule
    }

    /// When the next message is due.
    pub fn due(&self) -> Duration {
        Duration::from_secs_f64(self.next_s)
    }

    /// Goes on to the message after it.
    pub fn advance(&mut self) {
        self.next_s += match self.arrivals {
            Arrivals::Even => self.gap_s,
            Arrivals::Poisson => -(1.0 - self.random.fraction()).ln() * self.gap_s,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(mut schedule: Schedule, count: usize) -> Vec<Duration> {
        let mut due = Vec::new();
        for _ in 0..count {
            due.push(schedule.due());
            schedule.advance();
        }
        due
    }

    #[test]
    fn even_arrivals_are_at_equal_distances() {
        let due = take(Schedule::new(Arrivals::Even, 2_000.0, 0), 4_000);
        assert_eq!(due[0], Duration::from_micros(500));
        let last = due[3_999].as_secs_f64();
        assert!((last - 2.0).abs() < 1e-6, "{last}");
    }

    #[test]
    fn poisson_arrivals_have_the_rate_and_its_spread() {
        let due = take(Schedule::new(Arrivals::Poisson, 1_000.0, 7), 100_000);
        let seconds = due[99_999].as_secs_f64();
        assert!((98.0..102.0).contains(&seconds), "{seconds}");
        let gaps: Vec<f64> = due.windows(2).map(|w| (w[1] - w[0]).as_secs_f64() * 1e3).collect();
        let variance = gaps.iter().map(|gap| (gap - 1.0).powi(2)).sum::<f64>() / gaps.len() as f64;
        assert!((0.95..1.05).contains(&variance), "exponential gaps: {variance}");
        assert!(due.is_sorted());
    }

    #[test]
    fn one_seed_gives_one_schedule() {
        let of = |seed| take(Schedule::new(Arrivals::Poisson, 10.0, seed), 100);
        assert_eq!(of(1), of(1));
        assert_ne!(of(1), of(2));
    }
}
