//! A world so small that every order of its events can be tried: one worker, one shard, two users
//! with two devices each, a few messages. The machines, the disk and the oracle are those of the
//! large one.
//!
//! Comes in: at which step choices begin, and the choices. Goes out: what was wrong, if anything.
//! A step is a [`Move`]; without a choice the first that can be made is made, so everything that
//! is not chosen goes its usual way. When nothing can move, time goes on to the next deadline.

pub mod choices;
mod device;
mod server;

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use tern_core::io::{Answer, Input, LinkId};
use tern_protocol::{ChannelId, Code, DeviceId, Uin};

use crate::disk::{Death, Disk, SharedDisk};
use crate::oracle::{Oracle, Violation};
use crate::random::Stream;
use crate::server::SimWorker;
use choices::Choices;
use device::SmallDevice;

use tern_core::mail::Device;

/// Steps after which a run is given up: a hundred times what one needs.
const STEPS_MAX: u64 = 100_000;

/// Virtual time within which everything must have come, in ms.
const CONVERGE_MS: u64 = 120_000;

/// Something that can happen now.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Move {
    /// The sync that is under way ends.
    Sync,
    /// The directory gives its oldest answer.
    Answer,
    /// The oldest batch of a device's store is done.
    Stored(usize),
    /// The next frame of a device reaches the server.
    Up(usize),
    /// The next frame of the server reaches a device.
    Down(usize),
    /// The next frame of a device reaches the server twice.
    Twice(usize),
    /// A connection breaks; what is on it is lost.
    Cut(usize),
    /// A device's process dies and comes back.
    Crash(usize),
    /// The server dies and comes back.
    Kill(Dies),
}

/// How the server dies.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Dies {
    /// With what was not synced.
    Power,
    /// With its shared memory.
    Memory,
    /// Alone.
    Process,
}

/// What a run gave.
#[derive(Debug)]
pub struct SmallOutcome {
    /// Steps until everything was at rest.
    pub steps: u64,
    /// Messages acked.
    pub acked: usize,
    /// What went wrong, if anything did.
    pub violation: Option<Violation>,
    /// What was moved, in order.
    pub moves: Vec<Move>,
}

/// A connection of a device.
#[derive(Debug, Default)]
struct Line {
    up: VecDeque<Bytes>,
    down: VecDeque<Bytes>,
    /// The server closed it, once `down` is empty.
    closed: Option<Code>,
}

/// The world.
pub struct SmallWorld {
    now: u64,
    worker: Option<SimWorker>,
    disk: SharedDisk,
    stream: Stream,
    devices: Vec<SmallDevice>,
    lines: BTreeMap<u64, Line>,
    next_line: u64,
    answers: VecDeque<Answer>,
    syncing: bool,
    /// Faults that are left.
    faults: usize,
    oracle: Oracle,
    moves: Vec<Move>,
}

/// The channel that everybody is in.
fn channel() -> ChannelId {
    ChannelId::direct(Uin(1), Uin(2))
}

impl SmallWorld {
    /// Everybody is logged in, two devices have just said "send" twice, and nothing has moved.
    fn new(faults: usize) -> Self {
        let stream = Stream::of(1, "small world");
        let devices = [(1, 1), (1, 2), (2, 1), (2, 2)];
        let devices = devices.iter().enumerate().map(|(number, (uin, device))| {
            let device = Device { uin: Uin(*uin), device: DeviceId(*device) };
            SmallDevice::new(number as u32, device) // fits: four
        });
        let mut world = Self {
            now: 1_000,
            worker: None,
            disk: Disk::new(1, Stream::of(1, "disk"), None),
            stream,
            devices: devices.collect(),
            lines: BTreeMap::new(),
            next_line: 1,
            answers: VecDeque::new(),
            syncing: false,
            faults: 0,
            oracle: Oracle::default(),
            moves: Vec::new(),
        };
        world.start_server();
        (0..4).for_each(|device| world.start_device(device));
        world.run(&mut Choices::new(0), 0);
        for device in [0, 2] {
            (0..2).for_each(|_| world.send(device));
        }
        world.moves.clear();
        world.faults = faults;
        world
    }

    /// Lives until everything is at rest. Choices begin with step `skip`.
    fn run(&mut self, choices: &mut Choices, skip: u64) {
        let until = self.now + CONVERGE_MS;
        while self.oracle.violation().is_none() {
            let moves = self.moves_now(self.moves.len() as u64 >= skip);
            let index = if moves.len() > 1 && self.moves.len() as u64 >= skip {
                choices.choose(moves.len())
            } else {
                0
            };
            match moves.get(index) {
                Some(chosen) => self.make(*chosen),
                None if self.missing().is_none() => return,
                None if self.now > until || self.moves.len() as u64 > STEPS_MAX => {
                    return self.oracle.at_rest(self.missing());
                }
                None => self.pass(),
            }
        }
    }

    /// What can happen now, the usual first; with `faults` also what should not.
    fn moves_now(&self, faults: bool) -> Vec<Move> {
        let mut moves = Vec::new();
        moves.extend(self.syncing.then_some(Move::Sync));
        moves.extend((!self.answers.is_empty()).then_some(Move::Answer));
        for (index, device) in self.devices.iter().enumerate() {
            let line = device.line.and_then(|line| self.lines.get(&line));
            moves.extend(device.has_batch().then_some(Move::Stored(index)));
            moves.extend(line.filter(|line| !line.up.is_empty()).map(|_| Move::Up(index)));
            let comes = |line: &&Line| !line.down.is_empty() || line.closed.is_some();
            moves.extend(line.filter(comes).map(|_| Move::Down(index)));
        }
        if faults && self.faults > 0 && !moves.is_empty() {
            for index in [0, 1] {
                moves.push(Move::Crash(index));
                if let Some(line) = self.devices[index].line {
                    moves.push(Move::Cut(index));
                    let up = self.lines.get(&line).is_some_and(|line| !line.up.is_empty());
                    moves.extend(up.then_some(Move::Twice(index)));
                }
            }
            moves.extend([Dies::Power, Dies::Memory, Dies::Process].map(Move::Kill));
        }
        moves
    }

    fn make(&mut self, chosen: Move) {
        self.moves.push(chosen);
        self.now += 1;
        match chosen {
            Move::Sync => self.end_sync(),
            Move::Answer => {
                if let Some(answer) = self.answers.pop_front() {
                    self.tell_worker(Input::Directory(answer));
                }
            }
            Move::Stored(device) => self.end_batch(device),
            Move::Up(device) => self.reach_server(device, false),
            Move::Down(device) => self.reach_device(device),
            Move::Twice(device) => self.reach_server(device, true),
            Move::Cut(device) => self.cut(device),
            Move::Crash(device) => {
                self.crash_device(device);
                self.start_device(device);
            }
            Move::Kill(dies) => self.kill(dies),
        }
        let is_fault =
            matches!(chosen, Move::Twice(_) | Move::Cut(_) | Move::Crash(_) | Move::Kill(_));
        self.faults -= usize::from(is_fault);
    }

    /// Nothing can move: time goes on to the next deadline of anybody.
    fn pass(&mut self) {
        let devices = self.devices.iter().filter_map(|device| device.deadline(self.now));
        let due = devices.chain(self.server_deadline()).min();
        self.now = due.unwrap_or(self.now).max(self.now + 1);
        self.tell_worker(Input::Tick);
        (0..self.devices.len()).for_each(|device| self.tick_device(device));
    }

    /// What is not as it must be in the end; `None` if everything is.
    fn missing(&self) -> Option<String> {
        let newest = self.oracle.truth.newest(channel());
        self.devices.iter().find_map(|device| device.missing(&self.oracle, newest))
    }

    fn open_line(&mut self, device: usize) {
        let line = self.next_line;
        self.next_line += 1;
        self.lines.insert(line, Line::default());
        self.devices[device].line = Some(line);
        self.oracle.link_opened(line);
        self.tell_worker(Input::LinkOpened(LinkId(line), self.mono()));
        self.connected(device);
    }

    /// Both sides learn that the connection is gone.
    fn cut(&mut self, device: usize) {
        if let Some(line) = self.devices[device].line.take() {
            self.close_line(line);
            self.disconnected(device, None);
        }
    }

    fn close_line(&mut self, line: u64) {
        if self.lines.remove(&line).is_some() {
            self.oracle.link_closed(line);
            self.tell_worker(Input::LinkClosed(LinkId(line)));
        }
    }

    fn kill(&mut self, dies: Dies) {
        self.worker = None;
        self.disk.borrow_mut().crash(match dies {
            Dies::Power => Death::Power,
            Dies::Memory => Death::ProcessAndMemory,
            Dies::Process => Death::Process,
        });
        self.syncing = false;
        self.answers.clear();
        let lines = std::mem::take(&mut self.lines);
        lines.keys().for_each(|line| self.oracle.link_closed(*line));
        self.start_server();
        for device in 0..self.devices.len() {
            if self.devices[device].line.take().is_some() {
                self.disconnected(device, None);
            }
        }
    }
}

/// Lives through the small world once, with choices from step `skip` on and at most `faults` faults.
pub fn live(choices: &mut Choices, skip: u64, faults: usize) -> SmallOutcome {
    let mut world = SmallWorld::new(faults);
    world.run(choices, skip);
    SmallOutcome {
        steps: world.moves.len() as u64,
        acked: world.oracle.acked.count(),
        violation: world.oracle.violation().cloned(),
        moves: world.moves,
    }
}

/// Lives through the small world once; its step `at` is this one, if it can be made there.
pub fn live_with(at: u64, chosen: Move) -> Option<SmallOutcome> {
    let mut world = SmallWorld::new(1);
    let mut before = Choices::new(0);
    while (world.moves.len() as u64) < at {
        match world.moves_now(false).first() {
            Some(first) => world.make(*first),
            None if world.missing().is_none() => return None,
            None => world.pass(),
        }
    }
    world.moves_now(true).contains(&chosen).then(|| world.make(chosen))?;
    world.run(&mut before, 0);
    Some(SmallOutcome {
        steps: world.moves.len() as u64,
        acked: world.oracle.acked.count(),
        violation: world.oracle.violation().cloned(),
        moves: world.moves,
    })
}
