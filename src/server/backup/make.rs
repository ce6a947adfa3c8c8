//! Making a backup: copy, read back, and only then write the list that makes it one.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use tern_storage::backup::{LogSnapshot, check_segment, copy};

use super::manifest::{MANIFEST_FILE, Manifest, ManifestFile};
use super::{BackupError, BackupReport, BackupState, Share, at, block_on, ms};
use crate::directory::Sqlite;
use crate::folder::{DataFolder, FILE_MODE, FOLDER_MODE};

/// Files beside the logs and the directory that a server needs to be the same to its clients.
const OWN_FILES: [&str; 4] = ["certificate.pem", "token.key", "reset.key", "tern.toml"];

/// An empty folder for a backup.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ready(PathBuf);

/// Makes the folder of a backup.
///
/// # Errors
/// When there is something in it, or it lies in the data folder.
pub fn prepare(data: &DataFolder, to: &Path) -> Result<Ready, BackupError> {
    match std::fs::read_dir(to).map(Iterator::count) {
        Ok(0) => {}
        Ok(_) => return Err(BackupError::NotEmpty(to.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => make_folder(to)?,
        Err(error) => return Err(BackupError::Io(to.to_owned(), error)),
    }
    let [own, to] = [data.path(), to].map(|path| at(path, path.canonicalize()));
    let (own, to) = (own?, to?);
    match to.starts_with(&own) {
        true => Err(BackupError::Inside(to)),
        false => Ok(Ready(to)),
    }
}

/// Copies the logs as they were when `snapshot` was taken, then the rest of the folder as it is
/// now; reads everything back. `tell` hears of each step.
///
/// # Errors
/// When something can't be copied, or reads back as something else.
pub fn make(
    data: &DataFolder,
    snapshot: &LogSnapshot,
    to: Ready,
    tell: &mut dyn FnMut(BackupState),
) -> Result<BackupReport, BackupError> {
    let (start, Ready(to)) = (Instant::now(), to);
    let mut share = Share { bytes: 0, of: snapshot.bytes() };
    let mut told = |step: u64| {
        share.bytes += step;
        tell(BackupState::Copying(share));
        true
    };
    let mut files = copy_logs(snapshot, &to, &mut told)?;
    for name in own_files(data)? {
        files.push(copy_own(data, name, &to, &mut told)?);
    }
    files.push(copy_directory(data, &to)?);
    let manifest = Manifest::new(now_ms(), files);
    let (records, damages) = verify(&manifest, &to, tell)?;
    sync_folders(&to, &manifest)?;
    write_manifest(&to, &manifest)?;
    Ok(BackupReport {
        files: manifest.files.len() as u64,
        bytes: manifest.bytes(),
        records,
        took_ms: ms(start.elapsed()),
        damages,
    })
}

fn copy_logs(
    snapshot: &LogSnapshot,
    to: &Path,
    told: &mut dyn FnMut(u64) -> bool,
) -> Result<Vec<ManifestFile>, BackupError> {
    let copied = snapshot.files().iter().map(|file| {
        let target = target(to, &file.name)?;
        let sha256 = file.copy(&target, told)?;
        Ok(ManifestFile::new(file.name.clone(), file.bytes, file.len, sha256))
    });
    copied.collect()
}

/// Names of the files that are copied as they are.
fn own_files(data: &DataFolder) -> Result<Vec<PathBuf>, BackupError> {
    let mut names: Vec<PathBuf> = OWN_FILES.iter().map(PathBuf::from).collect();
    names.retain(|name| data.path().join(name).exists());
    let profiles = data.path().join("profiles");
    let entries = match std::fs::read_dir(&profiles) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(names),
        Err(error) => return Err(BackupError::Io(profiles, error)),
    };
    for entry in entries {
        let path = at(&profiles, entry)?.path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            let name = path.file_name().expect("an entry of a folder has a name");
            names.push(Path::new("profiles").join(name));
        }
    }
    Ok(names)
}

fn copy_own(
    data: &DataFolder,
    name: PathBuf,
    to: &Path,
    told: &mut dyn FnMut(u64) -> bool,
) -> Result<ManifestFile, BackupError> {
    let source = data.path().join(&name);
    let file = at(&source, File::open(&source))?;
    let len = at(&source, file.metadata())?.len();
    let sha256 = copy(&file, &source, len, len, &target(to, &name)?, told)?;
    Ok(ManifestFile::new(name, len, len, sha256))
}

fn copy_directory(data: &DataFolder, to: &Path) -> Result<ManifestFile, BackupError> {
    let source = data.directory_file();
    let name = PathBuf::from(source.file_name().expect("it names a file"));
    let target = to.join(&name);
    block_on(Sqlite::copy(&source, &target))?;
    let len = at(&target, std::fs::metadata(&target))?.len();
    let sha256 = tern_storage::backup::digest(&target, len, &mut |_| true)?;
    Ok(ManifestFile::new(name, len, len, sha256))
}

/// Where a file goes, its folder made.
fn target(to: &Path, name: &Path) -> Result<PathBuf, BackupError> {
    let target = to.join(name);
    make_folder(target.parent().unwrap_or(to))?;
    Ok(target)
}

/// Reads everything back from the disk: the records of the logs, and what is damaged in them.
fn verify(
    manifest: &Manifest,
    to: &Path,
    tell: &mut dyn FnMut(BackupState),
) -> Result<(u64, Vec<String>), BackupError> {
    let mut share = Share { bytes: 0, of: manifest.bytes() };
    let (mut records, mut damages) = (0, Vec::new());
    for file in &manifest.files {
        file.verify(to, &mut |step| {
            share.bytes += step;
            tell(BackupState::Verifying(share));
            true
        })?;
        if file.name.extension().is_some_and(|extension| extension == "seg") {
            let check = check_segment(&to.join(&file.name));
            let check = check.map_err(tern_storage::backup::CopyError::Io)?;
            records += check.records;
            damages.extend(check.damage);
        }
    }
    Ok((records, damages))
}

/// Makes the names of all files durable.
pub(super) fn sync_folders(to: &Path, manifest: &Manifest) -> Result<(), BackupError> {
    let mut folders: Vec<PathBuf> = manifest
        .files
        .iter()
        .flat_map(|file| file.name.ancestors().skip(1))
        .map(|it| to.join(it))
        .collect();
    folders.extend(to.parent().filter(|it| !it.as_os_str().is_empty()).map(Path::to_owned));
    folders.sort();
    folders.dedup();
    for folder in folders {
        at(&folder, File::open(&folder).and_then(|folder| folder.sync_all()))?;
    }
    Ok(())
}

fn write_manifest(to: &Path, manifest: &Manifest) -> Result<(), BackupError> {
    let (fresh, path) = (to.join("backup.new"), to.join(MANIFEST_FILE));
    let text = serde_json::to_vec_pretty(manifest).expect("a list of files is always JSON");
    let write = || {
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create_new(true).mode(FILE_MODE).open(&fresh)?;
        file.write_all(&text)?;
        file.sync_all()?;
        std::fs::rename(&fresh, &path)?;
        File::open(to)?.sync_all()
    };
    at(&path, write())
}

pub(super) fn make_folder(path: &Path) -> Result<(), BackupError> {
    at(path, DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(path))
}

/// Milliseconds since 1970 UTC.
pub(super) fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, ms)
}
