//! Members of groups that do not keep up, and what that costs the others: stretches with them and
//! without them in turns, on one server, with the same messages at the same moments.

use std::time::{Duration, Instant};

use serde::Serialize;

use super::books::Books;
use super::parse_seconds;
use super::talking::{LIMITLESS, divide, sources};
use crate::error::BenchError;
use crate::load::{CONTENT_BYTES_MIN, Datagrams, Stall};
use crate::loader::{Fleet, Order, Slow as SlowTask, Task};
use crate::measure::curves::Curves;
use crate::measure::latency::Latency;
use crate::measure::process::Memory;
use crate::report::{Figure, Run};
use crate::system::{Server, Status};

/// How long the load goes on after the measured part of a stretch.
const TAIL: Duration = Duration::from_millis(500);

/// Time between two looks at the server's memory.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// How long the slow ones may take to catch up.
const PATIENCE: Duration = Duration::from_secs(180);

/// The most members that one change makes, its sender included.
const GROUP_MAX: usize = tern_protocol::limits::CHANGE_MEMBERS_MAX + 1;

/// Counts of the server that say how it treats the slow ones.
const COUNTS: [&str; 9] = [
    "pushes",
    "pushes_free",
    "pushes_repaired",
    "news",
    "slow_readers",
    "spilled_bytes",
    "sessions_offline",
    "reads_cold",
    "datagrams_out",
];

/// The command line of this scenario.
#[derive(Clone, Debug, clap::Args, Serialize)]
pub struct Slow {
    /// Devices, each of a user of its own
    #[arg(long, default_value_t = 400)]
    devices: usize,
    /// Members of each group
    #[arg(long, default_value_t = 10)]
    group: usize,
    /// Share of the members of each group that is slow
    #[arg(long, value_name = "PERCENT", default_value_t = 10.0)]
    slow: f64,
    /// How they are slow, one group after the other
    #[arg(long, value_delimiter = ',', default_value = "app,network,trickle")]
    how: Vec<Stall>,
    /// Messages a second times members that get each
    #[arg(long, default_value_t = 4_000.0)]
    deliveries: f64,
    /// How often to compare a stretch with slow ones to one without
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// How long to measure each stretch
    #[arg(long, value_name = "S", default_value_t = 10.0, value_parser = parse_seconds)]
    seconds: f64,
    /// How long to send before that
    #[arg(long, value_name = "S", default_value_t = 5.0, value_parser = parse_seconds)]
    warmup: f64,
    /// Bytes of content of each message
    #[arg(long, default_value_t = 100)]
    bytes: usize,
    /// When the server may ack: disk or process, see its options
    #[arg(long, default_value = "disk")]
    durability: String,
    /// One seed gives one schedule
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// What was seen of the server in one stretch.
struct Stretch {
    stalls: bool,
    books: (Books, Books),
    memory: Vec<(Duration, Memory)>,
}

impl Slow {
    pub(super) fn check(&self) -> Result<(), BenchError> {
        let slow = self.slow_members();
        let wrong = if !(3..=GROUP_MAX).contains(&self.group) || self.devices < self.group {
            format!("--group: 3 to {GROUP_MAX}, and no more than --devices")
        } else if slow < 1 || slow + 2 > self.group {
            "--slow: at least one of each group, and two that are not".to_owned()
        } else if self.deliveries <= 0.0 || self.bytes < CONTENT_BYTES_MIN || self.how.is_empty() {
            format!("--deliveries: above 0; --bytes: {CONTENT_BYTES_MIN} at least; --how: some")
        } else {
            return Ok(());
        };
        Err(BenchError::Usage(wrong))
    }

    pub(super) fn server_options(&self) -> Vec<(String, String)> {
        let mut options = vec![("durability".to_owned(), self.durability.clone())];
        options.extend(LIMITLESS.map(|(name, value)| (name.to_owned(), value.to_owned())));
        options
    }

    fn slow_members(&self) -> usize {
        (self.group as f64 * self.slow / 100.0).round() as usize
    }

    /// With slow ones and without, in turns; which comes first changes, so that what a server
    /// does as it ages falls on both.
    fn stretches(&self) -> Vec<(bool, String)> {
        let name = |stalls| if stalls { "with" } else { "without" };
        let round = |round: u32| {
            let first = round % 2 == 1;
            [first, !first].map(|stalls| (stalls, format!("{} {}", name(stalls), round + 1)))
        };
        (0..self.rounds).flat_map(round).collect()
    }

    fn task(&self) -> SlowTask {
        let from = Duration::from_secs_f64(self.warmup);
        let to = from + Duration::from_secs_f64(self.seconds);
        SlowTask {
            group: self.group,
            slow: self.slow_members(),
            how: self.how.clone(),
            rate: self.deliveries / (self.group - 1) as f64,
            seed: self.seed,
            stretches: self.stretches(),
            from,
            to,
            end: to + TAIL,
            bytes: self.bytes,
        }
    }

    pub(super) fn measure(&self, server: &Server) -> Result<Run, BenchError> {
        let count = self.devices / self.group * self.group;
        let identities = server.add_users(count)?;
        let task = self.task();
        let order = Order {
            server: server.address(),
            pin: server.pin(),
            sources: sources(server.address(), 0, 1),
            devices: divide(&identities, 1, 1).remove(0),
            weather: None,
            datagrams: Datagrams::Doubled,
            seed: self.seed,
            task: Task::Slow(task.clone()),
        };
        let mut fleet = Fleet::prepare(&[order], "logged in", count)?;
        let pids = fleet.pids();
        let mut stretches = Vec::new();
        let due = (task.rate * task.end.as_secs_f64()) as usize;
        for (number, (stalls, name)) in task.stretches.iter().enumerate() {
            eprintln!("  {name}");
            let start = fleet.start("sent in all", due * (number + 1))?;
            fleet.wait_until(start + task.from)?;
            let before = Books::read(server, &pids)?;
            let memory = watch(server, &mut fleet, start + task.to)?;
            let after = Books::read(server, &pids)?;
            stretches.push(Stretch { stalls: *stalls, books: (before, after), memory });
            if number + 1 < task.stretches.len() {
                fleet.wait_until_ready_within(PATIENCE)?;
            }
        }
        let (done, curves) = fleet.finish(PATIENCE)?;
        let mut figures = self.tails(&curves);
        // The load fails where it is not all of them.
        let all = "sent, acked, and with every member";
        figures.push(Figure::new("messages", all, "", done.acked as f64));
        figures.extend(self.server(&stretches));
        Ok(Run { figures, curves: merged(&curves) })
    }

    /// Latencies of both kinds, and how they compare round by round.
    fn tails(&self, curves: &Curves) -> Vec<Figure> {
        let all = merged(curves);
        let mut figures = Vec::new();
        for (name, latency) in all.iter() {
            figures.extend(latency.figures(&name.replace('-', " ")));
        }
        for (name, percentile) in [("p50", 50.0), ("p99", 99.0), ("p99.9", 99.9)] {
            let group = format!("send to each, {name} with slow ones by {name} without");
            let ratio = |with: &Latency, without: &Latency| {
                let seconds = |latency: &Latency| latency.percentile(percentile).as_secs_f64();
                seconds(with) / seconds(without)
            };
            let pair = |round: &str| {
                let get = |kind: &str| curves.get(&format!("{kind} {round}: send to each"));
                ratio(&get("with"), &get("without"))
            };
            let together = ratio(&all.get("with: send to each"), &all.get("without: send to each"));
            figures.push(Figure::new(&group, "all rounds together", "times", together));
            let rounds = (1..=self.rounds).map(|round| round.to_string());
            figures.extend(
                rounds.map(|round| {
                    Figure::new(&group, format!("round {round}"), "times", pair(&round))
                }),
            );
        }
        figures
    }

    /// What the server used in both kinds of stretches.
    fn server(&self, stretches: &[Stretch]) -> Vec<Figure> {
        let mut figures = Vec::new();
        for (stalls, name) in [(false, "without"), (true, "with")] {
            let group = format!("server {name} slow ones");
            let own: Vec<&Stretch> = stretches.iter().filter(|s| s.stalls == stalls).collect();
            let seconds: f64 = own.iter().map(|s| s.books.1.seconds_since(&s.books.0)).sum();
            let cpu: u64 = own.iter().map(|s| s.cpu_ns()).sum();
            figures.push(Figure::new(
                &group,
                "CPU time",
                "% of a core",
                cpu as f64 / 1e7 / seconds,
            ));
            for count in COUNTS {
                let grown = |s: &&Stretch| grown(&s.books.0.status, &s.books.1.status, count);
                let grown: u64 = own.iter().map(grown).sum();
                figures.push(Figure::new(&group, count, "per s", grown as f64 / seconds));
            }
            for (number, stretch) in own.iter().enumerate() {
                let slope = slope_kib(&stretch.memory, |memory| memory.anonymous);
                let what = format!("private memory grows, round {}", number + 1);
                figures.push(Figure::new(&group, what, "KiB per s", slope));
            }
            let last = own.last().and_then(|stretch| stretch.memory.last());
            let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
            if let Some((_, memory)) = last {
                figures.push(Figure::new(
                    &group,
                    "private at the end",
                    "MiB",
                    mib(memory.anonymous),
                ));
                figures.push(Figure::new(&group, "resident at the end", "MiB", mib(memory.rss)));
            }
        }
        if let Some(stretch) = stretches.last() {
            figures.extend(stretch.books.1.disturbance_since(&stretches[0].books.0));
        }
        figures
    }
}

impl Stretch {
    fn cpu_ns(&self) -> u64 {
        let (before, after) = &self.books;
        after.threads_since(before).iter().map(|thread| thread.cpu_ns).sum()
    }
}

/// The server's memory until this moment, from look to look.
fn watch(
    server: &Server,
    fleet: &mut Fleet,
    until: Instant,
) -> Result<Vec<(Duration, Memory)>, BenchError> {
    let start = Instant::now();
    let mut seen = Vec::new();
    while Instant::now() < until {
        seen.push((start.elapsed(), server.process()?.memory));
        fleet.wait_until(until.min(Instant::now() + LOOK_EVERY))?;
    }
    Ok(seen)
}

/// By how much a count has grown.
fn grown(before: &Status, after: &Status, name: &str) -> u64 {
    let count = |status: &Status| status.figure(name).unwrap_or(0);
    count(after).saturating_sub(count(before))
}

/// All stretches of one kind together: what their names begin with says which.
pub(super) fn merged(curves: &Curves) -> Curves {
    let mut all = Curves::default();
    for (name, latency) in curves.iter() {
        let (stretch, what) = name.split_once(':').unwrap_or((name, ""));
        let kind = stretch.trim_end_matches(|c: char| c.is_ascii_digit() || c == '-');
        let mut one = Curves::default();
        one.add(&format!("{kind}:{what}"), latency.clone());
        all.merge(&one);
    }
    all
}

/// The line through what was seen (least squares): KiB a second; 0 for fewer than two looks.
fn slope_kib(seen: &[(Duration, Memory)], of: impl Fn(&Memory) -> u64) -> f64 {
    let count = seen.len() as f64;
    let points = || seen.iter().map(|(at, memory)| (at.as_secs_f64(), of(memory) as f64 / 1024.0));
    let mean = |sum: f64| sum / count;
    let (x, y) = (mean(points().map(|p| p.0).sum()), mean(points().map(|p| p.1).sum()));
    let spread: f64 = points().map(|p| (p.0 - x).powi(2)).sum();
    let shared: f64 = points().map(|p| (p.0 - x) * (p.1 - y)).sum();
    if spread > 0.0 { shared / spread } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slope_is_that_of_the_line() {
        let look = |s: u64, kib: u64| {
            (Duration::from_secs(s), Memory { anonymous: kib << 10, ..Memory::default() })
        };
        let of = |memory: &Memory| memory.anonymous;
        assert_eq!(slope_kib(&[look(0, 100), look(1, 103), look(2, 106)], of), 3.0);
        assert_eq!(slope_kib(&[look(0, 100), look(1, 90), look(2, 100)], of), 0.0);
        assert_eq!(slope_kib(&[look(5, 100)], of), 0.0);
    }

    #[test]
    fn stretches_of_one_kind_stand_together() {
        let (mut curves, mut latency) = (Curves::default(), Latency::default());
        latency.record(Duration::from_millis(1));
        for name in ["with 1", "without 1", "without 12", "with 12"] {
            curves.add(&format!("{name}: send to each"), latency.clone());
        }
        let all = merged(&curves);
        let count = |kind: &str| all.get(&format!("{kind}: send to each")).count();
        assert_eq!((count("with"), count("without"), all.iter().count()), (2, 2, 2));
    }
}
