//! Random bad days against a plain model: crashes, reconnects, repeats, lost notifies, any
//! interleaving of workers; in the end every acked message is with every device, once, in order.
//!
//! `TERN_SEEDS` sets how many days are tried (default 60); a failure names its seed, and
//! `TERN_SEED` runs that one alone.

mod common;

use std::collections::{BTreeMap, VecDeque};

use common::{Client, Got, Rng, World, cursor, direct};
use tern_core::config::Config;
use tern_core::io::Outgoing;
use tern_core::mail::Mail;
use tern_core::memory::MemoryReader;
use tern_protocol::{ChannelId, Class, Code};

/// Users 1 to 3, with two devices each.
const DEVICES: [(u64, u32); 6] = [(1, 1), (1, 2), (2, 1), (2, 2), (3, 1), (3, 2)];

/// A message that a device holds until it is answered.
#[derive(Clone)]
struct Held {
    channel: ChannelId,
    epoch: u32,
    counter: u32,
    predecessor: u32,
    content: Vec<u8>,
}

/// What a correct device does, as plainly as can be.
struct Device {
    uin: u64,
    device: u32,
    link: Option<Client>,
    live: bool,
    epoch: u32,
    counter: u32,
    last: BTreeMap<ChannelId, u32>,
    outbox: VecDeque<Held>,
    /// The messages it has, by channel; their number is the cursor.
    inbox: BTreeMap<ChannelId, Vec<Vec<u8>>>,
}

/// What senders were promised.
type Acked = BTreeMap<(ChannelId, u64), Vec<u8>>;

impl Device {
    fn connect(&mut self, world: &mut World, rng: &mut Rng) {
        let old = self.link.take();
        let client = world.connect_anew(rng, (self.uin, self.device), old);
        self.live = false;
        self.link = Some(client);
    }

    fn send(&mut self, world: &mut World, peer: u64, step: u32) {
        // Old keys are answered before a new epoch is used, and the window is not overrun.
        let window = self.outbox.front().is_some_and(|oldest| {
            oldest.epoch != self.epoch || self.counter + 1 - oldest.counter >= 63
        });
        if !self.live || window {
            return;
        }
        self.counter += 1;
        let channel = direct(self.uin, peer);
        let predecessor = self.last.insert(channel, self.counter).unwrap_or(0);
        let (epoch, counter) = (self.epoch, self.counter);
        let content = format!("{}.{}:{step}", self.uin, self.device).into_bytes();
        let held = Held { channel, epoch, counter, predecessor, content };
        self.outbox.push_back(held.clone());
        self.say(world, &held);
    }

    fn say(&self, world: &mut World, held: &Held) {
        if let Some(client) = self.link.as_ref().filter(|_| self.live) {
            let Held { channel, epoch, counter, predecessor, content } = held;
            client.send_as(world, *channel, *epoch, *counter, *predecessor, content);
        }
    }

    fn repeat(&self, world: &mut World) {
        for held in &self.outbox {
            self.say(world, held);
        }
    }

    fn hear(&mut self, world: &mut World, acked: &mut Acked) {
        let Some(client) = self.link.clone() else { return };
        for got in world.take(&client) {
            match got {
                Got::Frame(frame) => self.hear_frame(world, frame, acked),
                Got::Whole(_) => panic!("nobody asked for members"),
                Got::Push { channel, id, content, .. } => {
                    let inbox = self.inbox.entry(channel).or_default();
                    let next = inbox.len() as u64 + 1;
                    assert!(id <= next, "{channel} has a hole before {id}");
                    if id == next {
                        inbox.push(content);
                    } else {
                        assert_eq!(inbox[id as usize - 1], content, "{channel} {id} changed");
                    }
                    client.ack(world, channel, id);
                }
                Got::Close(_) => (self.link, self.live) = (None, false),
            }
        }
    }

    fn hear_frame(&mut self, world: &mut World, frame: Outgoing, acked: &mut Acked) {
        match frame {
            Outgoing::LoggedIn(answer) => {
                let client = self.link.as_mut().expect("it was heard on a link");
                (client.epoch, client.token) = (answer.epoch.get(), answer.token);
                if answer.epoch.get() != self.epoch {
                    assert!(answer.epoch.get() > self.epoch, "an epoch went back");
                    (self.epoch, self.counter) = (answer.epoch.get(), 0);
                    self.last.clear();
                }
                self.live = true;
                let cursors: Vec<_> = self
                    .inbox
                    .iter()
                    .map(|(channel, inbox)| cursor(*channel, inbox.len() as u64, 1))
                    .collect();
                self.link.clone().expect("a link").say_cursors(world, &cursors);
                self.repeat(world);
            }
            Outgoing::SendAck(ack) => {
                let key = (ack.epoch.get(), ack.counter.get());
                let held = self.outbox.iter().position(|h| (h.epoch, h.counter) == key);
                if let Some(held) = held.and_then(|index| self.outbox.remove(index)) {
                    let before = acked.insert((ack.channel, ack.id.get()), held.content.clone());
                    assert!(before.is_none_or(|b| b == held.content), "an id was given twice");
                }
            }
            Outgoing::SendRefused(refused) => {
                let code = Code(refused.code.get());
                assert_eq!(code.class(), Class::Retry, "an honest device was refused: {code}");
            }
            Outgoing::Error { code: Code::ResumeUnknown, .. } => {
                let client = self.link.clone().expect("it was heard on a link");
                client.clone().login(world, self.uin, self.device);
            }
            Outgoing::Error { code, .. } => panic!("an honest device hears {code}"),
            Outgoing::Welcome(_)
            | Outgoing::Blocked(_)
            | Outgoing::Identity(_)
            | Outgoing::Channel(_)
            | Outgoing::Gap(_)
            | Outgoing::AskCursors(_)
            | Outgoing::Pong(_) => {}
        }
    }
}

/// One day: chaos, then peace, then the judgement.
fn live_through(seed: u64) {
    let mut rng = Rng::new(seed);
    let shards = 1 + rng.below(5) as u16;
    let config = Config {
        window_messages: 1 + rng.below(20) as u32,
        window_messages_max: 1 + rng.below(40) as u32,
        requests_max: if rng.below(2) == 0 { 2 } else { 4_096 },
        sends_per_second: 100_000,
        sends_burst: 100_000,
        ..Config::default()
    };
    let reader = MemoryReader::default();
    let start = |rng: &mut Rng| {
        let workers = 1 + rng.below(3) as u16;
        let mut world = World::over(reader.clone(), shards, workers, config.clone());
        world.by_steps = true;
        world
    };
    let mut world = start(&mut rng);
    let mut acked = Acked::new();
    let mut devices: Vec<Device> =
        DEVICES.iter().map(|(uin, device)| fresh(*uin, *device)).collect();
    for step in 0..1_500 {
        let chosen = rng.below(6) as usize;
        match rng.below(100) {
            0 => {
                if rng.below(2) == 0 {
                    reader.cut_power(); // otherwise only the process dies
                }
                world = start(&mut rng);
                devices.iter_mut().for_each(|device| (device.link, device.live) = (None, false));
            }
            1 => world.held = !world.held,
            2 => world.lose = |mail| matches!(mail, Mail::Notify { .. } | Mail::Confirm { .. }),
            3 | 4 => world.lose = |_| false,
            5 => world.pass(200),
            6..10 => devices[chosen].connect(&mut world, &mut rng),
            10..25 => {
                let peer = 1 + rng.below(3);
                devices[chosen].send(&mut world, peer, step);
            }
            25..28 => devices[chosen].repeat(&mut world),
            28..45 => devices[chosen].hear(&mut world, &mut acked),
            _ => world.step(rng.next()),
        }
    }
    make_peace(&mut world, &mut devices, &mut rng, &mut acked);
    judge(&devices, &acked);
}

fn fresh(uin: u64, device: u32) -> Device {
    Device {
        uin,
        device,
        link: None,
        live: false,
        epoch: 0,
        counter: 0,
        last: BTreeMap::new(),
        outbox: VecDeque::new(),
        inbox: BTreeMap::new(),
    }
}

fn make_peace(world: &mut World, devices: &mut [Device], rng: &mut Rng, acked: &mut Acked) {
    (world.held, world.by_steps) = (false, false);
    world.lose = |_| false;
    world.run();
    for device in devices.iter_mut() {
        device.connect(world, rng);
    }
    for _ in 0..100 {
        world.pass(1_100);
        for device in devices.iter_mut() {
            device.hear(world, acked);
            device.repeat(world);
        }
    }
}

fn judge(devices: &[Device], acked: &Acked) {
    for device in devices {
        assert!(device.outbox.is_empty(), "{}: {} unanswered", device.uin, device.outbox.len());
    }
    for ((channel, id), content) in acked {
        for device in
            devices.iter().filter(|d| channel.peer_of(tern_protocol::Uin(d.uin)).is_some())
        {
            let inbox = device.inbox.get(channel).map(Vec::as_slice).unwrap_or_default();
            let got = inbox.get(*id as usize - 1);
            assert_eq!(got, Some(content), "{channel} {id} at {}.{}", device.uin, device.device);
            let copies = inbox.iter().filter(|other| *other == content).count();
            assert_eq!(copies, 1, "{channel} {id} twice");
        }
    }
    for inbox in devices.iter().flat_map(|device| device.inbox.values()) {
        judge_order(inbox);
    }
}

/// Each device's messages stand in the order in which it sent them.
fn judge_order(inbox: &[Vec<u8>]) {
    let mut newest: BTreeMap<&str, u32> = BTreeMap::new();
    for content in inbox {
        let text = std::str::from_utf8(content).expect("devices send text");
        let (sender, step) = text.split_once(':').expect("devices send sender and step");
        let step: u32 = step.parse().expect("a step is a number");
        let before = newest.insert(sender, step);
        assert!(before.is_none_or(|before| before < step), "{sender}: {before:?} before {step}");
    }
}

#[test]
fn every_acked_message_is_with_every_device_once_and_in_order() {
    let seed = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    if let Some(seed) = seed("TERN_SEED") {
        return live_through(seed);
    }
    for number in 1..=seed("TERN_SEEDS").unwrap_or(60) {
        let day = std::panic::catch_unwind(|| live_through(number));
        assert!(
            day.is_ok(),
            "replay with TERN_SEED={number} cargo test -p tern-core --test random"
        );
    }
}
