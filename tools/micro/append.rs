//! A record of a message to the log: copied once, with its header and checksum. Every 256 records
//! the batch is written and synced by the same thread, which is a part of the cost.

use std::hint::black_box;
use std::sync::Arc;

use tempfile::TempDir;
use tern_core::log::{Links, Log, Offset, Record, RecordKind};
use tern_core::placement::ShardId;
use tern_core::shard::ReplayError;
use tern_protocol::Incarnation;
use tern_storage::{
    Durability, Folder, FolderOptions, MappedLog, RealDisk, ShmTable, Step, Steps, Storage,
    StorageConfig, Visitor,
};

use super::Operation;

/// Records of a batch.
const BATCH: u64 = 256;

/// Bytes of a message's body: a push body and 100 bytes of content.
const BODY_BYTES: usize = 164;

/// The one shard.
const SHARD: ShardId = ShardId(0);

/// A data folder whose threads' work is done by hand.
pub struct Place {
    _storage: Storage,
    steps: Steps,
    _folders: [TempDir; 2],
}

/// A log to append to.
pub struct Append {
    log: MappedLog,
    place: Place,
    count: u64,
    newest: Offset,
}

/// A replay of nothing.
struct Empty;

impl Visitor for Empty {
    fn record(&mut self, _: Offset, _: Offset, _: Record<'_>) -> Result<(), ReplayError> {
        Ok(())
    }

    fn raise(&mut self, _: Incarnation) {}

    fn lost(&mut self, _: Offset, _: Offset, _: Option<Links>) -> Result<(), ReplayError> {
        Ok(())
    }
}

impl Place {
    /// A new folder with one shard: its log, and its table in shared memory.
    pub fn open() -> (Self, MappedLog, ShmTable) {
        let folders = [(); 2].map(|()| tempfile::tempdir().expect("a folder in memory or on disk"));
        let options = FolderOptions { shards: 1, disk: Arc::new(RealDisk) };
        let folder = Folder::open(folders[0].path(), options).expect("the folder is new");
        let config = StorageConfig {
            durability: Durability::Process, // the disk's time is not ours
            dedup_dir: folders[1].path().into(),
            ..StorageConfig::default()
        };
        let started = Storage::by_hand(folder, &config, Arc::new(|_| {}));
        let (storage, mut steps) = started.expect("the folder is new");
        while steps.is_io_wanted() {
            steps.io();
        }
        let mut scan = storage.scan_shard(SHARD).expect("the log is new");
        let (table, _) = scan.attach_table().expect("there is memory");
        let opened = scan.replay(&mut Empty).expect("the log is new");
        (Self { _storage: storage, steps, _folders: folders }, opened.log, table)
    }

    /// Does what the threads of the storage have to do.
    pub fn work(&mut self) {
        while self.steps.is_io_wanted() {
            self.steps.io();
        }
        while self.steps.is_commit_wanted(0) && self.steps.commit(0) == Step::Worked {}
    }
}

impl Append {
    /// An empty log.
    pub fn new() -> Self {
        let (place, log, _) = Place::open();
        Self { log, place, count: 0, newest: Offset::NONE }
    }

    /// Makes all that was appended durable, as far as there is any, and the next segment ready.
    fn commit(&mut self) {
        self.log.commit();
        self.place.work();
        let newest = self.newest;
        while newest != Offset::NONE
            && !self.log.durable().is_ok_and(|durable| durable.covers(newest))
        {
            self.place.work();
            self.log.commit();
        }
    }
}

impl Default for Append {
    fn default() -> Self {
        Self::new()
    }
}

impl Operation for Append {
    fn once(&mut self) {
        let body = black_box([7; BODY_BYTES]);
        let links = Links { channel: self.newest, device: self.newest, skip: self.newest };
        loop {
            if let Ok(at) = self.log.append(RecordKind::Message, links, &[&body]) {
                self.newest = at;
                break;
            }
            self.commit(); // the next segment was not ready
        }
        self.count += 1;
        if self.count.is_multiple_of(BATCH) {
            self.commit();
        }
    }
}
