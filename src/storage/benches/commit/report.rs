//! What the rounds say together: a table for people, and all of them as JSON.

use std::fmt::Write;

use serde_json::{Value, json};

use crate::BATCHES;
use crate::machine::Machine;
use crate::options::Options;
use crate::place::Prepared;
use crate::way::{Appends, Commits, RECORD_BYTES, Way};

/// Times in ns by which a round is described.
#[derive(Clone, Copy)]
struct Spread {
    count: usize,
    p50: u64,
    p99: u64,
    p999: u64,
    max: u64,
}

impl Spread {
    fn new(mut times: Vec<u64>) -> Self {
        times.sort_unstable();
        let at = |share: f64| {
            let index = (times.len() as f64 * share) as usize;
            times.get(index.min(times.len().saturating_sub(1))).copied().unwrap_or(0)
        };
        Self { count: times.len(), p50: at(0.5), p99: at(0.99), p999: at(0.999), max: at(1.0) }
    }

    fn json(&self) -> Value {
        let Self { count, p50, p99, p999, max } = self;
        json!({"count": count, "p50_ns": p50, "p99_ns": p99, "p999_ns": p999, "max_ns": max})
    }
}

/// One cell of one round: commits.
pub(crate) struct CommitRound {
    way: Way,
    prepared: Prepared,
    records: usize,
    round: u64,
    times: Spread,
    records_per_s: f64,
}

impl CommitRound {
    pub(crate) fn new(
        way: Way,
        prepared: Prepared,
        records: usize,
        round: u64,
        commits: Commits,
    ) -> Self {
        let Commits { commits_ns, records_per_s } = commits;
        Self { way, prepared, records, round, times: Spread::new(commits_ns), records_per_s }
    }
}

/// One cell of one round: appends beside syncs.
pub(crate) struct AppendRound {
    way: Way,
    prepared: Prepared,
    records: usize,
    round: u64,
    times: Spread,
    preempted: u64,
    syncs: Spread,
}

impl AppendRound {
    pub(crate) fn new(
        way: Way,
        prepared: Prepared,
        records: usize,
        round: u64,
        appends: Appends,
    ) -> Self {
        let Appends { appends_ns, preempted, syncs_ns } = appends;
        let (times, syncs) = (Spread::new(appends_ns), Spread::new(syncs_ns));
        Self { way, prepared, records, round, times, preempted, syncs }
    }
}

/// All that was measured.
pub(crate) struct Report {
    machine: Machine,
    rounds: u64,
    seconds: u64,
    file_bytes: usize,
    ways: Vec<Way>,
    pub(crate) commits: Vec<CommitRound>,
    pub(crate) appends: Vec<AppendRound>,
}

impl Report {
    pub(crate) fn new(machine: Machine, options: &Options, ways: &[Way]) -> Self {
        let (rounds, seconds) = (options.rounds, options.time.as_secs());
        let (file_bytes, ways) = (options.file_bytes, ways.to_vec());
        let (commits, appends) = (Vec::new(), Vec::new());
        Self { machine, rounds, seconds, file_bytes, ways, commits, appends }
    }

    /// Tables in Markdown: medians over the rounds, `max` over all of them.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        if !self.commits.is_empty() {
            self.commit_table(&mut text);
        }
        if !self.appends.is_empty() {
            self.append_table(&mut text);
        }
        text
    }

    fn commit_table(&self, text: &mut String) {
        let _ = write!(
            text,
            "\nCommit of a batch of {RECORD_BYTES}-byte records, µs: median of {} rounds (lowest \
             and highest round), and the slowest of all\n\n\
             | records | room | way | p50 | p99 | max | records/s |\n\
             |---:|---|---|---:|---:|---:|---:|\n",
            self.rounds
        );
        for (records, prepared, way) in cells(&self.ways) {
            self.commit_row(text, records, prepared, way);
        }
    }

    fn append_table(&self, text: &mut String) {
        let _ = write!(
            text,
            "\nOne append while another thread syncs at least so many records, µs: median of {} \
             rounds (lowest and highest round)\n\n\
             | records | room | way | p50 | p99 | p99.9 | worst stall | syncs | sync p50 | \
             preempted |\n|---:|---|---|---:|---:|---:|---:|---:|---:|---:|\n",
            self.rounds
        );
        for (records, prepared, way) in cells(&self.ways) {
            self.append_row(text, records, prepared, way);
        }
    }

    fn commit_row(&self, text: &mut String, records: usize, prepared: Prepared, way: Way) {
        let rounds: Vec<_> = self
            .commits
            .iter()
            .filter(|r| (r.records, r.prepared, r.way) == (records, prepared, way))
            .collect();
        let of = |pick: fn(&Spread) -> u64| -> Vec<u64> {
            rounds.iter().map(|round| pick(&round.times)).collect()
        };
        let rates = rounds.iter().map(|round| round.records_per_s as u64).collect();
        let _ = writeln!(
            text,
            "| {records} | {} | {} | {} | {} | {} | {} |",
            prepared.name(),
            way.name(),
            with_range(of(|times| times.p50)),
            with_range(of(|times| times.p99)),
            us(of(|times| times.max).into_iter().max().unwrap_or(0)),
            median(rates)
        );
    }

    fn append_row(&self, text: &mut String, records: usize, prepared: Prepared, way: Way) {
        let rounds: Vec<_> = self
            .appends
            .iter()
            .filter(|r| (r.records, r.prepared, r.way) == (records, prepared, way))
            .collect();
        let of = |pick: fn(&Spread) -> u64| -> Vec<u64> {
            rounds.iter().map(|round| pick(&round.times)).collect()
        };
        let _ = writeln!(
            text,
            "| {records} | {} | {} | {} | {} | {} | {} | {} | {} | {} |",
            prepared.name(),
            way.name(),
            us(median(of(|times| times.p50))),
            us(median(of(|times| times.p99))),
            us(median(of(|times| times.p999))),
            with_range(of(|times| times.max)),
            median(rounds.iter().map(|round| round.syncs.count as u64).collect()),
            us(median(rounds.iter().map(|round| round.syncs.p50).collect())),
            rounds.iter().map(|round| round.preempted).sum::<u64>()
        );
    }

    /// Every round, in the order in which it was measured.
    pub(crate) fn json(&self) -> String {
        let Machine { cpu, cores, kernel, file_system, load, .. } = &self.machine;
        let commits = self.commits.iter().map(|round| {
            json!({
                "round": round.round, "records": round.records, "way": round.way.name(),
                "room": round.prepared.name(), "commit": round.times.json(),
                "records_per_s": round.records_per_s.round(),
            })
        });
        let appends = self.appends.iter().map(|round| {
            json!({
                "round": round.round, "least_records": round.records, "way": round.way.name(),
                "room": round.prepared.name(),
                "append": round.times.json(), "preempted": round.preempted, "sync": round.syncs.json(),
            })
        });
        let all = json!({
            "machine": {"cpu": cpu, "cores": cores, "kernel": kernel, "file_system": file_system,
                        "load_before": load},
            "settings": {"rounds": self.rounds, "seconds": self.seconds,
                         "file_bytes": self.file_bytes, "record_bytes": RECORD_BYTES},
            "commits": commits.collect::<Vec<_>>(),
            "appends": appends.collect::<Vec<_>>(),
        });
        let mut text = serde_json::to_string_pretty(&all).expect("plain values have a text");
        text.push('\n');
        text
    }
}

/// Every batch, room and way, in the order of the tables.
pub(crate) fn cells(ways: &[Way]) -> impl Iterator<Item = (usize, Prepared, Way)> {
    BATCHES.into_iter().flat_map(move |records| {
        Prepared::ALL
            .into_iter()
            .flat_map(move |prepared| ways.iter().map(move |way| (records, prepared, *way)))
    })
}

fn median(mut values: Vec<u64>) -> u64 {
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or(0)
}

fn us(ns: u64) -> String {
    let us = ns as f64 / 1e3;
    if us < 10.0 { format!("{us:.2}") } else { format!("{us:.0}") }
}

fn with_range(values: Vec<u64>) -> String {
    let lowest = values.iter().min().copied().unwrap_or(0);
    let highest = values.iter().max().copied().unwrap_or(0);
    format!("{} ({}–{})", us(median(values)), us(lowest), us(highest))
}
