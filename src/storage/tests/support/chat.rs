//! Logs whose records mean something: users log in, enter channels and write, with the links and
//! keys that a shard gives them; and the state that recovery makes of such a log.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use tern_core::Recovery;
use tern_core::log::{AppendError, Links, Log, Offset, RecordKind};
use tern_core::memory::MemoryTable;
use tern_core::placement::Placement;
use tern_core::shard::records::{BlockBody, EntryBody, EpochBody};
use tern_core::shard::state::{ChannelRow, StateKind};
use tern_protocol::frames::PushBody;
use tern_protocol::{ChannelId, MessageId, Uin};
use tern_storage::{ClockSource, MappedLog, Opened, Reading, RecoverError, RecoveryReport};
use zerocopy::{FromBytes, IntoBytes};

use super::{Running, SHARD};
use tern_random::Stream;

/// Rows of a state: kind and bytes.
pub type Rows = Vec<(StateKind, Vec<u8>)>;

/// Who writes what only moves the log on.
pub const NOTER: u64 = 999;

/// Times that room is asked for before a test gives up: 20 s or less.
const ROOM_ASKED_MAX: u32 = 4_000;

/// What the users of a shard did.
pub struct Chat {
    pub random: Stream,
    /// For each channel, where its messages are.
    pub channels: BTreeMap<(u64, u64), Vec<Offset>>,
    /// For each device: epoch, counter, newest record.
    devices: BTreeMap<(u64, u32), (u32, u32, Offset)>,
    users: u64,
    devices_each: u32,
}

/// Clocks that a test sets.
#[derive(Debug)]
pub struct Hands {
    pub wall_ms: AtomicU64,
    pub boot_ms: AtomicU64,
}

impl Default for Hands {
    fn default() -> Self {
        Self { wall_ms: AtomicU64::new(1_800_000_000_000), boot_ms: AtomicU64::new(1_000_000) }
    }
}

impl ClockSource for Hands {
    fn now(&self) -> Reading {
        Reading { wall_ms: self.wall_ms.load(Relaxed), boot_ms: self.boot_ms.load(Relaxed) }
    }
}

impl Hands {
    pub fn pass(&self, ms: u64) {
        self.wall_ms.fetch_add(ms, Relaxed);
        self.boot_ms.fetch_add(ms, Relaxed);
    }
}

impl Chat {
    pub fn new(seed: u64, users: u64, devices_each: u32) -> Self {
        let (channels, devices) = (BTreeMap::new(), BTreeMap::new());
        Self { random: Stream::new(seed), channels, devices, users, devices_each }
    }

    /// A login, an entry or, mostly, a message.
    pub fn act(&mut self, running: &Running, log: &mut MappedLog, bytes_max: u64) -> Offset {
        match self.random.below(20) {
            0 => self.login(running, log),
            1 => self.enter(running, log),
            _ => {
                let bytes = self.random.below(bytes_max) as usize;
                self.send(running, log, bytes)
            }
        }
    }

    pub fn login(&mut self, running: &Running, log: &mut MappedLog) -> Offset {
        let (uin, device) = self.device();
        let state = self.devices.entry((uin, device)).or_default();
        *state = (state.0 + 1, 0, state.2);
        let body = EpochBody {
            uin: uin.into(),
            device: device.into(),
            epoch: state.0.into(),
            server_time: self.random.below(1 << 40).into(),
        };
        append(running, log, RecordKind::Epoch, Links::default(), &[body.as_bytes()])
    }

    pub fn enter(&mut self, running: &Running, log: &mut MappedLog) -> Offset {
        let (uin, other) = (1 + self.random.below(self.users), 1 + self.random.below(self.users));
        let body = EntryBody {
            uin: uin.into(),
            channel: ChannelId::direct(Uin(uin), Uin(other)),
            server_time: 7.into(),
        };
        append(running, log, RecordKind::Entry, Links::default(), &[body.as_bytes()])
    }

    /// Somebody who is in no other record enters a channel of his own: [`NOTER`].
    pub fn note(running: &Running, log: &mut MappedLog) -> Offset {
        let channel = ChannelId::direct(Uin(NOTER), Uin(NOTER));
        let body = EntryBody { uin: NOTER.into(), channel, server_time: 1.into() };
        let at = append(running, log, RecordKind::Entry, Links::default(), &[body.as_bytes()]);
        running.make_durable(log, at);
        at
    }

    /// An entry of [`NOTER`] that fills some room with what means nothing, or `true` for none.
    pub fn enter_or_full(running: &Running, log: &mut MappedLog) -> (Option<Offset>, bool) {
        let channel = ChannelId::direct(Uin(NOTER), Uin(NOTER));
        let body = EntryBody { uin: NOTER.into(), channel, server_time: 1.into() };
        let mut result = Err(AppendError::Busy);
        running.until(|| {
            result = log.append(RecordKind::Entry, Links::default(), &[body.as_bytes()]);
            log.commit();
            log.durable().unwrap();
            result != Err(AppendError::Busy)
        });
        (result.ok(), result == Err(AppendError::Full))
    }

    pub fn send(&mut self, running: &Running, log: &mut MappedLog, bytes: usize) -> Offset {
        self.say(running, log, bytes, RecordKind::Message)
    }

    /// A recall of one of the newest messages of a channel, or a block that begins or ends.
    pub fn take_back(&mut self, running: &Running, log: &mut MappedLog) -> Offset {
        if self.random.below(2) == 0 {
            return self.say(running, log, 0, RecordKind::Recall);
        }
        let blocker = 1 + self.random.below(self.users);
        let body = BlockBody {
            blocker: blocker.into(),
            blocked: (blocker + 1 + self.random.below(3)).into(),
            server_time: 3.into(),
            action: (1 + self.random.below(2) as u32).into(),
            reserved: 0.into(),
        };
        append(running, log, RecordKind::Block, Links::default(), &[body.as_bytes()])
    }

    fn say(
        &mut self,
        running: &Running,
        log: &mut MappedLog,
        bytes: usize,
        kind: RecordKind,
    ) -> Offset {
        let (uin, device) = self.device();
        let other = 1 + self.random.below(self.users);
        let older = if kind == RecordKind::Recall { self.random.below(100) } else { 0 };
        let channel = ChannelId::direct(Uin(uin), Uin(other));
        let messages = self.channels.entry(channel.halves()).or_default();
        let id = messages.len() as u64 + 1;
        let at_id = |id: u64| if id == 0 { Offset(0) } else { messages[id as usize - 1] };
        // The first message of a channel has nothing to recall.
        let kind = if id == 1 { RecordKind::Message } else { kind };
        let is_recall = kind == RecordKind::Recall;
        let refers_to = if is_recall { id - 1 - older % (id - 1) } else { 0 };
        let state = self.devices.entry((uin, device)).or_insert((1, 0, Offset(0)));
        state.1 += 1;
        let links =
            Links { channel: at_id(id - 1), device: state.2, skip: at_id(MessageId(id).skip().0) };
        let body = PushBody {
            channel,
            id: id.into(),
            sender: uin.into(),
            device: device.into(),
            epoch: state.0.into(),
            counter: state.1.into(),
            content_type: 1.into(),
            kind: 0,
            version: 1,
            server_time: 9.into(),
            refers_to: refers_to.into(),
        };
        let content = vec![id as u8; bytes];
        let parts = [body.as_bytes(), &content];
        let at = append(running, log, kind, links, &parts);
        messages.push(at);
        state.2 = at;
        at
    }

    /// Ids of each channel, by where they are.
    pub fn newest(&self) -> BTreeMap<(u64, u64), u64> {
        self.channels.iter().map(|(key, messages)| (*key, messages.len() as u64)).collect()
    }

    fn device(&mut self) -> (u64, u32) {
        let uin = 1 + self.random.below(self.users);
        (uin, 1 + self.random.below(self.devices_each.into()) as u32)
    }
}

fn append(
    running: &Running,
    log: &mut MappedLog,
    kind: RecordKind,
    links: Links,
    body: &[&[u8]],
) -> Offset {
    for _ in 0..ROOM_ASKED_MAX {
        let mut at = Err(AppendError::Busy);
        running.until(|| {
            at = log.append(kind, links, body);
            if at.is_err() {
                log.commit();
                log.durable().unwrap();
            }
            at != Err(AppendError::Busy)
        });
        match at {
            Ok(at) => return at,
            Err(AppendError::Full) => running.storage.maintain(), // as its own clock would
            Err(error) => panic!("{error:?}"),
        }
        let mut is_second = false;
        running.until(|| std::mem::replace(&mut is_second, true)); // a bell, or some ms
    }
    panic!("no room came");
}

/// The rows of a recovered state.
pub fn rows_of(state: &Recovery<MemoryTable>) -> Rows {
    let mut rows = Rows::new();
    let emit = |kind, parts: &[&[u8]]| {
        rows.push((kind, parts.concat()));
        Ok::<(), ()>(())
    };
    state.rows(emit).unwrap();
    rows
}

/// The newest id of each channel, by rows.
pub fn newest_of(rows: &Rows) -> BTreeMap<(u64, u64), u64> {
    let channels = rows.iter().filter(|(kind, _)| *kind == StateKind::Channel);
    let row = |row: &(StateKind, Vec<u8>)| {
        let (row, _) = ChannelRow::ref_from_prefix(&row.1).unwrap();
        (row.channel.halves(), row.newest.get())
    };
    channels.map(row).collect()
}

/// Opens the shard, and says what state it is in.
pub fn open_rows(running: &Running) -> Result<(Opened, Rows), RecoverError> {
    let mut scan = running.storage.scan_shard(SHARD)?;
    // The table is taken, as a server does; the state is judged without its help.
    let (_table, _) = scan.attach_table()?;
    let (placement, table) = (Placement::new(1, 1), MemoryTable::default());
    let mut state = Recovery::new(SHARD, placement, table, Offset::NONE);
    let opened = scan.replay(&mut state)?;
    Ok((opened, rows_of(&state)))
}

/// The state of a copy of a folder, without its checkpoints if so wanted.
pub fn rows_of_copy(
    rig: &super::Rig,
    path: &Path,
    with_checkpoints: bool,
) -> (RecoveryReport, Rows) {
    let copy = tempfile::tempdir().unwrap();
    super::copy_dir(path, copy.path());
    if !with_checkpoints {
        for path in checkpoints_at(copy.path()) {
            std::fs::remove_file(path).unwrap();
        }
    }
    let running = rig.start_at(copy.path());
    let (opened, rows) = open_rows(&running).unwrap();
    let report = opened.report.clone();
    running.kill(opened.log);
    (report, rows)
}

/// The checkpoints of a shard, oldest first.
pub fn checkpoints_at(path: &Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(path.join("log/shard-00")).unwrap();
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|suffix| suffix == "ckpt"));
    paths.sort();
    paths
}

/// A rig with small segments, whose upkeep happens only when it is asked for, and its clock.
pub fn upkeep_rig() -> (super::Rig, Arc<Hands>) {
    let (mut rig, hands) = (super::Rig::new(), Arc::new(Hands::default()));
    rig.config.maintain_every = std::time::Duration::from_secs(3600);
    rig.config.clock = Arc::clone(&hands) as Arc<dyn ClockSource>;
    rig.config.boot = Some([3; 16]);
    rig.config.checkpoint_bytes_min = 1;
    (rig, hands)
}
