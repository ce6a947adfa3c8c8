//! The applications: they show messages, confirm them, and take note of results, sometimes late.

use std::collections::BTreeMap;

use tern_client::machine::{Event, Input, State};

use tern_core::placement::Placement;

use super::{Happening, World};
use crate::device::Act;
use crate::fault::Fault;
use crate::mutant::Mutant;
use crate::oracle::checks::Due;
use crate::oracle::fact::Label;

impl World {
    /// The machine tells the application something.
    pub(super) fn tell(&mut self, install: usize, event: Event) {
        let (number, device) = (install as u32, self.installs[install].device);
        match event {
            Event::Message(message) => {
                let placement = Placement::new(self.draw.shards, 1);
                let shard = placement.shard_of_channel(message.position.channel);
                self.oracle.message_given(number, shard, &message);
                let position = message.position;
                if let Some(process) = self.installs[install].process.as_mut() {
                    process.unread.push_back(position);
                }
                let delay = self.reading_ms();
                self.plan_act(install, delay, Act::Read);
                if self.mutant == Some(Mutant::ConfirmsFirst) {
                    self.plan_act(install, 0, Act::Confirm(position));
                }
            }
            Event::Result(result) => {
                let label = Label::from_tag(result.tag);
                let due = self.installs[install].posted.get(&label).copied().unwrap_or(Due::Ack);
                let placement = Placement::new(self.draw.shards, 1);
                let shard = placement.shard_of_channel(result.channel);
                let hurt = self.disk.borrow().is_hurt(shard);
                self.oracle.result_told(number, device, &result, due, hurt);
                let delay = self.work.between(0, 300);
                self.plan_act(install, delay, Act::Settle(result.send));
            }
            Event::State(state) => self.state_changed(install, state),
            Event::Unread(_) | Event::GroupReceipts(_) => self.take_counts(install, &event),
            Event::History(told) => self.take_history(install, &told),
            other => self.take_misfortune(install, &other),
        }
    }

    /// The application forgets what it has of a history that restarted, and hears the rest.
    fn take_misfortune(&mut self, install: usize, event: &Event) {
        match event {
            Event::Blocked { uin, begins: true, refused: None } => self.blocked(install, *uin),
            Event::BlockPage(page) => self.note_page(install, page),
            _ => {}
        }
        if let (Event::HistoryRestarted { channel, at }, Some(process)) =
            (event, self.installs[install].process.as_mut())
        {
            process.unread.retain(|unread| unread.channel != *channel || unread.id < *at);
        }
        let who = (install as u32, self.installs[install].device);
        self.oracle.misfortune(&self.disk.borrow(), who, event);
    }

    fn state_changed(&mut self, install: usize, state: State) {
        self.trace.note(
            self.now,
            &[5, install as u64],
            &[],
            format_args!("install {install} is {state:?}"),
        );
        let Some(process) = self.installs[install].process.as_mut() else { return };
        process.is_online = matches!(state, State::Online { .. });
        if let State::Ended(end) = state {
            process.has_ended = true;
            let device = self.installs[install].device;
            self.oracle.machine_ended(install as u32, device, end);
            let when = self.now + self.chaos.between(500, 20_000);
            self.agenda.add(when, Happening::DeviceStarts(install));
        }
    }

    fn reading_ms(&mut self) -> u64 {
        if self.struck(Fault::SlowConsumer) {
            self.work.between(200, 15_000)
        } else {
            self.work.between(0, 10)
        }
    }

    pub(super) fn plan_act(&mut self, install: usize, delay: u64, act: Act) {
        let generation = self.installs[install].generation;
        self.agenda.add(self.now + delay, Happening::App(install, generation, act));
    }

    /// The application acts.
    pub(super) fn act(&mut self, install: usize, generation: u64, act: Act) {
        if !self.is_process(install, generation) {
            return;
        }
        if let Some(until) = self.asleep(install) {
            return self.agenda.add(until, Happening::App(install, generation, act));
        }
        match act {
            Act::Read => self.read(install),
            Act::Confirm(position) => self.consume(install, position),
            Act::Settle(send) => self.device_input(install, Input::Settled(send)),
            Act::Look(channel, id) => self.read_up_to(install, channel, id),
            Act::Unblock(uin) => self.block(install, uin, false),
        }
    }

    /// Shows some of what there is, and confirms the newest of each channel a little later.
    fn read(&mut self, install: usize) {
        let Some(process) = self.installs[install].process.as_mut() else { return };
        let count = self.work.between(1, process.unread.len().max(1) as u64) as usize;
        let shown: Vec<_> = process.unread.drain(..count.min(process.unread.len())).collect();
        let more = !process.unread.is_empty();
        let mut newest = BTreeMap::new();
        for position in shown {
            self.oracle.message_shown(install as u32, position.channel, position.id.0);
            newest.insert(position.channel, position);
        }
        for position in newest.into_values() {
            let late = self.work.percent(5);
            let delay = if late { self.work.between(0, 2_000) } else { self.work.between(0, 20) };
            self.plan_act(install, delay, Act::Confirm(position));
            self.look_at(install, position.channel, position.id);
        }
        if more {
            let delay = self.reading_ms();
            self.plan_act(install, delay, Act::Read);
        }
    }
}
