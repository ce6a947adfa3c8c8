//! The load's UDP socket: batches in, segments out, and waiting with a deadline.

use std::io::{ErrorKind, IoSliceMut};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::num::NonZeroU64;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Instant;

use quinn_proto::{EcnCodepoint, Transmit};
use quinn_udp::{BATCH_SIZE, RecvMeta, UdpSockRef, UdpSocketState};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::thread::set_current_timer_slack;

use crate::error::{BenchError, Tried};

/// Bytes of a receive buffer: with GRO the kernel joins up to 64 datagrams in it.
const BUFFER_BYTES: usize = 64 << 10;

/// Bytes asked of the kernel for each direction: thousands of devices share this one socket.
const SOCKET_BYTES: usize = 8 << 20;

/// Nanoseconds that the kernel may wake the load late, to save wake-ups: none. Its default of
/// 50,000 would stand in every latency.
const TIMER_SLACK: NonZeroU64 = NonZeroU64::MIN;

/// One datagram that came.
pub struct Datagram<'a> {
    /// From where.
    pub remote: SocketAddr,
    /// To which address of this machine.
    pub local_ip: Option<IpAddr>,
    /// Its mark of congestion.
    pub ecn: Option<EcnCodepoint>,
    /// Its bytes.
    pub bytes: &'a [u8],
}

/// The socket.
pub struct Socket {
    socket: UdpSocket,
    state: UdpSocketState,
    buffers: Vec<u8>,
}

impl Socket {
    /// A socket on an address of this machine, for the present thread; port 0 takes a free one.
    pub fn bind(source: SocketAddr) -> Result<Self, BenchError> {
        let socket = UdpSocket::bind(source).tried(format!("no UDP socket on {source}"))?;
        let state = UdpSocketState::new(UdpSockRef::from(&socket)).tried("the load's socket")?;
        // The kernel may grant less; then a burst is lost and QUIC repeats it.
        let _ = state.set_recv_buffer_size(UdpSockRef::from(&socket), SOCKET_BYTES);
        let _ = state.set_send_buffer_size(UdpSockRef::from(&socket), SOCKET_BYTES);
        punctual()?;
        Ok(Self { socket, state, buffers: vec![0; BATCH_SIZE * BUFFER_BYTES] })
    }

    /// Most datagrams in one system call.
    pub fn segments_max(&self) -> usize {
        self.state.max_gso_segments()
    }

    /// Takes one batch of what has come; whether there may be more.
    pub fn receive(&mut self, mut take: impl FnMut(Datagram<'_>)) -> Result<bool, BenchError> {
        let mut metas = [RecvMeta::default(); BATCH_SIZE];
        let mut rest = &mut self.buffers[..];
        let mut slices = std::array::from_fn::<_, BATCH_SIZE, _>(|_| {
            let (buffer, behind) = std::mem::take(&mut rest).split_at_mut(BUFFER_BYTES);
            rest = behind;
            IoSliceMut::new(buffer)
        });
        let messages =
            match self.state.recv(UdpSockRef::from(&self.socket), &mut slices, &mut metas) {
                Ok(messages) => messages,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(true),
                Err(error) => return Err(error).tried("the load can't receive"),
            };
        for (meta, buffer) in metas[..messages].iter().zip(self.buffers.chunks(BUFFER_BYTES)) {
            for bytes in buffer[..meta.len].chunks(meta.stride.max(1)) {
                let ecn = meta.ecn.and_then(|ecn| EcnCodepoint::from_bits(ecn as u8));
                take(Datagram { remote: meta.addr, local_ip: meta.dst_ip, ecn, bytes });
            }
        }
        Ok(true)
    }

    /// Sends; a full socket loses the datagrams, and QUIC repeats them.
    pub fn send(&self, transmit: &Transmit, bytes: &[u8]) {
        let packet = quinn_udp::Transmit {
            destination: transmit.destination,
            ecn: transmit.ecn.and_then(|ecn| quinn_udp::EcnCodepoint::from_bits(ecn as u8)),
            contents: &bytes[..transmit.size],
            segment_size: transmit.segment_size,
            src_ip: transmit.src_ip,
        };
        let _ = self.state.send(UdpSockRef::from(&self.socket), &packet);
    }

    /// Sleeps until a datagram comes to one of them, or until the deadline, to the microsecond.
    pub fn wait(sockets: &[Self], until: Instant) -> Result<(), BenchError> {
        let fds: Vec<_> = sockets.iter().map(|socket| socket.socket.as_fd()).collect();
        wait_for(&fds, until)
    }
}

/// Has the kernel wake this thread on time.
///
/// # Errors
/// When it refuses.
pub fn punctual() -> Result<(), BenchError> {
    set_current_timer_slack(Some(TIMER_SLACK)).tried("the load's timers")
}

/// Sleeps until something comes to one of these, or until the deadline, to the microsecond.
///
/// # Errors
/// When the kernel refuses.
pub fn wait_for(sockets: &[BorrowedFd<'_>], until: Instant) -> Result<(), BenchError> {
    let rest = until.saturating_duration_since(Instant::now());
    let timeout =
        Timespec { tv_sec: rest.as_secs() as i64, tv_nsec: i64::from(rest.subsec_nanos()) };
    let mut fds: Vec<_> = sockets.iter().map(|fd| PollFd::new(fd, PollFlags::IN)).collect();
    match poll(&mut fds, Some(&timeout)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(error).tried("the load can't wait for its sockets"),
    }
}
