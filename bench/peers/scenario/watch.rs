//! The kernel's books of a server between two moments, read by a thread of its own, so that the
//! load does not wait for it.

use std::time::{Duration, Instant};

use tern_bench::OTHERS;
use tern_bench::error::BenchError;
use tern_bench::measure::machine::Usage;
use tern_bench::measure::process::Process;
use tern_bench::report::Figure;

use crate::peer::Server;

/// What was used between two moments.
#[derive(Clone, Copy, Debug)]
pub struct Used {
    /// CPU time of the server in ns.
    pub server_ns: u64,
    /// CPU time of this process in ns: the load, and the links if there are any.
    pub load_ns: u64,
    /// Time that passed.
    pub time: Duration,
    /// Resident memory of the server at the end, in bytes.
    pub resident: u64,
    /// What other processes used, in percent of all cores.
    pub others: f64,
}

/// Books at one moment.
struct Books {
    at: Instant,
    server: Process,
    load: Process,
    usage: Usage,
}

impl Books {
    fn read(server: &dyn Server) -> Result<Self, BenchError> {
        Ok(Self {
            at: Instant::now(),
            server: server.process()?,
            load: Process::read(std::process::id())?,
            usage: Usage::read(),
        })
    }
}

/// Acts, and tells what was used between two moments meanwhile.
///
/// # Errors
/// When it can't act, or the server is gone.
pub fn during<T>(
    server: &dyn Server,
    from: Instant,
    to: Instant,
    act: impl FnOnce() -> Result<T, BenchError>,
) -> Result<(T, Used), BenchError> {
    std::thread::scope(|scope| {
        let books = scope.spawn(move || between(server, from, to));
        let done = act()?;
        Ok((done, books.join().expect("it does not panic")?))
    })
}

/// Waits for both moments and tells what was used between them.
fn between(server: &dyn Server, from: Instant, to: Instant) -> Result<Used, BenchError> {
    std::thread::sleep(from.saturating_duration_since(Instant::now()));
    let before = Books::read(server)?;
    std::thread::sleep(to.saturating_duration_since(Instant::now()));
    let after = Books::read(server)?;
    let used = |now: &Process, then: &Process| -> u64 {
        now.since(then).iter().map(|thread| thread.cpu_ns).sum()
    };
    let server_ns = used(&after.server, &before.server);
    let load_ns = used(&after.load, &before.load);
    let (others, _) = after.usage.others_since(&before.usage, server_ns + load_ns);
    let resident = after.server.memory.rss;
    Ok(Used { server_ns, load_ns, time: after.at - before.at, resident, others })
}

impl Used {
    /// How much the load and others used: figures are only as good as these are small.
    pub fn disturbance(&self) -> Vec<Figure> {
        let share = 100.0 * self.load_ns as f64 / self.time.as_nanos() as f64;
        vec![
            Figure::new("disturbance", OTHERS, "% of all cores", self.others),
            Figure::new("disturbance", "the load itself", "% of a core", share),
        ]
    }
}
