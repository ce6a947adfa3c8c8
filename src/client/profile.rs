//! A device's profile: who it is, its secret, and where its server is. One TOML file a device,
//! readable by its owner alone.
//!
//! In a data folder the profiles stand as `profiles/NAME.toml` for a user's first device and
//! `profiles/NAME.LABEL.toml` for the others; beside each lie its lock (`.lock`) and its store
//! (`.redb`). A profile is used by one process at a time, because two would count the same send
//! keys; [`Profile::lock`] holds that.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tern_protocol::limits::SECRET_BYTES;
use tern_protocol::{DeviceId, Uin};

use crate::hex;

/// Folder of the profiles within a data folder.
const FOLDER: &str = "profiles";

/// What a profile file says.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// The user's name.
    pub name: String,
    /// The user's number.
    pub uin: u64,
    /// The device's number within the user.
    pub device: u32,
    /// What the user calls the device.
    pub label: String,
    /// The device's secret: 32 bytes as 64 hex digits.
    pub secret: String,
    /// Where the server is: `host:port`, or several of them with commas between.
    pub server: String,
    /// SHA-256 of the server's certificate as 64 hex digits; without it the system's
    /// certificate roots decide.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pin: Option<String>,
}

impl std::fmt::Debug for Profile {
    /// Without the secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { name, uin, device, label, secret: _, server, pin } = self;
        f.debug_struct("Profile")
            .field("name", name)
            .field("uin", uin)
            .field("device", device)
            .field("label", label)
            .field("server", server)
            .field("pin", pin)
            .finish_non_exhaustive()
    }
}

/// Why a profile can't be used.
#[derive(Debug)]
pub enum ProfileError {
    /// There is no such file.
    Missing(PathBuf),
    /// It can't be read or written.
    Io(PathBuf, io::Error),
    /// It is no profile.
    Content(PathBuf, String),
    /// Another process uses it.
    InUse(PathBuf, String),
}

impl std::fmt::Display for ProfileError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Missing(path) => write!(
                f,
                "there is no profile {}; make one with `tern user add NAME`, or name the data \
                 folder with --data",
                path.display()
            ),
            Self::Io(path, error) => write!(f, "profile {}: {error}", path.display()),
            Self::Content(path, error) => {
                write!(f, "{} is no profile: {error}", path.display())
            }
            Self::InUse(path, name) => write!(
                f,
                "the profile {} is in use by another process, and one device is one process; get \
                 a device of its own for this one with `tern device add {name}`",
                path.display()
            ),
        }
    }
}

impl std::error::Error for ProfileError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io(_, error) => Some(error),
            Self::Missing(_) | Self::Content(..) | Self::InUse(..) => None,
        }
    }
}

impl Profile {
    /// Where the profile of `who` (`NAME` or `NAME.LABEL`) stands in a data folder.
    pub fn path(data: &Path, who: &str) -> PathBuf {
        data.join(FOLDER).join(format!("{who}.toml"))
    }

    /// The profile of a device in a data folder, whatever its file is called, and where it stands.
    pub fn find(data: &Path, uin: u64, device: u32) -> Option<(PathBuf, Self)> {
        let files = std::fs::read_dir(data.join(FOLDER)).ok()?.flatten().map(|file| file.path());
        files
            .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
            .filter_map(|path| Some((Self::load(&path).ok()?, path)))
            .filter(|(profile, _)| (profile.uin, profile.device) == (uin, device))
            .map(|(profile, path)| (path, profile))
            .min_by(|(one, _), (other, _)| one.cmp(other)) // the same one each time
    }

    /// Where a device keeps its outbox and cursors: beside its profile.
    pub fn store_path(profile: &Path) -> PathBuf {
        profile.with_extension("redb")
    }

    /// Reads a profile.
    ///
    /// # Errors
    /// When there is none, or it does not say what a profile must.
    pub fn load(path: &Path) -> Result<Self, ProfileError> {
        let text = std::fs::read_to_string(path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => ProfileError::Missing(path.to_owned()),
            _ => ProfileError::Io(path.to_owned(), error),
        })?;
        let content = |error: String| ProfileError::Content(path.to_owned(), error);
        let profile: Self = toml::from_str(&text).map_err(|error| content(error.to_string()))?;
        profile.check().map_err(content)?;
        Ok(profile)
    }

    /// Writes a profile, whole or not at all, for its owner's eyes only; makes the folder.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn save(&self, path: &Path) -> Result<(), ProfileError> {
        let text = toml::to_string(self)
            .map_err(|error| ProfileError::Content(path.to_owned(), error.to_string()))?;
        write_private(path, text.as_bytes())
            .map_err(|error| ProfileError::Io(path.to_owned(), error))
    }

    /// Takes the profile at `path` for this process, until the lock is dropped.
    ///
    /// # Errors
    /// When another process has it.
    pub fn lock(&self, path: &Path) -> Result<ProfileLock, ProfileError> {
        let lock_path = path.with_extension("lock");
        let io_error = |error| ProfileError::Io(lock_path.clone(), error);
        let file = private().create(true).truncate(false).open(&lock_path).map_err(io_error)?;
        match file.try_lock() {
            Ok(()) => Ok(ProfileLock { _file: file }),
            Err(TryLockError::WouldBlock) => {
                Err(ProfileError::InUse(path.to_owned(), self.name.clone()))
            }
            Err(TryLockError::Error(error)) => Err(io_error(error)),
        }
    }

    /// The device's secret.
    ///
    /// # Errors
    /// When the text is not 64 hex digits; never for a profile that was loaded.
    pub fn secret_bytes(&self) -> Result<[u8; SECRET_BYTES], hex::HexError> {
        hex::decode(&self.secret)
    }

    /// The pin of the server's certificate, if there is one.
    ///
    /// # Errors
    /// When the text is not 64 hex digits; never for a profile that was loaded.
    pub fn pin_bytes(&self) -> Result<Option<[u8; 32]>, hex::HexError> {
        self.pin.as_deref().map(hex::decode).transpose()
    }

    /// The user's number.
    pub fn uin(&self) -> Uin {
        Uin(self.uin)
    }

    /// The device's number.
    pub fn device(&self) -> DeviceId {
        DeviceId(self.device)
    }

    fn check(&self) -> Result<(), String> {
        if self.uin == 0 || self.device == 0 {
            return Err("uin and device count from 1".to_owned());
        }
        self.secret_bytes().map_err(|error| format!("secret: {error}"))?;
        self.pin_bytes().map_err(|error| format!("pin: {error}"))?;
        Ok(())
    }
}

/// Holds a profile for this process.
#[derive(Debug)]
pub struct ProfileLock {
    _file: File,
}

/// Options of a file that only its owner may read.
fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let fresh = path.with_extension(format!("toml.{}", std::process::id()));
    let mut file = private().create_new(true).open(&fresh)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&fresh, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profile() -> Profile {
        Profile {
            name: "ann".to_owned(),
            uin: 10_001,
            device: 1,
            label: "1".to_owned(),
            secret: "ab".repeat(32),
            server: "127.0.0.1:5190".to_owned(),
            pin: Some("01".repeat(32)),
        }
    }

    #[test]
    fn what_is_saved_is_loaded_and_private() {
        let folder = tempfile::tempdir().unwrap();
        let path = Profile::path(folder.path(), "ann");
        profile().save(&path).unwrap();
        profile().save(&path).unwrap();
        assert_eq!(Profile::load(&path).unwrap(), profile());
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
        assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn a_profile_is_found_by_its_numbers() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Profile::find(folder.path(), 10_001, 1), None);
        let path = Profile::path(folder.path(), "another name");
        profile().save(&path).unwrap();
        std::fs::write(Profile::path(folder.path(), "no profile"), "x").unwrap();
        assert_eq!(Profile::find(folder.path(), 10_001, 1), Some((path, profile())));
        assert_eq!(Profile::find(folder.path(), 10_001, 2), None);
    }

    #[test]
    fn one_process_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = Profile::path(folder.path(), "ann");
        profile().save(&path).unwrap();
        let held = profile().lock(&path).unwrap();
        let refused = profile().lock(&path).unwrap_err();
        assert!(matches!(refused, ProfileError::InUse(..)));
        assert!(refused.to_string().contains("tern device add ann"));
        drop(held);
        profile().lock(&path).unwrap();
    }

    #[test]
    fn what_is_wrong_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let path = Profile::path(folder.path(), "ann");
        let missing = Profile::load(&path).unwrap_err();
        assert!(missing.to_string().contains("tern user add"));
        for bad in [
            Profile { secret: "ab".to_owned(), ..profile() },
            Profile { pin: Some("xy".repeat(32)), ..profile() },
            Profile { device: 0, ..profile() },
        ] {
            bad.save(&path).unwrap();
            assert!(matches!(Profile::load(&path), Err(ProfileError::Content(..))), "{bad:?}");
        }
    }

    #[test]
    fn debug_hides_the_secret() {
        assert!(!format!("{:?}", profile()).contains("abab"));
    }
}
