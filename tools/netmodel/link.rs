//! One direction of a link: decides what becomes of each packet, and counts it.

use std::time::Duration;

use crate::conditions::Conditions;
use crate::line::Line;
use crate::loss::{BurstLoss, OutageLoss};
use crate::random::Stream;

/// What happened to the packets of one direction.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Counts {
    /// Packets that went in.
    pub offered: u64,
    /// Bytes that went in.
    pub offered_bytes: u64,
    /// Packets that came out; copies count.
    pub forwarded: u64,
    /// Packets that never came out, for whatever reason.
    pub lost: u64,
    /// Of those, how many in a burst.
    pub lost_in_burst: u64,
    /// Of those, how many in an outage or a blackout.
    pub lost_in_outage: u64,
    /// Of those, how many for want of room in the queue.
    pub overflowed: u64,
    /// Packets that came out twice.
    pub duplicated: u64,
    /// Packets that came out after one that went in later.
    pub reordered: u64,
    /// The longest that a packet took, in ms.
    pub delay_ms_max: u64,
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.offered += other.offered;
        self.offered_bytes += other.offered_bytes;
        self.forwarded += other.forwarded;
        self.lost += other.lost;
        self.lost_in_burst += other.lost_in_burst;
        self.lost_in_outage += other.lost_in_outage;
        self.overflowed += other.overflowed;
        self.duplicated += other.duplicated;
        self.reordered += other.reordered;
        self.delay_ms_max = self.delay_ms_max.max(other.delay_ms_max);
    }
}

/// What becomes of a packet: the moments at which its copies come out, in the order of the copies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fate {
    copies: [Option<Duration>; 2],
}

impl Fate {
    /// The packet never comes out.
    pub const LOST: Self = Self { copies: [None, None] };

    /// When each copy comes out; nothing if the packet is lost.
    pub fn moments(self) -> impl Iterator<Item = Duration> {
        self.copies.into_iter().flatten()
    }
}

/// Why a packet is lost.
enum Loss {
    Chance,
    Burst,
    Outage,
    Overflow,
}

/// One direction of a link.
#[derive(Clone, Debug)]
pub struct Link {
    seed: u64,
    conditions: Conditions,
    bursts: Option<BurstLoss>,
    outages: Option<OutageLoss>,
    line: Option<Line>,
    /// Nothing comes through before.
    dark_until: Duration,
    /// When the newest packet comes out that keeps its order.
    newest: Duration,
    loss: Stream,
    delay: Stream,
    late: Stream,
    duplicates: Stream,
    counts: Counts,
}

impl Link {
    /// A link whose every decision follows from `seed`; its conditions begin at `now`.
    pub fn new(conditions: Conditions, seed: u64, now: Duration) -> Self {
        let mut link = Self {
            seed,
            conditions: Conditions::default(),
            bursts: None,
            outages: None,
            line: None,
            dark_until: Duration::ZERO,
            newest: Duration::ZERO,
            loss: Stream::of(seed, "loss"),
            delay: Stream::of(seed, "delay"),
            late: Stream::of(seed, "late"),
            duplicates: Stream::of(seed, "duplicates"),
            counts: Counts::default(),
        };
        link.set(conditions, now);
        link
    }

    /// Other conditions from now on. What stays the same goes on as it was.
    pub fn set(&mut self, conditions: Conditions, now: Duration) {
        if conditions.bursts != self.conditions.bursts {
            self.bursts = conditions.bursts.map(|bursts| BurstLoss::new(bursts, self.seed, now));
        }
        if conditions.outages != self.conditions.outages {
            self.outages = conditions.outages.map(|o| OutageLoss::new(o, self.seed, now));
        }
        if conditions.bandwidth != self.conditions.bandwidth {
            self.line = conditions.bandwidth.map(Line::new);
        }
        self.conditions = conditions;
    }

    /// The conditions of this moment.
    pub fn conditions(&self) -> &Conditions {
        &self.conditions
    }

    /// Nothing comes through until then.
    pub fn black_out(&mut self, until: Duration) {
        self.dark_until = self.dark_until.max(until);
    }

    /// Every blackout that was ordered is over.
    pub fn light_up(&mut self) {
        self.dark_until = Duration::ZERO;
    }

    /// A packet of so many bytes goes in.
    pub fn offer(&mut self, now: Duration, bytes: usize) -> Fate {
        self.counts.offered += 1;
        self.counts.offered_bytes += bytes as u64;
        match self.pass(now, bytes) {
            Ok(gone_at) => self.copies(now, gone_at),
            Err(loss) => {
                self.count(&loss);
                Fate::LOST
            }
        }
    }

    /// A copy came out, as the one of the packet that went in as number `serial`, before which
    /// packets up to `newest_out` had come out.
    pub(crate) fn came_out(&mut self, serial: u64, newest_out: u64) {
        self.counts.forwarded += 1;
        self.counts.reordered += u64::from(serial < newest_out);
    }

    /// What happened so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// When the packet has gone over the line. Each concern draws for each packet, so that none
    /// moves another.
    fn pass(&mut self, now: Duration, bytes: usize) -> Result<Duration, Loss> {
        let is_unlucky = self.loss.chance(self.conditions.loss_percent / 100.0);
        let in_burst = self.bursts.as_mut().is_some_and(|bursts| bursts.strikes(now));
        let in_outage = self.outages.as_mut().is_some_and(|outages| outages.strikes(now));
        if in_outage || now < self.dark_until {
            return Err(Loss::Outage);
        }
        let gone_at = match &mut self.line {
            Some(line) => line.take(now, bytes).ok_or(Loss::Overflow)?,
            None => now,
        };
        match (in_burst, is_unlucky) {
            (true, _) => Err(Loss::Burst),
            (_, true) => Err(Loss::Chance),
            _ => Ok(gone_at),
        }
    }

    fn copies(&mut self, now: Duration, gone_at: Duration) -> Fate {
        let first = self.arrival(gone_at);
        let twice = self.duplicates.chance(self.conditions.duplicate_percent / 100.0);
        let second = twice.then(|| self.arrival(gone_at));
        self.counts.duplicated += u64::from(twice);
        let longest = first.max(second.unwrap_or_default()) - now;
        let ms = longest.as_millis() as u64; // fits: 584 million years
        self.counts.delay_ms_max = self.counts.delay_ms_max.max(ms);
        Fate { copies: [Some(first), second] }
    }

    fn arrival(&mut self, gone_at: Duration) -> Duration {
        let (least, most) = self.conditions.delay_bounds();
        let at = gone_at + least + (most - least).mul_f64(self.delay.fraction());
        let is_late = self.late.chance(self.conditions.late_percent / 100.0);
        let held = Duration::from_millis(self.conditions.late_ms).mul_f64(self.late.fraction());
        if is_late {
            return at + held;
        }
        if !self.conditions.keeps_order {
            return at;
        }
        self.newest = self.newest.max(at);
        self.newest
    }

    fn count(&mut self, loss: &Loss) {
        self.counts.lost += 1;
        match loss {
            Loss::Chance => {}
            Loss::Burst => self.counts.lost_in_burst += 1,
            Loss::Outage => self.counts.lost_in_outage += 1,
            Loss::Overflow => self.counts.overflowed += 1,
        }
    }
}
