//! Datagrams: one socket towards the clients, one towards the server for each outer address.
//!
//! Packets for a server that is down are gone, as on any network: nobody is told.

use std::io;
use std::net::SocketAddr;

use tern_netmodel::nat::Binding;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;

use super::capture::{End, Taps};
use super::lane::Packet;
use super::upstream::{Arrival, DATAGRAM_BYTES_MAX, Upstreams};
use super::wire::{Arrived, Wire};

/// Packets from the server that wait for the relay's task; a reader that finds it full waits.
const ARRIVALS_MAX: usize = 256;

/// The sockets.
pub(super) struct UdpWire {
    near: UdpSocket,
    address: SocketAddr,
    server: SocketAddr,
    upstreams: Upstreams,
    arrivals: mpsc::Receiver<Arrival>,
    taps: Taps,
    buffer: Vec<u8>,
}

impl UdpWire {
    /// Listens for clients; where they find it.
    pub(super) async fn open(
        listen: SocketAddr,
        server: SocketAddr,
        taps: Taps,
    ) -> io::Result<(SocketAddr, Self)> {
        let near = UdpSocket::bind(listen).await?;
        let address = near.local_addr()?;
        let (tell, arrivals) = mpsc::channel(ARRIVALS_MAX);
        let upstreams = Upstreams::new(server, tell);
        let buffer = vec![0; DATAGRAM_BYTES_MAX];
        Ok((address, Self { near, address, server, upstreams, arrivals, taps, buffer }))
    }
}

impl Wire for UdpWire {
    async fn next(&mut self) -> Arrived {
        loop {
            tokio::select! {
                received = self.near.recv_from(&mut self.buffer) => {
                    // An error tells of a client that is gone; the next read goes on.
                    let Ok((bytes, from)) = received else { continue };
                    let bytes = &self.buffer[..bytes];
                    self.taps.passes(End::Client, from, self.address, bytes);
                    return Arrived::Up(from, bytes.into());
                }
                Some((binding, bytes)) = self.arrivals.recv() => {
                    if let Some(outer) = self.upstreams.address(binding) {
                        self.taps.passes(End::Server, self.server, outer, &bytes);
                    }
                    return Arrived::Down(binding, bytes);
                }
            }
        }
    }

    async fn send_up(&mut self, binding: Binding, packet: &Packet) {
        // Without a socket the packet is lost; the next one tries again.
        let sent = self.upstreams.send(binding, &packet.bytes).await;
        if let (Ok(()), Some(outer)) = (sent, self.upstreams.address(binding)) {
            self.taps.passes(End::Server, outer, self.server, &packet.bytes);
        }
    }

    async fn send_down(&mut self, packet: &Packet) {
        self.taps.passes(End::Client, self.address, packet.client, &packet.bytes);
        // What a socket refuses is as lost as any packet.
        let _ = self.near.send_to(&packet.bytes, packet.client).await;
    }

    fn close(&mut self, binding: Binding) {
        self.upstreams.close(binding);
    }

    fn taps(&mut self) -> &mut Taps {
        &mut self.taps
    }
}
