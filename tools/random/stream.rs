//! Random numbers that repeat: one stream per concern, so that a change in what one concern
//! draws leaves the others as they were.

use std::time::Duration;

/// SplitMix64 (Steele, Lea, Flood 2014): one addition and a finalizer a number, which is enough
/// for choices that nobody attacks.
#[derive(Clone, Debug)]
pub struct Stream {
    state: u64,
}

impl Stream {
    /// The one stream of a run of this seed.
    pub fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// The stream of one concern in the run of this seed.
    pub fn of(seed: u64, concern: &str) -> Self {
        let mut stream = Self::new(seed);
        for byte in concern.bytes() {
            stream.state = stream.draw() ^ u64::from(byte);
        }
        stream
    }

    /// 64 random bits.
    pub fn draw(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.state)
    }

    /// A number below `bound`, or 0 if that is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.draw()) * u128::from(bound)) >> 64) as u64 // fits: below `bound`
    }

    /// A place in a list of `len`, or 0 if that is 0.
    pub fn index(&mut self, len: usize) -> usize {
        self.below(len as u64) as usize // fits: below `len`
    }

    /// A number from `low` to `high`, both included.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high.saturating_sub(low).saturating_add(1))
    }

    /// Yes in this many of a hundred cases.
    pub fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// A number from 0 up to, and without, 1.
    pub fn fraction(&mut self) -> f64 {
        (self.draw() >> 11) as f64 / (1_u64 << 53) as f64 // exact: 53 bits
    }

    /// Whether something of this probability, 0 to 1, happens now.
    pub fn chance(&mut self, probability: f64) -> bool {
        self.fraction() < probability
    }

    /// How long something without memory lasts, `mean_ms` on average: von Neumann's way (1951),
    /// which only compares, so that a seed gives the same on every machine.
    pub fn lasting(&mut self, mean_ms: u64) -> Duration {
        let mut whole = 0_u32;
        loop {
            let first = self.fraction();
            let (mut last, mut is_odd) = (first, true);
            loop {
                let next = self.fraction();
                if next >= last {
                    break;
                }
                (last, is_odd) = (next, !is_odd);
            }
            if is_odd {
                return Duration::from_millis(mean_ms).mul_f64(f64::from(whole) + first);
            }
            whole += 1;
        }
    }

    /// One of several; `None` of none.
    pub fn pick<T: Copy>(&mut self, from: &[T]) -> Option<T> {
        from.get(self.index(from.len())).copied()
    }

    /// This many random bytes.
    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.draw() as u8).collect() // the low byte of each
    }

    /// 256 random bits.
    pub fn token(&mut self) -> [u8; 32] {
        let mut token = [0; 32];
        token.chunks_exact_mut(8).for_each(|part| part.copy_from_slice(&self.draw().to_le_bytes()));
        token
    }
}

/// The finalizer of SplitMix64: every bit of the input moves every bit of the output.
pub fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_repeat_and_differ() {
        let draw = |seed, concern| {
            let mut stream = Stream::of(seed, concern);
            [stream.draw(), stream.draw()]
        };
        assert_eq!(draw(7, "disk"), draw(7, "disk"));
        assert_ne!(draw(7, "disk"), draw(7, "network"));
        assert_ne!(draw(7, "disk"), draw(8, "disk"));
    }

    /// The numbers of the paper's reference program for the seed 1234567.
    #[test]
    fn these_are_the_numbers_of_splitmix64() {
        let mut stream = Stream::new(1_234_567);
        let drawn = [stream.draw(), stream.draw(), stream.draw()];
        let expected = [0x599e_d017_fb08_fc85, 0x2c73_f084_5854_0fa5, 0x883e_bce5_a3f2_7c77];
        assert_eq!(drawn, expected);
    }

    #[test]
    fn numbers_keep_within_their_range() {
        let mut stream = Stream::of(1, "range");
        let seen: Vec<u64> = (0..1_000).map(|_| stream.between(3, 5)).collect();
        assert!((3..=5).all(|n| seen.contains(&n)) && seen.iter().all(|n| (3..=5).contains(n)));
        assert_eq!(stream.below(0), 0);
    }

    #[test]
    fn chances_come_as_often_as_said() {
        let mut stream = Stream::of(1, "chance");
        let hits = (0..100_000).filter(|_| stream.chance(0.2)).count();
        assert!((19_000..21_000).contains(&hits), "{hits}");
        assert!(!stream.chance(0.0) && stream.chance(1.0));
    }

    #[test]
    fn times_without_memory_have_their_mean_and_their_tail() {
        let mut stream = Stream::of(1, "lasting");
        let times: Vec<u64> =
            (0..100_000).map(|_| stream.lasting(1_000).as_millis() as u64).collect();
        let mean = times.iter().sum::<u64>() / times.len() as u64;
        assert!((980..1_020).contains(&mean), "{mean}");
        let long = times.iter().filter(|time| **time > 3_000).count(); // e^-3: 4,979
        assert!((4_700..5_300).contains(&long), "{long}");
    }
}
