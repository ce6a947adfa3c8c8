//! The rules of groups (`protocol/SPEC.md` §13) as plainly as can be: what the messages of a
//! channel make of a group, one after the other, who may ask for what, and who may read what.
//!
//! Comes in: the messages of one channel in their order; or something that is only asked for.
//! Goes out: whether the rules allow it, and if not what must be answered; the members; and the
//! ranges of ids that each user was ever shown. Written by the specification and not by `core`,
//! which is judged by it: it keeps everything, looks at everybody, and knows no home shards.
#![forbid(unsafe_code)]

mod rules;

pub use rules::{Asked, Refusal, Rest};

use std::collections::{BTreeMap, BTreeSet};

use tern_protocol::frames::{action, message_kind, role, settings};
use tern_protocol::group::ChangeView;

/// A message of a group's channel, or what is asked to become one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Said<'a> {
    /// Who sends it.
    pub sender: u64,
    /// See [`message_kind`].
    pub kind: u8,
    /// When, by the server's clock, in ms since 1970.
    pub time: u64,
    /// A text, or a change.
    pub content: &'a [u8],
}

/// A group after some messages.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Group {
    /// What people call it.
    pub name: Vec<u8>,
    /// See [`settings`].
    pub settings: u8,
    /// Role by member.
    pub members: BTreeMap<u64, u8>,
    /// Until when who may not post; also of who left.
    pub muted: BTreeMap<u64, u64>,
    /// The newest change.
    pub version: u64,
    /// The newest message.
    pub newest: u64,
    /// Who was a member when it was dissolved, if it was.
    dissolved: Option<BTreeSet<u64>>,
    /// All ranges that a user was ever shown, in their order; the last may be open.
    ranges: BTreeMap<u64, Vec<Range>>,
}

/// First id, and last unless it is open.
pub type Range = (u64, Option<u64>);

impl Group {
    /// The group that these messages make.
    ///
    /// # Errors
    /// The first that the rules do not allow, and why not.
    pub fn replay<'a>(log: impl IntoIterator<Item = Said<'a>>) -> Result<Self, String> {
        let mut group = Self::default();
        log.into_iter().try_for_each(|said| group.take(said))?;
        Ok(group)
    }

    /// The next message.
    ///
    /// # Errors
    /// When the rules do not allow it; says why not.
    pub fn take(&mut self, said: Said<'_>) -> Result<(), String> {
        let refused = self.refusal(Asked { said, rest: Rest::default() });
        self.newest += 1;
        let id = self.newest;
        if let Some(Refusal { code, member }) = refused {
            let sender = said.sender;
            return Err(format!("#{id} of {sender} stands, and deserved {code} for {member}"));
        }
        if said.kind == message_kind::CHANGE {
            let change = ChangeView::parse(said.content).ok_or("no change, and it was allowed")?;
            self.change(said.sender, &change);
            self.version = id;
        }
        Ok(())
    }

    fn change(&mut self, sender: u64, change: &ChangeView<'_>) {
        let uins = change.uins().map(|uin| uin.0);
        match change.head.action {
            action::CREATE => {
                (self.settings, self.name) = (change.head.settings, change.name.to_vec());
                self.enter(sender);
                self.members.insert(sender, role::OWNER);
                uins.for_each(|uin| self.enter(uin));
            }
            action::ADD => uins.for_each(|uin| self.enter(uin)),
            action::JOIN => self.enter(sender),
            action::LEAVE => self.leave(sender),
            action::KICK => uins.for_each(|uin| self.leave(uin)),
            action::ROLE => {
                if change.head.role == role::OWNER {
                    self.members.insert(sender, role::ADMIN);
                }
                self.members.extend(uins.map(|uin| (uin, change.head.role)));
            }
            action::MUTE => self.muted.extend(uins.map(|uin| (uin, change.head.until.get()))),
            action::RENAME => self.name = change.name.to_vec(),
            action::SETTINGS => self.settings = change.head.settings,
            _ => self.dissolve(), // what is no action is not allowed
        }
    }

    fn enter(&mut self, uin: u64) {
        if self.members.contains_key(&uin) {
            return;
        }
        self.members.insert(uin, role::MEMBER);
        let from = if self.has(settings::HISTORY_ALL) { 1 } else { self.newest };
        self.ranges.entry(uin).or_default().push((from, None));
    }

    fn leave(&mut self, uin: u64) {
        let range = self.ranges.get_mut(&uin).and_then(|ranges| ranges.last_mut());
        if let (Some(_), Some(range)) = (self.members.remove(&uin), range) {
            range.1 = Some(self.newest);
        }
    }

    fn dissolve(&mut self) {
        let members: BTreeSet<u64> = self.members.keys().copied().collect();
        members.iter().for_each(|uin| self.leave(*uin));
        self.dissolved = Some(members);
    }

    fn has(&self, setting: u8) -> bool {
        self.settings & setting != 0
    }

    /// Everybody who was ever a member.
    pub fn users(&self) -> impl Iterator<Item = u64> + '_ {
        self.ranges.keys().copied()
    }

    /// All ranges that a user was ever shown, in their order.
    pub fn ranges(&self, uin: u64) -> &[Range] {
        self.ranges.get(&uin).map(Vec::as_slice).unwrap_or_default()
    }

    /// Whether a member may take back what this user wrote: as an admin or the owner, of a role
    /// above his. Who left is below all.
    pub fn stands_above(&self, member: u64, author: u64) -> bool {
        let role = self.members.get(&member).copied();
        role.is_some_and(|role| role >= role::ADMIN) && role > self.members.get(&author).copied()
    }

    /// Whether a user was ever shown this message.
    pub fn was_shown(&self, uin: u64, id: u64) -> bool {
        self.ranges(uin).iter().any(|range| covers(range, id))
    }

    /// Whether a user was shown this message whenever there was something to show.
    pub fn was_always_shown(&self, uin: u64, id: u64) -> bool {
        let ranges = self.ranges(uin);
        !ranges.is_empty() && ranges.iter().all(|range| covers(range, id))
    }

    /// What a user may read now: first id and last.
    pub fn range(&self, uin: u64) -> Option<(u64, u64)> {
        let (from, until) = *self.ranges(uin).last()?;
        Some((from, until.unwrap_or(self.newest)))
    }
}

fn covers((from, until): &Range, id: u64) -> bool {
    *from <= id && until.is_none_or(|until| id <= until)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tern_protocol::Code;
    use tern_protocol::frames::Change;
    use zerocopy::little_endian::U64;

    fn content(action: u8, settings: u8, uins: &[u64]) -> Vec<u8> {
        let members: Vec<U64> = uins.iter().map(|uin| U64::new(*uin)).collect();
        let name: &[u8] = if action == action::CREATE { b"terns" } else { b"" };
        let head = Change {
            action,
            role: 0,
            settings,
            reserved: 0,
            members: (members.len() as u16).into(),
            name_bytes: (name.len() as u16).into(),
            until: 0.into(),
        };
        let mut content = vec![0; 200];
        let bytes = ChangeView { head: &head, members: &members, name }.encode(&mut content);
        content.truncate(bytes);
        content
    }

    fn change(sender: u64, content: &[u8]) -> Said<'_> {
        Said { sender, kind: message_kind::CHANGE, time: 0, content }
    }

    fn text(sender: u64) -> Said<'static> {
        Said { sender, kind: message_kind::CONTENT, time: 0, content: b"hi" }
    }

    #[test]
    fn who_was_thrown_out_sees_the_end_of_it_and_no_more() {
        let (create, kick) = (content(action::CREATE, 0, &[2]), content(action::KICK, 0, &[2]));
        let add = content(action::ADD, 0, &[2]);
        let log = [change(1, &create), text(2), change(1, &kick), text(1), change(1, &add)];
        let group = Group::replay(log).unwrap();
        assert_eq!(group.ranges(2), [(1, Some(3)), (5, None)]);
        assert!(group.was_shown(2, 3) && !group.was_shown(2, 4));
        assert!(group.was_always_shown(1, 4) && !group.was_always_shown(2, 2));
        assert_eq!((group.range(2), group.range(3)), (Some((5, 5)), None));
    }

    #[test]
    fn a_recall_needs_no_right_to_post_and_a_higher_role() {
        let create = content(action::CREATE, settings::ADMINS_POST, &[2, 3]);
        let group = Group::replay([change(1, &create)]).unwrap();
        let recall = Said { kind: message_kind::RECALL, content: b"", ..text(2) };
        assert_eq!(group.refusal(Asked { said: recall, rest: Rest::default() }), None);
        let stranger = Said { sender: 4, ..recall };
        assert!(group.refusal(Asked { said: stranger, rest: Rest::default() }).is_some());
        assert!(group.stands_above(1, 2) && group.stands_above(1, 4));
        assert!(!group.stands_above(2, 3) && !group.stands_above(2, 4));
    }

    #[test]
    fn what_the_rules_forbid_is_named() {
        let (create, kick) = (content(action::CREATE, 0, &[2]), content(action::KICK, 0, &[1]));
        assert!(Group::replay([text(1)]).is_err(), "of no group");
        let log = [change(1, &create), text(3)];
        assert!(Group::replay(log).unwrap_err().contains("NOT_A_MEMBER"));
        let mut group = Group::replay([change(1, &create)]).unwrap();
        let asked = Asked { said: change(2, &kick), rest: Rest::default() };
        assert_eq!(group.refusal(asked), Some(Refusal { code: Code::NotAllowed, member: 0 }));
        assert!(group.take(change(2, &kick)).is_err());
    }
}
