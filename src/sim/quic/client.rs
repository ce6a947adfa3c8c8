//! The client's end of one connection, as the SDK's driver has it: an endpoint of its own, one
//! control stream, frames cut from it; a close waits for a moment until what was said is across.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use quinn_proto::{
    ClientConfig, Connection, ConnectionHandle, DatagramEvent, Dir, Endpoint, EndpointConfig,
    Event, StreamEvent, StreamId, VarInt,
};
use ring::hmac;
use tern_client::SecondCopies;
use tern_protocol::Code;
use tern_quic::frames::Cutter;
use tern_quic::free;

use super::crypto::{NullCrypto, SeededIds};
use super::net::SERVER;
use crate::random::Stream;

/// Time that an address gets before the attempt is given up, as in the driver.
const DIAL: Duration = Duration::from_millis(3_000);

/// Time that a closing connection gets to bring its last frames across, as in the driver.
const FLUSH: Duration = Duration::from_millis(500);

/// What a client's end tells.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Told {
    /// The connection is there, with its stream.
    Ready,
    /// A frame came.
    Frame(Bytes),
    /// The connection is gone, with the server's code if it gave one.
    Lost(Option<Code>),
}

/// How far it has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// Not answered yet; given up then.
    Dialing(Instant),
    /// There.
    Open,
    /// Everything is said; closed when the server has it, or then.
    Closing(Code, Instant),
    /// Closed or lost.
    Ended,
}

/// A client's end.
pub struct ClientEnd {
    endpoint: Endpoint,
    handle: ConnectionHandle,
    connection: Connection,
    state: State,
    stream: Option<StreamId>,
    cutter: Cutter,
    /// What the stream has not taken.
    waiting: VecDeque<Bytes>,
    copies: SecondCopies,
    told: VecDeque<Told>,
    is_drained: bool,
}

impl ClientEnd {
    /// Dials the server; everything that is random follows from `seed`.
    pub fn dial(seed: u64, now: Instant) -> Self {
        let ids = move |concern| Stream::of(seed, concern);
        let key = hmac::Key::new(hmac::HMAC_SHA256, &ids("reset key").token());
        let mut config = EndpointConfig::new(Arc::new(key));
        config
            .cid_generator(move || Box::new(SeededIds(ids("ids"))))
            .rng_seed(Some(ids("endpoint").token()));
        let mut endpoint = Endpoint::new(Arc::new(config), None, false, None);
        let mut client = ClientConfig::new(NullCrypto::new(ids("hello").draw()));
        client.transport_config(Arc::new(tern_client::quic_settings(None)));
        let first = quinn_proto::ConnectionId::new(&ids("first id").token()[..20]);
        client.initial_dst_cid_provider(Arc::new(move || first));
        let dialed = endpoint.connect(now, client, SERVER, "tern");
        let (handle, connection) = dialed.expect("one connection of a new endpoint can be made");
        Self {
            endpoint,
            handle,
            connection,
            state: State::Dialing(now + DIAL),
            stream: None,
            cutter: Cutter::default(),
            waiting: VecDeque::new(),
            copies: SecondCopies::default(),
            told: VecDeque::new(),
            is_drained: false,
        }
    }

    /// A datagram comes.
    pub fn handle_datagram(&mut self, bytes: &[u8], now: Instant) {
        let event = self.endpoint.handle(now, SERVER, None, None, bytes.into(), &mut Vec::new());
        if let Some(DatagramEvent::ConnectionEvent(_, event)) = event {
            self.connection.handle_event(event);
            self.follow(now);
        }
    }

    /// A deadline may have come.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.connection.poll_timeout().is_some_and(|at| at <= now) {
            self.connection.handle_timeout(now);
        }
        match self.state {
            State::Dialing(until) if until <= now => {
                self.close(VarInt::from_u32(0), now);
                self.told.push_back(Told::Lost(None));
            }
            State::Closing(code, until) if until <= now => self.close_with(code, now),
            State::Open => self.send_copies(now),
            _ => {}
        }
        self.follow(now);
    }

    /// What leaves by two datagrams leaves a second time.
    fn send_copies(&mut self, now: Instant) {
        while let Some(frame) = self.copies.take(now) {
            // For one that finds no room the first may do.
            let _ = free::give(&mut self.connection, frame);
        }
    }

    /// Says a frame behind all others.
    pub fn write(&mut self, frame: Bytes) {
        if self.state == State::Open {
            self.waiting.push_back(frame);
            self.flush();
        }
    }

    /// Says a frame that may overtake others, by datagram if there is room for one.
    pub fn write_free(&mut self, frame: Bytes, now: Instant) {
        if self.state != State::Open {
            return;
        }
        match free::give(&mut self.connection, frame.clone()) {
            Ok(()) => {
                let path = self.connection.stats().path;
                self.copies.first_left(frame, now, path.rtt, path.lost_packets);
            }
            Err(frame) => self.write(frame),
        }
    }

    /// Says no more, and closes once the server has everything.
    pub fn finish(&mut self, code: Code, now: Instant) {
        match self.state {
            State::Open => {
                self.state = State::Closing(code, now + FLUSH);
                self.flush();
            }
            State::Dialing(_) => self.close_with(code, now),
            State::Closing(..) | State::Ended => {}
        }
    }

    /// The phone has another address, and knows it.
    pub fn move_away(&mut self) {
        self.connection.local_address_changed();
    }

    /// The next datagram to send.
    pub fn poll_transmit(&mut self, now: Instant, buffer: &mut Vec<u8>) -> bool {
        buffer.clear();
        self.connection.poll_transmit(now, 1, buffer).is_some()
    }

    /// What it tells.
    pub fn poll_told(&mut self) -> Option<Told> {
        self.told.pop_front()
    }

    /// When it is to be looked at.
    pub fn poll_timeout(&mut self) -> Option<Instant> {
        let own = match self.state {
            State::Dialing(until) | State::Closing(_, until) => Some(until),
            State::Open => self.copies.due(),
            State::Ended => None,
        };
        [self.connection.poll_timeout(), own].into_iter().flatten().min()
    }

    /// Whether it takes what comes.
    pub fn is_open(&self) -> bool {
        self.state == State::Open
    }

    /// Whether nothing will come of it any more.
    pub fn is_over(&self) -> bool {
        self.is_drained
    }

    /// Carries events between the connection and its endpoint, and takes those for us.
    pub fn follow(&mut self, now: Instant) {
        while let Some(event) = self.connection.poll_endpoint_events() {
            self.is_drained |= event.is_drained();
            if let Some(event) = self.endpoint.handle_event(self.handle, event) {
                self.connection.handle_event(event);
            }
        }
        while let Some(event) = self.connection.poll() {
            self.take(event, now);
        }
        while let (State::Open, Some(frame)) = (self.state, self.connection.datagrams().recv()) {
            self.told.push_back(Told::Frame(frame));
        }
        self.read();
    }

    fn take(&mut self, event: Event, now: Instant) {
        match event {
            Event::Connected => {
                if let State::Dialing(_) = self.state {
                    self.state = State::Open;
                    self.stream = self.connection.streams().open(Dir::Bi);
                    self.told.push_back(Told::Ready);
                }
            }
            Event::ConnectionLost { reason } => {
                self.read();
                if !matches!(self.state, State::Closing(..) | State::Ended) {
                    self.told.push_back(Told::Lost(tern_client::server_code(&reason)));
                }
                self.state = State::Ended;
            }
            Event::Stream(StreamEvent::Writable { .. }) => self.flush(),
            Event::Stream(StreamEvent::Finished { .. } | StreamEvent::Stopped { .. }) => {
                if let State::Closing(code, _) = self.state {
                    self.close_with(code, now);
                }
            }
            Event::Stream(_)
            | Event::HandshakeDataReady
            | Event::DatagramReceived
            | Event::DatagramsUnblocked => {}
        }
    }

    fn read(&mut self) {
        let (Some(stream), State::Open) = (self.stream, self.state) else { return };
        let mut receiver = self.connection.recv_stream(stream);
        let Ok(mut chunks) = receiver.read(true) else { return };
        while let Ok(Some(mut chunk)) = chunks.next(usize::MAX) {
            while let Some(frame) = self.cutter.next(&mut chunk.bytes) {
                self.told.push_back(Told::Frame(frame));
            }
        }
        // Credit, if there is new one, leaves with the next round of sending.
        let _ = chunks.finalize();
    }

    fn flush(&mut self) {
        let Some(stream) = self.stream else { return };
        while let Some(frame) = self.waiting.front_mut() {
            let Ok(written) = self.connection.send_stream(stream).write(frame) else { return };
            let _ = frame.split_to(written);
            if frame.is_empty() {
                self.waiting.pop_front();
            }
        }
        if let State::Closing(..) = self.state {
            // An error says that the stream is finished already, or stopped by the server.
            let _ = self.connection.send_stream(stream).finish();
        }
    }

    fn close_with(&mut self, code: Code, now: Instant) {
        self.close(VarInt::from_u32(code.0.into()), now);
    }

    fn close(&mut self, code: VarInt, now: Instant) {
        self.connection.close(now, code, Bytes::new());
        self.state = State::Ended;
    }
}
