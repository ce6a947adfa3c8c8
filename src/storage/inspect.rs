//! Looking at a data folder from outside, also while a server has it or when it is damaged.
//!
//! Nothing here takes a lock, writes, or maps a log's file: a caller reads bytes by calls and has
//! them judged. So a file that is cut meanwhile is an error and never a signal. Deduplication
//! tables have their own reader, [`TableView`](crate::TableView).

use std::fs;
use std::path::{Path, PathBuf};

use tern_core::placement::ShardId;
use tern_core::shard::state::StateKind;

use crate::checkpoint::{self, Checkpoint, CheckpointError, CheckpointHeader, RowKey};
use crate::dedup::table_name;
use crate::disk::read_only;
use crate::error::{FolderError, IoError, Naming, RecoverError};
use crate::folder::{self, FOLDER_FILE, FolderPage, LOCK_FILE};
use crate::format::{Id, Seed};
use crate::segment;

pub use crate::format::{Bad, Content, Head, Mark, RECORD_ALIGN};
pub use crate::header::SegmentHeader;

/// What the folder file says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FolderFacts {
    /// 16 random bytes that name the folder.
    pub id: Id,
    /// Its number of shards.
    pub shards: u16,
    /// Milliseconds since 1970 UTC when it was made.
    pub created_ms: u64,
}

/// Reads the folder file.
///
/// # Errors
/// When it is missing, damaged, or of another version.
pub fn read_folder(path: &Path) -> Result<FolderFacts, FolderError> {
    let file = path.join(FOLDER_FILE);
    let bytes = match fs::read(&file) {
        Ok(bytes) => bytes,
        Err(source) => return Err(IoError { what: "read", path: file, source }.into()),
    };
    let page = FolderPage::decode(&file, &bytes)?;
    let (shards, created_ms) = (page.shards.get(), page.created_ms.get());
    Ok(FolderFacts { id: page.id, shards, created_ms })
}

/// The file that is locked while a server runs.
pub fn lock_path(path: &Path) -> PathBuf {
    path.join(LOCK_FILE)
}

/// The folder of a shard's segments.
pub fn shard_dir(path: &Path, shard: ShardId) -> PathBuf {
    folder::shard_dir(path, shard.0)
}

/// The number in the name of a segment's file; `None` if it is no segment.
pub fn segment_number(path: &Path) -> Option<u64> {
    segment::segment_number(path)
}

/// Where the table of a shard may be, best first; `memory` is where tables go if there is room.
pub fn table_paths(path: &Path, memory: &Path, folder: &Id, shard: ShardId) -> [PathBuf; 2] {
    let name = table_name(folder, shard.0);
    [memory.join(&name), path.join("dedup").join(&name)]
}

/// Judges the bytes of one segment.
#[derive(Clone, Copy, Debug)]
pub struct Decoder {
    /// What the segment says of itself.
    pub header: SegmentHeader,
    seed: Seed,
}

impl Decoder {
    /// From the segment's first page; `path` is for the error.
    ///
    /// # Errors
    /// When the page is damaged, or of another version.
    pub fn new(path: &Path, page: &[u8]) -> Result<Self, RecoverError> {
        Ok(Self::of(SegmentHeader::decode(path, page)?))
    }

    /// Whether a first page is as it was written: a header stands twice in it, and either copy is
    /// enough to read the segment.
    pub fn is_whole(&self, page: &[u8]) -> bool {
        self.header.is_whole(page)
    }

    /// From a damaged first page, taken at its word: only a record that fits its checksum shows
    /// that salt and base are right. `None` if the page is cut off.
    pub fn believing(page: &[u8]) -> Option<Self> {
        SegmentHeader::believe(page).map(Self::of)
    }

    /// The same segment at another base, for a page whose base is damaged.
    pub fn at_base(self, base: u64) -> Self {
        Self { header: SegmentHeader { base, ..self.header }, ..self }
    }

    /// The record or mark at the start of `bytes`, which stand at the offset `at`, and its length
    /// in bytes.
    ///
    /// # Errors
    /// When there is none.
    pub fn record<'a>(&self, at: u64, bytes: &'a [u8]) -> Result<(usize, Content<'a>), Bad> {
        self.seed.parse(at, bytes)
    }

    fn of(header: SegmentHeader) -> Self {
        Self { seed: Seed::new(&header.salt), header }
    }
}

/// A checkpoint, looked at from outside.
#[derive(Debug)]
pub struct CheckpointView(Checkpoint);

impl CheckpointView {
    /// Opens the file to read, and judges its header.
    ///
    /// # Errors
    /// When the header is not good, or the file system refuses.
    pub fn open(path: &Path) -> Result<Self, CheckpointError> {
        Checkpoint::open_any(read_only(path).naming("open", path)?, path).map(Self)
    }

    /// What it says of itself.
    pub fn header(&self) -> &CheckpointHeader {
        &self.0.header
    }

    /// Proves every byte of it.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn verify(&self) -> Result<(), CheckpointError> {
        self.0.verify()
    }

    /// Hands out its rows, in order; where one is bad, those before it came out.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn rows(&self, mut visit: impl FnMut(StateKind, &[u8])) -> Result<(), CheckpointError> {
        self.0.rows(|kind, row| {
            visit(kind, row);
            Ok(())
        })
    }

    /// The row with a key, looked up in place.
    ///
    /// # Errors
    /// When the index or the row's block is not good.
    pub fn find(&self, kind: StateKind, key: RowKey) -> Result<Option<Vec<u8>>, CheckpointError> {
        self.0.find(kind, key)
    }
}

/// The number in the name of a checkpoint's file; `None` if it is none.
pub fn checkpoint_number(path: &Path) -> Option<u64> {
    checkpoint::checkpoint_number(path)
}
