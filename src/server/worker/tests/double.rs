//! A machine, a log, a directory and a warmer that do what the tests say.
//!
//! HELLO is answered with the worker's number, PING with PONG; the content of a SEND is a word
//! and maybe a number, see [`Double::obey`].

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, OnceLock};

use tern_core::counters::Counters;
use tern_core::io::{
    Answer, ColdRecord, ComeBack, Effect, Input, LinkId, Order, Outgoing, Query, Waiter,
};
use tern_core::log::{Links, Offset, ReadError, Reader, Record, RecordKind};
use tern_core::mail::{Address, Device, Mail, SessionRef};
use tern_core::moments::Moment;
use tern_core::placement::{ShardId, WorkerId};
use tern_core::sight::{DeviceSight, SessionSight};
use tern_core::time::{Mono, Now};
use tern_protocol::frames::{LoggedIn, Network, Pong, SendRefused, Welcome};
use tern_protocol::limits::SECRET_BYTES;
use tern_protocol::{ChannelId, Code, Flags, Frame, Kind, SendKey, Uin};

use super::super::{Directory, Doors, Machine, Warmer};

/// What every record begins with.
static BODY: [u8; 61_000] = [BODY_BYTE; 61_000];

/// What every record consists of.
pub(super) const BODY_BYTE: u8 = 0x5a;

/// A record that can't be read at once.
pub(super) const COLD: Offset = Offset(7);

/// What the machine was told of links, in order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Told {
    Opened(LinkId),
    Closed(LinkId),
    Drain,
    Tick,
}

/// What all machines of a server were told.
pub(super) type Diary = Arc<Mutex<Vec<Told>>>;

pub(super) struct Double {
    id: WorkerId,
    workers: u16,
    links: BTreeSet<LinkId>,
    effects: VecDeque<Effect>,
    mail: Vec<VecDeque<Letter>>,
    /// Who waits for a proof, for an answer.
    proofs: Vec<LinkId>,
    answers: VecDeque<LinkId>,
    tick: Option<(Mono, LinkId)>,
    counters: Counters,
    diary: Diary,
}

type Letter = (Address, Mail);

impl Double {
    pub(super) fn new(id: WorkerId, workers: u16, diary: Diary) -> Self {
        Self {
            id,
            workers,
            links: BTreeSet::new(),
            effects: VecDeque::new(),
            mail: (0..workers).map(|_| VecDeque::new()).collect(),
            proofs: Vec::new(),
            answers: VecDeque::new(),
            tick: None,
            counters: Counters::default(),
            diary,
        }
    }

    fn note(&self, told: Told) {
        self.diary.lock().expect("no panic").push(told);
    }

    fn pong(&mut self, link: LinkId, sequence: u32) {
        let pong = Pong {
            sequence: sequence.into(),
            heartbeat_ms: 0.into(),
            server_time: 0.into(),
            moved: 0,
            reserved: [0; 7],
        };
        self.effects.push_back(Effect::Frame(link, Outgoing::Pong(pong)));
    }

    fn close(&mut self, link: LinkId, code: Code) {
        self.links.remove(&link);
        self.effects.push_back(Effect::Close {
            link,
            code,
            come_back: ComeBack { ms: 1_234, slot_tenths: 56 },
        });
    }

    fn frame(&mut self, now: Now, link: LinkId, bytes: &[u8]) {
        assert!(self.links.contains(&link), "a frame of a link that is not open");
        self.counters.frames_in += 1;
        match Frame::parse(bytes) {
            Ok((Frame::Hello(_), _)) => {
                let welcome = Welcome {
                    version: 1.into(),
                    unacked_sends_max: 0.into(),
                    content_bytes_max: 0.into(),
                    capabilities: u64::from(self.id.0).into(),
                    server_time: 0.into(),
                    reserved: 0.into(),
                };
                self.effects.push_back(Effect::Frame(link, Outgoing::Welcome(welcome)));
            }
            Ok((Frame::Ping(ping), _)) => self.pong(link, ping.sequence.get()),
            Ok((Frame::Send(_, content), _)) => {
                let text = std::str::from_utf8(content).expect("a command");
                let (word, number) = text.split_once(' ').unwrap_or((text, "0"));
                self.obey(now, link, word, number.parse().expect("a number"));
            }
            other => {
                let code = if other.is_ok() { Code::UnknownKind } else { Code::Malformed };
                let error =
                    Outgoing::Error { code, kind: Kind(0), flags: Flags::NONE, retry_after_ms: 0 };
                self.effects.push_back(Effect::Frame(link, error));
            }
        }
    }

    fn obey(&mut self, now: Now, link: LinkId, word: &str, number: u64) {
        let (shard, from) = (ShardId(self.id.0), SessionRef { worker: self.id, link });
        match word {
            "close" => self.close(link, Code::Draining),
            "enter" => {
                let answer = LoggedIn {
                    epoch: 0.into(),
                    heartbeat_ms: 0.into(),
                    resume_ms: 0.into(),
                    resumed: 0,
                    known: 0,
                    reserved: [0; 2],
                    token: [0; SECRET_BYTES],
                };
                self.effects.push_back(Effect::Frame(link, Outgoing::LoggedIn(answer)));
            }
            "push" => {
                let at = Offset(number);
                self.effects.push_back(Effect::Push { link, shard, at, order: Order::Kept });
            }
            "flood" => {
                let order = Order::Kept;
                let push = || Effect::Push { link, shard, at: Offset(1_000), order };
                self.effects.extend((0..number).map(|_| push()));
            }
            "hop" => {
                let to = WorkerId((self.id.0 + 1) % self.workers);
                let mail = (0..number).map(|count| (Address::Front(to), refusal(from, count)));
                self.mail[usize::from(to.0)].extend(mail);
            }
            "prove" => self.proofs.push(link),
            "ask" => {
                let channel = ChannelId::group(1);
                let queries = (0..number)
                    .map(|uin| Query::UserExists { shard, channel, uin: Uin(uin) })
                    .map(Effect::Directory);
                self.answers.extend((0..number).map(|_| link));
                self.effects.extend(queries);
            }
            "warm" => {
                let waiter = Waiter::Link(link);
                let record = ColdRecord { shard, at: COLD, channel: None };
                let warm = || Effect::Warm { record, waiter };
                self.effects.extend((0..number).map(|_| warm()));
            }
            "tick" => self.tick = Some((now.mono.after_ms(number), link)),
            other => panic!("no command {other}"),
        }
    }

    fn take_mail(&mut self, mail: Mail) {
        let Mail::SendRefused { to, channel, key, code, member, retry_after_ms } = mail else {
            panic!("only refusals are sent");
        };
        if to.worker == self.id {
            let frame = SendRefused {
                channel,
                epoch: key.epoch.into(),
                counter: key.counter.into(),
                code: code.0.into(),
                member: member.into(),
                retry_after_ms: retry_after_ms.into(),
            };
            self.effects.push_back(Effect::Frame(to.link, Outgoing::SendRefused(frame)));
        } else {
            let back = Mail::SendRefused { to, channel, key, code, member, retry_after_ms };
            self.mail[usize::from(to.worker.0)].push_back((Address::Front(to.worker), back));
        }
    }

    fn close_all(&mut self, code: Code) {
        std::mem::take(&mut self.links).into_iter().for_each(|link| self.close(link, code));
    }
}

/// A letter that carries a count.
fn refusal(to: SessionRef, count: u64) -> Mail {
    Mail::SendRefused {
        to,
        channel: ChannelId::group(1),
        key: SendKey::default(),
        code: Code::Busy,
        member: 0,
        retry_after_ms: count as u32,
    }
}

impl Machine for Double {
    fn handle(&mut self, now: Now, input: Input) {
        match input {
            Input::LinkOpened(link, _) => {
                assert!(self.links.insert(link), "{link:?} was opened twice");
                self.note(Told::Opened(link));
            }
            Input::LinkClosed(link) => {
                assert!(self.links.remove(&link), "{link:?} was not open");
                self.note(Told::Closed(link));
            }
            Input::Moved(link) => assert!(self.links.contains(&link), "{link:?} is not open"),
            Input::Frame(link, bytes) => self.frame(now, link, &bytes),
            Input::Mail(address, mail) => {
                assert_eq!(address, Address::Front(self.id));
                self.take_mail(mail);
            }
            Input::Durable(shard) => {
                let waiting = std::mem::take(&mut self.proofs);
                waiting.into_iter().for_each(|link| self.pong(link, shard.0.into()));
            }
            Input::Directory(Answer::UserExists { uin, .. }) => {
                let link = self.answers.pop_front().expect("somebody asked");
                self.pong(link, uin.0 as u32);
            }
            Input::Directory(other) => panic!("not asked: {other:?}"),
            Input::Warmed(Waiter::Link(link)) => self.pong(link, 0),
            Input::Warmed(other) => panic!("not asked: {other:?}"),
            Input::Kick { code, .. } => self.close_all(code),
            Input::Drain => {
                self.note(Told::Drain);
                self.close_all(Code::Draining);
            }
            Input::Tick => {
                self.note(Told::Tick);
                let (at, link) = self.tick.take().expect("a deadline was set");
                assert!(at <= now.mono, "too early");
                self.pong(link, 0);
            }
        }
    }

    fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    fn poll_mail(&mut self, to: WorkerId) -> Option<Letter> {
        self.mail[usize::from(to.0)].pop_front()
    }

    fn commit(&mut self, _: Now) {}

    fn poll_timeout(&self) -> Option<(Mono, &'static str)> {
        self.tick.map(|(at, _)| (at, "a client asked"))
    }

    fn counters(&self) -> &Counters {
        &self.counters
    }

    fn sessions(&self) -> (usize, usize) {
        (self.links.len(), self.links.len())
    }

    fn networks(&self) -> [usize; Network::COUNT] {
        [self.links.len(), 0, 0, 0]
    }

    fn see_user(&self, _: Now, _: Uin) -> Vec<DeviceSight> {
        Vec::new()
    }

    fn want_moments(&mut self) {}

    fn drain_moments(&mut self) -> impl Iterator<Item = Moment> {
        std::iter::empty()
    }

    fn device_of(&self, _: LinkId) -> Option<Device> {
        None
    }

    fn see_session(&self, now: Now, link: LinkId) -> Option<SessionSight> {
        let is_open = self.links.contains(&link);
        is_open.then_some(SessionSight { online_ms: now.mono.0, silent_ms: 0, beat_ms: 0 })
    }
}

/// Records as long as their offset; nothing at [`COLD`].
#[derive(Clone)]
pub(super) struct Bodies;

impl Reader for Bodies {
    fn with_record<T>(
        &mut self,
        _: ShardId,
        at: Offset,
        read: impl FnOnce(Record<'_>) -> T,
    ) -> Result<T, ReadError> {
        if at == COLD {
            return Err(ReadError::Cold);
        }
        let body = &BODY[..at.0 as usize];
        Ok(read(Record { kind: RecordKind::Message, links: Links::default(), body }))
    }
}

/// Answers from a thread of its own.
#[derive(Default)]
pub(super) struct Elsewhere {
    doors: OnceLock<Arc<Doors>>,
}

impl Elsewhere {
    pub(super) fn find(&self, doors: &Arc<Doors>) {
        assert!(self.doors.set(Arc::clone(doors)).is_ok());
    }

    fn later(&self, say: impl FnOnce(&Doors) + Send + 'static) {
        let doors = Arc::clone(self.doors.get().expect("set before the workers start"));
        std::thread::spawn(move || say(&doors));
    }
}

impl Directory for Elsewhere {
    fn ask(&self, worker: WorkerId, query: Query) {
        let Query::UserExists { shard, channel, uin } = query else { panic!("not asked") };
        let answer = Answer::UserExists { shard, channel, uin, exists: Some(true) };
        self.later(move |doors| doors.answer(worker, answer));
    }
}

impl Warmer for Elsewhere {
    fn warm(&self, worker: WorkerId, record: ColdRecord, waiter: Waiter) {
        assert_eq!(record.at, COLD);
        self.later(move |doors| doors.warmed(worker, waiter));
    }
}
