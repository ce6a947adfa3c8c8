//! Deduplication as a shard does it for each message: look the device up in the table in shared
//! memory, judge the key, and put the entry after the append. Devices come in no order, so that
//! most look-ups miss the processor's first caches, as with real users.

use std::hint::black_box;

use tern_core::dedup::{DedupEntry, DedupTable};
use tern_core::log::Offset;
use tern_protocol::{DeviceId, Epoch, SendCounter, SendKey, Uin};
use tern_storage::ShmTable;

use super::Operation;
use super::append::Place;

/// Devices in the table.
const DEVICES: u64 = 10_000;

/// A step through them that has no divisor in common with their number.
const STRIDE: u64 = 7_919;

/// A table with devices.
pub struct Dedup {
    table: ShmTable,
    count: u64,
    place: Place,
}

impl Dedup {
    /// All devices have sent once.
    pub fn new() -> Self {
        let (place, _, table) = Place::open();
        let mut dedup = Self { table, count: 0, place };
        for _ in 0..DEVICES {
            dedup.place.work(); // the table grows
            dedup.once();
        }
        dedup
    }
}

impl Default for Dedup {
    fn default() -> Self {
        Self::new()
    }
}

impl Operation for Dedup {
    fn once(&mut self) {
        let uin = Uin(1 + self.count * STRIDE % DEVICES);
        let counter = SendCounter(1 + (self.count / DEVICES) as u32);
        let (device, key) = (DeviceId(1), SendKey { epoch: Epoch(1), counter });
        self.count += 1;
        let at = Offset(8 * self.count);
        let old = self.table.get(black_box(uin), device);
        let entry = DedupEntry::accept(old.as_ref(), black_box(key), at);
        self.table.reserve().expect("there is memory for some thousand devices");
        self.table.put(uin, device, entry, Offset(at.0 + 8));
    }
}
