//! A link that also holds its packets until they are due: one direction, whole.
//!
//! Packets go in by [`push`](Path::push), come out by [`poll`](Path::poll) once they are due, and
//! [`poll_timeout`](Path::poll_timeout) says when to ask.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use crate::conditions::Conditions;
use crate::link::{Counts, Link};

/// One direction of a link, with what is under way on it.
#[derive(Debug)]
pub struct Path<T> {
    link: Link,
    flights: BinaryHeap<Reverse<Flight<T>>>,
    /// Copies under way so far: the order among those that are due at the same moment.
    copies: u64,
    /// The newest packet that came out, by its number among those that went in.
    newest_out: u64,
}

/// A copy of a packet on its way.
#[derive(Debug)]
struct Flight<T> {
    due: Duration,
    copy: u64,
    serial: u64,
    packet: T,
}

impl<T> PartialEq for Flight<T> {
    fn eq(&self, other: &Self) -> bool {
        self.copy == other.copy
    }
}

impl<T> Eq for Flight<T> {}

impl<T> PartialOrd for Flight<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Flight<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.due, self.copy).cmp(&(other.due, other.copy))
    }
}

impl<T: Clone> Path<T> {
    /// An empty path over this link.
    pub fn new(link: Link) -> Self {
        Self { link, flights: BinaryHeap::new(), copies: 0, newest_out: 0 }
    }

    /// A packet of so many bytes goes in.
    pub fn push(&mut self, now: Duration, bytes: usize, packet: T) {
        let fate = self.link.offer(now, bytes);
        let serial = self.link.counts().offered;
        for due in fate.moments() {
            self.copies += 1;
            let copy = self.copies;
            self.flights.push(Reverse(Flight { due, copy, serial, packet: packet.clone() }));
        }
    }

    /// The next packet that has come out by now.
    pub fn poll(&mut self, now: Duration) -> Option<T> {
        if self.poll_timeout()? > now {
            return None;
        }
        let Reverse(flight) = self.flights.pop()?;
        self.link.came_out(flight.serial, self.newest_out);
        self.newest_out = self.newest_out.max(flight.serial);
        Some(flight.packet)
    }

    /// When the next packet comes out.
    pub fn poll_timeout(&self) -> Option<Duration> {
        self.flights.peek().map(|Reverse(flight)| flight.due)
    }

    /// Other conditions from now on.
    pub fn set(&mut self, conditions: Conditions, now: Duration) {
        self.link.set(conditions, now);
    }

    /// Nothing that goes in before then comes out.
    pub fn black_out(&mut self, until: Duration) {
        self.link.black_out(until);
    }

    /// Every blackout that was ordered is over.
    pub fn light_up(&mut self) {
        self.link.light_up();
    }

    /// The conditions of this moment.
    pub fn conditions(&self) -> &Conditions {
        self.link.conditions()
    }

    /// What happened so far.
    pub fn counts(&self) -> Counts {
        self.link.counts()
    }

    /// Copies under way.
    pub fn in_flight(&self) -> usize {
        self.flights.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conditions::{Bandwidth, Bursts};

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn shaky() -> Conditions {
        Conditions {
            loss_percent: 20.0,
            duplicate_percent: 2.0,
            delay_ms: 50,
            jitter_ms: 20,
            ..Conditions::default()
        }
    }

    /// Sends packets `gap_ms` apart; gives what came out, with the moments, and the counts.
    fn run(conditions: Conditions, packets: u64, gap_ms: u64) -> (Vec<(Duration, u64)>, Counts) {
        let mut path = Path::new(Link::new(conditions, 3, ms(0)));
        let mut out = Vec::new();
        let mut drain = |path: &mut Path<u64>, until: Duration| {
            while let Some(due) = path.poll_timeout().filter(|due| *due <= until) {
                out.push((due, path.poll(due).expect("it is due")));
            }
        };
        for packet in 0..packets {
            drain(&mut path, ms(packet * gap_ms));
            path.push(ms(packet * gap_ms), 100, packet);
        }
        drain(&mut path, Duration::MAX);
        (out, path.counts())
    }

    #[test]
    fn it_is_as_bad_as_said() {
        let (_, counts) = run(shaky(), 100_000, 10);
        assert!((19_000..21_000).contains(&counts.lost), "{counts:?}");
        assert!((1_300..1_900).contains(&counts.duplicated), "{counts:?}");
        assert!(counts.reordered > 10_000, "{counts:?}");
        assert_eq!(counts.forwarded, counts.offered - counts.lost + counts.duplicated);
    }

    #[test]
    fn the_same_seed_does_the_same_and_another_concern_moves_nothing() {
        let numbers = |conditions: Conditions| -> Vec<u64> {
            let (mut out, _) = run(conditions, 2_000, 10);
            out.sort_unstable_by_key(|(_, packet)| *packet);
            out.dedup_by_key(|(_, packet)| *packet);
            out.into_iter().map(|(_, packet)| packet).collect()
        };
        assert_eq!(run(shaky(), 2_000, 10).0, run(shaky(), 2_000, 10).0);
        let slower = Conditions { delay_ms: 400, jitter_ms: 90, late_percent: 5.0, ..shaky() };
        assert_eq!(numbers(shaky()), numbers(slower), "the same packets are lost");
    }

    #[test]
    fn delays_stay_within_the_jitter() {
        let (out, counts) = run(shaky(), 10_000, 100);
        let took = out.iter().map(|(at, packet)| *at - ms(packet * 100));
        let (least, most) = (took.clone().min().unwrap(), took.max().unwrap());
        assert!(least >= ms(30) && least < ms(31), "{least:?}");
        assert!(most <= ms(70) && most > ms(69), "{most:?}");
        assert_eq!((counts.delay_ms_max, counts.reordered), (69, 0));
    }

    #[test]
    fn a_good_link_does_nothing_but_take_time() {
        let (out, counts) = run(Conditions::clear(5), 1_000, 1);
        assert_eq!((counts.offered, counts.forwarded, counts.lost), (1_000, 1_000, 0));
        assert!(out.iter().all(|(at, packet)| *at == ms(packet + 5)));
    }

    #[test]
    fn order_is_kept_where_it_is_kept_but_for_the_late() {
        let kept = Conditions { keeps_order: true, ..shaky() };
        assert_eq!(run(kept.clone(), 20_000, 5).1.reordered, 0);
        let late = Conditions { late_percent: 10.0, late_ms: 200, ..kept };
        let counts = run(late, 20_000, 5).1;
        assert!((500..2_500).contains(&counts.reordered), "{counts:?}");
    }

    #[test]
    fn a_full_queue_drops_at_its_tail_and_delays_before() {
        let line = Bandwidth { kbit_per_s: 64, queue_bytes: 8_000 };
        let slow = Conditions { bandwidth: Some(line), ..Conditions::clear(10) };
        let (out, counts) = run(slow, 1_000, 5); // 20,000 bytes a second into 8,000
        assert!((510..530).contains(&counts.overflowed), "{counts:?}");
        assert!((950..=1_010).contains(&counts.delay_ms_max), "a second of queue: {counts:?}");
        let seconds = out.last().expect("some came out").0.as_secs_f64();
        let rate = out.len() as f64 * 100.0 / seconds;
        assert!((7_900.0..8_100.0).contains(&rate), "{rate} bytes a second");
    }

    #[test]
    fn a_blackout_takes_all_that_goes_in_and_leaves_what_is_under_way() {
        let mut path = Path::new(Link::new(Conditions::clear(50), 1, ms(0)));
        path.push(ms(0), 1, "before");
        path.black_out(ms(100));
        path.push(ms(99), 1, "within");
        path.push(ms(100), 1, "after");
        assert_eq!(path.poll(ms(50)), Some("before"));
        assert_eq!(path.poll(ms(500)), Some("after"));
        assert_eq!((path.poll(ms(999)), path.counts().lost_in_outage), (None, 1));
    }

    #[test]
    fn conditions_change_on_the_way() {
        let mut path = Path::new(Link::new(Conditions::clear(10), 1, ms(0)));
        path.push(ms(0), 1, 1);
        let bursts = Bursts { good_ms: 1, bad_ms: 1_000_000, loss_percent: 100.0 };
        path.set(Conditions { bursts: Some(bursts), ..Conditions::clear(10) }, ms(1));
        (100..200).for_each(|at| path.push(ms(at), 1, 2));
        assert_eq!(path.counts().lost_in_burst, 100);
        path.set(Conditions::clear(10), ms(300));
        path.push(ms(300), 1, 3);
        let out: Vec<i32> = std::iter::from_fn(|| path.poll(ms(400))).collect();
        assert_eq!(out, [1, 3]);
    }
}
