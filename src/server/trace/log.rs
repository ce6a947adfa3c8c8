//! What the log says of one message: where it stands, whether it is proven durable, and what was
//! said about it later; or why it is not there.
//!
//! Segments are read by calls, from the newest back to the one with the message, beside a server
//! that writes or without one. Whoever speaks of a message stands behind it, so all of that is seen
//! on the way. Nothing is changed, and no lock is taken.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use tern_core::log::{Record, RecordKind};
use tern_core::placement::{Placement, ShardId};
use tern_core::shard::state::{ChannelRow, StateKind};
use tern_protocol::frames::{PushBody, message_kind};
use tern_protocol::{ChannelId, DeviceId, MessageId, SendKey, Uin};
use tern_storage::inspect::{self, Bad, CheckpointView, Content, Decoder};
use tern_storage::{RowKey, SEGMENT_HEADER_BYTES};
use zerocopy::FromBytes as _;

use super::window::Window;

/// Damaged places that are told of; more are only counted.
const DAMAGE_MAX: usize = 16;

/// Messages about the one asked for that are told of: the newest; more are only counted.
const MENTIONS_MAX: usize = 32;

/// What the log of the channel's shard says.
#[derive(Debug)]
pub struct LogSays {
    /// The shard.
    pub shard: ShardId,
    /// The message.
    pub fate: Fate,
    /// Recalls and edits of it, the newest first.
    pub mentions: Vec<Mention>,
    /// How many of those there are.
    pub mentions_all: u64,
    /// Places in the log that hold no record and are no end of it.
    pub damage: Vec<Damage>,
    /// How many of those there are.
    pub damage_all: u64,
    /// Ids of the channel that were seen in the segments read: least and most.
    pub seen: Option<(MessageId, MessageId)>,
}

/// What became of the message in the log.
#[derive(Debug)]
pub enum Fate {
    /// It stands there.
    Found(Box<Logged>),
    /// No message of the channel has this number yet.
    NotYet {
        /// The newest, if there is any.
        newest: Option<MessageId>,
    },
    /// It is past its retention.
    Expired {
        /// The oldest that is kept.
        oldest: MessageId,
    },
    /// It was there, and its bytes are damaged.
    Lost,
}

/// A message as it stands in the log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Logged {
    /// The file.
    pub path: PathBuf,
    /// The segment's number.
    pub segment: u64,
    /// Its offset in the shard's log.
    pub at: u64,
    /// Where in the file.
    pub byte: u64,
    /// The offset of the mark that its batch begins with.
    pub batch: Option<u64>,
    /// Whether the log itself proves that it was durable.
    pub proof: Proof,
    /// Who sent it.
    pub sender: Uin,
    /// With which device.
    pub device: DeviceId,
    /// Under which key.
    pub key: SendKey,
    /// When the server accepted it, in ms since 1970 UTC.
    pub server_ms: u64,
    /// As in [`message_kind`].
    pub kind: u8,
    /// The message that it speaks of; 0 if none.
    pub refers_to: MessageId,
    /// Bytes of its content.
    pub content_bytes: usize,
}

/// What proves a record durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Proof {
    /// A mark at this offset says that everything up to behind it was synced.
    Mark(u64),
    /// A later segment was begun, which happens only when all before is synced.
    LaterSegment,
    /// Nothing yet: it is in the newest batch, which may have been acked a moment ago, or never.
    None,
}

/// A message about the one asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mention {
    /// Its own number.
    pub id: MessageId,
    /// Whether it recalls, or edits.
    pub recalls: bool,
    /// Who said it.
    pub sender: Uin,
    /// When the server accepted it, in ms since 1970 UTC.
    pub server_ms: u64,
}

/// A place in the log that holds no record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Damage {
    /// The file.
    pub path: PathBuf,
    /// The first offset.
    pub from: u64,
    /// The offset at which records go on.
    pub to: u64,
}

/// Looks for a message in the logs of a data folder.
///
/// # Errors
/// When the folder is none, or its files can't be read.
pub fn search(data: &Path, channel: ChannelId, id: MessageId) -> io::Result<LogSays> {
    let facts = inspect::read_folder(data).map_err(io::Error::other)?;
    let shard = Placement::new(facts.shards, 1).shard_of_channel(channel);
    let dir = inspect::shard_dir(data, shard);
    let mut search = Search::new(shard, channel, id);
    let mut paths = numbered(&dir, inspect::segment_number)?;
    paths.reverse();
    for (number, path) in paths {
        search.segment(number, &path)?;
        if search.found.is_some() {
            break;
        }
    }
    let oldest = match search.found {
        Some(_) => None,
        None => oldest_kept(&dir, channel)?,
    };
    Ok(search.says(oldest))
}

/// The files of a folder that have a number in their name, by that number.
fn numbered(
    dir: &Path,
    number_of: impl Fn(&Path) -> Option<u64>,
) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        paths.extend(number_of(&path).map(|number| (number, path)));
    }
    paths.sort_unstable();
    Ok(paths)
}

/// The oldest message of a channel within retention, by the newest checkpoint that is good and
/// knows the channel.
fn oldest_kept(dir: &Path, channel: ChannelId) -> io::Result<Option<MessageId>> {
    let (low, high) = channel.halves();
    let oldest = |(_, path): &(u64, PathBuf)| {
        let view = CheckpointView::open(path).and_then(|view| view.verify().map(|()| view)).ok()?;
        let row = view.find(StateKind::Channel, RowKey([low, high, 0])).ok()??;
        Some(MessageId(ChannelRow::read_from_prefix(&row).ok()?.0.oldest.get()))
    };
    Ok(numbered(dir, inspect::checkpoint_number)?.iter().rev().find_map(oldest))
}

/// A search under way, from the newest segment back.
struct Search {
    shard: ShardId,
    channel: ChannelId,
    id: MessageId,
    /// The newest offset that a mark proves, and where that mark stands.
    proven: (u64, u64),
    /// Whether a segment behind the present one has records.
    later_has_records: bool,
    /// Where the data of the present segment ends, if the one behind it says so.
    cut: Option<u64>,
    found: Option<Logged>,
    mentions: Vec<Mention>,
    mentions_all: u64,
    damage: Vec<Damage>,
    damage_all: u64,
    seen: Option<(MessageId, MessageId)>,
}

impl Search {
    fn new(shard: ShardId, channel: ChannelId, id: MessageId) -> Self {
        Self {
            shard,
            channel,
            id,
            proven: (0, 0),
            later_has_records: false,
            cut: None,
            found: None,
            mentions: Vec::new(),
            mentions_all: 0,
            damage: Vec::new(),
            damage_all: 0,
            seen: None,
        }
    }

    /// Reads one segment; one that was deleted meanwhile is passed over.
    fn segment(&mut self, number: u64, path: &Path) -> io::Result<()> {
        let file = match fs::File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            opened => opened?,
        };
        let mut window = Window::new(file)?;
        let Ok(decoder) = Decoder::new(path, window.at(0)?) else {
            let bytes = window.bytes();
            self.damaged(path, (0, bytes));
            return Ok(());
        };
        let base = decoder.header.base;
        let end = self.cut.take().map_or(window.bytes(), |cut| cut.saturating_sub(base));
        let end = end.min(window.bytes());
        let (mut byte, mut batch) = (SEGMENT_HEADER_BYTES as u64, None);
        let mut has_records = false;
        while byte < end {
            let at = base + byte;
            let (len, content) = match decoder.record(at, window.at(byte)?) {
                Ok(read) => read,
                Err(bad) => match next_good(&mut window, &decoder, byte, end, bad)? {
                    Some(next) => {
                        self.damaged(path, (at, base + next));
                        byte = next;
                        continue;
                    }
                    None => break,
                },
            };
            has_records = true;
            match content {
                Content::Mark(mark) => {
                    batch = Some(at);
                    let proven = if mark.clean { at } else { mark.proven };
                    self.proven = self.proven.max((proven, at));
                }
                Content::Record(record) => {
                    if let Some(found) = self.take(&record) {
                        let path = path.to_owned();
                        let place = Logged { path, segment: number, at, byte, batch, ..found };
                        self.found = Some(place);
                    }
                }
            }
            byte += len as u64;
        }
        if let Some(found) = self.found.as_mut().filter(|found| found.proof == Proof::None) {
            found.proof = match self.proven {
                (proven, mark) if proven > found.at => Proof::Mark(mark),
                _ if self.later_has_records => Proof::LaterSegment,
                _ => Proof::None,
            };
        }
        self.later_has_records |= has_records;
        self.cut = Some(decoder.header.cut).filter(|cut| *cut > 0);
        Ok(())
    }

    /// The message itself, without its place.
    fn take(&mut self, record: &Record<'_>) -> Option<Logged> {
        let is_message =
            matches!(record.kind, RecordKind::Message | RecordKind::Change | RecordKind::Recall);
        let (push, content) = PushBody::ref_from_prefix(record.body).ok()?;
        if !is_message || push.channel != self.channel {
            return None;
        }
        let id = MessageId::from(push.id);
        let (least, most) = self.seen.unwrap_or((id, id));
        self.seen = Some((least.min(id), most.max(id)));
        let speaks = matches!(push.kind, message_kind::RECALL | message_kind::EDIT);
        if speaks && push.refers_to.get() == self.id.0 {
            self.mentions_all += 1;
            self.mentions.push(Mention {
                id,
                recalls: push.kind == message_kind::RECALL,
                sender: push.sender.into(),
                server_ms: push.server_time.get(),
            });
        }
        (id == self.id).then(|| Logged {
            path: PathBuf::new(),
            segment: 0,
            at: 0,
            byte: 0,
            batch: None,
            proof: Proof::None,
            sender: push.sender.into(),
            device: push.device.into(),
            key: push.key(),
            server_ms: push.server_time.get(),
            kind: push.kind,
            refers_to: push.refers_to.into(),
            content_bytes: content.len(),
        })
    }

    fn damaged(&mut self, path: &Path, (from, to): (u64, u64)) {
        self.damage_all += 1;
        if self.damage.len() < DAMAGE_MAX {
            self.damage.push(Damage { path: path.to_owned(), from, to });
        }
    }

    fn says(self, oldest: Option<MessageId>) -> LogSays {
        let fate = match (self.found, self.seen) {
            (Some(found), _) => Fate::Found(Box::new(found)),
            (None, _) if oldest.is_some_and(|oldest| self.id < oldest) => {
                Fate::Expired { oldest: oldest.unwrap_or_default() }
            }
            (None, Some((_, newest))) if self.id <= newest => Fate::Lost,
            (None, seen) => Fate::NotYet { newest: seen.map(|(_, newest)| newest) },
        };
        let mut mentions = self.mentions;
        mentions.sort_unstable_by_key(|mention| std::cmp::Reverse(mention.id));
        mentions.truncate(MENTIONS_MAX);
        LogSays {
            shard: self.shard,
            fate,
            mentions,
            mentions_all: self.mentions_all,
            damage: self.damage,
            damage_all: self.damage_all,
            seen: self.seen,
        }
    }
}

/// The next byte with a record behind one that holds none; `None` if there is no more.
fn next_good(
    window: &mut Window,
    decoder: &Decoder,
    byte: u64,
    end: u64,
    bad: Bad,
) -> io::Result<Option<u64>> {
    let step = inspect::RECORD_ALIGN as u64;
    let mut next = match bad {
        Bad::Body(head) => return Ok(Some((byte + head.bytes as u64).min(end))),
        _ => byte + step,
    };
    while next < end {
        if let Some(zeros) = window.zeros_at(next)? {
            next += zeros;
        } else if decoder.record(decoder.header.base + next, window.at(next)?).is_ok() {
            return Ok(Some(next));
        } else {
            next += step;
        }
    }
    Ok(None)
}
