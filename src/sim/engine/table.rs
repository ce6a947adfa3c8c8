//! A shard's real deduplication table behind the door of core.

use std::cell::RefCell;
use std::rc::Rc;

use tern_core::dedup::{DedupEntry, DedupTable, TableFull};
use tern_core::log::Offset;
use tern_protocol::{DeviceId, Uin};
use tern_storage::ShmTable;

use crate::disk::SharedDisk;
use crate::mutant::Mutant;

/// Look-ups in a hundred that the defect "dedup forgets" spoils.
const FORGOTTEN_PERCENT: u64 = 3;

/// The table of one shard.
#[derive(Debug)]
pub struct RealTable {
    table: Rc<RefCell<ShmTable>>,
    book: SharedDisk,
}

impl RealTable {
    pub(super) fn new(table: Rc<RefCell<ShmTable>>, book: SharedDisk) -> Self {
        Self { table, book }
    }
}

impl DedupTable for RealTable {
    fn get(&self, uin: Uin, device: DeviceId) -> Option<DedupEntry> {
        let book = &mut *self.book.borrow_mut();
        if book.is(Mutant::DedupForgets) && book.stream.percent(FORGOTTEN_PERCENT) {
            return None;
        }
        self.table.borrow().get(uin, device)
    }

    fn reserve(&mut self) -> Result<(), TableFull> {
        self.table.borrow_mut().reserve()
    }

    fn put(&mut self, uin: Uin, device: DeviceId, mut entry: DedupEntry, applied: Offset) {
        if self.book.borrow().is(Mutant::DedupNewestOnly) {
            entry.window = u64::MAX;
        }
        self.table.borrow_mut().put(uin, device, entry, applied);
    }

    fn remove(&mut self, uin: Uin, device: DeviceId) {
        self.table.borrow_mut().remove(uin, device);
    }
}
