//! The real binary in a child process: started, asked for its figures, stopped or killed, and
//! the users made for it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tern_client::profile::Profile;
use tern_protocol::limits::SECRET_BYTES;
use tern_protocol::{ChannelId, DeviceId, Uin};

/// The binary under test.
const TERN: &str = env!("CARGO_BIN_EXE_tern");

/// A running server; killed if its test ends before it does.
pub struct Server {
    child: Child,
    out: BufReader<ChildStdout>,
    pub data: PathBuf,
    pub address: SocketAddr,
}

/// Who a device is and how it proves it.
#[derive(Clone, Copy)]
pub struct Account {
    pub uin: Uin,
    pub device: DeviceId,
    pub secret: [u8; SECRET_BYTES],
}

impl Account {
    /// The channel with another user.
    pub fn channel_with(&self, other: &Self) -> ChannelId {
        ChannelId::direct(self.uin, other.uin)
    }
}

/// Where a server listens unless its test has a reason: a free port on loopback.
pub const ANY_PORT: &str = "127.0.0.1:0";

impl Server {
    /// Starts a server with two workers on `data` and waits until it serves.
    pub fn start(data: &Path, listen: &str, options: &[&str]) -> Self {
        Self::start_with(data, listen, 2, options)
    }

    /// The same with any number of workers.
    pub fn start_with(data: &Path, listen: &str, workers: u16, options: &[&str]) -> Self {
        Self::try_start(&[], data, listen, workers, options)
            .unwrap_or_else(|said| panic!("the server ended: {said}"))
    }

    /// The same by another command, which becomes the server; what it said if it ended instead.
    pub fn try_start(
        by: &[&str],
        data: &Path,
        listen: &str,
        workers: u16,
        options: &[&str],
    ) -> Result<Self, String> {
        let errors = data.with_extension("stderr");
        std::fs::create_dir_all(data.parent().expect("a data folder lies in another")).unwrap();
        let file = File::options().create(true).append(true).open(&errors).unwrap();
        let workers = workers.to_string();
        // Not in /dev/shm: what a killed server leaves there would outlive the test's folder.
        let shared = data.with_extension("shared");
        std::fs::create_dir_all(&shared).unwrap();
        let mut child = tern_by(by, data, &["serve", "--listen", listen, "--workers", &workers])
            .arg("--shared-memory")
            .arg(&shared)
            .args(options)
            .stdout(Stdio::piped())
            .stderr(file)
            .spawn()
            .unwrap();
        let mut out = BufReader::new(child.stdout.take().expect("it is piped"));
        match ready(&mut out) {
            Ok(address) => Ok(Self { child, out, data: data.to_owned(), address }),
            Err(said) => {
                let status = child.wait().unwrap();
                let errors = std::fs::read_to_string(&errors).unwrap_or_default();
                Err(format!("{said}{errors}{status}"))
            }
        }
    }

    /// Adds a user with a first device.
    pub fn user(&self, name: &str) -> Account {
        self.tern(&["user", "add", name]);
        self.account(name)
    }

    /// Adds a device to a user.
    pub fn device(&self, name: &str, label: &str) -> Account {
        self.tern(&["device", "add", name, "--device", label]);
        self.account(&format!("{name}.{label}"))
    }

    /// The account of a device that was added before.
    pub fn account(&self, who: &str) -> Account {
        let profile = Profile::load(&Profile::path(&self.data, who)).unwrap();
        let secret = profile.secret_bytes().unwrap();
        Account { uin: profile.uin(), device: profile.device(), secret }
    }

    /// Runs a command on the server's data folder that must succeed; what it printed.
    pub fn tern(&self, arguments: &[&str]) -> String {
        let output = tern(&self.data, arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {output:?}{}", self.errors());
        String::from_utf8(output.stdout).unwrap()
    }

    /// What the server counts now, workers and shards each added up.
    pub fn figures(&self) -> Figures {
        let status: serde_json::Value =
            serde_json::from_str(&self.tern(&["status", "--json"])).unwrap();
        assert_eq!(status["phase"], "ready", "{status}");
        assert_eq!(status["pid"], self.child.id(), "{status}");
        let tables = ["shards", "workers"].into_iter();
        let rows = tables.flat_map(|table| status[table]["rows"].as_array().unwrap());
        Figures(rows.map(|row| (row["name"].as_str().unwrap().to_owned(), total(row))).collect())
    }

    /// Its resident memory in KiB.
    pub fn rss_kib(&self) -> u64 {
        self.kib("VmRSS:")
    }

    /// Of it, what is its own: the heap, and no mapped log.
    pub fn private_kib(&self) -> u64 {
        self.kib("RssAnon:")
    }

    fn kib(&self, name: &str) -> u64 {
        let status = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(status).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// Ends it as a power cut would end its process.
    pub fn kill(mut self) {
        self.signal(Signal::KILL);
        self.child.wait().unwrap();
    }

    /// Ends it in order; it must say so.
    pub fn stop(mut self) {
        self.signal(Signal::TERM);
        let mut last = String::new();
        while self.out.read_line(&mut last).unwrap() > 0 {}
        let status = self.child.wait().unwrap();
        assert!(
            status.success() && last.ends_with("stopped in order\n"),
            "{last}{}",
            self.errors()
        );
    }

    /// What it wrote to its standard error.
    pub fn errors(&self) -> String {
        std::fs::read_to_string(self.data.with_extension("stderr")).unwrap_or_default()
    }

    /// The number of its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it ends by itself: how, and what it wrote to its standard error.
    pub fn ended(mut self) -> (ExitStatus, String) {
        let status = self.child.wait().unwrap();
        (status, self.errors())
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // An error says that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Figures by name, all columns of a row added up.
#[derive(Clone, Debug)]
pub struct Figures(BTreeMap<String, u64>);

impl Figures {
    /// The figure of this name.
    pub fn get(&self, name: &str) -> u64 {
        *self.0.get(name).unwrap_or_else(|| panic!("no figure is called {name}"))
    }

    /// By how much a figure grew since `before`.
    pub fn since(&self, before: &Self, name: &str) -> u64 {
        self.get(name) - before.get(name)
    }
}

fn total(row: &serde_json::Value) -> u64 {
    row["values"].as_array().unwrap().iter().map(|value| value.as_u64().unwrap()).sum()
}

/// The address, once it serves; else what it said before it ended.
fn ready(out: &mut BufReader<ChildStdout>) -> Result<SocketAddr, String> {
    let mut said = String::new();
    loop {
        let start = said.len();
        if out.read_line(&mut said).unwrap() == 0 {
            return Err(said);
        }
        if let Some(address) = said[start..].strip_prefix("tern: ready on ") {
            return Ok(address.trim().parse().unwrap());
        }
    }
}

/// The binary with these arguments, untouched by the environment of the tests.
pub fn tern(data: &Path, arguments: &[&str]) -> Command {
    tern_by(&[], data, arguments)
}

/// The same, started by another command that takes it as its last arguments.
pub fn tern_by(by: &[&str], data: &Path, arguments: &[&str]) -> Command {
    let mut line = by.iter().chain(&[TERN]);
    let mut command = Command::new(line.next().expect("the last one is ours"));
    command.args(line);
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("TERN_")) {
            command.env_remove(name);
        }
    }
    command.args(arguments).arg("--data").arg(data);
    command
}
