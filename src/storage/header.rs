//! What a segment says of itself in its first page; FORMAT.md draws it.
//!
//! The header stands twice in the page, so that one bad sector, or one flipped bit, does not take
//! the salt of a whole segment away. Either copy is enough; recovery writes both again.

use std::path::Path;

use tern_protocol::Incarnation;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::error::RecoverError;
use crate::format::{FORMAT_VERSION, Id};

/// Bytes before the first record of a segment: one page, so that it is written in one piece.
pub const SEGMENT_HEADER_BYTES: usize = 4096;

/// First bytes of a segment.
const SEGMENT_MAGIC: [u8; 8] = *b"TERNSEG\n";

/// Where the second copy of the header stands in its page, in bytes: half of it, so that a disk
/// with sectors of up to 2 KiB can't lose both at once.
const SECOND_COPY: usize = SEGMENT_HEADER_BYTES / 2;

/// How far an ack's promise goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(u8)]
pub enum Durability {
    /// After `fdatasync`: survives a power cut.
    #[default]
    Disk = 1,
    /// After the write to the page cache: survives `kill -9`, not a power cut.
    Process = 2,
}

/// What a segment says of itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SegmentHeader {
    /// The data folder that it belongs to.
    pub folder: Id,
    /// The shard that it belongs to.
    pub shard: u16,
    /// From 1, without a hole.
    pub number: u64,
    /// Offset of the segment's first byte.
    pub base: u64,
    /// Bytes of the segment as allocated; the next one's base is `base + capacity`.
    pub capacity: u64,
    /// What its checksums are seeded with.
    pub salt: Id,
    /// Life of the log.
    pub incarnation: Incarnation,
    /// Where the data of the previous segment ends, if recovery cut it; else 0.
    pub cut: u64,
    /// Durability of the run that made the segment.
    pub durability: Durability,
    /// The boot in which it was made.
    pub boot: Id,
    /// Milliseconds since 1970 UTC when it was made; for people.
    pub created_ms: u64,
    /// Names the opening of the log in which it was made: a deduplication table of another one
    /// may have missed records.
    pub opening: Id,
    /// Confirmed milliseconds when it was made; what retention goes by.
    pub confirmed_ms: u64,
}

#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct SegmentPage {
    magic: [u8; 8],
    version: U32,
    shard: U16,
    durability: u8,
    reserved_a: u8,
    folder: Id,
    number: U64,
    base: U64,
    capacity: U64,
    salt: Id,
    incarnation: U32,
    reserved_b: U32,
    cut: U64,
    boot: Id,
    created_ms: U64,
    opening: Id,
    confirmed_ms: U64,
    reserved_c: U32,
    /// CRC-32C of the bytes before it.
    crc: U32,
}

/// Bytes of the segment header in use; the rest of its page is zero.
const SEGMENT_PAGE_USED: usize = 144;
const _: () = assert!(size_of::<SegmentPage>() == SEGMENT_PAGE_USED);

impl SegmentHeader {
    /// The page to write: both copies, and zeros.
    pub(crate) fn encode(&self) -> Box<[u8]> {
        let mut page = SegmentPage {
            magic: SEGMENT_MAGIC,
            version: U32::new(FORMAT_VERSION),
            shard: U16::new(self.shard),
            durability: self.durability as u8,
            reserved_a: 0,
            folder: self.folder,
            number: U64::new(self.number),
            base: U64::new(self.base),
            capacity: U64::new(self.capacity),
            salt: self.salt,
            incarnation: U32::new(self.incarnation.0),
            reserved_b: U32::ZERO,
            cut: U64::new(self.cut),
            boot: self.boot,
            created_ms: U64::new(self.created_ms),
            opening: self.opening,
            confirmed_ms: U64::new(self.confirmed_ms),
            reserved_c: U32::ZERO,
            crc: U32::ZERO,
        };
        page.crc = U32::new(page.checksum());
        let mut bytes = vec![0; SEGMENT_HEADER_BYTES];
        for copy in [0, SECOND_COPY] {
            bytes[copy..][..SEGMENT_PAGE_USED].copy_from_slice(page.as_bytes());
        }
        bytes.into_boxed_slice()
    }

    /// Reads a page by whichever copy is whole; `path` is for the error.
    pub(crate) fn decode(path: &Path, bytes: &[u8]) -> Result<Self, RecoverError> {
        let first = Self::decode_copy(path, bytes);
        let Err(RecoverError::Header { .. }) = first else { return first };
        Self::decode_copy(path, bytes.get(SECOND_COPY..).unwrap_or_default()).or(first)
    }

    fn decode_copy(path: &Path, bytes: &[u8]) -> Result<Self, RecoverError> {
        let damaged = |why| RecoverError::Header { path: path.into(), why };
        let (page, _) = SegmentPage::ref_from_prefix(bytes).map_err(|_| damaged("is cut off"))?;
        if page.magic != SEGMENT_MAGIC {
            return Err(damaged("does not begin like one"));
        }
        if page.checksum() != page.crc.get() {
            return Err(damaged("has a wrong checksum"));
        }
        if page.version.get() != FORMAT_VERSION {
            return Err(RecoverError::Version { path: path.into(), found: page.version.get() });
        }
        match page.durability {
            1 | 2 => Ok(Self::from_page(page)),
            _ => Err(damaged("names an unknown durability")),
        }
    }

    /// Whether a page is what it was written as, in both copies.
    pub(crate) fn is_whole(&self, bytes: &[u8]) -> bool {
        bytes.starts_with(&self.encode())
    }

    /// Takes a page at its word, whatever its checksums say; `None` if it is cut off.
    pub(crate) fn believe(bytes: &[u8]) -> Option<Self> {
        SegmentPage::ref_from_prefix(bytes).ok().map(|(page, _)| Self::from_page(page))
    }

    fn from_page(page: &SegmentPage) -> Self {
        let process = page.durability == Durability::Process as u8;
        Self {
            folder: page.folder,
            shard: page.shard.get(),
            number: page.number.get(),
            base: page.base.get(),
            capacity: page.capacity.get(),
            salt: page.salt,
            incarnation: page.incarnation.into(),
            cut: page.cut.get(),
            durability: if process { Durability::Process } else { Durability::Disk },
            boot: page.boot,
            created_ms: page.created_ms.get(),
            opening: page.opening,
            confirmed_ms: page.confirmed_ms.get(),
        }
    }

    /// Offset of the segment's first record.
    pub fn first(&self) -> u64 {
        self.base + SEGMENT_HEADER_BYTES as u64
    }

    /// Offset behind the segment.
    pub fn end(&self) -> u64 {
        self.base + self.capacity
    }
}

impl SegmentPage {
    fn checksum(&self) -> u32 {
        crc32c::crc32c(&self.as_bytes()[..SEGMENT_PAGE_USED - 4])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> SegmentHeader {
        SegmentHeader {
            folder: [1; 16],
            shard: 2,
            number: 3,
            base: 4 << 20,
            capacity: 1 << 20,
            salt: [5; 16],
            incarnation: Incarnation(6),
            cut: 7,
            durability: Durability::Process,
            boot: [8; 16],
            created_ms: 9,
            opening: [10; 16],
            confirmed_ms: 9_000,
        }
    }

    #[test]
    fn either_copy_is_enough_and_both_are_not_needed() {
        let (header, path) = (header(), Path::new("x.seg"));
        let page = header.encode();
        assert!(header.is_whole(&page));
        for bit in 0..page.len() * 8 {
            let mut bad = page.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(SegmentHeader::decode(path, &bad).unwrap(), header, "bit {bit}");
            assert!(!header.is_whole(&bad), "bit {bit}");
        }
        for byte in 0..SEGMENT_PAGE_USED {
            let mut bad = page.clone();
            bad[byte] ^= 0x10;
            bad[SECOND_COPY + (byte * 7) % SEGMENT_PAGE_USED] ^= 1;
            let error = SegmentHeader::decode(path, &bad).unwrap_err();
            assert!(matches!(error, RecoverError::Header { .. }), "byte {byte}: {error}");
        }
        let half = SegmentHeader::decode(path, &page[..SECOND_COPY]).unwrap();
        assert_eq!(half, header);
    }

    #[test]
    fn another_version_is_named() {
        let mut page = header().encode();
        page[8..12].copy_from_slice(&1u32.to_le_bytes());
        let crc = crc32c::crc32c(&page[..SEGMENT_PAGE_USED - 4]);
        page[SEGMENT_PAGE_USED - 4..SEGMENT_PAGE_USED].copy_from_slice(&crc.to_le_bytes());
        let error = SegmentHeader::decode(Path::new("x.seg"), &page).unwrap_err();
        assert!(matches!(error, RecoverError::Version { found: 1, .. }), "{error}");
        assert!(error.to_string().contains("version 1"), "{error}");
    }
}
