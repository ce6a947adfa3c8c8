//! Bringing a backup back: as a new data folder, beside whatever is there.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use tern_storage::backup::{copy, mark_restored};
use tern_storage::inspect;

use super::make::{make_folder, now_ms, sync_folders};
use super::manifest::{CHANGED, CUT, Manifest};
use super::{BackupError, BackupState, Share, at, block_on};
use crate::directory::{Jump, Sqlite};
use crate::folder::FILE_MODE;

/// File of a backup with a line for each time that it was restored.
const RESTORES_FILE: &str = "restores";

/// What a restored folder is like.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Restored {
    /// When the backup was made, in milliseconds since 1970 UTC.
    pub made_ms: u64,
    /// The server that made it.
    pub tern: String,
    /// Files.
    pub files: u64,
    /// Bytes in them.
    pub bytes: u64,
    /// Logs, each of which will begin a new incarnation.
    pub shards: u16,
    /// How far numbers of users and devices went ahead.
    pub jump: Jump,
    /// By how much each incarnation rises.
    pub lives: u32,
    /// Whether the backup remembers that it was restored.
    pub counted: bool,
}

/// Brings a backup back as the data folder `data`, which must not be there. Nothing is there
/// under that name before it is whole.
///
/// # Errors
/// When there is something, when the backup is not whole, or when the file system refuses.
pub fn restore(
    backup: &Path,
    data: &Path,
    tell: &mut dyn FnMut(BackupState),
) -> Result<Restored, BackupError> {
    let manifest = Manifest::load(backup)?;
    if data.symlink_metadata().is_ok() {
        return Err(BackupError::NotEmpty(data.to_owned()));
    }
    let fresh = beside(data);
    if fresh.symlink_metadata().is_ok() {
        return Err(BackupError::NotEmpty(fresh));
    }
    let (lives, counted) = count_lives(backup);
    let restored = fill(backup, &manifest, &fresh, lives, tell).inspect_err(|_| {
        // What is left of it is worth nothing, and its name would be in the way of another try.
        let _ = std::fs::remove_dir_all(&fresh);
    })?;
    at(data, std::fs::rename(&fresh, data))?;
    let parent = data.parent().filter(|it| !it.as_os_str().is_empty()).unwrap_or(Path::new("."));
    at(parent, File::open(parent).and_then(|folder| folder.sync_all()))?;
    Ok(Restored { counted, ..restored })
}

/// Which restore of this backup this is, from 1, and whether the backup now says so: what a
/// server lived after an earlier one must not be taken for what it lives after this one.
fn count_lives(backup: &Path) -> (u32, bool) {
    let path = backup.join(RESTORES_FILE);
    let text = std::fs::read_to_string(&path).unwrap_or_default();
    let earlier = u32::try_from(text.lines().count()).unwrap_or(u32::MAX - 1);
    let count = || {
        let mut options = OpenOptions::new();
        let mut file = options.append(true).create(true).mode(FILE_MODE).open(&path)?;
        writeln!(file, "restored at {} ms since 1970", now_ms())?;
        file.sync_all()
    };
    (earlier + 1, count().is_ok())
}

/// Where it is made before it has its name.
fn beside(data: &Path) -> PathBuf {
    let mut name = data.file_name().map_or_else(OsString::new, OsString::from);
    name.push(".restoring");
    data.with_file_name(name)
}

fn fill(
    backup: &Path,
    manifest: &Manifest,
    fresh: &Path,
    lives: u32,
    tell: &mut dyn FnMut(BackupState),
) -> Result<Restored, BackupError> {
    let mut share = Share { bytes: 0, of: manifest.bytes() };
    let mut told = |step: u64| {
        share.bytes += step;
        tell(BackupState::Copying(share));
        true
    };
    for file in &manifest.files {
        let (source, target) = (backup.join(&file.name), fresh.join(&file.name));
        make_folder(target.parent().unwrap_or(fresh))?;
        let open = at(&source, File::open(&source))?;
        let len = at(&source, open.metadata())?.len();
        if len != file.len {
            return Err(BackupError::Changed(source, CUT));
        }
        let sha256 = copy(&open, &source, file.bytes, file.len, &target, &mut told)?;
        if !file.has(&sha256) {
            return Err(BackupError::Changed(source, CHANGED));
        }
    }
    let mut share = Share { bytes: 0, of: manifest.bytes() };
    for file in &manifest.files {
        file.verify(fresh, &mut |step| {
            share.bytes += step;
            tell(BackupState::Verifying(share));
            true
        })?;
    }
    let shards = inspect::read_folder(fresh)?.shards;
    mark_restored(fresh, lives)?;
    let jump = block_on(Sqlite::jump_ahead(&fresh.join("directory.sqlite")))?;
    sync_folders(fresh, manifest)?;
    Ok(Restored {
        made_ms: manifest.made_ms,
        tern: manifest.tern.clone(),
        files: manifest.files.len() as u64,
        bytes: manifest.bytes(),
        shards,
        jump,
        lives,
        counted: false,
    })
}
