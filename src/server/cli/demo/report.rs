//! The ledger for people, and in one line for programs.

use std::fmt::Write;
use std::time::Duration;

use tern_netmodel::Counts;

use super::ledger::{Kind, Verdict};

/// Anomalies that are told one by one; the others are counted.
const TOLD_MAX: usize = 20;

/// Everything that the end of a run is told from.
#[derive(Clone, Copy, Debug)]
pub struct Findings<'a> {
    /// The seed of the run.
    pub seed: u64,
    /// What the devices are called.
    pub names: &'a [&'a str],
    /// What the ledger says.
    pub verdict: &'a Verdict,
    /// What happened to the packets of all links.
    pub counts: Counts,
}

impl Findings<'_> {
    /// The ledger for people.
    pub fn table(&self) -> String {
        let mut text = String::from("\n");
        self.write_table(&mut text).expect("writing to memory does not fail");
        text
    }

    /// The ledger in one line: `demo seed=1 sent=400 …`.
    pub fn line(&self) -> String {
        let devices = &self.verdict.devices;
        let sum = |what: fn(&super::ledger::DeviceSum) -> usize| -> usize {
            devices.iter().map(what).sum()
        };
        let [lost, duplicated, disordered, answers] = self.broken();
        format!(
            "demo seed={} sent={} acked={} delivered={} lost={lost} dup={duplicated} \
             reorder={disordered} answers={answers} ack_p50_ms={} ack_p99_ms={} \
             receive_p50_ms={} receive_p99_ms={}\n",
            self.seed,
            sum(|device| device.sent),
            sum(|device| device.acked),
            sum(|device| device.delivered),
            quantile(&self.verdict.ack_times, 50).as_millis(),
            quantile(&self.verdict.ack_times, 99).as_millis(),
            quantile(&self.verdict.receive_times, 50).as_millis(),
            quantile(&self.verdict.receive_times, 99).as_millis(),
        )
    }

    fn broken(&self) -> [usize; 4] {
        [Kind::Lost, Kind::Duplicated, Kind::OutOfOrder, Kind::Answer]
            .map(|kind| self.verdict.count(kind))
    }

    fn write_table(&self, text: &mut String) -> std::fmt::Result {
        let head: String = self.names.iter().map(|name| format!("{name:>10}")).collect();
        writeln!(text, "{:26}{head}", format!("Ledger (seed {})", self.seed))?;
        let devices = &self.verdict.devices;
        let mut row = |label: &str, cells: Vec<String>| {
            let cells: String = cells.iter().map(|cell| format!("{cell:>10}")).collect();
            writeln!(text, "  {label:24}{cells}")
        };
        row("sent", devices.iter().map(|device| device.sent.to_string()).collect())?;
        row("acked", devices.iter().map(|device| device.acked.to_string()).collect())?;
        row("delivered", devices.iter().map(|device| device.delivered.to_string()).collect())?;
        row(
            "shown again after a kill",
            devices.iter().map(|d| d.shown_again.to_string()).collect(),
        )?;
        let [lost, duplicated, disordered, answers] = self.broken();
        writeln!(
            text,
            "\n  lost {lost}, duplicated {duplicated}, out of order {disordered}, missing or wrong \
             answers {answers}\n"
        )?;
        self.write_times(text)?;
        self.write_links(text)?;
        self.write_anomalies(text)
    }

    fn write_times(&self, text: &mut String) -> std::fmt::Result {
        for (label, times) in [
            ("send to ack", &self.verdict.ack_times),
            ("send to receive", &self.verdict.receive_times),
        ] {
            let [p50, p99, most] = [50, 99, 100].map(|part| quantile(times, part).as_millis());
            writeln!(text, "  {label:18} p50 {p50:>6} ms   p99 {p99:>6} ms   most {most:>6} ms")?;
        }
        Ok(())
    }

    fn write_links(&self, text: &mut String) -> std::fmt::Result {
        let Counts { offered, forwarded, lost, duplicated, reordered, .. } = self.counts;
        writeln!(
            text,
            "  links              {offered} packets in, {forwarded} out: {lost} lost ({}), \
             {duplicated} duplicated, {reordered} reordered",
            percent(lost, offered),
        )
    }

    fn write_anomalies(&self, text: &mut String) -> std::fmt::Result {
        let anomalies = &self.verdict.anomalies;
        if !anomalies.is_empty() {
            writeln!(text)?;
        }
        for anomaly in anomalies.iter().take(TOLD_MAX) {
            writeln!(text, "  {}", anomaly.describe(self.names))?;
        }
        match anomalies.len().saturating_sub(TOLD_MAX) {
            0 => Ok(()),
            more => writeln!(text, "  and {more} more"),
        }
    }
}

fn percent(part: u64, whole: u64) -> String {
    match whole {
        0 => "none".to_owned(),
        whole => format!("{:.1} %", 100.0 * part as f64 / whole as f64),
    }
}

/// The time that so many of a hundred did not exceed; zero if there are none.
fn quantile(sorted: &[Duration], of_100: usize) -> Duration {
    let rank = (sorted.len() * of_100).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::ledger::{DeviceNo, Ledger, Mark, Showing};
    use super::*;

    fn verdict() -> Verdict {
        let mut ledger = Ledger::new(2, 0);
        for number in 1..=30 {
            let (mark, at) = (Mark { by: DeviceNo(0), number }, Duration::from_millis(number));
            ledger.sent(Duration::ZERO, mark);
            ledger.acked(at, mark, number);
            let showing = Showing { device: DeviceNo(0), life: 1, id: number, mark: Some(mark) };
            ledger.showed(at, showing);
        }
        ledger.verdict()
    }

    #[test]
    fn broken_promises_are_counted_and_told_up_to_a_bound() {
        let verdict = verdict();
        let counts = Counts { offered: 10, lost: 2, ..Counts::default() };
        let findings = Findings { seed: 7, names: &["ann", "bob"], verdict: &verdict, counts };
        let table = findings.table();
        assert!(table.contains("lost 30, duplicated 0, out of order 0"), "{table}");
        assert!(table.contains("10 packets in, 0 out: 2 lost (20.0 %)"), "{table}");
        assert!(table.contains("lost: message 20 of ann, acked as 20, at bob"), "{table}");
        assert!(table.ends_with("  and 10 more\n"), "{table}");
        let line = findings.line();
        assert!(line.starts_with("demo seed=7 sent=30 acked=30 delivered=30 lost=30 dup=0 "));
        assert!(line.contains(" ack_p50_ms=15 ack_p99_ms=30 "), "{line}");
    }

    #[test]
    fn quantiles_are_values_that_occurred() {
        let times: Vec<_> = (1..=200).map(Duration::from_millis).collect();
        assert_eq!(quantile(&times, 50), Duration::from_millis(100));
        assert_eq!(quantile(&times, 99), Duration::from_millis(198));
        assert_eq!(quantile(&times, 100), Duration::from_millis(200));
        assert_eq!(quantile(&[], 99), Duration::ZERO);
    }
}
