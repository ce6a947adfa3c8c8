//! What the upkeep of the logs counts and knows, for people: checkpoints, deletion, room.

pub(crate) mod clock;
pub(crate) mod keeper;
pub(crate) mod maintain;
pub(crate) mod retention;

use std::time::Duration;

/// What happens when the logs have used up the bytes they may use.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Eviction {
    /// Sends are refused until there is room again; nothing is lost.
    #[default]
    Refuse,
    /// The oldest messages go, before their retention ends.
    Oldest,
}

/// The newest checkpoint of a shard.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CheckpointFacts {
    /// Its number, from 1.
    pub number: u64,
    /// Offset up to which it holds the log.
    pub at: u64,
    /// Bytes of its file.
    pub bytes: u64,
    /// Rows in it.
    pub rows: u64,
    /// How long it took to make; zero if an earlier run made it.
    pub took: Duration,
    /// Its age in confirmed time.
    pub age: Duration,
}

/// The upkeep of one shard, at one moment.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ShardUpkeep {
    /// The newest checkpoint, if there is one.
    pub checkpoint: Option<CheckpointFacts>,
    /// Bytes of sealed segments behind it: what the next start replays, beside the active one.
    pub uncovered_bytes: u64,
    /// Checkpoints made since the start.
    pub checkpoints_made: u64,
    /// Attempts that failed since the start.
    pub checkpoints_failed: u64,
    /// Segments deleted since the start.
    pub segments_deleted: u64,
    /// Bytes of disk that this freed.
    pub bytes_freed: u64,
    /// Messages deleted before their retention ended, as segments, to make room.
    pub segments_evicted: u64,
    /// Confirmed milliseconds at which the oldest kept segment was made.
    pub oldest_ms: u64,
    /// Its age in confirmed time.
    pub oldest_age: Duration,
    /// Why nothing is deleted, or no checkpoint made, although it should be.
    pub suspended: Option<String>,
}

/// What ends the room for messages first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Limit {
    /// The bytes that the logs may use.
    Bound,
    /// The file system.
    Disk,
}

/// What the disk holds, and for how long that goes well.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SpaceReport {
    /// Bytes that segments and checkpoints hold; of the newest segments a part is still empty.
    pub used: u64,
    /// Bytes that they may hold; `None` without a bound.
    pub bound: Option<u64>,
    /// Bytes that the file system has left; `None` if it does not say.
    pub free: Option<u64>,
    /// Bytes of these that are kept free for checkpoints and for other programs.
    pub reserve: u64,
    /// Bytes that can still be written before sends are refused, or messages evicted.
    pub room: u64,
    /// Bytes appended a second, over the last minutes.
    pub bytes_per_second: u64,
    /// What ends the room.
    pub limit: Limit,
    /// Time until it is used up at this rate; `None` at no rate, or if retention makes room in
    /// time.
    pub full_in: Option<Duration>,
    /// What happens then.
    pub eviction: Eviction,
}
