//! What many runs gave, as text for people.

use std::fmt::{self, Display, Formatter};
use std::time::Duration;

use crate::engine::EngineCounts;
use crate::fault::{Branches, Fault, Pairs, Tally};
use crate::quic::QuicCounts;
use crate::world::Outcome;

/// Totals of many runs.
#[derive(Clone, Debug, Default)]
pub struct Totals {
    /// Runs.
    pub seeds: u64,
    /// Things that happened.
    pub steps: u64,
    /// Virtual time in ms.
    pub virtual_ms: u64,
    /// Sends posted.
    pub sends: u64,
    /// Sends posted in the run that had the fewest.
    pub sends_least: Option<u64>,
    /// Messages acked.
    pub acked: u64,
    /// Messages shown.
    pub shown: u64,
    /// Places in channels that two devices of one user ended with.
    pub compared: u64,
    /// The longest time from heal to rest in ms.
    pub heal_ms_max: u64,
    /// Faults injected.
    pub tally: Tally,
    /// Ways through the machines that were gone.
    pub branches: Branches,
    /// Runs in which each fault was met.
    pub pairs: Pairs,
    /// What QUIC did, in the runs at the depth that has it.
    pub quic: Option<QuicTotals>,
    /// What the storage did, in the runs at the depth that has it.
    pub storage: Option<EngineCounts>,
    /// Runs with each fault.
    pub runs_with: std::collections::BTreeMap<Fault, u64>,
}

impl Totals {
    /// One more run.
    pub fn add(&mut self, outcome: &Outcome) {
        self.seeds += 1;
        self.steps += outcome.steps;
        self.virtual_ms += outcome.virtual_ms;
        self.sends += outcome.sends;
        self.sends_least =
            Some(self.sends_least.map_or(outcome.sends, |least| least.min(outcome.sends)));
        self.acked += outcome.acked;
        self.shown += outcome.shown;
        self.compared += outcome.compared;
        self.heal_ms_max = self.heal_ms_max.max(outcome.heal_ms);
        self.tally.add(&outcome.tally);
        self.branches.add(&outcome.branches);
        self.pairs.add(&outcome.tally);
        if let Some(counts) = &outcome.quic {
            self.quic.get_or_insert_default().add(counts);
        }
        if let Some(counts) = outcome.storage {
            *self.storage.get_or_insert_default() += counts;
        }
        for fault in outcome.tally.met() {
            *self.runs_with.entry(fault).or_default() += 1;
        }
    }

    /// One line of progress after this much real time.
    pub fn progress(&self, of: u64, real: Duration) -> String {
        let seconds = real.as_secs_f64().max(0.001);
        format!(
            "{} of {of} seeds, {:.1} seeds/s, {:.0} virtual s per real s, {} acked",
            self.seeds,
            self.seeds as f64 / seconds,
            self.virtual_ms as f64 / 1_000.0 / seconds,
            self.acked
        )
    }
}

impl Display for Totals {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} seeds, {:.1} virtual hours, {} steps; {} sends (least {}), {} acked, {} shown, {} \
             the same on two devices; longest heal {:.1} s\n",
            self.seeds,
            self.virtual_ms as f64 / 3_600_000.0,
            self.steps,
            self.sends,
            self.sends_least.unwrap_or(0),
            self.acked,
            self.shown,
            self.compared,
            self.heal_ms_max as f64 / 1_000.0
        )?;
        writeln!(f, "{:<15} {:>9} {:>7}  what it does", "fault", "injected", "seeds")?;
        for fault in Fault::ALL {
            let runs = self.runs_with.get(fault).copied().unwrap_or(0);
            let (label, count) = (fault.label(), self.tally.count(*fault));
            writeln!(f, "{label:<15} {count:>9} {runs:>7}  {}", fault.sentence())?;
        }
        if let Some(quic) = &self.quic {
            writeln!(f, "\n{quic}")?;
        }
        if let Some(storage) = &self.storage {
            writeln!(f, "\n{storage}")?;
        }
        writeln!(f, "\nways through the server:")?;
        for (name, count) in self.branches.iter() {
            writeln!(f, "{name:<20} {count:>10}")?;
        }
        let (met, of) = self.pairs.coverage();
        writeln!(f, "\npairs of faults met in one seed: {met} of {of}")
    }
}

/// What QUIC did in many runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct QuicTotals {
    sum: QuicCounts,
}

impl QuicTotals {
    fn add(&mut self, counts: &QuicCounts) {
        let (sum, host) = (&mut self.sum, &counts.host);
        sum.dialed += counts.dialed;
        sum.net += counts.net;
        sum.host.handshakes += host.handshakes;
        sum.host.retries += host.retries;
        sum.host.migrations += host.migrations;
        sum.host.resets += host.resets;
        sum.host.lost_packets += host.lost_packets;
        sum.host.congestion_events += host.congestion_events;
        sum.host.pushes_free += host.pushes_free;
        sum.host.pushes_doubled += host.pushes_doubled;
        sum.host.pushes_repaired += host.pushes_repaired;
        sum.host.pushes_repeated += host.pushes_repeated;
        sum.host.frames_free += host.frames_free;
    }
}

impl Display for QuicTotals {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let QuicCounts { host, net, dialed } = &self.sum;
        writeln!(
            f,
            "packets: {} sent, {} lost, {} doubled, {} out of order, longest {:.1} s",
            net.offered,
            net.lost,
            net.duplicated,
            net.reordered,
            net.delay_ms_max as f64 / 1_000.0
        )?;
        writeln!(
            f,
            "QUIC: {dialed} connections dialed, {} made, {} had to prove their address, {} times \
             an address changed, {} stateless resets, {} packets found lost, {} times congested",
            host.handshakes,
            host.retries,
            host.migrations,
            host.resets,
            host.lost_packets,
            host.congestion_events
        )?;
        writeln!(
            f,
            "datagrams: {} sends came by one, {} pushes left by one, {} of them by a second, {} \
             again by stream; {} went past the stream",
            host.frames_free,
            host.pushes_free,
            host.pushes_doubled,
            host.pushes_repaired,
            host.pushes_repeated
        )
    }
}

/// In how many runs each pair of faults was met, as a table.
pub struct Matrix<'a>(pub &'a Pairs);

impl Display for Matrix<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{:<15}", "")?;
        (0..Fault::ALL.len()).try_for_each(|column| write!(f, " {column:>4}"))?;
        writeln!(f)?;
        for (row, first) in Fault::ALL.iter().enumerate() {
            write!(f, "{:<15}", format!("{row} {}", first.label()))?;
            for (column, second) in Fault::ALL.iter().enumerate() {
                match column < row {
                    true => write!(f, " {:>4}", self.0.count(*first, *second))?,
                    false => write!(f, "     ")?,
                }
            }
            writeln!(f)?;
        }
        Ok(())
    }
}
