//! The links of a relay: for each client's address one of its own, or one for all.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use tern_netmodel::random::mix;
use tern_netmodel::{Conditions, Counts, Link, Path, Profile};

use super::Sharing;

/// Clients' addresses with a link of their own at the same time: each costs a socket too, of
/// which a process has often but a few thousand.
const LANES_MAX: usize = 4_096;

/// Packets under way on one direction, beyond which the relay itself drops: 64 MB at 1,200 bytes
/// a packet, more than a profile with a queue lets wait.
const IN_FLIGHT_MAX: usize = 1 << 16;

/// A packet of, or for, a client.
#[derive(Clone, Debug)]
pub(super) struct Packet {
    pub(super) client: SocketAddr,
    pub(super) bytes: Box<[u8]>,
}

/// The number of a link; never used twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct LaneId(u64);

/// Both directions of a link.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) up: Path<Packet>,
    pub(super) down: Path<Packet>,
    /// When something last went in.
    last: Duration,
}

/// All links of a relay.
#[derive(Debug)]
pub(super) struct Lanes {
    profile: Profile,
    seed: u64,
    sharing: Sharing,
    lanes: BTreeMap<LaneId, Lane>,
    made: u64,
    /// What happened on links that are gone.
    past: (Counts, Counts),
    overrun: u64,
    /// Until then nothing comes through on any link.
    dark_until: Duration,
}

impl Lanes {
    pub(super) fn new(profile: Profile, seed: u64, sharing: Sharing) -> Self {
        let (lanes, past) = (BTreeMap::new(), Default::default());
        let dark_until = Duration::ZERO;
        Self { profile, seed, sharing, lanes, made: 0, past, overrun: 0, dark_until }
    }

    /// A link for a new client; `None` if there are too many.
    pub(super) fn open(&mut self) -> Option<LaneId> {
        if let (Sharing::One, Some((id, _))) = (self.sharing, self.lanes.first_key_value()) {
            return Some(*id);
        }
        if self.lanes.len() >= LANES_MAX {
            self.overrun += 1;
            return None;
        }
        let id = LaneId(self.made);
        self.made += 1;
        let seed = mix(self.seed ^ mix(id.0));
        let begin = Duration::ZERO;
        let mut up = Path::new(Link::new(self.profile.up.clone(), mix(seed ^ 1), begin));
        let mut down = Path::new(Link::new(self.profile.down.clone(), mix(seed ^ 2), begin));
        up.black_out(self.dark_until);
        down.black_out(self.dark_until);
        self.lanes.insert(id, Lane { up, down, last: begin });
        Some(id)
    }

    pub(super) fn get(&mut self, id: LaneId) -> Option<&mut Lane> {
        self.lanes.get_mut(&id)
    }

    pub(super) fn len(&self) -> usize {
        self.lanes.len()
    }

    pub(super) fn push_up(&mut self, id: LaneId, now: Duration, packet: Packet) {
        let Some(lane) = self.lanes.get_mut(&id) else { return };
        lane.last = now;
        self.overrun += u64::from(!push(&mut lane.up, now, packet));
    }

    pub(super) fn push_down(&mut self, id: LaneId, now: Duration, packet: Packet) {
        let Some(lane) = self.lanes.get_mut(&id) else { return };
        lane.last = now;
        self.overrun += u64::from(!push(&mut lane.down, now, packet));
    }

    /// Other conditions on all links, and on those to come.
    pub(super) fn set(&mut self, now: Duration, up: Option<Conditions>, down: Option<Conditions>) {
        if let Some(up) = up {
            self.lanes.values_mut().for_each(|lane| lane.up.set(up.clone(), now));
            self.profile.up = up;
        }
        if let Some(down) = down {
            self.lanes.values_mut().for_each(|lane| lane.down.set(down.clone(), now));
            self.profile.down = down;
        }
    }

    /// Nothing that goes in before then comes through, on any link.
    pub(super) fn black_out(&mut self, until: Duration) {
        self.dark_until = self.dark_until.max(until);
        for lane in self.lanes.values_mut() {
            lane.up.black_out(until);
            lane.down.black_out(until);
        }
    }

    /// Forgets the links on which nothing happened for so long; gives them.
    pub(super) fn sweep(&mut self, now: Duration, idle: Duration) -> Vec<LaneId> {
        let is_idle = |lane: &Lane| now.saturating_sub(lane.last) >= idle;
        let gone: Vec<LaneId> =
            self.lanes.iter().filter(|(_, lane)| is_idle(lane)).map(|(id, _)| *id).collect();
        for lane in gone.iter().filter_map(|id| self.lanes.remove(id)) {
            self.past.0 += lane.up.counts();
            self.past.1 += lane.down.counts();
        }
        gone
    }

    /// What happened so far, up and down.
    pub(super) fn counts(&self) -> (Counts, Counts) {
        let mut counts = self.past;
        for lane in self.lanes.values() {
            counts.0 += lane.up.counts();
            counts.1 += lane.down.counts();
        }
        counts
    }

    /// Packets of which the relay itself had too many.
    pub(super) fn overrun(&self) -> u64 {
        self.overrun
    }
}

/// Whether there was room.
fn push(path: &mut Path<Packet>, now: Duration, packet: Packet) -> bool {
    if path.in_flight() >= IN_FLIGHT_MAX {
        return false;
    }
    path.push(now, packet.bytes.len(), packet);
    true
}
