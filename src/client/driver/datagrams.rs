//! Frames that leave by datagram, each a second time where the path may lose packets. The second
//! copy needs no answer of its own: the server knows the key, and the machine repairs what stays
//! unanswered.

use std::collections::VecDeque;

use bytes::Bytes;
use quinn::Connection;
use tern_protocol::doubling::{COPY_AFTER, Doubling};
use tokio::time::Instant;

/// The datagrams of one connection.
pub(super) struct Datagrams<'a> {
    connection: &'a Connection,
    doubling: Doubling,
    /// Second copies, and when they leave.
    copies: VecDeque<(Instant, Bytes)>,
}

impl<'a> Datagrams<'a> {
    pub(super) fn new(connection: &'a Connection) -> Self {
        Self { connection, doubling: Doubling::default(), copies: VecDeque::new() }
    }

    /// Sends a frame by datagram; gives it back if it fits none, or if there is no room for one: a
    /// full buffer would drop an older one.
    pub(super) fn send(&mut self, frame: Bytes) -> Result<(), Bytes> {
        self.give(&frame).map_err(|()| frame.clone())?;
        let path = self.connection.stats().path;
        if self.doubling.is_due(frame.len(), path.rtt, path.lost_packets) {
            self.copies.push_back((Instant::now() + COPY_AFTER, frame));
        }
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
        match self.copies.front() {
            Some((due, _)) => tokio::time::sleep_until(*due).await,
            None => std::future::pending().await,
        }
    }

    /// Sends the second copies that are due. For one that finds no room the first may do.
    pub(super) fn send_copies(&mut self) {
        let now = Instant::now();
        while let Some((_, frame)) = self.copies.pop_front_if(|(due, _)| *due <= now) {
            let _ = self.give(&frame);
        }
    }
}
