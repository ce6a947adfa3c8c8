//! What a session costs that says nothing but its signs of life.

use std::time::{Duration, Instant};

use serde::Serialize;
use tern_bench::error::BenchError;
use tern_bench::measure::machine::kernel_bytes;
use tern_bench::report::{Figure, Run};

use super::{check, connect, watch};
use crate::client::Load;
use crate::peer::Server;

/// Its numbers.
#[derive(Clone, Debug, Serialize)]
pub struct Idle {
    /// Sessions, one for each device.
    pub sessions: usize,
    /// Seconds for which they are watched at rest.
    pub seconds: f64,
}

/// How long all is left alone before memory is read: what handshakes needed is given back by then.
const SETTLE: Duration = Duration::from_secs(3);

/// Devices that come before memory is first read: what a server takes for its first clients is no
/// cost of a session.
const FIRST: usize = 32;

impl Idle {
    pub(super) fn run(&self, server: &dyn Server, seed: u64) -> Result<Run, BenchError> {
        let all = FIRST + self.sessions;
        let mut load = server.load(server.address(), all, seed)?;
        connect(&mut *load, FIRST)?;
        rest(&mut *load, Instant::now() + SETTLE)?;
        let (empty, kernel) = (server.process()?.memory, kernel_bytes());
        let begun = Instant::now();
        connect(&mut *load, self.sessions)?;
        let seconds = begun.elapsed().as_secs_f64();
        rest(&mut *load, Instant::now() + SETTLE)?;
        let full = server.process()?.memory;
        let kernel = kernel_bytes() as f64 - kernel as f64;
        let from = Instant::now();
        let to = from + Duration::from_secs_f64(self.seconds);
        let ((), used) = watch::during(server, from, to, || rest(&mut *load, to))?;
        let sessions = self.sessions as f64;
        let each = |name: &str, full: u64, empty: u64| {
            let bytes = (full as f64 - empty as f64) / sessions;
            Figure::new("memory", name, "bytes per session", bytes)
        };
        let kernel = kernel / sessions;
        let cpu = used.server_ns as f64 / 1e3 / used.time.as_secs_f64() / all as f64;
        let mut figures = vec![
            each("resident", full.rss, empty.rss),
            each("of it private", full.anonymous, empty.anonymous),
            Figure::new("memory", "kernel, both ends", "bytes per session", kernel),
            Figure::new("at rest", "server's CPU time", "µs per session and second", cpu),
            Figure::new("logins", "rate", "per s", sessions / seconds),
        ];
        figures.extend(used.disturbance());
        Ok(Run { figures, ..Run::default() })
    }
}

fn rest(load: &mut dyn Load, until: Instant) -> Result<(), BenchError> {
    while Instant::now() < until {
        load.turn()?;
        while let Some((device, _, event)) = load.poll_event() {
            check(device, &event)?;
        }
        load.wait(until)?;
    }
    Ok(())
}
