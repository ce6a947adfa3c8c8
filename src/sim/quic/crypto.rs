//! Cryptography that hides nothing and repeats: the handshake of QUIC with its flights, sizes and
//! key changes, over keys of 64 bits that follow from a seed.
//!
//! What it keeps of the real thing is what the transport's state machine rests on: a packet under
//! another key, damaged or made up, is refused; keys of the levels and of the generations differ;
//! a server's first flight is longer than what an unproven address may be sent at once.

use std::any::Any;
use std::sync::Arc;

use bytes::BytesMut;
use quinn_proto::crypto::{
    ClientConfig, CryptoError, ExportKeyingMaterialError, HeaderKey, KeyPair, Keys, PacketKey,
    ServerConfig, Session, UnsupportedVersion,
};
use quinn_proto::transport_parameters::TransportParameters;
use quinn_proto::{ConnectError, ConnectionId, Side, TransportError, TransportErrorCode};

use crate::random::{Stream, mix};

/// Bytes of a packet's tag, as with AES-GCM.
const TAG_BYTES: usize = 16;

/// Bytes that a server's first flight has beside its parameters: a certificate and a proof.
const CERTIFICATE_BYTES: usize = 700;

/// Packets under one key, as with AES-GCM (RFC 9001 §6.6).
const PACKETS_PER_KEY: u64 = 1 << 23;

/// Packets that may fail to open, as with AES-GCM (RFC 9001 §6.6).
const FORGERIES_MAX: u64 = 1 << 52;

/// A message of the handshake: its kind, the length of the rest (`u32`), the rest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    ClientHello = 1,
    ServerHello = 2,
    ServerFlight = 3,
    ClientFinished = 4,
}

/// Bytes before the rest of a message.
const HEAD_BYTES: usize = 5;

/// The cryptography of one end, for sessions of one connection (a client) or many (a server).
pub struct NullCrypto {
    seed: u64,
}

impl NullCrypto {
    /// Sessions whose every secret follows from `seed` and the parameters of the connection.
    pub fn new(seed: u64) -> Arc<Self> {
        Arc::new(Self { seed })
    }

    fn session(&self, side: Side, params: &TransportParameters) -> Box<NullSession> {
        let mut own_params = Vec::new();
        params.write(&mut own_params);
        // The parameters carry connection ids, so no two sessions of a server say the same.
        let random = own_params.iter().fold(self.seed, |hash, byte| mix(hash ^ u64::from(*byte)));
        let step = match side {
            Side::Client => Step::SayHello,
            Side::Server => Step::AwaitHello,
        };
        Box::new(NullSession {
            side,
            step,
            random,
            own_params,
            peer_params: None,
            inbox: Vec::new(),
            secret: 0,
            generation: 0,
        })
    }
}

impl ClientConfig for NullCrypto {
    fn start_session(
        self: Arc<Self>,
        _version: u32,
        _server_name: &str,
        params: &TransportParameters,
    ) -> Result<Box<dyn Session>, ConnectError> {
        Ok(self.session(Side::Client, params))
    }
}

impl ServerConfig for NullCrypto {
    fn initial_keys(
        &self,
        _version: u32,
        dst_cid: &ConnectionId,
    ) -> Result<Keys, UnsupportedVersion> {
        Ok(initial_keys(dst_cid, Side::Server))
    }

    fn retry_tag(&self, _version: u32, orig_dst_cid: &ConnectionId, packet: &[u8]) -> [u8; 16] {
        tag(hash_of(orig_dst_cid), &[packet])
    }

    fn start_session(
        self: Arc<Self>,
        _version: u32,
        params: &TransportParameters,
    ) -> Box<dyn Session> {
        self.session(Side::Server, params)
    }
}

/// What a session does next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    // Of a client.
    SayHello,
    AwaitServerHello,
    TakeHandshakeKeys,
    AwaitFlight,
    SayFinished,
    // Of a server.
    AwaitHello,
    AnswerHello,
    SayFlight,
    AwaitFinished,
    // Of both.
    Done,
}

/// One end of a handshake.
struct NullSession {
    side: Side,
    step: Step,
    random: u64,
    own_params: Vec<u8>,
    peer_params: Option<TransportParameters>,
    inbox: Vec<u8>,
    /// What both ends know and nobody else, once both have said hello.
    secret: u64,
    /// Key changes so far.
    generation: u64,
}

impl Session for NullSession {
    fn initial_keys(&self, dst_cid: &ConnectionId, side: Side) -> Keys {
        initial_keys(dst_cid, side)
    }

    fn handshake_data(&self) -> Option<Box<dyn Any>> {
        None
    }

    fn peer_identity(&self) -> Option<Box<dyn Any>> {
        None
    }

    fn early_crypto(&self) -> Option<(Box<dyn HeaderKey>, Box<dyn PacketKey>)> {
        None
    }

    fn early_data_accepted(&self) -> Option<bool> {
        None
    }

    fn is_handshaking(&self) -> bool {
        self.step != Step::Done
    }

    fn read_handshake(&mut self, buf: &[u8]) -> Result<bool, TransportError> {
        self.inbox.extend_from_slice(buf);
        while let Some((kind, rest)) = self.next_message() {
            self.take(kind, &rest)?;
        }
        Ok(false)
    }

    fn transport_parameters(&self) -> Result<Option<TransportParameters>, TransportError> {
        Ok(self.peer_params)
    }

    fn write_handshake(&mut self, buf: &mut Vec<u8>) -> Option<Keys> {
        let level = |level: u64| keys(mix(self.secret ^ level), self.side);
        let (next, said, keys) = match self.step {
            Step::SayHello => (Step::AwaitServerHello, Some(Kind::ClientHello), None),
            Step::TakeHandshakeKeys => (Step::AwaitFlight, None, Some(level(1))),
            Step::SayFinished => (Step::Done, Some(Kind::ClientFinished), Some(level(2))),
            Step::AnswerHello => (Step::SayFlight, Some(Kind::ServerHello), Some(level(1))),
            Step::SayFlight => (Step::AwaitFinished, Some(Kind::ServerFlight), Some(level(2))),
            _ => return None,
        };
        if let Some(kind) = said {
            self.say(kind, buf);
        }
        self.step = next;
        keys
    }

    fn next_1rtt_keys(&mut self) -> Option<KeyPair<Box<dyn PacketKey>>> {
        self.generation += 1;
        Some(keys(mix(self.secret ^ 2) ^ mix(self.generation), self.side).packet)
    }

    fn is_valid_retry(&self, orig_dst_cid: &ConnectionId, header: &[u8], payload: &[u8]) -> bool {
        let Some(start) = payload.len().checked_sub(TAG_BYTES) else { return false };
        let (rest, found) = payload.split_at(start);
        tag(hash_of(orig_dst_cid), &[&[header, rest].concat()])[..] == *found
    }

    fn export_keying_material(
        &self,
        _output: &mut [u8],
        _label: &[u8],
        _context: &[u8],
    ) -> Result<(), ExportKeyingMaterialError> {
        Err(ExportKeyingMaterialError)
    }
}

impl NullSession {
    fn say(&self, kind: Kind, buf: &mut Vec<u8>) {
        let rest = match kind {
            Kind::ClientHello | Kind::ServerHello => {
                let params: &[u8] = if kind == Kind::ClientHello { &self.own_params } else { &[] };
                [&self.random.to_le_bytes()[..], params].concat()
            }
            Kind::ServerFlight => {
                let mut rest = (self.own_params.len() as u32).to_le_bytes().to_vec(); // fits
                rest.extend_from_slice(&self.own_params);
                rest.resize(rest.len() + CERTIFICATE_BYTES, 0);
                rest
            }
            Kind::ClientFinished => vec![0; 32], // a hash's length
        };
        buf.push(kind as u8);
        buf.extend_from_slice(&(rest.len() as u32).to_le_bytes()); // fits: a kilobyte
        buf.extend_from_slice(&rest);
    }

    fn next_message(&mut self) -> Option<(u8, Vec<u8>)> {
        let head = self.inbox.get(..HEAD_BYTES)?;
        let bytes = u32::from_le_bytes([head[1], head[2], head[3], head[4]]) as usize;
        if self.inbox.len() < HEAD_BYTES + bytes {
            return None;
        }
        let rest = self.inbox.split_off(HEAD_BYTES + bytes);
        let message = std::mem::replace(&mut self.inbox, rest);
        Some((message[0], message[HEAD_BYTES..].to_vec()))
    }

    fn take(&mut self, kind: u8, rest: &[u8]) -> Result<(), TransportError> {
        let expected = match self.step {
            Step::AwaitServerHello => Kind::ServerHello,
            Step::AwaitFlight => Kind::ServerFlight,
            Step::AwaitHello => Kind::ClientHello,
            Step::AwaitFinished => Kind::ClientFinished,
            step => return Err(violation(format!("message {kind} in step {step:?}"))),
        };
        if kind != expected as u8 {
            return Err(violation(format!("message {kind} instead of {expected:?}")));
        }
        self.step = match expected {
            Kind::ServerHello => {
                self.meet(self.random, hello_of(rest)?);
                Step::TakeHandshakeKeys
            }
            Kind::ServerFlight => {
                let bytes =
                    rest.get(..4).map_or(0, |b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]));
                self.read_params(rest.get(4..4 + bytes as usize).unwrap_or_default())?;
                Step::SayFinished
            }
            Kind::ClientHello => {
                self.meet(hello_of(rest)?, self.random);
                self.read_params(&rest[8..])?;
                Step::AnswerHello
            }
            Kind::ClientFinished => Step::Done,
        };
        Ok(())
    }

    fn meet(&mut self, client: u64, server: u64) {
        self.secret = mix(mix(client) ^ server);
    }

    fn read_params(&mut self, mut bytes: &[u8]) -> Result<(), TransportError> {
        self.peer_params = Some(TransportParameters::read(self.side, &mut bytes)?);
        Ok(())
    }
}

fn hello_of(rest: &[u8]) -> Result<u64, TransportError> {
    let random = rest.get(..8).and_then(|bytes| bytes.try_into().ok());
    random.map(u64::from_le_bytes).ok_or_else(|| violation("a hello without its number".into()))
}

fn violation(reason: String) -> TransportError {
    TransportError { code: TransportErrorCode::PROTOCOL_VIOLATION, frame: None, reason }
}

fn hash_of(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0x7465_726e, |hash, byte| mix(hash ^ u64::from(*byte)))
}

fn initial_keys(dst_cid: &ConnectionId, side: Side) -> Keys {
    keys(hash_of(dst_cid), side)
}

/// Keys for both directions, as this side uses them.
fn keys(secret: u64, side: Side) -> Keys {
    let key = |says: Side| -> Box<dyn PacketKey> {
        Box::new(NullKey(mix(secret ^ u64::from(says == Side::Client))))
    };
    let header = || -> Box<dyn HeaderKey> { Box::new(NullHeader) };
    Keys {
        header: KeyPair { local: header(), remote: header() },
        packet: KeyPair { local: key(side), remote: key(!side) },
    }
}

/// Marks a packet's body, and leaves it readable.
struct NullKey(u64);

impl NullKey {
    fn tag(&self, packet: u64, header: &[u8], body: &[u8]) -> [u8; TAG_BYTES] {
        tag(mix(self.0 ^ mix(packet)), &[header, body])
    }
}

impl PacketKey for NullKey {
    fn encrypt(&self, packet: u64, buf: &mut [u8], header_len: usize) {
        let (header, rest) = buf.split_at_mut(header_len);
        let (body, place) = rest.split_at_mut(rest.len() - TAG_BYTES);
        place.copy_from_slice(&self.tag(packet, header, body));
    }

    fn decrypt(
        &self,
        packet: u64,
        header: &[u8],
        payload: &mut BytesMut,
    ) -> Result<(), CryptoError> {
        let end = payload.len().checked_sub(TAG_BYTES).ok_or(CryptoError)?;
        let found = payload.split_off(end);
        if self.tag(packet, header, payload)[..] == found[..] { Ok(()) } else { Err(CryptoError) }
    }

    fn tag_len(&self) -> usize {
        TAG_BYTES
    }

    fn confidentiality_limit(&self) -> u64 {
        PACKETS_PER_KEY
    }

    fn integrity_limit(&self) -> u64 {
        FORGERIES_MAX
    }
}

/// Leaves headers as they are.
struct NullHeader;

impl HeaderKey for NullHeader {
    fn decrypt(&self, _pn_offset: usize, _packet: &mut [u8]) {}

    fn encrypt(&self, _pn_offset: usize, _packet: &mut [u8]) {}

    fn sample_size(&self) -> usize {
        TAG_BYTES
    }
}

/// 128 bits that another key, or any other text, gives only by a chance of 2^-64.
fn tag(key: u64, texts: &[&[u8]]) -> [u8; TAG_BYTES] {
    let mut hash = key;
    for text in texts {
        hash = mix(hash ^ text.len() as u64);
        for part in text.chunks(8) {
            let mut word = [0; 8];
            word[..part.len()].copy_from_slice(part);
            hash = mix(hash ^ u64::from_le_bytes(word));
        }
    }
    let mut tag = [0; TAG_BYTES];
    tag[..8].copy_from_slice(&hash.to_le_bytes());
    tag[8..].copy_from_slice(&mix(hash).to_le_bytes());
    tag
}

/// Connection ids that repeat, for the ends that steer nothing.
pub struct SeededIds(pub Stream);

impl quinn_proto::ConnectionIdGenerator for SeededIds {
    fn generate_cid(&mut self) -> ConnectionId {
        ConnectionId::new(&self.0.draw().to_le_bytes())
    }

    fn cid_len(&self) -> usize {
        8
    }

    fn cid_lifetime(&self) -> Option<std::time::Duration> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened(key: &NullKey, packet: u64, header: &[u8], sealed: &[u8]) -> bool {
        key.decrypt(packet, header, &mut BytesMut::from(sealed)).is_ok()
    }

    #[test]
    fn only_the_very_packet_opens_under_the_very_key() {
        let key = NullKey(7);
        let mut packet = b"head|body".to_vec();
        packet.extend([0; TAG_BYTES]);
        key.encrypt(3, &mut packet, 5);
        let (header, sealed) = packet.split_at(5);
        assert!(opened(&key, 3, header, sealed));
        assert!(!opened(&key, 4, header, sealed) && !opened(&NullKey(8), 3, header, sealed));
        assert!(!opened(&key, 3, b"heat|", sealed));
        for index in 0..sealed.len() {
            let mut damaged = sealed.to_vec();
            damaged[index] ^= 1;
            assert!(!opened(&key, 3, header, &damaged));
        }
        assert!(!opened(&key, 3, header, b"short"));
    }

    #[test]
    fn a_retry_is_known_by_its_tag() {
        let crypto = NullCrypto::new(1);
        let params = TransportParameters::read(Side::Server, &mut &[][..]).expect("none at all");
        let Ok(session) = ClientConfig::start_session(Arc::clone(&crypto), 1, "tern", &params)
        else {
            panic!("a session can always be started")
        };
        let id = ConnectionId::new(b"first");
        let seal = crypto.retry_tag(1, &id, b"header and token");
        let payload = [b" and token", &seal[..]].concat();
        assert!(session.is_valid_retry(&id, b"header", &payload));
        assert!(!session.is_valid_retry(&ConnectionId::new(b"other"), b"header", &payload));
        assert!(!session.is_valid_retry(&id, b"heater", &payload));
    }
}
