//! Time as an argument: what a driver tells the machine with every call.

/// Milliseconds on a clock that never goes back and has no meaning outside of this process. The
/// machine relies on that: a driver whose clock may go back reads it through a [`Steady`]. The
/// driver of this package reads [`std::time::Instant`], which can't.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Hash)]
pub struct Mono(pub u64);

impl Mono {
    /// This much later.
    #[must_use]
    pub fn after_ms(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }

    /// Milliseconds since `earlier`, 0 if that lies ahead.
    pub fn since_ms(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// A clock that never goes back, made of one that may: where the other does, time goes on from
/// where it was. What went by unseen before that is lost, so deadlines come late by no more than
/// the time between two readings.
#[derive(Clone, Copy, Debug, Default)]
pub struct Steady {
    newest_ms: u64,
    ahead_ms: u64,
}

impl Steady {
    /// The time at which the other clock shows `reading_ms`.
    pub fn at(&mut self, reading_ms: u64) -> Mono {
        self.ahead_ms = self.ahead_ms.saturating_add(self.newest_ms.saturating_sub(reading_ms));
        self.newest_ms = reading_ms;
        Mono(reading_ms.saturating_add(self.ahead_ms))
    }

    /// What the other clock will show at this time, unless it goes back again.
    pub fn reading_ms(&self, when: Mono) -> u64 {
        when.0.saturating_sub(self.ahead_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_goes_back_goes_on_from_where_it_was() {
        let mut clock = Steady::default();
        assert_eq!((clock.at(5), clock.at(9), clock.at(9)), (Mono(5), Mono(9), Mono(9)));
        assert_eq!(clock.at(2), Mono(9), "seven back");
        assert_eq!((clock.at(4), clock.reading_ms(Mono(20))), (Mono(11), 13));
        assert_eq!((clock.at(0), clock.at(1)), (Mono(11), Mono(12)));
        assert_eq!(clock.at(u64::MAX), Mono(u64::MAX));
    }
}
