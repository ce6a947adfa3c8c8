//! TCP over the modelled path: the kernel's own TCP, with its timers, windows and repairs, between
//! two network namespaces whose only way to each other are packets that the relay carries.
//!
//! ```text
//!  client ===> near socket | namespace A ---> TUN ---> relay ---> TUN ---> namespace B | ===> server
//!       (loopback: perfect)     the kernel's TCP over the modelled path       (loopback: perfect)
//! ```
//!
//! What a client writes is taken from its socket and written into a connection from A to B, and
//! comes out of that at the server: losses cost what they cost Linux's TCP on such a path, no more
//! and no less. The NAT gives ports between A and B; after a rebinding B knows nothing of the
//! connection and resets it, and so does the relay with the client's.

mod namespace;
mod splice;
mod tun;

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

use tern_netmodel::nat::Binding;
use tokio::io::unix::AsyncFd;
use tokio::task::AbortHandle;

use super::capture::{End, Taps};
use super::lane::Packet;
use super::wire::{Arrived, Wire};
use tun::Tun;

/// The clients' end of the path, an address for benchmarks (RFC 2544) that nobody else uses.
const NEAR: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);

/// The server's end of the path.
const FAR: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 2);

/// Longest packet in bytes.
const PACKET_BYTES_MAX: usize = 65_535;

/// The first port that the NAT gives, above those that have a meaning.
const PORT_FIRST: u64 = 1_024;

/// Ports that the NAT gives before it begins anew.
const PORTS: u64 = 64_000;

/// The two tunnels, and who feeds them.
pub(super) struct TcpWire {
    near: AsyncFd<Tun>,
    far: AsyncFd<Tun>,
    /// Which binding has each outer port, less [`PORT_FIRST`].
    bindings: Vec<Option<Binding>>,
    taps: Taps,
    buffers: [Vec<u8>; 2],
    splicer: AbortHandle,
}

impl TcpWire {
    /// Listens for clients; where they find it.
    pub(super) async fn open(
        listen: SocketAddr,
        server: SocketAddr,
        taps: Taps,
    ) -> io::Result<(SocketAddr, Self)> {
        let (near, connector) = namespace::near()?;
        let (far, accepted) = namespace::far()?;
        let (address, splicer) = splice::start(listen, server, connector, accepted).await?;
        let wire = Self {
            near: near.register()?,
            far: far.register()?,
            bindings: vec![None; PORTS as usize],
            taps,
            buffers: [(); 2].map(|()| vec![0; PACKET_BYTES_MAX]),
            splicer,
        };
        Ok((address, wire))
    }
}

impl Drop for TcpWire {
    fn drop(&mut self) {
        self.splicer.abort();
    }
}

impl Wire for TcpWire {
    async fn next(&mut self) -> Arrived {
        let [up, down] = &mut self.buffers;
        loop {
            let (end, bytes) = tokio::select! {
                Ok(bytes) = read(&self.near, up) => (End::Client, &up[..bytes]),
                Ok(bytes) = read(&self.far, down) => (End::Server, &down[..bytes]),
            };
            let Some(ports) = Ports::of(bytes) else { continue }; // the kernel's own chatter
            self.taps.passes_whole(end, bytes);
            if end == End::Client {
                let client = SocketAddrV4::new(NEAR, ports.source(bytes)).into();
                return Arrived::Up(client, bytes.into());
            }
            let index = u64::from(ports.target(bytes)).checked_sub(PORT_FIRST);
            let binding = index.and_then(|index| *self.bindings.get(index as usize)?);
            if let Some(binding) = binding {
                return Arrived::Down(binding, bytes.into());
            }
        }
    }

    async fn send_up(&mut self, binding: Binding, packet: &Packet) {
        let index = binding.0 % PORTS;
        self.bindings[index as usize] = Some(binding);
        let port = (PORT_FIRST + index) as u16; // fits: 65,024 at most
        let mut bytes = packet.bytes.clone();
        if let Some(ports) = Ports::of(&bytes) {
            ports.set_source(&mut bytes, port);
            self.taps.passes_whole(End::Server, &bytes);
            // A packet that the kernel does not take is lost like any other.
            let _ = self.far.get_ref().send(&bytes);
        }
    }

    async fn send_down(&mut self, packet: &Packet) {
        let mut bytes = packet.bytes.clone();
        if let Some(ports) = Ports::of(&bytes) {
            ports.set_target(&mut bytes, packet.client.port());
            self.taps.passes_whole(End::Client, &bytes);
            let _ = self.near.get_ref().send(&bytes);
        }
    }

    fn close(&mut self, binding: Binding) {
        let place = &mut self.bindings[(binding.0 % PORTS) as usize];
        if *place == Some(binding) {
            *place = None;
        }
    }

    fn taps(&mut self) -> &mut Taps {
        &mut self.taps
    }
}

async fn read(tun: &AsyncFd<Tun>, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        let mut ready = tun.readable().await?;
        if let Ok(read) = ready.try_io(|tun| tun.get_ref().receive(buffer)) {
            return read;
        }
    }
}

/// Where the ports of a TCP packet over IPv4 stand.
#[derive(Clone, Copy)]
struct Ports {
    at: usize,
}

impl Ports {
    /// `None` for any other packet.
    fn of(packet: &[u8]) -> Option<Self> {
        /// The number of TCP, and the shortest header that it has.
        const TCP: (u8, usize) = (6, 20);
        let first = *packet.first()?;
        let at = usize::from(first & 15) * 4;
        let fits = first >> 4 == 4 && *packet.get(9)? == TCP.0 && packet.len() >= at + TCP.1;
        fits.then_some(Self { at })
    }

    fn source(self, packet: &[u8]) -> u16 {
        u16::from_be_bytes([packet[self.at], packet[self.at + 1]])
    }

    fn target(self, packet: &[u8]) -> u16 {
        u16::from_be_bytes([packet[self.at + 2], packet[self.at + 3]])
    }

    fn set_source(self, packet: &mut [u8], port: u16) {
        self.set(packet, self.at, port);
    }

    fn set_target(self, packet: &mut [u8], port: u16) {
        self.set(packet, self.at + 2, port);
    }

    /// Sets a port, and the checksum as RFC 1624 has it: `~(~sum + ~old + new)`.
    fn set(self, packet: &mut [u8], at: usize, port: u16) {
        let word = |at: usize| u16::from_be_bytes([packet[at], packet[at + 1]]);
        let (old, sum_at) = (word(at), self.at + 16);
        let mut sum = u32::from(!word(sum_at)) + u32::from(!old) + u32::from(port);
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        let sum = !(sum as u16); // fits: folded above
        packet[at..at + 2].copy_from_slice(&port.to_be_bytes());
        packet[sum_at..sum_at + 2].copy_from_slice(&sum.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::{PacketBuilder, SlicedPacket, TransportSlice};

    #[test]
    fn another_port_keeps_the_checksum_right() {
        let mut bytes = Vec::new();
        let builder = PacketBuilder::ipv4(NEAR.octets(), FAR.octets(), 9).tcp(40_001, 7, 5, 6);
        builder.write(&mut bytes, b"some bytes").unwrap();
        for port in [0, 1, 255, 256, 40_001, 65_535] {
            let ports = Ports::of(&bytes).unwrap();
            ports.set_source(&mut bytes, port);
            ports.set_target(&mut bytes, port ^ 0x1234);
            assert_eq!((ports.source(&bytes), ports.target(&bytes)), (port, port ^ 0x1234));
            let sliced = SlicedPacket::from_ip(&bytes).unwrap();
            let Some(TransportSlice::Tcp(tcp)) = sliced.transport else { panic!("it is TCP") };
            let right = tcp.calc_checksum_ipv4(NEAR.octets(), FAR.octets()).unwrap();
            assert_eq!(tcp.checksum(), right, "port {port}");
        }
        assert!((0..40).all(|cut| Ports::of(&bytes[..cut]).is_none()));
    }
}
