//! What each kind's payload holds, as data: capture decoders, fuzzers and SPEC.md read it.

use super::{
    AskCursors, Block, BlockList, BlockPage, Blocked, ChannelState, ChannelsShown, Close, Cursor,
    ErrorHead, Fetch, Gap, GroupInfo, GroupPage, Hello, HistoryAsk, HistoryPage, HistoryWanted,
    Identity, LoggedIn, Login, Marks, MarksAsk, Ping, Pong, PushBody, ReadMark, Receipts,
    ReceiptsAsk, Resume, Send, SendAck, SendRefused, TokenLogin, UnreadCount, Welcome,
};
use crate::registry::Kind;

/// One field of a fixed part.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Field {
    /// Its name in the code and in SPEC.md.
    pub name: &'static str,
    /// Bytes before it, from the start of the fixed part.
    pub at: usize,
    /// Its length in bytes; numbers are little-endian.
    pub bytes: usize,
    /// What it means, in the Markdown of the code's documentation.
    pub text: &'static str,
}

/// What stands behind the fixed part.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tail {
    /// Nothing.
    None,
    /// Bytes of this name to the end of the payload, possibly none.
    Bytes(&'static str),
    /// The fixed part again, as often as the payload has room for, possibly never.
    Repeat,
}

/// A payload: a fixed part and what stands behind it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Layout {
    /// The fields of the fixed part.
    pub fields: &'static [Field],
    /// What follows.
    pub tail: Tail,
}

impl Layout {
    /// Bytes of the fixed part.
    pub fn fixed_bytes(&self) -> usize {
        self.fields.last().map_or(0, |last| last.at + last.bytes)
    }

    /// Whether a payload of this many bytes fits.
    pub fn fits(&self, payload_bytes: usize) -> bool {
        match self.tail {
            Tail::None => payload_bytes == self.fixed_bytes(),
            Tail::Bytes(_) => payload_bytes >= self.fixed_bytes(),
            Tail::Repeat => payload_bytes.is_multiple_of(self.fixed_bytes()),
        }
    }
}

/// The payload of a kind; `None` for one that this version does not know.
pub fn layout(kind: Kind) -> Option<Layout> {
    let (fields, tail) = match kind {
        Kind::Hello => (Hello::FIELDS, Tail::None),
        Kind::Welcome => (Welcome::FIELDS, Tail::None),
        Kind::Login => (Login::FIELDS, Tail::None),
        Kind::TokenLogin => (TokenLogin::FIELDS, Tail::Bytes("token")),
        Kind::Identity => (Identity::FIELDS, Tail::None),
        Kind::Resume => (Resume::FIELDS, Tail::None),
        Kind::LoggedIn => (LoggedIn::FIELDS, Tail::None),
        Kind::Cursors | Kind::ReceiveAck | Kind::UnreadAsk => (Cursor::FIELDS, Tail::Repeat),
        Kind::Send => (Send::FIELDS, Tail::Bytes("content")),
        Kind::SendAck => (SendAck::FIELDS, Tail::None),
        Kind::SendRefused => (SendRefused::FIELDS, Tail::None),
        Kind::Push => (PushBody::FIELDS, Tail::Bytes("content")),
        Kind::Fetch => (Fetch::FIELDS, Tail::None),
        Kind::Channel => (ChannelState::FIELDS, Tail::None),
        Kind::Gap => (Gap::FIELDS, Tail::None),
        Kind::GroupInfo => (GroupInfo::FIELDS, Tail::None),
        Kind::GroupPage => (GroupPage::FIELDS, Tail::Bytes("name and members")),
        Kind::Ping => (Ping::FIELDS, Tail::None),
        Kind::Pong => (Pong::FIELDS, Tail::None),
        Kind::AskCursors => (AskCursors::FIELDS, Tail::None),
        Kind::Block => (Block::FIELDS, Tail::None),
        Kind::Blocked => (Blocked::FIELDS, Tail::None),
        Kind::BlockList => (BlockList::FIELDS, Tail::None),
        Kind::BlockPage => (BlockPage::FIELDS, Tail::Bytes("uins")),
        Kind::HistoryAsk => (HistoryAsk::FIELDS, Tail::None),
        Kind::History => (HistoryPage::FIELDS, Tail::Bytes("entries")),
        Kind::HistoryWanted => (HistoryWanted::FIELDS, Tail::None),
        Kind::ChannelsShown => (ChannelsShown::FIELDS, Tail::None),
        Kind::Read => (ReadMark::FIELDS, Tail::Repeat),
        Kind::MarksAsk => (MarksAsk::FIELDS, Tail::None),
        Kind::Marks => (Marks::FIELDS, Tail::Bytes("marks")),
        Kind::ReceiptsAsk => (ReceiptsAsk::FIELDS, Tail::None),
        Kind::Receipts => (Receipts::FIELDS, Tail::None),
        Kind::Unread => (UnreadCount::FIELDS, Tail::Repeat),
        Kind::Error => (ErrorHead::FIELDS, Tail::Bytes("text")),
        Kind::Close => (Close::FIELDS, Tail::Bytes("text")),
        _ => return None,
    };
    Some(Layout { fields, tail })
}
