//! The end of a run: everything heals but some devices that stay dead, and within a stated time
//! every device that lives must have everything.

use std::collections::BTreeSet;

use super::{Happening, World};
use crate::disk::Death;

/// How often the healed world is looked at, in ms.
const LOOK_MS: u64 = 500;

/// Devices in a hundred that stay dead; two live in any case.
const DEAD_PERCENT: u64 = 20;

/// Devices in a hundred that send something into the healed world. From the others nothing comes
/// that could make up for what was lost before.
const SENDS_PERCENT: u64 = 50;

/// Messages that are sent on a bad day at least, or all where the plan has fewer: what makes a
/// seed worth its time.
const SENDS_LEAST: u64 = 200;

/// For how long a bad day goes on that had fewer, in ms, and for how long at most.
const GOES_ON_MS: u64 = 60_000;
const GOES_ON_MS_MAX: u64 = 30 * GOES_ON_MS;

impl World {
    /// The bad day is over, unless too little was said in it: then who is away comes back, and it
    /// goes on for some time.
    pub(super) fn heal_or_go_on(&mut self) {
        let longest = self.draw.chaos_ms + GOES_ON_MS_MAX;
        let sent = self.draw.sends - self.sends_left;
        if sent >= SENDS_LEAST.min(self.draw.sends) || self.ends_at >= longest {
            return self.heal();
        }
        self.ends_at = self.now + GOES_ON_MS;
        for install in 0..self.installs.len() {
            self.installs[install].away_until = 0;
            let when = self.now + self.chaos.between(0, 1_000);
            self.agenda.add(when, Happening::DeviceStarts(install));
        }
        self.agenda.add(self.ends_at, Happening::Heal);
    }

    /// Everything that goes wrong ends here.
    fn heal(&mut self) {
        self.trace.note(self.now, &[16], &[], format_args!("everything heals"));
        self.healed_at = Some(self.now);
        self.weather.clear();
        self.fail_next_sync = false;
        self.wake_wire();
        let has_failed = match &mut self.engine {
            Some(engine) => {
                engine.heal();
                !engine.failures().is_empty()
            }
            None => self.disk.borrow().has_failed(),
        };
        if has_failed {
            self.kill_server(Death::Process);
        } else if let Some(server) = self.server.as_mut() {
            server.seats.iter_mut().for_each(|seat| seat.paused_until = 0);
            (0..usize::from(self.workers)).for_each(|worker| self.wake(worker));
        }
        self.choose_core();
        let core: Vec<usize> = self.core().collect();
        for install in core {
            self.installs[install].path = (20, 5);
            self.installs[install].cut_off_until = 0;
            self.installs[install].away_until = 0;
            if let Some(process) = self.installs[install].process.as_mut() {
                process.paused_until = 0;
            }
            let when = self.now + self.chaos.between(0, 1_000);
            self.agenda.add(when, Happening::DeviceStarts(install));
            if self.chaos.percent(SENDS_PERCENT) {
                self.send_one(install);
            }
        }
        self.set_disk_weather();
        self.agenda.add(self.now + LOOK_MS, Happening::Look);
    }

    /// Of the phones that speak for one device one lives on; some others die for good.
    fn choose_core(&mut self) {
        let mut devices = BTreeSet::new();
        for install in 0..self.installs.len() {
            let device = self.installs[install].device;
            let is_second = !self.installs[install].is_gone && !devices.insert(device);
            if is_second || (devices.len() > 2 && self.chaos.percent(DEAD_PERCENT)) {
                self.crash_device(install, false);
                self.installs[install].is_gone = true;
            }
        }
    }

    pub(super) fn core(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.installs.len()).filter(|install| !self.installs[*install].is_gone)
    }

    /// Looks at the weather, and after the heal whether the world is at rest.
    pub(super) fn look(&mut self) {
        self.set_disk_weather();
        let Some(healed_at) = self.healed_at else { return };
        let missing = self.missing().or_else(|| self.missing_of_groups());
        let missing = missing.or_else(|| self.missing_of_newcomers());
        let missing = missing.or_else(|| self.missing_of_marks());
        let missing = missing.or_else(|| self.missing_of_blocks());
        let missing = missing.or_else(|| self.missing_of_unread());
        let missing = missing.or_else(|| self.missing_of_histories());
        let is_late = self.now - healed_at > self.plan.converge_ms;
        if missing.is_none() || is_late {
            self.is_over = true;
            self.storage_at_rest();
            if missing.is_none() {
                self.compare_logs();
            }
            return self.oracle.at_rest(missing);
        }
        self.agenda.add(self.now + LOOK_MS, Happening::Look);
    }

    /// All devices of a user have the same, and it is what stands in the channels.
    fn compare_logs(&mut self) {
        let core: Vec<usize> = self.core().collect();
        for install in core.iter().copied() {
            let own = self.installs[install].device.uin;
            let mut others = core.iter().copied();
            let twin =
                others.find(|other| *other > install && self.installs[*other].device.uin == own);
            for channel in self.channels_of(install) {
                let number = install as u32;
                self.oracle.compare_logs(
                    &self.disk.borrow(),
                    (number, self.installs[install].device),
                    twin.map(|twin| twin as u32),
                    channel,
                );
            }
        }
    }

    /// What keeps the world from being at rest; `None` if it is.
    fn missing(&self) -> Option<String> {
        self.core().find_map(|install| self.missing_of(install))
    }

    fn missing_of(&self, install: usize) -> Option<String> {
        let one = &self.installs[install];
        let Some(process) = one.process.as_ref().filter(|process| process.is_online) else {
            return Some(format!("install {install} is not online"));
        };
        let unsettled = process.machine.unsettled();
        if unsettled != (0, 0) {
            return Some(format!("install {install} has unsettled sends: {unsettled:?}"));
        }
        let owed =
            one.posted.keys().find(|label| !self.oracle.honesty.was_told(one.number, **label));
        if let Some(label) = owed {
            return Some(format!("install {install} was never told what became of {label}"));
        }
        let disk = &self.disk.borrow();
        self.oracle.truth.channels().find_map(|channel| {
            let (_, newest) = self.oracle.due(disk, one.device, channel)?;
            let shown = self.oracle.delivery.newest_shown(one.number, channel);
            let stored = one.store.cursor(channel);
            (shown < newest || stored < newest).then(|| {
                format!("install {install} of {channel}#{newest} shows #{shown}, keeps #{stored}")
            })
        })
    }
}
