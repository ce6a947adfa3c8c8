//! Datagrams out: the sending end of the socket, and the turn's round of sending.

use std::os::fd::{AsRawFd as _, RawFd};

use quinn_proto::Transmit;
use quinn_udp::UdpSockRef;
use tern_core::log::Reader;

use super::driver::{Driver, Socket};
use super::machine::Machine;
use super::resets::Peer;
use super::status::Counts;

/// System calls for one connection a turn, so that a large catch-up does not hold up the others.
const TRANSMITS_PER_LINK: usize = 4;

/// Datagrams in one system call to one client (GSO): 12 KB, a first flight's congestion window.
const SEGMENTS_MAX: usize = 10;

/// Bytes of the buffers into which quinn-proto writes: [`SEGMENTS_MAX`] datagrams fit.
const SCRATCH_BYTES: usize = 16 << 10;

/// The sending end of the socket.
pub(super) struct Sender {
    socket: Socket,
    scratch: Vec<u8>,
    /// What the socket did not take: it stands in `held_bytes` and goes out first.
    held: Option<Transmit>,
    held_bytes: Vec<u8>,
    /// Whether the socket takes more, as far as is known.
    pub(super) writable: bool,
}

/// The socket takes no more now.
struct Blocked;

impl Sender {
    pub(super) fn new(socket: Socket) -> Self {
        Self {
            socket,
            scratch: Vec::with_capacity(SCRATCH_BYTES),
            held: None,
            held_bytes: Vec::with_capacity(SCRATCH_BYTES),
            writable: true,
        }
    }

    /// The buffer for the next packet, emptied.
    pub(super) fn scratch(&mut self) -> &mut Vec<u8> {
        self.scratch.clear();
        &mut self.scratch
    }

    pub(super) fn scratch_first_byte(&self) -> Option<u8> {
        self.scratch.first().copied()
    }

    pub(super) fn into_socket(self) -> Socket {
        self.socket
    }

    /// The socket, for the poll.
    pub(super) fn descriptor(&self) -> RawFd {
        self.socket.0.as_raw_fd()
    }

    /// Whether nothing waits for the socket.
    pub(super) fn is_idle(&self) -> bool {
        self.held.is_none()
    }

    fn segments_max(&self) -> usize {
        self.socket.1.max_gso_segments().min(SEGMENTS_MAX)
    }

    /// Sends an answer that belongs to no connection; one that the socket does not take is
    /// dropped: the client asks again.
    pub(super) fn respond(&mut self, counts: &mut Counts, transmit: &Transmit) {
        if self.send(counts, transmit, &self.scratch).is_err() {
            counts.responses_dropped += 1;
        }
    }

    /// The same for a reset that does not come from the endpoint.
    pub(super) fn send_reset(&self, counts: &mut Counts, to: &Peer, packet: &[u8]) {
        let transmit = Transmit {
            destination: to.address,
            ecn: None,
            size: packet.len(),
            segment_size: None,
            src_ip: to.local_ip,
        };
        if self.send(counts, &transmit, packet).is_err() {
            counts.responses_dropped += 1;
        }
    }

    /// Sends a connection's packets; if the socket takes no more, they are held.
    fn send_or_hold(&mut self, counts: &mut Counts, transmit: Transmit) -> Result<(), Blocked> {
        let result = self.send(counts, &transmit, &self.scratch);
        if result.is_err() {
            counts.transmits_blocked += 1;
            self.writable = false;
            std::mem::swap(&mut self.scratch, &mut self.held_bytes);
            self.held = Some(transmit);
        }
        result
    }

    /// Sends what was held.
    fn send_held(&mut self, counts: &mut Counts) -> Result<(), Blocked> {
        let Some(transmit) = self.held.take() else { return Ok(()) };
        let result = self.send(counts, &transmit, &self.held_bytes);
        if result.is_err() {
            self.writable = false;
            self.held = Some(transmit);
        }
        result
    }

    fn send(&self, counts: &mut Counts, transmit: &Transmit, bytes: &[u8]) -> Result<(), Blocked> {
        let (socket, state) = &*self.socket;
        let packet = quinn_udp::Transmit {
            destination: transmit.destination,
            ecn: transmit.ecn.and_then(|ecn| quinn_udp::EcnCodepoint::from_bits(ecn as u8)),
            contents: &bytes[..transmit.size],
            segment_size: transmit.segment_size,
            src_ip: transmit.src_ip,
        };
        // The only error is that the socket is full; others are the network's and logged there.
        state.send(UdpSockRef::from(socket), &packet).map_err(|_| Blocked)?;
        let segment = transmit.segment_size.unwrap_or(transmit.size).max(1);
        counts.transmits += 1;
        counts.datagrams_out += transmit.size.div_ceil(segment) as u64;
        counts.bytes_out += transmit.size as u64;
        Ok(())
    }
}

impl<M: Machine, R: Reader> Driver<M, R> {
    /// One round over the links with something to send.
    pub(super) fn transmit(&mut self) {
        if !self.sender.writable || self.sender.send_held(&mut self.counts).is_err() {
            return;
        }
        for _ in 0..self.to_send.len() {
            let Some(index) = self.to_send.pop_front() else { break };
            let more = match self.transmit_link(index) {
                Ok(more) => more,
                Err(Blocked) => {
                    self.to_send.push_front(index);
                    return;
                }
            };
            if more {
                self.to_send.push_back(index);
            }
        }
    }

    /// Sends for one link and notes its deadline; whether it has more to send.
    fn transmit_link(&mut self, index: u32) -> Result<bool, Blocked> {
        let Some(link) = self.links.at(index) else { return Ok(false) };
        let segments = self.sender.segments_max();
        let mut more = true;
        for _ in 0..TRANSMITS_PER_LINK {
            let transmit = link.poll_transmit(self.now, segments, self.sender.scratch());
            let Some(transmit) = transmit else {
                more = false;
                break;
            };
            self.sender.send_or_hold(&mut self.counts, transmit)?;
        }
        link.queued.send = more;
        match link.poll_timeout() {
            Some(at) => self.timers.set(index, at),
            None => self.timers.remove(index),
        }
        if !more {
            self.take_endpoint_events(index);
        }
        Ok(more)
    }
}
