//! A Tern server as a child process with a data folder of its own, which goes with it; or one that
//! somebody else has started, which runs on.

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity, set_current_timer_slack};
use tempfile::TempDir;

use super::control::{Control, from_hex};
use super::status::Status;
use crate::error::{BenchError, Tried};
use crate::load::Identity;
use crate::measure::process::Process;

/// How long a server may take to be ready, or to go down.
const PATIENCE: Duration = Duration::from_secs(30);

/// Time between two looks whether it is.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Where a server listens that was never there before.
const ANY_PORT: &str = "127.0.0.1:0";

/// What names of users begin with on a server of our own.
const OWN_NAMES: &str = "bench";

/// Most bytes of the server's own words that an error repeats.
const WORDS_BYTES: usize = 2_000;

/// How servers are started.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The program.
    pub tern: PathBuf,
    /// Where data folders are made.
    pub data: PathBuf,
    /// Options of `tern serve`.
    pub options: Vec<(String, String)>,
    /// Which cores the server and the load run on, if they are kept apart.
    pub cores: Option<Cores>,
}

impl Plan {
    /// Sets an option, unless it was set before.
    pub fn prefer(&mut self, name: String, value: String) {
        if !self.options.iter().any(|(known, _)| *known == name) {
            self.options.push((name, value));
        }
    }
}

/// The cores of this process, divided between server and load.
#[derive(Clone, Copy, Debug)]
pub struct Cores {
    server: CpuSet,
    load: CpuSet,
}

impl Cores {
    /// The first core for the server, the others for the load.
    ///
    /// # Errors
    /// When there is one core only.
    pub fn divide() -> Result<Self, BenchError> {
        let mut load = sched_getaffinity(None).tried("the cores of this process")?;
        let mut cores = (0..CpuSet::MAX_CPU).filter(|core| load.is_set(*core));
        let (Some(first), Some(_)) = (cores.next(), cores.next()) else {
            return Err(BenchError::Usage("--pin needs two cores".to_owned()));
        };
        let mut server = CpuSet::new();
        server.set(first);
        load.unset(first);
        Ok(Self { server, load })
    }

    /// Acts on the server's cores, then goes to the load's.
    fn on_server<T>(&self, act: impl FnOnce() -> T) -> Result<T, BenchError> {
        sched_setaffinity(None, &self.server).tried("go to the server's core")?;
        let result = act();
        sched_setaffinity(None, &self.load).tried("go to the load's cores")?;
        Ok(result)
    }
}

/// A server that runs.
#[derive(Debug)]
pub struct Server {
    host: Host,
    address: SocketAddr,
    pin: [u8; 32],
}

/// Whose a server is.
#[derive(Debug)]
enum Host {
    /// Ours.
    Own { child: Child, folder: TempDir },
    /// Somebody's who started it before.
    Found {
        folder: PathBuf,
        pid: u32,
        /// What names of users begin with, as nobody's do who was there before.
        names: String,
    },
}

impl Server {
    /// Starts one and waits until it serves.
    ///
    /// # Errors
    /// When it does not.
    pub fn start(plan: &Plan) -> Result<Self, BenchError> {
        let folder = tempfile::Builder::new().prefix("tern-bench-").tempdir_in(&plan.data);
        let folder = folder.tried(format!("no folder below {}", plan.data.display()))?;
        let mut child = spawn(plan, folder.path(), ANY_PORT)?;
        let status = until_ready(&mut child, folder.path())?;
        Self::new(Host::Own { child, folder }, &status)
    }

    /// The server that runs on this data folder.
    ///
    /// # Errors
    /// When none does, or it is not ready.
    pub fn find(folder: &Path) -> Result<Self, BenchError> {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let names = format!("bench-{:x}-", since.as_micros());
        let mut control = Control::connect(&socket(folder), &names)
            .tried(format!("no server runs on {}", folder.display()))?;
        let pid = control.server_pid().tried("the number of the server's process")?;
        let status = control.status()?;
        if status.phase != "ready" {
            return Err(BenchError::Server(format!("it is not ready: {}", status.phase)));
        }
        Self::new(Host::Found { folder: folder.to_owned(), pid, names }, &status)
    }

    /// Kills it as `kill -9` does.
    ///
    /// # Errors
    /// When it can't be killed.
    pub fn kill(&mut self) -> Result<(), BenchError> {
        let Host::Own { child, .. } = &mut self.host else { return Err(not_ours()) };
        child.kill().tried("kill the server")?;
        child.wait().tried("the killed server").map(drop)
    }

    /// Starts it again after a kill, on the same folder and port, and waits until it serves.
    ///
    /// # Errors
    /// When it does not.
    pub fn start_again(&mut self, plan: &Plan) -> Result<(), BenchError> {
        let Host::Own { child, folder } = &mut self.host else { return Err(not_ours()) };
        *child = spawn(plan, folder.path(), &self.address.to_string())?;
        until_ready(child, folder.path()).map(drop)
    }

    fn new(host: Host, status: &Status) -> Result<Self, BenchError> {
        let address = status.listen.parse().ok().map(reachable);
        let (Some(address), Some(pin)) = (address, from_hex(&status.pin)) else {
            return Err(BenchError::Server(format!("where is it? {status:?}")));
        };
        Ok(Self { host, address, pin })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// SHA-256 of its certificate.
    pub fn pin(&self) -> [u8; 32] {
        self.pin
    }

    /// Its own figures.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn status(&self) -> Result<Status, BenchError> {
        self.control()?.status()
    }

    /// The kernel's figures of it.
    ///
    /// # Errors
    /// When it is gone.
    pub fn process(&self) -> Result<Process, BenchError> {
        Process::read(self.pid())
    }

    /// Adds users with a device each.
    ///
    /// # Errors
    /// When it refuses.
    pub fn add_users(&self, count: usize) -> Result<Vec<Identity>, BenchError> {
        self.control()?.add_users(count)
    }

    /// Adds one more device to the user of this number among those that were added.
    ///
    /// # Errors
    /// When it refuses.
    pub fn add_device(&self, user: usize) -> Result<Identity, BenchError> {
        self.control()?.add_device(user)
    }

    /// A new connection each time: one that is silent for long is hung up on.
    fn control(&self) -> Result<Control, BenchError> {
        let names = match &self.host {
            Host::Own { .. } => OWN_NAMES,
            Host::Found { names, .. } => names,
        };
        Control::connect(&socket(self.folder()), names).tried("the control socket")
    }

    fn folder(&self) -> &Path {
        match &self.host {
            Host::Own { folder, .. } => folder.path(),
            Host::Found { folder, .. } => folder,
        }
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        match &self.host {
            Host::Own { child, .. } => child.id(),
            Host::Found { pid, .. } => *pid,
        }
    }

    /// The last that it said, if it is ours.
    pub fn words(&self) -> String {
        words(self.folder())
    }

    /// An error, with the last that the server said.
    pub fn with_words(&self, error: BenchError) -> BenchError {
        let words = self.words();
        match error {
            BenchError::Load(what) => BenchError::Load(format!("{what}; the server said: {words}")),
            other => other,
        }
    }

    /// Has it go down in order, and waits until it has; one that was found runs on.
    ///
    /// # Errors
    /// When it does not, or not in order.
    pub fn stop(mut self) -> Result<(), BenchError> {
        let Host::Own { child, folder } = &mut self.host else { return Ok(()) };
        if let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
            kill_process(pid, Signal::TERM).tried("stop the server")?;
        }
        let deadline = Instant::now() + PATIENCE;
        loop {
            match child.try_wait().tried("the server's state")? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => {
                    let words = words(folder.path());
                    return Err(BenchError::Server(format!("{status}; it said: {words}")));
                }
                None if Instant::now() > deadline => {
                    return Err(BenchError::Server("it does not go down".to_owned()));
                }
                None => std::thread::sleep(LOOK_AGAIN),
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Host::Own { child, .. } = &mut self.host {
            // Both fail if it has ended, and then nothing is left to do.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn not_ours() -> BenchError {
    BenchError::Server("it was there before, and is not to be killed".to_owned())
}

/// Where a server is reached that may listen on all addresses.
fn reachable(listens: SocketAddr) -> SocketAddr {
    let ip: IpAddr = match listens.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listens.port())
}

/// Starts the program. A child runs on the cores of the thread that starts it, so this thread goes
/// to the server's for that moment.
fn spawn(plan: &Plan, folder: &Path, listen: &str) -> Result<Child, BenchError> {
    let mut command = Command::new(&plan.tern);
    command.arg("serve").arg("--data").arg(folder).args(["--listen", listen]);
    for (name, value) in &plan.options {
        command.arg(format!("--{name}")).arg(value);
    }
    let words = File::options().create(true).append(true).open(folder.join(WORDS));
    let words = words.tried("the server's words")?;
    let errors = words.try_clone().tried("the server's words")?;
    command.stdin(Stdio::null()).stdout(words).stderr(errors);
    // A child inherits this, and a server's timers are to be as it has them.
    set_current_timer_slack(None).tried("the timers of the server")?;
    on_cores(plan, || command.spawn())?.tried(format!("start {}", plan.tern.display()))
}

/// Acts on the server's cores, if they are kept apart: a child that is started there stays there.
///
/// # Errors
/// When this thread can't go there.
pub fn on_cores<T>(plan: &Plan, act: impl FnOnce() -> T) -> Result<T, BenchError> {
    match plan.cores {
        Some(cores) => cores.on_server(act),
        None => Ok(act()),
    }
}

/// Waits until a server that was just started serves: its figures then.
fn until_ready(child: &mut Child, folder: &Path) -> Result<Status, BenchError> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = ready(folder)? {
            return Ok(status);
        }
        let ended = child.try_wait().tried("the server's state")?;
        if ended.is_some() || Instant::now() > deadline {
            let _ = child.kill();
            let _ = child.wait();
            let how = ended.map_or("is not ready".to_owned(), |status| status.to_string());
            return Err(BenchError::Server(format!("{how}; it said: {}", words(folder))));
        }
        std::thread::sleep(LOOK_AGAIN);
    }
}

/// File of what the server says, in its data folder.
const WORDS: &str = "bench-server.log";

fn words(folder: &Path) -> String {
    let words = std::fs::read_to_string(folder.join(WORDS)).unwrap_or_default();
    let start = words.len().saturating_sub(WORDS_BYTES);
    String::from_utf8_lossy(&words.as_bytes()[start..]).trim().to_owned()
}

fn socket(folder: &Path) -> PathBuf {
    folder.join("control.sock")
}

/// The server's figures, once it serves.
fn ready(folder: &Path) -> Result<Option<Status>, BenchError> {
    let Ok(mut control) = Control::connect(&socket(folder), OWN_NAMES) else { return Ok(None) };
    let status = control.status()?;
    Ok((status.phase == "ready").then_some(status))
}
