//! Tern's devices: those of `tern-bench`, one thread and one UDP socket for all.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use tern_bench::error::BenchError;
use tern_bench::load::{self, Approach, Datagrams, Identity, Swarm, Tickets, Wait};
use tern_protocol::frames::Network;
use tern_protocol::{ChannelId, Uin};

use super::{Event, Load, Message};

/// A device that has not logged in after this time connects anew, as in the SDK, which gives a
/// handshake 3 s and the login 6 s: the server closes a connection that says nothing for 5 s, and
/// on a bad path the device may not hear of it.
const LOGIN_PATIENCE: Duration = Duration::from_secs(9);

/// Users with a device each.
pub struct Tern {
    swarm: Swarm,
    identities: Vec<Identity>,
    uins: Vec<Uin>,
    connected: usize,
    /// Devices that are not online, and when they connect anew.
    coming: BTreeMap<usize, Instant>,
}

impl Tern {
    /// These users' devices, to come to `server`, whose certificate has this SHA-256; `datagrams`
    /// is how they send.
    ///
    /// # Errors
    /// When there is no socket to be had.
    pub fn new(
        server: SocketAddr,
        pin: [u8; 32],
        identities: Vec<Identity>,
        datagrams: Datagrams,
        seed: u64,
    ) -> Result<Self, BenchError> {
        let swarm = Swarm::new(Approach {
            server,
            pin,
            sources: vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 0))],
            weather: None,
            datagrams,
            returns: true,
            tickets: Tickets::None,
            seed,
        })?;
        let uins = identities.iter().map(|identity| identity.uin).collect();
        Ok(Self { swarm, identities, uins, connected: 0, coming: BTreeMap::new() })
    }
}

impl Load for Tern {
    fn connect(&mut self) -> Result<(), BenchError> {
        let identity = self.identities.get(self.connected).cloned();
        let identity = identity.expect("no more devices connect than there are users");
        self.connected += 1;
        let device = self.swarm.connect(identity, Network::Wired)?;
        self.coming.insert(device, Instant::now() + LOGIN_PATIENCE);
        Ok(())
    }

    fn send(&mut self, from: usize, message: Message) {
        let channel = ChannelId::direct(self.uins[from], self.uins[message.to]);
        let Message { tag, bytes: content_bytes, .. } = message;
        self.swarm.send(from, load::Message { channel, tag, content_bytes });
    }

    fn turn(&mut self) -> Result<(), BenchError> {
        let now = Instant::now();
        for (device, at) in self.coming.iter_mut().filter(|(_, at)| **at <= now) {
            *at = now + LOGIN_PATIENCE;
            self.swarm.reconnect(*device, true)?;
        }
        self.swarm.turn()
    }

    fn poll_event(&mut self) -> Option<(usize, Instant, Event)> {
        loop {
            let (device, at, event) = self.swarm.poll_event()?;
            let event = match event {
                load::Event::Online { .. } => {
                    self.coming.remove(&device);
                    Event::Online
                }
                load::Event::Lost => {
                    let at = Instant::now() + LOGIN_PATIENCE;
                    match self.coming.insert(device, at) {
                        None => Event::Lost,
                        Some(_) => continue, // it was not there
                    }
                }
                load::Event::Acked(tag) => Event::Acked(tag),
                load::Event::Received(tag) => Event::Received(tag),
                load::Event::Beat => continue,
                load::Event::Failed(kind, code) => {
                    Event::Failed(format!("{kind}: {code}: {}", code.sentence()))
                }
            };
            return Some((device, at, event));
        }
    }

    fn wait(&mut self, until: Instant) -> Result<(), BenchError> {
        let next = self.coming.values().fold(until, |until, at| until.min(*at));
        self.swarm.wait(next, Wait::Sleep)
    }
}
