//! A set of numbers that mostly follow each other.

use std::collections::BTreeMap;

/// Ranges kept apart; beyond, the oldest are taken for whole.
const RANGES_MAX: usize = 4_096;

/// The set: ranges by their first number, with their last.
#[derive(Clone, Debug, Default)]
pub struct Ranges {
    ranges: BTreeMap<u64, u64>,
    len: u64,
}

impl Ranges {
    /// Adds a number; whether it is new.
    pub fn insert(&mut self, number: u64) -> bool {
        let before = self.ranges.range(..=number).next_back().map(|(from, to)| (*from, *to));
        if before.is_some_and(|(_, to)| number <= to) {
            return false;
        }
        self.len += 1;
        let joins = before.filter(|(_, to)| to.checked_add(1) == Some(number));
        let from = joins.map_or(number, |(from, _)| from);
        let next = number.checked_add(1).and_then(|next| self.ranges.remove(&next));
        self.ranges.insert(from, next.unwrap_or(number));
        if self.ranges.len() > RANGES_MAX {
            self.join_oldest();
        }
        true
    }

    /// How many numbers were added.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether none was.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The largest number.
    pub fn largest(&self) -> Option<u64> {
        self.ranges.last_key_value().map(|(_, to)| *to)
    }

    fn join_oldest(&mut self) {
        let Some((first, _)) = self.ranges.pop_first() else { return };
        if let Some((_, to)) = self.ranges.pop_first() {
            self.ranges.insert(first, to);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_number_is_new_once() {
        let mut ranges = Ranges::default();
        for number in [5, 3, 4, 0, u64::MAX, 6, 1, 2] {
            assert!(ranges.insert(number), "{number}");
            assert!(!ranges.insert(number), "{number}");
        }
        assert_eq!((ranges.len(), ranges.ranges.len()), (8, 2));
        assert_eq!(ranges.largest(), Some(u64::MAX));
    }

    #[test]
    fn it_stays_bounded() {
        let mut ranges = Ranges::default();
        (0..20_000).for_each(|number| assert!(ranges.insert(number * 2)));
        assert!(ranges.ranges.len() <= RANGES_MAX);
    }
}
