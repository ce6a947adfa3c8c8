//! The work of the storage's threads without the threads: who has the [`Steps`] decides when each
//! of them does the next bit of its work, so that a simulator can have a crash between any two.
//!
//! The threads of a running server loop over the same steps; nothing here is a second way to do
//! what they do.

use std::sync::Arc;

use tern_core::placement::ShardId;

use crate::io::IoRun;
use crate::log::commit::CommitRun;
use crate::recovery::salvage::SalvageRun;
use crate::upkeep::maintain::Maintenance;

/// What a step came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// Something was done, and there may be more.
    Worked,
    /// There is nothing to do until somebody asks.
    Idle,
    /// The disk is full: the same is to be tried again a little later.
    NoRoom,
    /// The storage has ended.
    Ended,
}

/// The work of a storage that has no threads.
///
/// Dropping it is the death of all threads at once: what they had not done is not done any more.
/// Then the logs may be dropped, and after them the storage.
pub struct Steps {
    pub(crate) commits: Vec<CommitRun>,
    pub(crate) io: IoRun,
    pub(crate) salvage: SalvageRun,
    pub(crate) maintenance: Arc<Maintenance>,
}

impl Steps {
    /// Who commits for a shard, of as many as `commit_threads` says.
    pub fn committer_of(&self, shard: ShardId) -> usize {
        usize::from(shard.0) % self.commits.len()
    }

    /// How many there are that commit.
    pub fn committers(&self) -> usize {
        self.commits.len()
    }

    /// Writes a batch, or syncs what was written by the step before.
    ///
    /// # Panics
    /// If there is no such committer.
    pub fn commit(&mut self, committer: usize) -> Step {
        self.commits[committer].step()
    }

    /// Whether a committer has something to do.
    ///
    /// # Panics
    /// If there is no such committer.
    pub fn is_commit_wanted(&self, committer: usize) -> bool {
        self.commits[committer].is_wanted()
    }

    /// Reads a cold record, or makes the files that are missing.
    pub fn io(&mut self) -> Step {
        self.io.step()
    }

    /// Whether somebody asked for that.
    pub fn is_io_wanted(&self) -> bool {
        self.io.is_wanted()
    }

    /// Makes the files that are missing though nobody asks: to be called now and then, since room
    /// comes unasked.
    pub fn look(&mut self) {
        self.io.look();
    }

    /// Finds the way past one damaged record.
    pub fn salvage(&mut self) -> Step {
        self.salvage.step()
    }

    /// Whether somebody waits for that.
    pub fn is_salvage_wanted(&self) -> bool {
        self.salvage.is_wanted()
    }

    /// Takes a step of the clock, and does all the upkeep that is due, also what failed a moment
    /// ago: to be called now and then.
    pub fn upkeep(&mut self) {
        self.maintenance.pass(true);
    }
}

impl std::fmt::Debug for Steps {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Steps({} committers)", self.commits.len())
    }
}
