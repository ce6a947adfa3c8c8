//! The heartbeat, and how long silence may last.

use tern_protocol::frames::{Network, Pong};

use super::frames;
use super::out::Out;
use super::time::Mono;
use super::tuning::Tuning;

/// What a beat says beside that the client is there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Said {
    pub(crate) network: Network,
    /// Of the cursors that the server was told.
    pub(crate) digest: u64,
    /// The interval that the client wants, in ms.
    pub(crate) wanted_ms: u32,
}

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
    /// When the last answer to a beat came, or the login.
    answered: Mono,
    /// Whether the beat under way proves its interval: it came when it was due, and nothing was
    /// heard since the answer before.
    is_quiet: bool,
    sequence: u32,
}

impl Beat {
    pub(crate) fn new(now: Mono, interval_ms: u32) -> Self {
        let interval_ms = u64::from(interval_ms.max(1));
        let next = now.after_ms(interval_ms);
        Self {
            interval_ms,
            next,
            answer_due: None,
            heard: now,
            answered: now,
            is_quiet: false,
            sequence: 0,
        }
    }

    /// Any frame came: someone is there.
    pub(crate) fn heard(&mut self, now: Mono) {
        self.heard = now;
        self.answer_due = None;
    }

    /// The server answered, and asks for this interval. Says which one the beat proved, if any.
    pub(crate) fn handle_pong(&mut self, now: Mono, pong: &Pong) -> Option<u32> {
        let proven = self.proves().filter(|_| pong.sequence.get() == self.sequence);
        self.is_quiet = false;
        self.answered = now;
        self.interval_ms = u64::from(pong.heartbeat_ms.get().max(1));
        self.next = now.after_ms(self.interval_ms);
        proven
    }

    /// The interval, in ms, about which the beat under way decides.
    pub(crate) fn proves(&self) -> Option<u32> {
        let interval_ms = u32::try_from(self.interval_ms).unwrap_or(u32::MAX);
        self.is_quiet.then_some(interval_ms)
    }

    /// Says a beat.
    pub(crate) fn ping(&mut self, now: Mono, said: Said, tuning: &Tuning, out: &mut Out) {
        let is_first = self.answer_due.is_none();
        self.is_quiet = is_first && self.next <= now && self.heard <= self.answered;
        self.sequence = self.sequence.wrapping_add(1);
        out.transmit(frames::ping(self.sequence, said));
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
