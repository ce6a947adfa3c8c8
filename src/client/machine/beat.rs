//! The heartbeat, and how long silence may last.

use tern_protocol::frames::Network;

use super::frames;
use super::out::Out;
use super::time::Mono;
use super::tuning::Tuning;

/// The beats of one logged-in connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Beat {
    /// Between two beats, as the server asked last.
    interval_ms: u64,
    /// When the next beat is due.
    next: Mono,
    /// When the connection is given up, if a beat waits for an answer.
    answer_due: Option<Mono>,
    /// When the last frame came.
    heard: Mono,
    sequence: u32,
}

impl Beat {
    pub(crate) fn new(now: Mono, interval_ms: u32) -> Self {
        let interval_ms = u64::from(interval_ms.max(1));
        let next = now.after_ms(interval_ms);
        Self { interval_ms, next, answer_due: None, heard: now, sequence: 0 }
    }

    /// Any frame came: someone is there.
    pub(crate) fn heard(&mut self, now: Mono) {
        self.heard = now;
        self.answer_due = None;
    }

    /// The server answered, and asks for this interval.
    pub(crate) fn handle_pong(&mut self, now: Mono, interval_ms: u32) {
        self.interval_ms = u64::from(interval_ms.max(1));
        self.next = now.after_ms(self.interval_ms);
    }

    pub(crate) fn ping(&mut self, now: Mono, network: Network, tuning: &Tuning, out: &mut Out) {
        self.sequence = self.sequence.wrapping_add(1);
        out.transmit(frames::ping(self.sequence, network));
        self.next = now.after_ms(self.interval_ms);
        self.answer_due = self.answer_due.or(Some(now.after_ms(tuning.answer_ms_max)));
    }

    /// When a beat is due.
    pub(crate) fn next(&self) -> Mono {
        self.next
    }

    /// When the connection is given up.
    pub(crate) fn answer_due(&self) -> Option<Mono> {
        self.answer_due
    }

    /// When to ask whether anyone is there, if a send has been on its way since `sent` and no
    /// beat is.
    pub(crate) fn probe_due(&self, sent: Option<Mono>, tuning: &Tuning) -> Option<Mono> {
        match self.answer_due {
            Some(_) => None,
            None => sent.map(|sent| sent.max(self.heard).after_ms(tuning.probe_after_ms)),
        }
    }
}
