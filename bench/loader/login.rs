//! Devices log in, one full handshake and one new epoch each; then all go away without a word, and
//! come back with TLS's ticket and the session's token.

use std::time::Instant;

use serde::{Deserialize, Serialize};
use tern_protocol::frames::Network;

use super::{Conductor, Done, progress};
use crate::error::BenchError;
use crate::load::{Crowd, Event, Identity, Muster, Swarm, Wait, check};
use crate::measure::curves::Curves;
use crate::measure::latency::Latency;

/// How they come.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LogIn {
    /// How many may be under way at once.
    pub at_once: usize,
}

/// Devices that come, each at its time.
struct Arrivals<'a> {
    swarm: &'a mut Swarm,
    at_once: usize,
    began: Vec<Instant>,
    resumed: usize,
    latency: Latency,
}

impl LogIn {
    pub(super) fn run(
        &self,
        swarm: Swarm,
        identities: Vec<Identity>,
        conductor: &Conductor,
    ) -> Result<Done, BenchError> {
        let uins = identities.iter().map(|identity| identity.uin).collect();
        let count = identities.len();
        let mut crowd = Crowd { swarm, uins };
        conductor.wait(&mut crowd)?;
        let mut identities = identities.into_iter();
        let arrivals = Arrivals::new(&mut crowd.swarm, self.at_once);
        let (cold, _) = arrivals.all(count, |swarm, _| {
            let identity = identities.next().expect("there is one for each");
            swarm.connect(identity, Network::Wired).map(drop)
        })?;
        conductor.wait(&mut crowd)?;
        (0..count).for_each(|device| crowd.swarm.disconnect(device));
        conductor.wait(&mut crowd)?;
        let arrivals = Arrivals::new(&mut crowd.swarm, self.at_once);
        let (warm, resumed) = arrivals.all(count, |swarm, device| swarm.reconnect(device, true))?;
        conductor.wait(&mut crowd)?;
        let mut curves = Curves::default();
        curves.add("cold login", cold);
        curves.add("resumed login", warm);
        let log = curves.to_log()?;
        Ok(Done { sent: count as u64, resumed: resumed as u64, log, ..Done::default() })
    }
}

impl<'a> Arrivals<'a> {
    fn new(swarm: &'a mut Swarm, at_once: usize) -> Self {
        let latency = Latency::default();
        Self { swarm, at_once, began: Vec::new(), resumed: 0, latency }
    }

    /// Has `count` devices come; how long each took, and how many resumed.
    fn all(
        mut self,
        count: usize,
        mut come: impl FnMut(&mut Swarm, usize) -> Result<(), BenchError>,
    ) -> Result<(Latency, usize), BenchError> {
        let mut muster = Muster::new(Instant::now(), count);
        while !muster.is_over() {
            while self.began.len() - muster.online() < self.at_once && self.began.len() < count {
                let device = self.began.len();
                self.began.push(Instant::now());
                come(self.swarm, device)?;
            }
            self.swarm.turn()?;
            while let Some((device, at, event)) = self.swarm.poll_event() {
                check(device, event)?;
                if muster.hear(at, event) {
                    let resumed = event == Event::Online { resumed: true };
                    self.resumed += usize::from(resumed);
                    self.latency.record(at.saturating_duration_since(self.began[device]));
                    progress(muster.online())?;
                }
            }
            muster.check(Instant::now())?;
            self.swarm.wait(muster.deadline(), Wait::Sleep)?;
        }
        Ok((self.latency, self.resumed))
    }
}
