//! The lives of the simulated logs: copies of what they hold, the way back to such a copy, and
//! where in each log a new life begins.

use std::collections::BTreeMap;

use tern_core::dedup::DedupEntry;
use tern_core::log::Offset;
use tern_core::placement::ShardId;
use tern_protocol::Incarnation;

use super::{Disk, harm};

/// A copy of everything durable, as it was in one moment.
#[derive(Clone, Debug)]
pub struct Backup {
    shards: Vec<ShardBackup>,
}

#[derive(Clone, Debug)]
struct ShardBackup {
    records: usize,
    harm: BTreeMap<usize, harm::Harm>,
    expired: usize,
}

/// Where in a log which lives begin.
#[derive(Debug, Default)]
pub(super) struct Lives {
    begun: Vec<(usize, Incarnation)>,
    /// Lives that any copy of the log has had, beside the first.
    raised: u32,
    /// Anything was damaged or deleted in a life that ended.
    was_hurt: bool,
}

impl Lives {
    pub(super) fn was_hurt(&self) -> bool {
        self.was_hurt
    }
}

impl Disk {
    /// Copies what is durable now.
    pub fn backup(&self) -> Backup {
        let shards = self.shards.iter().map(|shard| ShardBackup {
            records: shard.synced,
            harm: shard.harm.clone(),
            expired: shard.expired,
        });
        Backup { shards: shards.collect() }
    }

    /// The logs of a dead server are those of a copy again; what came after it is gone.
    pub fn restore(&mut self, backup: &Backup) {
        for (shard, copy) in self.shards.iter_mut().zip(&backup.shards) {
            // What the copy holds is durable, so it is there.
            shard.lives.was_hurt |= !shard.harm.is_empty() || shard.expired > 0;
            shard.stored.truncate(copy.records);
            (shard.written, shard.synced) = (copy.records, copy.records);
            (shard.harm, shard.expired) = (copy.harm.clone(), copy.expired);
            shard.needed.retain(|index| *index < copy.records);
            shard.warm.clear();
            shard.lives.begun.retain(|(index, _)| *index <= copy.records);
            let entries: BTreeMap<_, DedupEntry> = BTreeMap::new();
            (shard.entries, shard.applied) = (entries, Offset::NONE);
        }
    }

    /// Each log of a dead server begins a new life behind what it holds, above all lives that any
    /// copy of it has had.
    pub fn raise(&mut self) {
        for shard in &mut self.shards {
            shard.lives.raised += 1;
            let life = Incarnation(shard.lives.raised + 1);
            shard.lives.begun.push((shard.stored.len(), life));
        }
    }

    /// The lives of a log: before which record each begins.
    pub fn lives(&self, id: ShardId) -> &[(usize, Incarnation)] {
        &self.shards[usize::from(id.0)].lives.begun
    }

    /// The life of a log at its end.
    pub fn life(&self, id: ShardId) -> Incarnation {
        self.lives(id).last().map_or(Incarnation(1), |(_, life)| *life)
    }
}

#[cfg(test)]
mod tests {
    use super::super::DiskLog;
    use super::*;
    use crate::random::Stream;
    use tern_core::log::{Links, Log, RecordKind};

    #[test]
    fn a_restored_log_begins_a_life_that_no_copy_ever_had() {
        let shard = ShardId(0);
        let disk = Disk::new(1, Stream::of(1, "disk"), None);
        let append = |count: usize| {
            let mut log = DiskLog::open(shard, &disk);
            for _ in 0..count {
                log.append(RecordKind::Message, Links::default(), &[b"x"]).unwrap();
            }
            log.commit();
            disk.borrow_mut().end_sync(shard, true);
        };
        append(2);
        let backup = disk.borrow().backup();
        for life in 2..4 {
            append(3);
            disk.borrow_mut().restore(&backup);
            disk.borrow_mut().raise();
            assert_eq!(disk.borrow().records(shard), 2);
            assert_eq!(disk.borrow().life(shard), Incarnation(life));
        }
        assert_eq!(disk.borrow().lives(shard), [(2, Incarnation(2)), (2, Incarnation(3))]);
    }
}
