//! Which connection a datagram belongs to: by the ids that both sides chose, across all changes of
//! address, and by addresses where a client's id is empty.

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;

use super::Way;
use super::connection::{Arrival, Connection, Fact, Outcome, Shape, Told};
use super::header::{self, Id, Long};
use crate::capture::{Datagram, Stamp};
use crate::keylog::KeyLog;

/// Connections that are followed; of more, only the count is kept.
const CONNECTIONS_MAX: usize = 1 << 17;

/// Ids and reset tokens that are kept.
const IDS_MAX: usize = 1 << 20;

/// Shortest id that is looked for inside of a datagram: a shorter one occurs by chance.
const SPLIT_ID_BYTES_MIN: usize = 4;

/// Smallest datagram that a client may begin with (RFC 9000 §14.1).
const FIRST_DATAGRAM_BYTES_MIN: usize = 1_200;

/// What happened to a datagram.
#[derive(Clone, Debug)]
pub enum Seen {
    /// A connection began: its index.
    Opened(usize),
    /// A connection told something.
    Fact(usize, Fact),
    /// A connection's server no longer knows it.
    StatelessReset(usize, Arrival),
}

/// Datagrams that belong to no connection.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Strays {
    /// Not QUIC version 1 at all.
    pub foreign: u64,
    /// QUIC, perhaps, of connections whose beginning was not captured.
    pub unknown: u64,
    /// Beginnings beyond what is followed.
    pub too_many: u64,
}

/// All connections seen at one tap.
#[derive(Default)]
pub struct Tracker {
    connections: Vec<Connection>,
    /// Which way a packet to this id goes, and on which connection.
    ids: HashMap<Id, (usize, Way)>,
    /// Lengths of the ids.
    lengths: BTreeSet<usize>,
    /// By both addresses, from and to, where the id is empty.
    addresses: HashMap<(SocketAddr, SocketAddr), usize>,
    reset_tokens: HashMap<[u8; 16], usize>,
    strays: Strays,
}

impl Tracker {
    /// The connections, by index.
    pub fn connections(&self) -> &[Connection] {
        &self.connections
    }

    /// The same, to be ended.
    pub fn connections_mut(&mut self) -> &mut [Connection] {
        &mut self.connections
    }

    /// What belongs to no connection.
    pub fn strays(&self) -> Strays {
        self.strays
    }

    /// Takes a datagram.
    pub fn handle(
        &mut self,
        log: &mut KeyLog,
        (packet, at): (u64, Stamp),
        datagram: Datagram<'_>,
    ) -> Vec<Seen> {
        let mut seen = Vec::new();
        let mut rest = datagram.payload;
        let mut is_counted = false;
        while !rest.is_empty() {
            let Some((index, way, shape, bytes)) = self.find(&datagram, rest, at, &mut seen) else {
                self.stray(datagram, rest, (packet, at), &mut seen);
                break;
            };
            let arrival = Arrival { packet, at, way, from: datagram.from, to: datagram.to };
            let connection = &mut self.connections[index];
            if !is_counted {
                connection.count_datagram(way, at, datagram.payload.len());
                is_counted = true;
            }
            let (packet, behind) = rest.split_at(bytes);
            let outcome = connection.handle(log, arrival, shape, packet);
            let is_short = matches!(shape, Shape::Short(_));
            if outcome == Outcome::Unopened && is_short && self.is_reset(packet, &arrival) {
                seen.push(Seen::StatelessReset(index, arrival));
            }
            for fact in self.connections[index].facts() {
                self.learn(index, &fact);
                seen.push(Seen::Fact(index, fact));
            }
            rest = behind;
        }
        seen
    }

    /// The connection of the packet at the front of `rest`, the way it goes, its shape and length.
    fn find(
        &mut self,
        datagram: &Datagram<'_>,
        rest: &[u8],
        at: Stamp,
        seen: &mut Vec<Seen>,
    ) -> Option<(usize, Way, Shape, usize)> {
        if !header::is_long(rest) {
            let (index, way, id_bytes) = self.by_short_header(datagram, rest)?;
            return Some((index, way, Shape::Short(id_bytes), first_segment(rest, id_bytes)));
        }
        let header = header::long(rest)?;
        let known = self.ids.get(&header.to).copied().filter(|_| !header.to.is_empty());
        let known = known.or_else(|| self.by_address(datagram));
        let known = known.or_else(|| self.by_sender(&header.from));
        let (index, way) = match known {
            Some(known) => known,
            None => {
                let index = self.open(datagram, header.kind, at)?;
                seen.push(Seen::Opened(index));
                (index, Way::ToServer)
            }
        };
        self.put_id(header.to, index, way);
        // By its own id a side is called from the other side.
        self.put_id(header.from, index, way.back());
        if header.from.is_empty() && way == Way::ToServer {
            self.addresses.insert((datagram.to, datagram.from), index);
        }
        Some((index, way, Shape::Long(header), header.bytes))
    }

    fn by_short_header(&self, datagram: &Datagram<'_>, rest: &[u8]) -> Option<(usize, Way, usize)> {
        let by_id = self.lengths.iter().rev().find_map(|length| {
            let id = Id::new(rest.get(1..1 + length)?)?;
            let (index, way) = self.ids.get(&id)?;
            Some((*index, *way, *length))
        });
        by_id.or_else(|| self.by_address(datagram).map(|(index, way)| (index, way, 0)))
    }

    fn by_address(&self, datagram: &Datagram<'_>) -> Option<(usize, Way)> {
        let index = self.addresses.get(&(datagram.from, datagram.to))?;
        Some((*index, Way::ToClient))
    }

    /// A packet to an id that was never seen, from one that was: what told it was lost.
    fn by_sender(&self, from: &Id) -> Option<(usize, Way)> {
        let (index, way) = self.ids.get(from).filter(|_| !from.is_empty())?;
        Some((*index, way.back()))
    }

    fn open(&mut self, datagram: &Datagram<'_>, kind: Long, at: Stamp) -> Option<usize> {
        if kind != Long::Initial || datagram.payload.len() < FIRST_DATAGRAM_BYTES_MIN {
            return None;
        }
        if self.connections.len() >= CONNECTIONS_MAX {
            self.strays.too_many += 1;
            return None;
        }
        let (from, to) = (datagram.from, datagram.to);
        let arrival = Arrival { packet: 0, at, way: Way::ToServer, from, to };
        self.connections.push(Connection::new(&arrival));
        Some(self.connections.len() - 1)
    }

    fn put_id(&mut self, id: Id, index: usize, way: Way) {
        if !id.is_empty() && self.ids.len() < IDS_MAX {
            self.lengths.insert(id.as_bytes().len());
            self.ids.entry(id).or_insert((index, way));
        }
    }

    fn learn(&mut self, index: usize, fact: &Fact) {
        match fact.told {
            Told::NewId(id) => self.put_id(id, index, fact.arrival.way.back()),
            Told::ResetToken(token) if self.reset_tokens.len() < IDS_MAX => {
                self.reset_tokens.insert(token, index);
            }
            Told::Moved(_) => {
                // A client with an empty id is found by its address; what is under way still goes
                // to the old one.
                let connection = &self.connections[index];
                if self.addresses.len() < IDS_MAX && self.addresses.values().any(|at| *at == index)
                {
                    self.addresses.insert((connection.server, connection.client), index);
                }
            }
            _ => {}
        }
    }

    fn stray(
        &mut self,
        datagram: Datagram<'_>,
        rest: &[u8],
        (packet, at): (u64, Stamp),
        seen: &mut Vec<Seen>,
    ) {
        if let Some(index) = self.reset_of(rest) {
            let (from, to) = (datagram.from, datagram.to);
            let arrival = Arrival { packet, at, way: Way::ToClient, from, to };
            seen.push(Seen::StatelessReset(index, arrival));
        } else if header::is_long(rest) && header::long(rest).is_none() {
            self.strays.foreign += 1;
        } else {
            self.strays.unknown += 1;
        }
    }

    fn is_reset(&self, packet: &[u8], arrival: &Arrival) -> bool {
        arrival.way == Way::ToClient && self.reset_of(packet).is_some()
    }

    fn reset_of(&self, packet: &[u8]) -> Option<usize> {
        let token: [u8; 16] = *packet.last_chunk()?;
        self.reset_tokens.get(&token).copied()
    }
}

/// Bytes of the first packet with a short header: all of them, unless the system handed several
/// datagrams to the tap in one piece (generic segmentation offload). Then the id stands in each at
/// the same place.
fn first_segment(rest: &[u8], id_bytes: usize) -> usize {
    let Some(id) = rest.get(1..1 + id_bytes).filter(|_| id_bytes >= SPLIT_ID_BYTES_MIN) else {
        return rest.len();
    };
    let behind = &rest[1 + id_bytes..];
    let next = behind.windows(id_bytes).position(|window| window == id);
    // The byte before the id belongs to the next segment.
    next.map_or(rest.len(), |at| (id_bytes + at).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_that_came_in_one_piece_are_told_apart() {
        let segment = [&[0x41][..], b"abcdefgh", &[0; 30]].concat();
        let both = [&segment[..], &segment[..20]].concat();
        assert_eq!(first_segment(&both, 8), segment.len());
        assert_eq!(first_segment(&segment, 8), segment.len());
        assert_eq!(first_segment(&both, 0), both.len());
    }
}
