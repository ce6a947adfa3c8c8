//! One holder at a time: a server for as long as it runs, or a command that works on the folder
//! while no server does.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::{FILE_MODE, FolderError};

/// Characters that the holder's number is padded to, so that it covers the one before it whole.
const PID_WIDTH: usize = 15;

/// Bytes of the lock file: the number and the end of its line.
const PID_BYTES_MAX: u64 = PID_WIDTH as u64 + 1;

/// Holds the folder until it is dropped, or the process ends in any way.
#[derive(Debug)]
pub struct FolderLock {
    file: File,
    path: PathBuf,
}

impl FolderLock {
    pub(super) fn take(folder: &Path) -> Result<Self, FolderError> {
        let path = folder.join("tern.lock");
        let io = |error| FolderError::Io { path: path.clone(), error };
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(FILE_MODE);
        let mut file = options.open(&path).map_err(io)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(FolderError::InUse { path: folder.to_owned(), pid: holder(&mut file) });
            }
            Err(TryLockError::Error(error)) => return Err(io(error)),
        }
        sign(&mut file).map_err(io)?;
        Ok(Self { file, path })
    }

    /// Whether the lock's name still leads to this lock: somebody may have removed the file, and
    /// then another process can hold the folder too.
    pub fn is_ours(&self) -> bool {
        let same = || {
            let (held, named) = (self.file.metadata().ok()?, std::fs::metadata(&self.path).ok()?);
            Some((held.dev(), held.ino()) == (named.dev(), named.ino()))
        };
        same() == Some(true)
    }
}

/// Writes down who holds the lock, for the error of whoever comes next.
fn sign(file: &mut File) -> std::io::Result<()> {
    file.rewind()?;
    writeln!(file, "{:<PID_WIDTH$}", std::process::id())
}

fn holder(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.take(PID_BYTES_MAX).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::super::DataFolder;
    use super::*;

    #[test]
    fn one_at_a_time_and_the_other_is_named() {
        let parent = tempfile::tempdir().expect("a folder");
        let folder = DataFolder::open(parent.path()).expect("made");
        let held = folder.lock().expect("free");
        let error = folder.lock().expect_err("held");
        let pid = std::process::id();
        assert!(matches!(error, FolderError::InUse { pid: Some(held), .. } if held == pid));
        assert!(error.to_string().contains(&format!("process {pid}")), "{error}");
        drop(held);
        folder.lock().expect("free again");
    }

    #[test]
    fn the_text_of_a_dead_holder_is_in_nobodys_way() {
        let parent = tempfile::tempdir().expect("a folder");
        let folder = DataFolder::open(parent.path()).expect("made");
        // Of a process that lives and does not hold the lock: its number was used again.
        std::fs::write(parent.path().join("tern.lock"), "1\n").expect("written");
        let held = folder.lock().expect("nobody holds it");
        let error = folder.lock().expect_err("held").to_string();
        assert!(error.contains(&format!("process {}", std::process::id())), "{error}");
        assert!(held.is_ours());
        std::fs::remove_file(parent.path().join("tern.lock")).expect("removed");
        let other = folder.lock().expect("an operator's force");
        assert!(!held.is_ours() && other.is_ours());
    }
}
