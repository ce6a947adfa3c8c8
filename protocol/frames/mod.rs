//! The fixed part of each frame, one struct a kind, read in place.
//!
//! Each struct is `repr(C)` of unaligned little-endian fields, so its size is the sum of its
//! fields and no byte is padding; `wire_struct!` checks size and offsets at compile time and keeps
//! the list of fields, from which [`layout`] tells decoders and SPEC.md what a payload holds.

mod blocks;
mod groups;
mod history;
mod layout;
mod messages;
mod reading;
mod receipts;
mod session;

pub use blocks::{Block, BlockList, BlockPage, Blocked, block};
pub use groups::{Change, GroupInfo, GroupMember, GroupPage, action, role, settings};
pub use history::{ChannelsShown, HistoryAsk, HistoryEntry, HistoryPage, HistoryWanted};
pub use layout::{Field, Layout, Tail, layout};
pub use messages::{PushBody, Send, SendAck, SendRefused, content_type, message_kind};
pub use reading::{ChannelState, Cursor, Fetch, Gap};
pub use receipts::{Mark, Marks, MarksAsk, ReadMark, Receipts, ReceiptsAsk, UnreadCount};
pub use session::{
    AskCursors, Close, ErrorHead, Hello, Identity, LoggedIn, Login, Network, Ping, Pong, Resume,
    TokenLogin, Welcome, capabilities,
};

/// Declares a struct of the wire: the size that SPEC.md gives it, and for each field the byte at
/// which it stands. Both are checked against what the compiler laid out.
macro_rules! wire_struct {
    (
        $(#[$doc:meta])* $name:ident, $bytes:literal {
            $($(#[doc = $field_doc:literal])* @$at:literal $field:ident: $type:ty,)*
        }
    ) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, PartialEq, Eq, Debug, zerocopy::FromBytes, zerocopy::IntoBytes,
            zerocopy::KnownLayout, zerocopy::Immutable, zerocopy::Unaligned,
        )]
        #[repr(C)]
        pub struct $name { $($(#[doc = $field_doc])* pub $field: $type,)* }

        const _: () = {
            assert!(core::mem::size_of::<$name>() == $bytes);
            assert!(core::mem::align_of::<$name>() == 1);
            $(assert!(core::mem::offset_of!($name, $field) == $at);)*
        };

        impl $name {
            /// The fields in the order of the wire, for decoders and documents.
            pub const FIELDS: &'static [$crate::frames::Field] = &[$($crate::frames::Field {
                name: stringify!($field),
                at: core::mem::offset_of!($name, $field),
                bytes: core::mem::size_of::<$type>(),
                text: concat!($($field_doc),*),
            },)*];
        }
    };
}
pub(crate) use wire_struct;
