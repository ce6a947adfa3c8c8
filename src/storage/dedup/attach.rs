//! Taking over the table that an earlier process left, if there is no doubt about it.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use tern_core::log::Offset;
use tern_protocol::Incarnation;

use super::memory::Word;
use super::probe::find;
use super::region::{Region, remove_unlocked};
use super::slot::Held;
use super::supply::{
    READY, Supply, TableLife, WORD_ENTRIES, WORD_MOVES, WORD_STATE, applied, set_applied,
};
use super::table::{LOAD_MAX_FIFTHS, ShmTable};
use crate::error::{IoError, Naming};
use crate::format::Id;

/// A table that is ready to use.
#[derive(Debug)]
pub(crate) struct Attached {
    pub(crate) table: ShmTable,
    /// It knows the log before this offset.
    pub(crate) applied: Offset,
    /// Why it is a new one; `None` if it was taken over.
    pub(crate) rebuilt: Option<&'static str>,
}

impl ShmTable {
    /// Takes over the table of a log that ends at `end`, or makes an empty one. `openings` are
    /// the one before, in which the table must have been written, and this one.
    ///
    /// A table may know of records that were appended and never reached the disk; it says so
    /// itself by an applied offset, or an entry, behind the end of the log.
    pub(crate) fn attach(
        supply: &Arc<Supply>,
        incarnation: Incarnation,
        openings: [Id; 2],
        end: Offset,
    ) -> Result<Attached, IoError> {
        let [before, now] = openings.map(|opening| TableLife { incarnation, opening });
        supply.set_life(before);
        supply.remove_growing();
        let mut doubt = "there was none";
        for path in supply.candidates() {
            match left_behind(supply, &path, end) {
                Ok((region, entries, applied)) => {
                    supply.set_life(now);
                    supply.sign(&region);
                    region.header()[WORD_STATE].store(READY, Release);
                    let table = Self::new(region, entries, Arc::clone(supply));
                    return Ok(Attached { table, applied, rebuilt: None });
                }
                Err(Some(why)) => doubt = why,
                Err(None) => {}
            }
        }
        supply.set_life(now);
        let region = fresh(supply)?;
        let table = Self::new(region, 0, Arc::clone(supply));
        Ok(Attached { table, applied: Offset::NONE, rebuilt: Some(doubt) })
    }
}

/// A new empty table; whatever was left behind elsewhere is removed.
fn fresh(supply: &Supply) -> Result<Region, IoError> {
    let name = supply.name();
    let region = supply
        .make(supply.slots_first, &name)
        .naming("make the deduplication table", name.as_ref())?;
    set_applied(region.header(), Offset::NONE);
    region.header()[WORD_STATE].store(READY, Release);
    for path in supply.candidates().filter(|path| *path != region.path) {
        // It is not there, most of the time; one that stays is judged, and refused, again.
        let _ = remove_unlocked(&path);
    }
    Ok(region)
}

/// A table with its number of entries and how far it knows the log; `Err(None)` if there is none.
fn left_behind(
    supply: &Supply,
    path: &Path,
    end: Offset,
) -> Result<(Region, usize, Offset), Option<&'static str>> {
    let region = Region::open(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => None,
        io::ErrorKind::WouldBlock => Some("another process uses it"),
        _ => Some("it can't be opened"),
    })?;
    if !supply.is_ours(&region) {
        return Err(Some("it is of another log, incarnation, boot or layout"));
    }
    if region.header()[WORD_STATE].load(Acquire) != READY {
        return Err(Some("it was growing"));
    }
    let Some(applied) = applied(region.header()) else {
        return Err(Some("it does not say what it knows"));
    };
    if applied > end {
        return Err(Some("it knows more than the log"));
    }
    if region.header()[WORD_MOVES].load(Relaxed) & 1 == 1 {
        return Err(Some("entries were moving"));
    }
    let entries = count(&region, applied)?;
    Ok((region, entries, applied))
}

/// The number of entries, all of them whole, possible, and where the search finds them.
fn count(region: &Region, applied: Offset) -> Result<usize, &'static str> {
    let (slots, mut entries) = (region.slots(), 0);
    for slot in slots {
        let words = slot.look().map_err(|_| "an entry is torn")?;
        let Some(held) = Held::from_words(&words) else { continue };
        if held.entry.last >= applied {
            return Err("an entry is newer than the table says");
        }
        if !held.is_alive() {
            return Err("an entry has no newest key");
        }
        entries += 1;
    }
    if region.header()[WORD_ENTRIES].load(Relaxed) != entries as u64 {
        return Err("its count is wrong");
    }
    if entries * 5 > slots.len() * LOAD_MAX_FIFTHS {
        return Err("it is too full");
    }
    // Only now is there a free slot that ends each search.
    for (index, slot) in slots.iter().enumerate() {
        if let Some(Held { uin, device, .. }) = Held::from_words(&slot.own())
            && find(slots, uin, device) != index
        {
            return Err("an entry is not where it is searched");
        }
    }
    Ok(entries)
}
