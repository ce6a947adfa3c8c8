//! One connection of a replay, without IO: it says the frames that it is given, and hears what a
//! client has to know to go on.
//!
//! What it says by itself is what a client must say that the capture can't: cursors when the
//! server asks for them, and acknowledgements of messages that came later than in the capture.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tern_protocol::digest::CursorDigest;
use tern_protocol::frame::{encode, frame_bytes};
use tern_protocol::frames::{ChannelState, Cursor, Gap, PushBody, capabilities};
use tern_protocol::{
    ChannelId, Code, Epoch, Flags, Frame, Header, Incarnation, Kind, MessageId, SendKey,
};
use zerocopy::IntoBytes;

use crate::load::{Event, Speaker};

/// Messages that are acknowledged without a word of the capture, as the SDK does at this number.
const UNACKED_MAX: u32 = 16;

/// What a player must hear.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Heard {
    /// The login was answered with this epoch.
    LoggedIn(Epoch),
    /// The message of this key is durable and has this id.
    Acked(SendKey, MessageId),
    /// It was refused.
    Refused(SendKey, Code),
}

/// How far a channel was read.
#[derive(Clone, Default, Debug)]
pub struct Reading {
    /// The newest id without a hole before it.
    pub cursor: MessageId,
    /// Life of the channel's history.
    pub incarnation: u32,
    acked: MessageId,
    held: BTreeSet<MessageId>,
}

/// What was heard, by kind and by code.
#[derive(Clone, Default, Debug)]
pub struct Tally {
    /// Frames of the server.
    pub answers: BTreeMap<Kind, u64>,
    /// Codes, with the kind of frame that told them.
    pub codes: BTreeMap<(Kind, Code), u64>,
    /// Frames that the puppet said by itself.
    pub own: BTreeMap<Kind, u64>,
}

impl Tally {
    /// Frames of the server in all.
    pub fn total(&self) -> u64 {
        self.answers.values().sum()
    }

    /// Adds another's.
    pub fn add(&mut self, other: &Self) {
        other.answers.iter().for_each(|(kind, n)| *self.answers.entry(*kind).or_default() += n);
        other.codes.iter().for_each(|(code, n)| *self.codes.entry(*code).or_default() += n);
        other.own.iter().for_each(|(kind, n)| *self.own.entry(*kind).or_default() += n);
    }
}

/// One connection.
#[derive(Default)]
pub struct Puppet {
    /// How far its device has read.
    pub readings: BTreeMap<ChannelId, Reading>,
    /// What it heard.
    pub tally: Tally,
    heard: VecDeque<(Instant, Heard)>,
    tells_cursors: bool,
    wants_datagrams: bool,
    uses_datagrams: bool,
    unacked: u32,
    datagrams: VecDeque<Bytes>,
    inbox: Vec<u8>,
    outbox: Vec<u8>,
}

impl Puppet {
    /// A connection of a device that has read so far. `tells_cursors`: the capture tells them
    /// behind the login.
    pub fn new(readings: BTreeMap<ChannelId, Reading>, tells_cursors: bool) -> Self {
        Self { readings, tells_cursors, ..Self::default() }
    }

    /// Says a frame, by datagram if it is to and both sides can.
    pub fn say(&mut self, frame: Bytes, by_datagram: bool) {
        if let Ok((Frame::Hello(hello), _)) = Frame::parse(&frame) {
            self.wants_datagrams = hello.capabilities.get() & capabilities::DATAGRAMS != 0;
        }
        if by_datagram && self.uses_datagrams {
            self.datagrams.push_back(frame);
        } else {
            self.outbox.extend_from_slice(&frame);
        }
    }

    /// The next thing that was heard.
    pub fn poll_heard(&mut self) -> Option<(Instant, Heard)> {
        self.heard.pop_front()
    }

    /// Of what the server was told.
    pub fn digest(&self) -> u64 {
        let mut digest = CursorDigest::default();
        for (channel, reading) in &self.readings {
            digest.add(*channel, reading.acked, Incarnation(reading.incarnation));
        }
        digest.to_wire()
    }

    /// Acknowledges what was received; whether there was anything.
    pub fn say_receive_ack(&mut self) -> bool {
        self.unacked = 0;
        let further =
            self.readings.iter_mut().filter(|(_, reading)| reading.acked < reading.cursor);
        let list: Vec<Cursor> = further
            .map(|(channel, reading)| {
                reading.acked = reading.cursor;
                reading.entry(*channel)
            })
            .collect();
        if !list.is_empty() {
            self.say_list(Kind::ReceiveAck, Flags::NONE, &list);
        }
        !list.is_empty()
    }

    /// Tells all cursors.
    pub fn say_all_cursors(&mut self) {
        let read = self.readings.iter().filter(|(_, one)| one.cursor != MessageId::default());
        let list: Vec<Cursor> = read.map(|(channel, reading)| reading.entry(*channel)).collect();
        self.say_list(Kind::Cursors, Flags::LAST, &list);
        self.readings.values_mut().for_each(|reading| reading.acked = reading.cursor);
    }

    fn say_list(&mut self, kind: Kind, flags: Flags, list: &[Cursor]) {
        let start = self.outbox.len();
        self.outbox.resize(start + frame_bytes::<()>(size_of_val(list)), 0);
        encode(kind, flags, &(), list.as_bytes(), &mut self.outbox[start..]);
    }

    /// Notes that it says something by itself.
    pub fn count_own(&mut self, kind: Kind) {
        *self.tally.own.entry(kind).or_default() += 1;
    }

    fn handle_frame(&mut self, now: Instant, frame: &Frame<'_>) {
        *self.tally.answers.entry(frame.kind()).or_default() += 1;
        match frame {
            Frame::Welcome(welcome) => {
                let can = welcome.capabilities.get() & capabilities::DATAGRAMS != 0;
                self.uses_datagrams = can && self.wants_datagrams;
            }
            Frame::LoggedIn(logged_in) => {
                self.heard.push_back((now, Heard::LoggedIn(logged_in.epoch.into())));
                if !self.tells_cursors {
                    self.say_all_cursors();
                    self.count_own(Kind::Cursors);
                }
            }
            Frame::AskCursors(_) => {
                self.say_all_cursors();
                self.count_own(Kind::Cursors);
            }
            Frame::SendAck(ack) => {
                self.heard.push_back((now, Heard::Acked(ack.key(), ack.id.into())));
            }
            Frame::SendRefused(no) => {
                let code = Code(no.code.get());
                self.heard.push_back((now, Heard::Refused(no.key(), code)));
                self.count_code(Kind::SendRefused, code);
            }
            Frame::Push(body, _) => self.handle_push(body),
            Frame::Channel(state) => self.handle_channel(state),
            Frame::Gap(gap) => self.handle_gap(gap),
            Frame::Error(head, _) => self.count_code(Kind(head.kind), Code(head.code.get())),
            Frame::Close(close, _) => self.count_code(Kind::Close, Code(close.code.get())),
            _ => {}
        }
    }

    fn count_code(&mut self, kind: Kind, code: Code) {
        *self.tally.codes.entry((kind, code)).or_default() += 1;
    }

    fn handle_push(&mut self, body: &PushBody) {
        let reading = self.readings.entry(body.channel).or_default();
        let id = MessageId::from(body.id);
        if id <= reading.cursor {
            return;
        }
        reading.held.insert(id);
        self.unacked += reading.step();
        if self.unacked >= UNACKED_MAX && self.say_receive_ack() {
            self.count_own(Kind::ReceiveAck);
        }
    }

    fn handle_channel(&mut self, state: &ChannelState) {
        let reading = self.readings.entry(state.channel).or_default();
        reading.incarnation = state.incarnation.get();
    }

    /// Steps over what will never come.
    fn handle_gap(&mut self, gap: &Gap) {
        self.count_code(Kind::Gap, Code(gap.code.get()));
        let reading = self.readings.entry(gap.channel).or_default();
        if MessageId::from(gap.from) <= reading.cursor.next() {
            reading.cursor = reading.cursor.max(gap.to.into());
            reading.step();
        }
    }
}

impl Reading {
    /// Goes on over what came ahead of its turn; by how many messages.
    fn step(&mut self) -> u32 {
        let mut steps = 0;
        self.held = self.held.split_off(&self.cursor.next());
        while self.held.remove(&self.cursor.next()) {
            self.cursor = self.cursor.next();
            steps += 1;
        }
        steps
    }

    /// As it stands in a list of cursors.
    pub fn entry(&self, channel: ChannelId) -> Cursor {
        Cursor {
            channel,
            id: self.cursor.into(),
            incarnation: self.incarnation.into(),
            reserved: 0.into(),
        }
    }
}

impl Speaker for Puppet {
    fn reconnect(&mut self, _resume: bool) {
        // What a capture's connection said was said on the one that is gone.
        self.inbox.clear();
        self.outbox.clear();
        self.datagrams.clear();
    }

    fn outbox(&mut self) -> &mut Vec<u8> {
        &mut self.outbox
    }

    fn poll_datagram(&mut self) -> Option<Bytes> {
        self.datagrams.pop_front()
    }

    fn set_rtt(&mut self, _rtt: Duration) {}

    fn poll_timeout(&self) -> Option<Instant> {
        None
    }

    fn handle_timeout(&mut self, _now: Instant) {}

    fn handle_bytes(
        &mut self,
        now: Instant,
        bytes: &[u8],
        _share: f64,
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
                Ok((frame, _)) => self.handle_frame(now, &frame),
                Err(_) => tell(Event::Failed(Kind(header.kind), Code::Malformed)),
            }
        }
        self.inbox = rest.to_vec();
    }

    fn handle_datagram(&mut self, now: Instant, bytes: &[u8], tell: &mut impl FnMut(Event)) {
        match Frame::parse(bytes) {
            Ok((frame, _)) => self.handle_frame(now, &frame),
            Err(_) => tell(Event::Failed(Kind(0), Code::Malformed)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tern_protocol::Uin;

    fn push(id: u64) -> Vec<u8> {
        let channel = ChannelId::direct(Uin(1), Uin(2));
        let body = PushBody {
            channel,
            id: id.into(),
            sender: 2.into(),
            device: 1.into(),
            epoch: 1.into(),
            counter: 1.into(),
            content_type: 0.into(),
            kind: 1,
            version: 1,
            server_time: 0.into(),
            refers_to: 0.into(),
        };
        let mut bytes = vec![0; frame_bytes::<PushBody>(0)];
        encode(Kind::Push, Flags::NONE, &body, &[], &mut bytes);
        bytes
    }

    fn hear(puppet: &mut Puppet, bytes: &[u8]) {
        puppet.handle_bytes(Instant::now(), bytes, 0.0, &mut |event| panic!("{event:?}"));
    }

    fn said(puppet: &mut Puppet) -> Vec<(Kind, usize)> {
        let bytes = std::mem::take(puppet.outbox());
        let (mut rest, mut frames) = (&bytes[..], Vec::new());
        while let Some(header) = Header::peek(rest) {
            let entries = (header.frame_bytes() - 4) / size_of::<Cursor>();
            frames.push((Kind(header.kind), entries));
            rest = &rest[header.frame_bytes()..];
        }
        frames
    }

    #[test]
    fn it_acknowledges_what_it_has_without_holes() {
        let mut puppet = Puppet::default();
        let (first, second) = (push(1), push(2));
        hear(&mut puppet, &second);
        assert!(!puppet.say_receive_ack(), "the first one is missing");
        hear(&mut puppet, &first[..10]);
        hear(&mut puppet, &first[10..]);
        assert!(puppet.say_receive_ack());
        assert_eq!(said(&mut puppet), [(Kind::ReceiveAck, 1)]);
        assert!(!puppet.say_receive_ack(), "once");
        assert_eq!(puppet.tally.answers[&Kind::Push], 2);
    }

    #[test]
    fn what_the_capture_does_not_acknowledge_is_acknowledged_at_some_number() {
        let mut puppet = Puppet::default();
        (1..=u64::from(UNACKED_MAX)).for_each(|id| hear(&mut puppet, &push(id)));
        assert_eq!(said(&mut puppet), [(Kind::ReceiveAck, 1)]);
        assert_eq!(puppet.tally.own[&Kind::ReceiveAck], 1);
    }
}
