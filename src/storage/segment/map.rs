//! Segment files as memory: written by calls, read through a mapping. One of the three files of
//! this crate with `unsafe` in it that map one.
//!
//! A [`SettledFile`] has a *settled end*: bytes before it never change again, bytes behind it are
//! written by [`SettledFile::write`] only. References are handed out to settled bytes alone, so
//! that no reference ever sees its bytes change. What this relies on from outside: no other
//! process writes to or cuts the files of the data folder while its lock is held. If one does all
//! the same, or the disk can't give a page, [`crate::segment::sigbus`] puts zeros there and counts it.
//!
//! A mapping needs no open file. Of a file that nobody writes to any more the mapping alone stays,
//! so what is kept costs no descriptor ([`SettledFile::close`]).
#![allow(unsafe_code)]

use std::io;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use memmap2::{Advice, MmapOptions, MmapRaw};

use crate::disk::DiskFile;
use crate::segment::sigbus::Guard;

/// Size of a page of memory in bytes. The kernel's may be larger: then residency is asked for,
/// and populated, in its own steps, see [`SettledFile::pages`].
pub(crate) const PAGE_BYTES: usize = 4096;

/// Pages that one residency question covers at most: 64 KiB and a page at each end.
const PAGES_ASKED_MAX: usize = 64;

/// A file that is appended to by calls and read through a read-only mapping.
#[derive(Debug)]
pub(crate) struct SettledFile {
    /// `None` once it is only read.
    file: Mutex<Option<Arc<dyn DiskFile>>>,
    /// Bytes that the file has on the disk: fewer than are mapped once its end was given back.
    bytes: AtomicU64,
    /// Before the mapping, since fields are dropped in order.
    guard: Guard,
    map: MmapRaw,
    settled: AtomicUsize,
    page_bytes: usize,
}

impl SettledFile {
    /// Maps the whole of `file`, of which the first `settled` bytes will not change any more.
    pub(crate) fn new(file: Arc<dyn DiskFile>, settled: usize) -> io::Result<Self> {
        let bytes = file.bytes()?;
        let len = bytes as usize; // fits: this crate is for 64-bit machines
        assert!(settled <= len, "settled {settled} of {len} bytes");
        let map = MmapOptions::new().len(len).map_raw_read_only(file.handle())?;
        let guard = Guard::new(map.as_ptr() as usize, len);
        let page_bytes = rustix::param::page_size();
        let (file, bytes) = (Mutex::new(Some(file)), AtomicU64::new(bytes));
        Ok(Self { file, bytes, guard, map, settled: AtomicUsize::new(settled), page_bytes })
    }

    /// The file, to write and sync; `None` if it was closed.
    pub(crate) fn file(&self) -> Option<Arc<dyn DiskFile>> {
        self.lock().clone()
    }

    /// Closes the file: nobody will write to it any more. What was settled can be read as before.
    /// Whether it was open.
    pub(crate) fn close(&self) -> bool {
        self.lock().take().is_some()
    }

    /// Bytes that the file has on the disk.
    pub(crate) fn bytes_on_disk(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// The file was cut to so many bytes, all that is settled among them.
    pub(crate) fn was_cut(&self, bytes: u64) {
        self.bytes.store(bytes, Ordering::Relaxed);
    }

    /// Each holder leaves it whole at every step.
    fn lock(&self) -> MutexGuard<'_, Option<Arc<dyn DiskFile>>> {
        self.file.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes of the file that can be mapped.
    pub(crate) fn len(&self) -> usize {
        self.map.len()
    }

    /// Pages that could not be given when they were read, and are zeros since then. If this grew
    /// during a read, what was read is worth nothing.
    pub(crate) fn faults(&self) -> u64 {
        self.guard.faults()
    }

    /// Bytes from the start that will not change any more.
    pub(crate) fn settled(&self) -> usize {
        self.settled.load(Ordering::Acquire)
    }

    /// Writes behind the settled end. One thread at a time: the one that settles.
    pub(crate) fn write(&self, at: usize, bytes: &[u8]) -> io::Result<()> {
        assert!(at >= self.settled(), "settled bytes never change");
        assert!(at + bytes.len() <= self.len(), "a segment never grows");
        self.file().expect("who writes has not closed it").write_at(at as u64, bytes)
    }

    /// Everything before `end` will not change any more, and may be read from now on.
    pub(crate) fn settle(&self, end: usize) {
        assert!(self.settled() <= end && end <= self.len());
        self.settled.store(end, Ordering::Release);
    }

    /// Settled bytes; `None` if not all of them are settled. Reading them may wait for the disk.
    pub(crate) fn bytes(&self, from: usize, to: usize) -> Option<&[u8]> {
        if from > to || to > self.settled() {
            return None;
        }
        // SAFETY: `settled <= map.len()` holds since `new` and `settle` check it, so the range
        // lies in the mapping, which lives as long as `self`. Bytes before `settled` are not
        // written by this process (`write` asserts it, and nothing else writes), nor by another
        // one (module documentation), so they don't change while the reference lives.
        Some(unsafe { std::slice::from_raw_parts(self.map.as_ptr().add(from), to - from) })
    }

    /// Whether all pages of a range are in the page cache, so that reading them waits for nobody.
    /// A kernel that does not tell counts as "yes".
    pub(crate) fn resident(&self, from: usize, to: usize) -> bool {
        let (start, len) = self.pages(from, to);
        let mut pages = [0u8; PAGES_ASKED_MAX];
        let count = len.div_ceil(self.page_bytes);
        assert!(count <= PAGES_ASKED_MAX, "asked for {len} bytes at once");
        // SAFETY: `pages` gives a page-aligned range inside of the mapping, and `pages` (the
        // array) has a byte for each page of it. The call reads no memory of the mapping.
        let result = unsafe {
            libc::mincore(self.map.as_mut_ptr().add(start).cast(), len, pages.as_mut_ptr())
        };
        result != 0 || pages[..count].iter().all(|page| page & 1 == 1)
    }

    /// Reads a range into the page cache and maps it, waiting for the disk.
    ///
    /// # Errors
    /// When the disk can't give it; touching it would give zeros, or end the process if nobody
    /// guards mappings.
    pub(crate) fn populate(&self, from: usize, to: usize) -> io::Result<()> {
        let (start, len) = self.pages(from, to);
        if len == 0 {
            return Ok(());
        }
        match self.map.advise_range(Advice::PopulateRead, start, len) {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                let before = self.faults();
                self.touch(start, len);
                let gave_all = self.faults() == before;
                if gave_all { Ok(()) } else { Err(io::Error::other("the disk gave no page")) }
            }
            result => result,
        }
    }

    /// Reads a byte of each page, for kernels before 5.14.
    fn touch(&self, start: usize, len: usize) {
        for at in (start..start + len).step_by(PAGE_BYTES) {
            // SAFETY: `at` lies in the mapping (`pages`). A volatile read of a byte that the
            // kernel may be changing is a read of plain memory whose value is thrown away.
            unsafe { self.map.as_ptr().add(at).read_volatile() };
        }
    }

    /// The range of whole pages around a range, clipped to the settled bytes: start and length.
    fn pages(&self, from: usize, to: usize) -> (usize, usize) {
        let to = to.min(self.settled());
        let start = from.min(to) / self.page_bytes * self.page_bytes;
        (start, to - start)
    }
}
