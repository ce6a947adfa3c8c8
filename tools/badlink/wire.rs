//! What a relay needs of the wire that packets come and go by.

use std::net::SocketAddr;

use tern_netmodel::nat::Binding;

use super::capture::Taps;
use super::lane::Packet;

/// A packet that came.
pub(super) enum Arrived {
    /// From a client.
    Up(SocketAddr, Box<[u8]>),
    /// From the server, for an outer address.
    Down(Binding, Box<[u8]>),
}

/// A wire. What it can't send is as lost as any packet.
pub(super) trait Wire: Send + 'static {
    /// The next packet. A future that is dropped loses none.
    fn next(&mut self) -> impl Future<Output = Arrived> + Send;

    /// A client's packet leaves under an outer address.
    fn send_up(&mut self, binding: Binding, packet: &Packet) -> impl Future<Output = ()> + Send;

    /// The server's packet comes through to its client.
    fn send_down(&mut self, packet: &Packet) -> impl Future<Output = ()> + Send;

    /// Nothing leaves or comes under this outer address any more.
    fn close(&mut self, binding: Binding);

    /// What is captured.
    fn taps(&mut self) -> &mut Taps;
}
