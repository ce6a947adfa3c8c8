//! A deduplication table whose size can be seen from outside of its worker.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tern_core::dedup::{DedupEntry, DedupTable, TableFull};
use tern_core::log::Offset;
use tern_protocol::{DeviceId, Uin};
use tern_storage::ShmTable;

/// The size of a table, as its owner said it last.
#[derive(Debug, Default)]
pub(super) struct TableCounts {
    entries: AtomicU64,
    bytes: AtomicU64,
}

impl TableCounts {
    /// Devices in the table.
    pub(super) fn entries(&self) -> u64 {
        self.entries.load(Ordering::Relaxed)
    }

    /// Bytes of shared memory that it holds.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

/// The table in shared memory, with its counts.
#[derive(Debug)]
pub(super) struct CountedTable {
    table: ShmTable,
    counts: Arc<TableCounts>,
}

impl CountedTable {
    pub(super) fn new(table: ShmTable) -> Self {
        let counted = Self { table, counts: Arc::default() };
        counted.publish();
        counted
    }

    pub(super) fn counts(&self) -> Arc<TableCounts> {
        Arc::clone(&self.counts)
    }

    fn publish(&self) {
        self.counts.entries.store(self.table.entries() as u64, Ordering::Relaxed);
        self.counts.bytes.store(self.table.bytes() as u64, Ordering::Relaxed);
    }
}

impl DedupTable for CountedTable {
    fn get(&self, uin: Uin, device: DeviceId) -> Option<DedupEntry> {
        self.table.get(uin, device)
    }

    fn reserve(&mut self) -> Result<(), TableFull> {
        self.table.reserve()
    }

    fn put(&mut self, uin: Uin, device: DeviceId, entry: DedupEntry, applied: Offset) {
        self.table.put(uin, device, entry, applied);
        self.publish();
    }
    fn remove(&mut self, uin: Uin, device: DeviceId) {
        self.table.remove(uin, device);
        self.publish();
    }
}
