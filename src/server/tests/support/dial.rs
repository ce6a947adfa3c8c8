//! How the test's client connects: QUIC and TLS as a test wants them, trusting whoever answers.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::sync::Arc;

use bytes::Bytes;
use quinn_proto::congestion::CubicConfig;
use quinn_proto::crypto::rustls::QuicClientConfig;
use quinn_proto::{
    ClientConfig, ConnectionId, Endpoint, EndpointConfig, RandomConnectionIdGenerator, TokenStore,
    TransportConfig, VarInt,
};
use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, SignatureScheme};
use tern_protocol::limits::ALPN;

/// How a connection is made, where a test wants it otherwise than an honest client.
pub struct Dial {
    pub from: IpAddr,
    pub alpn: &'static [u8],
    /// Bytes that the server may send before the test reads them.
    pub window: u32,
    /// A token for the first packet.
    pub token: Option<Bytes>,
    /// The worker that should serve the connection, of two.
    pub worker: Option<u8>,
    /// Bytes that may be under way before the server has acknowledged any.
    pub flight: u64,
    /// Bytes of the connection ids by which the client is addressed.
    pub id_bytes: usize,
}

impl Default for Dial {
    fn default() -> Self {
        Self {
            from: Ipv4Addr::LOCALHOST.into(),
            alpn: ALPN,
            window: 1 << 20,
            token: None,
            worker: None,
            flight: 14_720, // RFC 9002 §7.2
            id_bytes: 8,
        }
    }
}

impl Dial {
    /// The settings of QUIC and TLS.
    pub fn config(&self) -> ClientConfig {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyServer))
            .with_no_client_auth();
        tls.alpn_protocols = vec![self.alpn.to_vec()];
        let mut config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
        config.transport_config(Arc::new(self.transport()));
        if let Some(token) = &self.token {
            config.token_store(Arc::new(OneToken(token.clone())));
        }
        if let Some(worker) = self.worker {
            config.initial_dst_cid_provider(Arc::new(move || id_for(worker)));
        }
        config
    }

    fn transport(&self) -> TransportConfig {
        let window = VarInt::from_u32(self.window);
        let mut congestion = CubicConfig::default();
        congestion.initial_window(self.flight);
        let mut transport = TransportConfig::default();
        transport
            .max_idle_timeout(None)
            .stream_receive_window(window)
            .receive_window(window)
            .mtu_discovery_config(None)
            .congestion_controller_factory(Arc::new(congestion));
        transport
    }
}

/// An endpoint without connections, addressed by ids of this many bytes.
pub fn endpoint(id_bytes: usize) -> Endpoint {
    let key = hmac::Key::new(hmac::HMAC_SHA256, &random::<32>());
    let mut config = EndpointConfig::new(Arc::new(key));
    config.cid_generator(move || Box::new(RandomConnectionIdGenerator::new(id_bytes)));
    Endpoint::new(Arc::new(config), None, false, None)
}

/// Random bytes.
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).unwrap();
    bytes
}

/// A connection id that the steering rule gives to this worker of two.
fn id_for(worker: u8) -> ConnectionId {
    let mut id = random::<8>();
    id[0] = id[0] & !1 | worker;
    ConnectionId::new(&id)
}

/// A socket of its own on any port of an address.
pub fn bind(address: IpAddr) -> UdpSocket {
    UdpSocket::bind((address, 0)).unwrap()
}

/// Gives one token for every server.
struct OneToken(Bytes);

impl TokenStore for OneToken {
    fn insert(&self, _: &str, _: Bytes) {}

    fn take(&self, _: &str) -> Option<Bytes> {
        Some(self.0.clone())
    }
}

/// Trusts whoever answers on loopback.
#[derive(Debug)]
struct AnyServer;

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        rustls::crypto::ring::default_provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}
