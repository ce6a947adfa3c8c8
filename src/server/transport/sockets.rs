//! One UDP socket per worker, all on one port, in the order of the workers.
//!
//! The order of binding is the index by which the steering program names a socket, so all are
//! bound here, one after the other, before any worker starts, and none is closed before all
//! are: closing one would renumber the rest.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::BorrowedFd;

use socket2::{Domain, Protocol, Socket, Type};

use super::reuseport;
use super::steering::WORKERS_MAX;

/// Bytes asked of the kernel for each socket's receive buffer. At 25,000 datagrams a second of
/// about 1 KB as the kernel counts them it holds 150 ms; the kernel grants no more than
/// `net.core.rmem_max`.
const RECEIVE_BUFFER_BYTES: usize = 4 << 20;

/// Bytes asked of the kernel for each socket's send buffer: a turn's worth of answers.
const SEND_BUFFER_BYTES: usize = 2 << 20;

/// What is tried when a port is to be shared.
const SHARE: &str = "share the port between workers";

/// The sockets of all workers.
#[derive(Debug)]
pub struct Sockets {
    sockets: Vec<UdpSocket>,
    address: SocketAddr,
}

/// Why a server can't listen.
#[derive(Debug)]
pub enum BindError {
    /// Another process serves this port.
    InUse(SocketAddr),
    /// This many workers can't be steered to.
    Workers(u16),
    /// The system refused.
    System {
        /// Where to listen.
        address: SocketAddr,
        /// What was tried.
        step: &'static str,
        /// Its answer.
        source: io::Error,
    },
}

impl std::fmt::Display for BindError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::InUse(address) => write!(
                f,
                "UDP port {} at {} is in use by another process: stop it or listen elsewhere",
                address.port(),
                address.ip()
            ),
            Self::Workers(workers) => {
                write!(f, "{workers} workers: choose 1 to {WORKERS_MAX}")
            }
            Self::System { address, step, source } => {
                write!(f, "cannot {step} for UDP {address}: {source}")
            }
        }
    }
}

impl std::error::Error for BindError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::System { source, .. } => Some(source),
            Self::InUse(_) | Self::Workers(_) => None,
        }
    }
}

impl Sockets {
    /// Binds one socket per worker to `listen` and steers datagrams to them. Port 0 takes a free
    /// one for all. `[::]` serves IPv4 as well.
    ///
    /// The first one is bound alone and shares its port only afterwards: bound as one that
    /// shares, it would silently join the sockets of another server of the same user, even on
    /// port 0, for which the kernel may choose a shared port.
    ///
    /// # Errors
    /// When another process serves the port, or the system refuses.
    pub fn bind(listen: SocketAddr, workers: u16) -> Result<Self, BindError> {
        if !(1..=WORKERS_MAX).contains(&workers) {
            return Err(BindError::Workers(workers));
        }
        let first = open(listen, false)?;
        let address = local(&first, listen)?;
        let mut sockets = vec![first];
        if workers > 1 {
            let fail = |step| move |source| system(address, step, source);
            sockets[0].set_reuse_port(true).map_err(fail(SHARE))?;
            for _ in 1..workers {
                sockets.push(open(address, true)?);
            }
            reuseport::attach(&sockets[0], workers).map_err(fail("attach the steering program"))?;
        }
        let sockets = sockets.into_iter().map(UdpSocket::from).collect();
        Ok(Self { sockets, address })
    }

    /// Where the server can be reached.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Puts the sockets in another order than the kernel knows, so that each datagram strays.
    #[cfg(test)]
    pub(crate) fn cross(&mut self) {
        self.sockets.rotate_left(1);
    }

    /// The sockets, in the order of the workers.
    pub fn into_vec(self) -> Vec<UdpSocket> {
        self.sockets
    }
}

/// Datagrams that came for a socket and found its receive buffer full; 0 where the kernel does
/// not tell.
pub fn dropped(socket: BorrowedFd<'_>) -> u64 {
    reuseport::dropped(socket).map_or(0, u64::from)
}

fn open(address: SocketAddr, share: bool) -> Result<Socket, BindError> {
    let fail = |step| move |source| system(address, step, source);
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))
        .map_err(fail("open a socket"))?;
    if address.is_ipv6() {
        let only_v6 = !address.ip().is_unspecified();
        socket.set_only_v6(only_v6).map_err(fail("choose the address family"))?;
    }
    if share {
        socket.set_reuse_port(true).map_err(fail(SHARE))?;
    }
    socket.set_nonblocking(true).map_err(fail("make the socket non-blocking"))?;
    socket.set_recv_buffer_size(RECEIVE_BUFFER_BYTES).map_err(fail("size the receive buffer"))?;
    socket.set_send_buffer_size(SEND_BUFFER_BYTES).map_err(fail("size the send buffer"))?;
    socket.bind(&address.into()).map_err(fail("listen"))?;
    Ok(socket)
}

fn local(socket: &Socket, listen: SocketAddr) -> Result<SocketAddr, BindError> {
    socket
        .local_addr()
        .map_err(|source| system(listen, "read the bound address", source))
        .map(|address| address.as_socket().unwrap_or(listen))
}

fn system(address: SocketAddr, step: &'static str, source: io::Error) -> BindError {
    if source.kind() == io::ErrorKind::AddrInUse {
        return BindError::InUse(address);
    }
    BindError::System { address, step, source }
}

#[cfg(test)]
mod tests {
    use super::super::steering::{STEERED_BYTES_MIN, worker_of};
    use super::*;
    use std::net::{Ipv4Addr, Ipv6Addr};
    use std::time::Duration;

    fn bind(ip: impl Into<std::net::IpAddr>, workers: u16) -> Sockets {
        Sockets::bind(SocketAddr::new(ip.into(), 0), workers).expect("a free port")
    }

    /// A datagram whose first id byte is `byte`, with something else where the other header form
    /// has its id.
    fn datagram(long: bool, byte: u8) -> Vec<u8> {
        let mut datagram = vec![byte.wrapping_add(1); 40];
        datagram[0] = if long { 0xc0 } else { 0x40 };
        datagram[if long { 6 } else { 1 }] = byte;
        datagram
    }

    /// Sends each datagram from a port of its own and checks which socket got it.
    fn check(sockets: &Sockets, target: SocketAddr, datagrams: &[Vec<u8>]) {
        for socket in &sockets.sockets {
            socket.set_nonblocking(false).expect("a socket");
            socket.set_read_timeout(Some(Duration::from_secs(5))).expect("a socket");
        }
        let source = SocketAddr::new(target.ip(), 0);
        for bytes in datagrams {
            let sender = UdpSocket::bind(source).expect("a free port");
            sender.send_to(bytes, target).expect("loopback takes it");
            let worker = worker_of(bytes, sockets.sockets.len() as u16);
            let mut buffer = [0; 64];
            let (length, _) = sockets.sockets[usize::from(worker.0)]
                .recv_from(&mut buffer)
                .unwrap_or_else(|_| panic!("{bytes:02x?} did not come to {worker:?}"));
            assert_eq!(&buffer[..length], bytes);
        }
    }

    /// Both headers, every steering byte, and what is too short to be steered.
    fn all_kinds() -> Vec<Vec<u8>> {
        let headers = [true, false].into_iter();
        let mut all: Vec<_> =
            headers.flat_map(|long| (0..=255).map(move |byte| datagram(long, byte))).collect();
        all.extend((1..STEERED_BYTES_MIN).map(|bytes| vec![0xff; bytes]));
        all
    }

    #[test]
    fn s08_the_kernel_steers_ipv4() {
        for workers in [1, 2, 3] {
            let sockets = bind(Ipv4Addr::LOCALHOST, workers);
            check(&sockets, sockets.address(), &all_kinds());
        }
    }

    #[test]
    fn s08_the_kernel_steers_ipv6() {
        let sockets = bind(Ipv6Addr::LOCALHOST, 3);
        check(&sockets, sockets.address(), &all_kinds());
    }

    #[test]
    fn s08_an_unspecified_ipv6_address_serves_both_families() {
        let sockets = bind(Ipv6Addr::UNSPECIFIED, 2);
        let port = sockets.address().port();
        check(&sockets, SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port), &all_kinds());
        check(&sockets, SocketAddr::new(Ipv6Addr::LOCALHOST.into(), port), &all_kinds());
    }

    #[test]
    fn what_the_kernel_drops_is_counted() {
        use std::os::fd::AsFd as _;
        let sockets = bind(Ipv4Addr::LOCALHOST, 1);
        let socket = sockets.sockets[0].as_fd();
        assert_eq!(dropped(socket), 0);
        let sender = UdpSocket::bind("127.0.0.1:0").expect("a free port");
        let floods = 2 * RECEIVE_BUFFER_BYTES / 1_000;
        for _ in 0..floods {
            sender.send_to(&[0; 1_000], sockets.address()).expect("loopback takes it");
        }
        assert!(dropped(socket) > 0, "nobody read {floods} datagrams");
    }

    #[test]
    fn a_second_server_on_the_port_is_told() {
        let first = bind(Ipv4Addr::LOCALHOST, 2);
        let error = Sockets::bind(first.address(), 2).expect_err("the port is taken");
        assert!(matches!(error, BindError::InUse(address) if address == first.address()));
        assert!(error.to_string().contains("in use by another process"), "{error}");
    }

    #[test]
    fn the_number_of_workers_has_bounds() {
        let listen = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0);
        for workers in [0, WORKERS_MAX + 1] {
            let error = Sockets::bind(listen, workers).expect_err("out of bounds");
            assert!(matches!(error, BindError::Workers(_)));
        }
    }
}
