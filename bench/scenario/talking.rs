//! A talk conducted on a server: processes of the load, the books around the measured stretch, and
//! the figures of it. Several scenarios are such a talk.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use super::books::Books;
use tern_protocol::limits::SECRET_BYTES;

use crate::error::BenchError;
use crate::load::{Datagrams, Identity, Weather};
use crate::loader::{Done, Fleet, Order, Talk, Task};
use crate::measure::curves::Curves;
use crate::measure::process::Thread;
use crate::report::{Figure, Run};
use crate::system::{Server, Status};

/// How long before the measured stretch the books are read.
const BOOKS_BEFORE: Duration = Duration::from_millis(200);

/// How long the load goes on after the measured stretch; the books are read in the middle of it.
pub const TAIL: Duration = Duration::from_millis(500);

/// Time on top of its own for the load to end.
const SLACK: Duration = Duration::from_secs(30);

/// Above this share of a core the load's own thread is the limit, in percent.
const LOAD_LIMIT: f64 = 90.0;

/// Options of a server that lets every device send as much as it likes: its limit is not what is
/// measured.
pub const LIMITLESS: [(&str, &str); 2] =
    [("sends-per-second", "1000000"), ("sends-burst", "1000000")];

/// Who talks, and over what.
#[derive(Clone, Debug)]
pub struct Party {
    /// Pairs of devices, each device of a user of its own.
    pub pairs: usize,
    /// Processes that they are divided among.
    pub loaders: usize,
    /// Addresses that the devices of a process come from.
    pub sources: usize,
    /// The path's weather, if it is bad.
    pub weather: Option<Weather>,
    /// How single messages travel.
    pub datagrams: Datagrams,
}

/// A talk that is over.
pub struct Talked {
    /// All books before the measured stretch, and after it.
    pub books: (Books, Books),
    /// Messages that were due between the books.
    pub messages: u64,
    /// Messages a second that were due within the measured stretch.
    pub offered: f64,
    /// What the load saw.
    pub done: Done,
    /// Its histograms.
    pub curves: Curves,
    spins: bool,
    seconds: f64,
}

/// Addresses for the devices of one of the load's processes: loopback has millions. A server
/// elsewhere is reached from whatever address the kernel chooses.
pub fn sources(server: SocketAddr, loader: usize, count: usize) -> Vec<SocketAddr> {
    let one = |n: usize| match server.ip() {
        IpAddr::V4(ip) if ip.is_loopback() => {
            let number = u32::from(Ipv4Addr::LOCALHOST) + (loader * count + n) as u32;
            SocketAddr::from((Ipv4Addr::from(number), 0))
        }
        IpAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        IpAddr::V6(_) => SocketAddr::from((std::net::Ipv6Addr::UNSPECIFIED, 0)),
    };
    (0..count).map(one).collect()
}

impl Party {
    /// Has them talk on this server.
    ///
    /// # Errors
    /// When the server or the load did not do as they should.
    pub fn talk(&self, server: &Server, talk: &Talk) -> Result<Talked, BenchError> {
        let orders = self.orders(server, talk)?;
        let talks: Vec<&Talk> = orders.iter().filter_map(as_talk).collect();
        let mut fleet = Fleet::prepare(&orders, "logged in", 2 * self.pairs)?;
        let pids = fleet.pids();
        let all = talks.iter().map(|talk| talk.due_between(Duration::ZERO, talk.end)).sum::<u64>();
        let start = fleet.start("sent", all as usize)?;
        let since = || start.elapsed();
        fleet.wait_until(start + talk.from.saturating_sub(BOOKS_BEFORE))?;
        let (from, before) = (since(), Books::read(server, &pids)?);
        fleet.wait_until(start + talk.to + TAIL / 2)?;
        let (to, after) = (since(), Books::read(server, &pids)?);
        fleet.wait_until((start + talk.end).max(Instant::now()))?;
        let (done, curves) = fleet.finish(talk.patience + SLACK)?;
        let seconds = (talk.to - talk.from).as_secs_f64();
        let due = talks.iter().map(|own| own.due_between(talk.from, talk.to)).sum::<u64>();
        Ok(Talked {
            offered: due as f64 / seconds,
            seconds,
            messages: talks.iter().map(|talk| talk.due_between(from, to)).sum(),
            books: (before, after),
            spins: talk.spin,
            done,
            curves,
        })
    }

    /// An order for each process: its share of the pairs and of the rate.
    fn orders(&self, server: &Server, talk: &Talk) -> Result<Vec<Order>, BenchError> {
        let identities = server.add_users(2 * self.pairs)?;
        let orders = divide(&identities, self.loaders, 2).into_iter().enumerate();
        let orders = orders.map(|(loader, devices)| {
            let share = Talk {
                rate: talk.rate * devices.len() as f64 / identities.len() as f64,
                seed: talk.seed.wrapping_add(loader as u64),
                ..talk.clone()
            };
            Order {
                server: server.address(),
                pin: server.pin(),
                sources: sources(server.address(), loader, self.sources),
                devices,
                weather: self.weather,
                datagrams: self.datagrams,
                seed: share.seed,
                task: Task::Talk(share),
            }
        });
        Ok(orders.collect())
    }
}

/// Devices as an order names them.
type Devices = Vec<(u64, u32, [u8; SECRET_BYTES])>;

/// Devices divided among processes as evenly as goes, always `together` next to each other.
pub fn divide(identities: &[Identity], loaders: usize, together: usize) -> Vec<Devices> {
    let groups = identities.len() / together;
    let edge = |loader: usize| groups * loader / loaders * together;
    let share = |loader| &identities[edge(loader)..edge(loader + 1)];
    let device = |own: &Identity| (own.uin.0, own.device.0, own.secret);
    (0..loaders).map(|loader| share(loader).iter().map(device).collect()).collect()
}

fn as_talk(order: &Order) -> Option<&Talk> {
    match &order.task {
        Task::Talk(talk) => Some(talk),
        _ => None,
    }
}

impl Talked {
    /// Acks a second within the measured stretch.
    pub fn achieved(&self) -> f64 {
        self.done.acked_within as f64 / self.seconds
    }

    /// CPU time of the server per message in µs.
    pub fn cpu_us_per_message(&self) -> f64 {
        let (before, after) = &self.books;
        let ns: u64 = after.threads_since(before).iter().map(|thread| thread.cpu_ns).sum();
        ns as f64 / 1e3 / self.messages.max(1) as f64
    }

    /// Why the load was the limit, if it was: its thread had no time left, or sent so late that
    /// this is most of the tail.
    pub fn load_limit(&self) -> Option<String> {
        let (before, after) = &self.books;
        let busiest = after.load_since(before).into_iter().fold(0.0, f64::max);
        if busiest >= LOAD_LIMIT && !self.spins {
            return Some(format!("a process of the load used {busiest:.0} % of a core"));
        }
        let p99 = |name| self.curves.get(name).percentile(99.0);
        let (late, tail) = (p99("lateness of the load"), p99("send to ack"));
        (late > tail / 2).then(|| format!("the load sent {late:.1?} late at p99, of {tail:.1?}"))
    }

    /// All figures and curves.
    pub fn into_run(self) -> Run {
        let (before, after) = &self.books;
        let messages = self.messages as f64;
        let seconds = after.seconds_since(before);
        let mut figures = Vec::new();
        for (name, latency) in self.curves.iter() {
            figures.extend(latency.figures(&name.replace('-', " ")));
        }
        figures.push(Figure::new("rate", "offered", "per s", self.offered));
        figures.push(Figure::new("rate", "acked in time", "per s", self.achieved()));
        figures.extend(costs(&after.threads_since(before), messages, seconds));
        figures.extend(commits(&before.status, &after.status));
        let memory = after.server.memory;
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        figures.push(Figure::new("server's memory", "resident", "MiB", mib(memory.rss)));
        figures.push(Figure::new("server's memory", "private", "MiB", mib(memory.anonymous)));
        figures.extend(per_message(&before.status, &after.status));
        if let Some(lost) = self.done.lost {
            figures.push(Figure::new("path", "packets lost", "%", 100.0 * lost));
        }
        figures.extend(after.disturbance_since(before));
        let limit = self.load_limit();
        if let Some(why) = &limit {
            eprintln!("  the load was the limit: {why}");
        }
        let is_limit = f64::from(u8::from(limit.is_some()));
        figures.push(Figure::new("disturbance", "the load was the limit", "1: yes", is_limit));
        Run { figures, curves: self.curves }
    }
}

/// What the server's threads cost.
pub fn costs(threads: &[Thread], messages: f64, seconds: f64) -> Vec<Figure> {
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

/// Every count of the server, per message that it acked: each is appended once, however often it is
/// acked because its send came again.
pub fn per_message(before: &Status, after: &Status) -> Vec<Figure> {
    let grown = after.since(before);
    let acked = grown.get("sends_appended").map_or(0, |growth| growth.by).max(1) as f64;
    let counts = grown.iter().filter(|(_, growth)| growth.by > 0);
    counts
        .map(|(name, growth)| {
            Figure::new("counts per acked message", name, &growth.unit, growth.by as f64 / acked)
        })
        .collect()
}
