//! Groups talk while in some stretches a few members of each do not keep up: how long messages
//! take to the others. All that was missed must have come to everybody before the next stretch.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tern_protocol::{ChannelId, Uin};

use super::{Conductor, Done, progress};
use crate::error::BenchError;
use crate::load::{
    Arrivals, CONTENT_BYTES_MIN, Crowd, Event, Message, Schedule, Stall, Wait, check,
};
use crate::measure::curves::Curves;
use crate::measure::latency::Latency;

/// Tag of what makes the groups, and of the first message in each; others count from 0.
const CHANGE: u64 = u64::MAX;
/// See [`CHANGE`].
const FIRST: u64 = u64::MAX - 1;

/// How long the groups may take to be there, and the slow ones to have caught up.
const PATIENCE: Duration = Duration::from_secs(120);

/// Who is slow, and how; and when what is said.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Slow {
    /// Members of each group; two talk in their direct channel.
    pub group: usize,
    /// How many of them are slow, the last ones.
    pub slow: usize,
    /// How, one group after the other.
    pub how: Vec<Stall>,
    /// Messages a second, all groups together.
    pub rate: f64,
    /// One seed gives one schedule.
    pub seed: u64,
    /// For each stretch, whether the slow ones are slow in it; and its name.
    pub stretches: Vec<(bool, String)>,
    /// When in each stretch measuring begins.
    pub from: Duration,
    /// When it ends.
    pub to: Duration,
    /// When the last message is due.
    pub end: Duration,
    /// Bytes of content of each message.
    pub bytes: usize,
}

/// A message that not all have.
struct Open {
    due: Instant,
    /// Members without it, and its sender without the ack.
    missing: usize,
    is_measured: bool,
}

struct Run<'a> {
    task: &'a Slow,
    crowd: Crowd,
    groups: Vec<ChannelId>,
    done: Done,
    open: HashMap<u64, Open>,
    to_ack: Latency,
    to_each: Latency,
    lateness: Latency,
}

impl Slow {
    pub(super) fn run(&self, mut crowd: Crowd, conductor: &Conductor) -> Result<Done, BenchError> {
        let groups = self.gather(&mut crowd)?;
        let mut run = Run {
            task: self,
            crowd,
            groups,
            done: Done::default(),
            open: HashMap::new(),
            to_ack: Latency::default(),
            to_each: Latency::default(),
            lateness: Latency::default(),
        };
        let mut curves = Curves::default();
        for (number, (stalls, name)) in self.stretches.iter().enumerate() {
            conductor.wait(&mut run.crowd)?;
            // What comes in pairs gets the same schedule.
            let caught_up = run.stretch(*stalls, self.seed.wrapping_add(number as u64 / 2))?;
            let mut add = |what: &str, latency: &mut Latency| {
                curves.add(&format!("{name}: {what}"), std::mem::take(latency));
            };
            add("send to ack", &mut run.to_ack);
            add("send to each", &mut run.to_each);
            add("lateness of the load", &mut run.lateness);
            if *stalls {
                let mut latency = Latency::default();
                latency.record(caught_up);
                add("until all was caught up", &mut latency);
            }
        }
        Ok(Done { log: curves.to_log()?, ..run.done })
    }

    /// The first member of each group makes it, and says something that everybody gets.
    fn gather(&self, crowd: &mut Crowd) -> Result<Vec<ChannelId>, BenchError> {
        let count = crowd.uins.len() / self.group;
        let groups = self.channels(crowd, count)?;
        for (group, channel) in groups.iter().enumerate() {
            let channel = *channel;
            let message = Message { channel, tag: FIRST, content_bytes: CONTENT_BYTES_MIN };
            crowd.swarm.send(group * self.group, message);
        }
        until(crowd, count * (self.group - 1), Event::Received(FIRST))?;
        Ok(groups)
    }

    /// A channel for each group.
    fn channels(&self, crowd: &mut Crowd, count: usize) -> Result<Vec<ChannelId>, BenchError> {
        if self.group == 2 {
            let pairs = crowd.uins.chunks_exact(2);
            return Ok(pairs.map(|pair| ChannelId::direct(pair[0], pair[1])).collect());
        }
        let make = |group: usize| {
            let owner = group * self.group;
            let mut others: Vec<Uin> = crowd.uins[owner + 1..owner + self.group].to_vec();
            others.sort_unstable();
            crowd.swarm.create_group(owner, &others, CHANGE)
        };
        let groups = (0..count).map(make).collect();
        until(crowd, count, Event::Acked(CHANGE))?;
        Ok(groups)
    }

    /// How a device is slow; `None` if it never is.
    fn how(&self, device: usize) -> Option<Stall> {
        let (group, member) = (device / self.group, device % self.group);
        (member >= self.group - self.slow).then(|| self.how[group % self.how.len()])
    }
}

/// Lets the crowd live until it told this event so many times.
fn until(crowd: &mut Crowd, count: usize, wanted: Event) -> Result<(), BenchError> {
    let deadline = Instant::now() + PATIENCE;
    let mut seen = 0;
    while seen < count {
        if Instant::now() > deadline {
            let what = format!("the groups are not there: {wanted:?} {seen} times, not {count}");
            return Err(BenchError::Load(what));
        }
        crowd.swarm.turn()?;
        while let Some((device, _, event)) = crowd.swarm.poll_event() {
            check(device, event)?;
            seen += usize::from(event == wanted);
        }
        crowd.swarm.wait(deadline, Wait::Sleep)?;
    }
    Ok(())
}

impl Run<'_> {
    /// Talks, and then waits until everybody has everything: how long that took once nobody was
    /// slow any more.
    fn stretch(&mut self, stalls: bool, seed: u64) -> Result<Duration, BenchError> {
        let start = Instant::now();
        let devices = 0..self.crowd.uins.len();
        let slow: Vec<_> = devices.filter_map(|n| Some((n, self.task.how(n)?))).collect();
        if stalls {
            slow.iter().for_each(|(device, how)| self.crowd.swarm.stall(*device, *how));
        }
        let mut schedule = Schedule::new(Arrivals::Poisson, self.task.rate, seed);
        while start.elapsed() < self.task.end {
            while schedule.due() <= start.elapsed().min(self.task.end) {
                self.send(start, schedule.due())?;
                schedule.advance();
            }
            self.crowd.swarm.turn()?;
            self.hear()?;
            let next = schedule.due().min(self.task.end);
            self.crowd.swarm.wait(start + next, Wait::Sleep)?;
        }
        let over = Instant::now();
        if stalls {
            slow.iter().try_for_each(|(device, _)| self.crowd.swarm.thaw(*device))?;
        }
        self.catch_up(over + PATIENCE)?;
        Ok(over.elapsed())
    }

    fn send(&mut self, start: Instant, due: Duration) -> Result<(), BenchError> {
        let is_measured = (self.task.from..self.task.to).contains(&due);
        if is_measured {
            self.lateness.record(start.elapsed() - due);
        }
        let tag = self.done.sent;
        let healthy = self.task.group - self.task.slow;
        let (turn, group) = (tag as usize / self.groups.len(), tag as usize % self.groups.len());
        let device = group * self.task.group + turn % healthy;
        let channel = self.groups[group];
        let message = Message { channel, tag, content_bytes: self.task.bytes };
        self.crowd.swarm.send(device, message);
        let missing = self.task.group; // the others, and the ack
        self.open.insert(tag, Open { due: start + due, missing, is_measured });
        self.done.sent += 1;
        progress(self.done.sent as usize)
    }

    fn hear(&mut self) -> Result<(), BenchError> {
        while let Some((device, at, event)) = self.crowd.swarm.poll_event() {
            check(device, event)?;
            let (Event::Acked(tag) | Event::Received(tag)) = event else { continue };
            let Some(open) = self.open.get_mut(&tag) else { continue };
            let since = at.saturating_duration_since(open.due);
            let is_ack = event == Event::Acked(tag);
            *(if is_ack { &mut self.done.acked } else { &mut self.done.received }) += 1;
            if open.is_measured && is_ack {
                self.to_ack.record(since);
            } else if open.is_measured && self.task.how(device).is_none() {
                self.to_each.record(since);
            }
            open.missing -= 1;
            if open.missing == 0 {
                self.open.remove(&tag);
            }
        }
        Ok(())
    }

    fn catch_up(&mut self, deadline: Instant) -> Result<(), BenchError> {
        while self.done.acked < self.done.sent || !self.open.is_empty() {
            if Instant::now() > deadline {
                let Done { sent, acked, .. } = self.done;
                let open = self.open.len();
                let what = format!(
                    "of {sent} messages {acked} were acked, {open} did not reach every member"
                );
                return Err(BenchError::Load(what));
            }
            self.crowd.swarm.turn()?;
            self.hear()?;
            self.crowd.swarm.wait(deadline, Wait::Sleep)?;
        }
        Ok(())
    }
}
