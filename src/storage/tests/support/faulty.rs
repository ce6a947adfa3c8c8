//! A disk that fails on demand, and that remembers what no sync covered yet: so that the image
//! that a power cut would leave can be made.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use tern_storage::{Disk, DiskFile, RealDisk};

/// Bytes that a disk writes in one piece.
const SECTOR: usize = 512;

/// What shall go wrong, and what went by.
#[derive(Debug, Default)]
pub struct Plan {
    /// Syncs of files that still succeed; `None` is all.
    pub syncs_left: Option<u64>,
    /// Bytes that files may still be made with.
    pub room: Option<u64>,
    /// Whether writes fail.
    pub writes_fail: bool,
    /// Syncs of files so far.
    pub syncs: u64,
    /// What was overwritten since the last sync of its file.
    pub unsynced: Vec<Overwritten>,
}

/// Bytes as they were before a write that no sync covers.
#[derive(Clone, Debug)]
pub struct Overwritten {
    pub path: PathBuf,
    pub at: u64,
    pub before: Vec<u8>,
}

#[derive(Debug, Default)]
pub struct FaultyDisk {
    pub plan: Arc<Mutex<Plan>>,
}

#[derive(Debug)]
struct FaultyFile {
    path: Mutex<PathBuf>,
    inner: Arc<dyn DiskFile>,
    plan: Arc<Mutex<Plan>>,
}

impl FaultyDisk {
    fn wrap(&self, path: &Path, inner: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        // Segments are written under their unfinished name and then moved.
        let name = path.to_string_lossy();
        let path = PathBuf::from(name.strip_suffix(".tmp").unwrap_or(&name));
        Arc::new(FaultyFile { path: Mutex::new(path), inner, plan: Arc::clone(&self.plan) })
    }
}

impl Disk for FaultyDisk {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.wrap(path, RealDisk.create(path)?))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.wrap(path, RealDisk.open(path)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealDisk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        RealDisk.sync_dir(path)
    }
}

impl DiskFile for FaultyFile {
    fn bytes(&self) -> io::Result<u64> {
        self.inner.bytes()
    }

    fn write_at(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        let mut plan = self.plan.lock().unwrap();
        if plan.writes_fail {
            return Err(io::Error::other("the disk is gone"));
        }
        let mut before = vec![0; bytes.len()];
        read_at(self.handle(), at, &mut before);
        let path = self.path.lock().unwrap().clone();
        plan.unsynced.push(Overwritten { path, at, before });
        self.inner.write_at(at, bytes)
    }

    fn sync(&self) -> io::Result<()> {
        let mut plan = self.plan.lock().unwrap();
        plan.syncs += 1;
        if plan.syncs_left != Some(0) {
            plan.syncs_left = plan.syncs_left.map(|left| left - 1);
            self.synced(&mut plan);
            return self.inner.sync();
        }
        Err(io::Error::other("the disk lost a write"))
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        let mut plan = self.plan.lock().unwrap();
        if let Some(room) = &mut plan.room {
            if *room < len {
                return Err(io::Error::from(io::ErrorKind::StorageFull));
            }
            *room -= len;
        }
        self.inner.allocate(len)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.inner.set_len(len)
    }

    fn handle(&self) -> &File {
        self.inner.handle()
    }
}

impl FaultyFile {
    fn synced(&self, plan: &mut Plan) {
        let path = self.path.lock().unwrap().clone();
        plan.unsynced.retain(|write| write.path != path);
    }
}

impl Plan {
    /// Takes back, in a copy of the folder, those sectors of the unsynced writes that `lost`
    /// says did not reach the disk.
    pub fn power_cut(&self, folder: &Path, copy: &Path, mut lost: impl FnMut() -> bool) {
        use std::os::unix::fs::FileExt;
        for write in self.unsynced.iter().rev() {
            let path = copy.join(write.path.strip_prefix(folder).unwrap());
            // What upkeep began after the copy was made is not in it.
            let Ok(file) = File::options().write(true).open(path) else { continue };
            let mut from = 0;
            while from < write.before.len() {
                let at = write.at + from as u64;
                let to = write.before.len().min(from + SECTOR - at as usize % SECTOR);
                if lost() {
                    file.write_all_at(&write.before[from..to], at).unwrap();
                }
                from = to;
            }
        }
    }
}

fn read_at(file: &File, at: u64, bytes: &mut [u8]) {
    use std::os::unix::fs::FileExt;
    let mut done = 0;
    while done < bytes.len() {
        match file.read_at(&mut bytes[done..], at + done as u64).unwrap() {
            0 => return,
            count => done += count,
        }
    }
}
