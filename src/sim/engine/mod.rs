//! The third depth: the storage that ships, on files of a disk that forgets what was not synced.
//!
//! Comes in: from the world, when each thread of the storage does the next bit of its work, and
//! when process or machine die. Goes out: shards with their logs open, and what the storage tells
//! its workers. In reading order: the [`Engine`] is one machine with its disk, its shared memory
//! and its clocks; `open` starts a shard on it, and judges what recovery says by the book of what
//! was appended; [`log`] and [`table`] stand between core and storage; [`Probe`] reads the files as
//! FORMAT.md describes them, past the storage.
//!
//! One seed gives one run: salts and ids differ from run to run, and nothing goes by them.

pub mod log;
pub mod table;

mod counts;
mod settings;

mod open;

mod clock;
mod probe;

pub use counts::EngineCounts;
pub use probe::Probe;
pub use settings::Settings;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tempfile::TempDir;
use tern_core::io::{ColdRecord, Waiter};
use tern_core::placement::ShardId;
use tern_diskmodel::power::{Lie, Met, PowerDisk};
use tern_protocol::Incarnation;
use tern_storage::{
    Durability, Folder, FolderOptions, MappedReader, SEGMENT_BYTES_MIN, Step, Steps, Storage,
    StorageConfig,
};

use crate::disk::{Death, SharedDisk};
use crate::mutant::Mutant;
use crate::random::Stream;
use clock::Hands;

/// Bytes of sealed segments worth a checkpoint, where checkpoints are wanted at every chance.
const CHECKPOINT_BYTES_EAGER: u64 = 1;

/// A bit of work of the storage.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Work {
    /// A batch is written, or synced: who commits.
    Commit(usize),
    /// The I/O thread does what it was asked for.
    Io,
    /// The I/O thread looks by itself what is missing.
    Look,
    /// A way past a damaged record is found.
    Salvage,
    /// The clock goes on, checkpoints are made, segments are deleted.
    Upkeep,
}

/// What the storage told, on whatever step it did so.
#[derive(Debug, Default)]
struct Told {
    woken: Mutex<Vec<ShardId>>,
    warmed: Mutex<Vec<Warm>>,
}

/// A cold record that was read, and for whom: worker, shard, place, waiter.
pub type Warm = (usize, ColdRecord, Waiter);

/// One machine with its disk.
pub struct Engine {
    running: Option<Running>,
    book: SharedDisk,
    disk: Arc<PowerDisk>,
    hands: Arc<Hands>,
    told: Arc<Told>,
    settings: Settings,
    mutant: Option<Mutant>,
    /// The machine was booted so many times.
    boots: u8,
    /// How the process dies in the middle of a change, if it is to.
    doomed: Option<Death>,
    /// A sync was made to fail, and its log may.
    may_fail: bool,
    /// The power was cut while acks waited for no sync, and no process has started since.
    may_lose: bool,
    /// The lives of the logs, by shard, as the last process that started found them.
    lives: Vec<Incarnation>,
    /// And as this one does.
    found: Vec<Incarnation>,
    counts: EngineCounts,
    data: PathBuf,
    memory: PathBuf,
    /// Last: the files go when everything has let go of them.
    _dir: TempDir,
}

/// A process's storage.
struct Running {
    /// First: its threads die before anything else.
    steps: Option<Steps>,
    reader: MappedReader,
    storage: Storage,
}

impl Engine {
    /// A machine with an empty disk.
    ///
    /// # Panics
    /// If there is no room for its files.
    pub fn new(seed: u64, settings: Settings, book: &SharedDisk, mutant: Option<Mutant>) -> Self {
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
        let dir = dir.expect("there is room for the files of a run");
        let (data, memory) = (dir.path().join("data"), dir.path().join("memory"));
        for path in [&data, &memory] {
            std::fs::create_dir(path).expect("there is room for the files of a run");
        }
        let disk = Arc::new(PowerDisk::new(&data, Stream::of(seed, "power"), lie(mutant)));
        book.borrow_mut().probe = Some(Probe::new(&disk, &data, &settings));
        Self {
            running: None,
            book: book.clone(),
            disk,
            hands: Arc::default(),
            told: Arc::default(),
            settings,
            mutant,
            boots: 1,
            doomed: None,
            may_fail: false,
            may_lose: false,
            lives: vec![Incarnation(1); usize::from(settings.shards)],
            found: vec![Incarnation(1); usize::from(settings.shards)],
            counts: EngineCounts::default(),
            data,
            memory,
            _dir: dir,
        }
    }

    /// Sets the machine's clocks, in ms of the world and by how much its wall clock is off.
    pub fn set_time(&mut self, now_ms: u64, wall_offset_ms: i64) {
        self.hands.set(now_ms, wall_offset_ms);
        self.book.borrow_mut().confirmed_ms = self.hands.confirmed_ms();
    }

    /// Time goes by in which nothing happens.
    pub fn skip_time(&mut self, ms: u64) {
        self.hands.skip(ms);
        if self.mutant == Some(Mutant::ExpiresEarly) {
            let all = self.settings.retention_ms.unwrap_or(0);
            self.hands.lie(all);
        }
    }

    /// What was chosen for it.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The disk, for what is to go wrong on it.
    pub fn disk(&self) -> &PowerDisk {
        &self.disk
    }

    /// The process dies in the middle of what it does to the disk, this many changes from now.
    pub fn doom(&mut self, death: Death, changes: u64) {
        self.doomed = Some(death);
        self.disk.die_after(Some(changes));
    }

    /// Nothing that was to go wrong will.
    pub fn heal(&mut self) {
        self.doomed = None;
        self.disk.die_after(None);
        self.disk.set_fails_next_sync(false);
    }

    /// How the process died, if it did in the middle of something.
    pub fn died(&self) -> Option<Death> {
        self.doomed.filter(|_| self.disk.is_dead())
    }

    /// Whether a start may find that acked messages are gone.
    pub fn may_lose(&self) -> bool {
        self.may_lose
    }

    /// All shards are open: the lives that have ended since they were so last, by shard.
    pub fn ended_lives(&mut self) -> BTreeMap<ShardId, Incarnation> {
        self.may_lose = false;
        let before = std::mem::replace(&mut self.lives, self.found.clone());
        let lives = (0..).map(ShardId).zip(before.into_iter().zip(&self.found));
        let ended = lives.filter(|(_, (before, found))| before != *found);
        let ended: BTreeMap<_, _> = ended.map(|(shard, (before, _))| (shard, before)).collect();
        self.counts.lives_ended += ended.len() as u64;
        ended
    }

    /// A process starts; its shards are to be opened next.
    ///
    /// # Errors
    /// What the storage says.
    pub fn start(&mut self) -> Result<(), String> {
        self.probe(Probe::forget);
        if self.mutant == Some(Mutant::CutTooFar) {
            self.tear_what_is_durable();
        }
        let disk: Arc<PowerDisk> = Arc::clone(&self.disk);
        let options = FolderOptions { shards: self.settings.shards, disk };
        let folder = Folder::open(&self.data, options).map_err(|error| error.to_string())?;
        let told = Arc::clone(&self.told);
        let wake = Arc::new(move |shard| push(&told.woken, shard));
        let (storage, steps) = Storage::by_hand(folder, &self.config(), wake)
            .map_err(|error| format!("the storage does not start: {error}"))?;
        let reader = storage.reader();
        self.running = Some(Running { steps: Some(steps), reader, storage });
        Ok(())
    }

    /// The defect: recovery takes the newest record of each log for torn, as if it had never been.
    fn tear_what_is_durable(&self) {
        let book = self.book.borrow();
        for shard in (0..self.settings.shards).map(ShardId) {
            let newest = book.records(shard).checked_sub(1);
            if let Some(newest) = newest.and_then(|newest| book.stored(shard, newest))
                && let Some(probe) = &book.probe
            {
                probe.damage(shard, newest, false);
            }
        }
    }

    fn config(&self) -> StorageConfig {
        let eager = self.settings.eager_checkpoints;
        let default = StorageConfig::default();
        StorageConfig {
            durability: self.settings.durability,
            commit_threads: self.settings.committers,
            // All of one size: they would grow by the time that the simulator itself takes.
            segment_bytes_min: SEGMENT_BYTES_MIN,
            segment_bytes_max: SEGMENT_BYTES_MIN,
            dedup_dir: self.memory.clone(),
            boot: Some([self.boots; 16]),
            retention: self.settings.retention_ms.map(Duration::from_millis),
            checkpoint_bytes_min: if eager {
                CHECKPOINT_BYTES_EAGER
            } else {
                default.checkpoint_bytes_min
            },
            free_bytes_min: 0,
            clock: Arc::clone(&self.hands) as _,
            ..default
        }
    }

    /// A reader of all logs.
    ///
    /// # Panics
    /// If no process runs.
    pub fn reader(&self) -> MappedReader {
        self.running().reader.clone()
    }

    fn running(&self) -> &Running {
        self.running.as_ref().expect("asked for while a process runs")
    }

    fn steps(&mut self) -> Option<&mut Steps> {
        self.running.as_mut()?.steps.as_mut()
    }

    /// Does a bit of work; says whether it is to be tried again later, for want of room.
    pub fn work(&mut self, work: Work) -> bool {
        let Some(steps) = self.steps() else { return false };
        let step = match work {
            Work::Commit(committer) => steps.commit(committer),
            Work::Io => steps.io(),
            Work::Salvage => steps.salvage(),
            Work::Look => {
                steps.look();
                Step::Worked
            }
            Work::Upkeep => {
                steps.upkeep();
                Step::Worked
            }
        };
        match work {
            Work::Commit(_) => self.counts.commit_steps += u64::from(step == Step::Worked),
            Work::Salvage => self.counts.salvaged += u64::from(step == Step::Worked),
            Work::Io | Work::Look | Work::Upkeep => {}
        }
        step == Step::NoRoom
    }

    /// Has those who commit do all that they can do now.
    pub fn settle(&mut self) {
        let Some(steps) = self.steps() else { return };
        for committer in 0..steps.committers() {
            while steps.commit(committer) == Step::Worked {}
        }
    }

    /// The work that somebody waits for.
    pub fn wanted(&mut self) -> Vec<Work> {
        let Some(steps) = self.steps() else { return Vec::new() };
        let commits = (0..steps.committers()).filter(|one| steps.is_commit_wanted(*one));
        let mut wanted: Vec<Work> = commits.map(Work::Commit).collect();
        wanted.extend(steps.is_io_wanted().then_some(Work::Io));
        wanted.extend(steps.is_salvage_wanted().then_some(Work::Salvage));
        wanted
    }

    /// Reads a cold record for a worker's waiter, some steps later.
    pub fn warm(&self, warm: Warm) {
        let told = Arc::clone(&self.told);
        let (_, record, _) = warm;
        let done = Box::new(move || push(&told.warmed, warm));
        self.running().storage.warmer().warm(record, done);
    }

    /// Shards with a new proof, a failure, or expired messages, since the last call.
    pub fn take_woken(&self) -> Vec<ShardId> {
        take(&self.told.woken)
    }

    /// Cold records that were read since the last call.
    pub fn take_warmed(&self) -> Vec<Warm> {
        take(&self.told.warmed)
    }

    /// What went wrong on the disk since the last call.
    pub fn take_met(&self) -> Met {
        self.disk.take_met()
    }

    /// Why logs have failed.
    pub fn failures(&self) -> Vec<String> {
        let Some(running) = &self.running else { return Vec::new() };
        let failure = |shard| Some(running.storage.failure(ShardId(shard))?.to_owned());
        (0..self.settings.shards).filter_map(failure).collect()
    }

    /// A sync was made to fail.
    pub fn expect_failure(&mut self) {
        self.may_fail = true;
    }

    /// Why a log has failed, if nothing was done to it.
    pub fn unexpected_failure(&self) -> Option<String> {
        if self.may_fail { None } else { self.failures().pop() }
    }

    /// What the storage can't do for its files, and why.
    pub fn suspended(&self) -> Option<String> {
        let running = self.running.as_ref()?;
        let of = |shard| running.storage.upkeep(ShardId(shard)).suspended;
        (0..self.settings.shards).find_map(of)
    }

    /// Looks how many records the storage calls expired since the last look, and what is wrong with
    /// the first of them that is younger than the retention.
    pub fn look_what_expired(&mut self) -> (u64, Option<String>) {
        let Some(running) = &self.running else { return (0, None) };
        let (mut count, mut wrong) = (0, None);
        let mut reader = running.reader.clone();
        let mut book = self.book.borrow_mut();
        let (now, retention) = (book.confirmed_ms, self.settings.retention_ms);
        for shard in (0..self.settings.shards).map(ShardId) {
            while let Some(age) = open::expired_age(&mut book, &mut reader, shard, now) {
                count += 1;
                if wrong.is_none() && retention.is_none_or(|retention| age < retention) {
                    wrong = Some(format!(
                        "a record of shard {} is deleted at the age of {age} ms, and is to be \
                         kept for {retention:?}",
                        shard.0
                    ));
                }
            }
        }
        (count, wrong)
    }

    /// The threads of the process die. Its logs are to be dropped next.
    pub fn end_threads(&mut self) {
        let Some(running) = &mut self.running else { return };
        if running.steps.take().is_none() {
            return;
        }
        for shard in (0..self.settings.shards).map(ShardId) {
            let facts = running.storage.upkeep(shard);
            self.counts.checkpoints += facts.checkpoints_made;
            self.counts.segments_deleted += facts.segments_deleted;
        }
    }

    /// The process has died, or its machine with it.
    pub fn die(&mut self, death: Death) {
        self.end_threads();
        self.running = None;
        self.counts.deaths_inside += u64::from(self.died().is_some());
        (self.doomed, self.may_fail) = (None, false);
        (_, _) = (self.take_woken(), self.take_warmed());
        // Who finds the logs next reads all that is left of them.
        let _ = self.book.borrow_mut().take_appended();
        match death {
            Death::Power => {
                self.may_lose |= self.settings.durability == Durability::Process;
                self.disk.cut_power();
                self.boots = self.boots.wrapping_add(1).max(1);
                self.hands.boot();
            }
            _ => self.disk.end_process(),
        }
        if matches!(death, Death::Power | Death::ProcessAndMemory) {
            remove_tables(&self.memory);
        }
        let _ = self.disk.take_met();
    }

    /// What was done.
    pub fn counts(&self) -> EngineCounts {
        self.counts
    }

    fn probe(&self, with: impl FnOnce(&mut Probe)) {
        if let Some(probe) = &mut self.book.borrow_mut().probe {
            with(probe);
        }
    }
}

/// The defects that are the disk's.
fn lie(mutant: Option<Mutant>) -> Lie {
    match mutant {
        Some(Mutant::SyncSkipped) => Lie::SyncsSkipped,
        Some(Mutant::NamesNotSynced) => Lie::NamesSkipped,
        Some(Mutant::SyncRetried) => Lie::SyncsRetried,
        Some(Mutant::TailNotSynced) => Lie::FoundNotSynced,
        _ => Lie::None,
    }
}

fn remove_tables(memory: &std::path::Path) {
    for entry in std::fs::read_dir(memory).expect("the folder can be read") {
        let path = entry.expect("the folder can be read").path();
        std::fs::remove_file(path).expect("a table can be removed");
    }
}

fn push<T>(list: &Mutex<Vec<T>>, one: T) {
    list.lock().unwrap_or_else(PoisonError::into_inner).push(one);
}

fn take<T>(list: &Mutex<Vec<T>>) -> Vec<T> {
    std::mem::take(&mut list.lock().unwrap_or_else(PoisonError::into_inner))
}
