//! Users with a device each, all logged in.

use std::time::Instant;

use tern_protocol::Uin;
use tern_protocol::frames::Network;

use super::device::{Event, Identity};
use super::muster::Muster;
use super::swarm::{Swarm, Wait};
use crate::error::BenchError;

/// Logins under way at once: below the number of handshakes from which the server asks strangers
/// to prove their address first.
const LOGINS_AT_ONCE: usize = 64;

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
    /// When one of them can't, or none further for [`LOGIN_PATIENCE`](super::muster::LOGIN_PATIENCE).
    pub fn log_in(
        swarm: Swarm,
        identities: Vec<Identity>,
        network: Network,
        seen: impl FnMut(usize) -> Result<(), BenchError>,
    ) -> Result<Self, BenchError> {
        let mut crowd = Self { swarm, uins: Vec::new() };
        crowd.grow(identities, network, seen)?;
        crowd.swarm.begin_to_lose();
        Ok(crowd)
    }

    /// Logs in more of them. What others hear meanwhile is told to nobody.
    ///
    /// # Errors
    /// As [`log_in`](Self::log_in).
    pub fn grow(
        &mut self,
        identities: Vec<Identity>,
        network: Network,
        mut seen: impl FnMut(usize) -> Result<(), BenchError>,
    ) -> Result<(), BenchError> {
        let Self { swarm, uins } = self;
        uins.extend(identities.iter().map(|identity| identity.uin));
        let (mut muster, mut asked) = (Muster::new(Instant::now(), identities.len()), 0);
        let mut rest = identities.into_iter();
        while !muster.is_over() {
            while asked - muster.online() < LOGINS_AT_ONCE
                && let Some(identity) = rest.next()
            {
                swarm.connect(identity, network)?;
                asked += 1;
            }
            swarm.turn()?;
            while let Some((device, at, event)) = swarm.poll_event() {
                check(device, event)?;
                if muster.hear(at, event) {
                    seen(muster.online())?;
                }
            }
            muster.check(Instant::now())?;
            swarm.wait(muster.deadline(), Wait::Sleep)?;
        }
        Ok(())
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
