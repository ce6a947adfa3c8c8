//! The table as its shard uses it: open addressing, and growth a few entries at a time.

use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, Release};

use tern_core::dedup::{DedupEntry, DedupTable, TableFull};
use tern_core::log::Offset;
use tern_protocol::{DeviceId, Uin};

use super::slots::{Held, Region, SLOT_BYTES, Slot};
use super::supply::{MOVING, READY, Supply, WORD_ENTRIES, WORD_STATE, set_applied};

/// Slots of a new table: 192 KiB a shard.
pub(crate) const SLOTS_MIN: usize = 4096;

/// The working load factor, in fifths: at 4 of 5 slots in use a look-up that finds nothing sees
/// 13 slots on average (Knuth 6.4), and an entry costs 60 bytes.
const LOAD_MAX_FIFTHS: usize = 4;

/// The next table is asked for at this many of 20 slots in use, so that it is ready at 16.
const LOAD_ASK_TWENTIETHS: usize = 15;

/// Old slots looked at for each entry put while the table grows: the move ends long before the
/// new table, twice as large, needs to grow.
const MOVED_PER_PUT: usize = 8;

const _: () = assert!(SLOT_BYTES * 5 / LOAD_MAX_FIFTHS <= 64, "an entry's budget is 64 bytes");

/// A shard's deduplication table in shared memory, written by its one owner.
#[derive(Debug)]
pub struct ShmTable {
    /// Where entries are put.
    main: Region,
    /// While the table grows: the smaller table, and its slots that were moved.
    old: Option<(Region, usize)>,
    /// A smaller table that is empty, until it can be handed over.
    emptied: Option<Region>,
    entries: usize,
    /// Whether the next table was asked for and not taken yet: it is asked for once, for a second
    /// one would get the name of the first.
    asked: bool,
    supply: Arc<Supply>,
}

impl ShmTable {
    /// A table with all its entries in `main`.
    pub(super) fn new(main: Region, entries: usize, supply: Arc<Supply>) -> Self {
        Self { main, old: None, emptied: None, entries, asked: false, supply }
    }

    /// Devices in the table.
    pub fn entries(&self) -> usize {
        self.entries
    }

    /// Bytes of memory it takes, while it grows with the smaller table.
    pub fn bytes(&self) -> usize {
        let old = self.old.as_ref().map_or(0, |(old, _)| old.slots().len());
        (self.main.slots().len() + old) * SLOT_BYTES
    }

    /// Goes over to a table of twice the size, if that is there.
    fn grow(&mut self) -> Result<(), TableFull> {
        let next = self.supply.take().ok_or(TableFull)?;
        assert!(self.asked && next.slots().len() > self.main.slots().len());
        self.asked = false;
        self.main.header()[WORD_STATE].store(MOVING, Release);
        let old = std::mem::replace(&mut self.main, next);
        self.old = Some((old, 0));
        Ok(())
    }

    /// Moves some entries out of the smaller table.
    fn move_some(&mut self) {
        let Some((old, moved)) = &mut self.old else { return };
        let slots = old.slots();
        for slot in &slots[*moved..(*moved + MOVED_PER_PUT).min(slots.len())] {
            if let Some(held) = slot.get() {
                let place = find(&self.main, held.uin, held.device);
                // One that is there already was put later than the one that moves.
                if place.is_free() {
                    insert(&self.main, place, &held);
                }
            }
        }
        *moved = (*moved + MOVED_PER_PUT).min(slots.len());
        if *moved == slots.len() {
            self.main.header()[WORD_STATE].store(READY, Release);
            self.emptied = self.old.take().map(|(old, _)| old);
            self.hand_over_emptied();
        }
    }

    fn hand_over_emptied(&mut self) {
        if let Some(region) = self.emptied.take() {
            self.emptied = self.supply.retire(region).err();
        }
    }
}

impl DedupTable for ShmTable {
    fn get(&self, uin: Uin, device: DeviceId) -> Option<DedupEntry> {
        let found = find(&self.main, uin, device).get();
        let found = found.or_else(|| find(&self.old.as_ref()?.0, uin, device).get());
        found.map(|held| held.entry)
    }

    fn reserve(&mut self) -> Result<(), TableFull> {
        let (slots, needed) = (self.main.slots().len(), self.entries + 1);
        if needed * 20 <= slots * LOAD_ASK_TWENTIETHS {
            return Ok(());
        }
        self.hand_over_emptied();
        if self.old.is_none() && self.emptied.is_none() && !self.asked {
            self.supply.want(slots * 2);
            self.asked = true;
        }
        if needed * 5 <= slots * LOAD_MAX_FIFTHS {
            return Ok(());
        }
        if self.old.is_some() {
            return Err(TableFull);
        }
        self.grow()
    }

    fn put(&mut self, uin: Uin, device: DeviceId, entry: DedupEntry, applied: Offset) {
        assert!(uin.0 != 0, "0 is no user");
        let held = Held { uin, device, entry };
        let place = find(&self.main, uin, device);
        if place.is_free() {
            let moved =
                self.old.as_ref().is_some_and(|(old, _)| find(old, uin, device).get().is_some());
            if !moved {
                let room = (self.entries + 1) * 5 <= self.main.slots().len() * LOAD_MAX_FIFTHS;
                assert!(room, "no room was reserved");
                self.entries += 1;
            }
            insert(&self.main, place, &held);
        } else {
            place.put(&held);
        }
        set_applied(self.main.header(), applied);
        self.move_some();
    }
}

/// Fills a free slot.
fn insert(region: &Region, place: &Slot, held: &Held) {
    place.put(held);
    let entries = &region.header()[WORD_ENTRIES];
    entries.store(entries.load(Relaxed) + 1, Release);
}

/// The slot of a device, or the free one where it would be.
fn find(region: &Region, uin: Uin, device: DeviceId) -> &Slot {
    let slots = region.slots();
    let start = home(uin, device, slots.len());
    let found = slots[start..]
        .iter()
        .chain(&slots[..start])
        .find(|slot| slot.is_free() || slot.is_of(uin, device));
    found.expect("a table always has free slots")
}

/// Where the search for a device begins.
pub(super) fn home(uin: Uin, device: DeviceId, slots: usize) -> usize {
    let mixed = mix(mix(uin.0) ^ u64::from(device.0));
    // The high half of the product: an even spread over any number of slots.
    ((u128::from(mixed) * slots as u128) >> 64) as usize
}

/// The finalizer of SplitMix64 (Steele, Lea, Flood 2014). Part of the table's layout.
fn mix(mut x: u64) -> u64 {
    x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}
