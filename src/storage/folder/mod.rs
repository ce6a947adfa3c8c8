//! The data folder: who has it, what it is called, and how many shards it was made with.
//!
//! ```text
//! <data>/lock                     held exclusively while a server runs; has its process id
//! <data>/folder                   id and number of shards, written once
//! <data>/log/shard-NN/            the segments of a shard
//! <data>/dedup/                   deduplication tables, only where shared memory has no room
//! ```

pub(crate) mod owner;

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use ring::rand::{SecureRandom, SystemRandom};
use tern_core::placement::{SHARDS_MAX, ShardId};
use tern_protocol::Incarnation;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::disk::{Disk, RealDisk};
use crate::error::{FolderError, IoError, Naming};
use crate::folder::owner::{OwnedDisk, Owner};
use crate::format::{FORMAT_VERSION, Id};
use crate::header::{Durability, SEGMENT_HEADER_BYTES, SegmentHeader};
use crate::segment::Segment;

/// Shards of a new folder if none are asked for: enough for the cores of one machine, few enough
/// that their group commits still gather.
pub const SHARDS_DEFAULT: u16 = 4;

/// First bytes of the folder file.
const FOLDER_MAGIC: [u8; 8] = *b"TERNDATA";

/// Name of the folder file.
pub(crate) const FOLDER_FILE: &str = "folder";

/// Name of the lock file.
pub(crate) const LOCK_FILE: &str = "lock";

/// Length of a segment that never had a record.
const HEADER_BYTES: u64 = SEGMENT_HEADER_BYTES as u64;

/// Incarnation of every shard of a new folder.
pub(crate) const INCARNATION_FIRST: Incarnation = Incarnation(1);

/// Mode of the folders: their owner alone enters them.
const DIR_MODE: u32 = 0o700;

/// What the folder file holds.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(crate) struct FolderPage {
    magic: [u8; 8],
    version: U32,
    pub(crate) shards: U16,
    reserved_a: U16,
    pub(crate) id: Id,
    pub(crate) created_ms: U64,
    reserved_b: [u8; 20],
    /// CRC-32C of the bytes before it.
    crc: U32,
}

/// Bytes of the folder file.
const FOLDER_BYTES: usize = 64;
const _: () = assert!(size_of::<FolderPage>() == FOLDER_BYTES);

/// How to open a folder.
#[derive(Clone, Debug)]
pub struct FolderOptions {
    /// Number of shards: used when the folder is made, and must match later; 0 is "as it was
    /// made", or [`SHARDS_DEFAULT`].
    pub shards: u16,
    /// The disk; another one only in tests.
    pub disk: Arc<dyn Disk>,
}

impl Default for FolderOptions {
    fn default() -> Self {
        Self { shards: 0, disk: Arc::new(RealDisk) }
    }
}

/// An open data folder, held exclusively until it is dropped.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    id: Id,
    shards: u16,
    disk: Arc<dyn Disk>,
    owner: Arc<Owner>,
    _lock: File,
}

impl Folder {
    /// Opens a folder, or makes it.
    ///
    /// # Errors
    /// When another process has it, when it does not fit what is asked for, when its file is
    /// damaged, or when the file system refuses.
    pub fn open(path: &Path, options: FolderOptions) -> Result<Self, FolderError> {
        if options.shards > SHARDS_MAX {
            return Err(FolderError::ShardCount { asked: options.shards });
        }
        make_dir(path)?;
        let (lock, lock_path) = (lock(path)?, path.join(LOCK_FILE));
        let owner = Owner::new(&lock, lock_path.clone()).naming("read", &lock_path)?;
        let inner = Arc::clone(&options.disk);
        let disk: Arc<dyn Disk> = Arc::new(OwnedDisk { inner, owner: Arc::clone(&owner) });
        let options = FolderOptions { disk, ..options };
        let file = path.join(FOLDER_FILE);
        let page = match fs::read(&file) {
            Ok(bytes) => FolderPage::decode(&file, &bytes)?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => make(path, &options)?,
            Err(source) => return Err(IoError { what: "read", path: file, source }.into()),
        };
        let made = page.shards.get();
        if options.shards != 0 && options.shards != made {
            return Err(FolderError::Shards { path: path.into(), made, asked: options.shards });
        }
        let folder = Self {
            path: path.into(),
            id: page.id,
            shards: made,
            disk: options.disk,
            owner,
            _lock: lock,
        };
        Ok(folder)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// 16 random bytes that name it.
    pub fn id(&self) -> Id {
        self.id
    }

    /// Its number of shards.
    pub fn shards(&self) -> u16 {
        self.shards
    }

    /// Its shards.
    pub fn shard_ids(&self) -> impl Iterator<Item = ShardId> + use<> {
        (0..self.shards).map(ShardId)
    }

    /// Whether the folder is still this process's own: somebody may have removed its lock file and
    /// started another server. Once it is not, nothing in it is changed or acked any more, and
    /// the process should end at once.
    pub fn is_ours(&self) -> bool {
        self.owner.is_ours()
    }

    pub(crate) fn disk(&self) -> &Arc<dyn Disk> {
        &self.disk
    }

    /// The folder of a shard's segments.
    pub(crate) fn shard_dir(&self, shard: ShardId) -> PathBuf {
        shard_dir(&self.path, shard.0)
    }

    /// Where deduplication tables go if shared memory has no room.
    pub(crate) fn dedup_dir(&self) -> PathBuf {
        self.path.join("dedup")
    }
}

impl FolderPage {
    fn new(shards: u16) -> Self {
        let mut page = Self {
            magic: FOLDER_MAGIC,
            version: U32::new(FORMAT_VERSION),
            shards: U16::new(shards),
            reserved_a: U16::ZERO,
            id: random_id(),
            created_ms: U64::new(wall_ms()),
            reserved_b: [0; 20],
            crc: U32::ZERO,
        };
        page.crc = U32::new(page.checksum());
        page
    }

    fn checksum(&self) -> u32 {
        crc32c::crc32c(&self.as_bytes()[..FOLDER_BYTES - 4])
    }

    pub(crate) fn decode(path: &Path, bytes: &[u8]) -> Result<Self, FolderError> {
        let damaged = |why| FolderError::Damaged { path: path.into(), why };
        let page = Self::read_from_bytes(bytes).map_err(|_| damaged("has the wrong length"))?;
        if page.magic != FOLDER_MAGIC {
            return Err(damaged("does not describe a data folder"));
        }
        if page.version.get() != FORMAT_VERSION {
            return Err(FolderError::Version { path: path.into(), found: page.version.get() });
        }
        if page.checksum() != page.crc.get() {
            return Err(damaged("has a wrong checksum"));
        }
        if !(1..=SHARDS_MAX).contains(&page.shards.get()) {
            return Err(damaged("names an impossible number of shards"));
        }
        Ok(page)
    }
}

/// Makes what a new folder has. The folder file comes last: before it is there, there is no log.
fn make(path: &Path, options: &FolderOptions) -> Result<FolderPage, FolderError> {
    let file = path.join(FOLDER_FILE);
    if let Some(log) = first_log(path) {
        return Err(FolderError::Orphaned { path: file, log });
    }
    let shards = if options.shards == 0 { SHARDS_DEFAULT } else { options.shards };
    let (page, disk) = (FolderPage::new(shards), &options.disk);
    let log = path.join("log");
    make_dir(&log)?;
    for shard in 0..shards {
        make_shard(path, page.id, shard, &**disk)?;
    }
    disk.sync_dir(&log).naming("sync", &log)?;
    let fresh = path.join("folder.tmp");
    let handle = disk.create(&fresh).naming("make", &fresh)?;
    handle.write_at(0, page.as_bytes()).naming("write", &fresh)?;
    handle.sync().naming("sync", &fresh)?;
    disk.rename(&fresh, &file).naming("make", &file)?;
    disk.sync_dir(path).naming("sync", path)?;
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let parent = parent.unwrap_or(Path::new("."));
    disk.sync_dir(parent).naming("sync", parent)?;
    Ok(page)
}

/// Makes a shard's folder with a first segment that is only a header: from then on a shard
/// without a segment is one that lost its log.
fn make_shard(path: &Path, folder: Id, shard: u16, disk: &dyn Disk) -> Result<(), IoError> {
    let dir = shard_dir(path, shard);
    make_dir(&dir)?;
    let header = SegmentHeader {
        folder,
        shard,
        number: 1,
        base: 0,
        capacity: SEGMENT_HEADER_BYTES as u64,
        salt: random_id(),
        incarnation: INCARNATION_FIRST,
        cut: 0,
        durability: Durability::Disk,
        boot: boot_id(),
        created_ms: wall_ms(),
        opening: random_id(),
        confirmed_ms: 0,
    };
    Segment::make(disk, &dir, header).naming("make a segment in", &dir)?;
    Ok(())
}

/// Any segment below a folder that is more than a header.
fn first_log(path: &Path) -> Option<PathBuf> {
    let shards = fs::read_dir(path.join("log")).ok()?;
    shards
        .flatten()
        .filter_map(|shard| fs::read_dir(shard.path()).ok())
        .flat_map(|segments| segments.flatten())
        .find(|segment| segment.metadata().is_ok_and(|meta| meta.len() > HEADER_BYTES))
        .map(|segment| segment.path())
}

pub(crate) fn shard_dir(path: &Path, shard: u16) -> PathBuf {
    path.join("log").join(format!("shard-{shard:02}"))
}

/// Makes a folder that may be there already.
pub(crate) fn make_dir(path: &Path) -> Result<(), IoError> {
    fs::DirBuilder::new().recursive(true).mode(DIR_MODE).create(path).naming("make", path)
}

/// Takes the folder, and leaves this process's number in the lock for others to read.
fn lock(path: &Path) -> Result<File, FolderError> {
    let file = path.join(LOCK_FILE);
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let mut lock = options.open(&file).naming("open", &file)?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut text = String::new();
            let owner = lock.read_to_string(&mut text).ok().and_then(|_| text.trim().parse().ok());
            return Err(FolderError::InUse { path: path.into(), owner });
        }
        Err(TryLockError::Error(error)) => {
            return Err(IoError { what: "lock", path: file, source: error }.into());
        }
    }
    lock.set_len(0).naming("write", &file)?;
    lock.rewind().naming("write", &file)?;
    writeln!(lock, "{}", std::process::id()).naming("write", &file)?;
    Ok(lock)
}

/// 16 bytes that nobody can guess.
pub(crate) fn random_id() -> Id {
    let mut id = [0; 16];
    SystemRandom::new().fill(&mut id).expect("the kernel gives random bytes");
    id
}

/// Milliseconds since 1970 UTC.
pub(crate) fn wall_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

/// The id of this boot; zeros where the kernel does not tell, which is never the same boot.
pub(crate) fn boot_id() -> Id {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let mut id = [0; 16];
    for (byte, pair) in id.iter_mut().zip(digits.chunks_exact(2)) {
        let pair = std::str::from_utf8(pair).expect("hex digits are ASCII");
        *byte = u8::from_str_radix(pair, 16).expect("two hex digits");
    }
    id
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(path: &Path, shards: u16) -> Result<Folder, FolderError> {
        Folder::open(path, FolderOptions { shards, ..FolderOptions::default() })
    }

    /// Opens what nobody holds any more: a process that another test starts has our lock, too,
    /// until it runs a program of its own.
    fn reopen(path: &Path, shards: u16) -> Result<Folder, FolderError> {
        loop {
            match open(path, shards) {
                Err(FolderError::InUse { .. }) => std::thread::yield_now(),
                result => return result,
            }
        }
    }

    #[test]
    fn one_owner_and_one_number_of_shards() {
        let dir = tempfile::tempdir().unwrap();
        let folder = open(dir.path(), 3).unwrap();
        let second = open(dir.path(), 3).unwrap_err();
        let text = second.to_string();
        assert!(matches!(second, FolderError::InUse { owner: Some(pid), .. }
            if pid == std::process::id()));
        assert!(text.contains("stop it"), "{text}");
        let id = folder.id();
        drop(folder);
        assert!(matches!(
            reopen(dir.path(), 4),
            Err(FolderError::Shards { made: 3, asked: 4, .. })
        ));
        let folder = reopen(dir.path(), 0).unwrap();
        assert_eq!((folder.id(), folder.shards()), (id, 3));
    }

    #[test]
    fn a_damaged_or_lost_folder_file_is_never_replaced() {
        let dir = tempfile::tempdir().unwrap();
        drop(open(dir.path(), 1).unwrap());
        let file = dir.path().join(FOLDER_FILE);
        let good = fs::read(&file).unwrap();
        for bit in 0..good.len() * 8 {
            let mut bytes = good.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            fs::write(&file, &bytes).unwrap();
            assert!(reopen(dir.path(), 0).is_err(), "bit {bit}");
        }
        fs::remove_file(&file).unwrap();
        fs::write(shard_dir(dir.path(), 0).join("0000000001.seg"), [0; 8192]).unwrap();
        assert!(matches!(reopen(dir.path(), 0), Err(FolderError::Orphaned { .. })));
    }

    #[test]
    fn the_boot_has_an_id() {
        assert_ne!(boot_id(), [0; 16]);
        assert_eq!(boot_id(), boot_id());
    }
}
