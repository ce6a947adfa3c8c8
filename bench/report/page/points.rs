//! Figures over a quantity: memory over sessions, and what was achieved over what was offered.

use plotters::prelude::*;

use super::Plot;
use super::canvas::{Canvas, Palette, css, draw, font};
use crate::error::BenchError;
use crate::report::stored::Stored;

/// Height of a plot in pixels.
const HEIGHT: u32 = 360;

/// A line: its name and its points.
type Line = (String, Vec<(f64, f64)>);

/// Names of the axes.
struct Axes {
    x: &'static str,
    y: &'static str,
}

/// The plots for which there are reports.
pub fn plots(reports: &[Stored], palette: &Palette) -> Result<Vec<Plot>, BenchError> {
    let memory = plot(
        "Memory over sessions",
        "Resident memory of the server while sessions came in, above what it had before the first.",
        &Axes { x: "sessions", y: "MiB" },
        lines(reports, "memory while they come in", |name| name.parse().ok(), 1.0),
        palette,
    )?;
    let achieved = plot(
        "Throughput: achieved over offered",
        "Messages a second that were acked, against the rate that was asked for; by chance some \
         more or fewer are due. The grey line is that rate.",
        &Axes { x: "offered, messages per s", y: "achieved, messages per s" },
        lines(reports, "achieved at the offered rate", |name| name.parse().ok(), 1.0),
        palette,
    )?;
    let tail = plot(
        "Throughput: p99 of send to ack over the offered rate",
        "From the time a message was due until its sender knew that it is durable.",
        &Axes { x: "offered, messages per s", y: "ms" },
        lines(reports, "p99 of send to ack at the offered rate", |name| name.parse().ok(), 1e-3),
        palette,
    )?;
    let fan_out = plot(
        "Groups: server's CPU time per delivery over members",
        "A delivery is a message at one other member's device.",
        &Axes { x: "members", y: "µs" },
        lines(reports, "CPU time per delivery", |name| name.parse().ok(), 1.0),
        palette,
    )?;
    Ok([memory, achieved, tail, fan_out].into_iter().flatten().collect())
}

/// A line for each report that has this group: the figures' names are the quantity.
fn lines(
    reports: &[Stored],
    group: &str,
    quantity: impl Fn(&str) -> Option<f64>,
    scale: f64,
) -> Vec<Line> {
    let line = |report: &Stored| {
        let figures = report.figures().into_iter().filter(|figure| figure.group == group);
        let mut points: Vec<(f64, f64)> = figures
            .filter_map(|figure| {
                let median = report.spread(group, &figure.name)?.median;
                Some((quantity(&figure.name)?, median * scale))
            })
            .collect();
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        (points.len() > 1).then(|| (report.name.clone(), points))
    };
    reports.iter().filter_map(line).collect()
}

fn plot(
    title: &str,
    note: &str,
    axes: &Axes,
    lines: Vec<Line>,
    palette: &Palette,
) -> Result<Option<Plot>, BenchError> {
    if lines.is_empty() {
        return Ok(None);
    }
    let legend =
        lines.iter().enumerate().map(|(n, line)| (css(palette.colour(&line.0, n)), line.0.clone()));
    Ok(Some(Plot {
        title: title.to_owned(),
        note: note.to_owned(),
        legend: legend.collect(),
        svg: draw(HEIGHT, |canvas| paint(canvas, axes, &lines, palette))?,
    }))
}

fn paint(
    canvas: &Canvas<'_>,
    axes: &Axes,
    lines: &[Line],
    palette: &Palette,
) -> Result<(), Box<dyn std::error::Error>> {
    let all = || lines.iter().flat_map(|line| &line.1);
    let (width, height) =
        all().fold((0.0_f64, 0.0_f64), |most, point| (most.0.max(point.0), most.1.max(point.1)));
    let mut chart = ChartBuilder::on(canvas)
        .margin(12)
        .margin_right(30)
        .x_label_area_size(48)
        .y_label_area_size(84)
        .build_cartesian_2d(0.0..width * 1.02, 0.0..height.max(f64::MIN_POSITIVE) * 1.05)?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(BLACK.mix(0.12))
        .label_style(font(13.0))
        .axis_desc_style(font(14.0))
        .x_label_formatter(&|x| thousands(*x))
        .y_label_formatter(&|y| thousands(*y))
        .x_desc(axes.x)
        .y_desc(axes.y)
        .draw()?;
    if axes.y.starts_with("achieved") {
        let end = width.min(height);
        chart.draw_series(LineSeries::new([(0.0, 0.0), (end, end)], BLACK.mix(0.35)))?;
    }
    for (index, (name, points)) in lines.iter().enumerate() {
        let (line, ink) = (points.iter().copied(), palette.colour(name, index));
        chart.draw_series(LineSeries::new(line.clone(), ink.stroke_width(2)))?;
        chart.draw_series(line.map(|point| Circle::new(point, 4, ink.filled())))?;
    }
    Ok(())
}

/// A number with its thousands apart; a fraction only where the number is small.
fn thousands(value: f64) -> String {
    if value.abs() < 10.0 && value.fract() != 0.0 {
        return format!("{value:.1}");
    }
    let digits = format!("{:.0}", value.abs());
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Figure;
    use crate::report::stored::tests::stored;
    use serde_json::json;

    #[test]
    fn lines_go_by_the_quantity() {
        let figure = |name: &str, value| Figure::new("memory while they come in", name, "", value);
        let run = vec![figure("2000", 40.0), figure("1000", 20.0), figure("what", 1.0)];
        let report = stored("idle", json!({"name": "idle"}), vec![run]);
        let lines = lines(&[report], "memory while they come in", |n| n.parse().ok(), 1.0);
        assert_eq!(lines, [("idle".to_owned(), vec![(1_000.0, 20.0), (2_000.0, 40.0)])]);
    }

    #[test]
    fn numbers_are_read_easily() {
        let shown = [0.0, 0.5, 12.0, 1_234.0, 1_000_000.0].map(thousands);
        assert_eq!(shown, ["0", "0.5", "12", "1,234", "1,000,000"]);
    }
}
