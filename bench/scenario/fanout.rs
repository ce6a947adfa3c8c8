//! The members of a group talk, for each of some sizes of group, each on a server of its own: what
//! a message to many takes, and what each delivery costs.

use std::time::Duration;

use serde::Serialize;

use super::books::Books;
use super::talking::{LIMITLESS, divide, sources};
use super::{on_fresh_server, parse_count, parse_seconds};
use crate::error::BenchError;
use crate::load::{CONTENT_BYTES_MIN, Datagrams};
use crate::loader::{FanOut, Fleet, Order, Task};
use crate::measure::curves::Curves;
use crate::report::{Figure, Run};
use crate::system::{Plan, Server};

/// How long the load goes on after the measured stretch; the books are read in the middle of it.
const TAIL: Duration = Duration::from_millis(500);

/// How long before the measured stretch the books are read.
const BOOKS_BEFORE: Duration = Duration::from_millis(200);

/// The figure that the sizes are compared by.
const PER_DELIVERY: &str = "per delivery";

/// How long the load may take to end.
const PATIENCE: Duration = Duration::from_secs(270);

/// The command line of this scenario.
#[derive(Clone, Debug, clap::Args, Serialize)]
pub struct Fanout {
    /// Members of the group; several sizes by commas
    #[arg(long, value_delimiter = ',', default_value = "2,10,100,1000")]
    members: Vec<usize>,
    /// Share of the members that is online; two of them at least
    #[arg(long, value_name = "PERCENT", default_value_t = 100.0)]
    online: f64,
    /// Messages a second times members that get each
    #[arg(long, default_value_t = 4_000.0)]
    deliveries: f64,
    /// How long to measure each size
    #[arg(long, value_name = "S", default_value_t = 20.0, value_parser = parse_seconds)]
    seconds: f64,
    /// How long to send before that
    #[arg(long, value_name = "S", default_value_t = 3.0, value_parser = parse_seconds)]
    warmup: f64,
    /// Bytes of content of each message
    #[arg(long, default_value_t = 100)]
    bytes: usize,
    /// Addresses that the members come from: a burst to very many overflows the buffer of one socket
    #[arg(long, default_value_t = 1, value_parser = parse_count)]
    sources: usize,
    /// When the server may ack: disk or process, see its options
    #[arg(long, default_value = "disk")]
    durability: String,
    /// One seed gives one schedule
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

impl Fanout {
    pub(super) fn check(&self) -> Result<(), BenchError> {
        let wrong = if self.members.iter().any(|members| *members < 2) || self.members.is_empty() {
            "--members: 2 at least".to_owned()
        } else if !(0.0..=100.0).contains(&self.online) {
            "--online: 0 to 100".to_owned()
        } else if self.deliveries <= 0.0 || self.bytes < CONTENT_BYTES_MIN {
            format!("--deliveries: above 0; --bytes: {CONTENT_BYTES_MIN} at least")
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

    pub(super) fn run(&self, plan: &Plan) -> Result<Run, BenchError> {
        let (mut all, mut costs) = (Run::default(), Vec::new());
        for members in &self.members {
            eprintln!("  a group of {members}");
            let run = on_fresh_server(plan, |server| self.measure(server, *members))?;
            let cost = run.figures.iter().find(|figure| figure.name == PER_DELIVERY);
            costs.extend(cost.map(|cost| {
                Figure::new("CPU time per delivery", members.to_string(), "µs", cost.value)
            }));
            let group = |group: &str| format!("{members} members: {group}");
            all.figures
                .extend(run.figures.into_iter().map(|f| Figure { group: group(&f.group), ..f }));
            for (name, latency) in run.curves.iter() {
                all.curves.add(&format!("{name}/{members} members"), latency.clone());
            }
        }
        all.figures.extend(costs);
        Ok(all)
    }

    fn measure(&self, server: &Server, members: usize) -> Result<Run, BenchError> {
        let from = Duration::from_secs_f64(self.warmup);
        let to = from + Duration::from_secs_f64(self.seconds);
        let identities = server.add_users(members)?;
        let online = (members as f64 * self.online / 100.0).round() as usize;
        let (present, absent) = identities.split_at(online.max(2));
        let members = present.len();
        let task = FanOut {
            absent: absent.iter().map(|identity| identity.uin.0).collect(),
            rate: self.deliveries / (members - 1) as f64,
            seed: self.seed,
            from,
            to,
            end: to + TAIL,
            bytes: self.bytes,
        };
        let order = Order {
            server: server.address(),
            pin: server.pin(),
            sources: sources(server.address(), 0, self.sources),
            devices: divide(present, 1, 1).remove(0),
            weather: None,
            datagrams: Datagrams::Doubled,
            seed: self.seed,
            task: Task::FanOut(task.clone()),
        };
        let mut fleet = Fleet::prepare(&[order], "logged in", members)?;
        let pids = fleet.pids();
        let start = fleet.start("sent", (task.rate * task.end.as_secs_f64()) as usize)?;
        fleet.wait_until(start + from.saturating_sub(BOOKS_BEFORE))?;
        let (begin, before) = (start.elapsed(), Books::read(server, &pids)?);
        fleet.wait_until(start + to + TAIL / 2)?;
        let (end, after) = (start.elapsed(), Books::read(server, &pids)?);
        let (_, curves) = fleet.finish(PATIENCE)?;
        let messages = due_between(&task, begin, end);
        let figures = figures(&curves, &before, &after, messages, members);
        Ok(Run { figures, curves })
    }
}

fn due_between(task: &FanOut, from: Duration, to: Duration) -> f64 {
    let (mut schedule, mut count) = (task.schedule(), 0_u64);
    while schedule.due() < to {
        count += u64::from(schedule.due() >= from);
        schedule.advance();
    }
    count.max(1) as f64
}

fn figures(
    curves: &Curves,
    before: &Books,
    after: &Books,
    messages: f64,
    members: usize,
) -> Vec<Figure> {
    const GROUP: &str = "server's CPU time";
    let mut figures = Vec::new();
    for (name, latency) in curves.iter() {
        figures.extend(latency.figures(&name.replace('-', " ")));
    }
    let threads = after.threads_since(before);
    let cpu: u64 = threads.iter().map(|thread| thread.cpu_ns).sum();
    let us = cpu as f64 / 1e3 / messages;
    let seconds = after.seconds_since(before);
    figures.push(Figure::new("rate", "messages", "per s", messages / seconds));
    let deliveries = messages * (members - 1) as f64;
    figures.push(Figure::new("rate", "deliveries", "per s", deliveries / seconds));
    figures.push(Figure::new(GROUP, "per message", "µs", us));
    figures.push(Figure::new(GROUP, PER_DELIVERY, "µs", us * messages / deliveries));
    figures.push(Figure::new(GROUP, "of a core", "%", cpu as f64 / 1e7 / seconds));
    figures.extend(after.disturbance_since(before));
    figures
}
