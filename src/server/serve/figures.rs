//! The figures of `tern status`: what workers and logs count, with units.

use tern_core::counters::Counters;
use tern_core::placement::WorkerId;

use super::logs::OpenLogs;
use crate::control::status::{Figure, Sort, Table};
use crate::worker::{Counts, Doors, Snapshot};

/// Shares of the turns whose durations are shown, with their names.
const PERCENTILES: [(f64, &str); 4] =
    [(0.5, "turn_us_p50"), (0.99, "turn_us_p99"), (0.999, "turn_us_p999"), (1.0, "turn_us_max")];

/// What the workers published last.
pub(super) fn of_workers(doors: &Doors) -> Table {
    let workers = doors.placement().workers();
    let snapshots: Vec<Snapshot> =
        (0..workers).map(|worker| doors.board(WorkerId(worker)).snapshot()).collect();
    let mut table = Table::new((0..workers).map(|worker| format!("worker {worker}")));
    for (index, (name, sentence)) in Counters::DESCRIPTORS.into_iter().enumerate() {
        let values = snapshots.iter().map(|shot| shot.core[index]).collect();
        table.push(figure(name, sort_of(name), sentence, values));
    }
    let driver: Vec<_> = snapshots.iter().map(|shot| shot.driver.values()).collect();
    for (index, (name, sentence)) in Counts::DESCRIPTORS.into_iter().enumerate() {
        let values = driver.iter().map(|values| values[index]).collect();
        table.push(figure(name, sort_of(name), sentence, values));
    }
    for (share, name) in PERCENTILES {
        let sentence = format!("{} % of the turns that did something took less", share * 100.0);
        let values = snapshots.iter().map(|shot| shot.turns.percentile_us(share)).collect();
        table.push(figure(name, Sort::Level, &sentence, values));
    }
    table
}

/// What the logs count now.
pub(super) fn of_logs(logs: &OpenLogs) -> Table {
    let shards = logs.figures();
    let mut table = Table::new(shards.iter().map(|(shard, _)| format!("shard {}", shard.0)));
    for (index, (name, sort, sentence)) in OpenLogs::DESCRIPTORS.into_iter().enumerate() {
        let values = shards.iter().map(|(_, values)| values[index]).collect();
        table.push(figure(name, sort, sentence, values));
    }
    table
}

fn figure(name: &str, sort: Sort, sentence: &str, values: Vec<u64>) -> Figure {
    Figure {
        name: name.to_owned(),
        unit: unit_of(name).to_owned(),
        sort,
        sentence: sentence.to_owned(),
        values,
    }
}

/// By our way of naming: what is so at the moment ends in `_now`, the most ever in `_max`.
fn sort_of(name: &str) -> Sort {
    match name.rsplit_once('_') {
        Some((_, "now")) => Sort::Gauge,
        Some((_, "max")) => Sort::Level,
        _ => Sort::Count,
    }
}

/// By our way of naming: a name that counts something else than events says its unit.
fn unit_of(name: &str) -> &'static str {
    let says = |unit: &str| name.split('_').any(|word| word == unit);
    match () {
        () if says("us") => "µs",
        () if says("s") => "s",
        () if says("bytes") => "bytes",
        () if says("now") => "now",
        () => "events",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tern_core::placement::Placement;

    #[test]
    fn every_figure_has_a_row_with_its_unit() {
        let (doors, _seats) = Doors::open(Placement::new(4, 2)).expect("descriptors");
        let table = of_workers(&doors);
        assert_eq!(table.columns, ["worker 0", "worker 1"]);
        assert_eq!(table.rows.len(), Counters::LEN + Counts::LEN + PERCENTILES.len());
        let mut names: Vec<_> = table.rows.iter().map(|figure| &figure.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), table.rows.len(), "no name stands twice");
        let unit = |name| table.figure(name).map(|figure| figure.unit.as_str());
        assert_eq!(unit("turn_us_p99"), Some("µs"));
        assert_eq!(unit("bytes_in"), Some("bytes"));
        assert_eq!(unit("sessions_now"), Some("now"));
        assert_eq!(unit("sends_duplicate"), Some("events"));
    }
}
