//! Blocks of bytes that are used again once nobody holds a slice of them.
//!
//! Received datagrams and written frames live in `Bytes` of very different lives: most are gone
//! within a turn or a round trip, a few stay (a fragment that waits for the one before it, a
//! send that waits for its predecessor). So the blocks are small: a slice that stays keeps
//! [`BLOCK_BYTES`] alive and no more, and a peer can't pin much with little. In the steady state
//! each block comes back before its turn and nothing is allocated.

use bytes::{Bytes, BytesMut};

/// Bytes of a block: what the smallest slice can keep alive, and a few messages.
const BLOCK_BYTES: usize = 4 << 10;

/// Blocks of a pool: half a megabyte, what a turn receives or a round trip leaves unacknowledged
/// at a few thousand messages a second.
const BLOCKS: usize = 128;

/// A ring of blocks.
pub(super) struct Pool {
    blocks: Box<[BytesMut]>,
    current: usize,
}

impl Pool {
    pub(super) fn new() -> Self {
        Self { blocks: (0..BLOCKS).map(|_| BytesMut::new()).collect(), current: 0 }
    }

    /// A copy of `bytes` that may be changed in place.
    pub(super) fn copy(&mut self, bytes: &[u8]) -> BytesMut {
        let block = self.with_room(bytes.len());
        block.extend_from_slice(bytes);
        block.split()
    }

    /// The parts one after the other.
    pub(super) fn join(&mut self, parts: [&[u8]; 2]) -> Bytes {
        let block = self.with_room(parts[0].len() + parts[1].len());
        block.extend_from_slice(parts[0]);
        block.extend_from_slice(parts[1]);
        block.split().freeze()
    }

    /// An empty block with room for `bytes`: the current one, else the next, which is used again
    /// if it is free and replaced if not.
    fn with_room(&mut self, bytes: usize) -> &mut BytesMut {
        if self.blocks[self.current].capacity() < bytes {
            self.current = (self.current + 1) % BLOCKS;
            let block = &mut self.blocks[self.current];
            if block.capacity() < bytes && !block.try_reclaim(bytes) {
                *block = BytesMut::with_capacity(bytes.max(BLOCK_BYTES));
            }
        }
        &mut self.blocks[self.current]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_used_again() {
        let mut pool = Pool::new();
        let mut places = std::collections::BTreeSet::new();
        for _ in 0..10 * BLOCKS * BLOCK_BYTES / 1_024 {
            places.insert(pool.copy(&[1; 1_024]).as_ptr() as usize);
        }
        assert!(places.len() <= BLOCKS * BLOCK_BYTES / 1_024, "{} places", places.len());
    }

    #[test]
    fn a_slice_that_is_kept_is_never_written_again() {
        let mut pool = Pool::new();
        let kept = pool.join([b"kept", b" bytes"]);
        for round in 0..=255 {
            for _ in 0..BLOCKS {
                drop(pool.copy(&[round; 3_000]));
            }
        }
        assert_eq!(kept, "kept bytes");
    }

    #[test]
    fn more_than_a_block_is_served() {
        let mut pool = Pool::new();
        let long = vec![7; 3 * BLOCK_BYTES];
        assert_eq!(pool.copy(&long), long);
        assert_eq!(pool.join([b"x", &long]).len(), 1 + long.len());
    }
}
