//! Frames of reading: where a device is in each channel, and what it can't have.

use zerocopy::little_endian::{U16, U32, U64};

use super::wire_struct;
use crate::ids::ChannelId;

wire_struct!(
    /// One entry of CURSORS and RECEIVE_ACK, which hold nothing else, as many as the payload has
    /// room for: everything up to `id` is consumed.
    Cursor, 32 {
        /// The channel.
        channel: ChannelId,
        /// The newest id consumed; 0 is none.
        id: U64,
        /// The incarnation under which it was; 0 if the client knows none.
        incarnation: U32,
        /// Zero; ignored.
        reserved: U32,
    }
);

wire_struct!(
    /// FETCH: asks for `from` to `to`, both included, once more.
    Fetch, 32 {
        /// The channel.
        channel: ChannelId,
        /// First id.
        from: U64,
        /// Last id.
        to: U64,
    }
);

wire_struct!(
    /// CHANNEL: said before the first push of a channel whose incarnation the client did not
    /// know, and when a cursor lies outside of what is there.
    ChannelState, 48 {
        /// The channel.
        channel: ChannelId,
        /// Life of its history.
        incarnation: U32,
        /// Zero; ignored.
        reserved: U32,
        /// Oldest id that can be read.
        oldest: U64,
        /// Newest id.
        newest: U64,
        /// A client of another incarnation forgets all ids from this one on: history restarted
        /// here.
        restarted_at: U64,
    }
);

wire_struct!(
    /// GAP: ids `from` to `to`, both included, never come.
    Gap, 40 {
        /// The channel.
        channel: ChannelId,
        /// First id.
        from: U64,
        /// Last id.
        to: U64,
        /// Why: `LOST`, `EXPIRED` or `NOT_VISIBLE`.
        code: U16,
        /// Zero; ignored.
        reserved: [u8; 6],
    }
);
