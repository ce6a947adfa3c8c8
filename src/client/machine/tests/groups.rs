//! Groups: one that is made, changes that are refused, and the list of members.

use bytes::Bytes;
use tern_protocol::frame::{encode, frame_bytes};
use tern_protocol::frames::{GroupMember, GroupPage, SendRefused, message_kind, role};
use tern_protocol::group::channel_of;
use tern_protocol::{ChannelId, Code, DeviceId, Flags, Frame, Kind, MessageId, Uin};
use zerocopy::IntoBytes;

use super::rig::{ME, Rig, error, frame, key, push, send_ack};
use crate::group::{GroupChange, GroupSettings};
use crate::machine::{Event, Input, SendOutcome, SendResult};

fn crew() -> GroupChange {
    let members = vec![Uin(2), Uin(3)];
    GroupChange::Create { name: "crew".into(), settings: GroupSettings::default(), members }
}

fn ask_for(rig: &mut Rig, channel: Option<ChannelId>, change: &GroupChange) {
    rig.say(Input::Change { channel, content: change.encode().unwrap(), tag: 9 });
}

/// The changes that left since the last look.
fn changes(rig: &mut Rig) -> Vec<(ChannelId, GroupChange)> {
    let frames = std::mem::take(&mut rig.frames);
    let changes = frames.iter().filter_map(|frame| match Frame::parse(frame).unwrap().0 {
        Frame::Send(head, content) if head.kind == message_kind::CHANGE => {
            Some((head.channel, GroupChange::decode(content).unwrap()))
        }
        _ => None,
    });
    changes.collect()
}

/// A page with the members 1 to `members` above `after`.
fn page(channel: ChannelId, after: u64, members: u64, is_last: bool) -> Bytes {
    let head = GroupPage {
        channel,
        after: after.into(),
        version: 7.into(),
        members: 300.into(),
        settings: 8,
        reserved: 0,
        name_bytes: 4.into(),
    };
    let member = |n: u64| GroupMember {
        uin: (after + n).into(),
        muted_until: 0.into(),
        role: role::ADMIN,
        reserved: [0; 7],
    };
    let members: Vec<GroupMember> = (1..=members).map(member).collect();
    let rest = [b"crew", members.as_bytes()].concat();
    let mut buffer = vec![0; frame_bytes::<GroupPage>(rest.len())];
    let flags = if is_last { Flags::LAST } else { Flags::NONE };
    encode(Kind::GroupPage, flags, &head, &rest, &mut buffer);
    buffer.into()
}

/// All requests for pages since the last look.
fn requests(rig: &mut Rig) -> Vec<(ChannelId, u64)> {
    let frames = std::mem::take(&mut rig.frames);
    let requests = frames.iter().filter_map(|frame| match Frame::parse(frame).unwrap().0 {
        Frame::GroupInfo(info) => Some((info.channel, info.after.get())),
        _ => None,
    });
    requests.collect()
}

fn ask(rig: &mut Rig, group: u64, after: u64) {
    rig.say(Input::GroupInfo { channel: ChannelId::group(group), after: Uin(after) });
}

#[test]
fn a_group_has_its_id_with_its_key_and_keeps_it_through_a_crash() {
    let mut rig = Rig::new();
    ask_for(&mut rig, None, &crew());
    rig.log_in(3);
    let channel = channel_of(ME, DeviceId(1), key(3, 1));
    assert_eq!(changes(&mut rig), [(channel, crew())]);

    let mut rig = rig.restart();
    rig.log_in(4);
    assert_eq!(changes(&mut rig), [(channel, crew())], "the same group under the same key");
    rig.say(Input::Frame(send_ack(key(3, 1), channel, 1)));
    let [SendResult { channel: made, tag: 9, outcome: SendOutcome::Acked { .. }, .. }] =
        rig.take_results()[..]
    else {
        panic!("one answer");
    };
    assert_eq!(made, channel);
}

#[test]
fn a_group_that_was_not_asked_for_before_a_crash_is_made_after_it() {
    let mut rig = Rig::new();
    ask_for(&mut rig, None, &crew());
    let mut rig = rig.restart();
    rig.log_in(5);
    assert_eq!(changes(&mut rig), [(channel_of(ME, DeviceId(1), key(5, 1)), crew())]);
}

#[test]
fn a_refusal_says_because_of_whom_also_after_a_crash() {
    let mut rig = Rig::online(1);
    let channel = ChannelId::group(77);
    let add = GroupChange::Add(vec![Uin(9), Uin(5)]);
    ask_for(&mut rig, Some(channel), &add);
    let refused = SendRefused {
        channel,
        epoch: 1.into(),
        counter: 1.into(),
        code: Code::NoSuchUser.0.into(),
        member: 2.into(),
        retry_after_ms: 0.into(),
    };
    rig.say(Input::Frame(frame(Kind::SendRefused, &refused, &[])));
    let mut restarted = rig.restart();
    for result in restarted.take_results() {
        assert_eq!(result.outcome, SendOutcome::Refused(Code::NoSuchUser));
        assert_eq!(result.member, Some(Uin(9)), "the second in the order of the wire");
        restarted.say(Input::Settled(result.send));
    }
    assert_eq!(restarted.machine.unsettled(), (0, 0));
}

#[test]
fn pages_come_one_by_one_and_again_after_a_lost_connection() {
    let mut rig = Rig::online(1);
    let channel = ChannelId::group(77);
    ask(&mut rig, 77, 0);
    ask(&mut rig, 77, 2);
    assert_eq!(requests(&mut rig), [(channel, 0)]);
    rig.lose();
    rig.resume(1);
    assert_eq!(requests(&mut rig), [(channel, 0)], "the first one once more");
    rig.say(Input::Frame(page(channel, 0, 2, false)));
    assert_eq!(requests(&mut rig), [(channel, 2)]);
    rig.say(Input::Frame(page(channel, 2, 1, true)));
    let pages: Vec<(u64, bool)> = std::mem::take(&mut rig.events)
        .into_iter()
        .filter_map(|event| match event {
            Event::GroupPage(page) => Some((page.members.last()?.uin.0, page.is_last)),
            _ => None,
        })
        .collect();
    assert_eq!(pages, [(2, false), (3, true)]);
}

#[test]
fn a_group_that_is_not_ones_own_is_refused_and_the_next_is_asked_for() {
    let mut rig = Rig::online(1);
    ask(&mut rig, 77, 0);
    ask(&mut rig, 78, 0);
    rig.frames.clear();
    rig.say(Input::Frame(error(Code::NotAMember, Kind::GroupInfo, 0)));
    assert_eq!(
        rig.events,
        [Event::GroupRefused { channel: ChannelId::group(77), code: Code::NotAMember }]
    );
    assert_eq!(requests(&mut rig), [(ChannelId::group(78), 0)]);
}

#[test]
fn a_page_that_nobody_asked_for_ends_the_connection() {
    let other = ChannelId::group(78);
    for (asked, after) in [(false, 0), (true, 0), (true, 5)] {
        let mut rig = Rig::online(1);
        if asked {
            ask(&mut rig, 77, 1);
        }
        let channel = if after == 5 { ChannelId::group(77) } else { other };
        rig.say(Input::Frame(page(channel, after, 1, true)));
        assert_eq!(rig.disconnects, [Code::Malformed]);
    }
}

#[test]
fn a_change_that_comes_is_a_message_in_its_place() {
    let mut rig = Rig::online(1);
    let channel = ChannelId::group(77);
    let content = GroupChange::Kick(vec![Uin(5)]).encode().unwrap();
    let pushed = push(channel, 1, "hello");
    let (Frame::Push(body, _), _) = Frame::parse(&pushed).unwrap() else { panic!("a push") };
    let (mut body, hello) = (*body, pushed.clone());
    body.id = 2.into();
    body.kind = message_kind::CHANGE;
    rig.say(Input::Frame(hello));
    rig.say(Input::Frame(frame(Kind::Push, &body, &content)));
    let messages = rig.messages();
    let changes: Vec<_> = messages.iter().map(|m| (m.position.id, m.change())).collect();
    let kick = GroupChange::Kick(vec![Uin(5)]);
    assert_eq!(changes, [(MessageId(1), None), (MessageId(2), Some(kick))]);
}
