//! Frames of reading: where a device is in each channel, and what it can't have.

use zerocopy::little_endian::{U16, U32, U64};

use super::wire_struct;
use crate::ids::ChannelId;

wire_struct!(
    /// One entry of CURSORS and RECEIVE_ACK, which hold nothing else, as many as the payload has
    /// room for: everything up to `id` is consumed.
    Cursor, 32 {
        /// The channel.
        @0 channel: ChannelId,
        /// The newest id consumed; 0 is none.
        @16 id: U64,
        /// The incarnation under which it was; 0 if the client knows none.
        @24 incarnation: U32,
        /// Zero; ignored.
        @28 reserved: U32,
    }
);

wire_struct!(
    /// FETCH: asks for `from` to `to`, both included, once more.
    Fetch, 32 {
        /// The channel.
        @0 channel: ChannelId,
        /// First id.
        @16 from: U64,
        /// Last id.
        @24 to: U64,
    }
);

wire_struct!(
    /// CHANNEL: said before the first push of a channel whose incarnation the client did not
    /// know, and when a cursor lies outside of what is there.
    ChannelState, 48 {
        /// The channel.
        @0 channel: ChannelId,
        /// Life of its history.
        @16 incarnation: U32,
        /// Zero; ignored.
        @20 reserved: U32,
        /// Oldest id that can be read.
        @24 oldest: U64,
        /// Newest id.
        @32 newest: U64,
        /// A client of another incarnation forgets all ids from this one on: history restarted
        /// here.
        @40 restarted_at: U64,
    }
);

wire_struct!(
    /// GAP: ids `from` to `to`, both included, never come.
    Gap, 40 {
        /// The channel.
        @0 channel: ChannelId,
        /// First id.
        @16 from: U64,
        /// Last id.
        @24 to: U64,
        /// Why: `LOST`, `EXPIRED`, `NOT_VISIBLE` or `RECALLED`.
        @32 code: U16,
        /// Zero; ignored.
        @34 reserved: [u8; 6],
    }
);
