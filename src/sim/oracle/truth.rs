//! What the logs really hold: an index of every record, kept by reading the disk itself.

use std::collections::BTreeMap;

use tern_core::log::{Record, RecordKind};
use tern_core::mail::Device;
use tern_core::placement::ShardId;
use tern_core::shard::records::{BlockBody, EpochBody};
use tern_groupmodel::Group;
use tern_protocol::frames::{block, message_kind};
use tern_protocol::{ChannelId, Epoch, SendKey, Uin};
use zerocopy::FromBytes;

use super::fact::{Fact, Label};

/// Where a record stands: shard, and number in its log.
pub type Place = (ShardId, usize);

/// All records of all logs, by what they mean.
#[derive(Debug, Default)]
pub struct Truth {
    channels: BTreeMap<ChannelId, Vec<(Fact, Place)>>,
    groups: BTreeMap<ChannelId, Group>,
    keys: BTreeMap<(Device, SendKey), (ChannelId, u64)>,
    labels: BTreeMap<Label, (ChannelId, u64)>,
    newest_keys: BTreeMap<(ChannelId, Device), SendKey>,
    newest_labels: BTreeMap<(ChannelId, u32), u32>,
    epochs: BTreeMap<(Device, Epoch), Place>,
    /// By recalled message: the one that took it back.
    recalls: BTreeMap<(ChannelId, u64), u64>,
    /// By blocker and blocked: each change in its order, and whether it began a block.
    blocks: BTreeMap<(Uin, Uin), Vec<(bool, Place)>>,
}

impl Truth {
    /// One more record; a message is returned, to be judged before [`add`](Self::add).
    pub fn read(&mut self, place: Place, record: Record<'_>) -> Option<Fact> {
        match record.kind {
            RecordKind::Message | RecordKind::Change | RecordKind::Recall => Fact::of(record.body),
            RecordKind::Epoch => {
                let body = EpochBody::ref_from_bytes(record.body).ok()?;
                let device = Device { uin: body.uin.into(), device: body.device.into() };
                self.epochs.insert((device, body.epoch.into()), place);
                None
            }
            RecordKind::Block => {
                let body = BlockBody::ref_from_bytes(record.body).ok()?;
                let pair = (body.blocker.into(), body.blocked.into());
                let begins = body.action.get() == u32::from(block::BEGIN);
                self.blocks.entry(pair).or_default().push((begins, place));
                None
            }
            RecordKind::Entry | RecordKind::Read => None,
        }
    }

    /// Adds a message.
    ///
    /// # Errors
    /// When the rules of its group do not allow it.
    pub fn add(&mut self, fact: Fact, place: Place) -> Result<(), String> {
        let at = (fact.channel, fact.id);
        self.keys.insert((fact.sender, fact.key), at);
        let newest = self.newest_keys.entry((fact.channel, fact.sender)).or_insert(fact.key);
        *newest = fact.key.max(*newest);
        if let Some(label) = fact.label {
            self.labels.insert(label, at);
            let newest = self.newest_labels.entry((fact.channel, label.install)).or_default();
            *newest = label.serial.max(*newest);
        }
        if fact.kind == message_kind::RECALL {
            self.recalls.entry((fact.channel, fact.refers_to)).or_insert(fact.id);
        }
        let taken = match fact.channel.is_group() {
            true => self.groups.entry(fact.channel).or_default().take(fact.said()),
            false => Ok(()),
        };
        let taken = taken.map_err(|wrong| format!("{fact}: {wrong}"));
        self.channels.entry(fact.channel).or_default().push((fact, place));
        taken
    }

    /// The messages of a channel in their order.
    pub fn channel(&self, channel: ChannelId) -> &[(Fact, Place)] {
        self.channels.get(&channel).map(Vec::as_slice).unwrap_or_default()
    }

    /// A group as its messages make it.
    pub fn group(&self, channel: ChannelId) -> Option<&Group> {
        self.groups.get(&channel)
    }

    /// All groups.
    pub fn groups(&self) -> impl Iterator<Item = (ChannelId, &Group)> {
        self.groups.iter().map(|(channel, group)| (*channel, group))
    }

    /// A group as its messages up to this one make it.
    ///
    /// # Errors
    /// When there are not so many.
    pub fn group_at(&self, channel: ChannelId, id: u64) -> Result<Group, String> {
        let facts = self.channel(channel).get(..id as usize); // fits: as many as are in memory
        let facts = facts.ok_or_else(|| format!("{channel} has no #{id}"))?;
        Group::replay(facts.iter().map(|(fact, _)| fact.said()))
    }

    /// The message at a place of a channel, and where its record stands.
    pub fn get(&self, channel: ChannelId, id: u64) -> Option<&(Fact, Place)> {
        self.channels.get(&channel)?.get(usize::try_from(id.checked_sub(1)?).ok()?)
    }

    /// The message that takes this one back, if one does.
    pub fn recall_of(&self, channel: ChannelId, id: u64) -> Option<u64> {
        self.recalls.get(&(channel, id)).copied()
    }

    /// All recalled messages.
    pub fn recalled(&self) -> impl Iterator<Item = (ChannelId, u64)> + '_ {
        self.recalls.keys().copied()
    }

    /// Every change of whether one user blocks another, in their order: whether it begins.
    pub fn blocks(&self, blocker: Uin, blocked: Uin) -> &[(bool, Place)] {
        self.blocks.get(&(blocker, blocked)).map(Vec::as_slice).unwrap_or_default()
    }

    /// Whether a user blocks another.
    pub fn is_blocking(&self, blocker: Uin, blocked: Uin) -> bool {
        self.blocks(blocker, blocked).last().is_some_and(|(begins, _)| *begins)
    }

    /// Whom a user has ever blocked.
    pub fn ever_blocked(&self, blocker: Uin) -> impl Iterator<Item = Uin> + '_ {
        let pairs = self.blocks.keys().filter(move |(own, _)| *own == blocker);
        pairs.map(|(_, blocked)| *blocked)
    }

    /// The newest id of a channel; 0 if it has none.
    pub fn newest(&self, channel: ChannelId) -> u64 {
        self.channels.get(&channel).map_or(0, |facts| facts.len() as u64)
    }

    /// All channels with messages.
    pub fn channels(&self) -> impl Iterator<Item = ChannelId> + '_ {
        self.channels.keys().copied()
    }

    /// All messages, and where they stand.
    pub fn places(&self) -> impl Iterator<Item = &(Fact, Place)> + '_ {
        self.channels.values().flatten()
    }

    /// Messages in all channels.
    pub fn messages(&self) -> usize {
        self.channels.values().map(Vec::len).sum()
    }

    /// Where the message of a key stands.
    pub fn by_key(&self, sender: Device, key: SendKey) -> Option<(ChannelId, u64)> {
        self.keys.get(&(sender, key)).copied()
    }

    /// Where the message of a label stands.
    pub fn by_label(&self, label: Label) -> Option<(ChannelId, u64)> {
        self.labels.get(&label).copied()
    }

    /// The newest key of a device in a channel.
    pub fn newest_key(&self, channel: ChannelId, sender: Device) -> Option<SendKey> {
        self.newest_keys.get(&(channel, sender)).copied()
    }

    /// The newest serial number of an install in a channel.
    pub fn newest_serial(&self, channel: ChannelId, install: u32) -> Option<u32> {
        self.newest_labels.get(&(channel, install)).copied()
    }

    /// Where the record of a login stands.
    pub fn epoch(&self, device: Device, epoch: Epoch) -> Option<Place> {
        self.epochs.get(&(device, epoch)).copied()
    }
}
