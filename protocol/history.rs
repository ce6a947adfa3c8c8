//! Pages of a channel: the entries of HISTORY, read from its bytes.

use zerocopy::FromBytes;

use crate::frames::{HistoryEntry, PushBody};
use crate::registry::Code;

/// One entry of HISTORY, borrowed from the frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Entry<'a> {
    /// The next id is this message.
    Message(&'a PushBody, &'a [u8]),
    /// So many ids, at least one, can't be read, and why.
    Gap {
        /// How many.
        ids: u32,
        /// Why.
        code: Code,
    },
}

/// The first of the entries that these bytes are, and the bytes behind it; `None` if they are no
/// entry.
pub fn split_entry(bytes: &[u8]) -> Option<(Entry<'_>, &[u8])> {
    let (head, rest) = HistoryEntry::ref_from_prefix(bytes).ok()?;
    let (message, rest) = rest.split_at_checked(usize::from(head.bytes.get()))?;
    let entry = match (head.ids.get(), head.code.get()) {
        (1, 0) => {
            let (body, content) = PushBody::ref_from_prefix(message).ok()?;
            Entry::Message(body, content)
        }
        (ids @ 1.., code @ 1..) if message.is_empty() => Entry::Gap { ids, code: Code(code) },
        _ => return None,
    };
    Some((entry, rest))
}
