//! Pushes that travel by datagram, as in the worker's driver: one that is not acknowledged in time
//! goes by stream. The driver reads it from the log once more; here the frame itself is kept.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use quinn_proto::Connection;
use tern_quic::arrivals::Arrivals;

/// What is added to 5/4 of the round trip before a packet counts as lost, as in the driver.
const REPAIR_SLACK: Duration = Duration::from_millis(30);

/// The pushes of one connection that left by datagram and may not have come.
#[derive(Default)]
pub(super) struct Free {
    arrivals: Option<Arc<Arrivals>>,
    pushes: VecDeque<Push>,
    /// The moment that the newest packet with one of them got, which no other has.
    newest: Option<Instant>,
}

struct Push {
    frame: Bytes,
    /// When its packet left; `None` while QUIC holds it.
    sent: Option<Instant>,
}

/// Gives a frame to QUIC as a datagram; it comes back if it fits none, or if there is no room.
pub(super) fn send(connection: &mut Connection, frame: Bytes) -> Result<(), Bytes> {
    let mut datagrams = connection.datagrams();
    let fits = datagrams.max_size().is_some_and(|most| frame.len() <= most);
    if fits && datagrams.send(frame.clone(), false).is_ok() { Ok(()) } else { Err(frame) }
}

impl Free {
    /// Sends a push by datagram; it comes back if it must go by stream.
    pub(super) fn send(&mut self, connection: &mut Connection, frame: Bytes) -> Result<(), Bytes> {
        send(connection, frame.clone())?;
        if self.pushes.is_empty() {
            self.listen(connection);
        }
        self.pushes.push_back(Push { frame, sent: None });
        Ok(())
    }

    fn listen(&mut self, connection: &Connection) {
        self.arrivals = self.arrivals.take().or_else(|| Arrivals::of(connection));
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

    /// The next packet of the connection, at a moment of its own while QUIC holds any push.
    pub(super) fn poll_transmit(
        &mut self,
        connection: &mut Connection,
        now: Instant,
        buffer: &mut Vec<u8>,
    ) -> Option<quinn_proto::Transmit> {
        if self.pushes.back().is_none_or(|push| push.sent.is_some()) {
            return connection.poll_transmit(now, 1, buffer);
        }
        let after = |moment: Instant| moment + Duration::from_nanos(1);
        let at = self.newest.map_or(after(now), |newest| after(newest.max(now)));
        self.newest = Some(at);
        let before = connection.stats().frame_tx.datagram;
        let transmit = connection.poll_transmit(at, 1, buffer);
        let left = connection.stats().frame_tx.datagram - before;
        let held = self.pushes.iter_mut().filter(|push| push.sent.is_none());
        held.take(left as usize).for_each(|push| push.sent = Some(at)); // fits: of one packet
        transmit
    }

    /// Forgets those that have arrived.
    pub(super) fn take_arrivals(&mut self) {
        let Some(arrivals) = &self.arrivals else { return };
        arrivals.take(|sent| self.pushes.retain(|push| push.sent != Some(sent)));
        if self.pushes.is_empty() {
            arrivals.watch(false);
        }
    }

    /// When the oldest counts as lost.
    pub(super) fn deadline(&self, connection: &Connection) -> Option<Instant> {
        Some(self.pushes.front()?.sent? + connection.rtt() * 5 / 4 + REPAIR_SLACK)
    }

    /// Takes the oldest if it counts as lost; it must go by stream.
    pub(super) fn take_lost(&mut self, connection: &Connection, now: Instant) -> Option<Bytes> {
        self.deadline(connection).filter(|deadline| *deadline <= now)?;
        self.arrivals = None;
        let push = self.pushes.pop_front()?;
        self.listen(connection);
        Some(push.frame)
    }
}
