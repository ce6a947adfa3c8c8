//! The keys that all workers share and that outlive a restart: a client's address token stays
//! good, and a server that came back can tell clients of connections it no longer knows.

use std::fmt;
use std::path::Path;

use ring::rand::{SecureRandom, SystemRandom};

use super::{FolderError, read, write_private};
use crate::transport::settings::{RESET_KEY_BYTES, TOKEN_KEY_BYTES};

/// QUIC's keys of this data folder.
#[derive(Clone, PartialEq, Eq)]
pub struct Keys {
    /// Signs the tokens by which a client's address is known again.
    pub token: [u8; TOKEN_KEY_BYTES],
    /// From it and a connection id follows the connection's stateless reset token.
    pub reset: [u8; RESET_KEY_BYTES],
}

impl fmt::Debug for Keys {
    /// Without the keys.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys").finish_non_exhaustive()
    }
}

impl Keys {
    pub(super) fn load_or_make(folder: &Path) -> Result<Self, FolderError> {
        Ok(Self {
            token: load_or_make(&folder.join("token.key"))?,
            reset: load_or_make(&folder.join("reset.key"))?,
        })
    }
}

fn load_or_make<const N: usize>(path: &Path) -> Result<[u8; N], FolderError> {
    let Some(bytes) = read(path)? else {
        let key = random();
        write_private(path, &key)?;
        return Ok(key);
    };
    bytes.try_into().map_err(|bytes: Vec<u8>| FolderError::Content {
        path: path.to_owned(),
        reason: format!(
            "a key of {N} bytes is needed, not {}; remove the file and a new one is made",
            bytes.len()
        ),
    })
}

/// Fresh random bytes from the system.
///
/// # Panics
/// If the system has none to give; nothing could go on safely then.
pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).expect("the system's random source works");
    bytes
}

#[cfg(test)]
mod tests {
    use super::super::DataFolder;
    use super::RESET_KEY_BYTES;

    #[test]
    fn made_once() {
        let parent = tempfile::tempdir().expect("a folder");
        let folder = DataFolder::open(parent.path()).expect("made");
        let keys = folder.keys().expect("made");
        assert!(keys == folder.keys().expect("read"), "the same after a restart");
        assert_ne!(keys.token[..RESET_KEY_BYTES], keys.reset);

        std::fs::write(parent.path().join("reset.key"), [0; 3]).expect("written");
        let error = folder.keys().expect_err("too short");
        assert!(error.to_string().contains("reset.key: a key of 32 bytes"), "{error}");
    }
}
