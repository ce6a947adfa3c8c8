//! What may be on a disk: each file as of its last sync with any subset of the later pieces, each
//! folder as of its last sync with any of the later names.
//!
//! Comes in: everything that is done to files, as [`Op`]s. Goes out: [`Model::power_cut`], a folder
//! as a cut may leave it. Assumed: a write changes no byte beside its own, a rename is one step.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// A file, whatever its name.
pub type Inode = usize;

/// Something that is done to a disk. Names are relative to the folder.
#[derive(Clone, Debug)]
pub enum Op {
    /// An empty file is made, in the place of one that may be there.
    Create {
        /// Its name.
        name: PathBuf,
        /// Itself.
        inode: Inode,
    },
    /// Bytes are written.
    Write {
        /// Into this file.
        inode: Inode,
        /// At this place.
        at: usize,
        /// These.
        bytes: Vec<u8>,
    },
    /// A file is cut, or grows by zeros.
    Len {
        /// The file.
        inode: Inode,
        /// Its bytes from now on.
        len: usize,
    },
    /// Content and length of a file become durable.
    Sync {
        /// The file.
        inode: Inode,
    },
    /// A file gets another name, and takes it from whoever has it.
    Rename {
        /// The name that goes.
        from: PathBuf,
        /// The name that comes.
        to: PathBuf,
    },
    /// A file loses its name.
    Remove {
        /// That one.
        name: PathBuf,
    },
    /// The names in a folder become durable.
    SyncDir {
        /// The folder.
        dir: PathBuf,
    },
    /// So many records are known to be durable.
    Acked(usize),
}

/// What may be on the disk.
#[derive(Clone, Debug, Default)]
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

#[derive(Clone, Debug, Default)]
struct Content {
    durable: Vec<u8>,
    later: Vec<Change>,
}

#[derive(Clone, Debug)]
enum Change {
    Bytes { at: usize, bytes: Vec<u8> },
    Len(usize),
}

/// One step of a folder: a name goes, or comes, or both at once.
#[derive(Clone, Debug)]
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
    /// Everything in a folder, durable.
    ///
    /// # Panics
    /// If it can't be read.
    pub fn of_folder(root: &Path) -> Self {
        let mut model = Self::default();
        model.take_in(root, root);
        model.now.clone_from(&model.names);
        model
    }

    fn take_in(&mut self, root: &Path, dir: &Path) {
        let name = |path: &Path| path.strip_prefix(root).expect("it lies in the folder").into();
        self.dirs.insert(name(dir));
        let entries = fs::read_dir(dir).expect("the folder can be read");
        let mut paths: Vec<PathBuf> =
            entries.map(|entry| entry.expect("the folder can be read").path()).collect();
        paths.sort_unstable(); // the same whatever order the file system has
        for path in paths {
            if path.is_dir() {
                self.take_in(root, &path);
            } else {
                let inode = self.files.len();
                let durable = fs::read(&path).expect("the folder can be read");
                self.files.insert(inode, Content { durable, later: Vec::new() });
                self.names.insert(name(&path), inode);
            }
        }
    }

    /// A number that no file has.
    pub fn next_inode(&self) -> Inode {
        self.files.last_key_value().map_or(0, |(last, _)| last + 1)
    }

    /// The durable names.
    pub fn names(&self) -> &BTreeMap<PathBuf, Inode> {
        &self.names
    }

    /// The file that has a name now, durable or not.
    pub fn find(&self, name: &Path) -> Option<Inode> {
        self.now.get(name).copied()
    }

    /// The bytes that a file of this durable name has, whatever happens.
    pub fn durable(&self, name: &Path) -> Option<&[u8]> {
        let inode = self.names.get(name)?;
        Some(&self.files[inode].durable)
    }

    /// There is a folder of this name.
    pub fn has_dir(&mut self, dir: &Path) {
        self.dirs.insert(dir.into());
    }

    /// After one thing more.
    ///
    /// # Panics
    /// If it is done to a file that is not there.
    pub fn apply(&mut self, op: &Op) {
        match op {
            Op::Create { name, inode } => {
                self.files.insert(*inode, Content::default());
                self.dirs.extend(name.parent().map(Path::to_path_buf));
                self.rename(None, Some((name.clone(), *inode)));
            }
            Op::Write { inode, at, bytes } => {
                let change = Change::Bytes { at: *at, bytes: bytes.clone() };
                self.file(*inode).later.push(change);
            }
            Op::Len { inode, len } => self.file(*inode).later.push(Change::Len(*len)),
            Op::Sync { inode } => self.file(*inode).sync(),
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

    fn file(&mut self, inode: Inode) -> &mut Content {
        self.files.get_mut(&inode).expect("files are made before anything is done to them")
    }

    fn rename(&mut self, gone: Option<PathBuf>, come: Option<(PathBuf, Inode)>) {
        let name = gone.as_ref().or(come.as_ref().map(|(name, _)| name));
        let name = name.expect("a name goes or comes");
        let dir = name.parent().expect("a file lies in a folder").to_path_buf();
        let step = Renamed { dir, gone, come };
        step.apply(&mut self.now);
        self.renamed.push(step);
    }

    /// A sync of a file fails: some of what was written reaches the disk, and the rest never does
    /// by a later sync, for the kernel holds it for clean.
    ///
    /// # Panics
    /// If there is no such file.
    pub fn fail_sync(&mut self, inode: Inode, luck: &mut Luck<'_>) {
        let file = self.file(inode);
        (file.durable, file.later) = (file.after_cut(luck), Vec::new());
    }

    /// Forgets files that have no name and whose name could not come back.
    pub fn forget_nameless(&mut self) {
        if self.renamed.is_empty() {
            let named: BTreeSet<Inode> = self.names.values().copied().collect();
            self.files.retain(|inode, _| named.contains(inode));
        }
    }

    /// Changes a byte of a file, durably.
    ///
    /// # Panics
    /// If there is no such byte.
    pub fn damage(&mut self, name: &Path, at: usize, by: u8) {
        let inode = self.now[name];
        self.file(inode).durable[at] ^= by;
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
    ///
    /// # Panics
    /// If it can't be made.
    pub fn power_cut(&self, to: &Path, luck: &mut Luck<'_>) {
        let mut names = self.names.clone();
        for step in &self.renamed {
            if (luck.arrives)() {
                step.apply(&mut names);
            } else if luck.in_order {
                break;
            }
        }
        for dir in &self.dirs {
            fs::create_dir_all(to.join(dir)).expect("there is room for an image");
        }
        for (name, inode) in names {
            let content = self.files[&inode].after_cut(luck);
            fs::write(to.join(name), content).expect("there is room for an image");
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
