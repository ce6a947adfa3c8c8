//! The server's end, as a worker's driver has it: one endpoint for each worker, set up by the
//! very settings of the server, its connections with one control stream each, handshakes that
//! may take so long, closes that wait until the client has the CLOSE frame.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use quinn_proto::{
    Connection, ConnectionHandle, DatagramEvent, Dir, Endpoint, EndpointEvent, Event, Incoming,
    StreamEvent, StreamId, TimeSource, VarInt,
};
use tern_core::placement::WorkerId;
use tern_protocol::Code;
use tern_quic::frames::Cutter;
use tern_quic::settings::{self, TransportKeys, TransportSettings};
use tern_quic::steering::WorkerIds;

use super::crypto::NullCrypto;
use super::pushes::Pushes;
use crate::random::Stream;

/// Time that a client gets to have the CLOSE frame, as in the worker's driver.
const LINGER: Duration = Duration::from_secs(1);

/// Bytes of answers, beside its pushes, that may wait for a client, as in the worker's driver.
const ANSWER_BYTES: usize = 128 << 10;

/// What a worker's end tells, by the connection's number in the world.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Told {
    /// A handshake is complete that began then.
    Arrived(u64, Instant),
    /// A frame came.
    Frame(u64, Bytes),
    /// The connection is gone.
    Lost(u64),
}

/// What it did.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct HostCounts {
    /// Handshakes that were completed.
    pub handshakes: u64,
    /// Clients that had to prove their address first.
    pub retries: u64,
    /// Connections whose address changed.
    pub migrations: u64,
    /// Stateless resets sent.
    pub resets: u64,
    /// Packets that QUIC took for lost, on connections that ended.
    pub lost_packets: u64,
    /// Congestion events, on connections that ended.
    pub congestion_events: u64,
    /// Pushes that left by datagram.
    pub pushes_free: u64,
    /// Those of them that left by a second datagram.
    pub pushes_doubled: u64,
    /// Those of them that went by stream once more.
    pub pushes_repaired: u64,
    /// Pushes by stream that left once more by datagram.
    pub pushes_repeated: u64,
    /// Frames that came by datagram.
    pub frames_free: u64,
}

/// How far a connection has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum State {
    /// The handshake is under way, and ends by then.
    Handshaking(Instant),
    /// The worker knows it.
    Open,
    /// CLOSE is written; closed when the client has it, or by then.
    Lingering(Code, Instant),
    /// Closed or lost.
    Ended,
}

/// One connection.
pub(super) struct HostLink {
    pub(super) number: u64,
    pub(super) connection: Connection,
    pub(super) state: State,
    begun: Instant,
    stream: Option<StreamId>,
    cutter: Cutter,
    waiting: VecDeque<Bytes>,
    waiting_bytes: usize,
    pub(super) pushes: Pushes,
    remote: SocketAddr,
}

/// The wall clock of the simulated server, as QUIC's tokens read it.
struct VirtualClock {
    base: Instant,
    now: Arc<std::sync::Mutex<Instant>>,
}

impl TimeSource for VirtualClock {
    fn now(&self) -> SystemTime {
        let now = *self.now.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 30) + now.duration_since(self.base)
    }
}

/// What makes the endpoints of one process.
pub struct Setup {
    /// The keys in the data folder.
    pub keys: TransportKeys,
    /// What an operator chose.
    pub settings: TransportSettings,
    /// Decides everything that is random in this process.
    pub seed: u64,
    /// The beginning of the world.
    pub base: Instant,
    /// Whether of the pushes that are found lost in one moment every second is forgotten.
    pub forgets_lost: bool,
}

/// One worker's end.
pub struct Host {
    pub(super) endpoint: Endpoint,
    pub(super) links: BTreeMap<usize, HostLink>,
    by_number: BTreeMap<u64, usize>,
    settings: TransportSettings,
    clock: Arc<std::sync::Mutex<Instant>>,
    told: VecDeque<Told>,
    pub(super) counts: HostCounts,
    pub(super) forgets_lost: bool,
}

impl Host {
    /// The end of this worker of so many, in a new process.
    pub fn new(setup: &Setup, worker: u16, workers: u16) -> Self {
        let seed = setup.seed ^ u64::from(worker) << 48;
        let clock = Arc::new(std::sync::Mutex::new(setup.base));
        let time = VirtualClock { base: setup.base, now: Arc::clone(&clock) };
        let crypto = NullCrypto::new(Stream::of(seed, "server hello").draw());
        let mut config = settings::server_over(&setup.settings, &setup.keys, crypto);
        config.time_source(Arc::new(time));
        let mut endpoint = settings::endpoint_over(&setup.keys, move || {
            let mut stream = Stream::of(seed, "server ids");
            let fill = move |id: &mut [u8; 8]| *id = stream.draw().to_le_bytes();
            WorkerIds::with_source(WorkerId(worker), workers, Box::new(fill))
        });
        endpoint.rng_seed(Some(Stream::of(seed, "server endpoint").token()));
        Self {
            endpoint: Endpoint::new(Arc::new(endpoint), Some(Arc::new(config)), false, None),
            links: BTreeMap::new(),
            by_number: BTreeMap::new(),
            settings: setup.settings.clone(),
            clock,
            told: VecDeque::new(),
            counts: HostCounts::default(),
            forgets_lost: setup.forgets_lost,
        }
    }

    /// A datagram comes from `remote`, behind which this connection's client is.
    pub fn handle_datagram(
        &mut self,
        (remote, number): (SocketAddr, u64),
        bytes: &[u8],
        now: Instant,
        answers: &mut Vec<(SocketAddr, Vec<u8>)>,
    ) -> Option<usize> {
        *self.clock.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = now;
        let mut answer = Vec::new();
        match self.endpoint.handle(now, remote, None, None, bytes.into(), &mut answer)? {
            DatagramEvent::ConnectionEvent(handle, event) => {
                let link = self.links.get_mut(&handle.0)?;
                link.connection.handle_event(event);
                let address = link.connection.remote_address();
                if address != link.remote {
                    self.counts.migrations += 1;
                    link.pushes.moved(&link.connection);
                }
                link.remote = address;
                self.follow(handle.0, now);
                Some(handle.0)
            }
            DatagramEvent::NewConnection(incoming) => self.decide(incoming, number, now, answers),
            DatagramEvent::Response(transmit) => {
                // The only short header without a connection is that of a reset.
                let is_reset = answer.first().is_some_and(|byte| byte & 0x80 == 0);
                self.counts.resets += u64::from(is_reset);
                answers.push((transmit.destination, answer));
                None
            }
        }
    }

    fn decide(
        &mut self,
        incoming: Incoming,
        number: u64,
        now: Instant,
        answers: &mut Vec<(SocketAddr, Vec<u8>)>,
    ) -> Option<usize> {
        let mut answer = Vec::new();
        let proven = incoming.remote_address_validated();
        let is_one = |link: &&HostLink| matches!(link.state, State::Handshaking(_));
        let handshakes = self.links.values().filter(is_one).count();
        if !proven && handshakes >= self.settings.retry_threshold {
            match self.endpoint.retry(incoming, &mut answer) {
                Ok(transmit) => {
                    self.counts.retries += 1;
                    answers.push((transmit.destination, answer));
                }
                Err(error) => self.endpoint.ignore(error.into_incoming()),
            }
            return None;
        }
        match self.endpoint.accept(incoming, now, &mut answer, None) {
            Ok((handle, connection)) => {
                self.insert(handle, connection, number, now);
                self.follow(handle.0, now);
                Some(handle.0)
            }
            Err(error) => {
                answers.extend(error.response.map(|transmit| (transmit.destination, answer)));
                None
            }
        }
    }

    fn insert(
        &mut self,
        handle: ConnectionHandle,
        connection: Connection,
        number: u64,
        now: Instant,
    ) {
        let until = now + Duration::from_millis(self.settings.handshake_ms_max);
        let remote = connection.remote_address();
        let link = HostLink {
            number,
            connection,
            state: State::Handshaking(until),
            begun: now,
            stream: None,
            cutter: Cutter::default(),
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            pushes: Pushes::new(self.settings.free_pushes),
            remote,
        };
        self.links.insert(handle.0, link);
    }

    /// A deadline of a connection may have come.
    pub fn handle_timeout(&mut self, index: usize, now: Instant) {
        let Some(link) = self.links.get_mut(&index) else { return };
        if link.connection.poll_timeout().is_some_and(|at| at <= now) {
            link.connection.handle_timeout(now);
        }
        match link.state {
            State::Handshaking(until) if until <= now => return self.drop_handshake(index),
            State::Lingering(code, until) if until <= now => link.close(code, now),
            _ => {}
        }
        self.follow(index, now);
        self.push_due(index, now);
    }

    /// Drops a handshake without a word, as the worker's driver does.
    fn drop_handshake(&mut self, index: usize) {
        self.endpoint.handle_event(ConnectionHandle(index), EndpointEvent::drained());
        self.forget(index);
    }

    fn forget(&mut self, index: usize) {
        let Some(link) = self.links.remove(&index) else { return };
        let path = link.connection.stats().path;
        self.counts.lost_packets += path.lost_packets;
        self.counts.congestion_events += path.congestion_events;
        if self.by_number.get(&link.number) == Some(&index) {
            self.by_number.remove(&link.number);
        }
    }

    pub(super) fn open_link(&mut self, index: usize) -> Option<&mut HostLink> {
        self.links.get_mut(&index).filter(|link| link.state == State::Open)
    }

    /// Where a connection of the world stands, once its handshake is complete.
    pub fn index_of(&self, number: u64) -> Option<usize> {
        self.by_number.get(&number).copied()
    }

    /// Says a frame behind all others.
    pub fn write(&mut self, index: usize, frame: Bytes, now: Instant) {
        let bytes_max = ANSWER_BYTES + 2 * self.settings.window_bytes as usize;
        let Some(link) = self.open_link(index) else { return };
        link.waiting_bytes += frame.len();
        link.waiting.push_back(frame);
        link.flush();
        if link.waiting_bytes > bytes_max {
            let number = link.number;
            link.close(Code::SlowReader, now);
            self.told.push_back(Told::Lost(number));
        }
    }

    /// Says no more, and closes once the client has everything.
    pub fn finish(&mut self, index: usize, code: Code, now: Instant) {
        let Some(link) = self.open_link(index) else { return };
        match link.stream {
            Some(stream) => {
                // An error says that the client has ended the stream already.
                let stopped = VarInt::from_u32(code.0.into());
                let _ = link.connection.recv_stream(stream).stop(stopped);
                link.state = State::Lingering(code, now + LINGER);
                link.flush();
            }
            None => link.close(code, now),
        }
    }

    /// The next datagram that a connection sends, and where to.
    pub fn poll_transmit(
        &mut self,
        index: usize,
        now: Instant,
        buffer: &mut Vec<u8>,
    ) -> Option<SocketAddr> {
        buffer.clear();
        let link = self.links.get_mut(&index)?;
        let transmit = link.pushes.poll_transmit(&mut link.connection, now, buffer);
        transmit.map(|transmit| transmit.destination)
    }

    /// What it tells.
    pub fn poll_told(&mut self) -> Option<Told> {
        self.told.pop_front()
    }

    /// When a connection is to be looked at.
    pub fn poll_timeout(&mut self, index: usize) -> Option<Instant> {
        let link = self.links.get_mut(&index)?;
        let own = match link.state {
            State::Handshaking(until) | State::Lingering(_, until) => Some(until),
            State::Open => link.pushes.deadline(&link.connection),
            State::Ended => None,
        };
        [link.connection.poll_timeout(), own].into_iter().flatten().min()
    }

    /// What it did.
    pub fn counts(&self) -> HostCounts {
        self.counts
    }

    /// Carries events between a connection and the endpoint, and takes those for us.
    pub fn follow(&mut self, index: usize, now: Instant) {
        while let Some(link) = self.links.get_mut(&index) {
            if let Some(event) = link.connection.poll() {
                self.take(index, event, now);
                continue;
            }
            let Some(event) = link.connection.poll_endpoint_events() else { break };
            let is_drained = event.is_drained();
            if let Some(event) = self.endpoint.handle_event(ConnectionHandle(index), event) {
                link.connection.handle_event(event);
            }
            if is_drained {
                self.forget(index);
            }
        }
        if let Some(link) = self.links.get_mut(&index) {
            link.pushes.take_arrivals();
        }
        self.read_datagrams(index);
        self.read(index, now);
    }

    fn read_datagrams(&mut self, index: usize) {
        let Some(link) = self.links.get_mut(&index).filter(|link| link.state == State::Open) else {
            return;
        };
        while let Some(frame) = link.connection.datagrams().recv() {
            self.counts.frames_free += 1;
            self.told.push_back(Told::Frame(link.number, frame));
        }
    }

    fn take(&mut self, index: usize, event: Event, now: Instant) {
        let Some(link) = self.links.get_mut(&index) else { return };
        match event {
            Event::Connected => {
                link.state = State::Open;
                self.counts.handshakes += 1;
                self.by_number.insert(link.number, index);
                self.told.push_back(Told::Arrived(link.number, link.begun));
            }
            Event::ConnectionLost { .. } => {
                let was_open = link.state == State::Open;
                link.state = State::Ended;
                let number = link.number;
                self.told.extend(was_open.then_some(Told::Lost(number)));
            }
            Event::Stream(StreamEvent::Opened { dir: Dir::Bi }) => {
                link.stream = link.connection.streams().accept(Dir::Bi).or(link.stream);
                link.flush();
            }
            Event::Stream(StreamEvent::Writable { .. }) => link.flush(),
            Event::Stream(StreamEvent::Finished { .. } | StreamEvent::Stopped { .. }) => {
                if let State::Lingering(code, _) = link.state {
                    link.close(code, now);
                }
            }
            Event::Stream(_)
            | Event::HandshakeDataReady
            | Event::DatagramReceived
            | Event::DatagramsUnblocked => {}
        }
    }

    fn read(&mut self, index: usize, now: Instant) {
        let Some(link) = self.links.get_mut(&index).filter(|link| link.state == State::Open) else {
            return;
        };
        let Some(stream) = link.stream else { return };
        let mut receiver = link.connection.recv_stream(stream);
        let Ok(mut chunks) = receiver.read(true) else { return };
        let has_ended = loop {
            match chunks.next(usize::MAX) {
                Ok(Some(mut chunk)) => {
                    while let Some(frame) = link.cutter.next(&mut chunk.bytes) {
                        self.told.push_back(Told::Frame(link.number, frame));
                    }
                }
                Ok(None) | Err(quinn_proto::ReadError::Reset(_)) => break true,
                Err(quinn_proto::ReadError::Blocked) => break false,
            }
        };
        // Credit, if there is new one, leaves with the next round of sending.
        let _ = chunks.finalize();
        if has_ended {
            // The client has said its last.
            link.close(Code::LoggedOut, now);
            self.told.push_back(Told::Lost(link.number));
        }
    }
}

impl HostLink {
    fn flush(&mut self) {
        let Some(stream) = self.stream else { return };
        while let Some(frame) = self.waiting.front_mut() {
            let Ok(written) = self.connection.send_stream(stream).write(frame) else { return };
            let _ = frame.split_to(written);
            self.waiting_bytes -= written;
            if frame.is_empty() {
                self.waiting.pop_front();
            }
        }
        if let State::Lingering(..) = self.state {
            // An error says that the stream is finished already, or stopped by the client.
            let _ = self.connection.send_stream(stream).finish();
        }
    }

    fn close(&mut self, code: Code, now: Instant) {
        self.connection.close(now, VarInt::from_u32(code.0.into()), Bytes::new());
        self.state = State::Ended;
        self.waiting.clear();
        self.waiting_bytes = 0;
    }
}
