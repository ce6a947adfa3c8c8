//! What a process has used, by the kernel's books in `/proc/PID`: CPU time by thread, context
//! switches, memory.
//!
//! CPU time comes from `schedstat` in nanoseconds; its split into user and system from `stat`,
//! whose unit is a hundredth of a second.

use std::fs;
use std::path::Path;

use crate::error::{BenchError, Tried};

/// A process at one moment.
#[derive(Clone, Default, Debug)]
pub struct Process {
    /// Its threads.
    pub threads: Vec<Thread>,
    /// Its memory.
    pub memory: Memory,
}

/// A thread at one moment.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Thread {
    /// Its number.
    pub id: u32,
    /// Its name, at most 15 bytes.
    pub name: String,
    /// CPU time in ns.
    pub cpu_ns: u64,
    /// Time in ns that it was ready to run and had no core.
    pub starved_ns: u64,
    /// CPU time outside of the kernel, in ticks of 10 ms.
    pub user_ticks: u64,
    /// CPU time within the kernel, in ticks of 10 ms.
    pub system_ticks: u64,
    /// How often it went to sleep.
    pub sleeps: u64,
    /// How often it was taken off its core.
    pub preempted: u64,
}

/// Memory of a process in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Memory {
    /// Resident in all.
    pub rss: u64,
    /// Of it, private: heap, stacks.
    pub anonymous: u64,
    /// Of it, mapped files: the program, the logs.
    pub file: u64,
    /// Of it, shared memory: the table of deduplication.
    pub shared: u64,
}

impl Process {
    /// The process of this number, now. Threads that end meanwhile are left out.
    ///
    /// # Errors
    /// When there is no such process.
    pub fn read(pid: u32) -> Result<Self, BenchError> {
        let folder = Path::new("/proc").join(pid.to_string());
        let what = || format!("the figures of process {pid}");
        let status = fs::read_to_string(folder.join("status")).tried(what())?;
        let tasks = fs::read_dir(folder.join("task")).tried(what())?;
        let mut threads: Vec<Thread> =
            tasks.flatten().filter_map(|entry| Thread::read(&entry.path())).collect();
        threads.sort_by_key(|thread| thread.id);
        Ok(Self { threads, memory: Memory::parse(&status) })
    }

    /// What each thread has used since `before`.
    pub fn since(&self, before: &Self) -> Vec<Thread> {
        let threads = self.threads.iter().map(|now| {
            let then = before.threads.iter().find(|then| then.id == now.id);
            then.map_or_else(|| now.clone(), |then| now.since(then))
        });
        threads.collect()
    }
}

impl Thread {
    fn read(folder: &Path) -> Option<Self> {
        let text = |name: &str| fs::read_to_string(folder.join(name)).ok();
        let id = folder.file_name()?.to_str()?.parse().ok()?;
        Self::parse(id, &text("stat")?, &text("schedstat")?, &text("status")?)
    }

    fn parse(id: u32, stat: &str, schedstat: &str, status: &str) -> Option<Self> {
        // The name stands in brackets and may hold anything, brackets too.
        let (start, end) = (stat.find('(')?, stat.rfind(')')?);
        let after_name: Vec<&str> = stat.get(end + 1..)?.split_ascii_whitespace().collect();
        let mut sched = schedstat.split_ascii_whitespace().map(str::parse);
        Some(Self {
            id,
            name: stat.get(start + 1..end)?.to_owned(),
            cpu_ns: sched.next()?.ok()?,
            starved_ns: sched.next()?.ok()?,
            user_ticks: after_name.get(11)?.parse().ok()?, // field 14 of proc_pid_stat(5)
            system_ticks: after_name.get(12)?.parse().ok()?,
            sleeps: field(status, "voluntary_ctxt_switches")?,
            preempted: field(status, "nonvoluntary_ctxt_switches")?,
        })
    }

    /// Adds what another thread used.
    pub fn add(&mut self, other: &Self) {
        self.cpu_ns += other.cpu_ns;
        self.starved_ns += other.starved_ns;
        self.user_ticks += other.user_ticks;
        self.system_ticks += other.system_ticks;
        self.sleeps += other.sleeps;
        self.preempted += other.preempted;
    }

    /// A number may have been given to another thread meanwhile: then nothing is known of it.
    fn since(&self, then: &Self) -> Self {
        Self {
            id: self.id,
            name: self.name.clone(),
            cpu_ns: self.cpu_ns.saturating_sub(then.cpu_ns),
            starved_ns: self.starved_ns.saturating_sub(then.starved_ns),
            user_ticks: self.user_ticks.saturating_sub(then.user_ticks),
            system_ticks: self.system_ticks.saturating_sub(then.system_ticks),
            sleeps: self.sleeps.saturating_sub(then.sleeps),
            preempted: self.preempted.saturating_sub(then.preempted),
        }
    }
}

impl Memory {
    fn parse(status: &str) -> Self {
        let bytes = |name| field(status, name).unwrap_or(0) * 1_024; // a kernel thread has none
        Self {
            rss: bytes("VmRSS"),
            anonymous: bytes("RssAnon"),
            file: bytes("RssFile"),
            shared: bytes("RssShmem"),
        }
    }
}

/// The number behind `name:` at the start of a line.
fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str = "7 (a) b (c) S 1 7 7 0 -1 4194304 102 0 0 0 31 12 0 0 20 0 1 0 366 313 38";
    const STATUS: &str = "Name:\ttern\nVmRSS:\t  2048 kB\nRssAnon:\t 1024 kB\nRssFile:\t 1000 kB\n\
                          RssShmem:\t 24 kB\nvoluntary_ctxt_switches:\t9\n\
                          nonvoluntary_ctxt_switches:\t2\n";

    #[test]
    fn a_thread_is_read_behind_any_name() {
        let thread = Thread::parse(7, STAT, "181942160 16443231 393\n", STATUS);
        let expected = Thread {
            id: 7,
            name: "a) b (c".to_owned(),
            cpu_ns: 181_942_160,
            starved_ns: 16_443_231,
            user_ticks: 31,
            system_ticks: 12,
            sleeps: 9,
            preempted: 2,
        };
        assert_eq!(thread, Some(expected));
        assert_eq!(Thread::parse(7, "no stat", "1 2 3", STATUS), None);
    }

    #[test]
    fn memory_is_in_bytes() {
        let memory = Memory::parse(STATUS);
        assert_eq!((memory.rss, memory.anonymous), (2 << 20, 1 << 20));
        assert_eq!((memory.file, memory.shared), (1_000 << 10, 24 << 10));
    }

    #[test]
    fn this_process_uses_time_and_memory() {
        let before = Process::read(std::process::id()).expect("this process is there");
        let mut sum = 0_u64;
        let used = loop {
            (0..1_000_000_u64).for_each(|n| sum = std::hint::black_box(sum ^ n));
            let now = Process::read(std::process::id()).expect("this process is there");
            let used: u64 = now.since(&before).iter().map(|thread| thread.cpu_ns).sum();
            if used > 1_000_000 {
                break used;
            }
        };
        assert!(used > 0 && before.memory.rss > 0, "{sum}");
    }
}
