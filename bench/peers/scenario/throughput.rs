//! The highest rate that holds a gate on the tail: steps of [`Latency`], each on a fresh server;
//! the rate doubles until a step does not hold, then the gap is halved.

use std::path::Path;
use std::time::Duration;

use serde::Serialize;
use tern_bench::error::BenchError;
use tern_bench::report::{Figure, Run};

use super::latency::Latency;
use crate::peer::{Peer, Site};

/// Its numbers.
#[derive(Clone, Debug, Serialize)]
pub struct Throughput {
    /// Pairs of devices.
    pub pairs: usize,
    /// The first rate.
    pub from: f64,
    /// The p99 of send to ack that a step must hold, in ms.
    pub gate_ms: u64,
    /// Seconds of each step.
    pub seconds: f64,
    /// Halvings of the gap.
    pub halvings: u32,
    /// Bytes of content.
    pub bytes: usize,
}

/// Share of what was due in a step that must be acked within it.
const SHARE: f64 = 0.98;

/// No step goes above this rate; the load could not follow.
const RATE_MAX: f64 = 200_000.0;

/// How busy the load's thread may be, in percent of a core, before it counts as what held a step
/// back.
const LOAD_BUSY: f64 = 90.0;

/// How long answers may take after a step: what comes later does not hold the gate anyhow.
const PATIENCE: Duration = Duration::from_secs(1);

/// What a step showed.
struct Step {
    holds: bool,
    acked: f64,
    p99: Duration,
    cpu_us: f64,
    load: f64,
}

impl Throughput {
    pub(super) fn run(
        &self,
        peer: &dyn Peer,
        program: &Path,
        site: &Site,
        seed: u64,
    ) -> Result<Run, BenchError> {
        let mut held: Option<(f64, Step)> = None;
        let mut failed: Option<(f64, Step)> = None;
        let mut halvings = 0;
        while halvings < self.halvings {
            let low = held.as_ref().map(|(rate, _)| *rate);
            let high = failed.as_ref().map(|(rate, _)| *rate);
            let rate = match (low, high) {
                (None, None) => self.from,
                (Some(low), None) if 2.0 * low > RATE_MAX => break,
                (Some(low), None) => 2.0 * low,
                (low, Some(high)) => {
                    halvings += 1;
                    f64::midpoint(low.unwrap_or(0.0), high)
                }
            };
            let step = self.step(rate, peer, program, site, seed)?;
            let place = if step.holds { &mut held } else { &mut failed };
            *place = Some((rate, step));
        }
        let mut figures = Vec::new();
        let mut tell = |name: &str, unit, value| {
            figures.push(Figure::new("at the gate", name, unit, value));
        };
        let (rate, best) = held.map_or((0.0, None), |(rate, step)| (rate, Some(step)));
        tell("highest rate that held", "per s", rate);
        if let Some(step) = best {
            tell("acked", "per s", step.acked);
            tell("p99 send to ack", "ms", step.p99.as_secs_f64() * 1e3);
            tell("server's CPU time", "µs per message", step.cpu_us);
        }
        if let Some((rate, step)) = failed {
            tell("lowest rate that did not", "per s", rate);
            tell("p99 there", "ms", step.p99.as_secs_f64() * 1e3);
            tell("the load there", "% of a core", step.load);
            tell("the load was the limit", "", f64::from(u8::from(step.load > LOAD_BUSY)));
        }
        Ok(Run { figures, ..Run::default() })
    }

    fn step(
        &self,
        rate: f64,
        peer: &dyn Peer,
        program: &Path,
        site: &Site,
        seed: u64,
    ) -> Result<Step, BenchError> {
        let Self { pairs, seconds, bytes, .. } = *self;
        let server = peer.start(program, site)?;
        let latency = Latency { pairs, rate, seconds, bytes };
        let (talked, used) = latency.measure(&*server, seed, PATIENCE)?;
        let acked = talked.acked_within as f64 / seconds;
        let p99 = talked.to_ack.percentile(99.0);
        // Of what was due by the schedule, which spreads around the rate by chance.
        let due = talked.lateness.count() as f64;
        let follows = talked.acked_within as f64 >= SHARE * due;
        let holds = p99 <= Duration::from_millis(self.gate_ms) && follows;
        eprintln!("    {rate:.0}/s: p99 {p99:.1?}, {acked:.0}/s acked, holds: {holds}");
        Ok(Step {
            holds,
            acked,
            p99,
            cpu_us: used.server_ns as f64 / 1e3 / talked.received_within.max(1) as f64,
            load: 100.0 * used.load_ns as f64 / used.time.as_nanos() as f64,
        })
    }
}
