//! A batch: the bytes that one write and one sync make durable together.
//!
//! The owner fills it in memory; then it and the commit thread share it, read only, until its end
//! is proven; then it is used again. So records that are not durable yet can be read by their
//! owner, and nothing is allocated once the buffers have grown to what the load needs.

use std::sync::Arc;

use tern_core::log::{Links, Offset, Record, RecordKind};

use crate::format::{Content, MARK_BYTES, Mark, Seed};
use crate::segment::Segment;

/// Bytes that a batch's buffer begins with: some hundred messages, so that it rarely grows.
const BATCH_BYTES: usize = 64 * 1024;

/// Records of one segment that are not durable yet.
#[derive(Debug)]
pub(crate) struct Batch {
    /// Where it goes.
    pub(crate) segment: Arc<Segment>,
    /// Offset of the first byte.
    pub(crate) start: u64,
    pub(crate) bytes: Vec<u8>,
    /// The file to sync before this batch is written: what is in a segment must never reach the
    /// disk before the segment in front of it.
    pub(crate) sync_before: Option<Arc<Segment>>,
    /// Synced even where acks do not wait for it: the last batch of a log that is closed.
    pub(crate) always_sync: bool,
}

impl Batch {
    /// A batch that starts at `start`, with room for its mark.
    pub(crate) fn new(segment: Arc<Segment>, start: u64) -> Self {
        let bytes = Vec::with_capacity(BATCH_BYTES);
        let mut batch = Self { segment, start, bytes, sync_before: None, always_sync: false };
        batch.push_mark(Mark { proven: 0, clean: false });
        batch
    }

    /// Makes it a batch that starts at `start`, as [`Batch::new`] does, with the same buffer.
    pub(crate) fn restart(&mut self, segment: Arc<Segment>, start: u64) {
        (self.segment, self.start) = (segment, start);
        (self.sync_before, self.always_sync) = (None, false);
        self.bytes.clear();
        self.push_mark(Mark { proven: 0, clean: false });
    }

    /// A batch of one mark: the log ends here, and everything before is durable.
    pub(crate) fn last(segment: Arc<Segment>, start: u64) -> Self {
        let mut batch = Self::new(Arc::clone(&segment), start);
        batch.bytes.clear();
        batch.push_mark(Mark { proven: start, clean: true });
        batch.sync_before = Some(segment);
        batch.always_sync = true;
        batch
    }

    /// Offset behind the last byte.
    pub(crate) fn end(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }

    /// Appends a record and says where it stands.
    pub(crate) fn push(&mut self, kind: RecordKind, links: Links, body: &[&[u8]]) -> Offset {
        let at = self.end();
        self.seed().push_record(&mut self.bytes, at, kind, links, body);
        Offset(at)
    }

    /// Says in the mark what is proven durable before this batch is written.
    pub(crate) fn seal(&mut self, proven: u64) {
        let mark = self.seed().mark(self.start, Mark { proven, clean: false });
        self.bytes[..MARK_BYTES].copy_from_slice(&mark);
    }

    /// The record at an offset, if it is in this batch.
    pub(crate) fn record(&self, at: u64) -> Option<Record<'_>> {
        let from = at.checked_sub(self.start)? as usize;
        match self.seed().parse(at, self.bytes.get(from..)?) {
            Ok((_, Content::Record(record))) => Some(record),
            _ => None,
        }
    }

    fn push_mark(&mut self, mark: Mark) {
        let mark = self.seed().mark(self.end(), mark);
        self.bytes.extend_from_slice(&mark);
    }

    fn seed(&self) -> Seed {
        self.segment.seed
    }
}
