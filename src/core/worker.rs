//! One thread's share of the server: its sessions and its shards behind one mouth.

use crate::config::Config;
use crate::counters::Counters;
use crate::dedup::DedupTable;
use crate::io::{Effect, Input};
use crate::log::{Log, Reader};
use crate::mail::{Address, Mail};
use crate::placement::{Placement, WorkerId};
use crate::shard::Shard;
use crate::time::{Mono, Now};

/// Everything one worker decides.
///
/// Its driver, in each turn of its loop:
///
/// 1. calls [`handle`](Self::handle) for each thing that came in (frames, mail, proofs, answers,
///    a deadline that passed), and after each of them drains
///    [`poll_effect`](Self::poll_effect) to `None`;
/// 2. calls [`commit`](Self::commit) once, so that everything the turn appended goes to the disk
///    as one batch;
/// 3. drains [`poll_mail`](Self::poll_mail) for each other worker while that one's mailbox has
///    room; what has none stays here, and asks again next turn;
/// 4. sleeps no longer than [`poll_timeout`](Self::poll_timeout) says, then says
///    [`Input::Tick`].
pub struct Worker<L, T, R> {
    id: WorkerId,
    placement: Placement,
    config: Config,
    reader: R,
    shards: Vec<Shard<L, T>>,
    counters: Counters,
}

impl<L: Log, T: DedupTable, R: Reader> Worker<L, T, R> {
    /// A worker that owns `shards`, each recovered, and reads all shards by `reader`.
    pub fn new(
        id: WorkerId,
        placement: Placement,
        config: Config,
        reader: R,
        shards: Vec<Shard<L, T>>,
    ) -> Self {
        Self { id, placement, config, reader, shards, counters: Counters::default() }
    }

    /// Something came in.
    pub fn handle(&mut self, now: Now, input: Input) {
        let _ = (now, input);
    }

    /// The next thing to do, until `None`.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        None
    }

    /// The next mail for another worker, until `None`.
    pub fn poll_mail(&mut self, to: WorkerId) -> Option<(Address, Mail)> {
        let _ = to;
        None
    }

    /// Ends a turn: hands what was appended to the commit.
    pub fn commit(&mut self) {}

    /// When to say [`Input::Tick`] at the latest, and what for.
    pub fn poll_timeout(&self) -> Option<(Mono, &'static str)> {
        None
    }

    /// Counts since the start.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Connections, and those of them with a session that is logged in.
    pub fn sessions(&self) -> (usize, usize) {
        (0, 0)
    }
}
