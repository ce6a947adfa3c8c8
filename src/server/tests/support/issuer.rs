//! The operator's own system: it makes keys, publishes them, and signs what it is told to sign.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::rsa::{KeyPair as RsaKeyPair, PublicKeyComponents};
use ring::signature::{Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256};
use serde_json::{Value, json};

/// An RSA private key of 2,048 bits in PKCS #8, for these tests alone.
const RSA_PKCS8: &[u8] = include_bytes!("../testdata/rsa-2048.pkcs8.der");

/// Its public key in PEM.
pub const RSA_PEM: &str = include_str!("../testdata/rsa-2048.pub.pem");

/// Who the tokens are from, and for whom.
pub const ISSUER: &str = "https://id.example";
pub const AUDIENCE: &str = "tern";

pub struct Issuer {
    folder: tempfile::TempDir,
    ed: Ed25519KeyPair,
    rsa: RsaKeyPair,
}

impl Issuer {
    /// One with a fresh Ed25519 key and the RSA key of all tests; both are published.
    pub fn new() -> Self {
        let fresh = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).expect("a key");
        let ed = Ed25519KeyPair::from_pkcs8(fresh.as_ref()).expect("a key");
        let rsa = RsaKeyPair::from_pkcs8(RSA_PKCS8).expect("a key");
        let issuer = Self { folder: tempfile::tempdir().expect("a folder"), ed, rsa };
        issuer.publish(&issuer.key_set());
        issuer
    }

    /// The file of the keys.
    pub fn file(&self) -> PathBuf {
        self.folder.path().join("keys")
    }

    /// Puts another file in its place, as a careful operator does.
    pub fn publish(&self, text: &str) {
        let fresh = self.folder.path().join("fresh");
        std::fs::write(&fresh, text).expect("written");
        std::fs::rename(fresh, self.file()).expect("in place");
    }

    /// Both keys, and two that are for other things.
    pub fn key_set(&self) -> String {
        let PublicKeyComponents { n, e } = PublicKeyComponents::<Vec<u8>>::from(self.rsa.public());
        let keys = json!({ "keys": [
            { "kty": "OKP", "crv": "Ed25519", "kid": "ed", "use": "sig", "alg": "EdDSA",
              "x": base64(self.ed_public()) },
            { "kty": "RSA", "kid": "rsa", "use": "sig",
              "n": base64(&n), "e": base64(e) },
            { "kty": "RSA", "kid": "for-encryption", "use": "enc", "n": base64(n), "e": "AQAB" },
            { "kty": "EC", "crv": "P-256", "kid": "p256", "x": base64([1; 32]),
              "y": base64([2; 32]) },
        ] });
        keys.to_string()
    }

    /// The public half of the Ed25519 key.
    pub fn ed_public(&self) -> &[u8] {
        self.ed.public_key().as_ref()
    }

    /// A token over these two parts, by RS256 if the header's `alg` says so, else by EdDSA.
    pub fn sign(&self, header: &Value, claims: &Value) -> String {
        match header["alg"].as_str() {
            Some("RS256") => self.sign_by_rsa(header, claims),
            _ => self.sign_by_ed(header, claims),
        }
    }

    /// A token signed by the Ed25519 key, whatever the header says.
    pub fn sign_by_ed(&self, header: &Value, claims: &Value) -> String {
        self.sign_text(&header.to_string(), &claims.to_string())
    }

    /// The same over texts that need not be JSON.
    pub fn sign_text(&self, header: &str, claims: &str) -> String {
        let message = format!("{}.{}", base64(header), base64(claims));
        let signature = self.ed.sign(message.as_bytes());
        format!("{message}.{}", base64(signature))
    }

    /// A token signed by the RSA key, whatever the header says.
    pub fn sign_by_rsa(&self, header: &Value, claims: &Value) -> String {
        let message = format!("{}.{}", part(header), part(claims));
        let mut signature = vec![0; self.rsa.public().modulus_len()];
        self.rsa
            .sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message.as_bytes(), &mut signature)
            .expect("signed");
        format!("{message}.{}", base64(signature))
    }
}

/// A token by HMAC with a secret that everybody knows.
pub fn sign_by_hmac(header: &Value, claims: &Value, secret: &[u8]) -> String {
    let message = format!("{}.{}", part(header), part(claims));
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, secret);
    let signature = ring::hmac::sign(&key, message.as_bytes());
    format!("{message}.{}", base64(signature))
}

/// A token without a signature.
pub fn unsigned(header: &Value, claims: &Value) -> String {
    format!("{}.{}.", part(header), part(claims))
}

/// The header of a token by the Ed25519 key.
pub fn ed() -> Value {
    json!({ "alg": "EdDSA", "kid": "ed", "typ": "JWT" })
}

/// The header of a token by the RSA key.
pub fn rs256() -> Value {
    json!({ "alg": "RS256", "kid": "rsa" })
}

/// Good claims of a device, for the next five minutes.
pub fn claims_of(user: &str, device: &str) -> Value {
    json!({
        "iss": ISSUER, "aud": AUDIENCE, "sub": user, "device": device,
        "exp": seconds_from_now(300),
    })
}

pub fn with(mut object: Value, key: &str, value: Value) -> Value {
    object[key] = value;
    object
}

pub fn without(mut object: Value, key: &str) -> Value {
    object.as_object_mut().expect("an object").remove(key);
    object
}

/// Seconds since 1970, so many from now.
pub fn seconds_from_now(seconds: i64) -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970").as_secs();
    i64::try_from(now).expect("it fits") + seconds
}

/// The options of a server that takes this issuer's tokens and adds who is new.
pub fn options(keys: &Path) -> Vec<String> {
    let keys = keys.to_str().expect("text");
    let options = [("keys", keys), ("issuer", ISSUER), ("audience", AUDIENCE), ("adds", "users")];
    options.iter().map(|(name, value)| format!("--token-{name}={value}")).collect()
}

fn part(value: &Value) -> String {
    base64(value.to_string())
}

/// As RFC 7515 has it: the alphabet for URLs, no padding.
fn base64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}
