//! The door to the disk: the few calls through which this crate changes files, so that a faulty
//! twin can stand in for tests.
//!
//! Contract of every implementation: what [`DiskFile::sync`] returned for survives a power cut;
//! what it did not return for may survive in whole, in part or not at all.

use std::fmt::Debug;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{CWD, FallocateFlags, RenameFlags, fallocate, renameat_with};
use rustix::io::{Errno, retry_on_intr};

/// Mode of every file in the data folder: its owner alone reads and writes messages.
const FILE_MODE: u32 = 0o600;

/// Bytes written at once where the file system can't allocate without writing.
const ZEROS_BYTES: usize = 64 * 1024;

/// Names of files: making, opening, moving and removing them.
pub trait Disk: Send + Sync + Debug {
    /// Makes an empty file, or empties one that is there.
    ///
    /// # Errors
    /// As the file system says.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;

    /// Opens a file to read and write.
    ///
    /// # Errors
    /// As the file system says.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;

    /// Moves a file over another, as one step.
    ///
    /// # Errors
    /// As the file system says.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// As the file system says.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes the names in a folder durable.
    ///
    /// # Errors
    /// As the file system says.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;

    /// The room of the file system that a folder is on.
    ///
    /// # Errors
    /// As the file system says.
    fn space(&self, path: &Path) -> io::Result<Space> {
        let facts = rustix::fs::statvfs(path)?;
        let bytes = |blocks: u64| blocks.saturating_mul(facts.f_frsize);
        Ok(Space { free: bytes(facts.f_bavail), total: bytes(facts.f_blocks) })
    }
}

/// The room of a file system, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Space {
    /// What this process may still use.
    pub free: u64,
    /// What there is altogether.
    pub total: u64,
}

/// One open file.
pub trait DiskFile: Send + Sync + Debug {
    /// Its length in bytes.
    ///
    /// # Errors
    /// As the file system says.
    fn bytes(&self) -> io::Result<u64>;

    /// Writes all of `bytes` at a place.
    ///
    /// # Errors
    /// As the file system says; any part may have been written.
    fn write_at(&self, at: u64, bytes: &[u8]) -> io::Result<()>;

    /// Makes the content and the length durable (`fdatasync`).
    ///
    /// # Errors
    /// Final: what was written before may be lost, and a later success says nothing of it.
    fn sync(&self) -> io::Result<()>;

    /// Grows the file to `len` bytes of zeros that really have room on the disk.
    ///
    /// # Errors
    /// `StorageFull` or `QuotaExceeded` when there is no room.
    fn allocate(&self, len: u64) -> io::Result<()>;

    /// Cuts or grows the file.
    ///
    /// # Errors
    /// As the file system says.
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// The file itself, for mappings only.
    fn handle(&self) -> &File;
}

/// The file system of this machine.
#[derive(Debug, Default)]
pub struct RealDisk;

impl Disk for RealDisk {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true).mode(FILE_MODE);
        Ok(Arc::new(RealFile(options.open(path)?)))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(RealFile(OpenOptions::new().read(true).write(true).open(path)?)))
    }

    /// A name that was free is not taken from somebody who made it in the same moment.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        if to.try_exists()? {
            return std::fs::rename(from, to);
        }
        match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
            Ok(()) => Ok(()),
            // The file system has no such call.
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => std::fs::rename(from, to),
            Err(error) => Err(error.into()),
        }
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }
}

/// A file to be read only.
pub(crate) fn read_only(path: &Path) -> io::Result<Arc<dyn DiskFile>> {
    Ok(Arc::new(RealFile(File::open(path)?)))
}

#[derive(Debug)]
struct RealFile(File);

impl DiskFile for RealFile {
    fn bytes(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn write_at(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all_at(bytes, at)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        // A signal may end it early; it goes on where it was.
        match retry_on_intr(|| fallocate(&self.0, FallocateFlags::empty(), 0, len)) {
            Ok(()) => Ok(()),
            Err(Errno::OPNOTSUPP) => self.write_zeros(len),
            Err(error) => Err(error.into()),
        }
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn handle(&self) -> &File {
        &self.0
    }
}

impl RealFile {
    fn write_zeros(&self, len: u64) -> io::Result<()> {
        let zeros = [0u8; ZEROS_BYTES];
        let mut at = self.bytes()?;
        while at < len {
            let count = (len - at).min(ZEROS_BYTES as u64);
            self.0.write_all_at(&zeros[..count as usize], at)?;
            at += count;
        }
        Ok(())
    }
}

/// Whether an error says that there is no room, which may pass.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    )
}
