//! How a checkpoint stands on disk; FORMAT.md draws it.
//!
//! A page of header, blocks of rows, blocks of the index. A block is valid only in its place in
//! its file: its checksum is seeded with both, as that of a record is.

use std::path::Path;

use tern_core::shard::state::{
    BlockRow, ChannelRow, DeviceRow, EntryRow, GroupRow, MarkRow, MemberRow, RecallRow, StateKind,
    TombstoneRow, WindowRow,
};
use tern_protocol::Incarnation;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::CheckpointError;
use crate::format::Id;

/// First bytes of a checkpoint.
const CHECKPOINT_MAGIC: [u8; 8] = *b"TERNCKP\n";

/// Version of the file; a reader refuses any other.
const CHECKPOINT_VERSION: u32 = 1;

/// Bytes before the first block: one page, so that it is written in one piece.
pub(crate) const PAGE_BYTES: usize = 4096;

/// Bytes that a block has at most: what a look-up reads, and what one bad sector costs the proof
/// of. Several hundred rows.
pub(crate) const BLOCK_BYTES_MAX: usize = 16 * 1024;

/// Kind of a block of the index; [`StateKind`] uses the numbers from 0x41.
pub(crate) const INDEX_KIND: u8 = 0x01;

/// Kinds of rows, in their order in the file.
pub(crate) const KINDS: [StateKind; 10] = [
    StateKind::Channel,
    StateKind::Entry,
    StateKind::Device,
    StateKind::Window,
    StateKind::Tombstone,
    StateKind::Group,
    StateKind::Member,
    StateKind::Recall,
    StateKind::Block,
    StateKind::Read,
];

/// How many of them were there first; the counts of the others stand at the end of the header.
const KINDS_FIRST: usize = 5;

/// Where those counts begin, in bytes.
const LATER_AT: usize = 176;

/// What a checkpoint says of itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CheckpointHeader {
    /// The data folder that it belongs to.
    pub folder: Id,
    /// The shard that it belongs to.
    pub shard: u16,
    /// From 1, growing.
    pub number: u64,
    /// Base of the first segment whose records it does not hold.
    pub at: u64,
    /// Number of that segment.
    pub at_number: u64,
    /// Offset behind the last record that it holds.
    pub end: u64,
    /// Base of the oldest segment whose messages are kept.
    pub start: u64,
    /// Number of that segment.
    pub start_number: u64,
    /// Life of the log at `end`.
    pub incarnation: Incarnation,
    /// What its checksums are seeded with.
    pub salt: Id,
    /// Rows of each kind, in the order of the kinds.
    pub rows: [u64; KINDS.len()],
    /// Bytes of the file.
    pub bytes: u64,
    /// Place of the index.
    pub index: u64,
    /// Confirmed milliseconds when it was made.
    pub confirmed_ms: u64,
    /// Milliseconds since 1970 UTC when it was made; for people.
    pub created_ms: u64,
    /// Checksum of the checksums of all blocks, in order.
    pub digest: u32,
}

#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Page {
    magic: [u8; 8],
    version: U32,
    shard: U16,
    reserved_a: U16,
    folder: Id,
    number: U64,
    at: U64,
    at_number: U64,
    end: U64,
    start: U64,
    start_number: U64,
    salt: Id,
    rows: [U64; KINDS_FIRST],
    bytes: U64,
    index: U64,
    confirmed_ms: U64,
    created_ms: U64,
    incarnation: U32,
    digest: U32,
    /// Rows of the kinds that came later.
    rows_later: [U64; KINDS.len() - KINDS_FIRST],
    reserved_b: [u8; PAGE_BYTES - 4 - LATER_AT - 8 * (KINDS.len() - KINDS_FIRST)],
    /// CRC-32C of the whole page before it.
    crc: U32,
}

const _: () = assert!(size_of::<Page>() == PAGE_BYTES);

impl CheckpointHeader {
    /// The page to write.
    pub(crate) fn encode(&self) -> Box<[u8]> {
        let mut page = Page {
            magic: CHECKPOINT_MAGIC,
            version: U32::new(CHECKPOINT_VERSION),
            shard: U16::new(self.shard),
            reserved_a: U16::ZERO,
            folder: self.folder,
            number: U64::new(self.number),
            at: U64::new(self.at),
            at_number: U64::new(self.at_number),
            end: U64::new(self.end),
            start: U64::new(self.start),
            start_number: U64::new(self.start_number),
            salt: self.salt,
            rows: std::array::from_fn(|kind| U64::new(self.rows[kind])),
            bytes: U64::new(self.bytes),
            index: U64::new(self.index),
            confirmed_ms: U64::new(self.confirmed_ms),
            created_ms: U64::new(self.created_ms),
            incarnation: U32::new(self.incarnation.0),
            digest: U32::new(self.digest),
            rows_later: std::array::from_fn(|kind| U64::new(self.rows[KINDS_FIRST + kind])),
            reserved_b: [0; PAGE_BYTES - 4 - LATER_AT - 8 * (KINDS.len() - KINDS_FIRST)],
            crc: U32::ZERO,
        };
        page.crc = U32::new(crc32c::crc32c(&page.as_bytes()[..PAGE_BYTES - 4]));
        page.as_bytes().into()
    }

    /// Reads a page; `path` is for the error.
    pub(crate) fn decode(path: &Path, bytes: &[u8]) -> Result<Self, CheckpointError> {
        let bad = |why: &str| CheckpointError::bad(path, why);
        let (page, _) = Page::ref_from_prefix(bytes).map_err(|_| bad("its header is cut off"))?;
        if page.magic != CHECKPOINT_MAGIC {
            return Err(bad("it does not begin like a checkpoint"));
        }
        if crc32c::crc32c(&page.as_bytes()[..PAGE_BYTES - 4]) != page.crc.get() {
            return Err(bad("its header has a wrong checksum"));
        }
        if page.version.get() != CHECKPOINT_VERSION {
            return Err(bad("it is of a version that this server does not know"));
        }
        let header = Self::from_page(page);
        let ordered = header.start <= header.at
            && header.end <= header.at
            && header.start_number <= header.at_number
            && PAGE_BYTES as u64 <= header.index
            && header.index <= header.bytes;
        if ordered { Ok(header) } else { Err(bad("its header contradicts itself")) }
    }

    fn from_page(page: &Page) -> Self {
        Self {
            folder: page.folder,
            shard: page.shard.get(),
            number: page.number.get(),
            at: page.at.get(),
            at_number: page.at_number.get(),
            end: page.end.get(),
            start: page.start.get(),
            start_number: page.start_number.get(),
            incarnation: page.incarnation.into(),
            salt: page.salt,
            rows: std::array::from_fn(|kind| {
                page.rows.iter().chain(&page.rows_later).nth(kind).map_or(0, |rows| rows.get())
            }),
            bytes: page.bytes.get(),
            index: page.index.get(),
            confirmed_ms: page.confirmed_ms.get(),
            created_ms: page.created_ms.get(),
            digest: page.digest.get(),
        }
    }

    /// Rows of all kinds.
    pub fn rows_all(&self) -> u64 {
        self.rows.iter().sum()
    }
}

/// What stands in front of the rows of a block.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(crate) struct BlockHeader {
    /// Bytes of the whole block.
    pub(crate) len: U32,
    /// CRC-32C of salt, place and everything but this field.
    pub(crate) crc: U32,
    pub(crate) kind: u8,
    reserved_a: u8,
    /// Rows in the block.
    pub(crate) rows: U16,
    reserved_b: U32,
}

/// Bytes of a block before its first row.
pub(crate) const BLOCK_HEADER_BYTES: usize = 16;
const _: () = assert!(size_of::<BlockHeader>() == BLOCK_HEADER_BYTES);

impl BlockHeader {
    pub(crate) fn new(len: usize, kind: u8, rows: u16) -> Self {
        Self {
            len: U32::new(len as u32), // fits: at most `BLOCK_BYTES_MAX`
            crc: U32::ZERO,
            kind,
            reserved_a: 0,
            rows: U16::new(rows),
            reserved_b: U32::ZERO,
        }
    }
}

/// The checksum of a block at a place; `seed` is the checksum of the salt.
pub(crate) fn block_checksum(seed: u32, place: u64, block: &[u8]) -> u32 {
    let crc = crc32c::crc32c_append(seed, &place.to_le_bytes());
    let crc = crc32c::crc32c_append(crc, &block[..4]);
    crc32c::crc32c_append(crc, &block[8..])
}

/// Where a row stands in the order of its kind.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct RowKey(pub [u64; 3]);

impl RowKey {
    /// The key of a row; `None` if it is too short to be one.
    pub fn of(kind: StateKind, row: &[u8]) -> Option<Self> {
        Some(Self(match kind {
            StateKind::Channel => {
                let (low, high) = ChannelRow::ref_from_prefix(row).ok()?.0.channel.halves();
                [low, high, 0]
            }
            StateKind::Entry => {
                let (row, _) = EntryRow::ref_from_prefix(row).ok()?;
                let (low, high) = row.channel.halves();
                [row.uin.get(), low, high]
            }
            StateKind::Device => {
                let (row, _) = DeviceRow::ref_from_prefix(row).ok()?;
                [row.uin.get(), row.device.get().into(), 0]
            }
            StateKind::Window => {
                let (row, _) = WindowRow::ref_from_prefix(row).ok()?;
                [row.uin.get(), row.device.get().into(), 0]
            }
            StateKind::Tombstone => {
                // A range and a place within it may begin together.
                let (row, _) = TombstoneRow::ref_from_prefix(row).ok()?;
                [row.at.get(), row.state.get().into(), 0]
            }
            StateKind::Group => {
                let (low, high) = GroupRow::ref_from_prefix(row).ok()?.0.channel.halves();
                [low, high, 0]
            }
            StateKind::Member => {
                let (row, _) = MemberRow::ref_from_prefix(row).ok()?;
                let (low, high) = row.channel.halves();
                [low, high, row.uin.get()]
            }
            StateKind::Recall => {
                let (row, _) = RecallRow::ref_from_prefix(row).ok()?;
                let (low, high) = row.channel.halves();
                [low, high, row.first.get()]
            }
            StateKind::Block => {
                let (row, _) = BlockRow::ref_from_prefix(row).ok()?;
                [row.blocker.get(), row.blocked.get(), 0]
            }
            StateKind::Read => {
                let (row, _) = MarkRow::ref_from_prefix(row).ok()?;
                let (low, high) = row.mark.channel.halves();
                [low, high, row.uin.get()]
            }
        }))
    }
}

/// A row of the index: a block, and the first key in it.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(crate) struct IndexRow {
    pub(crate) key: [U64; 3],
    pub(crate) place: U64,
    pub(crate) kind: u8,
    reserved: [u8; 7],
}

const _: () = assert!(size_of::<IndexRow>() == 40);

impl IndexRow {
    pub(crate) fn new(kind: StateKind, key: RowKey, place: u64) -> Self {
        let (key, place) = (key.0.map(U64::new), U64::new(place));
        Self { key, place, kind: kind as u8, reserved: [0; 7] }
    }

    /// Its place in the order of the file.
    pub(crate) fn order(&self) -> (u8, RowKey) {
        (self.kind, RowKey(self.key.map(U64::get)))
    }
}
