//! Who owns what: channels and uins belong to shards, shards to workers.
//!
//! The number of shards and the hash are part of the data folder's format (a channel's records
//! stand in its shard's log); the number of workers may change at every start.

use tern_protocol::{ChannelId, Uin};

/// A shard's number, from 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ShardId(pub u16);

/// A worker's number, from 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct WorkerId(pub u16);

/// Shards a data folder may have: a power of two is not needed, but a bound is; the table of
/// each pair of shards' notifies grows with its square.
pub const SHARDS_MAX: u16 = 256;

/// Which shard owns what, and which worker runs it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Placement {
    shards: u16,
    workers: u16,
}

impl Placement {
    /// # Panics
    /// If there is no shard or no worker, or there are more shards than [`SHARDS_MAX`].
    pub fn new(shards: u16, workers: u16) -> Self {
        assert!((1..=SHARDS_MAX).contains(&shards) && workers > 0);
        Self { shards, workers }
    }

    /// Number of shards.
    pub fn shards(&self) -> u16 {
        self.shards
    }

    /// Number of workers.
    pub fn workers(&self) -> u16 {
        self.workers
    }

    /// The shard that owns a channel.
    pub fn shard_of_channel(&self, channel: ChannelId) -> ShardId {
        let (low, high) = channel.halves();
        self.shard_of_hash(mix(mix(low) ^ high))
    }

    /// A user's home shard: it knows the user's channels, devices, epochs and sessions.
    pub fn home_of(&self, uin: Uin) -> ShardId {
        self.shard_of_hash(mix(uin.0))
    }

    /// The worker that runs a shard.
    pub fn worker_of(&self, shard: ShardId) -> WorkerId {
        WorkerId(shard.0 % self.workers)
    }

    /// The shards of a worker.
    pub fn shards_of(&self, worker: WorkerId) -> impl Iterator<Item = ShardId> + use<> {
        let workers = self.workers;
        (0..self.shards).filter(move |shard| shard % workers == worker.0).map(ShardId)
    }

    fn shard_of_hash(&self, hash: u64) -> ShardId {
        ShardId((hash % u64::from(self.shards)) as u16) // fits: less than `shards`
    }
}

/// The finalizer of SplitMix64 (Steele, Lea, Flood 2014): every bit of the input moves every bit
/// of the output. Part of the folder's format and the table's: it must never change.
pub fn mix(mut x: u64) -> u64 {
    x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_part_of_the_format() {
        let placement = Placement::new(4, 2);
        let homes: Vec<u16> = (1..=8).map(|uin| placement.home_of(Uin(uin)).0).collect();
        let channels: Vec<u16> = (2..=9)
            .map(|uin| placement.shard_of_channel(ChannelId::direct(Uin(1), Uin(uin))).0)
            .collect();
        assert_eq!(homes, [1, 2, 1, 2, 2, 0, 3, 2], "homes of uins 1 to 8");
        assert_eq!(channels, [3, 3, 3, 3, 2, 2, 1, 0], "shards of the channels 1-2 to 1-9");
    }

    #[test]
    fn each_shard_has_one_worker() {
        let placement = Placement::new(5, 3);
        let mut shards: Vec<u16> = (0..3)
            .flat_map(|worker| placement.shards_of(WorkerId(worker)))
            .map(|shard| shard.0)
            .collect();
        shards.sort_unstable();
        assert_eq!(shards, [0, 1, 2, 3, 4]);
    }
}
