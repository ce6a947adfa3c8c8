//! The life of a message as a picture: a line for the server and one for each device, an arrow for
//! each frame.

use std::fmt::Write as _;

use super::life::Life;
use crate::event::Who;
use crate::quic::Way;

/// Distance between two lifelines, in pixels: a label of some thirty letters fits.
const COLUMN_PX: usize = 260;

/// Distance between two arrows, in pixels.
const ROW_PX: usize = 34;

/// Space around the picture, in pixels.
const MARGIN_PX: usize = 40;

/// Width of the column of times, in pixels.
const TIMES_PX: usize = 90;

/// Draws it.
pub fn draw(life: &Life) -> String {
    let columns = columns(life);
    let width = TIMES_PX + MARGIN_PX * 2 + COLUMN_PX * columns.len().saturating_sub(1) + COLUMN_PX;
    let height = MARGIN_PX * 3 + ROW_PX * (life.steps.len() + 1);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
         font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <defs><marker id=\"tip\" markerWidth=\"9\" markerHeight=\"8\" refX=\"9\" refY=\"4\" \
         orient=\"auto\"><path d=\"M0,0 L9,4 L0,8 z\"/></marker></defs>\n\
         <text x=\"{MARGIN_PX}\" y=\"24\" font-size=\"15\">message {} of channel {}</text>\n",
        life.id, life.channel
    );
    lifelines(&mut svg, &columns, height);
    for (row, step) in life.steps.iter().enumerate() {
        let y = MARGIN_PX * 2 + ROW_PX * (row + 1);
        let device = x_of(&columns, Some(step.who));
        let server = x_of(&columns, None);
        let (from, to) = match step.way {
            Way::ToServer => (device, server),
            Way::ToClient => (server, device),
        };
        let (left, label) = (from.min(to) + 8, escaped(&step.label));
        // Writing to a string does not fail.
        let _ = writeln!(
            svg,
            "<text x=\"{MARGIN_PX}\" y=\"{y}\" fill=\"#666\">{:.3} ms</text>\n\
             <line x1=\"{from}\" y1=\"{y}\" x2=\"{to}\" y2=\"{y}\" stroke=\"black\" \
             marker-end=\"url(#tip)\"/>\n<text x=\"{left}\" y=\"{}\">{label}</text>",
            life.after(step),
            y - 5,
        );
    }
    svg + "</svg>\n"
}

/// The sender, the server, then the receivers.
fn columns(life: &Life) -> Vec<Option<Who>> {
    let mut columns: Vec<Option<Who>> = life.devices.iter().copied().map(Some).collect();
    columns.insert(1.min(columns.len()), None);
    columns
}

fn x_of(columns: &[Option<Who>], column: Option<Who>) -> usize {
    let at = columns.iter().position(|other| *other == column).unwrap_or(0);
    TIMES_PX + MARGIN_PX * 2 + COLUMN_PX * at
}

fn lifelines(svg: &mut String, columns: &[Option<Who>], height: usize) {
    for column in columns {
        let x = x_of(columns, *column);
        let name = column.map_or_else(
            || "server".to_owned(),
            |who| format!("user {} device {}", who.uin, who.device),
        );
        let (top, bottom) = (MARGIN_PX * 2, height - MARGIN_PX / 2);
        let _ = writeln!(
            svg,
            "<text x=\"{x}\" y=\"{}\" text-anchor=\"middle\">{name}</text>\n\
             <line x1=\"{x}\" y1=\"{top}\" x2=\"{x}\" y2=\"{bottom}\" stroke=\"#999\" \
             stroke-dasharray=\"4 4\"/>",
            top - 8,
        );
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
