//! The flight recorder's file as memory: words of 64 bits. One of the three files of this crate
//! with `unsafe` that maps one.
//!
//! Everything in the mapping is an atomic integer, so whatever another process does to it, a
//! value read here is some integer and never undefined.
#![allow(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::AtomicU64;

use memmap2::{Advice, MmapOptions, MmapRaw};
use rustix::fs::FallocateFlags;

/// A file of words, mapped to be written.
#[derive(Debug)]
pub(super) struct Words {
    map: MmapRaw,
    words: usize,
}

impl Words {
    /// Makes a file of zeros, its memory really there, in the place of one that was.
    pub(super) fn make(path: &Path, words: usize) -> io::Result<Self> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = private().read(true).write(true).create_new(true).open(path)?;
        let made = rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, words as u64 * 8)
            .map_err(io::Error::from)
            .and_then(|()| Self::map(&file, words));
        made.inspect_err(|_| {
            // What could not be filled takes the room that is short.
            let _ = std::fs::remove_file(path);
        })
    }

    /// Opens a file that was left behind, if it is this user's alone and of whole words.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file = private().read(true).write(true).open(path)?;
        let len = checked_len(&file)? as usize; // fits: this crate is for 64-bit machines
        // An earlier writer may have left holes: room that is not there would end this process.
        rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, len as u64)?;
        Self::map(&file, len / 8)
    }

    /// With all pages there now rather than one by one on a worker.
    fn map(file: &File, words: usize) -> io::Result<Self> {
        let map = MmapOptions::new().len(words * 8).map_raw(file)?;
        let _ = map.advise_range(Advice::PopulateWrite, 0, map.len());
        Ok(Self { map, words })
    }

    /// All words.
    #[inline]
    pub(super) fn all(&self) -> &[AtomicU64] {
        // SAFETY: the mapping is page-aligned, `words` words long, writable, and lives as long as
        // `self`. Any bytes are valid integers, and nothing but atomics refers to them, so that
        // changes from outside are no data race.
        unsafe { std::slice::from_raw_parts(self.map.as_ptr().cast::<AtomicU64>(), self.words) }
    }
}

/// The length in bytes of a file that is of this user alone, and of whole words.
pub(super) fn checked_len(file: &File) -> io::Result<u64> {
    let meta = file.metadata()?;
    let ours = meta.uid() == rustix::process::geteuid().as_raw() && meta.mode() & 0o077 == 0;
    if !meta.is_file() || !ours {
        let what = "the file is not of this user alone";
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, what));
    }
    let len = meta.len();
    if len < super::HEADER_WORDS as u64 * 8 || !len.is_multiple_of(8) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the file has an odd length"));
    }
    Ok(len)
}

/// For its owner alone, never through a link that somebody else put there, and without waiting for
/// the other end of a pipe that somebody else put there.
pub(super) fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(0o600).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC);
    options
}
