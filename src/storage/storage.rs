//! All of it together: the threads, and one context for each shard.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use tern_core::placement::ShardId;

use crate::backup::LogSnapshot;
use crate::commit::{Committer, Wake};
use crate::error::{IoError, RecoverError};
use crate::folder::{Folder, boot_id, make_dir};
use crate::format::{BODY_BYTES_MAX, Id};
use crate::header::{Durability, SEGMENT_HEADER_BYTES};
use crate::io::{Cared, IoHandle, IoThread, Mailbox};
use crate::prepare::{Limits, RunIdentity};
use crate::reader::MappedReader;
use crate::recovery::ShardScan;
use crate::shard::ShardContext;
use crate::shared::{ReadFault, ShardShared};
use crate::stats::ShardStats;

/// Bytes of the first segments: with 4 shards, an active and a spare one each, a new folder takes
/// 32 MiB.
pub const SEGMENT_BYTES_DEFAULT: u64 = 4 * 1024 * 1024;

/// Bytes of the largest segments: a file system allocates them in some milliseconds, and
/// retention, which goes by whole segments, stays fine enough.
pub const SEGMENT_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// Bytes that the smallest segment has at least: room for the longest record twice over.
pub const SEGMENT_BYTES_MIN: u64 = 2 * (BODY_BYTES_MAX + SEGMENT_HEADER_BYTES) as u64;

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
    committers: Vec<Committer>,
    /// `None` only while it is dropped.
    io: Option<IoThread>,
    warmer: IoHandle,
    /// Last, so that the lock is let go when everything has ended.
    folder: Folder,
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
        assert!(config.commit_threads > 0, "somebody must commit");
        assert!(config.segment_bytes_min >= SEGMENT_BYTES_MIN, "a record must fit twice");
        assert!(config.segment_bytes_min <= config.segment_bytes_max);
        make_dir(&folder.dedup_dir()).map_err(|error| error.source)?;
        let run = RunIdentity {
            folder: folder.id(),
            boot: config.boot.unwrap_or_else(boot_id),
            durability: config.durability,
        };
        let limits = Arc::new(Limits {
            segment_bytes_min: config.segment_bytes_min,
            segment_bytes_max: config.segment_bytes_max,
            bytes_max: config.bytes_max,
            reserved: AtomicU64::new(0),
        });
        let shared: Vec<_> = folder
            .shard_ids()
            .map(|id| Arc::new(ShardShared::new(id, folder.shard_dir(id))))
            .collect();
        let committers = start_committers(&config, &shared, &wake)?;
        let mailbox = Mailbox::new();
        let warmer = mailbox.handle();
        let shards: Vec<_> = shared
            .into_iter()
            .map(|shared| {
                let committer = committers[usize::from(shared.id.0) % committers.len()].handle();
                let dirs = vec![config.dedup_dir.clone(), folder.dedup_dir()];
                let disk = Arc::clone(folder.disk());
                let limits = Arc::clone(&limits);
                Arc::new(ShardContext::new(shared, disk, limits, run, dirs, committer, &warmer))
            })
            .collect();
        let io = IoThread::start(mailbox, shards.iter().map(|shard| cared(shard)).collect())?;
        Ok(Self { shards, committers, io: Some(io), warmer, folder })
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

    /// All logs as they are proven durable now, held open to be copied.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn snapshot(&self) -> Result<LogSnapshot, IoError> {
        LogSnapshot::of_running(&self.folder, self.shards.iter().map(|shard| &*shard.shared))
    }

    /// Segments of a shard that can't be read in full, for the operator. Needs
    /// [`crate::guard_mappings`]; without it the process ends at the first such page.
    pub fn read_faults(&self, shard: ShardId) -> Vec<ReadFault> {
        self.shards[usize::from(shard.0)].shared.read_faults()
    }

    /// Ends the threads after everything that the logs handed over. Drop the logs first: one that
    /// is still open is left without the mark of a clean end.
    pub fn shutdown(self) {
        drop(self);
    }
}

impl Drop for Storage {
    fn drop(&mut self) {
        self.committers.drain(..).for_each(Committer::stop);
        if let Some(io) = self.io.take() {
            io.stop();
        }
    }
}

fn start_committers(
    config: &StorageConfig,
    shards: &[Arc<ShardShared>],
    wake: &Wake,
) -> io::Result<Vec<Committer>> {
    let threads = config.commit_threads.min(shards.len());
    (0..threads)
        .map(|number| {
            let own = shards.iter().skip(number).step_by(threads).cloned().collect();
            Committer::start(number, own, config.durability, Arc::clone(wake))
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
