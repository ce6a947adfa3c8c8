//! The file that a cell writes to, as calls and as memory; and what the kernel says of this
//! thread. Beside `ring`, the only file of the bench with `unsafe` in it.
#![allow(unsafe_code)]

use std::fs::File;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use memmap2::{Advice, MmapOptions, MmapRaw};
use rustix::fs::FallocateFlags;

/// Bytes of zeros written at once: large, so that the preparation is quick.
const ZEROS_BYTES: usize = 1024 * 1024;

/// Most pieces that Linux takes in one `pwritev` (`UIO_MAXIOV`).
const PIECES_MAX: usize = 1024;

/// How the room of a file was made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Prepared {
    /// By `fallocate`: the first write of each block also changes the file system's own data.
    Fallocated,
    /// By writing zeros and syncing them.
    Zeroed,
}

impl Prepared {
    pub(crate) const ALL: [Self; 2] = [Self::Fallocated, Self::Zeroed];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Fallocated => "fallocated",
            Self::Zeroed => "pre-zeroed",
        }
    }
}

/// A file of fixed length with a shared mapping of all of it; removed when dropped.
pub(crate) struct Place {
    file: File,
    map: MmapRaw,
    path: PathBuf,
}

impl Place {
    /// Makes a file in `dir` whose room is durable, and maps its pages for reading.
    pub(crate) fn make(dir: &Path, prepared: Prepared, bytes: usize) -> io::Result<Self> {
        let path = dir.join(format!("tern-commit-{}.bench", std::process::id()));
        let mut options = File::options();
        let file = options.read(true).write(true).create(true).truncate(true).open(&path)?;
        match prepared {
            Prepared::Fallocated => {
                rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, bytes as u64)?;
            }
            Prepared::Zeroed => {
                let zeros = vec![0; ZEROS_BYTES];
                for at in (0..bytes).step_by(ZEROS_BYTES) {
                    file.write_all_at(&zeros[..ZEROS_BYTES.min(bytes - at)], at as u64)?;
                }
            }
        }
        file.sync_all()?;
        let map = MmapOptions::new().len(bytes).map_raw(&file)?;
        map.advise(Advice::PopulateRead)?;
        Ok(Self { file, map, path })
    }

    /// Stores bytes through the mapping.
    pub(crate) fn store(&self, at: usize, bytes: &[u8]) {
        assert!(at + bytes.len() <= self.map.len());
        // SAFETY: the range lies in the mapping (asserted), which lives as long as `self` and is
        // writable. No reference to it is ever made, one thread stores, and the other only asks
        // the kernel to sync.
        unsafe {
            let to = self.map.as_mut_ptr().add(at);
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len());
        }
    }

    /// A byte as a reader sees it through the mapping.
    pub(crate) fn load(&self, at: usize) -> u8 {
        assert!(at < self.map.len());
        // SAFETY: the byte lies in the mapping (asserted), and nobody changes it meanwhile: a
        // cell reads only what the same thread has written before.
        unsafe { self.map.as_ptr().add(at).read_volatile() }
    }

    /// Writes bytes by a call.
    pub(crate) fn write(&self, at: usize, bytes: &[u8]) -> io::Result<()> {
        assert!(at + bytes.len() <= self.map.len());
        self.file.write_all_at(bytes, at as u64)
    }

    /// Writes bytes by one call for each 1,024 pieces of a size, as if they lay apart.
    pub(crate) fn write_pieces(&self, at: usize, bytes: &[u8], piece: usize) -> io::Result<()> {
        assert!(at + bytes.len() <= self.map.len());
        let pieces: Vec<IoSlice<'_>> = bytes.chunks(piece).map(IoSlice::new).collect();
        let mut to = at;
        for call in pieces.chunks(PIECES_MAX) {
            let written = rustix::io::pwritev(&self.file, call, to as u64)?;
            if written != call.iter().map(|piece| piece.len()).sum::<usize>() {
                return Err(io::Error::other("a short write: is the disk full?"));
            }
            to += written;
        }
        Ok(())
    }

    /// `fdatasync`.
    pub(crate) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// `msync` of the pages around a range.
    pub(crate) fn sync_range(&self, at: usize, bytes: usize) -> io::Result<()> {
        self.map.flush_range(at, bytes)
    }

    /// The open file.
    pub(crate) fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Length in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.map.len()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // A file that stays is emptied by the next cell.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// How often the kernel took the core from this thread to give it to another one.
pub(crate) fn preemptions() -> i64 {
    // SAFETY: all zeros is a valid `rusage`, and the call only fills it in.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        let result = libc::getrusage(libc::RUSAGE_THREAD, &mut usage);
        assert_eq!(result, 0, "the kernel counts switches");
        usage
    };
    usage.ru_nivcsw
}
