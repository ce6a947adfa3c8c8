//! What a relay did, as text for people.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use tern_badlink::Figures;
use tern_netmodel::{Counts, Profile};

/// One of the counts.
type Value = fn(&Counts) -> u64;

/// One line while it runs.
pub fn line(figures: &Figures) -> String {
    let Figures { up, down, nat, clients, .. } = figures;
    format!(
        "up {}/{} ({} lost)  down {}/{} ({} lost)  clients {clients}  rebound {}",
        up.forwarded, up.offered, up.lost, down.forwarded, down.offered, down.lost, nat.rebound
    )
}

/// The table at the end.
pub fn totals(figures: &Figures) -> String {
    let rows: [(&str, Value); 10] = [
        ("packets in", |counts| counts.offered),
        ("bytes in", |counts| counts.offered_bytes),
        ("packets out", |counts| counts.forwarded),
        ("lost", |counts| counts.lost),
        ("  in bursts", |counts| counts.lost_in_burst),
        ("  in outages", |counts| counts.lost_in_outage),
        ("  queue full", |counts| counts.overflowed),
        ("doubled", |counts| counts.duplicated),
        ("reordered", |counts| counts.reordered),
        ("longest ms", |counts| counts.delay_ms_max),
    ];
    let mut text = format!("{:<14} {:>12} {:>12}\n", "", "up", "down");
    for (name, value) in rows {
        let (up, down) = (value(&figures.up), value(&figures.down));
        // Writing to a string does not fail.
        let _ = writeln!(text, "{name:<14} {up:>12} {down:>12}");
    }
    let nat = &figures.nat;
    let _ = writeln!(
        text,
        "clients {}; outer addresses {} ({} after silence, {} while in use), answers too late {}",
        figures.clients, nat.bindings, nat.expired, nat.rebound, nat.unbound
    );
    if figures.steps > 0 {
        let _ = writeln!(text, "steps of the timeline {}", figures.steps);
    }
    if figures.uncaptured > 0 {
        let _ = writeln!(text, "not written to a capture: {} packets", figures.uncaptured);
    }
    if figures.overrun > 0 {
        let _ = writeln!(text, "the relay itself dropped {} packets", figures.overrun);
    }
    text
}

/// The profiles.
pub fn list(profiles: &BTreeMap<String, Profile>) -> String {
    profiles.iter().fold(String::new(), |text, (name, profile)| {
        format!("{text}{name:<14} {}\n", profile.about)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_name_what_was_done_and_what_the_relay_could_not() {
        let up = Counts { offered: 10, lost: 3, overflowed: 2, ..Counts::default() };
        let mut figures = Figures { up, clients: 1, ..Figures::default() };
        let text = totals(&figures);
        assert!(text.contains("packets in               10            0"), "{text}");
        assert!(!text.contains("relay itself"), "{text}");
        figures.overrun = 4;
        assert!(totals(&figures).contains("the relay itself dropped 4"));
        assert!(line(&figures).starts_with("up 0/10 (3 lost)"));
    }
}
