//! Pairs of devices talk to each other, in turns, at a fixed rate of messages in all.
//!
//! Messages are due in three stretches: a warm-up that is not measured (channels are opened,
//! memory is touched), the measured stretch, and a tail so that the last measured messages meet
//! the same load as the first.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tern_protocol::ChannelId;

use super::{Done, progress};
use crate::error::BenchError;
use crate::load::{Arrivals, Crowd, Event, Message, Schedule, Wait, check};
use crate::measure::curves::Curves;
use crate::measure::latency::Latency;

/// Messages that were due within this time after a device of their pair changed its address count
/// as "after a change".
const AFTER_A_CHANGE: Duration = Duration::from_secs(1);

/// Who says what, and when.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Talk {
    /// How messages are spread over time.
    pub arrivals: Arrivals,
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
    /// Whether the load polls instead of sleeping.
    pub spin: bool,
    /// How often each device changes its address, if it does.
    pub roam_every: Option<Duration>,
    /// How long answers may take after the last message.
    pub patience: Duration,
    /// Whether messages may be without an answer then.
    pub may_fall_behind: bool,
}

impl Talk {
    /// How many messages are due between two moments since the start.
    pub fn due_between(&self, from: Duration, to: Duration) -> u64 {
        let mut schedule = Schedule::new(self.arrivals, self.rate, self.seed);
        let mut count = 0;
        while schedule.due() < to.min(self.end) {
            count += u64::from(schedule.due() >= from);
            schedule.advance();
        }
        count
    }

    /// Has a crowd talk; device `2n` talks to device `2n + 1`.
    pub(super) fn run(self, crowd: Crowd) -> Result<Done, BenchError> {
        let mut run = Run::new(&self, crowd);
        run.go_on()?;
        run.finish()?;
        let mut curves = Curves::default();
        curves.add("send to ack", run.to_ack);
        curves.add("send to receive", run.to_receive);
        curves.add("lateness of the load", run.lateness);
        if self.roam_every.is_some() {
            curves.add("send to receive after a change", run.after_a_change);
        }
        Ok(Done {
            sent: run.sent as u64,
            acked: run.acked as u64,
            received: run.received as u64,
            acked_within: run.acked_within,
            lost: run.crowd.swarm.lost(),
            log: curves.to_log()?,
            ..Done::default()
        })
    }
}

/// A talk in progress.
struct Run<'a> {
    talk: &'a Talk,
    crowd: Crowd,
    channels: Vec<ChannelId>,
    schedule: Schedule,
    start: Instant,
    sent: usize,
    acked: usize,
    received: usize,
    acked_within: u64,
    /// When each device changed its address, and how often that was in all.
    roamed: Vec<Option<Duration>>,
    changes: u32,
    to_ack: Latency,
    to_receive: Latency,
    after_a_change: Latency,
    lateness: Latency,
}

impl<'a> Run<'a> {
    fn new(talk: &'a Talk, crowd: Crowd) -> Self {
        let pairs = crowd.uins.chunks_exact(2);
        let channels = pairs.map(|pair| ChannelId::direct(pair[0], pair[1])).collect();
        Self {
            schedule: Schedule::new(talk.arrivals, talk.rate, talk.seed),
            start: Instant::now(),
            sent: 0,
            acked: 0,
            received: 0,
            acked_within: 0,
            roamed: vec![None; crowd.uins.len()],
            changes: 0,
            to_ack: Latency::default(),
            to_receive: Latency::default(),
            after_a_change: Latency::default(),
            lateness: Latency::default(),
            talk,
            crowd,
            channels,
        }
    }

    /// Sends what is due until the end, and hears what comes.
    fn go_on(&mut self) -> Result<(), BenchError> {
        let manner = if self.talk.spin { Wait::Spin } else { Wait::Sleep };
        let end = self.talk.end;
        while self.start.elapsed() < end {
            self.send_due()?;
            self.roam_due();
            self.crowd.swarm.turn()?;
            self.hear()?;
            let next = self.schedule.due().min(self.next_roam().unwrap_or(end)).min(end);
            self.crowd.swarm.wait(self.start + next, manner)?;
        }
        Ok(())
    }

    fn send_due(&mut self) -> Result<(), BenchError> {
        let now = self.start.elapsed();
        while self.schedule.due() <= now.min(self.talk.end) {
            let due = self.schedule.due();
            if self.is_measured(due) {
                self.lateness.record(self.start.elapsed() - due);
            }
            let pair = self.sent % self.channels.len();
            let side = self.sent / self.channels.len() % 2;
            let message = Message {
                channel: self.channels[pair],
                tag: due.as_nanos() as u64, // fits for centuries
                content_bytes: self.talk.bytes,
            };
            self.crowd.swarm.send(2 * pair + side, message);
            self.sent += 1;
            self.schedule.advance();
            progress(self.sent)?;
        }
        Ok(())
    }

    fn is_measured(&self, due: Duration) -> bool {
        (self.talk.from..self.talk.to).contains(&due)
    }

    /// When the next device changes its address: all of them in turns, each as often as it shall.
    fn next_roam(&self) -> Option<Duration> {
        let between = self.talk.roam_every? / u32::try_from(self.roamed.len()).ok()?;
        Some(self.talk.from + between * self.changes)
    }

    fn roam_due(&mut self) {
        let now = self.start.elapsed();
        while self.next_roam().is_some_and(|at| at <= now) {
            let device = self.changes as usize % self.roamed.len();
            self.crowd.swarm.roam(device);
            self.roamed[device] = Some(now);
            self.changes += 1;
        }
    }

    fn hear(&mut self) -> Result<(), BenchError> {
        while let Some((device, at, event)) = self.crowd.swarm.poll_event() {
            check(device, event)?;
            let since = |tag| at.saturating_duration_since(self.start + Duration::from_nanos(tag));
            match event {
                Event::Acked(tag) => {
                    self.acked += 1;
                    let at = at.saturating_duration_since(self.start);
                    self.acked_within += u64::from(self.is_measured(at));
                    if self.is_measured(Duration::from_nanos(tag)) {
                        self.to_ack.record(since(tag));
                    }
                }
                Event::Received(tag) => {
                    self.received += 1;
                    if self.is_measured(Duration::from_nanos(tag)) {
                        self.to_receive.record(since(tag));
                        if self.is_after_a_change(device, Duration::from_nanos(tag)) {
                            self.after_a_change.record(since(tag));
                        }
                    }
                }
                Event::Online { .. } | Event::Lost | Event::Beat | Event::Failed(..) => {}
            }
        }
        Ok(())
    }

    /// Whether a device or the one it talks with had just changed its address at that moment.
    fn is_after_a_change(&self, device: usize, due: Duration) -> bool {
        [device, device ^ 1].into_iter().any(|device| {
            self.roamed[device].is_some_and(|at| (at..at + AFTER_A_CHANGE).contains(&due))
        })
    }

    /// Waits for the last answers: a message without one would be missing among the latencies.
    fn finish(&mut self) -> Result<(), BenchError> {
        let deadline = Instant::now() + self.talk.patience;
        while self.acked < self.sent || self.received < self.sent {
            if Instant::now() > deadline {
                if self.talk.may_fall_behind {
                    return Ok(());
                }
                let Self { sent, acked, received, .. } = self;
                let what = format!("of {sent} messages {acked} were acked, {received} received");
                return Err(BenchError::Load(what));
            }
            self.crowd.swarm.turn()?;
            self.hear()?;
            self.crowd.swarm.wait(deadline, Wait::Sleep)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_due_can_be_counted_from_outside() {
        let talk = Talk {
            arrivals: Arrivals::Even,
            rate: 100.0,
            seed: 1,
            from: Duration::from_secs(1),
            to: Duration::from_secs(2),
            end: Duration::from_secs(3),
            bytes: 100,
            spin: false,
            roam_every: None,
            patience: Duration::ZERO,
            may_fall_behind: false,
        };
        let due =
            |from, to| talk.due_between(Duration::from_millis(from), Duration::from_millis(to));
        assert_eq!(due(1_005, 2_005), 100);
        assert_eq!(due(2_505, 9_000), 49, "nothing is due behind the end");
    }
}
