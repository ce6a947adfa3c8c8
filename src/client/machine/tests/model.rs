//! Random losses against a small model of a server: every message stands in its channel once, in
//! the order of sending, and every result says what the server did.

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;
use tern_protocol::limits::UNACKED_SENDS_MAX;
use tern_protocol::{ChannelId, Code, Epoch, Frame, SendKey, Uin};

use super::rig::{self, Rig, channel};
use crate::machine::{Input, SendId, SendOutcome};

/// What may happen next.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// The application sends to one of its peers.
    Send(u64),
    /// Frames to the server arrive; each of its answers arrives, unless a bit says that it is
    /// lost with the connection.
    Exchange { arrive: usize, answers: usize },
    /// The server answers the next frame with a refusal of class retry.
    Busy,
    /// The next frame's key is dead.
    Final,
    /// The connection is lost, and a new one comes.
    Reconnect { resumed: bool },
    /// Time passes.
    Wait(u64),
    /// The disk is done.
    Store,
    /// The application settles what it was told.
    Settle,
    /// The process dies.
    Crash,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (2u64..4).prop_map(Step::Send),
        6 => (0usize..8, 0usize..8)
            .prop_map(|(arrive, answers)| Step::Exchange { arrive, answers }),
        1 => Just(Step::Busy),
        1 => Just(Step::Final),
        1 => any::<bool>().prop_map(|resumed| Step::Reconnect { resumed }),
        2 => (1u64..3_000).prop_map(Step::Wait),
        4 => Just(Step::Store),
        4 => Just(Step::Settle),
        1 => Just(Step::Crash),
    ]
}

/// The server as the client may see it: deduplicates for ever, keeps each device's order.
#[derive(Default)]
struct Model {
    epoch: u32,
    channels: BTreeMap<ChannelId, Vec<Bytes>>,
    appended: BTreeMap<SendKey, (ChannelId, u64, Bytes)>,
    refused: BTreeMap<SendKey, Code>,
    newest: SendKey,
    busy: bool,
    fatal: bool,
}

impl Model {
    fn answer(&mut self, frame: &Bytes) -> Option<Bytes> {
        let Frame::Send(head, content) = Frame::parse(frame).unwrap().0 else { return None };
        let (key, channel) = (head.key(), head.channel);
        let refuse = |code, after| Some(rig::send_refused(key, channel, code, after));
        if let Some((there, id, same)) = self.appended.get(&key) {
            assert_eq!((there, &same[..]), (&channel, content), "{key} names two messages");
            return Some(rig::send_ack(key, channel, *id));
        }
        assert!(key.epoch.0 <= self.epoch, "{key} is of no login");
        if let Some(code) = self.refused.get(&key) {
            return refuse(*code, 0); // the first answer was lost
        }
        let below = self.newest.counter.0.checked_sub(key.counter.0);
        assert!(
            key.epoch > self.newest.epoch
                || key.epoch == self.newest.epoch && below.is_none_or(|b| b < UNACKED_SENDS_MAX),
            "{key} is closed by {}",
            self.newest
        );
        if std::mem::take(&mut self.busy) {
            return refuse(Code::Busy, 40);
        }
        if std::mem::take(&mut self.fatal) {
            self.refused.insert(key, Code::NotAMember);
            return refuse(Code::NotAMember, 0);
        }
        let predecessor = SendKey { counter: head.predecessor.into(), ..key };
        if predecessor.counter.0 != 0 && !self.appended.contains_key(&predecessor) {
            return refuse(Code::Predecessor, 40);
        }
        let list = self.channels.entry(channel).or_default();
        list.push(Bytes::copy_from_slice(content));
        let id = list.len() as u64;
        self.appended.insert(key, (channel, id, Bytes::copy_from_slice(content)));
        self.newest = self.newest.max(key);
        Some(rig::send_ack(key, channel, id))
    }
}

/// A client and the model, and what must come of it.
struct World {
    rig: Rig,
    model: Model,
    /// Everything that was stored when it was sent, in order, by channel.
    asked: BTreeMap<ChannelId, Vec<Bytes>>,
    told: BTreeMap<Bytes, SendOutcome>,
    unsettled: Vec<SendId>,
    serial: u64,
}

impl World {
    fn new() -> Self {
        let mut world = Self {
            rig: Rig::new(),
            model: Model::default(),
            asked: BTreeMap::new(),
            told: BTreeMap::new(),
            unsettled: Vec::new(),
            serial: 0,
        };
        world.connect(false);
        world
    }

    fn connect(&mut self, resumed: bool) {
        if !resumed {
            self.model.epoch += 1;
        }
        self.rig.until_opening();
        self.rig.disconnects.clear();
        self.rig.frames.clear();
        self.rig.log_in_as(self.model.epoch, resumed);
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Send(peer) => {
                self.serial += 1;
                let content = Bytes::from(self.serial.to_string());
                self.asked.entry(channel(peer)).or_default().push(content.clone());
                self.rig.say(Input::Send {
                    channel: channel(peer),
                    content_type: 1,
                    content,
                    tag: self.serial,
                });
            }
            Step::Exchange { arrive, answers } => self.exchange(arrive, answers),
            Step::Busy => self.model.busy = true,
            Step::Final => self.model.fatal = true,
            Step::Reconnect { resumed } => {
                self.rig.say(Input::Disconnected { code: None });
                self.connect(resumed);
            }
            Step::Wait(ms) => self.wait(ms),
            Step::Store => self.rig.store_all(),
            Step::Settle => {
                self.note_results();
                for send in std::mem::take(&mut self.unsettled) {
                    self.rig.say(Input::Settled(send));
                }
            }
            Step::Crash => self.crash(),
        }
        self.note_results();
    }

    fn exchange(&mut self, arrive: usize, answers: usize) {
        let arrive = arrive.min(self.rig.frames.len());
        let frames: Vec<Bytes> = self.rig.frames.drain(..arrive).collect();
        let answered: Vec<Bytes> =
            frames.iter().filter_map(|frame| self.model.answer(frame)).collect();
        let lost = answers < answered.len();
        for answer in answered.into_iter().take(answers) {
            self.rig.say(Input::Frame(answer));
        }
        if lost {
            self.rig.say(Input::Disconnected { code: None });
            self.connect(true);
        }
    }

    fn wait(&mut self, ms: u64) {
        self.rig.wait_ms(ms);
        if !self.rig.disconnects.is_empty() {
            self.connect(true);
        }
    }

    fn crash(&mut self) {
        // The bench stores each batch when it is asked to; what the machine was not told of is
        // on the disk all the same, as after a real crash.
        let rig = std::mem::replace(&mut self.rig, Rig::new());
        self.unsettled.clear();
        self.rig = rig.restart();
        self.rig.stores = false;
        self.connect(false);
    }

    fn note_results(&mut self) {
        for result in self.rig.take_results() {
            let content = Bytes::from(result.tag.to_string());
            let before = self.told.insert(content, result.outcome);
            assert!(before.is_none_or(|before| before == result.outcome), "two answers");
            self.unsettled.push(result.send);
        }
    }

    /// Lets everything come to its end.
    fn finish(&mut self) {
        (self.model.busy, self.model.fatal) = (false, false);
        for _ in 0..1_000 {
            self.step(Step::Store);
            self.exchange(usize::MAX, usize::MAX);
            self.step(Step::Settle);
            self.wait(100);
            if self.rig.machine.unsettled() == (0, 0) {
                return;
            }
        }
        panic!("{:?} never end", self.rig.machine.unsettled());
    }

    fn check(&self) {
        for (channel, asked) in &self.asked {
            let kept: Vec<&Bytes> = asked
                .iter()
                .filter(|content| matches!(self.told[*content], SendOutcome::Acked { .. }))
                .collect();
            let there = self.model.channels.get(channel).map_or(&[][..], Vec::as_slice);
            assert_eq!(there.iter().collect::<Vec<_>>(), kept, "{channel}");
        }
        for (channel, id, content) in self.model.appended.values() {
            match self.told[content] {
                SendOutcome::Acked { id: told, .. } => assert_eq!(told.0, *id, "{channel}"),
                other => panic!("{content:?} stands in {channel} and was told {other:?}"),
            }
        }
    }
}

impl Rig {
    fn log_in_as(&mut self, epoch: u32, resumed: bool) {
        self.say(Input::Connected);
        self.say(Input::Frame(rig::welcome()));
        if !resumed {
            // To a RESUME of a session that is gone; a LOGIN does not hear it.
            let resumes = self
                .frames
                .iter()
                .any(|frame| matches!(Frame::parse(frame).unwrap().0, Frame::Resume(_)));
            if resumes {
                let gone = rig::error(Code::ResumeUnknown, tern_protocol::Kind::Resume, 0);
                self.say(Input::Frame(gone));
            }
        }
        self.say(Input::Frame(rig::logged_in(epoch, resumed)));
        self.frames.retain(|frame| matches!(Frame::parse(frame).unwrap().0, Frame::Send(..)));
    }
}

proptest! {
    #![proptest_config(super::rig::cases(400))]

    #[test]
    fn every_message_stands_once_in_order_and_every_result_is_true(
        steps in prop::collection::vec(step(), 1..150),
    ) {
        let mut world = World::new();
        world.rig.stores = false;
        for step in steps {
            world.step(step);
        }
        world.finish();
        world.check();
    }
}

#[test]
fn the_model_itself_refuses_what_it_must() {
    let mut model = Model { epoch: 1, ..Model::default() };
    let ack = model.answer(&send_frame(1, 1, 0)).unwrap();
    assert!(matches!(Frame::parse(&ack).unwrap().0, Frame::SendAck(_)));
    let early = model.answer(&send_frame(1, 3, 2)).unwrap();
    assert!(matches!(Frame::parse(&early).unwrap().0, Frame::SendRefused(_)));
}

fn send_frame(epoch: u32, counter: u32, predecessor: u32) -> Bytes {
    let head = tern_protocol::frames::Send {
        channel: ChannelId::direct(Uin(1), Uin(2)),
        epoch: Epoch(epoch).into(),
        counter: counter.into(),
        predecessor: predecessor.into(),
        content_type: 1.into(),
        kind: 1,
        version: 1,
        refers_to: 0.into(),
    };
    rig::frame(tern_protocol::Kind::Send, &head, b"x")
}
