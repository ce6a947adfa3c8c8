//! How records and segment headers stand on disk; FORMAT.md draws them.
//!
//! Everything is little-endian. A record is valid only at its own offset in its own segment: its
//! checksum is seeded with both, so that no message body, and no old record, can pose as one.

use std::path::Path;

use tern_core::log::{Links, Offset, Record, RecordKind};
use tern_protocol::Incarnation;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::error::RecoverError;

/// Version of the data folder's format; a reader refuses any other.
pub const FORMAT_VERSION: u32 = 1;

/// Bytes before the first record of a segment: one page, so that it is written in one piece.
pub const SEGMENT_HEADER_BYTES: usize = 4096;

/// Bytes of a record before its body.
pub const RECORD_HEADER_BYTES: usize = 40;

/// Bytes that every record's length and place are a multiple of.
pub const RECORD_ALIGN: usize = 8;

/// Longest body in bytes: twice what the 16-bit length of a frame allows, and half of the
/// smallest segment.
pub const BODY_BYTES_MAX: usize = 128 * 1024;

/// Version of a record; with any other the log was written by a newer server.
const RECORD_VERSION: u8 = 1;

/// Kind of a record that storage keeps for itself; [`RecordKind`] uses the numbers below 0x80.
const MARK_KIND: u8 = 0x80;

/// Bytes of a whole mark.
pub(crate) const MARK_BYTES: usize = RECORD_HEADER_BYTES + size_of::<MarkBody>();

/// First bytes of a segment.
const SEGMENT_MAGIC: [u8; 8] = *b"TERNSEG\n";

/// 16 bytes that name a data folder, a boot, or a segment's salt.
pub type Id = [u8; 16];

/// The fixed part of a record.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(crate) struct RecordHeader {
    /// Bytes of the whole record with its padding.
    len: U32,
    /// CRC-32C of seed, offset and everything but this field.
    crc: U32,
    kind: u8,
    version: u8,
    reserved: U16,
    body_len: U32,
    channel: U64,
    device: U64,
    skip: U64,
}

/// What a batch starts with, and what a clean shutdown ends with.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct MarkBody {
    proven: U64,
    flags: U32,
    reserved: U32,
}

/// Bit of [`MarkBody::flags`]: the log was closed in order.
const MARK_CLEAN: u32 = 1;

const _: () = assert!(size_of::<RecordHeader>() == RECORD_HEADER_BYTES);
const _: () = assert!(MARK_BYTES == 56 && MARK_BYTES.is_multiple_of(RECORD_ALIGN));
const _: () = assert!(SEGMENT_HEADER_BYTES.is_multiple_of(RECORD_ALIGN));

impl RecordHeader {
    fn new(kind: u8, links: Links, body_bytes: usize) -> Self {
        Self {
            len: U32::new(record_bytes(body_bytes) as u32), // fits: bounded by `BODY_BYTES_MAX`
            crc: U32::ZERO,
            kind,
            version: RECORD_VERSION,
            reserved: U16::ZERO,
            body_len: U32::new(body_bytes as u32), // fits, as above
            channel: U64::new(links.channel.0),
            device: U64::new(links.device.0),
            skip: U64::new(links.skip.0),
        }
    }
}

/// What a mark says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mark {
    /// Everything before this offset was durable when the mark was written.
    pub proven: u64,
    /// Nothing follows, and everything before the mark was durable.
    pub clean: bool,
}

/// A valid record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Content<'a> {
    /// One that core appended.
    Record(Record<'a>),
    /// Storage's own.
    Mark(Mark),
}

/// Why there is no valid record at a place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bad {
    /// Zeros: nothing was written here.
    Empty,
    /// Bounds or checksum do not fit.
    Broken,
    /// Valid, of a kind or version that only a newer server knows.
    Unknown(u8, u8),
}

/// Bytes of a record with a body of this length.
pub(crate) const fn record_bytes(body_bytes: usize) -> usize {
    (RECORD_HEADER_BYTES + body_bytes).next_multiple_of(RECORD_ALIGN)
}

/// What the checksums of a segment start from: the checksum of its salt.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seed(u32);

impl Seed {
    pub(crate) fn new(salt: &Id) -> Self {
        Self(crc32c::crc32c(salt))
    }

    fn checksum(self, at: u64, record: &[u8]) -> u32 {
        let crc = crc32c::crc32c_append(self.0, &at.to_le_bytes());
        let crc = crc32c::crc32c_append(crc, &record[..4]);
        crc32c::crc32c_append(crc, &record[8..])
    }

    /// Appends a record to `buffer`, to stand at `at`.
    pub(crate) fn push_record(
        self,
        buffer: &mut Vec<u8>,
        at: u64,
        kind: RecordKind,
        links: Links,
        body: &[&[u8]],
    ) {
        let body_bytes: usize = body.iter().map(|part| part.len()).sum();
        let (start, header) = (buffer.len(), RecordHeader::new(kind as u8, links, body_bytes));
        buffer.extend_from_slice(header.as_bytes());
        body.iter().for_each(|part| buffer.extend_from_slice(part));
        buffer.resize(start + record_bytes(body_bytes), 0);
        self.sign(at, &mut buffer[start..]);
    }

    /// The bytes of a mark, to stand at `at`.
    pub(crate) fn mark(self, at: u64, mark: Mark) -> [u8; MARK_BYTES] {
        let body = MarkBody {
            proven: U64::new(mark.proven),
            flags: U32::new(if mark.clean { MARK_CLEAN } else { 0 }),
            reserved: U32::ZERO,
        };
        let header = RecordHeader::new(MARK_KIND, Links::default(), size_of::<MarkBody>());
        let mut bytes = [0; MARK_BYTES];
        bytes[..RECORD_HEADER_BYTES].copy_from_slice(header.as_bytes());
        bytes[RECORD_HEADER_BYTES..].copy_from_slice(body.as_bytes());
        self.sign(at, &mut bytes);
        bytes
    }

    fn sign(self, at: u64, record: &mut [u8]) {
        let crc = self.checksum(at, record);
        record[4..8].copy_from_slice(&crc.to_le_bytes());
    }

    /// The record at the start of `bytes`, which stand at `at`, and its length.
    pub(crate) fn parse(self, at: u64, bytes: &[u8]) -> Result<(usize, Content<'_>), Bad> {
        let (header, _) = RecordHeader::ref_from_prefix(bytes).map_err(|_| Bad::Empty)?;
        let len = record_len(header)?;
        let record = bytes.get(..len).ok_or(Bad::Broken)?;
        if self.checksum(at, record) != header.crc.get() {
            return Err(Bad::Broken);
        }
        let body = &record[RECORD_HEADER_BYTES..][..header.body_len.get() as usize];
        Ok((len, content(header, body)?))
    }

    /// The mark at the start of `bytes`, if there is one; cheap where there is none.
    pub(crate) fn parse_mark(self, at: u64, bytes: &[u8]) -> Option<Mark> {
        let len = bytes.first_chunk::<4>()?;
        if u32::from_le_bytes(*len) != MARK_BYTES as u32 || bytes.get(8) != Some(&MARK_KIND) {
            return None;
        }
        match self.parse(at, bytes) {
            Ok((_, Content::Mark(mark))) => Some(mark),
            _ => None,
        }
    }
}

/// The length of a whole record, by the first bytes of its header alone.
pub(crate) fn record_len_of(bytes: &[u8]) -> Result<usize, Bad> {
    record_len(RecordHeader::ref_from_prefix(bytes).map_err(|_| Bad::Empty)?.0)
}

fn record_len(header: &RecordHeader) -> Result<usize, Bad> {
    let (len, body_len) = (header.len.get() as usize, header.body_len.get() as usize);
    if len == 0 && header.crc.get() == 0 {
        return Err(Bad::Empty);
    }
    if body_len > BODY_BYTES_MAX || len != record_bytes(body_len) {
        return Err(Bad::Broken);
    }
    Ok(len)
}

fn content<'a>(header: &RecordHeader, body: &'a [u8]) -> Result<Content<'a>, Bad> {
    let unknown = Bad::Unknown(header.kind, header.version);
    if header.version != RECORD_VERSION {
        return Err(unknown);
    }
    if header.kind == MARK_KIND {
        let mark = MarkBody::ref_from_bytes(body).map_err(|_| unknown)?;
        let clean = mark.flags.get() & MARK_CLEAN != 0;
        return Ok(Content::Mark(Mark { proven: mark.proven.get(), clean }));
    }
    let kind = RecordKind::from_disk(header.kind).ok_or(unknown)?;
    let links = Links {
        channel: Offset(header.channel.get()),
        device: Offset(header.device.get()),
        skip: Offset(header.skip.get()),
    };
    Ok(Content::Record(Record { kind, links, body }))
}

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
    reserved_c: [u8; 12],
    /// CRC-32C of the bytes before it.
    crc: U32,
}

/// Bytes of the segment header in use; the rest of its page is zero.
const SEGMENT_PAGE_USED: usize = 144;
const _: () = assert!(size_of::<SegmentPage>() == SEGMENT_PAGE_USED);

impl SegmentHeader {
    /// The page to write.
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
            reserved_c: [0; 12],
            crc: U32::ZERO,
        };
        page.crc = U32::new(crc32c::crc32c(&page.as_bytes()[..SEGMENT_PAGE_USED - 4]));
        let mut bytes = vec![0; SEGMENT_HEADER_BYTES];
        bytes[..SEGMENT_PAGE_USED].copy_from_slice(page.as_bytes());
        bytes.into_boxed_slice()
    }

    /// Reads a page; `path` is for the error.
    pub(crate) fn decode(path: &Path, bytes: &[u8]) -> Result<Self, RecoverError> {
        let damaged = |why| RecoverError::header(path, why);
        let (page, _) = SegmentPage::ref_from_prefix(bytes).map_err(|_| damaged("is cut off"))?;
        if page.magic != SEGMENT_MAGIC {
            return Err(damaged("does not begin like a segment"));
        }
        if page.version.get() != FORMAT_VERSION {
            return Err(RecoverError::Version { path: path.into(), found: page.version.get() });
        }
        if crc32c::crc32c(&page.as_bytes()[..SEGMENT_PAGE_USED - 4]) != page.crc.get() {
            return Err(damaged("has a wrong checksum"));
        }
        match page.durability {
            1 | 2 => Ok(Self::from_page(page)),
            _ => Err(damaged("names an unknown durability")),
        }
    }

    /// Takes a page at its word, whatever its checksum says; `None` if it is cut off.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_valid_only_in_its_place() {
        let (seed, other) = (Seed::new(&[7; 16]), Seed::new(&[8; 16]));
        let links = Links { channel: Offset(8), device: Offset(16), skip: Offset(24) };
        let mut buffer = Vec::new();
        seed.push_record(&mut buffer, 4096, RecordKind::Message, links, &[b"hel", b"lo"]);
        let record = Record { kind: RecordKind::Message, links, body: b"hello" };
        assert_eq!(seed.parse(4096, &buffer), Ok((48, Content::Record(record))));
        assert_eq!(seed.parse(4104, &buffer), Err(Bad::Broken), "another offset");
        assert_eq!(other.parse(4096, &buffer), Err(Bad::Broken), "another segment");
        assert_eq!(seed.parse(4096, &[0; 64]), Err(Bad::Empty));
    }

    #[test]
    fn every_bit_of_a_record_counts() {
        let seed = Seed::new(&[7; 16]);
        let mut buffer = Vec::new();
        seed.push_record(&mut buffer, 8, RecordKind::Entry, Links::default(), &[b"abc"]);
        for bit in 0..buffer.len() * 8 {
            buffer[bit / 8] ^= 1 << (bit % 8);
            assert!(seed.parse(8, &buffer).is_err(), "bit {bit}");
            buffer[bit / 8] ^= 1 << (bit % 8);
        }
        for len in 0..buffer.len() {
            assert!(seed.parse(8, &buffer[..len]).is_err(), "{len} bytes");
        }
    }
}
