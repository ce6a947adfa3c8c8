//! The mailbox: pushes become messages for the application, once each and in the channel's
//! order; what it has consumed becomes cursors on the disk, and then acks to the server.
//!
//! Invariants: a message is given on only as the direct successor of what was given before in
//! its channel; an ack leaves only after its cursor is stored, and goes no further than what the
//! connection has shown; the device's own list of cursors decides where delivery starts, whatever
//! the server remembers.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use tern_protocol::digest::CursorDigest;
use tern_protocol::frames::{ChannelState, Gap, PushBody};
use tern_protocol::limits::{CURSORS_PER_FRAME_MAX, FETCH_IDS_MAX};
use tern_protocol::{ChannelId, Code, MessageId};

use super::channel::{Channel, Item, Taken};
use super::frames;
use super::io::{Change, Event, Message, Position, Ticket};
use super::out::Out;
use super::time::Mono;
use super::tuning::Tuning;

/// Everything that the device reads.
#[derive(Debug)]
pub(crate) struct Mailbox {
    channels: BTreeMap<ChannelId, Channel>,
    /// Cursors that are being stored, and how many ids each went on.
    storing: VecDeque<(Ticket, Position, u64)>,
    /// Channels whose stored cursor the server is to be told.
    unacked: BTreeSet<ChannelId>,
    /// Ids consumed and stored since it was told.
    unacked_ids: u64,
    /// When the server must be told.
    ack_due: Option<Mono>,
    /// Channels with an open hole.
    holes: BTreeSet<ChannelId>,
    /// Whether messages may overtake each other on this connection: then a hole mostly fills by
    /// itself.
    is_any_order: bool,
    /// Of what the server was told on this connection.
    digest: CursorDigest,
}

/// A hole stays open although it was asked for again and again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct HoleStays;

/// A frame that a server in its right mind does not send.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct BadFrame;

impl Mailbox {
    /// The mailbox as the last process left it.
    pub(crate) fn new(cursors: Vec<Position>) -> Self {
        let channels = cursors
            .into_iter()
            .map(|cursor| (cursor.channel, Channel::new(cursor.id, cursor.incarnation)))
            .collect();
        Self {
            channels,
            storing: VecDeque::new(),
            unacked: BTreeSet::new(),
            unacked_ids: 0,
            ack_due: None,
            holes: BTreeSet::new(),
            is_any_order: false,
            digest: CursorDigest::default(),
        }
    }

    /// Whether messages may overtake each other on the connection that begins.
    pub(crate) fn expect_any_order(&mut self, is_any_order: bool) {
        self.is_any_order = is_any_order;
    }

    /// A connection begins: what the server is told, or knows, are the cursors as they are now.
    pub(crate) fn begin(&mut self) {
        self.channels.values_mut().for_each(Channel::logged_in);
        self.digest = self.count_digest();
    }

    /// The device's list of cursors, for CURSORS: what the server was told.
    pub(crate) fn cursors(&self) -> Vec<Position> {
        let told = |(&channel, state): (&ChannelId, &Channel)| Position {
            channel,
            id: state.told(),
            incarnation: state.incarnation,
        };
        self.channels.iter().map(told).collect()
    }

    /// The digest of that list, as on the wire.
    pub(crate) fn digest(&self) -> u64 {
        debug_assert_eq!(self.digest, self.count_digest(), "it is kept with every change");
        self.digest.to_wire()
    }

    fn count_digest(&self) -> CursorDigest {
        let mut digest = CursorDigest::default();
        for (channel, state) in &self.channels {
            digest.add(*channel, state.told(), state.incarnation);
        }
        digest
    }

    /// A PUSH; `frame` holds `body` and `content`.
    pub(crate) fn handle_push(
        &mut self,
        now: Mono,
        frame: &Bytes,
        (body, content): (&PushBody, &[u8]),
        tuning: &Tuning,
        out: &mut Out,
    ) -> Result<(), BadFrame> {
        if body.id.get() == 0 || body.id.get() == u64::MAX || !body.channel.is_valid() {
            return Err(BadFrame);
        }
        let channel = self.channels.entry(body.channel).or_default();
        let message = Message::of(body, frame.slice_ref(content), channel.incarnation);
        self.take(now, body.channel, Item::Message(Box::new(message)), tuning, out);
        Ok(())
    }

    /// A GAP.
    pub(crate) fn handle_gap(
        &mut self,
        now: Mono,
        gap: &Gap,
        tuning: &Tuning,
        out: &mut Out,
    ) -> Result<(), BadFrame> {
        let (from, to) = (MessageId::from(gap.from), MessageId::from(gap.to));
        if from.0 == 0 || from > to || to.0 == u64::MAX || !gap.channel.is_valid() {
            return Err(BadFrame);
        }
        let item = Item::Gap { from, to, code: Code(gap.code.get()) };
        self.take(now, gap.channel, item, tuning, out);
        Ok(())
    }

    fn take(&mut self, now: Mono, id: ChannelId, item: Item, tuning: &Tuning, out: &mut Out) {
        let channel = self.channels.entry(id).or_default();
        match channel.take(item, tuning.held_messages_max) {
            Taken::Repeat { stored } => {
                out.counters.repeated_pushes += 1;
                if stored {
                    // The server does not know that it is consumed, or it would not say it.
                    self.acknowledge(now, id, tuning);
                }
                return;
            }
            Taken::Dropped => out.counters.held_dropped += 1,
            Taken::Held => {}
            Taken::Ready => self.give_on(now, id, out),
        }
        self.ask(now, id, out);
    }

    /// Gives the application everything that is in order now.
    fn give_on(&mut self, now: Mono, id: ChannelId, out: &mut Out) {
        let channel = self.channels.get_mut(&id).expect("its item was just taken");
        let before = channel.consumed;
        while let Some(item) = channel.next() {
            out.tell(match item {
                Item::Message(message) => Event::Message(*message),
                Item::Gap { from, to, code } => Event::Gap { channel: id, from, to, code },
            });
        }
        channel.progress(now);
        if channel.consumed > before {
            let cursor = cursor(id, channel);
            self.store(cursor, cursor.id.0 - before.0, out);
        }
    }

    /// Asks for the first hole of the channel, unless that is under way. Where messages overtake
    /// each other the server repairs what is lost, and the hole is asked for only if it stays.
    fn ask(&mut self, now: Mono, id: ChannelId, out: &mut Out) {
        let Some(channel) = self.channels.get_mut(&id) else { return };
        if self.is_any_order {
            channel.await_hole(now, FETCH_IDS_MAX);
        } else if let Some((from, to)) = channel.ask(now, FETCH_IDS_MAX) {
            out.counters.fetches += 1;
            out.transmit(frames::fetch(id, from, to));
        }
        if channel.hole.is_some() {
            self.holes.insert(id);
        } else {
            self.holes.remove(&id);
        }
    }

    /// A CHANNEL.
    pub(crate) fn handle_state(
        &mut self,
        now: Mono,
        state: &ChannelState,
        out: &mut Out,
    ) -> Result<(), BadFrame> {
        if state.newest.get() == u64::MAX || !state.channel.is_valid() {
            return Err(BadFrame);
        }
        let id = state.channel;
        let channel = self.channels.entry(id).or_default();
        let before = cursor(id, channel);
        self.digest.remove(id, channel.told(), channel.incarnation);
        let void = channel.handle_state(state);
        self.digest.add(id, channel.told(), channel.incarnation);
        if channel.is_told_of_more() {
            channel.await_hole(now, FETCH_IDS_MAX);
            self.holes.insert(id);
        }
        if let Some(at) = void {
            self.holes.remove(&id);
            self.unacked.remove(&id);
            out.tell(Event::HistoryRestarted { channel: id, at });
        }
        let after = cursor(id, channel);
        if after != before {
            self.store(after, 0, out);
        }
        Ok(())
    }

    /// Whether this would be the first that the connection says of this life of the channel. Later
    /// ones may have been overtaken by pushes.
    pub(crate) fn is_first(&self, state: &ChannelState) -> bool {
        self.channels.get(&state.channel).is_none_or(|channel| channel.is_first(state))
    }

    /// What of a channel the application was given, at most up to `id`.
    pub(crate) fn given(&self, channel: ChannelId, id: MessageId) -> Option<Position> {
        let state = self.channels.get(&channel)?;
        let id = id.min(state.received);
        Some(Position { channel, id, incarnation: state.incarnation })
    }

    /// The application has consumed everything up to here.
    pub(crate) fn consume(&mut self, position: Position, out: &mut Out) {
        let Position { id, incarnation, .. } = position;
        let channel = self.channels.get_mut(&position.channel);
        match channel.and_then(|channel| Some((channel.consume(id, incarnation)?, channel))) {
            None => out.counters.stray_confirmations += 1,
            Some((0, _)) => {}
            Some((ids, channel)) => {
                let cursor = cursor(position.channel, channel);
                self.store(cursor, ids, out);
            }
        }
    }

    fn store(&mut self, cursor: Position, ids: u64, out: &mut Out) {
        let ticket = out.change(Change::Cursor(cursor));
        self.storing.push_back((ticket, cursor, ids));
    }

    /// All batches up to this one are on the disk.
    pub(crate) fn stored(&mut self, now: Mono, ticket: Ticket, live: bool, tuning: &Tuning) {
        while let Some((_, cursor, ids)) = self.storing.pop_front_if(|(of, ..)| *of <= ticket) {
            let channel = self
                .channels
                .get_mut(&cursor.channel)
                .filter(|channel| channel.incarnation == cursor.incarnation);
            let Some(channel) = channel else { continue };
            channel.stored(cursor.id);
            if live && channel.untold().is_some() {
                self.unacked_ids = self.unacked_ids.saturating_add(ids);
                self.acknowledge(now, cursor.channel, tuning);
            }
        }
    }

    fn acknowledge(&mut self, now: Mono, channel: ChannelId, tuning: &Tuning) {
        self.unacked.insert(channel);
        self.ack_due = self.ack_due.or(Some(now.after_ms(tuning.receive_ack_ms)));
    }

    /// Tells the server what is consumed and stored, if it is time, or another frame leaves.
    pub(crate) fn ack(&mut self, now: Mono, tuning: &Tuning, out: &mut Out) {
        let Some(due) = self.ack_due else { return };
        let enough = self.unacked_ids >= u64::from(tuning.receive_ack_messages);
        if due > now && !enough && !out.has_transmitted() {
            return;
        }
        let mut list = Vec::with_capacity(self.unacked.len());
        for id in std::mem::take(&mut self.unacked) {
            let channel = self.channels.get_mut(&id).expect("what is acked is in a channel");
            self.digest.remove(id, channel.told(), channel.incarnation);
            let position =
                Position { channel: id, id: channel.tell(), incarnation: channel.incarnation };
            self.digest.add(id, position.id, position.incarnation);
            list.push(position);
        }
        for page in list.chunks(CURSORS_PER_FRAME_MAX) {
            out.transmit(frames::receive_ack(page));
        }
        (self.unacked_ids, self.ack_due) = (0, None);
    }

    /// Asks again for holes that nobody fills.
    pub(crate) fn ask_again(
        &mut self,
        now: Mono,
        tuning: &Tuning,
        out: &mut Out,
    ) -> Result<(), HoleStays> {
        for id in self.holes.clone() {
            let channel = self.channels.get_mut(&id).expect("a hole is in a channel");
            match channel.hole {
                Some(hole) if now.since_ms(hole.asked) < tuning.fetch_again_ms => {}
                Some(hole) if hole.times >= tuning.fetches_max => return Err(HoleStays),
                _ => match channel.ask_again(now, FETCH_IDS_MAX) {
                    Some((from, to)) => {
                        out.counters.fetches += 1;
                        out.transmit(frames::fetch(id, from, to));
                    }
                    None => {
                        self.holes.remove(&id);
                    }
                },
            }
        }
        Ok(())
    }

    /// The connection is gone; CURSORS says on the next one what the acks would have.
    pub(crate) fn disconnected(&mut self) {
        for channel in self.channels.values_mut() {
            channel.disconnected();
        }
        self.holes.clear();
        self.unacked.clear();
        (self.unacked_ids, self.ack_due) = (0, None);
    }

    /// When an ack is due.
    pub(crate) fn ack_due(&self) -> Option<Mono> {
        self.ack_due
    }

    /// When a hole is asked for again.
    pub(crate) fn fetch_due(&self, tuning: &Tuning) -> Option<Mono> {
        self.holes
            .iter()
            .filter_map(|id| self.channels.get(id)?.hole)
            .map(|hole| hole.asked.after_ms(tuning.fetch_again_ms))
            .min()
    }
}

fn cursor(channel: ChannelId, state: &Channel) -> Position {
    Position { channel, id: state.consumed, incarnation: state.incarnation }
}
