//! The flight recorder seen from outside: by a command beside a running server, or afterwards.
//!
//! The file is read by calls, a piece at a time, and whatever its bytes are, what comes out is
//! entries that fit their checksum, or an error. An entry that is overwritten while it is read does
//! not fit, and is counted.

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use super::entry::{BODY_WORDS, ENTRY_WORDS, Entry, fold};
use super::map::{checked_len, private};
use super::{HEADER_CHECKED, HEADER_WORDS, LAYOUT, MAGIC, RING_HEAD_WORDS, word};
use crate::format::Id;

/// Bytes of an entry.
const ENTRY_BYTES: usize = ENTRY_WORDS * 8;

/// Entries that are read at once: 64 KiB.
const ENTRIES_AT_ONCE: usize = 1_024;

/// What a recording says of itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Recording {
    /// When it was made, in ms since 1970 UTC: nothing before is in it.
    pub created_ms: u64,
    /// The newest run of a server that wrote to it.
    pub run: u16,
    /// One for each worker.
    pub rings: Vec<RingFacts>,
}

/// What one ring holds.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct RingFacts {
    /// Entries that fit.
    pub entries: u64,
    /// Entries that have been overwritten, as far as its own count is right.
    pub overwritten: u64,
    /// Places that were written and hold nothing that fits: overwritten just now, torn by the end
    /// of the writer, damaged, or by a newer server.
    pub unreadable: u64,
    /// Time of the oldest entry that fits, in µs since 1970 UTC.
    pub oldest_us: Option<u64>,
    /// Time of the newest one.
    pub newest_us: Option<u64>,
}

impl Recording {
    /// From when on it holds everything, in µs since 1970 UTC: since it was made, unless older
    /// entries were overwritten.
    pub fn whole_from_us(&self) -> u64 {
        let overwritten = self.rings.iter().filter(|ring| ring.overwritten > 0);
        let oldest = overwritten.filter_map(|ring| ring.oldest_us).max();
        oldest.unwrap_or(0).max(self.created_ms.saturating_mul(1_000))
    }
}

/// Why there is no recording.
#[derive(Debug)]
pub enum RecordingError {
    /// None was made, or the server runs without.
    Missing,
    /// The file can't be read.
    Io(io::Error),
    /// It is none, or is damaged where it says what it is.
    Damaged(&'static str),
}

impl fmt::Display for RecordingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str(
                "there is no flight recorder: the machine was started anew since, or the server \
                 runs with `--trace-bytes 0`",
            ),
            Self::Io(error) => write!(f, "the flight recorder can't be read: {error}"),
            Self::Damaged(what) => write!(f, "the flight recorder is damaged: {what}"),
        }
    }
}

impl std::error::Error for RecordingError {}

impl From<io::Error> for RecordingError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound => Self::Missing,
            _ => Self::Io(error),
        }
    }
}

/// Reads the recording of a data folder and hands out each entry with the number of its worker,
/// in no order but that of the places in each ring.
///
/// # Errors
/// When there is none, or not of this folder, or its header is damaged.
pub fn read_recording(
    path: &Path,
    folder: &Id,
    mut visit: impl FnMut(u16, &Entry),
) -> Result<Recording, RecordingError> {
    let mut file = private().read(true).open(path)?;
    let len = checked_len(&file)?;
    let (header, run) = read_header(&mut file)?;
    let (rings, entries) = shape(&header, folder, len)?;
    let mut all = Vec::with_capacity(usize::from(rings));
    for worker in 0..rings {
        all.push(read_ring(&mut file, entries, |entry| visit(worker, entry))?);
    }
    Ok(Recording { created_ms: header[word::CREATED_MS], run, rings: all })
}

fn read_header(file: &mut File) -> Result<([u64; HEADER_CHECKED], u16), RecordingError> {
    let mut bytes = [0; HEADER_WORDS * 8];
    file.read_exact(&mut bytes)?;
    let words: &[[u8; 8]] = bytes.as_chunks().0;
    let header = std::array::from_fn(|index| u64::from_le_bytes(words[index]));
    let check = u64::from_le_bytes(words[word::CHECK]);
    if check != u64::from(fold(0, &header)) {
        return Err(RecordingError::Damaged("its header does not fit its checksum"));
    }
    Ok((header, u64::from_le_bytes(words[word::RUN]) as u16))
}

/// The number of rings, and of entries in each.
fn shape(
    header: &[u64; HEADER_CHECKED],
    folder: &Id,
    len: u64,
) -> Result<(u16, u64), RecordingError> {
    let mut id = [0; size_of::<Id>()];
    id[..8].copy_from_slice(&header[word::FOLDER].to_le_bytes());
    id[8..].copy_from_slice(&header[word::FOLDER + 1].to_le_bytes());
    if header[word::MAGIC] != MAGIC || header[word::LAYOUT] >> 32 != LAYOUT {
        return Err(RecordingError::Damaged("it is of another kind, or of another version"));
    }
    if id != *folder {
        return Err(RecordingError::Damaged("it is of another data folder"));
    }
    let rings = header[word::LAYOUT] as u32;
    let entries = header[word::ENTRIES];
    let ring = entries.checked_mul(ENTRY_WORDS as u64);
    let ring = ring.and_then(|ring| ring.checked_add(RING_HEAD_WORDS as u64));
    let words = ring.and_then(|ring| ring.checked_mul(u64::from(rings)));
    let words = words.and_then(|words| words.checked_add(HEADER_WORDS as u64));
    let rings = u16::try_from(rings).ok().filter(|rings| *rings > 0 && entries > 0);
    match (rings, words) {
        (Some(rings), Some(words)) if words == len / 8 => Ok((rings, entries)),
        _ => Err(RecordingError::Damaged("its length is not what its header says")),
    }
}

/// The ring at the file's present place.
fn read_ring(
    file: &mut File,
    entries: u64,
    mut visit: impl FnMut(&Entry),
) -> Result<RingFacts, RecordingError> {
    let mut head = [0; RING_HEAD_WORDS * 8];
    file.read_exact(&mut head)?;
    let count = u64::from_le_bytes(head[..8].try_into().expect("8 bytes of 64"));
    let mut facts = RingFacts { overwritten: count.saturating_sub(entries), ..Default::default() };
    let mut buffer = vec![0; ENTRY_BYTES * ENTRIES_AT_ONCE];
    let mut left = entries;
    while left > 0 {
        let some = left.min(ENTRIES_AT_ONCE as u64) as usize; // fits: at most that
        file.read_exact(&mut buffer[..some * ENTRY_BYTES])?;
        for bytes in buffer[..some * ENTRY_BYTES].as_chunks::<ENTRY_BYTES>().0 {
            facts.take(bytes, &mut visit);
        }
        left -= some as u64;
    }
    Ok(facts)
}

impl RingFacts {
    fn take(&mut self, bytes: &[u8; ENTRY_BYTES], visit: &mut impl FnMut(&Entry)) {
        let words: &[[u8; 8]] = bytes.as_chunks().0;
        let first = u64::from_le_bytes(words[0]);
        let body: [u64; BODY_WORDS] =
            std::array::from_fn(|index| u64::from_le_bytes(words[index + 1]));
        if first == 0 && body == [0; BODY_WORDS] {
            return; // never written
        }
        let fits = first >> 32 == u64::from(fold(first as u32, &body));
        let Some(entry) = Entry::from_words(&body).filter(|_| fits) else {
            self.unreadable += 1;
            return;
        };
        let at = entry.stamp.wall_us;
        self.entries += 1;
        self.oldest_us = Some(self.oldest_us.map_or(at, |oldest| oldest.min(at)));
        self.newest_us = Some(self.newest_us.map_or(at, |newest| newest.max(at)));
        visit(&entry);
    }
}
