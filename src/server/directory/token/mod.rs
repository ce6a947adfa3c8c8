//! Tokens of the operator's own system: whose they are, if they are good.
//!
//! Comes in: a JSON Web Token as a client said it, and the operator's rules. Goes out: the names
//! of a user and a device, or why not. A token is checked by the key's own algorithm,
//! whatever its header says. The keys are read from a file at start, and again whenever the file
//! changes or the operator asks; a file that can't be read leaves the keys as they were.

mod claims;
mod keys;
mod refusal;
mod ring;

use std::fmt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use jsonwebtoken::{Header, Validation, decode, decode_header};
use tern_protocol::UnixMillis;
use tern_protocol::limits::TOKEN_BYTES_MAX;

use claims::Claims;
use keys::Keys;
pub use keys::KeysError;
pub use refusal::Refusal;

use super::{Label, Name};

/// What the operator asks of a token.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rules {
    /// The file of the keys.
    pub keys: PathBuf,
    /// What `iss` must be; `None`: anything.
    pub issuer: Option<String>,
    /// What `aud` must be or hold; `None`: it must be absent.
    pub audience: Option<String>,
    /// How far clocks may differ, in seconds.
    pub skew_seconds: u64,
    /// The claim that names the user.
    pub user_claim: String,
    /// What stands before the claim's value in the user's name.
    pub user_prefix: String,
    /// The claim that names the device.
    pub device_claim: String,
    /// Who is added, if not known yet.
    pub adds: Adds,
}

/// Who is added by a first token; each with those before it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Adds {
    /// Nobody: users and devices are made by the operator's commands.
    Nothing,
    /// Devices of users that are there.
    Devices,
    /// Users, with their devices.
    Users,
}

/// Who a good token stands for.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Bearer {
    /// The user.
    pub name: Name,
    /// The device.
    pub label: Label,
}

/// What checks tokens.
pub struct Tokens {
    rules: Rules,
    read: Mutex<Read>,
}

/// The keys, and what the file was when they were read.
struct Read {
    keys: Arc<Keys>,
    seen: Option<Stamp>,
}

/// By what a change of a file shows: its time, length and number.
type Stamp = (SystemTime, u64, u64);

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens").field("rules", &self.rules).finish_non_exhaustive()
    }
}

impl Tokens {
    /// Reads the keys.
    ///
    /// # Errors
    /// When there are none.
    pub fn open(rules: Rules) -> Result<Self, KeysError> {
        ring::install();
        let seen = stamp(&rules.keys);
        let keys = Arc::new(Keys::load(&rules.keys)?);
        Ok(Self { rules, read: Mutex::new(Read { keys, seen }) })
    }

    /// The rules.
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// How many keys there are.
    pub fn count(&self) -> usize {
        self.read().keys.count()
    }

    /// Reads the keys again; says how many there are.
    ///
    /// # Errors
    /// When there are none; then those of before stay.
    pub fn reload(&self) -> Result<usize, KeysError> {
        let seen = stamp(&self.rules.keys);
        let keys = Keys::load(&self.rules.keys);
        let mut read = self.read();
        read.seen = seen; // a file that is no good is tried again when it changes
        read.keys = Arc::new(keys?);
        Ok(read.keys.count())
    }

    /// Reads the keys again if the file has changed.
    ///
    /// # Errors
    /// As for [`reload`](Self::reload), once per change.
    pub fn reload_if_changed(&self) -> Option<Result<usize, KeysError>> {
        let seen = self.read().seen;
        (stamp(&self.rules.keys) != seen).then(|| self.reload())
    }

    /// Whose the token is, at this time.
    ///
    /// # Errors
    /// Why it is not taken.
    pub fn check(&self, token: &[u8], now: UnixMillis) -> Result<Bearer, Refusal> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(Refusal::TooLong);
        }
        let header = decode_header(token).map_err(|_| Refusal::Form)?;
        if header.crit.is_some() {
            return Err(Refusal::Critical);
        }
        let claims = self.signed(token, &header)?;
        self.rules.judge(&claims, now)
    }

    /// The claims, if one of the keys has signed them.
    fn signed(&self, token: &[u8], header: &Header) -> Result<Claims, Refusal> {
        let keys = Arc::clone(&self.read().keys);
        let id = header.kid.as_deref();
        if let Some(id) = id.filter(|_| !keys.knows(id)) {
            return Err(Refusal::UnknownKey(id.to_owned()));
        }
        keys.candidates(id, header.alg)
            .find_map(|key| decode(token, &key.key, &signature_alone(key.algorithm)).ok())
            .map(|decoded| decoded.claims)
            .ok_or(Refusal::Signature)
    }

    /// Each holder leaves it whole at every step, so a panic elsewhere spoils nothing.
    fn read(&self) -> MutexGuard<'_, Read> {
        self.read.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The library checks the signature; what the claims mean is judged here, by a time that is given
/// (the library's own asserts that no clock stands before 1970).
fn signature_alone(algorithm: jsonwebtoken::Algorithm) -> Validation {
    let mut validation = Validation::new(algorithm);
    validation.required_spec_claims.clear();
    validation.validate_exp = false;
    validation.validate_aud = false;
    validation
}

fn stamp(path: &Path) -> Option<Stamp> {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len(), metadata.ino()))
}

#[cfg(test)]
pub(super) mod tests;
