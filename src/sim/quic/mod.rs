//! The second depth: real QUIC connections in virtual time, on the network's model.
//!
//! quinn-proto's own state machines with the server's and the client's own settings, so loss
//! recovery, congestion control, migration, Retry, stateless resets and key updates are those
//! that ship. Only the cryptography hides nothing ([`crypto`]), so that traces repeat.
//!
//! What comes in: connections to dial, frames to say, connections to end, processes that start
//! and die, what happens to the network. What goes out: [`Told`]. The recipe: any number of
//! inputs, then [`Wire::run`], then [`Wire::poll_told`] until it is empty and again from the
//! start if that led to inputs; [`Wire::poll_timeout`] says when to come back.
//!
//! Not as in the server: a push that is repaired is not read again, since its frame is kept; a
//! worker reads all that has come, without the budget of a turn; a started server sends no resets
//! by itself, only in answer to packets of connections that it does not know; addresses are not
//! limited in how often they change.

pub mod client;
pub mod crypto;
pub mod host;
pub mod net;
mod pushes;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::Instant;

use bytes::Bytes;
use tern_netmodel::nat::NatRules;
use tern_netmodel::{Conditions, Counts};
use tern_protocol::Code;
use tern_quic::settings::{TransportKeys, TransportSettings};
use tern_quic::steering::worker_of;

use crate::mutant::Mutant;
use crate::parcel::{at, ms};
use crate::random::{Stream, mix};
use client::ClientEnd;
use host::{Host, HostCounts, Setup};
use net::{Landing, Net};

/// What the network tells the world, by the numbers of connections.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Told {
    /// A connection is there for this worker; its handshake began then, in ms.
    Arrived(u64, usize, u64),
    /// A frame reaches the server.
    AtServer(u64, Bytes),
    /// The server has lost a connection.
    LostAtServer(u64),
    /// A connection is there for its client.
    Ready(u64),
    /// A frame reaches a client.
    AtClient(u64, Bytes),
    /// A client has lost a connection.
    LostAtClient(u64, Option<Code>),
    /// A push did not reach its client, whose end is there, and nobody waits for it any more.
    Forgotten(u64, Bytes),
}

/// What QUIC did in a run.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct QuicCounts {
    /// By the servers' ends.
    pub host: HostCounts,
    /// By the network.
    pub net: Counts,
    /// Connections that clients dialed.
    pub dialed: u64,
}

/// An end that has a deadline.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum End {
    Client(u64),
    Host(usize, usize),
}

/// All connections, with the network between their ends.
pub struct Wire {
    seed: u64,
    base: Instant,
    now: u64,
    net: Net,
    clients: BTreeMap<u64, ClientEnd>,
    /// The install of each connection that has a client's end.
    owners: BTreeMap<u64, usize>,
    hosts: Vec<Host>,
    processes: u64,
    keys: TransportKeys,
    settings: TransportSettings,
    mutant: Option<Mutant>,
    /// Ends to be looked at in this moment.
    dirty: BTreeSet<End>,
    deadlines: BTreeSet<(u64, End)>,
    deadline_of: BTreeMap<End, u64>,
    /// Who sleeps until when, and the datagrams that wait for it.
    asleep: BTreeMap<Sleeper, u64>,
    waiting: BTreeMap<Sleeper, VecDeque<Landing>>,
    told: VecDeque<Told>,
    /// What was on the network so far, as one number.
    hash: u64,
    counts: QuicCounts,
    buffer: Vec<u8>,
}

/// A process, or a thread of it, that stands still.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Sleeper {
    /// An install's process.
    Install(usize),
    /// A worker.
    Worker(usize),
}

/// Datagrams that wait for a sleeper, as in a socket's buffer; more are lost.
const WAITING_MAX: usize = 200;

impl Wire {
    /// A network without connections, and no server yet; the servers have this defect.
    pub fn new(
        seed: u64,
        settings: TransportSettings,
        rules: NatRules,
        mutant: Option<Mutant>,
    ) -> Self {
        let mut keys = Stream::of(seed, "keys");
        let mut token = [0; 64];
        token[..32].copy_from_slice(&keys.token());
        token[32..].copy_from_slice(&keys.token());
        Self {
            seed,
            // The one real clock here is never looked at again: all moments are counted from it.
            base: Instant::now(),
            now: 0,
            net: Net::new(Stream::of(seed, "net").draw(), rules),
            clients: BTreeMap::new(),
            owners: BTreeMap::new(),
            hosts: Vec::new(),
            processes: 0,
            keys: TransportKeys { token, reset: keys.token() },
            settings,
            mutant,
            dirty: BTreeSet::new(),
            deadlines: BTreeSet::new(),
            deadline_of: BTreeMap::new(),
            asleep: BTreeMap::new(),
            waiting: BTreeMap::new(),
            told: VecDeque::new(),
            hash: 0,
            counts: QuicCounts::default(),
            buffer: Vec::new(),
        }
    }

    fn instant(&self) -> Instant {
        self.base + at(self.now)
    }

    /// An install dials the server.
    pub fn dial(&mut self, link: u64, install: usize) {
        self.counts.dialed += 1;
        self.net.open(link, install, at(self.now));
        let end = ClientEnd::dial(mix(self.seed ^ mix(link)), self.instant());
        self.clients.insert(link, end);
        self.owners.insert(link, install);
        self.dirty.insert(End::Client(link));
    }

    /// A client says a frame.
    pub fn say_to_server(&mut self, link: u64, frame: Bytes) {
        if let Some(end) = self.clients.get_mut(&link) {
            end.write(frame);
            self.dirty.insert(End::Client(link));
        }
    }

    /// A client says a frame that may overtake others.
    pub fn say_free_to_server(&mut self, link: u64, frame: Bytes) {
        let now = self.instant();
        if let Some(end) = self.clients.get_mut(&link) {
            end.write_free(frame, now);
            self.dirty.insert(End::Client(link));
        }
    }

    /// The server says a frame that may overtake others.
    pub fn say_free_to_client(&mut self, link: u64, frame: Bytes) {
        let now = self.instant();
        if let Some((worker, index)) = self.seat_of(link) {
            self.hosts[worker].write_free(index, frame, now);
            self.dirty.insert(End::Host(worker, index));
        }
    }

    /// A client has said its last on a connection.
    pub fn end_by_client(&mut self, link: u64, code: Code) {
        let now = self.instant();
        if let Some(end) = self.clients.get_mut(&link) {
            end.finish(code, now);
            self.dirty.insert(End::Client(link));
        }
    }

    /// A client's end is gone without a word.
    pub fn vanish(&mut self, link: u64) {
        self.clients.remove(&link);
        self.owners.remove(&link);
        self.forget(End::Client(link));
    }

    /// The server says a frame.
    pub fn say_to_client(&mut self, link: u64, frame: Bytes) {
        let now = self.instant();
        if let Some((worker, index)) = self.seat_of(link) {
            self.hosts[worker].write(index, frame, now);
            self.dirty.insert(End::Host(worker, index));
        }
    }

    /// The server has said its last on a connection.
    pub fn end_by_server(&mut self, link: u64, code: Code) {
        let now = self.instant();
        if let Some((worker, index)) = self.seat_of(link) {
            self.hosts[worker].finish(index, code, now);
            self.dirty.insert(End::Host(worker, index));
        }
    }

    fn seat_of(&self, link: u64) -> Option<(usize, usize)> {
        let seats = self.hosts.iter().enumerate();
        seats.filter_map(|(worker, host)| Some((worker, host.index_of(link)?))).next()
    }

    /// A process of the server starts.
    pub fn start_server(&mut self, workers: u16) {
        self.processes += 1;
        let setup = Setup {
            keys: self.keys.clone(),
            settings: self.settings.clone(),
            seed: mix(self.seed ^ mix(self.processes) ^ 1 << 63),
            base: self.base,
            forgets_lost: self.mutant == Some(Mutant::LossForgotten),
        };
        self.hosts = (0..workers).map(|worker| Host::new(&setup, worker, workers)).collect();
    }

    /// The server's process is gone; its port refuses nobody and answers nobody.
    pub fn kill_server(&mut self) {
        self.counts.host = self.host_counts();
        self.hosts.clear();
        let gone: Vec<End> =
            self.deadline_of.keys().copied().filter(|end| matches!(end, End::Host(..))).collect();
        gone.into_iter().for_each(|end| self.forget(end));
        self.dirty.retain(|end| matches!(end, End::Client(_)));
        let is_install = |sleeper: &Sleeper| matches!(sleeper, Sleeper::Install(_));
        self.asleep.retain(|sleeper, _| is_install(sleeper));
        self.waiting.retain(|sleeper, _| is_install(sleeper));
    }

    /// Somebody stands still until then: what comes for it waits.
    pub fn sleep(&mut self, who: Sleeper, until: u64) {
        self.asleep.insert(who, until);
    }

    /// Everybody wakes up.
    pub fn wake_all(&mut self) {
        self.asleep.values_mut().for_each(|until| *until = 0);
    }

    /// What happens to the network of installs.
    pub fn net(&mut self) -> &mut Net {
        &mut self.net
    }

    /// The conditions of an install's path from now on.
    pub fn set_conditions(&mut self, install: usize, conditions: &Conditions) {
        self.net.set(install, conditions, at(self.now));
    }

    /// The NAT of an install forgets its connections; `knows` if the phone notices.
    pub fn rebind(&mut self, install: usize, knows: bool) {
        self.net.rebind(install);
        if !knows {
            return;
        }
        let own = self.owners.iter().filter(|(_, owner)| **owner == install);
        for link in own.map(|(link, _)| *link).collect::<Vec<u64>>() {
            if let Some(end) = self.clients.get_mut(&link) {
                end.move_away();
                self.dirty.insert(End::Client(link));
            }
        }
    }

    /// What it tells.
    pub fn poll_told(&mut self) -> Option<Told> {
        self.told.pop_front()
    }

    /// What was on the network so far, as one number.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// What QUIC did so far.
    pub fn counts(&self) -> QuicCounts {
        QuicCounts { host: self.host_counts(), net: self.net.counts(), ..self.counts }
    }

    fn host_counts(&self) -> HostCounts {
        let mut sum = self.counts.host;
        for counts in self.hosts.iter().map(Host::counts) {
            sum.handshakes += counts.handshakes;
            sum.retries += counts.retries;
            sum.migrations += counts.migrations;
            sum.resets += counts.resets;
            sum.lost_packets += counts.lost_packets;
            sum.congestion_events += counts.congestion_events;
            sum.pushes_free += counts.pushes_free;
            sum.pushes_doubled += counts.pushes_doubled;
            sum.pushes_repaired += counts.pushes_repaired;
            sum.pushes_repeated += counts.pushes_repeated;
            sum.frames_free += counts.frames_free;
        }
        sum
    }

    /// When something is to happen by itself, in ms of the world's clock.
    pub fn poll_timeout(&self) -> Option<u64> {
        let deadline = self.deadlines.first().map(|(when, _)| *when);
        let awake = |who: &Sleeper| self.asleep.get(who).copied().unwrap_or(0);
        let waiting = self.waiting.iter().filter(|(_, queue)| !queue.is_empty());
        let woken = waiting.map(|(who, _)| awake(who)).min();
        [deadline, self.net.poll_timeout().map(ms), woken].into_iter().flatten().min()
    }

    /// Lets everything happen that is due by now.
    pub fn run(&mut self, now: u64) {
        self.now = now;
        self.fire();
        loop {
            self.wake();
            while let Some(landing) = self.net.poll(at(now)) {
                self.land(landing);
            }
            if self.dirty.is_empty() {
                return;
            }
            while let Some(end) = self.dirty.pop_first() {
                self.drive(end);
            }
        }
    }

    fn fire(&mut self) {
        while let Some((when, end)) = self.deadlines.first().copied() {
            if when > self.now {
                return;
            }
            self.forget(end);
            if let Some(until) = self.sleeps(self.sleeper_of(end)) {
                self.note_deadline(end, until);
                continue;
            }
            let now = self.instant();
            match end {
                End::Client(link) => {
                    if let Some(client) = self.clients.get_mut(&link) {
                        client.handle_timeout(now);
                    }
                }
                End::Host(worker, index) => self.hosts[worker].handle_timeout(index, now),
            }
            self.dirty.insert(end);
        }
    }

    fn sleeper_of(&self, end: End) -> Sleeper {
        match end {
            End::Client(link) => Sleeper::Install(self.owners.get(&link).copied().unwrap_or(0)),
            End::Host(worker, _) => Sleeper::Worker(worker),
        }
    }

    fn sleeps(&self, who: Sleeper) -> Option<u64> {
        self.asleep.get(&who).copied().filter(|until| *until > self.now)
    }

    /// Gives those who woke up what waited for them.
    fn wake(&mut self) {
        let woken: Vec<Sleeper> =
            self.waiting.keys().copied().filter(|who| self.sleeps(*who).is_none()).collect();
        for who in woken {
            let queue = self.waiting.remove(&who).unwrap_or_default();
            queue.into_iter().for_each(|landing| self.land(landing));
        }
    }

    fn land(&mut self, landing: Landing) {
        let who = match &landing {
            Landing::AtServer(_, _, bytes) if !self.hosts.is_empty() => {
                let worker = worker_of(bytes, self.hosts.len() as u16); // fits: a few workers
                Sleeper::Worker(usize::from(worker.0))
            }
            Landing::AtServer(..) => return, // nobody is there
            Landing::AtClient(link, _) => match self.owners.get(link) {
                Some(install) => Sleeper::Install(*install),
                None => return,
            },
        };
        if self.sleeps(who).is_some() {
            let queue = self.waiting.entry(who).or_default();
            if queue.len() < WAITING_MAX {
                queue.push_back(landing);
            }
            return;
        }
        match (landing, who) {
            (Landing::AtClient(link, bytes), _) => self.reach_client(link, &bytes),
            (Landing::AtServer(from, link, bytes), Sleeper::Worker(worker)) => {
                self.reach_server(worker, (from, link), &bytes);
            }
            (Landing::AtServer(..), Sleeper::Install(_)) => {}
        }
    }

    fn reach_client(&mut self, link: u64, bytes: &[u8]) {
        self.take_down(2, link, bytes);
        let now = self.instant();
        if let Some(end) = self.clients.get_mut(&link) {
            end.handle_datagram(bytes, now);
            self.dirty.insert(End::Client(link));
        }
    }

    fn reach_server(&mut self, worker: usize, from: (SocketAddr, u64), bytes: &[u8]) {
        let now = self.instant();
        self.take_down(1, from.1, bytes);
        let mut answers = Vec::new();
        let index = self.hosts[worker].handle_datagram(from, bytes, now, &mut answers);
        self.dirty.extend(index.map(|index| End::Host(worker, index)));
        for (to, answer) in answers {
            self.net.send_down(to, answer, at(self.now));
        }
    }

    /// Takes what happened into the hash.
    fn take_down(&mut self, what: u64, link: u64, bytes: &[u8]) {
        self.hash = mix(self.hash ^ mix(what ^ link << 2) ^ self.now << 20);
        for part in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..part.len()].copy_from_slice(part);
            self.hash = mix(self.hash.rotate_left(5) ^ u64::from_le_bytes(word));
        }
    }

    /// Takes what an end tells, sends what it has to send, notes when to look at it again.
    fn drive(&mut self, end: End) {
        if let Some(until) = self.sleeps(self.sleeper_of(end)) {
            return self.note_deadline(end, until);
        }
        match end {
            End::Client(link) => self.drive_client(link),
            End::Host(worker, index) => self.drive_host(worker, index),
        }
    }

    fn drive_client(&mut self, link: u64) {
        let (now, sent_at) = (self.instant(), at(self.now));
        let Some(end) = self.clients.get_mut(&link) else { return };
        end.follow(now);
        while end.poll_transmit(now, &mut self.buffer) {
            self.net.send_up(link, self.buffer.clone(), sent_at);
        }
        end.follow(now);
        let (is_over, due) = (end.is_over(), end.poll_timeout());
        while let Some(told) = self.clients.get_mut(&link).and_then(ClientEnd::poll_told) {
            self.told.push_back(match told {
                client::Told::Ready => Told::Ready(link),
                client::Told::Frame(frame) => {
                    if let Some((worker, index)) = self.seat_of(link) {
                        self.hosts[worker].reached_client(index, &frame);
                    }
                    Told::AtClient(link, frame)
                }
                client::Told::Lost(code) => Told::LostAtClient(link, code),
            });
        }
        if is_over {
            return self.vanish(link);
        }
        self.plan(End::Client(link), due);
    }

    fn drive_host(&mut self, worker: usize, index: usize) {
        let (now, sent_at) = (self.instant(), at(self.now));
        let Some(host) = self.hosts.get_mut(worker) else { return };
        host.follow(index, now);
        while let Some(to) = host.poll_transmit(index, now, &mut self.buffer) {
            self.net.send_down(to, self.buffer.clone(), sent_at);
        }
        host.follow(index, now);
        while let Some(told) = host.poll_told() {
            self.told.push_back(match told {
                host::Told::Arrived(link, begun) => {
                    Told::Arrived(link, worker, ms(begun.saturating_duration_since(self.base)))
                }
                host::Told::Frame(link, frame) => Told::AtServer(link, frame),
                host::Told::Lost(link) => Told::LostAtServer(link),
            });
        }
        let due = host.poll_timeout(index);
        if let Some((link, frame)) = host.forgotten(index)
            && self.clients.get(&link).is_some_and(ClientEnd::is_open)
        {
            self.told.push_back(Told::Forgotten(link, frame));
        }
        self.plan(End::Host(worker, index), due);
    }

    fn plan(&mut self, end: End, due: Option<Instant>) {
        match due {
            Some(due) => {
                let when = ms(due.saturating_duration_since(self.base));
                // QUIC counts finer than the world: what is due in this ms is due in the next.
                self.note_deadline(end, when.max(self.now + 1));
            }
            None => self.forget(end),
        }
    }

    fn note_deadline(&mut self, end: End, when: u64) {
        self.forget(end);
        self.deadlines.insert((when, end));
        self.deadline_of.insert(end, when);
    }

    fn forget(&mut self, end: End) {
        if let Some(when) = self.deadline_of.remove(&end) {
            self.deadlines.remove(&(when, end));
        }
    }
}
