//! The machine under a measurement, and who else used it meanwhile.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// What a reader must know to compare figures.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Machine {
    /// Model of the processor.
    pub cpu: String,
    /// Cores that the system has.
    pub cores: usize,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// Version of the kernel.
    pub kernel: String,
    /// File system under the data folder, and its device.
    pub file_system: String,
}

impl Machine {
    /// This machine, with the file system under `data`.
    pub fn read(data: &Path) -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let cpus = read("/proc/cpuinfo");
        let data = data.canonicalize().unwrap_or_else(|_| data.to_owned());
        Self {
            cpu: value(&cpus, "model name").unwrap_or("unknown").to_owned(),
            cores: cpus.lines().filter(|line| line.starts_with("processor")).count(),
            memory_mib: kib(&read("/proc/meminfo"), "MemTotal") >> 10,
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            file_system: file_system(&read("/proc/self/mounts"), &data),
        }
    }
}

/// Bytes that the kernel holds for itself, for the whole machine: what sockets, files and threads
/// need, page tables included.
pub fn kernel_bytes() -> u64 {
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    ["Slab", "KernelStack", "PageTables"].map(|name| kib(&memory, name)).iter().sum::<u64>() << 10
}

fn value<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim())
}

fn kib(text: &str, name: &str) -> u64 {
    let number = value(text, name).and_then(|value| value.split(' ').next());
    number.and_then(|number| number.parse().ok()).unwrap_or(0)
}

/// Type and device of the mount with the longest path above `folder`.
fn file_system(mounts: &str, folder: &Path) -> String {
    let mounts = mounts.lines().filter_map(|line| {
        let mut words = line.split(' ');
        let (device, place, kind) = (words.next()?, words.next()?, words.next()?);
        folder.starts_with(place).then_some((place.len(), kind, device))
    });
    // Of mounts on the same place the last one is seen.
    mounts
        .max_by_key(|(length, _, _)| *length)
        .map_or_else(|| "unknown".to_owned(), |(_, kind, device)| format!("{kind} on {device}"))
}

/// What all cores did since the system started, in ticks of 10 ms.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Usage {
    busy: u64,
    idle: u64,
    stolen: u64,
}

impl Usage {
    /// Until now.
    pub fn read() -> Self {
        Self::parse(&fs::read_to_string("/proc/stat").unwrap_or_default())
    }

    fn parse(stat: &str) -> Self {
        let ticks: Vec<u64> = stat
            .lines()
            .next()
            .unwrap_or_default()
            .split_ascii_whitespace()
            .skip(1)
            .map(|number| number.parse().unwrap_or(0))
            .collect();
        // user nice system idle iowait irq softirq steal, see proc_stat(5)
        let at = |index: usize| ticks.get(index).copied().unwrap_or(0);
        Self { busy: at(0) + at(1) + at(2) + at(5) + at(6), idle: at(3) + at(4), stolen: at(7) }
    }

    /// Since `before`, in percent of all cores: what other processes used, given what ours used
    /// in ns, and what the host gave to other machines.
    pub fn others_since(&self, before: &Self, own_ns: u64) -> (f64, f64) {
        /// Nanoseconds of a tick.
        const TICK_NS: u64 = 10_000_000;
        // The kernel's time of waiting for disks, part of idle, can go back.
        let grown = |now: u64, then: u64| now.saturating_sub(then) as f64;
        let busy = grown(self.busy, before.busy);
        let stolen = grown(self.stolen, before.stolen);
        let all = busy + stolen + grown(self.idle, before.idle);
        let own = own_ns as f64 / TICK_NS as f64;
        let percent = |ticks: f64| 100.0 * ticks.max(0.0) / all.max(1.0);
        (percent(busy - own), percent(stolen))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_mount_counts() {
        let mounts = "/dev/vda / ext4 rw 0 0\ntmpfs /tmp tmpfs rw 0 0\ntmpfs /t tmpfs rw 0 0\n";
        assert_eq!(file_system(mounts, Path::new("/tmp/x")), "tmpfs on tmpfs");
        assert_eq!(file_system(mounts, Path::new("/tmpx")), "ext4 on /dev/vda");
        assert_eq!(file_system("", Path::new("/")), "unknown");
    }

    #[test]
    fn what_is_not_ours_is_the_others() {
        let before = Usage::parse("cpu  100 0 100 1000 0 0 0 10 0 0\ncpu0 1 2 3\n");
        let after = Usage::parse("cpu  150 10 130 1080 20 5 5 10 0 0\n");
        let (others, stolen) = after.others_since(&before, 400_000_000);
        assert!((others - 30.0).abs() < 1e-9, "{others}");
        assert_eq!(stolen, 0.0);
        let (others, _) = after.others_since(&before, u64::MAX);
        assert_eq!(others, 0.0, "rounding makes no negative share");
    }

    #[test]
    fn a_machine_has_cores() {
        assert!(kernel_bytes() > 0);
        let machine = Machine::read(Path::new("."));
        assert!(machine.cores > 0 && machine.memory_mib > 0, "{machine:?}");
    }
}
