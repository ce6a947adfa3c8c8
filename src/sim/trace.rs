//! What happened, in order: always as a hash, and as lines for people when asked for.

use std::collections::VecDeque;
use std::fmt::Arguments;

use crate::random::mix;

/// The record of a run.
#[derive(Debug)]
pub struct Trace {
    hash: u64,
    steps: u64,
    /// The newest lines, oldest first; `None` if nobody reads them.
    lines: Option<VecDeque<String>>,
    lines_max: usize,
}

impl Trace {
    /// A record that keeps the newest `lines_max` lines; with 0 only the hash.
    pub fn new(lines_max: usize) -> Self {
        let lines = (lines_max > 0).then(VecDeque::new);
        Self { hash: 0, steps: 0, lines, lines_max }
    }

    /// The next thing of the agenda happens, whether it leaves a note or not.
    pub fn step(&mut self) {
        self.steps += 1;
    }

    /// Something happened: numbers and bytes that the hash takes in, and a line for people.
    pub fn note(&mut self, now: u64, numbers: &[u64], bytes: &[u8], line: Arguments<'_>) {
        self.take(now);
        numbers.iter().for_each(|number| self.take(*number));
        for part in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..part.len()].copy_from_slice(part);
            self.take(u64::from_le_bytes(word));
        }
        if let Some(lines) = &mut self.lines {
            if lines.len() == self.lines_max {
                lines.pop_front();
            }
            lines.push_back(format!("{:>8}.{:03} {line}", now / 1_000, now % 1_000));
        }
    }

    fn take(&mut self, number: u64) {
        self.hash = mix(self.hash.rotate_left(5) ^ number);
    }

    /// The hash of everything so far.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// Things of the agenda that happened so far.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// The newest lines.
    pub fn into_lines(self) -> Vec<String> {
        self.lines.map(Vec::from).unwrap_or_default()
    }
}
