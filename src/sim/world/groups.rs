//! Groups in the workload: applications make some, and everybody asks for all kinds of changes of
//! them, members or not. What comes of it, the rules decide.

use tern_client::group::{GroupChange, GroupSettings, Role};
use tern_client::machine::{Input, SavedSend};
use tern_protocol::frames::{action, message_kind};
use tern_protocol::group::ChangeView;
use tern_protocol::{ChannelId, Uin, UnixMillis};

use super::workload::NOBODY;
use super::{WALL_AT_START, World};
use crate::fault::Fault;
use crate::oracle::checks::Due;

/// Sends in a hundred that make a group, while there are fewer than the seed drew.
const MAKES_PERCENT: u64 = 12;

/// Sends in a hundred that speak to a group, once there is one.
const TO_GROUP_PERCENT: u64 = 50;

/// Of these, changes.
const CHANGES_PERCENT: u64 = 35;

/// Of these, questions who is in it.
const QUESTIONS_PERCENT: u64 = 5;

/// How long somebody is muted at most, in ms.
const MUTE_MS_MAX: u64 = 90_000;

impl World {
    /// Whether this send is about a group, and was sent.
    pub(super) fn send_to_group(&mut self, install: usize) -> bool {
        if self.groups_made < self.draw.groups && self.work.percent(MAKES_PERCENT) {
            self.groups_made += 1;
            let change = self.new_group(self.installs[install].device.uin);
            self.send_change(install, None, &change);
            return true;
        }
        let groups = &self.groups;
        let Some(group) = self.work.pick(groups) else { return false };
        if !self.work.percent(TO_GROUP_PERCENT) {
            return false;
        }
        if self.work.percent(QUESTIONS_PERCENT) {
            self.ask_group(install, group);
        } else if self.work.percent(CHANGES_PERCENT) {
            let change = self.wish();
            self.send_change(install, Some(group), &change);
        } else {
            self.send_text(install, group, Due::ByRules);
        }
        true
    }

    /// An application asks who is in a group.
    pub(super) fn ask_group(&mut self, install: usize, channel: ChannelId) {
        self.oracle.group_asked(install as u32, channel);
        self.device_input(install, Input::GroupInfo { channel, after: Uin(0) });
    }

    fn send_change(&mut self, install: usize, channel: Option<ChannelId>, change: &GroupChange) {
        let content = change.encode().expect("a wish is one that a server takes");
        let label = self.installs[install].next_label();
        self.installs[install].posted.insert(label, Due::ByRules);
        let tag = label.to_tag();
        self.trace.note(
            self.now,
            &[19, install as u64, tag],
            &content,
            format_args!("install {install} asks {label} of {channel:?}: {change:?}"),
        );
        self.device_input(install, Input::Change { channel, content, tag });
    }

    fn new_group(&mut self, own: Uin) -> GroupChange {
        let users = (1..=self.draw.users).map(Uin).filter(|uin| *uin != own);
        let members = users.filter(|_| self.work.percent(50)).collect();
        // Somebody has to begin the talk.
        let settings = GroupSettings { admins_post: false, ..self.settings() };
        GroupChange::Create { name: "terns".to_owned(), settings, members }
    }

    fn settings(&mut self) -> GroupSettings {
        let mut bit = || self.work.percent(50);
        GroupSettings {
            history_all: bit(),
            members_add: bit(),
            admins_post: bit() && bit(),
            open: bit(),
        }
    }

    /// Any change.
    fn wish(&mut self) -> GroupChange {
        let uin = Uin(self.work.between(1, self.draw.users));
        let everybody = || (1..=self.draw.users).map(Uin).collect();
        match self.work.below(24) {
            0..5 => GroupChange::Add(vec![uin]),
            5 => GroupChange::Add(vec![uin, NOBODY]),
            6..8 => GroupChange::Add(everybody()),
            8..11 => GroupChange::Kick(vec![uin]),
            11..13 => GroupChange::Leave,
            13..15 => GroupChange::Join,
            15..17 => GroupChange::Role { members: vec![uin], role: Role::Admin },
            17 => {
                let roles = [Role::Member, Role::Admin, Role::Owner];
                let role = self.work.pick(&roles).unwrap_or(Role::Member);
                GroupChange::Role { members: vec![uin], role }
            }
            18..20 => GroupChange::Mute { members: vec![uin], until: self.mute_until() },
            20 => GroupChange::Rename(format!("terns {}", self.work.below(9))),
            21 if self.work.percent(25) => GroupChange::Dissolve,
            _ => GroupChange::Settings(self.settings()),
        }
    }

    fn mute_until(&mut self) -> UnixMillis {
        let far = self.work.between(0, MUTE_MS_MAX) as i64; // fits: minutes
        let wall = WALL_AT_START + self.now as i64 + self.wall_offset + far;
        UnixMillis(if self.work.percent(25) { 0 } else { wall.max(0).unsigned_abs() })
    }

    /// A client stores a send: from its key on, its group has an id.
    pub(super) fn send_stored(&mut self, install: usize, send: &SavedSend) {
        let time = self.wall_of_asked();
        self.oracle.send_stored(self.installs[install].device, send, time);
        let is_change = send.kind == message_kind::CHANGE && send.key.is_some();
        let makes = |change: ChangeView<'_>| change.head.action == action::CREATE;
        if is_change
            && ChangeView::parse(&send.content).is_some_and(makes)
            && !self.groups.contains(&send.channel)
        {
            self.groups.push(send.channel);
        }
    }

    /// The server's clock at this moment, in ms since 1970; 0 if it leaps in this seed.
    pub(super) fn wall_of_asked(&self) -> u64 {
        let leaps = self.draw.faults.contains(&Fault::WallJump);
        if leaps { 0 } else { WALL_AT_START as u64 + self.now }
    }

    /// What keeps the living devices from knowing who is in their groups; they ask for it.
    pub(super) fn missing_of_groups(&mut self) -> Option<String> {
        let installs: Vec<usize> = self.core().collect();
        let groups = self.oracle.truth.groups();
        let groups: Vec<(ChannelId, Vec<u64>)> = groups
            .map(|(channel, group)| (channel, group.members.keys().copied().collect()))
            .collect();
        let mut missing = None;
        for install in installs {
            let uin = self.installs[install].device.uin.0;
            for (channel, members) in &groups {
                let number = install as u32;
                if !members.contains(&uin) || self.oracle.knows_group(number, *channel) {
                    continue;
                }
                if !self.oracle.asks_group(number, *channel) {
                    self.ask_group(install, *channel);
                }
                missing = Some(format!("install {install} does not know who is in {channel}"));
            }
        }
        missing
    }
}
