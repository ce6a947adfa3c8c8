//! What a worker of the simulated server has for a log, a table and a reader: those of the
//! simulated disk, or the real ones.

use tern_core::dedup::{DedupEntry, DedupTable, TableFull};
use tern_core::log::{
    AppendError, Durable, Links, Log, LogFailed, Offset, ReadError, Reader, Record, RecordKind,
};
use tern_core::placement::ShardId;
use tern_protocol::{ChannelId, DeviceId, MessageId, Uin};

use super::{DiskLog, DiskReader, DiskTable};
use crate::engine::log::{RealLog, RealReader};
use crate::engine::table::RealTable;

/// A shard's log.
#[derive(Debug)]
pub enum AnyLog {
    /// Of the simulated disk.
    Simulated(DiskLog),
    /// Of the storage that ships.
    Real(RealLog),
}

/// A shard's deduplication table.
#[derive(Debug)]
pub enum AnyTable {
    /// Of the simulated shared memory.
    Simulated(DiskTable),
    /// Of the storage that ships.
    Real(RealTable),
}

/// A reader of all logs.
#[derive(Clone, Debug)]
pub enum AnyReader {
    /// Of the simulated disk.
    Simulated(DiskReader),
    /// Of the storage that ships.
    Real(RealReader),
}

impl Log for AnyLog {
    fn append(
        &mut self,
        kind: RecordKind,
        links: Links,
        body: &[&[u8]],
    ) -> Result<Offset, AppendError> {
        match self {
            Self::Simulated(log) => log.append(kind, links, body),
            Self::Real(log) => log.append(kind, links, body),
        }
    }

    fn commit(&mut self) {
        match self {
            Self::Simulated(log) => log.commit(),
            Self::Real(log) => log.commit(),
        }
    }

    fn durable(&mut self) -> Result<Durable, LogFailed> {
        match self {
            Self::Simulated(log) => log.durable(),
            Self::Real(log) => log.durable(),
        }
    }

    fn tail(&self) -> Offset {
        match self {
            Self::Simulated(log) => log.tail(),
            Self::Real(log) => log.tail(),
        }
    }

    fn poll_expired(&mut self) -> Option<(ChannelId, MessageId)> {
        match self {
            Self::Simulated(log) => log.poll_expired(),
            Self::Real(log) => log.poll_expired(),
        }
    }

    fn with_record<T>(
        &mut self,
        at: Offset,
        read: impl FnOnce(Record<'_>) -> T,
    ) -> Result<T, ReadError> {
        match self {
            Self::Simulated(log) => log.with_record(at, read),
            Self::Real(log) => log.with_record(at, read),
        }
    }
}

impl DedupTable for AnyTable {
    fn get(&self, uin: Uin, device: DeviceId) -> Option<DedupEntry> {
        match self {
            Self::Simulated(table) => table.get(uin, device),
            Self::Real(table) => table.get(uin, device),
        }
    }

    fn reserve(&mut self) -> Result<(), TableFull> {
        match self {
            Self::Simulated(table) => table.reserve(),
            Self::Real(table) => table.reserve(),
        }
    }

    fn put(&mut self, uin: Uin, device: DeviceId, entry: DedupEntry, applied: Offset) {
        match self {
            Self::Simulated(table) => table.put(uin, device, entry, applied),
            Self::Real(table) => table.put(uin, device, entry, applied),
        }
    }

    fn remove(&mut self, uin: Uin, device: DeviceId) {
        match self {
            Self::Simulated(table) => table.remove(uin, device),
            Self::Real(table) => table.remove(uin, device),
        }
    }
}

impl Reader for AnyReader {
    fn with_record<T>(
        &mut self,
        shard: ShardId,
        at: Offset,
        read: impl FnOnce(Record<'_>) -> T,
    ) -> Result<T, ReadError> {
        match self {
            Self::Simulated(reader) => reader.with_record(shard, at, read),
            Self::Real(reader) => reader.with_record(shard, at, read),
        }
    }
}
