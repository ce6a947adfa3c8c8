//! QUIC and TLS as a device of the load has them: the settings of the SDK as far as the server
//! can notice them, and a certificate known by its pin.

use std::sync::Arc;
use std::time::Duration;

use quinn_proto::crypto::rustls::QuicClientConfig;
use quinn_proto::{ClientConfig, IdleTimeout, TransportConfig, VarInt};
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, ring, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, CipherSuite, DigitallySignedStruct, PeerIncompatible, SignatureScheme,
};
use tern_protocol::limits::ALPN;

/// Silence in ms after which QUIC gives a connection up: three of the longest heartbeats by
/// default, as in the SDK.
const IDLE_MS: u32 = 90_000;

/// First guess of the round trip, as in the SDK.
const INITIAL_RTT: Duration = Duration::from_millis(100);

/// Bytes that the server may send ahead, as in the SDK.
const RECEIVE_WINDOW_BYTES: u32 = 256 << 10;

/// Bytes of datagrams that may wait to be read, as in the SDK.
const DATAGRAMS_IN_BYTES: usize = 512 << 10;

/// Whether TLS keeps tickets to resume by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tickets {
    /// Every connection is a full handshake.
    None,
    /// Up to this many devices keep theirs, each under a name of its own.
    OnePerDevice(usize),
}

/// The settings of every connection to a server whose certificate has this SHA-256.
pub fn client_config(pin: [u8; 32], tickets: Tickets) -> ClientConfig {
    let mut provider = ring::default_provider();
    provider.cipher_suites.retain(|suite| suite.suite() == CipherSuite::TLS13_AES_128_GCM_SHA256);
    let algorithms = provider.signature_verification_algorithms;
    let provider: Arc<CryptoProvider> = Arc::new(provider);
    let mut tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("the provider has a suite of TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Pinned { pin, algorithms }))
        .with_no_client_auth();
    tls.alpn_protocols = vec![ALPN.to_vec()];
    tls.resumption = match tickets {
        Tickets::None => Resumption::disabled(),
        Tickets::OnePerDevice(devices) => Resumption::in_memory_sessions(devices),
    };
    let crypto = QuicClientConfig::try_from(tls).expect("the provider has AES-128-GCM");
    let mut config = ClientConfig::new(Arc::new(crypto));
    config.transport_config(Arc::new(transport()));
    config
}

fn transport() -> TransportConfig {
    let mut transport = TransportConfig::default();
    transport
        .initial_rtt(INITIAL_RTT)
        .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(IDLE_MS))))
        .keep_alive_interval(None)
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .stream_receive_window(VarInt::from_u32(RECEIVE_WINDOW_BYTES))
        .receive_window(VarInt::from_u32(RECEIVE_WINDOW_BYTES))
        .mtu_discovery_config(None)
        .datagram_receive_buffer_size(Some(DATAGRAMS_IN_BYTES));
    transport
}

/// Trusts one certificate, and still demands that the server holds its key.
#[derive(Debug)]
struct Pinned {
    pin: [u8; 32],
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let digest = ::ring::digest::digest(&::ring::digest::SHA256, end_entity);
        if digest.as_ref() == self.pin {
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
