//! The histories of a channel: a server that goes back to an older copy of its logs has lost what
//! came after it, says so by a new incarnation, and gives those ids out once more.
//!
//! Invariant: what a client was shown under an incarnation stood in the history of that life.

use std::collections::{BTreeMap, BTreeSet};

use tern_core::mail::Device;
use tern_core::placement::{Placement, ShardId};
use tern_groupmodel::Group;
use tern_protocol::{ChannelId, Incarnation, SendKey};

use super::fact::{Fact, Label};
use super::truth::{Place, Truth};

/// The lives that ended, oldest first.
#[derive(Debug, Default)]
pub struct Lives {
    ended: Vec<Ended>,
    /// Places that were damaged or deleted when a life ended.
    gone: BTreeSet<(ChannelId, u64)>,
    /// What was recalled in any of them.
    recalled: BTreeSet<(ChannelId, u64)>,
}

/// The end of a life.
#[derive(Debug)]
struct Ended {
    /// The life of each log that ended; others may have gone on as they were.
    lives: BTreeMap<ShardId, Incarnation>,
    placement: Placement,
    /// What was lost with it.
    lost: BTreeMap<(ChannelId, u64), Fact>,
    /// How far each channel went that was kept.
    kept: BTreeMap<ChannelId, u64>,
    /// The groups as they were.
    groups: BTreeMap<ChannelId, Group>,
}

impl Lives {
    /// The lives of these logs of so many shards end: of the history `before` only `after` is left.
    pub fn end(
        &mut self,
        (lives, shards): (BTreeMap<ShardId, Incarnation>, u16),
        before: &Truth,
        after: &Truth,
    ) {
        let placement = Placement::new(shards, 1);
        let lost = before.places().map(|(fact, _)| fact);
        let lost = lost.filter(|fact| after.get(fact.channel, fact.id).is_none());
        let lost = lost.map(|fact| ((fact.channel, fact.id), fact.clone())).collect();
        let kept = after.channels().map(|channel| (channel, after.newest(channel))).collect();
        let groups = before.groups().map(|(channel, group)| (channel, group.clone())).collect();
        self.recalled.extend(before.recalled());
        self.ended.push(Ended { lives, placement, lost, kept, groups });
    }

    /// A group as it was when each life ended.
    pub fn groups_of(&self, channel: ChannelId) -> impl Iterator<Item = &Group> {
        self.ended.iter().filter_map(move |end| end.groups.get(&channel))
    }

    /// What of the life that is about to end is damaged or deleted.
    pub fn note_gone(&mut self, truth: &Truth, is_gone: impl Fn(Place) -> bool) {
        let gone = truth.places().filter(|(_, place)| is_gone(*place));
        self.gone.extend(gone.map(|(fact, _)| (fact.channel, fact.id)));
    }

    /// What stood at a place of a channel of this log in the life `known`.
    pub fn stood<'a>(
        &'a self,
        truth: &'a Truth,
        (shard, channel, id): (ShardId, ChannelId, u64),
        known: Incarnation,
    ) -> Option<&'a Fact> {
        for end in &self.ended {
            if end.lives.get(&shard).is_some_and(|life| *life >= known) {
                let kept = end.kept.get(&channel).copied().unwrap_or(0);
                if id > kept {
                    return end.lost.get(&(channel, id));
                }
            }
        }
        truth.get(channel, id).map(|(fact, _)| fact)
    }

    /// Whether a message of this label ever stood at this place of a channel.
    pub fn ever_stood(&self, truth: &Truth, at: (ChannelId, u64), label: Label) -> bool {
        let is_it = |fact: &Fact| fact.label == Some(label);
        truth.get(at.0, at.1).is_some_and(|(fact, _)| is_it(fact)) || self.was_lost_at(at, is_it)
    }

    /// Whether a message was recalled in an earlier life, which may have been lost with it.
    pub fn was_recalled(&self, channel: ChannelId, id: u64) -> bool {
        self.recalled.contains(&(channel, id))
    }

    /// Whether what stood at this place of a channel in an earlier life was damaged, deleted, or
    /// lost with it.
    pub fn was_gone(&self, at: (ChannelId, u64)) -> bool {
        self.gone.contains(&at) || self.was_lost_at(at, |_| true)
    }

    fn was_lost_at(&self, at: (ChannelId, u64), is_it: impl Fn(&Fact) -> bool) -> bool {
        self.ended.iter().filter_map(|end| end.lost.get(&at)).any(is_it)
    }

    /// Whether a message of this label was lost with a life.
    pub fn lost_label(&self, label: Label) -> bool {
        self.ended.iter().flat_map(|end| end.lost.values()).any(|fact| fact.label == Some(label))
    }

    /// Whether the message of this key was lost with a life.
    pub fn lost_key(&self, sender: Device, key: SendKey) -> bool {
        let is_it = |fact: &Fact| (fact.sender, fact.key) == (sender, key);
        self.ended.iter().flat_map(|end| end.lost.values()).any(is_it)
    }

    /// The first id of a channel that names, or may name, another message than in an earlier
    /// life: now, and as it was before each life that ended later.
    pub fn restarted_at(&self, channel: ChannelId) -> impl Iterator<Item = u64> + '_ {
        let is_its =
            move |end: &&Ended| end.lives.contains_key(&end.placement.shard_of_channel(channel));
        self.ended.iter().filter(is_its).scan(u64::MAX, move |least, end| {
            *least = (end.kept.get(&channel).copied().unwrap_or(0) + 1).min(*least);
            Some(*least)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::checks::ids::tests::{fact, truth};

    #[test]
    fn each_life_has_its_own_history() {
        let shard = ShardId(0);
        let (mut lives, channel) = (Lives::default(), fact(1, 1).channel);
        let first = truth(&[fact(1, 1), fact(2, 2), fact(3, 3)]);
        let kept = truth(&[fact(1, 1)]);
        lives.end(([(shard, Incarnation(1))].into(), 1), &first, &kept);
        let second = truth(&[fact(1, 1), fact(2, 7)]);
        let stood = |id, life| lives.stood(&second, (shard, channel, id), Incarnation(life));
        assert_eq!(stood(1, 1), Some(&fact(1, 1)));
        assert_eq!(stood(2, 1), Some(&fact(2, 2)));
        assert_eq!(stood(2, 2), Some(&fact(2, 7)));
        assert_eq!((stood(3, 2), stood(4, 1)), (None, None));
        assert_eq!(lives.restarted_at(channel).collect::<Vec<_>>(), [2]);
        assert!(lives.was_gone((channel, 3)) && !lives.was_gone((channel, 1)));
    }
}
