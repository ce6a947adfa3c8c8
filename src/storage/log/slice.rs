//! A commit thread gets its core as soon as its disk is done.
//!
//! A worker under load has its core to itself until its time slice is over, and the kernel looks
//! for that only at its tick: up to 4 ms at 250 Hz. A commit thread sleeps most of the time and
//! works for microseconds, yet each of its wake-ups would wait that long, several times a batch.
//! Linux 6.12 and later let a thread ask for slices of its own length, and a thread with shorter
//! ones interrupts one with longer ones; its share of the core stays the same, so no privilege
//! is needed. Older kernels take the wish and do nothing.

#![allow(unsafe_code)]

use std::io;

/// Length of the slices that are asked for, in nanoseconds: the least that Linux grants.
const SLICE_NS: u64 = 100_000;

/// Asks for short slices for the calling thread. One with a policy of its own (a real-time one,
/// `SCHED_BATCH`) keeps that, and nothing is asked for.
///
/// # Errors
///
/// Those of sched_getattr(2) and sched_setattr(2), for instance in a sandbox that forbids them.
pub(super) fn ask_for_short() -> io::Result<()> {
    let mut attributes = own_attributes()?;
    if attributes.sched_policy != libc::SCHED_OTHER as u32 {
        return Ok(());
    }
    attributes.sched_runtime = SLICE_NS;
    set(&attributes)
}

/// Has the calling thread scheduled like this.
fn set(attributes: &libc::sched_attr) -> io::Result<()> {
    // SAFETY: sched_setattr(2) reads as many bytes at its second argument as their first field
    // says: the size of the struct, or less if the kernel wrote less of it. The struct is borrowed
    // for the call, and nothing is written to it. 0 is the calling thread.
    let result = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const *attributes, 0) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// How the calling thread is scheduled.
fn own_attributes() -> io::Result<libc::sched_attr> {
    const BYTES: usize = size_of::<libc::sched_attr>();
    let mut attributes = libc::sched_attr {
        size: BYTES as u32, // fits: 48
        sched_policy: 0,
        sched_flags: 0,
        sched_nice: 0,
        sched_priority: 0,
        sched_runtime: 0,
        sched_deadline: 0,
        sched_period: 0,
    };
    // SAFETY: sched_getattr(2) writes at most as many bytes at its second argument as the third
    // says: the size of this struct, which lives on this stack and whose fields are integers, so
    // that any bytes are valid. 0 is the calling thread.
    let said = unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attributes, BYTES, 0) };
    if said == 0 { Ok(attributes) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_gets_what_it_asks_for_and_keeps_the_rest() {
        let thread = std::thread::spawn(|| {
            let before = own_attributes().expect("readable");
            ask_for_short().expect("no privilege is needed");
            (before, own_attributes().expect("readable"))
        });
        let (before, after) = thread.join().expect("no panic");
        // Linux before 6.12 says nothing of slices; who runs the tests may have chosen a policy.
        let is_usual = before.sched_policy == libc::SCHED_OTHER as u32;
        let wanted = if is_usual { [0, SLICE_NS] } else { [before.sched_runtime; 2] };
        assert!(wanted.contains(&after.sched_runtime), "{} ns", after.sched_runtime);
        let rest = |it: libc::sched_attr| (it.sched_policy, it.sched_nice, it.sched_priority);
        assert_eq!(rest(after), rest(before));
    }

    #[test]
    fn another_policy_is_left_alone() {
        let after = std::thread::spawn(|| {
            let batch = libc::sched_attr {
                sched_policy: libc::SCHED_BATCH as u32,
                ..own_attributes().unwrap()
            };
            set(&batch).expect("no privilege is needed");
            ask_for_short().expect("nothing is asked");
            own_attributes().expect("readable")
        });
        let after = after.join().expect("no panic");
        assert_eq!(after.sched_policy, libc::SCHED_BATCH as u32);
        assert_ne!(after.sched_runtime, SLICE_NS);
    }
}
