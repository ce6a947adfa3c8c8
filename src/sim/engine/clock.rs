//! The clocks of the simulated machine, as the storage reads them.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};

use tern_storage::{ClockSource, Reading};

use crate::world::WALL_AT_START;

/// What the machine's clocks say; the world sets them.
#[derive(Debug, Default)]
pub struct Hands {
    /// Time of the world in ms.
    now: AtomicU64,
    /// By how much the wall clock is off.
    wall_offset: AtomicI64,
    /// Time in which nothing happened, beside that of the world.
    skipped: AtomicU64,
    /// Time that never went by: a defect.
    lied: AtomicU64,
    /// When the machine was booted, by the world's time and what was skipped.
    booted: AtomicU64,
}

impl Hands {
    pub(super) fn set(&self, now_ms: u64, wall_offset_ms: i64) {
        self.now.store(now_ms, Relaxed);
        self.wall_offset.store(wall_offset_ms, Relaxed);
    }

    pub(super) fn skip(&self, ms: u64) {
        self.skipped.fetch_add(ms, Relaxed);
    }

    pub(super) fn lie(&self, ms: u64) {
        self.lied.fetch_add(ms, Relaxed);
    }

    pub(super) fn boot(&self) {
        self.booted.store(self.confirmed_ms(), Relaxed);
    }

    /// What an age may be reckoned by.
    pub(super) fn confirmed_ms(&self) -> u64 {
        self.now.load(Relaxed) + self.skipped.load(Relaxed)
    }
}

impl ClockSource for Hands {
    fn now(&self) -> Reading {
        let passed = self.confirmed_ms() + self.lied.load(Relaxed);
        let wall = WALL_AT_START + passed as i64 + self.wall_offset.load(Relaxed); // fits: days
        Reading {
            wall_ms: wall.max(0).unsigned_abs(),
            boot_ms: passed - self.booted.load(Relaxed).min(passed),
        }
    }
}
