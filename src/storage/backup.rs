//! Backup and restore of the logs: a consistent copy while they run, and what makes a restored
//! folder begin a new life.
//!
//! A [`LogSnapshot`] is taken in a moment: of each shard, what is proven durable, with its files
//! held open, so that retention may delete their names meanwhile. Files are copied by reading
//! calls: a bad sector is an error, and no page of a running log is touched. What is behind the
//! proven end is not copied; the rest of the file is zeros, as it was when the segment was made.
//!
//! Shards are cut at slightly different moments, as a crash could have cut them: whatever one of
//! them has not yet heard of another is exchanged again at the next start.
//!
//! The logs of a restored copy have forgotten acks and pushes that were made after the backup. A
//! file named [`RESTORED_FILE`] in each shard's folder says so; recovery raises the incarnation
//! for it, and takes it away once a segment that carries the raised one is durable.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use ring::digest::{Context, SHA256};
use rustix::fs::Advice;

use crate::disk::{Disk, DiskFile, RealDisk};
use crate::error::{FolderError, IoError, Naming, RecoverError};
use crate::folder::{FOLDER_FILE, Folder};
use crate::format::{BODY_BYTES_MAX, Content};
use crate::header::SEGMENT_HEADER_BYTES;
use crate::inspect::{self, Decoder};
use crate::recovery::scan::files;
use crate::segment::{SEGMENT_SUFFIX, Segment, UNFINISHED_SUFFIX, segment_number};
use crate::shared::ShardShared;

/// Name of the file in a shard's folder that says that the shard was restored from a backup.
pub const RESTORED_FILE: &str = "restored";

/// Files of the data folder beside the shards' own that belong to the logs, if they are there.
const FOLDER_FILES: [&str; 2] = [FOLDER_FILE, "clock"];

/// Bytes copied, and synced, at once: a sync of the log on the same disk waits for no more.
const STEP_BYTES: usize = 4 * 1024 * 1024;

/// Bytes of what is written or left out as zeros: the block of most file systems.
const BLOCK_BYTES: usize = 4096;

/// Most lives that one restored log skips: epochs follow from incarnations and have room for 4,096
/// of them.
const LIVES_MAX: u32 = 1_000;

/// How often a snapshot is begun again because checkpoints came or went meanwhile: they do so
/// once in minutes, and a try takes some milliseconds.
const TRIES_MAX: u32 = 100;

/// SHA-256 of a file's copied bytes.
pub type Sha256 = [u8; 32];

/// Is told the bytes of each step; says whether to go on.
pub type Told<'a> = &'a mut dyn FnMut(u64) -> bool;

/// The logs of a data folder at one moment.
#[derive(Debug)]
pub struct LogSnapshot {
    files: Vec<SnapshotFile>,
}

/// One file of a snapshot.
#[derive(Debug)]
pub struct SnapshotFile {
    /// Its name below the data folder.
    pub name: PathBuf,
    /// Bytes that are copied.
    pub bytes: u64,
    /// Length of the copy: what is behind the copied bytes is zeros.
    pub len: u64,
    source: File,
}

/// What the records of a copied segment say.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SegmentCheck {
    /// Records with a good checksum.
    pub records: u64,
    /// What is damaged in it, if something is; the copy is no worse than what was copied.
    pub damage: Option<String>,
}

/// Why a copy can't be made.
#[derive(Debug)]
pub enum CopyError {
    /// The file system refused.
    Io(IoError),
    /// The caller said stop.
    Stopped,
}

impl From<IoError> for CopyError {
    fn from(error: IoError) -> Self {
        Self::Io(error)
    }
}

impl std::fmt::Display for CopyError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Io(error) => error.fmt(f),
            Self::Stopped => f.write_str("the copy was stopped"),
        }
    }
}

impl std::error::Error for CopyError {}

impl LogSnapshot {
    /// Of a folder whose logs are closed.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn of_closed(folder: &Folder) -> Result<Self, IoError> {
        let mut taken = Self::of_folder(folder)?;
        for shard in folder.shard_ids() {
            let dir = folder.shard_dir(shard);
            for path in files(&dir)?.into_iter().filter(|path| segment_number(path).is_some()) {
                taken.add(folder, &path, u64::MAX)?;
            }
            for path in others(&dir)? {
                taken.add(folder, &path, u64::MAX)?;
            }
        }
        Ok(taken)
    }

    /// Of a folder whose logs run.
    pub(crate) fn of_running<'a>(
        folder: &Folder,
        shards: impl Iterator<Item = &'a ShardShared>,
    ) -> Result<Self, IoError> {
        let mut taken = Self::of_folder(folder)?;
        for shard in shards {
            let mut tries = 0;
            while !taken.add_running(folder, shard)? {
                tries += 1;
                if tries == TRIES_MAX {
                    let what = "copy, since its checkpoints keep changing,";
                    let source = io::ErrorKind::ResourceBusy.into();
                    return Err(IoError { what, path: shard.dir.clone(), source });
                }
            }
        }
        Ok(taken)
    }

    /// All files, in the order in which they are best copied.
    pub fn files(&self) -> &[SnapshotFile] {
        &self.files
    }

    /// Bytes that are copied.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }

    fn of_folder(folder: &Folder) -> Result<Self, IoError> {
        let mut taken = Self { files: Vec::new() };
        for name in FOLDER_FILES {
            let path = folder.path().join(name);
            if path.try_exists().naming("look for", &path)? {
                taken.add(folder, &path, u64::MAX)?;
            }
        }
        Ok(taken)
    }

    /// Adds a shard's files; `false`, and nothing, if its checkpoints changed meanwhile. In this
    /// order, since a checkpoint covers only what was proven when it was made, and segments go
    /// only after a checkpoint without them came.
    fn add_running(&mut self, folder: &Folder, shard: &ShardShared) -> Result<bool, IoError> {
        let before = self.files.len();
        let checkpoints = others(&shard.dir)?;
        let whole = checkpoints.iter().map(|path| (path.clone(), u64::MAX));
        let (proven, segments) = (shard.proven(), shard.segments.load_full());
        let until = |segment: &Segment| {
            let end = proven.saturating_sub(segment.header.base);
            end.max(SEGMENT_HEADER_BYTES as u64)
        };
        let settled = segments.0.iter().map(|segment| (segment.path.clone(), until(segment)));
        for (path, end) in whole.chain(settled) {
            match self.add(folder, &path, end) {
                Ok(()) => {}
                Err(error) if error.source.kind() == io::ErrorKind::NotFound => {
                    self.files.truncate(before);
                    return Ok(false);
                }
                Err(error) => return Err(error),
            }
        }
        let changed = others(&shard.dir)? != checkpoints;
        if changed {
            self.files.truncate(before);
        }
        Ok(!changed)
    }

    /// Adds a file that nobody writes to, up to `end`.
    fn add(&mut self, folder: &Folder, path: &Path, end: u64) -> Result<(), IoError> {
        let source = File::open(path).naming("open", path)?;
        let len = source.metadata().naming("read", path)?.len();
        let name = below(folder, path);
        self.files.push(SnapshotFile { name, bytes: len.min(end), len, source });
        Ok(())
    }
}

/// The name of a file below its data folder.
fn below(folder: &Folder, path: &Path) -> PathBuf {
    path.strip_prefix(folder.path()).expect("it was found below the folder").to_owned()
}

/// What a shard's folder has beside segments, sorted: checkpoints, accepted losses, the word that
/// it was restored.
fn others(dir: &Path) -> Result<Vec<PathBuf>, IoError> {
    let is_other = |path: &PathBuf| {
        let name = path.to_string_lossy();
        !name.ends_with(SEGMENT_SUFFIX) && !name.ends_with(UNFINISHED_SUFFIX)
    };
    let mut others: Vec<PathBuf> = files(dir)?.into_iter().filter(is_other).collect();
    others.sort();
    Ok(others)
}

impl SnapshotFile {
    /// Copies it to `to`, which must not be there, and makes it durable.
    ///
    /// # Errors
    /// When the file system refuses, or the caller said stop.
    pub fn copy(&self, to: &Path, told: Told<'_>) -> Result<Sha256, CopyError> {
        copy(&self.source, &self.name, self.bytes, self.len, to, told)
    }
}

/// Copies the first `bytes` of a file into a new one of `len` bytes and makes it durable; blocks
/// of zeros take no room. `name` is for errors.
///
/// # Errors
/// When the file system refuses, or the caller said stop.
pub fn copy(
    source: &File,
    name: &Path,
    bytes: u64,
    len: u64,
    to: &Path,
    told: Told<'_>,
) -> Result<Sha256, CopyError> {
    if to.try_exists().naming("look for", to)? {
        let source = io::ErrorKind::AlreadyExists.into();
        return Err(IoError { what: "make", path: to.into(), source }.into());
    }
    let target = RealDisk.create(to).naming("make", to)?;
    let digest = read_steps(source, name, bytes, told, |at, step| {
        write_sparse(&*target, at, step).naming("write", to)?;
        target.sync().naming("sync", to)
    })?;
    target.set_len(len).naming("write", to)?;
    target.sync().naming("sync", to)?;
    Ok(digest)
}

/// SHA-256 of the first `bytes` of a file, read from the disk, not from memory.
///
/// # Errors
/// When the file system refuses, or the caller said stop.
pub fn digest(path: &Path, bytes: u64, told: Told<'_>) -> Result<Sha256, CopyError> {
    let file = File::open(path).naming("open", path)?;
    // A file system that can't forget gives what it has.
    let _ = rustix::fs::fadvise(&file, 0, None, Advice::DontNeed);
    read_steps(&file, path, bytes, told, |_, _| Ok(()))
}

fn read_steps(
    source: &File,
    name: &Path,
    bytes: u64,
    told: Told<'_>,
    mut each: impl FnMut(u64, &[u8]) -> Result<(), IoError>,
) -> Result<Sha256, CopyError> {
    let mut sha = Context::new(&SHA256);
    let mut buffer = vec![0; STEP_BYTES];
    let mut at = 0;
    while at < bytes {
        let len = (bytes - at).min(STEP_BYTES as u64);
        let step = &mut buffer[..len as usize]; // fits: no more than the buffer
        source.read_exact_at(step, at).naming("read", name)?;
        sha.update(step);
        each(at, step)?;
        at += len;
        if !told(len) {
            return Err(CopyError::Stopped);
        }
    }
    // Copied once and not needed again: the memory is better used for what clients read.
    let _ = rustix::fs::fadvise(source, 0, None, Advice::DontNeed);
    Ok(sha.finish().as_ref().try_into().expect("SHA-256 has 32 bytes"))
}

/// Writes what is not zeros.
fn write_sparse(target: &dyn DiskFile, at: u64, bytes: &[u8]) -> io::Result<()> {
    let mut place = 0;
    let is_zeros = |block: &[u8]| block.iter().all(|byte| *byte == 0);
    while place < bytes.len() {
        let mut blocks = bytes[place..].chunks(BLOCK_BYTES);
        let zeros: usize =
            blocks.by_ref().take_while(|block| is_zeros(block)).map(<[u8]>::len).sum();
        let data: usize = bytes[place + zeros..]
            .chunks(BLOCK_BYTES)
            .take_while(|block| !is_zeros(block))
            .map(<[u8]>::len)
            .sum();
        let from = place + zeros;
        if data > 0 {
            target.write_at(at + from as u64, &bytes[from..from + data])?;
        }
        place = from + data;
    }
    Ok(())
}

/// Reads every record of a copied segment.
///
/// # Errors
/// When it can't be read.
pub fn check_segment(path: &Path) -> Result<SegmentCheck, IoError> {
    let file = File::open(path).naming("open", path)?;
    let len = file.metadata().naming("read", path)?.len();
    let mut window = Window { file: &file, path, len, at: 0, bytes: Vec::new() };
    let decoder = match Decoder::new(path, window.reach(0)?) {
        Ok(decoder) => decoder,
        Err(error) => return Ok(SegmentCheck { records: 0, damage: Some(error.to_string()) }),
    };
    let (mut place, mut records) = (SEGMENT_HEADER_BYTES as u64, 0);
    loop {
        let rest = window.reach(place)?;
        match decoder.record(decoder.header.base + place, rest) {
            Ok((bytes, content)) => {
                records += u64::from(matches!(content, Content::Record(_)));
                place += bytes as u64;
            }
            Err(inspect::Bad::Empty) => break,
            Err(bad) => {
                let at = decoder.header.base + place;
                let what = format!("{}: a bad record at offset {at}: {bad:?}", path.display());
                return Ok(SegmentCheck { records, damage: Some(what) });
            }
        }
    }
    Ok(SegmentCheck { records, damage: None })
}

/// A file, seen through memory that moves along it.
struct Window<'a> {
    file: &'a File,
    path: &'a Path,
    len: u64,
    at: u64,
    bytes: Vec<u8>,
}

impl Window<'_> {
    /// The bytes at a place: those of the longest record, if the file has so many.
    fn reach(&mut self, place: u64) -> Result<&[u8], IoError> {
        let need = (place + 2 * BODY_BYTES_MAX as u64).min(self.len);
        if need > self.at + self.bytes.len() as u64 || place < self.at {
            let len = self.len.saturating_sub(place).min(STEP_BYTES as u64);
            self.bytes.resize(len as usize, 0); // fits: no more than a step
            self.file.read_exact_at(&mut self.bytes, place).naming("read", self.path)?;
            self.at = place;
        }
        let from = (place - self.at).min(self.bytes.len() as u64);
        Ok(&self.bytes[from as usize..])
    }
}

/// Says in a restored copy, durably, that its shards have forgotten what came after the backup.
/// Each log's incarnation rises by `lives`: one, and one more for each time that the same backup
/// was restored before, whose lives are not to be lived again.
///
/// # Errors
/// When it is no data folder, or the file system refuses.
pub fn mark_restored(data: &Path, lives: u32) -> Result<(), FolderError> {
    let facts = inspect::read_folder(data)?;
    for shard in 0..facts.shards {
        let dir = crate::folder::shard_dir(data, shard);
        let path = dir.join(RESTORED_FILE);
        let make = |file: std::sync::Arc<dyn DiskFile>| {
            file.write_at(0, format!("{lives}\n").as_bytes())?;
            file.sync()
        };
        RealDisk.create(&path).and_then(make).naming("make", &path)?;
        RealDisk.sync_dir(&dir).naming("sync", &dir)?;
    }
    Ok(())
}

/// By how much the incarnation of a shard rises that was restored and has not yet begun its new
/// life; `None` for any other. A word that can't be read is taken for one life.
pub(crate) fn lives_restored(dir: &Path) -> Result<Option<u32>, RecoverError> {
    let path = dir.join(RESTORED_FILE);
    match fs::read_to_string(&path) {
        Ok(text) => Ok(Some(text.trim().parse().unwrap_or(1).clamp(1, LIVES_MAX))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(IoError { what: "read", path, source }.into()),
    }
}

/// The new life of a restored shard is durable.
pub(crate) fn forget_restored(disk: &dyn Disk, dir: &Path) -> Result<(), RecoverError> {
    let path = dir.join(RESTORED_FILE);
    match fs::exists(&path).naming("look for", &path)? {
        true => disk.remove(&path).naming("remove", &path)?,
        false => return Ok(()),
    }
    Ok(disk.sync_dir(dir).naming("sync", dir)?)
}
