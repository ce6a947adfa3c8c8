//! Connection ids that are forged, and datagrams at the wrong worker.

use std::os::fd::AsFd;

use quinn_udp::{Transmit, UdpSockRef, UdpSocketState};
use tern_protocol::Kind;

use crate::datagrams::Stranger;
use crate::support::dial::Dial;
use crate::support::peer::Peer;
use crate::support::random::Random;
use crate::support::stage::Stage;
use crate::support::{scaled, words};

/// Datagrams that leave before the server must have shown that it keeps up.
const BURST: u32 = 32;

/// A packet with a short header for this id; what follows is no ciphertext of anybody.
fn forged(random: &mut Random, id: [u8; 8], bytes: usize) -> Vec<u8> {
    let mut packet = random.bytes(bytes);
    packet[0] = 0x40 | packet[0] & 0x3f;
    packet[1..9].copy_from_slice(&id);
    packet
}

#[test]
fn s08_forged_ids_move_and_reset_nobody() {
    let stage = Stage::start("S-08-ids", &[]);
    let mut random = Random::seeded();
    let (mut victim, _, _) = stage.device("trent");
    victim.round_trip(1);
    let id = victim.server_id();
    let mut stranger = Stranger::new(stage.server.address);
    let before = stage.server.figures();
    let count = scaled(2_000);
    for number in 0..count {
        let bytes = 40 + random.below(1_160);
        // The victim's own id from elsewhere: no state, and no reset that would end it.
        stranger.send(&forged(&mut random, id, bytes));
        // As if from the victim: ids near its own, of its worker and of the other one. A reset
        // may come, and must not be that of the victim's id.
        let mut near = id;
        near[0] = near[0].wrapping_add(1 + random.below(255) as u8);
        victim.inject(&forged(&mut random, near, bytes));
        if number % BURST == 0 {
            victim.round_trip(number);
        }
    }
    victim.round_trip(count);
    let after = stage.server.figures();
    for name in ["migrations", "attempts", "links_closed", "logins", "resumes"] {
        assert_eq!(after.since(&before, name), 0, "{name} grew");
    }
    let resets = after.since(&before, "resets");
    assert!(resets > 0, "no forged id of the victim's socket was answered");
    assert_eq!(stranger.listen(), 0, "a live id was answered to a stranger");
    stage.finish(2 * count, format!("seed={} resets={resets}", random.seed));
}

#[test]
fn s08_short_ids_and_short_packets_are_not_answered() {
    let stage = Stage::start("S-08-short", &[]);
    let mut random = Random::seeded();
    let (mut pacer, _, _) = stage.device("trent");
    let mut stranger = Stranger::new(stage.server.address);
    let count = scaled(500);
    for number in 0..count {
        if number % BURST == 0 {
            pacer.round_trip(number);
        }
        let bytes = 1 + random.below(21); // a reset must be smaller than what it answers
        let mut packet = random.bytes(bytes);
        packet[0] = 0x40 | packet[0] & 0x3f;
        stranger.send(&packet);
    }
    let dropped = stage.await_grown("datagrams_ignored", u64::from(count) / 10 * 9);
    assert_eq!((stranger.listen(), stage.grown("resets")), (0, 0));
    stage.finish(count, format!("datagrams_ignored={dropped}"));
}

/// Sends the datagrams, all of the same length, in one system call: the kernel steers them all
/// by the first one.
fn send_together(peer: &Peer, datagrams: &[Vec<u8>]) {
    let state = UdpSocketState::new(UdpSockRef::from(&peer.socket().as_fd())).unwrap();
    let transmit = Transmit {
        destination: peer.connection.remote_address(),
        ecn: None,
        contents: &datagrams.concat(),
        segment_size: Some(datagrams[0].len()),
        src_ip: None,
    };
    state.send(UdpSockRef::from(&peer.socket().as_fd()), &transmit).unwrap();
}

#[test]
fn s08_a_datagram_at_the_wrong_worker_is_handed_over_and_counted() {
    let stage = Stage::start("S-08-strays", &[]);
    let mut random = Random::seeded();
    let (mut peer, _, _) = stage.device("mallory");
    peer.round_trip(0);
    let before = stage.server.figures();
    let count = scaled(100);
    for sequence in 1..=count {
        let stream = peer.stream();
        peer.write(stream, &words::ping(sequence));
        let real = peer.hold_back().pop().expect("the PING makes a datagram");
        let mut other = real[1..9].to_vec();
        other[0] ^= 1; // names the other worker of two
        let decoy = forged(&mut random, other.try_into().expect("eight"), real.len());
        send_together(&peer, &[decoy, real]);
        peer.hear(Kind::Pong);
    }
    let after = stage.server.figures();
    let (out, into) = (after.since(&before, "strays_out"), after.since(&before, "strays_in"));
    assert!(out >= u64::from(count), "{out} of {count} strays were handed over");
    assert_eq!((into, after.since(&before, "strays_dropped")), (out, 0));
    stage.finish(count, format!("strays_out={out} strays_in={into}"));
}

#[test]
fn s08_clients_choose_ids_of_any_length() {
    let stage = Stage::start("S-08-lengths", &[]);
    let account = stage.server.user("mallory");
    let lengths = [0, 1, 4, 20];
    for id_bytes in lengths {
        let dial = Dial { id_bytes, ..Dial::default() };
        let (mut peer, _) = Peer::device(stage.server.address, &dial, &account);
        peer.round_trip(1);
        peer.move_port();
        peer.round_trip(2);
    }
    let moved = stage.await_grown("migrations", lengths.len() as u64);
    stage.finish(lengths.len(), format!("migrations={moved}"));
}
