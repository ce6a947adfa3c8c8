//! A disk that writes down everything that is asked of it; from the list a [`Model`] rebuilds what
//! a power cut after any entry may leave.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tern_storage::{Disk, DiskFile};

use crate::model::{Inode, Model, Op};
use crate::quick::QuickDisk;

/// Which syncs do what they say; the others return at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kept {
    /// All of them.
    All,
    /// Those of files.
    FilesOnly,
    /// Those of folders.
    FoldersOnly,
}

/// What was there before the first entry, and the entries.
#[derive(Debug)]
pub struct Trace {
    /// What was done, in order.
    pub ops: Vec<Op>,
    start: Model,
    /// The number of the next file.
    next: Inode,
    /// Names as they are now.
    now: BTreeMap<PathBuf, Inode>,
    /// Folders in which a file was made.
    dirs: BTreeSet<PathBuf>,
}

/// The disk of a folder that writes down what it is asked for.
#[derive(Debug)]
pub struct TraceDisk {
    root: PathBuf,
    kept: Kept,
    trace: Arc<Mutex<Trace>>,
}

#[derive(Debug)]
struct TraceFile {
    inode: Inode,
    kept: Kept,
    inner: Arc<dyn DiskFile>,
    trace: Arc<Mutex<Trace>>,
}

impl TraceDisk {
    /// What is in `root` now is durable.
    ///
    /// # Panics
    /// If that can't be read.
    pub fn new(root: &Path, kept: Kept) -> (Self, Arc<Mutex<Trace>>) {
        let start = Model::of_folder(root);
        let (next, now) = (start.next_inode(), start.names().clone());
        let trace = Trace { ops: Vec::new(), start, next, now, dirs: BTreeSet::new() };
        let trace = Arc::new(Mutex::new(trace));
        (Self { root: root.into(), kept, trace: Arc::clone(&trace) }, trace)
    }

    fn name(&self, path: &Path) -> PathBuf {
        path.strip_prefix(&self.root).expect("only files of the folder are asked for").into()
    }

    fn wrap(&self, inode: Inode, inner: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        Arc::new(TraceFile { inode, kept: self.kept, inner, trace: Arc::clone(&self.trace) })
    }
}

impl Trace {
    /// So many records are durable, says the log.
    pub fn acked(&mut self, records: usize) {
        self.ops.push(Op::Acked(records));
    }
}

impl Model {
    /// Before the first entry of a trace.
    pub fn new(trace: &Trace) -> Self {
        let mut model = trace.start.clone();
        trace.dirs.iter().for_each(|dir| model.has_dir(dir));
        model
    }
}

/// A test that panicked elsewhere has left the list whole.
fn lock(trace: &Mutex<Trace>) -> MutexGuard<'_, Trace> {
    trace.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Disk for TraceDisk {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let inner = QuickDisk.create(path)?;
        let (name, mut trace) = (self.name(path), lock(&self.trace));
        // One that is there is emptied: to the model, another file that takes its name.
        let inode = trace.next;
        trace.next += 1;
        trace.dirs.extend(name.parent().map(Path::to_path_buf));
        trace.now.insert(name.clone(), inode);
        trace.ops.push(Op::Create { name, inode });
        Ok(self.wrap(inode, inner))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let inner = QuickDisk.open(path)?;
        let inode = lock(&self.trace).now[&self.name(path)];
        Ok(self.wrap(inode, inner))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut trace = lock(&self.trace);
        let (from_name, to_name) = (self.name(from), self.name(to));
        let inode = trace.now.remove(&from_name).expect("it was made or found");
        trace.now.insert(to_name.clone(), inode);
        trace.ops.push(Op::Rename { from: from_name, to: to_name });
        QuickDisk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut trace = lock(&self.trace);
        QuickDisk.remove(path)?;
        let name = self.name(path);
        trace.now.remove(&name);
        trace.ops.push(Op::Remove { name });
        Ok(())
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        // The folder around the data folder is not in the model.
        if self.kept != Kept::FilesOnly && path.starts_with(&self.root) {
            lock(&self.trace).ops.push(Op::SyncDir { dir: self.name(path) });
        }
        Ok(())
    }
}

impl DiskFile for TraceFile {
    fn bytes(&self) -> io::Result<u64> {
        self.inner.bytes()
    }

    fn write_at(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        let mut trace = lock(&self.trace);
        trace.ops.push(Op::Write { inode: self.inode, at: at as usize, bytes: bytes.to_vec() });
        self.inner.write_at(at, bytes)
    }

    fn sync(&self) -> io::Result<()> {
        if self.kept != Kept::FoldersOnly {
            lock(&self.trace).ops.push(Op::Sync { inode: self.inode });
        }
        Ok(())
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        let mut trace = lock(&self.trace);
        trace.ops.push(Op::Len { inode: self.inode, len: len as usize });
        self.inner.allocate(len)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut trace = lock(&self.trace);
        trace.ops.push(Op::Len { inode: self.inode, len: len as usize });
        self.inner.set_len(len)
    }

    fn handle(&self) -> &File {
        self.inner.handle()
    }
}
