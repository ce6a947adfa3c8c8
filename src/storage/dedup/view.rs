//! A table seen from outside: another thread, or a tool in another process.

use std::io;
use std::path::Path;

use tern_core::dedup::DedupEntry;
use tern_core::log::Offset;
use tern_protocol::{DeviceId, Incarnation, Uin};

use super::probe::look_up;
use super::region::Region;
use super::slot::{Held, Slot, Torn};
use super::supply::{WORD_MOVES, facts};
use crate::format::Id;

/// Attempts to read an entry that is being written, other threads let run in between. A write
/// takes some nanoseconds, so the writer has been stopped, or killed, in the middle of it.
const ATTEMPTS: usize = 1000;

/// An entry that its writer left half written, for now or for ever.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TornEntry;

/// What a table says of itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TableFacts {
    /// Whether magic, layout and checksum of the constant part fit; if not, believe nothing here.
    pub intact: bool,
    /// The data folder that it belongs to.
    pub folder: Id,
    /// The shard that it belongs to.
    pub shard: u16,
    /// Life of the log that it speaks of.
    pub incarnation: Incarnation,
    /// The boot in which it was made.
    pub boot: Id,
    /// The opening of the log in which it was attached last.
    pub opening: Id,
    /// Its slots.
    pub slots: usize,
    /// Slots in use, by its own count.
    pub entries: u64,
    /// Whether all entries are in this file; while a table grows some are in another one.
    pub whole: bool,
    /// Offset up to which it knows the log; `None` if it does not say.
    pub applied: Option<Offset>,
}

/// Reads a table while its owner writes it; sees each entry whole, as it was or as it is.
#[derive(Debug)]
pub struct TableView {
    region: Region,
}

impl TableView {
    /// Opens a table's file to read it. A table that grows moves to another file; then this one
    /// stays as it was.
    ///
    /// # Errors
    /// When the file can't be opened, is not of this user alone, or has an odd length.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { region: Region::open_read_only(path)? })
    }

    /// What the table says of itself, as a whole only while nobody writes it.
    pub fn facts(&self) -> TableFacts {
        facts(self.region.header(), self.region.slots().len())
    }

    /// All entries, in the order of their slots; while entries are put, or move, some may be
    /// missing, or come twice.
    pub fn entries(
        &self,
    ) -> impl Iterator<Item = Result<(Uin, DeviceId, DedupEntry), TornEntry>> + '_ {
        let held = self.region.slots().iter().filter_map(|slot| patiently(slot).transpose());
        held.map(|held| held.map(|held| (held.uin, held.device, held.entry)))
    }

    /// The entry of a device.
    ///
    /// # Errors
    /// When an entry on the way to it stays half written, or entries don't stop moving.
    pub fn get(&self, uin: Uin, device: DeviceId) -> Result<Option<DedupEntry>, TornEntry> {
        for _ in 0..ATTEMPTS {
            match self.try_get(uin, device) {
                Ok(entry) => return Ok(entry),
                Err(Torn) => std::thread::yield_now(),
            }
        }
        Err(TornEntry)
    }

    /// One attempt of [`get`](Self::get).
    pub(super) fn try_get(&self, uin: Uin, device: DeviceId) -> Result<Option<DedupEntry>, Torn> {
        let (header, slots) = (self.region.header(), self.region.slots());
        let words = look_up(&header[WORD_MOVES], slots, uin, device)?;
        let held = words.and_then(|words| Held::from_words(&words));
        Ok(held.filter(Held::is_alive).map(|held| held.entry))
    }
}

fn patiently(slot: &Slot) -> Result<Option<Held>, TornEntry> {
    for _ in 0..ATTEMPTS {
        match slot.look() {
            Ok(words) => return Ok(Held::from_words(&words).filter(Held::is_alive)),
            Err(Torn) => std::thread::yield_now(),
        }
    }
    Err(TornEntry)
}
