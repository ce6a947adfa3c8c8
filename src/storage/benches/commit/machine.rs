//! The machine and the file system under a measurement.

use std::path::Path;
use std::{fs, io};

/// Type of a `tmpfs` in `statfs`, from `linux/magic.h`.
const TMPFS_MAGIC: u64 = 0x0102_1994;

/// Type of a `ramfs` in `statfs`, from `linux/magic.h`.
const RAMFS_MAGIC: u64 = 0x8584_58f6;

/// What a reader must know to compare figures.
pub(crate) struct Machine {
    pub(crate) cpu: String,
    pub(crate) cores: usize,
    pub(crate) kernel: String,
    /// Type, device and options of the mount.
    pub(crate) file_system: String,
    /// Whether a sync has nothing to do there.
    pub(crate) in_memory: bool,
    /// Load of the last minute, five and fifteen before the run: who else used the machine.
    pub(crate) load: String,
}

impl Machine {
    /// This machine, with the file system under `dir`.
    pub(crate) fn read(dir: &Path) -> io::Result<Self> {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let cpus = read("/proc/cpuinfo");
        let cpu = cpus.lines().find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1));
        let kind = rustix::fs::statfs(dir)?.f_type as u64 & 0xffff_ffff; // sign-extended on some
        let load = read("/proc/loadavg");
        Ok(Self {
            cpu: cpu.unwrap_or("unknown processor").to_owned(),
            cores: cpus.lines().filter(|line| line.starts_with("processor")).count(),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            file_system: mount(&read("/proc/self/mounts"), &dir.canonicalize()?),
            in_memory: matches!(kind, TMPFS_MAGIC | RAMFS_MAGIC),
            load: load.split(' ').take(3).collect::<Vec<_>>().join(" "),
        })
    }

    /// One line.
    pub(crate) fn text(&self) -> String {
        let Self { cpu, cores, kernel, file_system, load, .. } = self;
        format!("{cpu}, {cores} cores, Linux {kernel}, {file_system}, load {load}")
    }
}

/// The mount with the longest path above `dir`.
fn mount(mounts: &str, dir: &Path) -> String {
    let mounts = mounts.lines().filter_map(|line| {
        let words: Vec<&str> = line.split(' ').collect();
        let [device, place, kind, options, ..] = words[..] else { return None };
        dir.starts_with(place).then(|| (place.len(), format!("{kind} on {device} ({options})")))
    });
    mounts.max_by_key(|(length, _)| *length).map_or("unknown".to_owned(), |(_, text)| text)
}
