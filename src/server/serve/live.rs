//! The running server as the other threads see it: the control plane's orders go to the workers'
//! doors, the workers' questions to the directory, their cold reads to the I/O thread.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use tern_core::io::{ColdRecord, Query, Waiter};
use tern_core::placement::WorkerId;
use tern_protocol::{Code, DeviceId, Uin};
use tern_storage::IoHandle;

use super::backups::Backups;
use super::descriptors;
use super::figures;
use super::logs::OpenLogs;
use super::sights;
use crate::backup::BackupState;
use crate::control::status::{Phase, Status, Table};
use crate::control::{Seeing, Server, Stop};
use crate::directory::service::Asker;
use crate::folder::DataFolder;
use crate::worker::{Command, Directory, Doors, Warmer};

/// The running server.
pub(super) struct Live {
    pub(super) doors: Arc<Doors>,
    pub(super) listen: SocketAddr,
    pub(super) pin: String,
    started: Instant,
    phase: AtomicU8,
    stops: SyncSender<Stop>,
    logs: OnceLock<OpenLogs>,
    backups: Backups,
}

impl Live {
    pub(super) fn new(
        doors: Arc<Doors>,
        listen: SocketAddr,
        pin: String,
        stops: SyncSender<Stop>,
        data: DataFolder,
    ) -> Self {
        Self {
            doors,
            listen,
            pin,
            started: Instant::now(),
            phase: AtomicU8::new(to_number(Phase::Recovering)),
            stops,
            logs: OnceLock::new(),
            backups: Backups::new(data),
        }
    }

    pub(super) fn enter(&self, phase: Phase) {
        self.phase.store(to_number(phase), Ordering::Relaxed);
    }

    /// The logs are open; from now on their figures are shown.
    pub(super) fn set_logs(&self, logs: OpenLogs) {
        assert!(self.logs.set(logs).is_ok(), "the logs are opened once");
    }

    fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Relaxed) {
            0 => Phase::Recovering,
            1 => Phase::Ready,
            _ => Phase::Draining,
        }
    }
}

fn to_number(phase: Phase) -> u8 {
    match phase {
        Phase::Recovering => 0,
        Phase::Ready => 1,
        Phase::Draining => 2,
    }
}

/// Memory of this process, as the kernel tells it in KiB.
fn rss_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kib| kib << 10)
}

impl Server for Live {
    fn kick(&self, uin: Uin, device: Option<DeviceId>, code: Code) {
        self.doors.command_all(Command::Kick { uin, device, code });
    }

    fn refresh(&self) {
        self.doors.command_all(Command::Publish);
    }

    fn status(&self) -> Status {
        let descriptors = descriptors::look();
        let mut troubles = self.logs.get().map(OpenLogs::troubles).unwrap_or_default();
        troubles.extend(descriptors.and_then(descriptors::trouble));
        Status {
            phase: self.phase(),
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_ms: u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
            rss_bytes: rss_bytes().unwrap_or(0),
            listen: self.listen.to_string(),
            pin: self.pin.clone(),
            troubles,
            descriptors,
            disk: self.logs.get().and_then(OpenLogs::disk),
            workers: figures::of_workers(&self.doors),
            shards: self.logs.get().map_or_else(Table::default, figures::of_logs),
        }
    }

    fn presences(&self, uins: Vec<Uin>) -> Seeing {
        let doors = Arc::clone(&self.doors);
        match self.phase() {
            Phase::Ready => Box::pin(async move { sights::presences(&doors, uins).await }),
            Phase::Recovering | Phase::Draining => Box::pin(std::future::ready(None)),
        }
    }

    fn begin_backup(&self, to: &Path) -> Result<(), String> {
        let logs = self.logs.get().ok_or("the logs are being read; try again when it is ready")?;
        self.backups.begin(to, || logs.snapshot())
    }

    fn backup_state(&self) -> Option<BackupState> {
        self.backups.state()
    }

    fn stop(&self, why: Stop) {
        // Full: it is going down already.
        let _ = self.stops.try_send(why);
    }
}

/// Takes the workers' questions to the directory.
pub(super) struct Questions {
    pub(super) asker: Asker,
    pub(super) doors: Arc<Doors>,
}

impl Directory for Questions {
    fn ask(&self, worker: WorkerId, query: Query) {
        if let Some(not_now) = self.asker.ask(query) {
            self.doors.answer(worker, not_now);
        }
    }
}

/// Takes the workers' cold reads to the I/O thread.
pub(super) struct ColdReads {
    pub(super) io: IoHandle,
    pub(super) doors: Arc<Doors>,
}

impl Warmer for ColdReads {
    fn warm(&self, worker: WorkerId, record: ColdRecord, waiter: Waiter) {
        let doors = Arc::clone(&self.doors);
        self.io.warm(record, Box::new(move || doors.warmed(worker, waiter)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_tells_the_memory() {
        assert!(rss_bytes().is_some_and(|bytes| bytes > 1 << 20));
    }
}
