//! A bad link over real sockets: a device speaks to the relay, the relay to the server.
//!
//! Each device has a relay of its own. Each address that the device speaks from gets an upstream
//! socket of its own, so the server sees as many addresses as the device has; [`Relay::rebind`]
//! replaces the newest one, as a NAT does that has forgotten a binding. What happens to a packet
//! is decided by two [`Link`]s, one a direction; here it is only kept until it is due.
//!
//! Packets for a server that is down are gone, as on any network: nobody is told.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::link::{Counts, Link, Ticket, Weather};
use super::random::Random;

/// Largest datagram in bytes that UDP can carry.
const DATAGRAM_BYTES_MAX: usize = 65_535;

/// Packets from the server that wait for the relay's task; a reader that finds it full waits.
const ARRIVALS_MAX: usize = 256;

/// A running relay; it ends when dropped.
#[derive(Debug)]
pub struct Relay {
    address: SocketAddr,
    rebinds: mpsc::Sender<()>,
    links: Arc<Mutex<Links>>,
    task: AbortHandle,
}

/// The two directions.
#[derive(Debug)]
struct Links {
    up: Link,
    down: Link,
}

impl Relay {
    /// Starts a relay to `server`; `purpose` names it among those of the same seed.
    ///
    /// # Errors
    /// When no socket can be had.
    pub async fn start(
        server: SocketAddr,
        weather: Weather,
        seed: u64,
        purpose: u64,
    ) -> io::Result<Self> {
        let near = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = near.local_addr()?;
        let link = |way| Link::new(weather, Random::new(seed, 2 * purpose + way));
        let links = Arc::new(Mutex::new(Links { up: link(0), down: link(1) }));
        let (rebinds, orders) = mpsc::channel(1);
        let carrier = Carrier::new(near, server, Arc::clone(&links));
        let task = tokio::spawn(carrier.run(orders)).abort_handle();
        Ok(Self { address, rebinds, links, task })
    }

    /// Where the device finds the server.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Gives the device's newest address another one on the server's side.
    pub fn rebind(&self) {
        // One that is still to come does for this one too.
        let _ = self.rebinds.try_send(());
    }

    /// What happened to the packets of both directions.
    pub fn counts(&self) -> Counts {
        let links = lock(&self.links);
        let mut counts = links.up.counts();
        counts += links.down.counts();
        counts
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn lock(links: &Mutex<Links>) -> MutexGuard<'_, Links> {
    links.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The task of a relay.
struct Carrier {
    near: UdpSocket,
    server: SocketAddr,
    links: Arc<Mutex<Links>>,
    far: HashMap<SocketAddr, Upstream>,
    newest: Option<SocketAddr>,
    flights: BinaryHeap<Reverse<Flight>>,
    flights_made: u64,
    arrivals: (mpsc::Sender<Arrival>, mpsc::Receiver<Arrival>),
}

/// A packet from the server, and the device's address that it is for.
type Arrival = (SocketAddr, Vec<u8>);

/// The socket that stands for one address of the device towards the server.
struct Upstream {
    socket: Arc<UdpSocket>,
    reader: AbortHandle,
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

/// A copy of a packet on its way. Ordered by its time; among equals, by who took off first.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Flight {
    due: Instant,
    number: u64,
    ticket: Ticket,
    way: Way,
    bytes: Vec<u8>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Way {
    /// From this address of the device.
    Up(SocketAddr),
    /// To this address of the device.
    Down(SocketAddr),
}

impl Carrier {
    fn new(near: UdpSocket, server: SocketAddr, links: Arc<Mutex<Links>>) -> Self {
        Self {
            near,
            server,
            links,
            far: HashMap::new(),
            newest: None,
            flights: BinaryHeap::new(),
            flights_made: 0,
            arrivals: mpsc::channel(ARRIVALS_MAX),
        }
    }

    async fn run(mut self, mut orders: mpsc::Receiver<()>) {
        let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
        loop {
            let due = self.flights.peek().map(|Reverse(flight)| flight.due);
            tokio::select! {
                // An error of this socket tells of a device that is gone; the next read goes on.
                Ok((bytes, from)) = self.near.recv_from(&mut buffer) => {
                    if self.open(from).await.is_ok() {
                        self.take_off(Way::Up(from), &buffer[..bytes]);
                    }
                }
                Some((to, bytes)) = self.arrivals.1.recv() => {
                    self.take_off(Way::Down(to), &bytes);
                }
                () = tokio::time::sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    self.land().await;
                }
                order = orders.recv() => match order {
                    Some(()) => self.rebind().await,
                    None => return,
                },
            }
        }
    }

    /// Makes sure that an address of the device has its upstream socket.
    async fn open(&mut self, from: SocketAddr) -> io::Result<()> {
        self.newest = Some(from);
        if !self.far.contains_key(&from) {
            let upstream = self.upstream(from).await?;
            self.far.insert(from, upstream);
        }
        Ok(())
    }

    async fn rebind(&mut self) {
        let Some(newest) = self.newest else { return };
        if let Ok(upstream) = self.upstream(newest).await {
            self.far.insert(newest, upstream);
        }
    }

    async fn upstream(&self, device: SocketAddr) -> io::Result<Upstream> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        socket.connect(self.server).await?;
        let socket = Arc::new(socket);
        let reader = read_upstream(Arc::clone(&socket), device, self.arrivals.0.clone());
        Ok(Upstream { socket, reader: tokio::spawn(reader).abort_handle() })
    }

    fn take_off(&mut self, way: Way, bytes: &[u8]) {
        let mut links = lock(&self.links);
        let link = match way {
            Way::Up(_) => &mut links.up,
            Way::Down(_) => &mut links.down,
        };
        let now = Instant::now();
        let (ticket, delays) = link.offer();
        for delay in delays {
            self.flights_made += 1;
            let (due, number) = (now + delay, self.flights_made);
            self.flights.push(Reverse(Flight { due, number, ticket, way, bytes: bytes.into() }));
        }
    }

    /// Lets out everything that is due.
    async fn land(&mut self) {
        let now = Instant::now();
        while self.flights.peek().is_some_and(|Reverse(flight)| flight.due <= now) {
            let Some(Reverse(flight)) = self.flights.pop() else { return };
            // What a socket refuses is as lost as any packet.
            match flight.way {
                Way::Up(from) => {
                    lock(&self.links).up.came_out(flight.ticket);
                    let _ = self.far[&from].socket.send(&flight.bytes).await;
                }
                Way::Down(to) => {
                    lock(&self.links).down.came_out(flight.ticket);
                    let _ = self.near.send_to(&flight.bytes, to).await;
                }
            }
        }
    }
}

/// Hands on what the server says, until the relay ends. While the server is down its port
/// refuses packets, which the socket reports as errors.
async fn read_upstream(
    socket: Arc<UdpSocket>,
    device: SocketAddr,
    arrivals: mpsc::Sender<Arrival>,
) {
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    loop {
        match socket.recv(&mut buffer).await {
            Ok(bytes) => {
                if arrivals.send((device, buffer[..bytes].into())).await.is_err() {
                    return;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const CLEAR: Weather = Weather {
        loss: 0.0,
        duplicates: 0.0,
        delay: Duration::from_millis(1),
        jitter: Duration::ZERO,
    };

    async fn socket() -> UdpSocket {
        UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a socket")
    }

    async fn receive(socket: &UdpSocket) -> (Vec<u8>, SocketAddr) {
        let mut buffer = [0; 64];
        let (bytes, from) = socket.recv_from(&mut buffer).await.expect("a packet");
        (buffer[..bytes].into(), from)
    }

    fn run<T>(test: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(test)
    }

    #[test]
    fn packets_go_both_ways_and_addresses_are_kept_apart() {
        run(async {
            let (server, first, second) = (socket().await, socket().await, socket().await);
            let relay = Relay::start(server.local_addr().expect("bound"), CLEAR, 1, 0).await;
            let relay = relay.expect("a relay");
            first.send_to(b"one", relay.address()).await.expect("sent");
            let (bytes, first_seen) = receive(&server).await;
            assert_eq!(bytes, b"one");
            second.send_to(b"two", relay.address()).await.expect("sent");
            let (_, second_seen) = receive(&server).await;
            assert_ne!(first_seen, second_seen);
            server.send_to(b"back", first_seen).await.expect("sent");
            assert_eq!(receive(&first).await, (b"back".to_vec(), relay.address()));
            let counts = relay.counts();
            assert_eq!((counts.offered, counts.forwarded), (3, 3));
        });
    }

    #[test]
    fn a_rebinding_changes_the_address_that_the_server_sees() {
        run(async {
            let (server, device) = (socket().await, socket().await);
            let relay = Relay::start(server.local_addr().expect("bound"), CLEAR, 1, 0).await;
            let relay = relay.expect("a relay");
            device.send_to(b"before", relay.address()).await.expect("sent");
            let (_, before) = receive(&server).await;
            relay.rebind();
            let after = loop {
                device.send_to(b"after", relay.address()).await.expect("sent");
                let (_, seen) = receive(&server).await;
                if seen != before {
                    break seen;
                }
            };
            server.send_to(b"back", after).await.expect("sent");
            assert_eq!(receive(&device).await.0, b"back");
        });
    }

    #[test]
    fn a_link_that_loses_everything_lets_nothing_through() {
        run(async {
            let (server, device) = (socket().await, socket().await);
            let weather = Weather { loss: 1.0, ..CLEAR };
            let relay = Relay::start(server.local_addr().expect("bound"), weather, 1, 0).await;
            let relay = relay.expect("a relay");
            while relay.counts().lost < 10 {
                device.send_to(b"x", relay.address()).await.expect("sent");
                tokio::task::yield_now().await;
            }
            let nothing = server.try_recv(&mut [0; 8]).expect_err("nothing came");
            assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
        });
    }
}
