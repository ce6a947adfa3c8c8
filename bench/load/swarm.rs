//! Many devices on one thread and a few sockets: quinn-proto driven by hand, so that no runtime
//! stands between a message's due time and the socket.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use bytes::BytesMut;
use quinn_proto::{
    ClientConfig, Connection, ConnectionHandle, DatagramEvent, Endpoint, EndpointConfig,
};
use tern_protocol::doubling::Doubling;
use tern_protocol::frames::Network;
use tern_protocol::{ChannelId, Uin};
use tern_random::Stream;

use super::device::{Device, Event, Identity, Message, Rhythm};
use super::line::{Datagrams, Line};
use super::path::{Path, Weather};
use super::socket::{Datagram, Socket};
use super::speaker::Speaker;
use super::stall::{Stall, Stalled};
use super::tls::{Tickets, client_config};
use crate::error::BenchError;

/// How the load's thread waits for what is next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wait {
    /// It sleeps; being woken takes the kernel some tens of microseconds, which is part of every
    /// latency, as it is on a real device.
    Sleep,
    /// It keeps asking the socket, on a core of its own: latencies are the server's alone.
    Spin,
}

/// How the devices of a swarm come to the server.
#[derive(Clone, Debug)]
pub struct Approach {
    /// Where it is.
    pub server: SocketAddr,
    /// SHA-256 of its certificate.
    pub pin: [u8; 32],
    /// Addresses of this machine that they come from, in turns.
    pub sources: Vec<SocketAddr>,
    /// What the path does to packets, if it is bad.
    pub weather: Option<Weather>,
    /// How single messages travel.
    pub datagrams: Datagrams,
    /// Whether they come back by themselves when their connection is lost.
    pub returns: bool,
    /// Whether TLS keeps tickets to resume by.
    pub tickets: Tickets,
    /// For what the path loses, and when heartbeats come.
    pub seed: u64,
}

/// Many devices.
pub struct Swarm<S = Device> {
    sockets: Vec<Socket>,
    endpoint: Endpoint,
    config: ClientConfig,
    approach: Approach,
    lines: Vec<Line<S>>,
    by_handle: HashMap<ConnectionHandle, usize>,
    timers: BinaryHeap<Reverse<(Instant, usize)>>,
    /// Lines with something to take or to send, each once.
    busy: VecDeque<usize>,
    random: Stream,
    scratch: Vec<u8>,
    events: VecDeque<(usize, Instant, Event)>,
    /// What devices that are new to their channels want of them; `None`: all.
    newest_wanted: Option<u32>,
    /// The bad path, if there is one.
    path: Option<Path>,
}

impl<S: Speaker> Swarm<S> {
    /// No device yet.
    ///
    /// # Errors
    /// When there is no socket to be had.
    pub fn new(approach: Approach) -> Result<Self, BenchError> {
        let sockets = approach.sources.iter().map(|source| Socket::bind(*source));
        Ok(Self {
            sockets: sockets.collect::<Result<_, _>>()?,
            endpoint: Endpoint::new(Arc::new(EndpointConfig::default()), None, false, None),
            config: client_config(approach.pin, approach.tickets),
            lines: Vec::new(),
            by_handle: HashMap::new(),
            timers: BinaryHeap::new(),
            busy: VecDeque::new(),
            random: Stream::of(approach.seed, "swarm"),
            scratch: Vec::new(),
            events: VecDeque::new(),
            newest_wanted: None,
            path: approach.weather.map(|weather| Path::new(weather, approach.seed)),
            approach,
        })
    }

    /// From now on the path loses packets.
    pub fn begin_to_lose(&mut self) {
        if let Some(path) = &mut self.path {
            path.begin_to_lose();
        }
    }

    /// Share of the packets that a bad path has lost.
    pub fn lost(&self) -> Option<f64> {
        self.path.as_ref().map(Path::lost)
    }

    /// Connects one more speaker; its number.
    ///
    /// # Errors
    /// When the address is none that can be connected to.
    pub fn join(&mut self, speaker: S) -> Result<usize, BenchError> {
        let index = self.lines.len();
        let connected = self.open(index)?;
        let socket = index % self.sockets.len();
        let ways = (self.approach.returns, self.doubling());
        self.lines.push(Line::new(connected, speaker, socket, ways));
        self.mark_busy(index);
        Ok(index)
    }

    /// A speaker, to be asked.
    pub fn speaker(&self, index: usize) -> &S {
        &self.lines[index].device
    }

    /// A speaker, to be asked for what it gives once.
    pub fn speaker_mut(&mut self, index: usize) -> &mut S {
        &mut self.lines[index].device
    }

    /// A speaker that is given something to say.
    pub fn speak(&mut self, index: usize) -> &mut S {
        self.mark_busy(index);
        self.speaker_mut(index)
    }

    /// What a device knows of a path that is new to it.
    fn doubling(&self) -> Doubling {
        match self.approach.datagrams {
            Datagrams::Doubled => Doubling::default(),
            Datagrams::Single | Datagrams::Repeated | Datagrams::Off => Doubling::never(),
        }
    }

    /// Connects a device once more; it resumes its session if it is asked to and can, else it logs
    /// in.
    ///
    /// # Errors
    /// When the address is none that can be connected to.
    pub fn reconnect(&mut self, index: usize, resume: bool) -> Result<(), BenchError> {
        let old = self.lines[index].handle;
        // The endpoint may have given the number to another connection by now.
        if self.by_handle.get(&old) == Some(&index) {
            self.by_handle.remove(&old);
        }
        self.lines[index].forget(&mut self.endpoint);
        let connected = self.open(index)?;
        let doubling = self.doubling();
        self.lines[index].reconnect(connected, resume, doubling);
        self.mark_busy(index);
        Ok(())
    }

    /// Ends a device's connection, as when an app is closed; its session stays.
    pub fn disconnect(&mut self, index: usize) {
        let Self { sockets, endpoint, lines, .. } = self;
        let line = &mut lines[index];
        if !line.is_gone() {
            line.close(Instant::now(), endpoint, &sockets[line.socket]);
        }
    }

    /// A device goes on from another of the load's addresses, without a word, as when a phone
    /// changes its network.
    pub fn roam(&mut self, index: usize) {
        let count = self.sockets.len();
        let line = &mut self.lines[index];
        line.socket = (line.socket + 1) % count;
        line.connection.local_address_changed();
        self.mark_busy(index);
    }

    /// A connection for the device of this number, under a name of its own: TLS keeps its tickets
    /// by name.
    fn open(&mut self, index: usize) -> Result<(ConnectionHandle, Connection), BenchError> {
        let name = match self.approach.tickets {
            Tickets::None => "tern".to_owned(),
            Tickets::OnePerDevice(_) => format!("device{index}.tern"),
        };
        let (config, server) = (self.config.clone(), self.approach.server);
        let (handle, connection) = self
            .endpoint
            .connect(Instant::now(), config, server, &name)
            .map_err(|error| BenchError::Load(format!("a device can't connect: {error}")))?;
        self.by_handle.insert(handle, index);
        Ok((handle, connection))
    }

    /// Takes what has come and is due, and sends what is to be said.
    ///
    /// # Errors
    /// When the socket fails.
    pub fn turn(&mut self) -> Result<(), BenchError> {
        let mut now = Instant::now();
        for socket in 0..self.sockets.len() {
            while self.receive(socket, &mut now)? {}
        }
        self.land(now);
        while let Some(&Reverse((at, index))) = self.timers.peek()
            && at <= now
        {
            self.timers.pop();
            self.fire(now, index, at)?;
        }
        while let Some(index) = self.busy.pop_front() {
            self.lines[index].is_busy = false;
            self.serve(now, index);
        }
        Ok(())
    }

    /// The next thing that a device has to tell, and when it came.
    pub fn poll_event(&mut self) -> Option<(usize, Instant, Event)> {
        self.events.pop_front()
    }

    /// Waits until something comes or is due, at most until `until`.
    ///
    /// # Errors
    /// When a socket fails.
    pub fn wait(&self, until: Instant, manner: Wait) -> Result<(), BenchError> {
        if manner == Wait::Spin || !self.busy.is_empty() {
            std::hint::spin_loop();
            return Ok(());
        }
        let timer = self.timers.peek().map(|Reverse((at, _))| *at);
        let path = self.path.as_ref().and_then(Path::next);
        let next = [timer, path].into_iter().flatten().fold(until, Instant::min);
        Socket::wait(&self.sockets, next)
    }

    fn mark_busy(&mut self, index: usize) {
        if !std::mem::replace(&mut self.lines[index].is_busy, true) {
            self.busy.push_back(index);
        }
    }

    fn receive(&mut self, from: usize, now: &mut Instant) -> Result<bool, BenchError> {
        let Self { sockets, endpoint, lines, by_handle, busy, scratch, path, .. } = self;
        let mut answers = Vec::new();
        let more = sockets[from].receive(|Datagram { remote, local_ip, ecn, bytes }| {
            *now = Instant::now();
            scratch.clear();
            let at = path.as_ref().map_or(*now, |path| path.arrives(*now));
            match endpoint.handle(at, remote, local_ip, ecn, BytesMut::from(bytes), scratch) {
                Some(DatagramEvent::ConnectionEvent(handle, event)) => {
                    let Some(&index) = by_handle.get(&handle) else { return };
                    let line = &mut lines[index];
                    if line.stalled.is_cut_off() {
                        return;
                    }
                    if let Some(path) = path {
                        if let Some(at) = path.arrival(*now, &mut line.to_device) {
                            path.receive(at, (index, handle), event);
                        }
                        return;
                    }
                    line.connection.handle_event(event);
                    if !std::mem::replace(&mut line.is_busy, true) {
                        busy.push_back(index);
                    }
                }
                Some(DatagramEvent::Response(transmit)) => {
                    answers.push((transmit, scratch.clone()));
                }
                Some(DatagramEvent::NewConnection(_)) | None => {}
            }
        })?;
        for (transmit, bytes) in answers {
            self.sockets[from].send(&transmit, &bytes);
        }
        Ok(more)
    }

    /// Lets packets of the bad path arrive.
    fn land(&mut self, now: Instant) {
        let Self { path: Some(path), sockets, lines, busy, .. } = self else { return };
        while let Some((socket, transmit, bytes)) = path.poll_sent(now) {
            sockets[socket].send(&transmit, &bytes);
        }
        while let Some(((index, handle), event)) = path.poll_received(now) {
            let line = &mut lines[index];
            if line.handle != handle {
                continue; // for the connection before this one
            }
            line.connection.handle_event(event);
            if !std::mem::replace(&mut line.is_busy, true) {
                busy.push_back(index);
            }
        }
    }

    fn fire(&mut self, now: Instant, index: usize, at: Instant) -> Result<(), BenchError> {
        let line = &mut self.lines[index];
        if line.armed != Some(at) {
            return Ok(()); // an earlier one took its place, and armed the next
        }
        line.armed = None;
        if line.return_at.is_some_and(|at| at <= now) {
            return self.reconnect(index, true);
        }
        line.handle_timeout(now);
        self.mark_busy(index);
        Ok(())
    }

    /// Everything there is to do for one line.
    fn serve(&mut self, now: Instant, index: usize) {
        let Self { sockets, endpoint, lines, timers, random, scratch, events, path, .. } = self;
        let line = &mut lines[index];
        let mut tell = |event| events.push_back((index, now, event));
        loop {
            line.take_endpoint_events(endpoint);
            let took = line.take_events(now, random, &mut tell);
            line.write(now, &mut tell);
            let sent = match path {
                Some(path) => line.take_off(now, path),
                None => line.transmit(now, &sockets[line.socket], scratch),
            };
            if !took && !sent {
                break;
            }
        }
        line.device.set_rtt(line.connection.rtt());
        if let Some(at) = line.poll_timeout()
            && line.armed.is_none_or(|armed| at < armed)
        {
            line.armed = Some(at);
            timers.push(Reverse((at, index)));
        }
    }
}

/// What scenarios have their devices do.
impl Swarm {
    /// Devices that connect for the first time from now on want at most so many of the newest
    /// messages of each channel that they do not know.
    pub fn want_newest(&mut self, newest: u32) {
        self.newest_wanted = Some(newest);
    }

    /// Connects one more device and has it log in; its number.
    ///
    /// # Errors
    /// When the address is none that can be connected to.
    pub fn connect(&mut self, identity: Identity, network: Network) -> Result<usize, BenchError> {
        let mut device = Device::new(identity, network, self.approach.datagrams);
        if let Some(newest) = self.newest_wanted {
            device.want_newest(newest);
        }
        self.join(device)
    }

    /// From now on a device beats only when it is told to.
    pub fn hold_beats(&mut self, index: usize) {
        self.lines[index].device.set_rhythm(Rhythm::Told);
    }

    /// Has a device beat, with the digest of its cursors or with a wrong one.
    pub fn beat(&mut self, index: usize, is_wrong: bool) {
        self.lines[index].device.beat_now(is_wrong);
        self.mark_busy(index);
    }

    /// A device no longer keeps up.
    pub fn stall(&mut self, index: usize, how: Stall) {
        let line = &mut self.lines[index];
        line.stalled = Stalled::begin(Instant::now(), how);
        line.device.set_rhythm(Rhythm::Blind);
        self.mark_busy(index);
    }

    /// It keeps up again, over another connection.
    ///
    /// # Errors
    /// When the address is none that can be connected to.
    pub fn thaw(&mut self, index: usize) -> Result<(), BenchError> {
        let line = &mut self.lines[index];
        line.stalled = Stalled::default();
        line.device.set_rhythm(Rhythm::Answered);
        self.reconnect(index, true)
    }

    /// Has a device send a message.
    pub fn send(&mut self, device: usize, message: Message) {
        self.lines[device].device.send(Instant::now(), message);
        self.mark_busy(device);
    }

    /// Has a device, which is online, create a group with these members; the group's channel. The
    /// tag comes back with the event that it is durable.
    pub fn create_group(&mut self, device: usize, members: &[Uin], tag: u64) -> ChannelId {
        let channel = self.lines[device].device.create_group(Instant::now(), members, tag);
        self.mark_busy(device);
        channel
    }

    /// Has a device, which owns a group, add members to it.
    pub fn add_members(&mut self, device: usize, group: ChannelId, members: &[Uin], tag: u64) {
        self.lines[device].device.add_members(Instant::now(), group, members, tag);
        self.mark_busy(device);
    }
}
