//! A log and a table in memory: for tests, and for whoever drives the machine without a disk.
//!
//! Nothing is durable until [`MemoryLog::sync`], unless the log was told to sync by itself.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustc_hash::FxHashMap;
use tern_protocol::{ChannelId, DeviceId, MessageId, Uin};

use crate::dedup::{DedupEntry, DedupTable, TableFull};
use crate::log::{
    AppendError, Durable, Links, Log, LogFailed, Offset, ReadError, Reader, Record, RecordKind,
};
use crate::placement::ShardId;
use crate::shard::state::WindowRow;

/// Distance of two records, so that offsets look like those on disk and 0 is none of them.
const STRIDE: u64 = 8;

struct Stored {
    kind: RecordKind,
    links: Links,
    body: Vec<u8>,
}

/// What one shard's log holds, and how many of its records are durable.
#[derive(Default)]
struct Records {
    stored: Vec<Stored>,
    synced: usize,
    damaged: Vec<Offset>,
}

type Shared = Arc<Mutex<FxHashMap<ShardId, Records>>>;

/// All shards' records, read by every worker.
#[derive(Clone, Default)]
pub struct MemoryReader {
    shared: Shared,
}

/// The log of one shard.
pub struct MemoryLog {
    shard: ShardId,
    shared: Shared,
    syncs_itself: bool,
    refusal: Option<AppendError>,
}

/// The deduplication table of one shard.
#[derive(Default)]
pub struct MemoryTable {
    entries: FxHashMap<(Uin, DeviceId), DedupEntry>,
}

impl MemoryTable {
    /// All entries, as rows of a checkpoint, in their order.
    pub fn rows(&self) -> Vec<WindowRow> {
        let row = |(key, entry): (&(Uin, DeviceId), &DedupEntry)| entry.to_row(key.0, key.1);
        let mut entries: Vec<_> = self.entries.iter().collect();
        entries.sort_unstable_by_key(|(key, _)| **key);
        entries.into_iter().map(row).collect()
    }
}

impl MemoryReader {
    /// The log of a shard, empty the first time, with all it holds durable. With `syncs_itself`
    /// each commit is durable at once.
    pub fn log(&self, shard: ShardId, syncs_itself: bool) -> MemoryLog {
        let shared = Arc::clone(&self.shared);
        let mut log = MemoryLog { shard, shared, syncs_itself, refusal: None };
        log.sync();
        log
    }

    /// Hands every record of a shard to `visit`: its offset, the next one's, and the record.
    pub fn replay(&self, shard: ShardId, mut visit: impl FnMut(Offset, Offset, Record<'_>)) {
        let mut shared = lock(&self.shared);
        for (index, stored) in shared.entry(shard).or_default().stored.iter().enumerate() {
            visit(offset(index), offset(index + 1), stored.view());
        }
    }

    /// The record at this place can't be read any more.
    pub fn damage(&self, shard: ShardId, at: Offset) {
        lock(&self.shared).entry(shard).or_default().damaged.push(at);
    }

    /// The power goes: what was not synced is gone.
    pub fn cut_power(&self) {
        for records in lock(&self.shared).values_mut() {
            records.stored.truncate(records.synced);
        }
    }
}

impl MemoryLog {
    /// Makes everything appended so far durable.
    pub fn sync(&mut self) {
        self.with(|records| records.synced = records.stored.len());
    }

    /// From now on appends are refused with this, or with nothing.
    pub fn refuse(&mut self, refusal: Option<AppendError>) {
        self.refusal = refusal;
    }

    fn with<T>(&self, act: impl FnOnce(&mut Records) -> T) -> T {
        act(lock(&self.shared).entry(self.shard).or_default())
    }
}

impl Log for MemoryLog {
    fn append(
        &mut self,
        kind: RecordKind,
        links: Links,
        body: &[&[u8]],
    ) -> Result<Offset, AppendError> {
        if let Some(refusal) = self.refusal {
            return Err(refusal);
        }
        let at = self.tail();
        let stored = Stored { kind, links, body: body.concat() };
        self.with(|records| records.stored.push(stored));
        Ok(at)
    }

    fn commit(&mut self) {
        if self.syncs_itself {
            self.sync();
        }
    }

    fn durable(&mut self) -> Result<Durable, LogFailed> {
        match self.refusal {
            Some(AppendError::Failed) => Err(LogFailed),
            _ => Ok(Durable::assert_synced(offset(self.with(|records| records.synced)))),
        }
    }

    fn tail(&self) -> Offset {
        offset(self.with(|records| records.stored.len()))
    }

    fn poll_expired(&mut self) -> Option<(ChannelId, MessageId)> {
        None
    }

    fn with_record<T>(
        &mut self,
        at: Offset,
        read: impl FnOnce(Record<'_>) -> T,
    ) -> Result<T, ReadError> {
        read_at(&self.shared, self.shard, at, read)
    }
}

impl Reader for MemoryReader {
    fn with_record<T>(
        &mut self,
        shard: ShardId,
        at: Offset,
        read: impl FnOnce(Record<'_>) -> T,
    ) -> Result<T, ReadError> {
        read_at(&self.shared, shard, at, read)
    }
}

impl DedupTable for MemoryTable {
    fn get(&self, uin: Uin, device: DeviceId) -> Option<DedupEntry> {
        self.entries.get(&(uin, device)).copied()
    }

    fn reserve(&mut self) -> Result<(), TableFull> {
        Ok(())
    }

    fn put(&mut self, uin: Uin, device: DeviceId, entry: DedupEntry, _applied: Offset) {
        self.entries.insert((uin, device), entry);
    }
}

impl Stored {
    fn view(&self) -> Record<'_> {
        Record { kind: self.kind, links: self.links, body: &self.body }
    }
}

fn read_at<T>(
    shared: &Shared,
    shard: ShardId,
    at: Offset,
    read: impl FnOnce(Record<'_>) -> T,
) -> Result<T, ReadError> {
    let shared = lock(shared);
    let index = (at.0 / STRIDE).checked_sub(1).ok_or(ReadError::LOST)?;
    let records = shared.get(&shard).filter(|records| !records.damaged.contains(&at));
    let stored = records.and_then(|records| records.stored.get(index as usize));
    stored.map(|stored| read(stored.view())).ok_or(ReadError::LOST)
}

fn offset(index: usize) -> Offset {
    Offset((index as u64 + 1) * STRIDE)
}

fn lock(shared: &Shared) -> MutexGuard<'_, FxHashMap<ShardId, Records>> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
