//! Preparing segments ahead, so that a record is never acked in a file whose growth could be
//! undone by a crash, and no worker waits for a file to be made.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tern_protocol::Incarnation;

use crate::disk::{Disk, is_full};
use crate::folder::{random_id, wall_ms};
use crate::format::Id;
use crate::header::{Durability, SegmentHeader};
use crate::segment::Segment;
use crate::segment::map::PAGE_BYTES;
use crate::shared::{Room, ShardShared};
use crate::upkeep::clock::ConfirmedClock;

/// A segment that is full sooner than this is followed by one of twice its size: a file a minute
/// is rare enough that making it costs nothing, and a day is then at most 1,440 files.
const SEGMENT_FAST: Duration = Duration::from_secs(60);

/// Segments leave this part of a small file system free, whatever is asked for.
const RESERVE_PART: u64 = 50;

/// Checkpoints that there is always room for: to delete anything takes two new ones.
const CHECKPOINTS_AHEAD: u64 = 2;

/// What all shards may use of the disk together, and what they do.
#[derive(Debug)]
pub(crate) struct Limits {
    /// Bytes of the smallest segment, and of the first.
    pub(crate) segment_bytes_min: u64,
    /// Bytes of the largest segment.
    pub(crate) segment_bytes_max: u64,
    /// Bytes that all segments and checkpoints may have together.
    pub(crate) bytes_max: u64,
    /// Bytes of the file system that segments leave free.
    pub(crate) free_bytes_min: u64,
    /// Bytes that all segments and checkpoints have together.
    pub(crate) reserved: AtomicU64,
    /// Bytes of the largest checkpoint of this run.
    pub(crate) checkpoint_bytes: AtomicU64,
}

impl Limits {
    /// Counts a segment's bytes.
    pub(crate) fn hold(&self, shard: &ShardShared, bytes: u64) {
        self.reserved.fetch_add(bytes, Relaxed);
        shard.counts.bytes_reserved.fetch_add(bytes, Relaxed);
    }

    /// Uncounts them.
    pub(crate) fn release(&self, shard: &ShardShared, bytes: u64) {
        self.reserved.fetch_sub(bytes, Relaxed);
        shard.counts.bytes_reserved.fetch_sub(bytes, Relaxed);
    }

    /// Bytes that segments leave free on a file system of `total` bytes: on a disk that is full
    /// no checkpoint can be made, and without one nothing can ever be deleted.
    pub(crate) fn reserve(&self, total: u64) -> u64 {
        let others = self.free_bytes_min.min(total / RESERVE_PART);
        others + CHECKPOINTS_AHEAD * self.checkpoint_bytes.load(Relaxed)
    }
}

/// What every segment of this run says of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RunIdentity {
    pub(crate) folder: Id,
    pub(crate) boot: Id,
    pub(crate) durability: Durability,
}

/// What the next segment of a shard will be.
#[derive(Debug)]
pub(crate) struct Next {
    pub(crate) number: u64,
    pub(crate) base: u64,
    /// Where the data before it ends, if that is not yet on disk.
    pub(crate) cut: u64,
    pub(crate) incarnation: Incarnation,
    pub(crate) capacity: u64,
    /// Names this opening of the log.
    pub(crate) opening: Id,
    /// Segments made in this run.
    pub(crate) made: u64,
    /// When the newest of them was made.
    pub(crate) made_at: Instant,
}

/// Makes the segments of one shard. Used by recovery first, then by the I/O thread alone.
#[derive(Debug)]
pub(crate) struct Preparer {
    pub(crate) shared: Arc<ShardShared>,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) limits: Arc<Limits>,
    pub(crate) run: RunIdentity,
    pub(crate) clock: Arc<ConfirmedClock>,
    /// `None` until the shard is recovered.
    next: Mutex<Option<Next>>,
}

impl Preparer {
    pub(crate) fn new(
        shared: Arc<ShardShared>,
        disk: Arc<dyn Disk>,
        limits: Arc<Limits>,
        run: RunIdentity,
        clock: Arc<ConfirmedClock>,
    ) -> Self {
        Self { shared, disk, limits, run, clock, next: Mutex::new(None) }
    }

    /// Recovery says what comes next.
    pub(crate) fn begin(&self, next: Next) {
        *self.next.lock().unwrap_or_else(PoisonError::into_inner) = Some(next);
        self.prepare_spare();
    }

    /// Makes the spare segment if there is none and there is room.
    pub(crate) fn prepare_spare(&self) {
        let mut guard = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(next) = guard.as_mut() else { return };
        if !self.shared.spare.is_empty() || self.shared.failed() {
            return;
        }
        match self.make(next) {
            Ok(segment) => {
                self.told_room(Room::Some, None);
                self.take_over(next, segment);
            }
            Err(error) => self.told_room(Room::None, Some(&error)),
        }
    }

    /// Makes it as large as the rate wants and the room allows.
    fn make(&self, next: &Next) -> io::Result<Segment> {
        let mut capacity = next.capacity;
        loop {
            match self.make_of(next, capacity) {
                Err(error) if is_full(&error) && capacity > self.limits.segment_bytes_min => {
                    capacity = (capacity / 2).max(self.limits.segment_bytes_min);
                }
                result => return result,
            }
        }
    }

    fn make_of(&self, next: &Next, capacity: u64) -> io::Result<Segment> {
        self.check_room(capacity)?;
        let header = SegmentHeader {
            folder: self.run.folder,
            shard: self.shared.id.0,
            number: next.number,
            base: next.base,
            capacity,
            salt: random_id(),
            incarnation: next.incarnation,
            cut: next.cut,
            durability: self.run.durability,
            boot: self.run.boot,
            created_ms: wall_ms(),
            opening: next.opening,
            confirmed_ms: self.clock.tick(),
        };
        Segment::make(&*self.disk, &self.shared.dir, header)
    }

    /// Whether a segment of this size leaves what is to be left.
    fn check_room(&self, capacity: u64) -> io::Result<()> {
        let full = |what: String| Err(io::Error::new(io::ErrorKind::StorageFull, what));
        let bound = self.limits.bytes_max;
        if self.limits.reserved.load(Relaxed) + capacity > bound {
            self.shared.bytes_wanted.store(capacity, Relaxed);
            return full(format!("the logs may use {bound} bytes"));
        }
        self.shared.bytes_wanted.store(0, Relaxed);
        // A file system that does not say how much it has says so when it is full.
        let Ok(space) = self.disk.space(&self.shared.dir) else { return Ok(()) };
        let reserve = self.limits.reserve(space.total);
        if space.free < capacity + reserve {
            let free = space.free;
            return full(format!("{free} bytes are free, of which {reserve} are left to others"));
        }
        Ok(())
    }

    fn take_over(&self, next: &mut Next, segment: Segment) {
        let header = segment.header;
        self.limits.hold(&self.shared, header.capacity);
        if next.cut != 0 {
            self.give_back(next.cut);
        }
        // The first two are made before there is a rate: at the start and at the first message.
        let fast = next.made >= 2 && next.made_at.elapsed() < SEGMENT_FAST;
        let factor = if fast { 2 } else { 1 };
        *next = Next {
            number: header.number + 1,
            base: header.end(),
            cut: 0,
            incarnation: header.incarnation,
            opening: header.opening,
            capacity: (header.capacity * factor).min(self.limits.segment_bytes_max),
            made: next.made + 1,
            made_at: Instant::now(),
        };
        let segment = Arc::new(segment);
        self.shared.publish(Arc::clone(&segment));
        self.close_full();
        self.shared.spare.push(segment).expect("there was no spare, and nobody else makes one");
    }

    /// Closes the files that nobody will write to or sync any more, newest first, so that a shard
    /// has a few open however fast it fills them.
    fn close_full(&self) {
        let (list, proven) = (self.shared.segments.load(), self.shared.proven());
        let full = list.0.windows(2).rev().filter(|pair| proven > pair[1].header.first());
        for pair in full {
            if !pair[0].file.close() {
                break;
            }
        }
    }

    /// Cuts the segment that recovery ended, now that the cut is durable in the next one.
    fn give_back(&self, cut: u64) {
        let Some(last) = self.shared.segments.load().0.last().cloned() else { return };
        let len = (last.place(cut)).next_multiple_of(PAGE_BYTES) as u64;
        let before = last.file.bytes_on_disk();
        if len < before && last.cut(&*self.disk, len).is_ok() {
            self.limits.release(&self.shared, before - len);
        }
    }

    /// Says once what changed.
    fn told_room(&self, room: Room, error: Option<&io::Error>) {
        if self.shared.room() == room {
            return;
        }
        self.shared.set_room(room);
        let (shard, dir) = (self.shared.id.0, self.shared.dir.display());
        match error {
            None => tracing::info!(shard, "there is room for messages again in {dir}"),
            Some(error) => tracing::error!(shard, "no room for the next segment in {dir}: {error}"),
        }
    }
}
