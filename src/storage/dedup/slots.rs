//! A table's file as memory: a header of words and an array of slots. One of the two files of
//! this crate with `unsafe` in it.
//!
//! Everything in the mapping is an atomic integer, so whatever another process does to it, a
//! value read here is some integer and never undefined. A slot is written under a version word
//! that is odd meanwhile; a reader that sees it odd, or changed, tries again (Boehm, "Can seqlocks
//! get along with programming language memory models?", 2012). A checksum finds what was damaged.
#![allow(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU32, AtomicU64, fence};

use memmap2::{Advice, MmapOptions, MmapRaw};
use rustix::fs::FallocateFlags;
use tern_core::dedup::DedupEntry;
use tern_core::log::Offset;
use tern_protocol::{DeviceId, Epoch, SendCounter, Uin};

/// Bytes of the header: one page, so that the slots begin on a cache line.
const HEADER_BYTES: usize = 4096;

/// Words of the header.
pub(crate) const HEADER_WORDS: usize = HEADER_BYTES / 8;

/// Bytes of a slot. With at most 4 of 5 slots in use, an entry costs 60 bytes.
pub(crate) const SLOT_BYTES: usize = 48;

/// The header: words of 64 bits, meant by [`super::supply`].
pub(crate) type Header = [AtomicU64; HEADER_WORDS];

/// A device's place in the table.
#[repr(C)]
pub(crate) struct Slot {
    /// Odd while the slot is written.
    version: AtomicU32,
    /// CRC-32C of what follows.
    check: AtomicU32,
    /// 0 if the slot is free.
    uin: AtomicU64,
    device: AtomicU32,
    epoch: AtomicU32,
    newest: AtomicU32,
    reserved: AtomicU32,
    window: AtomicU64,
    last: AtomicU64,
}

const _: () = assert!(size_of::<Slot>() == SLOT_BYTES && align_of::<Slot>() == 8);
const _: () = assert!(size_of::<Header>() == HEADER_BYTES);

/// What a slot holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Held {
    pub(crate) uin: Uin,
    pub(crate) device: DeviceId,
    pub(crate) entry: DedupEntry,
}

impl Held {
    fn checksum(&self) -> u32 {
        let mut bytes = [0; SLOT_BYTES - 8];
        bytes[..8].copy_from_slice(&self.uin.0.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.device.0.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.entry.epoch.0.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.entry.newest.0.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.entry.window.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.entry.last.0.to_le_bytes());
        crc32c::crc32c(&bytes)
    }
}

impl Slot {
    /// What the slot's one writer reads.
    pub(crate) fn get(&self) -> Option<Held> {
        let uin = self.uin.load(Relaxed);
        (uin != 0).then(|| Held {
            uin: Uin(uin),
            device: DeviceId(self.device.load(Relaxed)),
            entry: DedupEntry {
                epoch: Epoch(self.epoch.load(Relaxed)),
                newest: SendCounter(self.newest.load(Relaxed)),
                window: self.window.load(Relaxed),
                last: Offset(self.last.load(Relaxed)),
            },
        })
    }

    /// Whether the device of the slot's one writer is here.
    pub(crate) fn is_of(&self, uin: Uin, device: DeviceId) -> bool {
        self.uin.load(Relaxed) == uin.0 && self.device.load(Relaxed) == device.0
    }

    /// Whether nobody is here.
    pub(crate) fn is_free(&self) -> bool {
        self.uin.load(Relaxed) == 0
    }

    /// Writes the slot; its owner alone does.
    pub(crate) fn put(&self, held: &Held) {
        let version = self.version.load(Relaxed);
        self.version.store(version.wrapping_add(1), Relaxed);
        fence(Release);
        self.check.store(held.checksum(), Relaxed);
        self.device.store(held.device.0, Relaxed);
        self.epoch.store(held.entry.epoch.0, Relaxed);
        self.newest.store(held.entry.newest.0, Relaxed);
        self.window.store(held.entry.window, Relaxed);
        self.last.store(held.entry.last.0, Relaxed);
        self.uin.store(held.uin.0, Relaxed);
        self.version.store(version.wrapping_add(2), Release);
    }

    /// What anybody else reads: whole, or an error if it is being written, or is damaged.
    pub(crate) fn look(&self) -> Result<Option<Held>, Torn> {
        let before = self.version.load(Acquire);
        let (held, check) = (self.get(), self.check.load(Relaxed));
        fence(Acquire);
        if before & 1 == 1 || self.version.load(Relaxed) != before {
            return Err(Torn);
        }
        match held {
            Some(held) if held.checksum() != check => Err(Torn),
            held => Ok(held),
        }
    }
}

/// A slot that is not whole (now).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Torn;

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
        // slots behind the header, and `HEADER_BYTES` is a multiple of a slot's alignment.
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

/// For its owner alone, and never through a link that somebody else put there.
fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(0o600).custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC);
    options
}
