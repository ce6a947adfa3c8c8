//! Latencies, kept in a histogram of three significant digits.

use std::time::Duration;

use hdrhistogram::Histogram;

use crate::report::Figure;

/// The percentiles that are reported, with their names.
const PERCENTILES: [(&str, f64); 5] =
    [("p50", 50.0), ("p90", 90.0), ("p99", 99.0), ("p99.9", 99.9), ("p99.99", 99.99)];

/// Significant digits that are kept: a thousandth of each value, at 200 KB a histogram.
const DIGITS: u8 = 3;

/// Longest latency that is told from a longer one.
const LONGEST: Duration = Duration::from_secs(600);

/// Latencies of one kind.
#[derive(Clone, Debug)]
pub struct Latency {
    histogram: Histogram<u64>,
}

impl Default for Latency {
    fn default() -> Self {
        let longest = LONGEST.as_nanos() as u64; // fits: 6 * 10^11
        let histogram = Histogram::new_with_bounds(1, longest, DIGITS);
        Self { histogram: histogram.expect("the bounds are in order and the digits few") }
    }
}

impl From<Histogram<u64>> for Latency {
    fn from(histogram: Histogram<u64>) -> Self {
        Self { histogram }
    }
}

impl Latency {
    /// Adds one.
    pub fn record(&mut self, latency: Duration) {
        let ns = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        self.histogram.saturating_record(ns.max(1));
    }

    /// Adds all of another's.
    pub fn merge(&mut self, other: &Self) {
        // The bounds are the same unless the other was read from a file; then it is made to fit.
        for value in other.histogram.iter_recorded() {
            let (ns, count) = (value.value_iterated_to(), value.count_since_last_iteration());
            self.histogram.saturating_record_n(ns, count);
        }
    }

    /// At most this long were `percentile` percent of them; 0 if there are none.
    pub fn percentile(&self, percentile: f64) -> Duration {
        Duration::from_nanos(self.histogram.value_at_percentile(percentile))
    }

    /// The histogram of nanoseconds.
    pub fn histogram(&self) -> &Histogram<u64> {
        &self.histogram
    }

    /// How many were added.
    pub fn count(&self) -> u64 {
        self.histogram.len()
    }

    /// Percentiles, the longest and the number, in this group of figures.
    pub fn figures(&self, group: &str) -> Vec<Figure> {
        let us = |ns: u64| ns as f64 / 1_000.0;
        let percentile = |(name, percentile): (&str, f64)| {
            let ns = self.histogram.value_at_percentile(percentile);
            Figure::new(group, name, "µs", us(ns))
        };
        let mut figures: Vec<Figure> = PERCENTILES.into_iter().map(percentile).collect();
        figures.push(Figure::new(group, "max", "µs", us(self.histogram.max())));
        figures.push(Figure::new(group, "samples", "", self.count() as f64));
        figures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_within_a_thousandth() {
        let mut latency = Latency::default();
        (1..=100_000).for_each(|us| latency.record(Duration::from_micros(us)));
        let figures = latency.figures("send to ack");
        let value = |name: &str| {
            let figure = figures.iter().find(|figure| figure.name == name);
            figure.expect("it is reported").value
        };
        let near = |shown: f64, exact: f64| (shown / exact - 1.0).abs() < 1.1e-3;
        assert!(near(value("p50"), 50_000.0), "{}", value("p50"));
        assert!(near(value("p99.9"), 99_900.0), "{}", value("p99.9"));
        assert!(near(value("max"), 100_000.0), "{}", value("max"));
        assert_eq!(value("samples"), 100_000.0);
    }

    #[test]
    fn extremes_are_kept() {
        let mut latency = Latency::default();
        latency.record(Duration::ZERO);
        latency.record(Duration::MAX);
        assert_eq!(latency.count(), 2);
    }
}
