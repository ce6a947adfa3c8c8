//! The connections of a worker, by the index that quinn-proto gives them.
//!
//! A [`LinkId`] is the index, the worker, and a generation that grows each time the index is used
//! again: no two connections of a process share one, so a late effect finds nobody rather than
//! somebody else.
//!
//! ```text
//!   | generation: 32 bits | worker: 8 bits | index: 24 bits |
//! ```

use std::collections::VecDeque;
use std::time::Instant;

use bytes::Bytes;
use quinn_proto::{Connection, ConnectionId, StreamId, Transmit};
use tern_core::io::LinkId;
use tern_core::limiter::Limiter;
use tern_core::log::Offset;
use tern_core::mail::Device;
use tern_core::placement::{ShardId, WorkerId};
use tern_core::time::Mono;
use tern_protocol::Code;
use tern_quic::frames::Cutter;
use tern_quic::free::{Due, Free};

use super::resets::{Peer, Slot};
use crate::alloc::{Scope, enter};
use crate::transport::settings::FreePushes;
use crate::transport::steering::{ID_BYTES, WORKERS_MAX};

/// Bytes of answers, beside its pushes, that may wait for a client: to a burst of 500 sends, and
/// as much again.
const ANSWER_BYTES: usize = 128 << 10;

/// Bits of the index in a [`LinkId`]: 16 million connections per worker.
const INDEX_BITS: u32 = 24;

/// Bits of the worker in a [`LinkId`]: as many as a steering byte can name.
const WORKER_BITS: u32 = 8;

/// Where a push stands in the log, from which it is read again.
pub(super) type LogPlace = (ShardId, Offset);

/// How far a connection has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum State {
    /// The handshake is under way, and ends by then.
    Handshaking {
        /// Whether the client's address is not proven yet.
        unproven: bool,
        /// When its first packet was taken.
        begun: Mono,
        /// When it took too long.
        until: Instant,
    },
    /// The machine knows it.
    Open,
    /// CLOSE is written; the connection is closed when the client has it, or by then.
    Lingering {
        /// The code of the close.
        code: Code,
        /// When waiting is over.
        until: Instant,
    },
    /// Closed or lost; QUIC still answers late packets for a moment.
    Ended,
}

/// One connection.
pub(super) struct Link {
    pub(super) id: LinkId,
    pub(super) connection: Connection,
    pub(super) state: State,
    /// The control stream, once the client has opened it.
    pub(super) stream: Option<StreamId>,
    pub(super) cutter: Cutter,
    spill: VecDeque<Bytes>,
    spill_bytes: usize,
    /// Pushes that need not keep their order, from the first one on.
    pub(super) free: Option<Box<Free<LogPlace>>>,
    /// Whose session it is, for the flight recorder; looked up with the first push.
    pub(super) device: Option<Device>,
    /// The client, as the list of live connections knows it.
    pub(super) peer: Peer,
    pub(super) slot: Option<Slot>,
    /// What it has used of the addresses that it may try.
    pub(super) moves: Limiter,
    /// Whether the link stands in the queue of those to serve, to read, to send for.
    pub(super) queued: Queued,
}

/// In which queues of the driver a link stands.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Queued {
    pub(super) serve: bool,
    pub(super) read: bool,
    pub(super) send: bool,
    /// Whether it is not logged in yet, so that its packets wait for their turn.
    pub(super) is_guest: bool,
    /// Its packets that wait.
    pub(super) parcels: u8,
}

/// The client leaves more unread than [`spill_bytes_max`].
#[derive(Debug)]
pub(super) struct SlowReader;

impl Link {
    /// Writes to the control stream; what it does not take now waits, up to `spill_max`. Returns
    /// the bytes that wait anew.
    pub(super) fn write(&mut self, bytes: Bytes, spill_max: usize) -> Result<usize, SlowReader> {
        let rest = if self.spill.is_empty() { self.offer(bytes) } else { Some(bytes) };
        let Some(rest) = rest else { return Ok(0) };
        let waiting = rest.len();
        if self.spill_bytes + spill_cost(waiting) > spill_max {
            return Err(SlowReader);
        }
        self.spill_bytes += spill_cost(waiting);
        // A copy of its own: it may wait long, and a slice would keep a whole block with it.
        self.spill.push_back(Bytes::copy_from_slice(&rest));
        Ok(waiting)
    }

    /// Offers what waits to the stream again. A lingering link ends its stream behind it.
    pub(super) fn flush(&mut self) {
        while let Some(bytes) = self.spill.pop_front() {
            self.spill_bytes -= spill_cost(bytes.len());
            if let Some(rest) = self.offer(bytes) {
                self.spill_bytes += spill_cost(rest.len());
                self.spill.push_front(rest);
                return;
            }
        }
        if let (State::Lingering { .. }, Some(stream)) = (self.state, self.stream) {
            let _quic = enter(Scope::Quic);
            // An error says that the stream is finished already, or stopped by the client.
            let _ = self.connection.send_stream(stream).finish();
        }
    }

    /// What the stream does not take.
    fn offer(&mut self, bytes: Bytes) -> Option<Bytes> {
        let Some(stream) = self.stream else { return Some(bytes) };
        let _quic = enter(Scope::Quic);
        let mut chunks = [bytes];
        // An error means blocked, or closed by the client: then what waits ends with the link.
        let written = self.connection.send_stream(stream).write_chunks(&mut chunks);
        let [rest] = chunks;
        let whole = written.is_ok_and(|written| written.chunks == 1);
        (!whole).then_some(rest)
    }

    /// Gives a push to quinn-proto; the bytes come back if they go by stream.
    pub(super) fn write_free(
        &mut self,
        bytes: Bytes,
        place: LogPlace,
        how: FreePushes,
    ) -> Result<(), Bytes> {
        let free = self.free.get_or_insert_with(|| Box::new(Free::new(how)));
        let _quic = enter(Scope::Quic);
        free.send(&mut self.connection, bytes, place)
    }

    /// Gives a push to quinn-proto once more, as a datagram, if there is room for it.
    pub(super) fn repeat(&mut self, bytes: Bytes) -> bool {
        let _quic = enter(Scope::Quic);
        let free = self.free.as_mut();
        free.is_some_and(|free| free.repeat(&mut self.connection, bytes))
    }

    /// Forgets the pushes that have arrived.
    pub(super) fn take_arrivals(&mut self) {
        if let Some(free) = &mut self.free {
            free.take_arrivals();
        }
    }

    /// Takes a push for which something is to be done now.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<Due<LogPlace>> {
        self.free.as_mut()?.take_due(&self.connection, now)
    }

    /// Gives the second copy of a push to quinn-proto, if there is room for it.
    pub(super) fn write_copy(&mut self, bytes: Bytes, place: LogPlace) -> bool {
        let _quic = enter(Scope::Quic);
        let free = self.free.as_mut();
        free.is_some_and(|free| free.send_copy(&mut self.connection, bytes, place))
    }

    /// The next packets to send.
    pub(super) fn poll_transmit(
        &mut self,
        now: Instant,
        segments: usize,
        into: &mut Vec<u8>,
    ) -> Option<Transmit> {
        let _quic = enter(Scope::Quic);
        match &mut self.free {
            Some(free) => free.poll_transmit(&mut self.connection, now, segments, into),
            None => self.connection.poll_transmit(now, segments, into),
        }
    }

    /// Closes the connection; the text goes with it for people.
    pub(super) fn close(&mut self, now: Instant, code: Code) {
        let _quic = enter(Scope::Quic);
        let reason = Bytes::from_static(code.sentence().as_bytes());
        self.connection.close(now, u32::from(code.0).into(), reason);
        self.state = State::Ended;
        self.spill = VecDeque::new();
        self.spill_bytes = 0;
        self.free = None;
    }

    /// When the driver itself has something to do for it.
    fn deadline(&self) -> Option<Instant> {
        match self.state {
            State::Handshaking { until, .. } | State::Lingering { until, .. } => Some(until),
            State::Open => self.free.as_ref()?.deadline(&self.connection),
            State::Ended => None,
        }
    }

    /// When it must be looked at, at the latest.
    pub(super) fn poll_timeout(&mut self) -> Option<Instant> {
        [self.connection.poll_timeout(), self.deadline()].into_iter().flatten().min()
    }
}

/// Bytes that a stream has not taken and that wait, per connection: everything that a session may
/// have under way. Twice the window, since a short frame costs as much again to list. Beyond it
/// the client reads too slowly; its messages wait in the log.
pub(super) fn spill_bytes_max(window_bytes: u32) -> usize {
    ANSWER_BYTES + 2 * window_bytes as usize
}

/// What a waiting frame costs in memory.
fn spill_cost(bytes: usize) -> usize {
    bytes + size_of::<Bytes>()
}

#[derive(Default)]
struct Place {
    generation: u32,
    link: Option<Box<Link>>,
}

/// All connections of a worker.
pub(super) struct Links {
    worker: WorkerId,
    places: Vec<Place>,
    live: usize,
}

impl Links {
    pub(super) fn new(worker: WorkerId) -> Self {
        Self { worker, places: Vec::new(), live: 0 }
    }

    /// Takes a new connection in at the index that quinn-proto gave it.
    pub(super) fn insert(
        &mut self,
        index: usize,
        connection: Connection,
        state: State,
        client_id: ConnectionId,
    ) -> LinkId {
        if self.places.len() <= index {
            self.places.resize_with(index + 1, Place::default);
        }
        let place = &mut self.places[index];
        assert!(place.link.is_none(), "quinn-proto gave index {index} twice");
        place.generation =
            place.generation.checked_add(1).expect("a place is used less than 2^32 times");
        let id = link_id(place.generation, self.worker, index);
        let (address, local_ip) = (connection.remote_address(), connection.local_ip());
        let peer = Peer { address, local_ip, own_id: [0; ID_BYTES], client_id };
        place.link = Some(Box::new(Link {
            id,
            connection,
            state,
            stream: None,
            cutter: Cutter::default(),
            spill: VecDeque::new(),
            spill_bytes: 0,
            free: None,
            device: None,
            peer,
            slot: None,
            moves: Limiter::default(),
            queued: Queued { is_guest: true, ..Queued::default() },
        }));
        self.live += 1;
        id
    }

    /// The connection at an index.
    pub(super) fn at(&mut self, index: u32) -> Option<&mut Link> {
        self.places.get_mut(index as usize)?.link.as_deref_mut()
    }

    /// The connection of an id, unless it is gone.
    pub(super) fn get(&mut self, id: LinkId) -> Option<&mut Link> {
        self.at(index_of(id)).filter(|link| link.id == id)
    }

    /// Forgets a connection.
    pub(super) fn remove(&mut self, index: u32) -> Option<Box<Link>> {
        let link = self.places.get_mut(index as usize)?.link.take()?;
        self.live -= 1;
        Some(link)
    }

    /// Connections, those that ended a moment ago included.
    pub(super) fn len(&self) -> usize {
        self.live
    }

    /// All connections.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Link> {
        self.places.iter().filter_map(|place| place.link.as_deref())
    }
}

fn link_id(generation: u32, worker: WorkerId, index: usize) -> LinkId {
    assert!(index < 1 << INDEX_BITS, "{index} connections at once are far beyond the settings");
    let generation = u64::from(generation) << (INDEX_BITS + WORKER_BITS);
    LinkId(generation | u64::from(worker.0) << INDEX_BITS | index as u64)
}

/// The index in an id.
pub(super) fn index_of(id: LinkId) -> u32 {
    (id.0 & ((1 << INDEX_BITS) - 1)) as u32 // fits: 24 bits
}

/// Bytes of our own beside quinn-proto's connection of 6 KB.
const LINK_BYTES_MAX: usize = 256;

const _: () = {
    assert!(size_of::<Link>() - size_of::<Connection>() <= LINK_BYTES_MAX);
    assert!(INDEX_BITS + WORKER_BITS + u32::BITS == u64::BITS);
    assert!(WORKERS_MAX <= 1 << WORKER_BITS);
};
