//! The assembly of a server, and its life: up, ready, down in order.
//!
//! Up, each step able to fail with a word on what to do, in an order that spoils nothing:
//!
//! 1. the data folder's lock, so that a second server on it ends here;
//! 2. the port, so that a second server on it ends here;
//! 3. the control plane, so that commands are answered while the logs are read;
//! 4. recovery of the logs;
//! 5. the workers, and the word "ready".
//!
//! Down, at a signal or `tern stop`: the workers tell each client to come back and end, the logs
//! are closed with everything durable, then the control plane ends. A panic anywhere ends the
//! whole process at once: half a server keeps promises that the other half made no better than
//! none, and the logs recover.

mod backups;
mod descriptors;
mod figures;
mod live;
mod logs;
mod peers;
mod recorders;
mod settings;
mod sights;
mod space;
mod table;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use tern_core::placement::Placement;

pub use self::descriptors::TooFew;
use self::live::{ColdReads, Live, Questions};
pub use self::logs::LogsError;
use self::logs::{LogFolder, Logs, Machine, OpenLogs};
use self::space::SpaceWatch;
use crate::control::accounts::Whereabouts;
use crate::control::status::Phase;
use crate::control::{Control, ControlError, Parts, Server, Stop};
use crate::directory::Limits;
use crate::directory::service::{Service, service};
use crate::folder::{DataFolder, FolderError, FolderLock, Identity, Keys};
use crate::options::{Options, Switch};
use crate::transport::settings::TransportKeys;
use crate::transport::sockets::{BindError, Sockets};
use crate::transport::tls::{self, TlsError};
use crate::worker::{Doors, QUERIES_MAX, Setup, Workers, spawn_all, take_peers};

/// How long clients are given to hear that the server goes down, in milliseconds: three probe
/// timeouts of a bad mobile network. Who has not heard by then finds out by a reset.
const DRAIN_MS_MAX: u64 = 3_000;

/// Time between two looks whether the data folder is still this server's, in milliseconds. Each
/// commit looks too, so a folder that was taken gets no ack; this is how soon the process ends.
const OWN_LOOK_MS: u64 = 500;

/// Orders to stop that may wait; the first one is obeyed.
const STOPS_MAX: usize = 4;

/// What a server tells of its life, in this order.
#[derive(Clone, Debug)]
pub enum Event {
    /// What it will do, before it reads its logs.
    Plan(Plan),
    /// It reads its logs, and has read this many records.
    Recovering {
        /// Records of all logs so far.
        records: u64,
    },
    /// It has read its logs.
    Recovered(Recovered),
    /// It serves.
    Ready(SocketAddr),
    /// It goes down.
    Draining(Stop),
}

/// What a server will do: the options in effect.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The data folder.
    pub data: PathBuf,
    /// Where it listens.
    pub listen: SocketAddr,
    /// SHA-256 of its certificate.
    pub pin: String,
    /// Threads that serve.
    pub workers: u16,
    /// Logs.
    pub shards: u16,
}

/// What recovery found.
#[derive(Clone, Debug)]
pub struct Recovered {
    /// Records in all logs.
    pub records: u64,
    /// Bytes of disk that the logs hold, with what is prepared for new records.
    pub bytes_reserved: u64,
    /// What an operator should know of how the logs were found.
    pub notes: Vec<String>,
    /// How long it took.
    pub took: Duration,
}

/// Why a server can't start, or ended in disorder.
#[derive(Debug)]
pub enum ServeError {
    /// The data folder.
    Folder(FolderError),
    /// The port.
    Bind(BindError),
    /// The certificate, or the key log.
    Tls(TlsError),
    /// The control plane.
    Control(ControlError),
    /// The logs.
    Logs(LogsError),
    /// Files that this process may open.
    Descriptors(TooFew),
    /// A resource of the system.
    System(io::Error),
    /// None: it was told to stop before it was ready.
    Stopped(Stop),
    /// Another process has taken the data folder while this one ran.
    Taken(PathBuf),
}

impl ServeError {
    /// Whether another process has what this one needs.
    pub fn is_in_use(&self) -> bool {
        match self {
            Self::Folder(error) => matches!(error, FolderError::InUse { .. }),
            Self::Bind(error) => matches!(error, BindError::InUse(_)),
            Self::Logs(error) => error.is_in_use(),
            Self::Taken(_) => true,
            Self::Tls(_)
            | Self::Control(_)
            | Self::Descriptors(_)
            | Self::System(_)
            | Self::Stopped(_) => false,
        }
    }
}

impl fmt::Display for ServeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(error) => error.fmt(f),
            Self::Bind(error) => error.fmt(f),
            Self::Tls(error) => error.fmt(f),
            Self::Control(error) => error.fmt(f),
            Self::Logs(error) => error.fmt(f),
            Self::Descriptors(error) => error.fmt(f),
            Self::System(error) => {
                let advice = descriptors::advice(error).map(|words| format!("; {words}"));
                let advice = advice.unwrap_or_default();
                write!(f, "the system refuses what a server needs: {error}{advice}")
            }
            Self::Taken(path) => write!(
                f,
                "another process has taken the data folder {} while this one ran: its lock file \
                 was removed or replaced. This server has ended without touching the folder \
                 again; what it acked before is in it",
                path.display()
            ),
            Self::Stopped(why) => write!(f, "stopped {why} before it was ready"),
        }
    }
}

impl std::error::Error for ServeError {}

macro_rules! from {
    ($($error:ty => $variant:ident;)*) => {$(
        impl From<$error> for ServeError {
            fn from(error: $error) -> Self {
                Self::$variant(error)
            }
        }
    )*};
}

from! {
    FolderError => Folder;
    BindError => Bind;
    TlsError => Tls;
    ControlError => Control;
    LogsError => Logs;
    TooFew => Descriptors;
    io::Error => System;
}

/// Runs a server until it is told to stop, and tells what happens.
///
/// # Errors
/// When it can't start.
pub fn run(options: &Options, mut tell: impl FnMut(Event)) -> Result<(), ServeError> {
    abort_on_panic();
    tern_storage::guard_mappings()?;
    descriptors::raise()?;
    let ground = Ground::take(options)?;
    descriptors::suffice(ground.placement)?;
    tell(Event::Plan(ground.plan()));
    let server = match Running::start(ground, options, &mut tell) {
        Err(ServeError::Stopped(why)) => {
            tell(Event::Draining(why));
            return Ok(());
        }
        started => started?,
    };
    tell(Event::Ready(server.live.listen));
    let Some(stop) = server.wait() else {
        // Nothing is tidied up: control socket, lists and files are another server's now.
        let path = options.data.clone();
        std::mem::forget(server);
        return Err(ServeError::Taken(path));
    };
    tell(Event::Draining(stop));
    server.go_down();
    Ok(())
}

/// What no other process may have, and what follows from it alone.
struct Ground {
    data: DataFolder,
    lock: FolderLock,
    sockets: Sockets,
    log_folder: LogFolder,
    identity: Identity,
    keys: TransportKeys,
    placement: Placement,
}

impl Ground {
    fn take(options: &Options) -> Result<Self, ServeError> {
        let data = DataFolder::open(&options.data)?;
        let lock = data.lock()?;
        let workers = settings::workers(options);
        let sockets = Sockets::bind(options.listen, workers)?;
        let log_folder = LogFolder::open(data.path(), options.shards)?;
        let Keys { token, reset } = data.keys()?;
        Ok(Self {
            identity: data.identity(&options.name.0)?,
            keys: TransportKeys { token, reset },
            placement: Placement::new(log_folder.shards(), workers),
            data,
            lock,
            sockets,
            log_folder,
        })
    }

    fn plan(&self) -> Plan {
        Plan {
            data: self.data.path().to_owned(),
            listen: self.sockets.address(),
            pin: self.identity.pin(),
            workers: self.placement.workers(),
            shards: self.placement.shards(),
        }
    }
}

/// A server that serves.
struct Running {
    live: Arc<Live>,
    workers: Workers<Machine>,
    logs: OpenLogs,
    control: Control,
    peers: PathBuf,
    stops: Receiver<Stop>,
    lock: FolderLock,
}

impl Running {
    fn start(
        ground: Ground,
        options: &Options,
        tell: &mut impl FnMut(Event),
    ) -> Result<Self, ServeError> {
        let Ground { data, lock, sockets, log_folder, identity, keys, placement } = ground;
        let (doors, seats) = Doors::open(placement)?;
        let (stop, stops) = sync_channel(STOPS_MAX);
        let pin = identity.pin();
        let live = Live::new(Arc::clone(&doors), sockets.address(), pin, stop, data.clone());
        let live = Arc::new(live);
        let (asker, service) = service(usize::from(placement.workers()) * QUERIES_MAX);
        let control = Control::start(control_parts(&data, options, &live, service))?;

        let peers = peers::folder(&options.shared_memory, &data, &log_folder.id())?;
        let known_peers = take_peers(&peers)?;
        let recorders = recorders::open(options, &data, &log_folder.id(), placement.workers());
        let tls = tls::server_config(identity.chain, identity.key, options.keylog.path())?;
        let logs = recover(log_folder, options, &doors, &stops, tell)?;
        let (mut notes, records, took) = (logs.0.notes.clone(), logs.0.records, logs.1);
        notes.extend(descriptors::look().and_then(descriptors::trouble));
        let (machines, logs) = logs.0.machines(&settings::machine(options), placement);
        let bytes_reserved = logs.bytes_reserved();
        tell(Event::Recovered(Recovered { records, bytes_reserved, notes, took }));
        live.set_logs(logs.clone());
        let warmer = ColdReads { io: logs.warmer(), doors: Arc::clone(&doors) };
        let workers = spawn_all(Setup {
            sockets,
            seats,
            machines,
            settings: settings::transport(options),
            keys,
            tls,
            directory: Arc::new(Questions { asker, doors }),
            warmer: Arc::new(warmer),
            peers: Some((peers.clone(), known_peers)),
            recorders,
            spin: Duration::from_micros(u64::from(options.spin_us)),
            pin: options.pin_workers == Switch::On,
        })?;
        live.enter(Phase::Ready);
        Ok(Self { live, workers, logs, control, peers, stops, lock })
    }

    /// Until it is to go down; `None` if another process has taken the data folder.
    fn wait(&self) -> Option<Stop> {
        let mut watch = SpaceWatch::default();
        loop {
            if let Some(trouble) = self.logs.space().and_then(|space| watch.look(&space)) {
                tracing::warn!("{trouble}");
            }
            let stop = self.stops.recv_timeout(Duration::from_millis(OWN_LOOK_MS));
            if !self.lock.is_ours() || !self.logs.is_ours() {
                return None;
            }
            match stop {
                Ok(stop) => return Some(stop),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    unreachable!("the control plane holds the other end")
                }
            }
        }
    }

    fn go_down(self) {
        self.live.enter(Phase::Draining);
        let machines = self.workers.drain(Duration::from_millis(DRAIN_MS_MAX));
        self.logs.close(machines);
        peers::remove(&self.peers);
        self.control.finish();
    }
}

/// Reads the logs; a stop that comes meanwhile ends it.
fn recover(
    folder: LogFolder,
    options: &Options,
    doors: &Arc<Doors>,
    stops: &Receiver<Stop>,
    tell: &mut impl FnMut(Event),
) -> Result<(Logs, Duration), ServeError> {
    let start = Instant::now();
    let mut stopped = None;
    let logs = Logs::recover(folder, options, doors, |records| {
        tell(Event::Recovering { records });
        stopped = stopped.or(stops.try_recv().ok());
        stopped.is_none()
    });
    match stopped {
        Some(stop) => Err(ServeError::Stopped(stop)),
        None => Ok((logs?, start.elapsed())),
    }
}

fn control_parts(
    data: &DataFolder,
    options: &Options,
    live: &Arc<Live>,
    questions: Service,
) -> Parts {
    let server = options.advertise.address(live.listen);
    let doors = Arc::clone(&live.doors);
    Parts {
        folder: data.clone(),
        limits: Limits { devices_per_user: options.devices_per_user },
        tokens: settings::tokens(options),
        whereabouts: Whereabouts {
            server: server.expect("a bound socket has a port"),
            pin: live.pin.clone(),
        },
        server: Arc::clone(live) as Arc<dyn Server>,
        questions,
        placement: live.doors.placement(),
        reply: Arc::new(move |worker, answer| doors.answer(worker, answer)),
    }
}

/// A panic is a broken invariant of ours: it is printed, with where, and the process ends.
fn abort_on_panic() {
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        print(panic);
        eprintln!("tern: the server ends, since it found its own state wrong; the logs recover");
        std::process::abort();
    }));
}
