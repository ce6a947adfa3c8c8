//! A shard's log on the simulated disk, and the reader of all of them.

use std::rc::Rc;

use tern_core::log::{
    AppendError, Durable, Links, Log, LogFailed, Offset, ReadError, Reader, Record, RecordKind,
};
use tern_core::placement::ShardId;
use tern_protocol::{ChannelId, MessageId};

use super::{SharedDisk, Stored, offset};
use crate::mutant::Mutant;

/// Reads in a hundred that the defect "reads lost" spoils.
const LOST_PERCENT: u64 = 2;

/// The log of one shard, for its owner.
#[derive(Debug)]
pub struct DiskLog {
    shard: ShardId,
    disk: SharedDisk,
}

/// Reads all logs.
#[derive(Clone, Debug)]
pub struct DiskReader {
    disk: SharedDisk,
}

impl DiskLog {
    /// Opens the log of a shard.
    pub fn open(shard: ShardId, disk: &SharedDisk) -> Self {
        disk.borrow_mut().open(shard);
        Self { shard, disk: Rc::clone(disk) }
    }
}

impl DiskReader {
    /// A reader of this disk.
    pub fn new(disk: &SharedDisk) -> Self {
        Self { disk: Rc::clone(disk) }
    }
}

impl Log for DiskLog {
    fn append(
        &mut self,
        kind: RecordKind,
        links: Links,
        body: &[&[u8]],
    ) -> Result<Offset, AppendError> {
        let disk = &mut *self.disk.borrow_mut();
        let busy = disk.busy_percent > 0 && disk.stream.percent(disk.busy_percent);
        if disk.shard(self.shard).failed && !disk.is(Mutant::SyncRetried) {
            return Err(AppendError::Failed);
        }
        if disk.full {
            disk.met[0] = true;
            return Err(AppendError::Full);
        }
        if busy {
            disk.met[1] = true;
            return Err(AppendError::Busy);
        }
        let index = disk.records(self.shard);
        let (at, end) = (offset(index), offset(index + 1));
        let proven = offset(disk.shard(self.shard).claimed);
        let (body, confirmed_ms) = (body.concat(), disk.confirmed_ms);
        disk.add(self.shard, Stored { kind, links, body, at, end, proven, confirmed_ms });
        Ok(at)
    }

    fn commit(&mut self) {
        let disk = &mut *self.disk.borrow_mut();
        let shard = disk.shard(self.shard);
        shard.written = shard.stored.len();
        if shard.syncing.is_none() && shard.written > shard.claimed && !shard.failed {
            shard.syncing = Some(shard.written);
            disk.syncs.push(self.shard);
        }
    }

    fn durable(&mut self) -> Result<Durable, LogFailed> {
        let disk = &mut *self.disk.borrow_mut();
        let (eager, retried) = (disk.is(Mutant::AckBeforeCommit), disk.is(Mutant::SyncRetried));
        let shard = disk.shard(self.shard);
        if shard.failed && !retried {
            return Err(LogFailed);
        }
        let end = if eager { shard.stored.len() } else { shard.claimed };
        Ok(Durable::assert_synced(offset(end)))
    }

    fn tail(&self) -> Offset {
        offset(self.disk.borrow().records(self.shard))
    }

    fn poll_expired(&mut self) -> Option<(ChannelId, MessageId)> {
        self.disk.borrow_mut().shard(self.shard).expiry_news.pop_front()
    }

    fn with_record<T>(
        &mut self,
        at: Offset,
        read: impl FnOnce(Record<'_>) -> T,
    ) -> Result<T, ReadError> {
        read_at(&self.disk, self.shard, at, read)
    }
}

impl Reader for DiskReader {
    fn with_record<T>(
        &mut self,
        shard: ShardId,
        at: Offset,
        read: impl FnOnce(Record<'_>) -> T,
    ) -> Result<T, ReadError> {
        {
            let disk = &mut *self.disk.borrow_mut();
            if disk.is(Mutant::ReadsLost) && disk.stream.percent(LOST_PERCENT) {
                return Err(ReadError::LOST);
            }
        }
        read_at(&self.disk, shard, at, read)
    }
}

fn read_at<T>(
    disk: &SharedDisk,
    shard: ShardId,
    at: Offset,
    read: impl FnOnce(Record<'_>) -> T,
) -> Result<T, ReadError> {
    let index = disk.borrow().index_of(shard, at);
    if let Some(obstacle) = disk.borrow_mut().shard(shard).obstacle(index) {
        return Err(obstacle);
    }
    if disk.borrow().is_cold(shard, index) {
        disk.borrow_mut().met[2] = true;
        return Err(ReadError::Cold);
    }
    let disk = disk.borrow();
    let (_, _, record) = disk.record(shard, index).ok_or(ReadError::LOST)?;
    Ok(read(record))
}
