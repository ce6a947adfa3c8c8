//! The integers of a table, and who can have them: a mapped file, or the model checker that runs
//! the same code through all orders of its loads and stores.
//!
//! In the tests of this crate each store into mapped memory is a place where the process can be
//! killed, see [`crash`]. Elsewhere that call is not compiled at all.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

/// Where a table's integers are.
pub(crate) trait Memory {
    type U32: Word<u32>;
    type U64: Word<u64>;

    /// As [`std::sync::atomic::fence`].
    fn fence(order: Ordering);
}

/// An integer that others may read, or write, at any time.
pub(crate) trait Word<V> {
    fn load(&self, order: Ordering) -> V;
    fn store(&self, value: V, order: Ordering);
}

/// A mapped file, shared with other processes.
#[derive(Debug)]
pub(crate) enum Mapped {}

/// 32 bits of a mapped file.
#[derive(Debug)]
#[repr(transparent)]
pub(crate) struct Mapped32(AtomicU32);

/// 64 bits of a mapped file.
#[derive(Debug)]
#[repr(transparent)]
pub(crate) struct Mapped64(AtomicU64);

impl Memory for Mapped {
    type U32 = Mapped32;
    type U64 = Mapped64;

    fn fence(order: Ordering) {
        fence(order);
    }
}

impl Word<u32> for Mapped32 {
    fn load(&self, order: Ordering) -> u32 {
        self.0.load(order)
    }

    fn store(&self, value: u32, order: Ordering) {
        #[cfg(test)]
        crash::point();
        self.0.store(value, order);
    }
}

impl Word<u64> for Mapped64 {
    fn load(&self, order: Ordering) -> u64 {
        self.0.load(order)
    }

    fn store(&self, value: u64, order: Ordering) {
        #[cfg(test)]
        crash::point();
        self.0.store(value, order);
    }
}

/// Places at which a test can have its process die, or let other threads run.
#[cfg(test)]
pub(crate) mod crash {
    use std::cell::Cell;

    use rustix::process::{Signal, getpid, kill_process};

    /// What happens at the points that a thread passes.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub(crate) enum Plan {
        Nothing,
        /// The process is killed before this point, counted from 1.
        Die(u64),
        /// Other threads may run at every so many points.
        Yield(u64),
    }

    thread_local! {
        static PLAN: Cell<Plan> = const { Cell::new(Plan::Nothing) };
        static PASSED: Cell<u64> = const { Cell::new(0) };
    }

    /// Sets what happens to this thread from now on, and counts anew.
    pub(crate) fn plan(plan: Plan) {
        PLAN.set(plan);
        PASSED.set(0);
    }

    /// Points passed since the plan was set.
    pub(crate) fn passed() -> u64 {
        PASSED.get()
    }

    /// Stands before each change that another process can see.
    pub(crate) fn point() {
        PASSED.set(PASSED.get() + 1);
        match PLAN.get() {
            Plan::Die(at) if PASSED.get() == at => {
                kill_process(getpid(), Signal::KILL).expect("a process may kill itself");
            }
            Plan::Yield(every) if PASSED.get().is_multiple_of(every) => std::thread::yield_now(),
            _ => {}
        }
    }
}
