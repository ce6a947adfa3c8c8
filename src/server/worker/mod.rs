//! The workers: one thread per core, each with its own socket, its QUIC endpoint and connections,
//! its mailbox, and one [`Machine`] that decides everything.
//!
//! The way of a datagram through a turn of `driver`:
//!
//! 1. `receive`: a batch from the socket; a stray goes to its worker by `inbox`; quinn-proto
//!    finds or accepts its connection.
//!    What comes of who is not logged in yet waits for the end of a turn (`guests`).
//! 2. `serve`: the connection's events; bytes of the control stream, cut by `tern_quic::frames` into
//!    frames, each of which is one `Input` to the machine.
//! 3. `effects`: what the machine wants done: frames and pushes written to streams (`links`),
//!    closes, questions. Pushes that need not keep their order go by datagram
//!    (`tern_quic::free`). What happened to messages goes into the flight recorder (`moments`).
//! 4. `inbox`: mail, proofs, answers, commands, each an `Input` again.
//! 5. `commit`, mail to other workers, `transmit`, some of what guests wait for, and sleep.
//!
//! What is absent: no lock, no call that waits for anything but the poll, no state shared with
//! another thread but the inboxes and the [`Board`]. In the steady state nothing is allocated
//! per message but by quinn-proto: datagrams and frames live in blocks that are used again
//! (`pool`).

mod machine;
pub use machine::{Directory, Machine, Warmer};

mod inbox;
pub use inbox::{Command, Doors, Look, LookAt, QUERIES_MAX, Seat, Seen, WARMS_MAX};
mod sleep;

mod driver;
mod effects;
mod receive;
mod serve;
mod transmit;

mod guests;
mod links;
mod moments;
mod pool;
mod timers;

mod resets;
pub use resets::{PASS_GAP, PASSES, Peer, RESETS_PER_MS, take_peers};

mod status;
pub use status::{Board, Counts, Histogram, Snapshot};

mod thread;

#[cfg(test)]
mod tests;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use quinn_proto::Endpoint;
use tern_core::log::Reader;
use tern_storage::Recorder;

use self::driver::{Driver, Parts};
use self::resets::{PeerList, ResetSender};
use crate::transport::settings::{self, TransportKeys, TransportSettings};
use crate::transport::sockets::Sockets;

/// Everything that the workers are made of.
pub struct Setup<M, R> {
    /// One socket per worker.
    pub sockets: Sockets,
    /// From [`Doors::open`].
    pub seats: Vec<Seat>,
    /// For each worker its machine, and a reader of all logs for its pushes.
    pub machines: Vec<(M, R)>,
    /// What the operator chose.
    pub settings: TransportSettings,
    /// From the data folder.
    pub keys: TransportKeys,
    /// From [`crate::transport::tls::server_config`].
    pub tls: rustls::ServerConfig,
    /// Who knows the users.
    pub directory: Arc<dyn Directory>,
    /// Who reads cold records.
    pub warmer: Arc<dyn Warmer>,
    /// The folder, best in shared memory, for the lists of live connections, and the clients that
    /// [`take_peers`] found there at this start; `None` keeps no lists.
    pub peers: Option<(PathBuf, Vec<Peer>)>,
    /// For each worker its part of the flight recorder, or none for any.
    pub recorders: Vec<Recorder>,
    /// How long a worker looks for work before it sleeps. It saves a wake-up of about 35 µs and
    /// costs a core; zero sleeps at once.
    pub spin: Duration,
    /// Whether each worker stays on a core of its own.
    pub pin: bool,
}

/// The running workers.
pub struct Workers<M> {
    address: SocketAddr,
    doors: Arc<Doors>,
    threads: Vec<JoinHandle<Ended<M>>>,
}

/// What a worker leaves. Its socket stays open until all workers have ended: closing one would
/// steer the datagrams of the others wrong.
struct Ended<M> {
    machine: M,
    socket: driver::Socket,
}

/// Starts all workers.
///
/// # Errors
/// When a socket, a list of connections or a thread can't be set up; none runs then.
///
/// # Panics
/// If the sockets, seats and machines are not as many as the workers.
pub fn spawn_all<M, R>(setup: Setup<M, R>) -> io::Result<Workers<M>>
where
    M: Machine + Send + 'static,
    R: Reader + Send + 'static,
{
    let Setup { sockets, seats, machines, settings, keys, tls, directory, warmer, .. } = setup;
    let doors = Arc::clone(&seats.first().expect("there is a worker").doors);
    let workers = doors.placement().workers();
    let address = sockets.address();
    let sockets = sockets.into_vec();
    let count = usize::from(workers);
    assert!(sockets.len() == count && seats.len() == count && machines.len() == count);

    let server = Arc::new(settings::server(&settings, &keys, Arc::new(tls)));
    let settings = Arc::new(settings);
    let (folder, peers) = setup.peers.map_or((None, Vec::new()), |(f, p)| (Some(f), p));
    let mut recorders = setup.recorders.into_iter();
    let (epoch, mut drivers) = (Instant::now(), Vec::with_capacity(count));
    for ((socket, seat), (machine, reader)) in sockets.into_iter().zip(seats).zip(machines) {
        let id = seat.id;
        let share = peers.iter().skip(usize::from(id.0)).step_by(count).copied().collect();
        let endpoint_config = Arc::new(settings::endpoint(&keys, id, workers));
        let peer_list = folder.as_deref().map(|folder| PeerList::create(folder, id)).transpose()?;
        drivers.push(Driver::new(Parts {
            machine,
            reader,
            seat,
            socket,
            endpoint: Endpoint::new(endpoint_config, Some(Arc::clone(&server)), false, None),
            settings: Arc::clone(&settings),
            directory: Arc::clone(&directory),
            warmer: Arc::clone(&warmer),
            peer_list,
            recorder: recorders.next(),
            resets: ResetSender::new(share, keys.reset_key(), epoch),
            spin: setup.spin,
            epoch,
        })?);
    }
    let threads = start(drivers, setup.pin)?;
    Ok(Workers { address, doors, threads })
}

/// Starts the threads; all of them or, if one can't be had, none.
fn start<M, R>(drivers: Vec<Driver<M, R>>, pin: bool) -> io::Result<Vec<JoinHandle<Ended<M>>>>
where
    M: Machine + Send + 'static,
    R: Reader + Send + 'static,
{
    let mut threads = Vec::with_capacity(drivers.len());
    let mut starts = Vec::with_capacity(drivers.len());
    for (number, driver) in drivers.into_iter().enumerate() {
        let (start, started) = mpsc::sync_channel::<()>(1);
        let name = format!("tern-worker-{number}");
        let thread = std::thread::Builder::new().name(name).spawn(move || {
            if pin {
                thread::pin(number);
            }
            match started.recv() {
                Ok(()) => driver.run(),
                Err(_) => driver.finish(),
            }
        })?;
        threads.push(thread);
        starts.push(start);
    }
    for start in starts {
        start.send(()).expect("a started thread waits for this");
    }
    Ok(threads)
}

impl<M> Workers<M> {
    /// Where clients reach the server.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The way to the workers.
    pub fn doors(&self) -> &Arc<Doors> {
        &self.doors
    }

    /// Tells every client to come back and ends when all know, at the latest after `longest`.
    /// Gives the machines back.
    pub fn drain(self, longest: Duration) -> Vec<M> {
        self.doors.command_all(Command::Drain(longest));
        self.join()
    }

    /// Ends at once, without a word to any client, as a crash would.
    pub fn stop(self) -> Vec<M> {
        self.doors.command_all(Command::Stop);
        self.join()
    }

    /// Waits for the end of all workers, which a command brings about.
    ///
    /// # Panics
    /// With the panic of a worker, if one did.
    pub fn join(self) -> Vec<M> {
        let end = |thread: JoinHandle<Ended<M>>| match thread.join() {
            Ok(ended) => (ended.machine, ended.socket),
            Err(panic) => std::panic::resume_unwind(panic),
        };
        let (machines, sockets): (_, Vec<_>) = self.threads.into_iter().map(end).unzip();
        drop(sockets);
        machines
    }
}
