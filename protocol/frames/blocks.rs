//! Structs of blocks: whom a user takes no messages from.

use zerocopy::little_endian::{U16, U32, U64};

use super::wire_struct;

/// What is asked for, in [`Block::action`] and [`Blocked::action`].
pub mod block {
    /// Messages of the user are taken no more.
    pub const BEGIN: u8 = 1;
    /// They are taken again.
    pub const END: u8 = 2;
}

wire_struct!(
    /// BLOCK: begins or ends a block. Asked for twice it is answered twice, and done once.
    Block, 16 {
        /// Whom.
        @0 uin: U64,
        /// See [`block`].
        @8 action: u8,
        /// Zero; ignored.
        @9 reserved: [u8; 7],
    }
);

wire_struct!(
    /// BLOCKED: answers BLOCK.
    Blocked, 16 {
        /// Whom.
        @0 uin: U64,
        /// That of the BLOCK.
        @8 action: u8,
        /// Zero; ignored.
        @9 reserved: u8,
        /// 0 if it is done, durably; else why not, see [`crate::Code`].
        @10 code: U16,
        /// Milliseconds to wait before it is asked again, for codes of class retry.
        @12 retry_after_ms: U32,
    }
);

wire_struct!(
    /// BLOCK_LIST: asks for the users that this one has blocked.
    BlockList, 8 {
        /// The page begins with the first of them above this uin; 0 for the first page.
        @0 after: U64,
    }
);

wire_struct!(
    /// The fixed part of BLOCK_PAGE; the uins follow, 8 bytes each, in ascending order.
    BlockPage, 8 {
        /// That of the BLOCK_LIST.
        @0 after: U64,
    }
);
