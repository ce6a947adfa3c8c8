//! Frames of looking back: pages of a channel from its newest message on, and how much of its
//! channels a new device wants.

use zerocopy::little_endian::{U16, U32, U64};

use super::wire_struct;
use crate::ids::ChannelId;

wire_struct!(
    /// HISTORY_ASK: the newest messages of a channel below an id.
    HistoryAsk, 32 {
        /// The channel.
        @0 channel: ChannelId,
        /// Only ids below this one; 0 for the newest.
        @16 before: U64,
        /// How many ids at most; the server may tell fewer.
        @24 limit: U32,
        /// Zero; ignored.
        @28 reserved: U32,
    }
);

wire_struct!(
    /// The fixed part of HISTORY; its entries follow to the end, in the order of their ids.
    HistoryPage, 64 {
        /// The channel.
        @0 channel: ChannelId,
        /// That of the question.
        @16 before: U64,
        /// The first id that the entries speak of.
        @24 from: U64,
        /// The last one; `from` - 1 if there is no entry.
        @32 to: U64,
        /// The oldest id that this user can read; above `newest` if there is none.
        @40 oldest: U64,
        /// The newest one.
        @48 newest: U64,
        /// Life of the channel's history.
        @56 incarnation: U32,
        /// Why nothing before `oldest` can be read: `EXPIRED` or `NOT_VISIBLE`; 0 if it is the
        /// first.
        @60 code: U16,
        /// Zero; ignored.
        @62 reserved: U16,
    }
);

wire_struct!(
    /// What stands before each entry of HISTORY.
    HistoryEntry, 8 {
        /// How many ids it speaks of; 1 for a message.
        @0 ids: U32,
        /// Bytes of the message that follows, as in PUSH; 0 for a gap.
        @4 bytes: U16,
        /// 0 for a message; else why these ids can't be read: `LOST` or `RECALLED`.
        @6 code: U16,
    }
);

wire_struct!(
    /// HISTORY_WANTED: what a new device wants of each channel that it does not name.
    HistoryWanted, 8 {
        /// So many of the newest messages.
        @0 newest: U32,
        /// Zero; ignored.
        @4 reserved: U32,
    }
);

wire_struct!(
    /// CHANNELS_SHOWN: from now on new channels are delivered from their first message on.
    ChannelsShown, 8 {
        /// How many channels were shown.
        @0 channels: U32,
        /// Zero; ignored.
        @4 reserved: U32,
    }
);
