//! New devices in the workload: some want only the newest messages of what was said before them,
//! or none, and some are bought long after their users began to talk.

use tern_client::history::Newcomer;

use super::{Happening, World};

/// How many messages of each channel a new device may want: none, one, a few, more than there are.
const WANTED: [(u64, u64); 4] = [(0, 0), (1, 1), (2, 20), (1_000, 1_000)];

/// Devices in a hundred that come late, of those that want less than all.
const LATE_PERCENT: u64 = 80;

/// By when the last of them has come, in hundredths of the bad day.
const LATEST_PERCENT: u64 = 90;

impl World {
    /// Whether this new device wants less than all, and how much.
    pub(super) fn wish_of_newcomer(&mut self, install: usize) {
        if self.newcomers.percent(self.draw.newcomers_percent) {
            let range = self.newcomers.pick(&WANTED).unwrap_or_default();
            let wanted = self.newcomers.between(range.0, range.1) as u32; // fits: few
            self.wish_for(install, Some(wanted));
        }
    }

    /// The device wants so many messages of each channel that its user has already.
    pub(super) fn wish_for(&mut self, install: usize, wanted: Option<u32>) {
        self.installs[install].wanted = wanted;
        self.oracle.newcomers.wants(install as u32, wanted); // fits: few
        self.note_settled(install);
    }

    /// A device that wants less than all is bought later, as a rule, if its user has another one.
    pub(super) fn come_late(&mut self, install: usize) {
        let is_first = install < self.draw.users as usize; // fits: few
        let wants_less = self.installs[install].wanted.is_some();
        if wants_less && !is_first && self.newcomers.percent(LATE_PERCENT) {
            let latest = self.draw.chaos_ms * LATEST_PERCENT / 100;
            let when = self.newcomers.between(0, latest);
            self.installs[install].away_until = when;
            self.agenda.add(when, Happening::DeviceStarts(install));
        }
    }

    /// Whether the device has stored that it was shown all channels may have changed.
    pub(super) fn note_settled(&mut self, install: usize) {
        let one = &self.installs[install];
        self.oracle.newcomers.settles(one.number, one.store.is_settled());
    }

    /// What keeps a new device from having been shown all channels.
    pub(super) fn missing_of_newcomers(&self) -> Option<String> {
        self.core().find_map(|install| match self.installs[install].store.newcomer() {
            Newcomer::Wants(_) => Some(format!("install {install} was not shown all channels")),
            Newcomer::Unknown | Newcomer::Settled => None,
        })
    }
}
