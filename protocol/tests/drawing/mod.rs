//! Draws a payload on a ruler of eight bytes, and lists its fields.

use std::fmt::Write;

use tern_protocol::frames::{Field, Layout, Tail};

/// Bytes on one line of a drawing.
const RULER_BYTES: usize = 8;

/// Columns of one byte, its left border included: the longest name of a `u16` just fits.
const BYTE_COLUMNS: usize = 9;

/// Drawing and table of a payload, in Markdown.
pub(crate) fn frame(layout: &Layout) -> String {
    let mut text = format!("```text\n{}", ruler());
    for line in (0..layout.fixed_bytes()).step_by(RULER_BYTES) {
        let _ = writeln!(text, "{}\n{}", border(layout, line), cells(layout, line));
    }
    let _ = writeln!(text, "{}", border(layout, layout.fixed_bytes()));
    text.push_str(&tail(layout.tail));
    text.push_str("```\n\n| at | bytes | field | |\n|---|---|---|---|\n");
    for Field { name, at, bytes, text: meaning } in layout.fields {
        let _ = writeln!(text, "| {at} | {bytes} | `{name}` | {} |", plain(meaning));
    }
    if let Tail::Bytes(name) = layout.tail {
        let _ = writeln!(text, "| {} | rest | `{name}` | |", layout.fixed_bytes());
    }
    text
}

fn ruler() -> String {
    let numbers: String = (0..RULER_BYTES).map(|byte| format!(" {byte:<8}")).collect();
    format!("{}\n", numbers.trim_end())
}

/// The line above the byte at `line`: open where a field goes on from the row above.
fn border(layout: &Layout, line: usize) -> String {
    let mut text = String::from("+");
    for at in line..line + RULER_BYTES {
        let goes_on = line > 0 && field(layout, at) == field(layout, at - RULER_BYTES);
        let goes_on = goes_on && line < layout.fixed_bytes();
        let inside = at + 1 < line + RULER_BYTES && field(layout, at) == field(layout, at + 1);
        text.push_str(if goes_on { "        " } else { "--------" });
        text.push(if goes_on && inside { ' ' } else { '+' });
    }
    text
}

fn cells(layout: &Layout, line: usize) -> String {
    let mut text = String::new();
    let mut at = line;
    while at < line + RULER_BYTES {
        let field = field(layout, at).expect("fixed parts fill whole rows");
        let end = (field.at + field.bytes).min(line + RULER_BYTES);
        let width = (end - at) * BYTE_COLUMNS - 1;
        let label = if field.at == at { label(field.name, width) } else { String::new() };
        let _ = write!(text, "|{label:<width$}");
        at = end;
    }
    text + "|"
}

fn label(name: &str, width: usize) -> String {
    let name = if name.starts_with("reserved") { "0" } else { name };
    assert!(name.len() <= width, "{name} does not fit its drawing");
    if name.len() < width { format!(" {name}") } else { name.to_string() }
}

fn tail(tail: Tail) -> String {
    let width = RULER_BYTES * BYTE_COLUMNS - 1;
    match tail {
        Tail::None => String::new(),
        Tail::Bytes(name) => {
            format!("|{:<width$}\n", format!(" {name}, to the end of the payload ..."))
        }
        Tail::Repeat => format!("|{:<width$}\n", " and so on for each further channel ..."),
    }
    .lines()
    .map(|line| format!("{}\n", line.trim_end()))
    .collect()
}

fn field(layout: &Layout, at: usize) -> Option<&'static Field> {
    layout.fields.iter().find(|field| (field.at..field.at + field.bytes).contains(&at))
}

/// A doc comment without links into the code: ``[`crate::Code`]`` becomes `` `Code` ``.
pub(crate) fn plain(doc: &str) -> String {
    let mut text = String::new();
    let mut rest = doc.trim();
    while let Some((before, link)) = rest.split_once("[`") {
        let (path, behind) = link.split_once("`]").expect("a link in a doc comment ends");
        let name = path.rsplit("::").next().unwrap_or(path);
        let _ = write!(text, "{before}`{name}`");
        rest = behind;
    }
    text + rest
}

/// `65535` as `65,535`; anything but a number as it is.
pub(crate) fn grouped(number: &str) -> String {
    if number.bytes().any(|byte| !byte.is_ascii_digit()) || number == "5190" {
        return number.to_string();
    }
    let digits = number.bytes().rev().collect::<Vec<_>>();
    let groups: Vec<String> = digits
        .chunks(3)
        .map(|group| group.iter().rev().map(|digit| char::from(*digit)).collect())
        .collect();
    groups.into_iter().rev().collect::<Vec<_>>().join(",")
}
