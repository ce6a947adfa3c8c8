//! What clients say to recall, to edit and to block, and what they hear of it.

use tern_core::io::Outgoing;
use tern_protocol::frames::{Block, BlockList, Blocked, Send, block, message_kind};
use tern_protocol::{ChannelId, Code, Flags, Frame, Kind};

use super::{Client, Got, World};

/// A recall or an edit, or a message, as a test names it.
#[derive(Clone, Debug, PartialEq)]
pub struct Saying {
    pub kind: u8,
    pub refers_to: u64,
    pub content: Vec<u8>,
}

impl Saying {
    pub fn content(content: &[u8]) -> Self {
        Self { kind: message_kind::CONTENT, refers_to: 0, content: content.to_vec() }
    }

    pub fn recall(of: u64) -> Self {
        Self { kind: message_kind::RECALL, refers_to: of, content: Vec::new() }
    }

    pub fn edit(of: u64, content: &[u8]) -> Self {
        Self { kind: message_kind::EDIT, refers_to: of, content: content.to_vec() }
    }
}

impl Client {
    /// Says this under the next key.
    pub fn refer(&mut self, world: &mut World, channel: ChannelId, saying: &Saying) -> u32 {
        self.counter += 1;
        self.refer_as(world, channel, (self.epoch, self.counter, 0), saying);
        self.counter
    }

    pub fn refer_as(
        &self,
        world: &mut World,
        channel: ChannelId,
        (epoch, counter, predecessor): (u32, u32, u32),
        saying: &Saying,
    ) {
        let head = Send {
            channel,
            epoch: epoch.into(),
            counter: counter.into(),
            predecessor: predecessor.into(),
            content_type: 0.into(),
            kind: saying.kind,
            version: 1,
            refers_to: saying.refers_to.into(),
        };
        self.say(world, Kind::Send, Flags::NONE, &head, &saying.content);
    }

    /// Begins or ends a block.
    pub fn block(&self, world: &mut World, uin: u64, begins: bool) {
        let action = if begins { block::BEGIN } else { block::END };
        let asked = Block { uin: uin.into(), action, reserved: [0; 7] };
        self.say(world, Kind::Block, Flags::NONE, &asked, b"");
    }

    pub fn ask_blocked(&self, world: &mut World, after: u64) {
        self.say(world, Kind::BlockList, Flags::NONE, &BlockList { after: after.into() }, b"");
    }
}

/// The answers to blocks among what a client got: whom, whether it begins, and the code, 0 for
/// done.
pub fn block_answers(got: &[Got]) -> Vec<(u64, bool, Code)> {
    let answer = |got: &Got| match got {
        Got::Frame(Outgoing::Blocked(Blocked { uin, action, code, .. })) => {
            Some((uin.get(), *action == block::BEGIN, Code(code.get())))
        }
        _ => None,
    };
    got.iter().filter_map(answer).collect()
}

/// The pages of blocked users among what a client got, and whether each is the last.
pub fn block_pages(got: &[Got]) -> Vec<(Vec<u64>, bool)> {
    let page = |got: &Got| {
        let Got::Whole(frame) = got else { return None };
        let (Frame::BlockPage(_, uins), flags) = Frame::parse(frame).expect("a frame") else {
            panic!("not a page of blocks");
        };
        let uins = uins.chunks(8).map(|uin| u64::from_le_bytes(uin.try_into().expect("8 bytes")));
        Some((uins.collect(), flags.has(Flags::LAST)))
    };
    got.iter().filter_map(page).collect()
}
