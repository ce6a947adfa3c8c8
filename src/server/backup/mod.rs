//! Backups of a whole data folder: made while the server runs or without one, verified, and
//! brought back as a new folder.
//!
//! ```text
//! <backup>/backup.json       every file with its length and SHA-256; written last, so a folder
//!                            without it is no backup
//! <backup>/restores          a line for each time that it was restored
//! <backup>/...               the files, under the names that they have in a data folder
//! ```
//!
//! - The logs are those of one moment ([`tern_storage::backup`]); the directory is copied after
//!   them, so that whoever is named in a log is in it.
//! - Not in a backup: locks, sockets, tables that are made anew from the logs, and what a device
//!   keeps beside its profile (outbox and cursors are the device's own).
//! - Brought back, nothing is used twice: each log is marked to raise its incarnation, from which
//!   follow higher epochs, and the numbers of users and devices jump ahead.

mod make;
mod manifest;
mod restore;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tern_storage::backup::CopyError;

use crate::directory::DirectoryError;

pub use make::{Ready, make, prepare};
pub use manifest::{MANIFEST_FILE, Manifest, ManifestFile};
pub use restore::{Restored, restore};

/// How far a backup is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BackupState {
    /// Files are copied.
    Copying(Share),
    /// What was written is read back.
    Verifying(Share),
    /// It is complete and was read back.
    Done(BackupReport),
    /// It is not complete, and no backup.
    Failed(String),
}

/// A part of a whole, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Share {
    /// Done.
    pub bytes: u64,
    /// To do in all, as far as is known.
    pub of: u64,
}

/// What a backup holds.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct BackupReport {
    /// Files.
    pub files: u64,
    /// Bytes in them, without what is zeros behind a log's end.
    pub bytes: u64,
    /// Records of the logs, each with a good checksum.
    pub records: u64,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
    /// What is damaged in the data folder itself, and so in its copy.
    pub damages: Vec<String>,
}

/// Why a backup was not made, or not brought back.
#[derive(Debug)]
pub enum BackupError {
    /// There is something where it would be written.
    NotEmpty(PathBuf),
    /// It would lie in the data folder itself.
    Inside(PathBuf),
    /// There is no data folder to back up.
    NoData(PathBuf),
    /// It is no complete backup.
    NoBackup(PathBuf, String),
    /// A file is not what was backed up.
    Changed(PathBuf, &'static str),
    /// The file system refuses.
    Io(PathBuf, io::Error),
    /// A file of the logs can't be copied.
    Copy(CopyError),
    /// The logs' folder is in use or wrong.
    Logs(tern_storage::FolderError),
    /// The directory can't be copied.
    Directory(DirectoryError),
}

impl fmt::Display for BackupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotEmpty(path) => write!(
                f,
                "{} is there already: name a folder that is not; nothing is ever overwritten",
                path.display()
            ),
            Self::Inside(path) => write!(
                f,
                "{} lies in the data folder itself: name a folder outside, best on another disk",
                path.display()
            ),
            Self::NoData(path) => write!(f, "there is no data folder {}", path.display()),
            Self::NoBackup(path, why) => write!(
                f,
                "{} is no complete backup: {why}; only `tern backup` makes one",
                path.display()
            ),
            Self::Changed(path, what) => write!(
                f,
                "{} {what}, so this backup can't be trusted: use another one",
                path.display()
            ),
            Self::Io(path, error) => write!(f, "{}: {error}", path.display()),
            Self::Copy(error) => error.fmt(f),
            Self::Logs(error) => error.fmt(f),
            Self::Directory(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for BackupError {}

impl From<CopyError> for BackupError {
    fn from(error: CopyError) -> Self {
        Self::Copy(error)
    }
}

impl From<tern_storage::FolderError> for BackupError {
    fn from(error: tern_storage::FolderError) -> Self {
        Self::Logs(error)
    }
}

impl From<DirectoryError> for BackupError {
    fn from(error: DirectoryError) -> Self {
        Self::Directory(error)
    }
}

/// Names the file that a refused call was about.
fn at<T>(path: &Path, result: io::Result<T>) -> Result<T, BackupError> {
    result.map_err(|error| BackupError::Io(path.to_owned(), error))
}

/// Runs what the directory's library does asynchronously.
fn block_on<T>(work: impl Future<Output = Result<T, DirectoryError>>) -> Result<T, BackupError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(sqlx::Error::Io).map_err(DirectoryError::Store)?;
    Ok(runtime.block_on(work)?)
}

/// Milliseconds of a time, as people and JSON have them.
fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
