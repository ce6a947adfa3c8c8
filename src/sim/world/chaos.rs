//! What goes wrong and when: at random moments one of the seed's faults strikes, or begins to.

use tern_client::machine::Input as ClientInput;
use tern_core::io::Input;
use tern_core::mail::Device;
use tern_netmodel::carrier::Way;
use tern_protocol::DeviceId;

use super::{Happening, World};
use crate::disk::Death;
use crate::fault::{Fault, Shape};
use crate::quic::Sleeper;

/// How far the server's wall clock jumps at most, in ms: a day.
const WALL_JUMP_MS_MAX: u64 = 86_400_000;

/// How far a device's clock leaps at most, in ms: an hour.
const DEVICE_LEAP_MS_MAX: u64 = 3_600_000;

/// For how long devices are off, in ms: from this, and up to so many times as long, each order of
/// time as likely as the others: minutes, hours, days.
const AWAY_MS: [u64; 3] = [60_000, 3_600_000, 86_400_000];
const AWAY_TIMES_MAX: u64 = 20;

/// Devices of one user at most, lost ones included; more reinstalls are left out.
const DEVICES_PER_USER_MAX: u32 = 6;

/// Installs of the world at most.
const INSTALLS_MAX: usize = 24;

/// Appends in a hundred that a busy disk sends away, and old reads that are cold.
const BUSY_PERCENT: u64 = 20;
const COLD_PERCENT: u64 = 60;

impl World {
    /// One of the seed's faults strikes, and the next one is planned.
    pub(super) fn blow(&mut self) {
        if self.healed_at.is_some() {
            return;
        }
        let faults: Vec<Fault> = self.draw.faults.iter().copied().collect();
        if let Some(fault) = self.chaos.pick(&faults) {
            self.trace.note(
                self.now,
                &[15, fault as u64],
                &[],
                format_args!("fault: {}", fault.label()),
            );
            match fault.shape() {
                Shape::Blow => self.strike(fault),
                Shape::Spell => self.begin_spell(fault),
                Shape::Climate => {}
            }
        }
        let [least, most] = self.plan.gap_ms;
        let when = self.now + self.chaos.between(least, most);
        self.agenda.add(when, Happening::Blow);
    }

    fn begin_spell(&mut self, fault: Fault) {
        let [least, most] = self.plan.spell_ms;
        let until = self.now + self.chaos.between(least, most);
        self.weather.insert(fault, until);
        self.agenda.add(until, Happening::Look);
        self.set_disk_weather();
    }

    /// The disk does not look at the weather by itself.
    pub(super) fn set_disk_weather(&mut self) {
        self.set_net_weather();
        let (full, busy, cold) = (
            self.is_on(Fault::DiskFull),
            self.is_on(Fault::DiskBusy),
            self.is_on(Fault::ColdReads),
        );
        let mut disk = self.disk.borrow_mut();
        disk.full = full;
        disk.busy_percent = if busy { BUSY_PERCENT } else { 0 };
        if !cold || disk.cold_percent == 0 {
            disk.forget_warm();
        }
        disk.cold_percent = if cold { COLD_PERCENT } else { 0 };
        drop(disk);
        self.set_storage_weather();
    }

    fn strike(&mut self, fault: Fault) {
        let struck = match fault {
            Fault::PowerCut | Fault::ProcessDeath | Fault::MemoryLost if self.dooms(fault) => false,
            Fault::PowerCut => self.server_dies(Death::Power),
            Fault::ProcessDeath => self.server_dies(Death::Process),
            Fault::MemoryLost => self.server_dies(Death::ProcessAndMemory),
            Fault::BackupRestored => self.restore_backup(),
            Fault::LifeRaised => self.raise_life(),
            Fault::Drain => self.drain(),
            Fault::MachinePause => self.pause_machine(),
            Fault::Partition => self.part(),
            Fault::WorkerPause => self.pause_worker(),
            Fault::SyncFails => {
                self.fail_next_sync = self.server.is_some();
                self.set_storage_weather();
                false // counted when a sync meets it
            }
            Fault::WallJump => self.jump_wall(),
            Fault::BodyDamaged => self.damage(true),
            Fault::RecordDamaged => self.damage(false),
            Fault::Expiry => self.expire(),
            Fault::LinkLost | Fault::LinkHalfLost | Fault::Blackout => self.hurt_link(fault),
            _ => self.hurt_device(fault),
        };
        if struck {
            self.tally.hit(fault);
        }
    }

    fn damage(&mut self, body_only: bool) -> bool {
        let mut disk = self.disk.borrow_mut();
        let damaged = match self.engine {
            Some(_) => disk.damage_files(body_only),
            None => disk.damage(body_only),
        };
        damaged.is_some()
    }

    fn server_dies(&mut self, death: Death) -> bool {
        let runs = self.server.is_some();
        self.kill_server(death);
        runs
    }

    fn drain(&mut self) -> bool {
        let Some(server) = self.server.as_ref() else { return false };
        let (generation, workers) = (server.generation, server.seats.len());
        (0..workers).for_each(|worker| self.worker_input(worker, Input::Drain));
        let when = self.now + self.chaos.between(50, 1_500);
        self.agenda.add(when, Happening::ServerDies(generation, Death::InOrder));
        true
    }

    fn pause_worker(&mut self) -> bool {
        let until = self.now + self.chaos.between(10, 5_000);
        let Some(server) = self.server.as_mut() else { return false };
        let worker = self.chaos.below(server.seats.len() as u64) as usize;
        server.seats[worker].paused_until = until;
        self.sleep(Sleeper::Worker(worker), until);
        true
    }

    fn pause_machine(&mut self) -> bool {
        let until = self.now + self.chaos.between(100, 30_000);
        let Some(server) = self.server.as_mut() else { return false };
        server.seats.iter_mut().for_each(|seat| seat.paused_until = until);
        (0..server.seats.len()).for_each(|worker| self.sleep(Sleeper::Worker(worker), until));
        true
    }

    fn jump_wall(&mut self) -> bool {
        let far = self.chaos.between(1, WALL_JUMP_MS_MAX) as i64; // fits: a day
        self.wall_offset += if self.chaos.percent(50) { far } else { -far };
        true
    }

    /// Old messages are deleted, and the worker that owns them is woken for it.
    fn expire(&mut self) -> bool {
        if self.engine.is_some() {
            return self.skip_time();
        }
        let expired = self.disk.borrow_mut().expire();
        if let (Some(shard), Some(server)) = (expired, self.server.as_ref()) {
            let worker = usize::from(server.placement.worker_of(shard).0);
            self.worker_input(worker, Input::Durable(shard));
        }
        expired.is_some()
    }

    fn hurt_link(&mut self, fault: Fault) -> bool {
        let open: Vec<u64> =
            self.links.iter().filter(|(_, conn)| conn.client_open).map(|(link, _)| *link).collect();
        let Some(link) = self.chaos.pick(&open) else { return false };
        match fault {
            Fault::Blackout => {
                let way = if self.chaos.percent(50) { Way::ToServer } else { Way::ToClient };
                let until = self.now + self.chaos.between(200, 12_000);
                self.stall_link(link, way, until);
            }
            other => self.lose_link(link, other == Fault::LinkHalfLost),
        }
        true
    }

    /// About half of the devices and the server can't reach each other.
    fn part(&mut self) -> bool {
        let until = self.now + self.chaos.between(1_000, 30_000);
        let cut: Vec<usize> = (0..self.installs.len()).filter(|_| self.chaos.percent(50)).collect();
        for install in &cut {
            self.installs[*install].cut_off_until = until;
        }
        let links = self.links.iter().filter(|(_, conn)| cut.contains(&conn.install));
        for link in links.map(|(link, _)| *link).collect::<Vec<u64>>() {
            self.stall_link(link, Way::ToServer, until);
            self.stall_link(link, Way::ToClient, until);
        }
        !cut.is_empty()
    }

    fn hurt_device(&mut self, fault: Fault) -> bool {
        let running: Vec<usize> =
            (0..self.installs.len()).filter(|index| self.installs[*index].can_send()).collect();
        let Some(install) = self.chaos.pick(&running) else { return false };
        match fault {
            Fault::ClientCrash => self.restart_device(install, false),
            Fault::ClientPause => {
                let until = self.now + self.chaos.between(100, 60_000);
                if let Some(process) = self.installs[install].running() {
                    process.paused_until = until;
                }
                self.sleep(Sleeper::Install(install), until);
            }
            Fault::Away => self.go_away(install),
            Fault::StoreFails => self.device_input(install, ClientInput::StoreFailed),
            Fault::Logout => self.device_input(install, ClientInput::Logout),
            Fault::NetworkChange => {
                self.installs[install].path = (self.net.between(2, 400), self.net.between(0, 100));
                let network = self.network(install);
                self.device_input(install, ClientInput::NetworkChanged(network));
                self.move_install(install);
            }
            Fault::NatRebind => self.forget_nat(install),
            Fault::DeviceClock => {
                let far = self.chaos.between(1_000, DEVICE_LEAP_MS_MAX);
                if let Some(process) = self.installs[install].running() {
                    process.ahead += far;
                }
                self.device_input(install, ClientInput::Tick);
            }
            Fault::DeviceClockBack => {
                let far = self.chaos.between(1_000, DEVICE_LEAP_MS_MAX);
                let now = self.now;
                if let Some(process) = self.installs[install].running() {
                    process.turn_back(now, far);
                }
                self.device_input(install, ClientInput::Tick);
            }
            Fault::Reinstall => return self.reinstall(install),
            Fault::Clone => return self.clone_phone(install),
            Fault::Restore => return self.restore(install),
            _ => return false,
        }
        true
    }

    fn restart_device(&mut self, install: usize, restored: bool) {
        self.crash_device(install, restored);
        let when = self.now + self.chaos.between(10, 15_000);
        self.agenda.add(when, Happening::DeviceStarts(install));
    }

    /// The phone is off for long, at most until everything heals.
    fn go_away(&mut self, install: usize) {
        let least = self.chaos.pick(&AWAY_MS).unwrap_or(AWAY_MS[0]);
        let back = self.now + self.chaos.between(least, least * AWAY_TIMES_MAX);
        self.crash_device(install, false);
        self.installs[install].away_until = back;
        self.agenda.add(back, Happening::DeviceStarts(install));
    }

    /// The phone is gone; its user has a new one.
    fn reinstall(&mut self, install: usize) -> bool {
        let uin = self.installs[install].device.uin;
        let own = self.installs.iter().filter(|other| other.device.uin == uin);
        let newest = own.map(|other| other.device.device.0).max().unwrap_or(0);
        if newest >= DEVICES_PER_USER_MAX || self.installs.len() >= INSTALLS_MAX {
            return false;
        }
        self.crash_device(install, false);
        self.installs[install].is_gone = true;
        let install = self.add_install(Device { uin, device: DeviceId(newest + 1) });
        self.wish_of_newcomer(install);
        true
    }

    /// The phone's disk is copied to another phone; both run from now on.
    fn clone_phone(&mut self, install: usize) -> bool {
        if self.installs.len() >= INSTALLS_MAX {
            return false;
        }
        let one = &self.installs[install];
        let (device, secret, store, posted) =
            (one.device, one.secret, one.store.copy(), one.posted.clone());
        let wanted = one.wanted;
        let twin = self.add_install(device);
        let one = &mut self.installs[twin];
        (one.secret, one.store, one.posted) = (secret, store, posted);
        let cursors = one.cursors();
        self.wish_for(twin, wanted);
        self.oracle.copied(device);
        self.oracle.logs.copied(install as u32, twin as u32);
        self.oracle.process_starts(twin as u32, &cursors, true);
        true
    }

    /// The phone goes back to its last backup, or makes its first one.
    fn restore(&mut self, install: usize) -> bool {
        let Some(backup) = self.installs[install].backup.take() else {
            self.installs[install].backup = Some(self.installs[install].store.copy());
            self.oracle.logs.backed_up(install as u32);
            return false;
        };
        self.oracle.copied(self.installs[install].device);
        self.crash_device(install, false);
        self.installs[install].store = backup;
        self.oracle.logs.restored(install as u32);
        self.restart_device(install, true);
        true
    }
}
