//! Pushes that travel by datagram: each for itself, so that a lost one holds up no other. QUIC
//! does not repeat a datagram; a push that is not acknowledged in time is read from the log once
//! more and goes by stream, which QUIC repeats until it comes. On a path that may lose packets a
//! push leaves by two datagrams, a moment apart. Or the other way round: pushes go by stream, and
//! what is not acknowledged in time goes once more by datagram, past a stream that waits.
//!
//! Who carries the pushes tells [`Free`] what was said and when packets leave, and does what
//! [`Free::take_due`] wants; the bytes of a push are not kept here, only what it is remembered by.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use quinn_proto::{Connection, Transmit};
use tern_protocol::doubling::Doubling;

use crate::arrivals::Arrivals;
use crate::flight::Flight;
use crate::settings::FreePushes;

/// What is added to 5/4 of the round trip before a packet counts as lost: a client may collect its
/// acknowledgements for 25 ms (RFC 9000 §18.2), and its timers are late by some.
const REPAIR_SLACK: Duration = Duration::from_millis(30);

/// By so much the moments of two packets differ at least.
const TICK: Duration = Duration::from_nanos(1);

/// What is to be done now for a push that may not have come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Due<P> {
    /// Its second copy leaves, by [`Free::send_copy`].
    Copy(P),
    /// It counts as lost, and goes by stream.
    Lost(P),
    /// The stream has not brought it in time; it goes past it, by [`Free::repeat`].
    Late(P),
}

/// The pushes of one connection that need not keep their order and may not have come. `P` is what
/// a push is remembered by; no two pushes share one.
#[derive(Debug)]
pub struct Free<P> {
    how: FreePushes,
    /// What has arrived on the present path; `None` before the first push on it.
    arrivals: Option<Arc<Arrivals>>,
    flight: Flight<P>,
    doubling: Doubling,
    /// The newest moment that a packet with a push got.
    newest: Option<Instant>,
}

impl<P: Clone + PartialEq> Free<P> {
    /// None yet.
    pub fn new(how: FreePushes) -> Self {
        let doubling = match how {
            FreePushes::Doubled => Doubling::default(),
            FreePushes::Single | FreePushes::Repeated => Doubling::never(),
        };
        Self { how, arrivals: None, flight: Flight::default(), doubling, newest: None }
    }

    /// Gives a push to quinn-proto; the bytes come back if they go by stream: always, if that is
    /// how pushes travel; else if they fit no datagram, if there is no room for one now, or if the
    /// client takes none.
    pub fn send(
        &mut self,
        connection: &mut Connection,
        bytes: Bytes,
        push: P,
    ) -> Result<(), Bytes> {
        if self.how == FreePushes::Repeated {
            self.note(connection, push, false);
            return Err(bytes);
        }
        let length = bytes.len();
        give(connection, bytes)?;
        let lost = connection.stats().path.lost_packets;
        let doubles = self.doubling.is_due(length, connection.rtt(), lost);
        self.note(connection, push, doubles);
        Ok(())
    }

    /// Gives the second copy of a push to quinn-proto, if there is room for it.
    pub fn send_copy(&mut self, connection: &mut Connection, bytes: Bytes, push: P) -> bool {
        let is_given = give(connection, bytes).is_ok();
        if is_given {
            self.note(connection, push, false);
        }
        is_given
    }

    /// Gives a push to quinn-proto that also went by stream, where its loss is noticed.
    pub fn repeat(&self, connection: &mut Connection, bytes: Bytes) -> bool {
        give(connection, bytes).is_ok()
    }

    /// quinn-proto has a copy of a push, and its arrival is listened for.
    fn note(&mut self, connection: &Connection, push: P, doubles: bool) {
        if self.flight.is_empty() {
            self.listen(connection);
        }
        self.flight.add(push, doubles);
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
    pub fn moved(&mut self, connection: &Connection) {
        self.arrivals = None;
        self.doubling.moved();
        if !self.flight.is_empty() {
            self.listen(connection);
        }
    }

    /// Whether none is waited for.
    pub fn is_empty(&self) -> bool {
        self.flight.is_empty()
    }

    /// The next packets of the connection. While it has pushes that leave it is one packet at a
    /// time, each at a moment of its own by which its arrival is known: nanoseconds behind `now`,
    /// which all other packets have.
    pub fn poll_transmit(
        &mut self,
        connection: &mut Connection,
        now: Instant,
        segments: usize,
        into: &mut Vec<u8>,
    ) -> Option<Transmit> {
        if !self.flight.is_held() {
            return connection.poll_transmit(now, segments, into);
        }
        let at = self.newest.map_or(now, |newest| newest.max(now)) + TICK;
        self.newest = Some(at);
        let before = self.frames(connection);
        let transmit = connection.poll_transmit(at, 1, into);
        self.left(self.frames(connection) - before, at);
        transmit
    }

    /// Frames of the kind that carries them which have left so far.
    fn frames(&self, connection: &Connection) -> u64 {
        let sent = connection.stats().frame_tx;
        match self.how {
            FreePushes::Doubled | FreePushes::Single => sent.datagram,
            FreePushes::Repeated => sent.stream,
        }
    }

    /// So many more frames of that kind are in a packet of this moment: a datagram is one push, a
    /// frame of the stream has room for all that was written.
    fn left(&mut self, frames: u64, at: Instant) {
        let pushes = match self.how {
            FreePushes::Repeated if frames > 0 => u64::MAX,
            _ => frames,
        };
        self.flight.left(pushes, at);
    }

    /// Forgets those that have arrived.
    pub fn take_arrivals(&mut self) {
        let (Some(arrivals), false) = (&self.arrivals, self.flight.is_empty()) else { return };
        let flight = &mut self.flight;
        arrivals.take(|sent| flight.arrived(sent));
        if flight.is_empty() {
            arrivals.watch(false);
        }
    }

    /// When the oldest counts as lost, or the next second copy is to leave.
    pub fn deadline(&self, connection: &Connection) -> Option<Instant> {
        self.flight.deadline(repair_after(connection))
    }

    /// Takes a push for which something is to be done now.
    pub fn take_due(&mut self, connection: &Connection, now: Instant) -> Option<Due<P>> {
        // What has arrived since the last look is not lost, however late this one is.
        self.take_arrivals();
        if let Some(push) = self.flight.take_copy(now) {
            return Some(Due::Copy(push));
        }
        let push = self.take_lost(connection, now)?;
        Some(match self.how {
            FreePushes::Doubled | FreePushes::Single => Due::Lost(push),
            FreePushes::Repeated => Due::Late(push),
        })
    }

    /// Takes the oldest push that counts as lost.
    fn take_lost(&mut self, connection: &Connection, now: Instant) -> Option<P> {
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

/// Gives a datagram to quinn-proto; the bytes come back if it does not take them.
pub fn give(connection: &mut Connection, bytes: Bytes) -> Result<(), Bytes> {
    let mut datagrams = connection.datagrams();
    let fits = datagrams.max_size().is_some_and(|most| bytes.len() <= most);
    if fits && datagrams.send(bytes.clone(), false).is_ok() { Ok(()) } else { Err(bytes) }
}

fn repair_after(connection: &Connection) -> Duration {
    connection.rtt() * 5 / 4 + REPAIR_SLACK
}
