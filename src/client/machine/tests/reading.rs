//! Random pushes, holes, repeats, losses and crashes against a small model of a server that
//! pushes: the application is given each message once in a process and in order, and after a
//! crash goes on behind what it had consumed.

use proptest::prelude::*;
use tern_protocol::Frame;

use super::rig::Rig;
use crate::machine::{Event, Input};

/// What may happen next.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// The channel gets so many messages, and a few are pushed.
    Push {
        more: u64,
        pushed: u64,
    },
    /// Some that should have been pushed are not.
    Skip(u64),
    /// Some are pushed once more.
    Again(u64),
    /// Some ids are gone for good; told by GAP instead.
    Lose(u64),
    /// The server answers what was fetched.
    AnswerFetches,
    /// The application consumes so many of those that it was given.
    Consume(u64),
    /// The disk is done.
    Store,
    /// Time passes.
    Wait(u64),
    Reconnect,
    Crash,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0u64..5, 0u64..5).prop_map(|(more, pushed)| Step::Push { more, pushed }),
        2 => (1u64..4).prop_map(Step::Skip),
        1 => (1u64..6).prop_map(Step::Again),
        1 => (1u64..4).prop_map(Step::Lose),
        3 => Just(Step::AnswerFetches),
        4 => (0u64..6).prop_map(Step::Consume),
        3 => Just(Step::Store),
        1 => (1u64..4_000).prop_map(Step::Wait),
        1 => Just(Step::Reconnect),
        1 => Just(Step::Crash),
    ]
}

const PEER: u64 = 2;
const INCARNATION: u32 = 3;

struct World {
    rig: Rig,
    /// Newest id of the channel, and the newest that was pushed or skipped.
    newest: u64,
    pushed: u64,
    /// The newest id that any connection has come to.
    reached: u64,
    /// Ids that are gone.
    lost: Vec<bool>,
    epoch: u32,
    /// The newest id that the application was given or told to step over in this process.
    given: u64,
    /// The newest id that it has consumed, and what of that is on the disk.
    consumed: u64,
    acked: u64,
}

impl World {
    fn new() -> Self {
        let mut world = Self {
            rig: Rig::new(),
            newest: 0,
            pushed: 0,
            reached: 0,
            lost: vec![false],
            epoch: 0,
            given: 0,
            consumed: 0,
            acked: 0,
        };
        world.rig.stores = false;
        world.connect();
        world
    }

    fn connect(&mut self) {
        self.epoch += 1;
        self.rig.until_opening();
        self.rig.disconnects.clear();
        self.rig.frames.clear();
        self.rig.log_in(self.epoch);
        let mut cursor = 0;
        for frame in &self.rig.frames {
            if let Frame::Cursors(list) = Frame::parse(frame).unwrap().0 {
                cursor = list.first().map_or(0, |cursor| cursor.id.get());
            }
        }
        assert!(cursor <= self.consumed, "it says that it consumed what it did not");
        self.pushed = cursor;
        self.acked = cursor;
        self.rig.history(PEER, INCARNATION, self.newest, 1);
    }

    fn show(&mut self, id: u64) {
        if self.lost[id as usize] {
            self.rig.gap(PEER, id, id);
        } else {
            self.rig.push(PEER, id);
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Push { more, pushed } => {
                self.newest += more;
                self.lost.resize(self.newest as usize + 1, false);
                for _ in 0..pushed.min(self.newest - self.pushed) {
                    self.pushed += 1;
                    self.show(self.pushed);
                }
            }
            Step::Skip(ids) => self.pushed = self.newest.min(self.pushed + ids),
            Step::Again(ids) => {
                for id in self.pushed.saturating_sub(ids) + 1..=self.pushed {
                    self.show(id);
                }
            }
            Step::Lose(ids) => {
                let from = self.reached as usize + 1;
                self.lost.iter_mut().skip(from).take(ids as usize).for_each(|lost| *lost = true);
            }
            Step::AnswerFetches => self.answer_fetches(),
            Step::Consume(ids) => {
                let to = self.given.min(self.consumed + ids);
                if to > self.consumed {
                    self.consumed = to;
                    self.rig.consume(PEER, to, INCARNATION);
                }
            }
            Step::Store => self.rig.store_all(),
            Step::Wait(ms) => self.rig.wait_ms(ms),
            Step::Reconnect => {
                self.rig.say(Input::Disconnected { code: None });
                self.connect();
            }
            Step::Crash => self.crash(),
        }
        self.reached = self.reached.max(self.pushed);
        self.look();
        if !self.rig.disconnects.is_empty() {
            // It gave up on a hole, or on the silence.
            self.connect();
        }
    }

    fn answer_fetches(&mut self) {
        for frame in std::mem::take(&mut self.rig.frames) {
            match Frame::parse(&frame).unwrap().0 {
                Frame::Fetch(fetch) => {
                    let (from, to) = (fetch.from.get(), fetch.to.get());
                    assert!(from > 0 && to <= self.newest, "{from} to {to}");
                    (from..=to).for_each(|id| self.show(id));
                    self.reached = self.reached.max(to);
                }
                Frame::ReceiveAck(list) => self.note_ack(list[0].id.get()),
                _ => {}
            }
        }
    }

    fn note_ack(&mut self, id: u64) {
        assert!(id >= self.acked && id <= self.consumed, "{id} was not consumed");
        assert!(id <= self.newest);
        self.acked = id;
    }

    fn crash(&mut self) {
        let rig = std::mem::replace(&mut self.rig, Rig::new());
        self.rig = rig.restart();
        self.rig.stores = false;
        // The bench stores each batch when it is asked to.
        self.given = self.consumed;
        self.connect();
    }

    /// Checks what the application was given.
    fn look(&mut self) {
        for event in std::mem::take(&mut self.rig.events) {
            match event {
                Event::Message(message) => {
                    assert_eq!(message.position.id.0, self.given + 1);
                    self.given += 1;
                }
                Event::Gap { from, to, .. } => {
                    assert_eq!(from.0, self.given + 1);
                    self.given = to.0;
                    if self.consumed + 1 == from.0 {
                        self.consumed = to.0;
                    }
                }
                Event::HistoryRestarted { at, .. } => panic!("restarted at {at}"),
                _ => {}
            }
        }
        self.step_over_lost();
    }

    /// What is gone right behind the consumed counts as consumed once it was told.
    fn step_over_lost(&mut self) {
        while self.consumed < self.given && self.lost[self.consumed as usize + 1] {
            self.consumed += 1;
        }
    }

    fn finish(&mut self) {
        // Of ids that were skipped at the very end nobody knows but the server.
        self.step(Step::Reconnect);
        for _ in 0..100 {
            let rest = self.newest - self.pushed;
            self.step(Step::Push { more: 0, pushed: rest });
            self.step(Step::AnswerFetches);
            self.step(Step::Consume(u64::MAX / 2));
            self.step(Step::Store);
            self.step(Step::Wait(100));
            if self.given == self.newest && self.consumed == self.newest {
                break;
            }
        }
        self.step(Step::AnswerFetches);
        assert_eq!(
            (self.given, self.consumed, self.acked),
            (self.newest, self.newest, self.newest)
        );
    }
}

proptest! {
    #![proptest_config(super::rig::cases(400))]

    #[test]
    fn each_message_is_given_once_and_in_order(steps in prop::collection::vec(step(), 1..150)) {
        let mut world = World::new();
        for step in steps {
            world.step(step);
        }
        world.finish();
    }
}
