//! Looks into the files of the storage as FORMAT.md describes them, without the storage's code: so
//! the judge does not ask who is judged.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tern_core::placement::ShardId;
use tern_diskmodel::power::PowerDisk;
use tern_storage::{Durability, RECORD_HEADER_BYTES};

use super::Settings;
use crate::disk::Stored;

/// Where a segment's header has the offset of its first byte.
const SEGMENT_BASE: usize = 40;

/// Where it has its capacity.
const SEGMENT_CAPACITY: usize = 48;

/// Where a checkpoint's header has the offset up to which it covers the log.
const CHECKPOINT_AT: usize = 40;

/// A segment's file, and how many offsets it covers.
type Segment = (PathBuf, u64);

/// Reads the files.
#[derive(Debug)]
pub struct Probe {
    disk: Arc<PowerDisk>,
    data: PathBuf,
    /// What was only written is not durable.
    needs_sync: bool,
    /// The segments that were seen, of each shard, by their base.
    seen: RefCell<Vec<BTreeMap<u64, Segment>>>,
}

impl Probe {
    /// Of the data folder on this disk.
    pub fn new(disk: &Arc<PowerDisk>, data: &Path, settings: &Settings) -> Self {
        let seen = RefCell::new(vec![BTreeMap::new(); usize::from(settings.shards)]);
        let needs_sync = settings.durability == Durability::Disk;
        Self { disk: Arc::clone(disk), data: data.into(), needs_sync, seen }
    }

    /// A process starts: segments may have been made anew.
    pub fn forget(&mut self) {
        self.seen.borrow_mut().iter_mut().for_each(BTreeMap::clear);
    }

    /// Whether the files have this record, whoever asks.
    pub fn stands(&self, shard: ShardId, stored: &Stored) -> bool {
        self.read(shard, stored).is_some_and(|(_, _, bytes)| has_body(&bytes, stored))
    }

    /// Whether they have it after a power cut now, or where acks wait for no sync after the death of
    /// the process; one that is not whole is not compared with what was appended.
    pub fn is_durable(&self, shard: ShardId, stored: &Stored, is_whole: bool) -> bool {
        let Some((path, place, bytes)) = self.read(shard, stored) else { return false };
        (!is_whole || has_body(&bytes, stored))
            && (!self.needs_sync || self.disk.is_durable(&path, place, &bytes))
    }

    /// Whether they have it after a power cut now, whatever acks wait for.
    pub fn outlives_power(&self, shard: ShardId, stored: &Stored) -> bool {
        let read = self.read(shard, stored);
        read.is_some_and(|(path, place, bytes)| {
            has_body(&bytes, stored) && self.disk.is_durable(&path, place, &bytes)
        })
    }

    /// Whether each batch says that the one before it was durable.
    pub fn has_proving_marks(&self) -> bool {
        self.needs_sync
    }

    /// Whether a durable checkpoint covers it.
    pub fn is_covered(&self, shard: ShardId, stored: &Stored) -> bool {
        let Some((base, _)) = self.find(shard, stored.at.0) else { return false };
        self.files(shard, "ckpt").iter().any(|path| {
            let bytes = fs::read(path).unwrap_or_default();
            number_at(&bytes, CHECKPOINT_AT).is_some_and(|at| base < at)
                && self.disk.is_durable(path, 0, &bytes)
        })
    }

    /// Damages a record: its body only, or the whole of it. Whether there was something to damage.
    pub fn damage(&self, shard: ShardId, stored: &Stored, body_only: bool) -> bool {
        let Some((path, place, bytes)) = self.read(shard, stored) else { return false };
        let (from, to) = match body_only {
            true => (RECORD_HEADER_BYTES, RECORD_HEADER_BYTES + stored.body.len()),
            false => (0, bytes.len()),
        };
        self.disk.damage(&path, place + from, place + to);
        true
    }

    /// A record's file, its place there, and the bytes that stand there now.
    fn read(&self, shard: ShardId, stored: &Stored) -> Option<(PathBuf, usize, Vec<u8>)> {
        let (base, path) = self.find(shard, stored.at.0)?;
        let place = stored.at.0 - base;
        let mut bytes = vec![0; (stored.end.0 - stored.at.0) as usize]; // fits: a record
        File::open(&path).and_then(|file| file.read_exact_at(&mut bytes, place)).ok()?;
        Some((path, place as usize, bytes)) // fits: within a segment
    }

    /// The segment that an offset lies in.
    fn find(&self, shard: ShardId, at: u64) -> Option<(u64, PathBuf)> {
        let index = usize::from(shard.0);
        let known = |seen: &BTreeMap<u64, Segment>| {
            let (base, (path, capacity)) = seen.range(..=at).next_back()?;
            (at - base < *capacity).then(|| (*base, path.clone()))
        };
        if let Some(found) = known(&self.seen.borrow()[index]) {
            return Some(found);
        }
        self.seen.borrow_mut()[index] =
            self.files(shard, "seg").into_iter().filter_map(segment).collect();
        known(&self.seen.borrow()[index])
    }

    fn files(&self, shard: ShardId, suffix: &str) -> Vec<PathBuf> {
        let dir = self.data.join("log").join(format!("shard-{:02}", shard.0));
        let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
        let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        paths.retain(|path| path.extension().is_some_and(|found| found == suffix));
        paths.sort_unstable();
        paths
    }
}

/// A segment by its header.
fn segment(path: PathBuf) -> Option<(u64, Segment)> {
    let mut header = [0; SEGMENT_CAPACITY + 8];
    File::open(&path).and_then(|file| file.read_exact_at(&mut header, 0)).ok()?;
    let (base, capacity) =
        (number_at(&header, SEGMENT_BASE)?, number_at(&header, SEGMENT_CAPACITY)?);
    Some((base, (path, capacity)))
}

fn number_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

fn has_body(bytes: &[u8], stored: &Stored) -> bool {
    bytes.get(RECORD_HEADER_BYTES..RECORD_HEADER_BYTES + stored.body.len()) == Some(&stored.body)
}
