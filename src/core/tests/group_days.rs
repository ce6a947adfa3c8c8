//! Random bad days of groups against a plain model: crashes, power cuts, reconnects, repeats, lost
//! mail, any interleaving of workers, while people come, go, are thrown out and muted. In the end
//! the log holds only what the rules allow; each device of each member has what the member may
//! read, once, in order; and nobody was shown anything else, at any time.
//!
//! `TERN_SOAK` scales the number of days; a failure names its seed, and `TERN_SEED` runs that one
//! alone.

mod common;

use std::collections::{BTreeMap, VecDeque};

use common::groups::{Wish, group_of, pages};
use common::{Client, Got, Rng, World, cursor, for_seeds};
use tern_core::Recovery;
use tern_core::config::Config;
use tern_core::io::Outgoing;
use tern_core::log::{Offset, RecordKind};
use tern_core::mail::Mail;
use tern_core::memory::{MemoryReader, MemoryTable};
use tern_core::placement::{Placement, ShardId};
use tern_core::shard::state::StateKind;
use tern_groupmodel::{Group, Said};
use tern_protocol::frames::{PushBody, action, message_kind, role, settings};
use tern_protocol::{ChannelId, Class, Code};
use zerocopy::FromBytes;

/// Users 1 to 5; the first two have two devices.
const DEVICES: [(u64, u32); 7] = [(1, 1), (1, 2), (2, 1), (2, 2), (3, 1), (4, 1), (5, 1)];

/// A user whom nobody knows.
const NOBODY: u64 = 777;

/// Groups of one day.
const GROUPS_MAX: usize = 4;

/// A record of a channel.
struct Entry {
    sender: u64,
    kind: u8,
    time: u64,
    content: Vec<u8>,
}

impl Entry {
    fn of(body: &PushBody, content: &[u8]) -> Self {
        let (sender, time) = (body.sender.get(), body.server_time.get());
        Self { sender, kind: body.kind, time, content: content.to_vec() }
    }

    fn said(&self) -> Said<'_> {
        let Self { sender, kind, time, content } = self;
        Said { sender: *sender, kind: *kind, time: *time, content }
    }
}

/// What a device holds until it is answered.
#[derive(Clone)]
struct Held {
    channel: ChannelId,
    epoch: u32,
    counter: u32,
    predecessor: u32,
    what: What,
}

#[derive(Clone)]
enum What {
    Message(Vec<u8>),
    Change(Wish),
}

impl What {
    fn content(&self) -> Vec<u8> {
        match self {
            Self::Message(content) => content.clone(),
            Self::Change(wish) => wish.content(),
        }
    }
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
}

/// What happened in a day.
#[derive(Default)]
struct Day {
    groups: Vec<ChannelId>,
    /// What senders were promised.
    acked: BTreeMap<(ChannelId, u64), Vec<u8>>,
    refused: usize,
}

impl Device {
    fn connect(&mut self, world: &mut World, rng: &mut Rng) {
        let old = self.link.take();
        let client = world.connect_anew(rng, (self.uin, self.device), old);
        (self.live, self.link) = (false, Some(client));
    }

    /// Whether a new key may be used: old ones are answered, and the window is not overrun.
    fn may_begin(&self) -> bool {
        let is_in_window =
            |oldest: &Held| oldest.epoch == self.epoch && self.counter + 1 - oldest.counter < 63;
        self.live && self.outbox.front().is_none_or(is_in_window)
    }

    fn begin(&mut self, world: &mut World, channel: ChannelId, what: What) {
        self.counter += 1;
        let before = self.outbox.iter().rev().find(|held| held.channel == channel);
        let predecessor = before.map_or(0, |held| held.counter);
        let (epoch, counter) = (self.epoch, self.counter);
        let held = Held { channel, epoch, counter, predecessor, what };
        self.outbox.push_back(held.clone());
        self.say(world, &held);
    }

    fn create(&mut self, world: &mut World, rng: &mut Rng, day: &mut Day) {
        let members: Vec<u64> =
            (1..=5).filter(|uin| *uin != self.uin && rng.below(2) == 0).collect();
        let wish = Wish::create(rng.below(16) as u8 & !settings::ADMINS_POST, &members);
        let channel = group_of(self.uin, self.device, self.epoch, self.counter + 1);
        day.groups.push(channel);
        self.begin(world, channel, What::Change(wish));
    }

    fn say(&self, world: &mut World, held: &Held) {
        let Some(client) = self.link.as_ref().filter(|_| self.live) else { return };
        let Held { channel, epoch, counter, predecessor, what } = held;
        match what {
            What::Message(content) => {
                client.send_as(world, *channel, *epoch, *counter, *predecessor, content);
            }
            What::Change(wish) => {
                client.change_as(world, *channel, (*epoch, *counter, *predecessor), wish);
            }
        }
    }

    fn repeat(&self, world: &mut World) {
        for held in &self.outbox {
            self.say(world, held);
        }
    }

    fn hear(&mut self, world: &mut World, day: &mut Day) {
        let Some(client) = self.link.clone() else { return };
        for got in world.take(&client) {
            match got {
                Got::Frame(frame) => self.hear_frame(world, frame, day),
                Got::Whole(_) => panic!("nobody asked for members"),
                Got::Push { channel, id, content, .. } => {
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
            Outgoing::LoggedIn(answer) => {
                let client = self.link.as_mut().expect("it was heard on a link");
                (client.epoch, client.token) = (answer.epoch.get(), answer.token);
                if answer.epoch.get() != self.epoch {
                    assert!(answer.epoch.get() > self.epoch, "an epoch went back");
                    (self.epoch, self.counter) = (answer.epoch.get(), 0);
                }
                self.live = true;
                let named = |(channel, inbox): (&ChannelId, &Vec<_>)| {
                    cursor(*channel, inbox.len() as u64, 1)
                };
                let cursors: Vec<_> = self.inbox.iter().map(named).collect();
                self.link.clone().expect("a link").say_cursors(world, &cursors);
                self.repeat(world);
            }
            Outgoing::SendAck(ack) => {
                let key = (ack.epoch.get(), ack.counter.get());
                if let Some(held) = self.answered(key) {
                    let content = held.what.content();
                    let before = day.acked.insert((ack.channel, ack.id.get()), content.clone());
                    assert!(before.is_none_or(|b| b == content), "an id was given twice");
                }
            }
            Outgoing::SendRefused(refused) => {
                let (code, member) = (Code(refused.code.get()), refused.member.get());
                if code.class() == Class::Final
                    && let Some(held) = self.answered((refused.epoch.get(), refused.counter.get()))
                {
                    day.refused += 1;
                    check_refusal(&held, code, member);
                    self.step_past(world, &held);
                }
            }
            Outgoing::Gap(gap) => {
                let inbox = self.inbox.entry(gap.channel).or_default();
                assert_eq!(Code(gap.code.get()), Code::NotVisible, "nothing is lost or expired");
                assert!(gap.from.get() as usize <= inbox.len() + 1, "a hole before a gap");
                let to = gap.to.get() as usize;
                inbox.resize(inbox.len().max(to), None);
                self.link.clone().expect("a link").ack(world, gap.channel, to as u64);
            }
            Outgoing::Channel(state) => {
                let has = self.inbox.get(&state.channel).map_or(0, Vec::len) as u64;
                assert!(has <= state.newest.get(), "it has what it may not read");
            }
            Outgoing::Error { code: Code::ResumeUnknown, .. } => {
                let client = self.link.clone().expect("it was heard on a link");
                client.clone().login(world, self.uin, self.device);
            }
            Outgoing::Error { code, .. } => panic!("an honest device hears {code}"),
            Outgoing::Welcome(_)
            | Outgoing::Identity(_)
            | Outgoing::AskCursors(_)
            | Outgoing::Blocked(_)
            | Outgoing::Pong(_) => {}
        }
    }

    fn answered(&mut self, key: (u32, u32)) -> Option<Held> {
        let held = self.outbox.iter().position(|h| (h.epoch, h.counter) == key)?;
        self.outbox.remove(held)
    }

    /// Later ones may not name one that was refused for good.
    fn step_past(&mut self, world: &mut World, refused: &Held) {
        let is_of_it =
            |held: &&mut Held| held.channel == refused.channel && held.epoch == refused.epoch;
        for held in self.outbox.iter_mut().filter(is_of_it) {
            if held.predecessor == refused.counter {
                held.predecessor = refused.predecessor;
            }
        }
        self.repeat(world);
    }
}

/// What a device may be refused, by what it had asked for.
fn check_refusal(held: &Held, code: Code, member: u16) {
    let allowed: &[Code] = match &held.what {
        What::Message(_) => {
            &[Code::NotAMember, Code::Muted, Code::NotAllowed, Code::GroupDissolved]
        }
        What::Change(wish) if wish.members.contains(&NOBODY) && code == Code::NoSuchUser => {
            assert_eq!(wish.members[usize::from(member) - 1], NOBODY);
            return;
        }
        What::Change(_) => &[
            Code::NotAMember,
            Code::NotAllowed,
            Code::NoSuchMember,
            Code::ChangesNothing,
            Code::OwnerStays,
            Code::GroupDissolved,
        ],
    };
    assert!(allowed.contains(&code), "refused: {code}");
}

fn random_wish(world: &World, rng: &mut Rng) -> Wish {
    let uin = 1 + rng.below(5);
    let one = |action| Wish::of(action, &[uin]);
    match rng.below(20) {
        0..4 => one(action::ADD),
        4 => Wish::of(action::ADD, &[uin, NOBODY]),
        5..7 => Wish::of(action::ADD, &[1, 2, 3, 4, 5]),
        7..10 => one(action::KICK),
        10..12 => Wish::plain(action::LEAVE),
        12..14 => Wish::plain(action::JOIN),
        14 => Wish { role: role::ADMIN, ..one(action::ROLE) },
        15 => Wish { role: 1 + rng.below(3) as u8, ..one(action::ROLE) },
        16 => Wish { until: world.now.wall.0 + rng.below(2_000), ..one(action::MUTE) },
        17 => Wish { name: format!("n{}", rng.below(9)).into(), ..Wish::plain(action::RENAME) },
        18 if rng.below(8) == 0 => Wish::plain(action::DISSOLVE),
        _ => Wish { settings: rng.below(16) as u8, ..Wish::plain(action::SETTINGS) },
    }
}

/// One day: chaos, then peace, then the judgement. Counts acked messages and changes, final
/// refusals, and what devices have.
fn live_through(seed: u64) -> [usize; 4] {
    let mut rng = Rng::new(seed);
    let shards = 1 + rng.below(5) as u16;
    let config = Config {
        window_messages: 1 + rng.below(20) as u32,
        window_messages_max: 1 + rng.below(40) as u32,
        requests_max: if rng.below(2) == 0 { 2 } else { 4_096 },
        sends_per_second: 100_000,
        sends_burst: 100_000,
        channels_per_hour: 1_000_000,
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
    let mut devices = DEVICES.map(|(uin, device)| Device {
        uin,
        device,
        link: None,
        live: false,
        epoch: 0,
        counter: 0,
        outbox: VecDeque::new(),
        inbox: BTreeMap::new(),
    });
    for step in 0..2_500 {
        if rng.below(300) == 0 {
            if rng.below(2) == 0 {
                reader.cut_power(); // otherwise only the process dies
            }
            world = start(&mut rng);
            devices.iter_mut().for_each(|device| (device.link, device.live) = (None, false));
        }
        let device = &mut devices[rng.below(DEVICES.len() as u64) as usize];
        live_a_moment(&mut world, device, &mut rng, &mut day, step);
    }
    make_peace(&mut world, &mut devices, &mut rng, &mut day);
    judge_checkpoints(&reader, &world.placement, &mut rng);
    judge(&mut world, &reader, &devices, &day)
}

/// Something small happens: to the world, or a device does it.
fn live_a_moment(world: &mut World, device: &mut Device, rng: &mut Rng, day: &mut Day, step: u32) {
    match rng.below(100) {
        1 => world.held = !world.held,
        2 => world.lose = may_be_lost,
        3 | 4 => world.lose = |_| false,
        5 => world.pass(200),
        6..10 => device.connect(world, rng),
        10..35 if device.may_begin() && day.groups.len() < GROUPS_MAX => {
            if rng.below(4) == 0 {
                device.create(world, rng, day);
            }
        }
        10..17 if device.may_begin() => {
            let channel = day.groups[rng.below(GROUPS_MAX as u64) as usize];
            let wish = random_wish(world, rng);
            device.begin(world, channel, What::Change(wish));
        }
        17..30 if device.may_begin() => {
            let channel = day.groups[rng.below(GROUPS_MAX as u64) as usize];
            let text = format!("{}.{}:{step}", device.uin, device.device);
            device.begin(world, channel, What::Message(text.into()));
        }
        35..38 => device.repeat(world),
        38..55 => device.hear(world, day),
        _ => world.step(rng.next()),
    }
}

/// Mail that heals when it is lost.
fn may_be_lost(mail: &Mail) -> bool {
    matches!(
        mail,
        Mail::Notify { .. }
            | Mail::Confirm { .. }
            | Mail::AskMembers { .. }
            | Mail::Members(_)
            | Mail::Enter { .. }
            | Mail::Entered { .. }
    )
}

fn make_peace(world: &mut World, devices: &mut [Device], rng: &mut Rng, day: &mut Day) {
    (world.held, world.by_steps) = (false, false);
    world.lose = |_| false;
    world.run();
    for device in devices.iter_mut() {
        device.connect(world, rng);
    }
    for _ in 0..100 {
        world.pass(1_100);
        for device in devices.iter_mut() {
            device.hear(world, day);
            device.repeat(world);
        }
    }
}

/// All channels' records, from the logs.
fn read_logs(world: &World, reader: &MemoryReader) -> BTreeMap<ChannelId, Vec<Entry>> {
    let mut logs: BTreeMap<ChannelId, Vec<Entry>> = BTreeMap::new();
    for shard in 0..world.placement.shards() {
        reader.replay(ShardId(shard), |_, _, record| {
            if !record.kind.is_in_channel() {
                return;
            }
            let (body, content) = PushBody::ref_from_prefix(record.body).expect("a message");
            let is_change = body.kind == message_kind::CHANGE;
            assert_eq!(is_change, record.kind == RecordKind::Change);
            let log = logs.entry(body.channel).or_default();
            log.push(Entry::of(body, content));
            assert_eq!(body.id.get(), log.len() as u64, "ids are contiguous");
        });
    }
    logs
}

fn judge(world: &mut World, reader: &MemoryReader, devices: &[Device], day: &Day) -> [usize; 4] {
    let logs = read_logs(world, reader);
    for ((channel, id), content) in &day.acked {
        assert_eq!(&logs[channel][*id as usize - 1].content, content, "{channel} {id} was acked");
    }
    for device in devices {
        let (uin, left) = (device.uin, device.outbox.len());
        assert_eq!(left, 0, "{uin}.{}: {left} unanswered", device.device);
    }
    let mut had = 0;
    for (channel, log) in &logs {
        let group = Group::replay(log.iter().map(Entry::said));
        let group = group.unwrap_or_else(|wrong| panic!("{channel}: {wrong}"));
        for device in devices {
            had += judge_inbox(device, *channel, &group, log);
        }
        judge_order(log);
        judge_page(world, devices, *channel, &group);
    }
    let logged = logs.values().flatten();
    let changes = logged.clone().filter(|entry| entry.kind == message_kind::CHANGE).count();
    [logged.count() - changes, changes, day.refused, had]
}

/// A state restored from the rows of a checkpoint anywhere in the log is, at its end, that of the
/// whole log.
fn judge_checkpoints(reader: &MemoryReader, placement: &Placement, rng: &mut Rng) {
    for shard in (0..placement.shards()).map(ShardId) {
        let fresh = || Recovery::new(shard, *placement, MemoryTable::default(), Offset::NONE);
        let (mut whole, mut before, mut records) = (fresh(), fresh(), Vec::new());
        reader.replay(shard, |at, end, record| {
            whole.replay(at, end, record).expect("the log makes sense");
            records.push((at, end));
        });
        let cut = rng.below(records.len() as u64 + 1) as usize;
        let cut_at = records[..cut].last().map_or(Offset::NONE, |(_, end)| *end);
        reader.replay(shard, |at, end, record| {
            if at < cut_at {
                before.replay(at, end, record).expect("the log makes sense");
            }
        });
        let mut restored = fresh();
        for (kind, row) in rows(&before) {
            restored.restore(cut_at, kind, &row).expect("a row that was made is one");
        }
        reader.replay(shard, |at, end, record| {
            if at >= cut_at {
                restored.replay(at, end, record).expect("the log makes sense");
            }
        });
        assert!(rows(&restored) == rows(&whole), "{shard:?}, with a checkpoint at {cut_at:?}");
    }
}

fn rows(recovery: &Recovery<MemoryTable>) -> Vec<(StateKind, Vec<u8>)> {
    let mut rows = Vec::new();
    let emitted = recovery.rows(|kind, parts| {
        rows.push((kind, parts.concat()));
        Ok::<_, std::convert::Infallible>(())
    });
    emitted.expect("nothing fails");
    rows
}

/// The device has what its user may read, and nothing that its user never might.
fn judge_inbox(device: &Device, channel: ChannelId, group: &Group, log: &[Entry]) -> usize {
    let who = || format!("{}.{} of {channel}", device.uin, device.device);
    let inbox = device.inbox.get(&channel).map(Vec::as_slice).unwrap_or_default();
    let mut had = 0;
    for (index, content) in inbox.iter().enumerate() {
        let id = index as u64 + 1;
        let Some(content) = content else { continue };
        had += 1;
        assert_eq!(*content, log[index].content, "{id} at {}", who());
        assert!(group.was_shown(device.uin, id), "{id} is not for {}", who());
    }
    let Some((from, to)) = group.range(device.uin) else {
        assert_eq!(inbox.len(), 0, "{} was never in it", who());
        return 0;
    };
    assert_eq!(inbox.len() as u64, to, "how far {} has come; it sees {from} to {to}", who());
    for id in from..=to {
        let has = inbox[id as usize - 1].is_some();
        assert!(has || !group.was_always_shown(device.uin, id), "{id} is missing at {}", who());
    }
    had
}

/// Each device's messages stand in the order in which it sent them.
fn judge_order(log: &[Entry]) {
    let mut newest: BTreeMap<&str, u32> = BTreeMap::new();
    for entry in log.iter().filter(|entry| entry.kind == message_kind::CONTENT) {
        let text = std::str::from_utf8(&entry.content).expect("devices send text");
        let (sender, step) = text.split_once(':').expect("devices send sender and step");
        let step: u32 = step.parse().expect("a step is a number");
        let before = newest.insert(sender, step);
        assert!(before.is_none_or(|before| before < step), "{sender}: {before:?} before {step}");
    }
}

/// What a member is told of the members is what the log says.
fn judge_page(world: &mut World, devices: &[Device], channel: ChannelId, group: &Group) {
    let member = devices.iter().find(|device| group.members.contains_key(&device.uin));
    let Some(client) = member.and_then(|device| device.link.clone()) else { return };
    world.take(&client);
    client.ask_group(world, channel, 0);
    let got = world.take(&client);
    let [(head, name, members, true)] = &pages(&got)[..] else { panic!("one page: {got:?}") };
    assert_eq!((name, head.settings), (&group.name, group.settings));
    assert_eq!(head.members.get() as usize, group.members.len());
    let told = members.iter().map(|m| (m.uin.get(), (m.role, m.muted_until.get())));
    let muted = |uin: &u64| group.muted.get(uin).copied().unwrap_or(0);
    let expected = group.members.iter().map(|(uin, role)| (*uin, (*role, muted(uin))));
    assert_eq!(told.collect::<Vec<_>>(), expected.collect::<Vec<_>>());
}

#[test]
fn members_have_what_is_theirs_once_in_order_and_nobody_anything_else() {
    let days = 120;
    let [messages, changes, refused, had] = for_seeds("group_days", days, live_through);
    assert!(messages > 0 && changes > 0 && refused > 0 && had > messages);
    println!(
        "TEST group days n={days} messages={messages} changes={changes} refused={refused} had={had} lost=0"
    );
}
