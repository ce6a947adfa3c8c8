//! A client that does as it is told: QUIC by `quinn-proto` over one blocking socket, frames as
//! given, and every datagram in the hands of the test, which may keep it, drop it or count it.

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use quinn_proto::{
    Connection, ConnectionError, ConnectionHandle, DatagramEvent, Dir, Endpoint, Event,
    StreamEvent, StreamId, TransportErrorCode,
};
use tern_protocol::frames::LoggedIn;
use tern_protocol::{ChannelId, Code, Frame, Header, Kind};

use super::dial::{Dial, bind, endpoint};
use super::server::Account;
use super::words;

/// How long anything may take before the test gives up: far more than it takes on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// What the server said: one whole frame.
#[derive(Clone)]
pub struct Said(Vec<u8>);

impl Said {
    /// The frame; the server's must be well-formed.
    pub fn frame(&self) -> Frame<'_> {
        let parsed = Frame::parse(&self.0);
        parsed.unwrap_or_else(|error| panic!("the server said {:?}: {error}", self.0)).0
    }

    /// Its bytes, header included.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    pub fn kind(&self) -> Kind {
        self.frame().kind()
    }
}

/// How a connection ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum End {
    /// With a code of ours.
    Code(Code),
    /// With an error of QUIC.
    Quic(TransportErrorCode),
    /// By a stateless reset.
    Reset,
    /// By silence, on our side.
    TimedOut,
    /// Otherwise.
    Other(String),
}

impl From<ConnectionError> for End {
    fn from(error: ConnectionError) -> Self {
        match error {
            ConnectionError::ApplicationClosed(close) => {
                u16::try_from(close.error_code.into_inner())
                    .map_or_else(|_| Self::Other(close.to_string()), |code| Self::Code(Code(code)))
            }
            ConnectionError::ConnectionClosed(close) => Self::Quic(close.error_code),
            ConnectionError::Reset => Self::Reset,
            ConnectionError::TimedOut => Self::TimedOut,
            other => Self::Other(other.to_string()),
        }
    }
}

/// What happens to a datagram that is about to leave.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    Sent,
    Lost,
}

/// Decides about each datagram that is about to leave.
pub type Gate = Box<dyn FnMut(&[u8]) -> Fate + Send>;

/// The client.
pub struct Peer {
    socket: UdpSocket,
    endpoint: Endpoint,
    handle: ConnectionHandle,
    pub connection: Connection,
    stream: Option<StreamId>,
    connected: bool,
    /// Whether what the server says is taken off the stream.
    pub reads: bool,
    partial: Vec<u8>,
    frames: VecDeque<Said>,
    end: Option<End>,
    /// All leave by default.
    pub gate: Gate,
    /// Copies of all datagrams that left, if kept.
    pub tap: Option<Vec<Vec<u8>>>,
    /// Datagrams held back instead of sent.
    held: Option<Vec<Vec<u8>>>,
    scratch: Vec<u8>,
}

impl Peer {
    /// Begins a connection, as `dial` says; nothing has left yet.
    pub fn dial(server: SocketAddr, dial: &Dial) -> Self {
        Self::dial_from(bind(dial.from), server, dial)
    }

    /// The same from a socket that is there.
    pub fn dial_from(socket: UdpSocket, server: SocketAddr, dial: &Dial) -> Self {
        let mut endpoint = endpoint(dial.id_bytes);
        let (handle, connection) =
            endpoint.connect(Instant::now(), dial.config(), server, "tern").unwrap();
        Self {
            socket,
            endpoint,
            handle,
            connection,
            stream: None,
            connected: false,
            reads: true,
            partial: Vec::new(),
            frames: VecDeque::new(),
            end: None,
            gate: Box::new(|_| Fate::Sent),
            tap: None,
            held: None,
            scratch: Vec::with_capacity(2_048),
        }
    }

    /// A connection with its control stream open.
    pub fn connect(server: SocketAddr, dial: &Dial) -> Self {
        let mut peer = Self::dial(server, dial);
        peer.until("a connection", |peer| peer.connected.then_some(()));
        peer.open(Dir::Bi).expect("the server allows the control stream");
        peer
    }

    /// A device that is logged in and gets what is for it from the beginning.
    pub fn device(server: SocketAddr, dial: &Dial, account: &Account) -> (Self, LoggedIn) {
        let mut peer = Self::connect(server, dial);
        let logged_in = peer.log_in(account);
        peer.say(&words::cursors(&[], true));
        (peer, logged_in)
    }

    /// Says HELLO and LOGIN, and waits for the answer.
    pub fn log_in(&mut self, account: &Account) -> LoggedIn {
        self.say(&[words::hello(), words::login(account)].concat());
        self.hear_logged_in()
    }

    /// Says LOGIN alone, and waits for the answer.
    pub fn log_in_greeted(&mut self, account: &Account) -> LoggedIn {
        self.say(&words::login(account));
        self.hear_logged_in()
    }

    /// Waits for LOGGED_IN.
    pub fn hear_logged_in(&mut self) -> LoggedIn {
        match self.hear(Kind::LoggedIn).frame() {
            Frame::LoggedIn(answer) => *answer,
            other => unreachable!("{other:?} is no LOGGED_IN"),
        }
    }

    /// Opens a stream; the first bidirectional one is the control stream.
    pub fn open(&mut self, dir: Dir) -> Option<StreamId> {
        let stream = self.connection.streams().open(dir)?;
        if dir == Dir::Bi && self.stream.is_none() {
            self.stream = Some(stream);
        }
        Some(stream)
    }

    /// Says these bytes on the control stream; all of them leave, or the connection ends.
    pub fn say(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        self.until("room to say it all", |peer| {
            let stream = peer.stream.expect("the control stream is open");
            if peer.end.is_some() {
                return Some(());
            }
            // An error says that the stream is blocked, or closed by the server.
            let written = peer.connection.send_stream(stream).write(rest).unwrap_or(0);
            rest = &rest[written..];
            rest.is_empty().then_some(())
        });
        self.flush();
    }

    /// Says the bytes on any stream, as far as it takes them, and lets nothing leave yet.
    pub fn write(&mut self, stream: StreamId, bytes: &[u8]) -> usize {
        self.connection.send_stream(stream).write(bytes).unwrap_or(0)
    }

    /// The control stream.
    pub fn stream(&self) -> StreamId {
        self.stream.expect("the control stream is open")
    }

    /// The next frame of the server.
    pub fn next(&mut self) -> Said {
        self.until("a frame", |peer| {
            peer.must_live();
            peer.frames.pop_front()
        })
    }

    /// The next frame of this kind; those before it are dropped.
    pub fn hear(&mut self, kind: Kind) -> Said {
        self.until(&format!("{kind}"), |peer| {
            let found = peer.try_hear(kind);
            if found.is_none() {
                peer.must_live();
            }
            found
        })
    }

    /// The next frame of this kind among those that came; those before it are dropped.
    pub fn try_hear(&mut self, kind: Kind) -> Option<Said> {
        while let Some(said) = self.frames.pop_front() {
            if said.kind() == kind {
                return Some(said);
            }
        }
        None
    }

    /// The next frame that came, if one did.
    pub fn try_next(&mut self) -> Option<Said> {
        self.frames.pop_front()
    }

    /// Says a PING and waits for its PONG: everything said before was looked at.
    pub fn round_trip(&mut self, sequence: u32) {
        self.say(&words::ping(sequence));
        loop {
            if let Frame::Pong(pong) = self.hear(Kind::Pong).frame()
                && pong.sequence.get() == sequence
            {
                return;
            }
        }
    }

    /// Sends a message and waits for its ack; its id.
    pub fn send(&mut self, channel: ChannelId, epoch: u32, counter: u32, content: &[u8]) -> u64 {
        self.say(&words::send(channel, epoch, counter, content));
        self.hear_ack(counter)
    }

    /// Waits for the ack of a counter; the message's id. A refusal ends the test.
    pub fn hear_ack(&mut self, counter: u32) -> u64 {
        loop {
            let said = self.next();
            match said.frame() {
                Frame::SendAck(ack) if ack.counter.get() == counter => return ack.id.get(),
                Frame::SendRefused(refused) => panic!("refused: {:?}", Code(refused.code.get())),
                _ => {}
            }
        }
    }

    /// Waits for the end of the connection.
    pub fn ended(&mut self) -> End {
        self.until("the end", |peer| peer.end.clone())
    }

    /// The end of the connection, if it came.
    pub fn end(&self) -> Option<&End> {
        self.end.as_ref()
    }

    fn must_live(&self) {
        if let Some(end) = &self.end {
            panic!("the connection ended: {end:?}");
        }
    }

    /// Runs the connection until `done` gives something. The test fails where it never does.
    pub fn until<T>(&mut self, what: &str, mut done: impl FnMut(&mut Self) -> Option<T>) -> T {
        let start = Instant::now();
        loop {
            if let Some(result) = done(self) {
                return result;
            }
            assert!(start.elapsed() < PATIENCE, "{what} did not come; ended: {:?}", self.end);
            self.turn(Duration::from_millis(20));
        }
    }

    /// Runs the connection for a while.
    pub fn run_for(&mut self, time: Duration) {
        let end = Instant::now() + time;
        while let Some(rest) = end.checked_duration_since(Instant::now()) {
            self.turn(rest);
        }
    }

    /// Sends what there is, and takes what comes within `wait`.
    pub fn turn(&mut self, wait: Duration) {
        self.flush();
        let now = Instant::now();
        let due = self.connection.poll_timeout().map(|at| at.saturating_duration_since(now));
        let wait = due.map_or(wait, |due| due.min(wait));
        if !self.receive_all() && !wait.is_zero() && self.receive_one(wait) {
            self.receive_all();
        }
        self.connection.handle_timeout(Instant::now());
        self.take_events();
        self.flush();
    }

    /// Sends what QUIC has to send.
    pub fn flush(&mut self) {
        loop {
            self.scratch.clear();
            let now = Instant::now();
            let Some(transmit) = self.connection.poll_transmit(now, 1, &mut self.scratch) else {
                break;
            };
            let datagram = &self.scratch[..transmit.size];
            if let Some(held) = &mut self.held {
                held.push(datagram.to_vec());
            } else if (self.gate)(datagram) == Fate::Sent {
                if let Some(tap) = &mut self.tap {
                    tap.push(datagram.to_vec());
                }
                // Full buffers and dead ports lose datagrams, as networks do.
                let _ = self.socket.send_to(datagram, transmit.destination);
            }
        }
        while let Some(event) = self.connection.poll_endpoint_events() {
            if let Some(event) = self.endpoint.handle_event(self.handle, event) {
                self.connection.handle_event(event);
            }
        }
    }

    /// The datagrams that QUIC has to send now; they do not leave.
    pub fn hold_back(&mut self) -> Vec<Vec<u8>> {
        self.held = Some(Vec::new());
        self.flush();
        self.held.take().expect("it was set above")
    }

    /// The connection id by which the server knows this connection now, told by a PING that is
    /// held back; QUIC takes it for lost and says it again.
    pub fn server_id(&mut self) -> [u8; 8] {
        self.connection.ping();
        let held = self.hold_back();
        held.last().expect("a PING makes a datagram")[1..9].try_into().expect("a short header")
    }

    /// Drops all that has come, unread.
    pub fn ignore(&self) {
        self.socket.set_nonblocking(true).unwrap();
        while self.socket.recv(&mut [0; 2_048]).is_ok() {}
    }

    /// Takes all that has come; whether anything had.
    fn receive_all(&mut self) -> bool {
        self.socket.set_nonblocking(true).unwrap();
        let mut any = false;
        while self.receive() {
            any = true;
        }
        any
    }

    fn receive_one(&mut self, wait: Duration) -> bool {
        self.socket.set_nonblocking(false).unwrap();
        self.socket.set_read_timeout(Some(wait.max(Duration::from_millis(1)))).unwrap();
        self.receive()
    }

    fn receive(&mut self) -> bool {
        let mut buffer = [0; 2_048];
        match self.socket.recv_from(&mut buffer) {
            Ok((bytes, from)) => {
                self.take(&buffer[..bytes], from);
                true
            }
            Err(error) => {
                let calm = [ErrorKind::WouldBlock, ErrorKind::TimedOut, ErrorKind::Interrupted];
                let calm =
                    calm.contains(&error.kind()) || error.kind() == ErrorKind::ConnectionRefused; // no server there now
                assert!(calm, "{error}");
                false
            }
        }
    }

    fn take(&mut self, datagram: &[u8], from: SocketAddr) {
        let mut response = Vec::new();
        let data = BytesMut::from(datagram);
        let event = self.endpoint.handle(Instant::now(), from, None, None, data, &mut response);
        if let Some(DatagramEvent::ConnectionEvent(_, event)) = event {
            self.connection.handle_event(event);
        }
        self.take_events();
    }

    fn take_events(&mut self) {
        while let Some(event) = self.connection.poll() {
            match event {
                Event::Connected => self.connected = true,
                Event::ConnectionLost { reason } => self.end = Some(reason.into()),
                Event::Stream(StreamEvent::Readable { id }) if Some(id) == self.stream => {
                    self.read();
                }
                _ => {}
            }
        }
    }

    /// Takes what the server said off the control stream.
    pub fn read(&mut self) {
        if self.reads {
            self.read_some(usize::MAX);
        }
    }

    /// The same, but at most so many bytes.
    pub fn read_some(&mut self, most: usize) {
        let Some(stream) = self.stream else { return };
        let mut receiver = self.connection.recv_stream(stream);
        let Ok(mut chunks) = receiver.read(true) else { return };
        let mut rest = most;
        while rest > 0
            && let Ok(Some(chunk)) = chunks.next(rest)
        {
            rest -= chunk.bytes.len();
            self.partial.extend_from_slice(&chunk.bytes);
        }
        // Whether new credit must be sent shows in the next flush.
        let _ = chunks.finalize();
        while let Some(bytes) = Header::peek(&self.partial).map(|header| header.frame_bytes())
            && bytes <= self.partial.len()
        {
            self.frames.push_back(Said(self.partial.drain(..bytes).collect()));
        }
    }

    /// From now on everything leaves from another port, and QUIC is not told: what a NAT does.
    pub fn move_port(&mut self) -> SocketAddr {
        self.socket = bind(self.address().ip());
        self.address()
    }

    /// Where it sends from.
    pub fn address(&self) -> SocketAddr {
        self.socket.local_addr().unwrap()
    }

    /// Sends a datagram of the test's own making from the connection's socket.
    pub fn inject(&self, datagram: &[u8]) {
        // Full buffers lose datagrams, as networks do.
        let _ = self.socket.send_to(datagram, self.connection.remote_address());
    }

    /// The socket, for what only a socket can do.
    pub fn socket(&self) -> &UdpSocket {
        &self.socket
    }
}
