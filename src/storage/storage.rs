//! All of it together: the threads, and one context for each shard.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use tern_core::placement::ShardId;

use crate::backup::LogSnapshot;
use crate::error::{IoError, RecoverError};
use crate::folder::{Folder, boot_id, make_dir};
use crate::format::{BODY_BYTES_MAX, Id};
use crate::header::{Durability, SEGMENT_HEADER_BYTES};
use crate::io::{Cared, IoHandle, IoRun, IoThread, Mailbox};
use crate::log::commit::{CommitRun, Committer, Wake};
use crate::log::reader::MappedReader;
use crate::recovery::ShardScan;
use crate::recovery::salvage::Salvager;
use crate::segment::newest_confirmed;
use crate::segment::prepare::{Limits, RunIdentity};
use crate::shard::{Common, ShardContext};
use crate::shared::{ReadFault, Room, ShardShared};
use crate::stats::ShardStats;
use crate::steps::Steps;
use crate::upkeep::clock::{ClockFacts, ClockSource, ConfirmedClock, SystemClock};
use crate::upkeep::maintain::{Maintainer, Maintenance, Policy};
use crate::upkeep::{Eviction, ShardUpkeep, SpaceReport};

/// Bytes of the first segments: with 4 shards, an active and a spare one each, a new folder takes
/// 32 MiB.
pub const SEGMENT_BYTES_DEFAULT: u64 = 4 * 1024 * 1024;

/// Bytes of the largest segments. A start replays what no checkpoint covers, so the newest segment
/// of each shard always: with 64 MiB that is a fraction of a second, with 256 MiB it was seconds.
pub const SEGMENT_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Bytes that the smallest segment has at least: room for the longest record twice over.
pub const SEGMENT_BYTES_MIN: u64 = 2 * (BODY_BYTES_MAX + SEGMENT_HEADER_BYTES) as u64;

/// Bytes of sealed segments that are worth a checkpoint: replayed in a fraction of a second.
pub const CHECKPOINT_BYTES_MIN: u64 = 64 * 1024 * 1024;

/// Bytes that the log leaves to the other files of a server: its directory, its dumps, its text.
pub const FREE_BYTES_MIN: u64 = 64 * 1024 * 1024;

/// Time between two looks at what is due: a look costs some microseconds, and a full disk or a
/// sealed segment should not wait long for one.
const MAINTAIN_EVERY: Duration = Duration::from_secs(1);

/// How storage works; all of it may differ from start to start.
#[derive(Clone, Debug)]
pub struct StorageConfig {
    /// What an ack waits for.
    pub durability: Durability,
    /// Bytes of disk that all logs may use together; sends are refused when they are used up.
    pub bytes_max: u64,
    /// Threads that commit. One gathers best: each sync makes the disk wait for all the others.
    pub commit_threads: usize,
    /// Bytes of the first segments, at least [`SEGMENT_BYTES_MIN`].
    pub segment_bytes_min: u64,
    /// Bytes of the largest segments.
    pub segment_bytes_max: u64,
    /// Where deduplication tables go: a file system in memory.
    pub dedup_dir: PathBuf,
    /// The id of this boot, if it is not what the kernel says.
    pub boot: Option<Id>,
    /// Confirmed time after which messages are deleted; `None` is never.
    pub retention: Option<Duration>,
    /// What happens when `bytes_max` is used up.
    pub eviction: Eviction,
    /// Bytes of sealed segments that are worth a checkpoint at least.
    pub checkpoint_bytes_min: u64,
    /// Bytes of the file system that the log leaves free, beside room for checkpoints; on a small
    /// one less.
    pub free_bytes_min: u64,
    /// Time between two looks at what is due.
    pub maintain_every: Duration,
    /// What the time is.
    pub clock: Arc<dyn ClockSource>,
}

impl Default for StorageConfig {
    fn default() -> Self {
        Self {
            durability: Durability::Disk,
            bytes_max: u64::MAX,
            commit_threads: 1,
            segment_bytes_min: SEGMENT_BYTES_DEFAULT,
            segment_bytes_max: SEGMENT_BYTES_MAX,
            dedup_dir: PathBuf::from("/dev/shm"),
            boot: None,
            retention: None,
            eviction: Eviction::Refuse,
            checkpoint_bytes_min: CHECKPOINT_BYTES_MIN,
            free_bytes_min: FREE_BYTES_MIN,
            maintain_every: MAINTAIN_EVERY,
            clock: Arc::new(SystemClock),
        }
    }
}

/// The storage of a data folder, running.
///
/// The way of a start: [`Storage::start`]; for each shard [`Storage::scan_shard`], then
/// [`ShardScan::attach_table`], then [`ShardScan::replay`]. The way of an end: drop the logs,
/// then [`Storage::shutdown`].
pub struct Storage {
    shards: Vec<Arc<ShardContext>>,
    /// Empty if there are no threads, as [`Storage::by_hand`] makes it.
    committers: Vec<Committer>,
    /// `None` then, and while it is dropped.
    io: Option<IoThread>,
    /// As above.
    maintainer: Option<Maintainer>,
    maintenance: Arc<Maintenance>,
    clock: Arc<ConfirmedClock>,
    warmer: IoHandle,
    /// Last, so that the lock is let go when everything has ended.
    folder: Folder,
}

/// What the threads will need.
struct Parts {
    commits: Vec<CommitRun>,
    mailbox: Mailbox,
    cared: Vec<Cared>,
}

impl StorageConfig {
    /// Refuses what contradicts itself.
    fn check(&self) {
        assert!(self.commit_threads > 0, "somebody must commit");
        assert!(self.segment_bytes_min >= SEGMENT_BYTES_MIN, "a record must fit twice");
        assert!(self.segment_bytes_min <= self.segment_bytes_max);
        assert!(self.retention.is_none_or(|age| !age.is_zero()), "retention 0 keeps nothing");
    }

    fn limits(&self) -> Limits {
        Limits {
            segment_bytes_min: self.segment_bytes_min,
            segment_bytes_max: self.segment_bytes_max,
            bytes_max: self.bytes_max,
            free_bytes_min: self.free_bytes_min,
            reserved: AtomicU64::new(0),
            checkpoint_bytes: AtomicU64::new(0),
        }
    }
}

impl Storage {
    /// Starts the threads. `wake` is called on one of them whenever a shard has a new proof of
    /// durability, or failed.
    ///
    /// # Errors
    /// When the system refuses a thread, or the folder for tables.
    ///
    /// # Panics
    /// If the settings contradict each other.
    pub fn start(folder: Folder, config: StorageConfig, wake: Wake) -> io::Result<Self> {
        let (mut storage, parts) = Self::new(folder, &config, &wake)?;
        for (number, run) in parts.commits.into_iter().enumerate() {
            storage.committers.push(Committer::start(number, run)?);
        }
        let run = IoRun::new(parts.mailbox, parts.cared, Salvager::new());
        storage.io = Some(IoThread::start(run, storage.warmer())?);
        storage.maintainer = Some(Maintainer::start(Arc::clone(&storage.maintenance))?);
        Ok(storage)
    }

    /// As [`Storage::start`], but without threads: their work waits in [`Steps`] for whoever does
    /// it, one step at a time. For simulators.
    ///
    /// # Errors
    /// When the system refuses the folder for tables.
    ///
    /// # Panics
    /// If the settings contradict each other.
    pub fn by_hand(
        folder: Folder,
        config: &StorageConfig,
        wake: Wake,
    ) -> io::Result<(Self, Steps)> {
        let (storage, parts) = Self::new(folder, config, &wake)?;
        let (salvager, salvage) = Salvager::by_hand();
        let io = IoRun::new(parts.mailbox, parts.cared, salvager);
        let maintenance = Arc::clone(&storage.maintenance);
        let steps = Steps { commits: parts.commits, io, salvage, maintenance };
        Ok((storage, steps))
    }

    fn new(folder: Folder, config: &StorageConfig, wake: &Wake) -> io::Result<(Self, Parts)> {
        config.check();
        make_dir(&folder.dedup_dir()).map_err(|error| error.source)?;
        let run = RunIdentity {
            folder: folder.id(),
            boot: config.boot.unwrap_or_else(boot_id),
            durability: config.durability,
        };
        let limits = Arc::new(config.limits());
        let shared: Vec<_> = folder
            .shard_ids()
            .map(|id| Arc::new(ShardShared::new(id, folder.shard_dir(id))))
            .collect();
        let commits = commit_runs(config, &shared, wake);
        let mailbox = Mailbox::new();
        let warmer = mailbox.handle();
        let clock = Arc::new(open_clock(&folder, config, run.boot));
        let common = Common {
            disk: Arc::clone(folder.disk()),
            limits: Arc::clone(&limits),
            run,
            clock: Arc::clone(&clock),
            shards: folder.shards(),
            table_dirs: vec![config.dedup_dir.clone(), folder.dedup_dir()],
            io: warmer.clone(),
        };
        let shards: Vec<_> = shared
            .into_iter()
            .map(|shared| {
                let committer = commits[usize::from(shared.id.0) % commits.len()].handle();
                Arc::new(ShardContext::new(shared, &common, committer))
            })
            .collect();
        let (all, ours, door) = (shards.clone(), Arc::clone(&clock), warmer.clone());
        let (policy, wake) = (policy(config), Arc::clone(wake));
        let maintenance = Arc::new(Maintenance::new(all, limits, policy, ours, door, wake));
        let cared = shards.iter().map(|shard| cared(shard)).collect();
        let (committers, io, maintainer) = (Vec::new(), None, None);
        let storage =
            Self { shards, committers, io, maintainer, maintenance, clock, warmer, folder };
        Ok((storage, Parts { commits, mailbox, cared }))
    }

    /// The data folder.
    pub fn folder(&self) -> &Folder {
        &self.folder
    }

    /// Finds the end of a shard's log; the first step of opening it. Once for each shard.
    ///
    /// # Errors
    /// When the log is damaged, of another version, or can't be read.
    pub fn scan_shard(&self, shard: ShardId) -> Result<ShardScan, RecoverError> {
        ShardScan::new(Arc::clone(&self.shards[usize::from(shard.0)]))
    }

    /// A reader of all shards; clone it for each worker. It sees a shard once that is open.
    pub fn reader(&self) -> MappedReader {
        let shared: Vec<_> = self.shards.iter().map(|shard| Arc::clone(&shard.shared)).collect();
        MappedReader::new(&shared)
    }

    /// The way to the I/O thread, for cold reads.
    pub fn warmer(&self) -> IoHandle {
        self.warmer.clone()
    }

    /// Counts of a shard.
    pub fn stats(&self, shard: ShardId) -> ShardStats {
        self.shards[usize::from(shard.0)].shared.counts.snapshot()
    }

    /// What failed in a shard's log, if something did.
    pub fn failure(&self, shard: ShardId) -> Option<&str> {
        self.shards[usize::from(shard.0)].shared.failure()
    }

    /// Why a shard's log can be read and takes nothing, if that is so, and what to do.
    pub fn read_only(&self, shard: ShardId) -> Option<&str> {
        self.shards[usize::from(shard.0)].shared.closed()
    }

    /// All logs as they are proven durable now, held open to be copied.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn snapshot(&self) -> Result<LogSnapshot, IoError> {
        LogSnapshot::of_running(&self.folder, self.shards.iter().map(|shard| &*shard.shared))
    }

    /// Whether a shard has no room for its next segment, as far as is known, or not even for the
    /// batch under way: it refuses messages, at the latest when the present segment is full, until
    /// there is room again.
    pub fn is_full(&self, shard: ShardId) -> bool {
        let shared = &self.shards[usize::from(shard.0)].shared;
        shared.room() == Room::None || shared.starved()
    }

    /// Segments of a shard that can't be read in full, for the operator. Needs
    /// [`crate::guard_mappings`]; without it the process ends at the first such page.
    pub fn read_faults(&self, shard: ShardId) -> Vec<ReadFault> {
        self.shards[usize::from(shard.0)].shared.read_faults()
    }

    /// Checkpoints and deletion in a shard.
    pub fn upkeep(&self, shard: ShardId) -> ShardUpkeep {
        self.shards[usize::from(shard.0)].keeper.facts(self.clock.facts().confirmed_ms)
    }

    /// The clock that retention goes by, now.
    pub fn clock(&self) -> ClockFacts {
        self.clock.tick();
        self.clock.facts()
    }

    /// What the disk holds, and for how long that goes well at the present rate.
    pub fn space(&self) -> SpaceReport {
        self.maintenance.space()
    }

    /// Does all the upkeep that is due, on this thread, also what failed a moment ago. A thread
    /// of the storage does the same by itself; this is for who wants to wait for it.
    pub fn maintain(&self) {
        self.maintenance.pass(true);
    }

    /// Ends the threads after everything that the logs handed over. Drop the logs first: one that
    /// is still open is left without the mark of a clean end.
    pub fn shutdown(self) {
        drop(self);
    }
}

impl Drop for Storage {
    fn drop(&mut self) {
        if let Some(maintainer) = self.maintainer.take() {
            maintainer.stop();
        }
        self.committers.drain(..).for_each(Committer::stop);
        if let Some(io) = self.io.take() {
            io.stop();
        }
    }
}

/// The clock of a folder, not before the newest segment of any shard.
fn open_clock(folder: &Folder, config: &StorageConfig, boot: Id) -> ConfirmedClock {
    let newest = folder.shard_ids().map(|shard| newest_confirmed(&folder.shard_dir(shard)));
    let floor = newest.max().unwrap_or(0);
    let (disk, source) = (Arc::clone(folder.disk()), Arc::clone(&config.clock));
    let clock = ConfirmedClock::open(disk, folder.path(), folder.id(), boot, source, floor);
    // At once: a process killed before its first save would leave a log without a clock.
    if let Err(error) = clock.save() {
        tracing::warn!("the clock of retention is not saved: {error}");
    }
    clock
}

fn policy(config: &StorageConfig) -> Policy {
    Policy {
        retention: config.retention,
        eviction: config.eviction,
        checkpoint_bytes_min: config.checkpoint_bytes_min,
        every: config.maintain_every,
    }
}

fn commit_runs(config: &StorageConfig, shards: &[Arc<ShardShared>], wake: &Wake) -> Vec<CommitRun> {
    let threads = config.commit_threads.min(shards.len());
    (0..threads)
        .map(|number| {
            let own = shards.iter().skip(number).step_by(threads).cloned().collect();
            CommitRun::new(own, config.durability, Arc::clone(wake))
        })
        .collect()
}

fn cared(shard: &ShardContext) -> Cared {
    Cared {
        shared: Arc::clone(&shard.shared),
        preparer: Arc::clone(&shard.preparer),
        supply: Arc::clone(&shard.supply),
    }
}
