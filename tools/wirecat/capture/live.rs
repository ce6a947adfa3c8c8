//! A live interface, by a packet socket of Linux: the IP packets that pass it, without what the
//! link puts before them, so that every kind of interface reads alike.

use std::fmt;
use std::io::{self, IoSliceMut};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, LinkAddr, MsgFlags, RecvMsg, SockFlag, SockProtocol,
    SockType, bind, recvmsg, setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike as _};

use super::packet::{datagram, link};
use super::{CaptureError, Item, Packet, Stamp};

/// The name that stands for all interfaces.
const ANY: &str = "any";

/// Bytes of the longest packet: the system hands over several datagrams in one piece.
const PACKET_BYTES_MAX: usize = 1 << 17;

/// Bytes that may wait in the socket: some tens of thousands of packets.
const SOCKET_BYTES: usize = 64 << 20;

/// Between two looks at the clock while nothing passes, in milliseconds.
const LOOK_MS: i64 = 100;

/// `ARPHRD_LOOPBACK`: each packet passes such an interface on its way out and on its way in.
const LOOPBACK: u16 = 772;

/// `PACKET_OUTGOING`: it was seen on its way out.
const OUTGOING: u8 = 4;

/// `ETH_P_IP` and `ETH_P_IPV6`.
const IP: [u16; 2] = [0x0800, 0x86dd];

/// What of an interface is captured.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Its name, or `any`.
    pub interface: String,
    /// Only datagrams from or to this UDP port.
    pub port: Option<u16>,
    /// For how long.
    pub lasts: Option<Duration>,
}

/// A capture that runs.
pub struct Live {
    socket: OwnedFd,
    /// The interface's number; `None` for all.
    index: Option<usize>,
    port: Option<u16>,
    until: Option<Instant>,
    buffer: Vec<u8>,
    control: Vec<u8>,
    packets: u64,
    lost: u32,
}

impl fmt::Debug for Live {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Live").field("packets", &self.packets).finish_non_exhaustive()
    }
}

impl Live {
    /// Begins to listen.
    ///
    /// # Errors
    /// When there is no such interface, or this process may not listen there.
    pub fn listen(wanted: &Wanted) -> Result<Self, CaptureError> {
        let name = &wanted.interface;
        let wrong = |error: Errno| CaptureError::Interface(name.clone(), error.into());
        let own = (name != ANY).then(|| interface(name)).transpose()?;
        let flags = SockFlag::SOCK_CLOEXEC;
        let kind = SockType::Datagram; // without the link's header
        let socket = socket(AddressFamily::Packet, kind, flags, SockProtocol::EthAll);
        let socket = socket.map_err(wrong)?;
        if let Some(address) = &own {
            bind(socket.as_raw_fd(), address).map_err(wrong)?;
        }
        // Without the right to more the system grants what it grants all.
        if setsockopt(&socket, sockopt::RcvBufForce, &SOCKET_BYTES).is_err() {
            setsockopt(&socket, sockopt::RcvBuf, &SOCKET_BYTES).map_err(wrong)?;
        }
        let look = TimeVal::milliseconds(LOOK_MS);
        setsockopt(&socket, sockopt::ReceiveTimeout, &look).map_err(wrong)?;
        setsockopt(&socket, sockopt::ReceiveTimestampns, &true).map_err(wrong)?;
        setsockopt(&socket, sockopt::RxqOvfl, &1).map_err(wrong)?;
        Ok(Self {
            socket,
            index: own.map(|address| address.ifindex()),
            port: wanted.port,
            until: wanted.lasts.map(|lasts| Instant::now() + lasts),
            buffer: vec![0; PACKET_BYTES_MAX],
            control: nix::cmsg_space!(nix::sys::time::TimeSpec, u32),
            packets: 0,
            lost: 0,
        })
    }

    /// Waits for the next packet; `None` when the time is over.
    ///
    /// # Errors
    /// When the interface is gone.
    pub fn next_item(&mut self) -> Result<Option<Item>, CaptureError> {
        loop {
            if self.until.is_some_and(|until| until <= Instant::now()) {
                return Ok(None);
            }
            match self.receive() {
                Ok(Some(packet)) => return Ok(Some(Item::Packet(packet))),
                Ok(None) | Err(Errno::EAGAIN | Errno::EINTR) => {}
                Err(error) => {
                    let name = self.index.map_or(ANY.to_owned(), |index| format!("number {index}"));
                    return Err(CaptureError::Interface(name, error.into()));
                }
            }
        }
    }

    /// Packets that passed faster than they were read, and are missing.
    pub fn lost(&self) -> u32 {
        self.lost
    }

    /// The next packet, if it is wanted.
    fn receive(&mut self) -> Result<Option<Packet>, Errno> {
        let mut pieces = [IoSliceMut::new(&mut self.buffer)];
        let (socket, flags) = (self.socket.as_raw_fd(), MsgFlags::empty());
        let got: RecvMsg<'_, '_, LinkAddr> =
            recvmsg(socket, &mut pieces, Some(&mut self.control), flags)?;
        let mut at = Stamp::default();
        for message in got.cmsgs()? {
            match message {
                ControlMessageOwned::ScmTimestampns(time) => {
                    let (seconds, nanos) = (time.tv_sec(), time.tv_nsec());
                    at = Stamp(u64::try_from(seconds * 1_000_000_000 + nanos).unwrap_or(0));
                }
                ControlMessageOwned::RxqOvfl(lost) => self.lost = lost,
                _ => {}
            }
        }
        let (from, bytes) = (got.address, got.bytes);
        let Some(from) = from.filter(|from| self.is_wanted(from)) else { return Ok(None) };
        let packet = Packet {
            number: self.packets + 1,
            at,
            interface: u32::try_from(from.ifindex()).unwrap_or(0),
            link: link::RAW,
            bytes: self.buffer[..bytes].to_vec(),
        };
        let ports = datagram(&packet).map(|datagram| [datagram.from.port(), datagram.to.port()]);
        let is_wanted =
            ports.is_some_and(|ports| self.port.is_none_or(|port| ports.contains(&port)));
        self.packets += u64::from(is_wanted);
        Ok(is_wanted.then_some(packet))
    }

    /// Whether it is an IP packet of the interface; one that passes it twice is seen once. Before
    /// it is bound, the socket hears all of them.
    fn is_wanted(&self, from: &LinkAddr) -> bool {
        let is_second = from.hatype() == LOOPBACK && from.pkttype() == OUTGOING;
        let is_here = self.index.is_none_or(|index| index == from.ifindex());
        is_here && !is_second && IP.contains(&u16::from_be(from.protocol()))
    }
}

/// The address of an interface.
fn interface(name: &str) -> Result<LinkAddr, CaptureError> {
    let wrong = |error: Errno| CaptureError::Interface(name.to_owned(), error.into());
    let mut names = vec![ANY.to_owned()];
    for one in getifaddrs().map_err(wrong)? {
        let address = one.address.as_ref().and_then(|address| address.as_link_addr().copied());
        let Some(address) = address else { continue };
        if one.interface_name == name {
            return Ok(address);
        }
        names.push(one.interface_name);
    }
    let there = format!("there is none of this name, but {}", names.join(", "));
    Err(CaptureError::Interface(name.to_owned(), io::Error::new(io::ErrorKind::NotFound, there)))
}
