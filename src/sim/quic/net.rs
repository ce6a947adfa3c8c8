//! The network between phones and the server: each install has a link of its own, and a NAT that
//! gives each of its connections an outer address.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tern_netmodel::carrier::Way;
use tern_netmodel::nat::{Binding, NatRules};
use tern_netmodel::random::mix;
use tern_netmodel::{Conditions, Counts, Link, Nat, Path};

/// Where the server is.
pub const SERVER: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)), 5190);

/// What travels: whose connection it belongs to, and the bytes of a datagram.
pub type Datagram = (u64, Vec<u8>);

/// What comes out.
#[derive(Clone, Debug)]
pub enum Landing {
    /// At the server, from this outer address, behind which is the client of this connection.
    AtServer(SocketAddr, u64, Vec<u8>),
    /// At the client's end of this connection.
    AtClient(u64, Vec<u8>),
}

/// The path of one install.
#[derive(Debug)]
struct Lane {
    up: Path<Datagram>,
    down: Path<Datagram>,
    nat: Nat<u64>,
    /// When the next packet comes out on either path.
    due: Option<Duration>,
}

/// All paths.
#[derive(Debug)]
pub struct Net {
    seed: u64,
    rules: NatRules,
    lanes: BTreeMap<usize, Lane>,
    /// Which install a connection belongs to.
    owners: BTreeMap<u64, usize>,
    /// Connections whose packets get lost for good, in one direction or both.
    dark: BTreeSet<(u64, bool)>,
    /// When each lane's next packet comes out.
    due: BTreeSet<(Duration, usize)>,
}

impl Net {
    /// A network without phones.
    pub fn new(seed: u64, rules: NatRules) -> Self {
        Self {
            seed,
            rules,
            lanes: BTreeMap::new(),
            owners: BTreeMap::new(),
            dark: BTreeSet::new(),
            due: BTreeSet::new(),
        }
    }

    /// A connection of this install begins.
    pub fn open(&mut self, link: u64, install: usize, now: Duration) {
        self.owners.insert(link, install);
        let (seed, rules) = (mix(self.seed ^ mix(install as u64)), self.rules);
        self.lanes.entry(install).or_insert_with(|| {
            let path = |way| Path::new(Link::new(Conditions::default(), mix(seed ^ way), now));
            Lane { up: path(1), down: path(2), nat: Nat::new(rules, seed), due: None }
        });
    }

    /// The conditions of an install's path from now on.
    pub fn set(&mut self, install: usize, conditions: &Conditions, now: Duration) {
        let Some(lane) = self.lanes.get_mut(&install) else { return };
        for path in [&mut lane.up, &mut lane.down] {
            if path.conditions() != conditions {
                path.set(conditions.clone(), now);
            }
        }
    }

    /// One direction of an install's path lets nothing through until then.
    pub fn black_out(&mut self, install: usize, way: Way, until: Duration) {
        let Some(lane) = self.lanes.get_mut(&install) else { return };
        match way {
            Way::ToServer => lane.up.black_out(until),
            Way::ToClient => lane.down.black_out(until),
        }
    }

    /// Every blackout is over.
    pub fn light_up(&mut self) {
        for lane in self.lanes.values_mut() {
            lane.up.light_up();
            lane.down.light_up();
        }
    }

    /// The packets of a connection get lost for good: towards the client only, or both ways.
    pub fn darken(&mut self, link: u64, both: bool) {
        self.dark.insert((link, false));
        if both {
            self.dark.insert((link, true));
        }
    }

    /// The NAT of an install forgets everything: its connections get other outer addresses.
    pub fn rebind(&mut self, install: usize) {
        let links = self.owners.iter().filter(|(_, owner)| **owner == install);
        let links: Vec<u64> = links.map(|(link, _)| *link).collect();
        if let Some(lane) = self.lanes.get_mut(&install) {
            for link in links {
                lane.nat.rebind(link);
            }
        }
    }

    /// A client's end sends a datagram.
    pub fn send_up(&mut self, link: u64, bytes: Vec<u8>, now: Duration) {
        let Some(install) = self.owner(link, true) else { return };
        if let Some(lane) = self.lanes.get_mut(&install) {
            lane.up.push(now, bytes.len(), (link, bytes));
        }
        self.plan(install);
    }

    /// The server sends a datagram to an outer address.
    pub fn send_down(&mut self, to: SocketAddr, bytes: Vec<u8>, now: Duration) {
        let Some((install, binding)) = inner_of(to) else { return };
        let Some(lane) = self.lanes.get_mut(&install) else { return };
        // The NAT stands at the server's end of the path.
        let Some(link) = lane.nat.inbound(now, binding) else { return };
        if !self.dark.contains(&(link, false)) {
            lane.down.push(now, bytes.len(), (link, bytes));
        }
        self.plan(install);
    }

    fn owner(&self, link: u64, up: bool) -> Option<usize> {
        self.owners.get(&link).copied().filter(|_| !self.dark.contains(&(link, up)))
    }

    fn plan(&mut self, install: usize) {
        let Some(lane) = self.lanes.get_mut(&install) else { return };
        let ways = [lane.up.poll_timeout(), lane.down.poll_timeout()];
        let due = ways.into_iter().flatten().min();
        if due != lane.due {
            if let Some(old) = std::mem::replace(&mut lane.due, due) {
                self.due.remove(&(old, install));
            }
            self.due.extend(due.map(|new| (new, install)));
        }
    }

    /// When the next packet comes out.
    pub fn poll_timeout(&self) -> Option<Duration> {
        self.due.first().map(|(due, _)| *due)
    }

    /// The next packet that has come out by now.
    pub fn poll(&mut self, now: Duration) -> Option<Landing> {
        loop {
            let (due, install) = *self.due.first()?;
            if due > now {
                return None;
            }
            let landing = self.land(install, now);
            self.plan(install);
            if landing.is_some() {
                return landing;
            }
        }
    }

    fn land(&mut self, install: usize, now: Duration) -> Option<Landing> {
        let lane = self.lanes.get_mut(&install)?;
        if let Some((link, bytes)) = lane.up.poll(now) {
            let binding = lane.nat.outbound(now, link).binding;
            return Some(Landing::AtServer(outer_of(install, binding), link, bytes));
        }
        let (link, bytes) = lane.down.poll(now)?;
        Some(Landing::AtClient(link, bytes))
    }

    /// What happened on all paths.
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for lane in self.lanes.values() {
            counts += lane.up.counts();
            counts += lane.down.counts();
        }
        counts
    }
}

/// Ports of one outer address of an install; then it has another one.
const PORTS: u64 = 60_000;

/// The first of them.
const FIRST_PORT: u64 = 1_024;

/// The outer address of a binding. Installs are few, so each has 256 addresses.
fn outer_of(install: usize, binding: Binding) -> SocketAddr {
    let host = (binding.0 / PORTS) as u8; // fits: 15 million bindings
    let port = (FIRST_PORT + binding.0 % PORTS) as u16; // fits: below 65,536
    let [_, _, high, low] = (install as u32).to_be_bytes();
    SocketAddr::new(Ipv4Addr::new(100, high, low, host).into(), port)
}

fn inner_of(outer: SocketAddr) -> Option<(usize, Binding)> {
    let SocketAddr::V4(outer) = outer else { return None };
    let [_, high, low, host] = outer.ip().octets();
    let port = u64::from(outer.port()).checked_sub(FIRST_PORT)?;
    let install = usize::from(high) << 8 | usize::from(low);
    Some((install, Binding(u64::from(host) * PORTS + port)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outer_addresses_lead_back_and_a_rebinding_changes_them() {
        for (install, binding) in [(0, 1), (700, 59_999), (65_535, 60_001)] {
            let outer = outer_of(install, Binding(binding));
            assert_eq!(inner_of(outer), Some((install, Binding(binding))));
        }
        let now = Duration::ZERO;
        let mut net = Net::new(1, NatRules::default());
        net.open(5, 2, now);
        let mut seen = Vec::new();
        for _ in 0..2 {
            net.send_up(5, vec![1], now);
            let Some(Landing::AtServer(from, 5, _)) = net.poll(now) else { panic!("it came") };
            seen.push(from);
            net.rebind(2);
            net.send_down(from, vec![2], now);
            assert!(net.poll(now).is_none(), "the old address leads nowhere");
        }
        assert_ne!(seen[0], seen[1]);
        net.darken(5, true);
        net.send_up(5, vec![1], now);
        assert!(net.poll(now).is_none());
    }
}
