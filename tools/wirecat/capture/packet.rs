//! Datagrams out of captured packets: link layer, IP, UDP.

use std::net::{IpAddr, SocketAddr};

use etherparse::{EtherType, NetSlice, SlicedPacket, TransportSlice};

use super::Packet;

/// A UDP datagram.
#[derive(Clone, Copy, Debug)]
pub struct Datagram<'a> {
    /// Who sent it.
    pub from: SocketAddr,
    /// To whom.
    pub to: SocketAddr,
    /// What it says.
    pub payload: &'a [u8],
}

/// Link layers, by the list of tcpdump.org.
pub(super) mod link {
    pub(super) const NULL: i32 = 0;
    pub(super) const ETHERNET: i32 = 1;
    pub(in crate::capture) const RAW: i32 = 101;
    pub(super) const LOOP: i32 = 108;
    pub(super) const LINUX_SLL: i32 = 113;
    pub(super) const IPV4: i32 = 228;
    pub(super) const IPV6: i32 = 229;
    pub(super) const LINUX_SLL2: i32 = 276;
}

/// The datagram in a packet; `None` for anything else, pieces of datagrams among it: QUIC forbids
/// those.
pub fn datagram(packet: &Packet) -> Option<Datagram<'_>> {
    let bytes = packet.bytes.as_slice();
    let sliced = match packet.link {
        link::ETHERNET => SlicedPacket::from_ethernet(bytes).ok()?,
        link::LINUX_SLL => SlicedPacket::from_linux_sll(bytes).ok()?,
        link::RAW | link::IPV4 | link::IPV6 => SlicedPacket::from_ip(bytes).ok()?,
        link::NULL | link::LOOP => SlicedPacket::from_ip(bytes.get(4..)?).ok()?,
        link::LINUX_SLL2 => {
            // Protocol, then 18 bytes of interface and address, then the packet.
            let kind = u16::from_be_bytes([*bytes.first()?, *bytes.get(1)?]);
            SlicedPacket::from_ether_type(EtherType(kind), bytes.get(20..)?).ok()?
        }
        _ => return None,
    };
    let (from, to): (IpAddr, IpAddr) = match &sliced.net {
        Some(NetSlice::Ipv4(ip)) => {
            (ip.header().source_addr().into(), ip.header().destination_addr().into())
        }
        Some(NetSlice::Ipv6(ip)) => {
            (ip.header().source_addr().into(), ip.header().destination_addr().into())
        }
        _ => return None,
    };
    let Some(TransportSlice::Udp(udp)) = sliced.transport else { return None };
    Some(Datagram {
        from: (from, udp.source_port()).into(),
        to: (to, udp.destination_port()).into(),
        payload: udp.payload(),
    })
}
