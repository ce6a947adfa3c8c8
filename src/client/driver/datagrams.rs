//! Frames that leave by datagram, each a second time where the path may lose packets. The second
//! copy needs no answer of its own: the server knows the key, and the machine repairs what stays
//! unanswered.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;
use quinn::Connection;
use tern_protocol::doubling::{COPY_AFTER, Doubling};

/// The second copies of what leaves by datagram on one connection.
#[derive(Debug, Default)]
pub struct SecondCopies {
    doubling: Doubling,
    /// Which there are, and when they leave.
    waiting: VecDeque<(Instant, Bytes)>,
}

impl SecondCopies {
    /// A frame leaves now, by a path of this round trip. `lost`: how many packets QUIC has lost
    /// since the connection began.
    pub fn first_left(&mut self, frame: Bytes, now: Instant, round_trip: Duration, lost: u64) {
        if self.doubling.is_due(frame.len(), round_trip, lost) {
            self.waiting.push_back((now + COPY_AFTER, frame));
        }
    }

    /// When the next one leaves.
    pub fn due(&self) -> Option<Instant> {
        self.waiting.front().map(|(due, _)| *due)
    }

    /// Takes one that leaves now. If it finds no room, the first may do.
    pub fn take(&mut self, now: Instant) -> Option<Bytes> {
        self.waiting.pop_front_if(|(due, _)| *due <= now).map(|(_, frame)| frame)
    }
}

/// The datagrams of one connection.
pub(super) struct Datagrams<'a> {
    connection: &'a Connection,
    copies: SecondCopies,
}

impl<'a> Datagrams<'a> {
    pub(super) fn new(connection: &'a Connection) -> Self {
        Self { connection, copies: SecondCopies::default() }
    }

    /// Sends a frame by datagram; gives it back if it fits none, or if there is no room for one: a
    /// full buffer would drop an older one.
    pub(super) fn send(&mut self, frame: Bytes) -> Result<(), Bytes> {
        self.give(&frame).map_err(|()| frame.clone())?;
        let path = self.connection.stats().path;
        self.copies.first_left(frame, now(), path.rtt, path.lost_packets);
        Ok(())
    }

    fn give(&self, frame: &Bytes) -> Result<(), ()> {
        let fits = self.connection.max_datagram_size().is_some_and(|most| frame.len() <= most);
        if !fits || self.connection.datagram_send_buffer_space() < frame.len() {
            return Err(());
        }
        self.connection.send_datagram(frame.clone()).map_err(drop)
    }

    /// Waits until a second copy is due; for ever if none is.
    pub(super) async fn copy_due(&self) {
        match self.copies.due() {
            Some(due) => tokio::time::sleep_until(due.into()).await,
            None => std::future::pending().await,
        }
    }

    /// Sends the second copies that are due.
    pub(super) fn send_copies(&mut self) {
        let now = now();
        while let Some(frame) = self.copies.take(now) {
            let _ = self.give(&frame);
        }
    }
}

/// By the clock of tokio, which wakes whoever waits.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
