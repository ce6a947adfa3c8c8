//! The log of one shard, as its owner has it.
//!
//! Appending copies a record into the batch that gathers in memory; a commit hands the oldest
//! batch to the commit thread, at most one at a time. The owner's thread never touches a page of
//! a file for writing: the kernel protects such pages again whenever it writes them back, and the
//! next store waits for milliseconds.
//!
//! ```text
//!  segment       │ header │ ... durable ... │ in flight │ waiting (gathers) │ zeros            │
//!  read from        mapping ────────────────┘ memory ───┴───────────────────┘
//! ```

pub(crate) mod batch;
pub(crate) mod commit;
pub(crate) mod reader;
mod slice;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use tern_core::log::{
    AppendError, Durable, Links, Log, LogFailed, Offset, ReadError, Record, RecordKind,
};
use tern_protocol::{ChannelId, MessageId};

use crate::format::{BODY_BYTES_MAX, MARK_BYTES, record_bytes};
use crate::header::Durability;
use crate::io::IoHandle;
use crate::log::batch::Batch;
use crate::log::commit::CommitHandle;
use crate::log::reader::ShardView;
use crate::segment::Segment;
use crate::shared::{Room, ShardShared};

/// Bytes appended and not yet durable that a shard may have; more are refused as busy. At a
/// commit of 1 ms this is 8 GB/s, so only a disk that stands still reaches it. Each shard keeps
/// buffers of up to twice this.
pub const PENDING_BYTES_MAX: usize = 8 * 1024 * 1024;

/// A shard's log. Dropping it closes it in order: what was appended is handed to the commit
/// thread, followed by a mark that says that nothing is missing.
#[derive(Debug)]
pub struct MappedLog {
    shared: Arc<ShardShared>,
    view: ShardView,
    durability: Durability,
    /// Where records go; `None` until the first one.
    active: Option<Arc<Segment>>,
    /// Offset behind the last record.
    tail: u64,
    /// Batches that were not handed over yet, oldest first; the last may still grow.
    waiting: VecDeque<Arc<Batch>>,
    in_flight: Option<Arc<Batch>>,
    /// Batches to use again.
    idle: Vec<Arc<Batch>>,
    /// Bytes in `waiting` and `in_flight`.
    pending: usize,
    /// Everything before is synced, whatever the durability.
    synced: u64,
    commit_wanted: bool,
    /// What expired and was not asked for yet.
    expired: Vec<(ChannelId, MessageId)>,
    committer: Committing,
    io: IoHandle,
}

/// The commit thread of the shard, without its insides in the log's debug text.
struct Committing(CommitHandle);

impl std::fmt::Debug for Committing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CommitHandle")
    }
}

impl MappedLog {
    /// A recovered log that ends at `end`, everything before it synced.
    pub(crate) fn new(
        shared: Arc<ShardShared>,
        durability: Durability,
        end: u64,
        committer: CommitHandle,
        io: IoHandle,
    ) -> Self {
        Self {
            view: ShardView::new(Arc::clone(&shared)),
            shared,
            durability,
            active: None,
            tail: end,
            waiting: VecDeque::new(),
            in_flight: None,
            idle: Vec::new(),
            pending: 0,
            synced: end,
            commit_wanted: false,
            expired: Vec::new(),
            committer: Committing(committer),
            io,
        }
    }

    /// What failed, once [`Log::durable`] says that the log failed.
    pub fn failure(&self) -> Option<&str> {
        self.shared.failure()
    }

    /// Why it can be read and takes nothing, if that is so.
    pub fn read_only(&self) -> Option<&str> {
        self.shared.closed()
    }

    /// Makes sure that `bytes` more fit into the active segment, with a mark in front of them and
    /// one behind.
    fn make_room(&mut self, bytes: usize) -> Result<(), AppendError> {
        if self.shared.starved() {
            return Err(AppendError::Full);
        }
        let bytes = bytes + MARK_BYTES;
        if self.pending + bytes > PENDING_BYTES_MAX {
            return Err(AppendError::Busy);
        }
        let need = self.tail + (bytes + MARK_BYTES) as u64;
        if let Some(active) = &self.active
            && need <= active.header.end()
            && (!self.shared.is_to_close(active.header.number) || self.shared.spare.is_empty())
        {
            return Ok(());
        }
        let Some(next) = self.shared.spare.pop() else {
            return Err(match self.shared.room() {
                Room::None => AppendError::Full,
                Room::Some => AppendError::Busy,
            });
        };
        self.io.look();
        self.roll(next);
        Ok(())
    }

    /// Goes on in the next segment, with a batch of its own.
    fn roll(&mut self, next: Arc<Segment>) {
        self.tail = next.header.first();
        let before = self.active.replace(Arc::clone(&next));
        self.open_batch(next);
        if self.durability == Durability::Process {
            self.gathering().sync_before = before;
        }
    }

    fn open_batch(&mut self, segment: Arc<Segment>) {
        let batch = match self.idle.pop() {
            None => Arc::new(Batch::new(segment, self.tail)),
            Some(mut batch) => {
                let idle = Arc::get_mut(&mut batch).expect("its end was proven, so it is ours");
                idle.restart(segment, self.tail);
                batch
            }
        };
        self.tail = batch.end();
        self.pending += MARK_BYTES;
        self.waiting.push_back(batch);
    }

    /// The batch that gathers.
    fn gathering(&mut self) -> &mut Batch {
        if self.waiting.is_empty() {
            self.open_batch(Arc::clone(self.active.as_ref().expect("room was made in it")));
        }
        let batch = self.waiting.back_mut().expect("there is one now");
        Arc::get_mut(batch).expect("it was not handed over yet")
    }

    /// Takes back the batch under way if it is durable, and hands over the next.
    fn turn(&mut self) {
        if self.shared.failed() {
            return;
        }
        let proven = self.shared.proven();
        if let Some(batch) = self.in_flight.take_if(|batch| batch.end() <= proven) {
            self.pending -= batch.bytes.len();
            self.count_pending();
            self.idle.push(batch);
        }
        if self.in_flight.is_none() && self.commit_wanted {
            self.hand_over(proven);
        }
    }

    fn hand_over(&mut self, proven: u64) {
        if let Some(mut batch) = self.waiting.pop_front() {
            self.seal(&mut batch, proven);
            self.committer.0.submit(&self.shared, &batch);
            self.in_flight = Some(batch);
        }
        self.commit_wanted = !self.waiting.is_empty();
    }

    /// Writes into the batch's mark what is synced before it is written. What is proven only to
    /// be in the page cache is no evidence of damage after a power cut.
    fn seal(&mut self, batch: &mut Arc<Batch>, proven: u64) {
        if self.durability == Durability::Disk || batch.sync_before.is_some() {
            self.synced = proven;
        }
        let batch = Arc::get_mut(batch).expect("it was not handed over yet");
        batch.seal(self.synced);
    }

    fn count_pending(&self) {
        self.shared.counts.bytes_pending.store(self.pending as u64, Relaxed);
    }

    /// The record in memory, if that is where it is.
    fn in_memory(&self, at: u64) -> Option<&Batch> {
        let mut batches = self.in_flight.iter().chain(&self.waiting);
        batches.find(|batch| (batch.start..batch.end()).contains(&at)).map(|batch| &**batch)
    }

    /// Hands everything over, with a last mark behind it.
    fn close(&mut self) {
        let mut proven = self.in_flight.as_ref().map_or(self.shared.proven(), |batch| batch.end());
        while let Some(mut batch) = self.waiting.pop_front() {
            self.seal(&mut batch, proven);
            proven = batch.end();
            self.committer.0.submit(&self.shared, &batch);
        }
        if let Some(active) = self.active.take() {
            let last = Batch::last(active, self.tail);
            self.committer.0.submit(&self.shared, &Arc::new(last));
        }
    }
}

impl Log for MappedLog {
    fn append(
        &mut self,
        kind: RecordKind,
        links: Links,
        body: &[&[u8]],
    ) -> Result<Offset, AppendError> {
        if self.shared.failed() || self.shared.closed().is_some() {
            return Err(AppendError::Failed);
        }
        let body_bytes = body.iter().map(|part| part.len()).sum();
        assert!(body_bytes <= BODY_BYTES_MAX, "a body of {body_bytes} bytes");
        let bytes = record_bytes(body_bytes);
        self.make_room(bytes)?;
        let at = self.gathering().push(kind, links, body);
        self.tail = at.0 + bytes as u64;
        self.pending += bytes;
        let counts = &self.shared.counts;
        counts.records.fetch_add(1, Relaxed);
        counts.bytes_used.fetch_add(bytes as u64, Relaxed);
        self.count_pending();
        Ok(at)
    }

    fn commit(&mut self) {
        self.commit_wanted |= !self.waiting.is_empty();
        self.turn();
    }

    fn durable(&mut self) -> Result<Durable, LogFailed> {
        self.turn();
        if self.shared.failed() {
            return Err(LogFailed);
        }
        Ok(Durable::assert_synced(Offset(self.shared.proven())))
    }

    fn tail(&self) -> Offset {
        Offset(self.tail)
    }

    fn poll_expired(&mut self) -> Option<(ChannelId, MessageId)> {
        if self.expired.is_empty() {
            self.expired = self.shared.expired.pop().unwrap_or_default();
        }
        self.expired.pop()
    }

    fn with_record<T>(
        &mut self,
        at: Offset,
        read: impl FnOnce(Record<'_>) -> T,
    ) -> Result<T, ReadError> {
        match self.in_memory(at.0) {
            Some(batch) => batch.record(at.0).map(read).ok_or(ReadError::LOST),
            None => self.view.with_record(at, read),
        }
    }
}

impl Drop for MappedLog {
    fn drop(&mut self) {
        if !std::thread::panicking() && !self.shared.failed() {
            self.close();
        }
    }
}
