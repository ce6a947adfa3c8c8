//! Who speaks on a connection of the load, without IO: bytes come in, bytes to say and [`Event`]s
//! go out. The devices of the scenarios are one kind, those of a replayed capture another.

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::device::{Device, Event};

/// One end of a conversation.
pub trait Speaker {
    /// Begins anew on another connection; resumes its session if it is asked to and can.
    fn reconnect(&mut self, resume: bool);

    /// Bytes to write to the stream; what could not be written stays.
    fn outbox(&mut self) -> &mut Vec<u8>;

    /// The next frame that leaves by datagram.
    fn poll_datagram(&mut self) -> Option<Bytes>;

    /// The round trip of the path.
    fn set_rtt(&mut self, rtt: Duration);

    /// When [`handle_timeout`](Self::handle_timeout) is due.
    fn poll_timeout(&self) -> Option<Instant>;

    /// Says what is due.
    fn handle_timeout(&mut self, now: Instant);

    /// Takes bytes of the stream. `share` (0 to 1) places the first heartbeat in its interval.
    fn handle_bytes(
        &mut self,
        now: Instant,
        bytes: &[u8],
        share: f64,
        tell: &mut impl FnMut(Event),
    );

    /// Takes a datagram: one whole frame.
    fn handle_datagram(&mut self, now: Instant, bytes: &[u8], tell: &mut impl FnMut(Event));
}

impl Speaker for Device {
    fn reconnect(&mut self, resume: bool) {
        self.reconnect(resume);
    }

    fn outbox(&mut self) -> &mut Vec<u8> {
        self.outbox()
    }

    fn poll_datagram(&mut self) -> Option<Bytes> {
        self.poll_datagram()
    }

    fn set_rtt(&mut self, rtt: Duration) {
        self.set_rtt(rtt);
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.poll_timeout()
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.handle_timeout(now);
    }

    fn handle_bytes(
        &mut self,
        now: Instant,
        bytes: &[u8],
        share: f64,
        tell: &mut impl FnMut(Event),
    ) {
        self.handle_bytes(now, bytes, share, tell);
    }

    fn handle_datagram(&mut self, now: Instant, bytes: &[u8], tell: &mut impl FnMut(Event)) {
        self.handle_datagram(now, bytes, tell);
    }
}
