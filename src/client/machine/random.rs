//! Randomness from a seed that the driver gives: for jitter, never for secrets.

/// SplitMix64 (Steele, Lea, Flood, OOPSLA 2014): 64 bits of state, every seed is a good one.
#[derive(Clone, Debug)]
pub(crate) struct Random {
    state: u64,
}

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number from `low` to `high`, both included.
    pub(crate) fn between(&mut self, low: u64, high: u64) -> u64 {
        assert!(low <= high, "no number is from {low} to {high}");
        let span = u128::from(high - low) + 1;
        // The high half of the product: no division, and a bias below 2^-32 for spans of ms.
        low + ((u128::from(self.next()) * span) >> 64) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reaches_both_ends_and_nothing_beyond() {
        let mut random = Random::new(7);
        let drawn: Vec<u64> = (0..1_000).map(|_| random.between(10, 13)).collect();
        for number in 10..=13 {
            assert!(drawn.contains(&number), "{number}");
        }
        assert!(drawn.iter().all(|number| (10..=13).contains(number)));
        assert!((0..10).any(|_| random.between(0, u64::MAX) > u64::MAX / 2));
    }
}
