//! Device secrets: 256 random bits, of which the directory keeps a salted SHA-256 only.
//!
//! A slow password hash would add nothing: the secret is no password but a key, too long to be
//! guessed from its hash.

use std::fmt;

use ring::digest::{Context, SHA256};
use subtle::ConstantTimeEq;
use tern_client::hex;
use tern_protocol::limits::SECRET_BYTES;

use crate::folder::random;

/// Bytes of a salt and of a hash, so that both stand as 64 hex digits.
const HASH_BYTES: usize = 32;

/// A device's secret in the clear: only on its way to the profile.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub [u8; SECRET_BYTES]);

impl Secret {
    /// A fresh one.
    pub fn random() -> Self {
        Self(random())
    }

    /// As it stands in a profile.
    pub fn to_hex(&self) -> String {
        hex::encode(&self.0)
    }
}

impl fmt::Debug for Secret {
    /// Without the secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// What the directory keeps of a secret.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hash {
    salt: [u8; HASH_BYTES],
    hash: [u8; HASH_BYTES],
}

impl Hash {
    /// Of a secret, with a fresh salt.
    pub fn of(secret: &Secret) -> Self {
        let salt = random();
        Self { salt, hash: salted(&salt, &secret.0) }
    }

    /// Of no secret that anyone knows: compared where there is no device, so that the answer
    /// takes as long as for one that exists.
    pub fn of_nobody() -> Self {
        Self { salt: [0; HASH_BYTES], hash: [0; HASH_BYTES] }
    }

    /// From the directory's columns.
    pub fn from_hex(salt: &str, hash: &str) -> Result<Self, hex::HexError> {
        Ok(Self { salt: hex::decode(salt)?, hash: hex::decode(hash)? })
    }

    /// For the directory's columns: salt, hash.
    pub fn to_hex(&self) -> (String, String) {
        (hex::encode(&self.salt), hex::encode(&self.hash))
    }

    /// Whether the secret is the one; takes the same time for any.
    pub fn matches(&self, secret: &Secret) -> bool {
        salted(&self.salt, &secret.0).ct_eq(&self.hash).into()
    }
}

fn salted(salt: &[u8], secret: &[u8]) -> [u8; HASH_BYTES] {
    let mut context = Context::new(&SHA256);
    context.update(salt);
    context.update(secret);
    context.finish().as_ref().try_into().expect("a SHA-256 has 32 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_secret_itself_matches() {
        let secret = Secret::random();
        let hash = Hash::of(&secret);
        assert!(hash.matches(&secret));
        for bit in 0..SECRET_BYTES * 8 {
            let mut other = secret.clone();
            other.0[bit / 8] ^= 1 << (bit % 8);
            assert!(!hash.matches(&other), "bit {bit}");
        }
        assert!(!Hash::of_nobody().matches(&secret));
    }

    #[test]
    fn salted_and_kept_as_text() {
        let secret = Secret::random();
        let (one, two) = (Hash::of(&secret), Hash::of(&secret));
        assert_ne!(one, two, "each has its own salt");
        let (salt, hash) = one.to_hex();
        assert_eq!(Hash::from_hex(&salt, &hash), Ok(one));
        assert!(!hash.contains(&secret.to_hex()));
        assert!(!format!("{secret:?}").contains(&secret.to_hex()));
    }
}
