//! Structs of groups: a change of one, and what a member is told of it.

use zerocopy::little_endian::{U16, U32, U64};

use super::wire_struct;
use crate::ids::ChannelId;

/// What a change does, in [`Change::action`].
pub mod action {
    /// Makes the group: name, settings, first members.
    pub const CREATE: u8 = 1;
    /// The users named become members.
    pub const ADD: u8 = 2;
    /// The sender becomes a member of an open group.
    pub const JOIN: u8 = 3;
    /// The sender leaves.
    pub const LEAVE: u8 = 4;
    /// The users named are members no longer.
    pub const KICK: u8 = 5;
    /// The members named get another role.
    pub const ROLE: u8 = 6;
    /// The members named may not post until a time; 0 lets them post again.
    pub const MUTE: u8 = 7;
    /// Another name.
    pub const RENAME: u8 = 8;
    /// Other settings.
    pub const SETTINGS: u8 = 9;
    /// Ends the group: nobody posts there any more.
    pub const DISSOLVE: u8 = 10;
}

/// What a member may do, in [`Change::role`] and [`GroupMember::role`]; more with each number.
pub mod role {
    /// Posts, and adds others where the settings allow it.
    pub const MEMBER: u8 = 1;
    /// Adds, kicks and mutes members, renames the group.
    pub const ADMIN: u8 = 2;
    /// Everything. Each group has one, until it is dissolved.
    pub const OWNER: u8 = 3;
}

/// Bits of [`Change::settings`] and [`GroupPage::settings`].
pub mod settings {
    /// Newcomers may read all there is; otherwise what comes after they joined.
    pub const HISTORY_ALL: u8 = 1;
    /// Every member may add others; otherwise admins and the owner.
    pub const MEMBERS_ADD: u8 = 1 << 1;
    /// Only admins and the owner may post; otherwise every member.
    pub const ADMINS_POST: u8 = 1 << 2;
    /// Whoever knows the group's id may join.
    pub const OPEN: u8 = 1 << 3;
    /// Every bit that this version knows.
    pub const KNOWN: u8 = HISTORY_ALL | MEMBERS_ADD | ADMINS_POST | OPEN;
}

wire_struct!(
    /// The fixed part of a change: the content of a message of kind CHANGE. The users that it
    /// names follow, 8 bytes each, then the group's name.
    Change, 16 {
        /// See [`action`].
        @0 action: u8,
        /// The new [`role`] for ROLE; else 0.
        @1 role: u8,
        /// See [`settings`]; for CREATE and SETTINGS, else 0.
        @2 settings: u8,
        /// Zero.
        @3 reserved: u8,
        /// How many uins follow, in ascending order, each once.
        @4 members: U16,
        /// Bytes of the name that follows them; for CREATE and RENAME, else 0.
        @6 name_bytes: U16,
        /// For MUTE: until when, in milliseconds since 1970 UTC; 0 ends it. Else 0.
        @8 until: U64,
    }
);

wire_struct!(
    /// GROUP_INFO: asks for what a group is and for a page of its members.
    GroupInfo, 24 {
        /// The group.
        @0 channel: ChannelId,
        /// The page begins with the first member above this uin; 0 for the first page.
        @16 after: U64,
    }
);

wire_struct!(
    /// The fixed part of GROUP_PAGE. The group's name follows, then [`GroupMember`]s to the end,
    /// in the order of their uins. The flag LAST stands with the last page.
    GroupPage, 40 {
        /// The group.
        @0 channel: ChannelId,
        /// That of the GROUP_INFO.
        @16 after: U64,
        /// Id of the newest change of the group. All pages of a list that say the same are one
        /// state.
        @24 version: U64,
        /// How many members there are.
        @32 members: U32,
        /// See [`settings`].
        @36 settings: u8,
        /// Zero; ignored.
        @37 reserved: u8,
        /// Bytes of the name.
        @38 name_bytes: U16,
    }
);

wire_struct!(
    /// A member in GROUP_PAGE.
    GroupMember, 24 {
        /// Who.
        @0 uin: U64,
        /// May not post until then, in milliseconds since 1970 UTC; 0 if never muted.
        @8 muted_until: U64,
        /// See [`role`].
        @16 role: u8,
        /// Zero; ignored.
        @17 reserved: [u8; 7],
    }
);
