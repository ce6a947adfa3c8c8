//! Datagrams in: receive a batch, hand strays over, let quinn-proto decode the rest, decide about
//! connection attempts.

use std::io::{ErrorKind, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd as _;
use std::time::Duration;

use quinn_proto::{
    ConnectionEvent, ConnectionHandle, ConnectionId, DatagramEvent, Incoming, Transmit,
};
use quinn_udp::{EcnCodepoint, RecvMeta, UdpSockRef};
use tern_core::io::Input;
use tern_core::limiter::Rate;
use tern_core::log::Reader;

use super::driver::{Driver, Socket};
use super::guests::{Next, Parcel};
use super::inbox::Stray;
use super::links::{State, index_of};
use super::machine::Machine;
use crate::alloc::{Scope, enter};
use crate::transport::sockets::dropped;
use crate::transport::steering::{LONG_HEADER, client_id_of, own_id_of, worker_of};

/// Buffers given to one system call.
const BATCH: usize = 16;

/// Bytes of a buffer: with GRO the kernel joins up to 64 datagrams of one sender in it.
const BUFFER_BYTES: usize = 64 << 10;

/// Datagrams after which a turn receives no more: with what they bring about and the answers some
/// 8 µs each, so that what came first is on its way to the disk after half a millisecond.
const DATAGRAMS_PER_TURN: u64 = 64;

/// Stray datagrams taken from the inbox a turn.
const STRAYS_PER_TURN: usize = 256;

/// Addresses that a connection may try at once after a pause; then one a second. Each new one is
/// sent a full packet as a challenge, whatever came from there, so without a bound a client could
/// make the server send to others 26 times what it sends itself (RFC 9000 §21.5.6). A phone that
/// changes its network twice a second for four seconds stays below it.
const MOVES_BURST: u32 = 8;

fn moves_allowed() -> Rate {
    Rate::new(1, 1_000, MOVES_BURST)
}

/// The receiving end of the socket.
pub(super) struct Receiver {
    socket: Socket,
    /// `BATCH` buffers in a row; only what is received is ever touched.
    buffers: Box<[u8]>,
    /// Whether the socket may have more than was taken.
    pub(super) readable: bool,
}

/// Where a datagram came from.
#[derive(Clone, Copy)]
struct Origin {
    remote: SocketAddr,
    local_ip: Option<IpAddr>,
    ecn: Option<EcnCodepoint>,
}

impl Receiver {
    pub(super) fn new(socket: Socket) -> Self {
        Self { socket, buffers: vec![0; BATCH * BUFFER_BYTES].into(), readable: true }
    }

    /// Datagrams that the kernel dropped for want of room.
    pub(super) fn dropped(&self) -> u64 {
        dropped(self.socket.0.as_fd())
    }

    fn receive(&mut self, metas: &mut [RecvMeta; BATCH]) -> std::io::Result<usize> {
        let (socket, state) = &*self.socket;
        let mut rest = &mut self.buffers[..];
        let mut slices = std::array::from_fn::<_, BATCH, _>(|_| {
            let (buffer, behind) = std::mem::take(&mut rest).split_at_mut(BUFFER_BYTES);
            rest = behind;
            IoSliceMut::new(buffer)
        });
        state.recv(UdpSockRef::from(socket), &mut slices, metas)
    }
}

impl<M: Machine, R: Reader> Driver<M, R> {
    /// Receives what has come, up to the budget of a turn.
    pub(super) fn receive(&mut self) {
        let budget = self.counts.datagrams_in + DATAGRAMS_PER_TURN;
        let mut metas = [RecvMeta::default(); BATCH];
        while self.receiver.readable && self.counts.datagrams_in < budget {
            match self.receiver.receive(&mut metas) {
                Ok(messages) => {
                    self.counts.receives += 1;
                    // A batch that is not full found the socket empty behind it; what comes
                    // later is a new edge for the poll.
                    self.receiver.readable = messages == BATCH;
                    self.take_batch(&metas[..messages]);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.receiver.readable = false;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => {
                    self.counts.receive_errors += 1;
                    return;
                }
            }
        }
    }

    fn take_batch(&mut self, metas: &[RecvMeta]) {
        let buffers = std::mem::take(&mut self.receiver.buffers);
        for (meta, buffer) in metas.iter().zip(buffers.chunks_exact(BUFFER_BYTES)) {
            let origin = Origin { remote: meta.addr, local_ip: meta.dst_ip, ecn: meta.ecn };
            self.counts.bytes_in += meta.len as u64;
            for datagram in buffer[..meta.len].chunks(meta.stride.max(1)) {
                self.counts.datagrams_in += 1;
                self.take_datagram(origin, datagram);
            }
        }
        self.receiver.buffers = buffers;
    }

    fn take_datagram(&mut self, origin: Origin, datagram: &[u8]) {
        let owner = worker_of(datagram, self.workers);
        if owner == self.id {
            self.decode(origin, datagram);
            return;
        }
        self.counts.strays_out += 1;
        let Origin { remote, local_ip, ecn } = origin;
        let stray = Stray { remote, local_ip, ecn, data: datagram.into() };
        if !self.seat.doors.hand_over(owner, stray) {
            self.counts.strays_dropped += 1;
        }
    }

    pub(super) fn receive_strays(&mut self) {
        for _ in 0..STRAYS_PER_TURN {
            let Some(stray) = self.seat.next_stray() else { break };
            self.counts.strays_in += 1;
            let Stray { remote, local_ip, ecn, data } = stray;
            self.decode(Origin { remote, local_ip, ecn }, &data);
        }
    }

    fn decode(&mut self, origin: Origin, datagram: &[u8]) {
        let Origin { remote, local_ip, ecn } = origin;
        let data = self.pool.copy(datagram);
        let ecn = ecn.and_then(|ecn| quinn_proto::EcnCodepoint::from_bits(ecn as u8));
        let response = self.sender.scratch();
        let event = {
            let _quic = enter(Scope::Quic);
            self.endpoint.handle(self.now, remote, local_ip, ecn, data, response)
        };
        match event {
            None => self.counts.datagrams_ignored += 1,
            Some(DatagramEvent::ConnectionEvent(handle, event)) => {
                self.pass_on(handle, event, remote, datagram);
            }
            Some(DatagramEvent::NewConnection(incoming)) => {
                let client_id = client_id_of(datagram);
                self.decide(incoming, client_id.expect("quinn-proto parsed the same header"));
            }
            Some(DatagramEvent::Response(transmit)) => {
                let first = self.sender.scratch_first_byte();
                if first.is_some_and(|byte| byte & LONG_HEADER == 0) {
                    self.counts.resets += 1; // the only short header without a connection
                } else {
                    self.counts.attempts_invalid += 1;
                }
                self.respond(&transmit);
            }
        }
    }

    /// A packet for its connection: at once, or in its turn if it is a guest's.
    fn pass_on(
        &mut self,
        handle: ConnectionHandle,
        event: ConnectionEvent,
        remote: SocketAddr,
        datagram: &[u8],
    ) {
        let index = handle.0 as u32; // fits: quinn-proto counts its connections from 0
        let link = self.links.at(index).expect("quinn-proto knows no connection that we do not");
        let own_id = own_id_of(datagram);
        let parcel = Parcel { link: link.id, event, remote, own_id };
        if !link.queued.is_guest && link.queued.parcels == 0 {
            return self.open(parcel);
        }
        match self.guests.hand_in(parcel, &mut link.queued.parcels) {
            Some(waits) => self.counts.guests_delayed += u64::from(waits),
            None => self.counts.guests_dropped += 1,
        }
    }

    /// Hands a packet to its connection.
    fn open(&mut self, parcel: Parcel) {
        let Parcel { link: id, event, remote, own_id } = parcel;
        let Some(link) = self.links.get(id) else { return };
        let index = index_of(id);
        let moves = remote != link.connection.remote_address();
        if moves && link.moves.take(self.now_core.mono, moves_allowed()).is_err() {
            self.counts.moves_dropped += 1;
            return;
        }
        {
            let _quic = enter(Scope::Quic);
            link.connection.handle_event(event);
        }
        let address = link.connection.remote_address();
        let moved = address != link.peer.address;
        let own_id = own_id.unwrap_or(link.peer.own_id);
        let moved_open = (moved && link.state == State::Open).then_some(link.id);
        if moved && let Some(free) = &mut link.free {
            free.moved(&link.connection);
        }
        if moved || own_id != link.peer.own_id {
            (link.peer.address, link.peer.own_id) = (address, own_id);
            self.counts.migrations += u64::from(moved);
            self.relist(index);
        }
        if let Some(id) = moved_open {
            self.handle(Input::Moved(id));
        }
        self.queue_serve(index);
    }

    /// Does some of what guests wait for. What it leaves to read, to send and to post is the next
    /// turn's, which begins at once.
    pub(super) fn serve_guests(&mut self) {
        self.guests.begin_turn();
        while let Some(next) = self.guests.next() {
            match next {
                Next::Attempt(incoming, client_id) => self.accept(incoming, client_id),
                Next::Parcel(parcel) => {
                    if let Some(link) = self.links.get(parcel.link) {
                        link.queued.parcels -= 1;
                        self.open(parcel);
                    }
                }
            }
        }
        self.serve_links();
    }

    /// Decides about a connection attempt at once; what is accepted may wait for its turn.
    fn decide(&mut self, incoming: Incoming, client_id: ConnectionId) {
        self.counts.attempts += 1;
        let proven = incoming.remote_address_validated();
        let (waiting, unproven) = self.guests.attempts();
        let live = self.links.len() + waiting;
        if self.drain_until.is_some() || live >= self.settings.connections_max {
            self.refuse(incoming);
        } else if self.handshakes + waiting >= self.settings.handshakes_max {
            self.counts.attempts_ignored += 1;
            self.endpoint.ignore(incoming);
        } else if !proven && self.unproven + unproven >= self.settings.retry_threshold {
            self.retry(incoming);
        } else {
            let waits = self.guests.knock(incoming, client_id);
            self.counts.attempts_delayed += u64::from(waits);
        }
    }

    fn refuse(&mut self, incoming: Incoming) {
        self.counts.attempts_refused += 1;
        let transmit = self.endpoint.refuse(incoming, self.sender.scratch());
        self.respond(&transmit);
    }

    /// Sends away all that wait: the server goes down.
    pub(super) fn refuse_waiting(&mut self) {
        while let Some((incoming, _)) = self.guests.send_away() {
            self.refuse(incoming);
        }
    }

    fn retry(&mut self, incoming: Incoming) {
        match self.endpoint.retry(incoming, self.sender.scratch()) {
            Ok(transmit) => {
                self.counts.attempts_retried += 1;
                self.respond(&transmit);
            }
            Err(error) => {
                self.counts.attempts_ignored += 1;
                self.endpoint.ignore(error.into_incoming());
            }
        }
    }

    fn accept(&mut self, incoming: Incoming, client_id: ConnectionId) {
        let unproven = !incoming.remote_address_validated();
        let taken = u64::from(self.guests.taken());
        self.counts.attempts_turn_max = self.counts.attempts_turn_max.max(taken);
        let accepted = {
            let _quic = enter(Scope::Quic);
            self.endpoint.accept(incoming, self.now, self.sender.scratch(), None)
        };
        match accepted {
            Ok((handle, connection)) => {
                let until = self.now + Duration::from_millis(self.settings.handshake_ms_max);
                let state = State::Handshaking { unproven, begun: self.now_core.mono, until };
                self.links.insert(handle.0, connection, state, client_id);
                self.live += 1;
                self.handshakes += 1;
                self.unproven += usize::from(unproven);
                self.queue_serve(handle.0 as u32); // fits: see `pass_on`
            }
            Err(error) => {
                self.counts.handshakes_failed += 1;
                if let Some(transmit) = error.response {
                    self.respond(&transmit);
                }
            }
        }
    }

    /// Sends what the endpoint wrote into the scratch buffer.
    fn respond(&mut self, transmit: &Transmit) {
        self.sender.respond(&mut self.counts, transmit);
    }
}
