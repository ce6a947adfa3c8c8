//! Runs seeds, one after the other or on several threads, and catches what panics.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::fault::{Branches, Tally};
use crate::mutant::Mutant;
use crate::oracle::Violation;
use crate::plan::Plan;
use crate::world::{Outcome, World};

/// Lives through one seed; a panic of the machines counts as a violation. Keeps the newest
/// `lines_max` lines of the trace.
pub fn live(plan: &Plan, seed: u64, mutant: Option<Mutant>, lines_max: usize) -> Outcome {
    Mutant::choose(mutant);
    let mut world = None;
    let lived = catch_unwind(AssertUnwindSafe(|| {
        world.insert(World::new(plan, seed, mutant, lines_max)).run();
    }));
    let panicked = lived.err().map(|panic| Violation { check: "panic", what: text_of(&*panic) });
    let mut outcome = world.map_or_else(|| stillborn(seed), |world| world.outcome(seed));
    outcome.violation = panicked.or(outcome.violation);
    outcome
}

fn text_of(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("no message").to_owned()
}

/// The outcome of a world that panicked before it was made.
fn stillborn(seed: u64) -> Outcome {
    Outcome {
        seed,
        violation: None,
        hash: 0,
        steps: 0,
        virtual_ms: 0,
        sends: 0,
        acked: 0,
        shown: 0,
        compared: 0,
        heal_ms: 0,
        tally: Tally::default(),
        branches: Branches::default(),
        quic: None,
        storage: None,
        lines: Vec::new(),
    }
}

/// Lives through `count` seeds from `first` on `jobs` threads, and hands each outcome to `done`,
/// which says whether to go on.
pub fn live_all(
    plan: &Plan,
    (first, count): (u64, u64),
    mutant: Option<Mutant>,
    jobs: usize,
    done: impl FnMut(Outcome) -> bool + Send,
) {
    let (next, stop) = (AtomicU64::new(first), AtomicBool::new(false));
    let done = Mutex::new(done);
    std::thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed - first >= count {
                        return;
                    }
                    let outcome = live(plan, seed, mutant, 0);
                    let mut done = done.lock().unwrap_or_else(|broken| broken.into_inner());
                    if !done(outcome) {
                        stop.store(true, Ordering::Relaxed);
                    }
                }
            });
        }
    });
}
