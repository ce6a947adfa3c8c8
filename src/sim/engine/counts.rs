//! What the storage did in one run or in many.

use std::fmt::{Display, Formatter, Result};
use std::ops::AddAssign;

/// What the storage did, for people.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct EngineCounts {
    /// Logs that were opened.
    pub opened: u64,
    /// Of these, logs whose last batch was torn.
    pub torn: u64,
    /// Of these, logs that were closed in order.
    pub clean: u64,
    /// Of these, logs that were opened from a checkpoint.
    pub from_checkpoint: u64,
    /// Deduplication tables that were taken over.
    pub tables_kept: u64,
    /// Checkpoints made.
    pub checkpoints: u64,
    /// Segments deleted.
    pub segments_deleted: u64,
    /// Ways found past damaged records.
    pub salvaged: u64,
    /// Logs that were opened with acks that wait for no sync.
    pub unsynced: u64,
    /// Logs that began a new life, since a power cut may have taken what was acked.
    pub lives_ended: u64,
    /// Deaths in the middle of a change to the disk.
    pub deaths_inside: u64,
    /// Batches written, and syncs.
    pub commit_steps: u64,
}

impl Display for EngineCounts {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        write!(
            f,
            "storage: {} logs opened ({} closed in order before, {} torn, {} from a checkpoint, {} \
             with their table, {} whose acks wait for no sync), {} steps of commits, {} checkpoints made, {} segments deleted, {} \
             ways found past damage, {} new lives after a power cut, {} deaths in the middle of a change",
            self.opened,
            self.clean,
            self.torn,
            self.from_checkpoint,
            self.tables_kept,
            self.unsynced,
            self.commit_steps,
            self.checkpoints,
            self.segments_deleted,
            self.salvaged,
            self.lives_ended,
            self.deaths_inside
        )
    }
}

impl AddAssign for EngineCounts {
    fn add_assign(&mut self, other: Self) {
        self.opened += other.opened;
        self.torn += other.torn;
        self.clean += other.clean;
        self.from_checkpoint += other.from_checkpoint;
        self.tables_kept += other.tables_kept;
        self.checkpoints += other.checkpoints;
        self.segments_deleted += other.segments_deleted;
        self.salvaged += other.salvaged;
        self.unsynced += other.unsynced;
        self.lives_ended += other.lives_ended;
        self.deaths_inside += other.deaths_inside;
        self.commit_steps += other.commit_steps;
    }
}
