//! Looking back in a channel whose log is damaged, expired, cold and partly recalled, against a
//! plain model: going from page to page every id is told once, as what it is. And what a new
//! device that wants less than everything is told.
//!
//! `TERN_SOAK` multiplies the number of days; `TERN_SEED` tries one alone.

mod common;

use common::recalls::Saying;
use common::{Client, Got, Rng, World, closes, cursor, direct, errors};
use tern_core::config::Config;
use tern_core::io::Outgoing;
use tern_core::log::{Offset, RecordKind};
use tern_core::mail::Mail;
use tern_core::memory::MemoryReader;
use tern_protocol::digest::UNSAID;
use tern_protocol::frames::{HistoryAsk, HistoryPage, HistoryWanted, PushBody};
use tern_protocol::history::{Entry, split_entry};
use tern_protocol::limits::{CONTENT_BYTES_MAX, HISTORY_IDS_MAX};
use tern_protocol::{ChannelId, Code, Flags, Frame, Kind};
use zerocopy::FromBytes;

/// Days that are tried in everyday tests.
const DAYS: u64 = 150;

/// What the channel holds, by id from 1.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Truth {
    Message(Vec<u8>),
    Gap(Code),
}

struct Day {
    rng: Rng,
    world: World,
    reader: MemoryReader,
    alice: Client,
    bob: Client,
    truth: Vec<Truth>,
    expired_to: u64,
}

fn channel() -> ChannelId {
    direct(1, 2)
}

impl Client {
    fn look_back(&self, world: &mut World, channel: ChannelId, before: u64, limit: u32) {
        let (before, limit) = (before.into(), limit.into());
        let ask = HistoryAsk { channel, before, limit, reserved: 0.into() };
        self.say(world, Kind::HistoryAsk, Flags::NONE, &ask, b"");
    }

    fn want(&self, world: &mut World, newest: u32) {
        let wanted = HistoryWanted { newest: newest.into(), reserved: 0.into() };
        self.say(world, Kind::HistoryWanted, Flags::NONE, &wanted, b"");
    }
}

/// A page, and what it says of each id.
struct Told {
    head: HistoryPage,
    is_last: bool,
    ids: Vec<Truth>,
    messages: usize,
}

/// The one page among what a client got.
fn page(got: &[Got]) -> Told {
    let frames = got.iter().filter_map(|got| match got {
        Got::Whole(frame) => Some(Frame::parse(frame).expect("a frame")),
        _ => None,
    });
    let mut pages = frames.filter_map(|(frame, flags)| match frame {
        Frame::History(head, entries) => Some((head, entries, flags)),
        _ => None,
    });
    let (head, mut entries, flags) = pages.next().expect("a page");
    assert!(pages.next().is_none(), "one question, one page");
    let (mut ids, mut messages) = (Vec::new(), 0);
    while !entries.is_empty() {
        let (entry, rest) = split_entry(entries).expect("whole entries");
        match entry {
            Entry::Message(body, content) => {
                assert_eq!(body.id.get(), head.from.get() + ids.len() as u64, "in order");
                ids.push(Truth::Message(content.to_vec()));
                messages += 1;
            }
            Entry::Gap { ids: count, code } => {
                ids.extend((0..count).map(|_| Truth::Gap(code)));
            }
        }
        entries = rest;
    }
    assert_eq!(head.to.get() + 1, head.from.get() + ids.len() as u64, "each id once");
    Told { head: *head, is_last: flags.has(Flags::LAST), ids, messages }
}

impl Day {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let config = Config {
            content_bytes_max: CONTENT_BYTES_MAX as u32,
            sends_per_second: 100_000,
            sends_burst: 100_000,
            ..Config::default()
        };
        let reader = MemoryReader::default();
        let (shards, workers) = (1 + rng.below(2) as u16, 1 + rng.below(2) as u16);
        let mut world = World::over(reader.clone(), shards, workers, config);
        let alice = world.login(0, 1, 1, &[]);
        let bob = world.login(usize::from(workers) - 1, 2, 1, &[]);
        Self { rng, world, reader, alice, bob, truth: Vec::new(), expired_to: 0 }
    }

    /// A message, rarely one of the longest, among those of another channel.
    fn send(&mut self) {
        let bytes = match self.rng.below(20) {
            0 => CONTENT_BYTES_MAX,
            1..4 => 9_000,
            _ => 8,
        };
        let mut content = vec![7; bytes];
        content[..8].copy_from_slice(&self.rng.next().to_le_bytes());
        self.alice.send(&mut self.world, channel(), &content);
        self.truth.push(Truth::Message(content));
        if self.rng.below(3) == 0 {
            self.alice.send(&mut self.world, direct(1, 3), b"elsewhere");
        }
    }

    fn recall(&mut self) {
        let id = 1 + self.rng.below(self.truth.len() as u64);
        let is_content =
            matches!(&self.truth[id as usize - 1], Truth::Message(it) if !it.is_empty());
        if is_content {
            self.alice.refer(&mut self.world, channel(), &Saying::recall(id));
            self.truth[id as usize - 1] = Truth::Gap(Code::Recalled);
            self.truth.push(Truth::Message(Vec::new()));
        }
    }

    fn places(&self) -> Vec<Offset> {
        let shard = self.world.placement.shard_of_channel(channel());
        let mut places = vec![Offset::NONE; self.truth.len()];
        self.reader.replay(shard, |at, _, record| {
            if matches!(record.kind, RecordKind::Message | RecordKind::Recall) {
                let (body, _) = PushBody::ref_from_prefix(record.body).expect("a message");
                if body.channel == channel() {
                    places[body.id.get() as usize - 1] = at;
                }
            }
        });
        places
    }

    fn age(&mut self) {
        let (shard, places) = (self.world.placement.shard_of_channel(channel()), self.places());
        let newest = places.len() as u64;
        for _ in 0..self.rng.below(12) {
            let id = 1 + self.rng.below(newest);
            let is_content =
                matches!(&self.truth[id as usize - 1], Truth::Message(it) if !it.is_empty());
            if id < newest && is_content {
                self.truth[id as usize - 1] = Truth::Gap(Code::Lost);
                self.reader.damage(shard, places[id as usize - 1], self.rng.below(2) == 0);
            }
        }
        if self.rng.below(2) == 0 {
            self.expired_to = self.rng.below(newest);
            let before = Offset(places[self.expired_to as usize].0);
            self.reader.expire(shard, before);
            self.world.run();
        }
        for at in &places {
            if self.rng.below(2) == 0 {
                self.reader.chill(shard, *at);
            }
        }
    }

    /// From page to page, back to the oldest; how many pages, messages and gaps.
    fn look_back(&mut self) -> [usize; 3] {
        self.world.take(&self.bob);
        let (mut before, mut counted) = (0, [0; 3]);
        let mut told = Vec::new();
        loop {
            let limit = 1 + self.rng.below(40) as u32;
            self.bob.look_back(&mut self.world, channel(), before, limit);
            let got = self.world.take(&self.bob);
            assert_eq!(errors(&got), [], "an honest device");
            let page = page(&got);
            let most = u64::from(limit.min(HISTORY_IDS_MAX));
            assert!(page.ids.len() as u64 <= most, "{limit} were asked for");
            assert!(page.is_last || !page.ids.is_empty(), "a page that goes on says something");
            assert_eq!(page.head.newest.get(), self.truth.len() as u64);
            assert_eq!(page.head.oldest.get(), self.expired_to + 1);
            let code = if self.expired_to > 0 { Code::Expired } else { Code(0) };
            assert_eq!(page.head.code.get(), code.0);
            counted[0] += 1;
            counted[1] += page.messages;
            counted[2] += page.ids.len() - page.messages;
            told.splice(0..0, page.ids);
            if page.is_last {
                break;
            }
            before = page.head.from.get();
        }
        assert!(told == self.truth[self.expired_to as usize..], "each id as what it is");
        counted
    }
}

#[test]
fn every_id_is_told_once_going_back_and_as_what_it_is() {
    let totals = common::for_seeds("history", DAYS, |seed| {
        let mut day = Day::new(seed);
        for _ in 0..1 + day.rng.below(120) {
            day.send();
            if day.rng.below(10) == 0 {
                day.recall();
            }
        }
        day.age();
        day.look_back()
    });
    let [pages, messages, gaps] = totals;
    println!("TEST history n={} pages={pages} gaps={gaps} unaccounted=0", messages + gaps);
    assert!(messages > 0 && gaps > 0, "{totals:?}");
}

fn say_some(world: &mut World, from: &mut Client, to: ChannelId, count: u64) {
    (0..count).for_each(|_| {
        from.send(world, to, b"some");
    });
}

/// A device that has said HELLO and LOGIN, and no cursors.
fn fresh(world: &mut World, uin: u64, device: u32) -> Client {
    let mut client = world.connect(0);
    client.hello_with(world, UNSAID, 0);
    client.login(world, uin, device);
    client
}

#[test]
fn a_page_needs_a_channel_of_the_user_and_one_question_at_a_time() {
    let mut world = World::new(2, 1);
    let mut alice = world.login(0, 1, 1, &[]);
    say_some(&mut world, &mut alice, channel(), 3);
    let carol = world.login(0, 3, 1, &[]);
    carol.look_back(&mut world, channel(), 0, 10);
    assert_eq!(errors(&world.take(&carol)), [Code::NotGranted]);

    // Before its cursors nothing is shown; then the question is answered.
    let bob = fresh(&mut world, 2, 1);
    bob.look_back(&mut world, channel(), 0, 10);
    bob.look_back(&mut world, channel(), 0, 10);
    assert_eq!(errors(&world.take(&bob)), [Code::Busy]);
    bob.say_cursors(&mut world, &[]);
    let told = page(&world.take(&bob));
    assert_eq!((told.ids.len(), told.is_last), (3, true));

    // Nothing is asked for, or nothing is there: the page is empty and says where it would be.
    for (before, limit, last) in [(0, 0, false), (1, 5, true), (2, 0, false)] {
        bob.look_back(&mut world, channel(), before, limit);
        let told = page(&world.take(&bob));
        assert_eq!((told.ids.len(), told.is_last), (0, last), "before {before}, {limit} of them");
        assert_eq!(told.head.newest.get(), 3);
    }
    bob.look_back(&mut world, channel(), u64::MAX, u32::MAX);
    assert_eq!(page(&world.take(&bob)).ids.len(), 3);
}

/// What a device is pushed, in short: from which id on, and the gaps.
fn told(got: &[Got]) -> Vec<String> {
    let tell = |got: &Got| match got {
        Got::Push { channel, id, .. } => Some(format!("{channel} {id}")),
        Got::Frame(Outgoing::Gap(gap)) => {
            let code = Code(gap.code.get());
            Some(format!("{} {code} {} to {}", gap.channel, gap.from, gap.to))
        }
        Got::Whole(frame) => match Frame::parse(frame).expect("a frame").0 {
            Frame::ChannelsShown(shown) => Some(format!("shown {}", shown.channels)),
            _ => None,
        },
        _ => None,
    };
    got.iter().filter_map(tell).collect()
}

#[test]
fn a_new_device_gets_what_it_wants_and_everything_that_comes_later() {
    let mut world = World::new(2, 1);
    let mut alice = world.login(0, 1, 1, &[]);
    say_some(&mut world, &mut alice, channel(), 10);
    say_some(&mut world, &mut alice, direct(1, 3), 2);

    let bob = fresh(&mut world, 2, 1);
    bob.want(&mut world, 3);
    bob.say_cursors(&mut world, &[]);
    let got = world.take(&bob);
    assert_eq!(told(&got)[0], "1-2 SKIPPED 1 to 7");
    let mut rest = told(&got)[1..].to_vec();
    rest.sort_unstable();
    assert_eq!(rest, ["1-2 10", "1-2 8", "1-2 9", "shown 1"]);

    // What begins later is new, not history.
    let mut dave = world.login(0, 4, 1, &[]);
    say_some(&mut world, &mut dave, direct(2, 4), 1);
    assert_eq!(told(&world.take(&bob)), ["2-4 1"]);
    bob.want(&mut world, 3);
    assert_eq!(closes(&world.take(&bob)), [Code::WrongState], "it is too late to want less");
}

#[test]
fn who_wants_nothing_of_before_keeps_the_cursors_that_it_has() {
    let mut world = World::new(1, 1);
    let mut alice = world.login(0, 1, 1, &[]);
    say_some(&mut world, &mut alice, channel(), 5);
    say_some(&mut world, &mut alice, direct(1, 3), 5);
    let device = fresh(&mut world, 1, 2);
    device.want(&mut world, 0);
    device.say_cursors(&mut world, &[cursor(channel(), 3, 1)]);
    let mut got = told(&world.take(&device));
    got.sort_unstable();
    assert_eq!(got, ["1-2 4", "1-2 5", "1-3 SKIPPED 1 to 5", "shown 2"]);
    say_some(&mut world, &mut alice, direct(1, 3), 1);
    assert_eq!(told(&world.take(&device)), ["1-3 6"]);
}

/// Right after a start it takes an answer of a group's shard to know what its members may read.
#[test]
fn who_comes_right_after_a_start_is_shown_all_groups_too() {
    let (reader, size) = (MemoryReader::default(), (4, 2));
    let mut world = World::over(reader.clone(), size.0, size.1, Config::default());
    let mut alice = world.login(0, 1, 1, &[]);
    let groups = [(); 4].map(|()| alice.create(&mut world, 1, 0, &[2]));
    for group in groups {
        say_some(&mut world, &mut alice, group, 5);
    }
    say_some(&mut world, &mut alice, channel(), 1);

    let mut world = World::losing(reader, size, |mail| matches!(mail, Mail::Members(_)));
    let bob = fresh(&mut world, 2, 1);
    bob.want(&mut world, 2);
    bob.say_cursors(&mut world, &[]);
    bob.look_back(&mut world, groups[0], 0, 9);
    let got = world.take(&bob);
    assert_eq!((told(&got), errors(&got)), (vec![], vec![]), "not all is known");
    world.lose = |_| false;
    world.pass(1_000);
    let got = world.take(&bob);
    assert_eq!(page(&got).ids.len(), 6, "the question waited, too");
    let got = told(&got);
    for group in groups {
        // The first id is the change that made him a member.
        let own: Vec<&String> =
            got.iter().filter(|it| it.starts_with(&group.to_string())).collect();
        assert_eq!(own.len(), 3, "{group}: {got:?}");
        assert_eq!(own[0], &format!("{group} SKIPPED 1 to 4"));
    }
    assert!(got.contains(&"shown 5".to_owned()), "{got:?}");
}
