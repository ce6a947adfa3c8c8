//! Bodies of the records that are not messages.

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use tern_protocol::ChannelId;

use crate::progress::Progress;

/// Body of [`crate::log::RecordKind::Epoch`], in the log of the uin's home shard.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct EpochBody {
    /// Whose.
    pub uin: U64,
    /// Which device.
    pub device: U32,
    /// The epoch granted.
    pub epoch: U32,
    /// When, in milliseconds since 1970 UTC.
    pub server_time: U64,
}

/// Body of [`crate::log::RecordKind::Entry`], in the log of the uin's home shard.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct EntryBody {
    /// Who entered.
    pub uin: U64,
    /// Which channel.
    pub channel: ChannelId,
    /// When, in milliseconds since 1970 UTC.
    pub server_time: U64,
}

/// Body of [`crate::log::RecordKind::Block`], in the log of the shard of the two users' direct
/// channel.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct BlockBody {
    /// Who blocks.
    pub blocker: U64,
    /// Whom.
    pub blocked: U64,
    /// When, in milliseconds since 1970 UTC.
    pub server_time: U64,
    /// See [`tern_protocol::frames::block`].
    pub action: U32,
    /// Zero.
    pub reserved: U32,
}

/// The fixed part of the body of [`crate::log::RecordKind::Read`], in the log of the uin's home
/// shard; [`MarkEntry`]s follow to the end.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct MarksHead {
    /// Whose.
    pub uin: U64,
}

/// How far a user has got in a channel.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct MarkEntry {
    /// The channel.
    pub channel: ChannelId,
    /// Some device has consumed everything up to this id.
    pub delivered: U64,
    /// The user has read everything up to this id.
    pub read: U64,
    /// Of that, what others may know.
    pub shown: U64,
    /// The incarnation that the ids belong to.
    pub incarnation: U32,
    /// Zero.
    pub reserved: U32,
}

const _: () = assert!(size_of::<BlockBody>() == 32);

impl MarkEntry {
    /// As it is written down.
    pub fn new(channel: ChannelId, progress: Progress) -> Self {
        Self {
            channel,
            delivered: progress.delivered.into(),
            read: progress.read.into(),
            shown: progress.shown.into(),
            incarnation: progress.incarnation.into(),
            reserved: U32::ZERO,
        }
    }
}

impl From<MarkEntry> for Progress {
    fn from(entry: MarkEntry) -> Self {
        Self {
            incarnation: entry.incarnation.into(),
            delivered: entry.delivered.into(),
            read: entry.read.into(),
            shown: entry.shown.into(),
        }
    }
}

const _: () = assert!(size_of::<EpochBody>() == 24 && size_of::<EntryBody>() == 32);
const _: () = assert!(size_of::<MarksHead>() == 8 && size_of::<MarkEntry>() == 48);
