//! One deadline per connection in one binary heap, found again by the connection's index.
//!
//! A connection's deadline moves with nearly every packet, mostly to later. So a later deadline
//! is only noted: its entry stays where it is, and goes down to its true place when it has come to
//! the top, before anybody is told. So moving costs nothing in the steady state, and nobody is
//! woken for a deadline that has moved. There is never more than one entry per index.

use std::time::Instant;

/// "Not in the heap" in [`Slot::place`].
const NOWHERE: u32 = u32::MAX;

/// An entry of the heap; `at` is no later than the deadline of `index`.
#[derive(Clone, Copy)]
struct Entry {
    at: Instant,
    index: u32,
}

/// What is known of one index.
#[derive(Clone, Copy)]
struct Slot {
    /// The place in the heap, or [`NOWHERE`].
    place: u32,
    /// The deadline; of account only while there is a place.
    due: Instant,
}

/// Deadlines by index.
#[derive(Default)]
pub(super) struct Timers {
    heap: Vec<Entry>,
    slots: Vec<Slot>,
}

impl Timers {
    /// The earliest deadline.
    pub(super) fn next(&mut self) -> Option<Instant> {
        self.settle();
        self.heap.first().map(|entry| entry.at)
    }

    /// Sets the deadline of `index`, instead of the one before.
    pub(super) fn set(&mut self, index: u32, at: Instant) {
        let slot = index as usize;
        if self.slots.len() <= slot {
            self.slots.resize(slot + 1, Slot { place: NOWHERE, due: at });
        }
        self.slots[slot].due = at;
        let place = self.slots[slot].place as usize;
        if self.slots[slot].place == NOWHERE {
            let place = self.heap.len();
            self.heap.push(Entry { at, index });
            self.slots[slot].place = place as u32; // fits: no more entries than indices
            self.rise(place);
        } else if at < self.heap[place].at {
            self.heap[place].at = at;
            self.rise(place);
        }
    }

    /// Takes out one index whose deadline has come.
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<u32> {
        self.settle();
        let first = *self.heap.first()?;
        (first.at <= now).then(|| {
            self.take(0);
            first.index
        })
    }

    /// Forgets an index.
    pub(super) fn remove(&mut self, index: u32) {
        match self.slots.get(index as usize) {
            Some(&Slot { place, .. }) if place != NOWHERE => self.take(place as usize),
            _ => {}
        }
    }

    /// Moves entries down from the top until the top's deadline is its true one.
    fn settle(&mut self) {
        while let Some(&Entry { at, index }) = self.heap.first()
            && let due = self.slots[index as usize].due
            && at < due
        {
            self.heap[0].at = due;
            self.sink(0);
        }
    }

    fn take(&mut self, place: usize) {
        let taken = self.heap.swap_remove(place);
        self.slots[taken.index as usize].place = NOWHERE;
        if place < self.heap.len() {
            self.note(place);
            self.sink(place);
            self.rise(place);
        }
    }

    fn note(&mut self, place: usize) {
        let index = self.heap[place].index;
        self.slots[index as usize].place = place as u32; // fits: see `set`
    }

    fn swap(&mut self, a: usize, b: usize) {
        self.heap.swap(a, b);
        self.note(a);
        self.note(b);
    }

    fn rise(&mut self, mut place: usize) {
        while place > 0 {
            let parent = (place - 1) / 2;
            if self.heap[parent].at <= self.heap[place].at {
                break;
            }
            self.swap(place, parent);
            place = parent;
        }
    }

    fn sink(&mut self, mut place: usize) {
        loop {
            let children = 2 * place + 1..(2 * place + 3).min(self.heap.len());
            let Some(least) = children.min_by_key(|&child| self.heap[child].at) else { break };
            if self.heap[place].at <= self.heap[least].at {
                break;
            }
            self.swap(place, least);
            place = least;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_deadline_that_moved_later_fires_then_and_not_before() {
        let start = Instant::now();
        let after = |ms| start + Duration::from_millis(ms);
        let mut timers = Timers::default();
        timers.set(3, after(10));
        timers.set(4, after(15));
        timers.set(3, after(20));
        assert_eq!(timers.next(), Some(after(15)));
        assert_eq!(timers.pop_due(after(14)), None);
        assert_eq!(timers.pop_due(after(15)), Some(4));
        assert_eq!(timers.pop_due(after(19)), None);
        timers.set(3, after(16));
        assert_eq!(timers.pop_due(after(16)), Some(3));
        assert_eq!(timers.next(), None, "one entry an index");
    }

    /// Against a plain list, through 20,000 pseudo-random steps.
    #[test]
    fn agrees_with_a_plain_list() {
        let start = Instant::now();
        let (mut timers, mut model) = (Timers::default(), vec![None::<Instant>; 50]);
        let mut state = 7_u64;
        let mut random = |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) % below
        };
        let mut now = start;
        for _ in 0..20_000 {
            let index = random(50) as u32;
            match random(4) {
                0 => {
                    timers.remove(index);
                    model[index as usize] = None;
                }
                1 => {
                    now += Duration::from_millis(random(20));
                    while let Some(due) = timers.pop_due(now) {
                        let at = model[due as usize].take().expect("it was set");
                        assert!(at <= now);
                    }
                    assert!(model.iter().flatten().all(|&at| at > now), "none is left behind");
                }
                _ => {
                    let at = now + Duration::from_millis(random(500));
                    timers.set(index, at);
                    model[index as usize] = Some(at);
                }
            }
            assert_eq!(timers.next(), model.iter().flatten().min().copied());
        }
    }
}
