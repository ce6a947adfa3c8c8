//! A shard's state as rows: what a checkpoint holds in place of the records before it.
//!
//! Rows come in the order of their kinds, within a kind in the order of their keys; each key
//! stands there once. Restoring them gives the same shard as replaying the records did.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use tern_protocol::ChannelId;

use super::records::MarkEntry;
use crate::log::{Links, Offset};

/// What a row is about.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub enum StateKind {
    /// A channel's counter and way back: [`ChannelRow`] and its spine.
    Channel = 0x41,
    /// A uin is in a channel: [`EntryRow`].
    Entry = 0x42,
    /// A device's epoch: [`DeviceRow`].
    Device = 0x43,
    /// A device's send window in this shard: [`WindowRow`].
    Window = 0x44,
    /// A lost message: [`TombstoneRow`].
    Tombstone = 0x45,
    /// A group's name and settings: [`GroupRow`] and the name.
    Group = 0x46,
    /// Who is in a group, or was: [`MemberRow`].
    Member = 0x47,
    /// Messages of a channel that were recalled: [`RecallRow`].
    Recall = 0x48,
    /// A user has blocked another: [`BlockRow`].
    Block = 0x49,
    /// How far a user has got in a channel: [`MarkRow`].
    Read = 0x4a,
}

impl StateKind {
    /// From the number on disk.
    pub fn from_disk(number: u8) -> Option<Self> {
        match number {
            0x41 => Some(Self::Channel),
            0x42 => Some(Self::Entry),
            0x43 => Some(Self::Device),
            0x44 => Some(Self::Window),
            0x45 => Some(Self::Tombstone),
            0x46 => Some(Self::Group),
            0x47 => Some(Self::Member),
            0x48 => Some(Self::Recall),
            0x49 => Some(Self::Block),
            0x4a => Some(Self::Read),
            _ => None,
        }
    }
}

/// A channel. Behind it `links` offsets of 8 bytes: the messages `newest`, `newest` with its
/// lowest set bit cleared, and so on, oldest in front. Key: the channel.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct ChannelRow {
    /// Which.
    pub channel: ChannelId,
    /// The newest id.
    pub newest: U64,
    /// The oldest id within retention; `newest + 1` if there is none.
    pub oldest: U64,
    /// The first id of the newest incarnation, or all ones.
    pub restarted_at: U64,
    /// Offsets that follow.
    pub links: U32,
    /// When the newest message that was not lost came, in s since 1970 UTC.
    pub newest_s: U32,
}

/// A uin has entered a channel. Key: both, the uin first.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct EntryRow {
    /// Who.
    pub uin: U64,
    /// Which channel.
    pub channel: ChannelId,
}

/// A device and its newest epoch. Key: uin and device.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct DeviceRow {
    /// Whose.
    pub uin: U64,
    /// Which device.
    pub device: U32,
    /// The newest epoch granted.
    pub epoch: U32,
    /// The newest logins in ms since 1970 UTC, newest first; 0 where there were fewer.
    pub logins: [U64; 4],
}

/// What a device has sent into this shard. Key: uin and device.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct WindowRow {
    /// Whose.
    pub uin: U64,
    /// Which device.
    pub device: U32,
    /// Epoch of the newest key.
    pub epoch: U32,
    /// Newest counter of that epoch.
    pub newest: U32,
    /// 1 if a message that the device sent under this epoch, or before, is lost: any key of the
    /// epoch may have been used. Else 0.
    pub torn: U32,
    /// Bit i: the counter `newest - i` was appended.
    pub window: U64,
    /// Offset of the device's newest message in this shard.
    pub last: U64,
}

/// A place in the log whose message is lost, and what is known of its links; or a range of which
/// nothing is known. Key: the place, then the state.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct TombstoneRow {
    /// Where.
    pub at: U64,
    /// Where the next record can begin; 0 for a place within a range.
    pub end: U64,
    /// The previous message of the same channel, or the newest one before it that can be read;
    /// or 0.
    pub channel: U64,
    /// The previous message of the same device, or 0.
    pub device: U64,
    /// The skip link, or 0.
    pub skip: U64,
    /// The bits of [`tombstone`].
    pub state: U32,
    /// Zero.
    pub reserved: U32,
}

/// Bits of [`TombstoneRow::state`].
pub mod tombstone {
    /// The links are those of the record's own header, which is whole.
    pub const WHOLE: u32 = 1;
    /// Its channel is known, and the channel's counter counts it.
    pub const EXPLAINED: u32 = 1 << 1;
    /// A later message of the same device is known.
    pub const FOLLOWED: u32 = 1 << 2;
    /// Not one place: nothing is known of any record between `at` and `end`.
    pub const RANGE: u32 = 1 << 3;
    /// All of them.
    pub const ALL: u32 = WHOLE | EXPLAINED | FOLLOWED | RANGE;
}

impl TombstoneRow {
    /// What a reader that comes to this place is told of its links.
    pub fn links(&self) -> Links {
        let offset = |at: U64| Offset(at.get());
        Links {
            channel: offset(self.channel),
            device: offset(self.device),
            skip: offset(self.skip),
        }
    }
}

/// A group. Behind it `name_bytes` bytes: its name. Key: the channel.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct GroupRow {
    /// Which.
    pub channel: ChannelId,
    /// Id of its newest change.
    pub version: U64,
    /// The bits of [`tern_protocol::frames::settings`].
    pub settings: u8,
    /// 1 if it was dissolved, else 0.
    pub dissolved: u8,
    /// Bytes of the name that follows.
    pub name_bytes: U16,
    /// Zero.
    pub reserved: U32,
}

/// A member of a group, or somebody who was one. Key: both, the channel first.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct MemberRow {
    /// Which group.
    pub channel: ChannelId,
    /// Who.
    pub uin: U64,
    /// First id that the member may read.
    pub from: U64,
    /// Last id: that of the change that ended the membership; all ones if none did.
    pub until: U64,
    /// May not post until then, in ms since 1970 UTC; 0 if never muted.
    pub muted_until: U64,
    /// Id of the newest change after which `from` or `until` was another.
    pub touched: U64,
    /// See [`tern_protocol::frames::role`].
    pub role: U32,
    /// Zero.
    pub reserved: U32,
}

/// Messages of a channel that were recalled. Key: the channel, then the first id.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct RecallRow {
    /// Which channel.
    pub channel: ChannelId,
    /// A multiple of 64.
    pub first: U64,
    /// Bit i: the message `first + i` was recalled. Not 0.
    pub bits: U64,
}

/// A user takes no messages from another in their direct channel. Key: both, the blocker first.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct BlockRow {
    /// Who blocks.
    pub blocker: U64,
    /// Whom.
    pub blocked: U64,
}

const _: () = assert!(size_of::<RecallRow>() == 32 && size_of::<BlockRow>() == 16);

/// How far a user at home in this shard has got in a channel. Key: the channel, then the uin.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct MarkRow {
    /// Who.
    pub uin: U64,
    /// Where, and how far.
    pub mark: MarkEntry,
}

const _: () = assert!(size_of::<MarkRow>() == 56);
const _: () = assert!(size_of::<GroupRow>() == 32 && size_of::<MemberRow>() == 64);
const _: () = assert!(size_of::<ChannelRow>() == 48 && size_of::<EntryRow>() == 24);
const _: () = assert!(size_of::<DeviceRow>() == 48 && size_of::<WindowRow>() == 40);
const _: () = assert!(size_of::<TombstoneRow>() == 48);
