//! What all plots share: a canvas that becomes SVG, colours, and text in the reader's own font.

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::error::BenchError;

/// Pixels of a plot's width; the page is as wide.
pub const WIDTH: u32 = 960;

/// Where plots are drawn.
pub type Canvas<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Colours that are told apart also by people who see fewer of them (Okabe and Ito).
const COLOURS: [RGBColor; 8] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(0, 0, 0),
    RGBColor(150, 140, 40),
];

/// The colour of the nth series.
pub fn colour(index: usize) -> RGBColor {
    COLOURS[index % COLOURS.len()]
}

/// Who has which colour, in all plots of a page.
pub struct Palette(Vec<String>);

impl Palette {
    /// A colour for each of these, as long as there are enough.
    pub fn new(names: Vec<String>) -> Self {
        Self(names)
    }

    /// The colour of a series that is the nth of its plot.
    pub fn colour(&self, name: &str, index: usize) -> RGBColor {
        let own = self.0.iter().position(|known| known == name);
        colour(own.filter(|_| self.0.len() <= COLOURS.len()).unwrap_or(index))
    }
}

/// A colour as a page writes it.
pub fn css(colour: RGBColor) -> String {
    format!("#{:02x}{:02x}{:02x}", colour.0, colour.1, colour.2)
}

/// Text of this size in pixels; the drawing library makes it a quarter smaller, which is undone.
pub fn font<'a>(pixels: f64) -> TextStyle<'a> {
    /// What the library divides sizes by.
    const SHRINK: f64 = 1.24;
    ("sans-serif", pixels * SHRINK).into_font().into()
}

/// Text that stands in the middle of a place, or begins or ends there, at half height.
pub fn placed(style: TextStyle<'_>, at: HPos) -> TextStyle<'_> {
    style.pos(Pos::new(at, VPos::Center))
}

/// Draws on a white canvas of this height.
///
/// # Errors
/// When the library can't.
pub fn draw(
    height: u32,
    paint: impl FnOnce(&Canvas<'_>) -> Result<(), Box<dyn std::error::Error>>,
) -> Result<String, BenchError> {
    let mut svg = String::new();
    {
        let canvas = SVGBackend::with_string(&mut svg, (WIDTH, height)).into_drawing_area();
        let drawn = canvas.fill(&WHITE).map_err(Into::into).and_then(|()| paint(&canvas));
        let drawn = drawn.and_then(|()| canvas.present().map_err(Into::into));
        drawn.map_err(|error| BenchError::Load(format!("a plot can't be drawn: {error}")))?;
    }
    Ok(svg)
}

/// Round numbers of a logarithmic axis from `least` to `most`: powers of ten, and between them
/// 2 and 5 where there is room.
pub fn decades(least: f64, most: f64) -> Vec<f64> {
    let (from, to) = (least.log10().floor() as i32, most.log10().ceil() as i32);
    let steps: &[f64] = if to - from <= 3 { &[1.0, 2.0, 5.0] } else { &[1.0] };
    let all = (from..=to).flat_map(|power| steps.iter().map(move |s| s * 10_f64.powi(power)));
    all.filter(|value| (least..=most).contains(value)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_have_round_numbers() {
        let near = |a: Vec<f64>, b: &[f64]| {
            assert_eq!(a.len(), b.len(), "{a:?}");
            a.iter().zip(b).for_each(|(a, b)| assert!((a / b - 1.0).abs() < 1e-9, "{a}"));
        };
        near(decades(0.1, 10.0), &[0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0]);
        near(decades(0.05, 9_000.0), &[0.1, 1.0, 10.0, 100.0, 1_000.0]);
    }
}
