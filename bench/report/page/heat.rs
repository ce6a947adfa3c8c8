//! The matrix of losses as a map: a row for each round trip and kind of loss, a column for each
//! share of loss, the darker the longer the tail against the round trip.

use plotters::prelude::*;
use plotters::style::text_anchor::HPos;

use super::Plot;
use super::canvas::{Canvas, WIDTH, draw, font, placed};
use crate::error::BenchError;
use crate::report::spread::short;
use crate::report::stored::Stored;

/// Height of a row in pixels.
const ROW: i32 = 44;

/// Pixels left of the cells, for the rows' names.
const LEFT: i32 = 210;

/// Pixels above the cells, for the columns' names.
const TOP: i32 = 44;

/// Tail by round trip at which a cell is darkest: worse is lost to a person anyway.
const DARKEST: f64 = 32.0;

/// By how many datagrams a message goes, in words.
const CARRIERS: [&str; 4] = ["streams", "datagrams", "doubled", "repeated"];

/// One cell as it was measured, medians of the runs.
struct Cell {
    carrier: &'static str,
    rtt: f64,
    burst: f64,
    loss: f64,
    p99_ms: f64,
}

/// A map for each carrier of a report of the matrix, and one of how many times the other the one
/// is.
pub fn plots(reports: &[Stored]) -> Result<Vec<Plot>, BenchError> {
    let mut plots = Vec::new();
    for report in reports {
        let cells: Vec<Cell> = report.groups().iter().filter_map(|g| cell(report, g)).collect();
        for carrier in CARRIERS {
            let of: Vec<&Cell> = cells.iter().filter(|cell| cell.carrier == carrier).collect();
            if of.len() > 1 {
                plots.push(map(report, carrier, &of)?);
            }
        }
    }
    Ok(plots)
}

fn cell(report: &Stored, group: &str) -> Option<Cell> {
    let value = |name: &str| Some(report.spread(group, name)?.median);
    Some(Cell {
        carrier: CARRIERS.get(value("by datagram")? as usize)?,
        rtt: value("round trip")?,
        burst: value("burst")?,
        loss: value("loss")?,
        p99_ms: value("p99")? / 1e3,
    })
}

fn map(report: &Stored, carrier: &str, cells: &[&Cell]) -> Result<Plot, BenchError> {
    let key = |cell: &&&Cell| (cell.rtt, cell.burst);
    let mut rows: Vec<(f64, f64)> = cells.iter().map(|cell| key(&cell)).collect();
    rows.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
    rows.dedup();
    let mut columns: Vec<f64> = cells.iter().map(|cell| cell.loss).collect();
    columns.sort_by(f64::total_cmp);
    columns.dedup();
    let height = TOP + ROW * rows.len() as i32 + 10;
    let svg = draw(height as u32, |canvas| paint(canvas, &rows, &columns, cells))?;
    Ok(Plot {
        title: format!("Loss: p99 of send to receive, {carrier} ({})", report.name),
        note: "In ms; below it, how many round trips of one leg that is: 1 is the least that is \
               possible over two legs. Packets are lost on both legs, in both directions."
            .to_owned(),
        legend: Vec::new(),
        svg,
    })
}

fn paint(
    canvas: &Canvas<'_>,
    rows: &[(f64, f64)],
    columns: &[f64],
    cells: &[&Cell],
) -> Result<(), Box<dyn std::error::Error>> {
    let width = (WIDTH as i32 - LEFT - 10) / columns.len() as i32;
    let x = |column: usize| LEFT + column as i32 * width;
    let y = |row: usize| TOP + row as i32 * ROW;
    for (column, loss) in columns.iter().enumerate() {
        let text = format!("{} % lost", short(*loss));
        let style = placed(font(14.0), HPos::Center);
        canvas.draw(&Text::new(text, (x(column) + width / 2, TOP / 2), style))?;
    }
    for (row, (rtt, burst)) in rows.iter().enumerate() {
        let kind = if *burst > 1.0 { format!("bursts of {burst:.0}") } else { "single".to_owned() };
        let style = placed(font(14.0), HPos::Left);
        let text = format!("{rtt:.0} ms, {kind}");
        canvas.draw(&Text::new(text, (10, y(row) + ROW / 2), style))?;
        for (column, loss) in columns.iter().enumerate() {
            let found = cells.iter().find(|c| (c.rtt, c.burst, c.loss) == (*rtt, *burst, *loss));
            let place = [(x(column), y(row)), (x(column) + width - 2, y(row) + ROW - 2)];
            paint_cell(canvas, place, found.copied())?;
        }
    }
    Ok(())
}

fn paint_cell(
    canvas: &Canvas<'_>,
    place: [(i32, i32); 2],
    cell: Option<&Cell>,
) -> Result<(), Box<dyn std::error::Error>> {
    let Some(cell) = cell else {
        canvas.draw(&Rectangle::new(place, RGBColor(240, 240, 240).filled()))?;
        return Ok(());
    };
    let times = cell.p99_ms / cell.rtt;
    let (fill, ink) = shade(times);
    canvas.draw(&Rectangle::new(place, fill.filled()))?;
    let middle = (place[0].0 + place[1].0) / 2;
    let style = |pixels| placed(font(pixels).color(&ink), HPos::Center);
    let text = short(cell.p99_ms.round());
    canvas.draw(&Text::new(text, (middle, place[0].1 + 14), style(15.0)))?;
    canvas.draw(&Text::new(format!("×{times:.1}"), (middle, place[0].1 + 31), style(12.0)))?;
    Ok(())
}

/// The colour of a cell and of its text: from pale yellow to dark red, by the logarithm.
fn shade(times: f64) -> (RGBColor, RGBColor) {
    /// Pale yellow, orange, dark red.
    const STOPS: [(f64, f64, f64); 3] =
        [(255.0, 247.0, 210.0), (240.0, 130.0, 60.0), (110.0, 0.0, 25.0)];
    let place = (times.max(1.0).ln() / DARKEST.ln()).clamp(0.0, 1.0) * 2.0;
    let (from, to) = if place < 1.0 { (STOPS[0], STOPS[1]) } else { (STOPS[1], STOPS[2]) };
    let share = if place < 1.0 { place } else { place - 1.0 };
    let mix = |from: f64, to: f64| (from + (to - from) * share) as u8;
    let fill = RGBColor(mix(from.0, to.0), mix(from.1, to.1), mix(from.2, to.2));
    (fill, if place > 1.2 { WHITE } else { BLACK })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Figure;
    use crate::report::stored::tests::stored;
    use serde_json::json;

    #[test]
    fn cells_are_read_from_their_groups() {
        let run = |group: &str, datagrams: f64, loss: f64| {
            let figure = |name: &str, value| Figure::new(group, name, "", value);
            vec![
                figure("by datagram", datagrams),
                figure("round trip", 350.0),
                figure("loss", loss),
                figure("burst", 1.0),
                figure("p99", 700_000.0),
            ]
        };
        let figures = [run("a", 0.0, 1.0), run("b", 0.0, 3.5), run("c", 1.0, 3.5)].concat();
        let report = stored("matrix", json!({"name": "matrix"}), vec![figures]);
        let plots = plots(&[report]).expect("they can be drawn");
        assert_eq!(plots.len(), 1, "a map of one cell is none");
        assert!(plots[0].svg.contains("700") && plots[0].svg.contains("×2.0"));
        assert!(plots[0].svg.contains("3.5 % lost"));
    }

    #[test]
    fn worse_is_darker() {
        let dark = |times| {
            let RGBColor(r, g, b) = shade(times).0;
            u32::from(r) + u32::from(g) + u32::from(b)
        };
        assert!(dark(1.0) > dark(3.0) && dark(3.0) > dark(10.0) && dark(10.0) > dark(100.0));
    }
}
