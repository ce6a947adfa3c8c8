//! The TLS secrets of this process's connections, appended to the file that `SSLKEYLOGFILE` names,
//! as browsers do: with them `wirecat` and Wireshark read captures.

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use rustls::KeyLog;

/// The variable that browsers, curl and others go by too.
const VARIABLE: &str = "SSLKEYLOGFILE";

/// Where the secrets go, if anywhere: the process opens the file once, and warns once.
pub(super) fn from_environment() -> Option<Arc<dyn KeyLog>> {
    static LOG: OnceLock<Option<Arc<SecretsFile>>> = OnceLock::new();
    let log = LOG.get_or_init(|| open(std::env::var_os(VARIABLE).as_deref()));
    log.clone().map(|log| log as Arc<dyn KeyLog>)
}

fn open(path: Option<&OsStr>) -> Option<Arc<SecretsFile>> {
    let path = Path::new(path.filter(|path| !path.is_empty())?);
    match SecretsFile::open(path) {
        Ok(log) => {
            tracing::warn!(
                file = %path.display(),
                "NOTHING THAT THIS CLIENT SAYS IS PRIVATE: SSLKEYLOGFILE is set, so the TLS \
                 secrets of its connections go to this file; unset it unless you debug"
            );
            Some(Arc::new(log))
        }
        Err(error) => {
            let file = path.display();
            tracing::warn!(%file, %error, "SSLKEYLOGFILE can't be written; no secrets are logged");
            None
        }
    }
}

/// A file in the format of NSS.
#[derive(Debug)]
struct SecretsFile(Mutex<File>);

impl SecretsFile {
    /// Readable by its owner only, if it is made here.
    fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
        Ok(Self(Mutex::new(file)))
    }
}

impl KeyLog for SecretsFile {
    fn log(&self, label: &str, client_random: &[u8], secret: &[u8]) {
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let line = format!("{label} {} {}\n", hex(client_random), hex(secret));
        let mut file = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = file.write_all(line.as_bytes()) {
            tracing::warn!(%error, "a line of SSLKEYLOGFILE was not written");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn secrets_go_where_the_variable_says_and_only_there() {
        assert!(open(None).is_none() && open(Some(OsStr::new(""))).is_none());
        assert!(open(Some(OsStr::new("/no/such/folder/keys"))).is_none());
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys");
        let log = open(Some(path.as_os_str())).unwrap();
        log.log("CLIENT_TRAFFIC_SECRET_0", &[1, 0xab], &[0xff]);
        log.log("SERVER_TRAFFIC_SECRET_0", &[2], &[3]);
        assert_eq!(
            std::fs::read_to_string(&path).unwrap(),
            "CLIENT_TRAFFIC_SECRET_0 01ab ff\nSERVER_TRAFFIC_SECRET_0 02 03\n"
        );
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
