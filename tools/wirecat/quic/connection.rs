//! One connection as a listener follows it: its keys, both sides' packets, what they say.
//!
//! Packets come in with the way they went; facts go out. Packets whose keys are not known yet wait
//! for them, a bounded number, since datagrams overtake each other.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::Way;
use super::assembler::Assembler;
use super::frame::{Frames, QuicFrame};
use super::header::{Id, Long, LongHeader};
use super::hello;
use super::protection::{Keys, Opened, ShortKeys, Suite};
use super::ranges::Ranges;
use crate::capture::Stamp;
use crate::keylog::{ClientRandom, KeyLog};
use crate::stats::{RoundTrips, Side as SideStats, index};

/// Packets that wait for their keys: two windows of a first flight.
const HELD_MAX: usize = 64;

/// Bytes of a side's handshake that are looked at: beyond any certificate chain.
const HANDSHAKE_BYTES_MAX: usize = 1 << 16;

/// Packets in flight that are kept for their acknowledgement.
const IN_FLIGHT_MAX: usize = 1 << 16;

/// Streams of one side that are put in order; Tern has one.
const STREAMS_MAX: usize = 64;

/// An acknowledgement counts its delay in units of 2^3 µs unless its sender says otherwise
/// (RFC 9000 §18.2); quinn does not.
const ACK_DELAY_SHIFT: u32 = 3;

/// How far behind the newest acknowledged packet one must be to count as lost (RFC 9002 §6.1.1).
const LOSS_DISTANCE: u64 = 3;

/// Where a packet came from.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    /// Its place in the capture.
    pub packet: u64,
    /// When it was captured.
    pub at: Stamp,
    /// Who sent it.
    pub way: Way,
    /// From where.
    pub from: SocketAddr,
    /// To where.
    pub to: SocketAddr,
}

/// What kind of packet it is, and where its parts are.
#[derive(Clone, Copy, Debug)]
pub enum Shape {
    /// With a long header.
    Long(LongHeader),
    /// With a short one, behind an id of so many bytes.
    Short(usize),
}

/// Something that a packet told.
#[derive(Clone, Debug)]
pub struct Fact {
    /// The packet.
    pub arrival: Arrival,
    /// What it told.
    pub told: Told,
}

/// What a packet told.
#[derive(Clone, Debug)]
pub enum Told {
    /// The protocols that the client offers.
    Protocols(Vec<Vec<u8>>),
    /// The key log does not have this connection.
    Sealed,
    /// The next bytes of a stream.
    Stream(u64, Vec<u8>),
    /// A datagram.
    Datagram(Vec<u8>),
    /// The sender may be called by this id too.
    NewId(Id),
    /// What a stateless reset of the sender would end with.
    ResetToken([u8; 16]),
    /// The sender has another address.
    Moved(SocketAddr),
    /// The sender has changed its keys.
    KeysUpdated,
    /// The sender gave up a stream.
    StreamReset(u64, u64),
    /// The sender ended the connection.
    Closed {
        /// Why.
        code: u64,
        /// Whether the code is the application's.
        by_application: bool,
        /// Words about it.
        reason: Vec<u8>,
    },
}

/// Whether a packet was read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// It was.
    Read,
    /// It came before.
    Doubled,
    /// It waits for its keys, or has none.
    Held,
    /// The keys do not open it.
    Unopened,
}

/// The spaces in which packets are numbered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Level {
    Initial,
    Handshake,
    Application,
}

/// A connection.
pub struct Connection {
    /// The client's address.
    pub client: SocketAddr,
    /// The server's address.
    pub server: SocketAddr,
    /// When its first packet was captured.
    pub first: Stamp,
    /// When its newest packet was captured.
    pub last: Stamp,
    /// Times that the client came from another address.
    pub moves: u64,
    /// What it agreed on.
    pub suite: Option<Suite>,
    random: Option<ClientRandom>,
    sides: [Side; 2],
    held: Vec<(Arrival, Shape, Vec<u8>)>,
    held_dropped: u64,
    is_sealed: bool,
    facts: Vec<Fact>,
}

/// What one side sends, and the keys for it.
#[derive(Default)]
struct Side {
    initial: Option<Keys>,
    early: Option<Keys>,
    handshake: Option<Keys>,
    application: Option<ShortKeys>,
    spaces: [Space; 3],
    /// Bytes of the handshake in order: the first level, then the second.
    hellos: [(Assembler, Vec<u8>); 2],
    streams: BTreeMap<u64, Assembler>,
    stats: SideStats,
}

/// Packets of one side at one level.
#[derive(Default)]
struct Space {
    seen: Ranges,
    /// Those not acknowledged yet, with the moment at which they passed.
    in_flight: BTreeMap<u64, Stamp>,
    largest_acknowledged: Option<u64>,
    lost: u64,
}

impl Connection {
    /// A connection whose first packet this is, sent by the client.
    pub fn new(arrival: &Arrival) -> Self {
        Self {
            client: arrival.from,
            server: arrival.to,
            first: arrival.at,
            last: arrival.at,
            moves: 0,
            suite: None,
            random: None,
            sides: Default::default(),
            held: Vec::new(),
            held_dropped: 0,
            is_sealed: false,
            facts: Vec::new(),
        }
    }

    /// A datagram of so many bytes came for it.
    pub fn count_datagram(&mut self, way: Way, at: Stamp, bytes: usize) {
        let stats = &mut self.sides[index(way)].stats;
        stats.datagrams += 1;
        stats.bytes += bytes as u64;
        self.last = self.last.max(at);
    }

    /// Takes a packet.
    pub fn handle(
        &mut self,
        log: &mut KeyLog,
        arrival: Arrival,
        shape: Shape,
        packet: &[u8],
    ) -> Outcome {
        let outcome = self.take(arrival, shape, packet);
        if outcome == Outcome::Held {
            self.hold(arrival, shape, packet);
        }
        if self.installs_keys(log, &arrival) || outcome == Outcome::Read {
            self.take_held();
        }
        outcome
    }

    /// What was told since the last call, in order.
    pub fn facts(&mut self) -> Vec<Fact> {
        std::mem::take(&mut self.facts)
    }

    /// What a side has sent so far.
    pub fn stats(&self, way: Way) -> SideStats {
        let side = &self.sides[index(way)];
        let mut stats = side.stats.clone();
        for space in &side.spaces {
            let span = space.seen.largest().map_or(0, |largest| largest.saturating_add(1));
            stats.missing += span.saturating_sub(space.seen.len());
            stats.unacknowledged += space.lost;
        }
        stats.waiting_bytes = side.streams.values().map(Assembler::waiting).sum();
        stats.key_updates = side.application.as_ref().map_or(0, ShortKeys::updates);
        stats
    }

    /// Packets that were never opened for want of keys.
    pub fn held(&self) -> u64 {
        self.held.len() as u64 + self.held_dropped
    }

    /// Whether the client's id is empty is known to the tracker; whether anything was opened, here.
    pub fn is_opened(&self) -> bool {
        self.sides.iter().any(|side| side.stats.packets > 0)
    }

    fn hold(&mut self, arrival: Arrival, shape: Shape, packet: &[u8]) {
        if self.held.len() < HELD_MAX && !self.is_sealed {
            self.held.push((arrival, shape, packet.to_vec()));
        } else {
            self.held_dropped += 1;
        }
    }

    fn take_held(&mut self) {
        let mut progress = true;
        while progress && !self.held.is_empty() {
            progress = false;
            for (arrival, shape, packet) in std::mem::take(&mut self.held) {
                match self.take(arrival, shape, &packet) {
                    Outcome::Held => self.held.push((arrival, shape, packet)),
                    _ => progress = true,
                }
            }
        }
    }

    fn take(&mut self, arrival: Arrival, shape: Shape, packet: &[u8]) -> Outcome {
        let level = match shape {
            Shape::Long(LongHeader { kind: Long::Retry, .. }) => return Outcome::Read,
            Shape::Long(LongHeader { kind: Long::Initial, .. }) => Level::Initial,
            Shape::Long(LongHeader { kind: Long::Handshake, .. }) => Level::Handshake,
            Shape::Long(_) | Shape::Short(_) => Level::Application,
        };
        let side = &mut self.sides[index(arrival.way)];
        let updates = side.application.as_ref().map_or(0, ShortKeys::updates);
        let opened = match side.open(level, shape, packet, arrival.way) {
            Ok(opened) => opened,
            Err(outcome) => return self.not_opened(arrival, shape, outcome, packet),
        };
        let space = &mut side.spaces[level as usize];
        let largest = space.seen.largest();
        if !space.seen.insert(opened.number) {
            side.stats.doubled += 1;
            return Outcome::Doubled;
        }
        side.stats.packets += 1;
        if updates != side.application.as_ref().map_or(0, ShortKeys::updates) {
            self.tell(arrival, Told::KeysUpdated);
        }
        if level == Level::Application && largest.is_none_or(|largest| opened.number > largest) {
            self.look_at_address(arrival);
        }
        self.read(arrival, level, &opened);
        Outcome::Read
    }

    /// The client's first flight opens with keys of the id that it is sent to, a new one after a
    /// Retry.
    fn not_opened(
        &mut self,
        arrival: Arrival,
        shape: Shape,
        outcome: Outcome,
        packet: &[u8],
    ) -> Outcome {
        if let Shape::Long(header) = shape
            && (header.kind, arrival.way) == (Long::Initial, Way::ToServer)
        {
            let keys = Keys::initial(header.to.as_bytes(), Way::ToServer);
            let space = &self.sides[0].spaces[0];
            if keys.open(packet, header.number_at, space.seen.largest()).is_some() {
                self.sides[0].initial = Some(keys);
                self.sides[1].initial = Some(Keys::initial(header.to.as_bytes(), Way::ToClient));
                return self.take(arrival, shape, packet);
            }
        }
        if outcome == Outcome::Unopened {
            self.sides[index(arrival.way)].stats.unopened += 1;
        }
        outcome
    }

    fn look_at_address(&mut self, arrival: Arrival) {
        let known = match arrival.way {
            Way::ToServer => &mut self.client,
            Way::ToClient => &mut self.server,
        };
        let old = std::mem::replace(known, arrival.from);
        if old != arrival.from {
            self.moves += u64::from(arrival.way == Way::ToServer);
            self.tell(arrival, Told::Moved(old));
        }
    }

    fn read(&mut self, arrival: Arrival, level: Level, opened: &Opened) {
        let mut frames = Frames::new(&opened.payload);
        for frame in frames.by_ref() {
            self.read_frame(arrival, level, frame);
        }
        let side = &mut self.sides[index(arrival.way)];
        side.stats.broken += u64::from(frames.is_broken);
        let space = &mut side.spaces[level as usize];
        if frames.elicits_ack && space.in_flight.len() < IN_FLIGHT_MAX {
            space.in_flight.insert(opened.number, arrival.at);
        }
    }

    fn read_frame(&mut self, arrival: Arrival, level: Level, frame: QuicFrame<'_>) {
        let side = &mut self.sides[index(arrival.way)];
        match frame {
            QuicFrame::Other | QuicFrame::PathChallenge => {}
            QuicFrame::Ack { ranges, delay } => {
                let other = &mut self.sides[index(arrival.way.back())];
                let delay = if level == Level::Application { delay } else { 0 };
                let micros = delay.saturating_mul(1 << ACK_DELAY_SHIFT);
                let trips = &mut other.stats.round_trips;
                other.spaces[level as usize].acknowledge(&ranges, arrival.at, micros, trips);
            }
            QuicFrame::Crypto { offset, bytes } => self.read_crypto(arrival, level, offset, bytes),
            QuicFrame::Stream { id, offset, bytes, .. } => {
                let is_known = side.streams.contains_key(&id);
                if !is_known && side.streams.len() >= STREAMS_MAX {
                    return;
                }
                let stream = side.streams.entry(id).or_default();
                let Some(brought) = stream.insert(offset, bytes) else { return };
                side.stats.stream_bytes += brought.new;
                side.stats.repeated_bytes += brought.again;
                if let Some(bytes) = stream.read() {
                    self.tell(arrival, Told::Stream(id, bytes));
                }
            }
            QuicFrame::Datagram(bytes) => self.tell(arrival, Told::Datagram(bytes.to_vec())),
            QuicFrame::NewId { id, reset_token } => {
                self.tell(arrival, Told::NewId(id));
                self.tell(arrival, Told::ResetToken(reset_token));
            }
            QuicFrame::ResetStream { id, code } => {
                self.tell(arrival, Told::StreamReset(id, code));
            }
            QuicFrame::Close { code, by_application, reason } => {
                let reason = reason.to_vec();
                self.tell(arrival, Told::Closed { code, by_application, reason });
            }
        }
    }

    fn read_crypto(&mut self, arrival: Arrival, level: Level, offset: u64, bytes: &[u8]) {
        let way = arrival.way;
        let Some((assembler, hello)) = self.sides[index(way)].hellos.get_mut(level as usize) else {
            return; // tickets
        };
        if hello.len() > HANDSHAKE_BYTES_MAX || assembler.insert(offset, bytes).is_none() {
            return;
        }
        hello.extend(assembler.read().unwrap_or_default());
        match (level, way) {
            (Level::Initial, Way::ToServer) if self.random.is_none() => {
                if let Some(client) = hello::client_hello(hello) {
                    self.random = Some(client.random);
                    self.tell(arrival, Told::Protocols(client.protocols));
                }
            }
            (Level::Initial, Way::ToClient) if self.suite.is_none() => {
                self.suite = hello::server_hello(hello).and_then(|server| Suite::of(server.0));
            }
            (Level::Handshake, Way::ToClient) => {
                if let Some(token) = hello::reset_token(hello) {
                    hello.clear();
                    self.tell(arrival, Told::ResetToken(token));
                }
            }
            _ => {}
        }
    }

    /// Looks the secrets up once it is known whose; whether there are new keys.
    fn installs_keys(&mut self, log: &mut KeyLog, arrival: &Arrival) -> bool {
        let (Some(random), Some(suite)) = (self.random, self.suite) else { return false };
        if self.sides.iter().all(|side| side.application.is_some()) || self.is_sealed {
            return false;
        }
        let Some(secrets) = log.get(&random) else {
            // Who writes a log may be a moment behind: it is asked again with each packet that waits.
            if self.held.len() >= HELD_MAX {
                self.is_sealed = true;
                self.held_dropped += self.held.len() as u64;
                self.held.clear();
                self.tell(*arrival, Told::Sealed);
            }
            return false;
        };
        let before = self.keys();
        let [client, server] = &mut self.sides;
        let long = |secret: &Option<Vec<u8>>| Keys::new(suite, secret.as_deref()?);
        let short = |secret: &Option<Vec<u8>>| ShortKeys::new(suite, secret.as_deref()?);
        client.early = client.early.take().or_else(|| long(&secrets.client_early));
        client.handshake = client.handshake.take().or_else(|| long(&secrets.client_handshake));
        server.handshake = server.handshake.take().or_else(|| long(&secrets.server_handshake));
        client.application = client.application.take().or_else(|| short(&secrets.client));
        server.application = server.application.take().or_else(|| short(&secrets.server));
        self.keys() > before
    }

    fn keys(&self) -> usize {
        let of = |side: &Side| {
            [side.early.is_some(), side.handshake.is_some(), side.application.is_some()]
        };
        self.sides.iter().flat_map(of).filter(|there| *there).count()
    }

    fn tell(&mut self, arrival: Arrival, told: Told) {
        self.facts.push(Fact { arrival, told });
    }

    /// The connection's capture is over: what was held for secrets that never came.
    pub fn end(&mut self) -> bool {
        let is_sealed = self.is_sealed;
        self.is_sealed |= self.random.is_some() && self.keys() == 0 && self.held() > 0;
        self.is_sealed && !is_sealed
    }
}

impl Side {
    fn open(
        &mut self,
        level: Level,
        shape: Shape,
        packet: &[u8],
        way: Way,
    ) -> Result<Opened, Outcome> {
        let largest = self.spaces[level as usize].seen.largest();
        let opened = match shape {
            Shape::Short(id_bytes) => {
                let keys = self.application.as_mut().ok_or(Outcome::Held)?;
                keys.open(packet, id_bytes, largest)
            }
            Shape::Long(header) => {
                let keys = match header.kind {
                    Long::Initial => &self.initial,
                    Long::Handshake => &self.handshake,
                    Long::Early if way == Way::ToServer => &self.early,
                    Long::Early | Long::Retry => return Err(Outcome::Unopened),
                };
                let keys = keys.as_ref().ok_or(Outcome::Held)?;
                keys.open(packet, header.number_at, largest)
            }
        };
        opened.ok_or(Outcome::Unopened)
    }
}

impl Space {
    fn acknowledge(
        &mut self,
        ranges: &[(u64, u64)],
        at: Stamp,
        delay_micros: u64,
        trips: &mut RoundTrips,
    ) {
        let newest = ranges.first().map(|(_, to)| *to);
        for (index, (from, to)) in ranges.iter().enumerate() {
            while let Some((number, sent)) = self.in_flight.range(from..=to).next_back() {
                let (number, sent) = (*number, *sent);
                self.in_flight.remove(&number);
                if index == 0 && Some(number) == newest {
                    let micros = at.since(sent) / 1_000;
                    trips.add(micros.saturating_sub(delay_micros));
                }
            }
        }
        self.largest_acknowledged = self.largest_acknowledged.max(newest);
        let passed = newest.map_or(0, |newest| newest.saturating_sub(LOSS_DISTANCE - 1));
        let kept = self.in_flight.split_off(&passed);
        self.lost += self.in_flight.len() as u64;
        self.in_flight = kept;
    }
}
