//! Many devices on one thread and one socket: quinn-proto driven by hand, so that no runtime
//! stands between a message's due time and the socket.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use bytes::BytesMut;
use quinn_proto::{
    ClientConfig, Connection, ConnectionHandle, DatagramEvent, Dir, Endpoint, EndpointConfig,
    Event as QuicEvent, ReadError, ReadableError, StreamEvent, StreamId, WriteError,
};
use tern_protocol::frames::Network;
use tern_protocol::{Code, Kind};
use tern_random::Stream;

use super::device::{Device, Event, Identity, Message};
use super::path::{Path, Way, Weather};
use super::socket::Socket;
use super::tls::client_config;
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

/// Many devices.
pub struct Swarm {
    socket: Socket,
    endpoint: Endpoint,
    config: ClientConfig,
    server: SocketAddr,
    lines: Vec<Line>,
    by_handle: HashMap<ConnectionHandle, usize>,
    timers: BinaryHeap<Reverse<(Instant, usize)>>,
    /// Lines with something to take or to send, each once.
    busy: VecDeque<usize>,
    random: Stream,
    scratch: Vec<u8>,
    events: VecDeque<(usize, Instant, Event)>,
    /// The bad path, if there is one.
    path: Option<Path>,
    /// Whether devices say that they can do datagrams.
    datagrams: bool,
}

/// One device's connection.
struct Line {
    handle: ConnectionHandle,
    connection: Box<Connection>,
    stream: Option<StreamId>,
    device: Device,
    /// The earliest timer in the heap for this line.
    armed: Option<Instant>,
    is_busy: bool,
    is_gone: bool,
    to_server: Way,
    to_device: Way,
}

impl Swarm {
    /// No device yet; the server's certificate has the SHA-256 `pin`.
    ///
    /// # Errors
    /// When there is no socket to be had.
    pub fn new(server: SocketAddr, pin: [u8; 32], seed: u64) -> Result<Self, BenchError> {
        let config = EndpointConfig::default();
        Ok(Self {
            socket: Socket::bind(server)?,
            endpoint: Endpoint::new(Arc::new(config), None, false, None),
            config: client_config(pin),
            server,
            lines: Vec::new(),
            by_handle: HashMap::new(),
            timers: BinaryHeap::new(),
            busy: VecDeque::new(),
            random: Stream::new(seed),
            scratch: Vec::new(),
            events: VecDeque::new(),
            path: None,
            datagrams: false,
        })
    }

    /// Puts all devices that connect from now on behind a path in this weather, with or without
    /// datagrams.
    pub fn set_path(&mut self, weather: Option<Weather>, datagrams: bool, seed: u64) {
        self.path = weather.map(|weather| Path::new(weather, seed));
        self.datagrams = datagrams;
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

    /// Connects one more device and has it log in; its number.
    ///
    /// # Errors
    /// When the address is none that can be connected to.
    pub fn connect(&mut self, identity: Identity, network: Network) -> Result<usize, BenchError> {
        let now = Instant::now();
        let (handle, connection) = self
            .endpoint
            .connect(now, self.config.clone(), self.server, "tern")
            .map_err(|error| BenchError::Load(format!("a device can't connect: {error}")))?;
        let index = self.lines.len();
        self.by_handle.insert(handle, index);
        self.lines.push(Line {
            handle,
            connection: Box::new(connection),
            stream: None,
            device: Device::new(identity, network, self.datagrams),
            armed: None,
            is_busy: false,
            is_gone: false,
            to_server: Way::default(),
            to_device: Way::default(),
        });
        self.mark_busy(index);
        Ok(index)
    }

    /// Has a device send a message.
    pub fn send(&mut self, device: usize, message: Message) {
        self.lines[device].device.send(Instant::now(), message);
        self.mark_busy(device);
    }

    /// Takes what has come and is due, and sends what is to be said.
    ///
    /// # Errors
    /// When the socket fails.
    pub fn turn(&mut self) -> Result<(), BenchError> {
        let mut now = Instant::now();
        while self.receive(&mut now)? {}
        self.land(now);
        while let Some(&Reverse((at, index))) = self.timers.peek()
            && at <= now
        {
            self.timers.pop();
            self.fire(now, index, at);
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
    /// When the socket fails.
    pub fn wait(&self, until: Instant, manner: Wait) -> Result<(), BenchError> {
        if manner == Wait::Spin || !self.busy.is_empty() {
            std::hint::spin_loop();
            return Ok(());
        }
        let timer = self.timers.peek().map(|Reverse((at, _))| *at);
        let path = self.path.as_ref().and_then(Path::next);
        let next = [timer, path].into_iter().flatten().fold(until, Instant::min);
        self.socket.wait(Some(next))
    }

    fn mark_busy(&mut self, index: usize) {
        if !std::mem::replace(&mut self.lines[index].is_busy, true) {
            self.busy.push_back(index);
        }
    }

    fn receive(&mut self, now: &mut Instant) -> Result<bool, BenchError> {
        let Self { socket, endpoint, lines, by_handle, busy, scratch, path, .. } = self;
        let mut answers = Vec::new();
        let more = socket.receive(|datagram| {
            *now = Instant::now();
            scratch.clear();
            let data = BytesMut::from(datagram.bytes);
            let (remote, local_ip, ecn) = (datagram.remote, datagram.local_ip, datagram.ecn);
            let at = path.as_ref().map_or(*now, |path| path.arrives(*now));
            match endpoint.handle(at, remote, local_ip, ecn, data, scratch) {
                Some(DatagramEvent::ConnectionEvent(handle, event)) => {
                    let Some(&index) = by_handle.get(&handle) else { return };
                    let line = &mut lines[index];
                    if let Some(path) = path {
                        if let Some(at) = path.arrival(*now, &mut line.to_device) {
                            path.receive(at, index, event);
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
            self.socket.send(&transmit, &bytes);
        }
        Ok(more)
    }

    /// Lets packets of the bad path arrive.
    fn land(&mut self, now: Instant) {
        let Self { path: Some(path), socket, lines, busy, .. } = self else { return };
        while let Some((transmit, bytes)) = path.poll_sent(now) {
            socket.send(&transmit, &bytes);
        }
        while let Some((index, event)) = path.poll_received(now) {
            let line = &mut lines[index];
            line.connection.handle_event(event);
            if !std::mem::replace(&mut line.is_busy, true) {
                busy.push_back(index);
            }
        }
    }

    fn fire(&mut self, now: Instant, index: usize, at: Instant) {
        let line = &mut self.lines[index];
        if line.armed != Some(at) {
            return; // an earlier one took its place, and armed the next
        }
        line.armed = None;
        if line.connection.poll_timeout().is_some_and(|at| at <= now) {
            line.connection.handle_timeout(now);
        }
        line.device.set_rtt(line.connection.rtt());
        if line.device.poll_timeout().is_some_and(|at| at <= now) {
            line.device.handle_timeout(now);
        }
        self.mark_busy(index);
    }

    /// Everything there is to do for one line.
    fn serve(&mut self, now: Instant, index: usize) {
        let Self { socket, endpoint, lines, timers, random, scratch, events, path, .. } = self;
        let line = &mut lines[index];
        let mut tell = |event| events.push_back((index, now, event));
        loop {
            line.take_endpoint_events(endpoint);
            let took = line.take_events(now, random, &mut tell);
            line.write(&mut tell);
            let sent = match path {
                Some(path) => line.take_off(now, path),
                None => line.transmit(now, socket, scratch),
            };
            if !took && !sent {
                break;
            }
        }
        line.device.set_rtt(line.connection.rtt());
        let timeouts = [line.connection.poll_timeout(), line.device.poll_timeout()];
        let next = timeouts.into_iter().flatten().min();
        if let Some(at) = next
            && line.armed.is_none_or(|armed| at < armed)
        {
            line.armed = Some(at);
            timers.push(Reverse((at, index)));
        }
    }
}

impl Line {
    fn take_endpoint_events(&mut self, endpoint: &mut Endpoint) {
        while let Some(event) = self.connection.poll_endpoint_events() {
            if let Some(event) = endpoint.handle_event(self.handle, event) {
                self.connection.handle_event(event);
            }
        }
    }

    /// Takes the connection's events; whether there were any.
    fn take_events(
        &mut self,
        now: Instant,
        random: &mut Stream,
        tell: &mut impl FnMut(Event),
    ) -> bool {
        let mut took = false;
        while let Some(event) = self.connection.poll() {
            took = true;
            match event {
                QuicEvent::Connected => self.stream = self.connection.streams().open(Dir::Bi),
                QuicEvent::Stream(StreamEvent::Readable { id }) => {
                    self.read(now, id, random, tell);
                }
                QuicEvent::DatagramReceived => {
                    while let Some(frame) = self.connection.datagrams().recv() {
                        self.device.handle_datagram(now, &frame, tell);
                    }
                }
                QuicEvent::ConnectionLost { reason } if !self.is_gone => {
                    self.is_gone = true;
                    eprintln!("a connection was lost: {reason}");
                    tell(Event::Failed(Kind::Close, Code::Offline));
                }
                _ => {}
            }
        }
        took
    }

    fn read(
        &mut self,
        now: Instant,
        id: StreamId,
        random: &mut Stream,
        tell: &mut impl FnMut(Event),
    ) {
        let mut stream = self.connection.recv_stream(id);
        let mut chunks = match stream.read(true) {
            Ok(chunks) => chunks,
            Err(ReadableError::ClosedStream | ReadableError::IllegalOrderedRead) => return,
        };
        loop {
            match chunks.next(usize::MAX) {
                Ok(Some(chunk)) => {
                    self.device.handle_bytes(now, &chunk.bytes, random.fraction(), tell);
                }
                Ok(None) | Err(ReadError::Reset(_)) => {
                    tell(Event::Failed(Kind::Close, Code::Offline));
                    break;
                }
                Err(ReadError::Blocked) => break,
            }
        }
        let _ = chunks.finalize(); // what it wants to send goes out below
    }

    fn write(&mut self, tell: &mut impl FnMut(Event)) {
        let Some(id) = self.stream else { return };
        while let Some(frame) = self.device.poll_datagram() {
            if self.connection.datagrams().send(frame.clone(), false).is_err() {
                self.device.outbox().extend_from_slice(&frame); // it fits none
            }
        }
        let outbox = self.device.outbox();
        if self.is_gone || outbox.is_empty() {
            return;
        }
        match self.connection.send_stream(id).write(outbox) {
            Ok(written) => drop(outbox.drain(..written)),
            Err(WriteError::Blocked) => {}
            Err(WriteError::Stopped(_) | WriteError::ClosedStream) => {
                outbox.clear();
                tell(Event::Failed(Kind::Close, Code::Offline));
            }
        }
    }

    /// Gives what the connection has to send to the path, packet by packet; whether it had
    /// anything.
    fn take_off(&mut self, now: Instant, path: &mut Path) -> bool {
        let mut sent = false;
        loop {
            let mut bytes = Vec::new();
            let Some(transmit) = self.connection.poll_transmit(now, 1, &mut bytes) else {
                return sent;
            };
            if let Some(at) = path.arrival(now, &mut self.to_server) {
                path.send(at, transmit, bytes);
            }
            sent = true;
        }
    }

    /// Sends what the connection has to send; whether it had anything.
    fn transmit(&mut self, now: Instant, socket: &Socket, scratch: &mut Vec<u8>) -> bool {
        let mut sent = false;
        loop {
            scratch.clear();
            let segments = socket.segments_max();
            let Some(transmit) = self.connection.poll_transmit(now, segments, scratch) else {
                return sent;
            };
            socket.send(&transmit, scratch);
            sent = true;
        }
    }
}
