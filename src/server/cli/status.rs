//! `tern status`: the server's figures, as a table or as JSON.

use std::time::Duration;

use super::account::as_json;
use super::folder::strange;
use super::output::columns;
use super::{Exit, FolderArgs, print};
use crate::control::protocol::{Reply, Request};
use crate::control::status::{Descriptors, Figure, Sort, Status, Table};

/// The command line of `tern status`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// As JSON: the counts since the start, once
    #[arg(long)]
    json: bool,
    /// Rates are taken over this time, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(100..=3_600_000))]
    over_ms: u64,
    /// Also show figures that are 0
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    folder: FolderArgs,
}

pub(super) fn run(args: &Args) -> Exit {
    show(args).unwrap_or_else(|exit| exit)
}

fn show(args: &Args) -> Result<Exit, Exit> {
    let first = ask(&args.folder)?;
    if args.json {
        return as_json(&first);
    }
    std::thread::sleep(Duration::from_millis(args.over_ms));
    let second = ask(&args.folder)?;
    Ok(print(&text(&first, &second, args.all)))
}

fn ask(folder: &FolderArgs) -> Result<Status, Exit> {
    match folder.ask_server(&Request::Status)? {
        Reply::Status(status) => Ok(*status),
        other => Err(strange(&other)),
    }
}

fn text(first: &Status, second: &Status, all: bool) -> String {
    let elapsed_ms = second.uptime_ms.saturating_sub(first.uptime_ms).max(1);
    let Status {
        phase,
        pid,
        version,
        uptime_ms,
        rss_bytes,
        listen,
        pin,
        troubles,
        descriptors,
        disk,
        workers,
        shards,
    } = second;
    let troubles: String = troubles.iter().map(|trouble| format!("TROUBLE {trouble}\n")).collect();
    let words = disk.iter().flat_map(|disk| &disk.words);
    let files = descriptors.map(open_files).unwrap_or_default();
    let disk: String = words.map(|words| format!("{words}\n")).collect();
    format!(
        "tern {version}, process {pid}, {phase}, up {} s, {} MiB of memory, on {listen}\npin {pin}\n{files}{disk}{troubles}\n{}\n{}",
        uptime_ms / 1_000,
        rss_bytes >> 20,
        table(&first.workers, workers, elapsed_ms, all),
        table(&first.shards, shards, elapsed_ms, all),
    )
}

fn open_files(Descriptors { open, limit }: Descriptors) -> String {
    let limit = limit.map_or_else(|| "as many as it wants".to_owned(), |limit| limit.to_string());
    format!("open files {open}, may be {limit}\n")
}

/// A row per figure: its total, its rate if it counts, each column if there are several, its unit
/// and sentence.
fn table(before: &Table, now: &Table, elapsed_ms: u64, all: bool) -> String {
    let several = now.columns.len() > 1;
    let mut head = vec!["figure".to_owned(), "all".to_owned(), "per s".to_owned()];
    head.extend(now.columns.iter().filter(|_| several).cloned());
    head.extend(["unit".to_owned(), "what".to_owned()]);
    let rows = now.rows.iter().filter(|figure| all || figure.total() > 0).map(|figure| {
        let mut row = vec![figure.name.clone(), figure.total().to_string()];
        row.push(rate(before.figure(&figure.name), figure, elapsed_ms));
        row.extend(figure.values.iter().filter(|_| several).map(u64::to_string));
        row.extend([figure.unit.clone(), figure.sentence.clone()]);
        row
    });
    columns(&std::iter::once(head).chain(rows).collect::<Vec<_>>())
}

fn rate(before: Option<&Figure>, now: &Figure, elapsed_ms: u64) -> String {
    match (now.sort, before) {
        (Sort::Count, Some(before)) => {
            let events = now.total().saturating_sub(before.total());
            format!("{:.1}", events as f64 * 1_000.0 / elapsed_ms as f64)
        }
        (Sort::Count, None) | (Sort::Gauge | Sort::Level, _) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::status::Phase;

    fn status(uptime_ms: u64, sends: [u64; 2]) -> Status {
        let figure = |name: &str, sort, values: &[u64]| Figure {
            name: name.to_owned(),
            unit: "messages".to_owned(),
            sort,
            sentence: "what it says".to_owned(),
            values: values.to_vec(),
        };
        let mut workers = Table::new(["w0".to_owned(), "w1".to_owned()]);
        workers.push(figure("sends", Sort::Count, &sends));
        workers.push(figure("worst", Sort::Level, &[3, 9]));
        workers.push(figure("nothing", Sort::Count, &[0, 0]));
        Status {
            phase: Phase::Ready,
            pid: 7,
            version: "0".to_owned(),
            uptime_ms,
            rss_bytes: 5 << 20,
            listen: "127.0.0.1:1".to_owned(),
            pin: "ab".to_owned(),
            troubles: vec!["the disk is gone".to_owned()],
            descriptors: Some(Descriptors { open: 70, limit: Some(4_096) }),
            disk: None,
            workers,
            shards: Table::default(),
        }
    }

    #[test]
    fn totals_and_rates() {
        let text = text(&status(1_000, [10, 0]), &status(3_000, [20, 5]), false);
        let sends = text.lines().find(|line| line.starts_with("sends")).expect("a row");
        let cells: Vec<&str> = sends.split_whitespace().collect();
        assert_eq!(cells[1..6], ["25", "7.5", "20", "5", "messages"], "{text}");
        let worst = text.lines().find(|line| line.starts_with("worst")).expect("a row");
        assert_eq!(worst.split_whitespace().nth(1), Some("9"), "{text}");
        assert!(!text.contains("nothing"), "{text}");
        assert!(text.contains("open files 70, may be 4096\n"), "{text}");
        assert!(text.contains("TROUBLE the disk is gone\n"), "{text}");
    }
}
