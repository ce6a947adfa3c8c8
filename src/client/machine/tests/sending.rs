//! Sends: from the call to the final answer.

use tern_protocol::{Code, MessageId, UnixMillis};

use super::rig::{Rig, key};
use crate::machine::{Input, SendOutcome, Tuning};
use crate::store::MemoryStore;

fn acked(id: u64) -> SendOutcome {
    SendOutcome::Acked { id: MessageId(id), server_time: UnixMillis(5) }
}

#[test]
fn a_send_is_stored_before_it_leaves_and_answered_once() {
    let mut rig = Rig::online(4);
    rig.stores = false;
    rig.send(2, "one");
    assert!(rig.sends().is_empty(), "it is not on the disk yet");
    rig.store_all();
    assert_eq!(rig.sends(), ["4.1<0:one"]);
    rig.ack(key(4, 1), 2, 17);
    rig.ack(key(4, 1), 2, 17);
    assert_eq!(rig.results(), [(Some(key(4, 1)), acked(17))]);
    assert_eq!(rig.machine.counters().repeated_answers, 1);
    assert_eq!(rig.machine.unsettled(), (0, 0));
}

#[test]
fn predecessors_are_those_of_the_channel_that_are_unanswered() {
    let mut rig = Rig::online(1);
    for (peer, content) in [(2, "a"), (3, "b"), (2, "c"), (3, "d")] {
        rig.send(peer, content);
    }
    assert_eq!(rig.sends(), ["1.1<0:a", "1.2<0:b", "1.3<1:c", "1.4<2:d"]);
    rig.ack(key(1, 1), 2, 1);
    rig.ack(key(1, 3), 2, 2);
    rig.send(2, "e");
    assert_eq!(rig.sends(), ["1.5<0:e"]);
}

#[test]
fn what_was_unanswered_leaves_again_in_order_with_the_same_keys() {
    let mut rig = Rig::online(1);
    for (peer, content) in [(2, "a"), (3, "b"), (2, "c")] {
        rig.send(peer, content);
    }
    rig.ack(key(1, 1), 2, 1);
    rig.lose();
    rig.frames.clear();
    rig.resume(1);
    assert_eq!(rig.sends(), ["1.2<0:b", "1.3<0:c"]);
    assert_eq!(rig.machine.counters().resends, 2);
    assert_eq!(rig.results().len(), 1, "a lost connection is no result");
}

#[test]
fn sends_before_the_first_login_wait_and_keep_their_order() {
    let mut rig = Rig::new();
    rig.send(2, "a");
    rig.send(2, "b");
    assert!(rig.sends().is_empty());
    rig.log_in(9);
    assert_eq!(rig.sends(), ["9.1<0:a", "9.2<1:b"]);
}

#[test]
fn after_a_crash_old_keys_are_answered_before_new_ones_are_used() {
    let mut rig = Rig::online(1);
    rig.send(2, "a");
    rig.send(3, "b");
    rig.ack(key(1, 1), 2, 1); // told, but never settled
    let mut rig = rig.restart();
    rig.send(4, "new");
    rig.log_in(2);
    assert_eq!(rig.sends(), ["1.1<0:a", "1.2<0:b"]);
    rig.ack(key(1, 2), 3, 1);
    assert_eq!(rig.results(), [(Some(key(1, 2)), acked(1))]);
    assert!(rig.sends().is_empty(), "1.1 is not answered");
    rig.ack(key(1, 1), 2, 1);
    assert!(rig.sends().is_empty(), "1.1 is not settled");
    assert_eq!(rig.results(), [(Some(key(1, 1)), acked(1))]);
    assert_eq!(rig.sends(), ["2.1<0:new"]);
}

#[test]
fn a_server_that_grants_an_old_epoch_again_meets_no_used_counter() {
    let mut rig = Rig::online(1);
    rig.send(2, "a");
    let mut rig = rig.restart();
    rig.log_in(1);
    rig.send(2, "b");
    assert_eq!(rig.sends(), ["1.1<0:a", "1.2<1:b"]);
}

#[test]
fn a_final_refusal_is_stored_then_told_and_the_later_ones_leave_again() {
    let mut rig = Rig::online(1);
    for content in ["a", "b", "c"] {
        rig.send(2, content);
    }
    rig.send(3, "other");
    rig.frames.clear();
    rig.stores = false;
    rig.refuse(key(1, 1), 2, Code::NoSuchUser, 0);
    assert_eq!(rig.sends(), ["1.2<0:b", "1.3<2:c"]);
    assert!(rig.take_results().is_empty(), "a crash now would send it again");
    rig.store_all();
    assert_eq!(rig.results(), [(Some(key(1, 1)), SendOutcome::Refused(Code::NoSuchUser))]);
}

#[test]
fn a_refusal_that_was_not_settled_is_told_again_and_not_sent_again() {
    let mut rig = Rig::online(1);
    rig.send(2, "a");
    rig.refuse(key(1, 1), 2, Code::NotAMember, 0);
    assert_eq!(rig.take_results().len(), 1);
    let mut rig = rig.restart();
    assert_eq!(rig.results(), [(Some(key(1, 1)), SendOutcome::Refused(Code::NotAMember))]);
    rig.log_in(2);
    assert!(rig.sends().is_empty());
}

#[test]
fn an_unknown_key_is_told_as_unknown_and_never_sent_again() {
    let mut rig = Rig::online(1);
    rig.send(2, "a");
    rig.refuse(key(1, 1), 2, Code::KeyUnknown, 0);
    assert_eq!(rig.results(), [(Some(key(1, 1)), SendOutcome::Unknown)]);
    rig.lose();
    rig.frames.clear();
    rig.resume(1);
    assert!(rig.sends().is_empty());
}

#[test]
fn a_code_of_the_future_is_final() {
    let mut rig = Rig::online(1);
    rig.send(2, "a");
    rig.refuse(key(1, 1), 2, Code(0x7777), 50);
    assert_eq!(rig.results(), [(Some(key(1, 1)), SendOutcome::Refused(Code(0x7777)))]);
}

#[test]
fn try_again_after_is_obeyed_with_the_later_ones_behind() {
    let mut rig = Rig::online(1);
    for content in ["a", "b", "c"] {
        rig.send(2, content);
    }
    rig.frames.clear();
    rig.refuse(key(1, 2), 2, Code::RateLimited, 500);
    rig.refuse(key(1, 3), 2, Code::Predecessor, 10);
    rig.send(2, "d");
    rig.send(3, "free");
    assert_eq!(rig.sends(), ["1.5<0:free"], "the other channel flows");
    rig.wait_ms(499);
    assert!(rig.sends().is_empty());
    rig.wait_ms(51);
    // b alone is 1.2; half of the window is far more than what waits.
    assert_eq!(rig.sends(), ["1.2<1:b", "1.3<2:c", "1.4<3:d"]);
    rig.ack(key(1, 1), 2, 1);
    rig.ack(key(1, 2), 2, 2);
    rig.refuse(key(1, 3), 2, Code::Busy, 0);
    rig.wait_ms(50);
    assert_eq!(rig.sends(), ["1.3<0:c", "1.4<3:d"]);
}

#[test]
fn refusal_after_refusal_leaves_fewer_on_their_way() {
    let mut rig = Rig::online(1);
    for _ in 0..64 {
        rig.send(2, "x");
    }
    let mut flights = vec![rig.sends().len()];
    for _ in 0..8 {
        rig.refuse(key(1, 1), 2, Code::RateLimited, 20);
        rig.wait_ms(100);
        flights.push(rig.sends().len());
    }
    assert_eq!(flights, [64, 32, 16, 8, 4, 2, 1, 1, 1]);
    rig.ack(key(1, 1), 2, 1);
    rig.results();
    assert_eq!(rig.sends().len(), 2, "one came back, and one more may leave");
}

#[test]
fn the_window_is_counted_from_the_oldest_unsettled() {
    let mut rig = Rig::online(1);
    for _ in 0..70 {
        rig.send(2, "x");
    }
    assert_eq!(rig.sends().len(), 64);
    assert_eq!(rig.machine.unsettled(), (64, 6));
    for counter in 2..=64 {
        rig.ack(key(1, counter), 2, u64::from(counter));
    }
    rig.results();
    assert!(rig.sends().is_empty(), "1 is still open, and 65 - 1 is not less than 64");
    rig.ack(key(1, 1), 2, 1);
    rig.results();
    assert_eq!(rig.sends().len(), 6);
}

#[test]
fn what_is_longer_than_the_server_takes_is_refused_without_a_key() {
    let mut rig = Rig::online(1);
    rig.send(2, Box::leak("x".repeat(1_441).into_boxed_str()));
    rig.send(2, Box::leak("y".repeat(1_440).into_boxed_str()));
    assert_eq!(rig.sends().len(), 1);
    assert_eq!(rig.results(), [(None, SendOutcome::Refused(Code::ContentTooLong))]);
}

#[test]
fn an_unanswered_send_leaves_again_on_a_connection_that_lives() {
    let mut rig = Rig::online(1);
    rig.send(2, "a");
    rig.send(2, "b");
    rig.frames.clear();
    for sequence in 1..5 {
        rig.wait_ms(2_400);
        rig.say(Input::Frame(super::rig::pong(sequence, 25_000)));
    }
    rig.wait_ms(1_000);
    assert_eq!(rig.sends(), ["1.1<0:a", "1.2<1:b"]);
}

#[test]
fn used_up_counters_bring_a_full_login() {
    let tuning = Tuning { counter_max: 3, ..Tuning::default() };
    let mut rig = Rig::on(MemoryStore::default(), tuning, 1);
    rig.log_in(1);
    for _ in 0..4 {
        rig.send(2, "x");
    }
    assert_eq!(rig.sends().len(), 3);
    for counter in 1..=3 {
        rig.ack(key(1, counter), 2, u64::from(counter));
        assert!(rig.disconnects.is_empty(), "what is under way comes to its end");
    }
    rig.results();
    assert_eq!(rig.disconnects.len(), 1);
    assert_eq!(rig.tick(), "reconnect");
    rig.log_in(2);
    assert_eq!(rig.sends(), ["2.1<0:x"]);
}

#[test]
fn tags_come_back_after_a_crash() {
    let mut rig = Rig::online(1);
    rig.send(2, "four");
    let mut rig = rig.restart();
    rig.log_in(2);
    rig.ack(key(1, 1), 2, 8);
    assert_eq!(rig.take_results()[0].tag, 4);
}
