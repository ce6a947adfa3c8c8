//! A server without sockets or disk: a worker for each shard, and one more with all the sessions,
//! so that what the channel's shard, the home shards and the sessions cost is told apart.

use std::time::{Duration, Instant};

use bytes::Bytes;
use tern_core::config::Config;
use tern_core::io::{Answer, Effect, Input, LinkId, Query};
use tern_core::log::Offset;
use tern_core::memory::{MemoryLog, MemoryReader, MemoryTable};
use tern_core::placement::{Placement, ShardId, WorkerId};
use tern_core::time::{Mono, Now};
use tern_core::{Recovery, Worker};
use tern_protocol::frame::{encode, frame_bytes};
use tern_protocol::frames::{Change, Hello, Login, Send, action, message_kind, settings};
use tern_protocol::group::{CHANGE_BYTES_MAX, ChangeView, channel_of};
use tern_protocol::limits::{CHANGE_MEMBERS_MAX, MAGIC, VERSION};
use tern_protocol::{
    ChannelId, Code, DeviceId, Epoch, Flags, Kind, SendCounter, SendKey, Uin, UnixMillis,
};
use zerocopy::little_endian::U64;
use zerocopy::{Immutable, IntoBytes};

/// Shards, as a new data folder has them; the worker with the sessions is the one behind theirs.
pub const SHARDS: u16 = 4;

/// The first user.
const OWNER: u64 = 1;

/// What a message took.
#[derive(Clone, Copy, Default)]
pub struct Cost {
    pub chat: Duration,
    pub homes: Duration,
    pub sessions: Duration,
    pub pushes: u64,
}

pub struct House {
    now: Now,
    placement: Placement,
    workers: Vec<Worker<MemoryLog, MemoryTable, MemoryReader>>,
    spent: Vec<Duration>,
    pushes: u64,
    counter: u32,
    pub channel: ChannelId,
}

impl House {
    /// A group of users from 1 on, of which the first `online` have a session.
    pub fn new(members: u64, online: u64) -> Self {
        let config = Config {
            sends_per_second: 1_000_000,
            sends_burst: 1_000_000,
            channels_per_hour: 1_000_000,
            window_messages: u32::MAX,
            window_bytes: u32::MAX,
            ..Config::default()
        };
        let (reader, placement) = (MemoryReader::default(), Placement::new(SHARDS, SHARDS + 1));
        let workers: Vec<_> = (0..=SHARDS)
            .map(|worker| {
                let id = WorkerId(worker);
                let shards =
                    placement.shards_of(id).map(|shard| shard_of(&reader, shard, placement));
                Worker::new(id, placement, config.clone(), reader.clone(), shards.collect())
            })
            .collect();
        let key = SendKey { epoch: Epoch(1), counter: SendCounter(1) };
        let mut house = Self {
            now: Now { mono: Mono(1_000_000), wall: UnixMillis(1_700_000_000_000) },
            placement,
            spent: vec![Duration::ZERO; workers.len()],
            workers,
            pushes: 0,
            counter: 0,
            channel: channel_of(Uin(OWNER), DeviceId(1), key),
        };
        house.run();
        house.log_in(OWNER);
        house.fill(members);
        for uin in OWNER + 1..=online {
            house.log_in(uin);
        }
        house.run();
        house
    }

    /// Sends messages one after the other, each to its end; what each of them took.
    pub fn measure(&mut self, messages: u32) -> Vec<Cost> {
        (0..messages).map(|_| self.measure_one()).collect()
    }

    fn measure_one(&mut self) -> Cost {
        self.spent.fill(Duration::ZERO);
        self.pushes = 0;
        let content = b"a message of the usual length, more or less; hello";
        self.say(0, message_kind::CONTENT, content);
        self.run();
        let chat = usize::from(self.placement.shard_of_channel(self.channel).0);
        let sessions = usize::from(SHARDS);
        let homes = (0..sessions).filter(|worker| *worker != chat);
        Cost {
            chat: self.spent[chat],
            homes: homes.map(|worker| self.spent[worker]).sum(),
            sessions: self.spent[sessions],
            pushes: self.pushes,
        }
    }

    fn fill(&mut self, members: u64) {
        let others: Vec<u64> = (OWNER + 1..=members).collect();
        let mut rest = others.chunks(CHANGE_MEMBERS_MAX);
        self.change(
            action::CREATE,
            settings::HISTORY_ALL,
            rest.next().unwrap_or_default(),
            b"bench",
        );
        for some in rest {
            self.change(action::ADD, 0, some, b"");
        }
    }

    fn change(&mut self, action: u8, settings: u8, members: &[u64], name: &[u8]) {
        let members: Vec<U64> = members.iter().map(|uin| U64::new(*uin)).collect();
        let head = Change {
            action,
            role: 0,
            settings,
            reserved: 0,
            members: (members.len() as u16).into(),
            name_bytes: (name.len() as u16).into(),
            until: 0.into(),
        };
        let mut content = [0; CHANGE_BYTES_MAX];
        let view = ChangeView { head: &head, members: &members, name };
        let bytes = view.encode(&mut content);
        self.say(0, message_kind::CHANGE, &content[..bytes]);
        self.run();
    }

    fn say(&mut self, predecessor: u32, kind: u8, content: &[u8]) {
        self.counter += 1;
        let head = Send {
            channel: self.channel,
            epoch: 1.into(),
            counter: self.counter.into(),
            predecessor: predecessor.into(),
            content_type: 0.into(),
            kind,
            version: 1,
            refers_to: 0.into(),
        };
        self.frame(OWNER, Kind::Send, Flags::NONE, &head, content);
    }

    fn log_in(&mut self, uin: u64) {
        let link = LinkId(uin);
        self.input(usize::from(SHARDS), Input::LinkOpened(link, self.now.mono));
        let hello = Hello {
            magic: MAGIC,
            version: VERSION.into(),
            network: 1,
            reserved: 0,
            digest: 0.into(),
            heartbeat_ms: 0.into(),
            reserved_end: 0.into(),
            capabilities: 0.into(),
        };
        self.frame(uin, Kind::Hello, Flags::NONE, &hello, b"");
        let (device, reserved) = (1.into(), 0.into());
        let login = Login { uin: uin.into(), device, reserved, secret: [1; 32] };
        self.frame(uin, Kind::Login, Flags::NONE, &login, b"");
        self.run();
        self.frame(uin, Kind::Cursors, Flags::LAST, &[0_u8; 0], b"");
        if uin.is_multiple_of(512) {
            self.run();
        }
    }

    fn frame<T: IntoBytes + Immutable>(
        &mut self,
        uin: u64,
        kind: Kind,
        flags: Flags,
        head: &T,
        rest: &[u8],
    ) {
        let mut frame = vec![0; frame_bytes::<T>(rest.len())];
        encode(kind, flags, head, rest, &mut frame);
        self.input(usize::from(SHARDS), Input::Frame(LinkId(uin), Bytes::from(frame)));
    }

    fn input(&mut self, worker: usize, input: Input) {
        let start = Instant::now();
        self.workers[worker].handle(self.now, input);
        self.spent[worker] += start.elapsed();
    }

    /// Lets everything happen that can.
    fn run(&mut self) {
        let mut quiet = 0;
        while quiet < 4 {
            let mut busy = false;
            for index in 0..self.workers.len() {
                let start = Instant::now();
                self.workers[index].commit(self.now);
                self.spent[index] += start.elapsed();
                busy |= self.drain(index) | self.carry(index);
            }
            quiet = if busy { 0 } else { quiet + 1 };
        }
    }

    fn drain(&mut self, index: usize) -> bool {
        let mut busy = false;
        while let Some(effect) = self.workers[index].poll_effect() {
            busy = true;
            match effect {
                Effect::Push { .. } => self.pushes += 1,
                Effect::Directory(query) => self.input(index, Input::Directory(answer(query))),
                Effect::Close { code, .. } => panic!("an honest session was closed: {code}"),
                Effect::Frame(..) | Effect::Whole(..) | Effect::Warm { .. } => {}
            }
        }
        busy
    }

    fn carry(&mut self, from: usize) -> bool {
        let mut busy = false;
        for to in 0..self.workers.len() {
            while let Some((address, mail)) = self.workers[from].poll_mail(WorkerId(to as u16)) {
                busy = true;
                self.input(to, Input::Mail(address, mail));
            }
        }
        busy
    }
}

fn shard_of(
    reader: &MemoryReader,
    shard: ShardId,
    placement: Placement,
) -> tern_core::Shard<MemoryLog, MemoryTable> {
    let recovery = Recovery::new(shard, placement, MemoryTable::default(), Offset::NONE);
    recovery.finish(reader.log(shard, true))
}

fn answer(query: Query) -> Answer {
    match query {
        Query::Authenticate { session, .. } => {
            Answer::Authenticated { session, result: Ok([7; 32]) }
        }
        Query::Identify { session, .. } => {
            Answer::Identified { session, result: Err(Code::TokensNotTaken) }
        }
        Query::UserExists { shard, channel, uin } => {
            Answer::UserExists { shard, channel, uin, exists: Some(true) }
        }
    }
}
