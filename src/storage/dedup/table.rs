//! The table as its shard uses it: open addressing, growth a few entries at a time, and the way
//! out for devices that can send no more.
//!
//! It never shrinks: room that devices left is taken by others, and after a restart of the
//! machine, or any doubt, a table is filled anew in the size that it needs.

use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, Release};

use tern_core::dedup::{DedupEntry, DedupTable, TableFull};
use tern_core::log::Offset;
use tern_protocol::{DeviceId, Uin};

use super::memory::Word;
use super::probe::{self, find};
use super::region::Region;
use super::slot::{Held, SLOT_BYTES, Slot};
use super::supply::{MOVING, READY, Supply, WORD_ENTRIES, WORD_MOVES, WORD_STATE, set_applied};

/// Slots of a new table: 192 KiB a shard.
pub(super) const SLOTS_MIN: usize = 4096;

/// The working load factor, in fifths: at 4 of 5 slots in use a look-up that finds nothing sees
/// 13 slots on average (Knuth 6.4), and an entry costs 60 bytes.
pub(super) const LOAD_MAX_FIFTHS: usize = 4;

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
        let some = &slots[*moved..(*moved + MOVED_PER_PUT).min(slots.len())];
        for held in some.iter().filter_map(|slot| Held::from_words(&slot.own())) {
            let index = find(self.main.slots(), held.uin, held.device);
            // One that is there already was put later than the one that moves.
            if held.is_alive() && self.main.slots()[index].is_free() {
                insert(&self.main, index, &held);
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
        let found = alive(&self.main, uin, device);
        let found = found.or_else(|| alive(&self.old.as_ref()?.0, uin, device));
        found.map(|(_, held)| held.entry)
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
        assert!(held.is_alive(), "the newest key of a device was used");
        let index = find(self.main.slots(), uin, device);
        let slot = &self.main.slots()[index];
        if slot.is_free() {
            if self.old.as_ref().is_none_or(|(old, _)| alive(old, uin, device).is_none()) {
                let room = (self.entries + 1) * 5 <= self.main.slots().len() * LOAD_MAX_FIFTHS;
                assert!(room, "no room was reserved");
                self.entries += 1;
            }
            insert(&self.main, index, &held);
        } else {
            slot.write(&held.words());
        }
        set_applied(self.main.header(), applied);
        self.move_some();
    }

    fn remove(&mut self, uin: Uin, device: DeviceId) {
        // What moves for it lies in the same run of slots, see `probe`.
        let index = find(self.main.slots(), uin, device);
        let here = !self.main.slots()[index].is_free();
        if here {
            take_out(&self.main, index);
        }
        // Nothing moves in a table that is moved out of: it could get behind the mover. One that
        // has been moved stands there still, and must not be found instead.
        let there = self.old.as_ref().and_then(|(old, _)| alive(old, uin, device));
        if let Some((slot, held)) = there {
            slot.write(&held.removed().words());
        }
        self.entries -= usize::from(here || there.is_some());
    }
}

/// The slot of a device that a table which is moved out of still speaks for.
fn alive(region: &Region, uin: Uin, device: DeviceId) -> Option<(&Slot, Held)> {
    let slot = &region.slots()[find(region.slots(), uin, device)];
    let held = Held::from_words(&slot.own()).filter(Held::is_alive)?;
    Some((slot, held))
}

/// Fills a free slot.
fn insert(region: &Region, index: usize, held: &Held) {
    region.slots()[index].write(&held.words());
    let entries = &region.header()[WORD_ENTRIES];
    entries.store(entries.load(Relaxed) + 1, Release);
}

/// Frees a slot.
fn take_out(region: &Region, index: usize) {
    probe::take_out(&region.header()[WORD_MOVES], region.slots(), index);
    let entries = &region.header()[WORD_ENTRIES];
    entries.store(entries.load(Relaxed) - 1, Release);
}
