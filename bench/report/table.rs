//! Figures as lines of text.

use super::Figure;

/// A row per figure of the first run, under a heading per group; figures that a later run does not
/// have show as a dash.
pub fn render(runs: &[Vec<Figure>]) -> String {
    let Some(first) = runs.first() else { return String::new() };
    let name_width = first.iter().map(|figure| figure.name.chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    let mut group = "";
    for figure in first {
        if figure.group != group {
            group = &figure.group;
            text.push_str(&format!("\n{group}{}\n", heading(runs.len(), group, name_width)));
        }
        let values: Vec<Option<f64>> = runs.iter().map(|run| find(run, figure)).collect();
        let mut cells: Vec<String> =
            values.iter().map(|value| value.map_or_else(|| "-".to_owned(), shown)).collect();
        if runs.len() > 1 {
            cells.insert(
                0,
                median(values.into_iter().flatten().collect()).map_or("-".into(), shown),
            );
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

/// The middle value; of an even number, the mean of the two in the middle.
fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        count if count % 2 == 1 => Some(values[middle]),
        _ => Some(f64::midpoint(values[middle - 1], values[middle])),
    }
}

/// With three digits at least, and no more behind the point than they say anything.
fn shown(value: f64) -> String {
    let digits = match value.abs() {
        size if size >= 1_000.0 || size.fract() == 0.0 => 0,
        size if size >= 100.0 => 1,
        size if size >= 10.0 => 2,
        _ => 3,
    };
    format!("{value:.digits$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_stand_side_by_side() {
        let run = |value| vec![Figure::new("send to ack", "p50", "µs", value)];
        let text = render(&[run(300.0), run(100.0), run(1_234.56)]);
        let row: Vec<&str> = text.lines().nth(2).expect("a row").split_whitespace().collect();
        assert_eq!(row, ["p50", "300", "300", "100", "1235", "µs"], "{text}");
        let other = vec![Figure::new("send to ack", "p90", "µs", 1.0)];
        assert!(render(&[run(1.0), other]).contains('-'));
        assert_eq!(render(&[]), "");
    }

    #[test]
    fn one_run_needs_no_median() {
        let text = render(&[vec![Figure::new("a group", "a name", "", 0.12345)]]);
        assert_eq!(text, format!("\na group\n  a name{:>12}  \n", "0.123"));
    }

    #[test]
    fn medians() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0]), Some(2.5));
        assert_eq!(median(vec![]), None);
    }
}
