//! Runs the simulator: many seeds with progress and totals, or one seed with its trace.
#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};
use tern_sim::mutant::Mutant;
use tern_sim::plan::{Depth, Plan};
use tern_sim::report::{Matrix, Totals};
use tern_sim::runner::{live, live_all};
use tern_sim::shrink::shrink;
use tern_sim::{Outcome, fault};

/// The commit that this program was built from.
const COMMIT: &str = env!("TERN_SIM_COMMIT");

/// Lines of a trace that are shown around a failure unless told otherwise.
const LINES: usize = 120;

/// How often progress is shown.
const PROGRESS: Duration = Duration::from_secs(5);

/// Lives through bad days of a Tern server and its clients, and judges.
#[derive(Parser, Debug)]
#[command(name = "tern-sim", version)]
struct Arguments {
    /// How many seeds to try.
    #[arg(long, default_value_t = 100)]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// Only this seed.
    #[arg(long, conflicts_with_all = ["seeds", "from"])]
    seed: Option<u64>,
    /// With --seed: make the failure small, and print the plan of what is left.
    #[arg(long, requires = "seed", conflicts_with_all = ["trace", "mutants"])]
    shrink: bool,
    /// With --shrink: how many runs it may take.
    #[arg(long, default_value_t = 500)]
    runs: u64,
    /// With --seed: show the end of the trace, also if nothing is wrong.
    #[arg(long, requires = "seed")]
    trace: bool,
    /// How many lines of the trace to show.
    #[arg(long, default_value_t = LINES)]
    lines: usize,
    /// A plan in TOML; without it the plan of every day.
    #[arg(long)]
    plan: Option<PathBuf>,
    /// By what frames travel and what keeps them: whole frames and a simulated disk, packets
    /// between real QUIC connections (slower), or whole frames and the real storage.
    #[arg(long, value_enum)]
    depth: Option<DepthArgument>,
    /// Threads.
    #[arg(long, default_value_t = 1)]
    jobs: usize,
    /// Inject this deliberate defect.
    #[arg(long)]
    mutant: Option<String>,
    /// Inject each deliberate defect, and show how many seeds it takes to notice it.
    #[arg(long, conflicts_with_all = ["mutant", "seed"])]
    mutants: bool,
    /// Show in how many seeds each pair of faults was met.
    #[arg(long)]
    matrix: bool,
}

/// [`Depth`] on the command line.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum DepthArgument {
    /// Whole frames over a modelled transport.
    Frames,
    /// Packets between real QUIC connections.
    Quic,
    /// Whole frames, and the real storage behind the server.
    Disk,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // A panic of the machines is an outcome, and is shown as one.
    std::panic::set_hook(Box::new(|_| {}));
    match run(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(wrong) => {
            eprintln!("tern-sim: {wrong}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<bool, String> {
    let mut plan = match &arguments.plan {
        None => Plan::everyday(),
        Some(path) => {
            let text = std::fs::read_to_string(path);
            Plan::parse(&text.map_err(|error| format!("{}: {error}", path.display()))?)?
        }
    };
    if let Some(depth) = arguments.depth {
        plan.depth = match depth {
            DepthArgument::Frames => Depth::Frames,
            DepthArgument::Quic => Depth::Quic,
            DepthArgument::Disk => Depth::Disk,
        };
    }
    let mutant = match &arguments.mutant {
        None => None,
        Some(label) => Some(Mutant::by_label(label).ok_or_else(|| {
            let labels: Vec<&str> = Mutant::ALL.iter().map(|mutant| mutant.label()).collect();
            format!("no defect is called {label}; there are {}", labels.join(", "))
        })?),
    };
    if arguments.mutants {
        return Ok(try_mutants(arguments, &plan));
    }
    match arguments.seed {
        Some(seed) if arguments.shrink => Ok(try_to_shrink(arguments, &plan, seed, mutant)),
        Some(seed) => Ok(try_one(arguments, &plan, seed, mutant)),
        None => Ok(try_many(arguments, &plan, mutant)),
    }
}

fn try_one(arguments: &Arguments, plan: &Plan, seed: u64, mutant: Option<Mutant>) -> bool {
    let outcome = live(plan, seed, mutant, arguments.lines);
    if arguments.trace || outcome.violation.is_some() {
        outcome.lines.iter().for_each(|line| say(line));
    }
    say(&format!("seed {seed}: {} steps, hash {:016x}", outcome.steps, outcome.hash));
    show_violation(arguments, &outcome);
    outcome.violation.is_none()
}

/// Whether there was nothing to shrink.
fn try_to_shrink(arguments: &Arguments, plan: &Plan, seed: u64, mutant: Option<Mutant>) -> bool {
    let Some(shrunk) = shrink(plan, seed, mutant, arguments.runs) else {
        say(&format!("seed {seed} holds; there is nothing to shrink"));
        return true;
    };
    say(shrunk.to_string().trim_end());
    if let Some(violation) = &shrunk.outcome.violation {
        say(&format!("# seed {}: {}: {}", shrunk.seed, violation.check, violation.what));
    }
    let mutant = arguments.mutant.as_ref().map(|label| format!(" --mutant {label}"));
    say(&format!(
        "# commit {COMMIT}; with the lines above in small.toml: cargo run --release -p tern-sim \
         -- --plan small.toml --seed {} --trace{}",
        shrunk.seed,
        mutant.unwrap_or_default()
    ));
    false
}

fn show_violation(arguments: &Arguments, outcome: &Outcome) {
    let Some(violation) = &outcome.violation else { return };
    say(&format!("seed {}: {}: {}", outcome.seed, violation.check, violation.what));
    let plan = arguments.plan.as_ref().map(|path| format!(" --plan {}", path.display()));
    let mutant = arguments.mutant.as_ref().map(|label| format!(" --mutant {label}"));
    let depth = arguments.depth.map(|depth| match depth {
        DepthArgument::Frames => " --depth frames",
        DepthArgument::Quic => " --depth quic",
        DepthArgument::Disk => " --depth disk",
    });
    say(&format!(
        "commit {COMMIT}; replay: cargo run --release -p tern-sim -- --seed {}{}{}{} --trace (or \
         --shrink)",
        outcome.seed,
        depth.unwrap_or_default(),
        plan.unwrap_or_default(),
        mutant.unwrap_or_default()
    ));
}

fn try_many(arguments: &Arguments, plan: &Plan, mutant: Option<Mutant>) -> bool {
    let (begun, mut shown) = (Instant::now(), Instant::now());
    let mut totals = Totals::default();
    let mut failed = 0;
    live_all(plan, (arguments.from, arguments.seeds), mutant, arguments.jobs, |outcome| {
        totals.add(&outcome);
        failed += u64::from(outcome.violation.is_some());
        show_violation(arguments, &outcome);
        if shown.elapsed() >= PROGRESS {
            shown = Instant::now();
            eprintln!("{}", totals.progress(arguments.seeds, begun.elapsed()));
        }
        true
    });
    say(&totals.progress(arguments.seeds, begun.elapsed()));
    say(&totals.to_string());
    if arguments.matrix {
        say(&Matrix(&totals.pairs).to_string());
    }
    say(&format!("{failed} of {} seeds failed", totals.seeds));
    failed == 0
}

fn try_mutants(arguments: &Arguments, plan: &Plan) -> bool {
    let mut all_caught = true;
    say(&format!("{:<18} {:>6}  {:<9} what is wrong", "defect", "seeds", "check"));
    for mutant in &Mutant::at(plan.depth) {
        let (mut seeds, mut check) = (0, None);
        for seed in arguments.from..arguments.from + arguments.seeds {
            seeds += 1;
            check = live(plan, seed, Some(*mutant), 0).violation.map(|violation| violation.check);
            if check.is_some() {
                break;
            }
        }
        all_caught &= check.is_some();
        let check = check.unwrap_or("MISSED");
        say(&format!("{:<18} {seeds:>6}  {check:<9} {}", mutant.label(), mutant.sentence()));
    }
    say(&format!("kinds of faults: {}", fault::Fault::ALL.len()));
    all_caught
}

#[expect(clippy::print_stdout, reason = "a command speaks to people")]
fn say(text: &str) {
    println!("{text}");
}
