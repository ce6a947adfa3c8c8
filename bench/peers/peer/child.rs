//! A server over TCP as a child process, with a folder and a port of its own.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use rustix::process::geteuid;
use rustix::thread::set_current_timer_slack;
use rustls::pki_types::CertificateDer;
use tempfile::TempDir;
use tern_bench::error::{BenchError, Tried};
use tern_bench::measure::process::Process;
use tern_bench::system::{Plan, on_cores};

use super::{Server, Site};
use crate::client::Load;
use crate::client::dialect::Dialect;
use crate::client::tcp::{SERVER_NAME, Speak, Tcp};

/// How long a server may take until it can be connected to.
const PATIENCE: Duration = Duration::from_secs(60);

/// Time between two looks whether it can.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// Most bytes of a server's words that an error repeats.
const WORDS_BYTES: usize = 1_000;

/// The file of what a server says.
const WORDS: &str = "words.log";

/// A day: clocks may differ by some of it.
const DAY: Duration = Duration::from_secs(86_400);

/// How long a certificate is good. ejabberd sets a timer to its end, which must not be farther away
/// than 49 days.
const VALID: Duration = Duration::from_secs(30 * 86_400);

/// A certificate for [`SERVER_NAME`], signed by itself: ECDSA on P-256, as Tern's own.
pub struct Certificate {
    /// As servers read it.
    pub certificate_pem: String,
    /// Its key.
    pub key_pem: String,
    /// As clients know it.
    pub der: CertificateDer<'static>,
}

impl Certificate {
    /// A new one.
    ///
    /// # Errors
    /// When there is no randomness to be had.
    pub fn new() -> Result<Self, BenchError> {
        let wrong = |error: rcgen::Error| BenchError::Load(format!("no certificate: {error}"));
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH);
        let today = date_time_ymd(1970, 1, 1) + since_1970.unwrap_or_default();
        let mut params = CertificateParams::new([SERVER_NAME.to_owned()]).map_err(wrong)?;
        (params.not_before, params.not_after) = (today - DAY, today + VALID);
        let key = KeyPair::generate().map_err(wrong)?;
        let certificate = params.self_signed(&key).map_err(wrong)?;
        Ok(Self {
            certificate_pem: certificate.pem(),
            key_pem: key.serialize_pem(),
            der: certificate.der().clone(),
        })
    }
}

/// What makes a server over TCP.
pub struct Recipe {
    /// The program.
    pub program: PathBuf,
    /// Its arguments, given its folder.
    pub arguments: Vec<String>,
    /// Its environment, beside that of this process.
    pub environment: Vec<(&'static str, String)>,
    /// Makes the connections of a device.
    pub speak: Connections,
}

/// Makes the connections of the device of a number.
pub type Connections = fn(usize) -> Vec<Box<dyn Dialect>>;

impl Recipe {
    /// A program with its arguments and nothing else.
    pub fn plain(program: &Path, arguments: &[&str], speak: Connections) -> Self {
        Self {
            program: program.to_owned(),
            arguments: arguments.iter().copied().map(str::to_owned).collect(),
            environment: Vec::new(),
            speak,
        }
    }
}

/// The folder that a server is started in, and its port.
pub struct Home {
    /// Deleted at the end.
    folder: TempDir,
    /// Free a moment ago.
    pub port: u16,
}

impl Home {
    /// A folder with the certificate in it, and a free port.
    ///
    /// # Errors
    /// When there is none.
    pub fn new(site: &Site) -> Result<Self, BenchError> {
        let folder = tempfile::Builder::new().prefix("tern-peers-").tempdir_in(&site.plan.data);
        let folder = folder.tried(format!("no folder below {}", site.plan.data.display()))?;
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).tried("a free port")?;
        let port = free.local_addr().tried("a free port")?.port();
        let home = Self { folder, port };
        home.write("cert.pem", &site.certificate.certificate_pem)?;
        home.write("key.pem", &site.certificate.key_pem)?;
        Ok(home)
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// A place in the folder, as text.
    pub fn place(&self, name: &str) -> String {
        self.path().join(name).display().to_string()
    }

    /// Writes a file; its place.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn write(&self, name: &str, text: &str) -> Result<String, BenchError> {
        let place = self.place(name);
        fs::write(&place, text).tried(format!("write {place}"))?;
        Ok(place)
    }
}

/// Whether this process is the administrator's: some servers have to be told that they may be.
pub fn is_root() -> bool {
    geteuid().is_root()
}

/// A running server.
pub struct Running {
    child: Child,
    home: Home,
    recipe: Recipe,
    plan: Plan,
    certificate: CertificateDer<'static>,
}

impl Running {
    /// Starts it and waits until it can be connected to.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start(home: Home, recipe: Recipe, site: &Site) -> Result<Self, BenchError> {
        let child = spawn(&home, &recipe, &site.plan)?;
        let certificate = site.certificate.der.clone();
        let mut running = Self { child, home, recipe, plan: site.plan.clone(), certificate };
        running.wait_until_ready()?;
        Ok(running)
    }

    fn wait_until_ready(&mut self) -> Result<(), BenchError> {
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(self.address()).is_err() {
            let ended = self.child.try_wait().tried("the server's state")?;
            if ended.is_some() || Instant::now() > deadline {
                let how = ended.map_or("is not ready".to_owned(), |status| status.to_string());
                return Err(BenchError::Server(format!("{how}; it said: {}", self.words())));
            }
            std::thread::sleep(LOOK_AGAIN);
        }
        Ok(())
    }
}

impl Server for Running {
    fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.home.port))
    }

    fn process(&self) -> Result<Process, BenchError> {
        Process::read(self.child.id())
    }

    fn load(
        &self,
        address: SocketAddr,
        _devices: usize,
        seed: u64,
    ) -> Result<Box<dyn Load>, BenchError> {
        let speak: Speak = Box::new(self.recipe.speak);
        Ok(Box::new(Tcp::new(address, &self.certificate, speak, seed)?))
    }

    fn kill(&mut self) -> Result<(), BenchError> {
        self.child.kill().tried("kill the server")?;
        self.child.wait().tried("the killed server").map(drop)
    }

    fn start_again(&mut self) -> Result<(), BenchError> {
        self.child = spawn(&self.home, &self.recipe, &self.plan)?;
        self.wait_until_ready()
    }

    fn words(&self) -> String {
        let words = fs::read(self.home.path().join(WORDS)).unwrap_or_default();
        let start = words.len().saturating_sub(WORDS_BYTES);
        String::from_utf8_lossy(&words[start..]).trim().to_owned()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail if it has ended, and then nothing is left to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(home: &Home, recipe: &Recipe, plan: &Plan) -> Result<Child, BenchError> {
    let mut command = Command::new(&recipe.program);
    command.args(&recipe.arguments).current_dir(home.path());
    command.envs(recipe.environment.iter().map(|(name, value)| (name, value)));
    let words = File::options().create(true).append(true).open(home.path().join(WORDS));
    let words = words.tried("the server's words")?;
    let errors = words.try_clone().tried("the server's words")?;
    command.stdin(Stdio::null()).stdout(words).stderr(errors);
    // A child inherits this, and a server's timers are to be as it has them.
    set_current_timer_slack(None).tried("the timers of the server")?;
    let spawned = on_cores(plan, || command.spawn())?;
    spawned.tried(format!("start {}", recipe.program.display()))
}

/// The first line of what a program says when asked.
pub fn first_line(program: &Path, arguments: &[&str]) -> String {
    let said = Command::new(program).args(arguments).output();
    let said = said.map(|output| [output.stdout, output.stderr].concat()).unwrap_or_default();
    let text = String::from_utf8_lossy(&said);
    text.lines().find(|line| !line.trim().is_empty()).unwrap_or("unknown").trim().to_owned()
}
