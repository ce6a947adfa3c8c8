//! The flight recorder: what happened to messages lately, kept in shared memory so that it can be
//! read beside a running server, and after `kill -9`. FORMAT.md draws it.
//!
//! In comes a [`What`] of a worker, with the moment of its turn; each worker has a ring of its own
//! in the one file, so nothing is waited for. A writer makes no system call and takes no memory:
//! eight stores of a word, and one that moves the ring's count. Out come [`Entry`]s, by a reader
//! that maps nothing and believes only what fits its checksum.
//!
//! Nothing here is needed: it is not durable, it is overwritten, and it may be missing.

mod entry;
mod map;
mod view;

pub use entry::{Carrier, Entry, Stamp, What};
pub use view::{Recording, RecordingError, RingFacts, read_recording};

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, Release};

use tern_core::mail::Device;
use tern_protocol::ChannelId;

use crate::format::Id;
use entry::{ENTRY_WORDS, fold};
use map::Words;

/// First word of the file: `TERNRECO` as it stands there.
const MAGIC: u64 = u64::from_le_bytes(*b"TERNRECO");

/// Layout of the file; any other is made anew by a server, and refused by a reader.
const LAYOUT: u64 = 1;

/// Words of the file's header: one page, so that rings begin on a cache line.
const HEADER_WORDS: usize = 512;

/// Words of a ring before its entries: the count on a cache line of its own, so that two workers
/// never write the same one.
const RING_HEAD_WORDS: usize = 8;

/// Fewest entries of a ring: what a handful of messages leaves, so that a small file is of use.
const RING_ENTRIES_MIN: usize = 64;

/// Words of the header, by their place.
mod word {
    pub(super) const MAGIC: usize = 0;
    /// Layout << 32, rings.
    pub(super) const LAYOUT: usize = 1;
    /// Of two words.
    pub(super) const FOLDER: usize = 2;
    pub(super) const ENTRIES: usize = 4;
    pub(super) const CREATED_MS: usize = 5;
    pub(super) const CHECK: usize = 6;
    /// Not under the checksum: it grows with each start.
    pub(super) const RUN: usize = 7;
}

/// One worker's ring, for the worker alone.
#[derive(Debug)]
pub struct Recorder {
    words: Arc<Words>,
    /// The word of the ring's count; entries follow behind its head.
    head: usize,
    entries: usize,
    /// Entries ever written here.
    count: u64,
    /// `count` modulo `entries`.
    next: usize,
    run: u16,
}

impl Recorder {
    /// Opens the file of a data folder with a ring for each worker, some `bytes` in all, in the
    /// first of these folders where that can be had. What an earlier run left in it stays, unless
    /// it was made for another number of workers or bytes; then it begins anew. Says which folder
    /// it is.
    ///
    /// # Errors
    /// When the file can be had in none of them; the last one's reason.
    ///
    /// # Panics
    /// If there are no workers.
    pub fn open_all(
        places: &[PathBuf],
        folder: &Id,
        workers: u16,
        bytes: u64,
        now_ms: u64,
    ) -> io::Result<(PathBuf, Vec<Self>)> {
        let shape = Shape::new(*folder, workers, bytes);
        let mut failed = io::Error::other("there is no place for it");
        for (index, place) in places.iter().enumerate() {
            match Self::open_in(&recording_path(place, folder), shape, now_ms) {
                Ok(all) => {
                    // What is old elsewhere only takes room.
                    let others = places.iter().enumerate().filter(|(other, _)| *other != index);
                    others.for_each(|(_, place)| remove_recording(place, folder));
                    return Ok((place.clone(), all));
                }
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }

    fn open_in(path: &Path, shape: Shape, now_ms: u64) -> io::Result<Vec<Self>> {
        let left = Words::open(path).ok().filter(|words| shape.is_of(words));
        let words = match left {
            Some(words) => words,
            None => shape.make(path, now_ms)?,
        };
        let run = u64::from_le(words.all()[word::RUN].load(Relaxed)).wrapping_add(1) as u16;
        words.all()[word::RUN].store(u64::from(run).to_le(), Relaxed);
        let words = Arc::new(words);
        let ring = |worker: u16| {
            let head = shape.ring(worker);
            let count = u64::from_le(words.all()[head].load(Relaxed));
            let next = (count % shape.entries as u64) as usize; // fits: an index of the ring
            Self { words: Arc::clone(&words), head, entries: shape.entries, count, next, run }
        };
        Ok((0..shape.rings).map(ring).collect())
    }

    /// Writes one entry over the oldest.
    #[inline]
    pub fn record(&mut self, stamp: Stamp, channel: ChannelId, device: Option<Device>, what: What) {
        let body = Entry { stamp, run: self.run, channel, device, what }.to_words();
        let number = self.count as u32; // the low half is enough beside the entry's place
        let at = self.head + RING_HEAD_WORDS + self.next * ENTRY_WORDS;
        let slot = &self.words.all()[at..at + ENTRY_WORDS];
        for (word, value) in slot[1..].iter().zip(body) {
            word.store(value.to_le(), Relaxed);
        }
        let check = u64::from(fold(number, &body));
        slot[0].store((check << 32 | u64::from(number)).to_le(), Relaxed);
        self.count = self.count.wrapping_add(1); // it may be damaged
        self.next = if self.next + 1 == self.entries { 0 } else { self.next + 1 };
        self.words.all()[self.head].store(self.count.to_le(), Release);
    }
}

/// Where the recording of a data folder is within a place.
pub fn recording_path(place: &Path, folder: &Id) -> PathBuf {
    let hex: String = folder.iter().map(|byte| format!("{byte:02x}")).collect();
    place.join(format!("tern-{hex}.moments"))
}

/// Removes the recording of a data folder, if one is there.
pub fn remove_recording(place: &Path, folder: &Id) {
    // What can't be removed is judged by whoever reads it.
    let _ = std::fs::remove_file(recording_path(place, folder));
}

/// What a file is made for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Shape {
    folder: Id,
    rings: u16,
    /// Of each ring.
    entries: usize,
}

impl Shape {
    fn new(folder: Id, rings: u16, bytes: u64) -> Self {
        assert!(rings > 0, "a server has workers");
        let each = bytes / u64::from(rings) / (ENTRY_WORDS as u64 * 8);
        let entries = usize::try_from(each).unwrap_or(usize::MAX).max(RING_ENTRIES_MIN);
        Self { folder, rings, entries }
    }

    /// The word at which a ring begins.
    fn ring(&self, number: u16) -> usize {
        HEADER_WORDS + usize::from(number) * self.ring_words()
    }

    fn ring_words(&self) -> usize {
        RING_HEAD_WORDS + self.entries * ENTRY_WORDS
    }

    fn words(&self) -> usize {
        self.ring(self.rings)
    }

    /// The constant part of the header but for the time and the checksum.
    fn header(&self) -> [u64; word::CREATED_MS] {
        let (low, high) = self.folder.split_at(8);
        let half = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().expect("8 of 16 bytes"));
        let layout = LAYOUT << 32 | u64::from(self.rings);
        [MAGIC, layout, half(low), half(high), self.entries as u64]
    }

    /// Whether a file was made for just this.
    fn is_of(&self, words: &Words) -> bool {
        let all = words.all();
        let header: [u64; HEADER_CHECKED] =
            std::array::from_fn(|index| u64::from_le(all[index].load(Relaxed)));
        let check = u64::from_le(all[word::CHECK].load(Relaxed));
        all.len() == self.words()
            && header[..word::CREATED_MS] == self.header()
            && check == u64::from(fold(0, &header))
    }

    fn make(&self, path: &Path, now_ms: u64) -> io::Result<Words> {
        let words = Words::make(path, self.words())?;
        let mut header = [0; HEADER_CHECKED];
        header[..word::CREATED_MS].copy_from_slice(&self.header());
        header[word::CREATED_MS] = now_ms;
        for (word, value) in words.all().iter().zip(header) {
            word.store(value.to_le(), Relaxed);
        }
        words.all()[word::CHECK].store(u64::from(fold(0, &header)).to_le(), Release);
        Ok(words)
    }
}

/// Words of the header under its checksum.
const HEADER_CHECKED: usize = word::CHECK;

#[cfg(test)]
mod tests;
