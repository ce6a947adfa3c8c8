//! Numbers that a seed decides, so that a run can be had again.

/// SplitMix64: small, fast and good enough to toss packets; never for secrets.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The generator of `seed` for one `purpose`: two purposes of one seed have nothing in
    /// common, so a packet more on one link changes nothing on the other.
    pub fn new(seed: u64, purpose: u64) -> Self {
        // Mixed, not added: a state that is a few steps ahead would say the same a little later.
        Self(Self(Self(seed).next() ^ purpose).next())
    }

    /// The next 64 bits.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number from 0 up to, and without, 1.
    pub fn fraction(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Whether something of this probability happens now.
    pub fn chance(&mut self, probability: f64) -> bool {
        self.fraction() < probability
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_same_seed_says_the_same_and_another_purpose_does_not() {
        let draw = |seed, purpose| {
            let mut random = Random::new(seed, purpose);
            [random.next(), random.next()]
        };
        assert_eq!(draw(7, 1), draw(7, 1));
        assert_ne!(draw(7, 1), draw(7, 2));
        assert_ne!(draw(7, 1), draw(8, 1));
    }

    #[test]
    fn purposes_of_a_seed_have_no_number_in_common() {
        let draw = |purpose| {
            let mut random = Random::new(1, purpose);
            (0..1_000).map(move |_| random.next())
        };
        let all: BTreeSet<u64> = (0..8).flat_map(draw).collect();
        assert_eq!(all.len(), 8_000);
    }

    #[test]
    fn chances_come_as_often_as_said() {
        let mut random = Random::new(1, 0);
        let hits = (0..100_000).filter(|_| random.chance(0.2)).count();
        assert!((19_000..21_000).contains(&hits), "{hits}");
        assert!(!random.chance(0.0) && random.chance(1.0));
    }
}
