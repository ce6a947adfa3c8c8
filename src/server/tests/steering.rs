//! Which worker a datagram reaches, over real sockets to the real binary: devices of different
//! workers talk, a device that changes its address stays where it is, and after a crash those who
//! wait are told.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first thing that is wrong")]
#![allow(clippy::print_stdout, reason = "a test tells its figures")]

mod support;

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use support::dial::Dial;
use support::peer::{End, Peer};
use support::scaled;
use support::server::{ANY_PORT, Account, Server};
use support::words;
use tern_protocol::{ChannelId, Code, Frame, Kind};

/// Where servers listen, for each family of addresses.
const FAMILIES: [&str; 2] = [ANY_PORT, "[::1]:0"];

/// What lets a device send what a longer run needs.
const UNLIMITED: [&str; 2] = ["--sends-burst", "100000"];

/// Interval of heartbeats that a client on a cable is told by default.
const HEARTBEAT: Duration = Duration::from_secs(10);

/// A device of `account` at this worker of two.
fn device_at(server: SocketAddr, worker: u8, account: &Account) -> (Peer, u32) {
    let dial = Dial { from: server.ip(), worker: Some(worker), ..Dial::default() };
    let (peer, logged_in) = Peer::device(server, &dial, account);
    (peer, logged_in.epoch.get())
}

/// Waits for the next message and acknowledges it; its id and content.
fn receive(peer: &mut Peer, channel: ChannelId) -> (u64, Vec<u8>) {
    let said = peer.hear(Kind::Push);
    let Frame::Push(push, content) = said.frame() else { unreachable!("it is a PUSH") };
    assert_eq!(push.channel, channel);
    peer.say(&words::receive_ack(channel, push.id.get()));
    (push.id.get(), content.to_vec())
}

#[test]
fn messages_cross_between_workers() {
    let folder = tempfile::tempdir().unwrap();
    let rounds = scaled(50);
    for (place, listen) in FAMILIES.into_iter().enumerate() {
        let server = Server::start(&folder.path().join(place.to_string()), listen, &UNLIMITED);
        for (at_ann, at_bob) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
            let user = |name| server.user(&format!("{name}-{at_ann}{at_bob}"));
            let (ann, bob) = (user("ann"), user("bob"));
            let channel = ann.channel_with(&bob);
            let before = server.figures();
            let (mut left, of_left) = device_at(server.address, at_ann, &ann);
            let (mut right, of_right) = device_at(server.address, at_bob, &bob);
            for round in 1..=rounds {
                let id = u64::from(2 * round) - 1;
                assert_eq!(left.send(channel, of_left, round, b"from ann"), id);
                assert_eq!(receive(&mut right, channel), (id, b"from ann".to_vec()));
                assert_eq!(right.send(channel, of_right, round, b"from bob"), id + 1);
                assert_eq!(receive(&mut right, channel), (id + 1, b"from bob".to_vec()));
                assert_eq!(receive(&mut left, channel), (id, b"from ann".to_vec()));
                assert_eq!(receive(&mut left, channel), (id + 1, b"from bob".to_vec()));
            }
            let after = server.figures();
            assert_eq!(after.since(&before, "strays_out"), 0, "ids name their worker");
            assert_eq!(after.since(&before, "sends_appended"), u64::from(2 * rounds));
            println!(
                "TEST cross n={} on={listen} workers={at_ann}-{at_bob} mail={} strays=0",
                2 * rounds,
                after.since(&before, "mail_out")
            );
        }
        server.stop();
    }
}

#[test]
fn a_device_whose_port_changes_keeps_its_session_and_its_worker() {
    let folder = tempfile::tempdir().unwrap();
    let moves = scaled(8);
    for (place, listen) in FAMILIES.into_iter().enumerate() {
        let server = Server::start(&folder.path().join(place.to_string()), listen, &UNLIMITED);
        let (ann, bob) = (server.user("ann"), server.user("bob"));
        let channel = ann.channel_with(&bob);
        let (mut writer, of_writer) = device_at(server.address, 0, &ann);
        let (mut mover, of_mover) = device_at(server.address, 1, &bob);
        writer.send(channel, of_writer, 1, b"before");
        assert_eq!(receive(&mut mover, channel).1, b"before");
        let before = server.figures();
        let mut counter = 1;
        for number in 0..moves {
            let told = number % 2 == 0;
            mover.move_port();
            if told {
                mover.connection.local_address_changed(); // QUIC knows, and takes another id
            }
            mover.round_trip(number);
            counter += 1;
            writer.send(channel, of_writer, counter, b"after");
            let (id, content) = receive(&mut mover, channel);
            assert_eq!((id, &content[..]), (u64::from(counter), &b"after"[..]));
        }
        let id = mover.send(channel, of_mover, 1, b"in the same epoch");
        assert_eq!(id, u64::from(counter) + 1);
        let after = server.figures();
        let since = |name| after.since(&before, name);
        assert_eq!((since("logins"), since("resumes"), since("links_opened")), (0, 0, 0));
        assert_eq!((since("migrations"), since("strays_out")), (u64::from(moves), 0));
        println!(
            "TEST move n={moves} on={listen} migrations={} strays=0 logins=0",
            since("migrations")
        );
        server.stop();
    }
}

#[test]
fn first_packets_reach_the_worker_that_their_id_names() {
    let folder = tempfile::tempdir().unwrap();
    let count = scaled(40);
    for (place, listen) in FAMILIES.into_iter().enumerate() {
        let server = Server::start(&folder.path().join(place.to_string()), listen, &[]);
        for number in 0..count {
            let worker = Some((number % 2) as u8);
            let dial = Dial { from: server.address.ip(), worker, ..Dial::default() };
            let mut peer = Peer::connect(server.address, &dial);
            peer.say(&words::hello());
            peer.hear(Kind::Welcome);
            assert_eq!(peer.server_id()[0] % 2, number as u8 % 2, "it keeps its worker");
        }
        let figures = server.figures();
        let opened = figures.get("links_opened");
        assert_eq!((opened, figures.get("strays_out")), (u64::from(count), 0));
        println!("TEST first n={count} on={listen} strays=0");
        server.stop();
    }
}

#[test]
fn figures_of_strays_are_explained() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(&folder.path().join("data"), ANY_PORT, &[]);
    let status: serde_json::Value =
        serde_json::from_str(&server.tern(&["status", "--json"])).unwrap();
    let rows = status["workers"]["rows"].as_array().unwrap();
    for name in ["strays_out", "strays_in", "strays_dropped", "migrations", "resets_restart"] {
        let row = rows.iter().find(|row| row["name"] == name).expect("it is counted");
        assert!(row["sentence"].as_str().unwrap().len() > 20, "{row}");
        assert_eq!(row["values"].as_array().unwrap().len(), 2, "one of each worker: {row}");
    }
    server.stop();
}

/// Receivers at both workers, one of which has moved; each says nothing any more.
fn idle_receivers(server: &Server) -> Vec<(Account, Peer, u32)> {
    let idle = |number: u8| {
        let account = server.user(&format!("receiver-{number}"));
        let (mut peer, epoch) = device_at(server.address, number % 2, &account);
        peer.round_trip(1);
        if number >= 2 {
            peer.move_port();
            peer.round_trip(2);
        }
        peer.run_for(Duration::from_millis(100)); // the last acknowledgements are out
        (account, peer, epoch)
    };
    (0..4).map(idle).collect()
}

/// Kills the server, starts it with another number of workers, and has all receivers notice.
fn crash_and_notice(data: &Path, listen: &str, workers: u16) {
    let server = Server::start(data, listen, &[]);
    let address = server.address;
    let mut receivers = idle_receivers(&server);
    server.kill();
    let killed = Instant::now();
    let server = Server::start_with(data, &address.to_string(), workers, &[]);
    let ready = Instant::now();
    let mut slowest = Duration::ZERO;
    for (account, peer, epoch) in &mut receivers {
        // It is told without having asked: until then nothing leaves.
        peer.tap = Some(Vec::new());
        assert_eq!(peer.ended(), End::Reset);
        slowest = slowest.max(ready.elapsed());
        let said = peer.tap.take().expect("it was kept");
        assert!(said.is_empty(), "{} datagrams left before it was told", said.len());
        log_in_again(address, account, *epoch);
    }
    assert!(killed.elapsed() < HEARTBEAT, "a heartbeat would have told as well");
    let resets = server.figures().get("resets_restart");
    assert!(resets >= receivers.len() as u64, "{resets} resets were sent");
    println!(
        "TEST restart n={} on={listen} workers=2-{workers} noticed_ms={:.0} after ready, \
         down_ms={:.0} heartbeat_ms={} resets_restart={resets}",
        receivers.len(),
        slowest.as_secs_f64() * 1e3,
        (ready - killed).as_secs_f64() * 1e3,
        HEARTBEAT.as_millis()
    );
    server.stop();
}

/// The session did not outlive its server: RESUME is refused, LOGIN grants the next epoch.
fn log_in_again(server: SocketAddr, account: &Account, epoch: u32) {
    let dial = Dial { from: server.ip(), ..Dial::default() };
    let mut peer = Peer::connect(server, &dial);
    peer.say(&[words::hello(), words::resume(account, epoch, [0; 32])].concat());
    let said = peer.hear(Kind::Error);
    let Frame::Error(head, _) = said.frame() else { unreachable!("it is an ERROR") };
    assert_eq!(Code(head.code.get()), Code::ResumeUnknown);
    assert_eq!(peer.log_in_greeted(account).epoch.get(), epoch + 1);
}

#[test]
fn idle_receivers_notice_a_crash_by_a_reset() {
    let folder = tempfile::tempdir().unwrap();
    for (place, listen) in FAMILIES.into_iter().enumerate() {
        for workers in [1, 2, 3] {
            let data = folder.path().join(format!("{place}-{workers}"));
            crash_and_notice(&data, listen, workers);
        }
    }
}
