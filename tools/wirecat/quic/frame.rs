//! The frames of QUIC, as far as a listener needs what they say (RFC 9000 §19, RFC 9221).

use super::bytes::Bytes;
use super::header::Id;

/// Ranges of an acknowledgement that are looked at; a packet has room for no more that matter.
const RANGES_MAX: u64 = 1_024;

/// A frame.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum QuicFrame<'a> {
    /// PADDING, PING, credit and such: nothing that a listener follows.
    Other,
    /// Packets that arrived, as ranges with the largest first.
    Ack {
        /// First and last numbers of each range.
        ranges: Vec<(u64, u64)>,
        /// How long the receiver waited with it, in units that its parameters give.
        delay: u64,
    },
    /// Bytes of the handshake.
    Crypto {
        /// Where they stand.
        offset: u64,
        /// The bytes.
        bytes: &'a [u8],
    },
    /// Bytes of a stream.
    Stream {
        /// Which.
        id: u64,
        /// Where they stand.
        offset: u64,
        /// The bytes.
        bytes: &'a [u8],
        /// Whether the stream ends behind them.
        is_end: bool,
    },
    /// A datagram.
    Datagram(&'a [u8]),
    /// Another id by which the sender may be called.
    NewId {
        /// The id.
        id: Id,
        /// What a stateless reset of it ends with.
        reset_token: [u8; 16],
    },
    /// A stream is given up.
    ResetStream {
        /// Which.
        id: u64,
        /// Why.
        code: u64,
    },
    /// Asks whether the other side receives at this address.
    PathChallenge,
    /// The connection ends.
    Close {
        /// Why.
        code: u64,
        /// Whether the application ended it, and gave the code its meaning.
        by_application: bool,
        /// Words about it.
        reason: &'a [u8],
    },
}

impl QuicFrame<'_> {
    /// Whether the packet must be acknowledged for it.
    fn elicits_ack(kind: u64) -> bool {
        !matches!(kind, 0x00 | 0x02 | 0x03 | 0x1c | 0x1d)
    }
}

/// A packet's frames, read one by one.
#[derive(Clone, Debug)]
pub struct Frames<'a> {
    bytes: Bytes<'a>,
    /// Whether a frame came that asks for an acknowledgement.
    pub elicits_ack: bool,
    /// Whether a frame could not be read; the rest of the packet is lost with it.
    pub is_broken: bool,
}

impl<'a> Frames<'a> {
    /// The frames of a payload.
    pub fn new(payload: &'a [u8]) -> Self {
        Self { bytes: Bytes::new(payload), elicits_ack: false, is_broken: false }
    }
}

impl<'a> Iterator for Frames<'a> {
    type Item = QuicFrame<'a>;

    fn next(&mut self) -> Option<QuicFrame<'a>> {
        if self.is_broken || self.bytes.is_empty() {
            return None;
        }
        let kind = self.bytes.varint();
        let frame = kind.and_then(|kind| {
            self.elicits_ack |= QuicFrame::elicits_ack(kind);
            read(kind, &mut self.bytes)
        });
        self.is_broken = frame.is_none();
        frame
    }
}

fn read<'a>(kind: u64, bytes: &mut Bytes<'a>) -> Option<QuicFrame<'a>> {
    match kind {
        0x00 | 0x01 | 0x1e => Some(QuicFrame::Other),
        0x02 | 0x03 => ack(bytes, kind == 0x03),
        0x04 => {
            let (id, code) = (bytes.varint()?, bytes.varint()?);
            bytes.varint()?; // its length
            Some(QuicFrame::ResetStream { id, code })
        }
        0x06 => Some(QuicFrame::Crypto { offset: bytes.varint()?, bytes: bytes.counted()? }),
        0x07 => bytes.counted().map(|_| QuicFrame::Other), // a token
        0x08..=0x0f => stream(kind, bytes),
        0x05 | 0x11 | 0x15 => skip(bytes, 2),
        0x10 | 0x12 | 0x13 | 0x14 | 0x16 | 0x17 | 0x19 => skip(bytes, 1),
        0x18 => new_id(bytes),
        0x1a => bytes.take(8).map(|_| QuicFrame::PathChallenge),
        0x1b => bytes.take(8).map(|_| QuicFrame::Other),
        0x1c | 0x1d => close(bytes, kind == 0x1d),
        0x30 => {
            let rest = bytes.rest().len();
            bytes.take(rest).map(QuicFrame::Datagram)
        }
        0x31 => bytes.counted().map(QuicFrame::Datagram),
        // ACK_FREQUENCY and IMMEDIATE_ACK, an extension that quinn knows.
        0xaf => skip(bytes, 4),
        0x1f => Some(QuicFrame::Other),
        _ => None,
    }
}

fn skip<'a>(bytes: &mut Bytes<'a>, numbers: usize) -> Option<QuicFrame<'a>> {
    for _ in 0..numbers {
        bytes.varint()?;
    }
    Some(QuicFrame::Other)
}

fn ack<'a>(bytes: &mut Bytes<'a>, with_ecn: bool) -> Option<QuicFrame<'a>> {
    let (largest, delay, count) = (bytes.varint()?, bytes.varint()?, bytes.varint()?);
    let mut from = largest.checked_sub(bytes.varint()?)?;
    let mut ranges = vec![(from, largest)];
    for _ in 0..count {
        let to = from.checked_sub(bytes.varint()?)?.checked_sub(2)?;
        from = to.checked_sub(bytes.varint()?)?;
        if (ranges.len() as u64) < RANGES_MAX {
            ranges.push((from, to));
        }
    }
    if with_ecn {
        skip(bytes, 3)?;
    }
    Some(QuicFrame::Ack { ranges, delay })
}

fn stream<'a>(kind: u64, bytes: &mut Bytes<'a>) -> Option<QuicFrame<'a>> {
    let id = bytes.varint()?;
    let offset = if kind & 4 != 0 { bytes.varint()? } else { 0 };
    let data = if kind & 2 != 0 {
        bytes.counted()?
    } else {
        let rest = bytes.rest().len();
        bytes.take(rest)?
    };
    Some(QuicFrame::Stream { id, offset, bytes: data, is_end: kind & 1 != 0 })
}

fn new_id<'a>(bytes: &mut Bytes<'a>) -> Option<QuicFrame<'a>> {
    bytes.varint()?; // its number
    bytes.varint()?; // those below it are retired
    let id = Id::new(bytes.vector(1)?)?;
    let reset_token = bytes.take(16)?.try_into().ok()?;
    Some(QuicFrame::NewId { id, reset_token })
}

fn close<'a>(bytes: &mut Bytes<'a>, by_application: bool) -> Option<QuicFrame<'a>> {
    let code = bytes.varint()?;
    if !by_application {
        bytes.varint()?; // the kind of frame that was at fault
    }
    Some(QuicFrame::Close { code, by_application, reason: bytes.counted()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_read_one_behind_the_other() {
        let payload = [
            &[0x02, 10, 4, 1, 2, 1, 3][..], // 8..=10, then 8 - 1 - 2 = 5 down to 2
            &[0x0e, 0, 5, 2, b'a', b'b'],
            &[0, 0, 0x31, 1, b'd', 0x30, b'e'],
        ]
        .concat();
        let mut frames = Frames::new(&payload);
        let all: Vec<_> = frames.by_ref().collect();
        assert_eq!(all[0], QuicFrame::Ack { ranges: vec![(8, 10), (2, 5)], delay: 4 });
        assert_eq!(all[1], QuicFrame::Stream { id: 0, offset: 5, bytes: b"ab", is_end: false });
        assert_eq!(all[4..], [QuicFrame::Datagram(b"d"), QuicFrame::Datagram(b"e")]);
        assert!(frames.elicits_ack && !frames.is_broken);
    }

    #[test]
    fn a_broken_frame_ends_the_packet() {
        for payload in [&[0x02, 3, 0, 0, 5][..], &[0x06, 0, 9, 1], &[0x3f], &[0x18, 0, 0, 30]] {
            let mut frames = Frames::new(payload);
            assert_eq!(frames.by_ref().count(), 0, "{payload:?}");
            assert!(frames.is_broken);
        }
    }
}
