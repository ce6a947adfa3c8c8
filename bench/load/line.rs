//! One device's connection: what QUIC has to say goes to the device and back.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;
use quinn_proto::{
    Connection, ConnectionHandle, Dir, Endpoint, EndpointEvent, Event as QuicEvent, ReadError,
    ReadableError, StreamEvent, StreamId, VarInt, WriteError,
};
use serde::{Deserialize, Serialize};
use tern_protocol::doubling::{COPY_AFTER, Doubling};
use tern_protocol::{Class, Code, Kind};
use tern_random::Stream;

use super::device::Event;
use super::path::{Path, Way};
use super::socket::Socket;
use super::speaker::Speaker;
use super::stall::Stalled;

/// The first attempt after a loss comes at a random time within this, as in the SDK.
const RETURN_FIRST: Duration = Duration::from_millis(50);

/// The second within this, and each further one within twice as much, as in the SDK.
const RETURN_BASE: Duration = Duration::from_millis(500);

/// No attempt waits longer, as in the SDK.
const RETURN_MAX: Duration = Duration::from_secs(30);

/// How single messages travel.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Datagrams {
    /// By stream, as all else.
    Off,
    /// By one datagram.
    Single,
    /// By stream, and by one datagram what is not answered in time.
    Repeated,
    /// By two, where the path may lose packets.
    Doubled,
}

impl Datagrams {
    /// What the server's option `datagrams` says for the same in its direction.
    pub fn server_option(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Single => "single",
            Self::Repeated => "repeat",
            Self::Doubled => "on",
        }
    }
}

/// Within what time a device whose connection was lost connects again, after this many attempts
/// that failed.
pub fn return_within(attempts: u32) -> Duration {
    match attempts.checked_sub(1) {
        None => RETURN_FIRST,
        Some(doublings) => RETURN_BASE.saturating_mul(1 << doublings.min(16)).min(RETURN_MAX),
    }
}

/// One device's connection.
pub struct Line<S> {
    /// Its number in the endpoint.
    pub handle: ConnectionHandle,
    /// QUIC.
    pub connection: Box<Connection>,
    /// The one stream, once it is open.
    stream: Option<StreamId>,
    /// The device.
    pub device: S,
    /// Which of the load's sockets it uses.
    pub socket: usize,
    /// Whether it comes back by itself when its connection is lost.
    returns: bool,
    /// Connections since the last that was logged in.
    attempts: u32,
    /// When it connects again.
    pub return_at: Option<Instant>,
    /// The earliest timer in the swarm's heap for this line.
    pub armed: Option<Instant>,
    /// Whether it waits to be served.
    pub is_busy: bool,
    is_gone: bool,
    /// What it leaves undone at the moment.
    pub stalled: Stalled,
    /// Whether the endpoint has forgotten the connection.
    is_drained: bool,
    /// Its path to the server.
    pub to_server: Way,
    /// Its path from the server.
    pub to_device: Way,
    doubling: Doubling,
    /// Frames that leave by a second datagram, and when.
    copies: VecDeque<(Instant, Bytes)>,
}

impl<S: Speaker> Line<S> {
    /// A device on a new connection.
    pub fn new(
        (handle, connection): (ConnectionHandle, Connection),
        device: S,
        socket: usize,
        (returns, doubling): (bool, Doubling),
    ) -> Self {
        Self {
            handle,
            connection: Box::new(connection),
            stream: None,
            device,
            socket,
            returns,
            attempts: 0,
            return_at: None,
            armed: None,
            is_busy: false,
            is_gone: false,
            stalled: Stalled::default(),
            is_drained: false,
            to_server: Way::default(),
            to_device: Way::default(),
            doubling,
            copies: VecDeque::new(),
        }
    }

    /// Has the endpoint forget the connection, whatever is still to come of it.
    pub fn forget(&mut self, endpoint: &mut Endpoint) {
        self.take_endpoint_events(endpoint);
        if !std::mem::replace(&mut self.is_drained, true) {
            endpoint.handle_event(self.handle, EndpointEvent::drained());
        }
    }

    /// Goes on over another connection.
    pub fn reconnect(
        &mut self,
        (handle, connection): (ConnectionHandle, Connection),
        resume: bool,
        doubling: Doubling,
    ) {
        self.handle = handle;
        self.is_drained = false;
        *self.connection = connection;
        (self.stream, self.is_gone) = (None, false);
        (self.return_at, self.armed) = (None, None);
        self.doubling = doubling;
        self.copies.clear();
        self.attempts += 1;
        self.device.reconnect(resume);
    }

    /// Ends the connection as a program that dies would not: QUIC says so, the conversation not.
    pub fn close(&mut self, now: Instant, endpoint: &mut Endpoint, socket: &Socket) {
        self.connection.close(now, VarInt::from_u32(0), bytes::Bytes::new());
        self.transmit(now, socket, &mut Vec::new());
        self.is_gone = true;
        self.forget(endpoint);
    }

    /// Whether its connection has ended.
    pub fn is_gone(&self) -> bool {
        self.is_gone
    }

    /// When something is due.
    pub fn poll_timeout(&mut self) -> Option<Instant> {
        if self.is_gone {
            return self.return_at;
        }
        let copy = self.copies.front().map(|(due, _)| *due);
        let own = [self.stalled.byte_at(), copy];
        let timeouts = [self.connection.poll_timeout(), self.device.poll_timeout()];
        timeouts.into_iter().chain(own).flatten().min()
    }

    /// Says what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.is_gone {
            return;
        }
        if self.connection.poll_timeout().is_some_and(|at| at <= now) {
            self.connection.handle_timeout(now);
        }
        self.device.set_rtt(self.connection.rtt());
        if self.device.poll_timeout().is_some_and(|at| at <= now) {
            self.device.handle_timeout(now);
        }
    }

    /// Hands over what the connection has to tell the endpoint.
    pub fn take_endpoint_events(&mut self, endpoint: &mut Endpoint) {
        while !self.is_drained
            && let Some(event) = self.connection.poll_endpoint_events()
        {
            self.is_drained = event.is_drained();
            if let Some(event) = endpoint.handle_event(self.handle, event) {
                self.connection.handle_event(event);
            }
        }
    }

    /// Takes the connection's events; whether there were any.
    pub fn take_events(
        &mut self,
        now: Instant,
        random: &mut Stream,
        tell: &mut impl FnMut(Event),
    ) -> bool {
        if self.is_gone && self.is_drained {
            return false; // what is left of it is nobody's business
        }
        let mut took = false;
        while let Some(event) = self.connection.poll() {
            took = true;
            match event {
                QuicEvent::Connected => self.stream = self.connection.streams().open(Dir::Bi),
                QuicEvent::Stream(StreamEvent::Readable { id }) if !self.stalled.is_one() => {
                    self.read(now, id, usize::MAX, random, tell);
                }
                QuicEvent::DatagramReceived if !self.stalled.is_one() => {
                    while let Some(frame) = self.connection.datagrams().recv() {
                        self.device.handle_datagram(now, &frame, tell);
                    }
                }
                QuicEvent::ConnectionLost { reason } if !self.is_gone => {
                    self.lose(now, random, tell, || reason.to_string());
                }
                _ => {}
            }
        }
        if let Some(id) = self.stream.filter(|_| self.stalled.take_byte(now)) {
            self.read(now, id, 1, random, tell);
        }
        took
    }

    /// The connection is gone: it comes back after a random time, or that ends the run.
    fn lose(
        &mut self,
        now: Instant,
        random: &mut Stream,
        tell: &mut impl FnMut(Event),
        why: impl FnOnce() -> String,
    ) {
        self.is_gone = true;
        if self.stalled.is_one() {
            return; // it comes back when that is over
        }
        if !self.returns {
            eprintln!("a connection was lost: {}", why());
            return tell(Event::Failed(Kind::Close, Code::Offline));
        }
        tell(Event::Lost);
        self.return_at = Some(now + return_within(self.attempts).mul_f64(random.fraction()));
    }

    /// Reads what has come, or a piece of at most so many bytes.
    fn read(
        &mut self,
        now: Instant,
        id: StreamId,
        most: usize,
        random: &mut Stream,
        tell: &mut impl FnMut(Event),
    ) {
        let (mut is_over, mut told) = (false, Vec::new());
        let mut stream = self.connection.recv_stream(id);
        let mut chunks = match stream.read(true) {
            Ok(chunks) => chunks,
            Err(ReadableError::ClosedStream | ReadableError::IllegalOrderedRead) => return,
        };
        loop {
            match chunks.next(most) {
                Ok(Some(chunk)) => {
                    let share = 1.0 - random.fraction();
                    self.device.handle_bytes(now, &chunk.bytes, share, &mut |e| told.push(e));
                    if chunk.bytes.len() >= most {
                        break;
                    }
                }
                Ok(None) | Err(ReadError::Reset(_)) => {
                    is_over = true;
                    break;
                }
                Err(ReadError::Blocked) => break,
            }
        }
        let _ = chunks.finalize(); // what it wants to send goes out behind this
        for event in told {
            match event {
                // What the server refuses for now comes again.
                Event::Failed(Kind::Close, code)
                    if self.returns && code.class() == Class::Retry =>
                {
                    is_over = true;
                }
                Event::Online { .. } => {
                    self.attempts = 0;
                    tell(event);
                }
                other => tell(other),
            }
        }
        if is_over && !self.is_gone {
            self.connection.close(now, VarInt::from_u32(0), bytes::Bytes::new());
            self.lose(now, random, tell, || "the server ended the stream".to_owned());
        }
    }

    /// Writes what the device has to say.
    pub fn write(&mut self, now: Instant, tell: &mut impl FnMut(Event)) {
        let Some(id) = self.stream.filter(|_| !self.is_gone) else { return };
        self.write_datagrams(now);
        let outbox = self.device.outbox();
        if outbox.is_empty() {
            return;
        }
        match self.connection.send_stream(id).write(outbox) {
            Ok(written) => drop(outbox.drain(..written)),
            Err(WriteError::Blocked) => {}
            Err(WriteError::Stopped(_) | WriteError::ClosedStream) => {
                outbox.clear();
                if !self.returns {
                    tell(Event::Failed(Kind::Close, Code::Offline));
                }
            }
        }
    }

    /// Gives QUIC what leaves by datagram now, first copies and second ones.
    fn write_datagrams(&mut self, now: Instant) {
        while let Some((_, copy)) = self.copies.pop_front_if(|(due, _)| *due <= now) {
            let _ = self.connection.datagrams().send(copy, false); // the first copy may do
        }
        while let Some(frame) = self.device.poll_datagram() {
            if self.connection.datagrams().send(frame.clone(), false).is_err() {
                self.device.outbox().extend_from_slice(&frame); // it fits none
                continue;
            }
            let lost = self.connection.stats().path.lost_packets;
            if self.doubling.is_due(frame.len(), self.connection.rtt(), lost) {
                self.copies.push_back((now + COPY_AFTER, frame));
            }
        }
    }

    /// Gives what the connection has to send to the path, packet by packet; whether it had
    /// anything.
    pub fn take_off(&mut self, now: Instant, path: &mut Path) -> bool {
        let mut sent = false;
        loop {
            let mut bytes = Vec::new();
            let Some(transmit) = self.connection.poll_transmit(now, 1, &mut bytes) else {
                return sent;
            };
            if let Some(at) = path.arrival(now, &mut self.to_server) {
                path.send(at, self.socket, transmit, bytes);
            }
            sent = true;
        }
    }

    /// Sends what the connection has to send; whether it had anything.
    pub fn transmit(&mut self, now: Instant, socket: &Socket, scratch: &mut Vec<u8>) -> bool {
        let mut sent = false;
        loop {
            scratch.clear();
            let segments = socket.segments_max();
            let Some(transmit) = self.connection.poll_transmit(now, segments, scratch) else {
                return sent;
            };
            if !self.stalled.is_cut_off() {
                socket.send(&transmit, scratch);
            }
            sent = true;
        }
    }
}
