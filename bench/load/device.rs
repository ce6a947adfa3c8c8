//! One device of the load, without IO: bytes of its stream come in, bytes to say and [`Event`]s go
//! out. It logs in, beats, sends under its keys within the window, and acknowledges what it gets
//! as the SDK does; it keeps nothing on disk and never comes back after a loss, since a run in
//! which a connection is lost measures nothing.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tern_protocol::frame::{encode, frame_bytes};
use tern_protocol::frames::{
    Close, Cursor, Hello, LoggedIn, Login, Network, Ping, Pong, PushBody, Send, SendAck,
    SendRefused, capabilities, content_type, message_kind,
};
use tern_protocol::limits::{MAGIC, SECRET_BYTES, UNACKED_SENDS_MAX, VERSION};
use tern_protocol::{
    ChannelId, Code, DeviceId, Epoch, Flags, Frame, Header, Kind, MessageId, SendCounter, Uin,
};
use zerocopy::{Immutable, IntoBytes};

/// Version of the body that is sent.
const BODY_VERSION: u8 = 1;

/// What was received is acknowledged after this time at the latest, as in the SDK.
const RECEIVE_ACK_AFTER: Duration = Duration::from_millis(50);

/// What was received is acknowledged after this many messages at the latest, as in the SDK.
const RECEIVE_ACK_MESSAGES: u32 = 16;

/// What is added to 5/4 of the round trip before a send by datagram counts as lost, as in the SDK.
const REPAIR_SLACK: Duration = Duration::from_millis(20);

/// Least bytes of a content: it carries the message's tag.
pub const CONTENT_BYTES_MIN: usize = size_of::<u64>();

/// Who a device is.
#[derive(Clone)]
pub struct Identity {
    /// Its user.
    pub uin: Uin,
    /// Its number within the user.
    pub device: DeviceId,
    /// Its secret.
    pub secret: [u8; SECRET_BYTES],
}

/// What a device has to tell the scenario. A *tag* is what the scenario gave a message when it
/// sent it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// It is logged in.
    Online,
    /// The message with this tag is durable.
    Acked(u64),
    /// It got the message with this tag from another user.
    Received(u64),
    /// It heard its heartbeat answered.
    Beat,
    /// Something went wrong: the run is over. The kind of frame and the code that says why.
    Failed(Kind, Code),
}

/// A message to send.
#[derive(Clone, Copy, Debug)]
pub struct Message {
    /// Where to.
    pub channel: ChannelId,
    /// Comes back with its events.
    pub tag: u64,
    /// Length of its content, [`CONTENT_BYTES_MIN`] at least.
    pub content_bytes: usize,
}

/// One device.
pub struct Device {
    identity: Identity,
    network: Network,
    epoch: Option<Epoch>,
    counter: u32,
    predecessors: BTreeMap<ChannelId, u32>,
    /// Unanswered sends in the order of their counters.
    unanswered: VecDeque<Unanswered>,
    /// Whether it says that it can do datagrams, and whether the server can too.
    offers_datagrams: bool,
    uses_datagrams: bool,
    /// Frames that leave by datagram.
    datagrams: VecDeque<Bytes>,
    rtt: Duration,
    /// Messages that wait for room in the window.
    waiting: VecDeque<Message>,
    cursors: BTreeMap<ChannelId, Reading>,
    unacked: u32,
    ack_at: Option<Instant>,
    heartbeat: Duration,
    beat_at: Option<Instant>,
    beats: u32,
    inbox: Vec<u8>,
    outbox: Vec<u8>,
}

/// A send that is not answered.
struct Unanswered {
    counter: u32,
    tag: u64,
    frame: Bytes,
    /// When it left by datagram; `None` once it left by stream.
    free: Option<Instant>,
}

/// How far a channel was read.
#[derive(Clone, Default)]
struct Reading {
    cursor: MessageId,
    acked: MessageId,
    incarnation: u32,
    /// What came ahead of its turn: the tags of others' messages.
    held: BTreeMap<MessageId, Option<u64>>,
}

impl Device {
    /// A device that has just connected, with its greeting and login to say.
    pub fn new(identity: Identity, network: Network, offers_datagrams: bool) -> Self {
        let mut device = Self {
            network,
            epoch: None,
            counter: 0,
            predecessors: BTreeMap::new(),
            unanswered: VecDeque::new(),
            offers_datagrams,
            uses_datagrams: false,
            datagrams: VecDeque::new(),
            rtt: Duration::ZERO,
            waiting: VecDeque::new(),
            cursors: BTreeMap::new(),
            unacked: 0,
            ack_at: None,
            heartbeat: Duration::ZERO,
            beat_at: None,
            beats: 0,
            inbox: Vec::new(),
            outbox: Vec::new(),
            identity,
        };
        device.say_hello();
        device.say_login();
        device
    }

    /// Bytes to write to the stream; what could not be written stays.
    pub fn outbox(&mut self) -> &mut Vec<u8> {
        &mut self.outbox
    }

    /// Sends a message, at once or as soon as the window has room.
    pub fn send(&mut self, now: Instant, message: Message) {
        self.waiting.push_back(message);
        self.fill_window(now);
    }

    /// The next frame that leaves by datagram.
    pub fn poll_datagram(&mut self) -> Option<Bytes> {
        self.datagrams.pop_front()
    }

    /// The round trip of the path; repairs are timed by it.
    pub fn set_rtt(&mut self, rtt: Duration) {
        self.rtt = rtt;
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        [self.ack_at, self.beat_at, self.repair_at()].into_iter().flatten().min()
    }

    /// When the oldest send that left by datagram counts as lost.
    fn repair_at(&self) -> Option<Instant> {
        let free = self.unanswered.iter().find_map(|send| send.free);
        free.map(|at| at + self.rtt * 5 / 4 + REPAIR_SLACK)
    }

    /// Says what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        while self.repair_at().is_some_and(|at| at <= now) {
            let lost = self.unanswered.iter_mut().find(|send| send.free.is_some());
            let lost = lost.expect("one is due");
            lost.free = None;
            self.outbox.extend_from_slice(&lost.frame);
        }
        if self.ack_at.is_some_and(|at| at <= now) {
            self.say_receive_ack();
        }
        if self.beat_at.is_some_and(|at| at <= now) {
            self.beat_at = None; // until the answer sets the next
            self.beats += 1;
            let ping = Ping {
                sequence: self.beats.into(),
                network: self.network.to_wire(),
                reserved: [0; 3],
            };
            self.say(Kind::Ping, Flags::NONE, &ping, &[]);
        }
    }

    /// Takes bytes of the stream. `share` (0 to 1) places the first heartbeat within its interval,
    /// so that devices that came together do not beat together.
    pub fn handle_bytes(
        &mut self,
        now: Instant,
        bytes: &[u8],
        share: f64,
        tell: &mut impl FnMut(Event),
    ) {
        self.inbox.extend_from_slice(bytes);
        let inbox = std::mem::take(&mut self.inbox);
        let mut rest = &inbox[..];
        while let Some(header) = Header::peek(rest)
            && header.frame_bytes() <= rest.len()
        {
            let (frame, behind) = rest.split_at(header.frame_bytes());
            rest = behind;
            match Frame::parse(frame) {
                Ok((frame, _)) => self.handle_frame(now, frame, share, tell),
                Err(_) => tell(Event::Failed(Kind(header.kind), Code::Malformed)),
            }
        }
        let left = rest.len();
        self.inbox = inbox;
        self.inbox.drain(..self.inbox.len() - left);
    }

    /// Takes a datagram: one whole frame.
    pub fn handle_datagram(&mut self, now: Instant, bytes: &[u8], tell: &mut impl FnMut(Event)) {
        match Frame::parse(bytes) {
            Ok((Frame::Push(body, content), _)) => self.handle_push(now, body, content, tell),
            _ => tell(Event::Failed(Kind(0), Code::Malformed)),
        }
    }

    fn handle_frame(
        &mut self,
        now: Instant,
        frame: Frame<'_>,
        share: f64,
        tell: &mut impl FnMut(Event),
    ) {
        match frame {
            Frame::Welcome(welcome) => {
                let both = welcome.capabilities.get() & self.capabilities();
                self.uses_datagrams = both & capabilities::DATAGRAMS != 0;
            }
            Frame::LoggedIn(logged_in) => {
                self.handle_logged_in(now, logged_in, share);
                tell(Event::Online);
            }
            Frame::SendAck(ack) => self.handle_ack(now, ack, tell),
            Frame::Push(body, content) => self.handle_push(now, body, content, tell),
            Frame::Channel(state) => {
                self.cursors.entry(state.channel).or_default().incarnation =
                    state.incarnation.get();
            }
            Frame::Pong(pong) => {
                self.handle_pong(now, pong);
                tell(Event::Beat);
            }
            Frame::SendRefused(no) if Code(no.code.get()) == Code::Predecessor => {
                self.send_again(no.counter.get());
            }
            Frame::SendRefused(SendRefused { code, .. }) | Frame::Close(Close { code, .. }, _) => {
                tell(Event::Failed(frame.kind(), Code(code.get())));
            }
            Frame::Error(head, _) => tell(Event::Failed(Kind(head.kind), Code(head.code.get()))),
            Frame::Gap(gap) => tell(Event::Failed(Kind::Gap, Code(gap.code.get()))),
            other => tell(Event::Failed(other.kind(), Code::WrongDirection)),
        }
    }

    /// What waited too long for the send before it leaves again, behind that one's repair.
    fn send_again(&mut self, counter: u32) {
        if let Some(send) = self.unanswered.iter_mut().find(|send| send.counter == counter) {
            send.free = None;
            self.outbox.extend_from_slice(&send.frame);
        }
    }

    fn handle_logged_in(&mut self, now: Instant, logged_in: &LoggedIn, share: f64) {
        self.epoch = Some(logged_in.epoch.into());
        self.heartbeat = Duration::from_millis(u64::from(logged_in.heartbeat_ms.get()));
        self.beat_at = Some(now + self.heartbeat.mul_f64(share));
        self.say_cursors(Kind::Cursors, Flags::LAST, &[]);
        self.fill_window(now);
    }

    fn handle_ack(&mut self, now: Instant, ack: &SendAck, tell: &mut impl FnMut(Event)) {
        let counter = ack.counter.get();
        let Some(place) = self.unanswered.iter().position(|send| send.counter == counter) else {
            return;
        };
        let answered = self.unanswered.remove(place).expect("its place was just found");
        tell(Event::Acked(answered.tag));
        self.fill_window(now);
    }

    fn handle_push(
        &mut self,
        now: Instant,
        body: &PushBody,
        content: &[u8],
        tell: &mut impl FnMut(Event),
    ) {
        let (id, sender) = (MessageId::from(body.id), Uin::from(body.sender));
        let reading = self.cursors.entry(body.channel).or_default();
        if id <= reading.cursor {
            return;
        }
        if id != reading.cursor.next() && !self.uses_datagrams {
            return tell(Event::Failed(Kind::Push, Code::Lost));
        }
        let is_own = sender == self.identity.uin;
        let tag = content.first_chunk().filter(|_| !is_own);
        reading.held.insert(id, tag.map(|tag| u64::from_le_bytes(*tag)));
        while let Some(tag) = reading.held.remove(&reading.cursor.next()) {
            reading.cursor = reading.cursor.next();
            self.unacked += 1;
            self.ack_at.get_or_insert(now + RECEIVE_ACK_AFTER);
            tag.into_iter().for_each(|tag| tell(Event::Received(tag)));
        }
        if self.unacked >= RECEIVE_ACK_MESSAGES {
            self.say_receive_ack();
        }
    }

    fn handle_pong(&mut self, now: Instant, pong: &Pong) {
        self.heartbeat = Duration::from_millis(u64::from(pong.heartbeat_ms.get()));
        self.beat_at = Some(now + self.heartbeat);
    }

    /// Sends what waits, as far as the oldest unanswered and the newest counter stay near enough.
    fn fill_window(&mut self, now: Instant) {
        let Some(epoch) = self.epoch else { return };
        while let Some(message) = self.waiting.front().copied() {
            let oldest = self.unanswered.front().map_or(self.counter + 1, |send| send.counter);
            if self.counter + 1 - oldest >= UNACKED_SENDS_MAX {
                return;
            }
            self.waiting.pop_front();
            self.counter += 1;
            self.say_send(now, epoch, message);
        }
    }

    fn capabilities(&self) -> u64 {
        if self.offers_datagrams { capabilities::DATAGRAMS } else { capabilities::NONE }
    }

    fn say_hello(&mut self) {
        let hello = Hello {
            magic: MAGIC,
            version: VERSION.into(),
            network: self.network.to_wire(),
            reserved: 0,
            capabilities: self.capabilities().into(),
        };
        self.say(Kind::Hello, Flags::NONE, &hello, &[]);
    }

    fn say_login(&mut self) {
        let login = Login {
            uin: self.identity.uin.into(),
            device: self.identity.device.into(),
            reserved: 0.into(),
            secret: self.identity.secret,
        };
        self.say(Kind::Login, Flags::NONE, &login, &[]);
    }

    fn say_send(&mut self, now: Instant, epoch: Epoch, message: Message) {
        let predecessor = self.predecessors.insert(message.channel, self.counter).unwrap_or(0);
        let head = Send {
            channel: message.channel,
            epoch: epoch.into(),
            counter: SendCounter(self.counter).into(),
            predecessor: predecessor.into(),
            content_type: content_type::OPAQUE.into(),
            kind: message_kind::CONTENT,
            version: BODY_VERSION,
            refers_to: 0.into(),
        };
        let mut content = vec![0; message.content_bytes.max(CONTENT_BYTES_MIN)];
        content[..CONTENT_BYTES_MIN].copy_from_slice(&message.tag.to_le_bytes());
        let mut frame = vec![0; frame_bytes::<Send>(content.len())];
        encode(Kind::Send, Flags::NONE, &head, &content, &mut frame);
        let frame = Bytes::from(frame);
        let (counter, tag) = (self.counter, message.tag);
        let free = self.uses_datagrams.then_some(now);
        self.unanswered.push_back(Unanswered { counter, tag, frame: frame.clone(), free });
        if self.uses_datagrams {
            self.datagrams.push_back(frame);
        } else {
            self.outbox.extend_from_slice(&frame);
        }
    }

    /// Acknowledges every channel that was read further.
    fn say_receive_ack(&mut self) {
        (self.unacked, self.ack_at) = (0, None);
        let further = self.cursors.iter_mut().filter(|(_, reading)| reading.acked < reading.cursor);
        let list: Vec<Cursor> = further
            .map(|(channel, reading)| {
                reading.acked = reading.cursor;
                Cursor {
                    channel: *channel,
                    id: reading.cursor.into(),
                    incarnation: reading.incarnation.into(),
                    reserved: 0.into(),
                }
            })
            .collect();
        self.say_cursors(Kind::ReceiveAck, Flags::NONE, &list);
    }

    fn say_cursors(&mut self, kind: Kind, flags: Flags, list: &[Cursor]) {
        self.say(kind, flags, &(), list.as_bytes());
    }

    fn say<T: IntoBytes + Immutable>(&mut self, kind: Kind, flags: Flags, head: &T, tail: &[u8]) {
        let start = self.outbox.len();
        self.outbox.resize(start + frame_bytes::<T>(tail.len()), 0);
        encode(kind, flags, head, tail, &mut self.outbox[start..]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHANNEL: (Uin, Uin) = (Uin(1), Uin(2));

    fn device() -> Device {
        let identity = Identity { uin: Uin(1), device: DeviceId(1), secret: [7; SECRET_BYTES] };
        Device::new(identity, Network::Wired, false)
    }

    fn said(device: &mut Device) -> Vec<Kind> {
        let bytes = std::mem::take(device.outbox());
        let (mut rest, mut kinds) = (&bytes[..], Vec::new());
        while let Some(header) = Header::peek(rest) {
            kinds.push(Kind(header.kind));
            rest = &rest[header.frame_bytes()..];
        }
        kinds
    }

    fn hear<T: IntoBytes + Immutable>(
        device: &mut Device,
        kind: Kind,
        head: &T,
        tail: &[u8],
    ) -> Vec<Event> {
        let mut bytes = vec![0; frame_bytes::<T>(tail.len())];
        encode(kind, Flags::NONE, head, tail, &mut bytes);
        let (mut events, now) = (Vec::new(), Instant::now());
        for half in bytes.chunks(bytes.len().div_ceil(2)) {
            device.handle_bytes(now, half, 0.5, &mut |event| events.push(event));
        }
        events
    }

    fn log_in(device: &mut Device) {
        let logged_in = LoggedIn {
            epoch: 3.into(),
            heartbeat_ms: 10_000.into(),
            resume_ms: 0.into(),
            resumed: 0,
            reserved: [0; 3],
            token: [0; SECRET_BYTES],
        };
        assert_eq!(hear(device, Kind::LoggedIn, &logged_in, &[]), [Event::Online]);
    }

    fn message(tag: u64) -> Message {
        Message { channel: ChannelId::direct(CHANNEL.0, CHANNEL.1), tag, content_bytes: 100 }
    }

    #[test]
    fn sends_wait_for_the_login_and_for_the_window() {
        let mut device = device();
        assert_eq!(said(&mut device), [Kind::Hello, Kind::Login]);
        (0..100).for_each(|tag| device.send(Instant::now(), message(tag)));
        assert!(said(&mut device).is_empty());
        log_in(&mut device);
        let sends = |kinds: &[Kind]| kinds.iter().filter(|kind| **kind == Kind::Send).count();
        assert_eq!(sends(&said(&mut device)), UNACKED_SENDS_MAX as usize);
        let ack = |counter: u32| SendAck {
            channel: message(0).channel,
            epoch: 3.into(),
            counter: counter.into(),
            id: 1.into(),
            server_time: 0.into(),
        };
        assert_eq!(hear(&mut device, Kind::SendAck, &ack(2), &[]), [Event::Acked(1)]);
        assert_eq!(sends(&said(&mut device)), 0, "the oldest holds the window");
        assert_eq!(hear(&mut device, Kind::SendAck, &ack(1), &[]), [Event::Acked(0)]);
        assert_eq!(sends(&said(&mut device)), 2);
        assert_eq!(hear(&mut device, Kind::SendAck, &ack(1), &[]), [], "a repeat");
    }

    #[test]
    fn pushes_are_told_once_and_acknowledged() {
        let mut device = device();
        log_in(&mut device);
        said(&mut device);
        let push = |id: u64, sender: u64| PushBody {
            channel: message(0).channel,
            id: id.into(),
            sender: sender.into(),
            device: 1.into(),
            epoch: 1.into(),
            counter: 1.into(),
            content_type: 0.into(),
            kind: message_kind::CONTENT,
            version: BODY_VERSION,
            server_time: 0.into(),
            refers_to: 0.into(),
        };
        let content = 9_u64.to_le_bytes();
        assert_eq!(hear(&mut device, Kind::Push, &push(1, 2), &content), [Event::Received(9)]);
        assert_eq!(hear(&mut device, Kind::Push, &push(1, 2), &content), [], "a repeat");
        assert_eq!(hear(&mut device, Kind::Push, &push(2, 1), &content), [], "its own");
        assert!(said(&mut device).is_empty(), "acks are collected");
        let at = device.poll_timeout().expect("an ack is due");
        device.handle_timeout(at);
        assert_eq!(said(&mut device), [Kind::ReceiveAck]);
        let hole = hear(&mut device, Kind::Push, &push(9, 2), &content);
        assert_eq!(hole, [Event::Failed(Kind::Push, Code::Lost)]);
    }

    #[test]
    fn a_heartbeat_waits_for_its_answer() {
        let mut device = device();
        log_in(&mut device);
        said(&mut device);
        let at = device.poll_timeout().expect("a beat is due");
        device.handle_timeout(at);
        assert_eq!(said(&mut device), [Kind::Ping]);
        assert_eq!(device.poll_timeout(), None);
        let pong = Pong { sequence: 1.into(), heartbeat_ms: 5.into(), server_time: 0.into() };
        assert_eq!(hear(&mut device, Kind::Pong, &pong, &[]), [Event::Beat]);
        assert!(device.poll_timeout().is_some());
    }
}
