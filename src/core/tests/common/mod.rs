//! A small world: some workers over logs in memory, and clients that say frames.
//!
//! Everything happens at once and in order unless a test holds it back: mail between workers is
//! carried after each step, the directory answers at once, logs sync when told or by themselves.
#![allow(dead_code)] // each test file uses a part

pub mod groups;
pub mod marks;
pub mod recalls;

use std::collections::{BTreeMap, HashSet};

use bytes::Bytes;
use tern_core::config::Config;
use tern_core::io::{Answer, Effect, Input, LinkId, Order, Outgoing, Query};
use tern_core::log::{Offset, Reader};
use tern_core::mail::Mail;
use tern_core::memory::{MemoryLog, MemoryReader, MemoryTable};
use tern_core::placement::{Placement, ShardId, WorkerId};
use tern_core::time::{Mono, Now};
use tern_core::{Recovery, Worker};
use tern_protocol::digest::{CursorDigest, UNSAID};
use tern_protocol::frames::{
    Cursor, Fetch, Hello, LoggedIn, Login, PushBody, Resume, Send, SendAck, SendRefused,
    message_kind,
};
use tern_protocol::limits::{MAGIC, VERSION};
use tern_protocol::{ChannelId, Code, Flags, Incarnation, Kind, MessageId, Uin, UnixMillis};
use zerocopy::{FromBytes, Immutable, IntoBytes};

pub type TestWorker = Worker<MemoryLog, MemoryTable, MemoryReader>;

/// What a client got.
#[derive(Clone, Debug, PartialEq)]
pub enum Got {
    Frame(Outgoing),
    Push {
        channel: ChannelId,
        id: u64,
        sender: u64,
        content: Vec<u8>,
    },
    Close(Code),
    /// A frame that came encoded.
    Whole(Bytes),
}

pub struct World {
    pub now: Now,
    pub placement: Placement,
    pub workers: Vec<TestWorker>,
    pub reader: MemoryReader,
    pub got: BTreeMap<LinkId, Vec<Got>>,
    /// Secrets that the directory accepts are all ones; these users exist.
    pub users: HashSet<u64>,
    /// While set, workers' turns do not end: nothing is committed.
    pub held: bool,
    /// Nothing happens by itself, only by `step`.
    pub by_steps: bool,
    /// Mail between workers for which this says true is lost.
    pub lose: fn(&Mail) -> bool,
    /// What clients say in HELLO that they can do.
    pub capabilities: u64,
    /// How each push to a client may travel, since the last look.
    pub orders: BTreeMap<LinkId, Vec<Order>>,
    next_link: u64,
}

pub const SECRET: [u8; 32] = [1; 32];
/// A token that stands for whoever the client takes itself for.
pub const TOKEN: &[u8] = b"who.I.say";

impl World {
    pub fn new(shards: u16, workers: u16) -> Self {
        Self::over(MemoryReader::default(), shards, workers, Config::default())
    }

    pub fn over(reader: MemoryReader, shards: u16, workers: u16, config: Config) -> Self {
        Self::restarted(reader, shards, workers, config, 1)
    }

    /// After a recovery that raised the logs' incarnation to this.
    pub fn restarted(
        reader: MemoryReader,
        shards: u16,
        workers: u16,
        config: Config,
        incarnation: u32,
    ) -> Self {
        Self::opened(reader, (shards, workers), config, incarnation, &[])
    }

    /// At a later time of day.
    pub fn later(reader: MemoryReader, size: (u16, u16), config: Config, later_ms: u64) -> Self {
        let mut world = Self::built(reader, size, config, 1, &[]);
        world.now.wall.0 += later_ms;
        world.run();
        world
    }

    /// Some mail between its workers is lost from the start.
    pub fn losing(reader: MemoryReader, size: (u16, u16), lose: fn(&Mail) -> bool) -> Self {
        let mut world = Self { lose, ..Self::built(reader, size, Config::default(), 1, &[]) };
        world.run();
        world
    }

    /// After a recovery that opened the logs of some shards only to be read.
    pub fn opened(
        reader: MemoryReader,
        (shards, workers): (u16, u16),
        config: Config,
        incarnation: u32,
        read_only: &[ShardId],
    ) -> Self {
        let mut world = Self::built(reader, (shards, workers), config, incarnation, read_only);
        world.run();
        world
    }

    fn built(
        reader: MemoryReader,
        (shards, workers): (u16, u16),
        config: Config,
        incarnation: u32,
        read_only: &[ShardId],
    ) -> Self {
        let placement = Placement::new(shards, workers);
        let build = |worker| {
            let id = WorkerId(worker);
            let shards = placement.shards_of(id).map(|shard| {
                let recovery = recover(&reader, shard, placement, incarnation);
                reader.entomb(shard, &recovery.tombstones());
                recovery.finish(match read_only.contains(&shard) {
                    true => reader.read_only_log(shard),
                    false => reader.log(shard, true),
                })
            });
            Worker::new(id, placement, config.clone(), reader.clone(), shards.collect())
        };
        Self {
            now: Now { mono: Mono(1_000_000), wall: UnixMillis(1_700_000_000_000) },
            placement,
            workers: (0..workers).map(build).collect(),
            reader,
            got: BTreeMap::new(),
            users: (1..100).collect(),
            held: false,
            by_steps: false,
            lose: |_| false,
            capabilities: 0,
            orders: BTreeMap::new(),
            next_link: 1,
        }
    }

    /// Lets everything happen that can.
    pub fn run(&mut self) {
        // Opening a channel takes three commits in a row that show nothing.
        let mut quiet_turns = 0;
        while quiet_turns < 4 {
            let mut busy = false;
            for index in 0..self.workers.len() {
                if !self.held {
                    self.workers[index].commit(self.now);
                }
                busy |= self.drain(index);
                busy |= self.carry(index);
            }
            quiet_turns = if busy { 0 } else { quiet_turns + 1 };
        }
    }

    pub fn hold_commits(&mut self) {
        self.held = true;
    }

    pub fn release_commits(&mut self) {
        self.held = false;
        self.run();
    }

    /// Time passes.
    pub fn pass(&mut self, ms: u64) {
        self.now.mono = self.now.mono.after_ms(ms);
        self.now.wall = UnixMillis(self.now.wall.0 + ms);
        for worker in 0..self.workers.len() {
            self.input(worker, Input::Tick);
        }
    }

    pub fn input(&mut self, worker: usize, input: Input) {
        self.workers[worker].handle(self.now, input);
        if !self.by_steps {
            self.run();
        }
    }

    /// One small thing happens: of a worker, its turn's end, its effects, or some of its mail.
    pub fn step(&mut self, choice: u64) {
        let index = (choice >> 8) as usize % self.workers.len();
        match choice % 3 {
            0 if !self.held => self.workers[index].commit(self.now),
            1 => _ = self.drain(index),
            _ => {
                let to = (choice >> 24) as usize % self.workers.len();
                self.carry_to(index, to, choice >> 40 & 3);
            }
        }
    }

    fn drain(&mut self, index: usize) -> bool {
        let mut busy = false;
        while let Some(effect) = self.workers[index].poll_effect() {
            busy = true;
            match effect {
                Effect::Frame(link, frame) => self.client(link).push(Got::Frame(frame)),
                Effect::Whole(link, frame) => self.client(link).push(Got::Whole(frame)),
                Effect::Push { link, shard, at, order } => {
                    self.orders.entry(link).or_default().push(order);
                    let got = self.reader.with_record(shard, at, |record| {
                        let (body, content) =
                            PushBody::ref_from_prefix(record.body).expect("a message");
                        Got::Push {
                            channel: body.channel,
                            id: body.id.get(),
                            sender: body.sender.get(),
                            content: content.to_vec(),
                        }
                    });
                    self.client(link).push(got.expect("a pushed record can be read"));
                }
                Effect::Close { link, code, .. } => self.client(link).push(Got::Close(code)),
                Effect::Directory(query) => {
                    let answer = self.answer(query);
                    self.workers[index].handle(self.now, Input::Directory(answer));
                }
                Effect::Warm { record, waiter } => {
                    self.reader.warm(record.shard, record.at);
                    self.workers[index].handle(self.now, Input::Warmed(waiter));
                }
            }
        }
        busy
    }

    fn answer(&self, query: Query) -> Answer {
        match query {
            Query::Authenticate { session, device, secret } => {
                let known = self.users.contains(&device.uin.0) && secret == SECRET;
                let token = [session.link.0 as u8 ^ 0x5a; 32];
                Answer::Authenticated {
                    session,
                    result: if known { Ok(token) } else { Err(Code::BadCredentials) },
                }
            }
            Query::Identify { session, claimed, token } => {
                let known = self.users.contains(&claimed.uin.0) && *token == *TOKEN;
                let result = known.then_some((claimed, [0x5a; 32])).ok_or(Code::TokenInvalid);
                Answer::Identified { session, result }
            }
            Query::UserExists { shard, channel, uin } => {
                let exists = Some(self.users.contains(&uin.0));
                Answer::UserExists { shard, channel, uin, exists }
            }
        }
    }

    fn carry(&mut self, from: usize) -> bool {
        let workers = self.workers.len();
        (0..workers).fold(false, |busy, to| busy | self.carry_to(from, to, u64::MAX))
    }

    fn carry_to(&mut self, from: usize, to: usize, pieces_max: u64) -> bool {
        let mut carried = 0;
        while carried < pieces_max
            && let Some((address, mail)) = self.workers[from].poll_mail(WorkerId(to as u16))
        {
            carried += 1;
            if !(self.lose)(&mail) {
                self.workers[to].handle(self.now, Input::Mail(address, mail));
            }
        }
        carried > 0
    }

    fn client(&mut self, link: LinkId) -> &mut Vec<Got> {
        self.got.entry(link).or_default()
    }

    /// A connection on a worker.
    pub fn connect(&mut self, worker: usize) -> Client {
        let begun = self.now.mono;
        self.connect_late(worker, begun)
    }

    /// A connection on a worker, whose first packet came at this earlier moment.
    pub fn connect_late(&mut self, worker: usize, begun: Mono) -> Client {
        let link = LinkId(self.next_link);
        self.next_link += 1;
        self.input(worker, Input::LinkOpened(link, begun));
        Client { worker, link, counter: 0, epoch: 0, token: [0; 32] }
    }

    /// A device connects to any worker, by LOGIN or RESUME; of its connection before the server
    /// may not have heard yet that it is gone.
    pub fn connect_anew(
        &mut self,
        rng: &mut Rng,
        (uin, device): (u64, u32),
        old: Option<Client>,
    ) -> Client {
        let worker = rng.below(self.workers.len() as u64) as usize;
        if let Some(old) = &old
            && rng.below(2) == 0
            && old.worker < self.workers.len()
        {
            self.input(old.worker, Input::LinkClosed(old.link));
        }
        let mut client = self.connect(worker);
        client.hello(self);
        match old.filter(|old| old.epoch > 0 && rng.below(2) == 0) {
            Some(old) => client.resume(self, uin, device, &old),
            None => client.login(self, uin, device),
        }
        client
    }

    /// A device that is logged in and subscribed, with these cursors.
    pub fn login(&mut self, worker: usize, uin: u64, device: u32, cursors: &[Cursor]) -> Client {
        let mut client = self.connect(worker);
        client.hello(self);
        client.login(self, uin, device);
        client.say_cursors(self, cursors);
        client
    }

    /// Takes what a client got since the last time.
    pub fn take(&mut self, client: &Client) -> Vec<Got> {
        std::mem::take(self.client(client.link))
    }

    pub fn pushes(&mut self, client: &Client) -> Vec<(u64, Vec<u8>)> {
        self.take(client)
            .into_iter()
            .filter_map(|got| match got {
                Got::Push { id, content, .. } => Some((id, content)),
                _ => None,
            })
            .collect()
    }
}

/// Replays a shard's log as it was found; what nothing explains counts as accepted.
fn recover(
    reader: &MemoryReader,
    shard: ShardId,
    placement: Placement,
    incarnation: u32,
) -> Recovery<MemoryTable> {
    let mut recovery = Recovery::new(shard, placement, MemoryTable::default(), Offset::NONE);
    reader.replay_with_losses(shard, |at, end, found| match found {
        Ok(record) => recovery.replay(at, end, record).expect("the log makes sense"),
        Err(links) => recovery.lost(at, end, links),
    });
    for (channel, up_to) in reader.expired(shard) {
        recovery.expire(channel, up_to);
    }
    if incarnation > 1 {
        recovery.raise(Incarnation(incarnation));
    }
    recovery
}

/// A client that says frames.
#[derive(Clone, Debug)]
pub struct Client {
    pub worker: usize,
    pub link: LinkId,
    pub counter: u32,
    pub epoch: u32,
    pub token: [u8; 32],
}

impl Client {
    pub fn say<T: IntoBytes + Immutable>(
        &self,
        world: &mut World,
        kind: Kind,
        flags: Flags,
        head: &T,
        rest: &[u8],
    ) {
        let mut buffer = vec![0; 70_000];
        let bytes = tern_protocol::frame::encode(kind, flags, head, rest, &mut buffer);
        buffer.truncate(bytes);
        world.input(self.worker, Input::Frame(self.link, Bytes::from(buffer)));
    }

    pub fn hello(&self, world: &mut World) {
        self.hello_with(world, UNSAID, 0);
    }

    /// A HELLO that says a digest of cursors, and a heartbeat that worked.
    pub fn hello_with(&self, world: &mut World, digest: u64, heartbeat_ms: u32) {
        let hello = Hello {
            magic: MAGIC,
            version: VERSION.into(),
            network: 2,
            reserved: 0,
            capabilities: world.capabilities.into(),
            digest: digest.into(),
            heartbeat_ms: heartbeat_ms.into(),
            reserved_end: 0.into(),
        };
        self.say(world, Kind::Hello, Flags::NONE, &hello, b"");
    }

    pub fn login(&mut self, world: &mut World, uin: u64, device: u32) {
        let login =
            Login { uin: uin.into(), device: device.into(), reserved: 0.into(), secret: SECRET };
        self.say(world, Kind::Login, Flags::NONE, &login, b"");
        self.note_login(world);
    }

    pub fn resume(&mut self, world: &mut World, uin: u64, device: u32, of: &Client) {
        let resume = Resume {
            uin: uin.into(),
            device: device.into(),
            epoch: of.epoch.into(),
            token: of.token,
        };
        self.say(world, Kind::Resume, Flags::NONE, &resume, b"");
        self.note_login(world);
    }

    pub fn note_login(&mut self, world: &World) {
        for got in world.got.get(&self.link).into_iter().flatten() {
            if let Got::Frame(Outgoing::LoggedIn(LoggedIn { epoch, token, .. })) = got {
                (self.epoch, self.token) = (epoch.get(), *token);
            }
        }
    }

    pub fn say_cursors(&self, world: &mut World, cursors: &[Cursor]) {
        self.list(world, Kind::Cursors, Flags::LAST, cursors);
    }

    pub fn ack(&self, world: &mut World, channel: ChannelId, id: u64) {
        self.list(world, Kind::ReceiveAck, Flags::NONE, &[cursor(channel, id, 1)]);
    }

    fn list(&self, world: &mut World, kind: Kind, flags: Flags, cursors: &[Cursor]) {
        let bytes = cursors.as_bytes();
        let header = tern_protocol::frame::header(kind, flags, bytes.len());
        let frame = [header.as_bytes(), bytes].concat();
        world.input(self.worker, Input::Frame(self.link, Bytes::from(frame)));
    }

    pub fn fetch(&self, world: &mut World, channel: ChannelId, from: u64, to: u64) {
        let fetch = Fetch { channel, from: from.into(), to: to.into() };
        self.say(world, Kind::Fetch, Flags::NONE, &fetch, b"");
    }

    /// The next message under the next key, after the one before.
    pub fn send(&mut self, world: &mut World, channel: ChannelId, content: &[u8]) -> u32 {
        self.counter += 1;
        self.send_as(world, channel, self.epoch, self.counter, 0, content);
        self.counter
    }

    pub fn send_as(
        &self,
        world: &mut World,
        channel: ChannelId,
        epoch: u32,
        counter: u32,
        predecessor: u32,
        content: &[u8],
    ) {
        let head = Send {
            channel,
            epoch: epoch.into(),
            counter: counter.into(),
            predecessor: predecessor.into(),
            content_type: 1.into(),
            kind: message_kind::CONTENT,
            version: 1,
            refers_to: 0.into(),
        };
        self.say(world, Kind::Send, Flags::NONE, &head, content);
    }
}

pub fn direct(a: u64, b: u64) -> ChannelId {
    ChannelId::direct(Uin(a), Uin(b))
}

pub fn cursor(channel: ChannelId, id: u64, incarnation: u32) -> Cursor {
    Cursor {
        channel,
        id: MessageId(id).into(),
        incarnation: Incarnation(incarnation).into(),
        reserved: 0.into(),
    }
}

/// Of these cursors, as on the wire.
pub fn digest(list: &[Cursor]) -> u64 {
    let mut digest = CursorDigest::default();
    for cursor in list {
        digest.add(cursor.channel, cursor.id.into(), cursor.incarnation.into());
    }
    digest.to_wire()
}

/// The acks among what a client got: counter and id.
pub fn acks(got: &[Got]) -> Vec<(u32, u64)> {
    got.iter()
        .filter_map(|got| match got {
            Got::Frame(Outgoing::SendAck(SendAck { counter, id, .. })) => {
                Some((counter.get(), id.get()))
            }
            _ => None,
        })
        .collect()
}

/// The refusals among what a client got: counter and code.
pub fn refusals(got: &[Got]) -> Vec<(u32, Code)> {
    got.iter()
        .filter_map(|got| match got {
            Got::Frame(Outgoing::SendRefused(SendRefused { counter, code, .. })) => {
                Some((counter.get(), Code(code.get())))
            }
            _ => None,
        })
        .collect()
}

/// The errors among what a client got.
pub fn errors(got: &[Got]) -> Vec<Code> {
    got.iter()
        .filter_map(|got| match got {
            Got::Frame(Outgoing::Error { code, .. }) => Some(*code),
            _ => None,
        })
        .collect()
}

pub fn closes(got: &[Got]) -> Vec<Code> {
    got.iter()
        .filter_map(|got| match got {
            Got::Close(code) => Some(*code),
            _ => None,
        })
        .collect()
}

/// A small source of chance, the same for the same seed.
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        // xorshift64* (Vigna 2016)
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        (self.next() >> 16) % bound
    }
}

/// Tries `count` seeds, times `TERN_SOAK`, or `TERN_SEED` alone, and adds up what `body` counts.
/// A failure names its seed.
pub fn for_seeds<const N: usize>(
    test: &str,
    count: u64,
    body: impl Fn(u64) -> [usize; N] + std::panic::RefUnwindSafe,
) -> [usize; N] {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    if let Some(seed) = number("TERN_SEED") {
        return body(seed);
    }
    let mut totals = [0; N];
    for seed in 1..=count * number("TERN_SOAK").unwrap_or(1).max(1) {
        let counted = std::panic::catch_unwind(|| body(seed)).unwrap_or_else(|_| {
            panic!("replay with TERN_SEED={seed} cargo test -p tern-core --test {test}")
        });
        totals.iter_mut().zip(counted).for_each(|(total, counted)| *total += counted);
    }
    totals
}
