//! What clients say to groups and hear of them.

use tern_core::io::Outgoing;
use tern_protocol::frames::{
    Change, GroupInfo, GroupMember, GroupPage, Send, SendRefused, action, message_kind,
};
use tern_protocol::group::{CHANGE_BYTES_MAX, ChangeView, channel_of, page_parts};
use tern_protocol::{
    ChannelId, Code, DeviceId, Epoch, Flags, Frame, Kind, SendCounter, SendKey, Uin,
};
use zerocopy::little_endian::U64;

use super::{Client, Got, World};

/// A change as a test names it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Wish {
    pub action: u8,
    pub role: u8,
    pub settings: u8,
    pub until: u64,
    pub members: Vec<u64>,
    pub name: Vec<u8>,
}

impl Wish {
    pub fn plain(action: u8) -> Self {
        Self { action, ..Self::default() }
    }

    pub fn of(action: u8, members: &[u64]) -> Self {
        Self { members: members.to_vec(), ..Self::plain(action) }
    }

    pub fn create(settings: u8, members: &[u64]) -> Self {
        Self { settings, name: b"terns".to_vec(), ..Self::of(action::CREATE, members) }
    }

    pub fn content(&self) -> Vec<u8> {
        let members: Vec<U64> = self.members.iter().map(|uin| U64::new(*uin)).collect();
        let head = Change {
            action: self.action,
            role: self.role,
            settings: self.settings,
            reserved: 0,
            members: (members.len() as u16).into(),
            name_bytes: (self.name.len() as u16).into(),
            until: self.until.into(),
        };
        let mut content = vec![0; CHANGE_BYTES_MAX];
        let view = ChangeView { head: &head, members: &members, name: &self.name };
        let bytes = view.encode(&mut content);
        content.truncate(bytes);
        content
    }
}

/// The group that this device makes under this key.
pub fn group_of(uin: u64, device: u32, epoch: u32, counter: u32) -> ChannelId {
    let key = SendKey { epoch: Epoch(epoch), counter: SendCounter(counter) };
    channel_of(Uin(uin), DeviceId(device), key)
}

impl Client {
    /// Makes a group under the next key; the client is device 1 of `uin`.
    pub fn create(
        &mut self,
        world: &mut World,
        uin: u64,
        settings: u8,
        members: &[u64],
    ) -> ChannelId {
        let channel = group_of(uin, 1, self.epoch, self.counter + 1);
        self.change(world, channel, &Wish::create(settings, members));
        channel
    }

    /// The next change under the next key.
    pub fn change(&mut self, world: &mut World, channel: ChannelId, wish: &Wish) -> u32 {
        self.counter += 1;
        self.change_as(world, channel, (self.epoch, self.counter, 0), wish);
        self.counter
    }

    pub fn change_as(
        &self,
        world: &mut World,
        channel: ChannelId,
        (epoch, counter, predecessor): (u32, u32, u32),
        wish: &Wish,
    ) {
        let head = Send {
            channel,
            epoch: epoch.into(),
            counter: counter.into(),
            predecessor: predecessor.into(),
            content_type: 0.into(),
            kind: message_kind::CHANGE,
            version: 1,
            refers_to: 0.into(),
        };
        self.say(world, Kind::Send, Flags::NONE, &head, &wish.content());
    }

    pub fn ask_group(&self, world: &mut World, channel: ChannelId, after: u64) {
        let info = GroupInfo { channel, after: after.into() };
        self.say(world, Kind::GroupInfo, Flags::NONE, &info, b"");
    }
}

/// The only refusal among what a client got: code, and which user it is about.
pub fn refusal(got: &[Got]) -> Option<(Code, u16)> {
    let mut refusals = got.iter().filter_map(|got| match got {
        Got::Frame(Outgoing::SendRefused(SendRefused { code, member, .. })) => {
            Some((Code(code.get()), member.get()))
        }
        _ => None,
    });
    let first = refusals.next();
    assert_eq!(refusals.next(), None, "more than one refusal");
    first
}

/// Gaps of a channel among what a client got: first, last, code.
pub fn gaps(got: &[Got], channel: ChannelId) -> Vec<(u64, u64, Code)> {
    let gap = |got: &Got| match got {
        Got::Frame(Outgoing::Gap(gap)) if gap.channel == channel => {
            Some((gap.from.get(), gap.to.get(), Code(gap.code.get())))
        }
        _ => None,
    };
    got.iter().filter_map(gap).collect()
}

/// Ids of a channel that were pushed, in their order.
pub fn ids(got: &[Got], channel: ChannelId) -> Vec<u64> {
    let id = |got: &Got| match got {
        Got::Push { channel: of, id, .. } if *of == channel => Some(*id),
        _ => None,
    };
    got.iter().filter_map(id).collect()
}

/// The pages among what a client got: head, name, members, and whether it is the last.
pub fn pages(got: &[Got]) -> Vec<(GroupPage, Vec<u8>, Vec<GroupMember>, bool)> {
    let page = |got: &Got| {
        let Got::Whole(frame) = got else { return None };
        let (Frame::GroupPage(head, rest), flags) = Frame::parse(frame).expect("a frame") else {
            panic!("not a page");
        };
        let (name, members) = page_parts(head, rest).expect("name and members");
        Some((*head, name.to_vec(), members.to_vec(), flags.has(Flags::LAST)))
    };
    got.iter().filter_map(page).collect()
}
