//! TLS of a server's connection, let go as soon as the handshake is over.
//!
//! Comes in: a configuration of rustls. Goes out: what quinn-proto asks of a handshake, and the
//! keys of its packets.
//!
//! Of a finished handshake rustls keeps the keys of TLS records, which QUIC has not, its buffers
//! and what was negotiated: 3.7 KB, a sixth of an idle session. A server needs none of
//! it: in QUIC a client has nothing to say in TLS behind its last message of the handshake. A key
//! update is a bit in QUIC's packets and a message of TLS for it is forbidden, and so is a late
//! authentication (RFC 9001 §4.4 and §6). So once the client has finished and the ticket is
//! written, only the secrets stay from which later keys follow, and anything that a client says
//! then ends its connection.
//!
//! What was negotiated is not told afterwards: there is one protocol, and no certificate of a
//! client.

use std::any::Any;
use std::io::Cursor;
use std::sync::Arc;

use quinn_proto::crypto::rustls::{NoInitialCipherSuite, QuicServerConfig};
use quinn_proto::crypto::{
    ExportKeyingMaterialError, HeaderKey, KeyPair, Keys, PacketKey, ServerConfig, Session,
    UnsupportedVersion,
};
use quinn_proto::transport_parameters::TransportParameters;
use quinn_proto::{ConnectionId, Side, TransportError, TransportErrorCode};
use rustls::AlertDescription;
use rustls::quic::{KeyChange, Secrets, ServerConnection, Version};

/// QUIC v1, the only version served.
pub(crate) const QUIC_VERSION: u32 = 1;

/// Makes the sessions of a server.
pub struct BriefTls {
    tls: Arc<rustls::ServerConfig>,
    /// For the keys of first packets and the tags of Retry, which follow from the RFC alone.
    first: Arc<QuicServerConfig>,
}

impl BriefTls {
    /// Sessions by this configuration.
    ///
    /// # Errors
    /// When it has no AES-128-GCM, which QUIC needs for its first packets.
    pub fn new(tls: Arc<rustls::ServerConfig>) -> Result<Arc<Self>, NoInitialCipherSuite> {
        let first = Arc::new(QuicServerConfig::try_from(Arc::clone(&tls))?);
        Ok(Arc::new(Self { tls, first }))
    }
}

impl ServerConfig for BriefTls {
    fn initial_keys(&self, version: u32, id: &ConnectionId) -> Result<Keys, UnsupportedVersion> {
        if version != QUIC_VERSION {
            return Err(UnsupportedVersion);
        }
        self.first.initial_keys(version, id)
    }

    fn retry_tag(&self, version: u32, id: &ConnectionId, packet: &[u8]) -> [u8; 16] {
        self.first.retry_tag(version, id, packet)
    }

    fn start_session(self: Arc<Self>, _: u32, params: &TransportParameters) -> Box<dyn Session> {
        let mut own_params = Vec::new();
        params.write(&mut own_params);
        let tls = ServerConnection::new(Arc::clone(&self.tls), Version::V1, own_params)
            .expect("a configuration with TLS 1.3 and a suite for QUIC's first packets");
        let stage = Stage::Handshake(Box::new(tls));
        Box::new(BriefSession { config: self, stage, next: None })
    }
}

/// One connection's TLS.
struct BriefSession {
    config: Arc<BriefTls>,
    stage: Stage,
    /// From which the keys behind those in use follow, once both ends have them.
    next: Option<Secrets>,
}

enum Stage {
    Handshake(Box<ServerConnection>),
    /// The client has finished, and got what there was to say.
    Over,
}

impl Session for BriefSession {
    fn initial_keys(&self, id: &ConnectionId, _: Side) -> Keys {
        self.config.initial_keys(QUIC_VERSION, id).expect("it is of the version served")
    }

    fn handshake_data(&self) -> Option<Box<dyn Any>> {
        None
    }

    fn peer_identity(&self) -> Option<Box<dyn Any>> {
        None
    }

    fn early_crypto(&self) -> Option<(Box<dyn HeaderKey>, Box<dyn PacketKey>)> {
        let Stage::Handshake(tls) = &self.stage else { return None };
        let keys = tls.zero_rtt_keys()?;
        Some((Box::new(keys.header), Box::new(keys.packet)))
    }

    fn early_data_accepted(&self) -> Option<bool> {
        None // a client asks this
    }

    fn is_handshaking(&self) -> bool {
        match &self.stage {
            Stage::Handshake(tls) => tls.is_handshaking(),
            Stage::Over => false,
        }
    }

    fn read_handshake(&mut self, bytes: &[u8]) -> Result<bool, TransportError> {
        let Stage::Handshake(tls) = &mut self.stage else {
            let late = "a message of TLS behind the handshake".to_owned();
            return Err(alert(AlertDescription::UnexpectedMessage, late));
        };
        match tls.read_hs(bytes) {
            Ok(()) => Ok(false), // what was negotiated is never told
            Err(error) => {
                let said = tls.alert().unwrap_or(AlertDescription::InternalError);
                Err(alert(said, error.to_string()))
            }
        }
    }

    fn transport_parameters(&self) -> Result<Option<TransportParameters>, TransportError> {
        let Stage::Handshake(tls) = &self.stage else { return Ok(None) };
        let Some(bytes) = tls.quic_transport_parameters() else { return Ok(None) };
        Ok(Some(TransportParameters::read(Side::Server, &mut Cursor::new(bytes))?))
    }

    fn write_handshake(&mut self, bytes: &mut Vec<u8>) -> Option<Keys> {
        let Stage::Handshake(tls) = &mut self.stage else { return None };
        let keys = match tls.write_hs(bytes) {
            Some(KeyChange::Handshake { keys }) => keys,
            Some(KeyChange::OneRtt { keys, next }) => {
                self.next = Some(next);
                keys
            }
            None => {
                if bytes.is_empty() && !tls.is_handshaking() {
                    self.stage = Stage::Over;
                }
                return None;
            }
        };
        let (local, remote) = (keys.local, keys.remote);
        Some(Keys {
            header: KeyPair { local: Box::new(local.header), remote: Box::new(remote.header) },
            packet: KeyPair { local: Box::new(local.packet), remote: Box::new(remote.packet) },
        })
    }

    fn next_1rtt_keys(&mut self) -> Option<KeyPair<Box<dyn PacketKey>>> {
        let keys = self.next.as_mut()?.next_packet_keys();
        Some(KeyPair { local: Box::new(keys.local), remote: Box::new(keys.remote) })
    }

    fn is_valid_retry(&self, _: &ConnectionId, _: &[u8], _: &[u8]) -> bool {
        false // a server gets none
    }

    fn export_keying_material(
        &self,
        _output: &mut [u8],
        _label: &[u8],
        _context: &[u8],
    ) -> Result<(), ExportKeyingMaterialError> {
        Err(ExportKeyingMaterialError) // nothing is bound to a connection's secrets
    }
}

fn alert(alert: AlertDescription, reason: String) -> TransportError {
    TransportError { code: TransportErrorCode::crypto(alert.into()), frame: None, reason }
}

/// Bytes of a session beside its keys: the secrets of both directions, of 72 bytes each.
const SESSION_BYTES_MAX: usize = 256;

const _: () = assert!(size_of::<BriefSession>() <= SESSION_BYTES_MAX);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::suites;
    use rustls::crypto::{CryptoProvider, ring};
    use rustls::pki_types::ServerName;
    use rustls::quic::{ClientConnection, Keys as ClientKeys};
    use rustls::{ClientConfig, HandshakeKind, RootCertStore};

    fn configs() -> (Arc<BriefTls>, Arc<ClientConfig>) {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a name");
        let provider = CryptoProvider { cipher_suites: suites(), ..ring::default_provider() };
        let mut server = rustls::ServerConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("supported")
            .with_no_client_auth()
            .with_single_cert(
                vec![made.cert.der().clone()],
                made.signing_key.serialize_der().try_into().expect("a key"),
            )
            .expect("they belong together");
        server.ticketer = ring::Ticketer::new().expect("random bytes");
        server.send_tls13_tickets = 1;
        let mut roots = RootCertStore::empty();
        roots.add(made.cert.der().clone()).expect("a certificate");
        let client = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("supported")
            .with_root_certificates(roots)
            .with_no_client_auth();
        (BriefTls::new(Arc::new(server)).expect("it has AES"), Arc::new(client))
    }

    /// Both ends of a connection.
    struct Pair {
        server: Box<dyn Session>,
        client: ClientConnection,
        /// The keys of the newest level that each has.
        server_keys: Option<Keys>,
        client_keys: Option<ClientKeys>,
        client_next: Option<Secrets>,
    }

    impl Pair {
        fn new((server, client): &(Arc<BriefTls>, Arc<ClientConfig>)) -> Self {
            let name = ServerName::try_from("localhost").expect("a name");
            let client = ClientConnection::new(Arc::clone(client), Version::V1, name, Vec::new());
            let params = TransportParameters::read(Side::Client, &mut Cursor::new(&[]));
            let params = params.expect("all by default");
            Self {
                server: Arc::clone(server).start_session(QUIC_VERSION, &params),
                client: client.expect("a configuration for QUIC"),
                server_keys: None,
                client_keys: None,
                client_next: None,
            }
        }

        /// The client says what it has to say; whether that was anything.
        fn client_says(&mut self) -> bool {
            let mut any = false;
            loop {
                let mut bytes = Vec::new();
                let change = self.client.write_hs(&mut bytes);
                if !bytes.is_empty() {
                    self.server.read_handshake(&bytes).expect("in order");
                }
                any |= !bytes.is_empty() || change.is_some();
                match change {
                    Some(KeyChange::Handshake { keys }) => self.client_keys = Some(keys),
                    Some(KeyChange::OneRtt { keys, next }) => {
                        (self.client_keys, self.client_next) = (Some(keys), Some(next));
                    }
                    None if bytes.is_empty() => return any,
                    None => {}
                }
            }
        }

        /// The server says what it has to say, as quinn-proto has it do; how many bytes.
        fn server_says(&mut self) -> usize {
            let mut all = 0;
            loop {
                let mut bytes = Vec::new();
                let keys = self.server.write_handshake(&mut bytes);
                if !bytes.is_empty() {
                    self.client.read_hs(&bytes).expect("in order");
                }
                all += bytes.len();
                if keys.is_none() && bytes.is_empty() {
                    return all;
                }
                self.server_keys = keys.or(self.server_keys.take());
            }
        }

        fn shake_hands(&mut self) {
            while self.client_says() {
                assert!(self.server.is_handshaking() || !self.client.is_handshaking());
                self.server_says();
            }
        }
    }

    /// A packet of one end is read by the other.
    fn check(seals: &dyn PacketKey, opens: &dyn PacketKey, packet: u64) {
        let mut text = vec![7; 40 + seals.tag_len()];
        seals.encrypt(packet, &mut text, 10);
        let mut sealed = bytes::BytesMut::from(&text[10..]);
        opens.decrypt(packet, &text[..10], &mut sealed).expect("of the same key");
        assert_eq!(sealed[..], [7; 30]);
    }

    #[test]
    fn tls_is_let_go_and_keys_go_on() {
        let mut pair = Pair::new(&configs());
        assert!(pair.server.is_handshaking());
        pair.shake_hands();
        assert!(!pair.server.is_handshaking() && !pair.client.is_handshaking());
        assert_eq!(pair.client.handshake_kind(), Some(HandshakeKind::Full));
        assert_eq!(pair.client.tls13_tickets_received(), 1);
        assert_eq!(pair.server_says(), 0);
        assert_eq!(pair.server.transport_parameters(), Ok(None), "let go");

        let (server, client) = (pair.server_keys.expect("keys"), pair.client_keys.expect("keys"));
        let boxed = |key| -> Box<dyn PacketKey> { Box::new(key) };
        check(&*server.packet.local, &*boxed(client.remote.packet), 1);
        check(&*boxed(client.local.packet), &*server.packet.remote, 2);
        let mut next = pair.client_next.expect("secrets");
        for packet in 3..6 {
            let server = pair.server.next_1rtt_keys().expect("secrets");
            let client = next.next_packet_keys();
            check(&*server.local, &*boxed(client.remote), packet);
            check(&*boxed(client.local), &*server.remote, packet);
        }
    }

    #[test]
    fn a_client_that_goes_on_in_tls_is_refused() {
        let mut pair = Pair::new(&configs());
        pair.shake_hands();
        let key_update = [24, 0, 0, 1, 0];
        let error = pair.server.read_handshake(&key_update).expect_err("QUIC has its own");
        assert_eq!(
            u64::from(error.code),
            0x100 + u64::from(u8::from(AlertDescription::UnexpectedMessage))
        );
    }

    #[test]
    fn a_client_that_does_not_make_sense_is_refused() {
        let mut pair = Pair::new(&configs());
        let error = pair.server.read_handshake(&[1, 0, 0, 1, 0]).expect_err("a hello of a byte");
        assert!((0x100..0x200).contains(&u64::from(error.code)), "{error}");
        assert!(pair.server.is_handshaking());
    }

    #[test]
    fn a_ticket_is_good_for_the_next_connection() {
        let configs = configs();
        Pair::new(&configs).shake_hands();
        let mut again = Pair::new(&configs);
        again.shake_hands();
        assert_eq!(again.client.handshake_kind(), Some(HandshakeKind::Resumed));
        assert!(!again.server.is_handshaking());
    }

    #[test]
    fn other_versions_have_no_keys() {
        let (server, _) = configs();
        let id = ConnectionId::new(&[1; 8]);
        assert!(server.initial_keys(QUIC_VERSION, &id).is_ok());
        assert!(server.initial_keys(0xff00_001d, &id).is_err(), "a draft");
    }
}
