//! A shard's state from its log: the rows of a checkpoint if there is one, then each record in
//! order; then the shard runs, or its state is written out as the rows of the next checkpoint.

use rustc_hash::{FxHashMap, FxHashSet};
use tern_protocol::frames::{PushBody, action};
use tern_protocol::group::ChangeView;
use tern_protocol::{ChannelId, DeviceId, Epoch, Incarnation, MessageId, Uin};
use zerocopy::{FromBytes, IntoBytes};

use super::Shard;
use super::block::Blocks;
use super::channel::Channel;
use super::commit::Waiting;
use super::doubts::Doubts;
use super::group::Group;
use super::home::Home;
use super::lost::Losses;
use super::marks::Marks;
use super::notify::Telling;
use super::pace::Paced;
use super::park::Parked;
use super::records::{BlockBody, EntryBody, EpochBody};
use super::refused::Refused;
use super::state::{
    BlockRow, ChannelRow, DeviceRow, EntryRow, GroupRow, MarkRow, MemberRow, RecallRow, StateKind,
    TombstoneRow, WindowRow,
};
use crate::dedup::{DedupEntry, DedupTable, Verdict};
use crate::log::{Links, Log, Offset, ReadError, Record, RecordKind};
use crate::mail::Device;
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
    groups: FxHashMap<ChannelId, Group>,
    blocks: Blocks,
    home: Home,
    marks: Marks,
    losses: Losses,
    /// Devices whose chain has a loss, and the epoch of their first message behind it.
    torn: FxHashMap<Device, Epoch>,
    /// The newest message of each channel that was not lost: once something is lost.
    newest: Option<FxHashMap<Offset, ChannelId>>,
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
            groups: FxHashMap::default(),
            blocks: Blocks::default(),
            home: Home::new(placement.shards()),
            marks: Marks::default(),
            losses: Losses::default(),
            torn: FxHashMap::default(),
            newest: None,
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
            StateKind::Window => self.restore_window(row, self.table_applied >= at),
            StateKind::Tombstone => {
                TombstoneRow::ref_from_bytes(row).ok().and_then(|row| self.losses.restore(row))
            }
            StateKind::Group => self.restore_group(row),
            StateKind::Member => MemberRow::ref_from_bytes(row)
                .ok()
                .and_then(|row| self.groups.get_mut(&row.channel)?.restore(&self.placement, row)),
            StateKind::Recall => RecallRow::ref_from_bytes(row)
                .ok()
                .and_then(|row| self.channels.get_mut(&row.channel)?.restore_recalls(row)),
            StateKind::Block => {
                BlockRow::ref_from_bytes(row).ok().and_then(|row| self.blocks.restore(row))
            }
            StateKind::Read => {
                MarkRow::ref_from_bytes(row).ok().and_then(|row| self.marks.restore(row))
            }
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

    fn restore_group(&mut self, row: &[u8]) -> Option<()> {
        let (row, name) = GroupRow::ref_from_prefix(row).ok()?;
        self.groups.insert(row.channel, Group::from_row(row, name)?).is_none().then_some(())
    }

    /// Rows claim nothing of the log until the last one is in: a table that was half filled by a
    /// recovery that died knows nothing.
    fn restore_window(&mut self, row: &[u8], is_known: bool) -> Option<()> {
        let row = WindowRow::ref_from_bytes(row).ok()?;
        let (uin, device) = (Uin::from(row.uin), DeviceId::from(row.device));
        if row.torn.get() != 0 {
            self.torn.insert(Device { uin, device }, row.epoch.into());
        }
        if is_known {
            return Some(()); // by the table that outlived the process
        }
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
            RecordKind::Change => {
                self.replay_message(at, record).and_then(|()| self.replay_change(record.body))
            }
            RecordKind::Recall => {
                self.replay_message(at, record).and_then(|()| self.replay_recall(at, record.body))
            }
            RecordKind::Block => BlockBody::ref_from_bytes(record.body)
                .ok()
                .and_then(|body| self.blocks.replay(body))
                .ok_or_else(|| "a block that makes no sense".to_owned()),
            RecordKind::Epoch => EpochBody::ref_from_bytes(record.body)
                .map(|body| self.home.replay_epoch(body))
                .map_err(|_| "a login of the wrong length".to_owned()),
            RecordKind::Entry => EntryBody::ref_from_bytes(record.body)
                .map(|body| self.home.replay_entry(body))
                .map_err(|_| "an entry of the wrong length".to_owned()),
            RecordKind::Read => {
                self.marks.replay(record.body).ok_or_else(|| "marks that are none".to_owned())
            }
        };
        fits.map_err(|what| ReplayError { at, what })
    }

    fn replay_message(&mut self, at: Offset, record: Record<'_>) -> Result<(), String> {
        let (body, _) = PushBody::ref_from_prefix(record.body)
            .map_err(|_| "a message shorter than its fixed part".to_owned())?;
        let fresh = || Channel::new(self.incarnation);
        let channel = self.channels.entry(body.channel).or_insert_with(fresh);
        let (id, expected) = (MessageId::from(body.id), channel.next_id());
        let contradicts = |why: &str| {
            Err(format!("channel {} has id {id} after {}: {why}", body.channel, expected.0 - 1))
        };
        let Some(missing) = id.0.checked_sub(expected.0) else {
            return contradicts("it was given out before");
        };
        let newest_at = channel.newest_at();
        let explained = self.losses.explain(record.links.channel, newest_at, at, missing);
        if let Err(why) = explained {
            return contradicts(why);
        }
        channel.lose(MessageId(id.0 - 1));
        channel.appended(at, body.server_time.into());
        channel.proven(id, at);
        self.losses.meet_skip(record.links.skip, channel.skip_at());
        if let Some(newest) = &mut self.newest {
            newest.remove(&newest_at);
            newest.insert(at, body.channel);
        }
        self.replay_key(at, body, record.links.device)
    }

    /// Behind a loss a group may have been made, or have got members, by a change that nobody
    /// knows: then what is known is applied to what is there.
    fn replay_change(&mut self, record: &[u8]) -> Result<(), String> {
        let (body, content) = PushBody::ref_from_prefix(record)
            .map_err(|_| "a change shorter than its fixed part".to_owned())?;
        let change = ChangeView::parse(content).filter(ChangeView::is_valid);
        let change = change.ok_or("a change that makes no sense")?;
        let is_made = change.head.action == action::CREATE;
        if self.losses.is_empty() && is_made == self.groups.contains_key(&body.channel) {
            let what = if is_made { "is made twice" } else { "was not made" };
            return Err(format!("a change of the group {}, which {what}", body.channel));
        }
        let ends = matches!(change.head.action, action::LEAVE | action::KICK);
        if ends && mutant!(KickForgotten) {
            return Ok(());
        }
        let group = self.groups.entry(body.channel).or_default();
        group.apply(&self.placement, body.id.into(), body.sender.into(), &change);
        group.all_proven();
        Ok(())
    }

    fn replay_recall(&mut self, at: Offset, record: &[u8]) -> Result<(), String> {
        let (body, _) = PushBody::ref_from_prefix(record)
            .map_err(|_| "a recall shorter than its fixed part".to_owned())?;
        if body.refers_to.get() == 0 || body.refers_to.get() >= body.id.get() {
            return Err("a recall of nothing before it".to_owned());
        }
        let channel = self.channels.get_mut(&body.channel).expect("its message was replayed");
        channel.recall_appended(at, body.refers_to.into());
        channel.proven(body.id.into(), at);
        Ok(())
    }

    fn replay_key(&mut self, at: Offset, body: &PushBody, before: Offset) -> Result<(), String> {
        let after_loss = self.losses.meet_device(before);
        let (uin, device) = (Uin::from(body.sender), DeviceId::from(body.device));
        if at < self.table_applied {
            // The table outlived the process and knows it, but not what is torn.
            self.tear(Device { uin, device }, body.key().epoch, after_loss);
            return Ok(());
        }
        let entry = self.table.get(uin, device);
        if entry.is_some_and(|entry| entry.last >= at) {
            return Ok(()); // rows of a newer checkpoint told it, in a recovery that died
        }
        let verdict = DedupEntry::judge(entry.as_ref(), body.key());
        // Behind a loss keys count as used that may come all the same.
        let assumed = verdict == Verdict::Seen && !self.losses.is_empty();
        if verdict != Verdict::New && !assumed {
            return Err(format!("uin {uin} device {device} used key {} twice", body.key()));
        }
        if entry.is_none() {
            let full = "no memory for the deduplication table".to_owned();
            self.table.reserve().map_err(|_| full)?;
        }
        let torn = self.tear(Device { uin, device }, body.key().epoch, after_loss);
        let entry = DedupEntry::replay(entry.as_ref(), body.key(), at, torn);
        self.table.put(uin, device, entry, self.end);
        Ok(())
    }

    /// A message of a device under a key of this epoch. Says whether the device may have used keys of
    /// it, or of those before, that are lost. A later epoch has closed the one of a loss.
    fn tear(&mut self, device: Device, epoch: Epoch, after_loss: bool) -> bool {
        if after_loss {
            self.torn.insert(device, epoch);
        } else if self.torn.get(&device).is_some_and(|torn| *torn < epoch) {
            self.torn.remove(&device);
        }
        self.torn.contains_key(&device)
    }

    /// The message at `at` is lost; the next record can begin at `end`. `links` are its own, if
    /// its header is whole; without them nothing is known of what stood between `at` and `end`.
    /// Comes in the order of the log, between the records.
    pub fn lost(&mut self, at: Offset, end: Offset, links: Option<Links>) {
        let covered = self.end > at; // by the rows
        self.end = self.end.max(end);
        let Some(links) = links else { return self.losses.add_range(at, end) };
        let explained = covered || self.lose_next_of(links.channel);
        self.losses.add_place(at, end, links, explained);
    }

    /// A lost message follows the message at `before` in its channel. Counts it, if that one is
    /// the newest of some channel.
    fn lose_next_of(&mut self, before: Offset) -> bool {
        let newest = self.newest.get_or_insert_with(|| {
            self.channels.iter().map(|(id, channel)| (channel.newest_at(), *id)).collect()
        });
        let before = self.losses.readable(before).and_then(Offset::some);
        let Some(channel) = before.and_then(|at| newest.get(&at)) else { return false };
        let channel = self.channels.get_mut(channel).expect("it is one of them");
        channel.lose(channel.next_id());
        true
    }

    /// Lost places, and where a reader who comes to one goes on.
    pub fn tombstones(&self) -> Vec<TombstoneRow> {
        self.losses.tombstones().collect()
    }

    /// Lost messages whose header is whole and whose channel still can't be told: its counter
    /// would give their ids once more.
    pub fn unexplained(&self) -> Vec<Offset> {
        self.losses.unexplained()
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
        let group = self.groups.get_mut(&channel);
        if let Some(channel) = self.channels.get_mut(&channel) {
            channel.expire(up_to);
            if let Some(group) = group {
                group.expire(&self.placement, channel.oldest());
            }
        }
    }

    /// Ends the replay: the shard as it was, with everything in the log durable. Its first act
    /// will be to tell all home shards how far its channels go.
    ///
    /// # Panics
    /// If the log has failed already.
    pub fn finish<L: Log>(self, mut log: L) -> Shard<L, T> {
        let newest = |device: &Device| self.table.get(device.uin, device.device);
        let torn = self.torn.keys().filter_map(newest).map(|entry| entry.last);
        let newest = self.losses.doubts().into_iter().chain(torn).collect();
        let mut is_kept = |at: Offset| log.with_record(at, |_| ()) != Err(ReadError::Expired);
        let ranges = self.losses.ranges().filter(|(at, _)| is_kept(*at)).collect();
        let shards = usize::from(self.placement.shards());
        let mut telling: Vec<Telling> = (0..shards).map(|_| Telling::new()).collect();
        let mut channels: Vec<ChannelId> = self.channels.keys().copied().collect();
        channels.sort_unstable();
        for channel in channels {
            let group = self.groups.get(&channel);
            super::notify::mark(&mut telling, &self.placement, channel, group, true);
        }
        Shard {
            id: self.id,
            proof: log.durable().expect("a log that was just recovered has not failed"),
            log: Paced::new(log),
            table: self.table,
            incarnation: self.incarnation,
            stopped: false,
            channels: self.channels,
            opening: FxHashMap::default(),
            groups: self.groups,
            blocks: self.blocks,
            entering: FxHashMap::default(),
            page_promises: Vec::new(),
            parked: Parked::default(),
            cold: Vec::new(),
            unproven: Vec::new(),
            refused: Refused::default(),
            waiting: Waiting::default(),
            telling,
            exchange_begun: false,
            home: self.home,
            marks: self.marks,
            doubts: Doubts::new(newest, ranges),
            removed: FxHashSet::default(),
            expiry_goes_on: false,
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
        for (id, channel) in &channels {
            let (row, spine) = channel.to_row(**id);
            emit(StateKind::Channel, &[row.as_bytes(), &spine])?;
        }
        for row in self.home.entry_rows() {
            emit(StateKind::Entry, &[row.as_bytes()])?;
        }
        for row in self.home.device_rows() {
            emit(StateKind::Device, &[row.as_bytes()])?;
        }
        for mut row in self.table.rows() {
            let device = Device { uin: row.uin.into(), device: row.device.into() };
            row.torn = u32::from(self.torn.contains_key(&device)).into();
            emit(StateKind::Window, &[row.as_bytes()])?;
        }
        for row in self.losses.rows() {
            emit(StateKind::Tombstone, &[row.as_bytes()])?;
        }
        let mut groups: Vec<_> = self.groups.iter().collect();
        groups.sort_unstable_by_key(|(id, _)| **id);
        for (id, group) in &groups {
            let (row, name) = group.to_row(**id);
            emit(StateKind::Group, &[row.as_bytes(), name])?;
        }
        for (id, group) in groups {
            group
                .member_rows(*id)
                .try_for_each(|row| emit(StateKind::Member, &[row.as_bytes()]))?;
        }
        for (id, channel) in channels {
            channel
                .recall_rows(*id)
                .try_for_each(|row| emit(StateKind::Recall, &[row.as_bytes()]))?;
        }
        self.blocks.rows().try_for_each(|row| emit(StateKind::Block, &[row.as_bytes()]))?;
        self.marks.rows().try_for_each(|row| emit(StateKind::Read, &[row.as_bytes()]))
    }
}
