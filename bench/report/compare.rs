//! Two measurements side by side: each figure that both have, and how many times the first the
//! second is.

use std::path::Path;

use super::spread::{Spread, shown};
use super::stored::{Stored, read_all};
use crate::error::BenchError;

/// Compares the reports of two files or folders, as text.
///
/// # Errors
/// When one holds no report, or they have none in common.
pub fn compare(a: &Path, b: &Path) -> Result<String, BenchError> {
    let ((left, _), (right, _)) = (read_all(a)?, read_all(b)?);
    let pairs = pairs(&left, &right);
    if pairs.is_empty() {
        let what = "no report of the one has the scenario of a report of the other";
        return Err(BenchError::Usage(what.to_owned()));
    }
    Ok(pairs.iter().map(|(a, b)| side_by_side(a, b)).collect())
}

/// Reports of one name; of two single reports, the two, if they are of one scenario.
fn pairs<'a>(left: &'a [Stored], right: &'a [Stored]) -> Vec<(&'a Stored, &'a Stored)> {
    if let ([a], [b]) = (left, right)
        && a.kind() == b.kind()
    {
        return vec![(a, b)];
    }
    let same = |a: &'a Stored| {
        let b = right.iter().find(|b| b.name == a.name && b.kind() == a.kind())?;
        Some((a, b))
    };
    left.iter().filter_map(same).collect()
}

/// Characters of the columns of figures: `12345 (12345 to 12345)` has 22.
const CELL_WIDTH: usize = 27;

fn side_by_side(a: &Stored, b: &Stored) -> String {
    let mut text = format!("\n{} (A) and {} (B)\n", title(a), title(b));
    if a.scenario != b.scenario {
        text.push_str("the options of the scenario differ\n");
    }
    if a.machine != b.machine {
        text.push_str("the machines differ: ratios across machines say little\n");
    }
    text.push_str(&format!(
        "{:<44}{:>CELL_WIDTH$}{:>CELL_WIDTH$}  B / A (least to most)\n",
        "", "A", "B"
    ));
    let mut group = "";
    for figure in a.figures() {
        let name = (&figure.group, &figure.name);
        let (Some(left), Some(right)) = (a.spread(name.0, name.1), b.spread(name.0, name.1)) else {
            continue;
        };
        if figure.group != group {
            group = &figure.group;
            text.push_str(&format!("{group}\n"));
        }
        let label = format!("  {} {}", figure.name, figure.unit);
        text.push_str(&format!(
            "{label:<44}{:>CELL_WIDTH$}{:>CELL_WIDTH$}  {}\n",
            left.text(),
            right.text(),
            ratio(left, right)
        ));
    }
    text
}

fn title(report: &Stored) -> String {
    let Stored { name, subject, runs, .. } = report;
    format!("{name}, {} runs of {}", runs.len(), subject.version)
}

/// The medians' ratio, and the least and the most that any run of the one makes with any run of
/// the other; `~` where the runs overlap, so that the ratio may be chance.
fn ratio(a: Spread, b: Spread) -> String {
    if a.least <= 0.0 {
        return "-".to_owned();
    }
    let overlap = a.least <= b.most && b.least <= a.most;
    let single = a.least == a.most && b.least == b.most;
    let median = shown(b.median / a.median);
    if single {
        return median;
    }
    let (least, most) = (shown(b.least / a.most), shown(b.most / a.least));
    format!("{}{median} ({least} to {most})", if overlap { "~ " } else { "" })
}

#[cfg(test)]
mod tests {
    use super::super::Figure;
    use super::super::stored::tests::stored;
    use super::*;
    use serde_json::json;

    fn report(name: &str, values: &[f64]) -> Stored {
        let run = |value: &f64| vec![Figure::new("send to ack", "p99", "µs", *value)];
        stored(name, json!({"name": "latency"}), values.iter().map(run).collect())
    }

    #[test]
    fn ratios_have_their_spread() {
        let text = side_by_side(&report("a", &[1.0, 2.0, 4.0]), &report("b", &[8.0, 10.0]));
        let row = text.lines().find(|line| line.contains("p99")).expect("a row");
        assert!(row.ends_with("4.500 (2 to 10)"), "{row}");
        let overlap = side_by_side(&report("a", &[1.0, 2.0]), &report("b", &[2.0, 3.0]));
        assert!(overlap.contains("~ 1.667 (1 to 3)"), "{overlap}");
    }

    #[test]
    fn what_can_be_nothing_has_no_ratio() {
        let text = side_by_side(&report("a", &[0.0]), &report("b", &[1.0]));
        assert!(text.lines().last().is_some_and(|row| row.ends_with("  -")), "{text}");
    }

    #[test]
    fn reports_are_paired_by_name() {
        let (left, right) = ([report("a", &[1.0]), report("b", &[1.0])], [report("b", &[1.0])]);
        let pairs = pairs(&left, &right);
        assert_eq!(pairs.len(), 1);
        assert_eq!((&*pairs[0].0.name, &*pairs[0].1.name), ("b", "b"));
    }
}
