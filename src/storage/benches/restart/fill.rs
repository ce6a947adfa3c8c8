//! Fills the logs: users write to a few others each, from one device.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;
use tern_core::Recovery;
use tern_core::log::{AppendError, Links, Log, Offset, RecordKind};
use tern_core::memory::MemoryTable;
use tern_core::placement::{Placement, ShardId};
use tern_protocol::frames::PushBody;
use tern_protocol::{ChannelId, MessageId, Uin};
use tern_storage::{Durability, Folder, FolderOptions, MappedLog, Storage, StorageConfig};
use zerocopy::IntoBytes;

use super::Size;

/// Users that each one writes to.
const PEERS: u64 = 4;

/// Records that are handed to a commit together.
const BATCH: u64 = 512;

/// How the logs are used: what reached the page cache survives the end of this process.
pub(crate) fn start(size: &Size, data: &Path) -> Result<Storage, String> {
    let options = FolderOptions { shards: size.shards, ..FolderOptions::default() };
    let folder = Folder::open(data, options).map_err(|error| error.to_string())?;
    let config = StorageConfig {
        durability: Durability::Process,
        dedup_dir: data.join("tables"),
        ..StorageConfig::default()
    };
    std::fs::create_dir_all(&config.dedup_dir).map_err(|error| error.to_string())?;
    Storage::start(folder, config, Arc::new(|_| {})).map_err(|error| error.to_string())
}

/// What a channel's next message leads back to: as many offsets as its newest id has bits set.
#[derive(Default)]
struct Way {
    newest: u64,
    spine: Vec<Offset>,
}

pub(crate) fn fill(size: &Size, data: &Path) -> Result<(), String> {
    let (storage, began) = (start(size, data)?, Instant::now());
    let placement = Placement::new(size.shards, 1);
    let mut logs: Vec<MappedLog> = (0..size.shards)
        .map(|shard| open_empty(&storage, placement, shard))
        .collect::<Result<_, _>>()?;
    let mut ways: FxHashMap<(u64, u64), Way> = FxHashMap::default();
    let mut devices: FxHashMap<(u64, u16), (u32, Offset)> = FxHashMap::default();
    let content = vec![7u8; size.content];
    for number in 0..size.records {
        let user = 1 + number.wrapping_mul(0x9e37_79b9_7f4a_7c15) % size.users;
        let peer = 1 + (user + number / size.users % PEERS) % size.users;
        let channel = ChannelId::direct(Uin(user), Uin(peer));
        let shard = placement.shard_of_channel(channel).0;
        let way = ways.entry(channel.halves()).or_default();
        let device = devices.entry((user, shard)).or_default();
        device.0 += 1;
        let body = body(channel, way.newest + 1, user, device.0);
        let links = way.links(device.1);
        let log = &mut logs[usize::from(shard)];
        let at = append(log, links, &[body.as_bytes(), &content])?;
        way.appended(at);
        device.1 = at;
        if number % BATCH == BATCH - 1 {
            logs.iter_mut().for_each(Log::commit);
        }
    }
    logs.iter_mut().for_each(settle);
    storage.maintain();
    let made: u64 = (0..size.shards).map(|s| storage.upkeep(ShardId(s)).checkpoints_made).sum();
    let (channels, entries) = (ways.len(), devices.len());
    println!("filled in {:.1?}: {channels} channels, {entries} windows", began.elapsed());
    println!("checkpoints made meanwhile: {made}");
    std::mem::forget(logs); // as `kill -9` leaves them
    storage.shutdown();
    Ok(())
}

/// Waits until everything reached the file.
fn settle(log: &mut MappedLog) {
    let tail = log.tail();
    while log.durable().is_ok_and(|durable| durable.end() < tail) {
        log.commit();
        std::thread::yield_now();
    }
}

fn open_empty(storage: &Storage, placement: Placement, shard: u16) -> Result<MappedLog, String> {
    let id = ShardId(shard);
    let scan = storage.scan_shard(id).map_err(|error| error.to_string())?;
    let mut state = Recovery::new(id, placement, MemoryTable::default(), Offset::NONE);
    Ok(scan.replay(&mut state).map_err(|error| error.to_string())?.log)
}

fn append(log: &mut MappedLog, links: Links, body: &[&[u8]]) -> Result<Offset, String> {
    loop {
        match log.append(RecordKind::Message, links, body) {
            Ok(at) => return Ok(at),
            Err(AppendError::Busy) => {
                log.commit();
                std::thread::sleep(Duration::from_micros(50));
            }
            Err(error) => return Err(format!("a record was not taken: {error:?}")),
        }
    }
}

fn body(channel: ChannelId, id: u64, user: u64, counter: u32) -> PushBody {
    PushBody {
        channel,
        id: id.into(),
        sender: user.into(),
        device: 1.into(),
        epoch: 1.into(),
        counter: counter.into(),
        content_type: 1.into(),
        kind: 0,
        version: 1,
        server_time: 0.into(),
        refers_to: 0.into(),
    }
}

impl Way {
    fn links(&self, device: Offset) -> Links {
        let newest = self.spine.last().copied().unwrap_or_default();
        let kept = self.spine.len() - self.newest.trailing_ones() as usize;
        let skip = kept.checked_sub(1).map_or(Offset::NONE, |last| self.spine[last]);
        Links { channel: newest, device, skip }
    }

    fn appended(&mut self, at: Offset) {
        self.spine.truncate(self.spine.len() - self.newest.trailing_ones() as usize);
        self.spine.push(at);
        self.newest = MessageId(self.newest).next().0;
    }
}
