//! What a shard's storage counts, for people.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Classes of commit times: class i holds those below 2^i microseconds; the last one, the rest.
const CLASSES: usize = 24;

/// Live counts of a shard. Each has one writer; readers may see them a moment apart.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) bytes_reserved: AtomicU64,
    pub(crate) bytes_used: AtomicU64,
    pub(crate) bytes_pending: AtomicU64,
    pub(crate) records: AtomicU64,
    pub(crate) batches: AtomicU64,
    pub(crate) segments: AtomicU64,
    pub(crate) warmed: AtomicU64,
    commit_us_last: AtomicU64,
    commit_us_total: AtomicU64,
    commit_us_max: AtomicU64,
    commit_us_classes: [AtomicU64; CLASSES],
}

/// Counts of a shard at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ShardStats {
    /// Bytes of disk that the shard's segments and checkpoints hold.
    pub bytes_reserved: u64,
    /// Bytes of records appended since the start, with headers and marks.
    pub bytes_used: u64,
    /// Bytes appended and not yet durable.
    pub bytes_pending: u64,
    /// Records appended since the start.
    pub records: u64,
    /// Batches made durable since the start.
    pub batches: u64,
    /// Segments of the shard.
    pub segments: u64,
    /// Cold reads served by the I/O thread since the start.
    pub warmed: u64,
    /// Time of the newest commit, write and sync, in microseconds.
    pub commit_us_last: u64,
    /// Mean time of a commit in microseconds.
    pub commit_us_mean: u64,
    /// Longest commit in microseconds.
    pub commit_us_max: u64,
    /// 99 of 100 commits took less than this many microseconds: a power of two.
    pub commit_us_p99: u64,
}

impl Counts {
    pub(crate) fn commit_took(&self, took: Duration) {
        let us = took.as_micros() as u64; // fits for half a million years
        let class = (u64::BITS - us.leading_zeros()).min(CLASSES as u32 - 1);
        self.batches.fetch_add(1, Relaxed);
        self.commit_us_last.store(us, Relaxed);
        self.commit_us_total.fetch_add(us, Relaxed);
        self.commit_us_max.fetch_max(us, Relaxed);
        self.commit_us_classes[class as usize].fetch_add(1, Relaxed);
    }

    pub(crate) fn snapshot(&self) -> ShardStats {
        let batches = self.batches.load(Relaxed);
        ShardStats {
            bytes_reserved: self.bytes_reserved.load(Relaxed),
            bytes_used: self.bytes_used.load(Relaxed),
            bytes_pending: self.bytes_pending.load(Relaxed),
            records: self.records.load(Relaxed),
            batches,
            segments: self.segments.load(Relaxed),
            warmed: self.warmed.load(Relaxed),
            commit_us_last: self.commit_us_last.load(Relaxed),
            commit_us_mean: self.commit_us_total.load(Relaxed).checked_div(batches).unwrap_or(0),
            commit_us_max: self.commit_us_max.load(Relaxed),
            commit_us_p99: self.commit_us_p99(),
        }
    }

    fn commit_us_p99(&self) -> u64 {
        let classes = self.commit_us_classes.each_ref().map(|class| class.load(Relaxed));
        let all: u64 = classes.iter().sum();
        let mut left = all - all / 100;
        for (class, count) in classes.into_iter().enumerate() {
            if count >= left {
                return if all == 0 { 0 } else { 1 << class };
            }
            left -= count;
        }
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_of_commit_times() {
        let counts = Counts::default();
        assert_eq!(counts.snapshot(), ShardStats::default());
        (0..99).for_each(|_| counts.commit_took(Duration::from_micros(200)));
        counts.commit_took(Duration::from_micros(70_000));
        let stats = counts.snapshot();
        assert_eq!((stats.commit_us_p99, stats.commit_us_max), (256, 70_000));
        assert_eq!((stats.commit_us_last, stats.commit_us_mean), (70_000, 898));
    }
}
