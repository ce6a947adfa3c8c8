//! Groups as an application speaks of them: a change to ask for or one that came, and what a
//! group is. SPEC.md §13 says what each change does and who may ask for it.

use std::fmt;

use bytes::Bytes;
use tern_protocol::frames::{self, GroupPage as PageHead, action, role, settings};
use tern_protocol::group::{ChangeView, page_parts};
use tern_protocol::limits::{CHANGE_MEMBERS_MAX, GROUP_NAME_BYTES_MAX};
use tern_protocol::{ChannelId, MessageId, Uin, UnixMillis};
use zerocopy::little_endian::U64;

/// A change of a group.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum GroupChange {
    /// Makes a group; who asks for it is its owner.
    Create {
        /// What people call it.
        name: String,
        /// What its members may do.
        settings: GroupSettings,
        /// Members from the start, without the owner.
        members: Vec<Uin>,
    },
    /// These users become members.
    Add(Vec<Uin>),
    /// The sender becomes a member of an open group.
    Join,
    /// The sender leaves.
    Leave,
    /// These users are members no longer.
    Kick(Vec<Uin>),
    /// These members get another role; [`Role::Owner`] hands the group over to one.
    Role {
        /// Who.
        members: Vec<Uin>,
        /// Which.
        role: Role,
    },
    /// These members may not post until a time; 0 lets them post again.
    Mute {
        /// Who.
        members: Vec<Uin>,
        /// Until when.
        until: UnixMillis,
    },
    /// Another name.
    Rename(String),
    /// Other settings; all of them are set anew.
    Settings(GroupSettings),
    /// Ends the group.
    Dissolve,
}

/// What a member may do; more with each.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Role {
    /// Posts, and adds others where the settings allow it.
    Member,
    /// Adds, kicks and mutes members, renames the group.
    Admin,
    /// Everything; each group has one.
    Owner,
}

/// What a group lets its members do.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct GroupSettings {
    /// Newcomers may read all there is; otherwise what comes after they joined.
    pub history_all: bool,
    /// Every member may add others; otherwise admins and the owner.
    pub members_add: bool,
    /// Only admins and the owner may post; otherwise every member.
    pub admins_post: bool,
    /// Whoever knows the group's id may join.
    pub open: bool,
}

/// A page of what a group is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GroupPage {
    /// The group.
    pub channel: ChannelId,
    /// Id of its newest change: pages that say the same are of one state.
    pub version: MessageId,
    /// What people call it.
    pub name: String,
    /// What its members may do.
    pub settings: GroupSettings,
    /// How many members there are, on all pages.
    pub count: u32,
    /// Members in the order of their uins, from where the page begins.
    pub members: Vec<GroupMember>,
    /// Whether no page follows.
    pub is_last: bool,
}

/// A member of a group.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GroupMember {
    /// Who.
    pub uin: Uin,
    /// What the member may do.
    pub role: Role,
    /// May not post until then; 0 if never muted.
    pub muted_until: UnixMillis,
}

/// A change that no server would take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InvalidChange;

impl fmt::Display for InvalidChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "a change names 1 to {CHANGE_MEMBERS_MAX} users, and a group's name has 1 to \
             {GROUP_NAME_BYTES_MAX} bytes; change a group in several steps"
        )
    }
}

impl std::error::Error for InvalidChange {}

impl GroupChange {
    /// The content of the message that asks for this change.
    ///
    /// # Errors
    /// When it names too many users or none, or the name is too long or empty.
    pub fn encode(&self) -> Result<Bytes, InvalidChange> {
        let (action, role, settings, until) = self.numbers();
        let members = wire_members(self.members());
        let name = self.name().as_bytes();
        let head = frames::Change {
            action,
            role,
            settings,
            reserved: 0,
            members: u16::try_from(members.len()).map_err(|_| InvalidChange)?.into(),
            name_bytes: u16::try_from(name.len()).map_err(|_| InvalidChange)?.into(),
            until: until.into(),
        };
        let view = ChangeView { head: &head, members: &members, name };
        if !view.is_valid() {
            return Err(InvalidChange);
        }
        let mut content = vec![0; size_of_val(&head) + size_of_val(&*members) + name.len()];
        view.encode(&mut content);
        Ok(content.into())
    }

    fn numbers(&self) -> (u8, u8, u8, u64) {
        match self {
            Self::Create { settings, .. } => (action::CREATE, 0, settings.to_wire(), 0),
            Self::Add(_) => (action::ADD, 0, 0, 0),
            Self::Join => (action::JOIN, 0, 0, 0),
            Self::Leave => (action::LEAVE, 0, 0, 0),
            Self::Kick(_) => (action::KICK, 0, 0, 0),
            Self::Role { role, .. } => (action::ROLE, role.to_wire(), 0, 0),
            Self::Mute { until, .. } => (action::MUTE, 0, 0, until.0),
            Self::Rename(_) => (action::RENAME, 0, 0, 0),
            Self::Settings(settings) => (action::SETTINGS, 0, settings.to_wire(), 0),
            Self::Dissolve => (action::DISSOLVE, 0, 0, 0),
        }
    }

    /// The users that the change names.
    pub fn members(&self) -> &[Uin] {
        match self {
            Self::Create { members, .. }
            | Self::Add(members)
            | Self::Kick(members)
            | Self::Role { members, .. }
            | Self::Mute { members, .. } => members,
            Self::Join | Self::Leave | Self::Rename(_) | Self::Settings(_) | Self::Dissolve => &[],
        }
    }

    fn name(&self) -> &str {
        match self {
            Self::Create { name, .. } | Self::Rename(name) => name,
            _ => "",
        }
    }

    /// The change that stands in a message's content; `None` if there is none that this version
    /// knows.
    pub fn decode(content: &[u8]) -> Option<Self> {
        let view = ChangeView::parse(content).filter(ChangeView::is_valid)?;
        let name = || String::from_utf8_lossy(view.name).into_owned();
        let members = || view.uins().collect();
        let settings = GroupSettings::from_wire(view.head.settings);
        Some(match view.head.action {
            action::CREATE => Self::Create { name: name(), settings, members: members() },
            action::ADD => Self::Add(members()),
            action::JOIN => Self::Join,
            action::LEAVE => Self::Leave,
            action::KICK => Self::Kick(members()),
            action::ROLE => {
                Self::Role { members: members(), role: Role::from_wire(view.head.role)? }
            }
            action::MUTE => Self::Mute { members: members(), until: view.head.until.into() },
            action::RENAME => Self::Rename(name()),
            action::SETTINGS => Self::Settings(settings),
            action::DISSOLVE => Self::Dissolve,
            _ => return None,
        })
    }
}

/// In ascending order, each once, as the wire wants them.
fn wire_members(members: &[Uin]) -> Vec<U64> {
    let mut members: Vec<u64> = members.iter().map(|uin| uin.0).collect();
    members.sort_unstable();
    members.dedup();
    members.into_iter().map(U64::new).collect()
}

impl Role {
    fn to_wire(self) -> u8 {
        match self {
            Self::Member => role::MEMBER,
            Self::Admin => role::ADMIN,
            Self::Owner => role::OWNER,
        }
    }

    fn from_wire(wire: u8) -> Option<Self> {
        [Self::Member, Self::Admin, Self::Owner].into_iter().find(|role| role.to_wire() == wire)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Member => "member",
            Self::Admin => "admin",
            Self::Owner => "owner",
        })
    }
}

impl GroupSettings {
    fn to_wire(self) -> u8 {
        let bit = |is_set, bit| if is_set { bit } else { 0 };
        bit(self.history_all, settings::HISTORY_ALL)
            | bit(self.members_add, settings::MEMBERS_ADD)
            | bit(self.admins_post, settings::ADMINS_POST)
            | bit(self.open, settings::OPEN)
    }

    /// Bits that this version does not know are left out.
    fn from_wire(wire: u8) -> Self {
        Self {
            history_all: wire & settings::HISTORY_ALL != 0,
            members_add: wire & settings::MEMBERS_ADD != 0,
            admins_post: wire & settings::ADMINS_POST != 0,
            open: wire & settings::OPEN != 0,
        }
    }
}

impl GroupPage {
    /// Reads GROUP_PAGE; `None` if its parts do not fit, or a role is unknown.
    pub(crate) fn read(head: &PageHead, rest: &[u8], is_last: bool) -> Option<Self> {
        let (name, members) = page_parts(head, rest)?;
        let member = |member: &frames::GroupMember| {
            let (uin, muted_until) = (member.uin.into(), member.muted_until.into());
            Some(GroupMember { uin, role: Role::from_wire(member.role)?, muted_until })
        };
        Some(Self {
            channel: head.channel,
            version: head.version.into(),
            name: String::from_utf8_lossy(name).into_owned(),
            settings: GroupSettings::from_wire(head.settings),
            count: head.members.get(),
            members: members.iter().map(member).collect::<Option<_>>()?,
            is_last,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_read_as_it_was_written() {
        let (two, some) =
            (vec![Uin(3), Uin(9)], GroupSettings { open: true, ..Default::default() });
        let changes = [
            GroupChange::Create { name: "crew".into(), settings: some, members: Vec::new() },
            GroupChange::Create { name: "é".into(), settings: some, members: two.clone() },
            GroupChange::Add(two.clone()),
            GroupChange::Join,
            GroupChange::Leave,
            GroupChange::Kick(two.clone()),
            GroupChange::Role { members: two.clone(), role: Role::Admin },
            GroupChange::Role { members: vec![Uin(3)], role: Role::Owner },
            GroupChange::Mute { members: two, until: UnixMillis(77) },
            GroupChange::Rename("deck".into()),
            GroupChange::Settings(some),
            GroupChange::Dissolve,
        ];
        for change in changes {
            let content = change.encode().unwrap();
            assert_eq!(GroupChange::decode(&content), Some(change));
        }
    }

    #[test]
    fn users_are_put_in_order_and_named_once() {
        let content = GroupChange::Add(vec![Uin(9), Uin(3), Uin(9)]).encode().unwrap();
        assert_eq!(GroupChange::decode(&content), Some(GroupChange::Add(vec![Uin(3), Uin(9)])));
    }

    #[test]
    fn what_no_server_takes_is_not_written() {
        let many = (1..=CHANGE_MEMBERS_MAX as u64 + 1).map(Uin).collect();
        let two = vec![Uin(1), Uin(2)];
        for change in [
            GroupChange::Add(many),
            GroupChange::Add(Vec::new()),
            GroupChange::Kick(vec![Uin(0)]),
            GroupChange::Role { members: two, role: Role::Owner },
            GroupChange::Rename(String::new()),
            GroupChange::Rename("x".repeat(GROUP_NAME_BYTES_MAX + 1)),
        ] {
            assert_eq!(change.encode(), Err(InvalidChange), "{change:?}");
        }
    }
}
