//! Random bad days of reading against a plain model: crashes, power cuts, reconnects, lost hints,
//! any interleaving of workers. At no time is a mark told that nobody said, and in one life of
//! the server none goes back. In the end all devices of a user know the same mark, the newest
//! that one of them said; the other side knows it too; and counts of receipts and of unread
//! messages are those of a plain look at the log.
//!
//! `TERN_SOAK` scales the number of days; a failure names its seed, and `TERN_SEED` runs that one
//! alone.

mod common;

use std::collections::BTreeMap;

use common::groups::{Wish, group_of};
use common::marks::{all_marks, known, receipts, unread};
use common::{Client, Got, Rng, World, cursor, direct, for_seeds};
use tern_core::config::Config;
use tern_core::io::{Input, Outgoing};
use tern_core::log::RecordKind;
use tern_core::mail::Mail;
use tern_core::memory::MemoryReader;
use tern_core::placement::ShardId;
use tern_core::progress::MarksMail;
use tern_protocol::frames::{PushBody, message_kind};
use tern_protocol::{ChannelId, Code, Uin};
use zerocopy::FromBytes;

/// Users 1 to 3, with two devices each.
const DEVICES: [(u64, u32); 6] = [(1, 1), (1, 2), (2, 1), (2, 2), (3, 1), (3, 2)];

/// Steps of one day.
const STEPS: u32 = 3_000;

/// What a correct device does, as plainly as can be.
struct Device {
    uin: u64,
    device: u32,
    link: Option<Client>,
    live: bool,
    /// Whether the server has told its marks on this connection.
    synced: bool,
    /// The newest message that it has, by channel.
    newest: BTreeMap<ChannelId, u64>,
    /// How far its user has read, as far as it knows, and what of it the server has.
    read: BTreeMap<ChannelId, u64>,
    confirmed: BTreeMap<ChannelId, u64>,
    /// How far the others of direct channels have got: delivered and read.
    others: BTreeMap<ChannelId, (u64, u64)>,
    /// The life of the server that it knows, and up to where.
    known: (u64, u64),
}

/// What was ever said of each user's channels: delivered and read.
#[derive(Default)]
struct Said(BTreeMap<(u64, ChannelId), (u64, u64)>);

impl Said {
    fn of(&mut self, uin: u64, channel: ChannelId) -> &mut (u64, u64) {
        self.0.entry((uin, channel)).or_default()
    }
}

impl Device {
    fn connect(&mut self, world: &mut World, rng: &mut Rng) {
        let worker = rng.below(world.workers.len() as u64) as usize;
        let old = self.link.take();
        let mut client = world.connect(worker);
        client.hello(world);
        match old.filter(|old| old.epoch > 0 && rng.below(2) == 0) {
            Some(old) => client.resume(world, self.uin, self.device, &old),
            None => client.login(world, self.uin, self.device),
        }
        (self.live, self.synced, self.link) = (false, false, Some(client));
    }

    fn live(&self) -> Option<Client> {
        self.link.clone().filter(|_| self.live)
    }

    fn send(&mut self, world: &mut World, channel: ChannelId) {
        if !self.live {
            return;
        }
        let client = self.link.as_mut().expect("a live device has a link");
        client.send(world, channel, b"tern");
    }

    /// Its user reads some of what it has.
    fn look(&mut self, world: &mut World, rng: &mut Rng, said: &mut Said) {
        let Some(client) = self.live() else { return };
        let index = rng.below(4) as usize;
        let Some((channel, newest)) = self.newest.iter().nth(index).map(|(c, n)| (*c, *n)) else {
            return;
        };
        let id = rng.below(newest + 1);
        let read = self.read.entry(channel).or_default();
        if id > *read {
            *read = id;
            let said = said.of(self.uin, channel);
            *said = (said.0.max(id), said.1.max(id));
            if self.synced {
                client.read(world, channel, id);
            }
        }
    }

    fn hear(&mut self, world: &mut World, said: &mut Said) {
        let Some(client) = self.link.clone() else { return };
        let got = world.take(&client);
        for one in &got {
            match one {
                Got::Push { channel, id, .. } => {
                    let newest = self.newest.entry(*channel).or_default();
                    assert!(*id <= *newest + 1, "{channel} has a hole before {id}");
                    *newest = (*newest).max(*id);
                    let delivered = &mut said.of(self.uin, *channel).0;
                    *delivered = (*delivered).max(*newest);
                    client.ack(world, *channel, *id);
                }
                Got::Close(_) => (self.link, self.live) = (None, false),
                Got::Frame(frame) => self.hear_frame(world, frame),
                Got::Whole(_) => {}
            }
        }
        self.hear_marks(&got, said);
        if let Some(known) = known(&got) {
            (self.known, self.synced) = (known, true);
            self.say_again(world);
        }
    }

    fn hear_frame(&mut self, world: &mut World, frame: &Outgoing) {
        match frame {
            Outgoing::LoggedIn(answer) => {
                let client = self.link.as_mut().expect("it was heard on a link");
                (client.epoch, client.token) = (answer.epoch.get(), answer.token);
                client.counter = if answer.resumed == 1 { client.counter } else { 0 };
                self.live = true;
                let client = client.clone();
                let cursors: Vec<_> =
                    self.newest.iter().map(|(channel, id)| cursor(*channel, *id, 1)).collect();
                client.say_cursors(world, &cursors);
                client.ask_marks(world, self.known);
            }
            Outgoing::Error { code: Code::ResumeUnknown, .. } => {
                let client = self.link.clone().expect("it was heard on a link");
                client.clone().login(world, self.uin, self.device);
            }
            Outgoing::Error { code, .. } => panic!("an honest device hears {code}"),
            _ => {}
        }
    }

    fn hear_marks(&mut self, got: &[Got], said: &mut Said) {
        if known(got).is_some_and(|(life, _)| life != self.known.0) {
            self.confirmed.clear(); // another life of the server, which tells all that it has
        }
        for (channel, uin, delivered, read) in all_marks(got) {
            let most = *said.of(uin, channel);
            assert!(delivered <= most.0, "{uin} in {channel}: {delivered} of {most:?} delivered");
            assert!(read <= most.1, "{uin} in {channel}: {read} of {most:?} read");
            if uin == self.uin {
                let own = self.read.entry(channel).or_default();
                *own = (*own).max(read);
                let confirmed = self.confirmed.entry(channel).or_default();
                *confirmed = (*confirmed).max(read);
            } else {
                let other = self.others.entry(channel).or_default();
                *other = (other.0.max(delivered), other.1.max(read));
            }
        }
    }

    fn say_again(&self, world: &mut World) {
        let Some(client) = self.live() else { return };
        for (channel, read) in &self.read {
            if self.confirmed.get(channel).is_none_or(|confirmed| confirmed < read) {
                client.read(world, *channel, *read);
            }
        }
    }
}

fn fresh((uin, device): (u64, u32)) -> Device {
    Device {
        uin,
        device,
        link: None,
        live: false,
        synced: false,
        newest: BTreeMap::new(),
        read: BTreeMap::new(),
        confirmed: BTreeMap::new(),
        others: BTreeMap::new(),
        known: (0, 0),
    }
}

fn is_hint(mail: &Mail) -> bool {
    let Mail::Marks(mail) = mail else { return false };
    matches!(
        mail,
        MarksMail::TellPeer { .. }
            | MarksMail::PeerSeen { .. }
            | MarksMail::AskPeers { .. }
            | MarksMail::TellPeers { .. }
            | MarksMail::Peers { .. }
    )
}

/// One day: chaos, then peace, then the judgement. Counts messages, marks, crashes.
fn live_through(seed: u64) -> [usize; 3] {
    let mut rng = Rng::new(seed);
    let shards = 1 + rng.below(5) as u16;
    let config = Config { sends_per_second: 100_000, sends_burst: 100_000, ..Config::default() };
    let reader = MemoryReader::default();
    let mut crashes = 0;
    let start = |rng: &mut Rng, wall_ms: u64| {
        let workers = 1 + rng.below(3) as u16;
        // No two lives begin at the same moment.
        let size = (shards, workers);
        let mut world = World::later(reader.clone(), size, config.clone(), wall_ms);
        world.by_steps = true;
        world
    };
    let mut devices: Vec<Device> = DEVICES.into_iter().map(fresh).collect();
    let mut said = Said::default();
    let mut world = start(&mut rng, 0);
    let group = make_group(&mut world);
    for step in 0..STEPS {
        let chosen = rng.below(6) as usize;
        match rng.below(200) {
            0 => {
                if rng.below(2) == 0 {
                    reader.cut_power(); // otherwise only the process dies
                }
                crashes += 1;
                world = start(&mut rng, 1_000 + u64::from(step));
                devices.iter_mut().for_each(|device| (device.link, device.live) = (None, false));
            }
            1 => world.held = !world.held,
            2 => world.lose = is_hint,
            3 | 4 => world.lose = |_| false,
            5 => world.pass(150),
            6 => world.pass(3_000),
            7..12 => devices[chosen].connect(&mut world, &mut rng),
            12..40 => {
                let peer = direct(devices[chosen].uin, 1 + rng.below(3));
                let channel = if rng.below(3) == 0 { group } else { peer };
                devices[chosen].send(&mut world, channel);
            }
            40..56 => devices[chosen].look(&mut world, &mut rng, &mut said),
            56..100 => devices[chosen].hear(&mut world, &mut said),
            _ => world.step(rng.next()),
        }
    }
    make_peace(&mut world, &mut devices, &mut rng, &mut said);
    let marks = judge_marks(&devices);
    let log = messages(&reader, shards);
    judge_unread(&mut world, &devices, &log);
    judge_receipts(&mut world, &devices, group);
    [log.values().map(Vec::len).sum(), marks, crashes]
}

/// User 1 makes a group of all.
fn make_group(world: &mut World) -> ChannelId {
    world.by_steps = false;
    let mut maker = world.login(0, 1, 9, &[]);
    let group = group_of(1, 9, maker.epoch, 1);
    maker.change(world, group, &Wish::create(0, &[2, 3]));
    world.input(maker.worker, Input::LinkClosed(maker.link));
    world.by_steps = true;
    group
}

fn make_peace(world: &mut World, devices: &mut [Device], rng: &mut Rng, said: &mut Said) {
    (world.held, world.by_steps) = (false, false);
    world.lose = |_| false;
    world.run();
    for _ in 0..2 {
        // What was lost of hints is made good as a session begins.
        for device in devices.iter_mut() {
            device.connect(world, rng);
        }
        for _ in 0..20 {
            world.pass(1_100);
            devices.iter_mut().for_each(|device| device.hear(world, said));
        }
    }
}

/// What all devices know is the same, and the newest that was said. How many marks that were.
fn judge_marks(devices: &[Device]) -> usize {
    let mut marks = 0;
    for device in devices {
        let own = |other: &&Device| other.uin == device.uin;
        for (channel, read) in &device.read {
            marks += 1;
            let newest = |of: &Device| of.read.get(channel).copied().unwrap_or(0);
            let most = devices.iter().filter(own).map(newest).max();
            assert_eq!(Some(*read), most, "{}.{} {channel}", device.uin, device.device);
        }
        for channel in device.newest.keys() {
            let Some(Uin(peer)) = channel.peer_of(Uin(device.uin)) else { continue };
            if peer == device.uin {
                continue;
            }
            let theirs = devices.iter().filter(|other| other.uin == peer);
            let (delivered, read) = theirs.fold((0, 0), |(delivered, read), of| {
                let at = |map: &BTreeMap<_, u64>| map.get(channel).copied().unwrap_or(0);
                (at(&of.newest).max(delivered), at(&of.read).max(read))
            });
            let known = device.others.get(channel).copied().unwrap_or_default();
            assert_eq!(known, (delivered, read), "{} of {peer} in {channel}", device.uin);
        }
    }
    marks
}

/// Sender and kind of each message, by channel.
fn messages(reader: &MemoryReader, shards: u16) -> BTreeMap<ChannelId, Vec<(u64, u8)>> {
    let mut log: BTreeMap<ChannelId, Vec<(u64, u8)>> = BTreeMap::new();
    for shard in (0..shards).map(ShardId) {
        reader.replay(shard, |_, _, record| {
            if matches!(record.kind, RecordKind::Message | RecordKind::Change) {
                let (body, _) = PushBody::ref_from_prefix(record.body).expect("a message");
                log.entry(body.channel).or_default().push((body.sender.get(), body.kind));
            }
        });
    }
    log
}

fn judge_unread(world: &mut World, devices: &[Device], log: &BTreeMap<ChannelId, Vec<(u64, u8)>>) {
    for device in devices {
        let Some(client) = device.live() else { panic!("{} is not live", device.uin) };
        for channel in device.newest.keys() {
            let read = device.read.get(channel).copied().unwrap_or(0);
            let behind = log[channel].iter().skip(read as usize);
            let plain = behind
                .filter(|(sender, kind)| *sender != device.uin && *kind == message_kind::CONTENT);
            let plain = plain.count();
            client.ask_unread(world, &[(*channel, read)]);
            let expected = (*channel, plain.min(100) as u16, plain > 100);
            assert_eq!(unread(&world.take(&client)), [expected], "{} behind {read}", device.uin);
        }
    }
}

fn judge_receipts(world: &mut World, devices: &[Device], group: ChannelId) {
    let asks = devices[0].live().expect("it is live");
    let newest = devices[0].newest.get(&group).copied().unwrap_or(0);
    for id in 1..=newest {
        let has = |map: fn(&Device) -> &BTreeMap<ChannelId, u64>, uin: u64| {
            let own = devices.iter().filter(|device| device.uin == uin);
            own.filter_map(|device| map(device).get(&group)).max().is_some_and(|at| *at >= id)
        };
        let count = |map| [2, 3].into_iter().filter(|uin| has(map, *uin)).count() as u32;
        asks.ask_receipts(world, group, id);
        let counts = receipts(&world.take(&asks));
        assert_eq!(counts, [(2, count(|d| &d.newest), count(|d| &d.read))], "message {id}");
    }
}

#[test]
fn marks_converge_and_never_say_more_than_was_said() {
    let [messages, marks, crashes] = for_seeds("mark_days", 40, live_through);
    println!("TEST mark_days messages={messages} marks={marks} crashes={crashes} wrong=0");
}
