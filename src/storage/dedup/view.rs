//! A table seen from outside: another thread, or a tool in another process.

use std::io;
use std::path::Path;

use tern_core::dedup::DedupEntry;
use tern_protocol::{DeviceId, Uin};

use super::slots::{Held, Region, Slot};
use super::table::home;

/// Attempts to read an entry that is being written, other threads let run in between. A write
/// takes some nanoseconds, so the writer has been stopped, or killed, in the middle of it.
const ATTEMPTS: usize = 1000;

/// An entry that its writer left half written, for now or for ever.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TornEntry;

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

    /// The entry of a device.
    ///
    /// # Errors
    /// When an entry on the way to it stays half written.
    pub fn get(&self, uin: Uin, device: DeviceId) -> Result<Option<DedupEntry>, TornEntry> {
        let slots = self.region.slots();
        let start = home(uin, device, slots.len());
        for slot in slots[start..].iter().chain(&slots[..start]) {
            let Some(held) = patiently(slot)? else { return Ok(None) };
            if (held.uin, held.device) == (uin, device) {
                return Ok(Some(held.entry));
            }
        }
        Ok(None)
    }
}

fn patiently(slot: &Slot) -> Result<Option<Held>, TornEntry> {
    for _ in 0..ATTEMPTS {
        match slot.look() {
            Ok(held) => return Ok(held),
            Err(_) => std::thread::yield_now(),
        }
    }
    Err(TornEntry)
}
