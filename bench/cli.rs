//! The command line, and the course of a measurement: repeats, progress, report.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand};

use crate::error::{BenchError, Tried};
use crate::measure::machine::{Machine, Usage};
use crate::report::{Report, Run, Subject, compare, say, write_files, write_page};
use crate::scenario::{OTHERS, Scenario};
use crate::system::{Cores, Plan};

/// Runs that are tried where each must be undisturbed.
const TRIES: u32 = 20;

/// How long a machine must be quiet before a run begins.
const QUIET_FOR: Duration = Duration::from_secs(3);

/// Measures a Tern server from outside: what messages and sessions take and cost.
///
/// Build the server first: cargo build --release -p tern-server
#[derive(Debug, Parser)]
#[command(name = "tern-bench", version)]
struct Cli {
    #[command(subcommand)]
    action: Action,
    #[command(flatten)]
    common: Common,
}

/// What is to be done.
#[derive(Debug, Subcommand)]
enum Action {
    #[command(flatten)]
    Measure(Scenario),
    /// Write a page with plots of all reports in a folder
    Report {
        /// The folder
        folder: PathBuf,
        /// The page [default: report.html in the folder]
        page: Option<PathBuf>,
    },
    /// Print how many times the figures of A those of B are, for files or folders of reports
    Compare {
        /// What is compared with
        a: PathBuf,
        /// What is compared
        b: PathBuf,
    },
    /// Does a part of a load; started by this program itself
    #[command(hide = true, name = crate::loader::SUBCOMMAND)]
    Load,
    /// Does what a server does at least; started by this program itself
    #[command(hide = true, name = crate::floor::SUBCOMMAND)]
    Floor,
}

/// What all scenarios share.
#[derive(Debug, clap::Args)]
struct Common {
    /// The server's program [default: `tern` beside this program]
    #[arg(long, global = true, value_name = "PATH")]
    tern: Option<PathBuf>,
    /// Where each run makes its data folder, and deletes it; should lie on a real disk
    /// [default: the folder above this program's]
    #[arg(long, global = true, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Put the server on core 0 and the load on the others
    #[arg(long, global = true)]
    pin: bool,
    /// An option of `tern serve`, for instance workers=2; may be given several times
    #[arg(long = "set", global = true, value_name = "OPTION=VALUE", value_parser = parse_option)]
    options: Vec<(String, String)>,
    /// How often to run, each time with a fresh server
    #[arg(long, global = true, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100))]
    repeat: u32,
    /// Wait before each run until other processes use less than this share of all cores, and
    /// discard and repeat a run in which they used more
    #[arg(long, global = true, value_name = "PERCENT")]
    quiet: Option<f64>,
    /// Also write everything to this file, as JSON, and the histograms beside it
    #[arg(long, global = true, value_name = "FILE")]
    json: Option<PathBuf>,
    /// The same into this folder, under a name of its own
    #[arg(long, global = true, value_name = "DIR", conflicts_with = "json")]
    out: Option<PathBuf>,
    /// The name in the folder [default: the scenario's, with a number if it is taken]
    #[arg(long, global = true, requires = "out")]
    name: Option<String>,
}

fn parse_option(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write it as option=value")?;
    Ok((name.trim_start_matches("--").to_owned(), value.to_owned()))
}

/// Runs this process's command line.
///
/// # Errors
/// When no figures could be had.
pub fn run() -> Result<(), BenchError> {
    let Cli { action, common } = Cli::parse();
    match action {
        Action::Measure(scenario) => measure(&scenario, &common),
        Action::Report { folder, page } => {
            write_page(&folder, &page.unwrap_or_else(|| folder.join("report.html")))
        }
        Action::Load => crate::loader::serve(),
        Action::Floor => crate::floor::serve(),
        Action::Compare { a, b } => compare(&a, &b).map(|text| say(&text)),
    }
}

fn measure(scenario: &Scenario, common: &Common) -> Result<(), BenchError> {
    scenario.check()?;
    let plan = plan(scenario, common)?;
    let subject = match scenario.elsewhere() {
        Some(folder) => Subject::elsewhere(folder),
        None => Subject::of(&plan)?,
    };
    let file = file(scenario, common)?;
    let mut report = Report::new(Machine::read(&plan.data), subject, scenario);
    report.print_head();
    for number in 1..=common.repeat {
        eprintln!("run {number} of {}", common.repeat);
        let run = match common.quiet {
            Some(percent) => run_in_quiet(scenario, &plan, percent, &mut report)?,
            None => scenario.run(&plan)?,
        };
        report.push(run);
        if let Some(path) = &file {
            write_files(path, &report)?; // after each run: the next one may fail
        }
    }
    report.print_table();
    Ok(())
}

/// Where everything is written, if it is.
fn file(scenario: &Scenario, common: &Common) -> Result<Option<PathBuf>, BenchError> {
    let Some(folder) = &common.out else { return Ok(common.json.clone()) };
    std::fs::create_dir_all(folder).tried(format!("make {}", folder.display()))?;
    let in_folder = |name: &str| folder.join(format!("{name}.json"));
    if let Some(name) = &common.name {
        return Ok(Some(in_folder(name)));
    }
    let kind = scenario.name();
    let numbered = (2..).map(|number| in_folder(&format!("{kind}-{number}")));
    let mut names = std::iter::once(in_folder(kind)).chain(numbered);
    Ok(names.find(|path| !path.exists()))
}

/// Runs until nobody disturbs it; what is discarded is counted, so that it can be told.
fn run_in_quiet(
    scenario: &Scenario,
    plan: &Plan,
    percent: f64,
    report: &mut Report,
) -> Result<Run, BenchError> {
    for _ in 0..TRIES {
        wait_for_quiet(percent);
        let run = scenario.run(plan)?;
        let others = run.figures.iter().filter(|figure| figure.name == OTHERS);
        let disturbance = others.map(|figure| figure.value).fold(0.0, f64::max);
        if disturbance <= percent {
            return Ok(run);
        }
        eprintln!("  discarded: other processes used {disturbance:.1} % of all cores");
        report.discarded += 1;
    }
    Err(BenchError::Load(format!("the machine was not quiet in {TRIES} runs")))
}

fn wait_for_quiet(percent: f64) {
    loop {
        let before = Usage::read();
        std::thread::sleep(QUIET_FOR);
        let (others, _) = Usage::read().others_since(&before, 0);
        if others <= percent {
            return;
        }
        eprintln!("  waiting: other processes use {others:.1} % of all cores");
    }
}

fn plan(scenario: &Scenario, common: &Common) -> Result<Plan, BenchError> {
    let beside = std::env::current_exe().ok();
    let beside = beside.as_deref().and_then(|own| own.parent());
    if let Some(folder) = scenario.elsewhere() {
        if common.pin || common.tern.is_some() || !common.options.is_empty() {
            let reason = "a server that runs already is what and where it is: leave out --tern, \
                          --set and --pin";
            return Err(BenchError::Usage(reason.to_owned()));
        }
        let (tern, data) = (PathBuf::new(), folder.to_owned());
        return Ok(Plan { tern, data, options: Vec::new(), cores: None });
    }
    let tern = common.tern.clone().or_else(|| Some(beside?.join("tern")));
    let tern = tern.filter(|tern| tern.is_file()).ok_or_else(|| {
        BenchError::Usage(
            "there is no server program; build it by `cargo build --release -p tern-server`, or \
             name it with --tern"
                .to_owned(),
        )
    })?;
    let data = common.data.clone().or_else(|| Some(beside?.parent()?.to_owned()));
    let data = data.ok_or_else(|| BenchError::Usage("name a folder with --data".to_owned()))?;
    let mut options = scenario.server_options();
    options.extend(common.options.iter().cloned());
    let cores = if common.pin { Some(Cores::divide()?) } else { None };
    Ok(Plan { tern, data, options, cores })
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
    fn options_of_the_server_are_pairs() {
        assert_eq!(parse_option("workers=2"), Ok(("workers".to_owned(), "2".to_owned())));
        assert_eq!(parse_option("--name=a=b"), Ok(("name".to_owned(), "a=b".to_owned())));
        assert!(parse_option("workers").is_err());
    }
}
