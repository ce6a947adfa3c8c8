//! Datagrams: what is no QUIC, what once was, and what comes from nobody knows where.

use std::net::{SocketAddr, UdpSocket};

use tern_protocol::Kind;

use crate::support::dial::{Dial, bind};
use crate::support::peer::Peer;
use crate::support::random::Random;
use crate::support::stage::Stage;
use crate::support::{scaled, words};

/// Datagrams that leave before the server must have shown that it keeps up, so that few are lost
/// in the kernel.
const BURST: u32 = 64;

/// Longest datagram that is tried, in bytes: an Ethernet frame's payload.
const LONGEST: usize = 1_472;

/// A sender without a connection that counts bytes both ways.
pub struct Stranger {
    socket: UdpSocket,
    to: SocketAddr,
    pub out: u64,
    pub back: u64,
}

impl Stranger {
    pub fn new(to: SocketAddr) -> Self {
        let socket = bind(to.ip());
        socket.set_nonblocking(true).unwrap();
        Self { socket, to, out: 0, back: 0 }
    }

    pub fn send(&mut self, datagram: &[u8]) {
        // Full buffers lose datagrams, as networks do; these count as sent all the same.
        let _ = self.socket.send_to(datagram, self.to);
        self.out += datagram.len() as u64;
    }

    /// Takes what came back; the bytes in all so far.
    pub fn listen(&mut self) -> u64 {
        let mut buffer = [0; 2_048];
        while let Ok(bytes) = self.socket.recv(&mut buffer) {
            self.back += bytes as u64;
        }
        self.back
    }

    fn ratio(&mut self) -> f64 {
        self.listen() as f64 / self.out as f64
    }
}

/// All datagrams of a whole session of mallory's, from the first Initial on.
fn record(stage: &Stage) -> Vec<Vec<u8>> {
    let account = stage.server.user("mallory");
    let mut peer = Peer::dial(stage.server.address, &Dial::default());
    peer.tap = Some(Vec::new());
    peer.until("a connection", |peer| peer.open(quinn_proto::Dir::Bi));
    peer.log_in(&account);
    peer.say(&words::cursors(&[], true));
    for sequence in 0..20 {
        peer.round_trip(sequence);
    }
    peer.tap.take().expect("it was kept")
}

/// One datagram that no honest client would send.
fn bad_datagram(random: &mut Random, recorded: &[Vec<u8>]) -> Vec<u8> {
    let mut copy = recorded[random.below(recorded.len())].clone();
    match random.below(8) {
        0 => return random.some_bytes(1, LONGEST),
        1 => copy.truncate(1 + random.below(copy.len())),
        2 => copy.extend(random.some_bytes(1, 100)),
        3 => {
            // A long header of any version; every second one long enough to be answered.
            let bytes = if random.below(2) == 0 { 1_200 } else { 7 + random.below(1_190) };
            copy = random.bytes(bytes);
            copy[0] |= 0xc0;
        }
        4 => {
            copy = random.some_bytes(7, 1_300);
            copy[0] |= 0xc0;
            copy[1..5].copy_from_slice(&[0, 0, 0, 1]);
            copy[5] = random.below(22) as u8; // QUIC allows ids of up to 20 bytes
        }
        5 => {} // once more, unchanged
        _ => {
            for _ in 0..=random.below(8) {
                let at = random.below(copy.len());
                copy[at] ^= 1 << random.below(8);
            }
        }
    }
    copy
}

#[test]
fn s04_bad_datagrams_are_dropped() {
    let stage = Stage::start("S-04", &[]);
    let mut random = Random::seeded();
    let recorded = record(&stage);
    let (mut victim, _, _) = stage.device("trent");
    victim.tap = Some(Vec::new());
    victim.round_trip(1);
    let of_victim = victim.tap.take().expect("it was kept");
    let mut stranger = Stranger::new(stage.server.address);
    let count = scaled(20_000);
    let before = stage.server.figures();
    for number in 0..count {
        // Every fourth comes as if from the victim itself, made of what the victim sent.
        if number % 4 == 0 {
            victim.inject(&bad_datagram(&mut random, &of_victim));
        } else {
            stranger.send(&bad_datagram(&mut random, &recorded));
        }
        if number % BURST == 0 {
            victim.round_trip(number);
            stranger.listen();
        }
    }
    victim.round_trip(count);
    let (after, ratio) = (stage.server.figures(), stranger.ratio());
    let received = after.since(&before, "datagrams_in");
    assert!(received >= u64::from(count) / 10 * 9, "{received} of {count} were received");
    assert!(ratio <= 3.0, "{ratio} times as many bytes came back");
    for name in ["logins", "resumes", "frames_malformed", "migrations", "links_closed"] {
        assert_eq!(after.since(&before, name), 0, "{name} grew");
    }
    let since = |name| after.since(&before, name);
    let (dropped, resets, invalid) =
        (since("datagrams_ignored"), since("resets"), since("attempts_invalid"));
    assert!(dropped > u64::from(count) / 10 && resets > 0 && invalid > 0);
    stage.finish(
        count,
        format!(
            "seed={} received={received} dropped={dropped} resets={resets} invalid={invalid} \
             ratio={ratio:.2}",
            random.seed
        ),
    );
}

/// The first datagram of a connection, 1,200 bytes.
fn first_initial(server: SocketAddr) -> Vec<u8> {
    let first = Peer::dial(server, &Dial::default()).hold_back().swap_remove(0);
    assert_eq!(first.len(), 1_200);
    first
}

#[test]
fn s05_little_goes_back_to_an_unproven_address() {
    let stage = Stage::start("S-05", &["--login-ms-max", "1500"]);
    let mut random = Random::seeded();
    let server = stage.server.address;
    let initial = first_initial(server);
    let ask = |sent: Vec<Vec<u8>>| {
        let mut stranger = Stranger::new(server);
        sent.iter().for_each(|datagram| stranger.send(datagram));
        stranger
    };
    let with = |datagram: &[u8], at: usize, bytes: &[u8]| {
        let mut datagram = datagram.to_vec();
        datagram[at..at + bytes.len()].copy_from_slice(bytes);
        datagram
    };
    let short = |bytes: usize, random: &mut Random| {
        let mut datagram = random.bytes(bytes);
        datagram[0] = 0x40 | datagram[0] & 0x3f;
        datagram
    };
    let unknown = with(&initial, 1, &[0x0a, 0x0a, 0x0a, 0x0a]);
    let mut strangers = [
        ("an Initial", ask(vec![first_initial(server)])),
        ("an Initial twice", ask(vec![initial.clone(), initial.clone()])),
        ("an Initial and a crumb", {
            let first = first_initial(server);
            let crumb = first[..30].to_vec();
            ask(vec![first, crumb])
        }),
        ("a short Initial", ask(vec![first_initial(server)[..1_199].to_vec()])),
        ("an unknown version", ask(vec![unknown.clone()])),
        ("an unknown version, short", ask(vec![unknown[..1_199].to_vec()])),
        ("short headers", ask((20..1_200).step_by(40).map(|n| short(n, &mut random)).collect())),
        ("crumbs", ask((1..20).map(|n| short(n, &mut random)).collect())),
    ];
    let slow = stage.await_grown("handshakes_slow", 2);
    let mut figures = format!("handshakes_slow={slow}");
    for (what, stranger) in &mut strangers {
        let ratio = stranger.ratio();
        assert!(ratio <= 3.0, "{what}: {} bytes for {}", stranger.back, stranger.out);
        figures += &format!(" {}={ratio:.2}", what.replace(' ', "-"));
    }
    for (what, expected) in
        [("a short Initial", 0), ("an unknown version, short", 0), ("crumbs", 0)]
    {
        let (_, stranger) = strangers.iter().find(|(name, _)| *name == what).expect("it is one");
        assert_eq!(stranger.back, expected, "{what} was answered");
    }
    let (_, asked) = &strangers[0];
    assert!(asked.back > 0, "a whole Initial was not answered");
    let dropped = stage.await_grown("datagrams_ignored", 2 + 19);
    assert_eq!(stage.grown("attempts_invalid"), 1, "one version was to be negotiated");
    figures += &format!(" dropped={dropped}");
    stage.finish(strangers.len(), figures);
}

#[test]
fn s05_a_retry_is_smaller_than_what_it_answers() {
    let stage = Stage::start("S-05-retry", &["--retry-threshold", "0"]);
    let count = scaled(200);
    let (mut pacer, _, _) = stage.device("trent");
    let mut stranger = Stranger::new(stage.server.address);
    let before = stage.grown("attempts_retried");
    for number in 0..count {
        stranger.send(&first_initial(stage.server.address));
        if number % BURST == 0 {
            pacer.round_trip(number);
        }
    }
    let retried = stage.await_grown("attempts_retried", before + u64::from(count) / 10 * 9);
    let ratio = stranger.ratio();
    assert!(ratio < 1.0, "{ratio} times as many bytes came back");
    let mut late = Peer::connect(stage.server.address, &Dial::default());
    late.say(&words::hello());
    late.hear(Kind::Welcome);
    stage.finish(count, format!("attempts_retried={retried} ratio={ratio:.2}"));
}

/// Addresses that a connection may try at once; then one a second.
const MOVES_AT_ONCE: u32 = 8;

/// What goes to a new address before it is proven, beyond three times what came from it: QUIC's
/// challenge in a full packet, which quinn-proto sends as soon as a single byte is allowed.
const CHALLENGE_BYTES: u64 = 1_200;

#[test]
fn s05_a_client_that_moves_must_prove_its_new_address() {
    let stage = Stage::start("S-05-moved", &[]);
    let (mut writer, ann, epoch) = stage.device("trent");
    let (mut mallory, own, _) = stage.device("mallory");
    let channel = ann.channel_with(&own);
    for counter in 1..=64 {
        writer.send(channel, epoch, counter, &[7; 1_440]);
        mallory.hear(Kind::Push);
    }
    mallory.round_trip(1);
    // Asks for all of it once more, then moves on, as if to the addresses of others, who never
    // asked.
    let count = MOVES_AT_ONCE + scaled(12);
    let mut victims: Vec<_> = (0..count).map(|_| Stranger::new(stage.server.address)).collect();
    let stream = mallory.stream();
    mallory.write(stream, &words::fetch(channel, 1, 64));
    for victim in &mut victims {
        mallory.write(stream, &words::ping(2));
        mallory.hold_back().iter().for_each(|datagram| victim.send(datagram));
        writer.round_trip(1);
    }
    let moved = stage.await_grown("migrations", u64::from(MOVES_AT_ONCE));
    let dropped = stage.await_grown("moves_dropped", 1);
    stage.honest_messages(20); // long enough for the server to try again what nobody acknowledged
    let (mut out, mut back) = (0, 0);
    for victim in &mut victims {
        victim.listen();
        let bound = 3 * victim.out + CHALLENGE_BYTES;
        assert!(victim.back <= bound, "{} bytes for {}", victim.back, victim.out);
        (out, back) = (out + victim.out, back + victim.back);
    }
    assert!(back > 0, "the server did not try a new address");
    let ratio = back as f64 / out as f64;
    stage.finish(
        count,
        format!("migrations={moved} dropped={dropped} out={out} back={back} ratio={ratio:.2}"),
    );
}
