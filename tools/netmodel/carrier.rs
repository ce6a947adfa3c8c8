//! What a transport makes of a bad link, where the transport itself is not run: an ordered and
//! reliable stream each way, for which a loss costs time, and datagrams, which the link may lose,
//! double and reorder.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::Duration;

use crate::conditions::Conditions;
use crate::link::{Counts, Link};
use crate::random::mix;

/// What the first repair of a loss costs: a transport's guess of the round trip and some. Each
/// further loss of the same parcel costs twice as much.
const REPAIR: Duration = Duration::from_millis(250);

/// Repairs of one parcel after which it is let through, so that a link that loses everything
/// makes a stream slow and not endless: 17 minutes by then.
const REPAIRS_MAX: u32 = 12;

/// A direction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// From the client.
    ToServer,
    /// From the server.
    ToClient,
}

/// How a parcel travels.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    /// In the stream: in order, and surely.
    Ordered,
    /// As a datagram: once, never, twice, early or late.
    Loose,
}

/// One connection's transport, both ways, for parcels `P`.
#[derive(Debug)]
pub struct Carrier<P> {
    to_server: Pipe<P>,
    to_client: Pipe<P>,
}

/// One direction.
#[derive(Debug)]
struct Pipe<P> {
    link: Link,
    /// Ordered parcels under way, with the moment at which each arrives; in order of both.
    stream: VecDeque<(Duration, P)>,
    /// Datagrams under way, by moment and number.
    loose: BinaryHeap<Reverse<Loose<P>>>,
    loose_count: u64,
    /// Nothing arrives before.
    not_before: Duration,
    is_cut: bool,
}

#[derive(Debug)]
struct Loose<P> {
    rank: (Duration, u64),
    parcel: P,
}

impl<P> PartialEq for Loose<P> {
    fn eq(&self, other: &Self) -> bool {
        self.rank == other.rank
    }
}

impl<P> Eq for Loose<P> {}

impl<P> PartialOrd for Loose<P> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<P> Ord for Loose<P> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.rank.cmp(&other.rank)
    }
}

impl<P: Clone> Carrier<P> {
    /// A transport over a perfect link; `seed` decides what a worse one does.
    pub fn new(seed: u64, now: Duration) -> Self {
        let link = |way| Link::new(Conditions::default(), mix(seed ^ way), now);
        Self { to_server: Pipe::new(link(0)), to_client: Pipe::new(link(1)) }
    }

    fn pipe(&mut self, way: Way) -> &mut Pipe<P> {
        match way {
            Way::ToServer => &mut self.to_server,
            Way::ToClient => &mut self.to_client,
        }
    }

    /// Other conditions of a direction from now on.
    pub fn set(&mut self, way: Way, conditions: Conditions, now: Duration) {
        let link = &mut self.pipe(way).link;
        if *link.conditions() != conditions {
            link.set(conditions, now);
        }
    }

    /// What the link of a direction did.
    pub fn counts(&self, way: Way) -> Counts {
        match way {
            Way::ToServer => self.to_server.link.counts(),
            Way::ToClient => self.to_client.link.counts(),
        }
    }

    /// When something of so many bytes that is surely repaired would arrive.
    pub fn crossing(&mut self, way: Way, bytes: usize, now: Duration) -> Duration {
        self.pipe(way).crossing(bytes, now)
    }

    /// Takes a parcel. Returns the moments at which to ask [`deliver`](Self::deliver); none if it
    /// is lost.
    pub fn offer(
        &mut self,
        way: Way,
        class: Class,
        (bytes, parcel): (usize, P),
        now: Duration,
    ) -> Vec<Duration> {
        let pipe = self.pipe(way);
        match (pipe.is_cut, class) {
            (true, _) => Vec::new(),
            (_, Class::Ordered) => vec![pipe.offer_ordered(bytes, parcel, now)],
            (_, Class::Loose) => pipe.offer_loose(bytes, &parcel, now),
        }
    }

    /// The next parcel that has arrived.
    pub fn deliver(&mut self, way: Way, now: Duration) -> Option<P> {
        let pipe = self.pipe(way);
        let loose_due = pipe.loose.peek().map(|Reverse(loose)| loose.rank.0);
        let stream_due = pipe.stream.front().map(|(due, _)| *due);
        let loose_first = match (loose_due, stream_due) {
            (Some(loose), Some(stream)) => loose < stream,
            (loose, _) => loose.is_some(),
        };
        if loose_first {
            loose_due.filter(|due| *due <= now)?;
            return pipe.loose.pop().map(|Reverse(loose)| loose.parcel);
        }
        pipe.stream.pop_front_if(|(due, _)| *due <= now).map(|(_, parcel)| parcel)
    }

    /// Nothing of this direction arrives before `until`: the stream waits, datagrams under way
    /// are lost. Returns when to ask for each parcel that is under way.
    pub fn stall(&mut self, way: Way, until: Duration) -> Vec<Duration> {
        let pipe = self.pipe(way);
        pipe.not_before = pipe.not_before.max(until);
        pipe.link.black_out(until);
        pipe.loose.clear();
        for (due, _) in &mut pipe.stream {
            *due = (*due).max(until);
        }
        pipe.stream.iter().map(|(due, _)| *due).collect()
    }

    /// What is under way never arrives, nor does what is offered from now on.
    pub fn cut(&mut self, way: Way) {
        let pipe = self.pipe(way);
        pipe.stream.clear();
        pipe.loose.clear();
        pipe.is_cut = true;
    }
}

impl<P: Clone> Pipe<P> {
    fn new(link: Link) -> Self {
        Self {
            link,
            stream: VecDeque::new(),
            loose: BinaryHeap::new(),
            loose_count: 0,
            not_before: Duration::ZERO,
            is_cut: false,
        }
    }

    fn crossing(&mut self, bytes: usize, now: Duration) -> Duration {
        let mut sent_at = now;
        for repairs in 0..REPAIRS_MAX {
            if let Some(due) = self.link.offer(sent_at, bytes).moments().next() {
                return due;
            }
            sent_at += REPAIR * 2_u32.pow(repairs);
        }
        sent_at
    }

    fn offer_ordered(&mut self, bytes: usize, parcel: P, now: Duration) -> Duration {
        let due = self.crossing(bytes, now);
        self.not_before = self.not_before.max(due);
        self.stream.push_back((self.not_before, parcel));
        self.not_before
    }

    fn offer_loose(&mut self, bytes: usize, parcel: &P, now: Duration) -> Vec<Duration> {
        let moments: Vec<Duration> = self.link.offer(now, bytes).moments().collect();
        for due in &moments {
            self.loose_count += 1;
            let rank = (*due, self.loose_count);
            self.loose.push(Reverse(Loose { rank, parcel: parcel.clone() }));
        }
        moments
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn order_holds_whatever_the_delays() {
        let mut carrier = Carrier::new(1, ms(0));
        let offer = |carrier: &mut Carrier<&str>, text, now, delay| {
            carrier.set(
                Way::ToServer,
                Conditions { delay_ms: delay, ..Conditions::default() },
                now,
            );
            carrier.offer(Way::ToServer, Class::Ordered, (1, text), now)
        };
        assert_eq!(offer(&mut carrier, "slow", ms(0), 50), [ms(50)]);
        assert_eq!(offer(&mut carrier, "fast", ms(10), 1), [ms(50)]);
        assert_eq!(carrier.deliver(Way::ToServer, ms(49)), None);
        assert_eq!(carrier.stall(Way::ToServer, ms(80)), [ms(80), ms(80)]);
        assert_eq!(carrier.deliver(Way::ToServer, ms(80)), Some("slow"));
        carrier.cut(Way::ToServer);
        assert_eq!(carrier.deliver(Way::ToServer, ms(90)), None);
        assert_eq!(offer(&mut carrier, "late", ms(90), 1), []);
        let back = carrier.offer(Way::ToClient, Class::Ordered, (1, "back"), ms(90));
        assert_eq!(back, [ms(90)]);
    }

    #[test]
    fn a_loss_costs_a_stream_time_and_a_datagram_itself() {
        let lossy = Conditions { loss_percent: 30.0, ..Conditions::clear(10) };
        let mut carrier = Carrier::new(1, ms(0));
        carrier.set(Way::ToServer, lossy, ms(0));
        let at = |number: u64| ms(number * 100_000);
        let mut ordered = 0;
        let mut loose = 0;
        for number in 0..1_000 {
            let moments = carrier.offer(Way::ToServer, Class::Ordered, (1, number), at(number));
            ordered += u64::from(moments[0] > at(number) + ms(10));
            loose += carrier.offer(Way::ToServer, Class::Loose, (1, number), at(number)).len();
            while carrier.deliver(Way::ToServer, at(number + 1)).is_some() {}
        }
        assert!((250..350).contains(&ordered), "{ordered} repaired");
        assert!((650..750).contains(&loose), "{loose} came");
    }

    #[test]
    fn a_datagram_overtakes_the_stream_and_a_stall_loses_it() {
        let mut carrier = Carrier::new(1, ms(0));
        carrier.set(Way::ToClient, Conditions::clear(500), ms(0));
        carrier.offer(Way::ToClient, Class::Ordered, (1, "stream"), ms(0));
        carrier.set(Way::ToClient, Conditions::default(), ms(0));
        carrier.offer(Way::ToClient, Class::Loose, (1, "first"), ms(1));
        assert_eq!(carrier.deliver(Way::ToClient, ms(1)), Some("first"));
        assert_eq!(carrier.deliver(Way::ToClient, ms(1)), None);
        carrier.offer(Way::ToClient, Class::Loose, (1, "lost"), ms(2));
        carrier.stall(Way::ToClient, ms(900));
        assert_eq!(carrier.offer(Way::ToClient, Class::Loose, (1, "dark"), ms(3)), []);
        assert_eq!(carrier.deliver(Way::ToClient, ms(900)), Some("stream"));
        assert_eq!(carrier.deliver(Way::ToClient, ms(9_000)), None);
    }
}
