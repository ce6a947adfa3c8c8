//! The fixed part of each frame, one struct a kind, read in place.
//!
//! Each struct is `repr(C)` of unaligned little-endian fields, so its size is the sum of its
//! fields and no byte is padding; `wire_struct!` checks the size at compile time.

mod messages;
mod reading;
mod session;

pub use messages::{PushBody, Send, SendAck, SendRefused, content_type, message_kind};
pub use reading::{ChannelState, Cursor, Fetch, Gap};
pub use session::{
    Close, ErrorHead, Hello, LoggedIn, Login, Network, Ping, Pong, Resume, Welcome, capabilities,
};

/// Declares a struct of the wire and the size that SPEC.md gives it.
macro_rules! wire_struct {
    ($(#[$doc:meta])* $name:ident, $bytes:literal { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* }) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, PartialEq, Eq, Debug, zerocopy::FromBytes, zerocopy::IntoBytes,
            zerocopy::KnownLayout, zerocopy::Immutable, zerocopy::Unaligned,
        )]
        #[repr(C)]
        pub struct $name { $($(#[$field_doc])* pub $field: $type,)* }

        const _: () = assert!(core::mem::size_of::<$name>() == $bytes);
    };
}
pub(crate) use wire_struct;
