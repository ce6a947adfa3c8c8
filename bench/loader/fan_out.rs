//! The members of one group talk, in turns, at a fixed rate: how long until the sender knows that
//! a message is durable, until each other member has it, and until the last one has it.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tern_protocol::frames::Network;
use tern_protocol::limits::CHANGE_MEMBERS_MAX;
use tern_protocol::{ChannelId, Uin};

use super::{Done, progress};
use crate::error::BenchError;
use crate::load::{
    Arrivals, CONTENT_BYTES_MIN, Crowd, Event, Identity, Message, Schedule, Swarm, Wait, check,
};
use crate::measure::curves::Curves;
use crate::measure::latency::Latency;

/// Tag of what makes the group, and of the first message in it; others are times, above these.
const CHANGE: u64 = u64::MAX;
/// See [`CHANGE`].
const FIRST: u64 = u64::MAX - 1;

/// Where members are: on phones, which beat seldom enough that 100,000 of them leave room for talk.
const NETWORK: Network = Network::Wifi;

/// How long the group may take to be there, and the last answers: a message to 100,000 on two
/// cores that others use too takes a minute.
const PATIENCE: Duration = Duration::from_secs(240);

/// What the members say, and when.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FanOut {
    /// Members that are not online.
    pub absent: Vec<u64>,
    /// Messages a second.
    pub rate: f64,
    /// One seed gives one schedule.
    pub seed: u64,
    /// When the measured stretch begins, since the start.
    pub from: Duration,
    /// When it ends.
    pub to: Duration,
    /// When the last message is due.
    pub end: Duration,
    /// Bytes of content of each message.
    pub bytes: usize,
}

struct Run<'a> {
    task: &'a FanOut,
    crowd: Crowd,
    group: ChannelId,
    start: Instant,
    sent: u64,
    acked: u64,
    received: u64,
    /// How many members have each message that not all have.
    open: HashMap<u64, usize>,
    to_ack: Latency,
    to_each: Latency,
    to_last: Latency,
    lateness: Latency,
}

impl FanOut {
    /// The first device makes a group of all; then the others come, who want none of the messages
    /// that made it, and it says something that everybody gets.
    pub(super) fn gather(
        &self,
        mut swarm: Swarm,
        mut identities: Vec<Identity>,
    ) -> Result<(Crowd, ChannelId), BenchError> {
        swarm.want_newest(0);
        let present = identities.split_off(1);
        let mut crowd = Crowd::log_in(swarm, identities, NETWORK, |_| Ok(()))?;
        let group = self.make_group(&mut crowd, &present)?;
        let others = present.len();
        crowd.grow(present, NETWORK, progress)?;
        let message = Message { channel: group, tag: FIRST, content_bytes: CONTENT_BYTES_MIN };
        crowd.swarm.send(0, message);
        until(&mut crowd, others, Event::Received(FIRST))?;
        Ok((crowd, group))
    }

    /// Makes the group of those who will be present, and of those who stay away.
    fn make_group(&self, crowd: &mut Crowd, present: &[Identity]) -> Result<ChannelId, BenchError> {
        let absent = self.absent.iter().map(|uin| Uin(*uin));
        let mut others: Vec<Uin> =
            present.iter().map(|identity| identity.uin).chain(absent).collect();
        others.sort_unstable();
        let mut chunks = others.chunks(CHANGE_MEMBERS_MAX);
        let first: &[Uin] = chunks.next().unwrap_or_default();
        let group = crowd.swarm.create_group(0, first, CHANGE);
        until(crowd, 1, Event::Acked(CHANGE))?;
        for members in chunks {
            crowd.swarm.add_members(0, group, members, CHANGE);
            until(crowd, 1, Event::Acked(CHANGE))?;
        }
        Ok(group)
    }

    pub(super) fn run(&self, crowd: Crowd, group: ChannelId) -> Result<Done, BenchError> {
        let mut run = Run {
            task: self,
            crowd,
            group,
            start: Instant::now(),
            sent: 0,
            acked: 0,
            received: 0,
            open: HashMap::new(),
            to_ack: Latency::default(),
            to_each: Latency::default(),
            to_last: Latency::default(),
            lateness: Latency::default(),
        };
        run.go_on()?;
        run.finish()?;
        let mut curves = Curves::default();
        curves.add("send to ack", run.to_ack);
        curves.add("send to each", run.to_each);
        curves.add("send to last", run.to_last);
        curves.add("lateness of the load", run.lateness);
        let log = curves.to_log()?;
        let (sent, acked, received) = (run.sent, run.acked, run.received);
        Ok(Done { sent, acked, received, log, ..Done::default() })
    }

    /// When messages are due.
    pub fn schedule(&self) -> Schedule {
        Schedule::new(Arrivals::Poisson, self.rate, self.seed)
    }
}

/// Lets the crowd live until it told this event so many times.
fn until(crowd: &mut Crowd, count: usize, wanted: Event) -> Result<(), BenchError> {
    let deadline = Instant::now() + PATIENCE;
    let mut seen = 0;
    while seen < count {
        if Instant::now() > deadline {
            let what = format!("the group is not there: {wanted:?} {seen} times, not {count}");
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
    fn go_on(&mut self) -> Result<(), BenchError> {
        let mut schedule = self.task.schedule();
        while self.start.elapsed() < self.task.end {
            while schedule.due() <= self.start.elapsed().min(self.task.end) {
                self.send(schedule.due())?;
                schedule.advance();
            }
            self.crowd.swarm.turn()?;
            self.hear()?;
            let next = schedule.due().min(self.task.end);
            self.crowd.swarm.wait(self.start + next, Wait::Sleep)?;
        }
        Ok(())
    }

    fn send(&mut self, due: Duration) -> Result<(), BenchError> {
        if self.is_measured(due) {
            self.lateness.record(self.start.elapsed() - due);
        }
        let tag = due.as_nanos() as u64; // fits for centuries
        let device = self.sent as usize % self.crowd.uins.len();
        let message = Message { channel: self.group, tag, content_bytes: self.task.bytes };
        self.crowd.swarm.send(device, message);
        self.open.insert(tag, 0);
        self.sent += 1;
        progress(self.sent as usize)
    }

    fn is_measured(&self, due: Duration) -> bool {
        (self.task.from..self.task.to).contains(&due)
    }

    fn hear(&mut self) -> Result<(), BenchError> {
        let others = self.crowd.uins.len() - 1;
        while let Some((device, at, event)) = self.crowd.swarm.poll_event() {
            check(device, event)?;
            let (Event::Acked(tag) | Event::Received(tag)) = event else { continue };
            let due = Duration::from_nanos(tag);
            let since = at.saturating_duration_since(self.start + due);
            let is_measured = self.is_measured(due);
            if event == Event::Acked(tag) {
                self.acked += 1;
                if is_measured {
                    self.to_ack.record(since);
                }
                continue;
            }
            self.received += 1;
            let Some(have) = self.open.get_mut(&tag) else { continue };
            *have += 1;
            let is_last = *have == others;
            if is_measured {
                self.to_each.record(since);
            }
            if is_last {
                self.open.remove(&tag);
                if is_measured {
                    self.to_last.record(since);
                }
            }
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<(), BenchError> {
        let deadline = Instant::now() + PATIENCE;
        while self.acked < self.sent || !self.open.is_empty() {
            if Instant::now() > deadline {
                let Self { sent, acked, open, .. } = self;
                let what = format!(
                    "of {sent} messages {acked} were acked, {} did not reach every member",
                    open.len()
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
