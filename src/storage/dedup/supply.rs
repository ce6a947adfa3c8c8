//! Where tables come from: shared memory, or the data folder where that has no room. The I/O
//! thread makes them and clears them away; the owner asks and takes.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU64, fence};

use arc_swap::ArcSwap;
use crossbeam::queue::ArrayQueue;
use tern_core::log::Offset;
use tern_protocol::Incarnation;

use super::memory::Word;
use super::region::{Header, Region, remove_unlocked};
use super::table::SLOTS_MIN;
use super::view::TableFacts;
use crate::format::Id;
use crate::io::IoHandle;

/// First word of a table, in the order of this machine's bytes.
const TABLE_MAGIC: u64 = u64::from_be_bytes(*b"TERNDEDU");

/// Version of the layout of a table; any other is thrown away.
const TABLE_VERSION: u64 = 2;

/// Words of the header that change only when the log is opened.
const CONSTANT_WORDS: usize = 10;

/// Word of the header with the checksum of those before it.
const WORD_CHECK: usize = CONSTANT_WORDS;

/// Word of the header that says whether the table is whole: see [`READY`].
pub(crate) const WORD_STATE: usize = 11;

/// Word of the header with the number of slots in use.
pub(crate) const WORD_ENTRIES: usize = 12;

/// Word of the header with the offset up to which the table knows the log.
const WORD_APPLIED: usize = 13;

/// Word of the header with the complement of [`WORD_APPLIED`]: were that one damaged, records
/// would be taken for known that are not.
const WORD_APPLIED_CHECK: usize = 14;

/// Word of the header that is odd while entries move within the table.
pub(crate) const WORD_MOVES: usize = 15;

/// In [`WORD_STATE`]: all entries are in this table. Anything else: some are in another.
pub(crate) const READY: u64 = 1;

/// In [`WORD_STATE`]: entries are moving to, or from, another table.
pub(crate) const MOVING: u64 = 2;

/// Whose table it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct TableIdentity {
    pub(crate) folder: Id,
    pub(crate) shard: u16,
    pub(crate) boot: Id,
}

/// The life of the log that a table speaks of.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct TableLife {
    pub(crate) incarnation: Incarnation,
    /// The opening of the log in which the table was written. A table that was not there for one
    /// opening misses what was appended in it.
    pub(crate) opening: Id,
}

/// Makes the tables of one shard.
#[derive(Debug)]
pub(crate) struct Supply {
    pub(crate) identity: TableIdentity,
    /// Slots of a new table.
    pub(super) slots_first: usize,
    /// Where tables may be, best first.
    dirs: Vec<PathBuf>,
    life: ArcSwap<TableLife>,
    /// Slots of the table that the owner waits for; 0 if none.
    wanted: AtomicU64,
    made: ArrayQueue<Region>,
    /// A table that all entries were moved out of, and the one that takes its place.
    retired: ArrayQueue<Region>,
    /// Until the log is open, the owner may wait, and makes tables by itself.
    inline: AtomicBool,
    io: IoHandle,
}

impl Supply {
    pub(crate) fn new(identity: TableIdentity, dirs: Vec<PathBuf>, io: IoHandle) -> Self {
        Self {
            identity,
            slots_first: SLOTS_MIN,
            dirs,
            life: ArcSwap::default(),
            wanted: AtomicU64::new(0),
            made: ArrayQueue::new(1),
            retired: ArrayQueue::new(1),
            inline: AtomicBool::new(true),
            io,
        }
    }

    /// From now on the owner never waits.
    pub(crate) fn leave_to_io_thread(&self) {
        self.inline.store(false, Release);
    }

    /// Sets what tables say of the log's life from now on.
    pub(crate) fn set_life(&self, life: TableLife) {
        self.life.store(Arc::new(life));
    }

    /// Asks for a table of this many slots; [`Supply::take`] gives it, now or later. Not again
    /// before it was taken.
    pub(crate) fn want(&self, slots: usize) {
        self.wanted.store(slots as u64, Release);
        if !self.inline.load(Relaxed) {
            self.io.look();
        }
    }

    /// The table that was asked for, if it is there.
    pub(crate) fn take(&self) -> Option<Region> {
        if self.inline.load(Relaxed) {
            self.serve();
        }
        self.made.pop()
    }

    /// Hands over a table that is not used any more, after its successor took all entries. If
    /// the last one is still being cleared away, this one is given back for later.
    pub(crate) fn retire(&self, region: Region) -> Result<(), Region> {
        self.retired.push(region)?;
        if self.inline.load(Relaxed) {
            self.serve();
        } else {
            self.io.look();
        }
        Ok(())
    }

    /// The I/O thread's part, from when the owner leaves it to that: two threads at once would
    /// make two tables of the same name, and hand over the older one late.
    pub(crate) fn attend(&self) {
        if !self.inline.load(Acquire) {
            self.serve();
        }
    }

    /// Does what was asked for.
    pub(crate) fn serve(&self) {
        // In this order: who wants a table has retired the one before, whose name it takes.
        let slots = self.wanted.load(Acquire) as usize;
        if let Some(region) = self.retired.pop() {
            self.clear_away(region);
        }
        if slots == 0 || !self.made.is_empty() {
            return;
        }
        match self.make(slots, &self.growing_name()) {
            Ok(region) => {
                self.wanted.store(0, Release);
                self.made.push(region).expect("it was empty, and nobody else fills it");
            }
            Err(error) => {
                let shard = self.identity.shard;
                tracing::error!(shard, "no memory for {slots} deduplication slots: {error}");
            }
        }
    }

    /// Makes a table in the first place that has room.
    pub(crate) fn make(&self, slots: usize, name: &str) -> io::Result<Region> {
        let mut result = Err(io::Error::from(io::ErrorKind::NotFound));
        for dir in &self.dirs {
            result = Region::make(&dir.join(name), slots);
            if let Ok(region) = &result {
                self.sign(region);
                break;
            }
        }
        result
    }

    /// Files that may be this shard's table, best first.
    pub(crate) fn candidates(&self) -> impl Iterator<Item = PathBuf> {
        self.dirs.iter().map(|dir| dir.join(self.name()))
    }

    /// Removes what an interrupted growth left.
    pub(crate) fn remove_growing(&self) {
        for dir in &self.dirs {
            // It is not there, most of the time; a file that stays is made anew when needed.
            let _ = remove_unlocked(&dir.join(self.growing_name()));
        }
    }

    /// Name of the table's file.
    pub(crate) fn name(&self) -> String {
        table_name(&self.identity.folder, self.identity.shard)
    }

    fn growing_name(&self) -> String {
        format!("{}.next", self.name())
    }

    /// Whether a table is of this folder, shard, boot and life, and laid out as ours.
    pub(crate) fn is_ours(&self, region: &Region) -> bool {
        let constant = self.constant(region.slots().len());
        let header = region.header();
        let same = constant.iter().zip(header).all(|(ours, word)| *ours == word.load(Relaxed));
        same && header[WORD_CHECK].load(Relaxed) == check(&constant)
            && self.identity.boot != [0; 16]
    }

    /// Says in a table whose it is; it is not [`READY`] then.
    pub(crate) fn sign(&self, region: &Region) {
        region.header()[WORD_STATE].store(MOVING, Relaxed);
        fence(Release);
        let (header, constant): (&Header, _) =
            (region.header(), self.constant(region.slots().len()));
        constant.iter().zip(header).for_each(|(ours, word)| word.store(*ours, Relaxed));
        header[WORD_CHECK].store(check(&constant), Relaxed);
    }

    fn constant(&self, slots: usize) -> [u64; CONSTANT_WORDS] {
        let half = |id: &Id, half: usize| {
            u64::from_le_bytes(id[half * 8..][..8].try_into().expect("8 bytes"))
        };
        let TableIdentity { folder, shard, boot } = &self.identity;
        let life = self.life.load();
        [
            TABLE_MAGIC,
            TABLE_VERSION << 32 | u64::from(*shard),
            half(folder, 0),
            half(folder, 1),
            u64::from(life.incarnation.0),
            half(boot, 0),
            half(boot, 1),
            slots as u64,
            half(&life.opening, 0),
            half(&life.opening, 1),
        ]
    }

    /// Gives the successor of a table the table's own name.
    fn clear_away(&self, region: Region) {
        drop(region);
        for dir in &self.dirs {
            let (grown, place) = (dir.join(self.growing_name()), dir.join(self.name()));
            // Without the name it is not found after a restart, and is rebuilt from the log.
            #[cfg(test)]
            super::memory::crash::point();
            if !grown.exists() || std::fs::rename(&grown, &place).is_err() {
                let _ = remove_unlocked(&place);
            }
        }
    }
}

/// Name of the file of a shard's table.
pub(crate) fn table_name(folder: &Id, shard: u16) -> String {
    let folder: String = folder.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("tern-{folder}-{shard:02}.dedup")
}

/// What a header's words say, for a reader in another process.
pub(crate) fn facts(header: &Header, slots: usize) -> TableFacts {
    let word = |index: usize| header[index].load(Acquire);
    let constant: [u64; CONSTANT_WORDS] = std::array::from_fn(word);
    let id = |first: usize| {
        let mut id = Id::default();
        id[..8].copy_from_slice(&word(first).to_le_bytes());
        id[8..].copy_from_slice(&word(first + 1).to_le_bytes());
        id
    };
    let known = word(0) == TABLE_MAGIC && word(1) >> 32 == TABLE_VERSION;
    TableFacts {
        intact: known && word(WORD_CHECK) == check(&constant) && word(7) == slots as u64,
        folder: id(2),
        shard: word(1) as u16,                    // the low half
        incarnation: Incarnation(word(4) as u32), // written from 32 bits
        boot: id(5),
        opening: id(8),
        slots,
        entries: word(WORD_ENTRIES),
        whole: word(WORD_STATE) == READY,
        applied: applied(header),
    }
}

/// The offset up to which a table knows the log; `None` if it does not say.
pub(crate) fn applied(header: &Header) -> Option<Offset> {
    let [applied, check] =
        [WORD_APPLIED, WORD_APPLIED_CHECK].map(|word| header[word].load(Relaxed));
    (applied == !check).then_some(Offset(applied))
}

/// Sets the offset up to which a table knows the log.
pub(crate) fn set_applied(header: &Header, applied: Offset) {
    header[WORD_APPLIED].store(applied.0, Release);
    header[WORD_APPLIED_CHECK].store(!applied.0, Release);
}

fn check(constant: &[u64; CONSTANT_WORDS]) -> u64 {
    let crc = constant.iter().fold(0, |crc, word| crc32c::crc32c_append(crc, &word.to_le_bytes()));
    u64::from(crc)
}
