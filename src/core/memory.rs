//! A log and a table in memory: for tests, and for whoever drives the machine without a disk.
//!
//! Nothing is durable until [`MemoryLog::sync`], unless the log was told to sync by itself.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustc_hash::FxHashMap;
use tern_protocol::frames::PushBody;
use tern_protocol::{ChannelId, DeviceId, MessageId, Uin};
use zerocopy::FromBytes;

use crate::dedup::{DedupEntry, DedupTable, TableFull};
use crate::log::{
    AppendError, Durable, Links, Log, LogFailed, Offset, ReadError, Reader, Record, RecordKind,
};
use crate::placement::ShardId;
use crate::shard::state::{TombstoneRow, WindowRow};

/// Distance of two records, so that offsets look like those on disk and 0 is none of them.
const STRIDE: u64 = 8;

struct Stored {
    kind: RecordKind,
    links: Links,
    body: Vec<u8>,
    state: Readable,
}

/// What a reader finds of a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Readable {
    Whole,
    /// Reading would wait for the disk.
    Cold,
    /// Its body is damaged; the links stand in its header.
    BodyLost,
    /// Nothing of it is left. The links are known once somebody looked for what leads there.
    AllLost(Option<Links>),
    Expired,
}

/// What one shard's log holds, and how many of its records are durable.
#[derive(Default)]
struct Records {
    stored: Vec<Stored>,
    synced: usize,
    /// What is past retention and was not said yet.
    expired: VecDeque<(ChannelId, MessageId)>,
}

type Shared = Arc<Mutex<FxHashMap<ShardId, Records>>>;

/// All shards' records, read by every worker.
#[derive(Clone, Default)]
pub struct MemoryReader {
    shared: Shared,
}

/// The log of one shard.
pub struct MemoryLog {
    shard: ShardId,
    shared: Shared,
    syncs_itself: bool,
    refusal: Option<AppendError>,
    /// It was opened only to be read.
    read_only: bool,
}

/// The deduplication table of one shard.
#[derive(Default)]
pub struct MemoryTable {
    entries: FxHashMap<(Uin, DeviceId), DedupEntry>,
}

impl MemoryTable {
    /// All entries, as rows of a checkpoint, in their order.
    pub fn rows(&self) -> Vec<WindowRow> {
        let row = |(key, entry): (&(Uin, DeviceId), &DedupEntry)| entry.to_row(key.0, key.1);
        let mut entries: Vec<_> = self.entries.iter().collect();
        entries.sort_unstable_by_key(|(key, _)| **key);
        entries.into_iter().map(row).collect()
    }
}

impl MemoryReader {
    /// The log of a shard, empty the first time, with all it holds durable. With `syncs_itself`
    /// each commit is durable at once.
    pub fn log(&self, shard: ShardId, syncs_itself: bool) -> MemoryLog {
        let shared = Arc::clone(&self.shared);
        let refusal = None;
        let mut log = MemoryLog { shard, shared, syncs_itself, refusal, read_only: false };
        log.sync();
        log
    }

    /// The log of a shard, all of it durable, that takes nothing any more.
    pub fn read_only_log(&self, shard: ShardId) -> MemoryLog {
        MemoryLog { read_only: true, ..self.log(shard, true) }
    }

    /// Hands every record of a shard to `visit`: its offset, the next one's, and the record.
    /// Those that are lost are passed over.
    pub fn replay(&self, shard: ShardId, mut visit: impl FnMut(Offset, Offset, Record<'_>)) {
        self.replay_with_losses(shard, |at, end, found| {
            if let Ok(record) = found {
                visit(at, end, record);
            }
        });
    }

    /// Hands every record of a shard to `visit` as recovery finds it: the record, or its links
    /// as far as its header tells them.
    pub fn replay_with_losses(
        &self,
        shard: ShardId,
        mut visit: impl FnMut(Offset, Offset, Result<Record<'_>, Option<Links>>),
    ) {
        let mut shared = lock(&self.shared);
        for (index, stored) in shared.entry(shard).or_default().stored.iter().enumerate() {
            let found = match stored.state {
                Readable::BodyLost => Err(Some(stored.links)),
                Readable::AllLost(_) => Err(None),
                Readable::Whole | Readable::Cold | Readable::Expired => Ok(stored.view()),
            };
            visit(offset(index), offset(index + 1), found);
        }
    }

    /// The record at this place can't be read any more; its links can, if its header is whole.
    pub fn damage(&self, shard: ShardId, at: Offset, header_whole: bool) {
        let lost = if header_whole { Readable::BodyLost } else { Readable::AllLost(None) };
        self.set(shard, at, lost);
    }

    /// Reading the record at this place waits for the disk, until it is [warmed](Self::warm).
    pub fn chill(&self, shard: ShardId, at: Offset) {
        self.change(shard, at, |state| {
            if *state == Readable::Whole {
                *state = Readable::Cold;
            }
        });
    }

    /// What [`crate::io::Effect::Warm`] asks for: the record is in memory; or if nothing of it is
    /// left, it is known where to go on from it.
    pub fn warm(&self, shard: ShardId, at: Offset) {
        let channel = self.readable_before(shard, at);
        self.change(shard, at, |state| match state {
            Readable::Cold => *state = Readable::Whole,
            Readable::AllLost(links @ None) => *links = Some(Links { channel, ..Links::default() }),
            _ => {}
        });
    }

    /// Where recovery says to go on from lost places.
    pub fn entomb(&self, shard: ShardId, tombstones: &[TombstoneRow]) {
        for row in tombstones {
            self.change(shard, Offset(row.at.get()), |state| {
                if let Readable::AllLost(links) = state {
                    *links = Some(row.links());
                }
            });
        }
    }

    /// Everything before this place is past its retention. Its shard is told of each channel.
    pub fn expire(&self, shard: ShardId, before: Offset) {
        let mut shared = lock(&self.shared);
        let records = shared.entry(shard).or_default();
        let mut newest = BTreeMap::new();
        for stored in records.stored.iter_mut().take(index_of(before).unwrap_or(0)) {
            if stored.state != Readable::Expired
                && let Some((channel, id)) = stored.message()
            {
                newest.insert(channel, id);
            }
            stored.state = Readable::Expired;
        }
        records.expired.extend(newest);
    }

    /// The newest id of each channel that is past its retention, for a replay.
    pub fn expired(&self, shard: ShardId) -> BTreeMap<ChannelId, MessageId> {
        let mut shared = lock(&self.shared);
        let records = shared.entry(shard).or_default();
        records.expired.clear();
        let gone = records.stored.iter().filter(|stored| stored.state == Readable::Expired);
        gone.filter_map(Stored::message).collect()
    }

    fn readable_before(&self, shard: ShardId, at: Offset) -> Offset {
        let mut shared = lock(&self.shared);
        let stored = &shared.entry(shard).or_default().stored;
        let index = index_of(at).filter(|index| *index < stored.len());
        let Some((channel, _)) = index.and_then(|index| stored[index].message()) else {
            return Offset::NONE;
        };
        let readable = |earlier: &usize| {
            let stored = &stored[*earlier];
            !matches!(stored.state, Readable::BodyLost | Readable::AllLost(_))
                && stored.message().is_some_and(|(other, _)| other == channel)
        };
        (0..index.unwrap_or(0)).rev().find(readable).map_or(Offset::NONE, offset)
    }

    fn set(&self, shard: ShardId, at: Offset, state: Readable) {
        self.change(shard, at, |old| *old = state);
    }

    fn change(&self, shard: ShardId, at: Offset, change: impl FnOnce(&mut Readable)) {
        let mut shared = lock(&self.shared);
        let stored = &mut shared.entry(shard).or_default().stored;
        if let Some(stored) = index_of(at).and_then(|index| stored.get_mut(index)) {
            change(&mut stored.state);
        }
    }

    /// The power goes: what was not synced is gone.
    pub fn cut_power(&self) {
        for records in lock(&self.shared).values_mut() {
            records.stored.truncate(records.synced);
        }
    }
}

impl MemoryLog {
    /// Makes everything appended so far durable.
    pub fn sync(&mut self) {
        self.with(|records| records.synced = records.stored.len());
    }

    /// From now on appends are refused with this, or with nothing.
    pub fn refuse(&mut self, refusal: Option<AppendError>) {
        self.refusal = refusal;
    }

    fn with<T>(&self, act: impl FnOnce(&mut Records) -> T) -> T {
        act(lock(&self.shared).entry(self.shard).or_default())
    }
}

impl Log for MemoryLog {
    fn append(
        &mut self,
        kind: RecordKind,
        links: Links,
        body: &[&[u8]],
    ) -> Result<Offset, AppendError> {
        if let Some(refusal) = self.refusal {
            return Err(refusal);
        }
        if self.read_only {
            return Err(AppendError::Failed);
        }
        let at = self.tail();
        let stored = Stored { kind, links, body: body.concat(), state: Readable::Whole };
        self.with(|records| records.stored.push(stored));
        Ok(at)
    }

    fn commit(&mut self) {
        if self.syncs_itself {
            self.sync();
        }
    }

    fn durable(&mut self) -> Result<Durable, LogFailed> {
        match self.refusal {
            Some(AppendError::Failed) => Err(LogFailed),
            _ => Ok(Durable::assert_synced(offset(self.with(|records| records.synced)))),
        }
    }

    fn tail(&self) -> Offset {
        offset(self.with(|records| records.stored.len()))
    }

    fn poll_expired(&mut self) -> Option<(ChannelId, MessageId)> {
        self.with(|records| records.expired.pop_front())
    }

    fn with_record<T>(
        &mut self,
        at: Offset,
        read: impl FnOnce(Record<'_>) -> T,
    ) -> Result<T, ReadError> {
        read_at(&self.shared, self.shard, at, read)
    }
}

impl Reader for MemoryReader {
    fn with_record<T>(
        &mut self,
        shard: ShardId,
        at: Offset,
        read: impl FnOnce(Record<'_>) -> T,
    ) -> Result<T, ReadError> {
        read_at(&self.shared, shard, at, read)
    }
}

impl DedupTable for MemoryTable {
    fn get(&self, uin: Uin, device: DeviceId) -> Option<DedupEntry> {
        self.entries.get(&(uin, device)).copied()
    }

    fn reserve(&mut self) -> Result<(), TableFull> {
        Ok(())
    }

    fn put(&mut self, uin: Uin, device: DeviceId, entry: DedupEntry, _applied: Offset) {
        self.entries.insert((uin, device), entry);
    }

    fn remove(&mut self, uin: Uin, device: DeviceId) {
        self.entries.remove(&(uin, device));
    }
}

impl Stored {
    fn view(&self) -> Record<'_> {
        Record { kind: self.kind, links: self.links, body: &self.body }
    }

    fn message(&self) -> Option<(ChannelId, MessageId)> {
        let body = PushBody::ref_from_prefix(&self.body).ok().map(|(body, _)| body);
        let body = body.filter(|_| self.kind.is_in_channel())?;
        Some((body.channel, body.id.into()))
    }
}

fn read_at<T>(
    shared: &Shared,
    shard: ShardId,
    at: Offset,
    read: impl FnOnce(Record<'_>) -> T,
) -> Result<T, ReadError> {
    let shared = lock(shared);
    let index = index_of(at).ok_or(ReadError::LOST)?;
    let stored = shared.get(&shard).and_then(|records| records.stored.get(index));
    let stored = stored.ok_or(ReadError::LOST)?;
    match stored.state {
        Readable::Whole => Ok(read(stored.view())),
        Readable::Cold | Readable::AllLost(None) => Err(ReadError::Cold),
        Readable::BodyLost => Err(ReadError::Lost(stored.links)),
        Readable::AllLost(Some(links)) => Err(ReadError::Lost(links)),
        Readable::Expired => Err(ReadError::Expired),
    }
}

fn index_of(at: Offset) -> Option<usize> {
    Some((at.0 / STRIDE).checked_sub(1)? as usize) // fits: an index
}

fn offset(index: usize) -> Offset {
    Offset((index as u64 + 1) * STRIDE)
}

fn lock(shared: &Shared) -> MutexGuard<'_, FxHashMap<ShardId, Records>> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
