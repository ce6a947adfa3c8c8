//! What is told: a report for each scenario and system, in the form of `tern-bench` (so that
//! `tern-bench report` draws them together), and from all of a folder the comparison ([`table`]).

mod overview;
mod table;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tern_bench::error::{BenchError, Tried};
use tern_bench::measure::machine::Machine;
use tern_bench::report::{Figure, Run, Spread, Subject, log_path};

use crate::peer::{Peer, Promise};
use crate::scenario::Scenario;

pub use table::write_table;

/// A report on one system in one scenario.
#[derive(Debug, Serialize)]
pub struct Report<'a> {
    tool: String,
    command: Vec<String>,
    started: u64,
    machine: Machine,
    subject: Subject,
    scenario: &'a Scenario,
    discarded: u32,
    /// Beyond what `tern-bench` tells: which system this is.
    peer: About,
    /// Runs that gave no figures, and why.
    failures: Vec<String>,
    runs: Vec<Run>,
}

/// A system, as a reader must know it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct About {
    /// Its name in files.
    pub name: String,
    /// Its name in tables.
    pub title: String,
    /// What its answer means.
    pub promise: Promise,
    /// How it is configured.
    pub setup: String,
}

impl About {
    /// A system.
    pub fn of(peer: &dyn Peer) -> Self {
        Self {
            name: peer.name().to_owned(),
            title: peer.title().to_owned(),
            promise: peer.promise(),
            setup: peer.setup().to_owned(),
        }
    }
}

impl<'a> Report<'a> {
    /// Without figures yet.
    pub fn new(
        scenario: &'a Scenario,
        peer: &dyn Peer,
        program: &Path,
        data: &Path,
        pinned: bool,
    ) -> Self {
        let since_1970 = |time: SystemTime| time.duration_since(UNIX_EPOCH).ok();
        let modified = program.metadata().and_then(|data| data.modified()).ok();
        let built = modified.and_then(since_1970).map_or(0, |age| age.as_secs());
        let version = peer.version(program);
        let program = program.file_name().map(PathBuf::from).unwrap_or_default();
        Self {
            tool: concat!("tern-peers ", env!("CARGO_PKG_VERSION")).to_owned(),
            command: std::env::args().collect(),
            started: since_1970(SystemTime::now()).map_or(0, |age| age.as_secs()),
            machine: Machine::read(data),
            subject: Subject { program, version, built, options: Vec::new(), pinned },
            scenario,
            discarded: 0,
            peer: About::of(peer),
            failures: Vec::new(),
            runs: Vec::new(),
        }
    }

    /// Adds what a run gave.
    pub fn push(&mut self, outcome: Result<Run, BenchError>) {
        match outcome {
            Ok(run) => self.runs.push(run),
            Err(error) => self.failures.push(error.to_string()),
        }
    }

    /// Writes all of it into a folder, and the histograms beside it.
    ///
    /// # Errors
    /// When a file can't be written.
    pub fn write(&self, folder: &Path) -> Result<(), BenchError> {
        let path = folder.join(format!("{}-{}.json", self.scenario.label(), self.peer.name));
        let text = serde_json::to_string_pretty(self).tried("a report as JSON")?;
        fs::write(&path, text + "\n").tried(format!("write {}", path.display()))?;
        for (index, run) in self.runs.iter().enumerate() {
            if !run.curves.is_empty() {
                let log = log_path(&path, index);
                fs::write(&log, run.curves.to_log()?).tried(format!("write {}", log.display()))?;
            }
        }
        Ok(())
    }
}

/// A report that was kept, as far as the comparison needs it.
#[derive(Clone, Debug, Deserialize)]
pub struct Kept {
    /// The command line.
    pub command: Vec<String>,
    /// Where.
    pub machine: Machine,
    /// What was measured.
    pub subject: Subject,
    /// How.
    pub scenario: Value,
    /// Which system.
    pub peer: About,
    /// Runs without figures.
    pub failures: Vec<String>,
    /// The figures of each run.
    pub runs: Vec<Vec<Figure>>,
}

impl Kept {
    /// All of a folder; files of other kinds are left aside.
    ///
    /// # Errors
    /// When there is none.
    pub fn all(folder: &Path) -> Result<Vec<Self>, BenchError> {
        let entries = fs::read_dir(folder).tried(format!("read {}", folder.display()))?;
        let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        files.retain(|file| file.extension().is_some_and(|ending| ending == "json"));
        files.sort();
        let texts = files.iter().filter_map(|file| fs::read_to_string(file).ok());
        let all: Vec<Self> = texts.filter_map(|text| serde_json::from_str(&text).ok()).collect();
        if all.is_empty() {
            return Err(BenchError::Usage(format!("{} holds no comparison", folder.display())));
        }
        Ok(all)
    }

    /// The scenario's name, with what tells it from others of its kind.
    pub fn label(&self) -> String {
        let text = |key: &str| self.scenario[key].as_str().unwrap_or_default().to_owned();
        match (&*text("name"), &self.scenario["rtt_ms"], &self.scenario["loss_percent"]) {
            ("loss", Value::Number(rtt), Value::Number(loss)) => {
                let loss = loss.as_f64().unwrap_or_default();
                let bursts = self.scenario["burst_ms"].as_u64();
                let bursts = bursts.map(|ms| format!(" in bursts of {ms} ms")).unwrap_or_default();
                format!("{rtt} ms, {loss} % lost each way{bursts}")
            }
            ("latency", ..) => {
                let rate = self.scenario["rate"].as_f64().unwrap_or_default();
                format!("{rate} messages/s")
            }
            (name, ..) => name.to_owned(),
        }
    }

    /// What its runs gave for a figure.
    pub fn spread(&self, group: &str, name: &str) -> Option<Spread> {
        let of = |run: &Vec<Figure>| {
            run.iter().find(|figure| figure.group == group && figure.name == name).map(|f| f.value)
        };
        Spread::of(self.runs.iter().filter_map(of).collect())
    }

    /// The sum of a figure over all runs.
    pub fn sum(&self, group: &str, name: &str) -> f64 {
        let all = self.runs.iter().flatten();
        let values = all.filter(|f| f.group == group && f.name == name).map(|figure| figure.value);
        values.fold(0.0, |sum, value| sum + value) // `sum` of none is -0
    }
}
