//! Handshakes that are begun and never ended, and tokens that were not given to who shows them.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use quinn_proto::{ClientConfig, Connection, ConnectionHandle, DatagramEvent, Endpoint};
use tern_protocol::Kind;

use crate::support::dial::{Dial, bind, endpoint};
use crate::support::peer::{End, PATIENCE, Peer};
use crate::support::random::Random;
use crate::support::server::Server;
use crate::support::stage::Stage;
use crate::support::{scaled, words};

/// Handshakes begun before those of a batch are taken up again.
const BATCH: u32 = 64;

/// What a connection under way may cost the server, in KiB. Twice what one was measured to take
/// (17 KB), and room for what the allocator keeps.
const HANDSHAKE_KIB_MAX: u64 = 64;

/// Workers of a server under test.
const WORKERS: u64 = 2;

/// One address that begins handshakes without end.
struct Flooder {
    socket: UdpSocket,
    server: SocketAddr,
    endpoint: Endpoint,
    config: ClientConfig,
}

impl Flooder {
    fn new(server: SocketAddr) -> Self {
        let (socket, config) = (bind(server.ip()), Dial::default().config());
        socket.set_nonblocking(true).unwrap();
        Self { socket, server, endpoint: endpoint(8), config }
    }

    /// Begins a handshake: its first datagram leaves.
    fn begin(&mut self) -> (ConnectionHandle, Connection) {
        let (now, config) = (Instant::now(), self.config.clone());
        let (handle, mut connection) =
            self.endpoint.connect(now, config, self.server, "tern").unwrap();
        self.send(&mut connection);
        (handle, connection)
    }

    /// Lets what the connection has to send leave.
    fn send(&self, connection: &mut Connection) {
        let mut buffer = Vec::with_capacity(2_048);
        while let Some(transmit) = connection.poll_transmit(Instant::now(), 1, &mut buffer) {
            // Full buffers lose datagrams, as networks do.
            let _ = self.socket.send_to(&buffer[..transmit.size], transmit.destination);
            buffer.clear();
        }
    }

    /// Leaves a handshake as it is.
    fn forget(&mut self, handle: ConnectionHandle) {
        self.endpoint.handle_event(handle, quinn_proto::EndpointEvent::drained());
    }

    /// Begins a batch; with `answers`, each Retry that comes is answered, and nothing else.
    fn batch(&mut self, count: u32, answers: bool) {
        let mut begun: Vec<_> = (0..count).map(|_| self.begin()).collect();
        if answers {
            self.answer_retries(&mut begun);
        }
        let mut buffer = [0; 2_048];
        while self.socket.recv(&mut buffer).is_ok() {}
        begun.into_iter().for_each(|(handle, _)| self.forget(handle));
    }

    fn answer_retries(&mut self, begun: &mut [(ConnectionHandle, Connection)]) {
        let (mut buffer, mut response) = ([0; 2_048], Vec::new());
        let (end, mut left) = (Instant::now() + Duration::from_millis(100), begun.len());
        while left > 0 && Instant::now() < end {
            let Ok((bytes, from)) = self.socket.recv_from(&mut buffer) else { continue };
            let (data, now) = (BytesMut::from(&buffer[..bytes]), Instant::now());
            let event = self.endpoint.handle(now, from, None, None, data, &mut response);
            let Some(DatagramEvent::ConnectionEvent(handle, event)) = event else { continue };
            let Some((_, connection)) = begun.iter_mut().find(|(own, _)| *own == handle) else {
                continue;
            };
            if is_retry(&buffer[..bytes]) {
                connection.handle_event(event);
                self.send(connection);
                left -= 1;
            }
        }
    }
}

/// Whether it is a Retry packet (RFC 9000 §17.2.5).
fn is_retry(datagram: &[u8]) -> bool {
    datagram[0] & 0xf0 == 0xf0
}

/// The token in a Retry packet: between the ids and the 16 bytes of its integrity tag.
fn token_of(retry: &[u8]) -> Bytes {
    assert!(is_retry(retry), "no Retry: {:#x}", retry[0]);
    let own_end = 6 + usize::from(retry[5]);
    let start = own_end + 1 + usize::from(retry[own_end]);
    Bytes::copy_from_slice(&retry[start..retry.len() - 16])
}

/// A newcomer gets in while the flood goes on.
fn must_get_in(stage: &Stage, name: &str) {
    let (mut peer, _, _) = stage.device(name);
    peer.round_trip(1);
}

#[test]
fn s06_a_flood_of_half_open_handshakes_is_bounded() {
    let stage = Stage::start("S-06", &["--login-ms-max", "3000", "--retry-threshold", "256"]);
    let count = scaled(10_000);
    let mut flooder = Flooder::new(stage.server.address);
    let (mut open_max, start) = (0, Instant::now());
    for begun in (0..count).step_by(BATCH as usize) {
        flooder.batch(BATCH, false);
        if begun / BATCH == count / BATCH / 2 {
            must_get_in(&stage, "newcomer");
            open_max = stage.server.figures().get("handshakes_now");
        }
    }
    let took = start.elapsed();
    let rss = stage.rss_grown_kib();
    let retried = stage.grown("attempts_retried");
    assert!(retried >= u64::from(count) / 2, "{retried} of {count} were told to prove themselves");
    assert!(open_max <= WORKERS * 256 + 4, "{open_max} handshakes were under way");
    let rss_max = WORKERS * 256 * HANDSHAKE_KIB_MAX;
    assert!(rss <= rss_max, "memory grew by {rss} KiB, more than {rss_max}");
    await_no_handshakes(&stage);
    let slow = stage.grown("handshakes_slow");
    stage.finish(
        count,
        format!(
            "rate={:.0}/s attempts_retried={retried} handshakes_slow={slow} under_way={open_max} \
             rss_kib=+{rss} of {rss_max}",
            f64::from(count) / took.as_secs_f64()
        ),
    );
}

#[test]
fn s06_half_open_handshakes_of_a_proven_address_are_bounded() {
    /// Handshakes that a worker has under way at most.
    const HANDSHAKES_MAX: u64 = 1_024;
    let stage = Stage::start("S-06-proven", &["--login-ms-max", "3000", "--retry-threshold", "0"]);
    let count = scaled(3_000);
    let mut flooder = Flooder::new(stage.server.address);
    for _ in (0..count).step_by(BATCH as usize) {
        flooder.batch(BATCH, true);
    }
    let (open, rss) = (stage.server.figures().get("handshakes_now"), stage.rss_grown_kib());
    let ignored = stage.grown("attempts_ignored");
    assert!(open <= WORKERS * HANDSHAKES_MAX, "{open} handshakes were under way");
    let rss_max = WORKERS * HANDSHAKES_MAX * HANDSHAKE_KIB_MAX;
    assert!(rss <= rss_max, "memory grew by {rss} KiB, more than {rss_max}");
    await_no_handshakes(&stage);
    let slow = stage.grown("handshakes_slow");
    assert!(slow > 0, "the retried handshakes went on");
    must_get_in(&stage, "newcomer");
    stage.finish(
        count,
        format!(
            "under_way={open} handshakes_slow={slow} attempts_ignored={ignored} rss_kib=+{rss} \
             of {rss_max}"
        ),
    );
}

/// Waits until all handshakes under way were dropped for taking too long.
fn await_no_handshakes(stage: &Stage) {
    let start = Instant::now();
    while stage.server.figures().get("handshakes_now") > 0 {
        assert!(start.elapsed() < PATIENCE, "handshakes stay under way");
    }
}

/// Begins a handshake at a server that wants proof, and takes the token from its Retry.
fn take_token(socket: &UdpSocket, server: SocketAddr) -> Bytes {
    let mut flooder = Flooder::new(server);
    flooder.socket = socket.try_clone().unwrap();
    flooder.begin();
    socket.set_nonblocking(false).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut buffer = [0; 2_048];
    let bytes = socket.recv(&mut buffer).expect("a Retry comes");
    token_of(&buffer[..bytes])
}

#[test]
fn s08_tokens_prove_only_the_address_they_were_given_to() {
    let stage = Stage::start("S-08-tokens", &["--retry-threshold", "0"]);
    let server = stage.server.address;
    let mut random = Random::seeded();
    let here = bind(server.ip());
    let token = take_token(&here, server);
    let with = |from: Ipv4Addr, token: &[u8]| {
        let token = Some(Bytes::copy_from_slice(token));
        Peer::dial(server, &Dial { from: from.into(), token, ..Dial::default() })
    };
    // Another port, and another address.
    for from in [Ipv4Addr::LOCALHOST, Ipv4Addr::new(127, 0, 0, 2)] {
        let end = with(from, &token).ended();
        let invalid = quinn_proto::TransportErrorCode::INVALID_TOKEN;
        assert_eq!(end, End::Quic(invalid), "a token of another address, shown from {from}");
    }
    assert_eq!(stage.grown("attempts_invalid"), 2);
    // Of another server's key.
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("other");
    let other = Server::start(&data, crate::support::server::ANY_PORT, &["--retry-threshold", "0"]);
    let foreign = take_token(&here, other.address);
    other.stop();
    let mut flipped = token.to_vec();
    flipped[token.len() / 2] ^= 4;
    let mut unknown = vec![foreign.to_vec(), flipped, token[..token.len() - 1].to_vec()];
    unknown.extend([1, 16, 40, 300].map(|bytes| random.bytes(bytes)));
    let before = stage.grown("attempts_retried");
    for (place, token) in unknown.iter().enumerate() {
        let mut peer = with(Ipv4Addr::LOCALHOST, token);
        peer.until("a connection", |peer| {
            assert_eq!(peer.end(), None, "token {place}");
            peer.open(quinn_proto::Dir::Bi)
        });
        peer.say(&words::hello());
        peer.hear(Kind::Welcome);
    }
    let retried = stage.grown("attempts_retried") - before;
    assert_eq!(retried, unknown.len() as u64, "each was told to prove its address");
    stage.finish(2 + unknown.len(), format!("attempts_retried={retried}"));
}
