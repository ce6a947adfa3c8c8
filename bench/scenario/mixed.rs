//! A day of chat, compressed: devices come and go, write to friends who may be away, and catch up.
//! What it costs is told by the hour.

use std::time::Duration;

use serde::Serialize;

use super::books::Books;
use super::talking::{LIMITLESS, divide, sources};
use super::{parse_count, parse_seconds};
use crate::error::BenchError;
use crate::load::{CONTENT_BYTES_MIN, Datagrams};
use crate::loader::{Day, Fleet, Order, Task};
use crate::report::{Figure, Run};
use crate::system::Server;

/// Hours of a day.
const HOURS: u32 = 24;

/// How long everybody may take to have everything at the end.
const PATIENCE: Duration = Duration::from_secs(60);

/// The command line of this scenario.
#[derive(Clone, Debug, clap::Args, Serialize)]
pub struct Mixed {
    /// Users with a device each; about a third of them are there at a time
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(2..=1_000_000))]
    users: u32,
    /// Messages that each user writes on this day, on average
    #[arg(long, default_value_t = 40.0)]
    messages: f64,
    /// How long the day takes
    #[arg(long, value_name = "S", default_value_t = 120.0, value_parser = parse_seconds)]
    seconds: f64,
    /// Bytes of content of each message
    #[arg(long, default_value_t = 100)]
    bytes: usize,
    /// When the server may ack: disk or process, see its options
    #[arg(long, default_value = "disk")]
    durability: String,
    /// One seed gives one day
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Processes of the load, the users divided among them
    #[arg(long, default_value_t = 1, value_parser = parse_count)]
    loaders: usize,
}

impl Mixed {
    pub(super) fn check(&self) -> Result<(), BenchError> {
        if self.messages <= 0.0 || self.bytes < CONTENT_BYTES_MIN {
            return Err(BenchError::Usage(format!(
                "--messages: above 0; --bytes: {CONTENT_BYTES_MIN} at least"
            )));
        }
        if (self.users as usize) < 2 * self.loaders {
            return Err(BenchError::Usage("--users: two for each process of the load".to_owned()));
        }
        Ok(())
    }

    pub(super) fn server_options(&self) -> Vec<(String, String)> {
        let mut options = vec![("durability".to_owned(), self.durability.clone())];
        options.extend(LIMITLESS.map(|(name, value)| (name.to_owned(), value.to_owned())));
        options
    }

    pub(super) fn measure(&self, server: &Server) -> Result<Run, BenchError> {
        eprintln!("  adding {} users", self.users);
        let users = self.users as usize;
        let mut fleet = Fleet::prepare(&self.orders(server)?, "logged in", users)?;
        let pids = fleet.pids();
        let messages = f64::from(self.users) * self.messages;
        let before = Books::read(server, &pids)?;
        let start = fleet.start("sent", messages as usize)?;
        let mut hours = vec![Books::read(server, &pids)?];
        for hour in 1..=HOURS {
            let end = Duration::from_secs_f64(self.seconds * f64::from(hour) / f64::from(HOURS));
            fleet.wait_until(start + end)?;
            hours.push(Books::read(server, &pids)?);
        }
        let (done, curves) = fleet.finish(2 * PATIENCE)?;
        let after = Books::read(server, &[])?;
        let mut figures = vec![
            Figure::new("day", "messages", "", done.sent as f64),
            Figure::new("day", "received", "", done.received as f64),
            Figure::new("day", "sessions resumed", "", done.resumed as f64),
        ];
        for (name, latency) in curves.iter() {
            figures.extend(latency.figures(&name.replace('-', " ")));
        }
        figures.extend(cost(&before, &after, done.sent as f64));
        figures.extend(hours.windows(2).enumerate().flat_map(|(hour, pair)| by_hour(hour, pair)));
        let last = hours.last().expect("a day has hours");
        figures.extend(last.disturbance_since(&hours[0]));
        Ok(Run { figures, curves })
    }

    fn orders(&self, server: &Server) -> Result<Vec<Order>, BenchError> {
        let identities = server.add_users(self.users as usize)?;
        let orders = divide(&identities, self.loaders, 1).into_iter().enumerate();
        let orders = orders.map(|(loader, devices)| Order {
            server: server.address(),
            pin: server.pin(),
            sources: sources(server.address(), loader, 1),
            task: Task::Day(Day {
                length: Duration::from_secs_f64(self.seconds),
                messages: (devices.len() as f64 * self.messages) as u64,
                bytes: self.bytes,
                seed: self.seed.wrapping_add(loader as u64),
                patience: PATIENCE,
            }),
            devices,
            weather: None,
            datagrams: Datagrams::Doubled,
            seed: self.seed.wrapping_add(loader as u64),
        });
        Ok(orders.collect())
    }
}

/// What the day cost, logins and catching up included.
fn cost(before: &Books, after: &Books, messages: f64) -> Vec<Figure> {
    const GROUP: &str = "server's CPU time";
    let threads = after.threads_since(before);
    let us = |ns: u64| ns as f64 / 1e3 / messages.max(1.0);
    let all: u64 = threads.iter().map(|thread| thread.cpu_ns).sum();
    let mut figures = vec![Figure::new(GROUP, "per message", "µs", us(all))];
    figures.extend(
        threads.iter().map(|t| Figure::new(GROUP, format!("by {}", t.name), "µs", us(t.cpu_ns))),
    );
    figures
}

/// One hour: how busy the server was, its memory, and its sessions.
fn by_hour(hour: usize, books: &[Books]) -> [Figure; 3] {
    let (before, after) = (&books[0], &books[1]);
    let cpu: u64 = after.threads_since(before).iter().map(|thread| thread.cpu_ns).sum();
    let percent = cpu as f64 / 1e7 / after.seconds_since(before);
    let mib = after.server.memory.rss as f64 / f64::from(1 << 20);
    let sessions = after.status.figure("sessions_now").unwrap_or(0) as f64;
    let name = format!("hour {hour:02}");
    [
        Figure::new("by hour: of a core", name.clone(), "%", percent),
        Figure::new("by hour: resident", name.clone(), "MiB", mib),
        Figure::new("by hour: sessions", name, "", sessions),
    ]
}
