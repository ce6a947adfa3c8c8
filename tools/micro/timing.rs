//! Deadlines of connections: one moves, mostly to later, and the earliest is asked for, with ten
//! thousand of them; now and then the earliest has come.

use std::hint::black_box;
use std::time::{Duration, Instant};

use super::Operation;
use super::timers::Timers;

/// Connections.
const CONNECTIONS: u32 = 10_000;

/// A step through them that has no divisor in common with their number.
const STRIDE: u32 = 7_919;

/// How far ahead deadlines are: between a probe and a heartbeat.
const AHEAD: Duration = Duration::from_secs(1);

/// How much time passes from one move to the next.
const TICK: Duration = Duration::from_micros(50);

/// Deadlines.
pub struct Timing {
    timers: Timers,
    now: Instant,
    index: u32,
}

impl Timing {
    /// Every connection has one.
    pub fn new() -> Self {
        let mut timing = Self { timers: Timers::default(), now: Instant::now(), index: 0 };
        (0..CONNECTIONS).for_each(|_| timing.once());
        timing
    }
}

impl Default for Timing {
    fn default() -> Self {
        Self::new()
    }
}

impl Operation for Timing {
    fn once(&mut self) {
        self.index = (self.index + STRIDE) % CONNECTIONS;
        self.now += TICK;
        self.timers.set(black_box(self.index), self.now + AHEAD);
        while let Some(index) = self.timers.pop_due(self.now) {
            self.timers.set(black_box(index), self.now + AHEAD);
        }
        black_box(self.timers.next());
    }
}
