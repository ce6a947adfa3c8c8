//! The client as a sans-IO state machine: it decides everything and does nothing.
//!
//! It reads no clock, opens no file or socket, starts no thread and draws no random number but
//! from its seed. Its driver, in each turn:
//!
//! 1. says one [`Input`] by [`Machine::handle`], with the time;
//! 2. drains [`Machine::poll_effect`] to `None` and carries the effects out, in order;
//! 3. sleeps until something comes, or until [`Machine::poll_timeout`], and then says
//!    [`Input::Tick`].
//!
//! Rooms: `link` opens and loses the connection, `outbox` brings sends to their answers,
//! `mailbox` brings pushes to the application, `groups` asks who is in one, `marks` knows how far
//! users have read, `histories` looks
//! back, `blocks` knows whom the user does not want to hear, `beat` notices silence.

mod counters;
mod io;
mod time;
mod tuning;

mod link;

mod lane;
mod outbox;

mod channel;
mod mailbox;

mod blocks;
mod groups;
mod histories;
mod marks;

mod backoff;
mod beat;
mod frames;
mod interval;
mod out;
mod random;

#[cfg(test)]
mod tests;

use bytes::Bytes;
use tern_protocol::frames::{GroupPage, Marks as MarksHead, Network, Pong, message_kind};
use tern_protocol::{ChannelId, Code, Flags, Frame, MessageId, Uin};

use backoff::Backoff;
use beat::Said;
use blocks::Blocks;
use groups::Groups;
use histories::Histories;
use interval::Intervals;
use link::{Phase, Session};
use mailbox::Mailbox;
use marks::Marks;
use out::Out;
use outbox::{Outbox, What};
use random::Random;

pub use counters::Counters;
pub use io::{
    BlockPage, Change, Effect, End, Event, Identity, Input, Message, Position, Proof, Saved,
    SavedSend, SendId, SendOutcome, SendResult, State, Ticket, UNMADE,
};
pub use time::{Mono, Steady};
pub use tuning::Tuning;

/// One device's side of the protocol.
#[derive(Debug)]
pub struct Machine {
    identity: Identity,
    tuning: Tuning,
    network: Network,
    phase: Phase,
    session: Option<Session>,
    outbox: Outbox,
    mailbox: Mailbox,
    groups: Groups,
    blocks: Blocks,
    marks: Marks,
    histories: Histories,
    backoff: Backoff,
    intervals: Intervals,
    random: Random,
    out: Out,
}

impl Machine {
    /// A machine that goes on where `saved` stopped, and asks at once for a connection. `seed`
    /// drives all jitter: it must differ between devices and between starts.
    pub fn new(
        now: Mono,
        identity: Identity,
        network: Network,
        tuning: Tuning,
        seed: u64,
        saved: Saved,
    ) -> Self {
        let mut out = Out::default();
        let has_cursors = !saved.cursors.is_empty();
        let histories = Histories::new(saved.newcomer, has_cursors, &tuning, &mut out);
        let mut machine = Self {
            outbox: Outbox::new((identity.uin, identity.device), saved.sends, &tuning),
            mailbox: Mailbox::new(saved.cursors),
            groups: Groups::default(),
            blocks: Blocks::default(),
            marks: Marks::new(saved.reads),
            histories,
            identity,
            tuning,
            network,
            phase: Phase::Waiting { until: now, told: false },
            session: None,
            backoff: Backoff::default(),
            intervals: Intervals::new(&saved.intervals),
            random: Random::new(seed),
            out,
        };
        machine.outbox.tell_refusals(&mut machine.out);
        machine.connect(now);
        machine
    }

    /// Something came in.
    pub fn handle(&mut self, now: Mono, input: Input) {
        match input {
            Input::Connected => self.handle_connected(now),
            Input::Frame(frame) => self.handle_frame(now, &frame),
            Input::Disconnected { code } => self.handle_disconnected(now, code),
            Input::Send { channel, content_type, content, tag } => {
                let kind = message_kind::CONTENT;
                self.send(What { kind, channel, content_type, ..What::default() }, content, tag);
            }
            Input::Change { channel, content, tag } => {
                let (kind, channel) = (message_kind::CHANGE, channel.unwrap_or(UNMADE));
                self.send(What { kind, channel, ..What::default() }, content, tag);
            }
            Input::Recall { channel, id: refers_to, tag } => {
                let kind = message_kind::RECALL;
                let what = What { kind, channel, refers_to, ..What::default() };
                self.send(what, Bytes::new(), tag);
            }
            Input::Edit { channel, id: refers_to, content_type, content, tag } => {
                let kind = message_kind::EDIT;
                self.send(What { kind, channel, refers_to, content_type }, content, tag);
            }
            Input::Block { uin, begins } => self.blocks.wish(uin, begins),
            Input::BlockList { after } => self.blocks.ask_page(after),
            Input::GroupInfo { channel, after } => self.groups.ask(channel, after),
            Input::Read { channel, id } => self.read(now, channel, id),
            Input::GroupReceipts { channel, id } => self.marks.ask_receipts(channel, id),
            Input::History { channel, before, limit } => {
                self.histories.ask(channel, before, limit);
            }
            Input::Unread(which) => self.marks.ask_unread(which),
            Input::Settled(send) => self.outbox.settle(send, &mut self.out),
            Input::Delivered(position) => self.mailbox.consume(position, &mut self.out),
            Input::Stored(ticket) => {
                self.outbox.stored(ticket, &mut self.out);
                self.mailbox.stored(now, ticket, self.is_live(), &self.tuning);
            }
            Input::StoreFailed => self.end(End::StoreFailed, Code::Internal),
            Input::Prove(proof) => self.identity.proof = proof,
            Input::NetworkChanged(network) => self.handle_network(now, network),
            Input::Logout => self.logout(),
            Input::Tick => self.handle_tick(now),
        }
        self.flow(now);
        self.out.end_turn();
    }

    fn send(&mut self, what: What, content: Bytes, tag: u64) {
        let live = self.is_live();
        self.outbox.send(what, content, tag, live, &mut self.out);
    }

    fn read(&mut self, now: Mono, channel: ChannelId, id: MessageId) {
        match self.mailbox.given(channel, id) {
            Some(at) => self.marks.read(now, at, &self.tuning, &mut self.out),
            None => self.out.counters.stray_confirmations += 1,
        }
    }

    /// The next thing to do, until `None`.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.out.poll()
    }

    /// When to say [`Input::Tick`] at the latest, and what for.
    pub fn poll_timeout(&self, now: Mono) -> Option<(Mono, &'static str)> {
        let live = self.poll_live_timeout(now);
        let phase = match self.phase {
            Phase::Waiting { until, .. } => Some((until, "reconnect")),
            Phase::Opening { until } => Some((until, "opening a connection")),
            Phase::Greeting { until, .. } | Phase::LoggingIn { until, .. } => {
                Some((until, "login"))
            }
            Phase::Live { .. } | Phase::Ended => None,
        };
        phase.into_iter().chain(live).min_by_key(|(when, _)| *when)
    }

    fn poll_live_timeout(&self, now: Mono) -> Option<(Mono, &'static str)> {
        let Phase::Live { beat, .. } = self.phase else { return None };
        let sent = self.outbox.oldest_sent();
        let resend = sent.map(|sent| sent.after_ms(self.tuning.resend_after_ms));
        [
            (Some(beat.next()), "heartbeat"),
            (beat.answer_due(), "no answer to a heartbeat"),
            (beat.probe_due(sent, &self.tuning), "silence during sends"),
            (resend, "unanswered send"),
            (self.outbox.repair_due(&self.tuning), "repair of a datagram"),
            (self.outbox.next_flow(now), "retry after refusal"),
            (self.mailbox.ack_due(), "ack of what was consumed"),
            (self.mailbox.fetch_due(&self.tuning), "hole in a channel"),
            (self.blocks.due(), "a block that could not be changed"),
            (self.marks.due(), "what was read is told"),
            (self.histories.due(), "a page of history is asked for again"),
        ]
        .into_iter()
        .filter_map(|(when, why)| Some((when?, why)))
        .min_by_key(|(when, _)| *when)
    }

    /// The round trip of the path in ms, as the transport measures it; repairs are timed by it.
    pub fn set_rtt_ms(&mut self, rtt_ms: u64) {
        self.outbox.set_rtt_ms(rtt_ms);
    }

    /// The number that the next [`Input::Send`] gets.
    pub fn next_send(&self) -> SendId {
        self.outbox.next()
    }

    /// Sends that are not settled: those with a key, and those that still wait for one.
    pub fn unsettled(&self) -> (usize, usize) {
        self.outbox.lengths()
    }

    /// Counts since the start.
    pub fn counters(&self) -> &Counters {
        &self.out.counters
    }

    fn handle_frame(&mut self, now: Mono, bytes: &Bytes) {
        if matches!(self.phase, Phase::Waiting { .. } | Phase::Opening { .. } | Phase::Ended) {
            return;
        }
        let Ok((frame, flags)) = Frame::parse(bytes) else { return self.bad_frame(now) };
        if let Phase::Live { beat, .. } = &mut self.phase {
            beat.heard(now);
        }
        match frame {
            Frame::Welcome(welcome) => self.handle_welcome(now, welcome),
            Frame::Identity(identity) => self.handle_identity(now, identity),
            Frame::LoggedIn(logged_in) => self.handle_logged_in(now, logged_in),
            Frame::Error(error, _) => self.handle_error(now, error),
            Frame::Close(close, _) => self.handle_close(now, close),
            Frame::Unknown(..) => self.out.counters.unknown_frames += 1,
            Frame::GroupPage(head, rest) if self.is_live() => {
                self.handle_page(now, (head, rest), flags.has(Flags::LAST));
            }
            Frame::BlockPage(head, rest) if self.is_live() => {
                let (after, is_last) = (Uin::from(head.after), flags.has(Flags::LAST));
                if self.blocks.handle_page(after, rest, is_last, &mut self.out).is_err() {
                    self.bad_frame(now);
                }
            }
            Frame::Marks(head, rest) if self.is_live() => {
                self.handle_marks(now, (head, rest), flags.has(Flags::LAST));
            }
            Frame::History(head, rest) if self.is_live() => {
                let (page, is_last) = ((head, rest), flags.has(Flags::LAST));
                if self.histories.handle_page(bytes, page, is_last, &mut self.out).is_err() {
                    self.bad_frame(now);
                }
            }
            frame if self.is_live() => self.handle_live_frame(now, bytes, frame),
            _ => self.bad_frame(now),
        }
    }

    fn handle_live_frame(&mut self, now: Mono, bytes: &Bytes, frame: Frame<'_>) {
        let Self { tuning, out, mailbox, outbox, blocks, marks, random, .. } = self;
        let handled = match frame {
            Frame::SendAck(ack) => {
                outbox.handle_ack(ack, out);
                Ok(())
            }
            Frame::SendRefused(refusal) => {
                outbox.handle_refusal(now, refusal, tuning, random, out);
                Ok(())
            }
            Frame::Push(body, content) => {
                mailbox.handle_push(now, bytes, (body, content), tuning, out)
            }
            Frame::Gap(gap) => mailbox.handle_gap(now, gap, tuning, out),
            Frame::Blocked(answer) => {
                let wait_ms = random.between(1, tuning.retry_jitter_ms);
                blocks.handle_answer(now, answer, wait_ms, out)
            }
            Frame::Channel(state) => {
                marks.handle_state(state, mailbox.is_first(state), out);
                mailbox.handle_state(now, state, out)
            }
            Frame::Receipts(counts) => marks.handle_receipts(counts, out),
            Frame::Unread(counts) => marks.handle_unread(counts, out),
            Frame::ChannelsShown(_) => {
                self.histories.handle_shown(&mut self.out);
                Ok(())
            }
            Frame::Pong(pong) => {
                self.handle_pong(now, pong);
                Ok(())
            }
            Frame::AskCursors(_) => {
                self.out.counters.cursors_asked += 1;
                self.say_cursors();
                Ok(())
            }
            _ => Err(mailbox::BadFrame),
        };
        if handled.is_err() {
            self.bad_frame(now);
        }
    }

    fn handle_page(&mut self, now: Mono, page: (&GroupPage, &[u8]), is_last: bool) {
        if self.groups.handle_page(page, is_last, &mut self.out).is_err() {
            self.bad_frame(now);
        }
    }

    fn handle_marks(&mut self, now: Mono, marks: (&MarksHead, &[u8]), is_last: bool) {
        let end = (is_last, self.identity.uin);
        let handled = self.marks.handle_marks(now, marks, end, &self.tuning, &mut self.out);
        if handled.is_err() {
            self.bad_frame(now);
        }
    }

    fn handle_network(&mut self, now: Mono, network: Network) {
        self.network = network;
        match &mut self.phase {
            // Another network makes no room in the server that named the time.
            Phase::Waiting { told: false, .. } => {
                self.backoff.reset();
                self.connect(now);
            }
            Phase::Live { .. } => self.beat(now),
            _ => {}
        }
    }

    fn handle_tick(&mut self, now: Mono) {
        match self.phase {
            Phase::Waiting { until, .. } if until <= now => self.connect(now),
            Phase::Opening { until }
            | Phase::Greeting { until, .. }
            | Phase::LoggingIn { until, .. }
                if until <= now =>
            {
                self.give_up(now, Code::TooSlow);
            }
            Phase::Live { beat, .. } => match beat.answer_due() {
                Some(due) if due <= now => {
                    self.interval_lost(beat.proves());
                    self.give_up(now, Code::Offline);
                }
                _ => self.tick_live(now),
            },
            _ => {}
        }
    }

    fn tick_live(&mut self, now: Mono) {
        let sent = self.outbox.oldest_sent();
        let Phase::Live { beat, .. } = &mut self.phase else { return };
        let probe = beat.probe_due(sent, &self.tuning);
        if beat.next() <= now || probe.is_some_and(|due| due <= now) {
            self.beat(now);
        }
        self.outbox.repair(now, &self.tuning, &mut self.out);
        self.outbox.resend_overdue(now, &self.tuning);
        if self.mailbox.ask_again(now, &self.tuning, &mut self.out).is_err() {
            self.give_up(now, Code::Offline);
        }
    }

    /// What a beat, or the first frame of a connection, says.
    fn said(&self) -> Said {
        let (network, digest) = (self.network, self.mailbox.digest());
        Said { network, digest, wanted_ms: self.intervals.wanted_ms(network) }
    }

    fn beat(&mut self, now: Mono) {
        let said = self.said();
        if let Phase::Live { beat, .. } = &mut self.phase {
            beat.ping(now, said, &self.tuning, &mut self.out);
        }
    }

    fn handle_pong(&mut self, now: Mono, pong: &Pong) {
        let Phase::Live { beat, .. } = &mut self.phase else { return };
        let proven = beat.handle_pong(now, pong);
        self.intervals.told(self.network, pong.heartbeat_ms.get());
        match proven {
            Some(_) if pong.moved != 0 => self.interval_lost(proven),
            Some(ms) => {
                let learned = self.intervals.answered(self.network, ms);
                self.remember_interval(learned);
            }
            None => {}
        }
    }

    /// A quiet beat got no answer after so many ms, or from behind another binding.
    fn interval_lost(&mut self, ms: Option<u32>) {
        let Some(ms) = ms else { return };
        self.out.counters.intervals_lost += 1;
        let learned = self.intervals.lost(self.network, ms);
        self.remember_interval(learned);
    }

    fn remember_interval(&mut self, learned: Option<u32>) {
        if let Some(ms) = learned {
            self.out.change(Change::Interval { network: self.network, ms });
        }
    }

    /// Lets everything that may leave now leave.
    fn flow(&mut self, now: Mono) {
        if !self.is_live() {
            return;
        }
        self.outbox.admit(&mut self.out);
        self.outbox.transmit(now, &mut self.out);
        self.groups.flow(&mut self.out);
        self.blocks.flow(now, &mut self.out);
        self.marks.flow(now, &self.tuning, &mut self.out);
        self.histories.flow(now, &mut self.out);
        self.mailbox.ack(now, &self.tuning, &mut self.out);
        if self.outbox.needs_epoch() && self.outbox.lengths().0 == 0 {
            self.renew_epoch(now);
        }
    }
}
