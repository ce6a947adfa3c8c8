//! A log as a plain list of what was appended: chains, counters and windows are found by looking
//! through it. Shares nothing with storage nor with the state machine of a shard.

use std::collections::BTreeMap;

use tern_core::log::{Links, Offset, RecordKind};
use tern_core::shard::records::{EntryBody, EpochBody};
use tern_core::shard::state::{ChannelRow, DeviceRow, StateKind, WindowRow};
use tern_protocol::frames::PushBody;
use tern_protocol::{ChannelId, MessageId};
use tern_random::Stream;
use zerocopy::{FromBytes, IntoBytes};

use super::chat::Rows;

/// Channels, and users who write into all of them with one device each.
const CHANNELS: u64 = 5;
const USERS: u64 = 4;

/// What stands in a record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum What {
    Message { channel: ChannelId, id: u64, sender: u64, epoch: u32, counter: u32 },
    Login { uin: u64, epoch: u32 },
    Entry,
}

/// A record that may be appended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Draft {
    pub kind: RecordKind,
    pub links: Links,
    pub body: Vec<u8>,
    pub what: What,
}

/// One that was.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Row {
    pub at: u64,
    pub end: u64,
    /// Milliseconds that had passed when it was appended.
    pub ms: u64,
    pub draft: Draft,
}

/// Everything that was appended, oldest first.
#[derive(Clone, Debug, Default)]
pub struct Plain(pub Vec<Row>);

impl Plain {
    /// What a shard may append next: mostly messages of up to `bytes_max` bytes.
    pub fn draft(&self, random: &mut Stream, bytes_max: u64) -> Draft {
        let uin = 1 + random.below(USERS);
        match random.below(12) {
            0 => {
                let epoch = self.epoch(uin) + 1;
                let (server_time, device) = (5.into(), 1.into());
                let body = EpochBody { uin: uin.into(), device, epoch: epoch.into(), server_time };
                draft(RecordKind::Epoch, body.as_bytes(), What::Login { uin, epoch })
            }
            1 => {
                let channel = ChannelId::group(1 + random.below(CHANNELS));
                let body = EntryBody { uin: uin.into(), channel, server_time: 5.into() };
                draft(RecordKind::Entry, body.as_bytes(), What::Entry)
            }
            _ => self.message(uin, random, bytes_max),
        }
    }

    fn message(&self, sender: u64, random: &mut Stream, bytes_max: u64) -> Draft {
        let channel = ChannelId::group(1 + random.below(CHANNELS));
        let id = self.messages(channel).count() as u64 + 1;
        let epoch = self.epoch(sender).max(1);
        // Counters may be left out, as by a device whose send was refused for good.
        let counter = self.counters(sender, epoch).max().unwrap_or(0) + 1 + random.below(3) as u32;
        let last = self.of_sender(sender).last().map_or(0, |row| row.at);
        let links = Links {
            channel: Offset(self.at_id(channel, id - 1)),
            device: Offset(last),
            skip: Offset(self.at_id(channel, MessageId(id).skip().0)),
        };
        let push = PushBody {
            channel,
            id: id.into(),
            sender: sender.into(),
            device: 1.into(),
            epoch: epoch.into(),
            counter: counter.into(),
            content_type: 1.into(),
            kind: 0,
            version: 1,
            server_time: 5.into(),
            refers_to: 0.into(),
        };
        let content = random.bytes(random.clone().below(bytes_max) as usize);
        let body = [push.as_bytes(), &content].concat();
        let what = What::Message { channel, id, sender, epoch, counter };
        Draft { kind: RecordKind::Message, links, body, what }
    }

    /// Where the message `id` of a channel is; 0 if there is none.
    pub fn at_id(&self, channel: ChannelId, id: u64) -> u64 {
        let at = id.checked_sub(1).and_then(|index| self.messages(channel).nth(index as usize));
        at.map_or(0, |row| row.at)
    }

    /// The messages of a channel, by their ids.
    pub fn messages(&self, channel: ChannelId) -> impl Iterator<Item = &Row> {
        self.0.iter().filter(
            move |row| matches!(row.draft.what, What::Message { channel: of, .. } if of == channel),
        )
    }

    /// Channels with messages.
    pub fn channels(&self) -> Vec<ChannelId> {
        let all = (1..=CHANNELS).map(ChannelId::group);
        all.filter(|channel| self.messages(*channel).next().is_some()).collect()
    }

    fn of_sender(&self, uin: u64) -> impl Iterator<Item = &Row> {
        self.0.iter().filter(
            move |row| matches!(row.draft.what, What::Message { sender, .. } if sender == uin),
        )
    }

    fn counters(&self, uin: u64, wanted: u32) -> impl Iterator<Item = u32> {
        self.of_sender(uin).filter_map(move |row| match row.draft.what {
            What::Message { epoch, counter, .. } if epoch == wanted => Some(counter),
            _ => None,
        })
    }

    fn epoch(&self, of: u64) -> u32 {
        let logins = self.0.iter().filter_map(|row| match row.draft.what {
            What::Login { uin, epoch } if uin == of => Some(epoch),
            _ => None,
        });
        logins.max().unwrap_or(0)
    }

    /// Compares the rows of a recovered state with the list; how many were compared. Returns the
    /// oldest kept id of each channel.
    pub fn judge(&self, rows: &Rows, what: &str) -> (usize, BTreeMap<ChannelId, u64>) {
        let (mut channels, mut windows, mut devices) = (BTreeMap::new(), 0, 0);
        for (kind, row) in rows {
            match kind {
                StateKind::Channel => {
                    let (row, _) = ChannelRow::ref_from_prefix(row).unwrap();
                    let newest = self.messages(row.channel).count() as u64;
                    assert_eq!(row.newest.get(), newest, "{what}: newest id of {}", row.channel);
                    channels.insert(row.channel, row.oldest.get());
                }
                StateKind::Device => {
                    let (row, _) = DeviceRow::ref_from_prefix(row).unwrap();
                    assert_eq!(row.epoch.get(), self.epoch(row.uin.get()), "{what}: an epoch");
                    devices += 1;
                }
                StateKind::Window => {
                    self.judge_window(WindowRow::ref_from_prefix(row).unwrap().0, what);
                    windows += 1;
                }
                StateKind::Entry => {}
                StateKind::Tombstone => panic!("{what}: nothing is lost"),
                StateKind::Group | StateKind::Member => panic!("{what}: no group was made"),
                StateKind::Recall | StateKind::Block => panic!("{what}: nothing was taken back"),
                StateKind::Read => panic!("{what}: nobody read anything"),
            }
        }
        let users = || 1..=USERS;
        assert_eq!(channels.len(), self.channels().len(), "{what}: channels");
        let logged_in = users().filter(|uin| self.epoch(*uin) > 0).count();
        let sent = users().filter(|uin| self.of_sender(*uin).next().is_some()).count();
        assert_eq!((devices, windows), (logged_in, sent), "{what}: devices");
        (rows.len(), channels)
    }

    fn judge_window(&self, row: &WindowRow, what: &str) {
        let uin = row.uin.get();
        let last = self.of_sender(uin).last().unwrap();
        let What::Message { epoch, .. } = last.draft.what else { panic!("a message") };
        let newest = self.counters(uin, epoch).max().unwrap();
        let bits = self.counters(uin, epoch).filter(|counter| newest - counter < 64);
        let window = bits.fold(0_u64, |bits, counter| bits | 1 << (newest - counter));
        let found = (row.epoch.get(), row.newest.get(), row.window.get(), row.last.get());
        assert_eq!(found, (epoch, newest, window, last.at), "{what}: the window of {uin}");
        assert_eq!(row.torn.get(), 0, "{what}: nothing is lost");
    }
}

fn draft(kind: RecordKind, body: &[u8], what: What) -> Draft {
    Draft { kind, links: Links::default(), body: body.to_vec(), what }
}
