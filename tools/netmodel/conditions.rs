//! How bad one direction of a link is, as data: what profiles are made of.

use std::time::Duration;

use serde::Deserialize;

/// How bad one direction is. The default is a perfect one.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Conditions {
    /// Packets in a hundred that are lost, each for itself.
    pub loss_percent: f64,
    /// Losses that come in bursts, beside the others.
    pub bursts: Option<Bursts>,
    /// Time that a packet takes, in ms.
    pub delay_ms: u64,
    /// A packet takes up to this much less or more, in ms.
    pub jitter_ms: u64,
    /// Whether a packet that took less time waits for the one before it, as in one queue, or
    /// overtakes it.
    pub keeps_order: bool,
    /// Packets in a hundred that are held back and overtaken by others, whatever the jitter.
    pub late_percent: f64,
    /// How much longer such a packet takes at most, in ms.
    pub late_ms: u64,
    /// Packets in a hundred that come out twice.
    pub duplicate_percent: f64,
    /// How much fits through; `None`: everything at once.
    pub bandwidth: Option<Bandwidth>,
    /// Times in which nothing comes through at all.
    pub outages: Option<Outages>,
}

/// Losses that come in bursts (Gilbert and Elliott): the link is good or bad in turn, for times
/// that have no memory.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bursts {
    /// How long it is good, in ms, on average.
    pub good_ms: u64,
    /// How long it is bad, in ms, on average.
    pub bad_ms: u64,
    /// Packets in a hundred that are lost while it is bad.
    pub loss_percent: f64,
}

/// A line with a queue before it.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bandwidth {
    /// What goes through in a second, in thousands of bits.
    pub kbit_per_s: u64,
    /// Bytes that wait; a packet that does not fit is lost. A queue that holds seconds is what
    /// is called bufferbloat.
    pub queue_bytes: u64,
}

/// Times in which nothing comes through.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Outages {
    /// From one to the next, in ms, on average.
    pub every_ms: u64,
    /// How long one lasts, in ms, on average.
    pub last_ms: u64,
}

impl Conditions {
    /// Nothing but a delay.
    pub fn clear(delay_ms: u64) -> Self {
        Self { delay_ms, keeps_order: true, ..Self::default() }
    }

    /// Whether these conditions can be met.
    ///
    /// # Errors
    /// Names the first value that makes no sense, and its bounds.
    pub fn check(&self) -> Result<(), String> {
        let bursts = self.bursts.map_or(0.0, |bursts| bursts.loss_percent);
        let percents = [
            ("loss_percent", self.loss_percent),
            ("bursts.loss_percent", bursts),
            ("late_percent", self.late_percent),
            ("duplicate_percent", self.duplicate_percent),
        ];
        if let Some((name, value)) = percents.iter().find(|(_, p)| !(0.0..=100.0).contains(p)) {
            return Err(format!("{name} is {value}; it must be from 0 to 100"));
        }
        let least = [
            ("bursts.good_ms", self.bursts.map_or(1, |bursts| bursts.good_ms)),
            ("bursts.bad_ms", self.bursts.map_or(1, |bursts| bursts.bad_ms)),
            ("bandwidth.kbit_per_s", self.bandwidth.map_or(1, |line| line.kbit_per_s)),
            ("bandwidth.queue_bytes", self.bandwidth.map_or(1, |line| line.queue_bytes)),
            ("outages.every_ms", self.outages.map_or(1, |outages| outages.every_ms)),
            ("outages.last_ms", self.outages.map_or(1, |outages| outages.last_ms)),
        ];
        match least.iter().find(|(_, value)| *value == 0) {
            Some((name, _)) => Err(format!("{name} is 0; it must be 1 or more, or left out")),
            None => Ok(()),
        }
    }

    pub(crate) fn delay_bounds(&self) -> (Duration, Duration) {
        let least = Duration::from_millis(self.delay_ms.saturating_sub(self.jitter_ms));
        (least, Duration::from_millis(self.delay_ms.saturating_add(self.jitter_ms)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_makes_no_sense_is_named() {
        assert_eq!(Conditions::default().check(), Ok(()));
        let wrong = Conditions { loss_percent: 100.5, ..Conditions::default() };
        assert!(wrong.check().unwrap_err().contains("loss_percent is 100.5"));
        let line = Bandwidth { kbit_per_s: 0, queue_bytes: 1 };
        let wrong = Conditions { bandwidth: Some(line), ..Conditions::default() };
        assert!(wrong.check().unwrap_err().contains("kbit_per_s"));
        let wrong = Conditions { late_percent: f64::NAN, ..Conditions::default() };
        assert!(wrong.check().is_err());
    }
}
