//! Reading records out of the mapped segments, on any thread, without waiting for the disk.
//!
//! A page that is not in the page cache would stop the thread that touches it for milliseconds.
//! So before a mapping is read it is known that its pages are there: what this process wrote
//! lately is, and of older pages the kernel is asked. The answer is kept for a window, so that
//! the messages of one page cost one question.

use std::sync::Arc;

use tern_core::log::{Links, Offset, ReadError, Reader, Record};
use tern_core::placement::ShardId;

use crate::format::{Bad, Content, RECORD_HEADER_BYTES};
use crate::segment::Segment;
use crate::shared::ShardShared;

/// Newest bytes of a shard, written by this process, that are taken to be in memory: a server
/// that the kernel has taken these pages from is short of memory altogether.
pub const WARM_BYTES: u64 = 64 * 1024 * 1024;

/// Bytes that one question to the kernel covers.
const WINDOW_BYTES: u64 = 64 * 1024;

/// Reads for which the kernel's answer of a window counts: pages can be taken away later, and
/// those that are read are the last to be.
const WINDOW_READS: u32 = 512;

/// Reads durable records of all shards; each thread has its own.
#[derive(Clone, Debug)]
pub struct MappedReader {
    shards: Vec<ShardView>,
}

impl MappedReader {
    pub(crate) fn new(shards: &[Arc<ShardShared>]) -> Self {
        Self { shards: shards.iter().map(|shard| ShardView::new(Arc::clone(shard))).collect() }
    }
}

impl Reader for MappedReader {
    fn with_record<T>(
        &mut self,
        shard: ShardId,
        at: Offset,
        read: impl FnOnce(Record<'_>) -> T,
    ) -> Result<T, ReadError> {
        self.shards[usize::from(shard.0)].with_record(at, read)
    }
}

/// One thread's view of one shard.
#[derive(Clone, Debug)]
pub(crate) struct ShardView {
    shared: Arc<ShardShared>,
    window: Window,
}

/// The window that was found in memory last.
#[derive(Clone, Copy, Debug, Default)]
struct Window {
    number: u64,
    /// Reads for which the answer still counts.
    reads: u32,
}

impl ShardView {
    pub(crate) fn new(shared: Arc<ShardShared>) -> Self {
        Self { shared, window: Window::default() }
    }

    /// Reads a durable record. One that is not durable is [`ReadError::LOST`] to everybody but
    /// its owner.
    pub(crate) fn with_record<T>(
        &mut self,
        at: Offset,
        read: impl FnOnce(Record<'_>) -> T,
    ) -> Result<T, ReadError> {
        let (at, proven) = (at.0, self.shared.proven());
        if at >= proven {
            return Err(ReadError::LOST);
        }
        // Held while it is read, and no longer: a deleted segment gives its room back.
        let list = self.shared.segments.load();
        let segment = match list.find(at) {
            Some(segment) if at >= segment.header.first() => segment,
            None if at < list.start() => return Err(ReadError::Expired),
            Some(_) => return Err(ReadError::LOST),
            None => return Err(self.shared.lost(at, None)),
        };
        let recent = proven.saturating_sub(WARM_BYTES).max(self.shared.run_start());
        if at < recent {
            self.window.warm(&self.shared, segment, at)?;
        }
        let faults = segment.file.faults();
        match segment.parse(at) {
            // Bytes may have turned to zeros behind the checksum's back: ask again, for if it was
            // this record, its checksum fails from now on.
            Ok((_, Content::Record(record))) => {
                let value = read(record);
                if segment.file.faults() == faults { Ok(value) } else { Err(ReadError::Cold) }
            }
            Ok((_, Content::Mark(_))) => Err(ReadError::LOST),
            Err(Bad::Body(head)) => Err(self.shared.lost(at, Some(head.links))),
            Err(_) => Err(self.shared.lost(at, None)),
        }
    }
}

impl Window {
    /// Makes sure that reading the record will not wait.
    fn warm(&mut self, shared: &ShardShared, segment: &Segment, at: u64) -> Result<(), ReadError> {
        let header_end = at + RECORD_HEADER_BYTES as u64;
        self.warm_range(shared, segment, at, (at, header_end))?;
        let bytes = segment.record_len(at).map_err(|_| shared.lost(at, None))?;
        let end = at + bytes as u64;
        self.warm_range(shared, segment, at, (header_end, end))
    }

    /// Asks for the whole windows that a range of the record at `at` touches, or else for the
    /// range alone.
    fn warm_range(
        &mut self,
        shared: &ShardShared,
        segment: &Segment,
        at: u64,
        (from, to): (u64, u64),
    ) -> Result<(), ReadError> {
        for number in from / WINDOW_BYTES..=(to - 1) / WINDOW_BYTES {
            if number == self.number && self.reads > 0 {
                self.reads -= 1;
                continue;
            }
            let (start, end) = (number * WINDOW_BYTES, (number + 1) * WINDOW_BYTES);
            if resident(segment, start, end) {
                *self = Self { number, reads: WINDOW_READS };
            } else if !resident(segment, from.max(start), to.min(end)) {
                return Err(cold(shared, at, from, to));
            }
        }
        Ok(())
    }
}

/// Whether what a segment has of a range is in memory.
fn resident(segment: &Segment, from: u64, to: u64) -> bool {
    let (from, to) = (from.max(segment.header.base), to.min(segment.settled_end()));
    from >= to || segment.file.resident(segment.place(from), segment.place(to))
}

/// Not in memory: because nobody read it yet, or because the disk can't?
fn cold(shared: &ShardShared, at: u64, from: u64, to: u64) -> ReadError {
    let unreadable = shared.unreadable.load();
    if unreadable.iter().any(|range| range.start < to && from < range.end) {
        return shared.lost(at, Some(Links::default()));
    }
    ReadError::Cold
}
