//! Bodies of the records that are not messages.

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use tern_protocol::ChannelId;

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

const _: () = assert!(size_of::<BlockBody>() == 32);
const _: () = assert!(size_of::<EpochBody>() == 24 && size_of::<EntryBody>() == 32);
