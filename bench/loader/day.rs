//! A day of chat, compressed: people write more at noon and in the evening than at night, most of
//! them are away at any time, they come back and find what was written meanwhile, and everything
//! is with them before the day is over.
//!
//! A device is there or not for half an hour of the day at a time, by chance and the hour. Who is
//! there writes to one of a few friends, who may be away.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tern_protocol::ChannelId;
use tern_random::Stream;

use super::{Done, progress};
use crate::error::BenchError;
use crate::load::{Crowd, Event, Message, Wait, check};
use crate::measure::curves::Curves;
use crate::measure::latency::Latency;

/// How much is written in each hour of a day, 1 at noon. Shaped like what chat services show of
/// their days: a deep night, a plateau, a peak in the evening.
const ACTIVITY: [f64; 24] = [
    0.35, 0.20, 0.12, 0.08, 0.07, 0.10, 0.25, 0.50, 0.75, 0.85, 0.90, 0.95, 1.00, 0.95, 0.90, 0.90,
    0.95, 1.00, 1.10, 1.25, 1.35, 1.30, 1.00, 0.65,
];

/// Share of the devices that is there when nobody writes, and how much more at the peak: phones
/// keep a connection only while they are in use.
const THERE_LEAST: f64 = 0.10;
/// See [`THERE_LEAST`].
const THERE_MORE: f64 = 0.40;

/// Stretches of a day in which a device is there or not.
const STRETCHES: u32 = 48;

/// Friends of each user.
const FRIENDS: usize = 6;

/// A day.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Day {
    /// How long it takes.
    pub length: Duration,
    /// Messages of the whole day.
    pub messages: u64,
    /// Bytes of content of each.
    pub bytes: usize,
    /// One seed gives one day.
    pub seed: u64,
    /// How long everybody may take to have everything at its end.
    pub patience: Duration,
}

impl Day {
    pub(super) fn run(&self, crowd: Crowd) -> Result<Done, BenchError> {
        let mut run = Run::new(self, crowd);
        while run.start.elapsed() < self.length {
            run.come_and_go()?;
            run.write()?;
            run.crowd.swarm.turn()?;
            run.hear()?;
            let next = run.next.min(run.stretch_ends()).min(self.length);
            run.crowd.swarm.wait(run.start + next, Wait::Sleep)?;
        }
        run.finish()?;
        let mut curves = Curves::default();
        curves.add("send to ack", run.to_ack);
        curves.add("send to receive while there", run.to_receive);
        curves.add("return to receive", run.caught_up);
        curves.add("connect to logged in", run.to_online);
        let log = curves.to_log()?;
        let (sent, acked, received) = (run.sent, run.acked, run.received);
        Ok(Done { sent, acked, received, resumed: run.resumed, log, ..Done::default() })
    }

    /// How much is written at this moment, 1 at noon: between the middles of two hours it changes
    /// evenly.
    fn activity(&self, at: Duration) -> f64 {
        let hour = 24.0 * (at.as_secs_f64() / self.length.as_secs_f64()).clamp(0.0, 1.0);
        let (before, share) = ((hour + 23.5).floor(), (hour + 23.5).fract());
        let of = |hour: f64| ACTIVITY[hour as usize % ACTIVITY.len()];
        of(before) * (1.0 - share) + of(before + 1.0) * share
    }

    /// Time until the next message.
    fn gap(&self, at: Duration, random: &mut Stream) -> Duration {
        let mean = ACTIVITY.iter().sum::<f64>() / ACTIVITY.len() as f64;
        let rate = self.messages as f64 / self.length.as_secs_f64() * self.activity(at) / mean;
        Duration::from_secs_f64(-(1.0 - random.fraction()).ln() / rate)
    }
}

/// What a device is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Presence {
    Away,
    /// It connects, since then.
    Coming(Instant),
    /// It is logged in; it came back then, if it ever did.
    There(Option<Instant>),
}

struct Run<'a> {
    day: &'a Day,
    crowd: Crowd,
    random: Stream,
    start: Instant,
    /// The half hours that have begun.
    stretch: u32,
    presence: Vec<Presence>,
    there: Vec<usize>,
    /// When the next message is due.
    next: Duration,
    sent: u64,
    acked: u64,
    received: u64,
    resumed: u64,
    to_ack: Latency,
    to_receive: Latency,
    caught_up: Latency,
    to_online: Latency,
}

impl<'a> Run<'a> {
    fn new(day: &'a Day, crowd: Crowd) -> Self {
        let count = crowd.uins.len();
        let mut random = Stream::of(day.seed, "day");
        Self {
            next: day.gap(Duration::ZERO, &mut random),
            day,
            crowd,
            random,
            start: Instant::now(),
            stretch: 0,
            presence: vec![Presence::There(None); count],
            there: (0..count).collect(),
            sent: 0,
            acked: 0,
            received: 0,
            resumed: 0,
            to_ack: Latency::default(),
            to_receive: Latency::default(),
            caught_up: Latency::default(),
            to_online: Latency::default(),
        }
    }

    fn stretch_ends(&self) -> Duration {
        self.day.length * self.stretch / STRETCHES
    }

    /// At each half hour some go and some come.
    fn come_and_go(&mut self) -> Result<(), BenchError> {
        let now = self.start.elapsed();
        if now < self.stretch_ends() {
            return Ok(());
        }
        self.stretch += 1;
        let peak = ACTIVITY.iter().copied().fold(0.0, f64::max);
        let share = THERE_LEAST + THERE_MORE * self.day.activity(now) / peak;
        for device in 0..self.presence.len() {
            let shall = self.random.chance(share);
            match self.presence[device] {
                Presence::Away if shall => self.come(device)?,
                Presence::There(_) if !shall => {
                    self.crowd.swarm.disconnect(device);
                    self.presence[device] = Presence::Away;
                }
                _ => {}
            }
        }
        self.note_there();
        Ok(())
    }

    fn come(&mut self, device: usize) -> Result<(), BenchError> {
        self.presence[device] = Presence::Coming(Instant::now());
        self.crowd.swarm.reconnect(device, true)
    }

    fn note_there(&mut self) {
        let is_there = |presence: &Presence| matches!(presence, Presence::There(_));
        let all = self.presence.iter().enumerate();
        self.there = all.filter(|(_, one)| is_there(one)).map(|(device, _)| device).collect();
    }

    /// Who is there writes what is due.
    fn write(&mut self) -> Result<(), BenchError> {
        while self.next <= self.start.elapsed() && self.next < self.day.length {
            let due = self.next;
            self.next += self.day.gap(due, &mut self.random);
            let Some(device) = self.random.pick(&self.there) else { continue };
            let count = self.crowd.uins.len();
            let friend = (device + 1 + self.random.index(FRIENDS.min(count - 1))) % count;
            let (own, other) = (self.crowd.uins[device], self.crowd.uins[friend]);
            let channel = ChannelId::direct(own, other);
            let tag = due.as_nanos() as u64; // fits for centuries
            self.crowd.swarm.send(device, Message { channel, tag, content_bytes: self.day.bytes });
            self.sent += 1;
            progress(self.sent as usize)?;
        }
        Ok(())
    }

    fn hear(&mut self) -> Result<(), BenchError> {
        while let Some((device, at, event)) = self.crowd.swarm.poll_event() {
            check(device, event)?;
            match event {
                Event::Acked(tag) => {
                    self.acked += 1;
                    let due = self.start + Duration::from_nanos(tag);
                    self.to_ack.record(at.saturating_duration_since(due));
                }
                Event::Received(tag) => {
                    self.received += 1;
                    let due = self.start + Duration::from_nanos(tag);
                    match self.presence[device] {
                        Presence::There(Some(back)) if back > due => {
                            self.caught_up.record(at.saturating_duration_since(back));
                        }
                        _ => self.to_receive.record(at.saturating_duration_since(due)),
                    }
                }
                Event::Online { resumed } => {
                    if let Presence::Coming(since) = self.presence[device] {
                        self.to_online.record(at.saturating_duration_since(since));
                        self.presence[device] = Presence::There(Some(since));
                        self.resumed += u64::from(resumed);
                        self.there.push(device);
                    }
                }
                Event::Lost | Event::Beat | Event::Failed(..) => {}
            }
        }
        Ok(())
    }

    /// Everybody comes, and waits until everything is there.
    fn finish(&mut self) -> Result<(), BenchError> {
        for device in 0..self.presence.len() {
            if self.presence[device] == Presence::Away {
                self.come(device)?;
            }
        }
        let deadline = Instant::now() + self.day.patience;
        while self.acked < self.sent || self.received < self.sent {
            if Instant::now() > deadline {
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
    fn the_evening_is_busier_than_the_night() {
        let day = Day {
            length: Duration::from_secs(24),
            messages: 24_000,
            bytes: 100,
            seed: 1,
            patience: Duration::ZERO,
        };
        let at = |hour: f64| day.activity(Duration::from_secs_f64(hour));
        assert!((at(4.5) - 0.07).abs() < 1e-9 && (at(20.5) - 1.35).abs() < 1e-9);
        assert!((at(0.0) - at(24.0)).abs() < 1e-9, "a day goes over into the next");
        let (mut random, mut now, mut count) = (Stream::new(1), Duration::ZERO, 0);
        while now < day.length {
            now += day.gap(now, &mut random);
            count += 1;
        }
        assert!((23_000..25_000).contains(&count), "{count}");
    }
}
