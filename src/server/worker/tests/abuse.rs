//! What clients may not do, and what strangers send.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Instant;

use quinn::ConnectionError;
use tern_protocol::limits::ALPN;
use tern_protocol::{Code, Frame};
use tern_random::Stream;

use super::super::Counts;
use super::super::guests::ATTEMPTS_PER_TURN;
use super::harness::{Client, Plan, Server, client_config, closed_by_server, ping, run};
use crate::transport::settings::TransportSettings;

#[test]
fn a_second_stream_is_closed_with_its_code() {
    run(async {
        let server = Server::start(Plan::default());
        let mut client = Client::connect(server.workers.address()).await;
        client.hello().await;
        let (mut second, _) = client.connection.open_bi().await.expect("permitted, to be told");
        second.write_all(&ping(1)).await.expect("sent");
        expect_forbidden(&server, client).await;
    });
}

#[test]
fn a_unidirectional_stream_is_closed_with_its_code() {
    run(async {
        let server = Server::start(Plan::default());
        let mut client = Client::connect(server.workers.address()).await;
        client.hello().await;
        let mut second = client.connection.open_uni().await.expect("permitted, to be told");
        second.write_all(&ping(1)).await.expect("sent");
        expect_forbidden(&server, client).await;
    });
}

async fn expect_forbidden(server: &Server, client: Client) {
    let (code, reason) = closed_by_server(client.connection.closed().await);
    assert_eq!(code, u64::from(Code::StreamNotAllowed.0));
    assert_eq!(reason, Code::StreamNotAllowed.sentence());
    let counts = server.until("closed", |counts| counts.links_closed == 1).await;
    assert_eq!((counts.streams_forbidden, server.closed_links()), (1, 1));
}

#[test]
fn a_stream_that_ends_ends_the_connection() {
    run(async {
        let server = Server::start(Plan::default());
        let address = server.workers.address();
        let stream = [ping(1), ping(2)].concat();
        let (whole, inside) = (Code::LoggedOut, Code::Malformed);
        for (bytes, code) in [(28, whole), (56, whole), (3, inside), (8, inside), (29, inside)] {
            let mut client = Client::connect(address).await;
            client.write(&stream[..bytes]).await;
            client.send.finish().expect("open");
            let (closed, _) = closed_by_server(client.connection.closed().await);
            assert_eq!(closed, u64::from(code.0), "after {bytes} bytes");
        }
        server.until("told", |_| server.closed_links() == 5).await;
    });
}

#[test]
fn another_protocol_is_refused() {
    run(async {
        let server = Server::start(Plan::default());
        let address = server.workers.address();
        for alpn in [&[&b"h3"[..]][..], &[b"tern/2"], &[]] {
            let refused = Client::try_connect(address, alpn, quinn::TransportConfig::default());
            let error = refused.await.err().expect("refused");
            assert!(matches!(error, ConnectionError::ConnectionClosed(_)), "{error}");
        }
        let counts = server.until("failed", |counts| counts.handshakes_failed == 3).await;
        assert_eq!((counts.links_opened, counts.handshakes_now), (0, 0));
        Client::connect(address).await.ping(1).await;
    });
}

/// S-04: whatever comes, it is dropped or answered with fewer bytes, and nobody else notices.
#[test]
fn s04_random_datagrams_change_nothing() {
    run(async {
        let server = Server::start(Plan::default());
        let address = server.workers.address();
        let mut client = Client::connect(address).await;
        let initial = initial(address);
        let stranger = UdpSocket::bind("127.0.0.1:0").expect("a free port");
        let before = server.counts();
        let mut random = Random(Stream::new(1));
        for round in 0..3_000 {
            let datagram = match round % 3 {
                0 => random.bytes(1_400),
                1 => random.mutate(&initial),
                _ => random.headed(100),
            };
            stranger.send_to(&datagram, address).expect("loopback takes it");
            if round % 50 == 0 {
                client.ping(round).await;
            }
        }
        client.ping(1).await;
        let counts = server.until("received", |c| c.datagrams_in >= before.datagrams_in + 2_000);
        let counts = counts.await;
        let sent = counts.bytes_out - before.bytes_out;
        let received = counts.bytes_in - before.bytes_in;
        assert!(sent <= received, "{sent} bytes in answer to {received}");
        assert_eq!((counts.links_opened, server.closed_links()), (1, 0));
    });
}

/// S-05: an address that proves nothing gets at most three times what it sent.
#[test]
fn s05_a_spoofed_address_is_not_flooded() {
    run(async {
        let settings = TransportSettings { handshake_ms_max: 1_500, ..Default::default() };
        let server = Server::start(Plan { settings, ..Plan::default() });
        let address = server.workers.address();
        let victims: Vec<UdpSocket> = (0..10)
            .map(|_| {
                let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
                socket.set_nonblocking(true).expect("a socket");
                socket.send_to(&initial(address), address).expect("loopback takes it");
                socket
            })
            .collect();
        server.until("given up", |counts| counts.handshakes_slow == 10).await;
        for victim in victims {
            let mut buffer = [0; 2_000];
            let got: usize = std::iter::from_fn(|| victim.recv(&mut buffer).ok()).sum();
            assert!(got > 0 && got <= 3 * 1_200, "{got} bytes in answer to 1200");
        }
        let counts = server.counts();
        assert_eq!((counts.links_now, counts.handshakes_now), (0, 0), "and all is forgotten");
    });
}

/// S-06: beyond the threshold a new handshake must prove its address first, which a real client
/// does; what is kept of the others is bounded and goes away.
#[test]
fn s06_a_flood_of_handshakes_engages_retry() {
    run(async {
        let settings =
            TransportSettings { retry_threshold: 8, handshake_ms_max: 3_000, ..Default::default() };
        let server = Server::start(Plan { settings, ..Plan::default() });
        let address = server.workers.address();
        let stranger = UdpSocket::bind("127.0.0.1:0").expect("a free port");
        for sent in 1..=1_000 {
            for _ in 0..10 {
                stranger.send_to(&initial(address), address).expect("loopback takes it");
            }
            let counts = server.until("decided", |counts| counts.attempts == 10 * sent).await;
            assert!(counts.handshakes_now <= 2 * 8 && counts.links_now <= 2 * 8);
        }
        let flooded = server.counts();
        assert!(flooded.attempts_retried >= 10_000 - flooded.handshakes_slow - 2 * 8);
        let mut client = Client::connect(address).await;
        client.ping(1).await;
        let counts = server.until("forgotten", |counts| counts.links_now == 1).await;
        assert_eq!((counts.handshakes, counts.handshakes_now), (1, 0));
    });
}

/// S-15: those who come at once are taken a few a turn, so that who is there is served in between.
#[test]
fn s15_a_crowd_at_the_door_is_taken_a_few_a_turn() {
    const CROWD: usize = 200;
    run(async {
        let settings = TransportSettings {
            retry_threshold: CROWD,
            handshakes_max: CROWD,
            handshake_ms_max: 2_000,
            ..Default::default()
        };
        let server = Server::start(Plan { workers: 1, settings, ..Plan::default() });
        let address = server.workers.address();
        // Beforehand, for that takes longer than a client may be silent.
        let crowd: Vec<Vec<u8>> = (0..CROWD).map(|_| initial(address)).collect();
        let mut client = Client::connect(address).await;
        client.hello().await;
        let stranger = UdpSocket::bind("127.0.0.1:0").expect("a free port");
        for initial in &crowd {
            stranger.send_to(initial, address).expect("loopback takes it");
        }
        client.ping(1).await; // who is there is answered
        let taken = |counts: &Counts| counts.handshakes_now + counts.handshakes_slow;
        let counts = server.until("taken", |counts| taken(counts) == CROWD as u64).await;
        assert_eq!(counts.attempts, 1 + CROWD as u64);
        assert_eq!((counts.attempts_ignored, counts.attempts_refused), (0, 0));
        assert!(counts.attempts_delayed > 0, "all were taken as they came");
        assert_eq!(counts.attempts_turn_max, u64::from(ATTEMPTS_PER_TURN));
        println!(
            "TEST S-15 door n={CROWD} delayed={} most_a_turn={}",
            counts.attempts_delayed, counts.attempts_turn_max
        );
        server.until("forgotten", |counts| counts.links_now == 1).await;
        client.ping(2).await;
    });
}

/// S-15: who is not logged in yet may say much; all of it is heard in its order, behind those who
/// are.
#[test]
fn s15_what_guests_say_waits_for_its_turn_and_keeps_its_order() {
    const PINGS: u32 = 4_000;
    run(async {
        let server = Server::start(Plan { workers: 1, ..Plan::default() });
        let address = server.workers.address();
        let mut client = Client::connect(address).await;
        client.hello().await;
        client.command("enter").await;
        assert!(matches!(Frame::parse(&client.read().await), Ok((Frame::LoggedIn(_), _))));
        let mut guest = Client::connect(address).await;
        guest.hello().await;
        let before = server.counts();
        guest.write(&(1..=PINGS).flat_map(ping).collect::<Vec<_>>()).await;
        client.ping(1).await; // who is there is answered
        for sequence in 1..=PINGS {
            assert_eq!(guest.pong().await, sequence);
        }
        let counts = server.counts();
        let delayed = counts.guests_delayed - before.guests_delayed;
        println!("TEST S-15 guests n={PINGS} delayed={delayed} dropped={}", counts.guests_dropped);
        assert!(delayed > 0, "all packets were taken as they came");
        client.write(&(1..=PINGS).flat_map(ping).collect::<Vec<_>>()).await;
        for sequence in 1..=PINGS {
            assert_eq!(client.pong().await, sequence);
        }
        assert_eq!(server.counts().guests_delayed, counts.guests_delayed, "of the guest alone");
    });
}

#[test]
fn handshakes_under_way_are_bounded_and_refusals_counted() {
    run(async {
        let settings = TransportSettings {
            retry_threshold: 100,
            handshakes_max: 3,
            handshake_ms_max: 500,
            connections_max: 4,
            ..Default::default()
        };
        let server = Server::start(Plan { workers: 1, settings, ..Plan::default() });
        let address = server.workers.address();
        let stranger = UdpSocket::bind("127.0.0.1:0").expect("a free port");
        for _ in 0..10 {
            stranger.send_to(&initial(address), address).expect("loopback takes it");
        }
        let counts = server.until("decided", |counts| counts.attempts == 10).await;
        assert!(counts.attempts_ignored + counts.attempts_refused >= 7 - counts.handshakes_slow);
        server.until("forgotten", |counts| counts.links_now == 0).await;

        let mut clients = Vec::new();
        for _ in 0..4 {
            clients.push(Client::connect(address).await);
        }
        let fifth = Client::try_connect(address, &[ALPN], quinn::TransportConfig::default()).await;
        assert!(matches!(fifth.err(), Some(ConnectionError::ConnectionClosed(_))));
        for client in &mut clients {
            client.ping(1).await;
        }
    });
}

/// The first datagram of a new client, who never says another.
fn initial(server: SocketAddr) -> Vec<u8> {
    let config = Arc::new(quinn_proto::EndpointConfig::default());
    let mut endpoint = quinn_proto::Endpoint::new(config, None, false, None);
    let client = client_config(&[ALPN], quinn::TransportConfig::default());
    let now = Instant::now();
    let (_, mut connection) =
        endpoint.connect(now, client, server, "localhost").expect("a valid address");
    let mut datagram = Vec::new();
    let transmit = connection.poll_transmit(now, 1, &mut datagram).expect("an Initial");
    datagram.truncate(transmit.size);
    assert_eq!(datagram.len(), 1_200);
    datagram
}

/// Bytes of a fixed seed.
struct Random(Stream);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0.index(bound)
    }

    fn bytes(&mut self, longest: usize) -> Vec<u8> {
        (0..=self.below(longest)).map(|_| self.0.draw() as u8).collect()
    }

    /// A packet with the bytes of a short header, or of a long one of version 1 and any type.
    fn headed(&mut self, longest: usize) -> Vec<u8> {
        let mut bytes = self.bytes(longest);
        bytes.resize(bytes.len().max(30), 0);
        if self.below(2) == 0 {
            bytes[0] = 0x40 | bytes[0] & 0x3f;
        } else {
            bytes[0] |= 0xc0;
            bytes[1..6].copy_from_slice(&[0, 0, 0, 1, 8]);
        }
        bytes
    }

    /// Some bits flipped, and maybe the end cut off.
    fn mutate(&mut self, datagram: &[u8]) -> Vec<u8> {
        let mut bytes = datagram.to_vec();
        for _ in 0..=self.below(4) {
            let at = self.below(bytes.len());
            bytes[at] ^= 1 << self.below(8);
        }
        if self.below(3) == 0 {
            bytes.truncate(self.below(datagram.len()) + 1);
        }
        bytes
    }
}
