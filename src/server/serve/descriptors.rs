//! Open files: some dozens, however much is kept, but one for each client of the control socket and
//! for each file that a running backup copies, which may be more than the 1,024 that many systems
//! give a process which does not ask.
//!
//! The soft limit is raised to the hard one at start, and a server that could not even open its
//! logs does not begin; how many are open, and how many may be, is shown, and said in words before
//! they run out.

use std::{fmt, io};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use tern_core::placement::Placement;

use crate::control::status::Descriptors;

/// Percent of the descriptors in use when a person should hear of it.
const WARN_PERCENT: u64 = 80;

/// How to get more of them.
const ADVICE: &str = "a server needs some dozens, each client of its control socket one more, and \
                      a backup one for each file that it copies: raise the hard limit (ulimit \
                      -Hn, LimitNOFILE= of systemd) and start again";

/// Descriptors that a server needs whatever its size: 16 when it stands idle (standard streams,
/// data folder, directory, control plane, signals), and some for commands.
const LEAST: u64 = 24;

/// Descriptors of a worker: its socket, its poller and what wakes it, its list of peers, and where
/// its time is read.
const OF_A_WORKER: u64 = 5;

/// Descriptors of a shard: its deduplication table, the file it writes to, the next one, and what
/// a checkpoint is made in.
const OF_A_SHARD: u64 = 4;

/// This process may not open what a server of this size needs from its first second on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooFew {
    /// Files that may be open.
    pub limit: u64,
    /// Files that must be able to.
    pub least: u64,
}

impl fmt::Display for TooFew {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { limit, least } = self;
        write!(f, "this process may open {limit} files, and {least} are the least here; {ADVICE}")
    }
}

/// Takes as many as the system allows this process.
pub(super) fn raise() -> io::Result<()> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum {
        setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?;
    }
    Ok(())
}

/// Whether a server of this size can begin: its threads open files at once, so which one would
/// find none left, and what became of it, is up to chance.
pub(super) fn suffice(placement: Placement) -> Result<(), TooFew> {
    let limit = getrlimit(Resource::Nofile).current;
    compare(limit, least(placement.workers(), placement.shards()))
}

fn least(workers: u16, shards: u16) -> u64 {
    LEAST + u64::from(workers) * OF_A_WORKER + u64::from(shards) * OF_A_SHARD
}

fn compare(limit: Option<u64>, least: u64) -> Result<(), TooFew> {
    match limit {
        Some(limit) if limit < least => Err(TooFew { limit, least }),
        _ => Ok(()),
    }
}

/// How many there are; `None` where /proc does not tell.
pub(super) fn look() -> Option<Descriptors> {
    let open = std::fs::read_dir("/proc/self/fd").ok()?.count() as u64;
    Some(Descriptors { open, limit: getrlimit(Resource::Nofile).current })
}

/// What an operator should hear, and do.
pub(super) fn trouble(descriptors: Descriptors) -> Option<String> {
    let Descriptors { open, limit: Some(limit) } = descriptors else { return None };
    let is_near = open.saturating_mul(100) >= limit.saturating_mul(WARN_PERCENT);
    is_near
        .then(|| format!("{open} of {limit} files that this process may open are open; {ADVICE}"))
}

/// The same, for an error that says that there are no more.
pub(super) fn advice(error: &io::Error) -> Option<&'static str> {
    (error.raw_os_error() == Some(libc::EMFILE)).then_some(ADVICE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_few_for_its_size_is_said_with_both_numbers() {
        assert_eq!(least(2, 4), 24 + 10 + 16);
        assert_eq!(compare(Some(50), 50), Ok(()));
        assert_eq!(compare(None, 50), Ok(()), "no limit, no trouble");
        let too_few = compare(Some(49), 50).unwrap_err();
        let words = too_few.to_string();
        assert!(words.starts_with("this process may open 49 files, and 50 are"), "{words}");
    }

    #[test]
    fn a_person_hears_of_it_before_the_end() {
        let of = |open, limit| trouble(Descriptors { open, limit });
        assert_eq!(of(79, Some(100)), None);
        assert!(of(80, Some(100)).is_some_and(|words| words.starts_with("80 of 100 files")));
        assert_eq!(of(1 << 40, None), None, "no limit, no trouble");
    }

    #[test]
    fn those_of_this_process_are_counted() {
        let before = look().expect("/proc is there");
        let files: Vec<_> = (0..50).map(|_| std::fs::File::open("/dev/null").unwrap()).collect();
        assert!(look().is_some_and(|now| now.open >= before.open + 40), "others may close some");
        drop(files);
    }
}
