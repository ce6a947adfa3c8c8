//! A file or a folder of the disk that forgets, and what a power cut makes of one.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::ops::{AddAssign, Range};

use crate::support::random::Random;

/// Bytes that a disk writes whole or not at all.
const SECTOR_BYTES: usize = 512;

/// Bytes that the kernel hands to the disk together.
const PAGE_BYTES: usize = 4096;

/// Names in a folder.
pub type Names = BTreeMap<OsString, u64>;

/// What names mean from some step on; `None`: nothing any more.
pub type Meanings = Vec<(OsString, Option<u64>)>;

/// A file or folder: as programs see it, and as it would be after a power cut.
pub enum Node {
    File {
        now: Vec<u8>,
        kept: Vec<u8>,
        /// What was changed since the last sync.
        fresh: Vec<Change>,
    },
    Folder {
        now: Names,
        kept: Names,
        /// What names came to mean since the last sync, each step by when it was made.
        fresh: Vec<(u64, Meanings)>,
    },
}

/// One change of a file.
pub struct Change {
    /// Its place in the order of all changes.
    pub at: u64,
    pub range: Range<usize>,
    /// The length of the file after it.
    pub len: usize,
}

/// What becomes of changes that were not synced.
#[derive(Clone, Copy, Debug)]
pub enum Mood {
    /// All are lost.
    Forgets,
    /// All are kept.
    Keeps,
    /// All before this one are kept, and a part of it.
    Until(u64),
    /// Each page is kept, lost or torn, each name is kept or lost, whatever came first.
    Scatters,
}

/// What of a change is on the disk.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Kept,
    Lost,
    Torn,
}

/// What a cut destroyed.
#[derive(Default, Clone, Copy, Debug)]
pub struct Destroyed {
    /// Pages of which nothing is left that was new.
    pub pages: u64,
    /// Pages of which a part is left.
    pub torn: u64,
    /// Changes of names.
    pub names: u64,
}

impl AddAssign for Destroyed {
    fn add_assign(&mut self, other: Self) {
        self.pages += other.pages;
        self.torn += other.torn;
        self.names += other.names;
    }
}

impl Mood {
    /// By chance, for these changes.
    pub fn choose(unsynced: &[u64], random: &mut Random) -> Self {
        match random.below(4) {
            0 => Self::Forgets,
            1 => Self::Keeps,
            2 if !unsynced.is_empty() => {
                let mut order = unsynced.to_vec();
                order.sort_unstable();
                Self::Until(order[random.below(order.len())])
            }
            _ => Self::Scatters,
        }
    }

    fn of(self, at: u64, random: &mut Random) -> Fate {
        match self {
            Self::Forgets => Fate::Lost,
            Self::Keeps => Fate::Kept,
            Self::Until(end) if at < end => Fate::Kept,
            Self::Until(end) if at > end => Fate::Lost,
            Self::Until(_) => Fate::Torn,
            Self::Scatters => [Fate::Kept, Fate::Lost, Fate::Torn][random.below(3)],
        }
    }
}

/// Gives a name a meaning, or none.
pub fn set(names: &mut Names, name: &OsStr, number: Option<u64>) {
    match number {
        Some(number) => drop(names.insert(name.into(), number)),
        None => drop(names.remove(name)),
    }
}

impl Node {
    pub fn file() -> Self {
        Self::File { now: Vec::new(), kept: Vec::new(), fresh: Vec::new() }
    }

    pub fn folder() -> Self {
        Self::Folder { now: Names::new(), kept: Names::new(), fresh: Vec::new() }
    }

    /// Bytes in it.
    pub fn len(&self) -> usize {
        match self {
            Self::File { now, .. } => now.len(),
            Self::Folder { .. } => 0,
        }
    }

    /// The changes since its last sync.
    pub fn fresh(&self) -> Vec<u64> {
        match self {
            Self::File { fresh, .. } => fresh.iter().map(|change| change.at).collect(),
            Self::Folder { fresh, .. } => fresh.iter().map(|(at, _)| *at).collect(),
        }
    }

    pub fn sync(&mut self) {
        match self {
            Self::File { now, kept, fresh } => {
                for Change { range, len, .. } in fresh.drain(..) {
                    kept.resize(len, 0);
                    copy(now, kept, range);
                }
            }
            Self::Folder { now, kept, fresh } => {
                fresh.clear();
                kept.clone_from(now);
            }
        }
    }

    /// Becomes what is kept of it.
    pub fn cut(&mut self, mood: Mood, random: &mut Random, destroyed: &mut Destroyed) {
        match self {
            Self::File { now, kept, fresh } => {
                for Change { at, range, len } in fresh.drain(..) {
                    // A change of the length is there or not, apart from the content.
                    if mood.of(at, random) != Fate::Lost {
                        kept.resize(len, 0);
                    }
                    for page in pages(range) {
                        keep(now, kept, page, mood.of(at, random), random, destroyed);
                    }
                }
                now.clone_from(kept);
            }
            Self::Folder { now, kept, fresh } => {
                for (at, means) in fresh.drain(..) {
                    // Of names nothing is torn: a rename is one step.
                    if mood.of(at, random) == Fate::Kept {
                        means.iter().for_each(|(name, number)| set(kept, name, *number));
                    } else {
                        destroyed.names += 1;
                    }
                }
                now.clone_from(kept);
            }
        }
    }
}

/// Keeps of a page what its fate wants.
fn keep(
    now: &[u8],
    kept: &mut [u8],
    page: Range<usize>,
    fate: Fate,
    random: &mut Random,
    destroyed: &mut Destroyed,
) {
    let (mut lost, mut kept_some) = (false, false);
    for start in page.clone().step_by(SECTOR_BYTES) {
        let sector = start..start + SECTOR_BYTES;
        let is_kept = fate == Fate::Kept || fate == Fate::Torn && random.below(2) == 0;
        let is_new = differs(now, kept, sector.clone());
        if is_kept {
            copy(now, kept, sector);
        }
        lost |= is_new && !is_kept;
        kept_some |= is_new && is_kept;
    }
    destroyed.torn += u64::from(lost && kept_some);
    destroyed.pages += u64::from(lost && !kept_some);
}

/// The pages that a range touches.
fn pages(range: Range<usize>) -> impl Iterator<Item = Range<usize>> {
    let end = if range.is_empty() { 0 } else { range.end.div_ceil(PAGE_BYTES) };
    (range.start / PAGE_BYTES..end).map(|page| page * PAGE_BYTES..(page + 1) * PAGE_BYTES)
}

/// The part of a range that both have: a file may have been cut since.
fn common(now: &[u8], kept: &[u8], range: Range<usize>) -> Range<usize> {
    let end = now.len().min(kept.len());
    range.start.min(end)..range.end.min(end)
}

fn copy(now: &[u8], kept: &mut [u8], range: Range<usize>) {
    let range = common(now, kept, range);
    kept[range.clone()].copy_from_slice(&now[range]);
}

fn differs(now: &[u8], kept: &[u8], range: Range<usize>) -> bool {
    let both = common(now, kept, range.clone());
    now[both.clone()] != kept[both] || range.start >= kept.len() && range.start < now.len()
}
