//! Which packets are lost on the way: each for itself, in bursts, and in outages.
//!
//! Bursts and outages go by time, not by packets: a chat sends few packets, and a tunnel lasts as
//! long whatever is sent in it.

use std::time::Duration;

use crate::conditions::{Bursts, Outages};
use crate::random::Stream;

/// Two states in turn, each for a random time without memory. Begins with the first one.
#[derive(Clone, Debug)]
struct Turns {
    stream: Stream,
    is_second: bool,
    /// When the state changes.
    until: Duration,
    /// How long each state lasts on average, in ms.
    means_ms: [u64; 2],
}

impl Turns {
    fn new(mut stream: Stream, means_ms: [u64; 2], now: Duration) -> Self {
        let until = now + stream.lasting(means_ms[0]);
        Self { stream, is_second: false, until, means_ms }
    }

    /// Whether the second state holds at this moment, which is none before that of the last call.
    fn is_second(&mut self, now: Duration) -> bool {
        while self.until <= now {
            self.is_second = !self.is_second;
            let mean = self.means_ms[usize::from(self.is_second)];
            // A millisecond at least, so that this ends.
            self.until += self.stream.lasting(mean).max(Duration::from_millis(1));
        }
        self.is_second
    }
}

/// Bursts of losses on one direction.
#[derive(Clone, Debug)]
pub struct BurstLoss {
    turns: Turns,
    chance: f64,
    stream: Stream,
}

impl BurstLoss {
    /// Bursts that begin after a good time.
    pub fn new(bursts: Bursts, seed: u64, now: Duration) -> Self {
        let turns = Turns::new(Stream::of(seed, "bursts"), [bursts.good_ms, bursts.bad_ms], now);
        let chance = bursts.loss_percent / 100.0;
        Self { turns, chance, stream: Stream::of(seed, "burst loss") }
    }

    /// Whether a packet of this moment is lost.
    pub fn strikes(&mut self, now: Duration) -> bool {
        self.turns.is_second(now) && self.stream.chance(self.chance)
    }
}

/// Times in which one direction lets nothing through.
#[derive(Clone, Debug)]
pub struct OutageLoss {
    turns: Turns,
}

impl OutageLoss {
    /// Outages of which the first comes after a while.
    pub fn new(outages: Outages, seed: u64, now: Duration) -> Self {
        let means = [outages.every_ms.saturating_sub(outages.last_ms).max(1), outages.last_ms];
        Self { turns: Turns::new(Stream::of(seed, "outages"), means, now) }
    }

    /// Whether nothing comes through at this moment.
    pub fn strikes(&mut self, now: Duration) -> bool {
        self.turns.is_second(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn bursts_lose_in_a_row_and_as_much_as_said() {
        let bursts = Bursts { good_ms: 900, bad_ms: 100, loss_percent: 80.0 };
        let mut loss = BurstLoss::new(bursts, 5, ms(0));
        let lost: Vec<bool> = (0..1_000_000).map(|at| loss.strikes(ms(at))).collect();
        let count = lost.iter().filter(|lost| **lost).count();
        assert!((70_000..90_000).contains(&count), "8 % of all: {count}");
        let after_a_loss = lost.windows(2).filter(|pair| pair[0] && pair[1]).count();
        assert!(after_a_loss * 100 > count * 70, "losses come together: {after_a_loss}");
    }

    #[test]
    fn outages_take_their_share_of_the_time_and_all_of_it() {
        let outages = Outages { every_ms: 10_000, last_ms: 2_000 };
        let mut loss = OutageLoss::new(outages, 5, ms(0));
        let dark: Vec<bool> = (0..2_000_000).map(|at| loss.strikes(ms(at))).collect();
        let count = dark.iter().filter(|dark| **dark).count();
        assert!((300_000..500_000).contains(&count), "a fifth: {count}");
        let begins = dark.windows(2).filter(|pair| !pair[0] && pair[1]).count();
        assert!((140..260).contains(&begins), "one in ten seconds: {begins}");
    }
}
