//! A table seen from outside: another thread, or a tool in another process.

use std::io;
use std::path::Path;

use tern_core::dedup::DedupEntry;
use tern_protocol::{DeviceId, Uin};

use super::slots::Region;
use super::table::home;

/// Attempts to read a slot that is being written. A write takes some nanoseconds, so a slot that
/// is still torn after these has lost its writer.
const ATTEMPTS: usize = 10_000;

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

    /// The entry of a device; `None` also if it can't be read whole.
    pub fn get(&self, uin: Uin, device: DeviceId) -> Option<DedupEntry> {
        let slots = self.region.slots();
        let start = home(uin, device, slots.len());
        for slot in slots[start..].iter().chain(&slots[..start]) {
            let held = (0..ATTEMPTS).find_map(|_| slot.look().ok())??;
            if (held.uin, held.device) == (uin, device) {
                return Some(held.entry);
            }
        }
        None
    }
}
