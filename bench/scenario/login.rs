//! Devices log in as fast as they can: cold, with a full handshake and a new epoch each; then
//! resumed, with TLS's ticket and the session's token. 0-RTT is not served by Tern yet.

use std::time::Duration;

use serde::Serialize;

use super::books::Books;
use super::parse_count;
use super::talking::{divide, sources};
use crate::error::BenchError;
use crate::load::Datagrams;
use crate::loader::{Fleet, LogIn, Order, Task};
use crate::report::{Figure, Run};
use crate::system::Server;

/// How long the server is left alone between the two: what closed connections leave behind is
/// gone by then.
const SETTLE: Duration = Duration::from_secs(2);

/// How long the load may take to end.
const PATIENCE: Duration = Duration::from_secs(30);

/// The command line of this scenario.
#[derive(Clone, Debug, clap::Args, Serialize)]
pub struct Login {
    /// Devices, each of a user of its own
    #[arg(long, default_value_t = 5_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    devices: u32,
    /// Logins under way at once in each process; the server asks strangers to prove their address
    /// first where there are many
    #[arg(long, default_value_t = 32, value_parser = parse_count)]
    at_once: usize,
    /// Processes of the load, the devices divided among them
    #[arg(long, default_value_t = 1, value_parser = parse_count)]
    loaders: usize,
}

impl Login {
    pub(super) fn measure(&self, server: &Server) -> Result<Run, BenchError> {
        let count = self.devices as usize;
        eprintln!("  adding {count} users");
        let mut fleet = Fleet::prepare(&self.orders(server)?, "ready", count)?;
        let pids = fleet.pids();
        let books = || Books::read(server, &pids);
        let start = books()?;
        fleet.start("logged in", count)?;
        fleet.wait_until_ready()?;
        let cold = books()?;
        fleet.start("gone", count)?;
        fleet.wait_until_ready()?;
        std::thread::sleep(SETTLE);
        let gone = books()?;
        fleet.start("resumed", count)?;
        fleet.wait_until_ready()?;
        let warm = books()?;
        fleet.start("done", count)?;
        let (done, curves) = fleet.finish(PATIENCE)?;
        let mut figures = self.figures("cold login", &start, &cold);
        figures.extend(curves.get("cold login").figures("cold login"));
        figures.extend(self.figures("resumed login", &gone, &warm));
        figures.extend(curves.get("resumed login").figures("resumed login"));
        let resumed = 100.0 * done.resumed as f64 / done.sent.max(1) as f64;
        figures.push(Figure::new("resumed login", "sessions that went on", "%", resumed));
        figures.extend(warm.disturbance_since(&start));
        Ok(Run { figures, curves })
    }

    fn orders(&self, server: &Server) -> Result<Vec<Order>, BenchError> {
        let identities = server.add_users(self.devices as usize)?;
        let orders = divide(&identities, self.loaders, 1).into_iter().enumerate();
        let orders = orders.map(|(loader, devices)| Order {
            server: server.address(),
            pin: server.pin(),
            sources: sources(server.address(), loader, 1),
            devices,
            weather: None,
            datagrams: Datagrams::Off,
            seed: loader as u64,
            task: Task::LogIn(LogIn { at_once: self.at_once }),
        });
        Ok(orders.collect())
    }

    /// What all logins between two moments took.
    fn figures(&self, group: &str, before: &Books, after: &Books) -> Vec<Figure> {
        /// Above this the load had no time left, in percent of a core.
        const LIMIT: f64 = 90.0;
        let count = f64::from(self.devices);
        let threads = after.threads_since(before);
        let each = |ns: u64| ns as f64 / 1e3 / count;
        let all: u64 = threads.iter().map(|thread| thread.cpu_ns).sum();
        let load = after.load_since(before);
        let busiest = load.iter().copied().fold(0.0, f64::max);
        if busiest > LIMIT {
            eprintln!("  {group}: the load was the limit, it used {busiest:.0} % of a core");
        }
        let load_us: f64 = load.iter().sum::<f64>() * 1e4 * after.seconds_since(before) / count;
        let mut figures = vec![
            Figure::new(group, "rate", "per s", count / after.seconds_since(before)),
            Figure::new(group, "server's CPU time", "µs", each(all)),
            Figure::new(group, "the load's CPU time", "µs", load_us),
            Figure::new(group, "busiest process of the load", "% of a core", busiest),
        ];
        figures.extend(
            threads
                .iter()
                .map(|t| Figure::new(group, format!("by {}", t.name), "µs", each(t.cpu_ns))),
        );
        figures
    }
}
