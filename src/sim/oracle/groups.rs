//! What the judge hears of groups: what is asked, what is refused, and who is told to be in one.

use std::collections::{BTreeMap, VecDeque};

use tern_client::group::GroupPage;
use tern_client::machine::SavedSend;
use tern_core::mail::Device;
use tern_groupmodel::{Group, Refusal, Rest};
use tern_protocol::frames::SendRefused;
use tern_protocol::{ChannelId, Code, SendKey};

use super::Oracle;
use super::checks::{blocks as block_checks, demand, groups, recalls as recall_checks, survives};
use crate::disk::Disk;

/// The questions about groups that are under way, and the newest answers.
#[derive(Debug, Default)]
pub(super) struct Questions {
    /// The group's newest id when each question was asked, oldest first.
    asked: BTreeMap<(u32, ChannelId), VecDeque<u64>>,
    /// The version that each install was last told.
    told: BTreeMap<(u32, ChannelId), u64>,
}

impl Questions {
    /// A process of an install starts: nobody asks any more.
    pub(super) fn forget(&mut self, install: u32) {
        self.asked.retain(|(of, _), _| *of != install);
        self.told.retain(|(of, _), _| *of != install);
    }

    /// Logs end where they do now.
    pub(super) fn clamp(&mut self, newest: impl Fn(ChannelId) -> u64) {
        for ((_, channel), asked) in &mut self.asked {
            asked.iter_mut().for_each(|since| *since = newest(*channel).min(*since));
        }
        self.told.clear();
    }
}

impl Oracle {
    /// What the rules of groups depend on beside the groups.
    pub fn limit(&mut self, rest: Rest) {
        self.rest = rest;
    }

    /// A client stores a send; `time` is the server's clock, 0 if it leaps.
    pub fn send_stored(&mut self, device: Device, send: &SavedSend, time: u64) {
        let blocks = block_checks::changes_before(&self.truth, device.uin, send.channel);
        let since = (self.truth.newest(send.channel), blocks);
        self.sends.note(device, send, since, time);
    }

    /// A refusal leaves the server for this device; `wall_ms` is the server's clock, 0 if it leaps.
    pub fn refusal_leaves(
        &mut self,
        disk: &Disk,
        sender: Device,
        no: &SendRefused,
        (now, wall_ms): (u64, u64),
    ) {
        let key = SendKey { epoch: no.epoch.into(), counter: no.counter.into() };
        let refusal = Refusal { code: Code(no.code.get()), member: no.member.get() };
        let by_rules = self.is_by_rules(no.channel, refusal.code);
        let by_rules_at = by_rules.then_some(now);
        let verdict = self.keys.refused(&self.truth, (sender, key), refusal.code, by_rules_at);
        self.judge("keys", verdict);
        let Some(asked) = self.sends.get(sender, key).filter(|_| by_rules) else { return };
        let is_durable = |place| survives(disk, place);
        let of = (sender, asked);
        let (check, verdict) = if recall_checks::is_by_original(refusal.code) {
            let known = self.known_of(disk, asked, wall_ms);
            let why = (refusal.code, known);
            ("recalls", self.hours.deserved(&self.truth, of, why, is_durable))
        } else if no.channel.is_group() {
            ("groups", groups::deserved(&self.truth, of, refusal, self.rest, is_durable))
        } else {
            ("blocks", block_checks::deserved(&self.truth, of, is_durable))
        };
        self.judge(check, verdict);
    }

    /// Whether a code says how a group, a message or a block is, which may change.
    pub(super) fn is_by_rules(&self, channel: ChannelId, code: Code) -> bool {
        let (_, high) = channel.halves();
        let exist = high <= self.rest.uin_max;
        let by_block = !channel.is_group() && code == Code::NoSuchUser && exist;
        groups::is_by_rules(channel, code) || recall_checks::is_by_original(code) || by_block
    }

    /// A frame of a client's machine leaves, with a send under this key.
    pub fn send_leaves(&mut self, device: Device, key: SendKey) {
        if !self.is_copied(device) {
            let verdict = self.keys.sent(device, key);
            self.judge("keys", verdict);
        }
    }

    /// Whether a copy of this send can still be on its way to the server: not after its device was
    /// told a refusal by how a group was so long ago that the server may have forgotten it.
    pub fn may_come_late(&self, device: Device, key: SendKey) -> bool {
        self.keys.may_come_late(device, key)
    }

    /// Whether a group of which a life showed more to a user now ends there for him.
    pub(super) fn ends_for(&self, device: Device, (channel, at): (ChannelId, u64)) -> bool {
        let uin = device.uin.0;
        let mut before = self.lives.groups_of(channel);
        let all = self.truth.group(channel).into_iter().chain(self.lives.groups_of(channel));
        let ends = |group: &Group| group.ranges(uin).iter().any(|range| range.1 == Some(at - 1));
        let goes_on = |group: &Group| group.range(uin).is_some_and(|(_, to)| to >= at);
        before.any(goes_on) && all.into_iter().any(ends)
    }

    /// An application asks who is in a group.
    pub fn group_asked(&mut self, install: u32, channel: ChannelId) {
        let since = self.truth.newest(channel);
        self.questions.asked.entry((install, channel)).or_default().push_back(since);
    }

    /// It is told. A word of a history that ended since may come late.
    pub fn page_told(&mut self, install: u32, device: Device, page: &GroupPage) {
        self.answered(install, page.channel);
        self.questions.told.insert((install, page.channel), page.version.0);
        let verdict = groups::page(&self.truth, device, page);
        if self.lives.groups_of(page.channel).next().is_none() {
            self.judge("groups", verdict);
        }
    }

    /// It is told nothing, for this reason.
    pub fn page_refused(
        &mut self,
        install: u32,
        device: Device,
        (channel, code): (ChannelId, Code),
    ) {
        let since = self.answered(install, channel).unwrap_or(0);
        if code != Code::NotAMember {
            let is_for_now = matches!(code, Code::Busy | Code::ShardStopped);
            let wrong = || format!("{device:?} may not know who is in {channel}: {code}");
            return self.judge("groups", demand(is_for_now, wrong));
        }
        let was_none = |id| {
            let group = self.truth.group_at(channel, id);
            group.is_ok_and(|group| !group.members.contains_key(&device.uin.0))
        };
        // A word of a life that ended may come late.
        let was_none_before = |group: &Group| !group.members.contains_key(&device.uin.0);
        let is_so = (since..=self.truth.newest(channel)).any(was_none)
            || self.lives.groups_of(channel).any(was_none_before);
        self.judge(
            "groups",
            demand(is_so, || {
                format!("{device:?} hears that it is not in {channel}, and it is since #{since}")
            }),
        );
    }

    fn answered(&mut self, install: u32, channel: ChannelId) -> Option<u64> {
        self.questions.asked.get_mut(&(install, channel))?.pop_front()
    }

    /// Whether an install waits for an answer about a group.
    pub fn asks_group(&self, install: u32, channel: ChannelId) -> bool {
        self.questions.asked.get(&(install, channel)).is_some_and(|asked| !asked.is_empty())
    }

    /// Whether an install was told all about a group.
    pub fn knows_group(&self, install: u32, channel: ChannelId) -> bool {
        let version = self.truth.group(channel).map(|group| group.version);
        self.questions.told.get(&(install, channel)).copied() == version
    }

    /// What a user is to have of a channel: first id and last. `None` if there is nothing, or the
    /// user was thrown out and what is left of it has expired.
    pub fn due(&self, disk: &Disk, device: Device, channel: ChannelId) -> Option<(u64, u64)> {
        let Some(group) = self.truth.group(channel) else {
            channel.peer_of(device.uin)?;
            return Some((1, self.truth.newest(channel)));
        };
        let (from, to) = group.range(device.uin.0)?;
        let is_member = group.members.contains_key(&device.uin.0);
        let (_, (shard, index)) = self.truth.get(channel, to)?;
        let is_expired = disk.is_gone(*shard, *index).1;
        (is_member || !is_expired).then_some((from, to))
    }
}
