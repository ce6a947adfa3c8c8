//! A machine on a bench: time by hand, a store in memory, frames in and out by name.

use bytes::Bytes;
use proptest::test_runner::Config as ProptestConfig;
use tern_protocol::frame::{encode, frame_bytes};
use tern_protocol::frames::{
    ChannelState, Close, ErrorHead, Gap, Identity as IdentityFrame, LoggedIn, Network, Pong,
    PushBody, SendAck, SendRefused, Welcome, capabilities,
};
use tern_protocol::limits::{UNACKED_SENDS_MAX, VERSION};
use tern_protocol::{
    ChannelId, Code, DeviceId, Epoch, Flags, Frame, Incarnation, Kind, MessageId, SendCounter,
    SendKey, Uin,
};
use zerocopy::{Immutable, IntoBytes};

use crate::machine::{
    Effect, Event, Identity, Input, Machine, Message, Mono, Position, Proof, SendOutcome,
    SendResult, State, Ticket, Tuning,
};
use crate::store::{MemoryStore, Store};

pub(super) const HEARTBEAT_MS: u32 = 25_000;

/// So many random cases, times `TERN_SOAK`. A case that fails becomes a test of its own rather
/// than a file.
pub(super) fn cases(cases: u32) -> ProptestConfig {
    let soak = std::env::var("TERN_SOAK").ok().and_then(|soak| soak.parse().ok()).unwrap_or(1);
    ProptestConfig { cases: cases * soak, failure_persistence: None, ..ProptestConfig::default() }
}

/// The device's user, and the peer it writes to most.
pub(super) const ME: Uin = Uin(1);

pub(super) fn channel(peer: u64) -> ChannelId {
    ChannelId::direct(ME, Uin(peer))
}

pub(super) fn key(epoch: u32, counter: u32) -> SendKey {
    SendKey { epoch: Epoch(epoch), counter: SendCounter(counter) }
}

pub(super) struct Rig {
    pub(super) machine: Machine,
    pub(super) now: Mono,
    pub(super) store: MemoryStore,
    /// Whether batches are on the disk at once; otherwise they wait in `unstored`.
    pub(super) stores: bool,
    pub(super) unstored: Vec<Ticket>,
    pub(super) frames: Vec<Bytes>,
    /// Frames that left by datagram.
    pub(super) free: Vec<Bytes>,
    pub(super) events: Vec<Event>,
    pub(super) connects: usize,
    /// Whether a connection is wished for and not there yet.
    pub(super) opening: bool,
    pub(super) disconnects: Vec<Code>,
}

impl Rig {
    pub(super) fn new() -> Self {
        Self::on(MemoryStore::default(), Tuning::default(), 1)
    }

    /// A client that proves itself in its own way.
    pub(super) fn of(identity: Identity) -> Self {
        Self::build(identity, MemoryStore::default(), Tuning::default(), 1)
    }

    /// A process that starts on this store.
    pub(super) fn on(store: MemoryStore, tuning: Tuning, seed: u64) -> Self {
        let identity = Identity { uin: ME, device: DeviceId(1), proof: Proof::Secret([7; 32]) };
        Self::build(identity, store, tuning, seed)
    }

    fn build(identity: Identity, mut store: MemoryStore, tuning: Tuning, seed: u64) -> Self {
        let now = Mono(1_000);
        let saved = store.load().unwrap();
        let mut rig = Self {
            machine: Machine::new(now, identity, Network::Wifi, tuning, seed, saved),
            now,
            store,
            stores: true,
            unstored: Vec::new(),
            frames: Vec::new(),
            free: Vec::new(),
            events: Vec::new(),
            connects: 0,
            opening: false,
            disconnects: Vec::new(),
        };
        rig.drain();
        rig
    }

    /// The process dies; another one starts on what is stored.
    pub(super) fn restart(self) -> Self {
        Self::on(self.store, Tuning::default(), 2)
    }

    /// A machine that is logged in under this epoch, with nothing left to look at.
    pub(super) fn online(epoch: u32) -> Self {
        let mut rig = Self::new();
        rig.log_in(epoch);
        rig.frames.clear();
        rig.events.clear();
        rig
    }

    pub(super) fn say(&mut self, input: Input) {
        if matches!(input, Input::Connected | Input::Disconnected { .. }) {
            self.opening = false;
        }
        self.machine.handle(self.now, input);
        self.drain();
    }

    fn drain(&mut self) {
        while let Some(effect) = self.machine.poll_effect() {
            match effect {
                Effect::Transmit(frame) => self.frames.push(frame),
                Effect::TransmitFree(frame) => self.free.push(frame),
                Effect::Persist { changes, ticket } => {
                    self.store.apply(&changes).unwrap();
                    self.unstored.push(ticket);
                }
                Effect::Connect => {
                    self.connects += 1;
                    self.opening = true;
                }
                Effect::Disconnect { code } => {
                    self.disconnects.push(code);
                    self.opening = false;
                }
                Effect::Tell(event) => self.events.push(event),
            }
        }
        if self.stores && !self.unstored.is_empty() {
            self.store_all();
        }
    }

    /// The batches that wait are on the disk now.
    pub(super) fn store_all(&mut self) {
        if let Some(newest) = std::mem::take(&mut self.unstored).pop() {
            self.say(Input::Stored(newest));
        }
    }

    /// Lets time pass, ticking at each deadline on the way.
    pub(super) fn wait_ms(&mut self, ms: u64) {
        let end = self.now.after_ms(ms);
        while let Some((when, _)) = self.machine.poll_timeout(self.now)
            && when <= end
        {
            self.now = self.now.max(when);
            self.say(Input::Tick);
        }
        self.now = end;
    }

    /// Jumps to the next deadline, and says what it was for.
    pub(super) fn tick(&mut self) -> &'static str {
        let (when, why) = self.machine.poll_timeout(self.now).expect("a deadline");
        self.now = self.now.max(when);
        self.say(Input::Tick);
        why
    }

    pub(super) fn log_in(&mut self, epoch: u32) {
        self.say(Input::Connected);
        self.say(Input::Frame(welcome()));
        self.say(Input::Frame(logged_in(epoch, false)));
    }

    pub(super) fn resume(&mut self, epoch: u32) {
        self.say(Input::Connected);
        self.say(Input::Frame(welcome()));
        self.say(Input::Frame(logged_in(epoch, true)));
    }

    /// Lets time pass until a connection is wished for.
    pub(super) fn until_opening(&mut self) {
        while !self.opening {
            self.tick();
        }
    }

    /// The connection is lost, and the next attempt is due.
    pub(super) fn lose(&mut self) {
        self.say(Input::Disconnected { code: None });
        assert_eq!(self.tick(), "reconnect");
    }

    pub(super) fn send(&mut self, peer: u64, content: &'static str) {
        self.say(Input::Send {
            channel: channel(peer),
            content_type: 1,
            content: Bytes::from_static(content.as_bytes()),
            tag: content.len() as u64,
        });
    }

    /// The kinds of all frames since the last look.
    pub(super) fn kinds(&mut self) -> Vec<Kind> {
        let frames = std::mem::take(&mut self.frames);
        frames.iter().map(|frame| Frame::parse(frame).unwrap().0.kind()).collect()
    }

    /// All sends since the last look, as `epoch.counter<predecessor:content`.
    pub(super) fn sends(&mut self) -> Vec<String> {
        let frames = std::mem::take(&mut self.frames);
        let sends = frames.iter().filter_map(|frame| match Frame::parse(frame).unwrap().0 {
            Frame::Send(head, content) => Some(format!(
                "{}<{}:{}",
                head.key(),
                head.predecessor.get(),
                std::str::from_utf8(content).unwrap()
            )),
            _ => None,
        });
        sends.collect()
    }

    /// All acks to the server since the last look: peer and id.
    pub(super) fn acked(&mut self) -> Vec<(u64, u64)> {
        let mut acked = Vec::new();
        for frame in std::mem::take(&mut self.frames) {
            if let Frame::ReceiveAck(list) = Frame::parse(&frame).unwrap().0 {
                acked.extend(list.iter().map(|c| (c.channel.peer_of(ME).unwrap().0, c.id.get())));
            }
        }
        acked
    }

    /// All results since the last look; each is settled.
    pub(super) fn results(&mut self) -> Vec<(Option<SendKey>, SendOutcome)> {
        let results = self.take_results();
        for result in &results {
            self.say(Input::Settled(result.send));
        }
        results.iter().map(|result| (result.key, result.outcome)).collect()
    }

    /// All results since the last look; none is settled.
    pub(super) fn take_results(&mut self) -> Vec<SendResult> {
        let events = std::mem::take(&mut self.events);
        let (results, rest): (Vec<_>, Vec<_>) =
            events.into_iter().partition(|event| matches!(event, Event::Result(_)));
        self.events = rest;
        results
            .into_iter()
            .filter_map(|event| if let Event::Result(result) = event { Some(result) } else { None })
            .collect()
    }

    /// All messages since the last look.
    pub(super) fn messages(&mut self) -> Vec<Message> {
        let events = std::mem::take(&mut self.events);
        events
            .into_iter()
            .filter_map(|event| if let Event::Message(m) = event { Some(m) } else { None })
            .collect()
    }

    /// The ids of all messages since the last look.
    pub(super) fn ids(&mut self) -> Vec<u64> {
        self.messages().iter().map(|message| message.position.id.0).collect()
    }

    pub(super) fn states(&mut self) -> Vec<State> {
        let events = std::mem::take(&mut self.events);
        events
            .into_iter()
            .filter_map(|event| if let Event::State(s) = event { Some(s) } else { None })
            .collect()
    }

    pub(super) fn consume(&mut self, peer: u64, id: u64, incarnation: u32) {
        self.say(Input::Delivered(Position {
            channel: channel(peer),
            id: MessageId(id),
            incarnation: Incarnation(incarnation),
        }));
    }

    pub(super) fn ack(&mut self, key: SendKey, peer: u64, id: u64) {
        self.say(Input::Frame(send_ack(key, channel(peer), id)));
    }

    pub(super) fn refuse(&mut self, key: SendKey, peer: u64, code: Code, retry_after_ms: u32) {
        self.say(Input::Frame(send_refused(key, channel(peer), code, retry_after_ms)));
    }

    pub(super) fn push(&mut self, peer: u64, id: u64) {
        self.say(Input::Frame(push(channel(peer), id, "hi")));
    }

    pub(super) fn gap(&mut self, peer: u64, from: u64, to: u64) {
        let code = Code::Expired.0.into();
        let gap = Gap {
            channel: channel(peer),
            from: from.into(),
            to: to.into(),
            code,
            reserved: [0; 6],
        };
        self.say(Input::Frame(frame(Kind::Gap, &gap, &[])));
    }

    pub(super) fn history(&mut self, peer: u64, incarnation: u32, newest: u64, restarted_at: u64) {
        let state = ChannelState {
            channel: channel(peer),
            incarnation: incarnation.into(),
            reserved: 0.into(),
            oldest: 1.into(),
            newest: newest.into(),
            restarted_at: restarted_at.into(),
        };
        self.say(Input::Frame(frame(Kind::Channel, &state, &[])));
    }
}

pub(super) fn frame<T: IntoBytes + Immutable>(kind: Kind, head: &T, variable: &[u8]) -> Bytes {
    let mut buffer = vec![0; frame_bytes::<T>(variable.len())];
    encode(kind, Flags::NONE, head, variable, &mut buffer);
    buffer.into()
}

pub(super) fn welcome() -> Bytes {
    welcome_of(capabilities::NONE)
}

/// WELCOME of a server that can do this.
pub(super) fn welcome_of(capabilities: u64) -> Bytes {
    let welcome = Welcome {
        version: VERSION.into(),
        unacked_sends_max: (UNACKED_SENDS_MAX as u16).into(),
        content_bytes_max: 1_440.into(),
        capabilities: capabilities.into(),
        server_time: 0.into(),
        reserved: 0.into(),
    };
    frame(Kind::Welcome, &welcome, &[])
}

pub(super) fn identity(uin: u64, device: u32) -> Bytes {
    let told = IdentityFrame { uin: uin.into(), device: device.into(), reserved: 0.into() };
    frame(Kind::Identity, &told, &[])
}

pub(super) fn logged_in(epoch: u32, resumed: bool) -> Bytes {
    let logged_in = LoggedIn {
        epoch: epoch.into(),
        heartbeat_ms: HEARTBEAT_MS.into(),
        resume_ms: 600_000.into(),
        resumed: resumed.into(),
        known: 0,
        reserved: [0; 2],
        token: [9; 32],
    };
    frame(Kind::LoggedIn, &logged_in, &[])
}

pub(super) fn send_ack(key: SendKey, channel: ChannelId, id: u64) -> Bytes {
    let ack = SendAck {
        channel,
        epoch: key.epoch.into(),
        counter: key.counter.into(),
        id: id.into(),
        server_time: 5.into(),
    };
    frame(Kind::SendAck, &ack, &[])
}

pub(super) fn send_refused(
    key: SendKey,
    channel: ChannelId,
    code: Code,
    retry_after_ms: u32,
) -> Bytes {
    let refused = SendRefused {
        channel,
        epoch: key.epoch.into(),
        counter: key.counter.into(),
        code: code.0.into(),
        member: 0.into(),
        retry_after_ms: retry_after_ms.into(),
    };
    frame(Kind::SendRefused, &refused, &[])
}

pub(super) fn push(channel: ChannelId, id: u64, content: &str) -> Bytes {
    let body = PushBody {
        channel,
        id: id.into(),
        sender: 2.into(),
        device: 1.into(),
        epoch: 1.into(),
        counter: 1.into(),
        content_type: 1.into(),
        kind: 1,
        version: 1,
        server_time: 5.into(),
        refers_to: 0.into(),
    };
    frame(Kind::Push, &body, content.as_bytes())
}

pub(super) fn pong(sequence: u32, heartbeat_ms: u32) -> Bytes {
    let pong = Pong {
        sequence: sequence.into(),
        heartbeat_ms: heartbeat_ms.into(),
        server_time: 0.into(),
        moved: 0,
        reserved: [0; 7],
    };
    frame(Kind::Pong, &pong, &[])
}

pub(super) fn error(code: Code, kind: Kind, retry_after_ms: u32) -> Bytes {
    let head = ErrorHead {
        code: code.0.into(),
        kind: kind.0,
        flags: 0,
        retry_after_ms: retry_after_ms.into(),
    };
    frame(Kind::Error, &head, b"because")
}

pub(super) fn close(code: Code, come_back_ms: u32) -> Bytes {
    close_slot(code, come_back_ms, 0)
}

/// CLOSE that names the slot to come back in.
pub(super) fn close_slot(code: Code, come_back_ms: u32, slot_tenths: u16) -> Bytes {
    let (code, come_back_ms) = (code.0.into(), come_back_ms.into());
    frame(Kind::Close, &Close { code, slot_tenths: slot_tenths.into(), come_back_ms }, b"")
}

impl Rig {
    /// A machine with this seed.
    pub(super) fn on_seed(seed: u64) -> Self {
        Self::on(MemoryStore::default(), Tuning::default(), seed)
    }
}
