//! The binary `tern` as a child process: a server, and commands.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, ExitStatus, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};

pub(crate) const TERN: &str = env!("CARGO_BIN_EXE_tern");

/// A server in a child process; killed if the test ends before it does.
pub(crate) struct Server {
    pub(crate) child: Child,
    out: BufReader<ChildStdout>,
    /// What it printed before it was ready.
    pub(crate) plan: String,
    pub(crate) address: String,
}

impl Server {
    pub(crate) fn start(data: &Path, more: &[&str]) -> Self {
        let mut child = tern(data, &["serve", "--listen", "127.0.0.1:0", "--workers", "2"])
            .arg("--shared-memory")
            .arg(data.parent().unwrap())
            .args(more)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let (plan, address) = (String::new(), String::new());
        let mut server = Self { child, out, plan, address };
        server.wait_until_ready();
        server
    }

    fn wait_until_ready(&mut self) {
        let mut line = String::new();
        while self.out.read_line(&mut line).unwrap() > 0 {
            if let Some(address) = line.strip_prefix("tern: ready on ") {
                address.trim().clone_into(&mut self.address);
                return;
            }
            self.plan += &std::mem::take(&mut line);
        }
        let mut errors = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
        panic!("the server ended: {}{errors}", self.plan);
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Sends a signal once it has printed a line with this word; then as [`end`](Self::end).
    pub(crate) fn end_on(mut self, word: &str, signal: Signal) -> (ExitStatus, String) {
        let mut line = String::new();
        while !line.contains(word) {
            line.clear();
            assert!(self.out.read_line(&mut line).unwrap() > 0, "it ended before {word:?}");
        }
        self.signal(signal);
        self.end()
    }

    /// Its exit status, and what it printed after it was ready.
    pub(crate) fn end(mut self) -> (ExitStatus, String) {
        let mut rest = String::new();
        self.out.read_to_string(&mut rest).unwrap();
        (self.child.wait().unwrap(), rest)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn tern(data: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(TERN);
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("TERN_")) {
            command.env_remove(name);
        }
    }
    command.args(args).arg("--data").arg(data);
    command
}

pub(crate) fn run(data: &Path, args: &[&str]) -> Output {
    tern(data, args).output().unwrap()
}

/// Runs a command that must succeed; returns what it printed.
pub(crate) fn done(data: &Path, args: &[&str]) -> String {
    let output = run(data, args);
    assert!(output.status.success(), "{args:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Runs a command that must fail with this exit code; returns its reason.
pub(crate) fn refused(data: &Path, args: &[&str], code: i32) -> String {
    let output = run(data, args);
    assert_eq!(output.status.code(), Some(code), "{args:?}: {output:?}");
    String::from_utf8(output.stderr).unwrap()
}

pub(crate) fn profile(data: &Path, who: &str) -> toml::Table {
    let path = data.join("profiles").join(format!("{who}.toml"));
    std::fs::read_to_string(path).unwrap().parse().unwrap()
}
