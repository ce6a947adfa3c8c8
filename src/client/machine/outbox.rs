//! The outbox: every send from the application's call to its final answer.
//!
//! A send waits in the *queue* without a key. *Admitted*, it gets its key and is stored; stored,
//! it is transmitted; answered, it stays until the application has settled it. Invariants:
//!
//! - A key is stored before its first frame leaves, and names this one message for ever.
//! - No key of a new epoch is given while one of an older epoch is unsettled.
//! - The oldest unsettled and the newest counter differ by less than the window, so that even
//!   after a crash every key that comes again is within the server's memory.
//! - In a channel, frames leave in the order of the application's calls; when one must leave
//!   again, all later unanswered ones follow it. Each names as predecessor the newest earlier
//!   send that is still unanswered: one that was answered needs no waiting for, and one that was
//!   refused never comes. So a refusal needs no relinking, only the later ones sent again.
//! - A final refusal is stored before it is told: a key told dead is never sent again.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use tern_protocol::frames::{SendAck, SendRefused, content_type, message_kind};
use tern_protocol::group::{self, ChangeView};
use tern_protocol::limits::CONTENT_BYTES_MAX;
use tern_protocol::{
    ChannelId, Class, Code, DeviceId, Epoch, MessageId, SendCounter, SendKey, Uin,
};

use super::frames;
use super::io::{Change, Event, SavedSend, SendId, SendOutcome, SendResult, Ticket, UNMADE};
use super::lane::Lane;
use super::out::Out;
use super::random::Random;
use super::time::Mono;
use super::tuning::Tuning;

/// Round trip in ms that is assumed before the transport has told one.
const RTT_MS: u64 = 100;

/// All sends of the device that are not settled.
#[derive(Debug)]
pub(crate) struct Outbox {
    /// Whose it is: groups are named by it.
    owner: (Uin, DeviceId),
    /// Admitted sends, in the order of their numbers; all before those in `queue`.
    entries: VecDeque<Entry>,
    /// Sends that wait for a key, in the order of their numbers.
    queue: VecDeque<SavedSend>,
    /// The number that the next send gets.
    next: SendId,
    /// The epoch to count in; `None` until the first login.
    epoch: Option<Epoch>,
    /// The next counter in it.
    counter: u32,
    /// How far the oldest unsettled and the newest counter may differ, exclusive.
    window: u32,
    /// The last counter that is used in an epoch.
    counter_max: u32,
    /// Longest content in bytes that the server takes.
    content_bytes_max: usize,
    /// What flows in each channel that has flowed otherwise than freely.
    lanes: BTreeMap<ChannelId, Lane>,
    /// The newest batch on the disk.
    stored: Ticket,
    /// Whether sends may leave by datagram on this connection.
    is_free: bool,
    /// Round trip of the path in ms.
    rtt_ms: u64,
}

/// What a send is, besides its content.
#[derive(Clone, Copy, Debug)]
pub(crate) struct What {
    pub(crate) kind: u8,
    pub(crate) channel: ChannelId,
    pub(crate) content_type: u16,
    pub(crate) refers_to: MessageId,
}

impl Default for What {
    /// For what says nothing of a field.
    fn default() -> Self {
        Self {
            kind: message_kind::CONTENT,
            channel: UNMADE,
            content_type: content_type::OPAQUE,
            refers_to: MessageId(0),
        }
    }
}

/// An admitted send.
#[derive(Debug)]
struct Entry {
    send: SavedSend,
    /// The batch that stores its latest change.
    ticket: Ticket,
    state: Stage,
    /// Whether a frame of it ever left this process.
    left: bool,
}

/// How far a send has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    /// To be transmitted, as soon as it is stored and its channel flows.
    Waiting,
    /// On its way; `free` while it may have been lost for good.
    Sent { at: Mono, free: bool },
    /// Refused for good; told when that is stored.
    Refusing(Code),
    /// Told; waits to be settled.
    Answered,
}

impl Entry {
    fn is_unanswered(&self) -> bool {
        matches!(self.state, Stage::Waiting | Stage::Sent { .. })
    }

    fn result(&self, outcome: SendOutcome) -> Event {
        let SavedSend { id, tag, key, channel, .. } = self.send;
        let member = self.refused_member();
        Event::Result(SendResult { send: id, tag, channel, key, outcome, member })
    }

    /// The user because of whom the change was refused.
    fn refused_member(&self) -> Option<Uin> {
        let place = usize::from(self.send.refused_member).checked_sub(1)?;
        ChangeView::parse(&self.send.content)?.uins().nth(place)
    }
}

impl Outbox {
    /// The outbox as the last process left it.
    pub(crate) fn new(owner: (Uin, DeviceId), sends: Vec<SavedSend>, tuning: &Tuning) -> Self {
        let next = sends.iter().map(|send| send.id.0 + 1).max().unwrap_or(0);
        let (admitted, queue): (Vec<_>, Vec<_>) =
            sends.into_iter().partition(|send| send.key.is_some() || send.refused.is_some());
        let entries = admitted.into_iter().map(|send| Entry {
            state: send.refused.map_or(Stage::Waiting, Stage::Refusing),
            send,
            ticket: Ticket::default(),
            left: false,
        });
        Self {
            owner,
            entries: entries.collect(),
            queue: queue.into(),
            next: SendId(next),
            epoch: None,
            counter: 1,
            window: tuning.unsettled_sends_max,
            counter_max: tuning.counter_max,
            content_bytes_max: CONTENT_BYTES_MAX,
            lanes: BTreeMap::new(),
            stored: Ticket::default(),
            is_free: false,
            rtt_ms: RTT_MS,
        }
    }

    /// The device learned its numbers, before it has sent anything.
    pub(crate) fn owned_by(&mut self, owner: (Uin, DeviceId)) {
        self.owner = owner;
    }

    /// The number that the next send gets.
    pub(crate) fn next(&self) -> SendId {
        self.next
    }

    /// Sends that are not settled: with a key, and still without.
    pub(crate) fn lengths(&self) -> (usize, usize) {
        (self.entries.len(), self.queue.len())
    }

    /// What the server allows, from WELCOME.
    pub(crate) fn limit(&mut self, unacked_max: u16, content_bytes_max: u32, tuning: &Tuning) {
        self.window = tuning.unsettled_sends_max.min(u32::from(unacked_max)).max(1);
        self.content_bytes_max = CONTENT_BYTES_MAX.min(content_bytes_max as usize);
    }

    /// The application sends. Stored without a key if it can't be admitted at once.
    pub(crate) fn send(
        &mut self,
        What { kind, channel, content_type, refers_to }: What,
        content: Bytes,
        tag: u64,
        live: bool,
        out: &mut Out,
    ) {
        let id = self.next;
        self.next = SendId(id.0 + 1);
        self.queue.push_back(SavedSend {
            id,
            tag,
            key: None,
            refused: None,
            refused_member: 0,
            kind,
            channel,
            content_type,
            refers_to,
            content,
        });
        if live {
            self.admit(out);
        }
        if let Some(waiting) = self.queue.back() {
            out.change(Change::Send(waiting.clone()));
        }
    }

    /// The session counts in this epoch from now on.
    pub(crate) fn logged_in(&mut self, epoch: Epoch) {
        if self.epoch == Some(epoch) {
            return;
        }
        // A server that was set back may grant an epoch that was used before.
        let used = self.keys().filter(|key| key.epoch == epoch).map(|key| key.counter.0).max();
        self.epoch = Some(epoch);
        self.counter = used.unwrap_or(0).saturating_add(1);
    }

    /// Whether the epoch's counters are used up while something waits for one.
    pub(crate) fn needs_epoch(&self) -> bool {
        self.epoch.is_some() && self.counter > self.counter_max && !self.queue.is_empty()
    }

    fn keys(&self) -> impl Iterator<Item = SendKey> {
        self.entries.iter().filter_map(|entry| entry.send.key)
    }

    /// Gives keys to what waits, as far as the rules allow.
    pub(crate) fn admit(&mut self, out: &mut Out) {
        while let Some(epoch) = self.epoch.filter(|&epoch| self.may_admit(epoch)) {
            let Some(mut send) = self.queue.pop_front() else { return };
            let state = if send.content.len() > self.content_bytes_max {
                send.refused = Some(Code::ContentTooLong);
                Stage::Refusing(Code::ContentTooLong)
            } else {
                let key = SendKey { epoch, counter: SendCounter(self.counter) };
                if send.channel == UNMADE {
                    send.channel = group::channel_of(self.owner.0, self.owner.1, key);
                }
                send.key = Some(key);
                self.counter = self.counter.checked_add(1).expect("may_admit leaves room");
                Stage::Waiting
            };
            let ticket = out.change(Change::Send(send.clone()));
            self.entries.push_back(Entry { send, ticket, state, left: false });
        }
    }

    fn may_admit(&self, epoch: Epoch) -> bool {
        let oldest = self.keys().next().map_or(self.counter, |key| key.counter.0);
        self.counter <= self.counter_max
            && self.keys().all(|key| key.epoch == epoch)
            && self.counter - oldest < self.window
            && self.entries.len() < 2 * self.window as usize
    }

    /// Transmits what waits, is stored, and whose channel flows.
    pub(crate) fn transmit(&mut self, now: Mono, out: &mut Out) {
        let mut before: BTreeMap<ChannelId, Before> = BTreeMap::new();
        for entry in self.entries.iter_mut().filter(|entry| entry.is_unanswered()) {
            let key = entry.send.key.expect("what is refused without a key is answered");
            let before = before.entry(entry.send.channel).or_default();
            let predecessor = before.unanswered.filter(|older| older.epoch == key.epoch);
            before.unanswered = Some(key);
            if entry.state != Stage::Waiting || before.blocked {
                continue;
            }
            let lane = self.lanes.entry(entry.send.channel).or_default();
            if entry.ticket > self.stored || !lane.flows(now) {
                before.blocked = true;
                continue;
            }
            lane.left();
            let predecessor = predecessor.map_or(SendCounter(0), |older| older.counter);
            out.counters.resends += u64::from(entry.left);
            entry.left = true;
            entry.state = Stage::Sent { at: now, free: self.is_free };
            let frame = frames::send(&entry.send, key, predecessor);
            if self.is_free { out.transmit_free(frame) } else { out.transmit(frame) }
        }
    }

    /// Whether sends may leave by datagram on the connection that begins.
    pub(crate) fn may_be_free(&mut self, is_free: bool) {
        self.is_free = is_free;
    }

    /// The round trip of the path in ms.
    pub(crate) fn set_rtt_ms(&mut self, rtt_ms: u64) {
        self.rtt_ms = rtt_ms;
    }

    /// When a send that left by datagram counts as lost.
    pub(crate) fn repair_due(&self, tuning: &Tuning) -> Option<Mono> {
        let free = self.entries.iter().filter_map(|entry| match entry.state {
            Stage::Sent { at, free: true } => Some(at),
            _ => None,
        });
        Some(free.min()?.after_ms(self.repair_after_ms(tuning)))
    }

    fn repair_after_ms(&self, tuning: &Tuning) -> u64 {
        self.rtt_ms + self.rtt_ms / 4 + tuning.repair_slack_ms
    }

    /// What left by datagram and is not answered in time leaves again, in order and only once:
    /// then QUIC repeats it. It is the same send under the same key, so it does not matter which
    /// one comes.
    pub(crate) fn repair(&mut self, now: Mono, tuning: &Tuning, out: &mut Out) {
        let after_ms = self.repair_after_ms(tuning);
        let mut before: BTreeMap<ChannelId, SendKey> = BTreeMap::new();
        for entry in self.entries.iter_mut().filter(|entry| entry.is_unanswered()) {
            let key = entry.send.key.expect("what is refused without a key is answered");
            let older = before.insert(entry.send.channel, key);
            let Stage::Sent { at, free: true } = entry.state else { continue };
            if now.since_ms(at) < after_ms {
                continue;
            }
            let predecessor = older.filter(|older| older.epoch == key.epoch);
            let predecessor = predecessor.map_or(SendCounter(0), |older| older.counter);
            entry.state = Stage::Sent { at, free: false };
            out.counters.repairs += 1;
            out.transmit(frames::send(&entry.send, key, predecessor));
        }
    }

    /// The server has it.
    pub(crate) fn handle_ack(&mut self, ack: &SendAck, out: &mut Out) {
        let Some(place) = self.unanswered(ack.key(), ack.channel) else {
            out.counters.repeated_answers += 1;
            return;
        };
        self.take_from_lane(place, Lane::acked);
        let entry = &mut self.entries[place];
        entry.state = Stage::Answered;
        let (id, server_time) = (ack.id.into(), ack.server_time.into());
        out.tell(entry.result(SendOutcome::Acked { id, server_time }));
    }

    /// The server does not take it, now or for good.
    pub(crate) fn handle_refusal(
        &mut self,
        now: Mono,
        refusal: &SendRefused,
        tuning: &Tuning,
        random: &mut Random,
        out: &mut Out,
    ) {
        let code = Code(refusal.code.get());
        let Some(place) = self.unanswered(refusal.key(), refusal.channel) else {
            out.counters.repeated_answers += 1;
            return;
        };
        let was_sent = matches!(self.entries[place].state, Stage::Sent { .. });
        self.send_again_from(place);
        if code.class() == Class::Retry {
            let wait = u64::from(refusal.retry_after_ms.get())
                .saturating_add(random.between(0, tuning.retry_jitter_ms));
            self.lanes.entry(refusal.channel).or_default().pause(now.after_ms(wait), was_sent);
            return;
        }
        let entry = &mut self.entries[place];
        entry.state = Stage::Refusing(code);
        entry.send.refused = Some(code);
        entry.send.refused_member = u8::try_from(refusal.member.get()).unwrap_or(0);
        entry.ticket = out.change(Change::Send(entry.send.clone()));
    }

    fn unanswered(&self, key: SendKey, channel: ChannelId) -> Option<usize> {
        self.entries.iter().position(|entry| {
            entry.send.key == Some(key) && entry.send.channel == channel && entry.is_unanswered()
        })
    }

    fn take_from_lane(&mut self, place: usize, how: impl Fn(&mut Lane)) {
        let entry = &self.entries[place];
        if !matches!(entry.state, Stage::Sent { .. }) {
            return;
        }
        if let Some(lane) = self.lanes.get_mut(&entry.send.channel) {
            how(lane);
            if lane.is_idle() {
                self.lanes.remove(&entry.send.channel);
            }
        }
    }

    /// This one and all later unanswered ones of its channel leave again.
    fn send_again_from(&mut self, place: usize) {
        let channel = self.entries[place].send.channel;
        for later in place..self.entries.len() {
            let entry = &self.entries[later];
            if entry.send.channel == channel && matches!(entry.state, Stage::Sent { .. }) {
                self.take_from_lane(later, Lane::came_back);
                self.entries[later].state = Stage::Waiting;
            }
        }
    }

    /// The application knows the result.
    pub(crate) fn settle(&mut self, send: SendId, out: &mut Out) {
        let place = self.entries.binary_search_by_key(&send, |entry| entry.send.id);
        match place {
            Ok(place) if self.entries[place].state == Stage::Answered => {
                self.entries.remove(place);
                out.change(Change::Forget(send));
            }
            _ => out.counters.stray_confirmations += 1,
        }
    }

    /// All batches up to this one are on the disk.
    pub(crate) fn stored(&mut self, ticket: Ticket, out: &mut Out) {
        self.stored = self.stored.max(ticket);
        self.tell_refusals(out);
    }

    /// Tells the refusals that are stored, also those that the last process left untold.
    pub(crate) fn tell_refusals(&mut self, out: &mut Out) {
        for entry in &mut self.entries {
            if let Stage::Refusing(code) = entry.state
                && entry.ticket <= self.stored
            {
                entry.state = Stage::Answered;
                out.tell(entry.result(match code {
                    Code::KeyUnknown => SendOutcome::Unknown,
                    code => SendOutcome::Refused(code),
                }));
            }
        }
    }

    /// The connection is gone: nothing is on its way any more.
    pub(crate) fn disconnected(&mut self) {
        for entry in &mut self.entries {
            if matches!(entry.state, Stage::Sent { .. }) {
                entry.state = Stage::Waiting;
            }
        }
        for lane in self.lanes.values_mut() {
            lane.disconnected();
        }
    }

    /// What has been on its way for too long leaves again.
    pub(crate) fn resend_overdue(&mut self, now: Mono, tuning: &Tuning) {
        while let Some(place) = self.entries.iter().position(|entry| {
            matches!(entry.state, Stage::Sent { at, .. } if now.since_ms(at) >= tuning.resend_after_ms)
        }) {
            self.send_again_from(place);
        }
    }

    /// When the oldest frame that is on its way left.
    pub(crate) fn oldest_sent(&self) -> Option<Mono> {
        self.entries
            .iter()
            .filter_map(|entry| match entry.state {
                Stage::Sent { at, .. } => Some(at),
                Stage::Waiting | Stage::Refusing(_) | Stage::Answered => None,
            })
            .min()
    }

    /// When a paused channel that has something to send flows again.
    pub(crate) fn next_flow(&self, now: Mono) -> Option<Mono> {
        self.entries
            .iter()
            .filter(|entry| entry.state == Stage::Waiting && entry.ticket <= self.stored)
            .filter_map(|entry| self.lanes.get(&entry.send.channel)?.flows_again(now))
            .min()
    }
}

/// What stands before a send in its channel.
#[derive(Default)]
struct Before {
    unanswered: Option<SendKey>,
    blocked: bool,
}
