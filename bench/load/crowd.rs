//! Users with a device each, all logged in.

use std::time::{Duration, Instant};

use tern_protocol::Uin;
use tern_protocol::frames::Network;

use super::device::{Event, Identity};
use super::swarm::{Swarm, Wait};
use crate::error::BenchError;

/// Logins under way at once: below the number of handshakes from which the server asks strangers
/// to prove their address first.
const LOGINS_AT_ONCE: usize = 64;

/// How long nobody may be answered before something is wrong.
const PATIENCE: Duration = Duration::from_secs(20);

/// Devices that are logged in, each of a user of its own; device `n` of the swarm is `uins[n]`.
pub struct Crowd {
    /// Them.
    pub swarm: Swarm,
    /// Their users.
    pub uins: Vec<Uin>,
}

impl Crowd {
    /// Logs them in; only then does a bad path lose packets. `seen` hears how many are online.
    ///
    /// # Errors
    /// When one of them can't.
    pub fn log_in(
        mut swarm: Swarm,
        identities: Vec<Identity>,
        network: Network,
        mut seen: impl FnMut(usize) -> Result<(), BenchError>,
    ) -> Result<Self, BenchError> {
        let uins = identities.iter().map(|identity| identity.uin).collect();
        let (total, mut asked, mut online) = (identities.len(), 0, 0);
        let mut heard = Instant::now();
        let mut rest = identities.into_iter();
        while online < total {
            while asked - online < LOGINS_AT_ONCE
                && let Some(identity) = rest.next()
            {
                swarm.connect(identity, network)?;
                asked += 1;
            }
            swarm.turn()?;
            while let Some((device, _, event)) = swarm.poll_event() {
                heard = Instant::now();
                check(device, event)?;
                if let Event::Online { .. } = event {
                    online += 1;
                    seen(online)?;
                }
            }
            if heard.elapsed() > PATIENCE {
                return Err(BenchError::Load(format!("{online} of {total} could log in")));
            }
            swarm.wait(heard + PATIENCE, Wait::Sleep)?;
        }
        swarm.begin_to_lose();
        Ok(Self { swarm, uins })
    }

    /// Lets them live until `until`, and gives their events to `hear`.
    ///
    /// # Errors
    /// When something goes wrong for one of them.
    pub fn rest(&mut self, until: Instant, mut hear: impl FnMut(Event)) -> Result<(), BenchError> {
        while Instant::now() < until {
            self.swarm.turn()?;
            while let Some((device, _, event)) = self.swarm.poll_event() {
                check(device, event)?;
                hear(event);
            }
            self.swarm.wait(until, Wait::Sleep)?;
        }
        Ok(())
    }
}

/// A run ends with the first thing that goes wrong.
///
/// # Errors
/// When this is one.
pub fn check(device: usize, event: Event) -> Result<(), BenchError> {
    match event {
        Event::Failed(kind, code) => {
            Err(BenchError::Load(format!("device {device}, {kind}: {code}: {}", code.sentence())))
        }
        Event::Online { .. } | Event::Lost | Event::Acked(_) | Event::Received(_) | Event::Beat => {
            Ok(())
        }
    }
}
