//! The pushes of one connection that left by datagram and may not have come, as entries: one for
//! each copy of a push.
//!
//! Invariants: entries stand in the order in which quinn-proto was given them, and those that it
//! still holds are the last. An entry leaves when a packet with its push has arrived, or when it
//! counts as lost; a push is lost when the last of its copies is. What quinn-proto holds stays,
//! settled or not, since held datagrams are told apart by their order alone. A packet is known by
//! the moment of its sending, which no other packet of the connection has.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use tern_protocol::doubling::COPY_AFTER;

/// See the head of the file. `P` is what a push is remembered by; no two pushes share one.
#[derive(Debug)]
pub(crate) struct Flight<P> {
    copies: VecDeque<Copy<P>>,
    /// Of these, how many want a second copy of their push.
    to_double: usize,
}

/// One copy of a push.
#[derive(Debug)]
struct Copy<P> {
    push: P,
    /// When its packet left; `None` while quinn-proto holds it.
    sent: Option<Instant>,
    /// Whether another is to leave.
    doubles: bool,
    /// Whether another has arrived while quinn-proto held this one.
    is_settled: bool,
}

impl<P> Default for Flight<P> {
    fn default() -> Self {
        Self { copies: VecDeque::new(), to_double: 0 }
    }
}

impl<P: Clone + PartialEq> Flight<P> {
    pub(crate) fn is_empty(&self) -> bool {
        self.copies.is_empty()
    }

    /// quinn-proto was given a copy of a push. `doubles`: whether another is to follow.
    pub(crate) fn add(&mut self, push: P, doubles: bool) {
        self.to_double += usize::from(doubles);
        self.copies.push_back(Copy { push, sent: None, doubles, is_settled: false });
    }

    /// Whether quinn-proto holds any.
    pub(crate) fn is_held(&self) -> bool {
        self.copies.back().is_some_and(|copy| copy.sent.is_none())
    }

    /// The next `count` of those that quinn-proto held are in a packet of this moment.
    pub(crate) fn left(&mut self, count: u64, at: Instant) {
        let held = self.copies.iter_mut().filter(|copy| copy.sent.is_none());
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        held.take(count).for_each(|copy| copy.sent = Some(at));
    }

    /// The packet of this moment has arrived: no other copy of what it brought is waited for.
    pub(crate) fn arrived(&mut self, sent: Instant) {
        while let Some(index) = self.copies.iter().position(|copy| copy.sent == Some(sent)) {
            let push = self.copies[index].push.clone();
            self.settle(&push);
        }
    }

    fn settle(&mut self, push: &P) {
        let to_double = &mut self.to_double;
        self.copies.retain_mut(|copy| {
            if copy.push != *push {
                return true;
            }
            *to_double -= usize::from(std::mem::take(&mut copy.doubles));
            copy.is_settled = true;
            copy.sent.is_none()
        });
    }

    /// When the oldest counts as lost, so long after it left, or the next second copy is due.
    pub(crate) fn deadline(&self, lost_after: Duration) -> Option<Instant> {
        let lost = self.copies.front()?.sent.map(|sent| sent + lost_after);
        [lost, self.copy_due().map(|(_, due)| due)].into_iter().flatten().min()
    }

    /// The next copy whose second is due, and when.
    fn copy_due(&self) -> Option<(usize, Instant)> {
        if self.to_double == 0 {
            return None;
        }
        let index = self.copies.iter().position(|copy| copy.doubles)?;
        Some((index, self.copies[index].sent? + COPY_AFTER))
    }

    /// Takes a push of which a second copy must leave now.
    pub(crate) fn take_copy(&mut self, now: Instant) -> Option<P> {
        let (index, _) = self.copy_due().filter(|(_, due)| *due <= now)?;
        self.to_double -= 1;
        let copy = &mut self.copies[index];
        copy.doubles = false;
        Some(copy.push.clone())
    }

    /// Takes the oldest push of which every copy left `lost_after` ago or earlier.
    pub(crate) fn take_lost(&mut self, now: Instant, lost_after: Duration) -> Option<P> {
        while self.copies.front()?.sent? + lost_after <= now {
            let copy = self.copies.pop_front()?;
            self.to_double -= usize::from(copy.doubles);
            let has_other = self.copies.iter().any(|other| other.push == copy.push);
            if !has_other && !copy.is_settled {
                return Some(copy.push);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOST_AFTER: Duration = Duration::from_millis(155);

    /// A push whose first copy left at `start`, and whose second was given 20 ms later.
    fn doubled(start: Instant) -> Flight<u64> {
        let mut flight = Flight::default();
        flight.add(8, true);
        assert!(flight.is_held() && flight.deadline(LOST_AFTER).is_none());
        flight.left(1, start);
        assert_eq!(flight.deadline(LOST_AFTER), Some(start + COPY_AFTER));
        assert_eq!(flight.take_copy(start), None);
        assert_eq!(flight.take_copy(start + COPY_AFTER), Some(8));
        assert_eq!(flight.take_copy(start + COPY_AFTER), None);
        flight.add(8, false);
        flight
    }

    #[test]
    fn either_copy_settles_both() {
        let start = Instant::now();
        for arrives in [start, start + COPY_AFTER] {
            let mut flight = doubled(start);
            flight.left(1, start + COPY_AFTER);
            flight.arrived(arrives);
            assert!(flight.is_empty());
        }
    }

    #[test]
    fn a_push_is_lost_with_its_last_copy() {
        let start = Instant::now();
        let mut flight = doubled(start);
        flight.left(1, start + COPY_AFTER);
        assert_eq!(flight.take_lost(start, LOST_AFTER), None);
        assert_eq!(flight.take_lost(start + LOST_AFTER, LOST_AFTER), None);
        let late = start + COPY_AFTER + LOST_AFTER;
        assert_eq!(flight.take_lost(late, LOST_AFTER), Some(8));
        assert!(flight.is_empty());
    }

    #[test]
    fn each_of_many_that_are_lost_at_once_is_taken() {
        let start = Instant::now();
        let mut flight = Flight::default();
        (1..=5).for_each(|at| flight.add(at, false));
        flight.left(5, start);
        let lost: Vec<_> =
            std::iter::from_fn(|| flight.take_lost(start + LOST_AFTER, LOST_AFTER)).collect();
        assert_eq!(lost, [1, 2, 3, 4, 5]);
    }

    #[test]
    fn a_copy_that_is_held_keeps_its_turn() {
        let start = Instant::now();
        let mut flight = doubled(start);
        flight.arrived(start); // while quinn-proto holds the second copy
        flight.add(16, false);
        flight.left(1, start + COPY_AFTER); // the second copy of the first push
        let late = start + COPY_AFTER + LOST_AFTER;
        assert_eq!(flight.take_lost(late, LOST_AFTER), None);
        assert!(flight.is_held(), "the other push has not left");
        flight.left(1, late);
        flight.arrived(late);
        assert!(flight.is_empty());
    }

    #[test]
    fn what_arrived_before_its_copy_was_due_has_none() {
        let start = Instant::now();
        let mut flight = Flight::default();
        flight.add(8, true);
        flight.add(16, true);
        flight.left(2, start);
        flight.arrived(start);
        assert_eq!(flight.deadline(LOST_AFTER), None);
        flight.add(24, true);
        flight.left(1, start);
        assert_eq!(flight.take_lost(start + LOST_AFTER, LOST_AFTER), Some(24));
        assert_eq!(flight.take_copy(start + LOST_AFTER), None);
    }
}
