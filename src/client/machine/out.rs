//! Where the rooms of the machine leave what they want done.

use std::collections::VecDeque;

use bytes::Bytes;

use super::counters::Counters;
use super::io::{Change, Effect, Event, Ticket};

/// Effects in order, and the batch of changes that this turn gathers.
#[derive(Debug, Default)]
pub(crate) struct Out {
    effects: VecDeque<Effect>,
    changes: Vec<Change>,
    last: Ticket,
    transmitted: bool,
    pub(crate) counters: Counters,
}

impl Out {
    pub(crate) fn transmit(&mut self, frame: Bytes) {
        self.transmitted = true;
        self.effects.push_back(Effect::Transmit(frame));
    }

    pub(crate) fn transmit_free(&mut self, frame: Bytes) {
        self.transmitted = true;
        self.effects.push_back(Effect::TransmitFree(frame));
    }

    pub(crate) fn tell(&mut self, event: Event) {
        self.effects.push_back(Effect::Tell(event));
    }

    pub(crate) fn effect(&mut self, effect: Effect) {
        self.effects.push_back(effect);
    }

    /// Adds to this turn's batch and returns the batch's name.
    pub(crate) fn change(&mut self, change: Change) -> Ticket {
        self.changes.push(change);
        Ticket(self.last.0 + 1)
    }

    /// Whether a frame leaves in this turn, so that another travels at no cost.
    pub(crate) fn has_transmitted(&self) -> bool {
        self.transmitted
    }

    /// Ends a turn: what it changed becomes one batch.
    pub(crate) fn end_turn(&mut self) {
        self.transmitted = false;
        if self.changes.is_empty() {
            return;
        }
        self.last = Ticket(self.last.0 + 1);
        let changes = std::mem::take(&mut self.changes);
        self.effects.push_back(Effect::Persist { changes, ticket: self.last });
    }

    pub(crate) fn poll(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }
}
