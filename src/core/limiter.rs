//! A rate with a burst: the generic cell rate algorithm (ITU-T I.371), eight bytes of state.

use crate::time::Mono;

/// How often something may happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    interval_us: u64,
    burst_us: u64,
    burst: u32,
}

/// A part of a burst, as a divisor: what is used of a rate may be told with this little delay, so
/// that those who share it overstep it by little and tell it rarely.
const BATCHES_PER_BURST: u32 = 64;

impl Rate {
    /// `count` events per `per_ms` milliseconds over time, and `burst` at once after a pause.
    ///
    /// # Panics
    /// If a number is 0.
    pub fn new(count: u32, per_ms: u64, burst: u32) -> Self {
        assert!(count > 0 && per_ms > 0 && burst > 0);
        let interval_us = per_ms * 1_000 / u64::from(count);
        Self { interval_us, burst_us: interval_us.saturating_mul(u64::from(burst)), burst }
    }

    /// How much of it may be used before those who share it are told.
    pub fn batch(self) -> u32 {
        (self.burst / BATCHES_PER_BURST).max(1)
    }
}

/// What one subject has used of a [`Rate`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limiter {
    /// When all that was taken will have been earned ("theoretical arrival time"), in µs.
    earned_us: u64,
}

impl Limiter {
    /// Takes one, or says how many milliseconds to wait for it.
    ///
    /// # Errors
    /// The wait in ms, at least 1.
    pub fn take(&mut self, now: Mono, rate: Rate) -> Result<(), u32> {
        self.take_ahead(now, rate, 0)
    }

    /// The same, where up to `ahead` that are not there yet may be taken too. Until they are there
    /// [`take`](Self::take) gives none.
    ///
    /// # Errors
    /// The wait in ms, at least 1.
    pub fn take_ahead(&mut self, now: Mono, rate: Rate, ahead: u32) -> Result<(), u32> {
        let now_us = now.0 * 1_000;
        let earned_us = self.earned_us.max(now_us) + rate.interval_us;
        let ahead_us = rate.interval_us.saturating_mul(u64::from(ahead));
        let over_us = earned_us.saturating_sub((now_us + rate.burst_us).saturating_add(ahead_us));
        if over_us > 0 {
            return Err(u32::try_from(over_us.div_ceil(1_000)).unwrap_or(u32::MAX));
        }
        self.earned_us = earned_us;
        Ok(())
    }

    /// Takes `count` that were used already, or gives `-count` back that were not; says from when
    /// on there is one more, if that is later than now.
    pub fn settle(&mut self, now: Mono, rate: Rate, count: i32) -> Option<Mono> {
        let change_us = rate.interval_us.saturating_mul(u64::from(count.unsigned_abs()));
        let now_us = now.0 * 1_000;
        self.earned_us = match count {
            ..0 => self.earned_us.saturating_sub(change_us),
            _ => self.earned_us.max(now_us).saturating_add(change_us),
        };
        let free_us = (self.earned_us.saturating_add(rate.interval_us))
            .saturating_sub(rate.burst_us)
            .div_ceil(1_000);
        (free_us > now.0).then_some(Mono(free_us))
    }

    /// What was used here and elsewhere of the same rate, as far as both did not know of each
    /// other: the longer wait counts.
    #[must_use]
    pub fn or_later(self, other: Self) -> Self {
        Self { earned_us: self.earned_us.max(other.earned_us) }
    }

    /// Gives one back: it turned out to be a repeat.
    pub fn refund(&mut self, rate: Rate) {
        self.earned_us = self.earned_us.saturating_sub(rate.interval_us);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_then_the_rate() {
        let (rate, mut limiter) = (Rate::new(10, 1_000, 3), Limiter::default());
        let start = Mono(5_000);
        let taken = (0..10).filter(|_| limiter.take(start, rate).is_ok()).count();
        assert_eq!(taken, 3, "the burst, exactly");
        assert_eq!(limiter.take(start, rate), Err(100));
        assert_eq!(limiter.take(start.after_ms(100), rate), Ok(()));
        limiter.refund(rate);
        assert_eq!(limiter.take(start.after_ms(100), rate), Ok(()));
    }

    #[test]
    fn what_is_taken_ahead_is_waited_for() {
        let (rate, mut limiter) = (Rate::new(10, 1_000, 3), Limiter::default());
        let start = Mono(5_000);
        let ahead = (0..10).filter(|_| limiter.take_ahead(start, rate, 2).is_ok()).count();
        assert_eq!(ahead, 5, "the burst, and two of what comes");
        assert_eq!(limiter.take(start.after_ms(200), rate), Err(100));
        assert_eq!(limiter.take(start.after_ms(300), rate), Ok(()));
        assert_eq!(limiter.take_ahead(start.after_ms(300), rate, 1), Ok(()));
        limiter.refund(rate);
        assert_eq!(limiter.take(start.after_ms(400), rate), Ok(()), "as if it had not been");
    }

    #[test]
    fn what_was_used_elsewhere_is_waited_for() {
        let (rate, mut limiter) = (Rate::new(10, 1_000, 3), Limiter::default());
        let start = Mono(5_000);
        assert_eq!(limiter.settle(start, rate, 2), None, "one is left");
        assert_eq!(limiter.settle(start, rate, 3), Some(start.after_ms(300)), "two too many");
        assert_eq!(limiter.settle(start.after_ms(299), rate, 0), Some(start.after_ms(300)));
        assert_eq!(limiter.settle(start.after_ms(300), rate, 0), None);
        assert_eq!(limiter.take(start.after_ms(300), rate), Ok(()));
        assert_eq!(limiter.settle(start.after_ms(300), rate, -1), None, "given back");
        assert_eq!(limiter.or_later(Limiter::default()), limiter);
        assert_eq!(Limiter::default().or_later(limiter), limiter);
    }
}
