//! The clients: their processes start and die, their machines are told what happens, and what
//! they decide is carried out.

use bytes::Bytes;
use tern_client::machine::{Change, Effect, Input, Machine, Position, Steady, Ticket, Tuning};
use tern_netmodel::carrier::Way;
use tern_protocol::frames::Network;
use tern_protocol::header::HEADER_BYTES;
use tern_protocol::{Code, Frame};

use super::{Happening, World};
use crate::device::Process;
use crate::fault::Fault;
use crate::mutant::Mutant;
use crate::parcel::Parcel;
use crate::server::Shown;

/// Ticks of one machine in the same millisecond, after which it counts as spinning.
const IDLE_TICKS_MAX: u32 = 100;

/// Sends in a hundred that a spell of repeats repeats at once, and with an old one.
const REPLAY_PERCENT: u64 = 30;

/// Sends in a hundred that the defect "counter reused" spoils.
const REUSED_PERCENT: u64 = 5;

/// What the clock of a device may show when a process starts, in ms: a month.
const UPTIME_MS_MAX: u64 = 30 * 86_400_000;

/// Where the counter stands in the frame of a send.
const COUNTER_AT: usize = HEADER_BYTES + 20;

impl World {
    /// A process of the install starts on what is stored.
    pub(super) fn start_device(&mut self, install: usize) {
        let one = &self.installs[install];
        if one.is_gone || one.can_send() || one.away_until > self.now {
            return;
        }
        self.crash_device(install, false);
        let (seed, now) = (self.work.draw(), self.now);
        let ahead = self.work.between(0, UPTIME_MS_MAX);
        let tuning = self.tuning.clone();
        let network = self.network(install);
        let is_unsteady = self.mutant == Some(Mutant::ClockUnsteady);
        let one = &mut self.installs[install];
        one.generation += 1;
        let saved = one.store.load();
        let tuning = Tuning { newest_wanted: one.wanted, ..tuning };
        let mut clock = Steady::default();
        let machine = Machine::new(clock.at(ahead), one.identity(), network, tuning, seed, saved);
        one.process = Some(Process {
            machine,
            born: now,
            ahead,
            clock,
            is_unsteady,
            link: None,
            tick_at: None,
            paused_until: 0,
            is_online: false,
            has_ended: false,
            unread: Default::default(),
            counting: Default::default(),
            last_tick: None,
            idle_ticks: 0,
        });
        self.trace.note(
            now,
            &[2, install as u64, seed],
            &[],
            format_args!("install {install} starts"),
        );
        self.carry_out(install);
    }

    /// By the path to the server.
    pub(super) fn network(&self, install: usize) -> Network {
        match self.installs[install].path.0 {
            0..20 => Network::Wired,
            20..80 => Network::Wifi,
            _ => Network::Cellular,
        }
    }

    /// The process of the install dies, if it has one; `restored` if its disk is set back.
    pub(super) fn crash_device(&mut self, install: usize, restored: bool) {
        if let Some(process) = self.installs[install].process.take() {
            self.trace.note(
                self.now,
                &[3, install as u64],
                &[],
                format_args!("install {install} dies"),
            );
            if let Some(link) = process.link {
                self.abandon(link);
            }
        }
        let one = &mut self.installs[install];
        one.store.crash(&mut self.work, self.mutant);
        let stored: Vec<u64> = one.store.tags().collect();
        let (oracle, number) = (&self.oracle, one.number);
        // What was not on the disk yet was never accepted.
        one.posted.retain(|label, _| {
            stored.contains(&label.to_tag()) || oracle.honesty.was_told(number, *label)
        });
        let cursors = self.installs[install].cursors();
        self.oracle.process_starts(number, &cursors, restored);
        self.note_settled(install);
    }

    /// Says something to the machine of an install, and carries out what it decides.
    pub(super) fn device_input(&mut self, install: usize, input: Input) {
        let now = self.now;
        let Some(process) = self.installs[install].process.as_mut() else { return };
        let mono = process.mono(now);
        process.machine.handle(mono, input);
        self.carry_out(install);
    }

    fn carry_out(&mut self, install: usize) {
        while let Some(effect) =
            self.installs[install].process.as_mut().and_then(|p| p.machine.poll_effect())
        {
            match effect {
                Effect::Transmit(frame) => self.transmit(install, frame, false),
                Effect::TransmitFree(frame) => self.transmit(install, frame, true),
                Effect::Persist { changes, ticket } => self.persist(install, changes, ticket),
                Effect::Connect => self.open_link(install),
                Effect::Disconnect { code } => self.disconnect(install, code),
                Effect::Tell(event) => self.tell(install, event),
            }
        }
        self.plan_tick(install);
    }

    /// `free`: it may travel by datagram.
    fn transmit(&mut self, install: usize, frame: Bytes, free: bool) {
        let Some(process) = self.installs[install].process.as_ref() else { return };
        let Some(link) = process.link else { return };
        self.note_acks(install, &frame);
        let key = match Frame::parse(&frame) {
            Ok((Frame::Send(head, _), _)) => Some(head.key()),
            _ => None,
        };
        if let Some(key) = key {
            self.oracle.send_leaves(self.installs[install].device, key);
        }
        let is_send = key.is_some();
        let frame = self.spoil(frame, is_send);
        if free {
            self.offer_free(link, Way::ToServer, frame.clone());
        } else {
            self.offer(link, Way::ToServer, Parcel::Frame(frame.clone()));
        }
        if !is_send {
            return;
        }
        self.installs[install].remember(&frame);
        if self.is_on(Fault::Replay) && self.net.percent(REPLAY_PERCENT) {
            let old: Vec<usize> = (0..self.installs[install].replays.len()).collect();
            let old = self.net.pick(&old).map(|at| self.installs[install].replays[at].clone());
            let old = old.filter(|frame| self.may_come_late(install, frame));
            for again in [Some(frame), old].into_iter().flatten() {
                self.tally.hit(Fault::Replay);
                self.offer(link, Way::ToServer, Parcel::Frame(again));
            }
        }
    }

    /// Whether a copy of this frame can still be on its way.
    fn may_come_late(&self, install: usize, frame: &Bytes) -> bool {
        let device = self.installs[install].device;
        match Frame::parse(frame) {
            Ok((Frame::Send(head, _), _)) => self.oracle.may_come_late(device, head.key()),
            _ => true,
        }
    }

    /// What the machine tells the server of its cursors must be on its disk.
    fn note_acks(&mut self, install: usize, frame: &Bytes) {
        let Ok((Frame::ReceiveAck(list), _)) = Frame::parse(frame) else { return };
        for cursor in list {
            let on_disk = self.installs[install].store.cursor(cursor.channel);
            self.oracle.cursor_told(install as u32, cursor.channel, cursor.id.get(), on_disk);
        }
    }

    fn spoil(&mut self, frame: Bytes, is_send: bool) -> Bytes {
        if !is_send
            || self.mutant != Some(Mutant::CounterReused)
            || !self.net.percent(REUSED_PERCENT)
        {
            return frame;
        }
        let mut bytes = frame.to_vec();
        let counter = &mut bytes[COUNTER_AT..COUNTER_AT + 4];
        let before = u32::from_le_bytes([counter[0], counter[1], counter[2], counter[3]]);
        counter.copy_from_slice(&before.saturating_sub(1).max(1).to_le_bytes());
        bytes.into()
    }

    fn persist(&mut self, install: usize, changes: Vec<Change>, ticket: Ticket) {
        let uin = self.installs[install].device.uin;
        self.oracle.changes_stored(install as u32, uin, &changes);
        for change in &changes {
            if let Change::Send(send) = change {
                self.send_stored(install, send);
            }
        }
        let delay = if self.struck(Fault::SlowStore) {
            self.work.between(50, 2_000)
        } else {
            self.work.between(0, 6)
        };
        let one = &mut self.installs[install];
        let done = one.store.keep(ticket, changes, self.now + delay);
        self.agenda.add(done, Happening::StoreDone(install, one.generation));
    }

    /// The oldest batch of a store is done.
    pub(super) fn store_done(&mut self, install: usize, generation: u64) {
        if !self.is_process(install, generation) {
            return;
        }
        if let Some(until) = self.asleep(install) {
            return self.agenda.add(until, Happening::StoreDone(install, generation));
        }
        if let Some(ticket) = self.installs[install].store.finish(self.mutant) {
            self.note_settled(install);
            self.device_input(install, Input::Stored(ticket));
        }
    }

    fn disconnect(&mut self, install: usize, code: Code) {
        let process = self.installs[install].process.as_mut();
        if let Some(link) = process.and_then(|process| process.link.take()) {
            self.close_by_client(link, code);
        }
    }

    fn plan_tick(&mut self, install: usize) {
        let now = self.now;
        let one = &mut self.installs[install];
        let Some(process) = one.process.as_mut() else { return };
        let mono = process.mono(now);
        let Some((when, _)) = process.machine.poll_timeout(mono) else { return };
        let when = process.world_time(when).max(now);
        if process.tick_at.is_none_or(|at| when < at || at <= now) {
            process.tick_at = Some(when);
            self.agenda.add(when, Happening::DeviceTick(install, one.generation));
        }
        let with_key = process.machine.unsettled().0;
        self.oracle.sends_kept(install as u32, with_key);
    }

    /// A deadline of the machine may have come.
    pub(super) fn tick_device(&mut self, install: usize, generation: u64) {
        if !self.is_process(install, generation) {
            return;
        }
        if let Some(until) = self.asleep(install) {
            return self.agenda.add(until, Happening::DeviceTick(install, generation));
        }
        let now = self.now;
        let Some(process) = self.installs[install].process.as_mut() else { return };
        if process.tick_at.is_none_or(|at| at > now) {
            return; // a later one was planned
        }
        process.tick_at = None;
        let is_late = process.last_tick == Some(now);
        process.idle_ticks = if is_late { process.idle_ticks + 1 } else { 0 };
        process.last_tick = Some(now);
        if process.idle_ticks > IDLE_TICKS_MAX {
            let mono = process.mono(now);
            let due = process.machine.poll_timeout(mono);
            let wrong = format!("the machine of install {install} spins: {due:?}");
            self.oracle.judge("liveness", Err(wrong));
        }
        self.device_input(install, Input::Tick);
    }

    pub(super) fn is_process(&self, install: usize, generation: u64) -> bool {
        let one = &self.installs[install];
        one.process.is_some() && one.generation == generation
    }

    /// Until when the process of an install sleeps, if it does.
    pub(super) fn asleep(&self, install: usize) -> Option<u64> {
        let process = self.installs[install].process.as_ref()?;
        (process.paused_until > self.now).then_some(process.paused_until)
    }

    /// A frame arrives at a device.
    pub(super) fn frame_arrives(&mut self, install: usize, frame: Bytes) {
        self.trace.note(
            self.now,
            &[4, install as u64],
            &frame,
            format_args!("install {install} gets  {}", Shown(&frame)),
        );
        self.device_input(install, Input::Frame(frame));
    }

    /// The application has consumed up to here.
    pub(super) fn consume(&mut self, install: usize, position: Position) {
        self.oracle.consumed(install as u32, position.channel, position.id.0);
        self.device_input(install, Input::Delivered(position));
    }
}
