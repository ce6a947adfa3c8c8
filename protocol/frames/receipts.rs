//! Frames of reading on: how far users have got in a channel, and how much is unread.

use zerocopy::little_endian::{U16, U32, U64};

use super::wire_struct;
use crate::ids::ChannelId;

wire_struct!(
    /// One entry of READ, which holds nothing else, as many as the payload has room for: the user
    /// has read everything up to `id`.
    ReadMark, 32 {
        /// The channel.
        @0 channel: ChannelId,
        /// The newest id read.
        @16 id: U64,
        /// The incarnation under which it was.
        @24 incarnation: U32,
        /// 1 if only the user's own devices are to know; 0 if who sent the messages may, too.
        @28 quiet: u8,
        /// Zero; ignored.
        @29 reserved: [u8; 3],
    }
);

wire_struct!(
    /// MARKS_ASK: asks for the marks that changed after an earlier answer, and from then on for
    /// each that changes.
    MarksAsk, 16 {
        /// `life` of the newest MARKS with the flag LAST; 0 if there was none.
        @0 life: U64,
        /// `as_of` of the same frame; 0 as for it.
        @8 since: U64,
    }
);

wire_struct!(
    /// The fixed part of MARKS; [`Mark`]s follow to the end.
    Marks, 16 {
        /// Names the life of the server's numbers; 0 in a frame that answers nothing.
        @0 life: U64,
        /// The changes that are told are those up to this number; 0 as for `life`.
        @8 as_of: U64,
    }
);

wire_struct!(
    /// How far a user has got in a channel, in MARKS.
    Mark, 48 {
        /// The channel.
        @0 channel: ChannelId,
        /// Who: the user that is told, or the other one of a direct channel.
        @16 uin: U64,
        /// Some device of his has consumed everything up to this id; 0 is none.
        @24 delivered: U64,
        /// He has read everything up to this id; 0 is none. Not above `delivered`.
        @32 read: U64,
        /// The incarnation of both.
        @40 incarnation: U32,
        /// Zero; ignored.
        @44 reserved: U32,
    }
);

wire_struct!(
    /// RECEIPTS_ASK: how many members of a group have a message?
    ReceiptsAsk, 24 {
        /// The group.
        @0 channel: ChannelId,
        /// The message.
        @16 id: U64,
    }
);

wire_struct!(
    /// RECEIPTS: answers RECEIPTS_ASK. Who asks is not counted.
    Receipts, 40 {
        /// The group.
        @0 channel: ChannelId,
        /// The message.
        @16 id: U64,
        /// How many members there are.
        @24 members: U32,
        /// To how many of them it was delivered, as far as the server knows.
        @28 delivered: U32,
        /// How many of these have read it and let others know.
        @32 read: U32,
        /// Zero; ignored.
        @36 reserved: U32,
    }
);

wire_struct!(
    /// One entry of UNREAD, which holds nothing else: answers one of UNREAD_ASK.
    UnreadCount, 40 {
        /// The channel.
        @0 channel: ChannelId,
        /// That of the question: what comes behind it is counted.
        @16 after: U64,
        /// Up to this id it was counted: the newest that can be read.
        @24 newest: U64,
        /// Messages that are neither the user's own nor changes.
        @32 count: U16,
        /// 0, or why nothing was counted: `NOT_GRANTED`.
        @34 code: U16,
        /// 1 if there are more than `count`, or may be; else 0.
        @36 more: u8,
        /// Zero; ignored.
        @37 reserved: [u8; 3],
    }
);
