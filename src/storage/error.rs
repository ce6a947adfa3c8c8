//! What can go wrong at start, each with what to do about it.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crate::checkpoint::CheckpointError;

/// Why a data folder can't be opened.
#[derive(Debug)]
pub enum FolderError {
    /// Another server has it.
    InUse {
        /// The folder.
        path: PathBuf,
        /// The process that holds it, if it left its number.
        owner: Option<u32>,
    },
    /// It was made with another number of shards.
    Shards {
        /// The folder.
        path: PathBuf,
        /// What it was made with.
        made: u16,
        /// What was asked for.
        asked: u16,
    },
    /// No folder can have this many shards.
    ShardCount {
        /// What was asked for.
        asked: u16,
    },
    /// There are logs, but the file that names their folder is gone.
    Orphaned {
        /// The missing file.
        path: PathBuf,
        /// One of the logs.
        log: PathBuf,
    },
    /// The file that describes the folder is damaged.
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Written by another version of the format.
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
    },
    /// The file system refused.
    Io(IoError),
}

/// Why a shard's log can't be opened. Nothing was changed on disk.
#[derive(Debug)]
pub enum RecoverError {
    /// Something that was proven durable can't be read any more.
    Damaged {
        /// The file.
        path: PathBuf,
        /// Offset in the log where it begins.
        at: u64,
        /// Offset up to which it is known to reach.
        to: u64,
        /// What is wrong.
        why: String,
    },
    /// A segment whose header can't be used: without it nothing in the file can be proven.
    Header {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Written by another version of the format.
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
    },
    /// The file that names accepted losses is damaged, or of another log.
    Accepted {
        /// The file.
        path: PathBuf,
    },
    /// An intact record that only a newer server knows.
    Unknown {
        /// The file.
        path: PathBuf,
        /// Where.
        at: u64,
        /// Its kind.
        kind: u8,
        /// Its version.
        version: u8,
    },
    /// The log does not begin with segment 1, and no checkpoint has what came before.
    NoState {
        /// The oldest segment.
        path: PathBuf,
        /// Its number.
        oldest: u64,
        /// What is wrong with the checkpoints that there are.
        bad: Vec<String>,
    },
    /// A checkpoint that was good a moment ago.
    Checkpoint(CheckpointError),
    /// A record passed its checksum and yet makes no sense where it stands.
    Replay {
        /// Where.
        at: u64,
        /// What is wrong.
        why: String,
    },
    /// The file system refused.
    Io(IoError),
}

/// A call that the file system refused.
#[derive(Debug)]
pub struct IoError {
    /// What was to be done.
    pub what: &'static str,
    /// To which file.
    pub path: PathBuf,
    /// The answer.
    pub source: io::Error,
}

/// Names the file and the deed that a refused call was about.
pub(crate) trait Naming<T> {
    fn naming(self, what: &'static str, path: &Path) -> Result<T, IoError>;
}

impl<T> Naming<T> for io::Result<T> {
    fn naming(self, what: &'static str, path: &Path) -> Result<T, IoError> {
        self.map_err(|source| IoError { what, path: path.into(), source })
    }
}

impl From<IoError> for FolderError {
    fn from(error: IoError) -> Self {
        Self::Io(error)
    }
}

impl From<CheckpointError> for RecoverError {
    fn from(error: CheckpointError) -> Self {
        match error {
            CheckpointError::Replay(error) => Self::Replay { at: error.at.0, why: error.what },
            CheckpointError::Io(error) => Self::Io(error),
            error => Self::Checkpoint(error),
        }
    }
}

impl From<IoError> for RecoverError {
    fn from(error: IoError) -> Self {
        Self::Io(error)
    }
}

impl fmt::Display for IoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "can't {} {}: {}", self.what, self.path.display(), self.source)
    }
}

impl fmt::Display for FolderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InUse { path, owner } => {
                let owner = owner.map_or("another process".into(), |pid| format!("process {pid}"));
                let path = path.display();
                write!(f, "{path} is in use by {owner}: stop it, or give another data folder")
            }
            Self::Shards { path, made, asked } => write!(
                f,
                "{} was made with {made} shards and {asked} are asked for: the number is fixed, \
                 so ask for {made}, or for none in particular",
                path.display()
            ),
            Self::ShardCount { asked } => write!(
                f,
                "{asked} shards are asked for: give a number from 1 to {}",
                tern_core::placement::SHARDS_MAX
            ),
            Self::Orphaned { path, log } => write!(
                f,
                "{} is missing although there are logs ({}): restore it from a backup; without it \
                 it is not known which messages these are",
                path.display(),
                log.display()
            ),
            Self::Damaged { path, why } => {
                write!(f, "{} {why}: restore it from a backup", path.display())
            }
            Self::Version { path, found } => version(f, path, *found),
            Self::Io(error) => error.fmt(f),
        }
    }
}

impl fmt::Display for RecoverError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Damaged { path, at, to, why } => {
                write!(f, "{} is damaged: {why}", path.display())?;
                if to > at {
                    write!(f, "; what stood at offsets {at} to {to} was durable and is lost")?;
                }
                write!(f, ". Nothing was changed: restore the file from a backup")
            }
            Self::Header { path, why } => write!(
                f,
                "the header of {} {why}. Nothing was changed: restore the file from a backup",
                path.display()
            ),
            Self::Accepted { path } => write!(
                f,
                "{} is damaged or belongs to another log. Nothing was changed: restore it from a \
                 backup, or remove it and run `tern repair` again",
                path.display()
            ),
            Self::Version { path, found } => version(f, path, *found),
            Self::Unknown { path, at, kind, version } => write!(
                f,
                "{} has a record of kind {kind} and version {version} at offset {at}, which this \
                 server does not know: use the server that wrote it",
                path.display()
            ),
            Self::NoState { path, oldest, bad } => {
                let before = oldest - 1;
                write!(
                    f,
                    "{} is the oldest segment, and no good checkpoint has the state of the \
                     {before} before it: to begin without it would give message ids and epochs \
                     a second time. ",
                    path.display()
                )?;
                bad.iter().try_for_each(|why| write!(f, "{why}. "))?;
                write!(f, "Nothing was changed: restore the shard's folder from a backup")
            }
            Self::Checkpoint(error) => {
                write!(f, "{error}; it was good a moment ago: start again")
            }
            Self::Replay { at, why } => write!(
                f,
                "the record at offset {at} is intact but contradicts those before it: {why}. \
                 Nothing was changed: report this with a copy of the data folder"
            ),
            Self::Io(error) => error.fmt(f),
        }
    }
}

fn version(f: &mut fmt::Formatter<'_>, path: &Path, found: u32) -> fmt::Result {
    write!(
        f,
        "{} has format version {found}, this server reads {}: use the server that wrote it",
        path.display(),
        crate::format::FORMAT_VERSION
    )
}

impl std::error::Error for FolderError {}
impl std::error::Error for RecoverError {}
impl std::error::Error for IoError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}
