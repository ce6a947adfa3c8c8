//! A digest of the cursors of a device: 8 bytes that are the same on both sides while both hold
//! the same list, whatever order it grew in. SPEC.md §4.10.
//!
//! It is a sum of one term per cursor, so a cursor that moves costs two terms, and a list that
//! stays costs nothing. It finds what was lost or forgotten; it is no protection against somebody
//! who looks for two lists with one sum: the only one who could is the device itself.

use crate::ids::{ChannelId, Incarnation, MessageId};

/// The digest of a list of cursors.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CursorDigest(u64);

/// What stands on the wire where no digest is said.
pub const UNSAID: u64 = 0;

impl CursorDigest {
    /// A channel has this cursor now. One of 0 is as good as none and changes nothing.
    pub fn add(&mut self, channel: ChannelId, id: MessageId, incarnation: Incarnation) {
        self.0 = self.0.wrapping_add(term(channel, id, incarnation));
    }

    /// A channel does not have this cursor any more.
    pub fn remove(&mut self, channel: ChannelId, id: MessageId, incarnation: Incarnation) {
        self.0 = self.0.wrapping_sub(term(channel, id, incarnation));
    }

    /// As it stands on the wire: never [`UNSAID`].
    pub fn to_wire(self) -> u64 {
        self.0.max(1)
    }
}

fn term(channel: ChannelId, id: MessageId, incarnation: Incarnation) -> u64 {
    if id.0 == 0 {
        return 0;
    }
    let (low, high) = channel.parts();
    let channel = mix(mix(low) ^ high);
    mix(mix(channel ^ id.0) ^ u64::from(incarnation.0))
}

/// The step of SplitMix64 (Steele, Lea, Flood 2014).
pub(crate) fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}
