//! What a device says to make a group and to fill it.

use std::time::Instant;

use tern_protocol::frames::{Change, action, message_kind};
use tern_protocol::group::{CHANGE_BYTES_MAX, ChangeView, channel_of};
use tern_protocol::{ChannelId, SendCounter, SendKey, Uin};
use zerocopy::little_endian::U64;

use super::{Device, Message};

/// The name of a group: a new one must have one.
const NAME: &[u8] = b"bench";

impl Device {
    /// Makes a group of which it is the owner, with these members: ascending, at most as many as
    /// a change may name, and not itself.
    ///
    /// # Panics
    /// If it is not logged in.
    pub fn create_group(&mut self, now: Instant, members: &[Uin], tag: u64) -> ChannelId {
        let epoch = self.epoch.expect("it is logged in");
        let key = SendKey { epoch, counter: SendCounter(self.counter + 1) };
        let channel = channel_of(self.identity.uin, self.identity.device, key);
        self.say_change(now, channel, action::CREATE, members, NAME, tag);
        channel
    }

    /// Adds members to its group, as [`create_group`](Self::create_group) takes them.
    ///
    /// # Panics
    /// If it is not logged in.
    pub fn add_members(&mut self, now: Instant, group: ChannelId, members: &[Uin], tag: u64) {
        self.say_change(now, group, action::ADD, members, &[], tag);
    }

    fn say_change(
        &mut self,
        now: Instant,
        channel: ChannelId,
        action: u8,
        members: &[Uin],
        name: &[u8],
        tag: u64,
    ) {
        let epoch = self.epoch.expect("it is logged in");
        let members: Vec<U64> = members.iter().map(|uin| uin.0.into()).collect();
        let short = |length: usize| u16::try_from(length).expect("a change is short");
        let head = Change {
            action,
            role: 0,
            settings: 0,
            reserved: 0,
            members: short(members.len()).into(),
            name_bytes: short(name.len()).into(),
            until: 0.into(),
        };
        let mut content = vec![0; CHANGE_BYTES_MAX];
        let length = ChangeView { head: &head, members: &members, name }.encode(&mut content);
        self.counter += 1;
        let message = Message { channel, tag, content_bytes: length };
        self.say_content(now, epoch, message, message_kind::CHANGE, &content[..length]);
    }
}
