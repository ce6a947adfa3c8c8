//! The highest rate of durable messages that holds a gate on the tail: found by doubling until it
//! does not hold, then by halving the gap. Each step has a fresh server, so that what one left
//! behind costs no other.

use std::time::Duration;

use serde::Serialize;

use super::latency::Latency;
use super::talking::Talked;
use super::{on_fresh_server, parse_count, parse_seconds};
use crate::error::BenchError;
use crate::load::Arrivals;
use crate::loader::Talk;
use crate::report::{Figure, Run};
use crate::system::Plan;

/// Share of the offered messages that must be acked within the measured stretch: some of its last
/// ones are always acked behind it.
const ACHIEVED_LEAST: f64 = 0.98;

/// Most steps of a search: doubling from 100 to a million takes 14, the rest halves the gap.
const STEPS_MAX: u32 = 24;

/// How long answers may take after the last message of a step.
const PATIENCE: Duration = Duration::from_secs(10);

/// The command line of this scenario.
#[derive(Clone, Debug, clap::Args, Serialize)]
pub struct Throughput {
    /// Messages a second of the first step
    #[arg(long, default_value_t = 2_000.0)]
    from: f64,
    /// Longest p99 of send to ack, in ms
    #[arg(long, value_name = "MS", default_value_t = 20.0)]
    gate: f64,
    /// How near the highest rate that holds and the lowest that does not must be, in percent
    #[arg(long, value_name = "PERCENT", default_value_t = 5.0)]
    within: f64,
    /// How long to measure each step
    #[arg(long, value_name = "S", default_value_t = 8.0, value_parser = parse_seconds)]
    seconds: f64,
    /// How long to send before that
    #[arg(long, value_name = "S", default_value_t = 3.0, value_parser = parse_seconds)]
    warmup: f64,
    /// Pairs of devices, each device of a user of its own
    #[arg(long, default_value_t = 64)]
    pairs: usize,
    /// Bytes of content of each message
    #[arg(long, default_value_t = 100)]
    bytes: usize,
    /// When the server may ack: disk or process, see its options
    #[arg(long, default_value = "disk")]
    durability: String,
    /// One seed gives one schedule
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Processes of the load, the pairs divided among them
    #[arg(long, default_value_t = 1, value_parser = parse_count)]
    loaders: usize,
    /// Addresses that the devices of each process come from
    #[arg(long, default_value_t = 4, value_parser = parse_count)]
    sources: usize,
}

/// What a step was like.
struct Step {
    rate: f64,
    achieved: f64,
    p99: Duration,
    /// Why it did not hold, if it did not.
    fault: Option<String>,
    talked: Option<Talked>,
}

impl Throughput {
    pub(super) fn check(&self) -> Result<(), BenchError> {
        if self.gate <= 0.0 || !(1.0..=50.0).contains(&self.within) {
            return Err(BenchError::Usage("--gate: above 0; --within: 1 to 50".to_owned()));
        }
        self.at(self.from).check()
    }

    pub(super) fn server_options(&self) -> Vec<(String, String)> {
        self.at(self.from).server_options()
    }

    pub(super) fn run(&self, plan: &Plan) -> Result<Run, BenchError> {
        let (mut held, mut failed): (Option<Step>, Option<f64>) = (None, None);
        let mut steps = Vec::new();
        let mut last = String::new();
        for _ in 0..STEPS_MAX {
            let best = held.as_ref().map_or(0.0, |step| step.rate);
            let rate = match failed {
                None => (2.0 * best).max(self.from),
                Some(over) if over <= best * (1.0 + self.within / 100.0) => break,
                Some(over) => f64::midpoint(best, over),
            };
            let step = self.step(plan, rate)?;
            if step.talked.is_some() {
                steps.push((rate, step.achieved, step.p99));
            }
            match &step.fault {
                None => held = Some(step),
                Some(fault) => {
                    failed = Some(rate);
                    last.clone_from(fault);
                }
            }
        }
        let held = held.filter(|step| step.rate > 0.0).ok_or_else(|| {
            BenchError::Load(format!("no rate held the gate; begin lower with --from ({last})"))
        })?;
        eprintln!("  {:.0}/s held; above it: {last}", held.rate);
        Ok(self.told(held, points(&steps)))
    }

    /// One rate on a server of its own.
    fn step(&self, plan: &Plan, rate: f64) -> Result<Step, BenchError> {
        let at = self.at(rate);
        let talk = Talk { patience: PATIENCE, may_fall_behind: true, ..at.talk() };
        let talked = on_fresh_server(plan, |server| at.party().talk(server, &talk));
        let step = match talked {
            Ok(talked) => self.judge(rate, talked),
            // A refusal for want of room is an answer to the question.
            Err(BenchError::Load(why)) => {
                let p99 = Duration::ZERO;
                Step { rate, achieved: 0.0, p99, fault: Some(why), talked: None }
            }
            Err(other) => return Err(other),
        };
        let told = step.fault.as_deref().unwrap_or("held");
        eprintln!("  {rate:.0}/s: {:.0}/s acked, p99 {:.1?}: {told}", step.achieved, step.p99);
        Ok(step)
    }

    fn judge(&self, rate: f64, talked: Talked) -> Step {
        let achieved = talked.achieved();
        let p99 = talked.curves.get("send to ack").percentile(99.0);
        let gate = Duration::from_secs_f64(self.gate / 1e3);
        let fault = if achieved < ACHIEVED_LEAST * talked.offered {
            Some("fewer were acked in time than were due".to_owned())
        } else if p99 > gate {
            Some(format!("p99 is above {gate:.1?}"))
        } else {
            None
        };
        let limit = talked.load_limit().filter(|_| fault.is_some());
        let fault = fault.map(|fault| match limit {
            Some(limit) => format!("{fault}; THE LOAD WAS THE LIMIT: {limit}"),
            None => fault,
        });
        Step { rate, achieved, p99, fault, talked: Some(talked) }
    }

    fn told(&self, held: Step, steps: Vec<Figure>) -> Run {
        let cpu = held.talked.as_ref().map_or(0.0, Talked::cpu_us_per_message);
        let mut run = held.talked.map(Talked::into_run).unwrap_or_default();
        let mut figures = vec![
            Figure::new("throughput", "highest rate that held", "messages per s", held.achieved),
            Figure::new("throughput", "its p99 of send to ack", "ms", held.p99.as_secs_f64() * 1e3),
            Figure::new("throughput", "gate", "ms", self.gate),
            Figure::new("throughput", "server's CPU time per message", "µs", cpu),
        ];
        figures.append(&mut run.figures);
        figures.extend(steps);
        Run { figures, ..run }
    }

    fn at(&self, rate: f64) -> Latency {
        Latency {
            rate,
            seconds: self.seconds,
            warmup: self.warmup,
            pairs: self.pairs,
            bytes: self.bytes,
            durability: self.durability.clone(),
            arrivals: Arrivals::Poisson,
            seed: self.seed,
            spin: false,
            loaders: self.loaders,
            sources: self.sources,
        }
    }
}

/// The points of both plots: what was achieved, and how long the tail was, at each rate.
fn points(steps: &[(f64, f64, Duration)]) -> Vec<Figure> {
    let name = |rate: f64| format!("{rate:.0}");
    let achieved = steps.iter().map(|(rate, achieved, _)| {
        Figure::new("achieved at the offered rate", name(*rate), "per s", *achieved)
    });
    let tails = steps.iter().map(|(rate, _, p99)| {
        let us = p99.as_secs_f64() * 1e6;
        Figure::new("p99 of send to ack at the offered rate", name(*rate), "µs", us)
    });
    achieved.chain(tails).collect()
}
