//! What is told: figures in a table for people, all of it as JSON and histograms for machines
//! ([`stored`] reads them back), and from these a page with plots ([`page`]) and a comparison
//! ([`mod@compare`]).

mod spread;
mod table;

mod stored;

mod compare;
mod page;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::error::{BenchError, Tried};
use crate::measure::curves::Curves;
use crate::measure::machine::Machine;
use crate::scenario::Scenario;
use crate::system::Plan;

pub use compare::compare;
pub use page::write_page;
pub use spread::{Spread, shown};
pub use stored::log_path;

/// One number that was measured.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Figure {
    /// What it belongs to.
    pub group: String,
    /// What it is.
    pub name: String,
    /// Its unit; empty for a plain number.
    pub unit: String,
    /// The number.
    pub value: f64,
}

impl Figure {
    /// A figure.
    pub fn new(group: &str, name: impl Into<String>, unit: &str, value: f64) -> Self {
        Self { group: group.to_owned(), name: name.into(), unit: unit.to_owned(), value }
    }
}

/// What one run gave.
#[derive(Clone, Default, Debug, Serialize)]
#[serde(transparent)]
pub struct Run {
    /// Its numbers.
    pub figures: Vec<Figure>,
    /// Its latencies in full; kept in a file of their own.
    #[serde(skip)]
    pub curves: Curves,
}

/// What was measured: which program, with which options.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Subject {
    /// The program.
    pub program: PathBuf,
    /// What it says of its version.
    pub version: String,
    /// When it was built, in seconds since 1970 UTC.
    pub built: u64,
    /// Options that were set.
    pub options: Vec<(String, String)>,
    /// Whether it was bound to core 0 and the load to the others.
    pub pinned: bool,
}

impl Subject {
    /// Asks the program of this plan.
    ///
    /// # Errors
    /// When it does not run.
    pub fn of(plan: &Plan) -> Result<Self, BenchError> {
        let program = plan.tern.canonicalize().unwrap_or_else(|_| plan.tern.clone());
        let said = std::process::Command::new(&program).arg("--version").output();
        let said = said.tried(format!("{} --version", program.display()))?;
        let modified = program.metadata().and_then(|data| data.modified());
        Ok(Self {
            version: String::from_utf8_lossy(&said.stdout).trim().to_owned(),
            built: modified.map_or(0, seconds_since_1970),
            options: plan.options.clone(),
            pinned: plan.cores.is_some(),
            program,
        })
    }

    /// A server that runs already, known by this folder: its own, or that of its profiles.
    pub fn elsewhere(folder: &Path) -> Self {
        Self {
            version: "one that runs already".to_owned(),
            built: 0,
            options: Vec::new(),
            pinned: false,
            program: folder.to_owned(),
        }
    }
}

fn seconds_since_1970(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |age| age.as_secs())
}

/// A measurement with everything needed to judge and repeat it.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// This tool.
    pub tool: String,
    /// Its command line.
    pub command: Vec<String>,
    /// When it started, in seconds since 1970 UTC.
    pub started: u64,
    /// Where.
    pub machine: Machine,
    /// What was measured.
    pub subject: Subject,
    /// How.
    pub scenario: Scenario,
    /// Runs that were discarded because other processes disturbed them.
    pub discarded: u32,
    /// Each run.
    pub runs: Vec<Run>,
}

impl Report {
    /// Without figures yet.
    pub fn new(machine: Machine, subject: Subject, scenario: &Scenario) -> Self {
        Self {
            tool: concat!("tern-bench ", env!("CARGO_PKG_VERSION")).to_owned(),
            command: std::env::args().collect(),
            started: seconds_since_1970(SystemTime::now()),
            machine,
            subject,
            scenario: scenario.clone(),
            discarded: 0,
            runs: Vec::new(),
        }
    }

    /// Adds a run.
    pub fn push(&mut self, run: Run) {
        self.runs.push(run);
    }

    /// Prints what was asked, of what, and where.
    pub fn print_head(&self) {
        let Machine { cpu, cores, memory_mib, kernel, file_system } = &self.machine;
        let Subject { version, program, built, options, pinned, .. } = &self.subject;
        let options: Vec<String> =
            options.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let built = match built {
            0 => String::new(), // not known
            built => format!(", built {} min before", self.started.saturating_sub(*built) / 60),
        };
        let place = if *pinned { "server on core 0, load on the others" } else { "not pinned" };
        say(&format!(
            "command   {}\n\
             machine   {cpu}, {cores} cores, {memory_mib} MiB, Linux {kernel}, {file_system}\n\
             server    {version}, {}{built}\n\
             options   {}\n\
             placement {place}\n",
            self.command.join(" "),
            program.display(),
            options.join(" "),
        ));
    }

    /// Prints the figures: a row each, a column per run, and the median if there are several.
    pub fn print_table(&self) {
        let runs: Vec<&[Figure]> = self.runs.iter().map(|run| &run.figures[..]).collect();
        say(&table::render(&runs));
        if self.discarded > 0 {
            say(&format!("\n{} disturbed runs were discarded\n", self.discarded));
        }
    }
}

/// Writes the whole report, and beside it the histograms of each run as `NAME.run-N.hlog`.
///
/// # Errors
/// When a file can't be written.
pub fn write_files(path: &Path, report: &Report) -> Result<(), BenchError> {
    let mut text = serde_json::to_string_pretty(report).tried("the report as JSON")?;
    text.push('\n');
    std::fs::write(path, text).tried(format!("write {}", path.display()))?;
    for (index, run) in report.runs.iter().enumerate() {
        if !run.curves.is_empty() {
            let log = stored::log_path(path, index);
            let text = run.curves.to_log()?;
            std::fs::write(&log, text).tried(format!("write {}", log.display()))?;
        }
    }
    Ok(())
}

/// To standard output; if nobody listens any more, the figures are lost and that is what was
/// wanted.
pub fn say(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}
