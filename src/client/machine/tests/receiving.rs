//! Pushes: once, in order, and confirmed only when consumed.

use tern_protocol::{Code, Frame, Kind, MessageId};

use super::rig::{Rig, channel, logged_in, pong, welcome};
use crate::machine::{Event, Input};
use crate::store::Store;

#[test]
fn messages_come_once_and_in_order() {
    let mut rig = Rig::online(1);
    for id in [1, 2, 2, 1, 3] {
        rig.push(2, id);
    }
    rig.push(3, 1);
    let got: Vec<_> =
        rig.messages().iter().map(|m| (m.position.channel, m.position.id.0)).collect();
    assert_eq!(got, [(channel(2), 1), (channel(2), 2), (channel(2), 3), (channel(3), 1)]);
    assert_eq!(rig.machine.counters().repeated_pushes, 2);
}

#[test]
fn only_what_is_consumed_and_stored_is_acked() {
    let mut rig = Rig::online(1);
    for id in 1..=3 {
        rig.push(2, id);
    }
    rig.wait_ms(1_000);
    assert!(rig.acked().is_empty(), "nothing is consumed");
    rig.stores = false;
    rig.consume(2, 2, 0);
    rig.wait_ms(1_000);
    assert!(rig.acked().is_empty(), "the cursor is not on the disk");
    rig.stores = true;
    rig.store_all();
    assert!(rig.acked().is_empty(), "others may follow within 50 ms");
    rig.wait_ms(50);
    assert_eq!(rig.acked(), [(2, 2)]);
    rig.wait_ms(1_000);
    assert!(rig.acked().is_empty(), "once is enough");
}

#[test]
fn sixteen_messages_are_acked_at_once_and_any_frame_takes_acks_along() {
    let mut rig = Rig::online(1);
    for id in 1..=16 {
        rig.push(2, id);
        rig.consume(2, id, 0);
    }
    assert_eq!(rig.acked(), [(2, 16)]);
    rig.push(2, 17);
    rig.consume(2, 17, 0);
    rig.send(3, "carrier");
    assert_eq!(rig.acked(), [(2, 17)]);
}

#[test]
fn after_a_crash_what_was_not_consumed_comes_again() {
    let mut rig = Rig::online(1);
    rig.history(2, 5, 9, 1);
    for id in 1..=9 {
        rig.push(2, id);
    }
    rig.consume(2, 4, 5);
    let mut rig = rig.restart();
    rig.say(Input::Connected);
    rig.say(Input::Frame(welcome()));
    rig.frames.clear();
    rig.say(Input::Frame(logged_in(2, false)));
    match Frame::parse(&rig.frames[0]).unwrap().0 {
        Frame::Cursors([cursor]) => {
            assert_eq!((cursor.channel, cursor.id.get()), (channel(2), 4));
            assert_eq!(cursor.incarnation.get(), 5);
        }
        other => panic!("{other:?}"),
    }
    for id in 4..=9 {
        rig.push(2, id);
    }
    assert_eq!(rig.ids(), [5, 6, 7, 8, 9]);
}

#[test]
fn within_a_process_what_was_given_is_not_given_again() {
    let mut rig = Rig::online(1);
    for id in 1..=3 {
        rig.push(2, id);
    }
    rig.consume(2, 1, 0);
    rig.lose();
    rig.events.clear();
    rig.resume(1);
    rig.frames.clear();
    // The application goes on while the server pushes what it does not know to be consumed.
    rig.consume(2, 3, 0);
    rig.wait_ms(1_000);
    assert!(rig.acked().is_empty(), "this connection has not shown 2 and 3");
    for id in 2..=4 {
        rig.push(2, id);
    }
    assert_eq!(rig.ids(), [4]);
    rig.wait_ms(50);
    assert_eq!(rig.acked(), [(2, 3)]);
}

#[test]
fn a_hole_is_fetched_and_what_came_behind_it_waits() {
    let mut rig = Rig::online(1);
    for id in [1, 4, 5, 9] {
        rig.push(2, id);
    }
    let fetches = |rig: &mut Rig| -> Vec<(u64, u64)> {
        let frames = std::mem::take(&mut rig.frames);
        frames
            .iter()
            .filter_map(|frame| match Frame::parse(frame).unwrap().0 {
                Frame::Fetch(fetch) => Some((fetch.from.get(), fetch.to.get())),
                _ => None,
            })
            .collect()
    };
    assert_eq!(fetches(&mut rig), [(2, 3)]);
    assert_eq!(rig.ids(), [1]);
    rig.push(2, 2);
    rig.push(2, 3);
    assert_eq!(rig.ids(), [2, 3, 4, 5]);
    assert_eq!(fetches(&mut rig), [(6, 8)]);
    rig.wait_ms(3_000);
    assert_eq!(fetches(&mut rig), [(6, 8)], "nobody answered");
    rig.gap(2, 6, 8);
    assert_eq!(
        rig.events,
        [Event::Gap {
            channel: channel(2),
            from: MessageId(6),
            to: MessageId(8),
            code: Code::Expired
        }]
        .into_iter()
        .chain(rig.events.iter().skip(1).cloned())
        .collect::<Vec<_>>()
    );
    assert_eq!(rig.ids(), [9]);
}

#[test]
fn a_hole_that_stays_is_healed_by_a_new_connection() {
    let mut rig = Rig::online(1);
    rig.push(2, 3);
    for sequence in 1..=20 {
        if !rig.disconnects.is_empty() {
            break;
        }
        rig.wait_ms(1_000);
        rig.say(Input::Frame(pong(sequence, 25_000)));
    }
    assert_eq!(rig.disconnects, [Code::Offline]);
    rig.wait_ms(50);
    rig.resume(1);
    for id in 1..=3 {
        rig.push(2, id);
    }
    assert_eq!(rig.ids(), [1, 2, 3]);
}

#[test]
fn what_had_no_room_behind_a_hole_is_fetched_later() {
    let mut rig = Rig::online(1);
    for id in 2..=300 {
        rig.push(2, id);
    }
    assert_eq!(rig.machine.counters().held_dropped, 299 - 256);
    rig.frames.clear();
    rig.push(2, 1);
    assert_eq!(rig.ids(), (1..=257).collect::<Vec<_>>());
    match Frame::parse(rig.frames.last().unwrap()).unwrap().0 {
        Frame::Fetch(fetch) => assert_eq!((fetch.from.get(), fetch.to.get()), (258, 300)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn gaps_count_as_consumed_with_what_stands_before_them() {
    let mut rig = Rig::online(1);
    rig.gap(2, 1, 10);
    rig.wait_ms(50);
    assert_eq!(rig.acked(), [(2, 10)], "nothing stands before it");
    rig.push(2, 11);
    rig.gap(2, 12, 20);
    rig.push(2, 21);
    rig.wait_ms(50);
    assert!(rig.acked().is_empty());
    rig.consume(2, 11, 0);
    rig.wait_ms(50);
    assert_eq!(rig.acked(), [(2, 20)]);
    rig.gap(2, 5, 21);
    rig.gap(2, 5, 23);
    let gaps: Vec<_> = rig
        .events
        .iter()
        .filter_map(|event| match event {
            Event::Gap { from, to, .. } => Some((from.0, to.0)),
            _ => None,
        })
        .collect();
    assert_eq!(gaps, [(1, 10), (12, 20), (22, 23)]);
}

#[test]
fn a_restarted_history_moves_the_cursor_back_and_is_told() {
    let mut rig = Rig::online(1);
    rig.history(2, 1, 0, 1);
    assert!(rig.events.is_empty(), "the first life is no restart");
    for id in 1..=8 {
        rig.push(2, id);
    }
    rig.consume(2, 6, 1);
    rig.events.clear();
    rig.history(2, 2, 4, 5);
    assert_eq!(rig.events, [Event::HistoryRestarted { channel: channel(2), at: MessageId(5) }]);
    rig.events.clear();
    rig.push(2, 5);
    rig.push(2, 6);
    assert_eq!(rig.ids(), [5, 6], "other messages under the same ids");
    // A late confirmation of the old life says nothing about the new one.
    rig.consume(2, 8, 1);
    rig.consume(2, 5, 2);
    let mut rig = rig.restart();
    rig.log_in(2);
    for id in 6..=7 {
        rig.push(2, id);
    }
    assert_eq!(rig.ids(), [6, 7]);
}

#[test]
fn what_stands_in_a_new_life_of_a_history_is_confirmed_as_of_the_old_one() {
    let mut rig = Rig::online(1);
    rig.history(2, 1, 0, 1);
    for id in 1..=8 {
        rig.push(2, id);
    }
    rig.consume(2, 2, 1);
    rig.history(2, 2, 8, 9);
    rig.history(2, 3, 8, 6);
    rig.consume(2, 5, 1);
    rig.consume(2, 6, 2); // void since the third life began
    rig.wait_ms(100);
    assert_eq!(rig.acked().last(), Some(&(2, 5)));
    assert_eq!(rig.machine.counters().stray_confirmations, 1);
}

#[test]
fn a_cursor_beyond_the_newest_message_comes_back() {
    let mut rig = Rig::online(1);
    rig.history(2, 1, 0, 1);
    for id in 1..=8 {
        rig.push(2, id);
    }
    rig.lose();
    rig.log_in(2);
    rig.events.clear();
    rig.history(2, 1, 5, 1);
    assert_eq!(rig.events, [Event::HistoryRestarted { channel: channel(2), at: MessageId(6) }]);
    rig.events.clear();
    rig.push(2, 6);
    assert_eq!(rig.ids(), [6]);
}

/// What the server says beside pushes travels in order, and they may come by datagram before it.
#[test]
fn a_word_that_pushes_have_overtaken_takes_nothing_back() {
    let mut rig = Rig::online(1);
    rig.history(2, 1, 0, 1);
    for id in 1..=6 {
        rig.push(2, id);
    }
    rig.consume(2, 6, 1);
    rig.say(Input::Read { channel: channel(2), id: MessageId(6) });
    rig.history(2, 1, 5, 1);
    let reads = rig.store.load().expect("memory does not fail").reads;
    assert_eq!(reads.iter().map(|at| at.id.0).collect::<Vec<_>>(), [6]);
    rig.push(2, 6);
    rig.push(2, 7);
    assert_eq!(rig.ids(), [1, 2, 3, 4, 5, 6, 7]);
    let is_restart = |event: &Event| matches!(event, Event::HistoryRestarted { .. });
    assert!(!rig.events.iter().any(is_restart), "{:?}", rig.events);
}

#[test]
fn what_was_not_given_can_not_be_confirmed() {
    let mut rig = Rig::online(1);
    rig.push(2, 1);
    rig.consume(2, 7, 0);
    rig.consume(3, 1, 0);
    rig.wait_ms(100);
    assert!(rig.acked().is_empty());
    assert_eq!(rig.machine.counters().stray_confirmations, 2);
}

#[test]
fn frames_that_no_server_sends_end_the_connection() {
    for bad in [
        super::rig::push(channel(2), 0, "id 0"),
        super::rig::frame(Kind::Ping, &[0u8; 8], &[]),
        bytes::Bytes::from_static(&[9, 0, 0x13, 0, 1]),
    ] {
        let mut rig = Rig::online(1);
        rig.say(Input::Frame(bad));
        assert_eq!(rig.disconnects, [Code::Malformed]);
        assert_eq!(rig.tick(), "reconnect");
    }
}

#[test]
fn kinds_of_the_future_are_stepped_over() {
    let mut rig = Rig::online(1);
    rig.say(Input::Frame(super::rig::frame(Kind(0x77), &[1u8, 2, 3], &[])));
    rig.push(2, 1);
    assert_eq!(rig.ids(), [1]);
    assert_eq!(rig.machine.counters().unknown_frames, 1);
}
