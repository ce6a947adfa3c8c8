//! Random choices that can be made again: `TERN_SEED` sets the seed, which each test prints.

/// A generator (SplitMix64) for tests; no secret may come from it.
pub struct Random {
    pub seed: u64,
    state: u64,
}

impl Random {
    /// With the seed of `TERN_SEED`, else a fixed one.
    pub fn seeded() -> Self {
        let seed = std::env::var("TERN_SEED").ok().map(|text| text.parse().expect("a number"));
        Self::new(seed.unwrap_or(1))
    }

    /// With this seed.
    pub fn new(seed: u64) -> Self {
        Self { seed, state: seed }
    }

    pub fn number(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`, which is not 0.
    pub fn below(&mut self, end: usize) -> usize {
        (self.number() % end as u64) as usize
    }

    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.number() as u8).collect()
    }

    /// At least `least` bytes and less than `end`.
    pub fn some_bytes(&mut self, least: usize, end: usize) -> Vec<u8> {
        let count = least + self.below(end - least);
        self.bytes(count)
    }
}
