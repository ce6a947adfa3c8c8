//! What was appended and acked, kept by code that shares nothing with recovery, and the judge of
//! what recovery says of it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use tern_core::log::{Links, Log, Offset, Record, RecordKind};
use tern_core::memory::MemoryTable;
use tern_core::placement::Placement;
use tern_core::shard::records::{EntryBody, EpochBody};
use tern_core::shard::state::TombstoneRow;
use tern_core::shard::{Recovery, ReplayError};
use tern_protocol::frames::PushBody;
use tern_protocol::{ChannelId, Incarnation, MessageId};
use tern_storage::repair::Plan;
use tern_storage::{MappedLog, SEGMENT_BYTES_MIN, Visitor};
use zerocopy::IntoBytes;

use super::{Rig, Running, SHARD};
use tern_random::Stream;

/// Bytes of a segment in these tests.
pub const SEGMENT: u64 = SEGMENT_BYTES_MIN;

/// One record as it was appended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Known {
    pub at: u64,
    pub end: u64,
    pub kind: RecordKind,
    pub links: Links,
    pub body: Vec<u8>,
    pub name: Option<(ChannelId, u64)>,
}

/// Everything that was appended and acked, and from where on nothing proves it.
#[derive(Default)]
pub struct Model {
    pub records: Vec<Known>,
    pub newest_batch: u64,
    channels: HashMap<ChannelId, Vec<u64>>,
    devices: HashMap<u64, (u64, u32)>,
    logins: u32,
}

impl Model {
    /// Appends some records of all kinds and makes them durable as one batch.
    pub fn batch(
        &mut self,
        running: &Running,
        log: &mut MappedLog,
        random: &mut Stream,
        records: u64,
    ) {
        self.newest_batch = log.tail().0;
        for _ in 0..records {
            match random.below(8) {
                0 => self.login(running, log),
                1 => self.entry(running, log, random),
                _ => self.message(running, log, random),
            }
        }
        let last = Offset(self.records.last().unwrap().at);
        running.make_durable(log, last);
    }

    fn message(&mut self, running: &Running, log: &mut MappedLog, random: &mut Stream) {
        let channel = ChannelId::group(1 + random.below(4));
        let sender = 1 + random.below(3);
        let ids = self.channels.entry(channel).or_default();
        let id = ids.len() as u64 + 1;
        let at_id = |id: MessageId| Offset(if id.0 == 0 { 0 } else { ids[id.0 as usize - 1] });
        let (last, counter) = self.devices.get(&sender).copied().unwrap_or_default();
        let links = Links {
            channel: at_id(MessageId(id - 1)),
            device: Offset(last),
            skip: at_id(MessageId(id).skip()),
        };
        let push = PushBody {
            channel,
            id: MessageId(id).into(),
            sender: sender.into(),
            device: 1.into(),
            epoch: 1.into(),
            counter: (counter + 1).into(),
            content_type: 1.into(),
            kind: 0,
            version: 1,
            server_time: 5.into(),
            refers_to: 0.into(),
        };
        let content = vec![id as u8; random.below(60) as usize];
        let body = [push.as_bytes(), &content].concat();
        let at = self.append(running, log, RecordKind::Message, links, body, Some((channel, id)));
        self.channels.get_mut(&channel).unwrap().push(at);
        self.devices.insert(sender, (at, counter + 1));
    }

    fn login(&mut self, running: &Running, log: &mut MappedLog) {
        self.logins += 1;
        let body = EpochBody {
            uin: 9.into(),
            device: 1.into(),
            epoch: self.logins.into(),
            server_time: 5.into(),
        };
        let body = body.as_bytes().to_vec();
        self.append(running, log, RecordKind::Epoch, Links::default(), body, None);
    }

    fn entry(&mut self, running: &Running, log: &mut MappedLog, random: &mut Stream) {
        let channel = ChannelId::group(1 + random.below(4));
        let body = EntryBody { uin: 9.into(), channel, server_time: 5.into() };
        let body = body.as_bytes().to_vec();
        self.append(running, log, RecordKind::Entry, Links::default(), body, None);
    }

    fn append(
        &mut self,
        running: &Running,
        log: &mut MappedLog,
        kind: RecordKind,
        links: Links,
        body: Vec<u8>,
        name: Option<(ChannelId, u64)>,
    ) -> u64 {
        let mut at = None;
        running.until(|| {
            at = log.append(kind, links, &[&body]).ok();
            if at.is_none() {
                log.commit();
                log.durable().unwrap();
            }
            at.is_some()
        });
        let (at, end) = (at.unwrap().0, log.tail().0);
        self.records.push(Known { at, end, kind, links, body, name });
        at
    }

    /// Judges what recovery says after these bytes (by offset) were damaged: every record that was
    /// not touched is there, every one that was is named, nothing else is told.
    pub fn judge(&self, seen: &Seen, plan: &Plan, bad: &[std::ops::Range<u64>], what: &str) {
        let known: BTreeMap<u64, &Known> = self.records.iter().map(|r| (r.at, r)).collect();
        for told in &seen.records {
            assert_eq!(Some(&told), known.get(&told.at), "{what}: an invented record");
        }
        let told: BTreeSet<u64> = seen.records.iter().map(|record| record.at).collect();
        assert_eq!(told.len(), seen.records.len(), "{what}: told twice");
        let touched = |r: &Known| bad.iter().any(|bad| bad.start < r.end && r.at < bad.end);
        let behind = bad.iter().filter(|bad| bad.end > self.newest_batch);
        let torn_from = behind.map(|bad| bad.start).min();
        for record in &self.records {
            let is_told = told.contains(&record.at);
            assert!(!(is_told && touched(record)), "{what}: damaged {} was told", record.at);
            let may_be_cut =
                record.at >= self.newest_batch && torn_from.is_some_and(|from| record.end > from);
            let named = plan.losses.iter().any(|l| l.at <= record.at && record.end <= l.to);
            assert!(is_told || named || may_be_cut, "{what}: {} was skipped silently", record.at);
            if !touched(record) && !may_be_cut {
                assert!(is_told, "{what}: the good record at {} is lost", record.at);
            }
        }
    }
}

/// What recovery tells, and the real state machine behind it.
pub struct Seen {
    pub records: Vec<Known>,
    pub state: Recovery<MemoryTable>,
}

impl Seen {
    pub fn new() -> Self {
        let table = MemoryTable::default();
        Self {
            records: Vec::new(),
            state: Recovery::new(SHARD, Placement::new(1, 1), table, Offset::NONE),
        }
    }
}

impl Visitor for Seen {
    fn record(&mut self, at: Offset, end: Offset, r: Record<'_>) -> Result<(), ReplayError> {
        let name = match r.kind {
            RecordKind::Message => {
                // One that is too short is refused by the shard, below.
                let push = <PushBody as zerocopy::FromBytes>::ref_from_prefix(r.body).ok();
                push.map(|(push, _)| (push.channel, push.id.get()))
            }
            _ => None,
        };
        let (kind, links, body) = (r.kind, r.links, r.body.to_vec());
        self.records.push(Known { at: at.0, end: end.0, kind, links, body, name });
        self.state.replay(at, end, r)
    }

    fn raise(&mut self, incarnation: Incarnation) {
        self.state.raise(incarnation);
    }

    fn lost(&mut self, at: Offset, end: Offset, links: Option<Links>) -> Result<(), ReplayError> {
        self.state.lost(at, end, links);
        Ok(())
    }

    fn tombstones(&self) -> Vec<TombstoneRow> {
        self.state.tombstones()
    }

    fn unexplained(&self) -> Vec<Offset> {
        self.state.unexplained()
    }
}

/// A log of one segment with records of all kinds in batches.
pub fn small_log(rig: &Rig, batches: u64, records: u64, seed: u64) -> Model {
    let (mut model, mut random) = (Model::default(), Stream::new(seed));
    let running = rig.start();
    let mut log = running.log();
    (0..batches).for_each(|_| model.batch(&running, &mut log, &mut random, records));
    running.kill(log);
    model
}

/// A log of several segments, and the segments that hold it.
pub fn long_log(rig: &Rig, seed: u64) -> Model {
    let (mut model, mut random) = (Model::default(), Stream::new(seed));
    let running = rig.start();
    let mut log = running.log();
    while log.tail().0 < 3 * SEGMENT + SEGMENT / 4 {
        model.batch(&running, &mut log, &mut random, 200);
    }
    running.kill(log);
    model
}
