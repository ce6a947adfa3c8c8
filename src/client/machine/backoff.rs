//! How long to wait before the next attempt to connect: full jitter, so that a crowd of clients
//! does not come back in one instant.

use super::random::Random;
use super::tuning::Tuning;

/// Counts the attempts since the last good connection.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    attempts: u32,
}

impl Backoff {
    /// A connection was good: the next wait is the shortest.
    pub(crate) fn reset(&mut self) {
        self.attempts = 0;
    }

    /// Milliseconds to wait now.
    pub(crate) fn next_ms(&mut self, tuning: &Tuning, random: &mut Random) -> u64 {
        let bound = match self.attempts.checked_sub(1) {
            None => tuning.reconnect_first_ms,
            Some(doublings) => {
                tuning.reconnect_base_ms.saturating_mul(1 << doublings.min(u32::BITS))
            }
        };
        self.attempts = self.attempts.saturating_add(1);
        random.between(0, bound.min(tuning.reconnect_ms_max))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_wait_is_within_its_bound_and_they_reach_the_cap() {
        let tuning = Tuning::default();
        let bounds = [50, 500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000, 30_000];
        let mut longest = [0; 10];
        for seed in 0..500 {
            let (mut backoff, mut random) = (Backoff::default(), Random::new(seed));
            for (bound, longest) in bounds.into_iter().zip(&mut longest) {
                let wait = backoff.next_ms(&tuning, &mut random);
                assert!(wait <= bound, "{wait} > {bound}");
                *longest = wait.max(*longest);
            }
        }
        for (bound, longest) in bounds.into_iter().zip(longest) {
            assert!(longest > bound / 2, "of 500 draws none is in the upper half of {bound}");
        }
    }

    #[test]
    fn thousands_of_attempts_do_not_overflow() {
        let (mut backoff, mut random) = (Backoff::default(), Random::new(1));
        for _ in 0..10_000 {
            assert!(backoff.next_ms(&Tuning::default(), &mut random) <= 30_000);
        }
    }
}
