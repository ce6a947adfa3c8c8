//! A device of the small world: the client's machine, its store, and an application that shows and
//! confirms everything at once.

use bytes::Bytes;
use tern_client::machine::{
    Effect, Event, Identity, Input, Machine, Mono, Proof, State, Ticket, Tuning,
};
use tern_core::mail::Device;
use tern_core::placement::ShardId;
use tern_protocol::frames::Network;
use tern_protocol::{Code, Frame};

use super::{SmallWorld, channel};
use crate::device::SimStore;
use crate::oracle::Oracle;
use crate::oracle::checks::Due;
use crate::oracle::fact::Label;

/// One device.
pub(super) struct SmallDevice {
    number: u32,
    pub(super) device: Device,
    store: SimStore,
    batches: usize,
    machine: Option<Machine>,
    pub(super) line: Option<u64>,
    starts: u64,
    serial: u32,
    /// Sends that were accepted for good: stored, or told of.
    posted: Vec<Label>,
    is_online: bool,
    has_ended: bool,
}

impl SmallDevice {
    pub(super) fn new(number: u32, device: Device) -> Self {
        Self {
            number,
            device,
            store: SimStore::default(),
            batches: 0,
            machine: None,
            line: None,
            starts: 0,
            serial: 0,
            posted: Vec::new(),
            is_online: false,
            has_ended: false,
        }
    }

    /// Whether its store has something under way.
    pub(super) fn has_batch(&self) -> bool {
        self.batches > 0
    }

    /// The next deadline of its machine.
    pub(super) fn deadline(&self, now: u64) -> Option<u64> {
        Some(self.machine.as_ref()?.poll_timeout(Mono(now))?.0.0)
    }

    /// What is not as it must be in the end, if the channel goes up to `newest`.
    pub(super) fn missing(&self, oracle: &Oracle, newest: u64) -> Option<String> {
        let machine = self.machine.as_ref()?;
        let (number, unsettled) = (self.number, machine.unsettled());
        if !self.is_online || unsettled != (0, 0) {
            return Some(format!("device {number}: online {}, {unsettled:?}", self.is_online));
        }
        if let Some(label) = self.posted.iter().find(|l| !oracle.honesty.was_told(number, **l)) {
            return Some(format!("device {number} was never told what became of {label}"));
        }
        let shown = oracle.delivery.newest_shown(number, channel());
        let stored = self.store.cursor(channel());
        (shown < newest || stored < newest)
            .then(|| format!("device {number} shows #{shown} and keeps #{stored} of #{newest}"))
    }
}

impl SmallWorld {
    pub(super) fn start_device(&mut self, device: usize) {
        let one = &mut self.devices[device];
        one.starts += 1;
        let Device { uin, device: id } = one.device;
        let identity = Identity { uin, device: id, proof: Proof::Secret([7; 32]) };
        let seed = one.starts << 8 | u64::from(one.number);
        let saved = one.store.load();
        // The world is small: what is said of marks would double the orders.
        let tuning = Tuning { marks: false, ..Tuning::default() };
        one.machine =
            Some(Machine::new(Mono(self.now), identity, Network::Wired, tuning, seed, saved));
        self.carry_out(device);
    }

    pub(super) fn crash_device(&mut self, device: usize) {
        if let Some(line) = self.devices[device].line.take() {
            self.close_line(line);
        }
        let one = &mut self.devices[device];
        one.machine = None;
        one.store.crash(&mut self.stream, None);
        (one.batches, one.is_online) = (0, false);
        let stored: Vec<u64> = one.store.tags().collect();
        let (oracle, number) = (&self.oracle, one.number);
        one.posted.retain(|label| {
            stored.contains(&label.to_tag()) || oracle.honesty.was_told(number, *label)
        });
        let cursors: Vec<_> = one.store.cursors().collect();
        self.oracle.process_starts(number, &cursors, false);
    }

    pub(super) fn send(&mut self, device: usize) {
        let one = &mut self.devices[device];
        one.serial += 1;
        let label = Label { install: one.number, serial: one.serial };
        one.posted.push(label);
        let (tag, content) = (label.to_tag(), label.content(0).into());
        let send = Input::Send { channel: channel(), content_type: 1, content, tag };
        self.tell_device(device, send);
    }

    pub(super) fn end_batch(&mut self, device: usize) {
        let one = &mut self.devices[device];
        one.batches -= 1;
        if let Some(ticket) = one.store.finish(None) {
            self.tell_device(device, Input::Stored(ticket));
        }
    }

    pub(super) fn connected(&mut self, device: usize) {
        self.tell_device(device, Input::Connected);
    }

    pub(super) fn disconnected(&mut self, device: usize, code: Option<Code>) {
        self.tell_device(device, Input::Disconnected { code });
    }

    pub(super) fn tick_device(&mut self, device: usize) {
        if self.devices[device].deadline(self.now).is_some_and(|due| due <= self.now) {
            self.tell_device(device, Input::Tick);
        }
    }

    pub(super) fn reach_device(&mut self, device: usize) {
        let Some(number) = self.devices[device].line else { return };
        let Some(line) = self.lines.get_mut(&number) else { return };
        match (line.down.pop_front(), line.closed) {
            (Some(frame), _) => self.tell_device(device, Input::Frame(frame)),
            (None, Some(code)) => {
                self.lines.remove(&number);
                self.devices[device].line = None;
                self.disconnected(device, Some(code));
            }
            (None, None) => {}
        }
    }

    fn tell_device(&mut self, device: usize, input: Input) {
        if let Some(machine) = self.devices[device].machine.as_mut() {
            machine.handle(Mono(self.now), input);
            self.carry_out(device);
        }
    }

    fn carry_out(&mut self, device: usize) {
        while let Some(effect) =
            self.devices[device].machine.as_mut().and_then(Machine::poll_effect)
        {
            match effect {
                Effect::Transmit(frame) | Effect::TransmitFree(frame) => self.say(device, frame),
                Effect::Persist { changes, ticket } => self.store_changes(device, changes, ticket),
                Effect::Connect => self.open_line(device),
                Effect::Disconnect { .. } => {
                    if let Some(line) = self.devices[device].line.take() {
                        self.close_line(line);
                    }
                }
                Effect::Tell(event) => self.show(device, event),
            }
        }
    }

    fn say(&mut self, device: usize, frame: Bytes) {
        let one = &self.devices[device];
        if let Ok((Frame::ReceiveAck(list), _)) = Frame::parse(&frame) {
            for cursor in list {
                let on_disk = one.store.cursor(cursor.channel);
                self.oracle.cursor_told(one.number, cursor.channel, cursor.id.get(), on_disk);
            }
        }
        if let Some(line) = one.line.and_then(|line| self.lines.get_mut(&line)) {
            line.up.push_back(frame);
        }
    }

    fn store_changes(
        &mut self,
        device: usize,
        changes: Vec<tern_client::machine::Change>,
        ticket: Ticket,
    ) {
        let one = &mut self.devices[device];
        self.oracle.changes_stored(one.number, one.device.uin, &changes);
        one.store.keep(ticket, changes, self.now);
        one.batches += 1;
    }

    fn show(&mut self, device: usize, event: Event) {
        let (number, of) = (self.devices[device].number, self.devices[device].device);
        match event {
            Event::Message(message) => {
                let position = message.position;
                self.oracle.message_given(number, ShardId(0), &message);
                self.oracle.message_shown(number, position.channel, position.id.0);
                self.oracle.consumed(number, position.channel, position.id.0);
                self.tell_device(device, Input::Delivered(position));
            }
            Event::Result(result) => {
                self.oracle.result_told(number, of, &result, Due::Ack, false);
                self.tell_device(device, Input::Settled(result.send));
            }
            Event::State(state) => {
                let one = &mut self.devices[device];
                one.is_online = matches!(state, State::Online { .. });
                if let State::Ended(end) = state {
                    one.has_ended = true;
                    self.oracle.machine_ended(number, of, end);
                }
            }
            other => self.oracle.misfortune(&self.disk.borrow(), (number, of), &other),
        }
    }
}
