//! What time and decay do to the simulated disk: messages whose body or whole record is damaged,
//! and old records past their retention.
//!
//! Worth naming: only what a real log can go on with without its operator is damaged, so behind
//! each damaged message stays one that can be read, which tells its id and its device's keys.

use std::collections::BTreeMap;

use tern_core::log::{Links, Offset, ReadError, RecordKind};
use tern_core::mail::Device;
use tern_core::placement::ShardId;
use tern_core::shard::state::TombstoneRow;
use tern_protocol::frames::PushBody;
use tern_protocol::{ChannelId, MessageId};
use zerocopy::FromBytes;

use super::{Disk, ShardDisk, Stored};

/// Messages that are tried before damage is given up.
const TRIES: u32 = 20;

/// What is damaged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Harm {
    /// The body; the header tells its links.
    Body,
    /// Everything; its links are what somebody found out.
    Record(Option<Links>),
}

/// What recovery finds of a record that it can't read.
pub type LeftLinks = Option<Links>;

impl Disk {
    /// Damages a message: its body only, or the whole record. Returns its shard, or nothing if
    /// none may be damaged.
    pub fn damage(&mut self, body_only: bool) -> Option<ShardId> {
        for _ in 0..TRIES {
            let id = ShardId(self.stream.below(self.shards.len() as u64) as u16); // fits: a shard
            let records = self.shards[usize::from(id.0)].synced as u64;
            let index = self.stream.below(records.max(1)) as usize;
            let shard = self.shard(id);
            if let Some(needed) = shard.needed_without(index, body_only) {
                let harm = if body_only { Harm::Body } else { Harm::Record(None) };
                shard.harm.insert(index, harm);
                shard.needed.extend(needed);
                return Some(id);
            }
        }
        None
    }

    /// As [`damage`](Self::damage), in the files of the real storage: of what it can go on without.
    pub fn damage_files(&mut self, body_only: bool) -> Option<ShardId> {
        for _ in 0..TRIES {
            let id = ShardId(self.stream.below(self.shards.len() as u64) as u16); // fits: a shard
            let index = self.stream.below(self.records(id).max(1) as u64) as usize;
            let shard = &self.shards[usize::from(id.0)];
            let probe = self.probe.as_ref()?;
            // Both kinds: only what points to a message tells the real storage which it was.
            let Some(needed) = shard.needed_in_files(index) else { continue };
            let stored = &shard.stored[index];
            let stays = |index: &usize| probe.outlives_power(id, &shard.stored[*index]);
            let is_bearable = stays(&index)
                && needed.iter().all(stays)
                && if body_only && probe.has_proving_marks() {
                    let behind = |later: &Stored| later.proven >= stored.end;
                    let mut later = shard.stored[index..].iter();
                    later.any(|later| behind(later) && probe.is_durable(id, later, true))
                } else {
                    probe.is_covered(id, stored)
                };
            if is_bearable && probe.damage(id, stored, body_only) {
                let shard = self.shard(id);
                let harm = if body_only { Harm::Body } else { Harm::Record(None) };
                shard.harm.insert(index, harm);
                shard.needed.extend(needed);
                return Some(id);
            }
        }
        None
    }

    /// Old records of a shard are past their retention. Returns the shard, or nothing if there
    /// was nothing to delete.
    pub fn expire(&mut self) -> Option<ShardId> {
        let id = ShardId(self.stream.below(self.shards.len() as u64) as u16); // fits: a shard
        let synced = self.shards[usize::from(id.0)].synced as u64;
        let before = self.stream.below(synced + 1) as usize;
        let shard = self.shard(id);
        let gone = shard.expired..before.max(shard.expired);
        let newest: BTreeMap<ChannelId, MessageId> =
            shard.stored[gone].iter().filter_map(Stored::message).map(|(at, _)| at).collect();
        shard.expired = before.max(shard.expired);
        let told = !newest.is_empty();
        shard.expiry_news.extend(newest);
        told.then_some(id)
    }

    /// The newest id of each channel that is past its retention, as a new process finds it.
    pub fn expired(&mut self, id: ShardId) -> BTreeMap<ChannelId, MessageId> {
        let shard = self.shard(id);
        shard.expiry_news.clear();
        let gone = &shard.stored[..shard.expired];
        gone.iter().filter_map(Stored::message).map(|(at, _)| at).collect()
    }

    /// What recovery finds of a record that is damaged; `None` if it is not.
    pub fn left_of(&self, id: ShardId, index: usize) -> Option<LeftLinks> {
        let shard = &self.shards[usize::from(id.0)];
        shard.harm.get(&index).map(|harm| match harm {
            Harm::Body => Some(shard.stored[index].links),
            Harm::Record(_) => None,
        })
    }

    /// Recovery knows where to go on from these places.
    pub fn entomb(&mut self, id: ShardId, rows: &[TombstoneRow]) {
        for row in rows {
            let index = self.index_of(id, Offset(row.at.get()));
            if let Some(Harm::Record(links)) = self.shard(id).harm.get_mut(&index) {
                *links = Some(row.links());
            }
        }
    }

    /// Whether the record of this number is damaged, and whether it is past its retention.
    pub fn is_gone(&self, id: ShardId, index: usize) -> (bool, bool) {
        let shard = &self.shards[usize::from(id.0)];
        (shard.harm.contains_key(&index), index < shard.expired)
    }

    /// How many records, from the first on, are past their retention.
    pub fn expired_records(&self, id: ShardId) -> usize {
        self.shards[usize::from(id.0)].expired
    }

    /// How many of all shards are.
    pub fn all_expired_records(&self) -> usize {
        self.shards.iter().map(|shard| shard.expired).sum()
    }

    /// So many are.
    pub fn set_expired(&mut self, id: ShardId, records: usize) {
        let shard = self.shard(id);
        shard.expired = shard.expired.max(records);
    }

    /// Whether anything of a shard was ever damaged or deleted.
    pub fn is_hurt(&self, id: ShardId) -> bool {
        let shard = &self.shards[usize::from(id.0)];
        !shard.harm.is_empty() || shard.expired > 0 || shard.lives.was_hurt()
    }
}

impl ShardDisk {
    /// As [`needed_without`](Self::needed_without) it, whole or not, whatever is synced.
    fn needed_in_files(&self, index: usize) -> Option<Vec<usize>> {
        self.needed_of(index, false, self.stored.len())
    }

    /// Which messages must stay if this one is damaged; `None` if it must stay itself.
    fn needed_without(&self, index: usize, body_only: bool) -> Option<Vec<usize>> {
        self.needed_of(index, body_only, self.synced)
    }

    fn needed_of(&self, index: usize, body_only: bool, synced: usize) -> Option<Vec<usize>> {
        let stored = self.stored.get(index)?;
        let ((channel, _), sender) = stored.message()?;
        if matches!(stored.kind, RecordKind::Change | RecordKind::Recall) {
            return None; // an operator is asked
        }
        if self.harm.contains_key(&index) || self.needed.contains(&index) || index < self.expired {
            return None;
        }
        let message = |at: usize| Some((at, self.stored[at].message()?));
        let later = || (index + 1..synced).filter_map(message);
        let next = later().find(|(_, ((other, _), _))| *other == channel);
        let needed = match next {
            Some((next, _)) => next,
            None if body_only => {
                let mut earlier = (0..index).rev().filter_map(message);
                earlier.find(|(_, ((other, _), _))| *other == channel)?.0
            }
            None => return None,
        };
        let mut needed = vec![needed];
        if !body_only {
            needed.push(later().find(|(_, (_, other))| *other == sender)?.0);
        }
        needed.iter().all(|at| !self.harm.contains_key(at)).then_some(needed)
    }

    /// What stands in the way of reading a record.
    pub(super) fn obstacle(&self, index: usize) -> Option<ReadError> {
        if index < self.expired {
            return Some(ReadError::Expired);
        }
        self.harm.get(&index).map(|harm| match harm {
            Harm::Body => ReadError::Lost(self.stored[index].links),
            Harm::Record(Some(links)) => ReadError::Lost(*links),
            Harm::Record(None) => ReadError::Cold,
        })
    }

    /// Somebody looks for what leads to this record, and where to go on from it.
    pub(super) fn salvage(&mut self, index: usize) {
        if self.harm.get(&index) != Some(&Harm::Record(None)) {
            return;
        }
        let Some(((channel, _), _)) = self.stored[index].message() else { return };
        let readable = |at: &usize| {
            let is_of_it = |((other, _), _)| other == channel;
            !self.harm.contains_key(at) && self.stored[*at].message().is_some_and(is_of_it)
        };
        let before = (0..index).rev().find(readable);
        let before = before.map_or(Offset::NONE, |before| self.stored[before].at);
        let links = Links { channel: before, ..Links::default() };
        self.harm.insert(index, Harm::Record(Some(links)));
    }
}

impl Stored {
    /// Channel, id and sender, if it is a message.
    fn message(&self) -> Option<((ChannelId, MessageId), Device)> {
        let body = PushBody::ref_from_prefix(&self.body).ok().map(|(body, _)| body);
        let body = body.filter(|_| self.kind.is_in_channel())?;
        let sender = Device { uin: body.sender.into(), device: body.device.into() };
        Some(((body.channel, body.id.into()), sender))
    }
}
