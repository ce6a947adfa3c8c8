//! The door to a shard's log: what the machine asks of storage, and the proof it gets back.
//!
//! A log is a sequence of records at growing offsets. Appending touches memory only; a commit
//! makes everything appended so far durable, elsewhere and later; the proof of that is
//! [`Durable`], and it is the only thing an ack can be built from.

use tern_protocol::{ChannelId, MessageId};

use crate::placement::ShardId;

/// Place of a record in its shard's log, in bytes; it never leaves the node. 0 is "no record".
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Offset(pub u64);

impl Offset {
    /// No record.
    pub const NONE: Self = Self(0);

    /// The record, if there is one.
    pub fn some(self) -> Option<Self> {
        (self != Self::NONE).then_some(self)
    }
}

/// What a record is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum RecordKind {
    /// A message: a `tern_protocol` push body and the content.
    Message = 1,
    /// A login granted an epoch: [`crate::shard::records::EpochBody`].
    Epoch = 2,
    /// A uin's first entry into a channel: [`crate::shard::records::EntryBody`].
    Entry = 3,
    /// A change of a group: the same as a message of its channel, and state of its shard.
    Change = 4,
    /// A recall of a message: the same as a message of its channel, and state of its shard.
    Recall = 5,
    /// A user blocks another, or does so no more: [`crate::shard::records::BlockBody`].
    Block = 6,
    /// What a user has read: [`crate::shard::records::MarksHead`] and its entries.
    Read = 7,
}

impl RecordKind {
    /// From the number on disk.
    pub fn from_disk(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Message),
            2 => Some(Self::Epoch),
            3 => Some(Self::Entry),
            4 => Some(Self::Change),
            5 => Some(Self::Recall),
            6 => Some(Self::Block),
            7 => Some(Self::Read),
            _ => None,
        }
    }

    /// Whether such a record stands in a channel, with an id and links: its body is a push body.
    pub fn is_in_channel(self) -> bool {
        matches!(self, Self::Message | Self::Change | Self::Recall)
    }
}

/// Offsets of older records that a record points to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Links {
    /// The previous message of the channel.
    pub channel: Offset,
    /// The previous message of the same {uin, device} in this shard.
    pub device: Offset,
    /// The message of the channel whose id is this one's with its lowest set bit cleared.
    pub skip: Offset,
}

/// A record, borrowed from the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Record<'a> {
    /// What it is.
    pub kind: RecordKind,
    /// What it points to.
    pub links: Links,
    /// Its body; of a message, the push body and the content, byte for byte as on the wire.
    pub body: &'a [u8],
}

/// Proof that everything in a shard's log before an offset is durable.
///
/// Acks, grants and pushes are built only from it, so that their order after the commit holds by
/// compilation. Only a log makes one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Durable {
    end: Offset,
}

impl Durable {
    /// States that everything before `end` is synced. For implementations of [`Log`] only, where
    /// the sync returned; a test holds who calls it.
    pub fn assert_synced(end: Offset) -> Self {
        Self { end }
    }

    /// Whether the record at `at` is durable.
    pub fn covers(&self, at: Offset) -> bool {
        at < self.end
    }

    /// Everything before this offset is durable.
    pub fn end(&self) -> Offset {
        self.end
    }
}

/// Why a record was not appended. Nothing was changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AppendError {
    /// The disk, or the space allowed on it, is full.
    Full,
    /// The next segment is not prepared yet, or too much awaits the sync: try again soon.
    Busy,
    /// A sync failed; this log takes nothing any more.
    Failed,
}

/// Why a record can't be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReadError {
    /// Not in memory: reading it here would wait for the disk. Ask for [`crate::io::Effect::Warm`].
    Cold,
    /// Damaged on disk. What it pointed to, as far as that can still be told: without a link to
    /// the channel's previous message everything older in it is out of reach too.
    Lost(Links),
    /// Past its retention.
    Expired,
}

impl ReadError {
    /// Damaged on disk, and nothing is known of it.
    pub const LOST: Self =
        Self::Lost(Links { channel: Offset::NONE, device: Offset::NONE, skip: Offset::NONE });
}

/// A sync failed. Final: the pages are marked clean after it, so a later success would lie.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LogFailed;

/// A shard's log, written by its one owner.
pub trait Log {
    /// Appends a record whose body is the concatenation of `body`. Memory only: no system call,
    /// no page fault, no allocation in the steady state.
    ///
    /// # Errors
    /// When there is no room, or never again. Nothing was changed.
    fn append(
        &mut self,
        kind: RecordKind,
        links: Links,
        body: &[&[u8]],
    ) -> Result<Offset, AppendError>;

    /// Starts to make everything appended so far durable; returns at once. Does nothing while an
    /// earlier commit is under way: its end starts the next.
    fn commit(&mut self);

    /// The newest proof.
    ///
    /// # Errors
    /// When a sync failed, from then on always.
    fn durable(&mut self) -> Result<Durable, LogFailed>;

    /// The offset that the next record gets at the earliest.
    fn tail(&self) -> Offset;

    /// A channel of which messages are past their retention, and the newest of those; each is
    /// said once. A shard asks until there is none, a bounded number of times a turn.
    fn poll_expired(&mut self) -> Option<(ChannelId, MessageId)>;

    /// Reads a record that this owner appended, durable or not.
    ///
    /// # Errors
    /// See [`ReadError`].
    fn with_record<T>(
        &mut self,
        at: Offset,
        read: impl FnOnce(Record<'_>) -> T,
    ) -> Result<T, ReadError>;
}

/// Reads durable records of all shards, on any worker.
pub trait Reader {
    /// Reads a durable record.
    ///
    /// # Errors
    /// See [`ReadError`].
    fn with_record<T>(
        &mut self,
        shard: ShardId,
        at: Offset,
        read: impl FnOnce(Record<'_>) -> T,
    ) -> Result<T, ReadError>;
}
