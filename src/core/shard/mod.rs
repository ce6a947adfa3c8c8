//! A shard: a set of channels and uins with its own log, counters and deduplication.

pub mod records;

use tern_protocol::{Incarnation, MessageId};

use crate::dedup::DedupTable;
use crate::log::{Log, Offset, Record};
use crate::placement::{Placement, ShardId};

/// A shard's state while its log is replayed.
pub struct Recovery<T> {
    id: ShardId,
    placement: Placement,
    table: T,
    table_applied: Offset,
}

/// A record that passed its checksum and yet makes no sense where it stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReplayError {
    /// Where.
    pub at: Offset,
    /// What is wrong.
    pub what: String,
}

impl<T: DedupTable> Recovery<T> {
    /// Starts a replay. `table` already knows the log before `table_applied`.
    pub fn new(id: ShardId, placement: Placement, table: T, table_applied: Offset) -> Self {
        Self { id, placement, table, table_applied }
    }

    /// Takes the next record of the log, in order. `end` is where the next one can begin.
    ///
    /// # Errors
    /// When the record contradicts those before it.
    pub fn replay(
        &mut self,
        at: Offset,
        end: Offset,
        record: Record<'_>,
    ) -> Result<(), ReplayError> {
        let _ = (at, end, record, self.table_applied, MessageId(0));
        Ok(())
    }

    /// The log's incarnation was raised at this place of the log: what comes after may differ
    /// from what was shown before.
    pub fn raise(&mut self, incarnation: Incarnation) {
        let _ = incarnation;
    }

    /// Ends the replay: the shard as it was, with everything in the log durable.
    pub fn finish<L: Log>(self, log: L) -> Shard<L, T> {
        let _ = self.placement;
        Shard { id: self.id, log, table: self.table }
    }
}

/// A shard that runs.
pub struct Shard<L, T> {
    id: ShardId,
    log: L,
    table: T,
}
