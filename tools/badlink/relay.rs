//! The relay: what becomes of each packet, whatever wire it comes and goes by.
//!
//! A client's packet waits on its lane's way up, then leaves by the NAT under the outer address
//! that stands for the client's. So the server sees as many addresses as the clients have, and a
//! new one whenever the NAT forgets. An answer comes in for that address, if the NAT still knows
//! whose it is, and waits on the way down.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tern_netmodel::nat::{NatCounts, NatRules};
use tern_netmodel::timeline::Step;
use tern_netmodel::{Counts, Nat, Profile, Timeline};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::capture::{Captures, Taps};
use super::lane::{Lane, LaneId, Lanes, Packet};
use super::tcp::TcpWire;
use super::udp::UdpWire;
use super::wire::{Arrived, Wire};

/// Silence after which a client's address is forgotten where the profile's NAT forgets none, in
/// ms: ten minutes, far beyond any keep-alive, so that a relay that runs for days does not fill up.
const FORGET_MS: u64 = 600_000;

/// The same for TCP: two hours and four minutes (RFC 5382, REQ-5). A profile's `idle_ms` is about
/// UDP.
const FORGET_TCP_MS: u64 = 7_440_000;

/// How often what is forgotten is looked for.
const SWEEP: Duration = Duration::from_secs(1);

/// What a relay is to be.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where clients send to.
    pub listen: SocketAddr,
    /// Where the server is.
    pub server: SocketAddr,
    /// How bad the link is.
    pub profile: Profile,
    /// What decides about packets.
    pub seed: u64,
    /// What is relayed.
    pub protocol: Protocol,
    /// Who shares a link.
    pub sharing: Sharing,
    /// Files that what passes is written to.
    pub captures: Captures,
}

/// What is relayed.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Protocol {
    /// Datagrams.
    #[default]
    Udp,
    /// Connections, as packets of the kernel's own TCP; see [`crate`].
    Tcp,
}

/// Which clients share a link, its bandwidth and its bad times.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sharing {
    /// Each address that clients send from has a link of its own.
    Each,
    /// All share one, as one phone does that changes its address.
    One,
}

/// What a relay did.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Figures {
    /// From the clients.
    pub up: Counts,
    /// To the clients.
    pub down: Counts,
    /// By the NAT.
    pub nat: NatCounts,
    /// Addresses that clients sent from.
    pub clients: u64,
    /// Packets of which the relay itself had too many: not what the profile wants.
    pub overrun: u64,
    /// Steps of the profile's timeline that have happened.
    pub steps: u64,
    /// Packets that should be in a capture and are not, because it could not be written.
    pub uncaptured: u64,
}

/// A running relay; it ends when dropped.
#[derive(Debug)]
pub struct Relay {
    address: SocketAddr,
    rebinds: mpsc::Sender<()>,
    figures: Arc<Mutex<Figures>>,
    task: AbortHandle,
}

impl Relay {
    /// Starts a relay on the runtime of the caller.
    ///
    /// # Errors
    /// When the address to listen on can't be had, or a capture not be made; for TCP also without
    /// the right to make network namespaces.
    pub async fn start(plan: Plan) -> io::Result<Self> {
        let taps = Taps::create(&plan.captures)?;
        let figures = Arc::new(Mutex::new(Figures::default()));
        let (rebinds, orders) = mpsc::channel(1);
        let (address, task) = match plan.protocol {
            Protocol::Udp => {
                let (address, wire) = UdpWire::open(plan.listen, plan.server, taps).await?;
                let task = Task::new(wire, &plan, FORGET_MS, Arc::clone(&figures));
                (address, tokio::spawn(task.run(orders)))
            }
            Protocol::Tcp => {
                let (address, wire) = TcpWire::open(plan.listen, plan.server, taps).await?;
                let task = Task::new(wire, &plan, FORGET_TCP_MS, Arc::clone(&figures));
                (address, tokio::spawn(task.run(orders)))
            }
        };
        Ok(Self { address, rebinds, figures, task: task.abort_handle() })
    }

    /// Where clients find the server.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Gives the client that spoke last another address on the server's side.
    pub fn rebind(&self) {
        // One that is still to come does for this one too.
        let _ = self.rebinds.try_send(());
    }

    /// What happened so far.
    pub fn figures(&self) -> Figures {
        *lock(&self.figures)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn lock(figures: &Mutex<Figures>) -> MutexGuard<'_, Figures> {
    figures.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The task of a relay.
struct Task<W> {
    wire: W,
    timeline: Timeline,
    lanes: Lanes,
    /// When each lane is to be looked at; a lane may stand here more than once.
    due: BinaryHeap<Reverse<(Duration, LaneId)>>,
    nat: Nat<SocketAddr>,
    /// Silence after which an address is forgotten where the rules name none, in ms.
    forget_ms: u64,
    protocol: Protocol,
    clients: HashMap<SocketAddr, LaneId>,
    newest: Option<SocketAddr>,
    figures: Arc<Mutex<Figures>>,
    begun: Instant,
}

impl<W: Wire> Task<W> {
    fn new(wire: W, plan: &Plan, forget_ms: u64, figures: Arc<Mutex<Figures>>) -> Self {
        let steps = plan.profile.steps.clone();
        let mut task = Self {
            wire,
            timeline: Timeline::new(steps, plan.profile.repeat_ms, Duration::ZERO),
            lanes: Lanes::new(plan.profile.clone(), plan.seed, plan.sharing),
            due: BinaryHeap::new(),
            nat: Nat::new(NatRules::default(), plan.seed),
            forget_ms,
            protocol: plan.protocol,
            clients: HashMap::new(),
            newest: None,
            figures,
            begun: Instant::now(),
        };
        task.set_rules(plan.profile.nat);
        task
    }

    /// A NAT that forgets nothing forgets after a long time all the same; and a TCP connection is
    /// kept far longer than what a profile says of UDP.
    fn set_rules(&mut self, rules: NatRules) {
        let own = rules.idle_ms.filter(|_| self.protocol == Protocol::Udp);
        self.nat.set(NatRules { idle_ms: own.or(Some(self.forget_ms)), ..rules });
    }

    async fn run(mut self, mut orders: mpsc::Receiver<()>) {
        let mut sweep = tokio::time::interval(SWEEP);
        loop {
            let due = self.due.peek().map(|Reverse((due, _))| *due);
            let due = due.into_iter().chain(self.timeline.poll_timeout()).min();
            let due = due.map(|due| self.begun + due);
            tokio::select! {
                arrived = self.wire.next() => match arrived {
                    Arrived::Up(client, bytes) => self.take_up(client, bytes),
                    Arrived::Down(binding, bytes) => {
                        if let Some(client) = self.nat.inbound(self.now(), binding) {
                            self.take_down(client, bytes);
                        }
                    }
                },
                () = tokio::time::sleep_until(due.unwrap_or(self.begun)), if due.is_some() => {
                    self.step();
                    self.land().await;
                }
                _ = sweep.tick() => self.sweep(),
                order = orders.recv() => match order {
                    Some(()) => self.rebind(),
                    None => return,
                },
            }
            self.publish();
        }
    }

    fn now(&self) -> Duration {
        self.begun.elapsed()
    }

    fn take_up(&mut self, client: SocketAddr, bytes: Box<[u8]>) {
        self.newest = Some(client);
        let id = match self.clients.get(&client) {
            Some(id) => *id,
            None => {
                let Some(id) = self.lanes.open() else { return };
                self.clients.insert(client, id);
                lock(&self.figures).clients += 1;
                id
            }
        };
        let now = self.now();
        self.lanes.push_up(id, now, Packet { client, bytes });
        self.plan(id);
    }

    /// What the timeline has for this moment.
    fn step(&mut self) {
        let now = self.now();
        while let Some(step) = self.timeline.poll(now) {
            let Step { up, down, nat, blackout_ms, rebind, .. } = step;
            self.lanes.set(now, up, down);
            if let Some(rules) = nat {
                self.set_rules(rules);
            }
            if let Some(ms) = blackout_ms {
                self.lanes.black_out(now + Duration::from_millis(ms));
            }
            if rebind {
                self.rebind_all();
            }
            lock(&self.figures).steps += 1;
        }
    }

    fn rebind_all(&mut self) {
        for client in self.nat.inner() {
            if let Some(old) = self.nat.rebind(client) {
                self.wire.close(old);
            }
        }
    }

    fn take_down(&mut self, client: SocketAddr, bytes: Box<[u8]>) {
        let Some(id) = self.clients.get(&client).copied() else { return };
        let now = self.now();
        self.lanes.push_down(id, now, Packet { client, bytes });
        self.plan(id);
    }

    fn plan(&mut self, id: LaneId) {
        if let Some(due) = self.lanes.get(id).and_then(|lane| lane.poll_timeout()) {
            let is_first = self.due.peek().is_none_or(|Reverse((first, _))| due < *first);
            let is_known = !is_first && self.due.len() > self.lanes.len() * 4;
            if !is_known {
                self.due.push(Reverse((due, id)));
            }
        }
    }

    /// Lets out everything that is due.
    async fn land(&mut self) {
        let now = self.now();
        while let Some(Reverse((due, id))) = self.due.peek().copied() {
            if due > now {
                return;
            }
            self.due.pop();
            while let Some(packet) = self.lanes.get(id).and_then(|lane| lane.up.poll(now)) {
                self.leave(now, packet).await;
            }
            while let Some(packet) = self.lanes.get(id).and_then(|lane| lane.down.poll(now)) {
                self.wire.send_down(&packet).await;
            }
            if let Some(next) = self.lanes.get(id).and_then(|lane| lane.poll_timeout()) {
                self.due.push(Reverse((next, id)));
            }
        }
    }

    async fn leave(&mut self, now: Duration, packet: Packet) {
        let way = self.nat.outbound(now, packet.client);
        if let Some(old) = way.replaces {
            self.wire.close(old);
        }
        self.wire.send_up(way.binding, &packet).await;
    }

    fn rebind(&mut self) {
        if let Some(old) = self.newest.and_then(|newest| self.nat.rebind(newest)) {
            self.wire.close(old);
        }
    }

    fn sweep(&mut self) {
        self.wire.taps().flush();
        let now = self.now();
        for binding in self.nat.sweep(now) {
            self.wire.close(binding);
        }
        let gone = self.lanes.sweep(now, Duration::from_millis(self.forget_ms));
        self.clients.retain(|_, id| !gone.contains(id));
    }

    fn publish(&mut self) {
        let uncaptured = self.wire.taps().failed();
        let mut figures = lock(&self.figures);
        (figures.up, figures.down) = self.lanes.counts();
        (figures.nat, figures.overrun) = (self.nat.counts(), self.lanes.overrun());
        figures.uncaptured = uncaptured;
    }
}

impl Lane {
    fn poll_timeout(&self) -> Option<Duration> {
        [self.up.poll_timeout(), self.down.poll_timeout()].into_iter().flatten().min()
    }
}
