//! The operator's public keys, from one file: a JSON Web Key Set, or keys in PEM.
//!
//! Comes in: the file's text. Goes out: the keys that can check a token, each with the one
//! algorithm it is for. Keys for anything else are left out; a file without a key for tokens is
//! an error, so that a mistake does not look like a set that refuses everybody.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use jsonwebtoken::jwk::{
    AlgorithmParameters, EllipticCurve, Jwk, JwkSet, KeyAlgorithm, KeyOperations, PublicKeyUse,
};
use jsonwebtoken::{Algorithm, DecodingKey, DecodingKeyKind};
use serde_json::Value;

/// Largest file in bytes: far above any set of keys, and far below what a start would notice.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Most keys of a file: a token that names none is tried with each, at some 30 µs.
const KEYS_MAX: usize = 64;

/// Least bytes of an RSA modulus: 2,048 bits.
const MODULUS_BYTES_MIN: usize = 256;

/// Bytes of an Ed25519 public key (RFC 8032).
const ED25519_BYTES: usize = 32;

/// Where a PEM block begins.
const PEM_BEGIN: &str = "-----BEGIN ";

/// The PEM blocks that hold a public key and nothing else; a certificate would bring promises
/// (an end, a purpose) that nobody checks here.
const PEM_LABELS: [&str; 2] = ["PUBLIC KEY-----", "RSA PUBLIC KEY-----"];

/// What is said of a private key, in whichever form.
const PRIVATE: &str = "a private key has no business here; write the public one";

/// Why there are no keys.
#[derive(Debug)]
pub enum KeysError {
    /// The file can't be read.
    Io(PathBuf, io::Error),
    /// It is too large to be a set of keys.
    TooLarge(PathBuf),
    /// It is neither a set of keys nor PEM, or has a key that is none.
    Content(PathBuf, String),
    /// It has no key that can check a token.
    NoKey(PathBuf),
}

impl fmt::Display for KeysError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(path, error) => {
                write!(f, "the keys {} can't be read: {error}", path.display())
            }
            Self::TooLarge(path) => write!(
                f,
                "the keys {}: the file has more than {FILE_BYTES_MAX} bytes",
                path.display()
            ),
            Self::Content(path, error) => write!(
                f,
                "the keys {}: {error}; write a JSON Web Key Set, or public keys in PEM",
                path.display()
            ),
            Self::NoKey(path) => write!(
                f,
                "the keys {}: none is an Ed25519 or RSA public key for signatures (RSA: of 2,048 \
                 bits or more, for RS256)",
                path.display()
            ),
        }
    }
}

impl std::error::Error for KeysError {}

/// A key that can check tokens.
pub(super) struct Key {
    id: Option<String>,
    pub(super) algorithm: Algorithm,
    pub(super) key: DecodingKey,
}

/// The keys of a file.
pub(super) struct Keys(Vec<Key>);

impl Keys {
    /// Reads the file.
    pub(super) fn load(path: &Path) -> Result<Self, KeysError> {
        let text = read(path).map_err(|error| KeysError::Io(path.to_owned(), error))?;
        let text = text.ok_or_else(|| KeysError::TooLarge(path.to_owned()))?;
        let keys = match text.contains(PEM_BEGIN) {
            true => pem(&text),
            false => key_set(&text),
        };
        let keys = keys.map_err(|error| KeysError::Content(path.to_owned(), error))?;
        match keys.len() {
            0 => Err(KeysError::NoKey(path.to_owned())),
            1..=KEYS_MAX => Ok(Self(keys)),
            count => {
                let reason = format!("{count} keys are more than the {KEYS_MAX} allowed");
                Err(KeysError::Content(path.to_owned(), reason))
            }
        }
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.0.len()
    }

    /// The keys that a token of this header may be signed by: those of its `kid`, or where a key
    /// or the token has none, all; of its algorithm alone.
    pub(super) fn candidates<'a>(
        &'a self,
        id: Option<&'a str>,
        algorithm: Algorithm,
    ) -> impl Iterator<Item = &'a Key> {
        self.0.iter().filter(move |key| key.algorithm == algorithm && key.may_be(id))
    }

    /// Whether there is a key of this `kid`, for whatever algorithm.
    pub(super) fn knows(&self, id: Option<&str>) -> bool {
        self.0.iter().any(|key| key.may_be(id))
    }
}

impl Key {
    fn new(id: Option<String>, algorithm: Algorithm, key: DecodingKey) -> Result<Self, String> {
        match key.kind() {
            DecodingKeyKind::RsaModulusExponent { n: bytes, .. }
            | DecodingKeyKind::SecretOrDer(bytes)
                if algorithm == Algorithm::RS256 && bytes.len() < MODULUS_BYTES_MIN =>
            {
                Err("it has fewer than 2,048 bits".to_owned())
            }
            DecodingKeyKind::SecretOrDer(bytes)
                if algorithm == Algorithm::EdDSA && bytes.len() != ED25519_BYTES =>
            {
                Err(format!("it has not the {ED25519_BYTES} bytes of an Ed25519 key"))
            }
            _ => Ok(Self { id, algorithm, key }),
        }
    }

    fn may_be(&self, id: Option<&str>) -> bool {
        match (id, self.id.as_deref()) {
            (Some(id), Some(own)) => id == own,
            (None, _) | (_, None) => true,
        }
    }
}

/// The file's text; `None` if it is too large. A pipe would hold the reader for ever.
fn read(path: &Path) -> io::Result<Option<String>> {
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no file"));
    }
    let mut text = String::new();
    File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_string(&mut text)?;
    Ok(Some(text).filter(|text| text.len() as u64 <= FILE_BYTES_MAX))
}

fn key_set(text: &str) -> Result<Vec<Key>, String> {
    let set: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let keys = set.get("keys").and_then(Value::as_array);
    if keys.is_some_and(|keys| keys.iter().any(|key| key.get("d").is_some())) {
        return Err(PRIVATE.to_owned());
    }
    let set: JwkSet = serde_json::from_value(set).map_err(|error| error.to_string())?;
    set.keys.iter().filter_map(|jwk| Some((jwk, algorithm(jwk)?))).map(key).collect()
}

/// What a key of a set is for; `None` if that is not the signatures of our tokens.
fn algorithm(jwk: &Jwk) -> Option<Algorithm> {
    let common = &jwk.common;
    let (use_, operations) = (&common.public_key_use, &common.key_operations);
    if use_.as_ref().is_some_and(|use_| *use_ != PublicKeyUse::Signature)
        || operations.as_ref().is_some_and(|may| !may.contains(&KeyOperations::Verify))
    {
        return None;
    }
    match (&jwk.algorithm, common.key_algorithm) {
        (AlgorithmParameters::OctetKeyPair(pair), None | Some(KeyAlgorithm::EdDSA))
            if pair.curve == EllipticCurve::Ed25519 =>
        {
            Some(Algorithm::EdDSA)
        }
        (AlgorithmParameters::RSA(_), None | Some(KeyAlgorithm::RS256)) => Some(Algorithm::RS256),
        _ => None,
    }
}

fn key((jwk, algorithm): (&Jwk, Algorithm)) -> Result<Key, String> {
    let id = jwk.common.key_id.clone();
    let name = id.clone().unwrap_or_else(|| "without kid".to_owned());
    DecodingKey::from_jwk(jwk)
        .map_err(|error| error.to_string())
        .and_then(|key| Key::new(id, algorithm, key))
        .map_err(|error| format!("key {name}: {error}"))
}

/// All public keys of a PEM text; none of them has an id.
fn pem(text: &str) -> Result<Vec<Key>, String> {
    let blocks = text.split(PEM_BEGIN).skip(1);
    blocks.map(pem_key).collect()
}

/// The key of a block that lost its beginning to the cut.
fn pem_key(block: &str) -> Result<Key, String> {
    if block.contains("PRIVATE KEY") {
        return Err(PRIVATE.to_owned());
    }
    if !PEM_LABELS.iter().any(|label| block.starts_with(label)) {
        return Err("a PEM block is something else than a public key".to_owned());
    }
    let block = format!("{PEM_BEGIN}{block}");
    let (ed, rsa) = (DecodingKey::from_ed_pem, DecodingKey::from_rsa_pem);
    match (ed(block.as_bytes()), rsa(block.as_bytes())) {
        (Ok(key), _) => Key::new(None, Algorithm::EdDSA, key),
        (_, Ok(key)) => Key::new(None, Algorithm::RS256, key),
        (Err(error), Err(_)) => Err(format!("a PEM block is no public key: {error}")),
    }
}
