//! The records of one segment in order, and the gaps between them.
//!
//! Behind bytes that are no record, every place where one could begin is tried: the checksum
//! knows salt and offset, so nothing passes that was not written there as a record.

use std::ops::ControlFlow;

use tern_core::log::{Record, RecordKind};
use tern_protocol::frames::PushBody;
use tern_storage::inspect::{Bad, Content, Decoder, Head, Mark, RECORD_ALIGN};
use tern_storage::{BODY_BYTES_MAX, RECORD_HEADER_BYTES};
use zerocopy::FromBytes;

use crate::segment::{SegmentFile, Window};

/// Bytes that are skipped at once where nothing was ever written.
const PAGE_BYTES: usize = 4096;

/// A page that was never written.
static ZEROS: [u8; PAGE_BYTES] = [0; PAGE_BYTES];

/// What stands at an offset.
pub(crate) enum Piece<'a> {
    /// A record of `bytes` bytes.
    Record { at: u64, bytes: usize, record: Record<'a> },
    /// A mark of `bytes` bytes.
    Mark { at: u64, bytes: usize, mark: Mark },
    /// No record, and behind it good ones.
    Gap(Gap),
}

/// Bytes that are no record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Gap {
    /// Offset of the first of them.
    pub(crate) at: u64,
    /// Offset at which good records go on; `None` if they don't.
    pub(crate) to: Option<u64>,
    /// What they look like.
    pub(crate) looks: Looks,
}

/// What bytes that are no record look like.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Looks {
    /// Never written, up to where good records go on or the segment ends.
    Zeros,
    /// Something else; for people.
    Bytes(String),
    /// A valid record that a newer server wrote.
    Unknown(u8, u8),
    /// The disk does not give them.
    Unreadable,
}

impl Looks {
    /// For people.
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Zeros => "zeros".into(),
            Self::Bytes(text) => text.clone(),
            Self::Unknown(kind, version) => {
                format!("an intact record of unknown kind {kind:#04x}, version {version}")
            }
            Self::Unreadable => "the disk does not give it".into(),
        }
    }
}

/// Visits what stands from the first record up to the offset `until`, or to the end of the file.
/// Says where the records end and what stands behind them; `None` if the visitor had enough.
pub(crate) fn walk<E>(
    segment: &SegmentFile,
    decoder: &Decoder,
    until: Option<u64>,
    mut visit: impl FnMut(Piece<'_>) -> Result<ControlFlow<()>, E>,
) -> Result<Option<Gap>, E> {
    let mut window = segment.window();
    let (base, mut at) = (decoder.header.base, decoder.header.first());
    let end = until.unwrap_or(u64::MAX).min(base + segment.bytes).max(at);
    while at < end {
        let bytes = window.at(at - base);
        let (piece, next) = match decoder.record(at, bytes) {
            Ok((len, Content::Record(record))) => {
                (Piece::Record { at, bytes: len, record }, at + len as u64)
            }
            Ok((len, Content::Mark(mark))) => {
                (Piece::Mark { at, bytes: len, mark }, at + len as u64)
            }
            Err(bad) => {
                let gap = gap(&mut window, decoder, at, end, bad);
                match gap.to {
                    None => return Ok(Some(gap)),
                    Some(to) => (Piece::Gap(gap), to),
                }
            }
        };
        if visit(piece)?.is_break() {
            return Ok(None);
        }
        at = next;
    }
    Ok(Some(Gap { at, to: None, looks: Looks::Zeros }))
}

/// Describes what is no record, up to where one is.
fn gap(window: &mut Window<'_>, decoder: &Decoder, at: u64, end: u64, bad: Bad) -> Gap {
    let base = decoder.header.base;
    let (guess, behind) = match bad {
        Bad::Body(head) => (damaged_body(&head, window.at(at - base)), at + head.bytes as u64),
        _ => (looks_like(window.at(at - base)), at),
    };
    let (to, zeros) = next_record(window, decoder, behind.min(end), end);
    let looks = match bad {
        _ if window.is_unreadable(at - base) => Looks::Unreadable,
        Bad::Unknown(kind, version) => Looks::Unknown(kind, version),
        Bad::Empty | Bad::Broken if zeros => Looks::Zeros,
        _ => Looks::Bytes(guess),
    };
    Gap { at, to, looks }
}

/// The next place behind `at` with a valid record, and whether all before it are zeros.
fn next_record(
    window: &mut Window<'_>,
    decoder: &Decoder,
    at: u64,
    end: u64,
) -> (Option<u64>, bool) {
    let (base, mut zeros) = (decoder.header.base, true);
    for page in (at..end).step_by(PAGE_BYTES) {
        let rest = window.at(page - base);
        let rest = &rest[..rest.len().min((end - page) as usize)];
        let len = rest.len().min(PAGE_BYTES);
        if rest[..len] == ZEROS[..len] {
            continue;
        }
        for place in (0..len).step_by(RECORD_ALIGN) {
            let word = &rest[place..len.min(place + RECORD_ALIGN)];
            if decoder.record(page + place as u64, &rest[place..]).is_ok() {
                return (Some(page + place as u64), zeros);
            }
            zeros &= word.iter().all(|byte| *byte == 0);
        }
    }
    (None, zeros)
}

/// What a record with a whole header was, and what is left of its body.
fn damaged_body(head: &Head, bytes: &[u8]) -> String {
    let body = bytes.get(RECORD_HEADER_BYTES..).unwrap_or_default();
    let what = match (head.kind, PushBody::ref_from_prefix(body)) {
        (RecordKind::Message, Ok((push, _))) if push.channel.is_valid() => {
            format!("a message, perhaps {} of {}", push.id, push.channel)
        }
        (RecordKind::Change, Ok((push, _))) if push.channel.is_valid() => {
            format!("a change of a group, perhaps {} of {}", push.id, push.channel)
        }
        (RecordKind::Recall, Ok((push, _))) if push.channel.is_valid() => {
            format!("a recall of a message, perhaps {} of {}", push.id, push.channel)
        }
        (RecordKind::Change, _) => "a change of a group".into(),
        (RecordKind::Recall, _) => "a recall of a message".into(),
        (RecordKind::Block, _) => "a block of a user by another".into(),
        (RecordKind::Message, _) => "a message".into(),
        (RecordKind::Epoch, _) => "a login's epoch".into(),
        (RecordKind::Entry, _) => "an entry into a channel".into(),
        (RecordKind::Read, _) => "what a user had read".into(),
    };
    let cut = if bytes.len() < head.bytes { ", cut off" } else { "" };
    format!("{what} of {} bytes whose header is whole and whose body is damaged{cut}", head.bytes)
}

/// What a record with a wrong checksum seems to be, by the fields of its header.
fn looks_like(bytes: &[u8]) -> String {
    let Some(header) = bytes.first_chunk::<RECORD_HEADER_BYTES>() else {
        return "the rest is shorter than a record".into();
    };
    let len = u32::from_le_bytes(*header.first_chunk().expect("a header has 40 bytes"));
    let (least, pad) = (RECORD_HEADER_BYTES as u32, header[10]);
    let proper = len >= least && len.is_multiple_of(RECORD_ALIGN as u32);
    if !proper || len as usize > RECORD_HEADER_BYTES + BODY_BYTES_MAX || pad >= 8 {
        let some = bytes.iter().take(16).map(|byte| format!("{byte:02x}")).collect::<String>();
        return format!("no record's header, it begins {some}");
    }
    let body = bytes.get(RECORD_HEADER_BYTES..).unwrap_or_default();
    let what = match (bytes[8], PushBody::ref_from_prefix(body)) {
        (1, Ok((push, _))) if push.channel.is_valid() => {
            format!("message {} of {}", push.id, push.channel)
        }
        (1, _) => "a message".into(),
        (2, _) => "a login's epoch".into(),
        (3, _) => "an entry into a channel".into(),
        (4, _) => "a change of a group".into(),
        (5, _) => "a recall of a message".into(),
        (6, _) => "a block of a user by another".into(),
        (0x80, _) => "a mark".into(),
        (kind, _) => format!("a record of kind {kind:#04x}"),
    };
    let cut = if (bytes.len() as u64) < u64::from(len) { ", cut off" } else { "" };
    format!("{what} of {len} bytes with a wrong checksum{cut}")
}
