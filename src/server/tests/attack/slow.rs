//! Clients that take their time: half logins, frames byte by byte, readers that do not read.

use std::time::{Duration, Instant};

use tern_protocol::{Code, Frame, Kind};

use crate::support::dial::Dial;
use crate::support::peer::{End, Fate, Peer};
use crate::support::server::Account;
use crate::support::stage::Stage;
use crate::support::{scaled, words};

/// How a client spends the time in which it should log in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Idling {
    Silent,
    Greeted,
    HalfHello,
    HalfLogin,
    LongHeader,
    ByteByByte,
    Chatting,
}

const IDLINGS: [Idling; 7] = [
    Idling::Silent,
    Idling::Greeted,
    Idling::HalfHello,
    Idling::HalfLogin,
    Idling::LongHeader,
    Idling::ByteByByte,
    Idling::Chatting,
];

/// What it says at once.
fn opening(idling: Idling, login: &[u8]) -> Vec<u8> {
    match idling {
        Idling::Silent | Idling::ByteByByte => Vec::new(),
        Idling::Greeted | Idling::Chatting => words::hello(),
        Idling::HalfHello => words::hello()[..9].to_vec(),
        Idling::HalfLogin => [&words::hello(), &login[..40]].concat(),
        Idling::LongHeader => [&words::hello()[..], &[0xff, 0xff, 3, 0], &login[4..]].concat(),
    }
}

#[test]
fn s10_who_does_not_log_in_in_time_is_disconnected() {
    let stage = Stage::start("S-10-logins", &["--login-ms-max", "1500"]);
    let login = words::login(&stage.server.user("mallory"));
    let count = scaled(70);
    let start = Instant::now();
    let mut peers: Vec<_> = (0..count as usize)
        .map(|number| {
            let idling = IDLINGS[number % IDLINGS.len()];
            let mut peer = Peer::connect(stage.server.address, &Dial::default());
            peer.say(&opening(idling, &login));
            (idling, peer, Instant::now())
        })
        .collect();
    let (connected, rss) = (start.elapsed(), stage.rss_grown_kib());
    let slowest = outwait(&mut peers);
    let slow = stage.await_grown("logins_slow", u64::from(count));
    assert_eq!(slow, u64::from(count));
    assert_eq!(stage.grown("logins"), 0);
    stage.finish(
        count,
        format!(
            "connected_in={:.1}s slowest_end={:.1}s of 1.5s logins_slow={slow} rss_kib=+{rss}",
            connected.as_secs_f64(),
            slowest.as_secs_f64()
        ),
    );
}

/// Goes on idling until all were disconnected as too slow; the longest that one was there.
fn outwait(peers: &mut Vec<(Idling, Peer, Instant)>) -> Duration {
    let hello = words::hello();
    let (mut place, mut slowest) = (0, Duration::ZERO);
    while !peers.is_empty() {
        peers.retain_mut(|(idling, peer, since)| {
            match idling {
                Idling::ByteByByte if place < hello.len() - 1 => {
                    peer.write(peer.stream(), &[hello[place]]);
                }
                Idling::Chatting => peer.say(&words::frame(Kind(0x7e), 0, b"still here")),
                _ => {}
            }
            peer.turn(Duration::from_millis(1));
            let Some(end) = peer.end() else {
                assert!(since.elapsed() < crate::support::peer::PATIENCE, "{idling:?} stays");
                return true;
            };
            assert_eq!(*end, End::Code(Code::TooSlow), "{idling:?}");
            slowest = slowest.max(since.elapsed());
            false
        });
        place += 1;
        std::thread::sleep(Duration::from_millis(50));
    }
    slowest
}

#[test]
fn s10_a_frame_that_never_ends_is_no_sign_of_life() {
    let stage = Stage::start("S-10-frames", &["--heartbeat-wired-ms", "1000"]);
    let (mut silent, _, _) = stage.device("mallory");
    let (mut trickling, _, _) = stage.device("trudy");
    let (mut chatting, _, _) = stage.device("trent");
    let head = [0xff, 0xff, 0x10, 0]; // SEND of 65,535 bytes
    silent.say(&head);
    trickling.say(&head);
    let start = Instant::now();
    while silent.end().is_none() || trickling.end().is_none() {
        assert!(start.elapsed() < crate::support::peer::PATIENCE, "both stay");
        silent.turn(Duration::from_millis(20));
        let stream = trickling.stream();
        trickling.write(stream, b"x");
        trickling.turn(Duration::from_millis(20));
        chatting.round_trip(1);
    }
    let took = start.elapsed();
    assert_eq!(silent.end(), Some(&End::Code(Code::Offline)));
    assert_eq!(trickling.end(), Some(&End::Code(Code::Offline)));
    let offline = stage.await_grown("sessions_offline", 2);
    stage
        .finish(2, format!("ended_in={:.1}s of 3s sessions_offline={offline}", took.as_secs_f64()));
}

/// The option that lets a device send what a longer run needs.
const UNLIMITED: &str = "--sends-burst";

/// Bytes of a message that make its pushes heavy: the default limit.
const HEAVY: usize = 1_440;

#[test]
fn s10_readers_that_do_not_read_are_disconnected() {
    /// What such a reader may cost while it is there, in KiB: 256 that QUIC keeps, 256 that wait
    /// for it, as much again for the allocator and the connection.
    const READER_KIB_MAX: u64 = 1_024;
    let stage = Stage::start("S-10-readers", &[UNLIMITED, "100000"]);
    let (mut writer, ann, epoch) = stage.device("trent");
    let count = scaled(10);
    let accounts: Vec<_> =
        (0..count).map(|number| stage.server.user(&format!("mallory-{number}"))).collect();
    let mut counter = 0;
    for account in &accounts {
        for _ in 0..64 {
            counter += 1;
            writer.send(ann.channel_with(account), epoch, counter, &[7; HEAVY]);
        }
    }
    let before = stage.rss_grown_kib();
    let mut rss_max = 0;
    for account in &accounts {
        let dial = Dial { window: 4_096, ..Dial::default() };
        let mut peer = Peer::connect(stage.server.address, &dial);
        peer.log_in(account);
        peer.reads = false;
        peer.say(&words::cursors(&[], true));
        let fetch = words::fetch(ann.channel_with(account), 1, 64);
        let end = peer.until("the end of patience with a reader", |peer| {
            if peer.end().is_none() {
                peer.say(&fetch);
            }
            peer.end().cloned()
        });
        assert_eq!(end, End::Code(Code::SlowReader));
        rss_max = stage.rss_grown_kib().saturating_sub(before).max(rss_max);
    }
    let bound = u64::from(count) * READER_KIB_MAX;
    assert!(rss_max <= bound, "{count} readers cost {rss_max} KiB");
    let slow = stage.await_grown("slow_readers", u64::from(count));
    // Nothing is lost: one that reads gets it all.
    let (mut peer, _) = Peer::device(stage.server.address, &Dial::default(), &accounts[0]);
    for _ in 0..64 {
        peer.hear(Kind::Push);
    }
    stage.finish(count, format!("slow_readers={slow} rss_kib=+{rss_max} of {bound}"));
}

#[test]
fn s10_a_receiver_that_acknowledges_nothing_goes_offline() {
    let stage = Stage::start("S-10-acks", &["--heartbeat-wired-ms", "1000", UNLIMITED, "100000"]);
    let (mut writer, ann, epoch) = stage.device("trent");
    let (mut mallory, account, _) = stage.device("mallory");
    mallory.round_trip(1);
    mallory.gate = Box::new(|_| Fate::Lost);
    let channel = ann.channel_with(&account);
    let count = scaled(200);
    for counter in 1..=count {
        writer.send(channel, epoch, counter, &[7; HEAVY]);
    }
    let pushed = stage.grown("pushes");
    let start = Instant::now();
    while stage.grown("sessions_offline") == 0 {
        assert!(start.elapsed() < crate::support::peer::PATIENCE, "the silent receiver stays");
        writer.round_trip(1);
    }
    let (mut again, _) = Peer::device(stage.server.address, &Dial::default(), &account);
    for id in 1..=u64::from(count) {
        again.hear(Kind::Push);
        again.say(&words::receive_ack(channel, id));
    }
    stage.finish(count, format!("pushes_before_offline<={pushed} sessions_offline=1"));
}

/// A receiver of D-07 that does not keep up.
struct Slow {
    account: Account,
    peer: Peer,
    /// Which of three ways: its app does not read, its network is gone, it reads a byte at a time.
    way: usize,
}

impl Slow {
    fn stall(stage: &Stage, number: usize) -> Self {
        let (mut peer, account, _) = stage.device(&format!("slow-{number}"));
        let way = number % 3;
        peer.round_trip(1);
        peer.reads = false;
        if way == 1 {
            peer.gate = Box::new(|_| Fate::Lost);
        }
        Self { account, peer, way }
    }

    /// What it does meanwhile, if anything.
    fn turn(&mut self) {
        match self.way {
            0 => self.peer.turn(Duration::ZERO),
            1 => self.peer.ignore(),
            _ => {
                self.peer.read_some(1);
                self.peer.turn(Duration::ZERO);
            }
        }
    }
}

#[test]
fn d07_receivers_that_do_not_keep_up_cost_bounded_memory_and_nobody_else_a_message() {
    /// Heavy messages to each receiver until every window is full, and after that.
    const FILLING: u64 = 100;
    const MORE: u64 = 200;
    let limits = [UNLIMITED, "1000000", "--sends-per-second", "1000000"];
    let stage = Stage::start("D-07", &limits);
    let (mut writer, ann, epoch) = stage.device("trent");
    let mut healthy: Vec<_> =
        (0..5).map(|number| stage.device(&format!("healthy-{number}"))).collect();
    let count = scaled(30);
    let mut slow: Vec<_> = (0..count as usize).map(|n| Slow::stall(&stage, n)).collect();
    let accounts = healthy.iter().map(|(_, account, _)| account);
    let accounts = accounts.chain(slow.iter().map(|slow| &slow.account));
    let channels: Vec<_> = accounts.map(|account| ann.channel_with(account)).collect();
    let (mut counter, mut full) = (0, 0);
    for id in 1..=FILLING + MORE {
        for some in channels.chunks(50) {
            for channel in some {
                counter += 1;
                writer.say(&words::send(*channel, epoch, counter, &[7; HEAVY]));
            }
            writer.hear_ack(counter);
        }
        for ((peer, ..), channel) in healthy.iter_mut().zip(&channels) {
            hear_push(peer, id);
            peer.say(&words::receive_ack(*channel, id));
        }
        slow.iter_mut().for_each(Slow::turn);
        if id == FILLING {
            full = stage.server.private_kib();
        }
    }
    let grown = stage.server.private_kib().saturating_sub(full);
    let offered = u64::from(count) * MORE * HEAVY as u64 / 1_024;
    assert!(grown <= offered / 4, "{grown} KiB more for {offered} KiB that nobody read");
    // Nothing of it is lost: who comes back gets it all.
    for Slow { account, .. } in &slow {
        let (mut peer, _) = Peer::device(stage.server.address, &Dial::default(), account);
        for id in 1..=FILLING + MORE {
            hear_push(&mut peer, id);
            peer.say(&words::receive_ack(ann.channel_with(account), id));
        }
    }
    let messages = counter;
    stage.finish(
        count,
        format!("messages={messages} lost=0 private_kib=+{grown} of {offered} that nobody read"),
    );
}

fn hear_push(peer: &mut Peer, id: u64) {
    match peer.hear(Kind::Push).frame() {
        Frame::Push(push, _) => assert_eq!(push.id.get(), id, "in order, each once"),
        other => unreachable!("{other:?} is no PUSH"),
    }
}
