//! Latency by percentile: one plot for each kind of latency, one curve for each report.

use plotters::coord::combinators::{BindKeyPoints, IntoLogRange};
use plotters::prelude::*;

use super::Plot;
use super::canvas::{Canvas, Palette, css, decades, draw, font};
use crate::error::BenchError;
use crate::measure::latency::Latency;
use crate::report::spread::short;
use crate::report::stored::Stored;

/// Height of a plot in pixels.
const HEIGHT: u32 = 420;

/// Points of a curve for each factor of ten of rarity.
const POINTS_A_DECADE: u32 = 24;

/// Most curves in a plot: more can't be told apart. What is left out is said.
const CURVES_MAX: usize = 8;

/// One curve: its name, and the latencies behind it.
type Curve<'a> = (String, &'a Latency);

/// A curve that is drawn: its colour and its points.
type Drawn = (RGBColor, Vec<(f64, f64)>);

/// One plot for each kind. A name `kind/series` puts more than one curve of a report into a plot.
pub fn plots(reports: &[Stored], palette: &Palette) -> Result<Vec<Plot>, BenchError> {
    let mut kinds: Vec<(String, Vec<Curve<'_>>)> = Vec::new();
    for report in reports {
        for (name, latency) in report.curves.iter().filter(|(_, latency)| latency.count() > 0) {
            let (kind, series) = match name.split_once('/') {
                Some((kind, series)) => (kind, format!("{}, {series}", report.name)),
                None => (name, report.name.clone()),
            };
            match kinds.iter_mut().find(|(known, _)| known == kind) {
                Some((_, curves)) => curves.push((series, latency)),
                None => kinds.push((kind.to_owned(), vec![(series, latency)])),
            }
        }
    }
    kinds.iter().map(|(kind, curves)| plot(kind, curves, palette)).collect()
}

fn plot(kind: &str, curves: &[Curve<'_>], palette: &Palette) -> Result<Plot, BenchError> {
    let shown = &curves[..curves.len().min(CURVES_MAX)];
    let mut note = "A curve ends where its samples do: at p99.9 one in a thousand was slower. \
                    Both axes are logarithmic; all runs of a report are together."
        .to_owned();
    if curves.len() > shown.len() {
        note.push_str(&format!(" {} curves are left out.", curves.len() - shown.len()));
    }
    let legend = shown.iter().enumerate().map(|(index, (name, latency))| {
        (css(palette.colour(name, index)), format!("{name} ({} samples)", latency.count()))
    });
    let lines: Vec<Drawn> = shown
        .iter()
        .enumerate()
        .map(|(index, (name, latency))| (palette.colour(name, index), points(latency)))
        .collect();
    Ok(Plot {
        title: format!("Latency: {}", kind.replace('-', " ")),
        note,
        legend: legend.collect(),
        svg: draw(HEIGHT, |canvas| paint(canvas, &lines))?,
    })
}

/// Rarity (10 is p90, 100 is p99) and latency in ms, as far as there are samples.
fn points(latency: &Latency) -> Vec<(f64, f64)> {
    let count = latency.count() as f64;
    let steps = (count.log10() * f64::from(POINTS_A_DECADE)).ceil() as u32;
    let rarity = |step: u32| 10_f64.powf(f64::from(step) / f64::from(POINTS_A_DECADE)).min(count);
    let point = |rarity: f64| {
        let ms = latency.percentile(100.0 * (1.0 - 1.0 / rarity)).as_secs_f64() * 1e3;
        (rarity, ms.max(1e-3))
    };
    (0..=steps).map(|step| point(rarity(step))).collect()
}

fn paint(canvas: &Canvas<'_>, lines: &[Drawn]) -> Result<(), Box<dyn std::error::Error>> {
    let all = || lines.iter().flat_map(|(_, points)| points);
    let rarest = all().map(|point| point.0).fold(100.0, f64::max);
    let least = all().map(|point| point.1).fold(f64::MAX, f64::min) * 0.9;
    let most = all().map(|point| point.1).fold(0.0, f64::max) * 1.1;
    let xs = decades(1.0, rarest).into_iter().filter(|x| *x >= 10.0 && is_power(*x));
    let xs: Vec<f64> = [2.0].into_iter().chain(xs).collect();
    let mut chart = ChartBuilder::on(canvas)
        .margin(12)
        .margin_right(30)
        .x_label_area_size(48)
        .y_label_area_size(72)
        .build_cartesian_2d(
            (1.0..rarest).log_scale().with_key_points(xs),
            (least..most).log_scale().with_key_points(decades(least, most)),
        )?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(BLACK.mix(0.12))
        .label_style(font(13.0))
        .axis_desc_style(font(14.0))
        .x_label_formatter(&|x| percentile_name(*x))
        .y_label_formatter(&|y| short(*y))
        .x_desc("percentile")
        .y_desc("ms")
        .draw()?;
    for (colour, line) in lines {
        chart.draw_series(LineSeries::new(line.iter().copied(), colour.stroke_width(2)))?;
    }
    Ok(())
}

fn is_power(x: f64) -> bool {
    (x.log10() - x.log10().round()).abs() < 1e-9
}

fn percentile_name(rarity: f64) -> String {
    let digits = (rarity.log10().round() as usize).saturating_sub(2);
    format!("p{:.digits$}", 100.0 * (1.0 - 1.0 / rarity))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_curve_goes_as_far_as_its_samples() {
        let mut latency = Latency::default();
        (1..=1_000).for_each(|ms| latency.record(Duration::from_millis(ms)));
        let points = points(&latency);
        let near = |value: f64, exact: f64| (value / exact - 1.0).abs() < 2e-3;
        let (rarity, ms) = *points.last().expect("a curve has points");
        assert!(near(rarity, 1_000.0) && near(ms, 999.0), "{rarity} {ms}");
        let p90 = points.iter().find(|point| near(point.0, 10.0)).expect("a point at p90");
        assert!(near(p90.1, 900.0), "{p90:?}");
    }

    #[test]
    fn percentiles_have_their_names() {
        let names = [2.0, 10.0, 100.0, 1_000.0, 10_000.0].map(percentile_name);
        assert_eq!(names, ["p50", "p90", "p99", "p99.9", "p99.99"]);
    }
}
