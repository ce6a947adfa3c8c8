//! Who the server is: its certificate by pin, or by certificate roots.

use std::sync::Arc;

use quinn::crypto::rustls::QuicClientConfig;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, ring, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, PeerIncompatible, RootCertStore,
    SignatureScheme,
};
use tern_protocol::limits::ALPN;

use super::{ConnectError, keylog};

/// By what the server's certificate is trusted.
#[derive(Clone, Debug)]
pub enum Trust {
    /// The SHA-256 of the very certificate; names and dates in it do not matter.
    Pin([u8; 32]),
    /// These certificate authorities, for the host's name.
    Roots(Vec<CertificateDer<'static>>),
    /// The certificate authorities that the operating system trusts, for the host's name.
    System,
}

/// The TLS side of a QUIC client: TLS 1.3 alone, our protocol alone.
pub(super) fn client_config(trust: &Trust) -> Result<QuicClientConfig, ConnectError> {
    let provider = Arc::new(provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(ConnectError::Tls)?;
    let mut config = match trust {
        Trust::Pin(pin) => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(PinVerifier::new(*pin, &provider))),
        Trust::Roots(roots) => builder.with_root_certificates(store(roots)?),
        Trust::System => builder.with_root_certificates(store(&system_roots()?)?),
    }
    .with_no_client_auth();
    config.alpn_protocols = vec![ALPN.to_vec()];
    if let Some(log) = keylog::from_environment() {
        config.key_log = log;
    }
    Ok(QuicClientConfig::try_from(config).expect("the provider has the suite of QUIC's initials"))
}

/// ring's primitives with AES-128-GCM first: 0.1 µs for a small packet where the processor has
/// AES. The server goes by its own order, ChaCha20 first for who says so by leaving AES behind.
fn provider() -> CryptoProvider {
    use ring::cipher_suite::{TLS13_AES_128_GCM_SHA256, TLS13_CHACHA20_POLY1305_SHA256};
    let mut cipher_suites = vec![TLS13_AES_128_GCM_SHA256, TLS13_CHACHA20_POLY1305_SHA256];
    if !has_aes() {
        cipher_suites.reverse();
    }
    CryptoProvider { cipher_suites, ..ring::default_provider() }
}

#[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
fn has_aes() -> bool {
    std::arch::is_x86_feature_detected!("aes")
}

#[cfg(target_arch = "aarch64")]
fn has_aes() -> bool {
    std::arch::is_aarch64_feature_detected!("aes")
}

#[cfg(not(any(target_arch = "x86", target_arch = "x86_64", target_arch = "aarch64")))]
fn has_aes() -> bool {
    false
}

fn system_roots() -> Result<Vec<CertificateDer<'static>>, ConnectError> {
    let loaded = rustls_native_certs::load_native_certs();
    if loaded.certs.is_empty() {
        return Err(ConnectError::NoRoots);
    }
    Ok(loaded.certs)
}

fn store(roots: &[CertificateDer<'static>]) -> Result<RootCertStore, ConnectError> {
    let mut store = RootCertStore::empty();
    // Systems carry some certificates that are malformed; one good one is enough to go on.
    let (good, _) = store.add_parsable_certificates(roots.iter().cloned());
    if good == 0 { Err(ConnectError::NoRoots) } else { Ok(store) }
}

/// Trusts one certificate, and still demands that the server holds its key.
#[derive(Debug)]
struct PinVerifier {
    pin: [u8; 32],
    algorithms: WebPkiSupportedAlgorithms,
}

impl PinVerifier {
    fn new(pin: [u8; 32], provider: &CryptoProvider) -> Self {
        Self { pin, algorithms: provider.signature_verification_algorithms }
    }
}

impl ServerCertVerifier for PinVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if certificate_pin(end_entity) == self.pin {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(CertificateError::ApplicationVerificationFailure.into())
        }
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(PeerIncompatible::Tls12NotOffered.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// The pin of a certificate: the SHA-256 of its DER bytes.
pub fn certificate_pin(certificate: &[u8]) -> [u8; 32] {
    ::ring::digest::digest(&::ring::digest::SHA256, certificate)
        .as_ref()
        .try_into()
        .expect("a SHA-256 has 32 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_pinned_certificate_passes() {
        let certificate = CertificateDer::from(b"any bytes serve as one here".to_vec());
        let name = ServerName::try_from("tern").unwrap();
        let verify = |pin| {
            let now = UnixTime::since_unix_epoch(std::time::Duration::ZERO);
            PinVerifier::new(pin, &provider()).verify_server_cert(
                &certificate,
                &[],
                &name,
                &[],
                now,
            )
        };
        let pin = certificate_pin(&certificate);
        assert!(verify(pin).is_ok());
        let mut wrong = pin;
        wrong[31] ^= 1;
        assert!(verify(wrong).is_err());
    }

    #[test]
    fn aes_128_or_chacha_leads_and_nothing_slower_is_offered() {
        let suites = provider().cipher_suites;
        assert_eq!(suites.len(), 2);
        assert_eq!(
            suites[0].suite(),
            if has_aes() {
                rustls::CipherSuite::TLS13_AES_128_GCM_SHA256
            } else {
                rustls::CipherSuite::TLS13_CHACHA20_POLY1305_SHA256
            }
        );
    }
}
