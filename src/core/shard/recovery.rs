//! A shard's state from its log: the rows of a checkpoint if there is one, then each record in
//! order; then the shard runs, or its state is written out as the rows of the next checkpoint.

use rustc_hash::FxHashMap;
use tern_protocol::frames::PushBody;
use tern_protocol::{ChannelId, DeviceId, Incarnation, MessageId, Uin};
use zerocopy::{FromBytes, IntoBytes};

use super::Shard;
use super::channel::Channel;
use super::commit::Waiting;
use super::home::Home;
use super::notify::Telling;
use super::park::Parked;
use super::records::{EntryBody, EpochBody};
use super::state::{ChannelRow, DeviceRow, EntryRow, StateKind, WindowRow};
use crate::dedup::{DedupEntry, DedupTable, Verdict};
use crate::log::{Log, Offset, Record, RecordKind};
use crate::memory::MemoryTable;
use crate::placement::{Placement, ShardId};

/// A shard's state while its log is replayed.
pub struct Recovery<T> {
    id: ShardId,
    placement: Placement,
    table: T,
    table_applied: Offset,
    end: Offset,
    incarnation: Incarnation,
    channels: FxHashMap<ChannelId, Channel>,
    home: Home,
}

/// A record that passed its checksum and yet makes no sense where it stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReplayError {
    /// Where.
    pub at: Offset,
    /// What is wrong.
    pub what: String,
}

impl std::fmt::Display for ReplayError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the record at offset {} contradicts the log before it: {}", self.at.0, self.what)
    }
}

impl std::error::Error for ReplayError {}

impl<T: DedupTable> Recovery<T> {
    /// Starts a replay. `table` already knows the log before `table_applied`.
    pub fn new(id: ShardId, placement: Placement, table: T, table_applied: Offset) -> Self {
        Self {
            id,
            placement,
            table,
            table_applied,
            end: Offset::NONE,
            incarnation: Incarnation(1),
            channels: FxHashMap::default(),
            home: Home::new(placement.shards()),
        }
    }

    /// Takes the next row of a checkpoint, in order, before any record: the state that the log
    /// before `at` makes.
    ///
    /// # Errors
    /// When the row is not what its kind says.
    pub fn restore(&mut self, at: Offset, kind: StateKind, row: &[u8]) -> Result<(), ReplayError> {
        self.end = at;
        let fits = match kind {
            StateKind::Channel => self.restore_channel(row),
            StateKind::Entry => EntryRow::ref_from_bytes(row).ok().map(|row| {
                self.home.restore_entry(row);
            }),
            StateKind::Device => DeviceRow::ref_from_bytes(row).ok().map(|row| {
                self.home.restore_device(row);
            }),
            StateKind::Window if self.table_applied >= at => Some(()),
            StateKind::Window => self.restore_window(row),
            StateKind::Tombstone => Some(()),
        };
        let what = || format!("the row of kind {kind:?} is not one");
        fits.ok_or_else(|| ReplayError { at, what: what() })
    }

    fn restore_channel(&mut self, row: &[u8]) -> Option<()> {
        let (row, spine) = ChannelRow::ref_from_prefix(row).ok()?;
        let channel = Channel::from_row(row, spine)?;
        self.channels.insert(row.channel, channel);
        Some(())
    }

    /// Rows claim nothing of the log until the last one is in: a table that was half filled by a
    /// recovery that died knows nothing.
    fn restore_window(&mut self, row: &[u8]) -> Option<()> {
        let row = WindowRow::ref_from_bytes(row).ok()?;
        let (uin, device) = (Uin::from(row.uin), DeviceId::from(row.device));
        if self.table.get(uin, device).is_none() {
            self.table.reserve().ok()?;
        }
        self.table.put(uin, device, DedupEntry::from(*row), Offset::NONE);
        Some(())
    }

    /// Takes the next record of the log, in order. `end` is where the next one can begin.
    ///
    /// # Errors
    /// When the record contradicts those before it.
    pub fn replay(
        &mut self,
        at: Offset,
        end: Offset,
        record: Record<'_>,
    ) -> Result<(), ReplayError> {
        self.end = end;
        let fits = match record.kind {
            RecordKind::Message => self.replay_message(at, record),
            RecordKind::Epoch => EpochBody::ref_from_bytes(record.body)
                .map(|body| self.home.replay_epoch(body))
                .map_err(|_| "a login of the wrong length".to_owned()),
            RecordKind::Entry => EntryBody::ref_from_bytes(record.body)
                .map(|body| self.home.replay_entry(body))
                .map_err(|_| "an entry of the wrong length".to_owned()),
        };
        fits.map_err(|what| ReplayError { at, what })
    }

    fn replay_message(&mut self, at: Offset, record: Record<'_>) -> Result<(), String> {
        let (body, _) = PushBody::ref_from_prefix(record.body)
            .map_err(|_| "a message shorter than its fixed part".to_owned())?;
        let fresh = || Channel::new(self.incarnation);
        let channel = self.channels.entry(body.channel).or_insert_with(fresh);
        let (id, expected) = (MessageId::from(body.id), channel.next_id());
        if id != expected {
            return Err(format!("channel {} has id {id} after {}", body.channel, expected.0 - 1));
        }
        channel.appended(at);
        channel.proven(id, at);
        self.replay_key(at, body)
    }

    fn replay_key(&mut self, at: Offset, body: &PushBody) -> Result<(), String> {
        if at < self.table_applied {
            return Ok(()); // the table outlived the process and knows it
        }
        let (uin, device) = (Uin::from(body.sender), DeviceId::from(body.device));
        let entry = self.table.get(uin, device);
        if DedupEntry::judge(entry.as_ref(), body.key()) != Verdict::New {
            return Err(format!("uin {uin} device {device} used key {} twice", body.key()));
        }
        if entry.is_none() {
            let full = "no memory for the deduplication table".to_owned();
            self.table.reserve().map_err(|_| full)?;
        }
        let entry = DedupEntry::accept(entry.as_ref(), body.key(), at);
        self.table.put(uin, device, entry, self.end);
        Ok(())
    }

    /// The log's incarnation was raised at this place of the log: what comes after may differ
    /// from what was shown before.
    pub fn raise(&mut self, incarnation: Incarnation) {
        self.incarnation = incarnation;
        for channel in self.channels.values_mut() {
            channel.restart();
        }
    }

    /// Messages of a channel up to `up_to` are past their retention.
    pub fn expire(&mut self, channel: ChannelId, up_to: MessageId) {
        if let Some(channel) = self.channels.get_mut(&channel) {
            channel.expire(up_to);
        }
    }

    /// Ends the replay: the shard as it was, with everything in the log durable. Its first act
    /// will be to tell all home shards how far its channels go.
    ///
    /// # Panics
    /// If the log has failed already.
    pub fn finish<L: Log>(self, mut log: L) -> Shard<L, T> {
        let shards = usize::from(self.placement.shards());
        let mut telling: Vec<Telling> = (0..shards).map(|_| Telling::new()).collect();
        let mut channels: Vec<ChannelId> = self.channels.keys().copied().collect();
        channels.sort_unstable();
        for channel in channels {
            super::notify::mark(&mut telling, &self.placement, channel);
        }
        Shard {
            id: self.id,
            proof: log.durable().expect("a log that was just recovered has not failed"),
            log,
            table: self.table,
            incarnation: self.incarnation,
            stopped: false,
            channels: self.channels,
            opening: FxHashMap::default(),
            parked: Parked::default(),
            cold: Vec::new(),
            unproven: Vec::new(),
            waiting: Waiting::default(),
            telling,
            exchange_begun: false,
            home: self.home,
        }
    }
}

impl Recovery<MemoryTable> {
    /// Writes the state out as the rows of a checkpoint, in their order; each row is the
    /// concatenation of its parts.
    ///
    /// # Errors
    /// The first that `emit` gives.
    pub fn rows<E>(
        &self,
        mut emit: impl FnMut(StateKind, &[&[u8]]) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut channels: Vec<_> = self.channels.iter().collect();
        channels.sort_unstable_by_key(|(id, _)| **id);
        for (id, channel) in channels {
            let (row, spine) = channel.to_row(*id);
            emit(StateKind::Channel, &[row.as_bytes(), &spine])?;
        }
        for row in self.home.entry_rows() {
            emit(StateKind::Entry, &[row.as_bytes()])?;
        }
        for row in self.home.device_rows() {
            emit(StateKind::Device, &[row.as_bytes()])?;
        }
        for row in self.table.rows() {
            emit(StateKind::Window, &[row.as_bytes()])?;
        }
        Ok(())
    }
}
