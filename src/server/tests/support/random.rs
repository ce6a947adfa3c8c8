//! Random choices that can be made again: `TERN_SEED` sets the seed, which each test prints.

use tern_random::{Stream, seed_from_env};

/// A stream that knows its seed.
pub struct Random {
    pub seed: u64,
    stream: Stream,
}

impl Random {
    /// With the seed of `TERN_SEED`, else a fixed one.
    pub fn seeded() -> Self {
        Self::new(seed_from_env(1))
    }

    /// With this seed.
    pub fn new(seed: u64) -> Self {
        Self { seed, stream: Stream::new(seed) }
    }

    pub fn number(&mut self) -> u64 {
        self.stream.draw()
    }

    /// A number below `end`, which is not 0.
    pub fn below(&mut self, end: usize) -> usize {
        self.stream.index(end)
    }

    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        self.stream.bytes(count)
    }

    /// At least `least` bytes and less than `end`.
    pub fn some_bytes(&mut self, least: usize, end: usize) -> Vec<u8> {
        let count = least + self.below(end - least);
        self.bytes(count)
    }
}
