//! The server's process: its workers with their inboxes and the rings between them.

mod encode;

pub use encode::{Shown, encode, encode_close, encode_push};

use std::collections::VecDeque;

use tern_core::Worker;
use tern_core::io::Input;
use tern_core::mail::{Address, Mail};
use tern_core::placement::Placement;
use tern_core::time::Mono;

use crate::disk::door::{AnyLog, AnyReader, AnyTable};

/// The worker that ships, over the simulated disk or the real storage.
pub type SimWorker = Worker<AnyLog, AnyTable, AnyReader>;

/// A running server.
pub struct Server {
    /// Which process this is.
    pub generation: u64,
    /// When it started, in ms of the world's clock.
    pub born: u64,
    /// What its own clock said then.
    pub mono_at_birth: u64,
    /// Who owns what.
    pub placement: Placement,
    /// Its workers.
    pub seats: Vec<Seat>,
}

/// A worker and what waits for it.
pub struct Seat {
    /// The worker.
    pub worker: SimWorker,
    /// Frames, proofs, answers, in order of arrival.
    pub inbox: VecDeque<Input>,
    /// Mail from each other worker.
    pub rings: Vec<Ring>,
    /// When its next turn is.
    pub turn_at: Option<u64>,
    /// It stands still until then.
    pub paused_until: u64,
    /// Ticks in a row that changed nothing.
    pub idle_ticks: u32,
}

/// Mail on its way from one worker to another.
#[derive(Default)]
pub struct Ring {
    /// The mail, in order.
    pub mail: VecDeque<(Address, Mail)>,
    /// None of it arrives before.
    pub blocked_until: u64,
}

impl Server {
    /// The server's own clock at this moment of the world.
    pub fn mono(&self, now: u64) -> Mono {
        Mono(self.mono_at_birth + (now - self.born))
    }

    /// The world's time of a moment of the server's own clock.
    pub fn world_time(&self, mono: Mono) -> u64 {
        self.born + mono.0.saturating_sub(self.mono_at_birth)
    }
}

impl Seat {
    /// A worker with nothing to do.
    pub fn new(worker: SimWorker, workers: u16) -> Self {
        Self {
            worker,
            inbox: VecDeque::new(),
            rings: (0..workers).map(|_| Ring::default()).collect(),
            turn_at: None,
            paused_until: 0,
            idle_ticks: 0,
        }
    }

    /// Rings with mail that may be taken now.
    pub fn ready_rings(&self, now: u64) -> Vec<usize> {
        let ready = |ring: &Ring| !ring.mail.is_empty() && ring.blocked_until <= now;
        (0..self.rings.len()).filter(|from| ready(&self.rings[*from])).collect()
    }

    /// When the first ring with mail that is held back can be looked at.
    pub fn ring_due(&self) -> Option<u64> {
        let waiting = self.rings.iter().filter(|ring| !ring.mail.is_empty());
        waiting.map(|ring| ring.blocked_until).min()
    }
}
