//! Random bad days of recalls, edits and blocks against a plain reading of the log: crashes, power
//! cuts, reconnects, repeats, lost mail, cold records, any interleaving of workers. In the end the
//! log holds only what the rules allow; each refusal had its reason; every device has each message
//! or was told that it is recalled; and who came after a restart, or at the end, was shown nothing
//! that had been recalled before.
//!
//! `TERN_SOAK` scales the number of days; a failure names its seed, and `TERN_SEED` runs that one
//! alone.

mod common;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use common::recalls::{Saying, block_answers};
use common::{Client, Got, Rng, World, cursor, direct, for_seeds};
use tern_core::config::Config;
use tern_core::io::Outgoing;
use tern_core::log::RecordKind;
use tern_core::mail::Mail;
use tern_core::memory::MemoryReader;
use tern_core::placement::ShardId;
use tern_core::shard::records::BlockBody;
use tern_protocol::frames::{PushBody, block, message_kind};
use tern_protocol::{ChannelId, Class, Code, Uin};
use zerocopy::FromBytes;

/// The first device of each user is the one that blocks.
const DEVICES: [(u64, u32); 5] = [(1, 1), (1, 2), (2, 1), (2, 2), (3, 1)];

/// For how long a message can be recalled, and edited, in ms.
const RECALL_MS: u64 = 3_000;
const EDIT_MS: u64 = 1_500;

/// What a device holds until it is answered.
#[derive(Clone)]
struct Held {
    channel: ChannelId,
    key: (u32, u32),
    predecessor: u32,
    saying: Saying,
}

struct Device {
    uin: u64,
    device: u32,
    link: Option<Client>,
    live: bool,
    epoch: u32,
    counter: u32,
    outbox: VecDeque<Held>,
    /// What it has of each channel; `None` for an id that it was told to step over.
    inbox: BTreeMap<ChannelId, Vec<Option<Vec<u8>>>>,
    /// The block that it waits for, and those that were answered.
    wish: Option<(u64, bool)>,
    blocks: BTreeMap<u64, bool>,
}

/// A refusal: what was refused to whom, when, and why.
type Refusal = (u64, Held, u64, Code);

/// A message in the log.
struct Entry {
    sender: u64,
    kind: u8,
    refers_to: u64,
    time: u64,
    content: Vec<u8>,
}

/// What the log says, read plainly.
#[derive(Default)]
struct Plain {
    channels: BTreeMap<ChannelId, Vec<Entry>>,
    blocked: BTreeSet<(u64, u64)>,
    ever_blocked: BTreeSet<(u64, u64)>,
}

impl Plain {
    /// Reads the log, and finds in it only what the rules allow.
    fn read(reader: &MemoryReader, shards: u16) -> Self {
        let mut plain = Self::default();
        for shard in (0..shards).map(ShardId) {
            reader.replay(shard, |_, _, record| {
                if record.kind.is_in_channel() {
                    plain.add(record.kind, record.body);
                } else if record.kind == RecordKind::Block {
                    let body = BlockBody::ref_from_bytes(record.body).expect("a block");
                    plain.block(body);
                }
            });
        }
        plain
    }

    fn block(&mut self, body: &BlockBody) {
        let pair = (body.blocker.get(), body.blocked.get());
        let begins = body.action.get() == u32::from(block::BEGIN);
        let is_news = if begins { self.blocked.insert(pair) } else { self.blocked.remove(&pair) };
        assert!(is_news, "{pair:?} begins or ends twice");
        self.ever_blocked.insert(pair);
    }

    fn add(&mut self, kind: RecordKind, record: &[u8]) {
        let (body, content) = PushBody::ref_from_prefix(record).expect("a message");
        let entry = Entry {
            sender: body.sender.get(),
            kind: body.kind,
            refers_to: body.refers_to.get(),
            time: body.server_time.get(),
            content: content.to_vec(),
        };
        let (channel, id) = (body.channel, body.id.get());
        assert_eq!(kind == RecordKind::Recall, entry.kind == message_kind::RECALL);
        if let Some(of) = (entry.kind != message_kind::CONTENT).then_some(entry.refers_to) {
            let log = &self.channels[&channel];
            let original = &log[of as usize - 1];
            assert_eq!((original.kind, original.sender), (message_kind::CONTENT, entry.sender));
            let ms_max = if entry.kind == message_kind::RECALL { RECALL_MS } else { EDIT_MS };
            assert!(entry.time - original.time <= ms_max, "{channel} {id} comes too late");
            assert!(!is_recalled(log, of), "{channel} {id} speaks of what was recalled");
        }
        if let Some(peer) = channel.peer_of(Uin(entry.sender))
            && entry.kind != message_kind::RECALL
        {
            let pair = (peer.0, entry.sender);
            assert!(!self.blocked.contains(&pair), "{channel} {id} is of a blocked user");
        }
        let log = self.channels.entry(channel).or_default();
        log.push(entry);
        assert_eq!(id, log.len() as u64, "ids are contiguous");
    }

    /// What may not be shown any more: recalled messages, and edits of them.
    fn hidden(&self, channel: ChannelId) -> BTreeSet<u64> {
        let log = self.channels.get(&channel).map(Vec::as_slice).unwrap_or_default();
        let is_hidden = |id: &u64| {
            let entry = &log[*id as usize - 1];
            let edits = entry.kind == message_kind::EDIT;
            is_recalled(log, if edits { entry.refers_to } else { *id })
        };
        (1..=log.len() as u64).filter(is_hidden).collect()
    }
}

fn is_recalled(log: &[Entry], id: u64) -> bool {
    log.iter().any(|entry| entry.kind == message_kind::RECALL && entry.refers_to == id)
}

/// What happened in a day.
#[derive(Default)]
struct Day {
    acked: BTreeMap<(ChannelId, u64), Saying>,
    refused: Vec<Refusal>,
    /// What was recalled durably before the server started that runs now.
    settled: BTreeMap<ChannelId, BTreeSet<u64>>,
    told_gaps: usize,
}

impl Device {
    fn new(uin: u64, device: u32) -> Self {
        Self {
            uin,
            device,
            link: None,
            live: false,
            epoch: 0,
            counter: 0,
            outbox: VecDeque::new(),
            inbox: BTreeMap::new(),
            wish: None,
            blocks: BTreeMap::new(),
        }
    }

    fn connect(&mut self, world: &mut World, rng: &mut Rng) {
        let old = self.link.take();
        let client = world.connect_anew(rng, (self.uin, self.device), old);
        (self.live, self.link) = (false, Some(client));
    }

    fn may_begin(&self) -> bool {
        let is_in_window =
            |oldest: &Held| oldest.key.0 == self.epoch && self.counter + 1 - oldest.key.1 < 63;
        self.live && self.outbox.front().is_none_or(is_in_window)
    }

    fn begin(&mut self, world: &mut World, channel: ChannelId, saying: Saying) {
        self.counter += 1;
        let before = self.outbox.iter().rev().find(|held| held.channel == channel);
        let predecessor = before.map_or(0, |held| held.key.1);
        let held = Held { channel, key: (self.epoch, self.counter), predecessor, saying };
        self.outbox.push_back(held.clone());
        self.say(world, &held);
    }

    /// Recalls or edits something that it has, of its own or not.
    fn refer(&mut self, world: &mut World, rng: &mut Rng, step: u32) {
        let Some((channel, inbox)) = self.inbox.iter().nth(rng.below(3) as usize) else { return };
        let (channel, count) = (*channel, inbox.len() as u64);
        if count == 0 {
            return;
        }
        let id = count - rng.below(count.min(12));
        let text = format!("{}.{}:{step}", self.uin, self.device);
        let is_recall = rng.below(2) == 0;
        self.begin(
            world,
            channel,
            match is_recall {
                true => Saying::recall(id),
                false => Saying::edit(id, text.as_bytes()),
            },
        );
    }

    fn say(&self, world: &mut World, held: &Held) {
        let Some(client) = self.link.as_ref().filter(|_| self.live) else { return };
        let (epoch, counter) = held.key;
        client.refer_as(world, held.channel, (epoch, counter, held.predecessor), &held.saying);
    }

    fn repeat(&self, world: &mut World) {
        for held in &self.outbox {
            self.say(world, held);
        }
    }

    fn want_block(&mut self, world: &mut World, rng: &mut Rng) {
        let other = 1 + rng.below(3);
        if self.device == 1 && self.live && self.wish.is_none() && other != self.uin {
            self.wish = Some((other, !self.blocks.get(&other).copied().unwrap_or(false)));
            self.say_block(world);
        }
    }

    fn say_block(&self, world: &mut World) {
        if let (Some((other, begins)), Some(client)) = (self.wish, &self.link) {
            client.block(world, other, begins);
        }
    }

    fn hear(&mut self, world: &mut World, day: &mut Day) {
        let Some(client) = self.link.clone() else { return };
        let got = world.take(&client);
        for (other, begins, code) in block_answers(&got) {
            if self.wish == Some((other, begins)) && code == Code(0) {
                self.wish = None;
                self.blocks.insert(other, begins);
            }
        }
        for got in got {
            match got {
                Got::Frame(frame) => self.hear_frame(world, frame, day),
                Got::Whole(_) => panic!("nobody asked for a page"),
                Got::Push { channel, id, content, .. } => {
                    let is_settled = day.settled.get(&channel).is_some_and(|ids| ids.contains(&id));
                    assert!(!is_settled, "{channel} {id} was recalled before this server began");
                    let inbox = self.inbox.entry(channel).or_default();
                    let next = inbox.len() as u64 + 1;
                    assert!(id <= next, "{channel} has a hole before {id}");
                    if id == next {
                        inbox.push(Some(content));
                    } else if let Some(had) = &inbox[id as usize - 1] {
                        assert_eq!(*had, content, "{channel} {id} changed");
                    }
                    client.ack(world, channel, id);
                }
                Got::Close(_) => (self.link, self.live) = (None, false),
            }
        }
    }

    fn hear_frame(&mut self, world: &mut World, frame: Outgoing, day: &mut Day) {
        match frame {
            Outgoing::LoggedIn(answer) => self.logged_in(world, answer.epoch.get(), answer.token),
            Outgoing::SendAck(ack) => {
                if let Some(held) = self.answered((ack.epoch.get(), ack.counter.get())) {
                    let at = (ack.channel, ack.id.get());
                    let before = day.acked.insert(at, held.saying.clone());
                    assert!(before.is_none_or(|b| b == held.saying), "an id was given twice");
                }
            }
            Outgoing::SendRefused(refused) => {
                let code = Code(refused.code.get());
                if code.class() == Class::Final
                    && let Some(held) = self.answered((refused.epoch.get(), refused.counter.get()))
                {
                    self.step_past(world, &held);
                    day.refused.push((self.uin, held, world.now.wall.0, code));
                }
            }
            Outgoing::Gap(gap) => {
                let inbox = self.inbox.entry(gap.channel).or_default();
                assert_eq!(Code(gap.code.get()), Code::Recalled, "nothing is lost or expired");
                assert!(gap.from.get() as usize <= inbox.len() + 1, "a hole before a gap");
                let to = gap.to.get() as usize;
                inbox.resize(inbox.len().max(to), None);
                day.told_gaps += 1;
                self.link.clone().expect("a link").ack(world, gap.channel, to as u64);
            }
            Outgoing::Error { code: Code::ResumeUnknown, .. } => {
                let client = self.link.clone().expect("it was heard on a link");
                client.clone().login(world, self.uin, self.device);
            }
            Outgoing::Error { code, .. } => panic!("an honest device hears {code}"),
            _ => {}
        }
    }

    fn logged_in(&mut self, world: &mut World, epoch: u32, token: [u8; 32]) {
        let client = self.link.as_mut().expect("it was heard on a link");
        (client.epoch, client.token) = (epoch, token);
        if epoch != self.epoch {
            (self.epoch, self.counter) = (epoch, 0);
        }
        self.live = true;
        let named =
            |(channel, inbox): (&ChannelId, &Vec<_>)| cursor(*channel, inbox.len() as u64, 1);
        let cursors: Vec<_> = self.inbox.iter().map(named).collect();
        self.link.clone().expect("a link").say_cursors(world, &cursors);
        self.repeat(world);
        self.say_block(world);
    }

    fn answered(&mut self, key: (u32, u32)) -> Option<Held> {
        let held = self.outbox.iter().position(|held| held.key == key)?;
        self.outbox.remove(held)
    }

    /// Later ones may not name one that was refused for good.
    fn step_past(&mut self, world: &mut World, refused: &Held) {
        for held in self.outbox.iter_mut().filter(|held| held.channel == refused.channel) {
            if (held.key.0, held.predecessor) == refused.key {
                held.predecessor = refused.predecessor;
            }
        }
        self.repeat(world);
    }
}

/// One day: chaos, then peace, then the judgement. Counts messages, recalls, edits, refusals, and
/// gaps that devices were told of.
fn live_through(seed: u64) -> [usize; 5] {
    let mut rng = Rng::new(seed);
    let shards = 1 + rng.below(5) as u16;
    let config = Config {
        window_messages: 1 + rng.below(20) as u32,
        sends_per_second: 100_000,
        sends_burst: 100_000,
        asks_burst: 100_000,
        recall_ms_max: RECALL_MS,
        edit_ms_max: EDIT_MS,
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
    let mut day = Day::default();
    let mut devices = DEVICES.map(|(uin, device)| Device::new(uin, device));
    for step in 0..2_000 {
        if rng.below(250) == 0 {
            if rng.below(2) == 0 {
                reader.cut_power(); // otherwise only the process dies
            }
            chill_some(&reader, shards, &mut rng);
            let now = world.now;
            world = start(&mut rng);
            world.now = now;
            devices.iter_mut().for_each(|device| (device.link, device.live) = (None, false));
            let plain = Plain::read(&reader, shards);
            let hidden = plain.channels.keys().map(|channel| (*channel, plain.hidden(*channel)));
            day.settled = hidden.collect();
        }
        let device = &mut devices[rng.below(DEVICES.len() as u64) as usize];
        live_a_moment(&mut world, device, &mut rng, &mut day, step);
    }
    make_peace(&mut world, &mut devices, &mut rng, &mut day);
    let plain = Plain::read(&reader, shards);
    judge(&plain, &devices, &day);
    judge_newcomers(&mut world, &plain, &mut rng);
    let entries = || plain.channels.values().flatten();
    let of = |kind| entries().filter(|entry| entry.kind == kind).count();
    let (recalls, edits) = (of(message_kind::RECALL), of(message_kind::EDIT));
    [entries().count(), recalls, edits, day.refused.len(), day.told_gaps]
}

fn chill_some(reader: &MemoryReader, shards: u16, rng: &mut Rng) {
    for shard in (0..shards).map(ShardId) {
        let mut places = Vec::new();
        reader.replay(shard, |at, _, _| places.push(at));
        places.into_iter().filter(|_| rng.below(3) == 0).for_each(|at| reader.chill(shard, at));
    }
}

/// Something small happens: to the world, or a device does it.
fn live_a_moment(world: &mut World, device: &mut Device, rng: &mut Rng, day: &mut Day, step: u32) {
    match rng.below(100) {
        1 => world.held = !world.held,
        2 => world.lose = |mail| matches!(mail, Mail::Notify { .. } | Mail::Confirm { .. }),
        3 | 4 => world.lose = |_| false,
        5 => world.pass(200),
        6..10 => device.connect(world, rng),
        10..18 if device.may_begin() => {
            let text = format!("{}.{}:{step}", device.uin, device.device);
            let channel = direct(device.uin, 1 + rng.below(3));
            device.begin(world, channel, Saying::content(text.as_bytes()));
        }
        18..26 if device.may_begin() => device.refer(world, rng, step),
        26 => device.want_block(world, rng),
        27..29 => device.repeat(world),
        29..45 => device.hear(world, day),
        _ => world.step(rng.next()),
    }
}

fn make_peace(world: &mut World, devices: &mut [Device], rng: &mut Rng, day: &mut Day) {
    (world.held, world.by_steps) = (false, false);
    world.lose = |_| false;
    world.run();
    for device in devices.iter_mut() {
        device.connect(world, rng);
    }
    for _ in 0..80 {
        world.pass(1_100);
        for device in devices.iter_mut() {
            device.hear(world, day);
            device.repeat(world);
        }
    }
}

fn judge(plain: &Plain, devices: &[Device], day: &Day) {
    for ((channel, id), saying) in &day.acked {
        let entry = &plain.channels[channel][*id as usize - 1];
        let said = (entry.kind, entry.refers_to, &entry.content);
        assert_eq!(said, (saying.kind, saying.refers_to, &saying.content), "{channel} {id}");
    }
    for refusal in &day.refused {
        judge_refusal(plain, refusal);
    }
    for device in devices {
        let (uin, left) = (device.uin, device.outbox.len());
        assert_eq!(left, 0, "{uin}.{}: {left} unanswered", device.device);
        assert_eq!(device.wish, None, "{uin}: a block without an answer");
        for (other, begins) in &device.blocks {
            assert_eq!(plain.blocked.contains(&(uin, *other)), *begins, "{uin} blocks {other}");
        }
        for (channel, log) in &plain.channels {
            if channel.peer_of(Uin(uin)).is_some() {
                judge_inbox(device.inbox.get(channel), log, &plain.hidden(*channel));
            }
        }
    }
}

/// Each message is there, or hidden with a reason.
fn judge_inbox(inbox: Option<&Vec<Option<Vec<u8>>>>, log: &[Entry], hidden: &BTreeSet<u64>) {
    let inbox = inbox.map(Vec::as_slice).unwrap_or_default();
    assert_eq!(inbox.len(), log.len(), "how far a device has come");
    for (index, (had, entry)) in inbox.iter().zip(log).enumerate() {
        match had {
            Some(content) => assert_eq!(*content, entry.content),
            None => assert!(hidden.contains(&(index as u64 + 1)), "{} is not hidden", index + 1),
        }
    }
}

fn judge_refusal(plain: &Plain, (uin, held, wall, code): &Refusal) {
    let (channel, saying) = (held.channel, &held.saying);
    if *code == Code::NoSuchUser {
        let peer = channel.peer_of(Uin(*uin)).expect("a member");
        assert!(plain.ever_blocked.contains(&(peer.0, *uin)), "{uin} was never blocked");
        assert_ne!(saying.kind, message_kind::RECALL, "recalls are let through");
        return;
    }
    let log = &plain.channels[&channel];
    let original = &log[saying.refers_to as usize - 1];
    let ms_max = if saying.kind == message_kind::RECALL { RECALL_MS } else { EDIT_MS };
    let has_reason = match *code {
        Code::NotContent => original.kind != message_kind::CONTENT,
        Code::NotYours => original.sender != *uin,
        Code::AlreadyRecalled => is_recalled(log, saying.refers_to),
        Code::TooLate => wall - original.time > ms_max,
        other => panic!("an honest device was refused: {other}"),
    };
    assert!(has_reason, "{uin} was refused with {code} in {channel}");
}

/// Who is new gets all that is there, and nothing that was recalled.
fn judge_newcomers(world: &mut World, plain: &Plain, rng: &mut Rng) {
    let (mut day, settled) = (Day::default(), plain.channels.keys());
    day.settled = settled.map(|channel| (*channel, plain.hidden(*channel))).collect();
    for uin in 1..=3 {
        let mut device = Device::new(uin, 9);
        device.connect(world, rng);
        for _ in 0..400 {
            device.hear(world, &mut day);
        }
        for (channel, log) in &plain.channels {
            if channel.peer_of(Uin(uin)).is_some() {
                let hidden = plain.hidden(*channel);
                judge_inbox(device.inbox.get(channel), log, &hidden);
                let seen = device.inbox[channel].iter().flatten().count();
                assert_eq!(seen, log.len() - hidden.len(), "a newcomer sees all but the hidden");
            }
        }
    }
}

#[test]
fn what_is_recalled_is_shown_to_nobody_late_and_who_is_blocked_says_nothing() {
    let days = 80;
    let counted = for_seeds("recall_days", days, live_through);
    let [messages, recalls, edits, refused, gaps] = counted;
    assert!(counted.iter().all(|count| *count > 0), "nothing happened: {counted:?}");
    println!(
        "TEST recall days n={days} messages={messages} recalls={recalls} edits={edits} \
         refused={refused} gaps={gaps} shown=0 lost=0"
    );
}
