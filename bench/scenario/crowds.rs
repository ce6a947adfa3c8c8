//! Pairs talk while crowds storm their server: stretches with a storm and without one in turns, on
//! one server, with the same messages at the same moments. Each kind of crowd is a process of its
//! own that gives way to the pairs' process, as a crowd's phones do not use anybody else's; so what
//! the pairs notice is the server's doing.

use std::time::Duration;

use serde::Serialize;

use super::books::Books;
use super::parse_seconds;
use super::slow::merged;
use super::talking::{LIMITLESS, divide, sources};
use crate::error::BenchError;
use crate::load::{CONTENT_BYTES_MIN, Datagrams, Identity};
use crate::loader::{Done, Fleet, Kind, Order, Slow as SteadyTalk, Storm, Task};
use crate::measure::curves::Curves;
use crate::measure::latency::Latency;
use crate::measure::process::Thread;
use crate::report::{Figure, Run};
use crate::system::Server;

/// How long the load goes on after the measured part of a stretch.
const TAIL: Duration = Duration::from_millis(500);

/// How long the load may take to end a stretch.
const PATIENCE: Duration = Duration::from_secs(120);

/// Devices that flip, for each one under way: a flip is over when the device is logged in.
const FLIPPERS: usize = 2;

/// The percentiles that are compared.
const COMPARED: [(&str, f64); 3] = [("p50", 50.0), ("p99", 99.0), ("p99.9", 99.9)];

/// What is compared.
const WAITS: [&str; 2] = ["send to ack", "send to each"];

/// The command line of this scenario.
#[derive(Clone, Debug, clap::Args, Serialize)]
pub struct Crowds {
    /// Pairs of devices that talk
    #[arg(long, default_value_t = 20, value_parser = super::parse_count)]
    pairs: usize,
    /// Messages a second of all pairs
    #[arg(long, default_value_t = 200.0)]
    rate: f64,
    /// The crowds, one after the other
    #[arg(long, value_delimiter = ',', default_value = "reconnects,resumes,flips,group")]
    kinds: Vec<Kind>,
    /// Devices of each crowd that comes
    #[arg(long, default_value_t = 480)]
    crowd: usize,
    /// Logins under way at once
    #[arg(long, default_value_t = 32, value_parser = super::parse_count)]
    at_once: usize,
    /// Members of the large group, which may have no more
    #[arg(long, default_value_t = 400)]
    members: usize,
    /// Messages to it that not all members have, at once
    #[arg(long, default_value_t = 2, value_parser = super::parse_count)]
    messages: usize,
    /// How often to compare a stretch with each storm to one without
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// How long to measure each stretch
    #[arg(long, value_name = "S", default_value_t = 10.0, value_parser = parse_seconds)]
    seconds: f64,
    /// How long to send before that
    #[arg(long, value_name = "S", default_value_t = 2.0, value_parser = parse_seconds)]
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

/// A stretch of the talk.
#[derive(Clone, Copy, Debug)]
struct Stretch {
    kind: Kind,
    storms: bool,
    round: u32,
}

/// What a process of the load gets.
struct Share<'a> {
    devices: &'a [Identity],
    task: Task,
}

impl Crowds {
    pub(super) fn check(&self) -> Result<(), BenchError> {
        let wrong = if self.kinds.is_empty() || self.members < 3 {
            "--kinds: some; --members: 3 at least".to_owned()
        } else if self.crowd < 2 * self.at_once {
            "--crowd: twice as many as --at-once at least".to_owned()
        } else if self.rate <= 0.0 || self.bytes < CONTENT_BYTES_MIN {
            format!("--rate: above 0; --bytes: {CONTENT_BYTES_MIN} at least")
        } else {
            return Ok(());
        };
        Err(BenchError::Usage(wrong))
    }

    pub(super) fn server_options(&self) -> Vec<(String, String)> {
        let mut options = vec![
            ("durability".to_owned(), self.durability.clone()),
            ("group-members-max".to_owned(), self.members.to_string()),
        ];
        options.extend(LIMITLESS.map(|(name, value)| (name.to_owned(), value.to_owned())));
        options
    }

    /// With each storm and without in turns; which comes first changes, so that what a server does
    /// as it ages falls on both.
    fn stretches(&self) -> Vec<Stretch> {
        let rounds = 1..=self.rounds;
        let pairs = rounds.flat_map(|round| self.kinds.iter().map(move |kind| (round, *kind)));
        let stretches = pairs.flat_map(|(round, kind)| {
            let first = round.is_multiple_of(2);
            [first, !first].map(|storms| Stretch { kind, storms, round })
        });
        stretches.collect()
    }

    /// How many devices a crowd has.
    fn devices(&self, kind: Kind) -> usize {
        match kind {
            Kind::Reconnects | Kind::Resumes => self.crowd,
            Kind::Flips => FLIPPERS * self.at_once,
            Kind::Group => self.members,
        }
    }

    fn talk(&self, stretches: &[Stretch]) -> SteadyTalk {
        let from = Duration::from_secs_f64(self.warmup);
        let to = from + Duration::from_secs_f64(self.seconds);
        SteadyTalk {
            group: 2,
            slow: 0,
            how: Vec::new(),
            rate: self.rate,
            seed: self.seed,
            stretches: stretches.iter().map(|stretch| (false, stretch.name())).collect(),
            from,
            to,
            end: to + TAIL,
            bytes: self.bytes,
        }
    }

    fn storm(&self, stretches: &[Stretch], kind: Kind, length: Duration) -> Storm {
        let is_own = |stretch: &Stretch| stretch.storms && stretch.kind == kind;
        Storm {
            kind,
            at_once: if kind == Kind::Group { self.messages } else { self.at_once },
            stretches: stretches.iter().map(is_own).collect(),
            length,
            bytes: self.bytes,
        }
    }

    pub(super) fn measure(&self, server: &Server) -> Result<Run, BenchError> {
        let crowds: usize = self.kinds.iter().map(|kind| self.devices(*kind)).sum();
        let identities = server.add_users(2 * self.pairs + crowds)?;
        let stretches = self.stretches();
        let talk = self.talk(&stretches);
        let orders = self.orders(server, &identities, (&talk, &stretches));
        let mut fleet = Fleet::prepare(&orders, "logged in", identities.len())?;
        let pids = fleet.pids();
        let mut books = Vec::new();
        for (number, stretch) in stretches.iter().enumerate() {
            eprintln!("  {}", stretch.name());
            let start = fleet.start("sent and done", 0)?;
            fleet.wait_until(start + talk.from)?;
            let before = Books::read(server, &pids)?;
            fleet.wait_until(start + talk.to)?;
            books.push((before, Books::read(server, &pids)?));
            if number + 1 < stretches.len() {
                fleet.wait_until_ready_within(PATIENCE)?;
            }
        }
        let (done, curves) = fleet.finish(PATIENCE)?;
        let all = stretches.iter().copied().zip(&books).collect::<Vec<_>>();
        let mut figures = Vec::new();
        for kind in &self.kinds {
            figures.extend(self.compare(&curves, *kind));
            figures.extend(self.crowd(&done, &curves, *kind));
            figures.extend([false, true].into_iter().flat_map(|storms| used(&all, *kind, storms)));
        }
        // The load fails where it is not all of them.
        let what = "sent, acked, and received";
        figures.push(Figure::new("messages of the pairs", what, "", done.acked as f64));
        figures.extend(books[books.len() - 1].1.disturbance_since(&books[0].0));
        Ok(Run { figures, curves: merged(&curves) })
    }

    /// The pairs' order first, then one for each crowd.
    fn orders(
        &self,
        server: &Server,
        identities: &[Identity],
        (talk, stretches): (&SteadyTalk, &[Stretch]),
    ) -> Vec<Order> {
        let (talkers, mut rest) = identities.split_at(2 * self.pairs);
        let mut shares = vec![Share { devices: talkers, task: Task::Slow(talk.clone()) }];
        for kind in &self.kinds {
            let (own, others) = rest.split_at(self.devices(*kind));
            let task = Task::Storm(self.storm(stretches, *kind, talk.end));
            shares.push(Share { devices: own, task });
            rest = others;
        }
        let order = |(number, share): (usize, Share<'_>)| Order {
            server: server.address(),
            pin: server.pin(),
            sources: sources(server.address(), number, 1),
            devices: divide(share.devices, 1, 1).remove(0),
            weather: None,
            datagrams: Datagrams::Doubled,
            seed: self.seed.wrapping_add(number as u64),
            task: share.task,
        };
        shares.into_iter().enumerate().map(order).collect()
    }

    /// How the pairs' latencies beside a crowd compare to those without it.
    fn compare(&self, curves: &Curves, kind: Kind) -> Vec<Figure> {
        let all = merged(curves);
        let (mut figures, name) = (Vec::new(), kind.name());
        for what in WAITS {
            let get = |storms| all.get(&format!("{}: {what}", kind_name(kind, storms)));
            let (without, with) = (get(false), get(true));
            figures.extend(without.figures(&format!("{what} without {name}")));
            figures.extend(with.figures(&format!("{what} with {name}")));
            for (label, percentile) in COMPARED {
                let group = format!("{what}, {label} with {name} by {label} without");
                let times = ratio(&with, &without, percentile);
                figures.push(Figure::new(&group, "all rounds together", "times", times));
                figures.extend((1..=self.rounds).map(|round| {
                    let get = |storms| {
                        curves.get(&format!("{}: {what}", Stretch { kind, storms, round }.name()))
                    };
                    let times = ratio(&get(true), &get(false), percentile);
                    Figure::new(&group, format!("round {round}"), "times", times)
                }));
            }
        }
        figures
    }

    /// What the crowd itself did, and how long that took.
    fn crowd(&self, done: &Done, curves: &Curves, kind: Kind) -> Vec<Figure> {
        let name = kind.name();
        let seconds = f64::from(self.rounds) * (self.warmup + self.seconds + TAIL.as_secs_f64());
        let count = done.counts.iter().find(|(group, ..)| group == name);
        let rate = count.map_or(0.0, |(.., count)| *count as f64) / seconds;
        let group = format!("the crowd: {name}");
        let mut figures = vec![if kind == Kind::Group {
            let others = (self.members - 1) as f64;
            Figure::new(&group, "deliveries", "per s", rate * others)
        } else {
            Figure::new(&group, "logins", "per s", rate)
        }];
        figures.extend(curves.get(&format!("{name}: each took")).figures(&group));
        figures
    }
}

impl Stretch {
    fn name(self) -> String {
        format!("{} {}", kind_name(self.kind, self.storms), self.round)
    }
}

fn kind_name(kind: Kind, storms: bool) -> String {
    format!("{} {}", if storms { "with" } else { "without" }, kind.name())
}

fn ratio(with: &Latency, without: &Latency, percentile: f64) -> f64 {
    let seconds = |latency: &Latency| latency.percentile(percentile).as_secs_f64();
    seconds(with) / seconds(without)
}

/// What the server's threads used in all stretches of one kind.
fn used(all: &[(Stretch, &(Books, Books))], kind: Kind, storms: bool) -> Vec<Figure> {
    let own = all.iter().filter(|(s, _)| s.kind == kind && s.storms == storms);
    let (mut seconds, mut threads): (f64, Vec<Thread>) = (0.0, Vec::new());
    for (_, (before, after)) in own {
        seconds += after.seconds_since(before);
        for thread in after.threads_since(before) {
            match threads.iter_mut().find(|known| known.name == thread.name) {
                Some(known) => known.add(&thread),
                None => threads.push(thread),
            }
        }
    }
    let group = format!("server {}", kind_name(kind, storms));
    let share = |ns: u64| ns as f64 / 1e7 / seconds;
    let figures = threads.iter().flat_map(|thread| {
        let [runs, waits] = ["CPU time", "ready without a core"];
        let figure = |what, ns| {
            Figure::new(&group, format!("{what}, {}", thread.name), "% of a core", share(ns))
        };
        [figure(runs, thread.cpu_ns), figure(waits, thread.starved_ns)]
    });
    figures.collect()
}
