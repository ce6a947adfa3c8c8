//! Checkpoints: a shard's state in one file, in place of the records that made it.
//!
//! Comes in: the checkpoint before and sealed segments, read by recovery's own code. Goes out: a
//! file that was read back and verified before it got its name. Worth naming: the newest two are
//! kept; a start reads the newest good one and the log behind it; rows are sorted by kind and
//! key, so that one can be looked up in place.
//!
//! `format`: the bytes. `writer`, `reader`: rows in, rows out. `builder`: where the rows come
//! from. `shelf`: the files of one shard.

mod builder;
mod format;
mod reader;
mod shelf;
mod writer;

pub(crate) use builder::{Building, build};
pub use format::{CheckpointHeader, RowKey};
pub(crate) use reader::Checkpoint;
pub(crate) use shelf::Shelf;

use std::fmt;
use std::path::{Path, PathBuf};

use tern_core::shard::ReplayError;

use crate::error::IoError;

/// How the names of checkpoints end.
const CHECKPOINT_SUFFIX: &str = ".ckpt";

/// The file of a checkpoint.
pub(crate) fn checkpoint_path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:010}{CHECKPOINT_SUFFIX}"))
}

/// The number in the name of a checkpoint's file; `None` if it is none.
pub(crate) fn checkpoint_number(path: &Path) -> Option<u64> {
    path.file_name()?.to_str()?.strip_suffix(CHECKPOINT_SUFFIX)?.parse().ok()
}

/// Why a checkpoint can't be read, or was not made.
#[derive(Debug)]
pub enum CheckpointError {
    /// The file is not what it was made as.
    Bad {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A row or record contradicts those before it.
    Replay(ReplayError),
    /// The server ends.
    Stopped,
    /// The file system refused.
    Io(IoError),
}

impl CheckpointError {
    fn bad(path: &Path, why: impl Into<String>) -> Self {
        Self::Bad { path: path.into(), why: why.into() }
    }
}

impl From<IoError> for CheckpointError {
    fn from(error: IoError) -> Self {
        Self::Io(error)
    }
}

impl From<ReplayError> for CheckpointError {
    fn from(error: ReplayError) -> Self {
        Self::Replay(error)
    }
}

impl fmt::Display for CheckpointError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bad { path, why } => write!(f, "{} can't be used: {why}", path.display()),
            Self::Replay(error) => error.fmt(f),
            Self::Stopped => f.write_str("the server ends"),
            Self::Io(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for CheckpointError {}
