//! A server of doubles, and clients of the real `quinn`.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use quinn::{ClientConfig, ConnectionError, Endpoint, RecvStream, SendStream};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tern_core::placement::{Placement, WorkerId};
use tern_protocol::frame::{encode, header};
use tern_protocol::frames::{Close, Hello, Ping, Send, Welcome};
use tern_protocol::limits::{ALPN, FRAME_BYTES_MAX, MAGIC};
use tern_protocol::{ChannelId, Flags, Frame, Header, Kind};
use zerocopy::{FromBytes as _, IntoBytes as _};

use super::super::{Command, Counts, Doors, Setup, Workers, spawn_all, take_peers};
use super::double::{Bodies, Diary, Double, Elsewhere, Told};
use crate::transport::settings::{TransportKeys, TransportSettings};
use crate::transport::sockets::Sockets;
use crate::transport::tls;

/// Longest wait for anything that must happen.
pub(super) const LONG: Duration = Duration::from_secs(20);

/// The certificate of all test servers, and its key.
static CERTIFICATE: LazyLock<(CertificateDer<'static>, Vec<u8>)> = LazyLock::new(|| {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a name");
    (made.cert.der().clone(), made.signing_key.serialize_der())
});

/// A server of doubles.
pub(super) struct Server {
    pub(super) workers: Workers<Double>,
    pub(super) diary: Diary,
}

/// How to start one.
pub(super) struct Plan<'a> {
    pub(super) listen: SocketAddr,
    pub(super) workers: u16,
    pub(super) settings: TransportSettings,
    pub(super) peers: Option<&'a Path>,
    pub(super) spin: Duration,
    /// Gives each worker another one's socket, so that every datagram is a stray.
    pub(super) crossed: bool,
}

impl Default for Plan<'_> {
    fn default() -> Self {
        Self {
            listen: SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0),
            workers: 2,
            settings: TransportSettings::default(),
            peers: None,
            spin: Duration::ZERO,
            crossed: false,
        }
    }
}

impl Server {
    pub(super) fn start(plan: Plan<'_>) -> Self {
        let workers = plan.workers;
        let (doors, seats) = Doors::open(Placement::new(4, workers)).expect("descriptors");
        let mut sockets = Sockets::bind(plan.listen, workers).expect("a free port");
        if plan.crossed {
            sockets.cross();
        }
        let elsewhere = Arc::new(Elsewhere::default());
        elsewhere.find(&doors);
        let diary = Diary::default();
        let machine = |id| (Double::new(WorkerId(id), workers, Arc::clone(&diary)), Bodies);
        let (certificate, key) = &*CERTIFICATE;
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.clone()));
        let tls = tls::server_config(vec![certificate.clone()], key, None).expect("they fit");
        let found = plan.peers.map(|folder| (folder.to_owned(), take_peers(folder).expect("read")));
        let workers = spawn_all(Setup {
            sockets,
            seats,
            machines: (0..workers).map(machine).collect(),
            settings: plan.settings,
            keys: TransportKeys { token: [1; 64], reset: [2; 32] },
            tls,
            directory: Arc::clone(&elsewhere) as _,
            warmer: elsewhere,
            peers: found,
            recorders: Vec::new(),
            spin: plan.spin,
            pin: true,
        })
        .expect("threads");
        Self { workers, diary }
    }

    /// The counts of all workers together, published for this call.
    pub(super) fn counts(&self) -> Counts {
        let doors = self.workers.doors();
        let boards: Vec<_> =
            (0..doors.placement().workers()).map(|id| doors.board(WorkerId(id))).collect();
        let before: Vec<_> = boards.iter().map(|board| board.snapshot().published).collect();
        doors.command_all(Command::Publish);
        let mut sum = Counts::default().values();
        for (board, before) in boards.iter().zip(before) {
            while board.snapshot().published <= before {
                std::thread::yield_now();
            }
            let shown = board.snapshot().driver.values();
            sum.iter_mut().zip(shown).for_each(|(sum, value)| *sum += value);
        }
        Counts::from_values(sum)
    }

    /// Waits until the counts are as wanted.
    pub(super) async fn until(
        &self,
        what: &str,
        mut wanted: impl FnMut(&Counts) -> bool,
    ) -> Counts {
        let mut counts = self.counts();
        let waited = tokio::time::timeout(LONG, async {
            while !wanted(&counts) {
                tokio::time::sleep(Duration::from_millis(5)).await;
                counts = self.counts();
            }
        });
        let met = waited.await.is_ok();
        assert!(met, "never: {what}; {counts:#?}");
        counts
    }

    /// Waits until nobody has said anything for a while, late acknowledgements included.
    pub(super) async fn until_quiet(&self) {
        let mut heard = u64::MAX;
        while std::mem::replace(&mut heard, self.counts().datagrams_in) != heard {
            tokio::time::sleep(Duration::from_millis(150)).await;
        }
    }

    pub(super) fn told(&self) -> Vec<Told> {
        self.diary.lock().expect("no panic").clone()
    }

    pub(super) fn closed_links(&self) -> usize {
        self.told().iter().filter(|told| matches!(told, Told::Closed(_))).count()
    }
}

/// Runs a test on a runtime of its own.
pub(super) fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        tokio::time::timeout(3 * LONG, test).await.expect("the test ends");
    });
}

/// The settings of a client.
pub(super) fn client_config(alpn: &[&[u8]], transport: quinn::TransportConfig) -> ClientConfig {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CERTIFICATE.0.clone()).expect("a certificate");
    let mut tls = rustls::ClientConfig::builder_with_provider(Arc::new(tls::provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("the provider has it")
        .with_root_certificates(roots)
        .with_no_client_auth();
    tls.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    let crypto = quinn_proto::crypto::rustls::QuicClientConfig::try_from(tls).expect("AES-128");
    let mut config = ClientConfig::new(Arc::new(crypto));
    config.transport_config(Arc::new(transport));
    config
}

/// A connected client with its control stream.
pub(super) struct Client {
    pub(super) endpoint: Endpoint,
    pub(super) connection: quinn::Connection,
    pub(super) send: SendStream,
    pub(super) receive: RecvStream,
}

pub(super) fn endpoint(server: SocketAddr) -> Endpoint {
    let local = if server.is_ipv4() { "127.0.0.1:0" } else { "[::1]:0" };
    Endpoint::client(local.parse().expect("an address")).expect("a free port")
}

impl Client {
    pub(super) async fn connect(server: SocketAddr) -> Self {
        let transport = quinn::TransportConfig::default();
        Self::try_connect(server, &[ALPN], transport).await.expect("connected")
    }

    pub(super) async fn try_connect(
        server: SocketAddr,
        alpn: &[&[u8]],
        transport: quinn::TransportConfig,
    ) -> Result<Self, ConnectionError> {
        let endpoint = endpoint(server);
        let config = client_config(alpn, transport);
        let connection =
            endpoint.connect_with(config, server, "localhost").expect("a valid address").await?;
        let (send, receive) = connection.open_bi().await?;
        Ok(Self { endpoint, connection, send, receive })
    }

    pub(super) async fn write(&mut self, bytes: &[u8]) {
        self.send.write_all(bytes).await.expect("the server reads");
    }

    /// One whole frame.
    pub(super) async fn read(&mut self) -> Vec<u8> {
        let mut frame = vec![0; 4];
        self.receive.read_exact(&mut frame).await.expect("a header");
        let bytes = Header::peek(&frame).expect("four bytes").frame_bytes();
        frame.resize(bytes, 0);
        self.receive.read_exact(&mut frame[4..]).await.expect("a payload");
        frame
    }

    /// Says HELLO; the number of the worker that answers.
    pub(super) async fn hello(&mut self) -> u16 {
        self.write(&hello()).await;
        let frame = self.read().await;
        let (welcome, _) = Welcome::read_from_prefix(&frame[4..]).expect("a WELCOME");
        welcome.capabilities.get() as u16
    }

    pub(super) async fn ping(&mut self, sequence: u32) {
        self.write(&ping(sequence)).await;
        assert_eq!(self.pong().await, sequence);
    }

    pub(super) async fn pong(&mut self) -> u32 {
        let frame = self.read().await;
        match Frame::parse(&frame) {
            Ok((Frame::Pong(pong), _)) => pong.sequence.get(),
            other => panic!("not a PONG: {other:?}"),
        }
    }

    pub(super) async fn command(&mut self, text: &str) {
        self.write(&command(text)).await;
    }

    /// Reads to the end of the stream, which is a CLOSE, and waits for QUIC's close.
    pub(super) async fn closed(&mut self) -> (Close, u64, String) {
        let frame = self.read().await;
        let (close, text) = match Frame::parse(&frame) {
            Ok((Frame::Close(close, text), _)) => (*close, text.to_owned()),
            other => panic!("not a CLOSE: {other:?}"),
        };
        let (code, reason) = closed_by_server(self.connection.closed().await);
        assert_eq!(reason.as_bytes(), text);
        (close, code, reason)
    }
}

/// Code and reason of an application's close.
pub(super) fn closed_by_server(error: ConnectionError) -> (u64, String) {
    match error {
        ConnectionError::ApplicationClosed(close) => {
            (close.error_code.into_inner(), String::from_utf8_lossy(&close.reason).into_owned())
        }
        other => panic!("not closed by the server: {other:?}"),
    }
}

pub(super) fn hello() -> Vec<u8> {
    let hello = Hello {
        magic: MAGIC,
        version: 1.into(),
        network: 0,
        reserved: 0,
        capabilities: 0.into(),
        digest: 0.into(),
        heartbeat_ms: 0.into(),
        reserved_end: 0.into(),
    };
    frame(Kind::Hello, &hello, &[])
}

pub(super) fn ping(sequence: u32) -> Vec<u8> {
    frame(
        Kind::Ping,
        &Ping {
            sequence: sequence.into(),
            network: 0,
            reserved: [0; 3],
            digest: 0.into(),
            heartbeat_ms: 0.into(),
            reserved_end: 0.into(),
        },
        &[],
    )
}

pub(super) fn command(text: &str) -> Vec<u8> {
    let send = Send {
        channel: ChannelId::group(1),
        epoch: 0.into(),
        counter: 0.into(),
        predecessor: 0.into(),
        content_type: 0.into(),
        kind: 0,
        version: 0,
        refers_to: 0.into(),
    };
    frame(Kind::Send, &send, text.as_bytes())
}

fn frame<T: zerocopy::IntoBytes + zerocopy::Immutable>(
    kind: Kind,
    head: &T,
    variable: &[u8],
) -> Vec<u8> {
    let mut buffer = vec![0; FRAME_BYTES_MAX];
    let bytes = encode(kind, Flags::NONE, head, variable, &mut buffer);
    buffer.truncate(bytes);
    buffer
}

/// A frame of a kind that nobody knows.
pub(super) fn unknown(payload_bytes: usize) -> Vec<u8> {
    let mut frame = header(Kind(0x77), Flags::NONE, payload_bytes).as_bytes().to_vec();
    frame.resize(4 + payload_bytes, 0x77);
    frame
}
