//! A disk that writes down everything that is asked of it, and a model that rebuilds from this
//! list what a power cut after any of its entries may leave: each file as of its last sync with
//! any subset of the later pieces, each folder as of its last sync with any of the later names.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use tern_storage::{Disk, DiskFile};

use super::quick::QuickDisk;

/// A file, whatever its name.
type Inode = usize;

/// One entry of the list. Names are relative to the folder.
#[derive(Clone, Debug)]
pub enum Op {
    Create {
        name: PathBuf,
        inode: Inode,
    },
    Write {
        inode: Inode,
        at: usize,
        bytes: Vec<u8>,
    },
    Len {
        inode: Inode,
        len: usize,
    },
    Sync {
        inode: Inode,
    },
    Rename {
        from: PathBuf,
        to: PathBuf,
    },
    Remove {
        name: PathBuf,
    },
    SyncDir {
        dir: PathBuf,
    },
    /// So many records are known to be durable.
    Acked(usize),
}

/// Which syncs do what they say; the others return at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kept {
    All,
    FilesOnly,
    FoldersOnly,
}

/// What was there before the first entry, and the entries.
#[derive(Debug, Default)]
pub struct Trace {
    pub names: BTreeMap<PathBuf, Inode>,
    pub files: Vec<Vec<u8>>,
    pub ops: Vec<Op>,
    /// Files made since.
    created: usize,
    /// Names as they are now.
    now: BTreeMap<PathBuf, Inode>,
    /// Folders that were there at any time.
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
    pub fn new(root: &Path, kept: Kept) -> (Self, Arc<Mutex<Trace>>) {
        let mut trace = Trace::default();
        trace.take_in(root, root);
        trace.now.clone_from(&trace.names);
        let trace = Arc::new(Mutex::new(trace));
        (Self { root: root.into(), kept, trace: Arc::clone(&trace) }, trace)
    }

    fn name(&self, path: &Path) -> PathBuf {
        path.strip_prefix(&self.root).unwrap().into()
    }

    fn wrap(&self, inode: Inode, inner: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        Arc::new(TraceFile { inode, kept: self.kept, inner, trace: Arc::clone(&self.trace) })
    }
}

impl Trace {
    fn take_in(&mut self, root: &Path, dir: &Path) {
        self.dirs.insert(dir.strip_prefix(root).unwrap().into());
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                self.take_in(root, &path);
            } else {
                let name = path.strip_prefix(root).unwrap().to_path_buf();
                self.names.insert(name, self.files.len());
                self.files.push(fs::read(path).unwrap());
            }
        }
    }

    /// So many records are durable, says the log.
    pub fn acked(&mut self, records: usize) {
        self.ops.push(Op::Acked(records));
    }
}

impl Disk for TraceDisk {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let inner = QuickDisk.create(path)?;
        let (name, mut trace) = (self.name(path), self.trace.lock().unwrap());
        // One that is there is emptied: to the model, another file that takes its name.
        let inode = trace.files.len() + trace.created;
        trace.created += 1;
        trace.dirs.insert(name.parent().unwrap().into());
        trace.now.insert(name.clone(), inode);
        trace.ops.push(Op::Create { name, inode });
        Ok(self.wrap(inode, inner))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let inner = QuickDisk.open(path)?;
        let inode = self.trace.lock().unwrap().now[&self.name(path)];
        Ok(self.wrap(inode, inner))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut trace = self.trace.lock().unwrap();
        let (from_name, to_name) = (self.name(from), self.name(to));
        let inode = trace.now.remove(&from_name).unwrap();
        trace.now.insert(to_name.clone(), inode);
        trace.ops.push(Op::Rename { from: from_name, to: to_name });
        QuickDisk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut trace = self.trace.lock().unwrap();
        QuickDisk.remove(path)?;
        let name = self.name(path);
        trace.now.remove(&name);
        trace.ops.push(Op::Remove { name });
        Ok(())
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        // The folder around the data folder is not in the model.
        if self.kept != Kept::FilesOnly && path.starts_with(&self.root) {
            self.trace.lock().unwrap().ops.push(Op::SyncDir { dir: self.name(path) });
        }
        Ok(())
    }
}

impl DiskFile for TraceFile {
    fn bytes(&self) -> io::Result<u64> {
        self.inner.bytes()
    }

    fn write_at(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        let mut trace = self.trace.lock().unwrap();
        trace.ops.push(Op::Write { inode: self.inode, at: at as usize, bytes: bytes.to_vec() });
        self.inner.write_at(at, bytes)
    }

    fn sync(&self) -> io::Result<()> {
        if self.kept != Kept::FoldersOnly {
            self.trace.lock().unwrap().ops.push(Op::Sync { inode: self.inode });
        }
        Ok(())
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        let mut trace = self.trace.lock().unwrap();
        trace.ops.push(Op::Len { inode: self.inode, len: len as usize });
        self.inner.allocate(len)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut trace = self.trace.lock().unwrap();
        trace.ops.push(Op::Len { inode: self.inode, len: len as usize });
        self.inner.set_len(len)
    }

    fn handle(&self) -> &File {
        self.inner.handle()
    }
}

/// What may be on the disk after some entries.
pub struct Model {
    files: BTreeMap<Inode, Content>,
    names: BTreeMap<PathBuf, Inode>,
    /// Names changed since their folder's last sync, in order.
    renamed: Vec<Renamed>,
    now: BTreeMap<PathBuf, Inode>,
    dirs: BTreeSet<PathBuf>,
    /// Records that are known to be durable.
    pub acked: usize,
}

#[derive(Default)]
struct Content {
    durable: Vec<u8>,
    later: Vec<Change>,
}

enum Change {
    Bytes { at: usize, bytes: Vec<u8> },
    Len(usize),
}

/// One step of a folder: a name goes, or comes, or both at once.
struct Renamed {
    dir: PathBuf,
    gone: Option<PathBuf>,
    come: Option<(PathBuf, Inode)>,
}

/// What of the unsynced reaches the disk.
pub struct Luck<'a> {
    /// Bytes of a piece that arrives whole or not at all.
    pub piece: usize,
    /// Names arrive in their order, as with a journal.
    pub in_order: bool,
    /// Whether the next piece or name arrives.
    pub arrives: &'a mut dyn FnMut() -> bool,
}

impl Model {
    /// Before the first entry.
    pub fn new(trace: &Trace) -> Self {
        let content = |bytes: &Vec<u8>| Content { durable: bytes.clone(), later: Vec::new() };
        Self {
            files: trace.files.iter().map(content).enumerate().collect(),
            names: trace.names.clone(),
            renamed: Vec::new(),
            now: trace.names.clone(),
            dirs: trace.dirs.clone(),
            acked: 0,
        }
    }

    /// After one entry more.
    pub fn apply(&mut self, op: &Op) {
        match op {
            Op::Create { name, inode } => {
                self.files.insert(*inode, Content::default());
                self.rename(None, Some((name.clone(), *inode)));
            }
            Op::Write { inode, at, bytes } => {
                let change = Change::Bytes { at: *at, bytes: bytes.clone() };
                self.files.get_mut(inode).unwrap().later.push(change);
            }
            Op::Len { inode, len } => {
                self.files.get_mut(inode).unwrap().later.push(Change::Len(*len));
            }
            Op::Sync { inode } => self.files.get_mut(inode).unwrap().sync(),
            Op::Rename { from, to } => {
                let inode = self.now[from];
                self.rename(Some(from.clone()), Some((to.clone(), inode)));
            }
            Op::Remove { name } => self.rename(Some(name.clone()), None),
            Op::SyncDir { dir } => {
                let (synced, later) =
                    self.renamed.drain(..).partition(|step: &Renamed| step.dir == *dir);
                self.renamed = later;
                synced.iter().for_each(|step| step.apply(&mut self.names));
            }
            Op::Acked(records) => self.acked = self.acked.max(*records),
        }
    }

    fn rename(&mut self, gone: Option<PathBuf>, come: Option<(PathBuf, Inode)>) {
        let name = gone.as_ref().or(come.as_ref().map(|(name, _)| name)).unwrap();
        let dir = name.parent().unwrap().to_path_buf();
        let step = Renamed { dir, gone, come };
        step.apply(&mut self.now);
        self.renamed.push(step);
    }

    /// Bytes and names whose fate a power cut would decide.
    pub fn open_pieces(&self, piece: usize) -> usize {
        let pieces = |change: &Change| match change {
            Change::Bytes { at, bytes } => (at + bytes.len()).div_ceil(piece) - at / piece,
            Change::Len(_) => 1,
        };
        let files = self.files.values().flat_map(|file| &file.later).map(pieces);
        files.sum::<usize>() + self.renamed.len()
    }

    /// Makes a folder as it may be found after a power cut.
    pub fn power_cut(&self, to: &Path, luck: &mut Luck<'_>) {
        let mut names = self.names.clone();
        for step in &self.renamed {
            if (luck.arrives)() {
                step.apply(&mut names);
            } else if luck.in_order {
                break;
            }
        }
        self.dirs.iter().for_each(|dir| fs::create_dir_all(to.join(dir)).unwrap());
        for (name, inode) in names {
            fs::write(to.join(name), self.files[&inode].after_cut(luck)).unwrap();
        }
    }
}

impl Renamed {
    fn apply(&self, names: &mut BTreeMap<PathBuf, Inode>) {
        if let Some(gone) = &self.gone {
            names.remove(gone);
        }
        if let Some((name, inode)) = &self.come {
            names.insert(name.clone(), *inode);
        }
    }
}

impl Content {
    fn sync(&mut self) {
        for change in self.later.drain(..) {
            match change {
                Change::Bytes { at, bytes } => put(&mut self.durable, at, &bytes),
                Change::Len(len) => self.durable.resize(len, 0),
            }
        }
    }

    fn after_cut(&self, luck: &mut Luck<'_>) -> Vec<u8> {
        let mut content = self.durable.clone();
        for change in &self.later {
            match change {
                Change::Len(len) if (luck.arrives)() => content.resize(*len, 0),
                Change::Len(_) => {}
                Change::Bytes { at, bytes } => {
                    let mut from = 0;
                    while from < bytes.len() {
                        let place = at + from;
                        let to = bytes.len().min(from + luck.piece - place % luck.piece);
                        if (luck.arrives)() {
                            put(&mut content, place, &bytes[from..to]);
                        }
                        from = to;
                    }
                }
            }
        }
        content
    }
}

fn put(content: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    let end = at + bytes.len();
    content.resize(content.len().max(end), 0);
    content[at..end].copy_from_slice(bytes);
}
