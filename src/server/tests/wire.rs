//! Captures of real conversations, decoded: every frame that either side said is found, once each,
//! byte for byte, through losses, doubled packets, a change of address and of keys, and by the
//! secrets that server and SDK log.
#![expect(
    clippy::unwrap_used,
    reason = "a test may stop at the first thing that is not as it should be"
)]

mod support;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use support::dial::Dial;
use support::peer::{PATIENCE, Peer};
use support::server::{ANY_PORT, Account, Server, tern};
use support::{scaled, words};
use tempfile::TempDir;
use tern_badlink::{Captures, Plan, Protocol, Relay, Sharing};
use tern_bench::load::{Approach, Datagrams, Tickets};
use tern_bench::replay::{Played, Recording, play, provide};
use tern_bench::system;
use tern_netmodel::{Conditions, Profile};
use tern_protocol::{ChannelId, Frame, Kind, MessageId};
use tern_wirecat::capture::Reader;
use tern_wirecat::event::{Carrier, What};
use tern_wirecat::keylog::KeyLog;
use tern_wirecat::quic::Way;
use tern_wirecat::show::extract::Extract;
use tern_wirecat::show::life::Life;
use tern_wirecat::show::svg;
use tern_wirecat::stats::Stats;
use tern_wirecat::{Decoder, Event};

/// Messages that are sent, unless `TERN_SOAK` wants more.
const MESSAGES: u32 = 60;

/// How long a device waits for packets before it looks at others.
const TURN: Duration = Duration::from_millis(2);

/// A server that logs its keys, behind a link that writes captures at both ends.
struct Stage {
    server: Server,
    link: Link,
    folder: TempDir,
}

impl Stage {
    fn new(conditions: Conditions, options: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let server = Server::start(&folder.path().join("data"), ANY_PORT, options);
        let captures = Captures {
            client: Some(folder.path().join("client.pcap")),
            server: Some(folder.path().join("server.pcap")),
        };
        let link = Link::start(server.address, Profile::symmetric(conditions), captures);
        Self { server, link, folder }
    }

    /// Ends the link; what its two ends saw, decoded by the secrets in a file.
    fn decode(self, keys: &Path) -> [Decoded; 2] {
        self.link.stop();
        ["client.pcap", "server.pcap"].map(|name| decode(&self.folder.path().join(name), keys))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

/// A relay on a thread of its own.
struct Link {
    address: SocketAddr,
    end: tokio::sync::oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl Link {
    fn start(server: SocketAddr, profile: Profile, captures: Captures) -> Self {
        let (end, ended) = tokio::sync::oneshot::channel();
        let (tell, told) = mpsc::sync_channel(1);
        let listen = (Ipv4Addr::LOCALHOST, 0).into();
        let (protocol, sharing) = (Protocol::Udp, Sharing::Each);
        let plan = Plan { listen, server, profile, seed: 11, protocol, sharing, captures };
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async {
                let relay = Relay::start(plan).await.unwrap();
                tell.send(relay.address()).unwrap();
                // Either way the relay has to end.
                let _ = ended.await;
            });
        });
        Self { address: told.recv().unwrap(), end, thread }
    }

    fn stop(self) {
        self.end.send(()).unwrap();
        self.thread.join().unwrap();
    }
}

/// A capture, decoded.
struct Decoded {
    events: Vec<Event>,
    stats: Vec<Stats>,
}

fn decode(capture: &Path, keys: &Path) -> Decoded {
    let mut log = KeyLog::default();
    log.follow(keys.to_owned()).unwrap();
    let mut decoder = Decoder::new(log);
    let mut reader = Reader::open(capture).unwrap();
    let mut events = Vec::new();
    while let Some(item) = reader.next_item().unwrap() {
        events.extend(decoder.handle(&item));
    }
    events.extend(decoder.end());
    Decoded { events, stats: decoder.stats() }
}

impl Decoded {
    /// The frames that one side said on a user's connections, in order.
    fn frames(&self, account: &Account, way: Way) -> Vec<&[u8]> {
        // HELLO is said before LOGIN tells who it is.
        let connections: Vec<_> = self
            .events
            .iter()
            .filter(|event| event.who.is_some_and(|who| who.uin == account.uin))
            .map(|event| event.connection)
            .collect();
        let own = self.events.iter().filter(|event| connections.contains(&event.connection));
        own.filter_map(|event| match &event.what {
            What::Frame { way: said, bytes, .. } if *said == way => Some(bytes.as_slice()),
            _ => None,
        })
        .collect()
    }

    fn count(&self, kind: Kind) -> u64 {
        let is_one = |event: &&Event| match &event.what {
            What::Frame { bytes, .. } => bytes[2] == kind.0,
            _ => false,
        };
        self.events.iter().filter(is_one).count() as u64
    }
}

/// A device that remembers what it said and heard.
struct Device {
    peer: Peer,
    account: Account,
    said: Vec<Vec<u8>>,
    heard: Vec<Vec<u8>>,
}

impl Device {
    fn connect(address: SocketAddr, account: Account) -> Self {
        let peer = Peer::connect(address, &Dial::default());
        let mut device = Self { peer, account, said: Vec::new(), heard: Vec::new() };
        device.say(words::hello());
        device.say(words::login(&account));
        device.hear(Kind::LoggedIn);
        device.say(words::cursors(&[], true));
        device
    }

    fn say(&mut self, frame: Vec<u8>) {
        self.peer.say(&frame);
        self.said.push(frame);
    }

    /// The next frame of this kind; what comes before it is heard too.
    fn hear(&mut self, kind: Kind) -> Vec<u8> {
        let start = Instant::now();
        loop {
            if let Some(frame) = self.hear_until(kind) {
                return frame;
            }
            assert!(start.elapsed() < PATIENCE, "{kind} did not come");
            self.peer.turn(TURN);
        }
    }

    /// The same while another device goes on, whose losses are repaired only then.
    fn hear_beside(&mut self, other: &mut Self, kind: Kind) -> Vec<u8> {
        let start = Instant::now();
        loop {
            if let Some(frame) = self.hear_until(kind) {
                return frame;
            }
            assert!(start.elapsed() < PATIENCE, "{kind} did not come");
            self.peer.turn(TURN);
            other.peer.turn(Duration::ZERO);
        }
    }

    fn hear_until(&mut self, kind: Kind) -> Option<Vec<u8>> {
        while let Some(said) = self.peer.try_next() {
            self.heard.push(said.bytes().to_vec());
            if said.kind() == kind {
                return Some(said.bytes().to_vec());
            }
        }
        None
    }

    /// Says a PING and hears all that comes before its PONG.
    fn settle(&mut self, other: &mut Self) {
        self.say(words::ping(1));
        self.hear_beside(other, Kind::Pong);
    }
}

fn pushed(bytes: &[u8]) -> u64 {
    match Frame::parse(bytes).unwrap().0 {
        Frame::Push(push, _) => push.id.get(),
        other => panic!("{other:?} is no PUSH"),
    }
}

fn talk(ann: &mut Device, bob: &mut Device, channel: ChannelId, messages: u32) {
    for counter in 1..=messages {
        ann.say(words::send(channel, 1, counter, format!("message {counter}").as_bytes()));
        let id = pushed(&bob.hear_beside(ann, Kind::Push));
        bob.say(words::receive_ack(channel, id));
        if counter == messages / 3 {
            bob.peer.move_port();
        }
        if counter == messages / 2 {
            ann.peer.connection.force_key_update();
        }
    }
    ann.settle(bob);
    bob.settle(ann);
}

#[test]
fn a_capture_of_a_conversation_is_decoded_completely() {
    let bad = Conditions {
        loss_percent: 8.0,
        duplicate_percent: 3.0,
        delay_ms: 4,
        jitter_ms: 3,
        ..Conditions::default()
    };
    let keys = tempfile::tempdir().unwrap();
    let keys = keys.path().join("keys");
    let stage = Stage::new(bad, &["--keylog", keys.to_str().unwrap()]);
    let accounts = [stage.server.user("ann"), stage.server.user("bob")];
    let channel = accounts[0].channel_with(&accounts[1]);
    let [mut ann, mut bob] = accounts.map(|account| Device::connect(stage.link.address, account));
    let messages = scaled(MESSAGES);
    talk(&mut ann, &mut bob, channel, messages);
    let counted = wait_for_figures(&stage.server, (ann.said.len() + bob.said.len()) as u64);
    assert!(stage.server.errors().contains("NO TRAFFIC OF THIS SERVER IS PRIVATE"));

    let [near, far] = stage.decode(&keys);
    let mut found = 0;
    for device in [&ann, &bob] {
        let said = near.frames(&device.account, Way::ToServer);
        assert!(said == device.said, "{} said, {} found", device.said.len(), said.len());
        let heard = far.frames(&device.account, Way::ToClient);
        assert!(heard == device.heard, "{} heard, {} found", device.heard.len(), heard.len());
        found += said.len() + heard.len();
    }
    assert_eq!(counted, [far.count(Kind::SendAck), far.count(Kind::Push)], "by the server");
    judge_stats(&near, &far);
    judge_life(&near, channel, MessageId(u64::from(messages)));
    println!("TEST wirecat messages={messages} frames={found} missing=0");
}

/// The acks and pushes that the server counts, once it has counted all that the devices said.
fn wait_for_figures(server: &Server, said: u64) -> [u64; 2] {
    let start = Instant::now();
    loop {
        let figures = server.figures();
        if figures.get("frames") + figures.get("frames_free") == said {
            return [figures.get("acks"), figures.get("pushes")];
        }
        assert!(start.elapsed() < PATIENCE, "{figures:?}, {said} said");
    }
}

fn judge_stats(near: &Decoded, far: &Decoded) {
    for decoded in [near, far] {
        assert_eq!(decoded.stats.len(), 2);
        for stats in &decoded.stats {
            let [client, server] = &stats.sides;
            assert_eq!((client.broken, server.broken, stats.held), (0, 0, 0), "{stats:?}");
            assert_eq!((client.waiting_bytes, server.waiting_bytes), (0, 0), "{stats:?}");
            assert_eq!(stats.suite, Some("AES-128-GCM"));
        }
        let sum = |count: fn(&Stats) -> u64| decoded.stats.iter().map(count).sum::<u64>();
        assert!(sum(|stats| stats.moves) >= 1, "bob has moved");
        assert!(sum(|stats| stats.sides[0].key_updates) >= 1, "ann has changed her keys");
        assert!(sum(|stats| stats.sides[1].key_updates) >= 1, "and the server its own");
    }
    // Each side's repeats where it is: behind the link, only what came twice is known as such.
    let again = |decoded: &Decoded, side: usize| -> u64 {
        decoded.stats.iter().map(|stats| stats.sides[side].repeated_bytes).sum()
    };
    assert!(again(near, 0) + again(far, 1) > 0, "losses are repaired");
    let lost_behind: u64 = near.stats.iter().map(|stats| stats.sides[0].unacknowledged).sum();
    let lost_before: u64 = far.stats.iter().map(|stats| stats.sides[0].missing).sum();
    assert!(lost_behind > 0 && lost_before > 0, "{lost_behind} {lost_before}");
    let trips = near.stats.iter().filter_map(|stats| stats.sides[0].round_trips.summary());
    for [least, ..] in trips {
        assert!(least >= 2_000, "two ways of at least 1 ms: {least} µs");
    }
}

fn judge_life(near: &Decoded, channel: ChannelId, id: MessageId) {
    let life = Life::of(channel, id, &near.events).expect("the message was seen");
    let text = life.text();
    for step in ["SEND 1.", "SEND_ACK 1.", &format!("PUSH {id}"), "RECEIVE_ACK up to"] {
        assert!(text.contains(step), "no {step} in\n{text}");
    }
    assert_eq!(svg::draw(&life).matches("marker-end").count(), life.steps.len());
}

/// A command of `tern`, its secrets going to a file.
fn run(data: &Path, arguments: &[&str], keys: &Path) -> Output {
    let output = tern(data, arguments).env("SSLKEYLOGFILE", keys).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let complained = String::from_utf8(output.stderr.clone()).unwrap();
    assert!(complained.contains("NOTHING THAT THIS CLIENT SAYS IS PRIVATE"), "{complained}");
    output
}

#[test]
fn the_sdk_logs_its_secrets_where_the_variable_says() {
    let stage = Stage::new(Conditions::clear(1), &[]);
    let keys = stage.path("client-keys");
    let (ann, bob) = (stage.server.user("ann"), stage.server.user("bob"));
    let data = stage.server.data.clone();
    let server = stage.link.address.to_string();
    let at = ["--server", &server];
    run(
        &data,
        &[&["send", "--as", "ann", "--to", "bob", "over the wire"], &at[..]].concat(),
        &keys,
    );
    run(&data, &[&["recv", "--as", "bob", "--count", "1"], &at[..]].concat(), &keys);
    let folder = tempfile::tempdir().unwrap();
    let kept = folder.path().join("keys");
    std::fs::copy(&keys, &kept).unwrap();

    let [near, far] = stage.decode(&kept);
    for decoded in [&near, &far] {
        // On a slow machine the client asks again, and is answered again.
        assert!(decoded.count(Kind::SendAck) >= 1);
        assert_eq!(decoded.count(Kind::Welcome), 2);
        let sent = decoded.frames(&ann, Way::ToServer);
        assert!(sent.iter().any(|frame| frame.ends_with(b"over the wire")));
        let got = decoded.frames(&bob, Way::ToClient);
        assert!(got.iter().any(|frame| frame.ends_with(b"over the wire")));
        let closed = |event: &&Event| matches!(event.what, What::Closed { way: Way::ToClient, .. });
        // What still comes after the end is answered by the same end (RFC 9000 §10.2.1).
        assert!(decoded.events.iter().filter(closed).count() >= 2);
    }
    let by_datagram =
        |event: &&Event| matches!(event.what, What::Frame { carrier: Carrier::Datagram, .. });
    let count = near.events.iter().filter(by_datagram).count();
    println!("TEST wirecat-sdk frames={} by_datagram={count}", near.events.len());
    assert!(count >= 1, "a single send travels by datagram");
}

/// What clients said in a capture, said again to another server, is answered there in full.
#[test]
fn what_a_capture_holds_can_be_said_again() {
    let bad = Conditions { loss_percent: 3.0, delay_ms: 2, ..Conditions::default() };
    let keys = tempfile::tempdir().unwrap();
    let keys = keys.path().join("keys");
    let stage = Stage::new(bad, &["--keylog", keys.to_str().unwrap()]);
    let accounts = [stage.server.user("ann"), stage.server.user("bob")];
    let channel = accounts[0].channel_with(&accounts[1]);
    let [mut ann, mut bob] = accounts.map(|account| Device::connect(stage.link.address, account));
    let messages = scaled(MESSAGES);
    talk(&mut ann, &mut bob, channel, messages);
    drop((ann, bob));
    let [near, _] = stage.decode(&keys);
    let mut extract = Extract::new(false);
    let lines = near.events.iter().filter_map(|event| extract.line(event));
    let text: String = lines.map(|line| format!("{line}\n")).collect();
    let recording = Recording::parse(&text).unwrap();
    for speed in [Some(10.0), None] {
        let played = replay(&recording, speed, u64::from(messages));
        let (said, left_out) = (played.said.values(), played.left_out.values());
        let (said, left_out) = (said.sum::<u64>(), left_out.sum::<u64>());
        println!("TEST replay speed={speed:?} n={said} left_out={left_out} lost=0");
    }
}

fn replay(recording: &Recording, speed: Option<f64>, messages: u64) -> Played {
    let folder = tempfile::tempdir().unwrap();
    let plan = system::Plan {
        tern: env!("CARGO_BIN_EXE_tern").into(),
        data: folder.path().to_owned(),
        options: Vec::new(),
        cores: None,
    };
    let server = system::Server::start(&plan).unwrap();
    let mut made = std::fs::read_dir(folder.path()).unwrap();
    let found = system::Server::find(&made.next().unwrap().unwrap().path()).unwrap();
    assert_eq!((found.address(), found.pin()), (server.address(), server.pin()));
    assert_eq!(found.pid(), server.pid());
    // Others were added there before, by names that are not given twice.
    provide(&server, recording).unwrap();
    let played = replay_on(&found, recording, speed, messages);
    found.stop().unwrap();
    server.stop().unwrap();
    played
}

fn replay_on(
    server: &system::Server,
    recording: &Recording,
    speed: Option<f64>,
    messages: u64,
) -> Played {
    let approach = Approach {
        server: server.address(),
        pin: server.pin(),
        sources: vec![(Ipv4Addr::LOCALHOST, 0).into()],
        weather: None,
        datagrams: Datagrams::Single,
        returns: false,
        tickets: Tickets::None,
        seed: 1,
    };
    let players = provide(server, recording).unwrap();
    let played = play(recording, &players, approach, speed, |_| Ok(())).unwrap();
    let status = server.status().unwrap();
    let figures = ["acks", "pushes", "logins"].map(|name| status.figure(name).unwrap());
    judge_replay(recording, &played, messages, figures);
    played
}

fn judge_replay(recording: &Recording, played: &Played, messages: u64, figures: [u64; 3]) {
    let count = |counts: &BTreeMap<Kind, u64>, kind| counts.get(&kind).copied().unwrap_or(0);
    let said: u64 = played.said.values().sum();
    let left_out: u64 = played.left_out.values().sum();
    assert_eq!(said + left_out, recording.steps.len() as u64, "{:?}", played.left_out);
    for kind in [Kind::Hello, Kind::Login, Kind::Cursors, Kind::Send, Kind::Ping] {
        let there = recording.steps.iter().filter(|step| step.kind == kind).count() as u64;
        assert_eq!(count(&played.said, kind), there, "{kind}");
    }
    let outcome = (played.acked, played.refused, played.unanswered, played.lost);
    assert_eq!(outcome, (messages, 0, 0, 0), "{:?}", played.codes);
    let answers = |kind| count(&played.answers, kind);
    let sends = count(&played.said, Kind::Send) + count(&played.own, Kind::Send);
    assert_eq!(answers(Kind::SendAck) + answers(Kind::SendRefused), sends);
    let heard = [answers(Kind::SendAck), answers(Kind::Push), answers(Kind::LoggedIn)];
    assert_eq!(heard, figures, "as the server counts");
    assert_eq!(answers(Kind::Push), 2 * messages, "to both devices, once each");
    assert_eq!(answers(Kind::Pong), 2);
}
