//! The binary itself: a server comes up, takes commands, keeps others away, and goes down.
#![expect(
    clippy::unwrap_used,
    reason = "a test may stop at the first thing that is not as it should be"
)]

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, ExitStatus, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};

const TERN: &str = env!("CARGO_BIN_EXE_tern");

/// A server in a child process; killed if the test ends before it does.
struct Server {
    child: Child,
    out: BufReader<ChildStdout>,
    /// What it printed before it was ready.
    plan: String,
    address: String,
}

impl Server {
    fn start(data: &Path, more: &[&str]) -> Self {
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

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Its exit status, and what it printed after it was ready.
    fn end(mut self) -> (ExitStatus, String) {
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

fn tern(data: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(TERN);
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("TERN_")) {
            command.env_remove(name);
        }
    }
    command.args(args).arg("--data").arg(data);
    command
}

fn run(data: &Path, args: &[&str]) -> Output {
    tern(data, args).output().unwrap()
}

/// Runs a command that must succeed; returns what it printed.
fn done(data: &Path, args: &[&str]) -> String {
    let output = run(data, args);
    assert!(output.status.success(), "{args:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Runs a command that must fail with this exit code; returns its reason.
fn refused(data: &Path, args: &[&str], code: i32) -> String {
    let output = run(data, args);
    assert_eq!(output.status.code(), Some(code), "{args:?}: {output:?}");
    String::from_utf8(output.stderr).unwrap()
}

fn profile(data: &Path, who: &str) -> toml::Table {
    let path = data.join("profiles").join(format!("{who}.toml"));
    std::fs::read_to_string(path).unwrap().parse().unwrap()
}

#[test]
fn a_server_takes_commands_and_goes_down_on_sigterm() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let server = Server::start(&data, &[]);
    assert!(server.plan.contains("2 workers"), "{}", server.plan);
    done(&data, &["user", "add", "ann"]);
    done(&data, &["device", "add", "ann", "--device", "phone"]);
    let (ann, phone) = (profile(&data, "ann"), profile(&data, "ann.phone"));
    assert_eq!(ann["server"].as_str(), Some(server.address.as_str()));
    assert_eq!((ann["device"].as_integer(), phone["device"].as_integer()), (Some(1), Some(2)));
    assert_ne!(ann["secret"], phone["secret"]);
    assert!(server.plan.contains(ann["pin"].as_str().unwrap()), "{}", server.plan);

    let status: serde_json::Value =
        serde_json::from_str(&done(&data, &["status", "--json"])).unwrap();
    assert_eq!(status["phase"], "ready");
    assert_eq!(status["workers"]["columns"].as_array().unwrap().len(), 2);
    assert_eq!(status["shards"]["columns"].as_array().unwrap().len(), 4);

    server.signal(Signal::TERM);
    let (status, rest) = server.end();
    assert!(status.success(), "{status}: {rest}");
    assert!(rest.ends_with("tern: stopped in order\n"), "{rest}");
    assert!(!data.join("control.sock").exists());
}

#[test]
fn commands_say_the_same_with_and_without_a_server() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    done(&data, &["user", "add", "ann"]);
    let alone = (
        done(&data, &["user", "list"]),
        done(&data, &["device", "list", "ann"]),
        refused(&data, &["device", "revoke", "ann", "7"], 1),
    );
    let server = Server::start(&data, &[]);
    let served = (
        done(&data, &["user", "list"]),
        done(&data, &["device", "list", "ann"]),
        refused(&data, &["device", "revoke", "ann", "7"], 1),
    );
    assert_eq!(alone, served);
    assert!(server.plan.contains(profile(&data, "ann")["pin"].as_str().unwrap()), "the same pin");
    assert_eq!(done(&data, &["stop"]).lines().count(), 1);
    assert!(server.end().0.success());
}

#[test]
fn a_second_server_is_told_why_it_cannot_be() {
    let folder = tempfile::tempdir().unwrap();
    let (data, other) = (folder.path().join("data"), folder.path().join("other"));
    let server = Server::start(&data, &[]);
    let reason = refused(&data, &["serve", "--listen", "127.0.0.1:0"], 5);
    let holder = format!("in use by process {}", server.child.id());
    assert!(reason.contains(&holder), "{reason}");
    let reason = refused(&other, &["serve", "--listen", &server.address], 5);
    let port = server.address.rsplit(':').next().unwrap();
    assert!(reason.contains(&format!("port {port}")), "{reason}");
    done(&data, &["status", "--json"]);
}

#[test]
fn a_killed_server_starts_again() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let server = Server::start(&data, &["--shards", "2"]);
    done(&data, &["user", "add", "ann"]);
    server.signal(Signal::KILL);
    assert!(!server.end().0.success());
    assert!(data.join("control.sock").exists(), "left by the killed one, and in nobody's way");

    let server = Server::start(&data, &["--ready-fd", "2"]);
    assert!(server.plan.contains("2 shards"), "{}", server.plan);
    assert!(done(&data, &["user", "list"]).contains("ann"));
    let address = server.address.clone();
    server.signal(Signal::INT);
    let mut server = server;
    let mut errors = String::new();
    server.child.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
    assert_eq!(errors, format!("{address}\n"), "the ready line on the descriptor");
    assert!(server.end().0.success());
    let reason = refused(&data, &["serve", "--shards", "3"], 1);
    assert!(reason.contains('2') && reason.contains('3'), "{reason}");
}

#[test]
fn wrong_usage_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path();
    let reason = refused(data, &["serve", "--content-bytes-max", "60001"], 2);
    assert!(reason.contains("content-bytes-max") && reason.contains("60000"), "{reason}");
    refused(data, &["user", "add", "a/b"], 2);
    let reason = refused(data, &["status"], 1);
    assert!(reason.contains("no server runs"), "{reason}");
    done(data, &["user", "add", "ann"]);
    let reason = refused(data, &["user", "add", "ann"], 1);
    assert!(reason.contains("tern device add"), "{reason}");
    std::fs::remove_file(data.join("profiles/ann.toml")).unwrap();
    let reason = refused(data, &["user", "add", "ann"], 1);
    assert!(reason.contains("already") && reason.contains("tern device add"), "{reason}");
    let help = Command::new(TERN).output().unwrap();
    let help = String::from_utf8([help.stdout, help.stderr].concat()).unwrap();
    assert!(help.contains("Try first") && help.contains("tern serve"), "{help}");
}
