//! How far a user has got in a channel, and what workers and shards say to each other about it.
//!
//! All of it is cumulative, so of two pieces of news about the same user and channel the greater
//! ids stand for both: mail that has no room is merged, and mail that is lost is made good by the
//! next.

use bytes::Bytes;
use tern_protocol::{ChannelId, Code, Incarnation, MessageId, Uin};

use crate::mail::{Device, Grant, SessionRef, WhenFull};
use crate::placement::ShardId;

/// Up to which ids a user has got in a channel. `shown <= read <= delivered`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Progress {
    /// Life of the history that the ids belong to; 0 if it is not known.
    pub incarnation: Incarnation,
    /// Some device of the user has consumed everything up to here.
    pub delivered: MessageId,
    /// The user has read everything up to here.
    pub read: MessageId,
    /// Of that, what others may know.
    pub shown: MessageId,
}

/// What is new after a [`Progress`] took in another.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Moved {
    /// More was delivered.
    pub delivered: bool,
    /// More was read.
    pub read: bool,
    /// More of that may be known to others.
    pub shown: bool,
}

impl Progress {
    /// A device has consumed everything up to `id`.
    pub fn delivered(id: MessageId, incarnation: Incarnation) -> Self {
        Self { incarnation, delivered: id, ..Self::default() }
    }

    /// The user has read everything up to `id`; if `quiet`, others are not to know.
    pub fn read(id: MessageId, incarnation: Incarnation, quiet: bool) -> Self {
        let shown = if quiet { MessageId(0) } else { id };
        Self { incarnation, delivered: id, read: id, shown }
    }

    /// What of it holds under this grant: nothing behind what may be read, and of another life of
    /// the history nothing from where that restarted.
    pub fn within(self, grant: &Grant) -> Self {
        let last = match self.incarnation == grant.incarnation {
            true => grant.to,
            false => grant.to.min(MessageId(grant.restarted_at.0.saturating_sub(1))),
        };
        Self {
            incarnation: grant.incarnation,
            delivered: self.delivered.min(last),
            read: self.read.min(last),
            shown: self.shown.min(last),
        }
    }

    /// What others may know of it.
    pub fn for_others(self) -> Self {
        Self { read: self.shown, ..self }
    }

    /// Takes in what another says, of the same life or of a later one.
    pub fn merge(&mut self, other: Self) -> Moved {
        if other.incarnation != self.incarnation {
            let before = std::mem::replace(self, other);
            return Moved {
                delivered: before.delivered != other.delivered,
                read: before.read != other.read,
                shown: before.shown != other.shown,
            };
        }
        let take = |own: &mut MessageId, other: MessageId| {
            let is_more = *own < other;
            *own = other.max(*own);
            is_more
        };
        Moved {
            delivered: take(&mut self.delivered, other.delivered),
            read: take(&mut self.read, other.read),
            shown: take(&mut self.shown, other.shown),
        }
    }
}

/// A mark as a device is told of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MarkOf {
    /// Where.
    pub channel: ChannelId,
    /// Whose.
    pub uin: Uin,
    /// How far.
    pub progress: Progress,
}

/// What a session asks for by MARKS_ASK, a page at a time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MarksQuestion {
    /// The session.
    pub from: SessionRef,
    /// Its device.
    pub device: Device,
    /// The life of the numbers that it knows.
    pub life: u64,
    /// The changes that it knows.
    pub since: u64,
    /// `as_of` of the first page, for those behind it.
    pub as_of: Option<u64>,
    /// The last channel of the page before; `None` for the first page.
    pub after: Option<ChannelId>,
}

/// Mail about how far users have got.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum MarksMail {
    /// A device of the user has got so far, or says so of its user. To the home shard.
    Seen {
        /// Whose.
        uin: Uin,
        /// Where.
        channel: ChannelId,
        /// How far.
        progress: Progress,
    },
    /// The same of some channels, said once as a session begins.
    SeenAll {
        /// Whose.
        uin: Uin,
        /// Where, and how far.
        list: Vec<(ChannelId, Progress)>,
    },
    /// A user has got so far in a direct channel, and the other one may know it. From his home
    /// shard to the channel's, which knows whether he blocks the other.
    TellPeer {
        /// Who has.
        whose: Uin,
        /// Where.
        channel: ChannelId,
        /// How far, as he lets others know.
        progress: Progress,
    },
    /// The other user of a direct channel has got so far. From the channel's shard to the home
    /// shard of the one who is told.
    PeerSeen {
        /// Who has.
        whose: Uin,
        /// Where.
        channel: ChannelId,
        /// How far, as he lets others know.
        progress: Progress,
    },
    /// A mark moved that this session wants to know. From the home shard.
    Mark {
        /// The session.
        to: SessionRef,
        /// The mark.
        mark: MarkOf,
    },
    /// A session asks for all marks of its user, and to be told of each that moves from then on.
    /// To the home shard.
    Ask(MarksQuestion),
    /// Answers `Ask` with a page.
    Page {
        /// The question, with the channel behind which the next page begins.
        next: MarksQuestion,
        /// Whether there is a next page.
        more: bool,
        /// What changed.
        marks: Vec<MarkOf>,
    },
    /// How far have the others of these direct channels got? To their home shard.
    AskPeers {
        /// Who asks.
        from: ShardId,
        /// Its user, who is in all of them.
        uin: Uin,
        /// The channels.
        channels: Vec<ChannelId>,
    },
    /// Answers `AskPeers`, by way of the channels' shard as `TellPeer`.
    TellPeers {
        /// Who asked.
        to: ShardId,
        /// Where, who, and how far; all of them channels of the shard that it goes to.
        marks: Vec<MarkOf>,
    },
    /// The same, without those whom their user blocks.
    Peers {
        /// Where, who, and how far.
        marks: Vec<MarkOf>,
    },
    /// A member asks how many others have a message, to the group's shard.
    AskReceipts {
        /// Who gets the answer.
        from: SessionRef,
        /// Who asks.
        device: Device,
        /// The group.
        channel: ChannelId,
        /// The message.
        id: MessageId,
    },
    /// Answers `AskReceipts`.
    Receipts {
        /// The session that asked.
        to: SessionRef,
        /// The group.
        channel: ChannelId,
        /// A whole RECEIPTS frame, or why there is none.
        frame: Result<Bytes, Code>,
    },
    /// How many members at home there have a message? From the group's shard.
    Count(Question),
    /// Answers `Count`.
    Counted {
        /// The number of the question.
        number: u64,
        /// Who has counted.
        home: ShardId,
        /// How many have it.
        delivered: u32,
        /// How many have read it.
        read: u32,
    },
}

/// A question of a group's shard to a home shard.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Question {
    /// Who asks.
    pub from: ShardId,
    /// Names the question there.
    pub number: u64,
    /// The group.
    pub channel: ChannelId,
    /// The message.
    pub id: MessageId,
    /// Who is not counted.
    pub except: Uin,
}

/// What a hint is about: of two about the same one is enough.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Topic {
    Seen(Uin, ChannelId),
    TellPeer(Uin, ChannelId),
    PeerSeen(Uin, ChannelId),
    Mark(SessionRef, ChannelId, Uin),
}

impl MarksMail {
    /// What becomes of it when the mailbox of the other worker is full.
    pub fn when_full(&self) -> WhenFull {
        match self {
            Self::AskReceipts { .. } => WhenFull::Refuse,
            Self::Seen { .. }
            | Self::TellPeer { .. }
            | Self::PeerSeen { .. }
            | Self::Mark { .. } => WhenFull::Coalesce,
            Self::SeenAll { .. }
            | Self::Ask(_)
            | Self::Page { .. }
            | Self::AskPeers { .. }
            | Self::TellPeers { .. }
            | Self::Peers { .. }
            | Self::Receipts { .. }
            | Self::Count(_)
            | Self::Counted { .. } => WhenFull::Wait,
        }
    }

    /// Of a hint, what it is about and what it says.
    pub(crate) fn as_hint(&mut self) -> Option<(Topic, &mut Progress)> {
        match self {
            Self::Seen { uin, channel, progress } => Some((Topic::Seen(*uin, *channel), progress)),
            Self::TellPeer { whose, channel, progress } => {
                Some((Topic::TellPeer(*whose, *channel), progress))
            }
            Self::PeerSeen { whose, channel, progress } => {
                Some((Topic::PeerSeen(*whose, *channel), progress))
            }
            Self::Mark { to, mark } => {
                Some((Topic::Mark(*to, mark.channel, mark.uin), &mut mark.progress))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress(incarnation: u32, ids: [u64; 3]) -> Progress {
        let [delivered, read, shown] = ids.map(MessageId);
        Progress { incarnation: Incarnation(incarnation), delivered, read, shown }
    }

    #[test]
    fn of_one_life_the_greater_ids_stay_and_a_later_life_replaces() {
        let mut own = progress(1, [9, 5, 2]);
        let moved = own.merge(progress(1, [7, 6, 2]));
        assert_eq!(own, progress(1, [9, 6, 2]));
        assert_eq!(moved, Moved { delivered: false, read: true, shown: false });
        let moved = own.merge(progress(2, [3, 3, 2]));
        assert_eq!(own, progress(2, [3, 3, 2]));
        assert_eq!(moved, Moved { delivered: true, read: true, shown: false });
        assert_eq!(own.for_others(), progress(2, [3, 2, 2]));
    }
}
