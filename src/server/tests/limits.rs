//! A server that gets little: few descriptors, little memory, and what it takes when nobody has
//! asked it for anything yet.
#![expect(
    clippy::unwrap_used,
    reason = "a test may stop at the first thing that is not as it should be"
)]

mod support;

use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use support::server::{ANY_PORT, Server, tern};

/// Limits that a shell sets for a server: descriptors, of which this one of two workers and four
/// shards asks for 50 before it begins, then kilobytes of address space.
const LIMITS: [&str; 16] = [
    "-n 5",
    "-n 9",
    "-n 13",
    "-n 17",
    "-n 21",
    "-n 25",
    "-n 29",
    "-n 36",
    "-n 49",
    "-n 50",
    "-n 64",
    "-v 20000",
    "-v 60000",
    "-v 120000",
    "-v 200000",
    "-v 400000",
];

/// Most that a fresh server may reserve of the disk and of shared memory together, in bytes.
const FRESH_BYTES_MAX: u64 = 64 << 20;

/// Bytes of one block as `stat` counts them.
const STAT_BLOCK_BYTES: u64 = 512;

/// How a limited server came up.
enum Came {
    Up(Box<Child>, String),
    /// With what it said on its standard error.
    Down(std::process::ExitStatus, String),
}

fn start(data: &Path, limit: &str) -> Came {
    let shared = data.with_extension("shared");
    let mut child = Command::new("sh")
        .arg("-c")
        .arg(format!("ulimit {limit} && exec \"$0\" serve --workers 2 --listen {ANY_PORT} \"$@\""))
        .arg(env!("CARGO_BIN_EXE_tern"))
        .arg("--data")
        .arg(data)
        .arg("--shared-memory")
        .arg(shared)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    while out.read_line(&mut line).unwrap() > 0 {
        if let Some(address) = line.strip_prefix("tern: ready on ") {
            let address = address.trim().to_owned();
            // Who does not read any more does not end a server.
            return Came::Up(Box::new(child), address);
        }
        line.clear();
    }
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    Came::Down(child.wait().unwrap(), said)
}

/// Whether the message was acked.
fn send(data: &Path, address: &str, text: &str) -> bool {
    let arguments =
        ["send", "--as", "ann", "--to", "bob", "--server", address, "--timeout", "10s", text];
    tern(data, &arguments).output().unwrap().status.success()
}

#[test]
fn too_little_is_said_and_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let server = Server::start(&data, ANY_PORT, &[]);
    server.user("ann");
    server.user("bob");
    let mut texts = vec!["first".to_owned()];
    assert!(send(&data, &server.address.to_string(), "first"));
    server.stop();
    let (mut refused, mut served, mut acked) = (0, 0, 0);
    for limit in LIMITS {
        match start(&data, limit) {
            Came::Up(mut child, address) => {
                served += 1;
                // Acked or not: it is in the sender's outbox, and sent again until it is.
                texts.push(limit.replace('-', "with "));
                acked += u32::from(send(&data, &address, texts.last().unwrap()));
                child.kill().unwrap();
                child.wait().unwrap();
            }
            Came::Down(status, said) => {
                refused += 1;
                let out_of_memory = said.contains("memory allocation of")
                    || said.contains("error while loading shared libraries");
                let why = said.lines().any(|line| line.starts_with("tern: "));
                let by_choice = status.code() == Some(1) && why;
                // So the kernel ends a program whose own image does not fit, before its first step.
                let not_loaded = said.is_empty() && status.signal() == Some(libc::SIGSEGV);
                let explained = by_choice || out_of_memory || not_loaded;
                assert!(explained, "{limit}: {status}: {said}");
                assert!(!said.contains("panicked") || status.signal().is_none(), "{limit}: {said}");
            }
        }
    }
    let server = Server::start(&data, ANY_PORT, &[]);
    let address = server.address.to_string();
    // What was not acked is in ann's outbox, and goes out with her next message.
    texts.push("last".to_owned());
    assert!(send(&data, &address, "last"));
    let count = texts.len().to_string();
    let arguments =
        ["recv", "--as", "bob", "--server", &address, "--count", &count, "--timeout", "60s"];
    let lines = tern(&data, &arguments).output().unwrap();
    let lines = String::from_utf8(lines.stdout).unwrap();
    let got: Vec<&str> = lines.lines().map(|line| line.splitn(7, ' ').nth(6).unwrap()).collect();
    println!(
        "TEST D-08 n={} refused={refused} served={served} acked={acked} lost={}",
        LIMITS.len(),
        texts.len() - got.len()
    );
    assert_eq!(got, texts, "each once, in order");
    assert!(refused > 0 && acked > 0, "limits on both sides of what is enough");
    server.stop();
}

/// Bytes that a folder really takes.
fn taken(path: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(path) else { return 0 };
    let of = |entry: std::fs::DirEntry| {
        let meta = entry.metadata().unwrap();
        let below = if meta.is_dir() { taken(&entry.path()) } else { 0 };
        meta.blocks() * STAT_BLOCK_BYTES + below
    };
    entries.flatten().map(of).sum()
}

#[test]
fn a_fresh_server_is_modest() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let begin = Instant::now();
    let server = Server::start(&data, ANY_PORT, &[]);
    let ready = begin.elapsed();
    let (disk, shared) = (taken(&data), taken(&data.with_extension("shared")));
    let told = server.figures().get("log_bytes_reserved");
    println!(
        "TEST fresh ready_ms={} disk_bytes={disk} shared_bytes={shared} told_bytes={told} rss_kib={}",
        ready.as_millis(),
        server.rss_kib()
    );
    assert!(disk + shared <= FRESH_BYTES_MAX, "{disk} and {shared} bytes");
    assert!(told <= disk, "it says {told} and takes {disk} bytes");
    server.stop();
}
