//! The list of a backup's files, by which it is known to be whole.

use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};
use tern_client::hex;
use tern_storage::backup::{Sha256, digest};

use super::{BackupError, at};

/// The name of the list.
pub const MANIFEST_FILE: &str = "backup.json";

/// Version of the list's form.
const MANIFEST_VERSION: u32 = 1;

/// What is said of a file whose content differs.
pub(super) const CHANGED: &str = "has other content than was backed up";

/// What is said of a file whose length differs.
pub(super) const CUT: &str = "has another length than was backed up";

/// Everything that is in a backup.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Version of this form.
    pub version: u32,
    /// Version of the server that wrote it.
    pub tern: String,
    /// When, in milliseconds since 1970 UTC.
    pub made_ms: u64,
    /// The files.
    pub files: Vec<ManifestFile>,
}

/// One file of a backup.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ManifestFile {
    /// Its name below the backup, and below a data folder.
    pub name: PathBuf,
    /// Bytes from its start that the digest covers.
    pub bytes: u64,
    /// Its length; what the digest does not cover is zeros.
    pub len: u64,
    /// SHA-256 of its first `bytes` bytes, in hex.
    pub sha256: String,
}

impl Manifest {
    /// A list of these files, made now.
    pub(super) fn new(made_ms: u64, files: Vec<ManifestFile>) -> Self {
        let tern = env!("CARGO_PKG_VERSION").to_owned();
        Self { version: MANIFEST_VERSION, tern, made_ms, files }
    }

    /// Reads the list of a backup.
    ///
    /// # Errors
    /// When it is missing, or no list of this version.
    pub fn load(backup: &Path) -> Result<Self, BackupError> {
        let path = backup.join(MANIFEST_FILE);
        let wrong = |why: String| BackupError::NoBackup(backup.to_owned(), why);
        let text =
            std::fs::read(&path).map_err(|error| wrong(format!("{MANIFEST_FILE}: {error}")))?;
        let manifest: Self = serde_json::from_slice(&text)
            .map_err(|error| wrong(format!("{MANIFEST_FILE} can't be understood ({error})")))?;
        if manifest.version != MANIFEST_VERSION {
            return Err(wrong(format!(
                "its version is {}, this program reads {MANIFEST_VERSION}",
                manifest.version
            )));
        }
        let is_inside =
            |name: &Path| name.components().all(|it| matches!(it, Component::Normal(_)));
        match manifest.files.iter().find(|file| !is_inside(&file.name)) {
            Some(file) => Err(wrong(format!("{MANIFEST_FILE} names {}", file.name.display()))),
            None => Ok(manifest),
        }
    }

    /// Bytes that all digests cover.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }
}

impl ManifestFile {
    pub(super) fn new(name: PathBuf, bytes: u64, len: u64, sha256: Sha256) -> Self {
        Self { name, bytes, len, sha256: hex::encode(&sha256) }
    }

    /// Reads a file of this name below `folder` from the disk, and compares.
    pub(super) fn verify(
        &self,
        folder: &Path,
        told: &mut dyn FnMut(u64) -> bool,
    ) -> Result<(), BackupError> {
        let path = folder.join(&self.name);
        let len = at(&path, std::fs::metadata(&path))?.len();
        if len != self.len {
            return Err(BackupError::Changed(path, CUT));
        }
        match self.has(&digest(&path, self.bytes, told)?) {
            true => Ok(()),
            false => Err(BackupError::Changed(path, CHANGED)),
        }
    }

    /// Whether the digest is that of this file.
    pub(super) fn has(&self, sha256: &Sha256) -> bool {
        hex::encode(sha256) == self.sha256
    }
}
