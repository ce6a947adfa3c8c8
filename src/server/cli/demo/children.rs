//! The processes that the demo starts and kills: the server and the devices, each this same
//! program once more.
//!
//! What a process writes to its standard output comes line by line as [`Happening`]s, the last of
//! them always [`Said::Ended`], after everything that it wrote before it died. What it writes to
//! its standard error goes to a file. No process outlives the demo.

use std::ffi::OsStr;
use std::fs::OpenOptions;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::mpsc;

/// A process among those of the demo.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Name {
    /// Which role: chosen by the demo.
    pub role: usize,
    /// The how manieth process in this role, from 1.
    pub life: u32,
}

/// Something that a process did.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Happening {
    /// Which process.
    pub who: Name,
    /// What.
    pub said: Said,
}

/// What a process did.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Said {
    /// It wrote a line.
    Line(String),
    /// It is gone, and everything that it wrote was said.
    Ended,
}

/// How to start processes.
#[derive(Clone, Debug)]
pub struct Nursery {
    program: PathBuf,
    logs: PathBuf,
    happenings: mpsc::Sender<Happening>,
}

impl Nursery {
    /// Starts this same program; logs go to files in `logs`.
    ///
    /// # Errors
    /// When the system does not say where this program is.
    pub fn new(logs: &Path, happenings: mpsc::Sender<Happening>) -> io::Result<Self> {
        Ok(Self { program: std::env::current_exe()?, logs: logs.to_owned(), happenings })
    }

    /// The file that a role's standard error goes to.
    pub fn log(&self, label: &str) -> PathBuf {
        self.logs.join(format!("{label}.log"))
    }

    /// Starts a process; `label` names its log.
    ///
    /// # Errors
    /// When the system gives no process or no file.
    pub fn start<A: AsRef<OsStr>>(
        &self,
        who: Name,
        label: &str,
        arguments: impl IntoIterator<Item = A>,
    ) -> io::Result<Process> {
        let mut child = self
            .command(label, arguments)?
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let stdout = child.stdout.take().expect("it was asked to be a pipe");
        tokio::spawn(listen(who, stdout, self.happenings.clone()));
        let stdin = child.stdin.take().expect("it was asked to be a pipe");
        Ok(Process { child, stdin, life: who.life })
    }

    /// Runs a command to its end.
    ///
    /// # Errors
    /// When it does not end well; what it wrote to its log is said.
    pub async fn run<A: AsRef<OsStr>>(
        &self,
        label: &str,
        arguments: impl IntoIterator<Item = A>,
    ) -> io::Result<()> {
        let mut command = self.command(label, arguments)?;
        let status = command.stdin(Stdio::null()).stdout(Stdio::null()).status().await?;
        if status.success() {
            return Ok(());
        }
        let log = std::fs::read_to_string(self.log(label)).unwrap_or_default();
        Err(io::Error::other(format!("{status}: {}", log.trim_end())))
    }

    /// Without the options that the demo's own environment may set for a server.
    fn command<A: AsRef<OsStr>>(
        &self,
        label: &str,
        arguments: impl IntoIterator<Item = A>,
    ) -> io::Result<Command> {
        let log = OpenOptions::new().create(true).append(true).open(self.log(label))?;
        let mut command = Command::new(&self.program);
        for (name, _) in std::env::vars_os() {
            let is_option = name.to_str().is_some_and(|name| name.starts_with("TERN_"));
            if is_option && name != "TERN_LOG" {
                command.env_remove(name);
            }
        }
        command.args(arguments).stderr(log);
        Ok(command)
    }
}

/// A running process; killed when dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    stdin: ChildStdin,
    life: u32,
}

impl Process {
    /// The how manieth process in its role this is.
    pub fn life(&self) -> u32 {
        self.life
    }

    /// Says a line to its standard input.
    ///
    /// # Errors
    /// When it is gone.
    pub async fn say(&mut self, line: &str) -> io::Result<()> {
        self.stdin.write_all(format!("{line}\n").as_bytes()).await
    }

    /// `kill -9`; returns when the process is gone.
    ///
    /// # Errors
    /// When the system refuses.
    pub async fn kill(mut self) -> io::Result<()> {
        self.child.kill().await
    }
}

async fn listen(who: Name, stdout: ChildStdout, happenings: mpsc::Sender<Happening>) {
    let mut stdout = BufReader::new(stdout);
    loop {
        let mut line = String::new();
        let read = stdout.read_line(&mut line).await;
        // A last line that was cut off by a kill was not said: its writer never got to the end.
        let said = match (read, line.strip_suffix('\n')) {
            (Ok(_), Some(line)) => Said::Line(line.to_owned()),
            _ => Said::Ended,
        };
        let is_end = said == Said::Ended;
        // Nobody listens to a demo that is over.
        if happenings.send(Happening { who, said }).await.is_err() || is_end {
            return;
        }
    }
}
