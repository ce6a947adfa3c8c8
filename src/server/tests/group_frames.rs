//! A group over real sockets: made, spoken in, a member thrown out, the server killed, and all of
//! it again from the log.
#![expect(
    clippy::unwrap_used,
    reason = "a test may stop at the first thing that is not as it should be"
)]

mod support;

use support::dial::Dial;
use support::peer::Peer;
use support::server::{ANY_PORT, Account, Server};
use support::words;
use tern_protocol::frames::{Change, GroupInfo, action, message_kind, role};
use tern_protocol::group::{CHANGE_BYTES_MAX, ChangeView, channel_of, page_parts};
use tern_protocol::{ChannelId, Code, Epoch, Frame, Kind, SendCounter, SendKey};
use zerocopy::IntoBytes;
use zerocopy::little_endian::U64;

/// A device and the epoch of its login.
struct Device {
    peer: Peer,
    account: Account,
    epoch: u32,
}

impl Device {
    fn log_in(server: &Server, account: Account) -> Self {
        let (peer, logged_in) = Peer::device(server.address, &Dial::default(), &account);
        Self { peer, account, epoch: logged_in.epoch.get() }
    }

    /// The group that it makes under this counter.
    fn group(&self, counter: u32) -> ChannelId {
        let key = SendKey { epoch: Epoch(self.epoch), counter: SendCounter(counter) };
        channel_of(self.account.uin, self.account.device, key)
    }

    fn say_change(&mut self, channel: ChannelId, key: (u32, u32), change: &ChangeView<'_>) {
        let mut content = [0; CHANGE_BYTES_MAX];
        let bytes = change.encode(&mut content);
        let mut head = words::send_head(channel, key.0, key.1);
        head.kind = message_kind::CHANGE;
        self.peer.say(&words::send_of(head, &content[..bytes]));
    }

    /// Waits for the pushes of a channel with these ids, in this order.
    fn hear_ids(&mut self, channel: ChannelId, ids: std::ops::RangeInclusive<u64>) {
        for expected in ids {
            match self.peer.hear(Kind::Push).frame() {
                Frame::Push(body, _) => {
                    assert_eq!((body.channel, body.id.get()), (channel, expected));
                }
                other => unreachable!("{other:?} is no PUSH"),
            }
        }
    }

    /// Pushes that came up to an answer that the server gives now.
    fn pushes_up_to_now(&mut self) -> usize {
        self.peer.say(&words::ping(77));
        let mut pushes = 0;
        loop {
            match self.peer.next().frame() {
                Frame::Push(..) => pushes += 1,
                Frame::Pong(pong) if pong.sequence.get() == 77 => return pushes,
                _ => {}
            }
        }
    }

    /// The members of a group: uin and role.
    fn members(&mut self, channel: ChannelId) -> Vec<(u64, u8)> {
        let info = GroupInfo { channel, after: 0.into() };
        self.peer.say(&words::frame(Kind::GroupInfo, 0, info.as_bytes()));
        match self.peer.hear(Kind::GroupPage).frame() {
            Frame::GroupPage(head, rest) => {
                let (name, members) = page_parts(head, rest).unwrap();
                assert_eq!(name, b"terns");
                members.iter().map(|member| (member.uin.get(), member.role)).collect()
            }
            other => unreachable!("{other:?} is no GROUP_PAGE"),
        }
    }
}

fn head(action: u8, members: &[U64], name: &[u8]) -> Change {
    Change {
        action,
        role: 0,
        settings: 0,
        reserved: 0,
        members: (members.len() as u16).into(),
        name_bytes: (name.len() as u16).into(),
        until: 0.into(),
    }
}

#[test]
fn a_group_lives_through_a_kill_and_who_was_thrown_out_hears_no_more() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let server = Server::start(&data, ANY_PORT, &[]);
    let [ann, bob, carl] = ["ann", "bob", "carl"].map(|name| server.user(name));
    let members = [bob.uin.into(), carl.uin.into()];
    let mut a = Device::log_in(&server, ann);
    let mut b = Device::log_in(&server, bob);
    let mut c = Device::log_in(&server, carl);

    let made = head(action::CREATE, &members, b"terns");
    let made = ChangeView { head: &made, members: &members, name: b"terns" };
    let (channel, first_key) = (a.group(1), (a.epoch, 1));
    a.say_change(channel, first_key, &made);
    assert_eq!(a.peer.hear_ack(1), 1);
    assert_eq!(b.peer.send(channel, b.epoch, 1, b"hello"), 2);
    c.hear_ids(channel, 1..=2);
    let only_carl = [carl.uin.into()];
    let kick = head(action::KICK, &only_carl, b"");
    let kick = ChangeView { head: &kick, members: &only_carl, name: b"" };
    a.say_change(channel, (a.epoch, 2), &kick);
    assert_eq!(a.peer.hear_ack(2), 3);
    assert_eq!(a.peer.send(channel, a.epoch, 3, b"he is gone"), 4);
    c.hear_ids(channel, 3..=3);
    assert_eq!(c.pushes_up_to_now(), 0);
    c.peer.say(&words::send(channel, c.epoch, 1, b"am I?"));
    match c.peer.hear(Kind::SendRefused).frame() {
        Frame::SendRefused(no) => assert_eq!(Code(no.code.get()), Code::NotAMember),
        other => unreachable!("{other:?} is no SEND_REFUSED"),
    }
    server.kill();

    let server = Server::start(&data, ANY_PORT, &[]);
    let mut a = Device::log_in(&server, ann);
    a.say_change(channel, first_key, &made);
    assert_eq!(a.peer.hear_ack(1), 1, "a retry makes no second group");
    let mut b = Device::log_in(&server, bob);
    b.hear_ids(channel, 1..=4);
    let mut c = Device::log_in(&server, carl);
    c.hear_ids(channel, 1..=3);
    assert_eq!(c.pushes_up_to_now(), 0);
    let expected = [(ann.uin.0, role::OWNER), (bob.uin.0, role::MEMBER)];
    assert_eq!(a.members(channel), expected);
    assert_eq!(a.peer.send(channel, a.epoch, 1, b"we are back"), 5);
    b.hear_ids(channel, 5..=5);
    println!("TEST group over sockets n=5 lost=0");
}
