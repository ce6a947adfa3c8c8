//! The four bytes before every frame.
//!
//! ```text
//!   0        1        2        3        4
//!   +--------+--------+--------+--------+
//!   | payload bytes   |  kind  | flags  |
//!   +--------+--------+--------+--------+
//! ```

use core::mem::size_of;

use zerocopy::little_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Bytes of a [`Header`].
pub const HEADER_BYTES: usize = 4;

/// A frame's header, read in place.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct Header {
    /// Bytes that follow the header.
    pub payload_bytes: U16,
    /// A [`crate::Kind`], or a number this version does not know.
    pub kind: u8,
    /// See [`Flags`].
    pub flags: u8,
}

const _: () = assert!(size_of::<Header>() == HEADER_BYTES);

/// The flags of a header, with those that this version does not know kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Flags(pub u8);

impl Flags {
    /// No flag.
    pub const NONE: Self = Self(0);
    /// The last frame of a list that spans several (CURSORS).
    pub const LAST: Self = Self(1);
    /// Every flag that this version knows.
    pub const KNOWN: Self = Self(1);

    /// Whether all flags of `other` are set.
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether a flag is set that this version does not know.
    pub const fn has_unknown(self) -> bool {
        self.0 & !Self::KNOWN.0 != 0
    }
}

impl Header {
    /// The header at the start of `bytes`, or `None` while fewer than four have come.
    pub fn peek(bytes: &[u8]) -> Option<Self> {
        Self::read_from_prefix(bytes).ok().map(|(header, _)| header)
    }

    /// Bytes of the whole frame.
    pub fn frame_bytes(&self) -> usize {
        HEADER_BYTES + usize::from(self.payload_bytes.get())
    }
}
