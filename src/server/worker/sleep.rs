//! Whether a worker sleeps, so that only then its bell is rung.
//!
//! A wake-up is a system call, so it is only made for a worker that sleeps. The worker says that
//! it sleeps, *then* looks into every inbox, and sleeps only if all are empty. A writer puts its
//! item in, *then* asks whether the worker sleeps. Both have a sequentially consistent fence in
//! between, so of the two, one sees the other's write: either the worker finds the item, or the
//! writer finds the worker asleep and rings. The bell itself is an eventfd and stays rung, so a
//! ring between the look and the sleep ends the sleep at once. Whoever rings first wakes the
//! worker for all, so that a burst rings once.
//!
//! The tests run this code through every order of loads and stores that the memory model allows.
//! The rings themselves are a library's.

use std::sync::atomic::{AtomicBool, Ordering, fence};

/// Whether one worker sleeps. The worker lies down and rises; anybody asks.
#[derive(Debug, Default)]
pub(super) struct Sleep<F: Flag = AtomicBool> {
    asleep: F,
}

/// What is shared between the threads: a flag, and a fence.
pub(super) trait Flag {
    fn load(&self) -> bool;
    fn store(&self, value: bool);
    /// Sets it to false, if it is true; whether it was. If it is false, nothing is written: so
    /// every writer that says "awake" rings, and nobody is misled by one that does not.
    fn take(&self) -> bool;

    /// Sequentially consistent.
    fn fence();
}

impl<F: Flag> Sleep<F> {
    /// The worker: whether it may sleep, as `is_empty` says that nothing waits. Then
    /// [`rise`](Self::rise) must follow.
    pub(super) fn lie_down(&self, is_empty: impl FnOnce() -> bool) -> bool {
        self.asleep.store(true);
        F::fence();
        let empty = is_empty();
        if !empty {
            self.rise();
        }
        empty
    }

    /// The worker: after sleeping.
    pub(super) fn rise(&self) {
        self.asleep.store(false);
    }

    /// Anybody who has put an item in: whether to ring the bell.
    pub(super) fn must_ring(&self) -> bool {
        F::fence();
        self.asleep.load() && self.asleep.take()
    }
}

impl Flag for AtomicBool {
    fn load(&self) -> bool {
        self.load(Ordering::Relaxed)
    }

    fn store(&self, value: bool) {
        self.store(value, Ordering::Relaxed);
    }

    fn take(&self) -> bool {
        self.compare_exchange(true, false, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    fn fence() {
        fence(Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::Arc as StdArc;
    use std::sync::atomic::AtomicU64;

    use loom::sync::atomic::{AtomicBool as ModelBool, AtomicUsize, fence as model_fence};
    use loom::sync::{Arc, Mutex, MutexGuard};
    use loom::thread;

    use super::*;

    /// The checker's flag, with fences or without.
    struct Model<const FENCED: bool>(ModelBool);

    impl<const FENCED: bool> Flag for Model<FENCED> {
        fn load(&self) -> bool {
            self.0.load(Ordering::Relaxed)
        }

        fn store(&self, value: bool) {
            self.0.store(value, Ordering::Relaxed);
        }

        fn take(&self) -> bool {
            self.0.compare_exchange(true, false, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        }

        fn fence() {
            if FENCED {
                model_fence(Ordering::SeqCst);
            }
        }
    }

    /// Turns in which the worker lies down: one for each writer's item, and one more.
    const TURNS: usize = 3;

    /// A worker with an inbox for each writer, and a bell that stays rung.
    struct Inbox<const FENCED: bool> {
        sleep: Sleep<Model<FENCED>>,
        /// Items put in, as the rings do it: released by the writer, acquired by the worker.
        items: Vec<AtomicUsize>,
        /// What the kernel keeps is in order with everything.
        rung: Mutex<bool>,
    }

    impl<const FENCED: bool> Inbox<FENCED> {
        fn is_empty(&self) -> bool {
            self.items.iter().all(|item| item.load(Ordering::Acquire) == 0)
        }

        fn put(&self, writer: usize) {
            self.items[writer].store(1, Ordering::Release);
            if self.sleep.must_ring() {
                *self.rung() = true;
            }
        }

        /// The worker takes what it finds; whether it fell asleep, as nobody had rung yet.
        fn work(&self) -> bool {
            for _ in 0..TURNS {
                if self.sleep.lie_down(|| self.is_empty()) {
                    if !std::mem::take(&mut *self.rung()) {
                        return true;
                    }
                    self.sleep.rise();
                }
                let put = self.items.iter().filter(|item| item.load(Ordering::Acquire) == 1);
                put.for_each(|item| item.store(0, Ordering::Relaxed));
            }
            false
        }

        fn rung(&self) -> MutexGuard<'_, bool> {
            self.rung.lock().expect("nobody panics with it")
        }
    }

    /// Writers put one item each, while the worker sleeps whenever it can. If it sleeps in the
    /// end, either it has all of them, or the bell is rung.
    fn no_item_is_slept_over<const FENCED: bool>(writers: usize) {
        let inbox = Arc::new(Inbox::<FENCED> {
            sleep: Sleep { asleep: Model(ModelBool::new(false)) },
            items: (0..writers).map(|_| AtomicUsize::new(0)).collect(),
            rung: Mutex::new(false),
        });
        let put = |writer| {
            let inbox = Arc::clone(&inbox);
            thread::spawn(move || inbox.put(writer))
        };
        let threads: Vec<_> = (0..writers).map(put).collect();
        let sleeps = inbox.work();
        threads.into_iter().for_each(|thread| thread.join().expect("no panic"));
        let rung = *inbox.rung();
        assert!(!sleeps || rung || inbox.is_empty(), "a wake-up was lost");
    }

    /// How many orders there were, with at most so many involuntary switches.
    fn orders(switches: Option<usize>, run: impl Fn() + Sync + Send + 'static) -> u64 {
        let (count, mut model) = (StdArc::new(AtomicU64::new(0)), loom::model::Builder::new());
        model.preemption_bound = switches;
        let counted = StdArc::clone(&count);
        model.check(move || {
            counted.fetch_add(1, Ordering::Relaxed);
            run();
        });
        count.load(Ordering::Relaxed)
    }

    #[test]
    fn no_order_loses_a_wake_up() {
        let one = orders(None, || no_item_is_slept_over::<true>(1));
        let two = orders(Some(3), || no_item_is_slept_over::<true>(2));
        assert!(one > 10 && two > 100, "{one} and {two}");
        println!("TEST C-01 bell orders n={} lost=0", one + two);
    }

    /// Without the fences a wake-up is lost, and the checker says so.
    #[test]
    fn a_bell_without_fences_is_found_out() {
        let lost = catch_unwind(AssertUnwindSafe(|| {
            orders(Some(3), || no_item_is_slept_over::<false>(1));
        }));
        assert!(lost.is_err());
    }
}
