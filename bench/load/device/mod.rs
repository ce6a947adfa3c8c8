//! One device of the load, without IO: bytes of its stream come in, bytes to say and [`Event`]s go
//! out. It logs in, beats, sends under its keys within the window, and acknowledges what it gets
//! as the SDK does, and where a scenario wants it, it comes back after a loss. It keeps nothing on
//! disk.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tern_protocol::digest::CursorDigest;
use tern_protocol::frames::{
    Close, Cursor, HistoryWanted, LoggedIn, Network, Ping, Pong, PushBody, SendAck, SendRefused,
    capabilities, message_kind,
};
use tern_protocol::limits::{SECRET_BYTES, UNACKED_SENDS_MAX};
use tern_protocol::{
    ChannelId, Code, DeviceId, Epoch, Flags, Frame, Header, Incarnation, Kind, MessageId, SendKey,
    Uin,
};

use super::Datagrams;

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
    /// It is logged in, with a new epoch or by resuming.
    Online {
        /// Whether its session went on.
        resumed: bool,
    },
    /// Its connection is gone, and it comes back by itself.
    Lost,
    /// The message with this tag is durable.
    Acked(u64),
    /// It got the message with this tag from another user, or its own note to self.
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

/// When a device says its heartbeats.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rhythm {
    /// When the answer to the one before said.
    Answered,
    /// As often, but without waiting for answers, as an app that does not read may.
    Blind,
    /// When the scenario has it beat.
    Told,
}

/// One device.
pub struct Device {
    identity: Identity,
    network: Network,
    /// Of the present login; `None` while it is not logged in.
    epoch: Option<Epoch>,
    /// What resumes its session: the epoch and the token of the last login.
    ticket: Option<(Epoch, [u8; SECRET_BYTES])>,
    counter: u32,
    predecessors: BTreeMap<ChannelId, u32>,
    /// Unanswered sends in the order of their counters.
    unanswered: VecDeque<Unanswered>,
    /// How it sends single messages if the server can do datagrams, and whether it can.
    way: Datagrams,
    /// How many messages of each channel it wants that it does not know; `None`: all.
    newest_wanted: Option<u32>,
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
    rhythm: Rhythm,
    beats: u32,
    inbox: Vec<u8>,
    outbox: Vec<u8>,
}

/// A send that is not answered.
struct Unanswered {
    key: SendKey,
    tag: u64,
    frame: Bytes,
    /// When it left; `None` once it has gone the other way too.
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

impl Reading {
    /// As it stands in a list of cursors.
    fn entry(&self, channel: ChannelId) -> Cursor {
        Cursor {
            channel,
            id: self.cursor.into(),
            incarnation: self.incarnation.into(),
            reserved: 0.into(),
        }
    }
}

impl Device {
    /// A device that has just connected, with its greeting and login to say.
    pub fn new(identity: Identity, network: Network, way: Datagrams) -> Self {
        let mut device = Self {
            network,
            epoch: None,
            ticket: None,
            counter: 0,
            predecessors: BTreeMap::new(),
            unanswered: VecDeque::new(),
            way,
            newest_wanted: None,
            uses_datagrams: false,
            datagrams: VecDeque::new(),
            rtt: Duration::ZERO,
            waiting: VecDeque::new(),
            cursors: BTreeMap::new(),
            unacked: 0,
            ack_at: None,
            heartbeat: Duration::ZERO,
            beat_at: None,
            rhythm: Rhythm::Answered,
            beats: 0,
            inbox: Vec::new(),
            outbox: Vec::new(),
            identity,
        };
        device.say_hello();
        device.say_login();
        device
    }

    /// From its next login on it wants at most so many of the newest messages of each channel that
    /// it does not know.
    pub fn want_newest(&mut self, newest: u32) {
        self.newest_wanted = Some(newest);
    }

    /// Begins anew on another connection: resumes its session if it has one and is asked to, else
    /// logs in. What was unanswered is sent again.
    pub fn reconnect(&mut self, resume: bool) {
        (self.epoch, self.uses_datagrams) = (None, false);
        (self.ack_at, self.beat_at) = (None, None);
        self.inbox.clear();
        self.outbox.clear();
        self.datagrams.clear();
        self.unanswered.iter_mut().for_each(|send| send.free = None);
        self.say_hello();
        match self.ticket.filter(|_| resume) {
            Some((epoch, token)) => self.say_resume(epoch, token),
            None => self.say_login(),
        }
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

    /// When it beats from now on.
    pub fn set_rhythm(&mut self, rhythm: Rhythm) {
        self.rhythm = rhythm;
    }

    /// The round trip of the path; repairs are timed by it.
    pub fn set_rtt(&mut self, rtt: Duration) {
        self.rtt = rtt;
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        [self.ack_at, self.next_beat(), self.repair_at()].into_iter().flatten().min()
    }

    fn next_beat(&self) -> Option<Instant> {
        self.beat_at.filter(|_| self.rhythm != Rhythm::Told)
    }

    /// When the oldest send that has gone one way counts as lost.
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
            match self.way {
                Datagrams::Repeated => self.datagrams.push_back(lost.frame.clone()),
                _ => self.outbox.extend_from_slice(&lost.frame),
            }
        }
        if self.ack_at.is_some_and(|at| at <= now) {
            self.say_receive_ack();
        }
        if self.next_beat().is_some_and(|at| at <= now) {
            // Otherwise the answer sets the next.
            self.beat_at = (self.rhythm == Rhythm::Blind).then(|| now + self.heartbeat);
            self.beat(self.digest());
        }
    }

    /// Says a heartbeat with this digest of what was read.
    fn beat(&mut self, digest: u64) {
        self.beats += 1;
        let ping = Ping {
            sequence: self.beats.into(),
            network: self.network.to_wire(),
            reserved: [0; 3],
            digest: digest.into(),
            heartbeat_ms: 0.into(),
            reserved_end: 0.into(),
        };
        self.say(Kind::Ping, Flags::NONE, &ping, &[]);
    }

    /// A heartbeat as the scenario wants it: with the digest of what was read, or a wrong one, as
    /// if the server did not know all of it.
    pub fn beat_now(&mut self, is_wrong: bool) {
        self.beat(self.digest() ^ u64::from(is_wrong));
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
                tell(Event::Online { resumed: logged_in.resumed != 0 });
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
            Frame::AskCursors(_) => self.say_all_cursors(),
            Frame::ChannelsShown(_) => self.newest_wanted = None,
            Frame::SendRefused(no) if Code(no.code.get()) == Code::Predecessor => {
                self.send_again(no.key());
            }
            // The answer to a repeat that was late: the key's own answer is long here.
            Frame::SendRefused(no) if self.place_of(no.key()).is_none() => {}
            Frame::SendRefused(SendRefused { code, .. }) | Frame::Close(Close { code, .. }, _) => {
                tell(Event::Failed(frame.kind(), Code(code.get())));
            }
            Frame::Error(head, _) if Code(head.code.get()) == Code::ResumeUnknown => {
                self.ticket = None;
                self.say_login();
            }
            Frame::Error(head, _) => tell(Event::Failed(Kind(head.kind), Code(head.code.get()))),
            // What was said before it became a member, or is older than what it wants.
            Frame::Gap(gap) if matches!(Code(gap.code.get()), Code::NotVisible | Code::Skipped) => {
                let reading = self.cursors.entry(gap.channel).or_default();
                reading.cursor = reading.cursor.max(MessageId::from(gap.to));
                self.deliver(now, gap.channel, tell); // a datagram may have been ahead of this
            }
            Frame::Gap(gap) => tell(Event::Failed(Kind::Gap, Code(gap.code.get()))),
            other => tell(Event::Failed(other.kind(), Code::WrongDirection)),
        }
    }

    /// What waited too long for the send before it leaves again, behind that one's repair.
    fn send_again(&mut self, key: SendKey) {
        if let Some(place) = self.place_of(key) {
            let send = &mut self.unanswered[place];
            send.free = None;
            self.outbox.extend_from_slice(&send.frame);
        }
    }

    fn handle_logged_in(&mut self, now: Instant, logged_in: &LoggedIn, share: f64) {
        let epoch = logged_in.epoch.into();
        if logged_in.resumed == 0 {
            self.counter = 0;
            self.predecessors.clear();
        }
        (self.epoch, self.ticket) = (Some(epoch), Some((epoch, logged_in.token)));
        self.heartbeat = Duration::from_millis(u64::from(logged_in.heartbeat_ms.get()));
        self.beat_at = Some(now + self.heartbeat.mul_f64(share));
        if let Some(newest) = self.newest_wanted.filter(|_| logged_in.resumed == 0) {
            let wanted = HistoryWanted { newest: newest.into(), reserved: 0.into() };
            self.say(Kind::HistoryWanted, Flags::NONE, &wanted, &[]);
        }
        self.say_all_cursors();
        for send in &self.unanswered {
            self.outbox.extend_from_slice(&send.frame);
        }
        self.fill_window(now);
    }

    fn handle_ack(&mut self, now: Instant, ack: &SendAck, tell: &mut impl FnMut(Event)) {
        let Some(place) = self.place_of(ack.key()) else { return };
        let answered = self.unanswered.remove(place).expect("its place was just found");
        tell(Event::Acked(answered.tag));
        self.fill_window(now);
    }

    /// Where the send with this key stands among those that wait for an answer.
    fn place_of(&self, key: SendKey) -> Option<usize> {
        self.unanswered.iter().position(|send| send.key == key)
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
        let own = self.identity.uin;
        let is_for_it = sender != own || body.channel == ChannelId::direct(own, own);
        let is_for_it = is_for_it && body.kind == message_kind::CONTENT;
        let tag = content.first_chunk().filter(|_| is_for_it);
        reading.held.insert(id, tag.map(|tag| u64::from_le_bytes(*tag)));
        self.deliver(now, body.channel, tell);
    }

    /// Takes what is next in a channel, as far as it has come.
    fn deliver(&mut self, now: Instant, channel: ChannelId, tell: &mut impl FnMut(Event)) {
        let reading = self.cursors.entry(channel).or_default();
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
    /// A new epoch is not used before all of older ones is answered, since that would close them.
    fn fill_window(&mut self, now: Instant) {
        let Some(epoch) = self.epoch else { return };
        if self.unanswered.iter().any(|send| send.key.epoch != epoch) {
            return;
        }
        while let Some(message) = self.waiting.front().copied() {
            let oldest =
                self.unanswered.front().map_or(self.counter + 1, |send| send.key.counter.0);
            if self.counter + 1 - oldest >= UNACKED_SENDS_MAX {
                return;
            }
            self.waiting.pop_front();
            self.counter += 1;
            self.say_send(now, epoch, message);
        }
    }

    /// Of what the server was told, as in the SDK.
    fn digest(&self) -> u64 {
        let mut digest = CursorDigest::default();
        for (channel, reading) in &self.cursors {
            digest.add(*channel, reading.acked, Incarnation(reading.incarnation));
        }
        digest.to_wire()
    }
}

mod group;
mod words;

#[cfg(test)]
mod tests;
