//! Signs of life on standard error while something takes long.

use std::time::{Duration, Instant};

/// Time between two lines of progress.
const PROGRESS_EVERY: Duration = Duration::from_secs(5);

/// A line to standard error, now and then.
#[derive(Debug)]
pub struct Progress {
    what: &'static str,
    next: Instant,
}

impl Progress {
    /// Of what there is progress.
    pub fn new(what: &'static str) -> Self {
        Self { what, next: Instant::now() + PROGRESS_EVERY }
    }

    /// Says how far it is, if it is time.
    pub fn show(&mut self, done: usize, all: usize) {
        let now = Instant::now();
        if now >= self.next {
            self.next = now + PROGRESS_EVERY;
            eprintln!("  {done} of {all} {}", self.what);
        }
    }
}
