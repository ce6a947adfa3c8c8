//! The words for looking back in a channel.

use tern_protocol::{ChannelId, Code, Incarnation, MessageId};

use crate::machine::Message;

/// A page of a channel, as the server tells it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HistoryPage {
    /// The channel.
    pub channel: ChannelId,
    /// Life of its history.
    pub incarnation: Incarnation,
    /// What it says, in the order of the ids; empty if nothing of what was asked for is there.
    pub items: Vec<HistoryItem>,
    /// The first id that the items speak of; the page before this one ends below it.
    pub from: MessageId,
    /// The oldest id that this user can read; above `newest` if there is none.
    pub oldest: MessageId,
    /// The newest one.
    pub newest: MessageId,
    /// Whether nothing older can be read.
    pub is_last: bool,
    /// Why nothing before `oldest` can be read: `EXPIRED` if the history is truncated by
    /// retention, `NOT_VISIBLE` if it is not for this user. `None` if it is all there.
    pub cut: Option<Code>,
}

/// What stands at an id of a channel, or at some.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum HistoryItem {
    /// A message.
    Message(Message),
    /// These ids can't be read.
    Gap {
        /// First id.
        from: MessageId,
        /// Last id.
        to: MessageId,
        /// Why: `LOST` or `RECALLED`.
        code: Code,
    },
}

/// How far a new device is with the channels that its user had before it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Newcomer {
    /// Nothing is stored of that: it takes everything, or has not begun.
    #[default]
    Unknown,
    /// It wants so many of the newest messages of each, and has not been shown all of them.
    Wants(u32),
    /// It was shown all of them; what comes since is no history.
    Settled,
}
