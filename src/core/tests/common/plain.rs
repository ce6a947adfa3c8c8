//! A group as plainly as can be: what its log says, message by message, and who may read what.

use std::collections::BTreeMap;

use tern_protocol::frames::{PushBody, action, message_kind, role, settings};
use tern_protocol::group::ChangeView;

/// A record of a channel: sender, kind, time, content.
#[derive(Clone, Debug)]
pub struct Entry {
    pub sender: u64,
    pub kind: u8,
    pub time: u64,
    pub content: Vec<u8>,
}

impl Entry {
    pub fn of(body: &PushBody, content: &[u8]) -> Self {
        Self {
            sender: body.sender.get(),
            kind: body.kind,
            time: body.server_time.get(),
            content: content.to_vec(),
        }
    }
}

/// The state of a group after some messages.
#[derive(Clone, Debug, Default)]
pub struct Plain {
    pub name: Vec<u8>,
    pub settings: u8,
    pub dissolved: bool,
    /// Role by member.
    pub members: BTreeMap<u64, u8>,
    /// Also of who left.
    pub muted: BTreeMap<u64, u64>,
    /// All ranges that a user was ever shown, in their order; the last may be open.
    pub ranges: BTreeMap<u64, Vec<(u64, Option<u64>)>>,
    pub newest: u64,
}

impl Plain {
    /// The group that these messages make.
    pub fn replay(log: &[Entry]) -> Self {
        let mut group = Self::default();
        for entry in log {
            group.newest += 1;
            if entry.kind == message_kind::CHANGE {
                group.change(entry);
            } else {
                group.check_post(entry);
            }
        }
        group
    }

    fn check_post(&self, entry: &Entry) {
        let id = self.newest;
        let role = self.members.get(&entry.sender);
        let role = *role.unwrap_or_else(|| panic!("{id}: {} posts and is no member", entry.sender));
        let quiet = self.settings & settings::ADMINS_POST != 0;
        assert!(!quiet || role >= role::ADMIN, "{id}: only admins post");
        let muted = self.muted.get(&entry.sender).copied().unwrap_or(0);
        assert!(muted <= entry.time, "{id}: {} is muted", entry.sender);
    }

    fn change(&mut self, entry: &Entry) {
        let (id, sender) = (self.newest, entry.sender);
        let view = ChangeView::parse(&entry.content).expect("a change");
        assert!(view.is_valid(), "{id}: a change that makes no sense");
        assert!(!self.dissolved, "{id}: nothing comes behind the end");
        let uins: Vec<u64> = view.uins().map(|uin| uin.0).collect();
        let own = self.members.get(&sender).copied().unwrap_or(0);
        let below = || uins.iter().all(|uin| self.members.get(uin).is_none_or(|r| *r < own));
        let all_in = || uins.iter().all(|uin| self.members.contains_key(uin));
        let open = self.settings & settings::OPEN != 0;
        let adds = self.settings & settings::MEMBERS_ADD != 0;
        let before = self.clone();
        match view.head.action {
            action::CREATE => {
                assert_eq!(id, 1, "a group is made once, first of all");
                (self.settings, self.name) = (view.head.settings, view.name.to_vec());
                self.enter(sender);
                self.members.insert(sender, role::OWNER);
                uins.into_iter().for_each(|uin| self.enter(uin));
            }
            action::ADD => {
                assert!(own >= if adds { role::MEMBER } else { role::ADMIN }, "{id}: adds");
                uins.into_iter().for_each(|uin| self.enter(uin));
            }
            action::JOIN => {
                assert!(open && own == 0, "{id}: joins");
                self.enter(sender);
            }
            action::LEAVE => {
                assert!(own > 0 && own < role::OWNER, "{id}: leaves");
                self.leave(sender);
            }
            action::KICK => {
                assert!(own >= role::ADMIN && below(), "{id}: kicks");
                uins.into_iter().for_each(|uin| self.leave(uin));
            }
            action::ROLE => {
                assert!(own == role::OWNER && all_in() && below(), "{id}: gives a role");
                if view.head.role == role::OWNER {
                    self.members.insert(sender, role::ADMIN);
                }
                for uin in uins {
                    self.members.insert(uin, view.head.role);
                }
            }
            action::MUTE => {
                assert!(own >= role::ADMIN && all_in() && below(), "{id}: mutes");
                let until = view.head.until.get();
                for uin in uins {
                    self.muted.insert(uin, until);
                }
            }
            action::RENAME => {
                assert!(own >= role::ADMIN, "{id}: renames");
                self.name = view.name.to_vec();
            }
            action::SETTINGS => {
                assert_eq!(own, role::OWNER, "{id}: sets");
                self.settings = view.head.settings;
            }
            action::DISSOLVE => {
                assert_eq!(own, role::OWNER, "{id}: dissolves");
                self.dissolve();
            }
            other => panic!("{id}: action {other}"),
        }
        assert!(self.is_changed_from(&before), "{id}: a change of nothing");
    }

    fn is_changed_from(&self, before: &Self) -> bool {
        (&before.name, before.settings, before.dissolved)
            != (&self.name, self.settings, self.dissolved)
            || (&before.members, &before.muted) != (&self.members, &self.muted)
    }

    fn dissolve(&mut self) {
        let members: Vec<u64> = self.members.keys().copied().collect();
        members.into_iter().for_each(|uin| self.leave(uin));
        self.dissolved = true;
    }

    fn enter(&mut self, uin: u64) {
        if self.members.contains_key(&uin) {
            return;
        }
        self.members.insert(uin, role::MEMBER);
        let from = if self.settings & settings::HISTORY_ALL != 0 { 1 } else { self.newest };
        self.ranges.entry(uin).or_default().push((from, None));
    }

    fn leave(&mut self, uin: u64) {
        if self.members.remove(&uin).is_some() {
            let ranges = self.ranges.get_mut(&uin).expect("a member has a range");
            ranges.last_mut().expect("a member has a range").1 = Some(self.newest);
        }
    }

    /// Whether a user was ever shown this message.
    pub fn was_shown(&self, uin: u64, id: u64) -> bool {
        let ranges = self.ranges.get(&uin).map(Vec::as_slice).unwrap_or_default();
        ranges.iter().any(|range| covers(range, id))
    }

    /// Whether a user was always shown this message while there was something to show.
    pub fn was_always_shown(&self, uin: u64, id: u64) -> bool {
        self.ranges[&uin].iter().all(|range| covers(range, id))
    }

    /// What a user may read now.
    pub fn range(&self, uin: u64) -> Option<(u64, u64)> {
        let (from, until) = *self.ranges.get(&uin)?.last()?;
        Some((from, until.unwrap_or(self.newest)))
    }
}

fn covers((from, until): &(u64, Option<u64>), id: u64) -> bool {
    *from <= id && until.is_none_or(|until| id <= until)
}
