//! A bad path between the load and the server, made inside the load: packets of both directions
//! wait for half of a round trip, and some never come. It treats all that a connection says alike;
//! packets keep their order.
//!
//! Losses come in bursts: a direction of a device's path is good or bad, and a bad one loses
//! everything (a Gilbert chain). Where each packet is lost or not by itself, bursts have a mean length
//! of 1 / (1 - loss) packets; none is shorter.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use quinn_proto::{ConnectionEvent, ConnectionHandle, Transmit};
use serde::{Deserialize, Serialize};
use tern_random::Stream;

/// What the path does to packets.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct Weather {
    /// There and back.
    pub rtt: Duration,
    /// Share of the packets that is lost, 0 to below 1, in each direction.
    pub loss: f64,
    /// Mean number of packets in a row that are lost; up to 1 / (1 - loss) each packet is lost or
    /// not by itself.
    pub burst: f64,
}

/// The state of one device's path in one direction.
#[derive(Clone, Copy, Default, Debug)]
pub struct Way {
    is_bad: bool,
}

/// Whom a packet is for: a device's number, and its connection.
pub type Receiver = (usize, ConnectionHandle);

/// All packets that are under way.
pub struct Path {
    weather: Weather,
    /// Whether packets are lost yet.
    loses: bool,
    random: Stream,
    to_server: VecDeque<(Instant, usize, Transmit, Vec<u8>)>,
    to_device: VecDeque<(Instant, Receiver, ConnectionEvent)>,
    lost: u64,
    offered: u64,
}

impl Path {
    /// A path that only delays, so far.
    pub fn new(weather: Weather, seed: u64) -> Self {
        Self {
            weather,
            loses: false,
            random: Stream::new(seed),
            to_server: VecDeque::new(),
            to_device: VecDeque::new(),
            lost: 0,
            offered: 0,
        }
    }

    /// From now on packets are lost.
    pub fn begin_to_lose(&mut self) {
        self.loses = true;
    }

    /// Share of the packets that was lost.
    pub fn lost(&self) -> f64 {
        self.lost as f64 / self.offered.max(1) as f64
    }

    /// When a packet that leaves now arrives; `None` if it never does.
    pub fn arrival(&mut self, now: Instant, way: &mut Way) -> Option<Instant> {
        let Weather { loss, burst, .. } = self.weather;
        let burst = burst.max(1.0 / (1.0 - loss));
        if self.loses {
            let (enter, leave) = (loss / (burst * (1.0 - loss)), 1.0 / burst);
            let turn = if way.is_bad { leave } else { enter };
            way.is_bad ^= self.random.chance(turn);
            self.offered += 1;
            self.lost += u64::from(way.is_bad);
        }
        (!way.is_bad).then(|| self.arrives(now))
    }

    /// When a packet that leaves now arrives, if it does.
    pub fn arrives(&self, now: Instant) -> Instant {
        now + self.weather.rtt / 2
    }

    /// A packet to the server takes off, from one of the load's sockets.
    pub fn send(&mut self, arrival: Instant, socket: usize, transmit: Transmit, bytes: Vec<u8>) {
        self.to_server.push_back((arrival, socket, transmit, bytes));
    }

    /// A packet to a device takes off.
    pub fn receive(&mut self, arrival: Instant, receiver: Receiver, event: ConnectionEvent) {
        self.to_device.push_back((arrival, receiver, event));
    }

    /// The next packet that has reached the server, and the socket that sends it.
    pub fn poll_sent(&mut self, now: Instant) -> Option<(usize, Transmit, Vec<u8>)> {
        let due = self.to_server.pop_front_if(|(at, ..)| *at <= now)?;
        Some((due.1, due.2, due.3))
    }

    /// The next packet that has reached a device.
    pub fn poll_received(&mut self, now: Instant) -> Option<(Receiver, ConnectionEvent)> {
        let due = self.to_device.pop_front_if(|(at, ..)| *at <= now)?;
        Some((due.1, due.2))
    }

    /// When the next packet arrives.
    pub fn next(&self) -> Option<Instant> {
        let fronts =
            [self.to_server.front().map(|due| due.0), self.to_device.front().map(|due| due.0)];
        fronts.into_iter().flatten().min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Share of lost packets, and the mean length of a burst.
    fn run(loss: f64, burst: f64) -> (f64, f64) {
        let mut path = Path::new(Weather { rtt: Duration::from_millis(50), loss, burst }, 3);
        let (now, mut way) = (Instant::now(), Way::default());
        assert_eq!(path.arrival(now, &mut way), Some(now + Duration::from_millis(25)));
        path.begin_to_lose();
        let (mut bursts, mut before) = (0, false);
        for _ in 0..200_000 {
            let is_lost = path.arrival(now, &mut way).is_none();
            bursts += u32::from(is_lost && !before);
            before = is_lost;
        }
        (path.lost(), path.lost as f64 / f64::from(bursts.max(1)))
    }

    #[test]
    fn it_loses_what_it_says() {
        for (loss, burst) in [(0.0, 1.0), (0.035, 1.0), (0.2, 1.0), (0.05, 3.0)] {
            let (lost, mean) = run(loss, burst);
            assert!((lost - loss).abs() <= 0.1 * loss, "{lost} of {loss}");
            let burst = f64::max(burst, 1.0 / (1.0 - loss));
            assert!(loss == 0.0 || (mean - burst).abs() <= 0.05 * burst, "{mean} of {burst}");
        }
    }
}
