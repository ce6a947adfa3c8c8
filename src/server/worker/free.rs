//! Pushes that travel by datagram: each for itself, so that a lost one holds up no other. QUIC
//! does not repeat a datagram; a push that is not acknowledged in time is read from the log once
//! more and goes by stream, which QUIC repeats until it comes.
//!
//! Invariants: an entry stands for a datagram that quinn-proto holds or has sent, in that order;
//! it leaves when its packet has arrived, or when the push goes by stream. A packet is known by
//! the moment of its sending, which no other packet of the connection has.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use quinn_proto::Connection;
use tern_core::log::Offset;
use tern_core::placement::ShardId;

use crate::alloc::{Scope, enter};
use crate::transport::arrivals::Arrivals;

/// What is added to 5/4 of the round trip before a packet counts as lost: a client may collect its
/// acknowledgements for 25 ms (RFC 9000 §18.2), and its timers are late by some.
const REPAIR_SLACK: Duration = Duration::from_millis(30);

/// The pushes of one connection that left by datagram and may not have come.
#[derive(Default)]
pub(super) struct Free {
    /// What has arrived on the present path; `None` before the first push on it.
    arrivals: Option<Arc<Arrivals>>,
    pushes: VecDeque<FreePush>,
}

/// One of them.
#[derive(Clone, Copy)]
struct FreePush {
    shard: ShardId,
    at: Offset,
    /// When its packet left; `None` while quinn-proto holds it.
    sent: Option<Instant>,
}

impl Free {
    /// Gives a push to quinn-proto; the bytes come back if it fits no datagram, if there is no
    /// room for one now, or if the client takes none.
    pub(super) fn send(
        &mut self,
        connection: &mut Connection,
        bytes: Bytes,
        (shard, at): (ShardId, Offset),
    ) -> Result<(), Bytes> {
        let _quic = enter(Scope::Quic);
        let mut datagrams = connection.datagrams();
        if datagrams.max_size().is_none_or(|most| bytes.len() > most) {
            return Err(bytes);
        }
        if datagrams.send(bytes.clone(), false).is_err() {
            return Err(bytes);
        }
        if self.pushes.is_empty() {
            self.listen(connection);
        }
        self.pushes.push_back(FreePush { shard, at, sent: None });
        Ok(())
    }

    /// Listens to the path that the connection is on now.
    fn listen(&mut self, connection: &Connection) {
        if self.arrivals.is_none() {
            self.arrivals = Arrivals::of(connection);
        }
        if let Some(arrivals) = &self.arrivals {
            arrivals.watch(true);
        }
    }

    /// The connection is on another path, which has arrivals of its own.
    pub(super) fn moved(&mut self, connection: &Connection) {
        self.arrivals = None;
        if !self.pushes.is_empty() {
            self.listen(connection);
        }
    }

    /// Whether quinn-proto holds any.
    pub(super) fn is_held(&self) -> bool {
        self.pushes.back().is_some_and(|push| push.sent.is_none())
    }

    /// The next `count` of those that quinn-proto held are in a packet of this moment.
    pub(super) fn left(&mut self, count: u64, at: Instant) {
        let held = self.pushes.iter_mut().filter(|push| push.sent.is_none());
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        held.take(count).for_each(|push| push.sent = Some(at));
    }

    /// Forgets those that have arrived.
    pub(super) fn take_arrivals(&mut self) {
        let (Some(arrivals), false) = (&self.arrivals, self.pushes.is_empty()) else { return };
        let pushes = &mut self.pushes;
        arrivals.take(|sent| pushes.retain(|push| push.sent != Some(sent)));
        if pushes.is_empty() {
            arrivals.watch(false);
        }
    }

    /// When the oldest counts as lost.
    pub(super) fn deadline(&self, connection: &Connection) -> Option<Instant> {
        Some(self.pushes.front()?.sent? + repair_after(connection))
    }

    /// Takes the oldest if it counts as lost; it must go by stream.
    pub(super) fn take_lost(
        &mut self,
        connection: &Connection,
        now: Instant,
    ) -> Option<(ShardId, Offset)> {
        self.deadline(connection).filter(|deadline| *deadline <= now)?;
        // Should the path have changed back without a word, its own arrivals are listened to.
        self.arrivals = None;
        let push = self.pushes.pop_front()?;
        self.listen(connection);
        Some((push.shard, push.at))
    }
}

fn repair_after(connection: &Connection) -> Duration {
    connection.rtt() * 5 / 4 + REPAIR_SLACK
}
