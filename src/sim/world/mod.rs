//! The world: one thread, one clock, and everything on it. Each step takes the next thing from
//! the agenda; whatever is random comes from the seed's streams.

mod apps;
mod chaos;
mod devices;
mod directory;
mod groups;
mod histories;
mod links;
mod marks;
mod newcomers;
mod packets;
mod recovery;
mod rest;
mod servers;
mod storage;
mod wishes;
mod workload;

use std::collections::{BTreeMap, BTreeSet};

use tern_client::machine::Tuning;
use tern_core::config::Config;
use tern_core::io::{Answer, ColdRecord, Waiter};
use tern_core::mail::Device;
use tern_core::placement::ShardId;
use tern_groupmodel::Rest;
use tern_netmodel::carrier::Way;
use tern_protocol::{ChannelId, DeviceId, Uin};

use crate::agenda::Agenda;
use crate::device::{Act, Install};
use crate::disk::{Backup, Death, Disk, SharedDisk};
use crate::engine::{Engine, EngineCounts, Work};
use crate::fault::{Branches, Fault, Tally};
use crate::mutant::Mutant;
use crate::oracle::{Oracle, Violation};
use crate::parcel::Parcel;
use crate::plan::{Depth, Draw, Plan};
use crate::quic::{QuicCounts, Wire};
use crate::random::Stream;
use crate::server::Server;
use crate::trace::Trace;
use links::Conn;

/// The server's wall clock at the beginning of the world, in ms since 1970.
pub(crate) const WALL_AT_START: i64 = 1_700_000_000_000;

/// Steps after which a run is given up: a hundred times what a long one needs.
const STEPS_MAX: u64 = 50_000_000;

/// What is to happen.
#[derive(Debug)]
pub(crate) enum Happening {
    /// A worker's turn: process, worker.
    Turn(u64, usize),
    /// A sync of a shard ends: process, shard.
    SyncEnds(u64, ShardId),
    /// A thread of the storage does a bit of its work: process, which.
    Works(u64, Work),
    /// The directory answers: process, worker.
    Answer(u64, usize, Answer),
    /// A cold record was read: process, worker.
    Warmed(u64, usize, ColdRecord, Waiter),
    /// The server starts.
    ServerStarts,
    /// The server dies, if it is still this process.
    ServerDies(u64, Death),
    /// A connection reaches the server.
    LinkArrives(u64),
    /// The client learns that its connection is there.
    LinkReady(u64),
    /// The client learns that its connection is gone.
    ClientNotices(u64),
    /// The server learns that a connection is gone.
    ServerNotices(u64),
    /// Something may have arrived.
    Flight(u64, Way),
    /// The server's transport repeats, in order, a frame that it takes for lost.
    Repair(u64, bytes::Bytes),
    /// Something is due on the network of packets.
    Wire,
    /// A device's process starts.
    DeviceStarts(usize),
    /// A deadline of a machine: install, process.
    DeviceTick(usize, u64),
    /// The oldest batch of a store is done: install, process.
    StoreDone(usize, u64),
    /// An application acts: install, process.
    App(usize, u64, Act),
    /// Applications send something.
    Send,
    /// Something goes wrong.
    Blow,
    /// Everything heals.
    Heal,
    /// Is the healed world at rest?
    Look,
}

/// One seed's world.
pub struct World {
    now: u64,
    agenda: Agenda<Happening>,
    plan: Plan,
    draw: Draw,
    mutant: Option<Mutant>,
    net: Stream,
    work: Stream,
    chaos: Stream,
    schedule: Stream,
    newcomers: Stream,
    config: Config,
    tuning: Tuning,
    disk: SharedDisk,
    /// The real storage, at the depth that has it; before the server, whose logs end after it.
    engine: Option<Box<Engine>>,
    /// Its work that is planned.
    planned: BTreeSet<Work>,
    server: Option<Server>,
    server_generation: u64,
    workers: u16,
    /// A copy of the server's logs.
    backup: Option<Backup>,
    /// How far the server's wall clock is off, in ms.
    wall_offset: i64,
    fail_next_sync: bool,
    installs: Vec<Install>,
    links: BTreeMap<u64, Conn>,
    next_link: u64,
    /// The network of packets, at the depth that has one.
    wire: Option<Box<Wire>>,
    /// When it is looked at next.
    wire_at: Option<u64>,
    /// Spells and when each ends.
    weather: BTreeMap<Fault, u64>,
    healed_at: Option<u64>,
    /// When that comes, in ms, unless too few messages were sent by then.
    ends_at: u64,
    sends_left: u64,
    /// Groups that have an id, and how many were asked for.
    groups: Vec<ChannelId>,
    groups_made: u64,
    is_over: bool,
    oracle: Oracle,
    tally: Tally,
    branches: Branches,
    trace: Trace,
}

/// What a run gave.
#[derive(Debug)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// What went wrong, if anything did.
    pub violation: Option<Violation>,
    /// The hash of everything that happened.
    pub hash: u64,
    /// Things that happened.
    pub steps: u64,
    /// Virtual time in ms.
    pub virtual_ms: u64,
    /// Sends that applications posted.
    pub sends: u64,
    /// Sends whose ack left the server.
    pub acked: u64,
    /// Messages that applications showed.
    pub shown: u64,
    /// Places in channels that two devices of one user ended with, and with the same.
    pub compared: u64,
    /// Virtual time in ms from the heal to rest.
    pub heal_ms: u64,
    /// Faults injected.
    pub tally: Tally,
    /// Ways through the machines that were gone.
    pub branches: Branches,
    /// What QUIC did, at the depth that runs it.
    pub quic: Option<QuicCounts>,
    /// What the storage did, at the depth that has it.
    pub storage: Option<EngineCounts>,
    /// The newest lines of the trace, if they were asked for.
    pub lines: Vec<String>,
}

impl World {
    /// The world of a seed; keeps the newest `lines_max` lines of its trace.
    pub fn new(plan: &Plan, seed: u64, mutant: Option<Mutant>, lines_max: usize) -> Self {
        let draw = plan.draw(seed);
        let mut chaos = Stream::of(seed, "chaos");
        let (config, tuning) = workload::limits(&draw, &mut chaos);
        let disk = Disk::new(draw.shards, Stream::of(seed, "disk"), mutant);
        let engine = storage::engine(plan, &draw, seed, &disk, mutant);
        let mut world = Self {
            now: 0,
            agenda: Agenda::new(Stream::of(seed, "agenda")),
            plan: plan.clone(),
            mutant,
            net: Stream::of(seed, "network"),
            work: Stream::of(seed, "workload"),
            chaos,
            schedule: Stream::of(seed, "schedule"),
            newcomers: Stream::of(seed, "newcomers"),
            tuning,
            disk,
            engine,
            planned: BTreeSet::new(),
            server: None,
            server_generation: 0,
            workers: draw.workers,
            backup: None,
            wall_offset: 0,
            fail_next_sync: false,
            installs: Vec::new(),
            links: BTreeMap::new(),
            next_link: 1,
            wire: (plan.depth == Depth::Quic).then(|| packets::wire(seed, &config, mutant)),
            wire_at: None,
            weather: BTreeMap::new(),
            healed_at: None,
            ends_at: draw.chaos_ms,
            sends_left: draw.sends,
            groups: Vec::new(),
            groups_made: 0,
            is_over: false,
            oracle: Oracle::default(),
            tally: Tally::default(),
            branches: Branches::default(),
            trace: Trace::new(lines_max),
            draw,
            config,
        };
        world.begin();
        world
    }

    fn begin(&mut self) {
        let (members_max, uin_max) = (self.config.group_members_max, self.draw.users);
        self.oracle.limit(Rest { members_max, uin_max });
        self.oracle.limit_hours(&self.config);
        for fault in [Fault::TightLimits, Fault::Checkpoints, Fault::OtherWorkers] {
            if self.draw.faults.contains(&fault) {
                self.tally.hit(fault);
            }
        }
        for number in 0..self.draw.devices {
            let uin = Uin(1 + number % self.draw.users);
            let device = DeviceId(1 + (number / self.draw.users) as u32); // fits: few devices
            let install = self.add_install(Device { uin, device });
            self.wish_of_newcomer(install);
            self.come_late(install);
        }
        self.agenda.add(0, Happening::ServerStarts);
        let first = self.chaos.between(0, 5_000);
        self.agenda.add(first, Happening::Blow);
        self.agenda.add(self.chaos.between(0, 1_000), Happening::Send);
        self.agenda.add(self.ends_at, Happening::Heal);
    }

    /// A new phone, which starts soon.
    fn add_install(&mut self, device: Device) -> usize {
        let number = self.installs.len();
        let path = (self.net.between(2, 150), self.net.between(0, 40));
        let secret = self.work.token();
        self.installs.push(Install::new(number as u32, device, secret, path)); // fits: few
        let when = self.now + self.work.between(0, 3_000);
        self.agenda.add(when, Happening::DeviceStarts(number));
        number
    }

    /// Lives through the seed.
    pub fn run(&mut self) {
        while !self.is_over && self.oracle.violation().is_none() {
            let Some((when, what)) = self.agenda.take() else { break };
            self.now = when;
            self.trace.step();
            self.happen(what);
            self.run_wire();
            if self.trace.steps() > STEPS_MAX {
                let wrong = format!("{STEPS_MAX} steps and no end");
                self.oracle.judge("liveness", Err(wrong));
            }
        }
    }

    /// What the run gave.
    pub fn outcome(mut self, seed: u64) -> Outcome {
        self.count_branches();
        if let Some(engine) = &mut self.engine {
            engine.end_threads();
        }
        Outcome {
            seed,
            violation: self.oracle.violation().cloned(),
            hash: self.trace.hash(),
            steps: self.trace.steps(),
            virtual_ms: self.now,
            sends: self.draw.sends - self.sends_left,
            acked: self.oracle.acked.count() as u64,
            shown: self.oracle.delivery.shown_count(),
            compared: self.oracle.compared,
            heal_ms: self.healed_at.map_or(0, |at| self.now - at),
            tally: self.tally,
            branches: self.branches,
            quic: self.wire.as_ref().map(|wire| wire.counts()),
            storage: self.engine.as_ref().map(|engine| engine.counts()),
            lines: self.trace.into_lines(),
        }
    }

    fn happen(&mut self, what: Happening) {
        match what {
            Happening::Turn(generation, worker) => self.turn(generation, worker),
            Happening::SyncEnds(generation, shard) => self.sync_ends(generation, shard),
            Happening::Works(generation, work) => self.storage_works(generation, work),
            Happening::Answer(generation, worker, answer) => {
                self.answered(generation, worker, answer);
            }
            Happening::Warmed(generation, worker, record, waiter) => {
                self.warmed(generation, worker, record, waiter);
            }
            Happening::ServerStarts => self.start_server(),
            Happening::ServerDies(generation, death) => {
                if self.server.as_ref().is_some_and(|server| server.generation == generation) {
                    self.kill_server(death);
                }
            }
            Happening::LinkArrives(link) => self.link_arrives(link),
            Happening::LinkReady(link) => self.link_ready(link),
            Happening::ClientNotices(link) => self.client_notices(link, None),
            Happening::ServerNotices(link) => self.server_notices(link),
            Happening::Flight(link, way) => self.flight(link, way),
            Happening::Repair(link, frame) => {
                self.offer(link, Way::ToClient, Parcel::Frame(frame));
            }
            Happening::Wire => {} // looked at after each happening
            Happening::DeviceStarts(install) => self.start_device(install),
            Happening::DeviceTick(install, generation) => self.tick_device(install, generation),
            Happening::StoreDone(install, generation) => self.store_done(install, generation),
            Happening::App(install, generation, act) => self.act(install, generation, act),
            Happening::Send => self.send_something(),
            Happening::Blow => self.blow(),
            Happening::Heal => self.heal_or_go_on(),
            Happening::Look => self.look(),
        }
    }

    /// Whether this spell is on.
    fn is_on(&self, fault: Fault) -> bool {
        self.weather.get(&fault).is_some_and(|until| *until > self.now)
    }

    /// Whether this spell is on; if so, it counts as met.
    fn struck(&mut self, fault: Fault) -> bool {
        let is_on = self.is_on(fault);
        if is_on {
            self.tally.hit(fault);
        }
        is_on
    }
}
