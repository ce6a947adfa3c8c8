//! Words to people: results on standard output, reasons on standard error.

use std::fmt::Display;
use std::io::Write;

use super::Exit;

/// Prints a result, flushed. A reader that went away (`tern user list | head -1`) is no panic.
pub(crate) fn print(text: &str) -> Exit {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Exit::Ok,
        Err(_) => Exit::Failed,
    }
}

/// Says why it was not done.
pub(crate) fn fail(exit: Exit, reason: impl Display) -> Exit {
    let _ = writeln!(std::io::stderr(), "tern: {reason}");
    exit
}

/// Says how far something is.
pub(super) fn note(text: &str) {
    let _ = writeln!(std::io::stderr(), "tern: {text}");
}

/// Lines of columns below a head, each as wide as its widest cell; a column of numbers stands to
/// the right.
pub(super) fn columns(rows: &[Vec<String>]) -> String {
    let count = rows.first().map_or(0, Vec::len);
    let cells = |column: usize| rows.iter().filter_map(move |row| row.get(column));
    let layout: Vec<(usize, bool)> = (0..count)
        .map(|column| {
            let width = cells(column).map(|cell| cell.chars().count()).max().unwrap_or(0);
            let is_number = |cell: &String| cell.chars().all(|c| c.is_ascii_digit() || c == '.');
            (width, cells(column).skip(1).all(is_number))
        })
        .collect();
    rows.iter().fold(String::new(), |text, row| {
        let cells = row.iter().zip(&layout).map(|(cell, &(width, right))| match right {
            true => format!("{cell:>width$}"),
            false => format!("{cell:width$}"),
        });
        text + cells.collect::<Vec<_>>().join("  ").trim_end() + "\n"
    })
}

/// `2026-11-22 04:44:11 UTC` from milliseconds since 1970 UTC.
pub(super) fn time(unix_ms: u64) -> String {
    let seconds = unix_ms / 1_000;
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = date(days);
    let (hour, minute, second) = (rest / 3_600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
}

/// `2026-11-22 04:44:11.073 UTC` from microseconds since 1970 UTC.
pub(super) fn time_us(unix_us: u64) -> String {
    let whole = time(unix_us / 1_000);
    let (clock, zone) = whole.split_at(whole.len() - " UTC".len());
    format!("{clock}.{:03}{zone}", unix_us / 1_000 % 1_000)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        assert_eq!(time(0), "1970-01-01 00:00:00 UTC");
        assert_eq!(time(951_782_400_000), "2000-02-29 00:00:00 UTC");
        assert_eq!(time(1_709_251_199_999), "2024-02-29 23:59:59 UTC");
        assert_eq!(time_us(951_782_400_073_999), "2000-02-29 00:00:00.073 UTC");
        assert_eq!(time(4_107_542_400_000), "2100-03-01 00:00:00 UTC");
    }

    #[test]
    fn columns_line_up() {
        let rows = [["name", "uin"], ["安", "7"], ["bob", "10002"]];
        let rows: Vec<Vec<String>> =
            rows.iter().map(|row| row.iter().map(ToString::to_string).collect()).collect();
        assert_eq!(columns(&rows), "name    uin\n安         7\nbob   10002\n");
    }
}
