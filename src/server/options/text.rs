//! The table for people: as `tern options` prints it, and as `OPTIONS.md`.

use std::fmt::Write as _;

use super::{Row, TABLE};

/// The list that `tern options` prints.
pub fn listing() -> String {
    let mut text = String::from(
        "Set each by the flag of `tern serve`, by its environment variable, or by its name in \
         the file\nDIR/tern.toml (or --config FILE). The first that is set wins, in this order.\n",
    );
    for row in TABLE {
        let _ = write!(
            text,
            "\n--{} {}\n    {}\n    Cost: {}\n    Default: {}{} · {}\n",
            row.name,
            row.unit,
            row.sentence,
            row.cost,
            default(row),
            limits(row),
            row.variable(),
        );
    }
    text
}

/// The page `OPTIONS.md`.
pub fn markdown() -> String {
    let mut text = String::from(
        "# Options of the server\n\n\
         Made by `tern options --markdown`; a test compares.\n\n\
         Set each by the flag of `tern serve` (`--workers 2`), by the environment (`TERN_WORKERS=2`), \
         or by its name in `tern.toml` in the data folder or a file named by `--config` \
         (`workers = 2`). The first that is set wins, in this order; then the default.\n\n\
         | option | unit or form | default | what it does | what it costs |\n\
         | --- | --- | --- | --- | --- |\n",
    );
    for row in TABLE {
        let _ = writeln!(
            text,
            "| `{}` | {}{} | {} | {} | {} |",
            row.name,
            row.unit.replace('|', " or "),
            limits(row),
            default(row),
            row.sentence,
            row.cost,
        );
    }
    text
}

fn default(row: &Row) -> &str {
    match row.default {
        "" => "none",
        default => default,
    }
}

fn limits(row: &Row) -> String {
    match &row.limits {
        Some(limits) => format!(", {} to {}", limits.start(), limits.end()),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_the_table() {
        assert_eq!(
            include_str!("../OPTIONS.md"),
            markdown(),
            "run `cargo run -- options --markdown > src/server/OPTIONS.md`"
        );
    }

    #[test]
    fn the_listing_has_every_option() {
        let listing = listing();
        for row in TABLE {
            assert!(listing.contains(&format!("\n--{} ", row.name)), "{}", row.name);
            assert!(listing.contains(&row.variable()), "{}", row.name);
        }
    }
}
