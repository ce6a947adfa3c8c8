//! The least that a machine asks for what a server did: a process that receives and sends as many
//! datagrams of the same size, and makes as many bytes durable in as many syncs, and does nothing
//! else: no encryption, no session, no order, no deduplication.
//!
//! One thread echoes with blocking calls, one datagram each; another writes and syncs at even
//! distances. The parent asks the kernel what the two used. A process that loses its parent ends.

use std::fs::File;
use std::io::{BufRead, Write};
use std::net::UdpSocket;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FallocateFlags, fallocate};
use serde::{Deserialize, Serialize};

use crate::error::{BenchError, Tried};
use crate::measure::curves::Curves;
use crate::measure::latency::Latency;

/// The name of the subcommand that the process is started with.
pub const SUBCOMMAND: &str = "floor-server";

/// Names of its threads in the kernel's books.
pub const ECHO: &str = "floor-echo";
/// See [`ECHO`].
pub const COMMIT: &str = "floor-commit";

/// Bytes of the file that is written round and round: as much as a new data folder reserves.
const FILE_BYTES: u64 = 64 << 20;

/// Largest datagram of the echo.
const DATAGRAM_BYTES: usize = 64 << 10;

/// What the process does.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Work {
    /// Datagrams sent for each that is received.
    pub replies: f64,
    /// Bytes of each.
    pub reply_bytes: usize,
    /// Syncs a second.
    pub commits: f64,
    /// Bytes written before each.
    pub commit_bytes: usize,
    /// Where the file is made.
    pub folder: PathBuf,
}

/// What it says once it can be used.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Place {
    /// Where it listens on loopback.
    pub port: u16,
}

/// Does the work that standard input names until it is closed, then tells how long commits took.
///
/// # Errors
/// When the system refuses.
pub fn serve() -> Result<(), BenchError> {
    let mut input = std::io::stdin().lock();
    let mut line = String::new();
    input.read_line(&mut line).tried("read the work")?;
    let work: Work = serde_json::from_str(&line).tried("read the work")?;
    let socket = UdpSocket::bind("127.0.0.1:0").tried("a UDP socket for the floor")?;
    let port = socket.local_addr().tried("its address")?.port();
    let file = prepared(&work.folder)?;
    let (stop, stopped) = std::sync::mpsc::sync_channel::<()>(1);
    let echo = work.clone();
    std::thread::Builder::new()
        .name(ECHO.to_owned())
        .spawn(move || echo.echo(&socket))
        .tried("a thread")?;
    let commit = std::thread::Builder::new()
        .name(COMMIT.to_owned())
        .spawn(move || work.commit(&file, &stopped))
        .tried("a thread")?;
    tell(&serde_json::to_string(&Place { port }).tried("the place as JSON")?)?;
    line.clear();
    input.read_line(&mut line).tried("the end of the work")?;
    drop(stop);
    let latency = commit.join().expect("the thread does not panic").tried("commit")?;
    let mut curves = Curves::default();
    curves.add("commit", latency);
    tell(&curves.to_log()?)
}

fn tell(text: &str) -> Result<(), BenchError> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush()).tried("tell the parent")
}

/// A file whose bytes are there, so that no write makes it grow.
fn prepared(folder: &Path) -> Result<File, BenchError> {
    let file = File::create(folder.join("floor")).tried("the floor's file")?;
    fallocate(&file, FallocateFlags::empty(), 0, FILE_BYTES).tried("reserve the floor's file")?;
    let zeros = vec![0; 1 << 20];
    for offset in (0..FILE_BYTES).step_by(zeros.len()) {
        file.write_all_at(&zeros, offset).tried("fill the floor's file")?;
    }
    file.sync_all().tried("sync the floor's file")?;
    Ok(file)
}

impl Work {
    /// Sends what each datagram brings in back to where it came from, with its first bytes.
    fn echo(&self, socket: &UdpSocket) {
        let mut bytes = vec![0; DATAGRAM_BYTES];
        let mut owed = 0.0;
        while let Ok((_, from)) = socket.recv_from(&mut bytes) {
            owed += self.replies;
            while owed >= 1.0 {
                owed -= 1.0;
                // A full socket loses it; the parent counts what comes.
                let _ = socket.send_to(&bytes[..self.reply_bytes], from);
            }
        }
    }

    /// Writes and syncs until it is stopped; how long each took.
    fn commit(
        &self,
        file: &File,
        stopped: &std::sync::mpsc::Receiver<()>,
    ) -> std::io::Result<Latency> {
        let bytes = vec![7; self.commit_bytes];
        let between = Duration::from_secs_f64(1.0 / self.commits.clamp(1e-3, 1e6));
        let (mut latency, mut offset) = (Latency::default(), 0);
        let mut next = Instant::now();
        loop {
            next += between;
            let rest = next.saturating_duration_since(Instant::now());
            if stopped.recv_timeout(rest) == Err(std::sync::mpsc::RecvTimeoutError::Disconnected) {
                return Ok(latency);
            }
            let start = Instant::now();
            file.write_all_at(&bytes, offset)?;
            file.sync_data()?;
            latency.record(start.elapsed());
            offset = (offset + bytes.len() as u64) % (FILE_BYTES - bytes.len() as u64);
        }
    }
}
