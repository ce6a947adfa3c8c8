//! The comparison in Markdown: a section for each scenario, systems that promise the disk apart
//! from those that don't, the median of the runs with the least and the most, and how many times
//! Tern's value each other's is.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use tern_bench::OTHERS;
use tern_bench::error::{BenchError, Tried};
use tern_bench::report::{Spread, shown};

use super::Kept;
use super::overview::overview;
use crate::peer::Promise;

/// A column: its heading, the figure behind it, what the figure is divided by, and whether it is
/// compared with Tern's.
struct Column {
    heading: &'static str,
    group: &'static str,
    name: &'static str,
    divisor: f64,
    has_ratio: bool,
}

const fn column(
    heading: &'static str,
    group: &'static str,
    name: &'static str,
    divisor: f64,
    has_ratio: bool,
) -> Column {
    Column { heading, group, name, divisor, has_ratio }
}

/// At a fixed rate.
const LATENCY: [Column; 7] = [
    column("send to ack p50, ms", "send to ack", "p50", 1e3, false),
    column("p99, ms", "send to ack", "p99", 1e3, true),
    column("p99.9, ms", "send to ack", "p99.9", 1e3, false),
    column("send to receive p50, ms", "send to receive", "p50", 1e3, false),
    column("p99, ms", "send to receive", "p99", 1e3, true),
    column("p99.9, ms", "send to receive", "p99.9", 1e3, false),
    column("server's CPU, µs a delivered message", "server's CPU time", "per message", 1.0, true),
];

/// Over a bad path.
const LOSS: [Column; 6] = [
    column("send to receive p50, ms", "send to receive", "p50", 1e3, false),
    column("p99, ms", "send to receive", "p99", 1e3, true),
    column("p99.9, ms", "send to receive", "p99.9", 1e3, false),
    column("send to ack p99, ms", "send to ack", "p99", 1e3, false),
    column("packets lost, %", "path", "packets lost", 1.0, false),
    column(
        "bytes a message, both ways",
        "path",
        "bytes per message, connecting included",
        1.0,
        false,
    ),
];

/// A server that dies.
const KILL: [Column; 4] = [
    column("server back, ms", "time since the kill", "server can be connected to", 1.0, false),
    column(
        "half of the devices, ms",
        "time since the kill",
        "50 % get new messages again",
        1.0,
        true,
    ),
    column("all devices, ms", "time since the kill", "100 % get new messages again", 1.0, true),
    column("messages sent a run", "ledger", "sent", 1.0, false),
];

/// Sessions at rest.
const IDLE: [Column; 4] = [
    column("resident, KB a session", "memory", "resident", 1e3, true),
    column("of it private, KB", "memory", "of it private", 1e3, false),
    column("kernel, both ends, KB", "memory", "kernel, both ends", 1e3, false),
    column("CPU at rest, µs a session and second", "at rest", "server's CPU time", 1.0, false),
];

/// The highest rate.
const THROUGHPUT: [Column; 4] = [
    column("messages a second that held", "at the gate", "highest rate that held", 1.0, true),
    column("p99 send to ack, ms", "at the gate", "p99 send to ack", 1.0, false),
    column("server's CPU, µs a delivered message", "at the gate", "server's CPU time", 1.0, false),
    column("the load was the limit", "at the gate", "the load was the limit", 1.0, false),
];

/// Counts that must be none, for every scenario that keeps the account.
const SINS: [&str; 4] = ["acked and lost", "doubled", "out of order", "never answered"];

/// Writes `comparison.md` into a folder of reports; its text.
///
/// # Errors
/// When there is nothing to compare, or it can't be written.
pub fn write_table(folder: &Path) -> Result<String, BenchError> {
    let text = render(&Kept::all(folder)?);
    let path = folder.join("comparison.md");
    fs::write(&path, &text).tried(format!("write {}", path.display()))?;
    Ok(text)
}

fn render(all: &[Kept]) -> String {
    let mut text = head(all);
    let mut sorted: Vec<&Kept> = all.iter().collect();
    sorted.sort_by_key(|kept| (kept.peer.promise, !is_tern(kept), kept.peer.name.clone()));
    text.push_str(&overview(&sorted));
    let sections: [(&str, &[Column]); 5] = [
        ("latency", &LATENCY),
        ("loss", &LOSS),
        ("kill", &KILL),
        ("idle", &IDLE),
        ("throughput", &THROUGHPUT),
    ];
    for (kind, columns) in sections {
        let mut labels: Vec<String> = Vec::new();
        for report in sorted.iter().filter(|report| report.scenario["name"] == kind) {
            if !labels.contains(&report.label()) {
                labels.push(report.label());
            }
        }
        for label in labels {
            let of = sorted.iter().copied().filter(|kept| kept.label() == label);
            let of: Vec<&Kept> = of.collect();
            text.push_str(&section(&label, &of, columns));
        }
    }
    text.push_str(&systems(all));
    text
}

fn is_tern(kept: &Kept) -> bool {
    kept.peer.name.starts_with("tern")
}

fn head(all: &[Kept]) -> String {
    let mut commands: Vec<String> = Vec::new();
    for report in all {
        let words = report.command.iter().enumerate();
        let words = words.map(|(index, word)| match index {
            0 => word.rsplit('/').next().unwrap_or_default(),
            _ => word,
        });
        let command = words.collect::<Vec<_>>().join(" ");
        if !commands.contains(&command) {
            commands.push(command);
        }
    }
    let machine = &all[0].machine;
    let place = match all[0].subject.pinned {
        true => "the server on one core, the load on the others",
        false => "server and load share the cores",
    };
    format!(
        "# Tern beside other systems\n\n{}, {} cores, {} MiB, Linux {}, {}; {place}. {}\n\nValues are the median of the runs, with the least \
         and the most in brackets; `×` is how many times the value of Tern in the same table it \
         is.\n\n```\n{}\n```\n",
        machine.cpu,
        machine.cores,
        machine.memory_mib,
        machine.kernel,
        machine.file_system,
        disturbance(all),
        commands.join("\n")
    )
}

/// How much others used the machine, if any run knows.
fn disturbance(all: &[Kept]) -> String {
    let others: Vec<Spread> =
        all.iter().filter_map(|kept| kept.spread("disturbance", OTHERS)).collect();
    let most = others.iter().map(|spread| spread.most).fold(0.0, f64::max);
    let usual = Spread::of(others.iter().map(|spread| spread.median).collect());
    usual.map_or_else(String::new, |usual| {
        let usual = usual.median;
        format!(
            "Other processes used {usual:.0} % of all cores in the middle of the runs and \
             {most:.0} % at most: times are as good as that is small."
        )
    })
}

fn section(label: &str, reports: &[&Kept], columns: &[Column]) -> String {
    let mut text = format!("\n## {label}\n\n{}\n", numbers(reports[0]));
    for (promise, title) in [
        (Promise::Durable, "On the disk before the answer"),
        (Promise::Later, "In memory or the page cache before the answer"),
    ] {
        let of: Vec<&&Kept> =
            reports.iter().filter(|report| report.peer.promise == promise).collect();
        if of.is_empty() {
            continue;
        }
        let has_ledger = of.iter().any(|report| report.spread("ledger", "sent").is_some());
        let mut headings: Vec<&str> = columns.iter().map(|column| column.heading).collect();
        if has_ledger {
            headings.extend(SINS);
        }
        let rule = "|---".repeat(headings.len() + 2);
        let _ = write!(text, "\n{title}:\n\n| | {} | runs |\n{rule}|\n", headings.join(" | "));
        let tern = of.iter().find(|report| is_tern(report));
        for report in &of {
            text.push_str(&row(report, tern.map(|tern| &***tern), columns, has_ledger));
        }
    }
    text
}

/// The scenario's numbers, as they were set.
fn numbers(report: &Kept) -> String {
    let fields = report.scenario.as_object().into_iter().flatten();
    let fields = fields.filter(|(key, _)| *key != "name");
    let words: Vec<String> = fields.map(|(key, value)| format!("{key} {value}")).collect();
    words.join(", ").replace('_', " ")
}

fn row(report: &Kept, tern: Option<&Kept>, columns: &[Column], has_ledger: bool) -> String {
    let mut cells: Vec<String> = Vec::new();
    for column in columns {
        cells.push(cell(report, tern.filter(|_| !is_tern(report)), column));
    }
    if has_ledger {
        cells.extend(SINS.map(|name| match report.runs.is_empty() {
            true => "-".to_owned(),
            false => shown(report.sum("ledger", name)),
        }));
    }
    let failed = match report.failures.len() {
        0 => String::new(),
        count => format!(", {count} failed"),
    };
    let Kept { peer, runs, .. } = report;
    format!("| {} | {} | {}{failed} |\n", peer.title, cells.join(" | "), runs.len())
}

fn cell(report: &Kept, tern: Option<&Kept>, column: &Column) -> String {
    let scaled = |kept: &Kept| {
        let spread = kept.spread(column.group, column.name)?;
        let of = |value: f64| value / column.divisor;
        let (median, least, most) = (of(spread.median), of(spread.least), of(spread.most));
        Some(Spread { median, least, most })
    };
    let Some(own) = scaled(report) else { return "-".to_owned() };
    let ratio = tern.and_then(scaled).filter(|_| column.has_ratio);
    let ratio = ratio.filter(|tern| tern.median > 0.0).map(|tern| own.median / tern.median);
    let ratio = ratio.map_or_else(String::new, |ratio| format!(" **×{ratio:.2}**"));
    format!("{}{ratio}", own.text())
}

/// What each system is, and how it was set up.
fn systems(all: &[Kept]) -> String {
    let mut text = String::from("\n## Systems\n\n");
    let mut seen: Vec<&str> = Vec::new();
    for Kept { peer, subject, .. } in all {
        if !seen.contains(&&*peer.name) {
            seen.push(&peer.name);
            let _ = writeln!(text, "- **{}** ({}): {}", peer.title, subject.version, peer.setup);
        }
    }
    let failures: Vec<String> = all
        .iter()
        .flat_map(|kept| kept.failures.iter().map(move |why| (kept, why)))
        .map(|(kept, why)| (kept, why.lines().next().unwrap_or_default()))
        .map(|(kept, why)| format!("- {}, {}: {why}\n", kept.peer.title, kept.label()))
        .collect();
    if !failures.is_empty() {
        let _ = write!(text, "\nRuns without figures:\n\n{}", failures.concat());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn kept(name: &str, promise: &str, p99: &[f64]) -> Kept {
        let run = |value: &f64| {
            json!([
                {"group": "send to receive", "name": "p99", "unit": "µs", "value": value},
                {"group": "ledger", "name": "sent", "unit": "", "value": 10},
                {"group": "ledger", "name": "acked and lost", "unit": "", "value": 2},
            ])
        };
        serde_json::from_value(json!({
            "command": ["/somewhere/tern-peers", "run"],
            "machine": {"cpu": "c", "cores": 2, "memory_mib": 1, "kernel": "k", "file_system": "f"},
            "subject": {"program": "p", "version": "v 1", "built": 0, "options": [], "pinned": true},
            "scenario": {"name": "loss", "rtt_ms": 350, "loss_percent": 3.5},
            "peer": {"name": name, "title": name, "promise": promise, "setup": "as it comes"},
            "failures": [], "runs": p99.iter().map(run).collect::<Vec<_>>(),
        }))
        .expect("a report")
    }

    #[test]
    fn systems_stand_beside_tern_and_apart_by_what_they_promise() {
        let all = [
            kept("mosquitto", "later", &[900e3]),
            kept("redis", "durable", &[600e3, 800e3, 1_000e3]),
            kept("tern", "durable", &[400e3]),
            kept("tern-process", "later", &[300e3]),
        ];
        let text = render(&all);
        let (glance, _) = text.split_once("\n## 350 ms").expect("the table of all comes first");
        assert!(glance.contains("| 350 ms, 3.5 % lost each way: p99, ms |"), "{glance}");
        assert!(glance.contains("| redis | yes | 800 | 6, 0 |"), "{glance}");
        assert!(glance.contains("| mosquitto | no | 900 | 2, 0 |"), "{glance}");
        let (_, text) = text.split_once("\n## 350 ms").expect("as before");
        let text = format!("## 350 ms{text}");
        assert!(text.contains("## 350 ms, 3.5 % lost each way"), "{text}");
        let at = |what: &str| text.find(what).unwrap_or_else(|| panic!("{what} in {text}"));
        assert!(at("| tern |") < at("| redis |") && at("| redis |") < at("| tern-process |"));
        assert!(text.contains("800 (600 to 1000) **×2.00**"), "{text}");
        assert!(text.contains("900 **×3.00**"), "{text}");
        let redis = text.lines().find(|line| line.starts_with("| redis")).expect("a row");
        assert!(redis.contains("| 6 |"), "losses of all runs: {redis}");
    }
}
