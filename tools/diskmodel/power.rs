//! A disk that lives through bad days: power cuts, failed syncs, want of room, damage, and the
//! death of the process in the middle of what it does.
//!
//! Comes in: what storage does, through its door; from the simulator, what goes wrong. Goes out:
//! [`PowerDisk::is_durable`], by which a judge can tell a true proof of durability from a false one.
//! What was written stands in real files at once, as in the page cache; what of it is durable
//! stands in a [`Model`]. Everything random comes from one stream.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tern_random::Stream;
use tern_storage::{Disk, DiskFile, Space};

use crate::model::{Inode, Luck, Model, Op};
use crate::quick::QuickDisk;

/// Bytes that disks write in one piece: a sector, or a page.
const PIECES: [usize; 2] = [512, 4096];

/// What a file system without want of room says of itself.
const ROOMY: Space = Space { free: 1 << 40, total: 1 << 40 };

/// How the end of a segment's name looks.
const SEGMENT: &str = "seg";

/// A defect of the disk, or of who uses it, as if it were one of the disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Lie {
    /// Every sync does what it says.
    #[default]
    None,
    /// Syncs of segments return at once.
    SyncsSkipped,
    /// Syncs of folders return at once.
    NamesSkipped,
    /// A failed sync is made again, and its success believed.
    SyncsRetried,
    /// Segments that a start finds are not synced.
    FoundNotSynced,
}

/// What happened to a disk since it was last looked at.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Met {
    /// There was no room for something.
    pub full: bool,
    /// A sync of a segment failed.
    pub failed_sync: bool,
}

#[derive(Debug)]
struct State {
    model: Model,
    next: Inode,
    stream: Stream,
    lie: Lie,
    full: bool,
    /// With `full`: writes that grow nothing find no room either.
    copies_on_write: bool,
    fails_next_sync: bool,
    /// Changes until the process dies.
    changes_left: Option<u64>,
    dead: bool,
    met: Met,
}

/// The disk under one folder.
#[derive(Debug)]
pub struct PowerDisk {
    root: PathBuf,
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct PowerFile {
    inode: Inode,
    is_segment: bool,
    /// It was there before this process, or so it must be feared.
    found: bool,
    inner: Arc<dyn DiskFile>,
    state: Arc<Mutex<State>>,
}

/// What becomes of a change.
enum Fate {
    Done,
    /// Half of it, and the process is dead.
    Half,
}

impl PowerDisk {
    /// The disk under a folder, of which everything is durable.
    ///
    /// # Panics
    /// If the folder can't be read.
    pub fn new(root: &Path, stream: Stream, lie: Lie) -> Self {
        let model = Model::of_folder(root);
        let state = State {
            next: model.next_inode(),
            model,
            stream,
            lie,
            full: false,
            copies_on_write: false,
            fails_next_sync: false,
            changes_left: None,
            dead: false,
            met: Met::default(),
        };
        Self { root: root.into(), state: Arc::new(Mutex::new(state)) }
    }

    /// Whether the bytes from `at` on of a file are there after a power cut now.
    pub fn is_durable(&self, path: &Path, at: usize, bytes: &[u8]) -> bool {
        let state = lock(&self.state);
        let durable = state.model.durable(&self.name(path));
        durable.and_then(|durable| durable.get(at..at + bytes.len())) == Some(bytes)
    }

    /// There is no room from now on, or there is again.
    pub fn set_full(&self, full: bool, copies_on_write: bool) {
        let mut state = lock(&self.state);
        (state.full, state.copies_on_write) = (full, copies_on_write);
    }

    /// The next sync of a segment fails, or none does any more.
    pub fn set_fails_next_sync(&self, fails: bool) {
        lock(&self.state).fails_next_sync = fails;
    }

    /// The process dies in this many changes, counted from 1, and what it does after is not done;
    /// or it does not die after all.
    pub fn die_after(&self, changes: Option<u64>) {
        lock(&self.state).changes_left = changes;
    }

    /// Whether it died.
    pub fn is_dead(&self) -> bool {
        lock(&self.state).dead
    }

    /// What was met since the last call.
    pub fn take_met(&self) -> Met {
        std::mem::take(&mut lock(&self.state).met)
    }

    /// The process ended: what it wrote stays.
    pub fn end_process(&self) {
        let mut state = lock(&self.state);
        (state.dead, state.changes_left, state.fails_next_sync) = (false, None, false);
        state.model.forget_nameless();
    }

    /// The power fails, after the process ended: some of what was not synced is lost.
    ///
    /// # Panics
    /// If the folder can't be written.
    pub fn cut_power(&self) {
        self.end_process();
        let mut state = lock(&self.state);
        let State { model, stream, .. } = &mut *state;
        remove_files(&self.root);
        with_luck(stream, |luck| model.power_cut(&self.root, luck));
        *model = Model::of_folder(&self.root);
        state.next = state.model.next_inode();
    }

    /// Changes bytes of a file, on the disk and in memory.
    ///
    /// # Panics
    /// If there are no such bytes.
    pub fn damage(&self, path: &Path, from: usize, to: usize) {
        let mut state = lock(&self.state);
        let file = fs::OpenOptions::new().read(true).write(true).open(path);
        let file = file.expect("what is damaged is there");
        let mut bytes = vec![0; to - from];
        file.read_exact_at(&mut bytes, from as u64).expect("what is damaged is there");
        for (at, byte) in (from..to).zip(&mut bytes) {
            let by = 1 + state.stream.below(255) as u8; // fits: below 256
            *byte ^= by;
            state.model.damage(&self.name(path), at, by);
        }
        file.write_all_at(&bytes, from as u64).expect("what is damaged is there");
    }

    fn name(&self, path: &Path) -> PathBuf {
        path.strip_prefix(&self.root).expect("only files of the folder are asked for").into()
    }

    fn wrap(
        &self,
        path: &Path,
        inode: Inode,
        found: bool,
        inner: Arc<dyn DiskFile>,
    ) -> Arc<dyn DiskFile> {
        // A segment is made under another name, with this one before its end.
        let name = path.to_string_lossy();
        let is_segment = name.trim_end_matches(".tmp").ends_with(SEGMENT);
        let state = Arc::clone(&self.state);
        Arc::new(PowerFile { inode, is_segment, found, inner, state })
    }
}

impl State {
    /// Counts a change; what becomes of it.
    fn change(&mut self) -> io::Result<Fate> {
        self.live()?;
        match &mut self.changes_left {
            Some(left) if *left <= 1 => {
                self.dead = true;
                Ok(Fate::Half)
            }
            Some(left) => {
                *left -= 1;
                Ok(Fate::Done)
            }
            None => Ok(Fate::Done),
        }
    }

    /// A change that has no half.
    fn change_at_once(&mut self) -> io::Result<()> {
        match self.change()? {
            Fate::Done => Ok(()),
            Fate::Half => Err(broken()),
        }
    }

    fn live(&self) -> io::Result<()> {
        if self.dead { Err(broken()) } else { Ok(()) }
    }

    fn find_room(&mut self, grows: bool) -> io::Result<()> {
        if self.full && (grows || self.copies_on_write) {
            self.met.full = true;
            return Err(io::Error::from_raw_os_error(libc::ENOSPC));
        }
        Ok(())
    }
}

impl Disk for PowerDisk {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = lock(&self.state);
        state.change_at_once()?;
        let inner = QuickDisk.create(path)?;
        // One that is there is emptied: to the model, another file that takes its name.
        let inode = state.next;
        state.next += 1;
        state.model.apply(&Op::Create { name: self.name(path), inode });
        Ok(self.wrap(path, inode, false, inner))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let state = lock(&self.state);
        state.live()?;
        let inner = QuickDisk.open(path)?;
        let inode = state.model.find(&self.name(path)).expect("it was made or found");
        Ok(self.wrap(path, inode, true, inner))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = lock(&self.state);
        state.change_at_once()?;
        QuickDisk.rename(from, to)?;
        state.model.apply(&Op::Rename { from: self.name(from), to: self.name(to) });
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = lock(&self.state);
        state.change_at_once()?;
        QuickDisk.remove(path)?;
        state.model.apply(&Op::Remove { name: self.name(path) });
        Ok(())
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = lock(&self.state);
        state.change_at_once()?;
        // The folder around the data folder is not in the model.
        if state.lie != Lie::NamesSkipped && path.starts_with(&self.root) {
            state.model.apply(&Op::SyncDir { dir: self.name(path) });
        }
        Ok(())
    }

    fn space(&self, _: &Path) -> io::Result<Space> {
        let mut state = lock(&self.state);
        state.live()?;
        if state.full {
            state.met.full = true;
            return Ok(Space { free: 0, ..ROOMY });
        }
        Ok(ROOMY)
    }
}

impl PowerFile {
    fn set_bytes(&self, len: u64, set: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let mut state = lock(&self.state);
        state.change_at_once()?;
        let grows = len > self.inner.bytes()?;
        if grows {
            state.find_room(grows)?;
        }
        set()?;
        state.model.apply(&Op::Len { inode: self.inode, len: len as usize });
        Ok(())
    }
}

impl DiskFile for PowerFile {
    fn bytes(&self) -> io::Result<u64> {
        self.inner.bytes()
    }

    fn write_at(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        let mut state = lock(&self.state);
        let fate = state.change()?;
        let grows = at + bytes.len() as u64 > self.inner.bytes()?;
        state.find_room(grows)?;
        let (bytes, result) = match fate {
            Fate::Done => (bytes, Ok(())),
            Fate::Half => (&bytes[..bytes.len() / 2], Err(broken())),
        };
        self.inner.write_at(at, bytes)?;
        let (inode, at) = (self.inode, at as usize);
        state.model.apply(&Op::Write { inode, at, bytes: bytes.to_vec() });
        result
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = lock(&self.state);
        state.change_at_once()?;
        let skipped = match state.lie {
            Lie::SyncsSkipped => self.is_segment,
            Lie::FoundNotSynced => self.is_segment && self.found,
            _ => false,
        };
        if self.is_segment && std::mem::take(&mut state.fails_next_sync) {
            state.met.failed_sync = true;
            let State { model, stream, .. } = &mut *state;
            with_luck(stream, |luck| model.fail_sync(self.inode, luck));
            return if state.lie == Lie::SyncsRetried { Ok(()) } else { Err(broken()) };
        }
        if !skipped {
            state.model.apply(&Op::Sync { inode: self.inode });
        }
        Ok(())
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.set_bytes(len, || self.inner.allocate(len))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.set_bytes(len, || self.inner.set_len(len))
    }

    fn handle(&self) -> &File {
        self.inner.handle()
    }
}

/// Draws how lucky the unsynced is, and lets it be.
fn with_luck(stream: &mut Stream, act: impl FnOnce(&mut Luck<'_>)) {
    let piece = stream.pick(&PIECES).expect("there are some");
    let in_order = stream.percent(50);
    // Nothing arrives, everything does, or some of it.
    let percent = match stream.below(3) {
        0 => 0,
        1 => 100,
        _ => stream.between(10, 90),
    };
    act(&mut Luck { piece, in_order, arrives: &mut || stream.percent(percent) });
}

/// Removes all files below a folder, for those that come in their place.
fn remove_files(dir: &Path) {
    for entry in fs::read_dir(dir).expect("the folder can be read") {
        let path = entry.expect("the folder can be read").path();
        if path.is_dir() {
            remove_files(&path);
        } else {
            fs::remove_file(&path).expect("the file can be removed");
        }
    }
}

fn broken() -> io::Error {
    io::Error::from_raw_os_error(libc::EIO)
}

/// A panic elsewhere has left it whole.
fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rig(lie: Lie) -> (tempfile::TempDir, PowerDisk) {
        let dir = tempfile::tempdir().unwrap();
        let disk = PowerDisk::new(dir.path(), Stream::of(1, "disk"), lie);
        (dir, disk)
    }

    fn write(disk: &PowerDisk, path: &Path, bytes: &[u8]) -> Arc<dyn DiskFile> {
        let file = disk.create(path).unwrap();
        file.write_at(0, bytes).unwrap();
        file.sync().unwrap();
        disk.sync_dir(path.parent().unwrap()).unwrap();
        file
    }

    #[test]
    fn what_was_synced_stays_and_nothing_else_has_to() {
        let (dir, disk) = rig(Lie::None);
        let (kept, mut gone) = (dir.path().join("1.seg"), 0);
        for round in 0..50 {
            let lost = dir.path().join(format!("{round}.tmp"));
            let file = write(&disk, &kept, b"kept");
            file.write_at(4, b"later").unwrap();
            disk.create(&lost).unwrap();
            assert!(disk.is_durable(&kept, 0, b"kept") && !disk.is_durable(&kept, 4, b"later"));
            disk.cut_power();
            assert_eq!(&fs::read(&kept).unwrap()[..4], b"kept");
            gone += u32::from(!lost.exists());
        }
        assert!((1..50).contains(&gone), "{gone} of 50 names were lost");
    }

    #[test]
    fn what_a_failed_sync_lost_no_later_one_brings_back() {
        let mut lost = 0;
        for seed in 0..40 {
            let dir = tempfile::tempdir().unwrap();
            let disk = PowerDisk::new(dir.path(), Stream::of(seed, "disk"), Lie::None);
            let path = dir.path().join("1.seg");
            let file = write(&disk, &path, b"....");
            file.write_at(0, b"new.").unwrap();
            disk.set_fails_next_sync(true);
            assert!(file.sync().is_err() && disk.take_met().failed_sync);
            assert_eq!(fs::read(&path).unwrap(), b"new.", "the page cache has it");
            file.sync().unwrap();
            lost += u32::from(!disk.is_durable(&path, 0, b"new."));
            file.write_at(0, b"new.").unwrap();
            file.sync().unwrap();
            assert!(disk.is_durable(&path, 0, b"new."), "written again, it is");
        }
        assert!((1..40).contains(&lost), "{lost} of 40");
    }

    #[test]
    fn a_dead_process_does_nothing_more() {
        let (dir, disk) = rig(Lie::None);
        let path = dir.path().join("1.seg");
        let file = write(&disk, &path, b"before..");
        disk.die_after(Some(2));
        file.sync().unwrap();
        assert!(file.write_at(0, b"AFTER...").is_err() && disk.is_dead());
        assert!(file.sync().is_err() && disk.create(&dir.path().join("2.seg")).is_err());
        assert_eq!(fs::read(&path).unwrap(), b"AFTEre..", "half of the last write");
        disk.end_process();
        assert!(disk.open(&path).is_ok());
    }

    #[test]
    fn lies_lose() {
        for lie in [Lie::SyncsSkipped, Lie::NamesSkipped, Lie::FoundNotSynced] {
            let (dir, disk) = rig(lie);
            let path = dir.path().join("1.seg");
            write(&disk, &path, b"first");
            let again = disk.open(&path).unwrap();
            again.write_at(0, b"again").unwrap();
            again.sync().unwrap();
            assert!(!disk.is_durable(&path, 0, b"again"), "{lie:?}");
        }
    }

    #[test]
    fn a_full_disk_has_room_for_what_was_allocated() {
        let (dir, disk) = rig(Lie::None);
        let file = disk.create(&dir.path().join("1.seg")).unwrap();
        file.allocate(100).unwrap();
        disk.set_full(true, false);
        assert!(file.write_at(0, &[1; 100]).is_ok() && file.write_at(1, &[1; 100]).is_err());
        assert!(file.allocate(200).is_err() && disk.take_met().full);
        disk.set_full(true, true);
        assert!(file.write_at(0, &[2; 100]).is_err(), "it copies what it writes");
    }
}
