//! The books of the server, of the load and of the machine between two moments.

use std::time::Instant;

use crate::error::BenchError;
use crate::measure::machine::{Usage, kernel_bytes};
use crate::measure::process::{Process, Thread};
use crate::report::Figure;
use crate::system::{Server, Status};

/// Name of the figure that says how much others used the machine during a run.
pub const OTHERS: &str = "other processes";

/// All books at one moment.
pub struct Books {
    at: Instant,
    /// The server's own figures.
    pub status: Status,
    /// The kernel's figures of the server.
    pub server: Process,
    /// Bytes that the kernel holds for itself, for the whole machine.
    pub kernel_bytes: u64,
    load: Vec<Process>,
    usage: Usage,
}

impl Books {
    /// Now; the load is this process and these.
    ///
    /// # Errors
    /// When the server does not answer.
    pub fn read(server: &Server, load: &[u32]) -> Result<Self, BenchError> {
        let status = server.status()?;
        Ok(Self {
            at: Instant::now(),
            server: server.process()?,
            load: [std::process::id()]
                .iter()
                .chain(load)
                .map(|pid| Process::read(*pid))
                .collect::<Result<_, _>>()?,
            usage: Usage::read(),
            kernel_bytes: kernel_bytes(),
            status,
        })
    }

    /// Time since `before` in seconds.
    pub fn seconds_since(&self, before: &Self) -> f64 {
        (self.at - before.at).as_secs_f64()
    }

    /// What the server's threads used since `before`, those of one kind together: the number
    /// behind a name is dropped.
    pub fn threads_since(&self, before: &Self) -> Vec<Thread> {
        let mut kinds: Vec<Thread> = Vec::new();
        for thread in self.server.since(&before.server) {
            let name = thread.name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '-');
            match kinds.iter_mut().find(|kind| kind.name == name) {
                Some(kind) => kind.add(&thread),
                None => kinds.push(Thread { name: name.to_owned(), ..thread }),
            }
        }
        kinds.retain(|kind| kind.cpu_ns > 0);
        kinds.sort_by_key(|kind| std::cmp::Reverse(kind.cpu_ns));
        kinds
    }

    /// CPU time of each process of the load since `before`, in percent of a core.
    pub fn load_since(&self, before: &Self) -> Vec<f64> {
        let seconds = self.seconds_since(before);
        let pairs = self.load.iter().zip(&before.load);
        pairs.map(|(now, then)| 100.0 * used(now, then) as f64 / 1e9 / seconds).collect()
    }

    /// Who else used the machine since `before`: figures are only as good as this is small.
    pub fn disturbance_since(&self, before: &Self) -> Vec<Figure> {
        let load: u64 = self.load.iter().zip(&before.load).map(|(now, then)| used(now, then)).sum();
        let own_ns = used(&self.server, &before.server) + load;
        let (others, stolen) = self.usage.others_since(&before.usage, own_ns);
        let share: f64 = self.load_since(before).iter().sum();
        vec![
            Figure::new("disturbance", OTHERS, "% of all cores", others),
            Figure::new("disturbance", "taken by the host", "% of all cores", stolen),
            Figure::new("disturbance", "the load itself", "% of a core", share),
        ]
    }
}

/// CPU time in ns.
fn used(now: &Process, then: &Process) -> u64 {
    now.since(then).iter().map(|thread| thread.cpu_ns).sum()
}
