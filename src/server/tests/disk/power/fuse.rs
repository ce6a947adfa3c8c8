//! The disk that forgets, mounted for the real binary by FUSE; and the plug: the power goes at a
//! step that was agreed on, or when the test says so.
//!
//! When it goes at a step, the process that asked for the step is killed before it gets an
//! answer, so it never learns of the cut. From then on everything fails until the disk is mounted
//! again, by [`Plug::restart`], as what was kept of it.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, UNIX_EPOCH};

use fuser::{
    BackgroundSession, BsdFileFlags, Config, Errno, FileAttr, FileHandle, FileType, Filesystem,
    FopenFlags, Generation, INodeNo, LockOwner, MountOption, OpenFlags, RenameFlags, ReplyAttr,
    ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyStatfs, ReplyWrite,
    Request, TimeOrNow, WriteFlags,
};
use rustix::process::{Pid, Signal, getgid, getuid, kill_process};

use super::node::{Destroyed, Node};
use super::volatile::{ROOT, Volatile};
use crate::support::random::Random;

/// Names and attributes are asked for each time; nothing is gained by remembering them.
const TTL: Duration = Duration::ZERO;

/// Bytes of a block in what the disk tells of its room.
const BLOCK_BYTES: u64 = 4096;

/// Bytes that the disk says it has: far more than any test writes.
const DISK_BYTES: u64 = 4 << 30;

/// Kinds of steps at which the power can go.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Step {
    /// Bytes are written.
    Write,
    /// A file gets another length.
    Length,
    /// A file is synced.
    Sync,
    /// A name is made, changed or removed.
    Name,
    /// A folder is synced.
    Names,
}

/// The disk and its power.
struct State {
    disk: Volatile,
    powered: bool,
    /// The power goes at the n-th step, of this kind or of any.
    goes_at: Option<(Option<Step>, u32)>,
    /// The step at which it went.
    went_at: Option<Step>,
    /// The next sync of a file in the folder of this name fails.
    fails_in: Option<OsString>,
}

impl State {
    /// Whether the power goes at this step.
    fn goes(&mut self, step: Step) -> bool {
        let Some((wanted, left)) = &mut self.goes_at else { return false };
        if wanted.is_some_and(|wanted| wanted != step) {
            return false;
        }
        *left -= 1;
        *left == 0
    }

    /// Whether this sync fails.
    fn fails(&mut self, file: u64) -> bool {
        let Some(name) = &self.fails_in else { return false };
        let folder = self.disk.find(ROOT, name).and_then(|folder| self.disk.names(folder));
        let fails = folder.is_ok_and(|names| names.values().any(|number| *number == file));
        if fails {
            self.fails_in = None;
        }
        fails
    }
}

/// What the kernel talks to.
struct Mounted(Arc<Mutex<State>>);

/// The mounted disk in the hands of a test; unmounted when it is dropped.
pub struct Plug {
    state: Arc<Mutex<State>>,
    place: PathBuf,
    session: Option<BackgroundSession>,
}

impl Plug {
    /// Mounts an empty disk; why not, where that is not possible.
    pub fn new(place: &Path) -> Result<Self, String> {
        std::fs::create_dir_all(place).unwrap();
        let state = State {
            disk: Volatile::new(),
            powered: true,
            goes_at: None,
            went_at: None,
            fails_in: None,
        };
        let (state, place) = (Arc::new(Mutex::new(state)), place.to_owned());
        let mut plug = Self { state, place, session: None };
        plug.mount().map(|()| plug)
    }

    fn mount(&mut self) -> Result<(), String> {
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("tern-test".into())];
        let mounted = Mounted(Arc::clone(&self.state));
        let session = fuser::spawn_mount(mounted, &self.place, &config);
        self.session = Some(session.map_err(|why| format!("FUSE can't be mounted: {why}"))?);
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// From now on syncs are believed and not done.
    pub fn lie(&self) {
        self.state().disk.lies = true;
    }

    /// The next sync of a file in a folder fails, once.
    pub fn fail_sync_in(&self, folder: &str) {
        self.state().fails_in = Some(folder.into());
    }

    /// The power will go at the n-th step from now on, of a kind or of any.
    pub fn go_at(&self, step: Option<Step>, n: u32) {
        assert!(n > 0, "steps count from 1");
        self.state().goes_at = Some((step, n));
    }

    /// The power does not go any more by itself, if it did not yet.
    pub fn stay_on(&self) {
        self.state().goes_at = None;
    }

    /// Whether the power went.
    pub fn is_off(&self) -> bool {
        !self.state().powered
    }

    /// The power goes, and comes again; nobody uses the disk any more. What the cut destroyed,
    /// and the step at which it came, if it came at one.
    pub fn restart(&mut self, random: &mut Random) -> (Destroyed, Option<Step>) {
        self.state().powered = false;
        let session = self.session.take().expect("it is mounted until it is dropped");
        unmount(&self.place);
        // It ends with the last file that a dying process has open.
        session.join().expect("it only answers");
        let (destroyed, step) = {
            let mut state = self.state();
            state.powered = true;
            state.goes_at = None;
            (state.disk.cut(random), state.went_at.take())
        };
        self.mount().expect("it was mounted before");
        (destroyed, step)
    }
}

impl Drop for Plug {
    fn drop(&mut self) {
        if self.session.is_some() {
            unmount(&self.place);
        }
    }
}

/// Takes the mount away at once, whoever still uses it: by root, else by the tool of FUSE.
fn unmount(place: &Path) {
    let ways: [(&str, &[&str]); 2] = [("umount", &["-l"]), ("fusermount3", &["-u", "-z"])];
    let gone = ways.iter().any(|(tool, flags)| {
        let output = Command::new(tool).args(*flags).arg(place).output();
        output.is_ok_and(|output| output.status.success())
    });
    assert!(gone || std::thread::panicking(), "{} can't be unmounted", place.display());
}

impl Mounted {
    /// A call that changes nothing.
    fn look<T>(&self, look: impl FnOnce(&Volatile) -> Result<T, Errno>) -> Result<T, Errno> {
        let state = self.0.lock().unwrap();
        if state.powered { look(&state.disk) } else { Err(Errno::EIO) }
    }

    /// A step. At the one at which the power goes a change is under way, and a sync is not done.
    fn step<T>(
        &self,
        by: &Request,
        step: Step,
        change: impl FnOnce(&mut State) -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        let mut state = self.0.lock().unwrap();
        if !state.powered {
            return Err(Errno::EIO);
        }
        if !state.goes(step) {
            return change(&mut state);
        }
        if !matches!(step, Step::Sync | Step::Names) {
            // Whether it would have worked is never told.
            let _ = change(&mut state);
        }
        state.powered = false;
        state.went_at = Some(step);
        let process = i32::try_from(by.pid()).ok().and_then(Pid::from_raw);
        kill_process(process.expect("a process asked for it"), Signal::KILL).unwrap();
        Err(Errno::EIO)
    }
}

/// What is told of a file or folder.
fn attributes(disk: &Volatile, number: u64) -> Result<FileAttr, Errno> {
    let node = disk.node(number)?;
    let kind = match node {
        Node::File { .. } => FileType::RegularFile,
        Node::Folder { .. } => FileType::Directory,
    };
    let size = node.len() as u64;
    Ok(FileAttr {
        ino: INodeNo(number),
        size,
        blocks: size.div_ceil(512),
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind,
        perm: 0o700,
        nlink: 1,
        uid: getuid().as_raw(),
        gid: getgid().as_raw(),
        rdev: 0,
        blksize: BLOCK_BYTES as u32,
        flags: 0,
    })
}

/// Makes a file or folder, and tells of it.
fn make(disk: &mut Volatile, folder: INodeNo, name: &OsStr, node: Node) -> Result<FileAttr, Errno> {
    let number = disk.make(folder.0, name, node)?;
    attributes(disk, number)
}

fn done(result: Result<(), Errno>, reply: ReplyEmpty) {
    match result {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(error),
    }
}

fn entry(result: Result<FileAttr, Errno>, reply: ReplyEntry) {
    match result {
        Ok(attributes) => reply.entry(&TTL, &attributes, Generation(0)),
        Err(error) => reply.error(error),
    }
}

fn told(result: Result<FileAttr, Errno>, reply: ReplyAttr) {
    match result {
        Ok(attributes) => reply.attr(&TTL, &attributes),
        Err(error) => reply.error(error),
    }
}

impl Filesystem for Mounted {
    fn lookup(&self, _by: &Request, folder: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let found = self.look(|disk| attributes(disk, disk.find(folder.0, name)?));
        entry(found, reply);
    }

    fn getattr(&self, _by: &Request, node: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        told(self.look(|disk| attributes(disk, node.0)), reply);
    }

    fn setattr(
        &self,
        by: &Request,
        node: INodeNo,
        _mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<std::time::SystemTime>,
        _fh: Option<FileHandle>,
        _crtime: Option<std::time::SystemTime>,
        _chgtime: Option<std::time::SystemTime>,
        _bkuptime: Option<std::time::SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let result = match size {
            None => self.look(|disk| attributes(disk, node.0)),
            Some(size) => self.step(by, Step::Length, |state| {
                state.disk.set_len(node.0, size as usize)?;
                attributes(&state.disk, node.0)
            }),
        };
        told(result, reply);
    }

    fn mkdir(
        &self,
        by: &Request,
        folder: INodeNo,
        name: &OsStr,
        _mode: u32,
        _umask: u32,
        reply: ReplyEntry,
    ) {
        let make = |state: &mut State| make(&mut state.disk, folder, name, Node::folder());
        entry(self.step(by, Step::Name, make), reply);
    }

    fn unlink(&self, by: &Request, folder: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        done(self.step(by, Step::Name, |state| state.disk.remove(folder.0, name)), reply);
    }

    fn rmdir(&self, by: &Request, folder: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.unlink(by, folder, name, reply);
    }

    fn rename(
        &self,
        by: &Request,
        folder: INodeNo,
        name: &OsStr,
        to_folder: INodeNo,
        to: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let replace = !flags.contains(RenameFlags::RENAME_NOREPLACE);
        let result = if folder != to_folder {
            Err(Errno::EXDEV)
        } else if !flags.difference(RenameFlags::RENAME_NOREPLACE).is_empty() {
            Err(Errno::EINVAL)
        } else {
            self.step(by, Step::Name, |state| state.disk.rename(folder.0, name, to, replace))
        };
        done(result, reply);
    }

    fn read(
        &self,
        _by: &Request,
        file: INodeNo,
        _fh: FileHandle,
        at: u64,
        size: u32,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let bytes = self.look(|disk| Ok(disk.read(file.0, at as usize, size as usize)?.to_vec()));
        match bytes {
            Ok(bytes) => reply.data(&bytes),
            Err(error) => reply.error(error),
        }
    }

    fn write(
        &self,
        by: &Request,
        file: INodeNo,
        _fh: FileHandle,
        at: u64,
        bytes: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        match self.step(by, Step::Write, |state| state.disk.write(file.0, at as usize, bytes)) {
            Ok(()) => reply.written(bytes.len() as u32),
            Err(error) => reply.error(error),
        }
    }

    fn fsync(&self, by: &Request, file: INodeNo, _fh: FileHandle, _data: bool, reply: ReplyEmpty) {
        let sync = |state: &mut State| {
            if state.fails(file.0) {
                state.disk.fail_sync(file.0)?;
                return Err(Errno::EIO);
            }
            state.disk.sync(file.0)
        };
        done(self.step(by, Step::Sync, sync), reply);
    }

    fn readdir(
        &self,
        _by: &Request,
        folder: INodeNo,
        _fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let listed = self.look(|disk| {
            let names = disk.names(folder.0)?.iter();
            names.map(|(name, number)| Ok((name.clone(), attributes(disk, *number)?))).collect()
        });
        let listed: Vec<(OsString, FileAttr)> = match listed {
            Ok(listed) => listed,
            Err(error) => return reply.error(error),
        };
        let rest = listed.into_iter().enumerate().skip(offset as usize);
        for (place, (name, FileAttr { ino, kind, .. })) in rest {
            if reply.add(ino, place as u64 + 1, kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn fsyncdir(
        &self,
        by: &Request,
        folder: INodeNo,
        _fh: FileHandle,
        _data: bool,
        reply: ReplyEmpty,
    ) {
        done(self.step(by, Step::Names, |state| state.disk.sync(folder.0)), reply);
    }

    fn statfs(&self, _by: &Request, _node: INodeNo, reply: ReplyStatfs) {
        let used = match self.look(|disk| Ok(disk.bytes())) {
            Ok(used) => used,
            Err(error) => return reply.error(error),
        };
        let blocks = DISK_BYTES / BLOCK_BYTES;
        let free = blocks.saturating_sub(used.div_ceil(BLOCK_BYTES));
        let (size, name_bytes) = (BLOCK_BYTES as u32, 255);
        reply.statfs(blocks, free, free, blocks, free, size, name_bytes, size);
    }

    fn create(
        &self,
        by: &Request,
        folder: INodeNo,
        name: &OsStr,
        _mode: u32,
        _umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        let make = |state: &mut State| make(&mut state.disk, folder, name, Node::file());
        match self.step(by, Step::Name, make) {
            Ok(made) => {
                reply.created(&TTL, &made, Generation(0), FileHandle(0), FopenFlags::empty());
            }
            Err(error) => reply.error(error),
        }
    }

    fn fallocate(
        &self,
        by: &Request,
        file: INodeNo,
        _fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let result = if mode == 0 {
            self.step(by, Step::Length, |state| {
                state.disk.allocate(file.0, (offset + length) as usize)
            })
        } else {
            Err(Errno::EOPNOTSUPP)
        };
        done(result, reply);
    }
}
