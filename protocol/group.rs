//! Groups: the id of a new one, and a change read from a message's content or written as one.

use core::mem::size_of;

use zerocopy::little_endian::U64;
use zerocopy::{FromBytes, IntoBytes};

use crate::digest::mix;
use crate::frames::{Change, GroupMember, GroupPage, action, role, settings};
use crate::ids::{ChannelId, DeviceId, SendKey, Uin};
use crate::limits::{CHANGE_MEMBERS_MAX, GROUP_NAME_BYTES_MAX};

/// The channel of the group that this device creates under this key. Known before it is asked
/// for, and the same however often it is: SPEC.md §13.1.
pub fn channel_of(uin: Uin, device: DeviceId, key: SendKey) -> ChannelId {
    let login = u64::from(device.0) << 32 | u64::from(key.epoch.0);
    let id = mix(mix(mix(uin.0) ^ login) ^ u64::from(key.counter.0));
    ChannelId::group(id.max(1))
}

/// A change, borrowed from the content of a message of kind CHANGE.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ChangeView<'a> {
    /// The fixed part.
    pub head: &'a Change,
    /// The users that it names.
    pub members: &'a [U64],
    /// The name; empty where the action has none.
    pub name: &'a [u8],
}

impl<'a> ChangeView<'a> {
    /// Reads a change whose lengths fit. Whether it makes sense, [`is_valid`](Self::is_valid)
    /// says.
    pub fn parse(content: &'a [u8]) -> Option<Self> {
        let (head, rest) = Change::ref_from_prefix(content).ok()?;
        let count = usize::from(head.members.get());
        let (members, name) = <[U64]>::ref_from_prefix_with_elems(rest, count).ok()?;
        (name.len() == usize::from(head.name_bytes.get())).then_some(Self { head, members, name })
    }

    /// Whether its arguments are those of its action, and no more.
    pub fn is_valid(&self) -> bool {
        let Change { action, role, settings, reserved, until, .. } = *self.head;
        let names = !self.members.is_empty();
        let (has_role, has_until) = (role != 0, until.get() != 0);
        let has_name = !self.name.is_empty();
        let fits = match action {
            action::CREATE => has_name && !has_role && !has_until,
            action::ADD | action::KICK => {
                names && !has_name && !has_role && settings == 0 && !has_until
            }
            action::JOIN | action::LEAVE | action::DISSOLVE => {
                !names && !has_name && !has_role && settings == 0 && !has_until
            }
            action::ROLE => self.is_valid_role() && !has_name && settings == 0 && !has_until,
            action::MUTE => names && !has_name && !has_role && settings == 0,
            action::RENAME => !names && has_name && !has_role && settings == 0 && !has_until,
            action::SETTINGS => !names && !has_name && !has_role && !has_until,
            _ => false,
        };
        fits && reserved == 0 && self.has_valid_lists() && settings & !settings::KNOWN == 0
    }

    fn is_valid_role(&self) -> bool {
        match self.head.role {
            role::MEMBER | role::ADMIN => !self.members.is_empty(),
            role::OWNER => self.members.len() == 1,
            _ => false,
        }
    }

    fn has_valid_lists(&self) -> bool {
        self.members.len() <= CHANGE_MEMBERS_MAX
            && self.members.first().is_none_or(|uin| uin.get() != 0)
            && self.members.windows(2).all(|pair| pair[0].get() < pair[1].get())
            && self.name.len() <= GROUP_NAME_BYTES_MAX
            && core::str::from_utf8(self.name).is_ok()
    }

    /// The users that it names.
    pub fn uins(&self) -> impl Iterator<Item = Uin> + use<'a> {
        self.members.iter().map(|uin| Uin(uin.get()))
    }

    /// Writes the change to the start of `buffer` and returns its length in bytes.
    ///
    /// # Panics
    /// If `buffer` is too short, or the head tells of other lengths.
    pub fn encode(&self, buffer: &mut [u8]) -> usize {
        assert_eq!(usize::from(self.head.members.get()), self.members.len());
        assert_eq!(usize::from(self.head.name_bytes.get()), self.name.len());
        let (head, members) = (self.head.as_bytes(), self.members.as_bytes());
        let (head_end, members_end) = (head.len(), head.len() + members.len());
        let end = members_end + self.name.len();
        buffer[..head_end].copy_from_slice(head);
        buffer[head_end..members_end].copy_from_slice(members);
        buffer[members_end..end].copy_from_slice(self.name);
        end
    }
}

/// What stands behind the fixed part of GROUP_PAGE: the name and the members. `None` if the
/// lengths do not fit.
pub fn page_parts<'a>(head: &GroupPage, rest: &'a [u8]) -> Option<(&'a [u8], &'a [GroupMember])> {
    let (name, members) = rest.split_at_checked(usize::from(head.name_bytes.get()))?;
    Some((name, <[GroupMember]>::ref_from_bytes(members).ok()?))
}

/// Bytes of the longest change.
pub const CHANGE_BYTES_MAX: usize =
    size_of::<Change>() + CHANGE_MEMBERS_MAX * size_of::<U64>() + GROUP_NAME_BYTES_MAX;
