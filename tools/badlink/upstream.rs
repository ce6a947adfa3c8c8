//! The sockets towards the server: one for each outer address.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use tern_netmodel::nat::Binding;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

/// Largest datagram in bytes that UDP can carry.
pub(super) const DATAGRAM_BYTES_MAX: usize = 65_535;

/// A packet from the server, and the outer address that it came for.
pub(super) type Arrival = (Binding, Box<[u8]>);

/// The open sockets.
#[derive(Debug)]
pub(super) struct Upstreams {
    server: SocketAddr,
    tell: mpsc::Sender<Arrival>,
    open: HashMap<Binding, Upstream>,
}

/// The socket that stands for one outer address.
#[derive(Debug)]
struct Upstream {
    socket: Arc<UdpSocket>,
    /// The outer address itself.
    address: SocketAddr,
    reader: AbortHandle,
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl Upstreams {
    pub(super) fn new(server: SocketAddr, tell: mpsc::Sender<Arrival>) -> Self {
        Self { server, tell, open: HashMap::new() }
    }

    /// Sends from an outer address; opens its socket if there is none.
    pub(super) async fn send(&mut self, binding: Binding, bytes: &[u8]) -> io::Result<()> {
        if !self.open.contains_key(&binding) {
            let upstream = self.connect(binding).await?;
            self.open.insert(binding, upstream);
        }
        self.open[&binding].socket.send(bytes).await.map(|_| ())
    }

    /// The outer address that a binding stands for, while its socket is open.
    pub(super) fn address(&self, binding: Binding) -> Option<SocketAddr> {
        self.open.get(&binding).map(|upstream| upstream.address)
    }

    /// Nothing leaves or comes by this address any more.
    pub(super) fn close(&mut self, binding: Binding) {
        self.open.remove(&binding);
    }

    async fn connect(&self, binding: Binding) -> io::Result<Upstream> {
        let any: SocketAddr = match self.server {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let socket = UdpSocket::bind(any).await?;
        socket.connect(self.server).await?;
        let socket = Arc::new(socket);
        let reader = read(Arc::clone(&socket), binding, self.tell.clone());
        let address = socket.local_addr()?;
        Ok(Upstream { socket, address, reader: tokio::spawn(reader).abort_handle() })
    }
}

/// Hands on what the server says, until the relay ends. While the server is down its port
/// refuses packets, which the socket reports as errors.
async fn read(socket: Arc<UdpSocket>, binding: Binding, tell: mpsc::Sender<Arrival>) {
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    loop {
        match socket.recv(&mut buffer).await {
            Ok(bytes) => {
                if tell.send((binding, buffer[..bytes].into())).await.is_err() {
                    return;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
            Err(_) => return,
        }
    }
}
