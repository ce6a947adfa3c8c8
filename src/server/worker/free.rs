//! Pushes that travel by datagram: each for itself, so that a lost one holds up no other. QUIC
//! does not repeat a datagram; a push that is not acknowledged in time is read from the log once
//! more and goes by stream, which QUIC repeats until it comes. On a path that may lose packets a
//! push leaves by two datagrams, a moment apart. Or the other way round: pushes go by stream, and
//! what is not acknowledged in time goes once more by datagram, past a stream that waits.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use quinn_proto::Connection;
use tern_protocol::doubling::Doubling;

use super::flight::{Flight, Place};
use crate::alloc::{Scope, enter};
use crate::transport::arrivals::Arrivals;
use crate::transport::settings::FreePushes;

/// What is added to 5/4 of the round trip before a packet counts as lost: a client may collect its
/// acknowledgements for 25 ms (RFC 9000 §18.2), and its timers are late by some.
const REPAIR_SLACK: Duration = Duration::from_millis(30);

/// The pushes of one connection that need not keep their order and may not have come.
pub(super) struct Free {
    how: FreePushes,
    /// What has arrived on the present path; `None` before the first push on it.
    arrivals: Option<Arc<Arrivals>>,
    flight: Flight,
    doubling: Doubling,
}

impl Free {
    /// None yet.
    pub(super) fn new(how: FreePushes) -> Self {
        let doubling = match how {
            FreePushes::Doubled => Doubling::default(),
            FreePushes::Single | FreePushes::Repeated => Doubling::never(),
        };
        Self { how, arrivals: None, flight: Flight::default(), doubling }
    }

    /// A push was written to the stream, and is to be repeated by datagram if it does not come.
    pub(super) fn follow(&mut self, connection: &Connection, place: Place) {
        if self.flight.is_empty() {
            self.listen(connection);
        }
        self.flight.add(place, false);
    }

    /// Gives a push to quinn-proto; the bytes come back if it fits no datagram, if there is no
    /// room for one now, or if the client takes none.
    pub(super) fn send(
        &mut self,
        connection: &mut Connection,
        bytes: Bytes,
        place: Place,
    ) -> Result<(), Bytes> {
        let length = bytes.len();
        self.give(connection, bytes)?;
        let lost = connection.stats().path.lost_packets;
        let doubles = self.doubling.is_due(length, connection.rtt(), lost);
        self.flight.add(place, doubles);
        Ok(())
    }

    /// Gives the second copy of a push to quinn-proto, if there is room for it.
    pub(super) fn send_copy(
        &mut self,
        connection: &mut Connection,
        bytes: Bytes,
        place: Place,
    ) -> bool {
        let is_given = self.give(connection, bytes).is_ok();
        if is_given {
            self.flight.add(place, false);
        }
        is_given
    }

    /// Gives a push to quinn-proto that also went by stream, where its loss is noticed.
    pub(super) fn repeat(&mut self, connection: &mut Connection, bytes: Bytes) -> bool {
        let _quic = enter(Scope::Quic);
        let mut datagrams = connection.datagrams();
        let fits = datagrams.max_size().is_some_and(|most| bytes.len() <= most);
        fits && datagrams.send(bytes, false).is_ok()
    }

    fn give(&mut self, connection: &mut Connection, bytes: Bytes) -> Result<(), Bytes> {
        let _quic = enter(Scope::Quic);
        let mut datagrams = connection.datagrams();
        if datagrams.max_size().is_none_or(|most| bytes.len() > most) {
            return Err(bytes);
        }
        if datagrams.send(bytes.clone(), false).is_err() {
            return Err(bytes);
        }
        if self.flight.is_empty() {
            self.listen(connection);
        }
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
        self.doubling.moved();
        if !self.flight.is_empty() {
            self.listen(connection);
        }
    }

    /// Whether quinn-proto holds any.
    pub(super) fn is_held(&self) -> bool {
        self.flight.is_held()
    }

    /// Frames of the kind that carries them which have left so far.
    pub(super) fn frames(&self, connection: &Connection) -> u64 {
        let sent = connection.stats().frame_tx;
        match self.how {
            FreePushes::Doubled | FreePushes::Single => sent.datagram,
            FreePushes::Repeated => sent.stream,
        }
    }

    /// So many more frames of that kind are in a packet of this moment: a datagram is one push, a
    /// frame of the stream has room for all that was written.
    pub(super) fn left(&mut self, frames: u64, at: Instant) {
        let pushes = match self.how {
            FreePushes::Repeated if frames > 0 => u64::MAX,
            _ => frames,
        };
        self.flight.left(pushes, at);
    }

    /// Forgets those that have arrived.
    pub(super) fn take_arrivals(&mut self) {
        let (Some(arrivals), false) = (&self.arrivals, self.flight.is_empty()) else { return };
        let flight = &mut self.flight;
        arrivals.take(|sent| flight.arrived(sent));
        if flight.is_empty() {
            arrivals.watch(false);
        }
    }

    /// When the oldest counts as lost, or the next second copy is to leave.
    pub(super) fn deadline(&self, connection: &Connection) -> Option<Instant> {
        self.flight.deadline(repair_after(connection))
    }

    /// Takes a push of which a second copy must leave now.
    pub(super) fn take_copy(&mut self, now: Instant) -> Option<Place> {
        self.flight.take_copy(now)
    }

    /// Takes the oldest push that counts as lost; it must go the other way.
    pub(super) fn take_lost(&mut self, connection: &Connection, now: Instant) -> Option<Place> {
        let lost = self.flight.take_lost(now, repair_after(connection));
        if self.flight.is_empty() {
            self.arrivals.take().inspect(|arrivals| arrivals.watch(false));
        } else if lost.is_some() {
            // Should the path have changed back without a word, its own arrivals are listened to.
            self.arrivals = None;
            self.listen(connection);
        }
        lost
    }
}

fn repair_after(connection: &Connection) -> Duration {
    connection.rtt() * 5 / 4 + REPAIR_SLACK
}
