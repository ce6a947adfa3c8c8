//! What of a log is lost, and what follows from it.
//!
//! A message whose header is whole is lost alone: readers step over it and the log goes on. What
//! may have held state (epochs, entries, or what can't be told) stops the log from taking
//! anything, until an operator accepts the loss: a counter that goes back would give ids twice.

use std::fmt;
use std::path::PathBuf;

use tern_core::log::{Links, RecordKind};
use tern_protocol::{ChannelId, MessageId};

use crate::header::SEGMENT_HEADER_BYTES;

/// Messages that the text of one loss names.
const NAMED_MAX: usize = 8;

/// A part of the log that was durable and can't be read any more.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Loss {
    /// The segment's file, or where it should be.
    pub path: PathBuf,
    /// The segment's number.
    pub segment: u64,
    /// Offset where the loss begins.
    pub at: u64,
    /// Offset behind it.
    pub to: u64,
    /// What it was.
    pub what: Lost,
    /// Messages that it is known to hold, by later records that point to them: offset, channel
    /// and id, by growing offset. There may be more.
    pub messages: Vec<(u64, ChannelId, MessageId)>,
    /// Whether the log takes nothing because of it.
    pub stops: bool,
    /// Whether an operator has accepted it.
    pub accepted: bool,
}

/// What was lost.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Lost {
    /// One message; its header is whole.
    Message(Links),
    /// One mark of storage's own: nothing that anybody misses.
    Mark,
    /// One change of a group, which is a message and state; its header is whole.
    Change(Links),
    /// One recall, which is a message and state; its header is whole.
    Recall(Links),
    /// What one user had read meanwhile; its header is whole. Read markers may go back.
    Read,
    /// One record of other state; its header is whole.
    State(RecordKind),
    /// Records of which nothing can be told.
    Unproven,
    /// A whole segment, for this reason.
    Segment(String),
    /// A whole segment whose state a checkpoint has: only messages.
    Covered(String),
}

impl Lost {
    /// Whether it may have held state.
    pub(crate) fn may_be_state(&self) -> bool {
        match self {
            Self::Message(_) | Self::Mark | Self::Read | Self::Covered(_) => false,
            Self::Change(_)
            | Self::Recall(_)
            | Self::State(_)
            | Self::Unproven
            | Self::Segment(_) => true,
        }
    }
}

impl Loss {
    /// The first offset at which a record can have been: the log's first page is a header, and
    /// offset 0 stands for no record.
    pub(crate) fn first(&self) -> u64 {
        self.at.max(SEGMENT_HEADER_BYTES as u64)
    }

    /// Whether a replay is told of it, and then the links of what was lost, as far as known.
    /// Nobody misses a mark, what was read may go back, and of what a checkpoint covers the state is known.
    pub(crate) fn told(&self) -> Option<Option<Links>> {
        match &self.what {
            _ if self.at >= self.to => None,
            Lost::Mark | Lost::Read | Lost::Covered(_) => None,
            Lost::Message(links) | Lost::Change(links) | Lost::Recall(links) => Some(Some(*links)),
            Lost::State(_) | Lost::Unproven | Lost::Segment(_) => Some(None),
        }
    }
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.what {
            Lost::Message(_) => f.write_str("a message")?,
            Lost::Change(_) => f.write_str("a change of a group")?,
            Lost::Recall(_) => f.write_str("a recall of a message")?,
            Lost::Mark => f.write_str("a mark of the log's own, which nobody misses,")?,
            Lost::Read => f.write_str("what a user had read, which he can say again,")?,
            Lost::State(RecordKind::Epoch) => f.write_str("the epoch of a login")?,
            Lost::State(RecordKind::Block) => f.write_str("a block of a user by another")?,
            Lost::State(_) => f.write_str("a user's entry into a channel")?,
            Lost::Unproven => f.write_str("records of which nothing can be told")?,
            Lost::Segment(why) => write!(f, "a whole segment ({why})")?,
            Lost::Covered(why) => write!(f, "messages of a whole segment ({why})")?,
        }
        let Self { path, at, to, .. } = self;
        write!(f, " at offsets {at} to {to} in {}", path.display())?;
        let named = self.messages.iter().take(NAMED_MAX);
        for (index, (_, channel, id)) in named.enumerate() {
            let before = if index == 0 { ": " } else { ", " };
            write!(f, "{before}message {id} of {channel}")?;
        }
        match self.messages.len().saturating_sub(NAMED_MAX) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}
