//! A data folder that storage writes, and the program run on it.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tern_core::dedup::{DedupEntry, DedupTable};
use tern_core::log::{AppendError, Links, Log, Offset, Record, RecordKind};
use tern_core::placement::ShardId;
use tern_core::shard::ReplayError;
use tern_protocol::frames::{PushBody, content_type, message_kind};
use tern_protocol::{ChannelId, DeviceId, Epoch, Incarnation, SendCounter, SendKey, Uin};
use tern_storage::repair::examine;
use tern_storage::{
    ClockSource, Folder, FolderError, FolderOptions, Loss, MappedLog, Reading, SEGMENT_BYTES_MIN,
    ShmTable, Storage, StorageConfig, Visitor,
};
use zerocopy::IntoBytes;

/// The channel of users 7 and 9, in which device 7/1 sends.
pub const A_B: &str = "7-9";

const SHARD: ShardId = ShardId(0);

/// Time that a test waits for a commit, or a lock, before it gives up.
const PATIENCE: Duration = Duration::from_secs(20);

/// Places on disk.
pub struct Rig {
    data: TempDir,
    memory: TempDir,
}

/// What the program said.
pub struct Run {
    pub out: String,
    pub err: String,
    pub code: i32,
}

/// Storage that has the folder.
pub struct Live {
    pub storage: Storage,
    lock: PathBuf,
    log: MappedLog,
    table: ShmTable,
    rung: Receiver<()>,
    /// Offsets of the messages sent, and the entry of their device.
    sent: Vec<Offset>,
    entry: Option<DedupEntry>,
}

/// A clock that a test sets: milliseconds, of the day and since boot.
#[derive(Debug, Default)]
pub struct Hands(pub AtomicU64);

impl ClockSource for Hands {
    fn now(&self) -> Reading {
        let ms = self.0.load(Relaxed);
        Reading { wall_ms: 1_800_000_000_000 + ms, boot_ms: ms }
    }
}

struct Nobody;

impl Visitor for Nobody {
    fn record(&mut self, _: Offset, _: Offset, _: Record<'_>) -> Result<(), ReplayError> {
        Ok(())
    }

    fn raise(&mut self, _: Incarnation) {}

    fn lost(&mut self, _: Offset, _: Offset, _: Option<Links>) -> Result<(), ReplayError> {
        Ok(())
    }
}

impl Rig {
    pub fn new() -> Self {
        Self { data: tempfile::tempdir().unwrap(), memory: tempfile::tempdir().unwrap() }
    }

    pub fn path(&self) -> &Path {
        self.data.path()
    }

    /// Opens the folder. A process that another test starts holds this one's locks until it is
    /// on its own feet.
    fn open(&self, options: &FolderOptions) -> Folder {
        let give_up = Instant::now() + PATIENCE;
        loop {
            match Folder::open(self.path(), options.clone()) {
                Err(FolderError::InUse { .. }) if Instant::now() < give_up => {
                    std::thread::yield_now();
                }
                folder => return folder.unwrap(),
            }
        }
    }

    /// Opens a folder of one shard and has that many messages made durable, the first of all only
    /// in a new one.
    pub fn write(&self, messages: u64) -> Live {
        self.write_with(messages, StorageConfig::default())
    }

    /// As [`Rig::write`], with these settings beside those that make segments small.
    pub fn write_with(&self, messages: u64, settings: StorageConfig) -> Live {
        let options = FolderOptions { shards: 1, ..FolderOptions::default() };
        let folder = self.open(&options);
        let config = StorageConfig {
            segment_bytes_min: SEGMENT_BYTES_MIN,
            segment_bytes_max: SEGMENT_BYTES_MIN,
            dedup_dir: self.memory.path().into(),
            checkpoint_bytes_min: 1,
            maintain_every: Duration::from_secs(3600),
            ..settings
        };
        let (bell, rung) = sync_channel(1);
        let wake = Arc::new(move |_| {
            let _ = bell.try_send(()); // it rings already
        });
        let storage = Storage::start(folder, config, wake).unwrap();
        let mut scan = storage.scan_shard(SHARD).unwrap();
        let (table, _) = scan.attach_table().unwrap();
        let log = scan.replay(&mut Nobody).unwrap().log;
        let mut live = Live {
            storage,
            lock: self.path().join("lock"),
            log,
            table,
            rung,
            sent: Vec::new(),
            entry: None,
        };
        live.send(messages);
        live
    }

    /// What a start would call lost.
    pub fn losses(&self) -> Vec<Loss> {
        let folder = self.open(&FolderOptions::default());
        examine(&folder, SHARD, &mut Nobody).unwrap().losses
    }

    /// Runs the program on the folder.
    pub fn run(&self, args: &[&str]) -> Run {
        let output = Command::new(env!("CARGO_BIN_EXE_logview"))
            .args(["--data".as_ref(), self.path(), "--memory".as_ref(), self.memory.path()])
            .args(args)
            .output()
            .unwrap();
        Run {
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
            code: output.status.code().unwrap(),
        }
    }

    pub fn segment(&self, number: u64) -> PathBuf {
        self.path().join(format!("log/shard-00/{number:010}.seg"))
    }

    /// Flips a bit of a segment; a second time puts it right.
    pub fn flip(&self, segment: u64, place: u64) {
        let file = File::options().read(true).write(true).open(self.segment(segment)).unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, place).unwrap();
        file.write_all_at(&[byte[0] ^ 1], place).unwrap();
    }

    pub fn truncate(&self, segment: u64, len: u64) {
        File::options().write(true).open(self.segment(segment)).unwrap().set_len(len).unwrap();
    }

    /// Every file and folder with its content and its times of change.
    pub fn everything(&self) -> Vec<(PathBuf, Vec<u8>, [i64; 4])> {
        let mut all = Vec::new();
        let mut folders = vec![self.path().to_owned(), self.memory.path().to_owned()];
        while let Some(path) = folders.pop() {
            let meta = fs::metadata(&path).unwrap();
            let times = [meta.mtime(), meta.mtime_nsec(), meta.ctime(), meta.ctime_nsec()];
            let content = if meta.is_dir() { Vec::new() } else { fs::read(&path).unwrap() };
            if meta.is_dir() {
                folders.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            }
            all.push((path, content, times));
        }
        all.sort();
        all
    }
}

impl Run {
    pub fn says(&self, text: &str) {
        let Self { out, err, code } = self;
        assert!(out.contains(text), "no {text:?} in:\n{out}\n{err}\nexit code {code}");
    }

    pub fn ends_with(&self, code: i32) {
        assert_eq!(self.code, code, "{}\n{}", self.out, self.err);
    }
}

impl Live {
    /// Sends `messageN`, 8 bytes up to the ninth, in one batch if they fit into a segment; waits
    /// until they are durable.
    pub fn send(&mut self, messages: u64) {
        for _ in 0..messages {
            let id = self.sent.len() as u64 + 1;
            let at = self.append(id);
            self.sent.push(at);
            let key = SendKey { epoch: Epoch(1), counter: SendCounter(id as u32) };
            let entry = DedupEntry::accept(self.entry.as_ref(), key, at);
            self.table.reserve().unwrap();
            self.table.put(Uin(7), DeviceId(1), entry, self.log.tail());
            self.entry = Some(entry);
        }
        let Some(&last) = self.sent.last() else { return };
        while !self.log.durable().unwrap().covers(last) {
            self.log.commit();
            self.rung.recv_timeout(PATIENCE).unwrap();
        }
    }

    fn append(&mut self, id: u64) -> Offset {
        let before = |id: u64| match id {
            0 => Offset::NONE,
            id => self.sent[id as usize - 1],
        };
        let links =
            Links { channel: before(id - 1), device: before(id - 1), skip: before(id & (id - 1)) };
        let push = PushBody {
            channel: ChannelId::direct(Uin(7), Uin(9)),
            id: id.into(),
            sender: 7.into(),
            device: 1.into(),
            epoch: 1.into(),
            counter: (id as u32).into(),
            content_type: content_type::TEXT.into(),
            kind: message_kind::CONTENT,
            version: 1,
            server_time: 1_700_000_000_000.into(),
            refers_to: 0.into(),
        };
        let text = format!("message{id}");
        loop {
            let parts = [push.as_bytes(), text.as_bytes()];
            match self.log.append(RecordKind::Message, links, &parts) {
                Ok(at) => return at,
                Err(AppendError::Busy) => {
                    self.log.commit();
                    self.log.durable().unwrap();
                    // The next segment is not announced; a commit may be.
                    let _ = self.rung.recv_timeout(Duration::from_millis(5));
                }
                Err(error) => panic!("{error:?}"),
            }
        }
    }

    /// Ends in order.
    pub fn close(self) {
        let lock = self.lock;
        drop(self.log);
        self.storage.shutdown();
        // A program that another test is about to start has the lock for a moment, until its exec.
        while File::open(&lock).unwrap().try_lock().is_err() {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Ends as `kill -9` would.
    pub fn kill(self) {
        std::mem::forget(self.log);
        self.storage.shutdown();
    }
}
