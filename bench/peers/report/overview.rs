//! All scenarios at a glance: a row for each system, medians only. The sections of
//! [`table`](super::table) have the spread, and what else there is.

use std::fmt::Write as _;

use tern_bench::report::shown;

use super::Kept;
use crate::peer::Promise;

/// A figure that a kind of scenario shows here: the heading behind the scenario's label, if that
/// is needed, the figure's place, and what it is divided by.
struct Shown {
    kind: &'static str,
    heading: &'static str,
    is_labelled: bool,
    figure: (&'static str, &'static str),
    divisor: f64,
}

const fn shows(
    kind: &'static str,
    heading: &'static str,
    is_labelled: bool,
    figure: (&'static str, &'static str),
    divisor: f64,
) -> Shown {
    Shown { kind, heading, is_labelled, figure, divisor }
}

/// In the order of the columns.
const ALL: [Shown; 7] = [
    shows("latency", "CPU, µs", true, ("server's CPU time", "per message"), 1.0),
    shows("latency", "p50, ms", true, ("send to receive", "p50"), 1e3),
    shows("latency", "p99, ms", true, ("send to receive", "p99"), 1e3),
    shows("loss", "p99, ms", true, ("send to receive", "p99"), 1e3),
    shows("throughput", "messages/s within the gate", false, HELD, 1.0),
    shows("idle", "KB a session", false, ("memory", "resident"), 1e3),
    shows("kill", "`kill -9`: all back, ms", false, BACK, 1.0),
];

const HELD: (&str, &str) = ("at the gate", "highest rate that held");
const BACK: (&str, &str) = ("time since the kill", "100 % get new messages again");

/// A column: what is shown, of which scenario.
struct Column<'a> {
    shown: &'a Shown,
    label: String,
}

impl Column<'_> {
    fn heading(&self) -> String {
        match self.shown.is_labelled {
            true => format!("{}: {}", self.label, self.shown.heading),
            false => self.shown.heading.to_owned(),
        }
    }

    fn cell(&self, all: &[&Kept], peer: &str) -> String {
        let is_it = |kept: &&&Kept| kept.peer.name == peer && kept.label() == self.label;
        let Some(kept) = all.iter().find(is_it) else { return "-".to_owned() };
        let (group, name) = self.shown.figure;
        let Some(spread) = kept.spread(group, name) else { return "-".to_owned() };
        let mark = if kept.sum(group, "the load was the limit") > 0.0 { " *" } else { "" };
        format!("{}{mark}", shown(spread.median / self.shown.divisor))
    }
}

/// The table; its rows stand in the order of `all`.
pub fn overview(all: &[&Kept]) -> String {
    let columns = columns(all);
    let headings: Vec<String> = columns.iter().map(Column::heading).collect();
    let rule = "|---".repeat(columns.len() + 3);
    let mut text = format!(
        "\n## At a glance\n\nMedians. CPU is the server's, of a delivered message; p50 and p99 are \
         of send to receive; `*`: the load was the limit.\n\n\
         | | on the disk before the answer | {} | acked and lost, doubled |\n{rule}|\n",
        headings.join(" | ")
    );
    let mut seen: Vec<&str> = Vec::new();
    for kept in all {
        if !seen.contains(&&*kept.peer.name) {
            seen.push(&kept.peer.name);
            text.push_str(&row(all, kept, &columns));
        }
    }
    text
}

fn columns(all: &[&Kept]) -> Vec<Column<'static>> {
    let mut columns: Vec<Column<'_>> = Vec::new();
    for shown in &ALL {
        let mut labels: Vec<String> = Vec::new();
        for kept in all.iter().filter(|kept| kept.scenario["name"] == shown.kind) {
            if !labels.contains(&kept.label()) {
                labels.push(kept.label());
            }
        }
        columns.extend(labels.into_iter().map(|label| Column { shown, label }));
    }
    columns
}

fn row(all: &[&Kept], of: &Kept, columns: &[Column<'_>]) -> String {
    let peer = &of.peer;
    let disk = if peer.promise == Promise::Durable { "yes" } else { "no" };
    let mut text = format!("| {} | {disk} |", peer.title);
    for column in columns {
        let _ = write!(text, " {} |", column.cell(all, &peer.name));
    }
    let own = || all.iter().filter(|kept| kept.peer.name == peer.name);
    let [lost, doubled] = ["acked and lost", "doubled"]
        .map(|sin| own().map(|kept| kept.sum("ledger", sin)).sum::<f64>());
    let _ = writeln!(text, " {lost}, {doubled} |");
    text
}
