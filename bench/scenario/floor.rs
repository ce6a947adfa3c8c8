//! How many times the floor Tern costs: a talk on a server, and then as many datagrams, syncs and
//! bytes by a process that does nothing else, at the same rate on the same cores.

use std::io::{BufRead, BufReader, Write};
use std::net::UdpSocket;
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde::Serialize;

use super::latency::Latency;
use super::on_fresh_server;
use super::talking::Talked;
use crate::error::{BenchError, Tried};
use crate::floor::{COMMIT, ECHO, Place, SUBCOMMAND, Work};
use crate::load::{Schedule, punctual, wait_for};
use crate::measure::curves::Curves;
use crate::measure::latency::Latency as Histogram;
use crate::measure::process::Process;
use crate::report::{Figure, Run};
use crate::system::{Plan, on_cores};

/// How long the echo may be silent at the end.
const LAST_ANSWERS: Duration = Duration::from_millis(500);

/// Least bytes of a datagram: it carries the time at which it was due.
const DATAGRAM_BYTES_MIN: usize = size_of::<u64>();

/// The command line of this scenario.
#[derive(Clone, Debug, clap::Args, Serialize)]
pub struct Floor {
    #[command(flatten)]
    #[serde(flatten)]
    talk: Latency,
}

/// What a message of the talk needed.
#[derive(Clone, Copy, Debug)]
struct Need {
    datagrams_in: f64,
    datagrams_out: f64,
    bytes_in: f64,
    bytes_out: f64,
    commits: f64,
    log_bytes: f64,
}

/// What the floor took.
struct Took {
    echo_us: f64,
    commit_us: f64,
    echo: Histogram,
    commit: Histogram,
}

impl Floor {
    pub(super) fn check(&self) -> Result<(), BenchError> {
        self.talk.check()
    }

    pub(super) fn server_options(&self) -> Vec<(String, String)> {
        self.talk.server_options()
    }

    pub(super) fn run(&self, plan: &Plan) -> Result<Run, BenchError> {
        let talk = self.talk.talk();
        let talked = on_fresh_server(plan, |server| self.talk.party().talk(server, &talk))?;
        let need = Need::of(&talked)?;
        eprintln!("  the floor of that");
        let took = self.take(plan, need)?;
        Ok(told(talked, need, took))
    }

    /// Runs the floor at the talk's rate.
    fn take(&self, plan: &Plan, need: Need) -> Result<Took, BenchError> {
        let folder = tempfile::Builder::new().prefix("tern-floor-").tempdir_in(&plan.data);
        let folder = folder.tried("a folder for the floor")?;
        let each = |bytes: f64, datagrams: f64| (bytes / datagrams.max(f64::MIN_POSITIVE)) as usize;
        let work = Work {
            replies: need.datagrams_out / need.datagrams_in.max(f64::MIN_POSITIVE),
            reply_bytes: each(need.bytes_out, need.datagrams_out).max(DATAGRAM_BYTES_MIN),
            commits: need.commits * self.talk.rate,
            commit_bytes: each(need.log_bytes, need.commits),
            folder: folder.path().to_owned(),
        };
        let mut server = FloorServer::start(plan, &work)?;
        let bytes = each(need.bytes_in, need.datagrams_in).max(DATAGRAM_BYTES_MIN);
        let (messages, echo, used) = self.send(&server, need.datagrams_in, bytes)?;
        let us = |name: &str| {
            let threads = used.iter().filter(|thread| thread.name == name);
            threads.map(|thread| thread.cpu_ns).sum::<u64>() as f64 / 1e3 / messages
        };
        let (echo_us, commit_us) = (us(ECHO), us(COMMIT));
        let commit = server.stop()?.get("commit");
        Ok(Took { echo_us, commit_us, echo, commit })
    }

    /// Sends what each message of the talk sent, by the talk's schedule: how many messages were
    /// measured, the echo's times, and what the threads of the floor used.
    fn send(
        &self,
        server: &FloorServer,
        datagrams: f64,
        bytes: usize,
    ) -> Result<(f64, Histogram, Vec<crate::measure::process::Thread>), BenchError> {
        let talk = self.talk.talk();
        let socket = UdpSocket::bind("127.0.0.1:0").tried("a UDP socket")?;
        socket.set_nonblocking(true).tried("a UDP socket")?;
        punctual()?;
        socket.connect(("127.0.0.1", server.place.port)).tried("reach the floor")?;
        let mut schedule = Schedule::new(talk.arrivals, talk.rate, talk.seed);
        let (mut echo, mut owed, mut messages) = (Histogram::default(), 0.0, 0_u64);
        let mut packet = vec![0; bytes];
        let start = Instant::now();
        let mut before = None;
        let mut buffer = vec![0; 64 << 10];
        while schedule.due() < talk.to {
            let due = schedule.due();
            hear(&socket, start, talk.from, start + due, &mut echo, &mut buffer)?;
            if due >= talk.from && before.is_none() {
                before = Some(Process::read(server.child.id())?);
            }
            messages += u64::from(due >= talk.from);
            packet[..DATAGRAM_BYTES_MIN].copy_from_slice(&(due.as_nanos() as u64).to_le_bytes());
            owed += datagrams;
            while owed >= 1.0 {
                owed -= 1.0;
                socket.send(&packet).tried("send to the floor")?;
            }
            schedule.advance();
        }
        let end = Instant::now() + LAST_ANSWERS;
        let after = Process::read(server.child.id())?;
        hear(&socket, start, talk.from, end, &mut echo, &mut buffer)?;
        Ok((messages.max(1) as f64, echo, after.since(&before.unwrap_or_default())))
    }
}

/// Takes the echoes that come until a moment.
fn hear(
    socket: &UdpSocket,
    start: Instant,
    from: Duration,
    until: Instant,
    echo: &mut Histogram,
    buffer: &mut [u8],
) -> Result<(), BenchError> {
    loop {
        match socket.recv(buffer) {
            Ok(_) => {
                let tag = buffer.first_chunk().map_or(0, |tag| u64::from_le_bytes(*tag));
                let due = Duration::from_nanos(tag);
                if due >= from {
                    echo.record(start.elapsed().saturating_sub(due));
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                if Instant::now() >= until {
                    return Ok(());
                }
                wait_for(&[socket.as_fd()], until)?;
            }
            Err(error) => return Err(error).tried("hear the floor"),
        }
    }
}

impl Need {
    fn of(talked: &Talked) -> Result<Self, BenchError> {
        let (before, after) = &talked.books;
        let grown = after.status.since(&before.status);
        let each = |name: &str| {
            let grown = grown.get(name).map(|growth| growth.by as f64);
            let missing = || BenchError::Server(format!("it does not count {name}"));
            Ok(grown.ok_or_else(missing)? / talked.messages.max(1) as f64)
        };
        Ok(Self {
            datagrams_in: each("datagrams_in")?,
            datagrams_out: each("datagrams_out")?,
            bytes_in: each("bytes_in")?,
            bytes_out: each("bytes_out")?,
            commits: each("commits")?,
            log_bytes: each("log_bytes_used")?,
        })
    }
}

/// Tern's figures, the floor's, and the one by the other.
fn told(talked: Talked, need: Need, took: Took) -> Run {
    let tern_us = talked.cpu_us_per_message();
    let p50 = |latency: &Histogram| latency.percentile(50.0).as_secs_f64() * 1e6;
    let tern_p50 = p50(&talked.curves.get("send to ack"));
    let floor_us = took.echo_us + took.commit_us;
    let floor_p50 = p50(&took.echo) + p50(&took.commit);
    let group = "floor";
    let mut figures = vec![
        Figure::new(group, "Tern, CPU time per message", "µs", tern_us),
        Figure::new(group, "floor, CPU time per message", "µs", floor_us),
        Figure::new(group, "of it the echo", "µs", took.echo_us),
        Figure::new(group, "of it the commits", "µs", took.commit_us),
        Figure::new(group, "TIMES THE FLOOR, CPU time", "", tern_us / floor_us),
        Figure::new(group, "Tern, p50 of send to ack", "µs", tern_p50),
        Figure::new(group, "floor, p50 of echo and p50 of commit", "µs", floor_p50),
        Figure::new(group, "TIMES THE FLOOR, p50", "", tern_p50 / floor_p50),
        Figure::new(group, "datagrams in per message", "", need.datagrams_in),
        Figure::new(group, "datagrams out per message", "", need.datagrams_out),
        Figure::new(group, "commits per message", "", need.commits),
        Figure::new(group, "bytes per commit", "", need.log_bytes / need.commits),
    ];
    figures.extend(took.echo.figures("floor's echo"));
    figures.extend(took.commit.figures("floor's commit"));
    let mut run = talked.into_run();
    figures.append(&mut run.figures);
    run.curves.add("floor's echo", took.echo);
    run.curves.add("floor's commit", took.commit);
    Run { figures, ..run }
}

/// The process of the floor.
struct FloorServer {
    child: Child,
    output: BufReader<std::process::ChildStdout>,
    place: Place,
}

impl FloorServer {
    fn start(plan: &Plan, work: &Work) -> Result<Self, BenchError> {
        let program = std::env::current_exe().tried("this program")?;
        let mut command = Command::new(program);
        command.arg(SUBCOMMAND).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = on_cores(plan, || command.spawn())?.tried("start the floor")?;
        let mut output = BufReader::new(child.stdout.take().expect("it was asked for"));
        let mut order = serde_json::to_string(work).tried("the work as JSON")?;
        order.push('\n');
        let input = child.stdin.as_mut().expect("it was asked for");
        input.write_all(order.as_bytes()).tried("order the floor")?;
        let mut line = String::new();
        output.read_line(&mut line).tried("hear the floor")?;
        let place = serde_json::from_str(&line).tried("where the floor is")?;
        Ok(Self { child, output, place })
    }

    /// Ends it: the times of its commits.
    fn stop(&mut self) -> Result<Curves, BenchError> {
        drop(self.child.stdin.take());
        let mut log = String::new();
        std::io::Read::read_to_string(&mut self.output, &mut log).tried("hear the floor")?;
        Curves::parse(&format!("{}\n", log.trim_end()))
    }
}

impl Drop for FloorServer {
    fn drop(&mut self) {
        // Both fail if it has ended, and then nothing is left to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
