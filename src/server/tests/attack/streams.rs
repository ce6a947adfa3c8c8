//! Streams that a client may not open, streams in pieces, connections that never stand still.

use std::time::Duration;

use quinn_proto::Dir;
use tern_protocol::{Code, Kind};

use crate::support::dial::Dial;
use crate::support::peer::{End, Fate, Peer};
use crate::support::stage::Stage;
use crate::support::{scaled, words};

#[test]
fn s09_a_second_stream_ends_the_connection() {
    let stage = Stage::start("S-09-streams", &[]);
    let account = stage.server.user("mallory");
    let count = scaled(60);
    for number in 0..count {
        let dir = if number % 2 == 0 { Dir::Bi } else { Dir::Uni };
        let mut peer = Peer::connect(stage.server.address, &Dial::default());
        if number % 3 == 0 {
            peer.log_in(&account);
        } else {
            peer.say(&words::hello());
        }
        let stream = peer.open(dir).expect("one more is allowed, to be refused with a name");
        peer.write(stream, b"x");
        if number % 4 >= 2 {
            let mut sender = peer.connection.send_stream(stream);
            sender.reset(1_u32.into()).expect("it is open");
        }
        assert_eq!(peer.open(dir), None, "QUIC's own limit holds");
        assert_eq!(peer.ended(), End::Code(Code::StreamNotAllowed), "stream {number}, {dir:?}");
    }
    let forbidden = stage.await_grown("streams_forbidden", u64::from(count));
    assert_eq!(forbidden, u64::from(count));
    stage.finish(count, format!("streams_forbidden={forbidden}"));
}

/// Fragments that leave before the server must have shown that it keeps up.
const BURST: u32 = 64;

/// A device that sends a long frame byte by byte, of which every second never comes. `pacer` is
/// another one at the same worker.
fn send_with_gaps(stage: &Stage, pacer: &mut Peer, number: u32, fragments: u32) -> Peer {
    let account = stage.server.user(&format!("mallory-{number}"));
    let dial = Dial { flight: 16 << 20, worker: Some(0), ..Dial::default() };
    let (mut peer, _) = Peer::device(stage.server.address, &dial, &account);
    peer.round_trip(1);
    peer.say(&[0xff, 0xff, 0x7e, 0]); // the head of 65,535 bytes of an unknown kind
    peer.run_for(Duration::from_millis(20));
    let mut odd = false;
    peer.gate = Box::new(move |_| {
        odd = !odd;
        if odd { Fate::Lost } else { Fate::Sent }
    });
    let stream = peer.stream();
    for byte in 0..2 * fragments {
        assert_eq!(peer.write(stream, b"x"), 1, "the window takes it");
        peer.flush();
        if byte % (2 * BURST) == 0 {
            pacer.round_trip(byte);
            peer.ignore();
        }
    }
    peer
}

#[test]
fn s09_fragments_with_gaps_cost_little_and_too_many_end_the_connection() {
    /// What a connection with the most fragments that are kept may cost, in KiB: its buffers,
    /// the bytes that the fragments keep alive and an entry for each.
    const CONNECTION_KIB_MAX: u64 = 1_024;
    /// Below the number at which quinn-proto looks whether it can put them together.
    const FRAGMENTS: u32 = 2_000;
    let stage = Stage::start("S-09-gaps", &[]);
    let pacer = stage.server.user("pacer");
    let dial = Dial { worker: Some(0), ..Dial::default() };
    let (mut pacer, _) = Peer::device(stage.server.address, &dial, &pacer);
    let count = scaled(10);
    let before = stage.rss_grown_kib();
    let peers: Vec<_> =
        (0..count).map(|n| send_with_gaps(&stage, &mut pacer, n, FRAGMENTS)).collect();
    pacer.round_trip(0);
    let received = stage.await_grown("datagrams_in", u64::from(count * FRAGMENTS));
    let each = stage.rss_grown_kib().saturating_sub(before) / u64::from(count);
    assert!(each <= CONNECTION_KIB_MAX, "a connection in pieces costs {each} KiB");
    assert_eq!(stage.grown("links_closed"), 0, "they are within the bound");
    drop(peers);
    let mut over = send_with_gaps(&stage, &mut pacer, count, 2 * FRAGMENTS);
    // By an error of QUIC, or, where that was dropped with what else was not read, by the reset
    // that answers the fragments that came later.
    let end = over.ended();
    assert!(matches!(end, End::Quic(_) | End::Reset), "{end:?}");
    let closed = stage.await_grown("links_closed", 1);
    stage.finish(
        format!("{count}x{FRAGMENTS}"),
        format!(
            "received={received} rss_kib_each=+{each} of {CONNECTION_KIB_MAX} \
             links_closed={closed} over={end:?}"
        ),
    );
}

#[test]
fn s09_a_client_that_moves_with_each_packet_stays_bounded() {
    let stage = Stage::start("S-09-moves", &[]);
    let (mut peer, _, _) = stage.device("mallory");
    let count = scaled(12); // from the ninth on each waits for its turn
    for sequence in 0..count {
        peer.move_port();
        peer.round_trip(sequence);
    }
    let moved = stage.await_grown("migrations", u64::from(count));
    let rss = stage.rss_grown_kib();
    assert_eq!((stage.grown("logins"), stage.grown("resumes")), (1, 0), "no login but the first");
    stage.finish(count, format!("migrations={moved} rss_kib=+{rss}"));
}

#[test]
fn s09_a_client_that_stops_the_servers_stream_is_let_go() {
    let stage = Stage::start("S-09-stop", &[]);
    let (mut peer, _, _) = stage.device("mallory");
    peer.round_trip(1);
    let stream = peer.stream();
    peer.connection.recv_stream(stream).stop(7_u32.into()).expect("it is open");
    assert_eq!(peer.ended(), End::Code(Code::LoggedOut));
    let closed = stage.await_grown("links_closed", 1);
    stage.finish(1, format!("links_closed={closed}"));
}

#[test]
fn s11_forced_key_updates_go_on() {
    let stage = Stage::start("S-11", &["--sends-burst", "100000"]);
    let (mut peer, own, epoch) = stage.device("mallory");
    let channel = own.channel_with(&own);
    let count = scaled(150);
    for counter in 1..=count {
        // One is under way for three probe timeouts; QUIC takes no other before. Each message
        // goes out under the newest keys, acks and pushes come back under them.
        peer.connection.force_key_update();
        assert_eq!(peer.send(channel, epoch, counter, b"new keys"), u64::from(counter));
        peer.hear(Kind::Push);
        peer.say(&words::receive_ack(channel, u64::from(counter)));
        peer.run_for(Duration::from_millis(10));
    }
    assert_eq!(peer.end(), None);
    let acks = stage.await_grown("acks", u64::from(count));
    stage.finish(count, format!("acks=+{acks}"));
}
