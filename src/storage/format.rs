//! How records stand on disk; FORMAT.md draws them. Segment headers are in `header`.
//!
//! Everything is little-endian. A record is valid only at its own offset in its own segment: the
//! checksum of its header is seeded with both, so that no message body, and no old record, can
//! pose as one. The header has the checksum of the body, and a checksum of its own: where only
//! the body is damaged, the header still proves what stood there and where it led.

use tern_core::log::{Links, Offset, Record, RecordKind};
use tern_core::shard::records::EpochBody;
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Version of the data folder's format; a reader refuses any other.
pub const FORMAT_VERSION: u32 = 2;

/// Bytes of a record before its body.
pub const RECORD_HEADER_BYTES: usize = 40;

/// Bytes that every record's length and place are a multiple of.
pub const RECORD_ALIGN: usize = 8;

/// Longest body in bytes: twice what the 16-bit length of a frame allows, and half of the
/// smallest segment.
pub const BODY_BYTES_MAX: usize = 128 * 1024;

/// Version of a record; with any other the log was written by a newer server.
const RECORD_VERSION: u8 = 2;

/// Kind of a record that storage keeps for itself; [`RecordKind`] uses the numbers below 0x80.
const MARK_KIND: u8 = 0x80;

/// Bytes of a whole mark: it has no body, so that its header's checksum covers all of it.
pub(crate) const MARK_BYTES: usize = RECORD_HEADER_BYTES;

/// Bytes of the shortest record that core appends: the epoch of a login. A shorter gap held marks.
pub(crate) const CORE_RECORD_BYTES_MIN: usize = record_bytes(size_of::<EpochBody>());

/// 16 bytes that name a data folder, a boot, or a segment's salt.
pub type Id = [u8; 16];

/// The fixed part of a record.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RecordHeader {
    /// Bytes of the whole record with its padding.
    len: U32,
    /// CRC-32C of salt, offset, and the header but this field.
    header_crc: U32,
    kind: u8,
    version: u8,
    /// Bytes of zeros behind the body.
    pad: u8,
    reserved: u8,
    /// CRC-32C of the body and its padding.
    body_crc: U32,
    channel: U64,
    device: U64,
    skip: U64,
}

/// Bit of a mark's flags, which stand where other records have the link of the device: the log
/// was closed in order.
const MARK_CLEAN: u64 = 1;

const _: () = assert!(size_of::<RecordHeader>() == RECORD_HEADER_BYTES);
const _: () = assert!(MARK_BYTES.is_multiple_of(RECORD_ALIGN));
const _: () = assert!(MARK_BYTES < CORE_RECORD_BYTES_MIN);

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

/// What the header of a record proves, whatever became of its body.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Head {
    /// Bytes of the whole record.
    pub bytes: usize,
    /// What it is.
    pub kind: RecordKind,
    /// What it points to.
    pub links: Links,
}

/// Why there is no valid record at a place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bad {
    /// Zeros: nothing was written here.
    Empty,
    /// Bounds or checksum of the header do not fit.
    Broken,
    /// The header is whole, and the body is not.
    Body(Head),
    /// A whole header of a kind or version that only a newer server knows.
    Unknown(u8, u8),
}

/// A record of any kind: what its framing says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Frame<'a> {
    /// Bytes of the whole record.
    pub(crate) bytes: usize,
    pub(crate) kind: u8,
    pub(crate) version: u8,
    pub(crate) links: Links,
    /// `None` if it does not fit its checksum, or is not all there.
    pub(crate) body: Option<&'a [u8]>,
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

    fn checksum(self, at: u64, header: &[u8; RECORD_HEADER_BYTES]) -> u32 {
        let crc = crc32c::crc32c_append(self.0, &at.to_le_bytes());
        let crc = crc32c::crc32c_append(crc, &header[..4]);
        crc32c::crc32c_append(crc, &header[8..])
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
        self.push_frame(buffer, at, kind as u8, links, body);
    }

    /// Appends a record of any kind to `buffer`, to stand at `at`.
    pub(crate) fn push_frame(
        self,
        buffer: &mut Vec<u8>,
        at: u64,
        kind: u8,
        links: Links,
        body: &[&[u8]],
    ) {
        let start = buffer.len();
        buffer.extend_from_slice(&[0; RECORD_HEADER_BYTES]);
        body.iter().for_each(|part| buffer.extend_from_slice(part));
        let body_bytes = buffer.len() - start - RECORD_HEADER_BYTES;
        buffer.resize(start + record_bytes(body_bytes), 0);
        let (header, body) = buffer[start..].split_at_mut(RECORD_HEADER_BYTES);
        let header = header.first_chunk_mut().expect("it was split there");
        *header = self.header(at, kind, links, body_bytes, body);
    }

    /// The bytes of a mark, to stand at `at`.
    pub(crate) fn mark(self, at: u64, mark: Mark) -> [u8; MARK_BYTES] {
        let flags = if mark.clean { MARK_CLEAN } else { 0 };
        let links =
            Links { channel: Offset(mark.proven), device: Offset(flags), skip: Offset::NONE };
        self.header(at, MARK_KIND, links, 0, &[])
    }

    /// The header of a record whose body has `body_bytes` bytes; `padded` is with its padding.
    fn header(
        self,
        at: u64,
        kind: u8,
        links: Links,
        body_bytes: usize,
        padded: &[u8],
    ) -> [u8; RECORD_HEADER_BYTES] {
        let mut header = RecordHeader {
            len: U32::new((RECORD_HEADER_BYTES + padded.len()) as u32), // fits: `BODY_BYTES_MAX`
            header_crc: U32::ZERO,
            kind,
            version: RECORD_VERSION,
            pad: (padded.len() - body_bytes) as u8, // fits: less than `RECORD_ALIGN`
            reserved: 0,
            body_crc: U32::new(crc32c::crc32c(padded)),
            channel: U64::new(links.channel.0),
            device: U64::new(links.device.0),
            skip: U64::new(links.skip.0),
        };
        let crc = self.checksum(at, zerocopy::transmute_ref!(&header));
        header.header_crc = U32::new(crc);
        zerocopy::transmute!(header)
    }

    /// The record of any kind at the start of `bytes`, which stand at `at`.
    pub(crate) fn parse_frame(self, at: u64, bytes: &[u8]) -> Result<Frame<'_>, Bad> {
        let head = bytes.first_chunk::<RECORD_HEADER_BYTES>().ok_or(Bad::Empty)?;
        let header: &RecordHeader = zerocopy::transmute_ref!(head);
        let len = record_len(header)?;
        if self.checksum(at, head) != header.header_crc.get() {
            return Err(Bad::Broken);
        }
        let padded = bytes.get(RECORD_HEADER_BYTES..len);
        let whole = padded.filter(|padded| crc32c::crc32c(padded) == header.body_crc.get());
        Ok(Frame {
            bytes: len,
            kind: header.kind,
            version: header.version,
            links: Links {
                channel: Offset(header.channel.get()),
                device: Offset(header.device.get()),
                skip: Offset(header.skip.get()),
            },
            body: whole.map(|padded| &padded[..padded.len() - usize::from(header.pad)]),
        })
    }

    /// The record or mark at the start of `bytes`, which stand at `at`, and its length.
    pub(crate) fn parse(self, at: u64, bytes: &[u8]) -> Result<(usize, Content<'_>), Bad> {
        let Frame { bytes: len, kind, version, links, body } = self.parse_frame(at, bytes)?;
        let unknown = Bad::Unknown(kind, version);
        if version != RECORD_VERSION {
            return Err(unknown);
        }
        if kind == MARK_KIND {
            let clean = links.device.0 & MARK_CLEAN != 0;
            return Ok((len, Content::Mark(Mark { proven: links.channel.0, clean })));
        }
        let kind = RecordKind::from_disk(kind).ok_or(unknown)?;
        let body = body.ok_or(Bad::Body(Head { bytes: len, kind, links }))?;
        Ok((len, Content::Record(Record { kind, links, body })))
    }
}

/// The length of a whole record, by the first bytes of its header alone.
pub(crate) fn record_len_of(bytes: &[u8]) -> Result<usize, Bad> {
    record_len(RecordHeader::ref_from_prefix(bytes).map_err(|_| Bad::Empty)?.0)
}

fn record_len(header: &RecordHeader) -> Result<usize, Bad> {
    let (len, pad) = (header.len.get() as usize, usize::from(header.pad));
    if len == 0 && header.header_crc.get() == 0 {
        return Err(Bad::Empty);
    }
    let body = len.checked_sub(RECORD_HEADER_BYTES + pad).ok_or(Bad::Broken)?;
    if body > BODY_BYTES_MAX || len != record_bytes(body) {
        return Err(Bad::Broken);
    }
    Ok(len)
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
    fn bodies_of_every_length_come_back() {
        let seed = Seed::new(&[7; 16]);
        for len in (0..70).chain([BODY_BYTES_MAX - 1, BODY_BYTES_MAX]) {
            let (body, mut buffer) = (vec![len as u8; len], vec![9; 3]);
            seed.push_record(&mut buffer, 64, RecordKind::Epoch, Links::default(), &[&body]);
            let (bytes, content) = seed.parse(64, &buffer[3..]).unwrap();
            assert_eq!((bytes, record_len_of(&buffer[3..])), (buffer.len() - 3, Ok(bytes)));
            assert!(matches!(content, Content::Record(r) if r.body == body), "{len} bytes");
        }
    }

    #[test]
    fn every_bit_of_a_record_counts() {
        let seed = Seed::new(&[7; 16]);
        let links = Links { channel: Offset(8), device: Offset(16), skip: Offset(24) };
        let mut buffer = Vec::new();
        seed.push_record(&mut buffer, 8, RecordKind::Entry, links, &[b"abc"]);
        let head = Head { bytes: 48, kind: RecordKind::Entry, links };
        for bit in 0..buffer.len() * 8 {
            buffer[bit / 8] ^= 1 << (bit % 8);
            let bad = seed.parse(8, &buffer).expect_err("a bit is wrong");
            let in_body = bit / 8 >= RECORD_HEADER_BYTES;
            assert_eq!(bad == Bad::Body(head), in_body, "bit {bit}: {bad:?}");
            buffer[bit / 8] ^= 1 << (bit % 8);
        }
        for len in 0..buffer.len() {
            let bad = seed.parse(8, &buffer[..len]).expect_err("it is cut off");
            assert_eq!(bad == Bad::Body(head), len >= RECORD_HEADER_BYTES, "{len} bytes");
        }
    }
}
