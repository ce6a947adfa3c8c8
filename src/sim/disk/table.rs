//! A shard's deduplication table in the simulated shared memory.

use std::rc::Rc;

use tern_core::dedup::{DedupEntry, DedupTable, TableFull};
use tern_core::log::Offset;
use tern_core::placement::ShardId;
use tern_protocol::{DeviceId, Uin};

use super::SharedDisk;
use crate::mutant::Mutant;

/// Look-ups in a hundred that the defect "dedup forgets" spoils.
const FORGOTTEN_PERCENT: u64 = 3;

/// The table of one shard.
#[derive(Debug)]
pub struct DiskTable {
    shard: ShardId,
    disk: SharedDisk,
}

impl DiskTable {
    /// The table of a shard.
    pub fn new(shard: ShardId, disk: &SharedDisk) -> Self {
        Self { shard, disk: Rc::clone(disk) }
    }
}

impl DedupTable for DiskTable {
    fn get(&self, uin: Uin, device: DeviceId) -> Option<DedupEntry> {
        let disk = &mut *self.disk.borrow_mut();
        if disk.is(Mutant::DedupForgets) && disk.stream.percent(FORGOTTEN_PERCENT) {
            return None;
        }
        disk.shard(self.shard).entries.get(&(uin, device)).copied()
    }

    fn reserve(&mut self) -> Result<(), TableFull> {
        let disk = &mut *self.disk.borrow_mut();
        if disk.full {
            disk.met[0] = true;
            return Err(TableFull);
        }
        Ok(())
    }

    fn put(&mut self, uin: Uin, device: DeviceId, mut entry: DedupEntry, applied: Offset) {
        let disk = &mut *self.disk.borrow_mut();
        if disk.is(Mutant::DedupNewestOnly) {
            entry.window = u64::MAX;
        }
        let shard = disk.shard(self.shard);
        shard.entries.insert((uin, device), entry);
        shard.applied = applied;
    }
}
