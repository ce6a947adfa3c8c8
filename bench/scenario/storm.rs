//! The server is killed under many sessions and started again on the same folder and port: how
//! long it takes until the devices can talk again. They notice by themselves and come back as the
//! SDK does; a device is back when it has got a message that it sent after its return, so that
//! log, delivery and session all work for it.

use std::time::{Duration, Instant};

use serde::Serialize;

use super::books::Books;
use super::parse_count;
use super::talking::{divide, sources};
use crate::error::BenchError;
use crate::load::Datagrams;
use crate::loader::{ComeBack, Fleet, Order, Task};
use crate::measure::process::Process;
use crate::report::{Figure, Run};
use crate::system::{Plan, Server};

/// Shares of the devices that are reported, in percent.
const SHARES: [f64; 5] = [10.0, 50.0, 90.0, 99.0, 100.0];

/// The command line of this scenario.
#[derive(Clone, Debug, clap::Args, Serialize)]
pub struct Storm {
    /// Sessions, each of a user of its own
    #[arg(long, default_value_t = 5_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    sessions: u32,
    /// How long all may take to come back
    #[arg(long, value_name = "S", default_value_t = 180.0, value_parser = super::parse_seconds)]
    patience: f64,
    /// Processes of the load, the devices divided among them
    #[arg(long, default_value_t = 1, value_parser = parse_count)]
    loaders: usize,
}

impl Storm {
    pub(super) fn run(&self, plan: &Plan) -> Result<Run, BenchError> {
        let mut server = Server::start(plan)?;
        let run = self.measure(&mut server, plan).map_err(|error| server.with_words(error))?;
        server.stop()?;
        Ok(run)
    }

    fn measure(&self, server: &mut Server, plan: &Plan) -> Result<Run, BenchError> {
        let count = self.sessions as usize;
        let patience = Duration::from_secs_f64(self.patience);
        eprintln!("  adding {count} users");
        let mut fleet = Fleet::prepare(&self.orders(server)?, "logged in and talking", 2 * count)?;
        let pids = fleet.pids();
        let killed = Instant::now();
        fleet.start("back", count)?;
        server.kill()?;
        server.start_again(plan)?;
        let ready = killed.elapsed();
        let before = Books::read(server, &pids)?;
        fleet.wait_until_ready_within(patience)?;
        let after = Books::read(server, &pids)?;
        fleet.start("done", 0)?;
        let (_, curves) = fleet.finish(patience)?;

        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        let mut figures = vec![Figure::new("time since the kill", "server ready", "ms", ms(ready))];
        for name in ["logged in again", "can talk again"] {
            let latency = curves.get(name);
            figures.extend(SHARES.map(|share| {
                let what = format!("{share:.0} % {name}");
                Figure::new("time since the kill", what, "ms", ms(latency.percentile(share)))
            }));
        }
        let threads = after.server.since(&Process::default());
        let cpu: u64 = threads.iter().map(|thread| thread.cpu_ns).sum();
        let each = cpu as f64 / 1e3 / f64::from(self.sessions);
        let group = "server's CPU time since its start";
        figures.push(Figure::new(group, "per session", "µs", each));
        let busiest = after.load_since(&before).into_iter().fold(0.0, f64::max);
        figures.push(Figure::new(group, "busiest process of the load", "% of a core", busiest));
        for name in ["logins", "resumes", "logins_refused"] {
            let value = after.status.figure(name);
            figures.extend(value.map(|v| Figure::new("counts", name, "", v as f64)));
        }
        figures.extend(after.disturbance_since(&before));
        Ok(Run { figures, curves })
    }

    fn orders(&self, server: &Server) -> Result<Vec<Order>, BenchError> {
        let identities = server.add_users(self.sessions as usize)?;
        let orders = divide(&identities, self.loaders, 1).into_iter().enumerate();
        let orders = orders.map(|(loader, devices)| Order {
            server: server.address(),
            pin: server.pin(),
            sources: sources(server.address(), loader, 1),
            devices,
            weather: None,
            datagrams: Datagrams::Off,
            seed: loader as u64,
            task: Task::ComeBack(ComeBack { patience: Duration::from_secs_f64(self.patience) }),
        });
        Ok(orders.collect())
    }
}
