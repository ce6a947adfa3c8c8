//! What clients say and hear of how far users have got.

use bytes::Bytes;
use tern_core::io::Input;
use tern_protocol::frames::{Mark, MarksAsk, ReadMark, Receipts, ReceiptsAsk, UnreadCount};
use tern_protocol::{ChannelId, Flags, Frame, Kind};
use zerocopy::{FromBytes, IntoBytes};

use super::{Client, Got, World, cursor};

/// A mark as a test compares it: channel, user, delivered, read.
pub type Seen = (ChannelId, u64, u64, u64);

/// The end of an answer to MARKS_ASK: life and number.
pub type Known = (u64, u64);

impl Client {
    pub fn read(&self, world: &mut World, channel: ChannelId, id: u64) {
        self.read_as(world, channel, (id, 1), false);
    }

    pub fn read_as(
        &self,
        world: &mut World,
        channel: ChannelId,
        (id, incarnation): (u64, u32),
        quiet: bool,
    ) {
        let mark = ReadMark {
            channel,
            id: id.into(),
            incarnation: incarnation.into(),
            quiet: u8::from(quiet),
            reserved: [0; 3],
        };
        self.say(world, Kind::Read, Flags::NONE, &mark, b"");
    }

    pub fn ask_marks(&self, world: &mut World, (life, since): Known) {
        let ask = MarksAsk { life: life.into(), since: since.into() };
        self.say(world, Kind::MarksAsk, Flags::NONE, &ask, b"");
    }

    pub fn ask_receipts(&self, world: &mut World, channel: ChannelId, id: u64) {
        let ask = ReceiptsAsk { channel, id: id.into() };
        self.say(world, Kind::ReceiptsAsk, Flags::NONE, &ask, b"");
    }

    pub fn ask_unread(&self, world: &mut World, asked: &[(ChannelId, u64)]) {
        let list: Vec<_> = asked.iter().map(|(channel, id)| cursor(*channel, *id, 1)).collect();
        let bytes = list.as_bytes();
        let header = tern_protocol::frame::header(Kind::UnreadAsk, Flags::NONE, bytes.len());
        let frame = [header.as_bytes(), bytes].concat();
        world.input(self.worker, Input::Frame(self.link, Bytes::from(frame)));
    }
}

fn whole(got: &[Got]) -> impl Iterator<Item = (Frame<'_>, Flags)> {
    got.iter().filter_map(|got| match got {
        Got::Whole(frame) => Some(Frame::parse(frame).expect("a frame")),
        _ => None,
    })
}

/// The marks among what a client got, in their order, but for those that say that nothing came.
pub fn marks(got: &[Got]) -> Vec<Seen> {
    all_marks(got).into_iter().filter(|seen| seen.2 > 0).collect()
}

/// All of them.
pub fn all_marks(got: &[Got]) -> Vec<Seen> {
    let all = whole(got).filter_map(|(frame, _)| match frame {
        Frame::Marks(_, rest) => Some(<[Mark]>::ref_from_bytes(rest).expect("marks")),
        _ => None,
    });
    let seen = |mark: &Mark| (mark.channel, mark.uin.get(), mark.delivered.get(), mark.read.get());
    all.flatten().map(seen).collect()
}

/// The last answer to MARKS_ASK that ended among what a client got.
pub fn known(got: &[Got]) -> Option<Known> {
    let ends = whole(got).filter_map(|(frame, flags)| match frame {
        Frame::Marks(head, _) if flags.has(Flags::LAST) => {
            Some((head.life.get(), head.as_of.get()))
        }
        _ => None,
    });
    ends.last()
}

/// The counts of a group among what a client got: members, delivered, read.
pub fn receipts(got: &[Got]) -> Vec<(u32, u32, u32)> {
    let counts = whole(got).filter_map(|(frame, _)| match frame {
        Frame::Receipts(Receipts { members, delivered, read, .. }) => {
            Some((members.get(), delivered.get(), read.get()))
        }
        _ => None,
    });
    counts.collect()
}

/// The counts of unread messages among what a client got: channel, count, whether there are more.
pub fn unread(got: &[Got]) -> Vec<(ChannelId, u16, bool)> {
    let all = whole(got).filter_map(|(frame, _)| match frame {
        Frame::Unread(list) => Some(list),
        _ => None,
    });
    let count = |count: &UnreadCount| (count.channel, count.count.get(), count.more == 1);
    all.flatten().map(count).collect()
}
