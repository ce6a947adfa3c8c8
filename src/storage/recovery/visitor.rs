//! Who is told what a log says.

use tern_core::dedup::DedupTable;
use tern_core::log::{Links, Offset, Record};
use tern_core::shard::state::{StateKind, TombstoneRow};
use tern_core::shard::{Recovery, ReplayError};
use tern_protocol::Incarnation;

/// Who is told what the log says, in order.
pub trait Visitor {
    /// The next record. `end` is where the one after it can begin.
    ///
    /// # Errors
    /// When the record contradicts those before it.
    fn record(&mut self, at: Offset, end: Offset, record: Record<'_>) -> Result<(), ReplayError>;

    /// What comes from here on is of a new incarnation; a log begins with 1.
    fn raise(&mut self, incarnation: Incarnation);

    /// The next row of the checkpoint that the log is replayed from; all of them come before any
    /// record. `at` is where the records begin.
    ///
    /// # Errors
    /// When the row is not what its kind says, or, as by default, when rows mean nothing to it.
    fn state(&mut self, at: Offset, kind: StateKind, _row: &[u8]) -> Result<(), ReplayError> {
        Err(ReplayError { at, what: format!("a row of kind {kind:?} is not understood") })
    }

    /// The message at `at` is lost, in the place of its record; `end` is as there. What it pointed
    /// to is known if its header was whole.
    ///
    /// # Errors
    /// When nothing can go on without it, as by default.
    fn lost(&mut self, at: Offset, _end: Offset, _links: Option<Links>) -> Result<(), ReplayError> {
        Err(ReplayError { at, what: "a message was lost here".to_owned() })
    }

    /// After the last record: places that later links point to and whose own links are known from
    /// elsewhere, for readers.
    fn tombstones(&self) -> Vec<TombstoneRow> {
        Vec::new()
    }

    /// After the last record: lost messages of which nothing tells the channel. Their ids would be
    /// given once more, so the log takes nothing then.
    fn unexplained(&self) -> Vec<Offset> {
        Vec::new()
    }
}

impl<T: DedupTable> Visitor for Recovery<T> {
    fn record(&mut self, at: Offset, end: Offset, record: Record<'_>) -> Result<(), ReplayError> {
        self.replay(at, end, record)
    }

    fn raise(&mut self, incarnation: Incarnation) {
        Recovery::raise(self, incarnation);
    }

    fn state(&mut self, at: Offset, kind: StateKind, row: &[u8]) -> Result<(), ReplayError> {
        self.restore(at, kind, row)
    }

    fn lost(&mut self, at: Offset, end: Offset, links: Option<Links>) -> Result<(), ReplayError> {
        Recovery::lost(self, at, end, links);
        Ok(())
    }

    fn tombstones(&self) -> Vec<TombstoneRow> {
        Recovery::tombstones(self)
    }

    fn unexplained(&self) -> Vec<Offset> {
        Recovery::unexplained(self)
    }
}
