//! Reports that were kept: the JSON of each, and the histograms beside it.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

use super::spread::Spread;
use super::{Figure, Subject};
use crate::error::{BenchError, Tried};
use crate::measure::curves::Curves;
use crate::measure::machine::Machine;

/// A report from a file.
#[derive(Clone, Debug, Deserialize)]
pub struct Stored {
    /// Name of its file, without the ending.
    #[serde(skip)]
    pub name: String,
    /// The command line.
    pub command: Vec<String>,
    /// Where.
    pub machine: Machine,
    /// What was measured.
    pub subject: Subject,
    /// How: the scenario's name and options, of whatever version.
    pub scenario: Value,
    /// Runs that were discarded because other processes disturbed them.
    pub discarded: u32,
    /// The figures of each run.
    pub runs: Vec<Vec<Figure>>,
    /// The latencies of all runs together.
    #[serde(skip)]
    pub curves: Curves,
}

impl Stored {
    /// Reads one file and the histograms beside it.
    ///
    /// # Errors
    /// When it is no report.
    pub fn read(path: &Path) -> Result<Self, BenchError> {
        let what = || format!("read {}", path.display());
        let text = std::fs::read_to_string(path).tried(what())?;
        let mut stored: Self = serde_json::from_str(&text).tried(what())?;
        stored.name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        for index in 0..stored.runs.len() {
            if let Ok(log) = std::fs::read_to_string(log_path(path, index)) {
                stored.curves.merge(&Curves::parse(&log)?);
            }
        }
        Ok(stored)
    }

    /// The scenario's name.
    pub fn kind(&self) -> &str {
        self.scenario["name"].as_str().unwrap_or("unknown")
    }

    /// What its runs gave for a figure.
    pub fn spread(&self, group: &str, name: &str) -> Option<Spread> {
        let of = |run: &Vec<Figure>| {
            run.iter().find(|figure| figure.group == group && figure.name == name).map(|f| f.value)
        };
        Spread::of(self.runs.iter().filter_map(of).collect())
    }

    /// The figures of all runs, each once, in the order of the runs.
    pub fn figures(&self) -> Vec<&Figure> {
        let mut all: Vec<&Figure> = Vec::new();
        for figure in self.runs.iter().flatten() {
            if !all.iter().any(|known| known.group == figure.group && known.name == figure.name) {
                all.push(figure);
            }
        }
        all
    }

    /// The groups of figures, in their order.
    pub fn groups(&self) -> Vec<&str> {
        let mut groups: Vec<&str> = Vec::new();
        for figure in self.figures() {
            if !groups.contains(&figure.group.as_str()) {
                groups.push(&figure.group);
            }
        }
        groups
    }
}

/// Where the histograms of a run stand, beside the report.
pub fn log_path(report: &Path, run: usize) -> PathBuf {
    report.with_extension(format!("run-{}.hlog", run + 1))
}

/// All reports of a folder by name, or the one of a file; and the JSON files that are none.
///
/// # Errors
/// When there is no report at all.
pub fn read_all(path: &Path) -> Result<(Vec<Stored>, Vec<PathBuf>), BenchError> {
    if path.is_file() {
        return Ok((vec![Stored::read(path)?], Vec::new()));
    }
    let entries = std::fs::read_dir(path).tried(format!("read {}", path.display()))?;
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    files.retain(|file| file.extension().is_some_and(|ending| ending == "json"));
    files.sort_by_key(|file| file.with_extension("")); // the first before the second
    let (mut reports, mut others) = (Vec::new(), Vec::new());
    for file in files {
        match Stored::read(&file) {
            Ok(stored) => reports.push(stored),
            Err(_) => others.push(file),
        }
    }
    if reports.is_empty() {
        return Err(BenchError::Usage(format!("{} holds no report", path.display())));
    }
    Ok((reports, others))
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use serde_json::json;

    /// A report with these figures in each of its runs.
    pub fn stored(name: &str, scenario: Value, runs: Vec<Vec<Figure>>) -> Stored {
        let report = json!({
            "command": ["tern-bench"], "started": 0, "discarded": 0, "scenario": scenario,
            "machine": {"cpu": "c", "cores": 2, "memory_mib": 1, "kernel": "k", "file_system": "f"},
            "subject": {"program": "p", "version": "v", "built": 0, "options": [], "pinned": true},
            "runs": runs,
        });
        let mut stored: Stored = serde_json::from_value(report).expect("a report");
        stored.name = name.to_owned();
        stored
    }

    #[test]
    fn figures_of_all_runs_are_found() {
        let figure = |name: &str, value| Figure::new("a", name, "µs", value);
        let runs = vec![vec![figure("x", 1.0)], vec![figure("x", 3.0), figure("y", 5.0)]];
        let stored = stored("s", json!({"name": "latency"}), runs);
        let spread = stored.spread("a", "x").expect("it is in both");
        assert_eq!((spread.least, spread.median, spread.most), (1.0, 2.0, 3.0));
        assert_eq!(stored.figures().len(), 2);
        assert_eq!((stored.kind(), stored.groups()), ("latency", vec!["a"]));
        assert!(stored.spread("a", "z").is_none());
    }
}
