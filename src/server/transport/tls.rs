//! TLS for QUIC: version 1.3 only, one ALPN protocol, no early data.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tern_protocol::limits::ALPN;
use tern_quic::keys;

/// Tickets that a client gets for later resumption (142 µs of CPU instead of 212 a handshake).
/// One: a device resumes one connection after another, and each ticket costs a datagram's room.
const TICKETS: usize = 1;

/// Why TLS can't be set up.
#[derive(Debug)]
pub enum TlsError {
    /// The certificate and the key do not fit each other, or one is unusable.
    Certificate(rustls::Error),
    /// The key log can't be written.
    KeyLog(PathBuf, io::Error),
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Certificate(source) => write!(
                f,
                "the certificate and its key cannot be used: {source}; check that they belong \
                 together"
            ),
            Self::KeyLog(path, source) => {
                write!(f, "cannot write the key log {}: {source}", path.display())
            }
        }
    }
}

impl std::error::Error for TlsError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Certificate(source) => Some(source),
            Self::KeyLog(_, source) => Some(source),
        }
    }
}

/// The cryptography of this server: AES-128-GCM before ChaCha20 (a phone without AES instructions
/// asks for the latter by itself), with keys that rest folded.
pub fn provider() -> CryptoProvider {
    CryptoProvider { cipher_suites: keys::suites(), ..ring::default_provider() }
}

/// The TLS settings of all workers. With `key_log`, the secrets of every connection are appended
/// to that file, for a capture decoder: whoever reads it reads all traffic.
///
/// # Errors
/// When the certificate does not fit the key, or the key log can't be opened.
pub fn server_config(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    key_log: Option<&Path>,
) -> Result<rustls::ServerConfig, TlsError> {
    let mut config = rustls::ServerConfig::builder_with_provider(Arc::new(provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(TlsError::Certificate)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(TlsError::Certificate)?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    // 0-RTT off: early data can be replayed, and nothing here fences it yet.
    config.max_early_data_size = 0;
    config.send_half_rtt_data = false;
    config.ticketer = ring::Ticketer::new().map_err(TlsError::Certificate)?;
    config.send_tls13_tickets = TICKETS;
    config.max_fragment_size = None; // QUIC has no TLS records
    // The ring provider's order decides, not the client's: `ignore_client_order` stays off so
    // that a phone without AES gets ChaCha20.
    config.ignore_client_order = false;
    if let Some(path) = key_log {
        tracing::warn!(
            file = %path.display(),
            "NO TRAFFIC OF THIS SERVER IS PRIVATE: the TLS secrets of all connections go to this \
             file, and whoever reads it reads every message; run without --keylog for real users"
        );
        config.key_log = Arc::new(KeyLog::open(path)?);
    }
    Ok(config)
}

/// Appends secrets to a file in the format of NSS, as `SSLKEYLOGFILE` does.
struct KeyLog {
    file: Mutex<File>,
}

impl KeyLog {
    fn open(path: &Path) -> Result<Self, TlsError> {
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(path)
            .map_err(|source| TlsError::KeyLog(path.to_owned(), source))?;
        Ok(Self { file: Mutex::new(file) })
    }
}

impl rustls::KeyLog for KeyLog {
    fn log(&self, label: &str, client_random: &[u8], secret: &[u8]) {
        let line = format!("{label} {} {}\n", hex(client_random), hex(secret));
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = file.write_all(line.as_bytes()) {
            tracing::warn!(%error, "a line of the key log was not written");
        }
    }
}

impl fmt::Debug for KeyLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyLog")
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::{CipherSuite, KeyLog as _};

    #[test]
    fn aes_128_comes_first_and_aes_256_not_at_all() {
        let suites: Vec<_> = provider().cipher_suites.iter().map(|suite| suite.suite()).collect();
        assert_eq!(
            suites,
            [CipherSuite::TLS13_AES_128_GCM_SHA256, CipherSuite::TLS13_CHACHA20_POLY1305_SHA256]
        );
    }

    #[test]
    fn the_key_log_has_a_line_per_secret() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("keys");
        let log = KeyLog::open(&path).expect("a new file");
        log.log("CLIENT_TRAFFIC_SECRET_0", &[1, 0xab], &[0xff]);
        log.log("SERVER_TRAFFIC_SECRET_0", &[2], &[3]);
        let lines = std::fs::read_to_string(&path).expect("the file");
        assert_eq!(lines, "CLIENT_TRAFFIC_SECRET_0 01ab ff\nSERVER_TRAFFIC_SECRET_0 02 03\n");
    }
}
