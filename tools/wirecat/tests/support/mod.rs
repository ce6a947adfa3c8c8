//! A QUIC client and server in memory, whose packets become a capture: every cipher, Retry, empty
//! ids, changes of keys and of address.
#![allow(dead_code, reason = "each test binary uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a test may stop at the first thing that is wrong")]

pub mod file;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use quinn_proto::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn_proto::{
    ClientConfig, Connection, ConnectionHandle, DatagramEvent, Dir, Endpoint, EndpointConfig,
    Event, RandomConnectionIdGenerator, ServerConfig, StreamId, Transmit,
};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{CipherSuite, RootCertStore};
use tern_protocol::frames::layout;
use tern_protocol::limits::ALPN;
use tern_protocol::registry::Direction;
use tern_protocol::{Kind, registry::KindRow};
use tern_wirecat::capture::Stamp;

/// What kind of conversation it is.
#[derive(Clone, Copy)]
pub struct Setup {
    pub suite: CipherSuite,
    pub retry: bool,
    pub client_id_bytes: usize,
    /// Datagrams that the system hands over in one piece.
    pub segments: usize,
}

impl Default for Setup {
    fn default() -> Self {
        let suite = CipherSuite::TLS13_AES_128_GCM_SHA256;
        Self { suite, retry: false, client_id_bytes: 8, segments: 1 }
    }
}

/// A datagram that passed the tap.
#[derive(Clone)]
pub struct Passed {
    pub at: Stamp,
    pub from: SocketAddr,
    pub to: SocketAddr,
    pub payload: Vec<u8>,
}

/// A conversation that is over.
pub struct Talk {
    pub passed: Vec<Passed>,
    pub keys: String,
    /// The frames on the stream, the client's first.
    pub said: [Vec<Vec<u8>>; 2],
    /// Those by datagram.
    pub by_datagram: Vec<Vec<u8>>,
}

struct Side {
    endpoint: Endpoint,
    connection: Option<(ConnectionHandle, Connection)>,
    address: SocketAddr,
    inbox: Vec<(SocketAddr, Vec<u8>)>,
    got: Vec<u8>,
    stream: Option<StreamId>,
}

struct World {
    setup: Setup,
    now: Instant,
    begun: Instant,
    sides: [Side; 2],
    passed: Vec<Passed>,
}

/// One frame of each kind that a side says, with something in its variable part.
fn frames(of: Direction) -> Vec<Vec<u8>> {
    let is_said = |row: &&KindRow| row.direction == of || row.direction == Direction::Both;
    Kind::ALL.iter().filter(is_said).map(|row| frame(row.kind, 7)).collect()
}

/// A frame of this kind, every byte of it `fill`.
pub fn frame(kind: Kind, fill: u8) -> Vec<u8> {
    let layout = layout(kind).unwrap();
    let tail = usize::from(layout.fits(layout.fixed_bytes() + 5)) * 5;
    let payload = layout.fixed_bytes() + tail;
    let mut bytes = (payload as u16).to_le_bytes().to_vec();
    bytes.extend([kind.0, 0]);
    bytes.resize(4 + payload, fill);
    bytes
}

/// Two endpoints talk: a frame of each kind both ways, some by datagram, with new keys and a new
/// address in between.
pub fn talk(setup: Setup) -> Talk {
    let log = Arc::new(Log::default());
    let mut world = World::new(setup, &log);
    world.run(|world| world.sides[1].connection.is_some());
    world.run(|world| world.sides[0].connection.as_ref().is_some_and(|(_, c)| !c.is_handshaking()));
    let stream = world.client().streams().open(Dir::Bi).unwrap();
    let said = [frames(Direction::ToServer), frames(Direction::ToClient)];
    let half = said[0].len() / 2;
    world.say(0, stream, &said[0][..half].concat());
    world.client().force_key_update();
    world.sides[0].address.set_port(4_001);
    world.say(0, stream, &said[0][half..].concat());
    let by_datagram = vec![frame(Kind::Send, 1), frame(Kind::Send, 2)];
    for bytes in &by_datagram {
        world.client().datagrams().send(Bytes::from(bytes.clone()), true).unwrap();
    }
    world.settle();
    world.say(1, stream, &said[1].concat());
    assert_eq!(world.sides[0].got, said[1].concat());
    assert_eq!(world.sides[1].got, said[0].concat());
    let now = world.now;
    world.client().close(now, 0x50_u32.into(), Bytes::from_static(b"enough"));
    world.settle();
    let keys = log.0.lock().unwrap().clone();
    Talk { passed: world.passed, keys, said, by_datagram }
}

impl World {
    fn new(setup: Setup, log: &Arc<Log>) -> Self {
        let now = Instant::now();
        let made = rcgen::generate_simple_self_signed(["tern".to_owned()]).unwrap();
        let certificate = made.cert.der().clone();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
        let mut provider = rustls::crypto::ring::default_provider();
        // QUIC needs AES-128 for its first packets, whatever is agreed on.
        provider.cipher_suites.sort_by_key(|suite| suite.suite() != setup.suite);
        let provider = Arc::new(provider);
        let mut tls = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.clone()], key)
            .unwrap();
        tls.alpn_protocols = vec![ALPN.to_vec()];
        let server = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls).unwrap()));
        let mut roots = RootCertStore::empty();
        roots.add(certificate).unwrap();
        let mut tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        tls.alpn_protocols = vec![ALPN.to_vec()];
        tls.key_log = Arc::clone(log) as Arc<dyn rustls::KeyLog>;
        let client = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
        let mut sides = [
            Side::new(setup.client_id_bytes, None, "192.0.2.7:4000"),
            Side::new(8, Some(Arc::new(server)), "198.51.100.1:5190"),
        ];
        let to = sides[1].address;
        sides[0].connection = Some(sides[0].endpoint.connect(now, client, to, "tern").unwrap());
        Self { setup, now, begun: now, sides, passed: Vec::new() }
    }

    fn client(&mut self) -> &mut Connection {
        &mut self.sides[0].connection.as_mut().unwrap().1
    }

    fn say(&mut self, side: usize, stream: StreamId, mut bytes: &[u8]) {
        self.sides[side].stream = Some(stream);
        while !bytes.is_empty() {
            let (_, connection) = self.sides[side].connection.as_mut().unwrap();
            bytes = &bytes[connection.send_stream(stream).write(bytes).unwrap_or(0)..];
            self.settle();
        }
    }

    /// Until nothing happens for a while.
    fn settle(&mut self) {
        for _ in 0..200 {
            self.turn();
        }
    }

    fn run(&mut self, mut done: impl FnMut(&Self) -> bool) {
        for _ in 0..5_000 {
            if done(self) {
                return;
            }
            self.turn();
        }
        panic!("the endpoints got nowhere");
    }

    /// A millisecond: what was sent arrives.
    fn turn(&mut self) {
        self.now += Duration::from_millis(1);
        for index in 0..2 {
            for (from, payload) in std::mem::take(&mut self.sides[index].inbox) {
                self.receive(index, from, &payload);
            }
            self.sides[index].drive(self.now);
            self.send(index);
        }
    }

    fn receive(&mut self, index: usize, from: SocketAddr, payload: &[u8]) {
        let (now, mut answer) = (self.now, Vec::new());
        let side = &mut self.sides[index];
        let event =
            side.endpoint.handle(now, from, None, None, BytesMut::from(payload), &mut answer);
        match event {
            Some(DatagramEvent::ConnectionEvent(_, event)) => {
                if let Some((_, connection)) = &mut side.connection {
                    connection.handle_event(event);
                }
            }
            Some(DatagramEvent::NewConnection(incoming)) => {
                if self.setup.retry && !incoming.remote_address_validated() {
                    let transmit = side.endpoint.retry(incoming, &mut answer).unwrap();
                    self.pass(index, &transmit, &answer);
                } else {
                    let accepted = side.endpoint.accept(incoming, now, &mut answer, None);
                    side.connection = Some(accepted.map_err(|error| error.cause).unwrap());
                }
            }
            Some(DatagramEvent::Response(transmit)) => self.pass(index, &transmit, &answer),
            None => {}
        }
    }

    fn send(&mut self, index: usize) {
        let (now, segments) = (self.now, self.setup.segments);
        loop {
            let mut bytes = Vec::new();
            let side = &mut self.sides[index];
            let Some((_, connection)) = &mut side.connection else { return };
            let Some(transmit) = connection.poll_transmit(now, segments, &mut bytes) else {
                return;
            };
            self.pass(index, &transmit, &bytes);
        }
    }

    fn pass(&mut self, index: usize, transmit: &Transmit, bytes: &[u8]) {
        let nanos = (self.now - self.begun).as_nanos() as u64;
        let at = Stamp(1_700_000_000_000_000_000 + nanos);
        let (from, to) = (self.sides[index].address, transmit.destination);
        let payload = bytes[..transmit.size].to_vec();
        for segment in payload.chunks(transmit.segment_size.unwrap_or(payload.len())) {
            self.sides[1 - index].inbox.push((from, segment.to_vec()));
        }
        self.passed.push(Passed { at, from, to, payload });
    }
}

impl Side {
    fn new(id_bytes: usize, server: Option<Arc<ServerConfig>>, address: &str) -> Self {
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &[5; 32]);
        let mut config = EndpointConfig::new(Arc::new(key));
        config.cid_generator(move || Box::new(RandomConnectionIdGenerator::new(id_bytes)));
        let endpoint = Endpoint::new(Arc::new(config), server, true, Some([9; 32]));
        Self {
            endpoint,
            connection: None,
            address: address.parse().unwrap(),
            inbox: Vec::new(),
            got: Vec::new(),
            stream: None,
        }
    }

    fn drive(&mut self, now: Instant) {
        let Some((handle, connection)) = &mut self.connection else { return };
        connection.handle_timeout(now);
        while let Some(event) = connection.poll_endpoint_events() {
            if let Some(event) = self.endpoint.handle_event(*handle, event) {
                connection.handle_event(event);
            }
        }
        while let Some(event) = connection.poll() {
            if let Event::Stream(_) = event {
                self.stream = self.stream.or_else(|| connection.streams().accept(Dir::Bi));
            }
        }
        let Some(stream) = self.stream else { return };
        let mut receiver = connection.recv_stream(stream);
        let Ok(mut chunks) = receiver.read(true) else { return };
        while let Ok(Some(chunk)) = chunks.next(usize::MAX) {
            self.got.extend_from_slice(&chunk.bytes);
        }
        // What it says about credit shows in the next packets.
        let _ = chunks.finalize();
    }
}

/// A key log in memory.
#[derive(Debug, Default)]
struct Log(Mutex<String>);

impl rustls::KeyLog for Log {
    fn log(&self, label: &str, client_random: &[u8], secret: &[u8]) {
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let line = format!("{label} {} {}\n", hex(client_random), hex(secret));
        self.0.lock().unwrap().push_str(&line);
    }
}
