//! The server's certificate: self-signed and made once, or the operator's own in its place.
//!
//! Key and certificates stand in one file, so that no crash can leave one without the other. The
//! pin is the SHA-256 of the first certificate; it changes only when the file does.

use std::path::Path;

use ring::digest::{SHA256, digest};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tern_client::hex;

use super::{FolderError, read, write_private};

/// Names that every self-signed certificate has.
const NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// Who the server is to its clients.
#[derive(Debug)]
pub struct Identity {
    /// The server's certificate, then those that lead to its root, if any.
    pub chain: Vec<CertificateDer<'static>>,
    /// The key of the first.
    pub key: PrivateKeyDer<'static>,
}

impl Clone for Identity {
    fn clone(&self) -> Self {
        Self { chain: self.chain.clone(), key: self.key.clone_key() }
    }
}

impl Identity {
    pub(super) fn load_or_make(folder: &Path, names: &[String]) -> Result<Self, FolderError> {
        let path = folder.join("certificate.pem");
        let content = |reason| FolderError::Content { path: path.clone(), reason };
        let pem = match read(&path)? {
            Some(pem) => pem,
            None => {
                let pem = make(names).map_err(|error| {
                    content(format!("can't be made: {error}; is every name of --name valid?"))
                })?;
                write_private(&path, pem.as_bytes())?;
                pem.into_bytes()
            }
        };
        parse(&pem).map_err(content)
    }

    /// SHA-256 of the server's certificate as 64 hex digits: what a client pins.
    pub fn pin(&self) -> String {
        hex::encode(digest(&SHA256, &self.chain[0]).as_ref())
    }
}

/// A fresh P-256 key and a certificate that it signed itself. It does not expire: clients trust
/// it by its pin, and what would renew it is absent.
fn make(names: &[String]) -> Result<String, rcgen::Error> {
    let names: Vec<String> =
        NAMES.iter().map(|&name| name.to_owned()).chain(names.iter().cloned()).collect();
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
    let mut params = rcgen::CertificateParams::new(names)?;
    params.distinguished_name.push(rcgen::DnType::CommonName, "Tern server");
    Ok(key.serialize_pem() + &params.self_signed(&key)?.pem())
}

fn parse(pem: &[u8]) -> Result<Identity, String> {
    let advice = "put the key and the certificates into the file, or remove it and a new \
                  self-signed certificate is made, with a new pin";
    let key = PrivateKeyDer::from_pem_slice(pem)
        .map_err(|error| format!("there is no private key in it ({error}); {advice}"))?;
    let chain: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|error| format!("a certificate in it can't be read ({error}); {advice}"))?;
    if chain.is_empty() {
        return Err(format!("there is no certificate in it; {advice}"));
    }
    Ok(Identity { chain, key })
}

#[cfg(test)]
mod tests {
    use super::super::DataFolder;
    use super::*;

    #[test]
    fn made_once_with_the_names() {
        let parent = tempfile::tempdir().expect("a folder");
        let folder = DataFolder::open(parent.path()).expect("made");
        let identity = folder.identity(&["tern.example".to_owned()]).expect("made");
        let again = folder.identity(&[]).expect("read");
        assert_eq!(identity.pin(), again.pin());
        assert_eq!(identity.pin().len(), 64);
        for name in ["localhost", "tern.example"] {
            let der = &again.chain[0];
            let has = der.windows(name.len()).any(|bytes| bytes == name.as_bytes());
            assert!(has, "{name} is in the certificate");
        }
        assert!(again.chain[0].len() < 1_000, "it fits the first datagrams of a handshake");
    }

    #[test]
    fn rustls_takes_it() {
        let parent = tempfile::tempdir().expect("a folder");
        let folder = DataFolder::open(parent.path()).expect("made");
        let Identity { chain, key } = folder.identity(&[]).expect("made");
        let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
        rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("TLS 1.3")
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .expect("key and certificate fit");
    }

    #[test]
    fn a_broken_file_is_not_replaced() {
        let parent = tempfile::tempdir().expect("a folder");
        let folder = DataFolder::open(parent.path()).expect("made");
        let path = parent.path().join("certificate.pem");
        std::fs::write(&path, "nothing").expect("written");
        let error = folder.identity(&[]).expect_err("no key");
        assert!(error.to_string().contains("no private key"), "{error}");
        assert_eq!(std::fs::read(&path).expect("there"), b"nothing");
    }
}
