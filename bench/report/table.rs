//! Figures as lines of text.

use super::Figure;
use super::spread::{Spread, shown};

/// A row per figure of the first run, under a heading per group; figures that a later run does not
/// have show as a dash.
pub fn render(runs: &[&[Figure]]) -> String {
    let Some(first) = runs.first() else { return String::new() };
    let name_width = first.iter().map(|figure| figure.name.chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    let mut group = "";
    for figure in *first {
        if figure.group != group {
            group = &figure.group;
            text.push_str(&format!("\n{group}{}\n", heading(runs.len(), group, name_width)));
        }
        let values: Vec<Option<f64>> = runs.iter().map(|run| find(run, figure)).collect();
        let mut cells: Vec<String> =
            values.iter().map(|value| value.map_or_else(|| "-".to_owned(), shown)).collect();
        if runs.len() > 1 {
            let spread = Spread::of(values.into_iter().flatten().collect());
            cells.insert(0, spread.map_or("-".into(), |spread| shown(spread.median)));
        }
        let padding = name_width - figure.name.chars().count();
        text.push_str(&format!("  {}{}", figure.name, " ".repeat(padding)));
        cells.iter().for_each(|cell| text.push_str(&format!("{cell:>CELL_WIDTH$}")));
        text.push_str(&format!("  {}\n", figure.unit));
    }
    text
}

/// Characters of a column: the largest numbers that occur have ten.
const CELL_WIDTH: usize = 12;

/// What stands over the columns, if there are several.
fn heading(runs: usize, group: &str, name_width: usize) -> String {
    if runs == 1 {
        return String::new();
    }
    let padding = (name_width + 2).saturating_sub(group.chars().count());
    let mut text = " ".repeat(padding);
    text.push_str(&format!("{:>CELL_WIDTH$}", "median"));
    (1..=runs).for_each(|run| text.push_str(&format!("{:>CELL_WIDTH$}", format!("run {run}"))));
    text
}

fn find(run: &[Figure], like: &Figure) -> Option<f64> {
    let same = |figure: &&Figure| figure.group == like.group && figure.name == like.name;
    run.iter().find(same).map(|figure| figure.value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_stand_side_by_side() {
        let run = |value| vec![Figure::new("send to ack", "p50", "µs", value)];
        let text = render(&[&run(300.0), &run(100.0), &run(1_234.56)]);
        let row: Vec<&str> = text.lines().nth(2).expect("a row").split_whitespace().collect();
        assert_eq!(row, ["p50", "300", "300", "100", "1235", "µs"], "{text}");
        let other = vec![Figure::new("send to ack", "p90", "µs", 1.0)];
        assert!(render(&[&run(1.0), &other]).contains('-'));
        assert_eq!(render(&[]), "");
    }

    #[test]
    fn one_run_needs_no_median() {
        let text = render(&[&[Figure::new("a group", "a name", "", 0.12345)]]);
        assert_eq!(text, format!("\na group\n  a name{:>12}  \n", "0.123"));
    }
}
