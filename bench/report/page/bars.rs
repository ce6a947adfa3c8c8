//! CPU time of the server per message: a bar for each report, divided by kind of thread.

use plotters::prelude::*;
use plotters::style::text_anchor::HPos;

use super::Plot;
use super::canvas::{Canvas, WIDTH, colour, css, draw, font, placed};
use crate::error::BenchError;
use crate::report::stored::Stored;

/// The group of figures that is shown.
const GROUP: &str = "server's CPU time";

/// Height of a bar with the gap below it, in pixels.
const ROW: i32 = 34;

/// Pixels left of the bars, for the reports' names.
const LEFT: i32 = 260;

/// Pixels right of the longest bar, for its figure.
const RIGHT: i32 = 230;

/// A kind of thread that has less than this share of every bar can't be seen; those are told
/// together.
const SEEN: f64 = 0.02;

/// Their name.
const OTHERS: &str = "other threads";

/// One bar.
struct Bar {
    name: String,
    /// Median in all, and how it is told.
    all: f64,
    text: String,
    /// By kind of thread.
    parts: Vec<(String, f64)>,
}

/// One plot, if a report has the figure.
pub fn plots(reports: &[Stored]) -> Result<Vec<Plot>, BenchError> {
    let mut bars: Vec<Bar> = reports.iter().filter_map(bar).collect();
    gather(&mut bars);
    if bars.is_empty() {
        return Ok(Vec::new());
    }
    let mut kinds: Vec<&str> = Vec::new();
    for (kind, _) in bars.iter().flat_map(|bar| &bar.parts) {
        if !kinds.contains(&kind.as_str()) {
            kinds.push(kind);
        }
    }
    let height = bars.len() as u32 * ROW as u32 + 20;
    let svg = draw(height, |canvas| paint(canvas, &bars, &kinds))?;
    let legend = kinds.iter().enumerate().map(|(n, kind)| (css(colour(n)), (*kind).to_owned()));
    Ok(vec![Plot {
        title: "Server's CPU time per message".to_owned(),
        note: "End to end: send, log, acknowledge, push to the other device and to the sender's \
               own, hear their acknowledgements. In µs: median (least to most) of the runs."
            .to_owned(),
        legend: legend.collect(),
        svg,
    }])
}

/// Puts together what is too little to be seen in any bar, behind the others.
fn gather(bars: &mut [Bar]) {
    let seen = |bar: &Bar| {
        let parts = bar.parts.iter().filter(|(_, us)| *us >= SEEN * bar.all);
        parts.map(|(kind, _)| kind.clone()).collect::<Vec<_>>()
    };
    let seen: Vec<String> = bars.iter().flat_map(seen).collect();
    for bar in bars {
        let (parts, few): (Vec<_>, Vec<_>) =
            std::mem::take(&mut bar.parts).into_iter().partition(|(kind, _)| seen.contains(kind));
        bar.parts = parts;
        if !few.is_empty() {
            bar.parts.push((OTHERS.to_owned(), few.iter().map(|(_, us)| us).sum()));
        }
    }
}

fn bar(report: &Stored) -> Option<Bar> {
    let all = report.spread(GROUP, "per message")?;
    let parts = report.figures().into_iter().filter_map(|figure| {
        let kind = figure.name.strip_prefix("by ").filter(|_| figure.group == GROUP)?;
        Some((kind.to_owned(), report.spread(GROUP, &figure.name)?.median))
    });
    let parts = parts.collect();
    Some(Bar { name: report.name.clone(), all: all.median, text: all.text(), parts })
}

fn paint(
    canvas: &Canvas<'_>,
    bars: &[Bar],
    kinds: &[&str],
) -> Result<(), Box<dyn std::error::Error>> {
    let longest = bars.iter().map(|bar| bar.all).fold(f64::MIN_POSITIVE, f64::max);
    let pixels = f64::from(WIDTH as i32 - LEFT - RIGHT) / longest;
    for (row, bar) in bars.iter().enumerate() {
        let (top, bottom) = (10 + row as i32 * ROW, 10 + row as i32 * ROW + ROW - 10);
        let middle = (top + bottom) / 2;
        let style = placed(font(14.0), HPos::Right);
        canvas.draw(&Text::new(bar.name.clone(), (LEFT - 10, middle), style))?;
        let mut at = 0.0;
        for (kind, us) in &bar.parts {
            let index = kinds.iter().position(|known| known == kind).unwrap_or(kinds.len());
            let x = |us: f64| LEFT + (us * pixels) as i32;
            let place = [(x(at), top), (x(at + us), bottom)];
            canvas.draw(&Rectangle::new(place, colour(index).filled()))?;
            at += us;
        }
        let end = LEFT + (at.max(bar.all) * pixels) as i32 + 8;
        let style = placed(font(14.0), HPos::Left);
        canvas.draw(&Text::new(format!("{} µs", bar.text), (end, middle), style))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_bar_shows_is_told_together() {
        let bar = |parts: &[(&str, f64)]| Bar {
            name: String::new(),
            all: parts.iter().map(|(_, us)| us).sum(),
            text: String::new(),
            parts: parts.iter().map(|(kind, us)| ((*kind).to_owned(), *us)).collect(),
        };
        let mut bars =
            [bar(&[("a", 99.0), ("b", 1.0), ("c", 0.5)]), bar(&[("a", 50.0), ("b", 50.0)])];
        gather(&mut bars);
        let kinds = |bar: &Bar| bar.parts.iter().map(|(kind, _)| kind.clone()).collect::<Vec<_>>();
        assert_eq!(kinds(&bars[0]), ["a", "b", OTHERS]);
        assert_eq!(kinds(&bars[1]), ["a", "b"]);
    }
}
