//! The heartbeat's interval, learned for each kind of network (SPEC.md §4.6): it grows while quiet
//! beats are answered, and shrinks when one is lost. The server bounds what is wanted here.

use tern_protocol::frames::Network;

/// Kinds of network.
const NETWORKS: usize = 4;

/// Quiet beats in a row that must be answered before a longer interval is tried: fewer would take
/// luck for proof.
const QUIET_BEFORE_LONGER: u32 = 3;

/// How often growing to an interval that was lost is put off before it is tried again: some half
/// hour, by when the phone may be behind another translation.
const PUT_OFF_MAX: u32 = 16;

/// What was learned on all networks.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Intervals([Interval; NETWORKS]);

/// What was learned on one kind of network, in ms; 0 is nothing.
#[derive(Clone, Copy, Debug, Default)]
struct Interval {
    /// What is wanted of the server.
    wanted_ms: u32,
    /// What the store has.
    stored_ms: u32,
    /// The shortest that was lost; forgotten once a longer one works.
    lost_ms: u32,
    /// Quiet beats that were answered in a row.
    quiet: u32,
    /// How often growing was put off since.
    put_off: u32,
}

impl Intervals {
    /// As earlier processes learned them.
    pub(crate) fn new(saved: &[(Network, u32)]) -> Self {
        let mut intervals = Self::default();
        for (network, ms) in saved {
            let interval = intervals.of(*network);
            (interval.wanted_ms, interval.stored_ms) = (*ms, *ms);
        }
        intervals
    }

    fn of(&mut self, network: Network) -> &mut Interval {
        &mut self.0[usize::from(network.to_wire())]
    }

    /// What to ask the server for; 0 leaves it to the server.
    pub(crate) fn wanted_ms(&self, network: Network) -> u32 {
        self.0[usize::from(network.to_wire())].wanted_ms
    }

    /// The server has the last word.
    pub(crate) fn told(&mut self, network: Network, ms: u32) {
        self.of(network).wanted_ms = ms;
    }

    /// A quiet beat was answered after `ms`. What is to be remembered, if that is new.
    pub(crate) fn answered(&mut self, network: Network, ms: u32) -> Option<u32> {
        let interval = self.of(network);
        interval.quiet += 1;
        if ms >= interval.lost_ms {
            interval.lost_ms = 0;
        }
        if interval.quiet >= QUIET_BEFORE_LONGER {
            interval.quiet = 0;
            interval.grow(ms);
        }
        interval.remember(ms)
    }

    /// A quiet beat after `ms` was lost. What is to be remembered, if that is new.
    pub(crate) fn lost(&mut self, network: Network, ms: u32) -> Option<u32> {
        let interval = self.of(network);
        (interval.quiet, interval.put_off) = (0, 0);
        interval.lost_ms = if interval.lost_ms == 0 { ms } else { interval.lost_ms.min(ms) };
        interval.wanted_ms = ms - ms / 5;
        interval.remember(interval.wanted_ms)
    }
}

impl Interval {
    fn grow(&mut self, ms: u32) {
        let longer = ms.saturating_add(ms / 5);
        let may_fail = self.lost_ms != 0 && longer >= self.lost_ms;
        if may_fail && self.put_off < PUT_OFF_MAX {
            self.put_off += 1;
            return;
        }
        (self.wanted_ms, self.put_off) = (longer, 0);
    }

    fn remember(&mut self, ms: u32) -> Option<u32> {
        (std::mem::replace(&mut self.stored_ms, ms) != ms).then_some(ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WIFI: Network = Network::Wifi;

    /// One quiet beat on a path whose bindings live for `binding_ms`, at a server that bounds
    /// intervals; the next interval.
    fn beat(intervals: &mut Intervals, ms: u32, binding_ms: u32) -> u32 {
        if ms < binding_ms {
            intervals.answered(WIFI, ms);
        } else {
            intervals.lost(WIFI, ms);
        }
        let told = intervals.wanted_ms(WIFI).clamp(5_000, 30_000);
        intervals.told(WIFI, told);
        told
    }

    #[test]
    fn it_finds_what_a_path_allows_and_loses_little_there() {
        for binding_ms in [12_000, 20_000, 29_000, 60_000] {
            let (mut intervals, mut ms) = (Intervals::default(), 25_000);
            let beats: Vec<u32> = (0..200)
                .map(|_| {
                    ms = beat(&mut intervals, ms, binding_ms);
                    ms
                })
                .collect();
            let settled = &beats[20..];
            let lost = settled.iter().filter(|ms| **ms >= binding_ms).count();
            assert!(lost <= 5, "{binding_ms}: {lost} lost");
            let shortest = settled.iter().min().expect("beats");
            assert!(*shortest >= binding_ms.min(30_000) / 2, "{binding_ms}: {shortest}");
            assert!(settled.iter().all(|ms| *ms <= 30_000), "{binding_ms}");
        }
    }

    #[test]
    fn each_network_has_its_own_and_what_worked_is_remembered() {
        let mut intervals = Intervals::new(&[(WIFI, 28_000)]);
        assert_eq!(intervals.wanted_ms(WIFI), 28_000);
        assert_eq!(intervals.wanted_ms(Network::Cellular), 0, "the server's choice");
        assert_eq!(intervals.answered(WIFI, 28_000), None, "known");
        assert_eq!(intervals.answered(Network::Cellular, 25_000), Some(25_000));
        assert_eq!(intervals.lost(WIFI, 28_000), Some(22_400));
        assert_eq!(intervals.wanted_ms(WIFI), 22_400);
        assert_eq!(intervals.wanted_ms(Network::Cellular), 0);
    }
}
