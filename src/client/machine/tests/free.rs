//! Single frames that may be lost and overtake each other.

use tern_protocol::frames::capabilities;
use tern_protocol::{Frame, Kind};

use super::rig::{Rig, key, logged_in, welcome_of};
use crate::machine::Input;
use crate::machine::Tuning;
use crate::store::MemoryStore;

/// A machine at a server that can do datagrams.
fn rig(offers: bool, capabilities: u64) -> Rig {
    let tuning = Tuning { datagrams: offers, ..Tuning::default() };
    let mut rig = Rig::on(MemoryStore::default(), tuning, 1);
    rig.say(Input::Connected);
    rig.say(Input::Frame(welcome_of(capabilities)));
    rig.say(Input::Frame(logged_in(1, false)));
    rig.machine.set_rtt_ms(40);
    (rig.frames, rig.events) = (Vec::new(), Vec::new());
    rig
}

fn free_sends(rig: &mut Rig) -> usize {
    let frames = std::mem::take(&mut rig.free);
    let is_send = |frame: &&bytes::Bytes| Frame::parse(frame).unwrap().0.kind() == Kind::Send;
    frames.iter().filter(is_send).count()
}

#[test]
fn both_sides_must_offer_datagrams() {
    for (offers, capabilities) in [(false, capabilities::DATAGRAMS), (true, 0), (true, 1 << 63)] {
        let mut rig = rig(offers, capabilities);
        rig.send(2, "a");
        assert_eq!((free_sends(&mut rig), rig.sends().len()), (0, 1));
    }
    let mut rig = rig(true, capabilities::DATAGRAMS | 1 << 63);
    rig.send(2, "a");
    assert_eq!((free_sends(&mut rig), rig.sends().len()), (1, 0));
}

#[test]
fn an_unanswered_datagram_is_repaired_once_by_stream_under_its_key() {
    let mut rig = rig(true, capabilities::DATAGRAMS);
    rig.send(2, "a");
    rig.send(2, "b");
    rig.send(3, "c");
    assert_eq!(free_sends(&mut rig), 3);
    rig.ack(key(1, 1), 2, 1);
    rig.wait_ms(69);
    assert_eq!(rig.sends().len(), 0, "5/4 of 40 ms and 20 ms are not over");
    rig.wait_ms(1);
    assert_eq!(rig.sends(), ["1.2<0:b", "1.3<0:c"], "what is answered has no need");
    rig.wait_ms(1_000);
    assert_eq!((free_sends(&mut rig), rig.sends().len()), (0, 0), "QUIC repeats the rest");
    assert_eq!(rig.machine.counters().repairs, 2);
    rig.ack(key(1, 2), 2, 2);
    rig.ack(key(1, 2), 2, 2);
    rig.ack(key(1, 3), 3, 1);
    assert_eq!(rig.results().len(), 3, "each once");
}

#[test]
fn a_repair_names_an_unanswered_predecessor() {
    let mut rig = rig(true, capabilities::DATAGRAMS);
    rig.send(2, "a");
    rig.send(2, "b");
    rig.wait_ms(70);
    assert_eq!(rig.sends(), ["1.1<0:a", "1.2<1:b"]);
}

#[test]
fn messages_that_overtake_are_given_in_order_and_nothing_is_asked_for() {
    let mut rig = rig(true, capabilities::DATAGRAMS);
    rig.history(2, 1, 0, 1);
    for id in [3, 1, 3, 4, 2, 1] {
        rig.push(2, id);
    }
    assert_eq!(rig.ids(), [1, 2, 3, 4]);
    assert_eq!(rig.machine.counters().fetches, 0);
}

#[test]
fn a_hole_that_stays_is_asked_for() {
    let mut rig = rig(true, capabilities::DATAGRAMS);
    rig.history(2, 1, 0, 1);
    rig.push(2, 1);
    rig.push(2, 4);
    assert_eq!(rig.ids(), [1]);
    assert!(!rig.kinds().contains(&Kind::Fetch), "the server repairs first");
    rig.wait_ms(Tuning::default().fetch_again_ms);
    assert!(rig.kinds().contains(&Kind::Fetch));
    rig.push(2, 2);
    rig.push(2, 3);
    assert_eq!(rig.ids(), [2, 3, 4]);
    rig.wait_ms(4 * Tuning::default().fetch_again_ms);
    assert_eq!(rig.machine.counters().fetches, 1);
}
