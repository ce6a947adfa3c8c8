//! A data folder in a temporary place, storage running on it, and a disk that fails on demand.
#![allow(dead_code, unreachable_pub)] // each test file uses a part of it

use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use tempfile::TempDir;
use tern_core::io::ColdRecord;
use tern_core::log::{Links, Log, Offset, Record, RecordKind};
use tern_core::placement::ShardId;
use tern_core::shard::ReplayError;
use tern_protocol::{ChannelId, Incarnation};
use tern_storage::{
    Disk, Folder, FolderOptions, MappedLog, Opened, RealDisk, RecoverError, SEGMENT_BYTES_MIN,
    ShmTable, Storage, StorageConfig, Visitor,
};

pub mod chat;

pub mod countdown;

pub mod faulty;
pub mod model;
pub mod plain;

/// The shard that most tests use.
pub const SHARD: ShardId = ShardId(0);

/// Time that a test waits for another thread before it gives up.
const PATIENCE: Duration = Duration::from_secs(20);

/// Places on disk.
pub struct Rig {
    pub dir: TempDir,
    pub shm: TempDir,
    pub disk: Arc<dyn Disk>,
    pub config: StorageConfig,
    pub shards: u16,
}

/// Storage that runs.
pub struct Running {
    pub storage: Storage,
    pub bell: Arc<Bell>,
}

/// Rung by the commit thread.
#[derive(Default)]
pub struct Bell {
    rung: Mutex<u64>,
    condition: Condvar,
}

/// What a replay told.
#[derive(Default, Debug, PartialEq, Eq, Clone)]
pub struct Told {
    pub records: Vec<(Offset, Links, Vec<u8>)>,
    pub raised: Vec<(usize, u32)>,
    pub lost: Vec<(u64, u64, Option<Links>)>,
}

impl Visitor for Told {
    fn record(&mut self, at: Offset, _: Offset, record: Record<'_>) -> Result<(), ReplayError> {
        self.records.push((at, record.links, record.body.to_vec()));
        Ok(())
    }

    fn raise(&mut self, incarnation: Incarnation) {
        self.raised.push((self.records.len(), incarnation.0));
    }

    fn lost(&mut self, at: Offset, end: Offset, links: Option<Links>) -> Result<(), ReplayError> {
        self.lost.push((at.0, end.0, links));
        Ok(())
    }
}

impl Told {
    pub fn bodies(&self) -> Vec<Vec<u8>> {
        self.records.iter().map(|(_, _, body)| body.clone()).collect()
    }
}

impl Rig {
    pub fn new() -> Self {
        let shm = tempfile::tempdir().unwrap();
        let config = StorageConfig {
            segment_bytes_min: SEGMENT_BYTES_MIN,
            segment_bytes_max: SEGMENT_BYTES_MIN,
            dedup_dir: shm.path().into(),
            ..StorageConfig::default()
        };
        Self { dir: tempfile::tempdir().unwrap(), shm, disk: Arc::new(RealDisk), config, shards: 1 }
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn start(&self) -> Running {
        self.start_at(self.path())
    }

    pub fn start_at(&self, path: &Path) -> Running {
        let options = FolderOptions { shards: self.shards, disk: Arc::clone(&self.disk) };
        let folder = Folder::open(path, options).unwrap();
        let bell = Arc::new(Bell::default());
        let ring = Arc::clone(&bell);
        let wake = Arc::new(move |_| ring.ring());
        let storage = Storage::start(folder, self.config.clone(), wake).unwrap();
        Running { storage, bell }
    }

    /// The segments of a shard, oldest first.
    pub fn segments(&self) -> Vec<PathBuf> {
        segments_at(self.path())
    }

    /// Opens, tells, and leaves without closing.
    pub fn peek(&self) -> Told {
        let running = self.start();
        let (opened, _, told) = running.open();
        running.kill(opened.log);
        told
    }
}

pub fn segments_at(path: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(path.join("log/shard-00")).unwrap();
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|suffix| suffix == "seg"));
    paths.sort();
    paths
}

/// Copies a folder with everything in it.
pub fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_dir(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

impl Running {
    pub fn try_open(&self) -> Result<(Opened, ShmTable, Told), RecoverError> {
        self.try_open_shard(SHARD)
    }

    pub fn open_shard(&self, shard: ShardId) -> (Opened, ShmTable, Told) {
        self.try_open_shard(shard).unwrap()
    }

    fn try_open_shard(&self, shard: ShardId) -> Result<(Opened, ShmTable, Told), RecoverError> {
        let mut scan = self.storage.scan_shard(shard)?;
        let (table, _) = scan.attach_table()?;
        let mut told = Told::default();
        let opened = scan.replay(&mut told)?;
        Ok((opened, table, told))
    }

    pub fn open(&self) -> (Opened, ShmTable, Told) {
        self.try_open().unwrap()
    }

    pub fn log(&self) -> MappedLog {
        self.open().0.log
    }

    /// Waits until something is so; each ring of the bell asks again.
    pub fn until(&self, mut so: impl FnMut() -> bool) {
        let deadline = std::time::Instant::now() + PATIENCE;
        let mut rung = self.bell.rung.lock().unwrap();
        while !so() {
            assert!(std::time::Instant::now() < deadline, "nothing happened");
            rung = self.bell.condition.wait_timeout(rung, Duration::from_millis(5)).unwrap().0;
        }
        drop(rung);
    }

    /// Has a record read into memory, or found out what is left of it.
    pub fn warm(&self, at: Offset, channel: Option<ChannelId>) {
        let (done, warmed) = std::sync::mpsc::sync_channel(1);
        let tell = Box::new(move || done.send(()).unwrap());
        self.storage.warmer().warm(ColdRecord { shard: SHARD, at, channel }, tell);
        warmed.recv().unwrap();
    }

    /// Commits until the record is durable.
    pub fn make_durable(&self, log: &mut MappedLog, at: Offset) {
        self.until(|| {
            log.commit();
            log.durable().unwrap().covers(at)
        });
    }

    /// Appends, waiting where the log is busy.
    pub fn append(&self, log: &mut MappedLog, body: &[u8]) -> Offset {
        self.append_linked(log, Links::default(), body)
    }

    pub fn append_linked(&self, log: &mut MappedLog, links: Links, body: &[u8]) -> Offset {
        let mut at = None;
        self.until(|| {
            at = log.append(RecordKind::Message, links, &[body]).ok();
            if at.is_none() {
                log.commit();
                log.durable().unwrap();
            }
            at.is_some()
        });
        at.unwrap()
    }

    /// Appends and makes durable.
    pub fn write(&self, log: &mut MappedLog, body: &[u8]) -> Offset {
        let at = self.append(log, body);
        self.make_durable(log, at);
        at
    }

    /// Ends as `kill -9` would: nothing that is in memory reaches the disk.
    pub fn kill(self, log: MappedLog) {
        std::mem::forget(log);
        self.storage.shutdown();
    }

    /// Ends in order.
    pub fn close(self, log: MappedLog) {
        drop(log);
        self.storage.shutdown();
    }
}

impl Bell {
    fn ring(&self) {
        *self.rung.lock().unwrap() += 1;
        self.condition.notify_all();
    }
}
