//! The words for how far users have got: what applications ask and are told.

use tern_protocol::frames::{Receipts, UnreadCount};
use tern_protocol::{ChannelId, Code, MessageId, Uin};

/// How far the other user of a direct channel has got.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Receipt {
    /// The channel.
    pub channel: ChannelId,
    /// Who.
    pub uin: Uin,
    /// Some device of his has everything up to this message; 0 is none.
    pub delivered: MessageId,
    /// He has read everything up to this message, as far as he lets others know; 0 is none.
    pub read: MessageId,
}

/// How many of a group's members have a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GroupReceipts {
    /// How many members there are besides this user.
    pub members: u32,
    /// How many of them have it, as far as the server knows.
    pub delivered: u32,
    /// How many of these have read it and let others know.
    pub read: u32,
}

impl From<&Receipts> for GroupReceipts {
    fn from(counts: &Receipts) -> Self {
        Self {
            members: counts.members.get(),
            delivered: counts.delivered.get(),
            read: counts.read.get(),
        }
    }
}

/// How much of a channel is unread.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Unread {
    /// The channel.
    pub channel: ChannelId,
    /// What comes behind this message was counted: the user's mark.
    pub after: MessageId,
    /// Up to this message it was counted: the newest there is.
    pub newest: MessageId,
    /// Messages of others, without changes of a group and what was recalled; at most
    /// [`tern_protocol::limits::UNREAD_COUNT_MAX`].
    pub count: u16,
    /// Whether there are more, or may be.
    pub more: bool,
    /// Why nothing was counted, if so.
    pub refused: Option<Code>,
}

impl From<&UnreadCount> for Unread {
    fn from(count: &UnreadCount) -> Self {
        let code = Code(count.code.get());
        Self {
            channel: count.channel,
            after: count.after.into(),
            newest: count.newest.into(),
            count: count.count.get(),
            more: count.more != 0,
            refused: (code.0 != 0).then_some(code),
        }
    }
}

/// Which channels to count.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Which {
    /// These, at most [`tern_protocol::limits::UNREAD_CHANNELS_MAX`].
    These(Vec<ChannelId>),
    /// As many of all as one question may name, in the order of their ids, behind this one.
    After(Option<ChannelId>),
}
