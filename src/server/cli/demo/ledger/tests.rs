//! Each anomaly, made by hand, is found; a history without one is clean.

use std::time::Duration;

use super::*;

const ANN: DeviceNo = DeviceNo(0);
const BOB: DeviceNo = DeviceNo(1);
const AGAIN_MAX: u64 = 2;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn ann(number: u64) -> Mark {
    Mark { by: ANN, number }
}

fn bob(number: u64) -> Mark {
    Mark { by: BOB, number }
}

impl Ledger {
    fn show(&mut self, device: DeviceNo, life: u32, id: u64, mark: Mark) {
        self.showed(ms(100), Showing { device, life, id, mark: Some(mark) });
    }

    fn found(&self) -> Vec<Anomaly> {
        self.verdict().anomalies
    }
}

/// Ann's 1, bob's 1 and ann's 2 are sent and acked in this order.
fn acked() -> Ledger {
    let mut ledger = Ledger::new(2, AGAIN_MAX);
    for (id, mark) in [(1, ann(1)), (2, bob(1)), (3, ann(2))] {
        ledger.sent(ms(id * 10), mark);
        ledger.acked(ms(id * 10 + 5), mark, id);
    }
    ledger
}

/// The same, and ann's device shows everything.
fn shown_by_ann() -> Ledger {
    let mut ledger = acked();
    for (id, mark) in [(1, ann(1)), (2, bob(1)), (3, ann(2))] {
        ledger.show(ANN, 1, id, mark);
    }
    ledger
}

/// The same, and both devices show everything.
fn complete() -> Ledger {
    let mut ledger = shown_by_ann();
    for (id, mark) in [(1, ann(1)), (2, bob(1)), (3, ann(2))] {
        ledger.show(BOB, 1, id, mark);
    }
    ledger
}

#[test]
fn a_good_run_is_clean_and_summed() {
    let ledger = complete();
    assert!(ledger.open().is_settled());
    let verdict = ledger.verdict();
    assert_eq!(verdict.anomalies, []);
    assert_eq!(
        verdict.devices,
        [
            DeviceSum { sent: 2, acked: 2, delivered: 3, shown_again: 0 },
            DeviceSum { sent: 1, acked: 1, delivered: 3, shown_again: 0 },
        ]
    );
    assert_eq!(verdict.ack_times, [ms(5); 3]);
    assert_eq!(verdict.receive_times, [ms(70), ms(80), ms(90)], "by the other user's device only");
}

#[test]
fn what_is_open_is_counted() {
    let mut ledger = shown_by_ann();
    assert_eq!(ledger.open(), Open { unanswered: 0, unseen: 3 });
    ledger.sent(ms(50), bob(2));
    assert_eq!(ledger.open(), Open { unanswered: 1, unseen: 3 });
    assert_eq!(ledger.unanswered(BOB).collect::<Vec<_>>(), [bob(2)]);
}

#[test]
fn a_lost_message_is_found() {
    let mut ledger = shown_by_ann();
    ledger.show(BOB, 1, 1, ann(1));
    ledger.show(BOB, 1, 2, bob(1));
    assert_eq!(ledger.found(), [Anomaly::Lost { mark: ann(2), id: 3, device: BOB }]);
}

#[test]
fn a_hole_is_found() {
    let mut ledger = shown_by_ann();
    ledger.show(BOB, 1, 1, ann(1));
    ledger.show(BOB, 1, 3, ann(2));
    let hole = Anomaly::Hole { device: BOB, from: 2, to: 2 };
    assert_eq!(ledger.found(), [hole, Anomaly::Lost { mark: bob(1), id: 2, device: BOB }]);
}

#[test]
fn ids_start_at_one() {
    let mut ledger = acked();
    ledger.show(ANN, 1, 2, bob(1));
    assert!(ledger.found().contains(&Anomaly::Hole { device: ANN, from: 1, to: 1 }));
}

#[test]
fn a_place_twice_is_a_duplicate() {
    let mut ledger = complete();
    ledger.show(BOB, 1, 3, ann(2));
    assert_eq!(ledger.found(), [Anomaly::Duplicated { device: BOB, mark: ann(2), ids: [3, 3] }]);
}

#[test]
fn a_message_at_two_places_is_a_duplicate() {
    let mut ledger = complete();
    ledger.show(BOB, 1, 4, ann(2));
    assert_eq!(ledger.found(), [Anomaly::Duplicated { device: BOB, mark: ann(2), ids: [3, 4] }]);
}

#[test]
fn a_sender_overtaking_itself_is_found() {
    let mut ledger = Ledger::new(1, AGAIN_MAX);
    for (id, mark) in [(1, ann(2)), (2, ann(1))] {
        ledger.sent(ms(0), mark);
        ledger.acked(ms(1), mark, id);
        ledger.show(ANN, 1, id, mark);
    }
    assert_eq!(ledger.found(), [Anomaly::OutOfOrder { device: ANN, mark: ann(1), after: 2 }]);
}

#[test]
fn an_id_behind_a_later_one_is_found() {
    let mut ledger = shown_by_ann();
    for (id, mark) in [(2, bob(1)), (1, ann(1)), (3, ann(2))] {
        ledger.show(BOB, 1, id, mark);
    }
    let hole = Anomaly::Hole { device: BOB, from: 1, to: 1 };
    assert_eq!(ledger.found(), [hole, Anomaly::Late { device: BOB, id: 1, mark: ann(1) }]);
}

#[test]
fn devices_that_disagree_are_found() {
    let mut ledger = shown_by_ann();
    for (id, mark) in [(1, bob(1)), (2, ann(1)), (3, ann(2))] {
        ledger.show(BOB, 1, id, mark);
    }
    let found = ledger.found();
    assert_eq!(
        found,
        [
            Anomaly::Disagree { device: BOB, id: 1, mark: bob(1), other: ann(1) },
            Anomaly::Disagree { device: BOB, id: 2, mark: ann(1), other: bob(1) },
        ]
    );
    assert_eq!(found[0].kind(), Kind::OutOfOrder);
}

#[test]
fn an_ack_of_another_place_is_found() {
    let mut ledger = Ledger::new(1, AGAIN_MAX);
    for (id, mark) in [(2, ann(1)), (1, ann(2))] {
        ledger.sent(ms(0), mark);
        ledger.acked(ms(1), mark, id);
    }
    ledger.show(ANN, 1, 1, ann(1));
    ledger.show(ANN, 1, 2, ann(2));
    let wrong = |id, mark, other| Anomaly::Disagree { device: ANN, id, mark, other };
    assert_eq!(ledger.found(), [wrong(1, ann(1), ann(2)), wrong(2, ann(2), ann(1))]);
}

#[test]
fn false_acks_are_found() {
    let mut ledger = complete();
    ledger.acked(ms(60), ann(1), 1);
    assert_eq!(ledger.found(), [], "the same ack again is none");
    ledger.acked(ms(60), ann(1), 9);
    ledger.acked(ms(60), bob(7), 8);
    assert_eq!(
        ledger.found(),
        [
            Anomaly::FalseAck { mark: ann(1), id: 9, but: Some(1) },
            Anomaly::FalseAck { mark: bob(7), id: 8, but: None },
        ]
    );
}

#[test]
fn two_messages_acked_as_one_are_found() {
    let mut ledger = complete();
    ledger.sent(ms(60), bob(2));
    ledger.acked(ms(61), bob(2), 3);
    assert!(ledger.found().contains(&Anomaly::SharedPlace { id: 3, marks: [ann(2), bob(2)] }));
}

#[test]
fn phantoms_are_found() {
    let mut ledger = complete();
    ledger.showed(ms(99), Showing { device: ANN, life: 1, id: 4, mark: None });
    ledger.show(BOB, 1, 4, ann(3));
    assert_eq!(
        ledger.found(),
        [Anomaly::Phantom { device: ANN, id: 4 }, Anomaly::Phantom { device: BOB, id: 4 }]
    );
}

#[test]
fn refusals_silence_and_lost_history_break_the_promise() {
    let mut ledger = complete();
    ledger.sent(ms(60), ann(3));
    ledger.sent(ms(61), ann(4));
    ledger.refused(ann(3), "KEY_CLOSED".to_owned());
    ledger.history_lost(BOB, "ids 5 to 6".to_owned());
    let found = ledger.found();
    let kinds: Vec<_> = found.iter().map(Anomaly::kind).collect();
    assert_eq!(kinds, [Kind::Answer, Kind::Lost, Kind::Answer]);
    assert_eq!(found[2], Anomaly::Unanswered { mark: ann(4) });
}

#[test]
fn a_new_life_may_show_the_stated_window_again() {
    let mut ledger = complete();
    ledger.show(BOB, 2, 2, bob(1));
    ledger.show(BOB, 2, 3, ann(2));
    assert_eq!(ledger.found(), []);
    assert_eq!(ledger.verdict().devices[1].shown_again, 2);
    ledger.show(BOB, 2, 3, ann(2));
    assert_eq!(ledger.found().len(), 1, "once a life");
}

#[test]
fn a_new_life_may_not_show_more_than_the_window() {
    let mut ledger = complete();
    ledger.show(BOB, 2, 1, ann(1));
    assert_eq!(ledger.found(), [Anomaly::Duplicated { device: BOB, mark: ann(1), ids: [1, 1] }]);
}

#[test]
fn a_new_life_may_not_step_over_anything() {
    let mut ledger = complete();
    ledger.sent(ms(60), ann(3));
    ledger.sent(ms(60), ann(4));
    ledger.show(BOB, 2, 5, ann(4));
    assert!(ledger.found().contains(&Anomaly::Hole { device: BOB, from: 4, to: 4 }));
}

#[test]
fn a_new_life_may_not_tell_another_history() {
    let mut ledger = complete();
    ledger.show(BOB, 2, 3, bob(1));
    assert!(ledger.found().contains(&Anomaly::Disagree {
        device: BOB,
        id: 3,
        mark: bob(1),
        other: ann(2)
    }));
}

#[test]
fn every_anomaly_can_be_said() {
    let mut ledger = complete();
    ledger.acked(ms(60), ann(1), 9);
    let words = ledger.found()[0].describe(&["ann", "bob"]).to_string();
    assert_eq!(words, "false ack: message 1 of ann as 1, then as 9");
}
