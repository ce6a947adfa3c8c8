//! The real storage in the world: when its threads work, what they tell, and how they die.

use std::collections::BTreeMap;

use tern_core::Worker;
use tern_core::io::Input;
use tern_core::log::{Offset, Reader};
use tern_core::placement::{Placement, ShardId, WorkerId};
use tern_core::shard::Shard;

use super::{Happening, World};
use crate::disk::door::{AnyLog, AnyReader, AnyTable};
use crate::disk::{Death, SharedDisk};
use crate::engine::log::RealReader;
use crate::engine::{Engine, Settings, Work};
use crate::fault::Fault;
use crate::mutant::Mutant;
use crate::plan::{Depth, Draw, Plan};
use crate::random::Stream;
use crate::server::Seat;

/// How often the I/O thread looks by itself, in ms.
const LOOK_MS: u64 = 500;

/// How often upkeep looks what is due, in ms.
const UPKEEP_MS: u64 = 1_000;

/// Time in ms after which a full disk is tried again.
const ROOM_MS: u64 = 200;

/// Deaths in a hundred that come in the middle of a change to the disk.
const DOOM_PERCENT: u64 = 60;

/// Starts in a hundred that die, or may, in the middle of recovery.
const DOOMED_STARTS_PERCENT: u64 = 15;

/// Changes to the disk until such a death, at most: some passes of upkeep have as many.
const DOOM_CHANGES_MAX: u64 = 24;

/// Rounds in which a server that ends in order commits what it has: more than batches can wait.
const SETTLE_ROUNDS: u32 = 16;

/// Time in ms that upkeep has to mend itself once everything is healed.
const MENDED_MS: u64 = 3 * UPKEEP_MS;

/// The storage of a seed, at the depth that has it.
pub(super) fn engine(
    plan: &Plan,
    draw: &Draw,
    seed: u64,
    disk: &SharedDisk,
    mutant: Option<Mutant>,
) -> Option<Box<Engine>> {
    (plan.depth == Depth::Disk).then(|| {
        let settings = Settings::draw(&mut Stream::of(seed, "storage"), draw.shards, &draw.faults);
        Box::new(Engine::new(seed, settings, disk, mutant))
    })
}

impl World {
    /// All workers, on the real storage.
    pub(super) fn recover_storage(&mut self, placement: Placement) -> Result<Vec<Seat>, String> {
        let (now, offset) = (self.now, self.wall_offset);
        let engine = self.engine.as_mut().expect("asked for at the depth that has it");
        engine.set_time(now, offset);
        // A process starts when there is room for it.
        engine.disk().set_full(false, false);
        self.doom_start();
        let engine = self.engine.as_mut().expect("it was there a moment ago");
        if engine.may_lose() {
            self.oracle.life_ends(&self.disk.borrow());
        }
        let mut shards = open_all(engine, placement)?;
        let reader = RealReader::new(engine.reader(), self.disk.clone());
        let ended = engine.ended_lives();
        if !ended.is_empty() {
            self.oracle.life_ended(&self.disk.borrow(), ended, self.draw.shards);
            self.trace.note(self.now, &[18], &[], format_args!("a power cut ended a life"));
        }
        self.oracle.recovered(&self.disk.borrow(), self.draw.shards);
        let workers = (0..self.workers).map(WorkerId);
        let seats = workers.map(|worker| {
            let own = placement.shards_of(worker).filter_map(|shard| shards.remove(&shard.0));
            let reader = AnyReader::Real(reader.clone());
            let worker = Worker::new(worker, placement, self.config.clone(), reader, own.collect());
            Seat::new(worker, placement.workers())
        });
        Ok(seats.collect())
    }

    /// Some processes die before they have started.
    fn doom_start(&mut self) {
        let kinds = [Fault::PowerCut, Fault::ProcessDeath, Fault::MemoryLost];
        let kinds: Vec<Fault> =
            kinds.into_iter().filter(|kind| self.draw.faults.contains(kind)).collect();
        if self.healed_at.is_none()
            && self.chaos.percent(DOOMED_STARTS_PERCENT)
            && let Some(kind) = self.chaos.pick(&kinds)
            && let Some(engine) = &mut self.engine
        {
            engine.doom(death_of(kind), self.chaos.between(1, DOOM_CHANGES_MAX));
        }
    }

    /// Whether the process died while it started; then another one will.
    pub(super) fn died_at_once(&mut self) -> bool {
        let Some(engine) = &mut self.engine else { return false };
        let Some(death) = engine.died() else { return false };
        engine.die(death);
        self.tally.hit(fault_of(death));
        self.trace.note(self.now, &[18], &[], format_args!("the server dies at its start"));
        self.come_back();
        true
    }

    /// The threads of a process that has started.
    pub(super) fn start_threads(&mut self) {
        if self.engine.is_none() {
            return;
        }
        self.set_storage_weather();
        self.planned.clear();
        for (work, every) in [(Work::Look, LOOK_MS), (Work::Upkeep, UPKEEP_MS)] {
            let delay = self.schedule.between(1, every);
            self.plan_work(work, delay);
        }
        self.after_storage();
    }

    /// The process ends, and every log is as the next one finds it. In order: the threads do what
    /// the logs leave them; else the threads die first, and what they had not done is not done.
    pub(super) fn end_with_storage(&mut self, death: Death) {
        self.planned.clear();
        if death == Death::InOrder {
            self.settle_storage();
        } else if let Some(engine) = &mut self.engine {
            engine.end_threads();
        }
        self.server = None;
        match &mut self.engine {
            Some(engine) => {
                engine.settle();
                let inside = engine.died();
                if let Some(death) = inside {
                    self.tally.hit(fault_of(death));
                }
                engine.die(inside.unwrap_or(death));
            }
            None => self.disk.borrow_mut().crash(death),
        }
    }

    /// Has everything committed that was appended, as far as the disk lets it, so that the last
    /// batches of the logs find room with those who commit.
    fn settle_storage(&mut self) {
        let Some(mut server) = self.server.take() else { return };
        for _ in 0..SETTLE_ROUNDS {
            let now = self.server_now(&server);
            server.seats.iter_mut().for_each(|seat| seat.worker.commit(now));
            self.oracle.appended(&mut self.disk.borrow_mut(), self.now);
            if let Some(engine) = &mut self.engine {
                engine.settle();
            }
        }
        self.server = Some(server);
        if let Some(engine) = &mut self.engine
            && engine.wanted().iter().any(|work| matches!(work, Work::Commit(_)))
        {
            engine.end_threads(); // a full disk: whoever stops the server does not wait for room
        }
    }

    /// The disk does not look at the weather by itself.
    pub(super) fn set_storage_weather(&mut self) {
        let (full, fails) = (self.is_on(Fault::DiskFull), self.fail_next_sync);
        if let Some(engine) = &mut self.engine {
            let copies = engine.settings().copies_on_write;
            engine.disk().set_full(full, copies);
            engine.disk().set_fails_next_sync(fails);
        }
    }

    /// Whether the server is to die of this later, in the middle of a change to the disk.
    pub(super) fn dooms(&mut self, fault: Fault) -> bool {
        let runs = self.server.is_some();
        let Some(engine) = self.engine.as_mut().filter(|_| runs) else { return false };
        if !self.chaos.percent(DOOM_PERCENT) {
            return false;
        }
        engine.doom(death_of(fault), self.chaos.between(1, DOOM_CHANGES_MAX));
        true
    }

    /// Time goes by for the messages that are kept.
    pub(super) fn skip_time(&mut self) -> bool {
        let engine = self.engine.as_mut().expect("asked for at the depth that has it");
        let Some(retention) = engine.settings().retention_ms else { return false };
        engine.skip_time(self.chaos.between(1, retention));
        false // counted when something is deleted
    }

    fn plan_work(&mut self, work: Work, delay: u64) {
        let Some(generation) = self.server.as_ref().map(|server| server.generation) else { return };
        if self.planned.insert(work) {
            self.agenda.add(self.now + delay, Happening::Works(generation, work));
        }
    }

    /// Plans all work that somebody waits for.
    pub(super) fn plan_storage(&mut self) {
        let wanted = self.engine.as_mut().map(|engine| engine.wanted()).unwrap_or_default();
        for work in
            wanted.into_iter().filter(|work| !self.planned.contains(work)).collect::<Vec<_>>()
        {
            let delay = match work {
                Work::Commit(_) if self.struck(Fault::SlowSync) => self.schedule.between(20, 3_000),
                Work::Commit(_) => self.schedule.between(0, 4),
                _ => self.schedule.between(0, 60),
            };
            self.plan_work(work, delay);
        }
    }

    /// A thread of the storage does a bit of its work.
    pub(super) fn storage_works(&mut self, generation: u64, work: Work) {
        if self.server.as_ref().is_none_or(|server| server.generation != generation) {
            return;
        }
        let Some(engine) = &mut self.engine else { return };
        self.planned.remove(&work);
        engine.set_time(self.now, self.wall_offset);
        let finds_no_room = engine.work(work);
        self.trace.note(
            self.now,
            &[17, u64::from(finds_no_room)],
            format!("{work:?}").as_bytes(),
            format_args!("the storage does {work:?}"),
        );
        match work {
            Work::Look => self.plan_work(work, LOOK_MS),
            Work::Upkeep => self.plan_work(work, UPKEEP_MS),
            _ if finds_no_room => self.plan_work(work, ROOM_MS),
            _ => {}
        }
        self.after_storage();
    }

    /// Hears what the storage tells, and looks what became of it.
    fn after_storage(&mut self) {
        let Some(engine) = &mut self.engine else { return };
        let (expired, wrong) = engine.look_what_expired();
        if expired > 0 {
            self.tally.hit(Fault::Expiry);
        }
        // Over a reboot the wall clock counts, as far as an hour.
        if let Some(wrong) = wrong.filter(|_| !self.draw.faults.contains(&Fault::WallJump)) {
            self.oracle.judge("expiry", Err(wrong));
        }
        if let Some(death) = engine.died() {
            self.tally.hit(fault_of(death));
            return self.kill_server(death);
        }
        self.note_storage_met();
        self.hear_storage();
        self.plan_storage();
        self.note_met();
    }

    fn note_storage_met(&mut self) {
        let Some(engine) = &mut self.engine else { return };
        let met = engine.take_met();
        if met.full {
            self.tally.hit(Fault::DiskFull);
        }
        if met.failed_sync {
            engine.expect_failure();
            self.fail_next_sync = false;
            self.tally.hit(Fault::SyncFails);
            let when = self.now + self.chaos.between(1_000, 20_000);
            if let Some(generation) = self.server.as_ref().map(|server| server.generation) {
                self.agenda.add(when, Happening::ServerDies(generation, Death::Process));
            }
        } else if let Some(failure) = engine.unexpected_failure() {
            let wrong = format!("a log fails for nothing: {failure}");
            self.oracle.judge("storage", Err(wrong));
        }
    }

    fn hear_storage(&mut self) {
        let Some(engine) = &self.engine else { return };
        let (woken, warmed) = (engine.take_woken(), engine.take_warmed());
        let placement = self.server.as_ref().map(|server| server.placement);
        for shard in woken {
            let worker = placement.map_or(0, |placement| placement.worker_of(shard).0);
            self.worker_input(usize::from(worker), Input::Durable(shard));
        }
        for (worker, record, waiter) in warmed {
            self.disk.borrow_mut().warm(record.shard, record.at);
            self.worker_input(worker, Input::Warmed(waiter));
        }
    }

    /// The body of a record that is pushed, as the server's own reader gives it.
    pub(super) fn body_to_push(&self, shard: ShardId, at: Offset, index: usize) -> Option<Vec<u8>> {
        match &self.engine {
            Some(engine) => engine.reader().with_record(shard, at, |r| r.body.to_vec()).ok(),
            None => self.disk.borrow().record(shard, index).map(|(_, _, r)| r.body.to_vec()),
        }
    }

    /// What is wrong with the storage in a world that is at rest.
    pub(super) fn storage_at_rest(&mut self) {
        let is_mended = self.healed_at.is_some_and(|at| self.now > at + MENDED_MS);
        // A record of which nothing is left keeps checkpoints from being made until a start.
        let is_hurt = self.draw.faults.contains(&Fault::RecordDamaged);
        let suspended = self.engine.as_ref().and_then(|engine| engine.suspended());
        if let Some(why) = suspended.filter(|_| is_mended && !is_hurt) {
            self.oracle.judge("upkeep", Err(why));
        }
    }
}

/// Opens all shards; if one can't be, the threads end before the logs of the others do.
fn open_all(
    engine: &mut Engine,
    placement: Placement,
) -> Result<BTreeMap<u16, Shard<AnyLog, AnyTable>>, String> {
    engine.start()?;
    let mut shards = BTreeMap::new();
    for shard in (0..engine.settings().shards).map(ShardId) {
        match engine.open(placement, shard) {
            Ok(opened) => shards.insert(shard.0, opened),
            Err(wrong) => {
                engine.end_threads();
                return Err(wrong);
            }
        };
    }
    Ok(shards)
}

fn death_of(fault: Fault) -> Death {
    match fault {
        Fault::PowerCut => Death::Power,
        Fault::MemoryLost => Death::ProcessAndMemory,
        _ => Death::Process,
    }
}

/// What this death is the work of.
fn fault_of(death: Death) -> Fault {
    match death {
        Death::Power => Fault::PowerCut,
        Death::Process | Death::InOrder => Fault::ProcessDeath,
        Death::ProcessAndMemory => Fault::MemoryLost,
    }
}
