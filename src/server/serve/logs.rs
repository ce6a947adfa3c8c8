//! The logs of all shards: opened, read through, handed to the workers' machines, and closed.
//!
//! Each worker's shards are read by a thread of their own, so a restart takes as long as the
//! largest share. Nothing is shown to any client before every shard is open.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tern_core::config::Config;
use tern_core::log::{Links, Offset, Record};
use tern_core::placement::{Placement, ShardId, WorkerId};
use tern_core::shard::ReplayError;
use tern_core::shard::state::{StateKind, TombstoneRow};
use tern_core::{Recovery, Shard, Worker};
use tern_protocol::Incarnation;
use tern_storage::backup::LogSnapshot;
use tern_storage::{
    Eviction, Folder, FolderError, FolderOptions, Id, IoError, IoHandle, MappedLog, MappedReader,
    Opened, Raised, ReadFault, RecoverError, SpaceReport, Storage, StorageConfig, Visitor,
};

use super::table::{CountedTable, TableCounts};
use super::{descriptors, space};
use crate::control::status::{DiskStatus, Sort};
use crate::options::{Durability, Options, WhenFull};
use crate::worker::Doors;

/// Time between two words on how far recovery is, in milliseconds; also how soon it ends when the
/// server is to go down.
const PROGRESS_MS: u64 = 500;

/// What a worker decides by, on the real disk.
pub(super) type Machine = Worker<MappedLog, CountedTable, MappedReader>;

/// Why the logs can't be used.
#[derive(Debug)]
pub enum LogsError {
    /// Their folder can't be opened.
    Folder(FolderError),
    /// The log of a shard can't be.
    Shard(u16, RecoverError),
    /// The system refuses a thread or a folder.
    System(io::Error),
    /// The server was to go down before they were read.
    Interrupted,
}

impl LogsError {
    pub(super) fn is_in_use(&self) -> bool {
        matches!(self, Self::Folder(FolderError::InUse { .. }))
    }
}

impl fmt::Display for LogsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(error) => error.fmt(f),
            Self::Shard(shard, error @ RecoverError::Io(IoError { source, .. })) => {
                let advice = descriptors::advice(source);
                let advice = advice.map(|words| format!("; {words}")).unwrap_or_default();
                write!(f, "shard {shard}: {error}{advice}")
            }
            Self::Shard(shard, error) => write!(f, "shard {shard}: {error}"),
            Self::System(error) => write!(f, "the logs can't be opened: {error}"),
            Self::Interrupted => f.write_str("recovery was interrupted; the next start does it"),
        }
    }
}

impl std::error::Error for LogsError {}

/// The folder of the logs, held by this process.
pub(super) struct LogFolder(Folder);

impl LogFolder {
    /// `shards`: 0 for what it has, or the default of a new one.
    pub(super) fn open(data: &Path, shards: u16) -> Result<Self, LogsError> {
        let options = FolderOptions { shards, ..FolderOptions::default() };
        Folder::open(data, options).map(Self).map_err(LogsError::Folder)
    }

    pub(super) fn shards(&self) -> u16 {
        self.0.shards()
    }

    /// 16 bytes that nobody outside can guess.
    pub(super) fn id(&self) -> Id {
        self.0.id()
    }
}

/// All logs, open.
pub(super) struct Logs {
    storage: Storage,
    shards: Vec<OpenShard>,
    retention: Option<Duration>,
    /// What an operator should know of how they were found.
    pub(super) notes: Vec<String>,
    /// Records in all of them.
    pub(super) records: u64,
}

struct OpenShard {
    id: ShardId,
    shard: Shard<MappedLog, CountedTable>,
    table: Arc<TableCounts>,
}

impl Logs {
    /// Opens and reads all logs. `progress` is told, now and then, the records read so far, and
    /// says whether to go on.
    pub(super) fn recover(
        folder: LogFolder,
        options: &Options,
        doors: &Arc<Doors>,
        progress: impl FnMut(u64) -> bool,
    ) -> Result<Self, LogsError> {
        let placement = doors.placement();
        let storage = Storage::start(folder.0, config(options), doors.commit_notice())
            .map_err(LogsError::System)?;
        let found = read_all(&storage, placement, progress)?;
        let (shards, retention) = (Vec::new(), options.retention_days.duration());
        let mut logs = Self { storage, shards, retention, notes: Vec::new(), records: 0 };
        for (shard, note, records) in found {
            logs.shards.push(shard);
            logs.notes.extend(note);
            logs.records += records;
        }
        logs.shards.sort_unstable_by_key(|shard| shard.id);
        Ok(logs)
    }

    /// The machine of each worker with its shards, a reader for its pushes, and what remains.
    pub(super) fn machines(
        self,
        config: &Config,
        placement: Placement,
    ) -> (Vec<(Machine, MappedReader)>, OpenLogs) {
        let reader = self.storage.reader();
        let mut tables = Vec::new();
        let mut shares: Vec<Vec<_>> = (0..placement.workers()).map(|_| Vec::new()).collect();
        for OpenShard { id, shard, table } in self.shards {
            tables.push((id, table));
            shares[usize::from(placement.worker_of(id).0)].push(shard);
        }
        let machine = |(worker, shards)| {
            let id = WorkerId(worker);
            let machine = Worker::new(id, placement, config.clone(), reader.clone(), shards);
            (machine, reader.clone())
        };
        let machines = (0..placement.workers()).zip(shares).map(machine).collect();
        let storage = Arc::new(Mutex::new(Some(self.storage)));
        (machines, OpenLogs { storage, tables, retention: self.retention })
    }
}

fn config(options: &Options) -> StorageConfig {
    StorageConfig {
        durability: match options.durability {
            Durability::Disk => tern_storage::Durability::Disk,
            Durability::Process => tern_storage::Durability::Process,
        },
        bytes_max: if options.log_bytes_max == 0 { u64::MAX } else { options.log_bytes_max },
        commit_threads: options.commit_threads,
        dedup_dir: options.shared_memory.clone(),
        segment_bytes_min: options.segment_bytes.min(options.segment_bytes_max),
        segment_bytes_max: options.segment_bytes_max,
        retention: options.retention_days.duration(),
        eviction: match options.when_full {
            WhenFull::Refuse => Eviction::Refuse,
            WhenFull::Evict => Eviction::Oldest,
        },
        checkpoint_bytes_min: options.checkpoint_bytes,
        ..StorageConfig::default()
    }
}

/// What is known to all threads of a recovery.
#[derive(Default)]
struct Watch {
    records: AtomicU64,
    stop: AtomicBool,
}

type Found = (OpenShard, Vec<String>, u64);

fn read_all(
    storage: &Storage,
    placement: Placement,
    mut progress: impl FnMut(u64) -> bool,
) -> Result<Vec<Found>, LogsError> {
    let watch = Watch::default();
    let (done, results) = sync_channel(usize::from(placement.shards()));
    std::thread::scope(|scope| {
        let (mut found, mut failed) = (Vec::new(), None);
        for worker in 0..placement.workers() {
            let (watch, done) = (&watch, done.clone());
            let read = move || read_share(storage, placement, WorkerId(worker), watch, &done);
            if let Err(error) = std::thread::Builder::new().spawn_scoped(scope, read) {
                watch.stop.store(true, Ordering::Relaxed);
                failed.get_or_insert(LogsError::System(error));
            }
        }
        drop(done);
        loop {
            match results.recv_timeout(Duration::from_millis(PROGRESS_MS)) {
                Ok(Ok(shard)) => found.push(shard),
                Ok(Err(error)) => {
                    watch.stop.store(true, Ordering::Relaxed);
                    failed.get_or_insert(error);
                }
                Err(RecvTimeoutError::Timeout) => {
                    if !progress(watch.records.load(Ordering::Relaxed)) {
                        watch.stop.store(true, Ordering::Relaxed);
                        failed.get_or_insert(LogsError::Interrupted);
                    }
                }
                Err(RecvTimeoutError::Disconnected) => return failed.map_or(Ok(found), Err),
            }
        }
    })
}

fn read_share(
    storage: &Storage,
    placement: Placement,
    worker: WorkerId,
    watch: &Watch,
    done: &SyncSender<Result<Found, LogsError>>,
) {
    for id in placement.shards_of(worker) {
        if watch.stop.load(Ordering::Relaxed) {
            return;
        }
        let shard = read_shard(storage, placement, id, watch);
        let shard = shard.map_err(|error| LogsError::Shard(id.0, error));
        done.send(shard).expect("the receiver waits for all of them");
    }
}

fn read_shard(
    storage: &Storage,
    placement: Placement,
    id: ShardId,
    watch: &Watch,
) -> Result<Found, RecoverError> {
    let mut scan = storage.scan_shard(id)?;
    let (table, applied) = scan.attach_table()?;
    let table = CountedTable::new(table);
    let counts = table.counts();
    let recovery = Recovery::new(id, placement, table, applied);
    let mut watched = Watched { recovery, watch };
    let opened = scan.replay(&mut watched)?;
    if let Some(why) = opened.report.table_rebuilt {
        tracing::info!(shard = id.0, why, "the deduplication table is made anew from the log");
    }
    let (notes, records) = (notes(id, &opened), opened.report.records);
    let shard = watched.recovery.finish(opened.log);
    Ok((OpenShard { id, shard, table: counts }, notes, records))
}

fn notes(id: ShardId, opened: &Opened) -> Vec<String> {
    let torn = "a write that was never acked was cut off".to_owned();
    let raised = opened.raised.map(|raised| {
        let why = match raised {
            Raised::PowerCut => "the machine went down while acks did not wait for the disk",
            Raised::Accepted => "a part of its log was accepted as lost",
            Raised::Shortened => "its last segment is shorter than it was made",
            Raised::Restored => "it was restored from a backup",
        };
        format!("its history restarts as incarnation {}, since {why}", opened.incarnation)
    });
    opened
        .report
        .torn
        .then_some(torn)
        .into_iter()
        .chain(raised)
        .map(|note| format!("shard {}: {note}", id.0))
        .collect()
}

/// Replays into the machine, counts, and ends early when told so.
struct Watched<'a> {
    recovery: Recovery<CountedTable>,
    watch: &'a Watch,
}

impl Visitor for Watched<'_> {
    fn record(&mut self, at: Offset, end: Offset, record: Record<'_>) -> Result<(), ReplayError> {
        if self.watch.stop.load(Ordering::Relaxed) {
            return Err(ReplayError { at, what: "recovery was interrupted".to_owned() });
        }
        self.watch.records.fetch_add(1, Ordering::Relaxed);
        self.recovery.replay(at, end, record)
    }

    fn raise(&mut self, incarnation: Incarnation) {
        self.recovery.raise(incarnation);
    }

    fn state(&mut self, at: Offset, kind: StateKind, row: &[u8]) -> Result<(), ReplayError> {
        Visitor::state(&mut self.recovery, at, kind, row)
    }

    fn lost(&mut self, at: Offset, end: Offset, links: Option<Links>) -> Result<(), ReplayError> {
        Visitor::lost(&mut self.recovery, at, end, links)
    }

    fn tombstones(&self) -> Vec<TombstoneRow> {
        self.recovery.tombstones()
    }

    fn unexplained(&self) -> Vec<Offset> {
        self.recovery.unexplained()
    }
}

/// What remains of the logs beside the machines that own them: their figures, their I/O thread,
/// their end. Shared with the control plane; no worker ever takes the lock.
#[derive(Clone)]
pub(super) struct OpenLogs {
    storage: Arc<Mutex<Option<Storage>>>,
    tables: Vec<(ShardId, Arc<TableCounts>)>,
    retention: Option<Duration>,
}

impl OpenLogs {
    /// Number of figures of a shard.
    const LEN: usize = 22;

    /// Name, sort and sentence of each figure, in the order of [`OpenLogs::figures`].
    pub(super) const DESCRIPTORS: [(&'static str, Sort, &'static str); Self::LEN] = [
        ("log_bytes_reserved", Sort::Gauge, "disk that the segments hold"),
        ("log_bytes_used", Sort::Count, "appended since the start, with headers and marks"),
        ("log_bytes_pending", Sort::Gauge, "appended and not yet durable"),
        ("log_segments_now", Sort::Gauge, "segments"),
        ("log_records", Sort::Count, "records appended since the start"),
        ("commits", Sort::Count, "batches made durable since the start"),
        ("commit_us_last", Sort::Level, "time of the newest commit, write and sync"),
        ("commit_us_mean", Sort::Level, "mean time of a commit"),
        ("commit_us_p99", Sort::Level, "99 % of the commits took less, to a power of two"),
        ("commit_us_max", Sort::Level, "longest commit"),
        ("reads_warmed", Sort::Count, "cold reads served by the I/O thread"),
        ("dedup_entries_now", Sort::Gauge, "devices in the deduplication table"),
        ("dedup_bytes", Sort::Gauge, "shared memory that the table holds"),
        ("logs_failed_now", Sort::Gauge, "logs that take no more messages; TROUBLE says why"),
        ("checkpoint_bytes_now", Sort::Gauge, "in the newest checkpoint"),
        ("checkpoint_age_s_now", Sort::Level, "age of the newest checkpoint in seconds"),
        ("log_bytes_uncovered", Sort::Gauge, "finished log that is in no checkpoint yet"),
        ("checkpoints", Sort::Count, "made since the start"),
        ("checkpoints_failed", Sort::Count, "attempts that failed since the start"),
        ("segments_deleted", Sort::Count, "past their retention, or to make room"),
        ("segments_evicted", Sort::Count, "of these, before their retention ended"),
        ("log_bytes_freed", Sort::Count, "disk that deleting segments gave back"),
    ];

    /// The figures of each shard; none once the logs are closed.
    pub(super) fn figures(&self) -> Vec<(ShardId, [u64; Self::LEN])> {
        let storage = self.storage();
        let Some(storage) = storage.as_ref() else { return Vec::new() };
        let of_shard = |(id, table): &(ShardId, Arc<TableCounts>)| {
            let (stats, upkeep) = (storage.stats(*id), storage.upkeep(*id));
            let checkpoint = upkeep.checkpoint.unwrap_or_default();
            let figures = [
                stats.bytes_reserved,
                stats.bytes_used,
                stats.bytes_pending,
                stats.segments,
                stats.records,
                stats.batches,
                stats.commit_us_last,
                stats.commit_us_mean,
                stats.commit_us_p99,
                stats.commit_us_max,
                stats.warmed,
                table.entries(),
                table.bytes(),
                u64::from(storage.failure(*id).or(storage.read_only(*id)).is_some()),
                checkpoint.bytes,
                checkpoint.age.as_secs(),
                upkeep.uncovered_bytes,
                upkeep.checkpoints_made,
                upkeep.checkpoints_failed,
                upkeep.segments_deleted,
                upkeep.segments_evicted,
                upkeep.bytes_freed,
            ];
            (*id, figures)
        };
        self.tables.iter().map(of_shard).collect()
    }

    /// What failed, for the operator.
    pub(super) fn troubles(&self) -> Vec<String> {
        let storage = self.storage();
        let Some(storage) = storage.as_ref() else { return Vec::new() };
        let failure = |(id, _): &(ShardId, _)| {
            let why = storage.failure(*id).or(storage.read_only(*id))?;
            Some(format!("the log of shard {} takes no more messages: {why}", id.0))
        };
        let unreadable = |(id, _): &(ShardId, _)| {
            storage.read_faults(*id).into_iter().map(|ReadFault { path, pages }| {
                let path = path.display();
                format!(
                    "{pages} pages of {path} can't be read, their messages are told as lost: \
                     check the disk, and that no other program writes to the data folder"
                )
            })
        };
        let refusing = self.tables.iter().filter(|(id, _)| storage.is_full(*id)).map(|(id, _)| {
            format!(
                "there is no room for more of shard {}'s log: messages are refused, at the latest \
                 when its present segment is full, until there is room",
                id.0
            )
        });
        let failures = self.tables.iter().filter_map(failure);
        let unreadable = self.tables.iter().flat_map(unreadable);
        let suspended = self.tables.iter().filter_map(|(id, _)| {
            let why = storage.upkeep(*id).suspended?;
            Some(format!("shard {} deletes nothing and makes no checkpoint: {why}", id.0))
        });
        let clock = space::clock_troubles(&storage.clock());
        let full = space::Level::of(&storage.space()).trouble(&storage.space());
        failures
            .chain(refusing)
            .chain(unreadable)
            .chain(suspended)
            .chain(clock)
            .chain(full)
            .collect()
    }

    /// What the disk holds, in numbers and words; `None` once the logs are closed.
    pub(super) fn disk(&self) -> Option<DiskStatus> {
        let storage = self.storage();
        let storage = storage.as_ref()?;
        let oldest = self.tables.iter().map(|(id, _)| storage.upkeep(*id).oldest_age).max();
        Some(space::status(&storage.space(), self.retention, oldest.unwrap_or_default()))
    }

    /// What the disk holds, in numbers.
    pub(super) fn space(&self) -> Option<SpaceReport> {
        self.storage().as_ref().map(Storage::space)
    }

    /// Bytes of disk that the logs hold.
    pub(super) fn bytes_reserved(&self) -> u64 {
        self.figures().iter().map(|(_, figures)| figures[0]).sum()
    }

    /// Whether the logs' folder is still this process's own; once they are closed nobody asks.
    pub(super) fn is_ours(&self) -> bool {
        self.storage().as_ref().is_none_or(|storage| storage.folder().is_ours())
    }

    /// The logs as they are now, to be copied; `None` once they are closed.
    pub(super) fn snapshot(&self) -> Option<Result<LogSnapshot, IoError>> {
        self.storage().as_ref().map(Storage::snapshot)
    }

    /// The way to the I/O thread.
    pub(super) fn warmer(&self) -> IoHandle {
        self.storage().as_ref().expect("the logs are open").warmer()
    }

    /// Closes the logs with everything durable.
    pub(super) fn close(&self, machines: Vec<Machine>) {
        drop(machines); // each log hands its last batch over
        if let Some(storage) = self.storage().take() {
            storage.shutdown();
        }
    }

    /// Each holder leaves it whole at every step, so a panic elsewhere spoils nothing.
    fn storage(&self) -> MutexGuard<'_, Option<Storage>> {
        self.storage.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::{Environment, Flags};

    fn options(data: &Path) -> Options {
        let data = data.to_str().expect("text").to_owned();
        let flags = Flags::new([("data", data.clone()), ("shared-memory", data)]);
        Options::load(&flags, &Environment::default()).expect("valid").0
    }

    #[test]
    fn each_worker_gets_its_shards_whatever_their_number() {
        let folder = tempfile::tempdir().expect("a folder");
        let options = options(folder.path());
        for workers in [1, 3, 7] {
            let log_folder = LogFolder::open(folder.path(), 0).expect("free again");
            let placement = Placement::new(log_folder.shards(), workers);
            let (doors, _seats) = Doors::open(placement).expect("descriptors");
            let logs = Logs::recover(log_folder, &options, &doors, |_| true).expect("read");
            assert!(logs.notes.is_empty(), "{:?}", logs.notes);
            let (machines, open) = logs.machines(&Config::default(), placement);
            for (worker, (machine, _)) in (0..workers).zip(&machines) {
                let own = placement.shards_of(WorkerId(worker)).count();
                assert_eq!(machine.shards().len(), own, "worker {worker} of {workers}");
            }
            assert_eq!(open.figures().len(), 4);
            assert!(open.troubles().is_empty());
            open.close(machines.into_iter().map(|(machine, _)| machine).collect());
            assert!(open.figures().is_empty(), "closed");
        }
    }
}
