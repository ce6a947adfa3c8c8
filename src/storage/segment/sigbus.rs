//! What happens when a page of a mapped segment can't be given: the disk fails, or another
//! program cut the file. The kernel sends SIGBUS, which would kill the process and with it all
//! shards. With [`guard_mappings`] installed, the page becomes zeros instead: the checksum of what
//! is read there fails, and a reader tells it like any other damage.
//!
//! In: every [`Guard`] names a mapping. Out: [`Guard::faults`], how many of its pages were
//! replaced. A fault anywhere else goes to the default action, which ends the process: nobody
//! could say what such memory means.
//!
//! ```text
//!  CHUNKS ─► │ slot │ slot │ ... │ next ┼─► │ slot │ slot │ ... │ next ┼─► none
//!              version, start, end, faults
//! ```
//!
//! Invariants: the handler takes no lock, allocates nothing and calls only what may be called from
//! a handler; chunks are never freed; a slot is written between an odd and an even version, and
//! the handler believes only what it read under one even version.
#![allow(unsafe_code)]

use std::io;
use std::ptr;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering, fence};

/// Mappings in one chunk of the table: 32 KiB; a small server has one chunk, and the search in
/// the handler stays a walk over few cache lines.
const CHUNK_SLOTS: usize = 1024;

/// One mapping, as the handler sees it. Free while `start` is 0.
struct Slot {
    /// Odd while the slot is written.
    version: AtomicU64,
    start: AtomicUsize,
    end: AtomicUsize,
    /// Pages that were replaced.
    faults: AtomicU64,
}

struct Chunk {
    slots: [Slot; CHUNK_SLOTS],
    next: AtomicPtr<Chunk>,
}

/// The table's first chunk; the others are made when it is full, and kept.
static FIRST: Chunk = Chunk::new();

/// Pages replaced in all mappings since the start.
static FAULTS: AtomicU64 = AtomicU64::new(0);

/// Bytes of a page; the handler must not ask for it.
static PAGE_BYTES: AtomicUsize = AtomicUsize::new(0);

/// Installs the handler for this process; a second call does nothing. It replaces whoever handled
/// SIGBUS before.
///
/// # Errors
/// When the system refuses a handler.
pub fn guard_mappings() -> io::Result<()> {
    static INSTALLED: Mutex<bool> = Mutex::new(false);
    let mut installed = INSTALLED.lock().unwrap_or_else(PoisonError::into_inner);
    if !*installed {
        PAGE_BYTES.store(rustix::param::page_size(), Ordering::Release);
        set_action(handle as *const () as usize)?;
        *installed = true;
    }
    Ok(())
}

/// Pages of all mappings that were replaced since the start.
pub(crate) fn faults() -> u64 {
    FAULTS.load(Ordering::Relaxed)
}

/// A mapping in the table. Drop it before the mapping ends.
pub(crate) struct Guard {
    slot: &'static Slot,
}

impl Guard {
    /// Enters a mapping that begins at the address `start`.
    pub(crate) fn new(start: usize, len: usize) -> Self {
        assert!(start != 0, "nothing is mapped at address 0");
        let mut chunk = &FIRST;
        loop {
            if let Some(slot) = chunk.slots.iter().find(|slot| slot.claim(start, start + len)) {
                return Self { slot };
            }
            chunk = chunk.next();
        }
    }

    /// Pages of the mapping that were replaced by zeros. Whatever was read before this call and
    /// may have come from such a page is counted.
    pub(crate) fn faults(&self) -> u64 {
        // What was read before must not be read after the count.
        fence(Ordering::Acquire);
        self.slot.faults.load(Ordering::Acquire)
    }
}

impl std::fmt::Debug for Guard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Guard({} faults)", self.faults())
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let version = self.slot.version.load(Ordering::Relaxed);
        self.slot.version.store(version + 1, Ordering::Relaxed);
        self.slot.set(0, 0, version + 2);
    }
}

impl Slot {
    const fn new() -> Self {
        Self {
            version: AtomicU64::new(0),
            start: AtomicUsize::new(0),
            end: AtomicUsize::new(0),
            faults: AtomicU64::new(0),
        }
    }

    /// Takes a free slot for a mapping; whether it was free.
    fn claim(&self, start: usize, end: usize) -> bool {
        let version = self.version.load(Ordering::Acquire);
        if !version.is_multiple_of(2) || self.start.load(Ordering::Relaxed) != 0 {
            return false;
        }
        let claimed = self.version.compare_exchange(
            version,
            version + 1,
            Ordering::Acquire,
            Ordering::Relaxed,
        );
        if claimed.is_ok() {
            self.set(start, end, version + 2);
        }
        claimed.is_ok()
    }

    /// Writes a slot whose version is odd, and gives it an even one.
    fn set(&self, start: usize, end: usize, version: u64) {
        fence(Ordering::Release); // the odd version is seen before what follows
        self.faults.store(0, Ordering::Relaxed);
        self.start.store(start, Ordering::Relaxed);
        self.end.store(end, Ordering::Relaxed);
        self.version.store(version, Ordering::Release);
    }

    /// Whether the mapping of this slot has this address.
    fn holds(&self, address: usize) -> bool {
        let version = self.version.load(Ordering::Acquire);
        let (start, end) = (self.start.load(Ordering::Relaxed), self.end.load(Ordering::Relaxed));
        fence(Ordering::Acquire);
        let unchanged = self.version.load(Ordering::Relaxed) == version;
        // A slot that is being written is not that of a mapping somebody reads from right now.
        version.is_multiple_of(2) && unchanged && (start..end).contains(&address)
    }
}

impl Chunk {
    const fn new() -> Self {
        Self { slots: [const { Slot::new() }; CHUNK_SLOTS], next: AtomicPtr::new(ptr::null_mut()) }
    }

    /// The chunk behind this one, made if there is none.
    fn next(&self) -> &'static Self {
        if let Some(next) = self.known_next() {
            return next;
        }
        let fresh = Box::into_raw(Box::new(Self::new()));
        let none = ptr::null_mut();
        let put = self.next.compare_exchange(none, fresh, Ordering::AcqRel, Ordering::Acquire);
        if put.is_err() {
            // SAFETY: `fresh` comes from `Box::into_raw` above and was given to nobody, since the
            // exchange failed.
            drop(unsafe { Box::from_raw(fresh) });
        }
        self.known_next().expect("one was just put there, by us or by another thread")
    }

    fn known_next(&self) -> Option<&'static Self> {
        // SAFETY: the pointer is null or what `next` put there: a `Chunk` from `Box::into_raw`,
        // fully written before the exchange released it, never freed and never taken back; so a
        // shared reference to it is good for ever.
        unsafe { self.next.load(Ordering::Acquire).as_ref() }
    }
}

/// Sets what SIGBUS does: a handler's address, or `SIG_DFL`.
fn set_action(handler: libc::sighandler_t) -> io::Result<()> {
    // SAFETY: a `sigaction` of zeros is a valid value: no flags, an empty mask.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handler;
    action.sa_flags = libc::SA_SIGINFO;
    // SAFETY: `action` is a whole `sigaction`, and the old one is not asked for. `handler` is
    // `SIG_DFL`, or `handle`, which has the signature that SA_SIGINFO demands and keeps to what a
    // handler may do. sigaction(2) itself may be called from a handler (signal-safety(7)).
    let result = unsafe { libc::sigaction(libc::SIGBUS, &raw const action, ptr::null_mut()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The handler. Everything it does is allowed in one: atomics, and system calls that keep no state
/// in the process but `errno`, which is put back.
extern "C" fn handle(signal: libc::c_int, info: *mut libc::siginfo_t, _context: *mut libc::c_void) {
    // SAFETY: the kernel gives a handler with SA_SIGINFO a whole `siginfo_t` (sigaction(2)), and
    // for SIGBUS its address field is the one that is filled; for a SIGBUS that another process
    // sent it is other bytes of the same struct, which is not used then.
    let (cause, address) = unsafe { ((*info).si_code, (*info).si_addr() as usize) };
    // The page is not there, or the memory under it broke; all else was sent by a process.
    let fault = cause == libc::BUS_ADRERR || cause == libc::BUS_MCEERR_AR;
    if fault && replace(address) {
        return;
    }
    // The access is tried again behind this handler, and then ends the process.
    let _ = set_action(libc::SIG_DFL);
    if !fault {
        // SAFETY: raise(3) may be called from a handler. The signal is blocked while we are in
        // here, so it comes when the handler returns.
        unsafe { libc::raise(signal) };
    }
}

/// Puts a page of zeros under an address of one of our mappings; whether it is one.
fn replace(address: usize) -> bool {
    let mut chunk = Some(&FIRST);
    while let Some(here) = chunk {
        if let Some(slot) = here.slots.iter().find(|slot| slot.holds(address)) {
            // First, so that whoever reads zeros there finds it counted.
            slot.faults.fetch_add(1, Ordering::AcqRel);
            FAULTS.fetch_add(1, Ordering::Relaxed);
            return put_zeros(address);
        }
        chunk = here.known_next();
    }
    false
}

/// Maps a page of zeros, read only, over the page of an address.
fn put_zeros(address: usize) -> bool {
    let page_bytes = PAGE_BYTES.load(Ordering::Acquire);
    let page = address / page_bytes * page_bytes;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
    // SAFETY: `errno` is a variable of this thread, always there.
    let errno = unsafe { *libc::__errno_location() };
    // SAFETY: the page lies in a mapping that `Guard` names: mappings begin at whole pages, and a
    // guard is dropped before its mapping. This thread is in the middle of a read from it, so its
    // reader holds it, and nobody unmaps it meanwhile. The mapping is read only and is read by
    // `SettledFile` alone, whose readers check what they read; a reference into the page sees it
    // change once, from bytes that could not be read to zeros, so no byte that was read changes,
    // but where somebody cut the file, which the module documentation of `map` excludes and
    // `SettledFile::faults` tells.
    let got =
        unsafe { libc::mmap(page as *mut libc::c_void, page_bytes, libc::PROT_READ, flags, -1, 0) };
    // SAFETY: as above.
    unsafe { *libc::__errno_location() = errno };
    got != libc::MAP_FAILED
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Command, Stdio};

    use memmap2::{MmapOptions, MmapRaw};

    use super::*;

    /// Tells the child what it shall do.
    const CHILD: &str = "TERN_SIGBUS_TEST_CHILD";

    fn mapped(len: usize) -> (File, MmapRaw) {
        let file = tempfile::tempfile().unwrap();
        file.set_len(len as u64).unwrap();
        let map = MmapOptions::new().len(len).map_raw_read_only(&file).unwrap();
        (file, map)
    }

    fn read(map: &MmapRaw, at: usize) -> u8 {
        assert!(at < map.len());
        // SAFETY: `at` lies in the mapping, which lives; a volatile read of a byte.
        unsafe { map.as_ptr().add(at).read_volatile() }
    }

    #[test]
    fn a_page_that_is_gone_becomes_zeros_and_is_counted() {
        guard_mappings().unwrap();
        guard_mappings().unwrap();
        let (file, map) = mapped(64 << 10);
        std::os::unix::fs::FileExt::write_all_at(&file, &[7; 64 << 10], 0).unwrap();
        let guard = Guard::new(map.as_ptr() as usize, map.len());
        assert_eq!((read(&map, 0), read(&map, 40 << 10), guard.faults()), (7, 7, 0));
        file.set_len(8 << 10).unwrap();
        // SAFETY: `errno` is a variable of this thread.
        unsafe { *libc::__errno_location() = 77 };
        assert_eq!((read(&map, 40 << 10), guard.faults()), (0, 1));
        // SAFETY: as above.
        assert_eq!(unsafe { *libc::__errno_location() }, 77, "errno is put back");
        assert_eq!((read(&map, (40 << 10) + 5), guard.faults()), (0, 1), "once for a page");
        assert_eq!((read(&map, 0), read(&map, 63 << 10), guard.faults()), (7, 0, 2));
        assert!(faults() >= 2);
        file.set_len(64 << 10).unwrap();
        assert_eq!(read(&map, 40 << 10), 0, "what was replaced stays so");
    }

    #[test]
    fn the_table_grows_and_forgets() {
        let first: Vec<_> = (1..=3 * CHUNK_SLOTS).map(|at| Guard::new(at << 40, 4096)).collect();
        let holds = |address| {
            let mut chunk = Some(&FIRST);
            while let Some(here) = chunk {
                if here.slots.iter().any(|slot| slot.holds(address)) {
                    return true;
                }
                chunk = here.known_next();
            }
            false
        };
        for at in [1, 5, CHUNK_SLOTS, 3 * CHUNK_SLOTS] {
            assert!(holds(at << 40) && holds((at << 40) + 4095) && !holds((at << 40) + 4096));
        }
        drop(first);
        assert!(!holds(1 << 40) && !holds((3 * CHUNK_SLOTS) << 40));
    }

    /// Mappings come and go on some threads while others look: a slot is never seen with the
    /// start of one mapping and the end of another.
    #[test]
    fn no_slot_is_seen_half_written() {
        let low = 1 << 60;
        std::thread::scope(|scope| {
            for thread in 0..3 {
                scope.spawn(move || {
                    for round in 0..20_000 {
                        // Narrow mappings, far apart; a mixture of two would reach over `low`.
                        let at =
                            if (round + thread) % 2 == 0 { low - (1 << 20) } else { low + 4096 };
                        drop(Guard::new(at, 4096));
                    }
                });
            }
            for _ in 0..2 {
                scope.spawn(move || {
                    for _ in 0..20_000 {
                        assert!(!FIRST.slots[..64].iter().any(|slot| slot.holds(low)));
                    }
                });
            }
        });
    }

    /// Not a test of its own: what the test below starts, and what must be killed.
    #[test]
    fn child() {
        let Ok(what) = std::env::var(CHILD) else { return };
        guard_mappings().unwrap();
        let (file, map) = mapped(64 << 10);
        let guard = Guard::new(map.as_ptr() as usize, map.len());
        match what.as_str() {
            "foreign" => drop(guard),
            "beside" => {
                let (other, foreign) = mapped(64 << 10);
                other.set_len(0).unwrap();
                read(&foreign, 0);
            }
            _ => {
                // SAFETY: sends a signal to this process.
                unsafe { libc::kill(libc::getpid(), libc::SIGBUS) };
            }
        }
        file.set_len(0).unwrap();
        read(&map, 0);
    }

    #[test]
    fn every_other_fault_ends_the_process() {
        let (_, here) = module_path!().split_once("::").unwrap(); // without the crate
        for what in ["foreign", "beside", "sent"] {
            let mut child = Command::new(std::env::current_exe().unwrap());
            child.args(["--exact", &format!("{here}::child"), "--nocapture"]).env(CHILD, what);
            child.stdout(Stdio::null()).stderr(Stdio::null());
            let status = crate::dedup::spawn(&mut child).wait().unwrap();
            assert_eq!(status.signal(), Some(libc::SIGBUS), "{what}: {status}");
        }
    }
}
