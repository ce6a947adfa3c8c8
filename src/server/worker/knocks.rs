//! Connection attempts that wait for their turn. To take one costs the first half of a handshake,
//! some tenths of a millisecond with its signature; a crowd that comes at once would hold up
//! everybody who is there already for as long as all of them take. So a turn of the loop takes a
//! few, between two of which those who talk are served. What costs little, to refuse, to ignore
//! or to have an address proven first, is decided at once and waits for nothing.

use std::collections::VecDeque;

use quinn_proto::{ConnectionId, Incoming};

/// Attempts taken in one turn: with some 150 µs each, who talks waits for half a millisecond.
pub(super) const ATTEMPTS_PER_TURN: usize = 4;

/// Attempts that wait, oldest first.
#[derive(Default)]
pub(super) struct Knocks {
    waiting: VecDeque<(Incoming, ConnectionId)>,
    /// Of these, how many come from an address that is not proven.
    unproven: usize,
    /// Taken in this turn.
    taken: usize,
}

impl Knocks {
    /// Another turn begins.
    pub(super) fn begin_turn(&mut self) {
        self.taken = 0;
    }

    /// How many wait, and how many of them come from an address that is not proven.
    pub(super) fn waiting(&self) -> (usize, usize) {
        (self.waiting.len(), self.unproven)
    }

    /// One more comes. If it is its turn, it comes back.
    pub(super) fn come(
        &mut self,
        incoming: Incoming,
        client_id: ConnectionId,
    ) -> Option<(Incoming, ConnectionId)> {
        if self.waiting.is_empty() && self.taken < ATTEMPTS_PER_TURN {
            self.taken += 1;
            return Some((incoming, client_id));
        }
        self.unproven += usize::from(!incoming.remote_address_validated());
        self.waiting.push_back((incoming, client_id));
        None
    }

    /// The next one whose turn it is.
    pub(super) fn next(&mut self) -> Option<(Incoming, ConnectionId)> {
        if self.taken >= ATTEMPTS_PER_TURN {
            return None;
        }
        let next = self.take()?;
        self.taken += 1;
        Some(next)
    }

    /// The next one, in turn or not: it is sent away.
    pub(super) fn take(&mut self) -> Option<(Incoming, ConnectionId)> {
        let next = self.waiting.pop_front()?;
        self.unproven -= usize::from(!next.0.remote_address_validated());
        Some(next)
    }

    /// How many were taken in this turn.
    pub(super) fn taken(&self) -> usize {
        self.taken
    }
}
