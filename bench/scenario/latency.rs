//! Pairs of devices talk to each other, in turns, at a fixed rate of messages in all.
//!
//! Messages are due in three stretches: a warm-up that is not measured (channels are opened,
//! memory is touched), the measured stretch, and a short tail so that the last measured messages
//! meet the same load as the first. The books of the server are read in the unmeasured stretches:
//! the pause that it takes shows in no latency.

use std::time::{Duration, Instant};

use serde::Serialize;
use tern_protocol::ChannelId;
use tern_protocol::frames::Network;

use super::crowd::{Books, Crowd, Progress, check};
use super::parse_seconds;
use crate::error::BenchError;
use crate::load::{Arrivals, CONTENT_BYTES_MIN, Event, Message, Schedule, Swarm, Wait, Weather};
use crate::measure::curves::Curves;
use crate::measure::latency::Latency as Histogram;
use crate::measure::process::Thread;
use crate::report::{Figure, Run};
use crate::system::{Server, Status};

/// Sends a second that the server allows a device: far above what any run asks, since its limit
/// is not what is measured.
const SENDS_PER_SECOND: &str = "1000000";

/// How long the load goes on after the measured stretch.
const TAIL: Duration = Duration::from_millis(500);

/// How long before the measured stretch the books are read.
const BOOKS_BEFORE: Duration = Duration::from_millis(200);

/// How long answers may take after the last message: on a bad path QUIC waits ever longer.
const LAST_ANSWERS: Duration = Duration::from_secs(60);

/// The command line of this scenario.
#[derive(Clone, Debug, clap::Args, Serialize)]
pub struct Latency {
    /// Messages a second, all pairs together
    #[arg(long, default_value_t = 2_000.0)]
    pub(super) rate: f64,
    /// How long to measure
    #[arg(long, value_name = "S", default_value_t = 20.0, value_parser = parse_seconds)]
    pub(super) seconds: f64,
    /// How long to send before that
    #[arg(long, value_name = "S", default_value_t = 3.0, value_parser = parse_seconds)]
    pub(super) warmup: f64,
    /// Pairs of devices, each device of a user of its own
    #[arg(long, default_value_t = 8)]
    pub(super) pairs: usize,
    /// Bytes of content of each message
    #[arg(long, default_value_t = 100)]
    pub(super) bytes: usize,
    /// When the server may ack: disk or process, see its options
    #[arg(long, default_value = "disk")]
    pub(super) durability: String,
    /// How messages are spread over time
    #[arg(long, value_enum, default_value_t = Arrivals::Poisson)]
    pub(super) arrivals: Arrivals,
    /// One seed gives one schedule
    #[arg(long, default_value_t = 1)]
    pub(super) seed: u64,
    /// Poll instead of sleeping: no wake-up of the load in the latencies; needs a core of its own
    #[arg(long)]
    pub(super) spin: bool,
}

/// A run in progress.
struct Talk<'a> {
    scenario: &'a Latency,
    crowd: Crowd,
    channels: Vec<ChannelId>,
    schedule: Schedule,
    start: Instant,
    sent: usize,
    acked: usize,
    received: usize,
    ledger: Ledger,
}

/// What was measured of the messages.
#[derive(Default)]
struct Ledger {
    to_ack: Histogram,
    to_receive: Histogram,
    lateness: Histogram,
}

impl Latency {
    pub(super) fn check(&self) -> Result<(), BenchError> {
        let wrong = if !self.rate.is_finite() || self.rate <= 0.0 {
            "--rate: above 0".to_owned()
        } else if self.pairs == 0 {
            "--pairs: 1 at least".to_owned()
        } else if self.bytes < CONTENT_BYTES_MIN {
            format!("--bytes: {CONTENT_BYTES_MIN} at least, they carry the time of sending")
        } else {
            return Ok(());
        };
        Err(BenchError::Usage(wrong))
    }

    pub(super) fn server_options(&self) -> Vec<(String, String)> {
        let option = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        vec![
            option("durability", &self.durability),
            option("sends-per-second", SENDS_PER_SECOND),
            option("sends-burst", SENDS_PER_SECOND),
        ]
    }

    pub(super) fn measure(&self, server: &Server) -> Result<Run, BenchError> {
        self.measure_over(server, None, false)
    }

    /// The same over a path in this weather, with or without datagrams.
    pub(super) fn measure_over(
        &self,
        server: &Server,
        weather: Option<Weather>,
        datagrams: bool,
    ) -> Result<Run, BenchError> {
        let identities = server.add_users(2 * self.pairs)?;
        let mut swarm = Swarm::new(server.address(), server.pin(), self.seed)?;
        swarm.set_path(weather, datagrams, self.seed);
        let crowd = Crowd::log_in(swarm, identities, Network::Wired, |_| Ok(()))?;
        let mut run = Talk::new(self, crowd);

        let (from, to) = self.measured();
        run.go_on(from.saturating_sub(BOOKS_BEFORE))?;
        let (before, sent_before) = (Books::read(server)?, run.sent);
        run.go_on(to)?;
        run.go_on(to + TAIL / 2)?;
        let (after, sent_after) = (Books::read(server)?, run.sent);
        run.go_on(to + TAIL)?;
        run.finish()?;

        let mut figures = run.figures(&before, &after, sent_after - sent_before);
        if let Some(lost) = run.crowd.swarm.lost() {
            figures.push(Figure::new("path", "packets lost", "%", 100.0 * lost));
        }
        Ok(Run { figures, curves: run.curves() })
    }

    /// The measured stretch, since the start.
    fn measured(&self) -> (Duration, Duration) {
        let from = Duration::from_secs_f64(self.warmup);
        (from, from + Duration::from_secs_f64(self.seconds))
    }
}

impl<'a> Talk<'a> {
    fn new(scenario: &'a Latency, crowd: Crowd) -> Self {
        let pairs = crowd.uins.chunks_exact(2);
        let channels = pairs.map(|pair| ChannelId::direct(pair[0], pair[1])).collect();
        Self {
            schedule: Schedule::new(scenario.arrivals, scenario.rate, scenario.seed),
            start: Instant::now(),
            sent: 0,
            acked: 0,
            received: 0,
            ledger: Ledger::default(),
            scenario,
            crowd,
            channels,
        }
    }

    /// Sends what is due until `until`, and hears what comes.
    fn go_on(&mut self, until: Duration) -> Result<(), BenchError> {
        let manner = if self.scenario.spin { Wait::Spin } else { Wait::Sleep };
        let end = self.start + until;
        let all = (self.scenario.rate * until.as_secs_f64()) as usize; // a rough number
        let mut progress = Progress::new("sent");
        while Instant::now() < end {
            self.send_due(until);
            self.crowd.swarm.turn()?;
            self.hear()?;
            progress.show(self.sent, all);
            let next = self.start + self.schedule.due().min(until);
            self.crowd.swarm.wait(next, manner)?;
        }
        Ok(())
    }

    fn send_due(&mut self, until: Duration) {
        let (from, to) = self.scenario.measured();
        let now = self.start.elapsed();
        while self.schedule.due() <= now.min(until) {
            let due = self.schedule.due();
            if (from..to).contains(&due) {
                self.ledger.lateness.record(self.start.elapsed() - due);
            }
            let pair = self.sent % self.channels.len();
            let side = self.sent / self.channels.len() % 2;
            let message = Message {
                channel: self.channels[pair],
                tag: due.as_nanos() as u64, // fits for centuries
                content_bytes: self.scenario.bytes,
            };
            self.crowd.swarm.send(2 * pair + side, message);
            self.sent += 1;
            self.schedule.advance();
        }
    }

    fn hear(&mut self) -> Result<(), BenchError> {
        let (from, to) = self.scenario.measured();
        while let Some((device, at, event)) = self.crowd.swarm.poll_event() {
            check(device, event)?;
            let (tag, histogram) = match event {
                Event::Acked(tag) => {
                    self.acked += 1;
                    (tag, &mut self.ledger.to_ack)
                }
                Event::Received(tag) => {
                    self.received += 1;
                    (tag, &mut self.ledger.to_receive)
                }
                Event::Online | Event::Beat | Event::Failed(..) => continue,
            };
            let due = Duration::from_nanos(tag);
            if (from..to).contains(&due) {
                histogram.record(at.saturating_duration_since(self.start + due));
            }
        }
        Ok(())
    }

    /// Waits for the last answers: a message without one would be missing among the latencies.
    fn finish(&mut self) -> Result<(), BenchError> {
        let deadline = Instant::now() + LAST_ANSWERS;
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

    fn curves(&self) -> Curves {
        let mut curves = Curves::default();
        curves.add("send to ack", self.ledger.to_ack.clone());
        curves.add("send to receive", self.ledger.to_receive.clone());
        curves.add("lateness of the load", self.ledger.lateness.clone());
        curves
    }

    fn figures(&self, before: &Books, after: &Books, messages: usize) -> Vec<Figure> {
        let messages = messages as f64;
        let seconds = after.seconds_since(before);
        let mut figures = self.ledger.to_ack.figures("send to ack");
        figures.extend(self.ledger.to_receive.figures("send to receive"));
        figures.extend(self.ledger.lateness.figures("lateness of the load"));
        figures.push(Figure::new("rate", "messages", "per s", messages / seconds));
        figures.extend(costs(&after.threads_since(before), messages, seconds));
        figures.extend(commits(&before.status, &after.status));
        let memory = after.server.memory;
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        figures.push(Figure::new("server's memory", "resident", "MiB", mib(memory.rss)));
        figures.push(Figure::new("server's memory", "private", "MiB", mib(memory.anonymous)));
        figures.extend(per_message(&before.status, &after.status));
        figures.extend(after.disturbance_since(before));
        figures
    }
}

/// What the server's threads cost.
fn costs(threads: &[Thread], messages: f64, seconds: f64) -> Vec<Figure> {
    const GROUP: &str = "server's CPU time";
    let mut all = Thread::default();
    threads.iter().for_each(|thread| all.add(thread));
    let us = |ns: u64| ns as f64 / 1_000.0 / messages;
    let ticks = (all.user_ticks + all.system_ticks).max(1) as f64;
    let mut figures = vec![Figure::new(GROUP, "per message", "µs", us(all.cpu_ns))];
    figures.extend(
        threads.iter().map(|thread| {
            Figure::new(GROUP, format!("by {}", thread.name), "µs", us(thread.cpu_ns))
        }),
    );
    figures.extend([
        Figure::new(GROUP, "in the kernel", "%", 100.0 * all.system_ticks as f64 / ticks),
        Figure::new(GROUP, "of a core", "%", all.cpu_ns as f64 / 1e7 / seconds),
        Figure::new(GROUP, "sleeps per message", "", all.sleeps as f64 / messages),
        Figure::new(GROUP, "preemptions per message", "", all.preempted as f64 / messages),
        Figure::new(GROUP, "ready without a core", "µs per message", us(all.starved_ns)),
    ]);
    figures
}

/// How messages shared syncs, if the server tells.
fn commits(before: &Status, after: &Status) -> Vec<Figure> {
    const GROUP: &str = "commits";
    let grown = after.since(before);
    let by = |name: &str| grown.get(name).map(|growth| growth.by as f64);
    let mut figures = Vec::new();
    if let (Some(records), Some(batches @ 1.0..)) = (by("log_records"), by("commits")) {
        figures.push(Figure::new(GROUP, "records per batch", "", records / batches));
    }
    for (name, label) in [
        ("commit_us_mean", "mean of a commit, highest of the shards"),
        ("commit_us_p99", "p99 of a commit, highest of the shards"),
        ("commit_us_max", "longest commit"),
    ] {
        let us = after.figure(name).map(|us| Figure::new(GROUP, label, "µs", us as f64));
        figures.extend(us);
    }
    figures
}

/// Every count of the server, per message that it acked.
fn per_message(before: &Status, after: &Status) -> Vec<Figure> {
    let grown = after.since(before);
    let acks = grown.get("acks").map_or(0, |growth| growth.by).max(1) as f64;
    let counts = grown.iter().filter(|(_, growth)| growth.by > 0);
    counts
        .map(|(name, growth)| {
            Figure::new("counts per acked message", name, &growth.unit, growth.by as f64 / acks)
        })
        .collect()
}
