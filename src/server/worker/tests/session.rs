//! Frames in, effects out, and everything that reaches a worker from elsewhere.

use std::time::Duration;

use tern_protocol::frames::SendRefused;
use tern_protocol::{Code, Frame, Kind};
use zerocopy::FromBytes as _;

use super::super::Command;
use super::double::{BODY_BYTE, COLD, Told};
use super::harness::{Client, LONG, Plan, Server, closed_by_server, ping, run, unknown};
use tern_core::placement::{ShardId, WorkerId};

#[test]
fn frames_come_and_go_over_both_families() {
    for listen in ["127.0.0.1:0", "[::1]:0", "[::]:0"] {
        run(async {
            let listen = listen.parse().expect("an address");
            let server = Server::start(Plan { listen, ..Plan::default() });
            let mut address = server.workers.address();
            if address.ip().is_unspecified() {
                address.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
            }
            let mut client = Client::connect(address).await;
            assert!(client.hello().await < 2);
            for sequence in 0..50 {
                client.ping(sequence).await;
            }
            let counts = server.counts();
            assert_eq!((counts.frames, counts.links_opened, counts.links_now), (51, 1, 1));
            assert_eq!((counts.handshakes_now, counts.strays_out), (0, 0));
        });
    }
}

#[test]
fn frames_are_cut_however_they_come() {
    run(async {
        let server = Server::start(Plan::default());
        let mut client = Client::connect(server.workers.address()).await;
        for byte in ping(1) {
            client.write(&[byte]).await;
            tokio::task::yield_now().await;
        }
        assert_eq!(client.pong().await, 1);

        let largest = unknown(65_535);
        client
            .write(&[ping(2), largest.clone(), ping(3), largest, unknown(0), ping(4)].concat())
            .await;
        for expected in [Some(2), None, Some(3), None, None, Some(4)] {
            let frame = client.read().await;
            match (Frame::parse(&frame).expect("a frame").0, expected) {
                (Frame::Pong(pong), Some(sequence)) => assert_eq!(pong.sequence.get(), sequence),
                (Frame::Error(error, text), None) => {
                    assert_eq!(error.code.get(), Code::UnknownKind.0);
                    assert_eq!(text, Code::UnknownKind.sentence().as_bytes());
                }
                other => panic!("{other:?}"),
            }
        }
    });
}

#[test]
fn pushes_are_the_bodies_of_the_log() {
    run(async {
        let server = Server::start(Plan::default());
        let mut client = Client::connect(server.workers.address()).await;
        for bytes in [64, 300, 1_504, 60_064] {
            client.command(&format!("push {bytes}")).await;
            let frame = client.read().await;
            assert_eq!((frame[2], frame.len()), (Kind::Push.0, 4 + bytes));
            assert!(frame[4..].iter().all(|&byte| byte == BODY_BYTE));
        }
    });
}

#[test]
fn a_push_that_cannot_be_read_ends_the_connection() {
    run(async {
        let server = Server::start(Plan::default());
        let mut client = Client::connect(server.workers.address()).await;
        client.command(&format!("push {}", COLD.0)).await;
        let (code, _) = closed_by_server(client.connection.closed().await);
        assert_eq!(code, u64::from(Code::Internal.0));
        let counts = server.until("closed", |counts| counts.links_closed == 1).await;
        assert_eq!((counts.pushes_unreadable, server.closed_links()), (1, 1));
    });
}

#[test]
fn what_a_stream_does_not_take_at_once_waits() {
    run(async {
        let server = Server::start(Plan::default());
        let mut transport = quinn::TransportConfig::default();
        transport.stream_receive_window(10_000_u32.into());
        let address = server.workers.address();
        let alpn = [tern_protocol::limits::ALPN];
        let mut client = Client::try_connect(address, &alpn, transport).await.expect("connected");
        client.command("flood 200").await;
        client.write(&ping(9)).await;
        server.until("spilled", |counts| counts.spilled_bytes > 100_000).await;
        for _ in 0..200 {
            let frame = client.read().await;
            assert_eq!((frame[2], frame.len()), (Kind::Push.0, 1_004));
        }
        assert_eq!(client.pong().await, 9, "in order, behind all pushes");
        assert_eq!(server.counts().slow_readers, 0);
    });
}

#[test]
fn a_slow_reader_is_closed_and_the_machine_told_once() {
    run(async {
        let server = Server::start(Plan::default());
        let address = server.workers.address();
        let (mut slow, mut other) =
            (Client::connect(address).await, Client::connect(address).await);
        slow.command("flood 5000").await;
        let (code, _) = closed_by_server(slow.connection.closed().await);
        assert_eq!(code, u64::from(Code::SlowReader.0));
        other.ping(1).await;
        let counts = server.until("closed", |counts| counts.links_closed == 1).await;
        assert_eq!((counts.slow_readers, server.closed_links()), (1, 1));
    });
}

#[test]
fn nothing_of_ours_is_allocated_per_message() {
    const MESSAGES: u32 = 4_000;
    run(async {
        let server = Server::start(Plan { workers: 1, ..Plan::default() });
        let mut client = Client::connect(server.workers.address()).await;
        let mut before = 0;
        for round in 0..2 {
            for sequence in 0..MESSAGES {
                client.ping(sequence).await;
                client.command("push 300").await;
                assert_eq!(client.read().await.len(), 304);
            }
            if round == 0 {
                before = server.counts().allocations_ours; // from here on all buffers are there
            }
        }
        let counts = server.counts();
        let ours = counts.allocations_ours - before;
        assert!(ours < u64::from(MESSAGES) / 100, "{ours} in {} messages", 2 * MESSAGES);
        assert!(counts.allocations_quic > 0, "those are counted apart");
    });
}

#[test]
fn a_close_comes_as_a_frame_and_as_a_code() {
    run(async {
        let server = Server::start(Plan::default());
        let mut client = Client::connect(server.workers.address()).await;
        client.hello().await;
        client.command("close").await;
        let (close, code, text) = client.closed().await;
        assert_eq!(close.code.get(), Code::Draining.0);
        assert_eq!((close.come_back_ms.get(), close.slot_tenths.get()), (1_234, 56));
        assert_eq!(code, u64::from(Code::Draining.0));
        assert_eq!(text, Code::Draining.sentence());
        let counts = server.until("drained", |counts| counts.links_now == 0).await;
        assert_eq!(counts.links_closed, 1);
        assert_eq!(server.closed_links(), 0, "the machine closed it itself");
    });
}

#[test]
fn the_machine_is_told_once_of_a_client_that_goes() {
    run(async {
        let server = Server::start(Plan::default());
        for _ in 0..3 {
            let mut client = Client::connect(server.workers.address()).await;
            client.ping(1).await;
            client.connection.close(0_u32.into(), b"");
        }
        server.until("gone", |counts| counts.links_closed == 3 && counts.links_now == 0).await;
        let told = server.told();
        for (index, told_first) in told.iter().enumerate() {
            let again = told[index + 1..].contains(told_first);
            assert!(!again, "{told_first:?} stands twice in {told:?}");
        }
        assert_eq!(server.closed_links(), 3);
    });
}

#[test]
fn proofs_answers_and_warm_reads_reach_the_machine() {
    run(async {
        let server = Server::start(Plan::default());
        let mut client = Client::connect(server.workers.address()).await;
        let worker = client.hello().await;
        client.command("prove").await;
        client.ping(1).await;
        server.workers.doors().durable(ShardId(worker));
        assert_eq!(client.pong().await, u32::from(worker));

        client.command("ask 3000").await;
        let mut seen = Vec::new();
        for _ in 0..3_000 {
            seen.push(client.pong().await);
        }
        seen.sort_unstable();
        assert!(seen.into_iter().eq(0..3_000), "more questions than places, each answered once");
        client.command("warm 1500").await;
        for _ in 0..1_500 {
            assert_eq!(client.pong().await, 0);
        }
        assert_eq!(server.counts().queries_now, 0);
    });
}

#[test]
fn mail_crosses_in_order_also_when_rings_are_full() {
    run(async {
        let server = Server::start(Plan::default());
        let mut clients = clients_of_both(&server).await;
        for client in &mut clients {
            client.command("hop 5000").await;
        }
        for client in &mut clients {
            for count in 0..5_000 {
                let frame = client.read().await;
                let (refused, _) = SendRefused::read_from_prefix(&frame[4..]).expect("whole");
                assert_eq!(refused.retry_after_ms.get(), count);
            }
        }
        let counts = server.counts();
        assert_eq!((counts.mail_out, counts.mail_in), (20_000, 20_000), "there and back");
    });
}

/// One client of each of two workers.
pub(super) async fn clients_of_both(server: &Server) -> [Client; 2] {
    let mut clients = [None, None];
    for _ in 0..100 {
        let mut client = Client::connect(server.workers.address()).await;
        let worker = usize::from(client.hello().await);
        clients[worker] = Some(client);
        if let [Some(_), Some(_)] = clients {
            return clients.map(|client| client.expect("just seen"));
        }
    }
    panic!("100 clients came to one worker");
}

#[test]
fn a_deadline_of_the_machine_is_kept() {
    for spin in [Duration::ZERO, Duration::from_millis(5)] {
        run(async {
            let server = Server::start(Plan { spin, ..Plan::default() });
            let mut client = Client::connect(server.workers.address()).await;
            for ms in [0, 1, 30] {
                client.command(&format!("tick {ms}")).await;
                assert_eq!(client.pong().await, 0);
            }
            let ticks = server.told().iter().filter(|told| **told == Told::Tick).count();
            assert_eq!(ticks, 3);
        });
    }
}

#[test]
fn a_kick_closes_with_its_code() {
    run(async {
        let server = Server::start(Plan::default());
        let mut client = Client::connect(server.workers.address()).await;
        client.hello().await;
        let kick =
            Command::Kick { uin: tern_protocol::Uin(1), device: None, code: Code::UserDisabled };
        server.workers.doors().command_all(kick);
        let (close, code, _) = client.closed().await;
        assert_eq!((close.code.get(), code), (Code::UserDisabled.0, u64::from(close.code.get())));
    });
}

#[test]
fn a_drain_tells_every_client_and_ends() {
    run(async {
        let server = Server::start(Plan::default());
        let address = server.workers.address();
        let mut clients = clients_of_both(&server).await;
        let started = std::time::Instant::now();
        let drain = tokio::task::spawn_blocking(move || server.workers.drain(LONG).len());
        for client in &mut clients {
            let (close, code, _) = client.closed().await;
            assert_eq!((close.code.get(), code), (Code::Draining.0, u64::from(Code::Draining.0)));
        }
        assert_eq!(drain.await.expect("no panic"), 2, "the machines come back");
        assert!(started.elapsed() < LONG, "not by the deadline");
        std::net::UdpSocket::bind(address).expect("the port is free again");
    });
}

#[test]
fn a_drain_ends_by_its_deadline_when_a_client_is_silent() {
    run(async {
        let server = Server::start(Plan::default());
        let client = Client::connect(server.workers.address()).await;
        server.until("connected", |counts| counts.links_opened == 1).await;
        // The client's runtime stands still while this thread waits: nothing is acknowledged.
        assert_eq!(server.workers.drain(Duration::from_millis(100)).len(), 2);
        drop(client);
    });
}

#[test]
fn figures_are_published_by_themselves() {
    run(async {
        let server = Server::start(Plan::default());
        let board = server.workers.doors().board(WorkerId(1));
        let published = board.snapshot().published;
        let waited = tokio::time::timeout(LONG, async {
            while board.snapshot().published < published + 2 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        waited.await.expect("twice, without being asked");
        let shown = board.snapshot();
        assert!(shown.driver.turns > 0 && shown.driver.cpu_us > 0 && !shown.turns.is_empty());
    });
}
