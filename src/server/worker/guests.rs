//! What those ask for who are not logged in yet. A handshake costs some tenths of a millisecond, so
//! a crowd that comes at once would hold up everybody who is there for as long as all of it takes.
//! So connection attempts and the packets of guests (clients whose login was not answered) wait,
//! and each turn of the loop does some of it, behind everything that it does for those who are
//! there. What costs little, to refuse, to ignore or to have an address proven first, is decided
//! at once.
//!
//! Worth naming: the packets of a connection keep their order; who has begun comes before who has
//! not; what waits keeps the worker from sleeping.

use std::collections::VecDeque;
use std::net::SocketAddr;

use quinn_proto::{ConnectionEvent, ConnectionId, Incoming};
use tern_core::io::LinkId;

use crate::transport::steering::ID_BYTES;

/// What a turn does for guests, in packets of theirs: with some 40 µs each, who is there waits for
/// a third of a millisecond.
pub(super) const EFFORT_PER_TURN: u32 = 8;

/// What the first half of a handshake costs, in packets: some 150 µs with its signature.
const ATTEMPT_EFFORT: u32 = 4;

/// Attempts taken in one turn at most.
pub(super) const ATTEMPTS_PER_TURN: u32 = EFFORT_PER_TURN / ATTEMPT_EFFORT;

/// Packets of one connection that wait at most: what a client says before its login is answered, and
/// says again where that takes long.
const PARCELS_PER_LINK_MAX: u8 = 32;

/// Packets that wait at most: some of each handshake that may be under way by default, 6 MB where
/// all are long. More are dropped, and QUIC repeats them.
const PARCELS_MAX: usize = 4_096;

/// A packet of a guest, as quinn-proto handed it out.
pub(super) struct Parcel {
    pub(super) link: LinkId,
    pub(super) event: ConnectionEvent,
    /// Where it came from.
    pub(super) remote: SocketAddr,
    /// By which of the server's names for the connection it came, if it said one.
    pub(super) own_id: Option<[u8; ID_BYTES]>,
}

/// What is to be done next.
pub(super) enum Next {
    /// The first half of a handshake.
    Attempt(Incoming, ConnectionId),
    /// Hand a packet to its connection.
    Parcel(Parcel),
}

/// What waits, oldest first.
#[derive(Default)]
pub(super) struct Guests {
    attempts: VecDeque<(Incoming, ConnectionId)>,
    /// Of these, how many come from an address that is not proven.
    unproven: usize,
    parcels: VecDeque<Parcel>,
    /// What was done in this turn, in packets.
    effort: u32,
    /// Attempts taken in this turn.
    taken: u32,
}

impl Guests {
    /// Another turn begins.
    pub(super) fn begin_turn(&mut self) {
        (self.effort, self.taken) = (0, 0);
    }

    /// Whether this turn did something.
    pub(super) fn were_served(&self) -> bool {
        self.effort > 0
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.attempts.is_empty() && self.parcels.is_empty()
    }

    /// How many attempts wait, and how many of them come from an address that is not proven.
    pub(super) fn attempts(&self) -> (usize, usize) {
        (self.attempts.len(), self.unproven)
    }

    /// One more attempt; whether it waits for a later turn.
    pub(super) fn knock(&mut self, incoming: Incoming, client_id: ConnectionId) -> bool {
        self.unproven += usize::from(!incoming.remote_address_validated());
        self.attempts.push_back((incoming, client_id));
        self.attempts.len() > ATTEMPTS_PER_TURN as usize || !self.parcels.is_empty()
    }

    /// One more packet of a connection of which so many wait; whether it waits for a later turn.
    /// `None` if there was no room for it.
    pub(super) fn hand_in(&mut self, parcel: Parcel, of_link: &mut u8) -> Option<bool> {
        if self.parcels.len() >= PARCELS_MAX || *of_link >= PARCELS_PER_LINK_MAX {
            return None;
        }
        *of_link += 1;
        self.parcels.push_back(parcel);
        Some(self.parcels.len() > EFFORT_PER_TURN as usize)
    }

    /// What is next in this turn. An attempt is only begun where it can be done within it.
    pub(super) fn next(&mut self) -> Option<Next> {
        let left = EFFORT_PER_TURN - self.effort;
        if left > 0
            && let Some(parcel) = self.parcels.pop_front()
        {
            self.effort += 1;
            return Some(Next::Parcel(parcel));
        }
        if left < ATTEMPT_EFFORT {
            return None;
        }
        let (incoming, client_id) = self.send_away()?;
        self.effort += ATTEMPT_EFFORT;
        self.taken += 1;
        Some(Next::Attempt(incoming, client_id))
    }

    /// The next attempt, in turn or not: it is sent away.
    pub(super) fn send_away(&mut self) -> Option<(Incoming, ConnectionId)> {
        let next = self.attempts.pop_front()?;
        self.unproven -= usize::from(!next.0.remote_address_validated());
        Some(next)
    }

    /// How many attempts were taken in this turn.
    pub(super) fn taken(&self) -> u32 {
        self.taken
    }
}

const _: () = assert!(ATTEMPTS_PER_TURN > 0, "or nobody ever comes in");
