//! What a device is told of a channel whose log is damaged, expired and cold, against a plain
//! model: every id once and in order, as a push or in a gap with the right reason.
//!
//! `TERN_SOAK` multiplies the number of days; `TERN_SEED` tries one alone.

mod common;

use std::collections::BTreeMap;

use common::{Client, Got, Rng, World, cursor, direct};
use tern_core::config::Config;
use tern_core::io::{Input, Outgoing};
use tern_core::log::{Offset, RecordKind};
use tern_core::memory::MemoryReader;
use tern_protocol::frames::PushBody;
use tern_protocol::{ChannelId, Code};
use zerocopy::FromBytes;

/// Days that are tried in everyday tests.
const DAYS: u64 = 400;

/// What the model knows of the channel that is read.
#[derive(Default)]
struct Truth {
    /// By id, from 1: the content, where it is, and whether it is damaged.
    messages: Vec<(Vec<u8>, Offset, bool)>,
    expired_to: u64,
    /// Ids that must stay readable, so that the newest id can be told after a restart.
    needed: Vec<u64>,
}

struct Day {
    rng: Rng,
    world: World,
    reader: MemoryReader,
    config: Config,
    truth: Truth,
    alice: Client,
    bob: Option<Client>,
    /// What Bob has heard of, and how often by push and by each kind of gap.
    cursor: u64,
    pushed: usize,
    lost: usize,
    expired: usize,
}

const READ: (u64, u64) = (1, 2);

fn channel() -> ChannelId {
    direct(READ.0, READ.1)
}

impl Day {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let config = Config {
            window_messages: 1 + rng.below(60) as u32,
            window_messages_max: 1 + rng.below(100) as u32,
            sends_per_second: 100_000,
            sends_burst: 100_000,
            ..Config::default()
        };
        let reader = MemoryReader::default();
        let shards = 1 + rng.below(2) as u16;
        let mut world = World::over(reader.clone(), shards, 1, config.clone());
        let alice = world.login(0, 1, 1, &[]);
        let (truth, bob) = (Truth::default(), None);
        let (cursor, pushed, lost, expired) = (0, 0, 0, 0);
        Self { rng, world, reader, config, truth, alice, bob, cursor, pushed, lost, expired }
    }

    fn live(&mut self) {
        for _ in 0..20 + self.rng.below(40) {
            match self.rng.below(12) {
                0..4 => self.send(),
                4..7 => self.damage(),
                7 => self.expire(),
                8 => self.chill(),
                9 => self.bob_connects(),
                10 => self.bob_acks(),
                _ if self.rng.below(3) == 0 => self.restart(),
                _ => self.bob_asks_again(),
            }
            self.bob_hears();
        }
        self.bob_connects();
        for _ in 0..self.truth.messages.len() + 2 {
            self.bob_hears();
            self.bob_acks();
        }
        assert_eq!(self.cursor, self.truth.messages.len() as u64, "an id was never told of");
    }

    fn send(&mut self) {
        for _ in 0..1 + self.rng.below(12) {
            let content = self.rng.next().to_le_bytes().to_vec();
            if self.rng.below(4) == 0 {
                self.alice.send(&mut self.world, direct(1, 3), &content);
            } else {
                self.alice.send(&mut self.world, channel(), &content);
                self.truth.messages.push((content, Offset::NONE, false));
            }
        }
        let shard = self.world.placement.shard_of_channel(channel());
        let messages = &mut self.truth.messages;
        self.reader.replay(shard, |at, _, record| {
            if record.kind == RecordKind::Message {
                let (body, _) = PushBody::ref_from_prefix(record.body).expect("a message");
                if body.channel == channel() {
                    messages[body.id.get() as usize - 1].1 = at;
                }
            }
        });
    }

    fn damage(&mut self) {
        let shard = self.world.placement.shard_of_channel(channel());
        let newest = self.truth.messages.len() as u64;
        for _ in 0..self.rng.below(8).min(newest) {
            let id = 1 + self.rng.below(newest);
            let mut whole = self.rng.below(2) == 0;
            if id == newest {
                if newest == 1 || self.truth.messages[newest as usize - 2].2 {
                    continue;
                }
                whole = true;
                self.truth.needed.push(newest - 1);
            }
            let message = &mut self.truth.messages[id as usize - 1];
            if self.truth.needed.contains(&id) || id <= self.truth.expired_to || message.2 {
                continue;
            }
            message.2 = true;
            self.reader.damage(shard, message.1, whole);
        }
    }

    fn expire(&mut self) {
        let newest = self.truth.messages.len() as u64;
        if newest == 0 || self.rng.below(2) == 0 {
            return;
        }
        let shard = self.world.placement.shard_of_channel(channel());
        let up_to = 1 + self.rng.below(newest);
        if up_to > self.truth.expired_to {
            self.truth.expired_to = up_to;
            let before = Offset(self.truth.messages[up_to as usize - 1].1.0 + 1);
            self.reader.expire(shard, Offset(before.0.next_multiple_of(8)));
            self.world.run();
        }
    }

    fn chill(&mut self) {
        let shard = self.world.placement.shard_of_channel(channel());
        for (_, at, _) in &self.truth.messages {
            if self.rng.below(2) == 0 {
                self.reader.chill(shard, *at);
            }
        }
    }

    fn restart(&mut self) {
        let (reader, config) = (self.reader.clone(), self.config.clone());
        let shards = self.world.placement.shards();
        self.world = World::over(reader, shards, 1 + self.rng.below(2) as u16, config);
        self.alice = self.world.login(0, 1, 1, &[]);
        self.bob = None;
    }

    fn bob_connects(&mut self) {
        if let Some(old) = self.bob.take() {
            self.world.input(old.worker, Input::LinkClosed(old.link));
        }
        self.cursor = match self.rng.below(3) {
            0 => self.rng.below(self.cursor + 1), // a phone that was set back
            _ => self.cursor,
        };
        let worker = self.rng.below(self.world.workers.len() as u64) as usize;
        let cursors = [cursor(channel(), self.cursor, 1)];
        self.bob = Some(self.world.login(worker, 2, 1, &cursors));
    }

    fn bob_acks(&mut self) {
        if let Some(bob) = self.bob.clone() {
            let id = self.cursor - self.rng.below(3).min(self.cursor);
            bob.ack(&mut self.world, channel(), id);
            bob.ack(&mut self.world, channel(), self.cursor);
        }
    }

    fn bob_asks_again(&mut self) {
        if let Some(bob) = self.bob.clone().filter(|_| self.cursor > 0) {
            self.bob_hears();
            let from = 1 + self.rng.below(self.cursor);
            bob.fetch(&mut self.world, channel(), from, self.cursor);
            self.cursor = from - 1;
            self.bob_hears();
        }
    }

    /// Every id comes next, once, and as what it is.
    fn bob_hears(&mut self) {
        let Some(bob) = self.bob.clone() else { return };
        for got in self.world.take(&bob) {
            match got {
                Got::Push { channel: to, id, content, .. } if to == channel() => {
                    assert_eq!(id, self.cursor + 1, "pushed out of order");
                    let (expected, _, damaged) = &self.truth.messages[id as usize - 1];
                    assert!(!damaged && id > self.truth.expired_to, "{id} can't be read");
                    assert_eq!(content, *expected);
                    (self.cursor, self.pushed) = (id, self.pushed + 1);
                }
                Got::Frame(Outgoing::Gap(gap)) => {
                    let (from, to) = (gap.from.get(), gap.to.get());
                    assert_eq!(from, self.cursor + 1, "a gap out of order");
                    self.check_gap(from, to, Code(gap.code.get()));
                    self.cursor = to;
                }
                Got::Frame(Outgoing::Error { code, .. }) => panic!("an honest device hears {code}"),
                _ => {}
            }
        }
    }

    fn check_gap(&mut self, from: u64, to: u64, code: Code) {
        assert!(from <= to && to <= self.truth.messages.len() as u64, "gap {from} to {to}");
        for id in from..=to {
            let expired = id <= self.truth.expired_to;
            let damaged = self.truth.messages[id as usize - 1].2;
            match code {
                Code::Lost => assert!(damaged && !expired, "{id} is told as lost"),
                Code::Expired => assert!(expired, "{id} is told as expired"),
                other => panic!("a gap for {other}"),
            }
            self.lost += usize::from(code == Code::Lost);
            self.expired += usize::from(code == Code::Expired);
        }
    }
}

#[test]
fn every_id_is_told_once_in_order_and_as_what_it_is() {
    let totals = common::for_seeds("reading", DAYS, |seed| {
        let mut day = Day::new(seed);
        day.live();
        [1, day.pushed, day.lost, day.expired]
    });
    println!(
        "TEST damaged-reads n={} pushed={} told-lost={} told-expired={} unaccounted=0",
        totals[0], totals[1], totals[2], totals[3]
    );
    assert!(totals[0] == 1 || totals.iter().all(|total| *total > 0), "{totals:?}");
}

/// What a device is told of the channel, in short.
fn told(got: Vec<Got>) -> Vec<String> {
    let tell = |got| match got {
        Got::Push { id, .. } => Some(format!("push {id}")),
        Got::Frame(Outgoing::Gap(gap)) => {
            Some(format!("{} {} to {}", Code(gap.code.get()), gap.from, gap.to))
        }
        Got::Frame(Outgoing::Channel(state)) => Some(format!(
            "channel {} to {}, restarted at {}",
            state.oldest, state.newest, state.restarted_at
        )),
        Got::Frame(Outgoing::Error { code, .. }) => Some(format!("error {code}")),
        _ => None,
    };
    got.into_iter().filter_map(tell).collect()
}

/// A channel of `count` messages of which the first `expired` are past retention.
fn expired_channel(count: usize, expired: usize) -> (World, MemoryReader, Client) {
    let reader = MemoryReader::default();
    let mut world = World::over(reader.clone(), 1, 1, Config::default());
    let mut alice = world.login(0, 1, 1, &[]);
    let mut places = BTreeMap::new();
    for id in 0..count {
        alice.send(&mut world, channel(), &[id as u8]);
    }
    let shard = world.placement.shard_of_channel(channel());
    reader.replay(shard, |_, end, record| {
        if record.kind == RecordKind::Message {
            places.insert(places.len() + 1, end);
        }
    });
    reader.expire(shard, places[&expired]);
    world.run();
    world.take(&alice);
    (world, reader, alice)
}

#[test]
fn a_client_is_told_what_of_its_wishes_expired() {
    let (mut world, _, mut alice) = expired_channel(10, 4);
    let fresh = world.login(0, 2, 1, &[]);
    let expected = ["EXPIRED 1 to 4", "push 5", "push 6", "push 7", "push 8", "push 9", "push 10"];
    let got = told(world.take(&fresh));
    assert_eq!(got[0], "channel 5 to 10, restarted at 11");
    assert_eq!(got[1..], expected);
    let late = world.login(0, 2, 2, &[cursor(channel(), 2, 1)]);
    assert_eq!(told(world.take(&late))[..2], ["EXPIRED 3 to 4", "push 5"]);

    fresh.ack(&mut world, channel(), 10);
    fresh.fetch(&mut world, channel(), 2, 3);
    assert_eq!(told(world.take(&fresh)), ["EXPIRED 2 to 3"], "and nothing else is sent again");
    fresh.fetch(&mut world, channel(), 3, 5);
    assert_eq!(told(world.take(&fresh))[..2], ["EXPIRED 3 to 4", "push 5"]);
    fresh.fetch(&mut world, channel(), 3, 11);
    assert_eq!(told(world.take(&fresh)), ["error NOT_GRANTED"]);
    alice.send(&mut world, channel(), b"eleven");
    assert_eq!(told(world.take(&late)).last().map(String::as_str), Some("push 11"));
}

#[test]
fn what_expires_under_a_session_is_told_to_it() {
    let (mut world, reader, _) = expired_channel(10, 1);
    let shard = world.placement.shard_of_channel(channel());
    let config = Config { window_messages: 2, window_messages_max: 2, ..Config::default() };
    world = World::over(reader.clone(), 1, 1, config);
    let bob = world.login(0, 2, 1, &[cursor(channel(), 1, 1)]);
    assert_eq!(told(world.take(&bob)), ["push 2", "push 3"]);
    let mut places = Vec::new();
    reader.replay(shard, |_, end, record| {
        if record.kind == RecordKind::Message {
            places.push(end);
        }
    });
    reader.expire(shard, places[6]);
    world.run();
    assert_eq!(told(world.take(&bob)), ["EXPIRED 4 to 7"], "at once, though its window is full");
    bob.ack(&mut world, channel(), 7);
    assert_eq!(told(world.take(&bob)), ["push 8", "push 9"]);
    let counted: u64 = world.workers.iter().map(|worker| worker.counters().channels_expired).sum();
    assert_eq!(counted, 1);
}

/// The wait for one channel's expired record must not take away that of another's.
#[test]
fn two_channels_that_begin_with_a_loss_are_both_told() {
    let reader = MemoryReader::default();
    let mut world = World::over(reader.clone(), 1, 1, Config::default());
    let mut alice = world.login(0, 1, 1, &[]);
    for id in 1..=3u8 {
        alice.send(&mut world, channel(), &[id]);
        alice.send(&mut world, direct(1, 1), &[id]);
    }
    let shard = world.placement.shard_of_channel(channel());
    let mut places = Vec::new();
    reader.replay(shard, |at, _, record| {
        if record.kind == RecordKind::Message {
            places.push(at);
        }
    });
    reader.expire(shard, places[2]);
    places[2..4].iter().for_each(|at| reader.damage(shard, *at, true));
    world.run();
    let tablet = world.login(0, 1, 2, &[]);
    let got = told(world.take(&tablet));
    assert_eq!(got.iter().filter(|what| *what == "LOST 2 to 2").count(), 2, "{got:?}");
    assert_eq!(got.iter().filter(|what| *what == "push 3").count(), 2, "{got:?}");
}

#[test]
fn a_long_loss_is_told_in_few_pieces() {
    for whole in [true, false] {
        let (mut world, reader, _) = expired_channel(200, 1);
        let shard = world.placement.shard_of_channel(channel());
        let mut places = Vec::new();
        reader.replay(shard, |at, _, record| {
            if record.kind == RecordKind::Message {
                places.push(at);
            }
        });
        places[2..190].iter().for_each(|at| reader.damage(shard, *at, whole));
        let bob = world.login(0, 2, 1, &[cursor(channel(), 1, 1)]);
        let got = told(world.take(&bob));
        assert_eq!(got, ["push 2", "LOST 3 to 128"], "from one skip link to the next");
        bob.ack(&mut world, channel(), 128);
        let rest = told(world.take(&bob));
        let pushes = (191..=200).map(|id| format!("push {id}"));
        let expected: Vec<String> =
            std::iter::once("LOST 129 to 190".to_owned()).chain(pushes).collect();
        assert_eq!(rest, expected);
    }
}

#[test]
fn the_counter_of_a_channel_outlives_all_its_messages() {
    let (mut world, reader, mut alice) = expired_channel(3, 3);
    let fresh = world.login(0, 2, 1, &[]);
    let emptied = ["channel 4 to 3, restarted at 4", "EXPIRED 1 to 3"];
    assert_eq!(told(world.take(&fresh)), emptied);
    alice.send(&mut world, channel(), b"four");
    assert_eq!(told(world.take(&fresh)), ["push 4"]);

    let mut world = World::over(reader, 1, 1, Config::default());
    let current = world.login(0, 2, 1, &[cursor(channel(), 3, 1)]);
    assert_eq!(told(world.take(&current)), ["push 4"]);
}

#[test]
fn a_cursor_beyond_the_newest_message_is_told_where_history_restarted() {
    let (_, reader, _) = expired_channel(5, 1);
    let mut world = World::restarted(reader, 1, 1, Config::default(), 2);
    let ahead = world.login(0, 2, 1, &[cursor(channel(), 9, 1)]);
    assert_eq!(told(world.take(&ahead)), ["channel 2 to 5, restarted at 6"]);
    let behind = world.login(0, 2, 2, &[cursor(channel(), 4, 1)]);
    assert_eq!(told(world.take(&behind)), ["channel 2 to 5, restarted at 6", "push 5"]);
    let mut alice = world.login(0, 1, 1, &[cursor(channel(), 5, 2)]);
    alice.send(&mut world, channel(), b"six");
    assert_eq!(told(world.take(&ahead)), ["push 6"]);
}
