//! Whether the data folder is still this process's own.
//!
//! The lock on the folder ends with its holder, so nobody else can take it. But an operator can
//! remove the lock file and start another server, while this one is stopped (SIGSTOP) or slow:
//! then two of them write to the same files. [`OwnedDisk`] stands in front of the disk and looks,
//! at each call that changes something, whether the name of the lock still leads to the file that
//! is held. If not, nothing is changed any more, and what was changed at the same moment is not
//! taken for done:
//!
//! - A batch counts as durable only if the folder was still ours after its sync. Whoever took the
//!   folder later replays that batch, so its ack is true.
//! - A batch that is written after that fails its log: nothing more is acked. Its bytes stand
//!   behind the end that the new owner's first segment names, and stay dead.
//! - A new segment never takes the name of one that somebody else has just made
//!   ([`RealDisk`](crate::RealDisk) refuses that), and nothing is removed.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::disk::{Disk, DiskFile, Space};

/// What a call says when the folder was taken.
const TAKEN: &str = "another process has taken the data folder: its lock file was removed or \
                     replaced. This process changes nothing any more";

/// The held lock, compared with what its name leads to. As long as the folder is open its file is
/// too, so no other file can have its number.
#[derive(Debug)]
pub(crate) struct Owner {
    held: FileId,
    path: PathBuf,
    /// Once lost, for good: the name may lead back, but somebody else may have written meanwhile.
    lost: AtomicBool,
}

/// What names a file whatever it is called: its device and its number there.
type FileId = (u64, u64);

fn id_of(file: &Metadata) -> FileId {
    (file.dev(), file.ino())
}

impl Owner {
    /// Of a lock that was just taken under this name.
    pub(crate) fn new(lock: &File, path: PathBuf) -> io::Result<Arc<Self>> {
        Ok(Arc::new(Self { held: id_of(&lock.metadata()?), path, lost: AtomicBool::new(false) }))
    }

    /// Whether the name still leads to the held lock. A name that can't be looked up at the moment
    /// leads nowhere: better stopped than doubled.
    pub(crate) fn is_ours(&self) -> bool {
        let named = std::fs::metadata(&self.path);
        if !named.is_ok_and(|named| id_of(&named) == self.held) {
            self.lost.store(true, Ordering::Release);
        }
        !self.lost.load(Ordering::Acquire)
    }

    fn check(&self) -> io::Result<()> {
        if self.is_ours() { Ok(()) } else { Err(io::Error::other(TAKEN)) }
    }
}

/// A disk that changes nothing in a folder that was taken.
#[derive(Debug)]
pub(crate) struct OwnedDisk {
    pub(crate) inner: Arc<dyn Disk>,
    pub(crate) owner: Arc<Owner>,
}

impl OwnedDisk {
    fn file(&self, inner: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        Arc::new(OwnedFile { inner, owner: Arc::clone(&self.owner) })
    }
}

impl Disk for OwnedDisk {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.owner.check()?;
        Ok(self.file(self.inner.create(path)?))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.file(self.inner.open(path)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.owner.check()?;
        self.inner.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.owner.check()?;
        self.inner.remove(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.inner.sync_dir(path)
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        self.inner.space(path)
    }
}

/// A file of such a disk.
#[derive(Debug)]
struct OwnedFile {
    inner: Arc<dyn DiskFile>,
    owner: Arc<Owner>,
}

impl DiskFile for OwnedFile {
    fn bytes(&self) -> io::Result<u64> {
        self.inner.bytes()
    }

    fn write_at(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.owner.check()?;
        self.inner.write_at(at, bytes)?;
        // With durability *process* this is what an ack waits for.
        self.owner.check()
    }

    fn sync(&self) -> io::Result<()> {
        self.inner.sync()?;
        self.owner.check()
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.owner.check()?;
        self.inner.allocate(len)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.owner.check()?;
        self.inner.set_len(len)
    }

    fn handle(&self) -> &File {
        self.inner.handle()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::RealDisk;

    fn owned(dir: &Path) -> OwnedDisk {
        let path = dir.join("lock");
        let lock = File::create(&path).unwrap();
        OwnedDisk { inner: Arc::new(RealDisk), owner: Owner::new(&lock, path).unwrap() }
    }

    #[test]
    fn a_taken_folder_is_left_alone_for_good() {
        let dir = tempfile::tempdir().unwrap();
        let disk = owned(dir.path());
        let (file, lock) = (dir.path().join("file"), dir.path().join("lock"));
        let open = disk.create(&file).unwrap();
        open.write_at(0, b"mine").unwrap();
        open.sync().unwrap();
        std::fs::rename(&lock, dir.path().join("aside")).unwrap();
        std::fs::write(&lock, "another one").unwrap();
        for refused in [
            open.write_at(0, b"not any more"),
            open.sync(),
            open.set_len(0),
            open.allocate(4096),
            disk.rename(&file, &dir.path().join("other")),
            disk.remove(&file),
            disk.create(&file).map(drop),
        ] {
            assert!(refused.unwrap_err().to_string().contains("taken the data folder"));
        }
        assert_eq!(std::fs::read(&file).unwrap(), b"mine");
        std::fs::rename(dir.path().join("aside"), &lock).unwrap();
        assert!(!disk.owner.is_ours(), "what was written meanwhile is not known");
    }

    #[test]
    fn a_name_that_somebody_made_is_not_taken_from_him() {
        let dir = tempfile::tempdir().unwrap();
        let [from, to] = ["from", "to"].map(|name| dir.path().join(name));
        std::fs::write(&from, "new").unwrap();
        RealDisk.rename(&from, &to).unwrap();
        std::fs::write(&from, "newer").unwrap();
        RealDisk.rename(&from, &to).unwrap();
        assert_eq!(std::fs::read(&to).unwrap(), b"newer", "one that was there is replaced");
    }
}
