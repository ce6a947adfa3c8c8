//! What a worker asks the kernel about its own thread: a core to stay on, its page faults that
//! waited for a disk, its CPU time.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use rustix::thread::CpuSet;
use rustix::time::{ClockId, clock_gettime};

/// Binds the present thread to one of the cores it may run on, chosen by `turn`; returns which.
/// `None` when the system does not say or does not let it: then the thread runs anywhere.
pub(super) fn pin(turn: usize) -> Option<usize> {
    let allowed = rustix::thread::sched_getaffinity(None).ok()?;
    let cores: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|&core| allowed.is_set(core)).collect();
    let core = *cores.get(turn.checked_rem(cores.len())?)?;
    let mut one = CpuSet::new();
    one.set(core);
    rustix::thread::sched_setaffinity(None, &one).ok()?;
    Some(core)
}

/// The kernel's figures of the thread that opened it; by default, of none.
#[derive(Default)]
pub(super) struct ThreadStat {
    /// Kept open: reading it again costs one system call and no allocation.
    file: Option<File>,
}

impl ThreadStat {
    /// Of the present thread.
    pub(super) fn open() -> Self {
        Self { file: File::open("/proc/thread-self/stat").ok() }
    }

    /// Page faults that waited for a disk; 0 where the system does not tell.
    pub(super) fn major_faults(&self) -> u64 {
        let mut text = [0; 512]; // 52 numbers of which most are short
        let read = self.file.as_ref().and_then(|file| file.read_at(&mut text, 0).ok());
        read.and_then(|bytes| major_faults_in(&text[..bytes])).unwrap_or(0)
    }

    /// CPU time of the present thread in microseconds.
    pub(super) fn cpu_us(&self) -> u64 {
        let time = clock_gettime(ClockId::ThreadCPUTime);
        // fits: the kernel's clock is positive
        time.tv_sec as u64 * 1_000_000 + time.tv_nsec as u64 / 1_000
    }
}

/// Field 12 of proc_pid_stat(5), counted from behind the name, which may hold anything.
fn major_faults_in(stat: &[u8]) -> Option<u64> {
    let name_end = stat.iter().rposition(|&byte| byte == b')')?;
    let text = std::str::from_utf8(&stat[name_end + 1..]).ok()?;
    text.split_ascii_whitespace().nth(9)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_field_is_found_behind_any_name() {
        let stat = b"7 (a) b) (c) S 1 2 3 4 5 6 70 80 91 100 110";
        assert_eq!(major_faults_in(stat), Some(91));
        assert_eq!(major_faults_in(b"7 (a"), None);
    }

    #[test]
    fn the_kernel_tells_of_this_thread() {
        let stat = ThreadStat::open();
        let mut text = [0; 512];
        let file = stat.file.as_ref().expect("a Linux thread has the file");
        let bytes = file.read_at(&mut text, 0).expect("readable");
        assert!(major_faults_in(&text[..bytes]).is_some());
        assert!(stat.cpu_us() > 0);
    }

    #[test]
    fn a_pinned_thread_stays_on_one_core() {
        std::thread::spawn(|| {
            let core = pin(7).expect("some core is allowed");
            let allowed = rustix::thread::sched_getaffinity(None).expect("allowed cores");
            assert!(allowed.count() == 1 && allowed.is_set(core));
        })
        .join()
        .expect("no panic");
    }
}
