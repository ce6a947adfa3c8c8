//! A table's file as memory: a header of words and an array of slots. One of the three files of
//! this crate with `unsafe` in it that map one.
//!
//! Everything in the mapping is an atomic integer, so whatever another process does to it, a
//! value read here is some integer and never undefined.
#![allow(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use memmap2::{Advice, MmapOptions, MmapRaw};
use rustix::fs::FallocateFlags;

use super::memory::Mapped64;
use super::slot::{SLOT_BYTES, Slot};

/// Bytes of the header: one page, so that the slots begin on a cache line.
const HEADER_BYTES: usize = 4096;

/// Words of the header.
pub(crate) const HEADER_WORDS: usize = HEADER_BYTES / 8;

/// The header: words of 64 bits, meant by [`super::supply`].
pub(crate) type Header = [Mapped64; HEADER_WORDS];

const _: () = assert!(size_of::<Header>() == HEADER_BYTES);

/// A table's file, mapped and locked against a second owner.
#[derive(Debug)]
pub(crate) struct Region {
    map: MmapRaw,
    slots: usize,
    pub(crate) path: PathBuf,
    _lock: File,
}

impl Region {
    /// Makes a file of free slots, its memory really there, in the place of one that was.
    pub(crate) fn make(path: &Path, slots: usize) -> io::Result<Self> {
        remove_unlocked(path)?;
        let mut options = private();
        let file = options.read(true).write(true).create_new(true).open(path)?;
        #[cfg(test)]
        super::memory::crash::point();
        file.try_lock()?;
        let len = HEADER_BYTES + slots * SLOT_BYTES;
        let made = rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, len as u64)
            .map_err(io::Error::from)
            .and_then(|()| Self::map(file, path.to_owned(), slots))
            .inspect(Self::populate);
        made.inspect_err(|_| {
            // What could not be filled takes the room that is short.
            let _ = std::fs::remove_file(path);
        })
    }

    /// Opens a file that was left behind, if it is ours and has a whole number of slots.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let file = private().read(true).write(true).open(path)?;
        file.try_lock()?;
        Self::checked(file, path)
    }

    /// Opens a file that its owner may be writing, to read it.
    pub(crate) fn open_read_only(path: &Path) -> io::Result<Self> {
        Self::checked(private().read(true).open(path)?, path)
    }

    fn checked(file: File, path: &Path) -> io::Result<Self> {
        let meta = file.metadata()?;
        let ours = meta.uid() == rustix::process::geteuid().as_raw() && meta.mode() & 0o077 == 0;
        if !meta.is_file() || !ours {
            let what = "the file is not of this user alone";
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, what));
        }
        let len = meta.len() as usize; // fits: this crate is for 64-bit machines
        let slots = len.saturating_sub(HEADER_BYTES) / SLOT_BYTES;
        if slots == 0 || len != HEADER_BYTES + slots * SLOT_BYTES {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the file has an odd length"));
        }
        Self::map(file, path.to_owned(), slots)
    }

    fn map(file: File, path: PathBuf, slots: usize) -> io::Result<Self> {
        let mut options = MmapOptions::new();
        options.len(HEADER_BYTES + slots * SLOT_BYTES);
        let map = match options.map_raw(&file) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                options.map_raw_read_only(&file)?
            }
            result => result?,
        };
        Ok(Self { map, slots, path, _lock: file })
    }

    /// Has all pages made now rather than on a worker; without it they come one by one.
    fn populate(&self) {
        let _ = self.map.advise_range(Advice::PopulateWrite, 0, self.map.len());
    }

    /// The header.
    pub(crate) fn header(&self) -> &Header {
        // SAFETY: the mapping is page-aligned, at least `HEADER_BYTES` long and lives as long as
        // `self`. Any bytes are valid integers, and nothing but atomics refers to them, so that
        // changes from outside are no data race. Only owners store, and theirs is writable.
        unsafe { &*self.map.as_ptr().cast::<Header>() }
    }

    /// The slots.
    pub(crate) fn slots(&self) -> &[Slot] {
        // SAFETY: as for `header`; `make` and `checked` see to it that the mapping has `slots`
        // slots behind the header, `HEADER_BYTES` is a multiple of a slot's alignment, and a slot
        // is made of atomic integers without padding (asserted beside its definition).
        unsafe {
            let first = self.map.as_ptr().add(HEADER_BYTES).cast::<Slot>();
            std::slice::from_raw_parts(first, self.slots)
        }
    }
}

/// Removes a file that no process uses.
pub(crate) fn remove_unlocked(path: &Path) -> io::Result<()> {
    match private().read(true).open(path) {
        Ok(file) => file.try_lock()?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        // A link, or somebody else's: only its name is touched.
        Err(_) => {}
    }
    std::fs::remove_file(path)
}

/// For its owner alone, never through a link that somebody else put there, and without waiting for
/// the other end of a pipe that somebody else put there.
fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(0o600).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC);
    options
}
