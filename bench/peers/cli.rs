//! The command line, and the course of a comparison: scenarios one after the other, and within
//! each as many rounds as there are repeats, every round with all systems in turns.

use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};
use tern_bench::error::{BenchError, Tried};
use tern_bench::report::{Run, say};
use tern_bench::system::{Cores, Plan};

use crate::peer::{Certificate, Peer, Places, Site, all};
use crate::report::{Report, write_table};
use crate::scenario::Scenario;
use crate::scenario::loss::Path;
use crate::scenario::{idle, kill, latency, loss, throughput};

/// The same load on Tern and on other systems.
///
/// install.sh gets the others; what is not there is skipped and said.
#[derive(Debug, Parser)]
#[command(name = "tern-peers", version)]
struct Cli {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Measure, and write a report for each scenario and system
    Run(Box<Arguments>),
    /// Write comparison.md from the reports of a folder
    Table {
        /// The folder
        folder: PathBuf,
    },
    /// Show the systems: which are there, and how they are configured
    List {
        #[command(flatten)]
        places: Where,
    },
}

#[derive(Debug, clap::Args)]
struct Where {
    /// Tern's program [default: `tern` beside this program]
    #[arg(long, value_name = "PATH")]
    tern: Option<PathBuf>,
    /// Where install.sh put what is not the system's
    #[arg(long, value_name = "DIR", default_value = "target/peers")]
    peers: PathBuf,
}

/// What is measured.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Kind {
    Latency,
    Loss,
    Kill,
    Idle,
    Throughput,
}

#[derive(Debug, clap::Args)]
struct Arguments {
    #[command(flatten)]
    places: Where,
    /// Where reports are written
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Where each server has its folder, deleted behind it; should lie on a real disk
    /// [default: the folder of the reports]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Only these systems
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    only: Vec<String>,
    /// On bad paths, also Tern with its other carriers of messages
    #[arg(long)]
    carriers: bool,
    /// Only these scenarios
    #[arg(long, value_enum, value_delimiter = ',')]
    scenario: Vec<Kind>,
    /// Rounds; in each, all systems have their turn
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    repeat: u32,
    /// Do not put the servers on one core and the load on the others
    #[arg(long)]
    unpinned: bool,
    /// The first seed; each round has the next
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[command(flatten)]
    sizes: Sizes,
}

/// How large the scenarios are.
#[derive(Clone, Debug, clap::Args)]
struct Sizes {
    /// Bytes of content of each message
    #[arg(long, default_value_t = 100)]
    bytes: usize,
    /// Pairs of devices
    #[arg(long, default_value_t = 50)]
    pairs: usize,
    /// Messages a second: fixed rates
    #[arg(long, value_name = "PER_SECOND", value_delimiter = ',', default_value = "300,4000")]
    rates: Vec<f64>,
    /// Messages a second while a server dies
    #[arg(long, value_name = "PER_SECOND", default_value_t = 500.0)]
    kill_rate: f64,
    /// Seconds of a fixed rate
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// Seconds over each bad path
    #[arg(long, default_value_t = 60.0)]
    loss_seconds: f64,
    /// Bad paths, as MS:PERCENT: the round trip, and what is lost each way; with :MS behind it
    /// losses come in bursts of that mean length
    #[arg(long, value_name = "MS:PERCENT", value_delimiter = ',', default_value = "350:3.5,100:20", value_parser = path)]
    paths: Vec<Path>,
    /// Sessions that say nothing
    #[arg(long, default_value_t = 1_000)]
    sessions: usize,
    /// Seconds for which they are watched; each gives a sign of life in 25
    #[arg(long, default_value_t = 25.0)]
    rest_seconds: f64,
    /// The p99 of send to ack that a rate must hold, in ms
    #[arg(long, default_value_t = 20)]
    gate: u64,
    /// The first rate of the search
    #[arg(long, default_value_t = 1_000.0)]
    from: f64,
    /// Seconds of each step of the search
    #[arg(long, default_value_t = 4.0)]
    step_seconds: f64,
}

/// Messages a second of each pair over a bad path: one message in 0.7 seconds.
const LOSS_RATE_EACH: f64 = 1.0 / 0.7;

/// Seconds at full rate before a kill, and after it.
const KILL_SECONDS: (f64, f64) = (4.0, 8.0);

/// Halvings of the gap between rates: to within a sixteenth.
const HALVINGS: u32 = 4;

fn path(text: &str) -> Result<Path, String> {
    let wrong = || "write it as MS:PERCENT or MS:PERCENT:MS, for instance 350:3.5".to_owned();
    let mut parts = text.split(':');
    let rtt_ms = parts.next().and_then(|ms| ms.parse().ok()).ok_or_else(wrong)?;
    let loss = parts.next().and_then(|percent| percent.parse::<f64>().ok());
    let loss_percent = loss.filter(|loss| (0.0..100.0).contains(loss)).ok_or_else(wrong)?;
    let burst_ms = parts.next().map(|ms| ms.parse().map_err(|_| wrong())).transpose()?;
    match (parts.next(), burst_ms) {
        (Some(_), _) | (_, Some(0)) => Err(wrong()),
        _ => Ok(Path { rtt_ms, loss_percent, burst_ms }),
    }
}

/// Runs this process's command line.
///
/// # Errors
/// When there is nothing to compare.
pub fn run() -> Result<(), BenchError> {
    match Cli::parse().action {
        Action::Run(arguments) => compare(&arguments),
        Action::Table { folder } => write_table(&folder).map(|text| say(&text)),
        Action::List { places } => {
            list(&places.places()?);
            Ok(())
        }
    }
}

impl Where {
    fn places(&self) -> Result<Places, BenchError> {
        let program = std::env::current_exe().tried("this program")?;
        let beside = program.parent().expect("a program lies in a folder").to_owned();
        Ok(Places { own: self.peers.clone(), beside, tern: self.tern.clone() })
    }
}

fn list(places: &Places) {
    for peer in all() {
        let found = peer.find(places);
        let version = found.as_deref().map(|program| peer.version(program));
        let state = version.unwrap_or_else(|| "not there".to_owned());
        say(&format!("{:<14}{} ({state})\n{:14}{}\n", peer.name(), peer.title(), "", peer.setup()));
    }
}

/// A system that is there.
struct Found {
    peer: Box<dyn Peer>,
    program: PathBuf,
}

fn compare(arguments: &Arguments) -> Result<(), BenchError> {
    let found = find(arguments)?;
    std::fs::create_dir_all(&arguments.out).tried(format!("make {}", arguments.out.display()))?;
    let data = arguments.data.clone().unwrap_or_else(|| arguments.out.clone());
    let data = data.canonicalize().tried(format!("find {}", data.display()))?;
    // Once: this thread stays on the load's cores behind the first run.
    let cores = if arguments.unpinned { None } else { Some(Cores::divide()?) };
    let plan = Plan { tern: PathBuf::new(), data, options: Vec::new(), cores };
    let site = Site { plan, certificate: Certificate::new()? };
    for scenario in scenarios(arguments) {
        let found: Vec<&Found> =
            found.iter().filter(|found| is_in(&*found.peer, &scenario, arguments)).collect();
        if found.is_empty() {
            continue;
        }
        measure(&scenario, &found, &site, arguments)?;
    }
    write_table(&arguments.out).map(|text| say(&text))
}

fn find(arguments: &Arguments) -> Result<Vec<Found>, BenchError> {
    let places = arguments.places.places()?;
    let mut found = Vec::new();
    let mut known: Vec<&str> = Vec::new();
    for peer in all() {
        known.push(peer.name());
        if !arguments.only.is_empty() && !arguments.only.iter().any(|name| name == peer.name()) {
            continue;
        }
        match peer.find(&places) {
            Some(program) => found.push(Found { peer, program }),
            None => eprintln!("skipped, not there: {} (see install.sh)", peer.title()),
        }
    }
    if let Some(unknown) = arguments.only.iter().find(|name| !known.contains(&&***name)) {
        let known = known.join(", ");
        return Err(BenchError::Usage(format!("no system is called {unknown}; there are {known}")));
    }
    if found.is_empty() {
        return Err(BenchError::Usage("no system is there to be measured".to_owned()));
    }
    Ok(found)
}

/// Whether a system takes part: one that only tells carriers apart does so on bad paths, and
/// where it is asked for.
fn is_in(peer: &dyn Peer, scenario: &Scenario, arguments: &Arguments) -> bool {
    !peer.is_a_carrier()
        || arguments.only.iter().any(|name| name == peer.name())
        || (arguments.carriers && matches!(scenario, Scenario::Loss(_)))
}

/// What was asked for, in its order.
fn scenarios(arguments: &Arguments) -> Vec<Scenario> {
    let Sizes { bytes, pairs, kill_rate, seconds, .. } = arguments.sizes;
    let sizes = &arguments.sizes;
    let (before, after) = KILL_SECONDS;
    let is_asked = |kind| arguments.scenario.is_empty() || arguments.scenario.contains(&kind);
    let mut all = Vec::new();
    if is_asked(Kind::Latency) {
        all.extend(
            sizes
                .rates
                .iter()
                .map(|&rate| Scenario::Latency(latency::Latency { pairs, rate, seconds, bytes })),
        );
    }
    if is_asked(Kind::Loss) {
        all.extend(sizes.paths.iter().map(|&path| {
            let (rate_each, seconds) = (LOSS_RATE_EACH, sizes.loss_seconds);
            Scenario::Loss(loss::Loss { path, pairs, rate_each, seconds, bytes })
        }));
    }
    if is_asked(Kind::Kill) {
        all.push(Scenario::Kill(kill::Kill { pairs, rate: kill_rate, before, after, bytes }));
    }
    if is_asked(Kind::Idle) {
        let (sessions, seconds) = (sizes.sessions, sizes.rest_seconds);
        all.push(Scenario::Idle(idle::Idle { sessions, seconds }));
    }
    if is_asked(Kind::Throughput) {
        let Sizes { from, gate: gate_ms, step_seconds: seconds, .. } = *sizes;
        let halvings = HALVINGS;
        let all_of_it = throughput::Throughput { pairs, from, gate_ms, seconds, halvings, bytes };
        all.push(Scenario::Throughput(all_of_it));
    }
    all
}

/// All rounds of a scenario; reports are written after each.
fn measure(
    scenario: &Scenario,
    found: &[&Found],
    site: &Site,
    arguments: &Arguments,
) -> Result<(), BenchError> {
    let pinned = site.plan.cores.is_some();
    let new = |found: &&Found| {
        Report::new(scenario, &*found.peer, &found.program, &site.plan.data, pinned)
    };
    let mut reports: Vec<Report<'_>> = found.iter().map(new).collect();
    for round in 0..arguments.repeat {
        let label = scenario.label();
        eprintln!("{label}, round {} of {}", round + 1, arguments.repeat);
        let seed = arguments.seed + u64::from(round);
        let outcomes = round_of(scenario, found, site, seed, round as usize);
        for (report, outcome) in reports.iter_mut().zip(outcomes) {
            report.push(outcome);
            report.write(&arguments.out)?;
        }
    }
    Ok(())
}

/// One round: each system in its turn, another one first each time, or all at once.
fn round_of(
    scenario: &Scenario,
    found: &[&Found],
    site: &Site,
    seed: u64,
    round: usize,
) -> Vec<Result<Run, BenchError>> {
    let run = |found: &Found| {
        let outcome = scenario.run(&*found.peer, &found.program, site, seed);
        let how = outcome.as_ref().err().map_or_else(|| "done".to_owned(), ToString::to_string);
        eprintln!("  {}: {how}", found.peer.name());
        outcome
    };
    if scenario.is_parallel() {
        return std::thread::scope(|scope| {
            let threads: Vec<_> = found.iter().map(|found| scope.spawn(|| run(found))).collect();
            let joined = threads.into_iter().map(|thread| thread.join());
            joined.map(|outcome| outcome.expect("a run does not panic")).collect()
        });
    }
    let mut outcomes: Vec<(usize, _)> = (0..found.len())
        .map(|place| (place + round) % found.len())
        .map(|index| (index, run(found[index])))
        .collect();
    outcomes.sort_by_key(|(index, _)| *index);
    outcomes.into_iter().map(|(_, outcome)| outcome).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn paths_are_pairs() {
        let plain = Path { rtt_ms: 350, loss_percent: 3.5, burst_ms: None };
        assert_eq!(path("350:3.5"), Ok(plain));
        assert_eq!(path("350:3.5:200"), Ok(Path { burst_ms: Some(200), ..plain }));
        for wrong in ["350", "100:100", "100:5:0", "100:5:1:1", "100:5:"] {
            assert!(path(wrong).is_err(), "{wrong}");
        }
    }
}
