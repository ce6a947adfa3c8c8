//! How much may be under way to one device: pushed, and not acked yet.
//!
//! The window grows while acks are what pushing waits for, so a device that is behind catches up
//! at the pace of its path. It shrinks while a device lets heartbeats pass without an ack, down to
//! a few messages; then nothing is pushed any more: the device is told what there is, and pulls.
//! Worth naming: bytes never exceed their bound, so a window of many messages is one of small ones.

use crate::config::Config;

/// The fewest messages that a window shrinks to: enough to see whether they are acked.
const MESSAGES_MIN: u32 = 4;

/// Heartbeats in a row without any ack, with something unacked, after which nothing is pushed.
const SILENT_BEATS_MAX: u8 = 3;

/// The window of one session.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Window {
    /// Messages that may be unacked; 0 before the first was asked for.
    messages_max: u32,
    /// Heartbeats since the last ack, while something is unacked.
    silent_beats: u8,
    /// Whether something was acked since the last heartbeat.
    has_acked: bool,
    /// Whether pushing had to wait for an ack since the window last grew.
    was_full: bool,
    /// What is under way.
    messages: u32,
    bytes: u32,
}

impl Window {
    /// Messages that may be pushed now.
    pub(super) fn room(&mut self, config: &Config) -> u64 {
        if self.is_pulling() {
            return 0;
        }
        let most = self.messages_max(config);
        let start = config.window_messages.max(1);
        let bytes_max = u64::from(config.window_bytes) * u64::from(most.min(start));
        let has_bytes = u64::from(self.bytes) * u64::from(start) < bytes_max;
        let room = if has_bytes { most.saturating_sub(self.messages) } else { 0 };
        self.was_full |= room == 0;
        u64::from(room)
    }

    fn messages_max(&self, config: &Config) -> u32 {
        if self.messages_max == 0 { config.window_messages } else { self.messages_max }
    }

    /// A message leaves.
    pub(super) fn push(&mut self, bytes: u32) {
        self.messages += 1;
        self.bytes += bytes;
    }

    /// Ids are stepped over behind messages that are under way: one ack covers all.
    pub(super) fn step(&mut self, ids: u64) {
        self.messages = self.messages.saturating_add(clipped(ids));
    }

    /// What was under way is so no longer: it is pushed again, or void.
    pub(super) fn take_back(&mut self, (messages, bytes): (u64, u64)) {
        self.messages = self.messages.saturating_sub(clipped(messages));
        self.bytes = self.bytes.saturating_sub(clipped(bytes));
    }

    /// The device has acked that much.
    pub(super) fn ack(&mut self, config: &Config, (messages, bytes): (u64, u64)) {
        self.take_back((messages, bytes));
        if messages == 0 {
            return;
        }
        self.resume();
        self.has_acked = true;
        if std::mem::take(&mut self.was_full) {
            let grown = self.messages_max(config).saturating_add(clipped(messages));
            self.messages_max = grown.min(config.longest_window());
        }
    }

    /// The device wants more: it asked for something, or acked.
    pub(super) fn resume(&mut self) {
        self.silent_beats = 0;
    }

    /// A heartbeat. Says whether the device is told what there is, instead of being pushed to.
    pub(super) fn beat(&mut self, config: &Config) -> bool {
        if std::mem::take(&mut self.has_acked) || self.messages == 0 {
            self.silent_beats = 0;
            return false;
        }
        self.silent_beats = self.silent_beats.saturating_add(1).min(SILENT_BEATS_MAX);
        self.was_full = false; // what ends the silence is no reason to grow yet
        let most = self.messages_max(config);
        self.messages_max = (most / 2).max(MESSAGES_MIN.min(config.window_messages)).min(most);
        self.is_pulling()
    }

    /// Whether nothing is pushed until the device asks or acks.
    pub(super) fn is_pulling(&self) -> bool {
        self.silent_beats >= SILENT_BEATS_MAX
    }
}

/// A count of the window; only ids that are stepped over can be more, and they count as full.
fn clipped(count: u64) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Config {
        Config::default()
    }

    /// Pushes what there is room for.
    fn fill(window: &mut Window, bytes: u32) -> u64 {
        let room = window.room(&config());
        (0..room).for_each(|_| window.push(bytes));
        room
    }

    #[test]
    fn it_grows_while_acks_are_what_pushing_waits_for() {
        let (mut window, mut rounds) = (Window::default(), Vec::new());
        for _ in 0..8 {
            let pushed = fill(&mut window, 100);
            assert_eq!(window.room(&config()), 0, "full");
            rounds.push(pushed);
            window.ack(&config(), (pushed, pushed * 100));
        }
        assert_eq!(rounds, [64, 128, 256, 512, 1_024, 1_024, 1_024, 1_024]);
        let mut calm = Window::default();
        for _ in 0..100 {
            calm.push(100);
            assert!(calm.room(&config()) > 0);
            calm.ack(&config(), (1, 100));
        }
        assert_eq!(fill(&mut calm, 100), 64, "what was never full has no reason to grow");
    }

    #[test]
    fn bytes_bound_it_however_it_grows() {
        let mut window = Window::default();
        for _ in 0..20 {
            let mut pushed = 0;
            while window.room(&config()) > 0 {
                window.push(2_000);
                pushed += 1;
                assert!(window.bytes < config().window_bytes + 2_000);
            }
            window.ack(&config(), (pushed, pushed * 2_000));
        }
    }

    #[test]
    fn silence_shrinks_it_to_a_pull_and_an_ack_ends_that() {
        let mut window = Window::default();
        assert!(!window.beat(&config()), "who has nothing to ack is not silent");
        fill(&mut window, 100);
        assert!(!window.beat(&config()) && !window.beat(&config()));
        assert!(window.beat(&config()), "three in a row");
        window.take_back((60, 6_000));
        assert_eq!(window.room(&config()), 0, "nothing is pushed");
        window.ack(&config(), (4, 400));
        let small = fill(&mut window, 100);
        assert_eq!(small, 8, "64 halved three times");
        window.ack(&config(), (small, small * 100));
        assert!(!window.beat(&config()), "it acks again");
    }
}
