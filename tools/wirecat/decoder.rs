//! The door of this crate: items of a capture in, events out.

use std::collections::{BTreeMap, HashSet};

use tern_protocol::limits::ALPN;
use tern_protocol::{ChannelId, DeviceId, Frame, Header, Uin};

use crate::capture::{self, Item, Packet};
use crate::event::{Carrier, ConnectionId, Event, What, Who};
use crate::keylog::KeyLog;
use crate::quic::Way;
use crate::quic::connection::{Arrival, Told};
use crate::quic::tracker::{Seen, Strays, Tracker};
use crate::stats::{Stats, index};

/// The stream that everything is said on (SPEC.md §2.2).
const CONTROL_STREAM: u64 = 0;

/// Messages of a connection that are remembered, to tell when one is said again.
const MESSAGES_MAX: usize = 1 << 20;

/// Turns captured packets into what Tern's clients and servers said.
#[derive(Default)]
pub struct Decoder {
    log: KeyLog,
    taps: BTreeMap<u32, Tap>,
    opened: u32,
    packets: u64,
    skipped: u64,
}

/// One place of capture: an interface of a pcapng file sees each packet for itself.
#[derive(Default)]
struct Tap {
    tracker: Tracker,
    talks: Vec<Talk>,
}

/// What is said on one connection.
struct Talk {
    connection: ConnectionId,
    who: Option<Who>,
    /// Whether it offers our protocol; `None` until it has said.
    is_ours: Option<bool>,
    /// Bytes of the stream that are no whole frame yet, for each side.
    partial: [Vec<u8>; 2],
    said: HashSet<Said>,
    frames: [u64; 2],
    by_datagram: [u64; 2],
    again: [u64; 2],
}

/// What names a message on one connection.
#[derive(PartialEq, Eq, Hash)]
enum Said {
    Send(u32, u32),
    Push(ChannelId, u64),
}

impl Decoder {
    /// A decoder with the secrets of this log.
    pub fn new(log: KeyLog) -> Self {
        Self { log, ..Self::default() }
    }

    /// Takes the next item of a capture.
    pub fn handle(&mut self, item: &Item) -> Vec<Event> {
        match item {
            Item::Packet(packet) => self.handle_packet(packet),
            Item::Secrets(text) => {
                self.log.add(text);
                Vec::new()
            }
        }
    }

    /// The capture is over: says which connections could not be read.
    pub fn end(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        for tap in self.taps.values_mut() {
            for (connection, talk) in tap.tracker.connections_mut().iter_mut().zip(&tap.talks) {
                if connection.end() {
                    let at = connection.last;
                    events.push(talk.event((self.packets, at), What::Sealed));
                }
            }
        }
        events
    }

    /// The statistics of all connections, in the order in which they opened.
    pub fn stats(&self) -> Vec<Stats> {
        let mut all: Vec<Stats> = self.taps.values().flat_map(Tap::stats).collect();
        all.sort_by_key(|stats| stats.connection);
        all
    }

    /// Datagrams that belong to no connection.
    pub fn strays(&self) -> Strays {
        self.taps.values().fold(Strays::default(), |mut sum, tap| {
            let strays = tap.tracker.strays();
            sum.foreign += strays.foreign;
            sum.unknown += strays.unknown;
            sum.too_many += strays.too_many;
            sum
        })
    }

    /// Packets of the capture so far, and how many of them hold no UDP datagram.
    pub fn packets(&self) -> (u64, u64) {
        (self.packets, self.skipped)
    }

    fn handle_packet(&mut self, packet: &Packet) -> Vec<Event> {
        self.packets += 1;
        let Some(datagram) = capture::datagram(packet) else {
            self.skipped += 1;
            return Vec::new();
        };
        let tap = self.taps.entry(packet.interface).or_default();
        let place = (packet.number, packet.at);
        let mut events = Vec::new();
        for seen in tap.tracker.handle(&mut self.log, place, datagram) {
            match seen {
                Seen::Opened(_) => {
                    self.opened += 1;
                    tap.talks.push(Talk::new(ConnectionId(self.opened)));
                    let (client, server) = (datagram.from, datagram.to);
                    let talk = tap.talks.last().expect("pushed above");
                    events.push(talk.event(place, What::Opened { client, server }));
                }
                Seen::Fact(at, fact) => {
                    tap.talks[at].handle(&fact.arrival, fact.told, &mut events);
                }
                Seen::StatelessReset(at, _) => {
                    events.push(tap.talks[at].event(place, What::StatelessReset));
                }
            }
        }
        events
    }
}

impl Tap {
    fn stats(&self) -> impl Iterator<Item = Stats> {
        self.tracker.connections().iter().zip(&self.talks).map(|(connection, talk)| {
            let mut sides = [Way::ToServer, Way::ToClient].map(|way| connection.stats(way));
            for (side, stats) in sides.iter_mut().enumerate() {
                stats.frames = talk.frames[side];
                stats.frames_by_datagram = talk.by_datagram[side];
                stats.frames_again = talk.again[side];
            }
            Stats {
                connection: talk.connection,
                who: talk.who,
                client: connection.client,
                server: connection.server,
                suite: connection.suite.map(|suite| suite.name()),
                lasted: connection.last.since(connection.first),
                moves: connection.moves,
                held: connection.held(),
                sides,
            }
        })
    }
}

impl Talk {
    fn new(connection: ConnectionId) -> Self {
        Self {
            connection,
            who: None,
            is_ours: None,
            partial: Default::default(),
            said: HashSet::new(),
            frames: [0; 2],
            by_datagram: [0; 2],
            again: [0; 2],
        }
    }

    fn event(&self, (packet, at): (u64, capture::Stamp), what: What) -> Event {
        Event { packet, at, connection: self.connection, who: self.who, what }
    }

    fn handle(&mut self, arrival: &Arrival, told: Told, events: &mut Vec<Event>) {
        let way = arrival.way;
        let what = match told {
            Told::Protocols(protocols) => {
                let is_ours = protocols.iter().any(|name| name == ALPN);
                self.is_ours = Some(is_ours);
                if is_ours {
                    return;
                }
                let text = |name: &Vec<u8>| String::from_utf8_lossy(name).into_owned();
                What::Foreign { protocols: protocols.iter().map(text).collect() }
            }
            Told::Stream(CONTROL_STREAM, bytes) => {
                self.partial[index(way)].extend(bytes);
                return self.cut(arrival, events);
            }
            Told::Datagram(bytes) => return self.frame(arrival, Carrier::Datagram, bytes, events),
            Told::Stream(..) | Told::NewId(_) | Told::ResetToken(_) => return,
            Told::Sealed => What::Sealed,
            Told::Moved(from) => What::Moved { way, from, to: arrival.from },
            Told::KeysUpdated => What::KeysUpdated { way },
            Told::StreamReset(stream, code) => What::StreamReset { way, stream, code },
            Told::Closed { code, by_application, reason } => {
                let reason = String::from_utf8_lossy(&reason).into_owned();
                What::Closed { way, code, by_application, reason }
            }
        };
        events.push(self.event((arrival.packet, arrival.at), what));
    }

    fn cut(&mut self, arrival: &Arrival, events: &mut Vec<Event>) {
        let mut partial = std::mem::take(&mut self.partial[index(arrival.way)]);
        let mut from = 0;
        while let Some(bytes) = Header::peek(&partial[from..]).map(|header| header.frame_bytes())
            && from + bytes <= partial.len()
        {
            let frame = partial[from..from + bytes].to_vec();
            from += bytes;
            self.frame(arrival, Carrier::Stream, frame, events);
        }
        partial.drain(..from);
        self.partial[index(arrival.way)] = partial;
    }

    fn frame(
        &mut self,
        arrival: &Arrival,
        carrier: Carrier,
        bytes: Vec<u8>,
        events: &mut Vec<Event>,
    ) {
        if self.is_ours == Some(false) {
            return;
        }
        let way = arrival.way;
        let mut is_again = false;
        if let Ok((frame, _)) = Frame::parse(&bytes) {
            self.learn_who(&frame);
            is_again = self.was_said(&frame);
        }
        let side = index(way);
        self.frames[side] += 1;
        self.by_datagram[side] += u64::from(carrier == Carrier::Datagram);
        self.again[side] += u64::from(is_again);
        let what = What::Frame { way, carrier, is_again, bytes };
        events.push(self.event((arrival.packet, arrival.at), what));
    }

    fn learn_who(&mut self, frame: &Frame<'_>) {
        let (uin, device) = match frame {
            Frame::Login(login) => (login.uin, login.device),
            Frame::Resume(resume) => (resume.uin, resume.device),
            _ => return,
        };
        self.who = Some(Who { uin: Uin(uin.get()), device: DeviceId(device.get()) });
    }

    fn was_said(&mut self, frame: &Frame<'_>) -> bool {
        let said = match frame {
            Frame::Send(send, _) => Said::Send(send.epoch.get(), send.counter.get()),
            Frame::Push(push, _) => Said::Push(push.channel, push.id.get()),
            _ => return false,
        };
        if self.said.len() >= MESSAGES_MAX {
            return self.said.contains(&said);
        }
        !self.said.insert(said)
    }
}
