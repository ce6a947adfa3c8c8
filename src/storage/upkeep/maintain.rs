//! The maintenance thread: the clock of retention, checkpoints, deletion, and how full the disk
//! is. It changes nothing that a worker waits for.
//!
//! Each pass takes a step of the clock, looks whether room must be made, and lets the keeper of
//! each shard do what is due, one shard after the other: so the state of only one shard is in
//! memory twice.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam::channel::{Receiver, Sender, bounded};

use crate::io::IoHandle;
use crate::log::commit::Wake;
use crate::segment::prepare::Limits;
use crate::shard::ShardContext;
use crate::upkeep::clock::ConfirmedClock;
use crate::upkeep::keeper::Pass;
use crate::upkeep::retention::{Kept, evicted};
use crate::upkeep::{Eviction, Limit, SpaceReport};

/// Time in ms over which the rate of appends is measured: some minutes, so that a burst is no
/// alarm and a flood is one soon.
const RATE_WINDOW_MS: u64 = 5 * 60 * 1000;

/// Time in ms between two samples of that.
const RATE_SAMPLE_MS: u64 = 5 * 1000;

/// The part of the bound that eviction frees at once, beside what is needed now: each time costs
/// two checkpoints.
const EVICT_PART: u64 = 32;

/// What retention goes by.
#[derive(Clone, Debug)]
pub(crate) struct Policy {
    pub(crate) retention: Option<Duration>,
    pub(crate) eviction: Eviction,
    pub(crate) checkpoint_bytes_min: u64,
    pub(crate) every: Duration,
}

/// What the thread looks after.
pub(crate) struct Maintenance {
    shards: Vec<Arc<ShardContext>>,
    limits: Arc<Limits>,
    policy: Policy,
    clock: Arc<ConfirmedClock>,
    io: IoHandle,
    wake: Wake,
    stop: AtomicBool,
    /// One pass at a time; and the samples of the rate, newest last.
    samples: Mutex<VecDeque<(u64, u64)>>,
    passing: Mutex<()>,
}

/// The running thread.
pub(crate) struct Maintainer {
    maintenance: Arc<Maintenance>,
    stop: Sender<()>,
    thread: JoinHandle<()>,
}

impl Maintainer {
    pub(crate) fn start(maintenance: Arc<Maintenance>) -> io::Result<Self> {
        let (stop, stopped) = bounded(1);
        let own = Arc::clone(&maintenance);
        let thread = thread::Builder::new()
            .name("tern-maintain".into())
            .spawn(move || own.serve(&stopped))?;
        Ok(Self { maintenance, stop, thread })
    }

    /// Ends the thread; a checkpoint that is being made is given up.
    pub(crate) fn stop(self) {
        self.maintenance.stop.store(true, Relaxed);
        drop(self.stop);
        // A panic has been printed; nothing that was begun has a name yet.
        let _ = self.thread.join();
    }
}

impl Maintenance {
    pub(crate) fn new(
        shards: Vec<Arc<ShardContext>>,
        limits: Arc<Limits>,
        policy: Policy,
        clock: Arc<ConfirmedClock>,
        io: IoHandle,
        wake: Wake,
    ) -> Self {
        let (stop, samples) = (AtomicBool::new(false), Mutex::default());
        let passing = Mutex::default();
        Self { shards, limits, policy, clock, io, wake, stop, samples, passing }
    }

    fn serve(&self, stopped: &Receiver<()>) {
        while stopped.recv_timeout(self.policy.every).is_err_and(|error| error.is_timeout()) {
            self.pass(false);
        }
        self.save_clock(true);
    }

    /// Does all that is due, on this thread. `at_once`: what failed a moment ago as well.
    pub(crate) fn pass(&self, at_once: bool) {
        let _one = self.passing.lock().unwrap_or_else(PoisonError::into_inner);
        let now_ms = self.clock.tick();
        self.save_clock(false);
        self.sample();
        let evict = self.plan_eviction();
        for (shard, evict) in self.shards.iter().zip(evict) {
            let pass = Pass {
                now_ms,
                retention_ms: self.policy.retention.map(|age| age.as_millis() as u64), // fits
                evict,
                checkpoint_bytes_min: self.policy.checkpoint_bytes_min,
                at_once,
                stop: &self.stop,
            };
            let held = self.limits.reserved.load(Relaxed);
            shard.keeper.pass(&pass);
            if !shard.shared.expired.is_empty() {
                (self.wake)(shard.shared.id);
            }
            if self.limits.reserved.load(Relaxed) < held {
                self.io.look();
            }
        }
    }

    fn save_clock(&self, now: bool) {
        let saved = if now { self.clock.save() } else { self.clock.save_if_due() };
        if let Err(error) = saved {
            tracing::warn!("the clock of retention is not saved: {error}");
        }
    }

    /// How many of the oldest segments of each shard go, if one of them wants room.
    fn plan_eviction(&self) -> Vec<usize> {
        let wanted: u64 = self.shards.iter().map(|s| s.shared.bytes_wanted.load(Relaxed)).sum();
        if self.policy.eviction == Eviction::Refuse || wanted == 0 {
            return vec![0; self.shards.len()];
        }
        let bound = self.limits.bytes_max;
        let over = (self.limits.reserved.load(Relaxed) + wanted).saturating_sub(bound);
        let lists: Vec<Vec<Kept>> = self.shards.iter().map(|s| s.keeper.kept()).collect();
        evicted(&lists, over + bound / EVICT_PART)
    }

    fn sample(&self) {
        let now = self.clock.boot_ms();
        let used = self.shards.iter().map(|s| s.shared.counts.bytes_used.load(Relaxed)).sum();
        let mut samples = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
        if samples.back().is_some_and(|(at, _)| now < *at) {
            samples.clear();
        }
        if samples.back().is_none_or(|(at, _)| now - at >= RATE_SAMPLE_MS) {
            samples.push_back((now, used));
        }
        while samples.len() > 2 && samples[1].0 + RATE_WINDOW_MS <= now {
            samples.pop_front();
        }
    }

    fn bytes_per_second(&self) -> u64 {
        let samples = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
        let (Some(first), Some(last)) = (samples.front(), samples.back()) else { return 0 };
        ((last.1 - first.1) * 1000).checked_div(last.0 - first.0).unwrap_or(0)
    }

    /// What the disk holds, and for how long that goes well.
    pub(crate) fn space(&self) -> SpaceReport {
        let used = self.limits.reserved.load(Relaxed);
        let bound = (self.limits.bytes_max != u64::MAX).then_some(self.limits.bytes_max);
        let dir = &self.shards[0].shared.dir;
        let space = self.shards[0].disk.space(dir).ok();
        let reserve = space.map_or(0, |space| self.limits.reserve(space.total));
        // What has no room for the shortest segment is no room.
        let usable = |left: u64| if left < self.limits.segment_bytes_min { 0 } else { left };
        let of_bound = bound.map(|bound| usable(bound.saturating_sub(used)));
        let of_disk = space.map(|space| usable(space.free.saturating_sub(reserve)));
        let more = of_bound.into_iter().chain(of_disk).min().unwrap_or(u64::MAX);
        let limit =
            if of_bound.is_some() && of_bound == Some(more) { Limit::Bound } else { Limit::Disk };
        let room = more.saturating_add(self.empty());
        let rate = self.bytes_per_second();
        SpaceReport {
            used,
            bound,
            free: space.map(|space| space.free),
            reserve,
            room,
            bytes_per_second: rate,
            limit,
            full_in: self.full_in(used.saturating_sub(self.empty()), room, rate),
            eviction: self.policy.eviction,
        }
    }

    /// Bytes of segments that messages can still go into.
    fn empty(&self) -> u64 {
        let of_shard = |shard: &Arc<ShardContext>| {
            let (list, proven) = (shard.shared.segments.load(), shard.shared.proven());
            let open = list.0.iter().filter(|segment| segment.header.end() > proven);
            let room =
                |s: &Arc<crate::segment::Segment>| s.header.end() - proven.max(s.header.base);
            open.map(room).sum::<u64>()
        };
        self.shards.iter().map(of_shard).sum()
    }

    /// Retention makes room in time if what a whole retention brings at this rate, and the
    /// slack of closing and deleting whole segments, fits in.
    fn full_in(&self, filled: u64, room: u64, rate: u64) -> Option<Duration> {
        if rate == 0 || room == u64::MAX {
            return None;
        }
        let steady = self.policy.retention.map(|age| {
            let seconds = age.as_secs() + age.as_secs() / 4;
            rate.saturating_mul(seconds)
        });
        let fits = steady.is_some_and(|steady| steady <= filled.saturating_add(room));
        (!fits).then(|| Duration::from_secs(room / rate))
    }
}
