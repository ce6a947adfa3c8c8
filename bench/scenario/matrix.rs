//! All of [`loss`](super::loss): each share of loss over each round trip, single and in bursts, with
//! each carrier, each cell on a server of its own. Some named cells get messages enough for their
//! tail; the rest says how the tail grows.

use clap::ValueEnum as _;
use serde::Serialize;

use super::loss::{Carrier, Loss};
use super::{on_fresh_server, parse_seconds};
use crate::error::BenchError;
use crate::measure::curves::Curves;
use crate::report::{Figure, Run};
use crate::system::Plan;

/// Shares of packets that are lost, in percent: none, a good mobile network, the published profile
/// of the field, and what people meet in trains, cellars and crowds.
const LOSSES: [f64; 7] = [0.0, 1.0, 3.5, 5.0, 10.0, 20.0, 30.0];

/// Round trips in ms: the same town, another country, the published median of mobile devices.
const RTTS: [u64; 3] = [20, 100, 350];

/// Packets in a row that a burst loses on average.
const BURST: f64 = 3.0;

/// The named cells: round trip in ms, loss in percent, mean burst.
const NAMED: [(u64, f64, f64); 6] = [
    (20, 1.0, 1.0),
    (100, 3.5, 1.0),
    (100, 5.0, BURST),
    (100, 20.0, 1.0),
    (350, 3.5, 1.0),
    (350, 3.5, BURST),
];

/// The command line of this scenario.
#[derive(Clone, Debug, clap::Args, Serialize)]
pub struct Matrix {
    /// Messages of each of the six named cells at least
    #[arg(long, default_value_t = 5_000)]
    named: u32,
    /// Messages of each other cell at least
    #[arg(long, default_value_t = 1_500)]
    other: u32,
    /// Only the named cells
    #[arg(long)]
    only_named: bool,
    /// Only this carrier
    #[arg(long, value_enum)]
    carrier: Option<Carrier>,
    /// Pairs of devices, each device of a user of its own
    #[arg(long, default_value_t = 150)]
    pairs: usize,
    /// Mean time between two messages of a pair, in seconds
    #[arg(long, value_name = "S", default_value_t = 0.7, value_parser = parse_seconds)]
    every: f64,
    /// Bytes of content of each message
    #[arg(long, default_value_t = 100)]
    bytes: usize,
    /// One seed gives one schedule, and one series of losses
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// One cell.
#[derive(Clone, Copy, Debug)]
struct Cell {
    carrier: Carrier,
    rtt: u64,
    loss: f64,
    burst: f64,
    is_named: bool,
}

impl Matrix {
    pub(super) fn check(&self) -> Result<(), BenchError> {
        self.cells().iter().try_for_each(|cell| self.loss(cell).check())
    }

    pub(super) fn run(&self, plan: &Plan) -> Result<Run, BenchError> {
        let cells = self.cells();
        let mut all = Run::default();
        for (index, cell) in cells.iter().enumerate() {
            eprintln!("  cell {} of {}: {}", index + 1, cells.len(), cell.name());
            let loss = self.loss(cell);
            let mut plan = plan.clone();
            loss.server_options().into_iter().for_each(|(name, value)| plan.prefer(name, value));
            let run = on_fresh_server(&plan, |server| loss.measure(server))?;
            all.figures.extend(cell.figures(&run));
            if cell.is_named {
                cell.keep_curves(&run.curves, &mut all.curves);
            }
        }
        Ok(all)
    }

    fn cells(&self) -> Vec<Cell> {
        let mut cells = Vec::new();
        for rtt in RTTS {
            for burst in [1.0, BURST] {
                for loss in LOSSES.into_iter().filter(|loss| burst == 1.0 || *loss > 0.0) {
                    let is_named = NAMED.contains(&(rtt, loss, burst));
                    let carriers = Carrier::value_variants().iter().copied();
                    let carriers = carriers.filter(|one| self.carrier.is_none_or(|c| c == *one));
                    cells.extend(carriers.map(|carrier| Cell {
                        carrier,
                        rtt,
                        loss,
                        burst,
                        is_named,
                    }));
                }
            }
        }
        cells.retain(|cell| cell.is_named || !self.only_named);
        cells
    }

    fn loss(&self, cell: &Cell) -> Loss {
        let messages = if cell.is_named { self.named } else { self.other };
        Loss {
            carrier: cell.carrier,
            rtt: cell.rtt,
            loss: cell.loss,
            burst: cell.burst,
            pairs: self.pairs,
            every: self.every,
            // A Poisson schedule may have fewer than it should.
            seconds: 1.05 * f64::from(messages) * self.every / self.pairs as f64,
            bytes: self.bytes,
            seed: self.seed,
        }
    }
}

impl Cell {
    fn place(&self) -> String {
        let Self { rtt, loss, burst, .. } = self;
        let kind = if *burst > 1.0 { format!(" in bursts of {burst}") } else { String::new() };
        format!("{rtt} ms with {loss} % lost{kind}")
    }

    fn carrier(&self) -> &'static str {
        match self.carrier {
            Carrier::Streams => "streams",
            Carrier::Repeated => "repeated",
            Carrier::Datagrams => "datagrams",
            Carrier::Doubled => "doubled",
        }
    }

    fn name(&self) -> String {
        format!("{}, {}", self.place(), self.carrier())
    }

    /// What the matrix keeps of a cell.
    fn figures(&self, run: &Run) -> Vec<Figure> {
        let group = self.name();
        let by_datagram = match self.carrier {
            Carrier::Streams => 0.0,
            Carrier::Datagrams => 1.0,
            Carrier::Doubled => 2.0,
            Carrier::Repeated => 3.0,
        };
        let mut figures = vec![
            Figure::new(&group, "round trip", "ms", self.rtt as f64),
            Figure::new(&group, "loss", "%", self.loss),
            Figure::new(&group, "burst", "packets", self.burst),
            Figure::new(&group, "by datagram", "copies", by_datagram),
        ];
        let kept = [
            ("send to receive", "p50"),
            ("send to receive", "p90"),
            ("send to receive", "p99"),
            ("send to receive", "p99.9"),
            ("send to receive", "max"),
            ("send to receive", "samples"),
            ("path", "packets lost"),
            ("counts per acked message", "datagrams_in"),
            ("counts per acked message", "datagrams_out"),
            ("counts per acked message", "bytes_out"),
            ("counts per acked message", "pushes_doubled"),
            ("disturbance", super::OTHERS),
        ];
        for (from, name) in kept {
            let found = run.figures.iter().find(|f| f.group == from && f.name == name);
            figures.extend(found.map(|found| Figure { group: group.clone(), ..found.clone() }));
        }
        figures
    }

    /// A named cell's curves: one plot for each cell, one curve for each carrier.
    fn keep_curves(&self, from: &Curves, into: &mut Curves) {
        let name = format!("send to receive over {}/{}", self.place(), self.carrier());
        into.add(&name, from.get("send to receive"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_named_cells_are_cells() {
        let matrix = Matrix {
            named: 5_000,
            other: 100,
            only_named: false,
            carrier: None,
            pairs: 100,
            every: 0.7,
            bytes: 100,
            seed: 1,
        };
        let cells = matrix.cells();
        assert_eq!(cells.len(), 4 * (3 * 7 + 3 * 6), "four carriers, single and in bursts");
        assert_eq!(cells.iter().filter(|cell| cell.is_named).count(), 4 * NAMED.len());
        let only = Matrix { only_named: true, carrier: Some(Carrier::Streams), ..matrix };
        assert_eq!(only.cells().len(), NAMED.len());
    }
}
