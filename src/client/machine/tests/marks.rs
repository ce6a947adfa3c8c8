//! Read markers through lost connections, crashes of either side and restarts of history; and
//! questions that are answered, refused, or lost on the way.

use bytes::Bytes;
use tern_protocol::frame::{encode, frame_bytes};
use tern_protocol::frames::{Mark, Marks, Receipts, UnreadCount, capabilities};
use tern_protocol::{ChannelId, Code, Flags, Frame, Kind, MessageId, Uin};
use zerocopy::IntoBytes;

use super::rig::{ME, Rig, channel, error, frame, logged_in, welcome_of};
use crate::machine::{Event, Input};
use crate::marks::{GroupReceipts, Receipt, Unread, Which};

/// Channel, user, delivered, read, incarnation.
type Said = (ChannelId, u64, u64, u64, u32);

fn marks(life: u64, as_of: u64, all: &[Said]) -> Bytes {
    let head = Marks { life: life.into(), as_of: as_of.into() };
    let mark = |(channel, uin, delivered, read, incarnation): &Said| Mark {
        channel: *channel,
        uin: (*uin).into(),
        delivered: (*delivered).into(),
        read: (*read).into(),
        incarnation: (*incarnation).into(),
        reserved: 0.into(),
    };
    let list: Vec<Mark> = all.iter().map(mark).collect();
    let flags = if life == 0 { Flags::NONE } else { Flags::LAST };
    let mut buffer = vec![0; frame_bytes::<Marks>(list.as_bytes().len())];
    encode(Kind::Marks, flags, &head, list.as_bytes(), &mut buffer);
    buffer.into()
}

/// Logs in at a server that can tell marks.
fn log_in(rig: &mut Rig, resumed: bool) {
    rig.say(Input::Connected);
    rig.say(Input::Frame(welcome_of(capabilities::MARKS)));
    rig.say(Input::Frame(logged_in(1, resumed)));
}

/// A machine that was given the messages 1 to 5 of Bob (2) and knows the server's marks.
fn reader() -> Rig {
    let mut rig = Rig::new();
    log_in(&mut rig, false);
    rig.history(2, 1, 5, 6);
    (1..=5).for_each(|id| rig.push(2, id));
    rig.say(Input::Frame(marks(7, 1, &[])));
    rig.frames.clear();
    rig.events.clear();
    rig
}

fn read(rig: &mut Rig, id: u64) {
    rig.say(Input::Read { channel: channel(2), id: MessageId(id) });
}

/// What READ said since the last look: channel, id, incarnation.
fn said(rig: &mut Rig) -> Vec<(ChannelId, u64, u32)> {
    let mut said = Vec::new();
    for frame in std::mem::take(&mut rig.frames) {
        if let Frame::Read(list) = Frame::parse(&frame).unwrap().0 {
            said.extend(list.iter().map(|m| (m.channel, m.id.get(), m.incarnation.get())));
        }
    }
    said
}

/// What MARKS_ASK said since the last look.
fn asked(rig: &mut Rig) -> Vec<(u64, u64)> {
    let frames = std::mem::take(&mut rig.frames);
    let asks = frames.iter().filter_map(|frame| match Frame::parse(frame).unwrap().0 {
        Frame::MarksAsk(ask) => Some((ask.life.get(), ask.since.get())),
        _ => None,
    });
    asks.collect()
}

fn reads(rig: &mut Rig) -> Vec<u64> {
    let events = std::mem::take(&mut rig.events);
    let ids = events.into_iter().filter_map(|event| match event {
        Event::Read(at) => Some(at.id.0),
        _ => None,
    });
    ids.collect()
}

#[test]
fn what_is_read_is_said_once_for_all_that_was_read_in_a_moment() {
    let mut rig = reader();
    (1..=9).for_each(|id| read(&mut rig, id));
    assert_eq!(said(&mut rig), [], "not one by one");
    rig.wait_ms(150);
    assert_eq!(said(&mut rig), [(channel(2), 5, 1)], "no further than what was given");
    rig.say(Input::Frame(marks(0, 0, &[(channel(2), 1, 5, 5, 1)])));
    assert_eq!(reads(&mut rig), [5]);
    rig.say(Input::Frame(marks(0, 0, &[(channel(2), 1, 5, 5, 1)])));
    assert_eq!(reads(&mut rig), [], "told once");
}

#[test]
fn what_the_server_does_not_have_is_said_again() {
    let mut rig = reader();
    read(&mut rig, 4);
    rig.lose();
    log_in(&mut rig, true);
    assert_eq!(asked(&mut rig), [(7, 1)], "what changed since");
    rig.say(Input::Frame(marks(7, 3, &[])));
    rig.wait_ms(150);
    assert_eq!(said(&mut rig), [(channel(2), 4, 1)]);
    rig.say(Input::Frame(marks(0, 0, &[(channel(2), 1, 4, 4, 1)])));

    rig.lose();
    log_in(&mut rig, true);
    assert_eq!(asked(&mut rig), [(7, 3)]);
    rig.say(Input::Frame(marks(7, 4, &[])));
    rig.wait_ms(150);
    assert_eq!(said(&mut rig), [], "the server has it");

    rig.lose();
    log_in(&mut rig, false);
    rig.say(Input::Frame(marks(8, 1, &[(channel(2), 1, 2, 2, 1)])));
    rig.wait_ms(150);
    assert_eq!(said(&mut rig), [(channel(2), 4, 1)], "it lost some in its crash");
}

#[test]
fn what_the_server_does_not_know_to_be_readable_yet_is_said_again_and_nobody_hears_of_it() {
    let mut rig = reader();
    read(&mut rig, 4);
    rig.wait_ms(150);
    assert_eq!(said(&mut rig), [(channel(2), 4, 1)]);
    for seconds in [2, 4, 8] {
        rig.say(Input::Frame(error(Code::NotGranted, Kind::Read, 0)));
        rig.wait_ms(seconds * 1_000 - 500);
        assert_eq!(said(&mut rig), [], "it needs some time");
        rig.wait_ms(600);
        assert_eq!(said(&mut rig), [(channel(2), 4, 1)]);
    }
    let told = |event: &Event| matches!(event, Event::ServerError { .. });
    assert!(!rig.events.iter().any(told), "{:?}", rig.events);
}

#[test]
fn what_is_read_next_does_not_wait_for_a_channel_that_is_refused() {
    let mut rig = reader();
    read(&mut rig, 1);
    rig.wait_ms(150);
    said(&mut rig);
    for id in 2..=5 {
        rig.say(Input::Frame(error(Code::NotGranted, Kind::Read, 0)));
        read(&mut rig, id);
        rig.wait_ms(150);
        assert_eq!(said(&mut rig), [(channel(2), id, 1)]);
    }
}

#[test]
fn a_history_that_ends_sooner_for_this_user_takes_the_mark_along() {
    let mut rig = reader();
    read(&mut rig, 5);
    rig.wait_ms(150);
    said(&mut rig);
    // It restarted at 5; he was thrown out at 3 in the life that came then.
    rig.history(2, 2, 3, 5);
    rig.say(Input::Frame(marks(0, 0, &[(channel(2), 1, 3, 3, 2)])));
    rig.lose();
    log_in(&mut rig, true);
    rig.say(Input::Frame(marks(7, 9, &[])));
    rig.wait_ms(150);
    assert_eq!(said(&mut rig), [], "the server has all that he may have read");
}

#[test]
fn a_mark_outlives_the_process_and_another_device_moves_it() {
    let mut rig = reader();
    read(&mut rig, 3);
    let mut rig = rig.restart();
    log_in(&mut rig, false);
    assert_eq!(asked(&mut rig), [(0, 0)]);
    rig.say(Input::Frame(marks(7, 2, &[(channel(2), 1, 5, 4, 1)])));
    assert_eq!(reads(&mut rig), [4], "read on another device");
    rig.wait_ms(150);
    assert_eq!(said(&mut rig), []);
}

#[test]
fn a_restart_of_history_takes_the_mark_back() {
    let mut rig = reader();
    read(&mut rig, 5);
    rig.wait_ms(150);
    rig.frames.clear();
    rig.history(2, 2, 4, 3);
    rig.lose();
    log_in(&mut rig, true);
    rig.say(Input::Frame(marks(9, 1, &[])));
    rig.wait_ms(150);
    assert_eq!(said(&mut rig), [(channel(2), 2, 2)]);
}

#[test]
fn a_mark_of_a_life_that_is_not_known_yet_waits_for_where_that_begins() {
    for (told, news) in [(1, vec![1]), (4, vec![4])] {
        let mut rig = reader();
        read(&mut rig, 5);
        rig.wait_ms(150);
        rig.lose();
        log_in(&mut rig, false);
        said(&mut rig);
        rig.say(Input::Frame(marks(9, 1, &[(channel(2), 1, told, told, 2)])));
        assert_eq!(reads(&mut rig), [], "5 may hold or not");
        rig.wait_ms(150);
        assert_eq!(said(&mut rig), [(channel(2), 5, 1)], "the server knows what of it holds");
        rig.history(2, 2, 4, 3);
        assert_eq!(reads(&mut rig), news);
        rig.lose();
        log_in(&mut rig, true);
        rig.say(Input::Frame(marks(9, 2, &[])));
        rig.wait_ms(150);
        let again = if told < 2 { vec![(channel(2), 2, 2)] } else { vec![] };
        assert_eq!(said(&mut rig), again, "2 of the old life holds");
    }
}

#[test]
fn a_mark_that_waits_does_not_outlive_the_server_that_told_it() {
    let mut rig = reader();
    read(&mut rig, 5);
    rig.wait_ms(150);
    for (life, told) in [(9, 4), (10, 1)] {
        rig.lose();
        log_in(&mut rig, false);
        rig.say(Input::Frame(marks(life, 1, &[(channel(2), 1, told, told, 2)])));
    }
    rig.history(2, 2, 4, 3);
    rig.lose();
    log_in(&mut rig, true);
    rig.say(Input::Frame(marks(10, 2, &[])));
    said(&mut rig);
    rig.wait_ms(150);
    assert_eq!(reads(&mut rig), [1], "4 was forgotten in the crash");
}

#[test]
fn receipts_of_the_other_side_are_told_when_they_are_news() {
    let mut rig = reader();
    let receipts = |rig: &mut Rig| {
        let events = std::mem::take(&mut rig.events);
        let told = events.into_iter().filter_map(|event| match event {
            Event::Receipt(Receipt { uin: Uin(2), delivered, read, .. }) => {
                Some((delivered.0, read.0))
            }
            _ => None,
        });
        told.collect::<Vec<_>>()
    };
    for (delivered, read) in [(3, 0), (3, 0), (2, 1), (4, 0)] {
        rig.say(Input::Frame(marks(0, 0, &[(channel(2), 2, delivered, read, 1)])));
    }
    assert_eq!(receipts(&mut rig), [(3, 0), (3, 1), (4, 1)], "nothing goes back");
    rig.say(Input::Frame(marks(0, 0, &[(channel(2), 2, 2, 2, 2)])));
    assert_eq!(receipts(&mut rig), [(2, 2)], "but with the history");
}

#[test]
fn questions_are_answered_one_by_one_and_outlive_a_connection() {
    let mut rig = reader();
    let group = ChannelId::group(77);
    rig.say(Input::GroupReceipts { channel: group, id: MessageId(9) });
    rig.say(Input::Unread(Which::These(vec![channel(2)])));
    assert_eq!(rig.kinds(), [Kind::ReceiptsAsk], "one at a time");
    rig.lose();
    log_in(&mut rig, true);
    rig.say(Input::Frame(marks(7, 1, &[])));
    assert_eq!(rig.kinds().last(), Some(&Kind::ReceiptsAsk), "asked again");
    let counts = Receipts {
        channel: group,
        id: 9.into(),
        members: 8.into(),
        delivered: 6.into(),
        read: 3.into(),
        reserved: 0.into(),
    };
    rig.say(Input::Frame(frame(Kind::Receipts, &counts, &[])));
    let expected = GroupReceipts { members: 8, delivered: 6, read: 3 };
    assert!(rig.events.contains(&Event::GroupReceipts(Ok(expected))));
    assert_eq!(rig.kinds(), [Kind::UnreadAsk]);
    rig.say(Input::Frame(error(Code::TooManyRequests, Kind::UnreadAsk, 100)));
    assert!(rig.events.contains(&Event::Unread(Err(Code::TooManyRequests))));
    rig.say(Input::Unread(Which::After(None)));
    let count = UnreadCount {
        channel: channel(2),
        after: 0.into(),
        newest: 5.into(),
        count: 5.into(),
        code: 0.into(),
        more: 0,
        reserved: [0; 3],
    };
    rig.say(Input::Frame(frame(Kind::Unread, &count, &[])));
    let (after, newest) = (MessageId(0), MessageId(5));
    let expected =
        Unread { channel: channel(2), after, newest, count: 5, more: false, refused: None };
    assert!(rig.events.contains(&Event::Unread(Ok(vec![expected]))));
    rig.say(Input::Frame(frame(Kind::Unread, &count, &[])));
    assert_eq!(rig.disconnects, [Code::Malformed], "an answer to nothing");
}

#[test]
fn a_server_that_knows_no_marks_is_not_asked() {
    let mut rig = Rig::online(1);
    assert_eq!(ME, Uin(1));
    rig.history(2, 1, 1, 2);
    rig.push(2, 1);
    read(&mut rig, 1);
    rig.say(Input::Unread(Which::After(None)));
    rig.wait_ms(500);
    let kinds = rig.kinds();
    assert!(!kinds.contains(&Kind::Read) && !kinds.contains(&Kind::UnreadAsk), "{kinds:?}");
    assert!(rig.events.contains(&Event::Unread(Err(Code::UnknownKind))));
}
