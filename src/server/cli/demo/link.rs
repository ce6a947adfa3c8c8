//! What a bad link does to packets, decided without touching any: for each packet the times at
//! which its copies come out on the other side, none if it is lost.
//!
//! One [`Link`] is one direction. Time is an argument, chance comes from a seed. Counts of what
//! was done stand in [`Counts`].

use std::time::Duration;

use super::random::Random;

/// How bad a link is; the same in both directions.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Weather {
    /// Probability that a packet is lost, 0 to 1.
    pub loss: f64,
    /// Probability that a packet that is not lost comes out twice, 0 to 1.
    pub duplicates: f64,
    /// Time that a packet takes.
    pub delay: Duration,
    /// A packet takes up to this much less or more; whoever draws less than the one before it
    /// may overtake.
    pub jitter: Duration,
}

/// What happened to the packets of one link.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Counts {
    /// Packets that went in.
    pub offered: u64,
    /// Packets that came out; copies count.
    pub forwarded: u64,
    /// Packets that never came out.
    pub lost: u64,
    /// Packets that came out twice.
    pub duplicated: u64,
    /// Packets that came out after one that went in later.
    pub reordered: u64,
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.offered += other.offered;
        self.forwarded += other.forwarded;
        self.lost += other.lost;
        self.duplicated += other.duplicated;
        self.reordered += other.reordered;
    }
}

/// One direction of a link.
#[derive(Clone, Debug)]
pub struct Link {
    weather: Weather,
    random: Random,
    counts: Counts,
    /// Number of the newest packet that came out.
    newest_out: u64,
}

/// A packet's place among those that went in; the first is 1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Ticket(u64);

impl Link {
    /// A link whose every decision follows from `random`.
    pub fn new(weather: Weather, random: Random) -> Self {
        Self { weather, random, counts: Counts::default(), newest_out: 0 }
    }

    /// A packet goes in: its ticket, and how long each copy of it takes.
    pub fn offer(&mut self) -> (Ticket, impl Iterator<Item = Duration> + use<>) {
        self.counts.offered += 1;
        let ticket = Ticket(self.counts.offered);
        let copies = self.copies();
        let delays: [Duration; 2] = [self.delay(), self.delay()];
        (ticket, delays.into_iter().take(copies))
    }

    /// A copy comes out.
    pub fn came_out(&mut self, ticket: Ticket) {
        self.counts.forwarded += 1;
        if ticket.0 < self.newest_out {
            self.counts.reordered += 1;
        }
        self.newest_out = self.newest_out.max(ticket.0);
    }

    /// What happened so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    fn copies(&mut self) -> usize {
        if self.random.chance(self.weather.loss) {
            self.counts.lost += 1;
            0
        } else if self.random.chance(self.weather.duplicates) {
            self.counts.duplicated += 1;
            2
        } else {
            1
        }
    }

    fn delay(&mut self) -> Duration {
        let least = self.weather.delay.saturating_sub(self.weather.jitter);
        let most = self.weather.delay + self.weather.jitter;
        least + (most - least).mul_f64(self.random.fraction())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WEATHER: Weather = Weather {
        loss: 0.2,
        duplicates: 0.02,
        delay: Duration::from_millis(50),
        jitter: Duration::from_millis(20),
    };

    /// Sends packets `gap_ms` apart through a link and lets them out in the order of their times.
    fn run(weather: Weather, packets: u64, gap_ms: u64) -> Counts {
        let mut link = Link::new(weather, Random::new(3, 1));
        let mut outs = Vec::new();
        for packet in 0..packets {
            let (ticket, delays) = link.offer();
            let at = Duration::from_millis(packet * gap_ms);
            outs.extend(delays.map(|delay| (at + delay, ticket)));
        }
        outs.sort_unstable();
        outs.into_iter().for_each(|(_, ticket)| link.came_out(ticket));
        link.counts()
    }

    #[test]
    fn it_is_as_bad_as_said() {
        let counts = run(WEATHER, 100_000, 10);
        assert!((19_000..21_000).contains(&counts.lost), "{counts:?}");
        assert!((1_300..1_900).contains(&counts.duplicated), "{counts:?}");
        assert!(counts.reordered > 10_000, "{counts:?}");
        assert_eq!(counts.forwarded, counts.offered - counts.lost + counts.duplicated);
    }

    #[test]
    fn delays_stay_within_the_jitter() {
        let mut link = Link::new(WEATHER, Random::new(9, 0));
        let delays: Vec<_> = (0..10_000).flat_map(|_| link.offer().1).collect();
        let (least, most) = (delays.iter().min(), delays.iter().max());
        assert!(least.is_some_and(|least| *least >= Duration::from_millis(30)), "{least:?}");
        assert!(most.is_some_and(|most| *most <= Duration::from_millis(70)), "{most:?}");
    }

    #[test]
    fn a_good_link_does_nothing() {
        let good = Weather { loss: 0.0, duplicates: 0.0, jitter: Duration::ZERO, ..WEATHER };
        let counts = run(good, 1_000, 1);
        assert_eq!(counts, Counts { offered: 1_000, forwarded: 1_000, ..Counts::default() });
    }

    #[test]
    fn jitter_below_the_gap_overtakes_nobody() {
        let counts = run(WEATHER, 10_000, 41);
        assert_eq!(counts.reordered, 0, "{counts:?}");
    }
}
