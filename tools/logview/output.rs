//! Lines to standard output, for people or for programs.

use std::io::{self, BufWriter, StdoutLock, Write};

use serde_json::Value;

/// Where results go.
pub(crate) struct Out {
    json: bool,
    out: BufWriter<StdoutLock<'static>>,
}

impl Out {
    pub(crate) fn new(json: bool) -> Self {
        Self { json, out: BufWriter::new(io::stdout().lock()) }
    }

    /// Whether programs read it.
    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    /// One fact: a line of JSON, or a line of text unless that is empty.
    pub(crate) fn fact(
        &mut self,
        json: impl FnOnce() -> Value,
        text: impl FnOnce() -> String,
    ) -> io::Result<()> {
        if self.json {
            return writeln!(self.out, "{}", json());
        }
        match text() {
            text if text.is_empty() => Ok(()),
            text => writeln!(self.out, "{text}"),
        }
    }

    /// A line for people only.
    pub(crate) fn text(&mut self, text: &str) -> io::Result<()> {
        if self.json { Ok(()) } else { writeln!(self.out, "{text}") }
    }

    /// Everything so far is on its way.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Lines of columns below a head, each as wide as its widest cell, numbers to the right.
pub(crate) fn columns(rows: &[Vec<String>]) -> String {
    let count = rows.first().map_or(0, Vec::len);
    let layout: Vec<(usize, bool)> = (0..count)
        .map(|column| {
            let cells = || rows.iter().map(move |row| row[column].as_str());
            let width = cells().map(|cell| cell.chars().count()).max().unwrap_or(0);
            (width, cells().skip(1).all(|cell| cell.bytes().all(|b| b.is_ascii_digit())))
        })
        .collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&layout).map(|(cell, &(width, right))| match right {
            true => format!("{cell:>width$}"),
            false => format!("{cell:width$}"),
        });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// `2026-11-22 04:44:11.120` (UTC) from milliseconds since 1970 UTC.
pub(crate) fn time(unix_ms: u64) -> String {
    let (seconds, ms) = (unix_ms / 1_000, unix_ms % 1_000);
    let (year, month, day) = date(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}.{ms:03}")
}

/// The Gregorian date of a day since 1970-01-01, counted in 400-year cycles that begin in March
/// (Howard Hinnant, "chrono-compatible low-level date algorithms").
fn date(days: u64) -> (u64, u64, u64) {
    let from_march_0000 = days + 719_468;
    let (cycle, day) = (from_march_0000 / 146_097, from_march_0000 % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let (date, month) =
        (day - (153 * month + 2) / 5 + 1, if month < 10 { month + 3 } else { month - 9 });
    (400 * cycle + year + u64::from(month <= 2), month, date)
}

/// Bytes as lower-case digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Bytes in a unit that people read.
pub(crate) fn size(bytes: u64) -> String {
    match bytes {
        0..1024 => format!("{bytes} B"),
        1024..0x10_0000 => format!("{:.1} KiB", bytes as f64 / 1024.0),
        _ => format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        assert_eq!(time(0), "1970-01-01 00:00:00.000");
        assert_eq!(time(951_782_400_007), "2000-02-29 00:00:00.007");
        assert!(time(u64::MAX).contains(':'), "damaged bytes are no panic");
    }

    #[test]
    fn columns_line_up() {
        let rows = [["name", "n"], ["a", "7"], ["bob", "10"]];
        let rows: Vec<Vec<String>> =
            rows.iter().map(|row| row.iter().map(ToString::to_string).collect()).collect();
        assert_eq!(columns(&rows), "name   n\na      7\nbob   10");
    }

    #[test]
    fn sizes() {
        assert_eq!([size(56), size(1536), size(4 << 20)], ["56 B", "1.5 KiB", "4.0 MiB"]);
    }
}
