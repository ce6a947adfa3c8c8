//! One channel as the device reads it: what was given to the application, what it has consumed,
//! and what waits behind a hole.
//!
//! ```text
//!   1 … consumed        received   hole      held
//!   ────────────┼──────────────┼─ ─ ─ ─┤▓▓▓▓├─ ─┤▓▓├ ─ ─  newest
//!    stored, acked    with the application     waits
//! ```

use std::collections::{BTreeMap, VecDeque};

use tern_protocol::frames::ChannelState;
use tern_protocol::{Code, Incarnation, MessageId};

use super::io::Message;
use super::time::Mono;

/// Lives of a history that are told apart when the application confirms late: a server has one
/// more with each loss or restored backup.
const LIVES_MAX: usize = 16;

/// The reading of one channel.
#[derive(Debug, Default)]
pub(crate) struct Channel {
    /// The life of the history.
    pub(crate) incarnation: Incarnation,
    /// Lives that began in this process, with the first id of each that does not stand for what
    /// was given before; both rise.
    lives: Vec<(Incarnation, MessageId)>,
    /// Everything up to here the application has consumed; its cursor.
    pub(crate) consumed: MessageId,
    /// Everything up to here was given to the application or stepped over.
    pub(crate) received: MessageId,
    /// The newest id that was seen in any frame.
    newest: MessageId,
    /// The cursor as it is on the disk.
    stored: MessageId,
    /// The newest id that this connection has shown; an ack may not go beyond.
    shown: MessageId,
    /// What the server was told on this connection.
    told: MessageId,
    /// Whether this connection has spoken of the channel.
    is_heard: bool,
    /// What was stepped over between `consumed` and `received`: first and last ids.
    steps: VecDeque<(MessageId, MessageId)>,
    /// What came from behind a hole, by its first id.
    held: BTreeMap<MessageId, Item>,
    /// The hole that was asked for.
    pub(crate) hole: Option<Hole>,
}

/// A range that was asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Hole {
    pub(crate) to: MessageId,
    pub(crate) asked: Mono,
    pub(crate) times: u32,
}

/// One step of a channel.
#[derive(Debug)]
pub(crate) enum Item {
    Message(Box<Message>),
    Gap { from: MessageId, to: MessageId, code: Code },
}

impl Item {
    fn first(&self) -> MessageId {
        match self {
            Self::Message(message) => message.position.id,
            Self::Gap { from, .. } => *from,
        }
    }

    fn last(&self) -> MessageId {
        match self {
            Self::Message(message) => message.position.id,
            Self::Gap { to, .. } => *to,
        }
    }
}

/// What became of an item that came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Taken {
    /// It can be given on, see [`Channel::next`].
    Ready,
    /// All of it was there before; `stored` if it is behind the stored cursor too.
    Repeat { stored: bool },
    /// It waits behind a hole.
    Held,
    /// There is no room to hold it; it is fetched later.
    Dropped,
}

impl Channel {
    /// A channel whose cursor is known.
    pub(crate) fn new(consumed: MessageId, incarnation: Incarnation) -> Self {
        Self {
            incarnation,
            consumed,
            received: consumed,
            newest: consumed,
            stored: consumed,
            ..Self::default()
        }
    }

    /// A connection begins, and the server is told the cursor.
    pub(crate) fn logged_in(&mut self) {
        (self.shown, self.told) = (self.consumed, self.consumed);
        self.is_heard = false;
    }

    /// The cursor is on the disk.
    pub(crate) fn stored(&mut self, id: MessageId) {
        self.stored = self.stored.max(id);
    }

    /// What the server may be told beyond what it was.
    pub(crate) fn untold(&self) -> Option<MessageId> {
        let untold = self.stored.min(self.shown);
        (untold > self.told).then_some(untold)
    }

    /// Whether this would be the first that the connection says of this life of the channel.
    pub(crate) fn is_first(&self, state: &ChannelState) -> bool {
        self.incarnation != Incarnation::from(state.incarnation) || !self.is_heard
    }

    /// What the server was told.
    pub(crate) fn told(&self) -> MessageId {
        self.told
    }

    /// Whether the server spoke of messages that it does not push, and nothing is in the way of
    /// asking for them.
    pub(crate) fn is_told_of_more(&self) -> bool {
        self.hole.is_none() && self.newest > self.received && self.consumed == self.received
    }

    /// The server is told all that it may be.
    pub(crate) fn tell(&mut self) -> MessageId {
        self.told = self.told.max(self.stored.min(self.shown));
        self.told
    }

    /// Takes what came; `held_max` bounds what may wait.
    pub(crate) fn take(&mut self, item: Item, held_max: usize) -> Taken {
        let (first, last) = (item.first(), item.last());
        self.shown = self.shown.max(last);
        self.is_heard = true;
        if last <= self.received {
            return Taken::Repeat { stored: last <= self.stored };
        }
        self.newest = self.newest.max(last);
        if first <= self.received.next() {
            self.held.insert(self.received.next(), item);
            return Taken::Ready;
        }
        if self.held.len() >= held_max {
            return Taken::Dropped;
        }
        self.held.insert(first, item);
        Taken::Held
    }

    /// The next item in order, if it is there.
    pub(crate) fn next(&mut self) -> Option<Item> {
        while let Some(entry) = self.held.first_entry() {
            if *entry.key() > self.received.next() {
                return None;
            }
            let item = entry.remove();
            if item.last() <= self.received {
                continue;
            }
            let from = self.received.next();
            self.received = item.last();
            return Some(match item {
                Item::Gap { to, code, .. } => {
                    self.step_over(from, to);
                    Item::Gap { from, to, code }
                }
                message @ Item::Message(_) => message,
            });
        }
        None
    }

    fn step_over(&mut self, from: MessageId, to: MessageId) {
        if self.consumed.next() == from {
            self.consumed = to;
        } else {
            self.steps.push_back((from, to));
        }
    }

    /// The application has consumed everything up to `id`, of this life of the history; what was
    /// stepped over right behind it counts too. Returns how many ids that is; `None` if it was not
    /// given so much, or what it was given is void.
    pub(crate) fn consume(&mut self, id: MessageId, life: Incarnation) -> Option<u64> {
        let next = self.lives.iter().find(|(later, _)| *later > life);
        let is_void = next.is_some_and(|(_, first)| id >= *first);
        if id > self.received || life > self.incarnation || is_void {
            return None;
        }
        let before = self.consumed;
        self.consumed = self.consumed.max(id);
        while let Some(&(from, to)) = self.steps.front()
            && from <= self.consumed.next()
        {
            self.consumed = self.consumed.max(to);
            self.steps.pop_front();
        }
        Some(self.consumed.0 - before.0)
    }

    /// The first hole that is not asked for yet, at most `ids_max` long; remembers that it is.
    pub(crate) fn ask(&mut self, now: Mono, ids_max: u64) -> Option<(MessageId, MessageId)> {
        if self.hole.is_some_and(|hole| hole.to <= self.received) {
            self.hole = None;
        }
        if self.hole.is_some() {
            return None;
        }
        self.open(now, ids_max, 1)
    }

    /// Notes the first hole as one that was not asked for yet.
    pub(crate) fn await_hole(&mut self, now: Mono, ids_max: u64) {
        if self.hole.is_some_and(|hole| hole.to <= self.received) {
            self.hole = None;
        }
        if self.hole.is_none() {
            self.open(now, ids_max, 0);
        }
    }

    /// Asks for the open hole once more.
    pub(crate) fn ask_again(&mut self, now: Mono, ids_max: u64) -> Option<(MessageId, MessageId)> {
        let times = self.hole?.times + 1;
        self.open(now, ids_max, times)
    }

    fn open(&mut self, now: Mono, ids_max: u64, times: u32) -> Option<(MessageId, MessageId)> {
        let from = self.received.next();
        let end = self.held.keys().next().map_or(self.newest, |first| MessageId(first.0 - 1));
        if end < from {
            self.hole = None;
            return None;
        }
        let to = end.min(MessageId(self.received.0.saturating_add(ids_max)));
        self.hole = Some(Hole { to, asked: now, times });
        Some((from, to))
    }

    /// The hole is being filled: the wait for it starts anew.
    pub(crate) fn progress(&mut self, now: Mono) {
        if let Some(hole) = &mut self.hole {
            (hole.asked, hole.times) = (now, 1);
        }
    }

    /// The connection is gone; the next one brings everything behind the cursor again.
    pub(crate) fn disconnected(&mut self) {
        self.held.clear();
        self.hole = None;
        self.newest = self.received;
    }

    /// The server says what there is. Returns the first id that is void, if what was known is.
    pub(crate) fn handle_state(&mut self, state: &ChannelState) -> Option<MessageId> {
        let is_first = self.is_first(state);
        self.is_heard = true;
        let incarnation = Incarnation::from(state.incarnation);
        let was = std::mem::replace(&mut self.incarnation, incarnation);
        let newest = MessageId::from(state.newest);
        let is_other_life = was != incarnation && was != Incarnation(0);
        let restarted = is_other_life.then(|| MessageId(state.restarted_at.get().max(1)));
        if was != incarnation {
            self.begin_life(restarted.unwrap_or(MessageId(u64::MAX)));
        }
        // Of a group less may be left to who is in it no longer, since that life. A connection
        // says that first; later, pushes by datagram may have overtaken what it says.
        let beyond = (self.received > newest && is_first).then(|| newest.next());
        if was == incarnation && beyond.is_none() {
            self.newest = self.newest.max(newest);
        }
        let void = restarted.into_iter().chain(beyond).min()?;
        self.forget_from(void);
        Some(void)
    }

    /// Nothing that was given stands for an id from `first` on. Of too many lives the oldest two
    /// become one, in which less counts.
    fn begin_life(&mut self, first: MessageId) {
        while self.lives.pop_if(|(_, before)| *before >= first).is_some() {}
        self.lives.push((self.incarnation, first));
        if self.lives.len() > LIVES_MAX {
            self.lives[1].1 = self.lives[0].1;
            self.lives.remove(0);
        }
    }

    fn forget_from(&mut self, void: MessageId) {
        let last = MessageId(void.0 - 1);
        self.received = self.received.min(last);
        self.consumed = self.consumed.min(last);
        self.stored = self.stored.min(last);
        self.shown = self.shown.min(last);
        self.told = self.told.min(last);
        self.newest = self.received;
        self.held.clear();
        self.hole = None;
        self.steps.retain(|step| step.0 <= last);
        if let Some(step) = self.steps.back_mut() {
            step.1 = step.1.min(last);
        }
    }
}
