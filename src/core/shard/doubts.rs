//! Keys that may be those of lost messages: a message that was its device's newest is named by no
//! link, so once it can't be read only its place tells that it was there.
//!
//! Comes in: what a replay found lost. Goes out: whether one may stand between a message and the
//! next one of its device. Worth naming: a new message links to the newest that can be read, past
//! what is lost, so a link proves nothing about what it passes.

use rustc_hash::FxHashSet;

use crate::log::Offset;

/// The places of a shard's log at which a message of any device may be lost.
#[derive(Default)]
pub(super) struct Doubts {
    /// Messages that were their device's newest that could be read when another one was lost;
    /// none stands for devices without such a message.
    newest: FxHashSet<Offset>,
    /// Ranges of which nothing is known: first and end. A message of any device can be in them.
    ranges: Vec<(Offset, Offset)>,
}

impl Doubts {
    pub(super) fn new(newest: FxHashSet<Offset>, ranges: Vec<(Offset, Offset)>) -> Self {
        Self { newest, ranges }
    }

    /// Whether a message of the device of the one at `older` may be lost that came after it and
    /// before `newer`.
    pub(super) fn between(&self, older: Offset, newer: Offset) -> bool {
        let mut ranges = self.ranges.iter();
        self.newest.contains(&older) || ranges.any(|(at, end)| older < *end && *at < newer)
    }
}
