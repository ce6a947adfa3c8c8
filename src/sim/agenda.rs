//! What is to happen when, on the world's one clock.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::random::Stream;

/// Things to come, earliest first; things of the same moment come in random order, so that no
/// order of sources is taken for granted.
#[derive(Debug)]
pub struct Agenda<T> {
    heap: BinaryHeap<Reverse<Entry<T>>>,
    order: Stream,
    count: u64,
}

#[derive(Debug)]
struct Entry<T> {
    /// When, a random number, and a serial number that makes it unique.
    rank: (u64, u64, u64),
    what: T,
}

impl<T> PartialEq for Entry<T> {
    fn eq(&self, other: &Self) -> bool {
        self.rank == other.rank
    }
}

impl<T> Eq for Entry<T> {}

impl<T> PartialOrd for Entry<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Entry<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.rank.cmp(&other.rank)
    }
}

impl<T> Agenda<T> {
    /// An empty one; `order` decides between things of the same moment.
    pub fn new(order: Stream) -> Self {
        Self { heap: BinaryHeap::new(), order, count: 0 }
    }

    /// `what` happens at `when`, in ms of the world's clock.
    pub fn add(&mut self, when: u64, what: T) {
        self.count += 1;
        let rank = (when, self.order.draw(), self.count);
        self.heap.push(Reverse(Entry { rank, what }));
    }

    /// The next thing and its time.
    pub fn take(&mut self) -> Option<(u64, T)> {
        let Reverse(entry) = self.heap.pop()?;
        Some((entry.rank.0, entry.what))
    }

    /// Things to come.
    pub fn len(&self) -> usize {
        self.heap.len()
    }

    /// Whether nothing is to come.
    pub fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_comes_first_and_chance_second() {
        let mut agenda = Agenda::new(Stream::of(3, "agenda"));
        (0..50).for_each(|n| agenda.add(100 - n % 2, n));
        let taken: Vec<(u64, u64)> = std::iter::from_fn(|| agenda.take()).collect();
        assert!(taken.is_sorted_by_key(|(when, _)| *when));
        assert!(!taken.iter().filter(|(when, _)| *when == 100).is_sorted_by_key(|(_, n)| *n));
    }
}
