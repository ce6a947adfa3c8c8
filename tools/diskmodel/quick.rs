//! The file system of this machine without its syncs: for tests in which no power is cut, or in
//! which a model says what a cut would leave.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;

use tern_storage::{Disk, DiskFile, RealDisk};

/// The real file system; its syncs return at once.
#[derive(Debug, Default)]
pub struct QuickDisk;

#[derive(Debug)]
struct QuickFile(Arc<dyn DiskFile>);

impl Disk for QuickDisk {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(QuickFile(RealDisk.create(path)?)))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(QuickFile(RealDisk.open(path)?)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealDisk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        File::open(path).map(drop)
    }
}

impl DiskFile for QuickFile {
    fn bytes(&self) -> io::Result<u64> {
        self.0.bytes()
    }

    fn write_at(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_at(at, bytes)
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.0.allocate(len)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn handle(&self) -> &File {
        self.0.handle()
    }
}
