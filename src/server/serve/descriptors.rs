//! Open files: some dozens, however much is kept, but one for each client of the control socket and
//! for each file that a running backup copies, which may be more than the 1,024 that many systems
//! give a process which does not ask.
//!
//! The soft limit is raised to the hard one at start; how many are open, and how many may be, is
//! shown, and said in words before they run out.

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::control::status::Descriptors;

/// Percent of the descriptors in use when a person should hear of it.
const WARN_PERCENT: u64 = 80;

/// How to get more of them.
const ADVICE: &str = "a server needs some dozens, each client of its control socket one more, and \
                      a backup one for each file that it copies: raise the hard limit (ulimit \
                      -Hn, LimitNOFILE= of systemd) and start again";

/// Takes as many as the system allows this process.
pub(super) fn raise() -> io::Result<()> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum {
        setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?;
    }
    Ok(())
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
