//! What the threads know together of one shard: its segments, how much of it is proven durable,
//! whether it failed, and the segment that is ready to be next.
//!
//! Each field says who writes it; all others only read it. No lock is taken on a worker.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use arc_swap::ArcSwap;
use crossbeam::queue::ArrayQueue;
use rustc_hash::FxHashMap;
use tern_core::io::ColdRecord;
use tern_core::log::{Links, ReadError};
use tern_core::placement::ShardId;
use tern_protocol::{ChannelId, MessageId};

use crate::recovery::loss::Loss;
use crate::segment::{Segment, SegmentList};
use crate::stats::Counts;

/// Whether there is room for the next segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum Room {
    /// As far as is known.
    Some = 0,
    /// The disk, or what may be used of it, is full.
    None = 1,
}

/// A segment of which pages could not be read from the disk by whoever touched them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReadFault {
    /// Its file.
    pub path: PathBuf,
    /// How many pages; their messages are told as lost until the server is started again.
    pub pages: u64,
}

/// What stands for a lost record.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Tombstone {
    /// Where its readers go on.
    pub(crate) links: Links,
    /// Whether it is known of which channel it was; or else its channel's link says nothing.
    pub(crate) has_channel: bool,
}

/// Lists of expired messages that wait for the owner; more wait with whoever makes them.
const EXPIRED_LISTS: usize = 4;

/// One shard, as all threads see it.
#[derive(Debug)]
pub(crate) struct ShardShared {
    pub(crate) id: ShardId,
    /// Where its segments are.
    pub(crate) dir: PathBuf,
    /// All segments, the spare one too. Written at recovery, then by the I/O thread, which adds,
    /// and by the maintenance thread, which takes away; never without `changing`.
    pub(crate) segments: ArcSwap<SegmentList>,
    changing: Mutex<()>,
    /// The prepared segment. Put in by the I/O thread, taken by the owner.
    pub(crate) spare: ArrayQueue<Arc<Segment>>,
    /// Ranges that the disk can't give. Written by the I/O thread.
    pub(crate) unreadable: ArcSwap<Vec<Range<u64>>>,
    pub(crate) counts: Counts,
    /// What expired: channels, and the newest message of each that is gone. Put in by the
    /// maintenance thread, taken by the owner.
    pub(crate) expired: ArrayQueue<Vec<(ChannelId, MessageId)>>,
    /// Bytes that the next segment lacks within the bound of the logs. Written by the I/O thread.
    pub(crate) bytes_wanted: AtomicU64,
    /// The segment with this number is to be closed. Written by the maintenance thread.
    close: AtomicU64,
    room: AtomicU8,
    /// Everything before is durable. Written at recovery, then by the commit thread.
    proven: AtomicU64,
    /// First offset that this process wrote. Written at recovery.
    run_start: AtomicU64,
    /// A batch waits for room. Written by the commit thread.
    starved: AtomicBool,
    failed: AtomicBool,
    failure: OnceLock<String>,
    /// Lost records, and where a reader of one goes on. Written at recovery, then by whoever
    /// salvages.
    pub(crate) tombstones: ArcSwap<FxHashMap<u64, Tombstone>>,
    /// Why the log takes nothing. Written at recovery.
    closed: OnceLock<String>,
    /// Written at recovery.
    losses: OnceLock<Vec<Loss>>,
}

impl ShardShared {
    pub(crate) fn new(id: ShardId, dir: PathBuf) -> Self {
        Self {
            id,
            dir,
            segments: ArcSwap::default(),
            changing: Mutex::default(),
            spare: ArrayQueue::new(1),
            unreadable: ArcSwap::default(),
            counts: Counts::default(),
            expired: ArrayQueue::new(EXPIRED_LISTS),
            bytes_wanted: AtomicU64::new(0),
            close: AtomicU64::new(0),
            room: AtomicU8::new(Room::Some as u8),
            proven: AtomicU64::new(0),
            run_start: AtomicU64::new(u64::MAX),
            starved: AtomicBool::new(false),
            failed: AtomicBool::new(false),
            failure: OnceLock::new(),
            tombstones: ArcSwap::default(),
            closed: OnceLock::new(),
            losses: OnceLock::new(),
        }
    }

    /// Everything before this offset is durable, and visible to whoever reads this.
    pub(crate) fn proven(&self) -> u64 {
        self.proven.load(Ordering::Acquire)
    }

    /// The sync of everything before `end` returned.
    pub(crate) fn prove(&self, end: u64) {
        let before = self.proven.swap(end, Ordering::Release);
        assert!(before <= end, "a proof is never taken back");
    }

    pub(crate) fn run_start(&self) -> u64 {
        self.run_start.load(Ordering::Relaxed)
    }

    pub(crate) fn set_run_start(&self, at: u64) {
        self.run_start.store(at, Ordering::Relaxed);
    }

    pub(crate) fn room(&self) -> Room {
        if self.room.load(Ordering::Relaxed) == Room::None as u8 { Room::None } else { Room::Some }
    }

    pub(crate) fn set_room(&self, room: Room) {
        self.room.store(room as u8, Ordering::Relaxed);
    }

    /// Whether a batch can't be written for want of room, which may pass.
    pub(crate) fn starved(&self) -> bool {
        self.starved.load(Ordering::Relaxed)
    }

    /// Says so; returns what was said before.
    pub(crate) fn set_starved(&self, starved: bool) -> bool {
        self.starved.swap(starved, Ordering::Relaxed)
    }

    /// Whether a write or a sync failed; final.
    pub(crate) fn failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }

    /// The first thing that failed, for the operator.
    pub(crate) fn failure(&self) -> Option<&str> {
        self.failure.get().map(String::as_str)
    }

    /// Fails the log for good.
    pub(crate) fn fail(&self, what: String) {
        let what = self.failure.get_or_init(|| what);
        if !self.failed.swap(true, Ordering::AcqRel) {
            tracing::error!(shard = self.id.0, "log failed, it takes no more messages: {what}");
        }
    }

    /// What is told of a record that can't be read; `links` are known if its header is whole.
    /// Without them and without a tombstone it is found out off the worker.
    pub(crate) fn lost(&self, at: u64, links: Option<Links>) -> ReadError {
        let tombstone = self.tombstones.load().get(&at).map(|tombstone| tombstone.links);
        tombstone.or(links).map_or(ReadError::Cold, ReadError::Lost)
    }

    /// Nothing can be found out of a record.
    pub(crate) fn bury(&self, record: &ColdRecord) {
        let mut tombstones = FxHashMap::clone(&self.tombstones.load());
        tombstones.entry(record.at.0).or_default().has_channel |= record.channel.is_some();
        self.tombstones.store(Arc::new(tombstones));
    }

    /// What recovery found to be lost, by growing offset.
    pub(crate) fn losses(&self) -> &[Loss] {
        self.losses.get().map_or(&[], Vec::as_slice)
    }

    pub(crate) fn set_losses(&self, losses: Vec<Loss>) {
        self.losses.set(losses).expect("a shard is opened once");
    }

    /// Why the log can be read and takes nothing, if that is so.
    pub(crate) fn closed(&self) -> Option<&str> {
        self.closed.get().map(String::as_str)
    }

    /// Lets the log take nothing as long as this process runs.
    pub(crate) fn close(&self, why: String) {
        tracing::error!(shard = self.id.0, "the log takes no messages: {why}");
        self.closed.set(why).expect("a shard is opened once");
    }

    /// Segments with pages that the disk did not give.
    pub(crate) fn read_faults(&self) -> Vec<ReadFault> {
        let list = self.segments.load();
        let fault = |segment: &Arc<Segment>| {
            let pages = segment.file.faults();
            (pages > 0).then(|| ReadFault { path: segment.path.clone(), pages })
        };
        list.0.iter().filter_map(fault).collect()
    }

    /// Asks the owner to go on in the next segment after this one.
    pub(crate) fn ask_to_close(&self, number: u64) {
        self.close.store(number, Ordering::Relaxed);
    }

    /// Whether that was asked.
    pub(crate) fn is_to_close(&self, number: u64) -> bool {
        self.close.load(Ordering::Relaxed) == number
    }

    /// Takes the segments before `number` off the list. Who reads one holds it until then.
    pub(crate) fn withdraw(&self, number: u64) {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut list = self.segments.load().0.clone();
        list.retain(|segment| segment.header.number >= number);
        self.counts.segments.store(list.len() as u64, Ordering::Relaxed);
        self.segments.store(Arc::new(SegmentList(list)));
    }

    /// Adds a segment behind all others. For the one thread that makes segments.
    pub(crate) fn publish(&self, segment: Arc<Segment>) {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut list = self.segments.load().0.clone();
        assert!(list.last().is_none_or(|last| last.header.end() <= segment.header.base));
        list.push(segment);
        self.counts.segments.store(list.len() as u64, Ordering::Relaxed);
        self.segments.store(Arc::new(SegmentList(list)));
    }
}
