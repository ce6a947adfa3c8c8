//! The simulated disk: each shard's log and deduplication table, what of them is synced, and
//! what a crash leaves.
//!
//! Comes in: what the machine appends and asks to commit; from the world, the ends of syncs, and
//! crashes. Goes out: syncs to be timed by the world, and the truth about each record, which the
//! checks judge by. Worth naming: what is *claimed* durable and what *is* synced differ only
//! under a deliberate defect.
//!
//! At the depth of the real storage this is the book of what was appended, and nothing more; what
//! is durable of it says the [`Probe`], by the files.

mod harm;
mod lives;
mod log;
mod table;

pub mod door;

pub use lives::Backup;
pub use log::{DiskLog, DiskReader};
pub use table::DiskTable;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;

use tern_core::dedup::DedupEntry;
use tern_core::log::{Links, Offset, Record, RecordKind};
use tern_core::placement::ShardId;
use tern_protocol::{ChannelId, DeviceId, MessageId, Uin};

use crate::engine::Probe;
use crate::mutant::Mutant;
use crate::random::{Stream, mix};

/// Distance of two records, so that offsets look like those on a real disk and 0 is none of them.
const STRIDE: u64 = 8;

/// Records around a cold one that are read with it: a page of messages and some.
const WARMED_AROUND: u64 = 64;

/// The newest records of a log, which are never cold: they were just written.
const HOT_RECORDS: u64 = 4;

/// The disk, as all its users hold it.
pub type SharedDisk = Rc<RefCell<Disk>>;

/// The disk of the one server.
#[derive(Debug)]
pub struct Disk {
    shards: Vec<ShardDisk>,
    /// What the disk draws from.
    pub stream: Stream,
    mutant: Option<Mutant>,
    /// Syncs that were asked for and not given a time yet.
    syncs: Vec<ShardId>,
    /// Records appended since last looked at.
    appended: Vec<(ShardId, usize)>,
    /// There is no room.
    pub full: bool,
    /// Appends in a hundred that are asked to come again.
    pub busy_percent: u64,
    /// Old records in a hundred that are not in memory.
    pub cold_percent: u64,
    /// How often each of these was met since last looked at: full, busy, cold.
    pub met: [bool; 3],
    /// By what the age of records counts, in ms; stands still where nothing sets it.
    pub confirmed_ms: u64,
    /// Looks into the files of the real storage, if that is what keeps the records.
    pub probe: Option<Probe>,
}

#[derive(Debug, Default)]
struct ShardDisk {
    stored: Vec<Stored>,
    /// Records handed to the commit: they survive the process.
    written: usize,
    /// Records that survive the power.
    synced: usize,
    /// Records that the log says are durable.
    claimed: usize,
    /// The end of the sync that is under way.
    syncing: Option<usize>,
    failed: bool,
    warm: BTreeSet<u64>,
    entries: BTreeMap<(Uin, DeviceId), DedupEntry>,
    /// The end of what the table knows of the log.
    applied: Offset,
    /// Damaged messages, and those that must stay whole for it.
    harm: BTreeMap<usize, harm::Harm>,
    needed: BTreeSet<usize>,
    /// The records before this one are past their retention.
    expired: usize,
    /// What of that the log has not said yet.
    expiry_news: VecDeque<(ChannelId, MessageId)>,
    lives: lives::Lives,
}

/// A record as it was appended.
#[derive(Debug)]
pub struct Stored {
    /// What it is.
    pub kind: RecordKind,
    /// What it points to.
    pub links: Links,
    /// Its body.
    pub body: Vec<u8>,
    /// Where it stands.
    pub at: Offset,
    /// Where the next one could.
    pub end: Offset,
    /// Everything before this was called durable when it was appended.
    pub proven: Offset,
    /// When that was, by [`Disk::confirmed_ms`].
    pub confirmed_ms: u64,
}

impl Stored {
    fn view(&self) -> Record<'_> {
        Record { kind: self.kind, links: self.links, body: &self.body }
    }
}

/// What died.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Death {
    /// The machine: only what was synced is sure to stay.
    Power,
    /// The process: what was written stays, and so does shared memory.
    Process,
    /// The process, and shared memory with it.
    ProcessAndMemory,
    /// Nothing: the process ends in order. The simulated disk knows no order, and takes it for the
    /// death of the process.
    InOrder,
}

impl Disk {
    /// An empty disk.
    pub fn new(shards: u16, stream: Stream, mutant: Option<Mutant>) -> SharedDisk {
        Rc::new(RefCell::new(Self {
            shards: (0..shards).map(|_| ShardDisk::default()).collect(),
            stream,
            mutant,
            syncs: Vec::new(),
            appended: Vec::new(),
            full: false,
            busy_percent: 0,
            cold_percent: 0,
            met: [false; 3],
            confirmed_ms: 0,
            probe: None,
        }))
    }

    fn shard(&mut self, id: ShardId) -> &mut ShardDisk {
        &mut self.shards[usize::from(id.0)]
    }

    /// Whether this is the defect.
    pub fn is(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }

    /// Syncs that were asked for since the last call; each is to be ended by
    /// [`end_sync`](Self::end_sync).
    pub fn take_syncs(&mut self) -> Vec<ShardId> {
        std::mem::take(&mut self.syncs)
    }

    /// Records that were appended since the last call.
    pub fn take_appended(&mut self) -> Vec<(ShardId, usize)> {
        std::mem::take(&mut self.appended)
    }

    /// The sync of a shard's log is done, or failed.
    pub fn end_sync(&mut self, id: ShardId, ok: bool) {
        let retried = self.is(Mutant::SyncRetried);
        let shard = self.shard(id);
        let Some(end) = shard.syncing.take() else { return };
        if ok {
            shard.synced = if shard.failed { shard.synced } else { end };
            shard.claimed = end;
        } else {
            shard.failed = true;
            if retried {
                shard.claimed = end; // and `synced` stays behind for ever
            }
        }
        if shard.written > end && (ok || retried) {
            shard.syncing = Some(shard.written);
            self.syncs.push(id);
        }
    }

    /// The server dies; every log is as the next process finds it.
    pub fn crash(&mut self, death: Death) {
        (self.syncs, self.appended) = (Vec::new(), Vec::new());
        let cut_too_far = self.is(Mutant::CutTooFar);
        let trusted = self.is(Mutant::TableTrusted);
        for shard in &mut self.shards {
            let len = shard.stored.len();
            let sure = match death {
                Death::Power => shard.synced,
                _ if shard.failed => shard.synced,
                _ => shard.written.max(shard.synced),
            };
            let mut kept = self.stream.between(sure as u64, len as u64) as usize;
            if cut_too_far && kept == shard.synced && self.stream.percent(20) {
                kept = kept.saturating_sub(1);
            }
            shard.stored.truncate(kept);
            shard.harm.retain(|index, _| *index < kept);
            shard.expired = shard.expired.min(kept);
            let keeps_memory = matches!(death, Death::Process | Death::InOrder);
            let survives = keeps_memory || trusted;
            if !survives || (shard.applied > offset(kept) && !trusted) {
                (shard.entries, shard.applied) = (BTreeMap::new(), Offset::NONE);
            }
        }
    }

    /// A new process opens a shard's log, and syncs what it finds. Returns the end of what the
    /// deduplication table knows.
    pub fn open(&mut self, id: ShardId) -> Offset {
        let not_synced = self.is(Mutant::TailNotSynced);
        let shard = self.shard(id);
        let end = shard.stored.len();
        (shard.written, shard.claimed) = (end, end);
        shard.synced = if not_synced { shard.synced.min(end) } else { end };
        (shard.syncing, shard.failed) = (None, false);
        shard.applied
    }

    /// Number of records of a shard.
    pub fn records(&self, id: ShardId) -> usize {
        self.shards[usize::from(id.0)].stored.len()
    }

    /// A record was appended.
    pub fn add(&mut self, id: ShardId, record: Stored) {
        let index = self.records(id);
        self.shard(id).stored.push(record);
        self.appended.push((id, index));
    }

    /// The record of this number, from 0, of a shard; with its offset and the next one's.
    pub fn record(&self, id: ShardId, index: usize) -> Option<(Offset, Offset, Record<'_>)> {
        let stored = self.stored(id, index)?;
        Some((stored.at, stored.end, stored.view()))
    }

    /// As [`record`](Self::record), with all that is known of it.
    pub fn stored(&self, id: ShardId, index: usize) -> Option<&Stored> {
        self.shards[usize::from(id.0)].stored.get(index)
    }

    /// A start found that the log ends here; what was appended behind it is gone.
    pub fn cut(&mut self, id: ShardId, end: Offset) {
        let shard = self.shard(id);
        let kept = shard.stored.partition_point(|stored| stored.at < end);
        shard.stored.truncate(kept);
        shard.harm.retain(|index, _| *index < kept);
        shard.needed.retain(|index| *index < kept);
        shard.expired = shard.expired.min(kept);
    }

    /// Where the record of this number stands, or will.
    pub fn offset_of(index: usize) -> Offset {
        offset(index)
    }

    /// Whether the record of this number survives a power cut now.
    pub fn is_synced(&self, id: ShardId, index: usize) -> bool {
        let shard = &self.shards[usize::from(id.0)];
        let is_whole = !shard.harm.contains_key(&index);
        match (&self.probe, shard.stored.get(index)) {
            (Some(probe), Some(stored)) => probe.is_durable(id, stored, is_whole),
            _ => index < shard.synced,
        }
    }

    /// The number of the record at this offset, or of the first one behind it.
    pub fn index_of(&self, id: ShardId, at: Offset) -> usize {
        self.shards[usize::from(id.0)].stored.partition_point(|stored| stored.at < at)
    }

    /// Whether a sync of some shard failed.
    pub fn has_failed(&self) -> bool {
        self.shards.iter().any(|shard| shard.failed)
    }

    /// The record at `at`, and those around it, are in memory now.
    pub fn warm(&mut self, id: ShardId, at: Offset) {
        let index = self.index_of(id, at);
        self.shard(id).salvage(index);
        let index = index as u64;
        let around = index.saturating_sub(WARMED_AROUND)..=index + WARMED_AROUND;
        self.shard(id).warm.extend(around);
    }

    /// Memory was needed for something else: old records are cold again.
    pub fn forget_warm(&mut self) {
        self.shards.iter_mut().for_each(|shard| shard.warm.clear());
    }

    /// Whether the record of this number must be read from the disk first.
    pub fn is_cold(&self, id: ShardId, index: usize) -> bool {
        let (shard, index) = (&self.shards[usize::from(id.0)], index as u64);
        self.cold_percent > 0
            && index + HOT_RECORDS < shard.stored.len() as u64
            && !shard.warm.contains(&index)
            && mix(index ^ u64::from(id.0) << 32) % 100 < self.cold_percent
    }
}

fn offset(index: usize) -> Offset {
    Offset((index as u64 + 1) * STRIDE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tern_core::log::{AppendError, Log, LogFailed, Reader};

    const SHARD: ShardId = ShardId(0);

    fn disk(mutant: Option<Mutant>) -> (SharedDisk, DiskLog) {
        let disk = Disk::new(1, Stream::of(1, "disk"), mutant);
        let log = DiskLog::open(SHARD, &disk);
        (disk, log)
    }

    fn append(log: &mut DiskLog, body: &[u8]) -> Result<Offset, AppendError> {
        log.append(RecordKind::Message, Links::default(), &[body])
    }

    #[test]
    fn nothing_is_durable_before_its_sync_ends() {
        let (disk, mut log) = disk(None);
        let first = append(&mut log, b"1").unwrap();
        log.commit();
        let second = append(&mut log, b"2").unwrap();
        log.commit();
        assert!(!log.durable().unwrap().covers(first));
        assert_eq!(disk.borrow_mut().take_syncs(), [SHARD]);
        disk.borrow_mut().end_sync(SHARD, true);
        let proof = log.durable().unwrap();
        assert!(proof.covers(first) && !proof.covers(second));
        assert_eq!(disk.borrow_mut().take_syncs(), [SHARD], "the second commit follows");
    }

    #[test]
    fn a_power_cut_takes_only_what_was_not_synced() {
        let (disk, mut log) = disk(None);
        append(&mut log, b"1").unwrap();
        log.commit();
        disk.borrow_mut().end_sync(SHARD, true);
        append(&mut log, b"2").unwrap();
        disk.borrow_mut().crash(Death::Power);
        assert!((1..=2).contains(&disk.borrow().records(SHARD)));
        let mut log = DiskLog::open(SHARD, &disk);
        assert_eq!(log.durable().unwrap().end(), log.tail(), "recovery syncs what it found");
        let mut reader = DiskReader::new(&disk);
        assert_eq!(reader.with_record(SHARD, offset(0), |r| r.body.to_vec()), Ok(b"1".to_vec()));
    }

    #[test]
    fn a_failed_sync_is_final_and_what_follows_is_refused() {
        let (disk, mut log) = disk(None);
        append(&mut log, b"1").unwrap();
        log.commit();
        disk.borrow_mut().end_sync(SHARD, false);
        assert_eq!(log.durable(), Err(LogFailed));
        assert_eq!(append(&mut log, b"2"), Err(AppendError::Failed));
    }
}
