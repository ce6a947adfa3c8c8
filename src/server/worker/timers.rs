//! One deadline per connection in one binary heap, found again by the connection's index.
//!
//! A connection's deadline moves with nearly every packet, mostly to later. So a later deadline
//! is not written: the old, earlier entry stays, fires early, and the owner then says the true
//! one. Only an earlier deadline moves its entry. There is never more than one entry per index.

use std::time::Instant;

/// "Not in the heap" in [`Timers::places`].
const NOWHERE: u32 = u32::MAX;

#[derive(Clone, Copy)]
struct Entry {
    at: Instant,
    index: u32,
}

/// Deadlines by index.
#[derive(Default)]
pub(super) struct Timers {
    heap: Vec<Entry>,
    /// By index: the place in `heap`, or [`NOWHERE`].
    places: Vec<u32>,
}

impl Timers {
    /// The earliest deadline.
    pub(super) fn next(&self) -> Option<Instant> {
        self.heap.first().map(|entry| entry.at)
    }

    /// Makes sure that `index` fires no later than `at`.
    pub(super) fn fire_by(&mut self, index: u32, at: Instant) {
        if self.places.len() <= index as usize {
            self.places.resize(index as usize + 1, NOWHERE);
        }
        let place = self.places[index as usize];
        if place == NOWHERE {
            let place = self.heap.len();
            self.heap.push(Entry { at, index });
            self.places[index as usize] = place as u32; // fits: no more entries than indices
            self.rise(place);
        } else if at < self.heap[place as usize].at {
            self.heap[place as usize].at = at;
            self.rise(place as usize);
        }
    }

    /// Takes out one index whose deadline has come.
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<u32> {
        let first = *self.heap.first()?;
        (first.at <= now).then(|| {
            self.take(0);
            first.index
        })
    }

    /// Forgets an index.
    pub(super) fn remove(&mut self, index: u32) {
        match self.places.get(index as usize) {
            Some(&place) if place != NOWHERE => self.take(place as usize),
            _ => {}
        }
    }

    fn take(&mut self, place: usize) {
        let taken = self.heap.swap_remove(place);
        self.places[taken.index as usize] = NOWHERE;
        if place < self.heap.len() {
            self.note(place);
            self.sink(place);
            self.rise(place);
        }
    }

    fn note(&mut self, place: usize) {
        let index = self.heap[place].index;
        self.places[index as usize] = place as u32; // fits: see `fire_by`
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
    fn a_later_deadline_keeps_the_earlier_entry() {
        let start = Instant::now();
        let after = |ms| start + Duration::from_millis(ms);
        let mut timers = Timers::default();
        timers.fire_by(3, after(10));
        timers.fire_by(3, after(20));
        assert_eq!(timers.next(), Some(after(10)));
        timers.fire_by(3, after(5));
        assert_eq!(timers.pop_due(after(4)), None);
        assert_eq!(timers.pop_due(after(5)), Some(3));
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
                    timers.fire_by(index, at);
                    let slot = &mut model[index as usize];
                    *slot = Some(slot.map_or(at, |old| old.min(at)));
                }
            }
            assert_eq!(timers.next(), model.iter().flatten().min().copied());
        }
    }
}
