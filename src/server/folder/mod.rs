//! The data folder: what lies where in it, its lock, and the secrets that are made with it.
//!
//! ```text
//! tern.lock          who holds the folder: one server, or one command while none runs
//! tern.toml          options, if the operator wrote any
//! certificate.pem    the server's certificate and its key
//! token.key          signs the address tokens of QUIC        all three are made once, mode 0600
//! reset.key          derives QUIC's stateless reset tokens
//! directory.sqlite   users and devices
//! control.sock       where a running server takes the commands
//! profiles/          a file per device that was added here
//! log/               what tern-storage keeps
//! ```

mod certificate;
mod keys;
mod lock;

use std::fmt;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

pub use certificate::Identity;
pub use keys::Keys;
pub(crate) use keys::random;
pub use lock::FolderLock;

/// Mode of a folder that only its owner may enter.
pub(crate) const FOLDER_MODE: u32 = 0o700;

/// Mode of a file that only its owner may read.
pub(crate) const FILE_MODE: u32 = 0o600;

/// A data folder that is there.
#[derive(Clone, Debug)]
pub struct DataFolder {
    path: PathBuf,
}

/// Why the data folder can't be used.
#[derive(Debug)]
pub enum FolderError {
    /// The file system refuses.
    Io {
        /// What.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// Another process holds it.
    InUse {
        /// Which folder.
        path: PathBuf,
        /// The process, if it said so.
        pid: Option<u32>,
    },
    /// A file does not hold what it should.
    Content {
        /// Which file.
        path: PathBuf,
        /// What is wrong, and what to do.
        reason: String,
    },
}

impl fmt::Display for FolderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io { path, error } => write!(f, "{}: {error}", path.display()),
            Self::InUse { path, pid } => {
                write!(f, "the data folder {} is in use by ", path.display())?;
                match pid {
                    Some(pid) => write!(f, "process {pid}")?,
                    None => f.write_str("another process")?,
                }
                f.write_str("; stop it first, or name another folder by --data")
            }
            Self::Content { path, reason } => write!(f, "{}: {reason}", path.display()),
        }
    }
}

impl std::error::Error for FolderError {}

impl DataFolder {
    /// Opens the folder, made if absent.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn open(path: &Path) -> Result<Self, FolderError> {
        make_folder(path)?;
        Ok(Self { path: path.to_owned() })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file of users and devices.
    pub fn directory_file(&self) -> PathBuf {
        self.path.join("directory.sqlite")
    }

    /// A link to the flight recorder, wherever the newest server had it.
    pub fn recording_link(&self) -> PathBuf {
        Self::recording_link_of(&self.path)
    }

    /// The same of a folder that is only looked at.
    pub fn recording_link_of(path: &Path) -> PathBuf {
        path.join("moments")
    }

    /// The socket of a running server.
    pub fn control_socket(&self) -> PathBuf {
        self.path.join("control.sock")
    }

    /// Makes the folder of the profiles, if absent.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn make_profiles(&self) -> Result<(), FolderError> {
        make_folder(&self.path.join("profiles"))
    }

    /// Takes the folder for this process, until the lock is dropped.
    ///
    /// # Errors
    /// When another process has it.
    pub fn lock(&self) -> Result<FolderLock, FolderError> {
        FolderLock::take(&self.path)
    }

    /// The keys of QUIC, made if absent. The folder must be locked.
    ///
    /// # Errors
    /// When they can't be read or written, or are no keys.
    pub fn keys(&self) -> Result<Keys, FolderError> {
        Keys::load_or_make(&self.path)
    }

    /// The server's certificate and key, made for `names` if absent. The folder must be locked.
    ///
    /// # Errors
    /// When they can't be read or written, or are none.
    pub fn identity(&self, names: &[String]) -> Result<Identity, FolderError> {
        Identity::load_or_make(&self.path, names)
    }
}

fn make_folder(path: &Path) -> Result<(), FolderError> {
    DirBuilder::new()
        .recursive(true)
        .mode(FOLDER_MODE)
        .create(path)
        .map_err(|error| FolderError::Io { path: path.to_owned(), error })
}

/// Reads a file whole; `None` if it is not there.
fn read(path: &Path) -> Result<Option<Vec<u8>>, FolderError> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(FolderError::Io { path: path.to_owned(), error }),
    }
}

/// Writes a file for its owner's eyes only, whole or not at all, and makes it durable.
fn write_private(path: &Path, bytes: &[u8]) -> Result<(), FolderError> {
    let write = || {
        let fresh = path.with_extension("new");
        match std::fs::remove_file(&fresh) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create_new(true).mode(FILE_MODE).open(&fresh)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&fresh, path)?;
        File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
    };
    write().map_err(|error| FolderError::Io { path: path.to_owned(), error })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn made_for_its_owner_only() {
        let parent = tempfile::tempdir().expect("a folder");
        let folder = DataFolder::open(&parent.path().join("a/b")).expect("made");
        folder.keys().expect("made");
        folder.identity(&[]).expect("made");
        let mode =
            |path: &Path| std::fs::metadata(path).expect("there").permissions().mode() & 0o777;
        assert_eq!(mode(folder.path()), FOLDER_MODE);
        for file in ["token.key", "reset.key", "certificate.pem"] {
            assert_eq!(mode(&folder.path().join(file)), FILE_MODE, "{file}");
        }
    }

    #[test]
    fn errors_name_the_file() {
        let parent = tempfile::tempdir().expect("a folder");
        let path = parent.path().join("file");
        std::fs::write(&path, "").expect("written");
        let error = DataFolder::open(&path).expect_err("it is a file");
        assert!(error.to_string().starts_with(path.to_str().expect("text")), "{error}");
    }
}
