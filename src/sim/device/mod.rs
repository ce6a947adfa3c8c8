//! A phone: its store, the client machine that runs on it, and what its application is doing.

mod store;

pub use store::SimStore;

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use tern_client::machine::{Identity, Machine, Mono, Position, Proof, SendId, Steady};
use tern_core::mail::Device;
use tern_protocol::{ChannelId, MessageId, Uin};

use crate::oracle::checks::Due;
use crate::oracle::fact::Label;

/// Frames of sends that are remembered, to be repeated later.
const REPLAYS_MAX: usize = 64;

/// One install of the application.
#[derive(Debug)]
pub struct Install {
    /// Its number in the world; never reused.
    pub number: u32,
    /// The device that it speaks for; a copied phone speaks for the same.
    pub device: Device,
    /// What proves it.
    pub secret: [u8; 32],
    /// What is on its disk.
    pub store: SimStore,
    /// An older copy of its disk, from a backup.
    pub backup: Option<SimStore>,
    /// The process that runs, if one does.
    pub process: Option<Process>,
    /// Processes that were started.
    pub generation: u64,
    /// It is gone and never starts again.
    pub is_gone: bool,
    /// How many messages of each channel that its user has already it wants, being new; all, if
    /// `None`.
    pub wanted: Option<u32>,
    /// The path to the server: milliseconds one way, and by how much it varies.
    pub path: (u64, u64),
    /// It is off, and does not start before.
    pub away_until: u64,
    /// Nothing gets through between it and the server before.
    pub cut_off_until: u64,
    /// Frames of sends that left.
    pub replays: VecDeque<Bytes>,
    /// Calls of "send" so far.
    pub serial: u32,
    /// Calls whose result is owed, and what each must come to.
    pub posted: BTreeMap<Label, Due>,
}

/// A running process of an install.
#[derive(Debug)]
pub struct Process {
    /// The machine that ships.
    pub machine: Machine,
    /// When it started, in ms of the world's clock.
    pub born: u64,
    /// What its clock shows beyond that, in ms: it does not begin with the process, and leaps.
    pub ahead: u64,
    /// What the machine is told of that clock.
    pub clock: Steady,
    /// The defect: the machine is told what the clock shows.
    pub is_unsteady: bool,
    /// Its connection.
    pub link: Option<u64>,
    /// When the machine is to be ticked.
    pub tick_at: Option<u64>,
    /// It sleeps until then.
    pub paused_until: u64,
    /// The machine says that it is logged in.
    pub is_online: bool,
    /// The machine has ended.
    pub has_ended: bool,
    /// Messages that the application has and has not shown.
    pub unread: VecDeque<Position>,
    /// Messages of groups of which it asked how many members have them.
    pub counting: VecDeque<(ChannelId, MessageId)>,
    /// When it was last ticked.
    pub last_tick: Option<u64>,
    /// Ticks in a row within the same millisecond.
    pub idle_ticks: u32,
}

impl Install {
    /// A new phone.
    pub fn new(number: u32, device: Device, secret: [u8; 32], path: (u64, u64)) -> Self {
        Self {
            number,
            device,
            secret,
            store: SimStore::default(),
            backup: None,
            process: None,
            generation: 0,
            is_gone: false,
            wanted: None,
            path,
            away_until: 0,
            cut_off_until: 0,
            replays: VecDeque::new(),
            serial: 0,
            posted: BTreeMap::new(),
        }
    }

    /// Who the machine says it is.
    pub fn identity(&self) -> Identity {
        let proof = Proof::Secret(self.secret);
        Identity { uin: self.device.uin, device: self.device.device, proof }
    }

    /// The next call of "send".
    pub fn next_label(&mut self) -> Label {
        self.serial += 1;
        Label { install: self.number, serial: self.serial }
    }

    /// Remembers a frame of a send.
    pub fn remember(&mut self, frame: &Bytes) {
        if self.replays.len() == REPLAYS_MAX {
            self.replays.pop_front();
        }
        self.replays.push_back(frame.clone());
    }

    /// The running process, unless it has ended.
    pub fn running(&mut self) -> Option<&mut Process> {
        self.process.as_mut().filter(|process| !process.has_ended)
    }

    /// Whether its application can send now.
    pub fn can_send(&self) -> bool {
        self.process.as_ref().is_some_and(|process| !process.has_ended)
    }

    /// The cursors on its disk.
    pub fn cursors(&self) -> Vec<(ChannelId, u64)> {
        self.store.cursors().collect()
    }
}

impl Process {
    /// What the device's clock shows at this moment of the world, in ms.
    pub fn reading(&self, now: u64) -> u64 {
        now - self.born + self.ahead
    }

    /// The machine's time at this moment of the world.
    pub fn mono(&mut self, now: u64) -> Mono {
        let reading = self.reading(now);
        if self.is_unsteady { Mono(reading) } else { self.clock.at(reading) }
    }

    /// The world's time of a moment of the machine.
    pub fn world_time(&self, mono: Mono) -> u64 {
        let reading = if self.is_unsteady { mono.0 } else { self.clock.reading_ms(mono) };
        self.born.saturating_add(reading.saturating_sub(self.ahead))
    }

    /// The device's clock goes back by so many ms, or to 0.
    pub fn turn_back(&mut self, now: u64, ms: u64) {
        let shown = self.reading(now);
        let shows = shown.saturating_sub(ms);
        // Counted from a birth at which it showed nothing, if it shows less than the process lived.
        self.ahead = shows.saturating_sub(now - self.born);
        if self.ahead == 0 {
            self.born = now - shows;
        }
    }
}

/// What an application does with what its machine told it.
#[derive(Clone, Debug)]
pub enum Act {
    /// Shows some of what it has.
    Read,
    /// Says that it has consumed up to here.
    Confirm(Position),
    /// Has taken note of a send's result.
    Settle(SendId),
    /// Its user has read up to here.
    Look(ChannelId, MessageId),
    /// Its user blocks this one no more.
    Unblock(Uin),
}
