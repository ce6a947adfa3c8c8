//! Packet headers: which kind, for which connection id, from where to where in the datagram.

use super::bytes::Bytes;

/// Longest connection id of version 1, in bytes.
pub const ID_BYTES_MAX: usize = 20;

/// The only version that is read.
const VERSION_1: u32 = 1;

/// A connection id.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Id {
    bytes: [u8; ID_BYTES_MAX],
    len: u8,
}

impl Id {
    /// An id of these bytes; `None` if there are too many.
    pub fn new(id: &[u8]) -> Option<Self> {
        let mut bytes = [0; ID_BYTES_MAX];
        bytes.get_mut(..id.len())?.copy_from_slice(id);
        Some(Self { bytes, len: id.len() as u8 }) // fits: at most 20
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    /// Whether it is the empty one, by which nothing can be found.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl std::fmt::Debug for Id {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.as_bytes().iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// What a long header names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Long {
    /// The first flight.
    Initial,
    /// Application data before the handshake's end.
    Early,
    /// The handshake.
    Handshake,
    /// The server wants the address proven.
    Retry,
}

/// Where a packet with a long header lies in its datagram.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LongHeader {
    /// What it is.
    pub kind: Long,
    /// To which id.
    pub to: Id,
    /// By which id the sender wants to be called.
    pub from: Id,
    /// Bytes before the packet number.
    pub number_at: usize,
    /// Bytes of the packet.
    pub bytes: usize,
}

/// Whether a datagram begins with a long header.
pub fn is_long(datagram: &[u8]) -> bool {
    datagram.first().is_some_and(|first| first & 0x80 != 0)
}

/// The long header at the front of a datagram; `None` if it is none of version 1.
pub fn long(datagram: &[u8]) -> Option<LongHeader> {
    let mut reader = Bytes::new(datagram);
    let first = reader.byte()?;
    // The second bit may be anything (RFC 9287), and quinn makes use of that.
    if first & 0x80 == 0 || reader.number(4)? as u32 != VERSION_1 {
        return None;
    }
    let to = Id::new(reader.vector(1)?)?;
    let from = Id::new(reader.vector(1)?)?;
    let kind = match first >> 4 & 3 {
        0 => Long::Initial,
        1 => Long::Early,
        2 => Long::Handshake,
        _ => {
            let bytes = datagram.len();
            return Some(LongHeader { kind: Long::Retry, to, from, number_at: bytes, bytes });
        }
    };
    if kind == Long::Initial {
        reader.counted()?; // the token
    }
    let length = usize::try_from(reader.varint()?).ok()?;
    let number_at = datagram.len() - reader.rest().len();
    let bytes = number_at.checked_add(length)?;
    (bytes <= datagram.len()).then_some(LongHeader { kind, to, from, number_at, bytes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_that_is_cut_or_lies_is_none() {
        let mut packet = vec![0xc3, 0, 0, 0, 1, 2, 7, 8, 1, 9, 0, 5];
        packet.extend([0; 5]);
        let header = long(&packet).unwrap();
        assert_eq!((header.kind, header.number_at, header.bytes), (Long::Initial, 12, 17));
        assert_eq!((header.to.as_bytes(), header.from.as_bytes()), (&[7, 8][..], &[9][..]));
        for cut in 0..packet.len() {
            assert_eq!(long(&packet[..cut]), None);
        }
        packet[0] ^= 0x40;
        assert_eq!(long(&packet).map(|header| header.kind), Some(Long::Initial), "greased");
        packet[4] = 2;
        assert_eq!(long(&packet), None, "another version");
        packet[4] = 1;
        packet[5] = 21;
        packet.resize(64, 0);
        assert_eq!(long(&packet), None, "too long an id");
    }
}
