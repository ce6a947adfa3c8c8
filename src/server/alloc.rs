//! Counts heap allocations per thread, apart for our own code and for QUIC's, so that "no
//! allocation per message" is a number in `tern status` and not a belief.
//!
//! The binary installs [`Counting`] as its global allocator. Each allocation adds one to a
//! thread-local count, chosen by the thread's present [`Scope`]; no thread shares a counter, so
//! the cost is one thread-local load and one add. A worker wraps its calls into quinn-proto in
//! [`enter`], reads its own [`counts`], and publishes them with its other figures.
//!
//! A `realloc` counts as one allocation: growing a buffer is what a steady state must not do.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// On whose behalf a thread allocates.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scope {
    /// Our own code.
    Ours,
    /// Inside a call to quinn-proto.
    Quic,
}

/// Allocations of a thread since it started, in calls.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Counts {
    /// In [`Scope::Ours`].
    pub ours: u64,
    /// In [`Scope::Quic`].
    pub quic: u64,
}

thread_local! {
    // Constant values without a destructor: reading them allocates nothing and works at any time
    // of a thread's life, both of which an allocator needs.
    static SCOPE: Cell<Scope> = const { Cell::new(Scope::Ours) };
    static OURS: Cell<u64> = const { Cell::new(0) };
    static QUIC: Cell<u64> = const { Cell::new(0) };
}

/// The present thread's counts.
pub fn counts() -> Counts {
    Counts { ours: OURS.get(), quic: QUIC.get() }
}

/// Puts the present thread into a scope until the guard is dropped.
#[must_use = "the scope ends when the guard is dropped"]
pub fn enter(scope: Scope) -> Guard {
    Guard { before: SCOPE.replace(scope), thread: std::marker::PhantomData }
}

/// Gives the thread back the scope it had before [`enter`].
#[derive(Debug)]
pub struct Guard {
    before: Scope,
    thread: std::marker::PhantomData<*const ()>, // stays on its thread
}

impl Drop for Guard {
    fn drop(&mut self) {
        SCOPE.set(self.before);
    }
}

/// The system's allocator, with the counting.
#[derive(Debug)]
pub struct Counting;

fn count() {
    let counter = match SCOPE.get() {
        Scope::Ours => &OURS,
        Scope::Quic => &QUIC,
    };
    counter.set(counter.get().wrapping_add(1));
}

// SAFETY: every method passes its arguments unchanged to `System`, which is a sound `GlobalAlloc`,
// and returns what it returned. `count` touches only constant-initialised thread-locals without a
// destructor: it neither allocates nor unwinds, so no method re-enters the allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promise for this `layout` (not of size zero) is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promise for this `layout` (not of size zero) is passed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: the caller promises that `block` came from this allocator, hence from
        // `System`, with this `layout`, and that `size` is valid for it.
        unsafe { System.realloc(block, layout, size) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller promises that `block` came from this allocator, hence from
        // `System`, with this `layout`.
        unsafe { System.dealloc(block, layout) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[global_allocator]
    static ALLOCATOR: Counting = Counting;

    #[test]
    fn counts_by_scope_and_thread() {
        let before = counts();
        drop(std::hint::black_box(Box::new(1)));
        {
            let _quic = enter(Scope::Quic);
            let mut grows = vec![1_u64];
            grows.reserve_exact(64);
            drop(std::hint::black_box(grows));
            let _ours = enter(Scope::Ours);
            drop(std::hint::black_box(Box::new(1)));
        }
        let here = Counts { ours: before.ours + 2, quic: before.quic + 2 };
        assert_eq!(counts(), here, "one box outside, one inside; a vector that grew once");

        std::thread::spawn(|| drop(std::hint::black_box(vec![0; 64]))).join().expect("no panic");
        assert_eq!(counts().quic, here.quic, "the other thread has its own count");
    }
}
