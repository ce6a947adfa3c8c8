//! What the scenarios share: users with a device each, all logged in, and the books of the server
//! and the machine between two moments.

use std::time::{Duration, Instant};

use tern_protocol::Uin;
use tern_protocol::frames::Network;

use crate::error::BenchError;
use crate::load::{Event, Identity, Swarm, Wait};
use crate::measure::machine::Usage;
use crate::measure::process::{Process, Thread};
use crate::report::Figure;
use crate::system::{Server, Status};

/// Logins under way at once: below the number of handshakes from which the server asks strangers
/// to prove their address first.
const LOGINS_AT_ONCE: usize = 64;

/// How long nobody may be answered before something is wrong.
const PATIENCE: Duration = Duration::from_secs(20);

/// Time between two lines of progress.
const PROGRESS_EVERY: Duration = Duration::from_secs(5);

/// Name of the figure that says how much others used the machine during a run.
pub const OTHERS: &str = "other processes";

/// Devices that are logged in, each of a user of its own; device `n` of the swarm is `uins[n]`.
pub struct Crowd {
    /// Them.
    pub swarm: Swarm,
    /// Their users.
    pub uins: Vec<Uin>,
}

impl Crowd {
    /// Logs them in; only then does a bad path lose packets. `seen` hears how many are online.
    ///
    /// # Errors
    /// When one of them can't.
    pub fn log_in(
        mut swarm: Swarm,
        identities: Vec<Identity>,
        network: Network,
        mut seen: impl FnMut(usize) -> Result<(), BenchError>,
    ) -> Result<Self, BenchError> {
        let uins = identities.iter().map(|identity| identity.uin).collect();
        let (total, mut asked, mut online) = (identities.len(), 0, 0);
        let mut progress = Progress::new("logged in");
        let mut heard = Instant::now();
        let mut rest = identities.into_iter();
        while online < total {
            while asked - online < LOGINS_AT_ONCE
                && let Some(identity) = rest.next()
            {
                swarm.connect(identity, network)?;
                asked += 1;
            }
            swarm.turn()?;
            while let Some((device, _, event)) = swarm.poll_event() {
                heard = Instant::now();
                check(device, event)?;
                if event == Event::Online {
                    online += 1;
                    seen(online)?;
                }
            }
            if heard.elapsed() > PATIENCE {
                return Err(BenchError::Load(format!("{online} of {total} could log in")));
            }
            progress.show(online, total);
            swarm.wait(Instant::now() + PROGRESS_EVERY, Wait::Sleep)?;
        }
        swarm.begin_to_lose();
        Ok(Self { swarm, uins })
    }

    /// Lets them live until `until`, and gives their events to `hear`.
    ///
    /// # Errors
    /// When something goes wrong for one of them.
    pub fn rest(&mut self, until: Instant, mut hear: impl FnMut(Event)) -> Result<(), BenchError> {
        while Instant::now() < until {
            self.swarm.turn()?;
            while let Some((device, _, event)) = self.swarm.poll_event() {
                check(device, event)?;
                hear(event);
            }
            self.swarm.wait(until, Wait::Sleep)?;
        }
        Ok(())
    }
}

/// A run ends with the first thing that goes wrong.
///
/// # Errors
/// When this is one.
pub fn check(device: usize, event: Event) -> Result<(), BenchError> {
    match event {
        Event::Failed(kind, code) => {
            Err(BenchError::Load(format!("device {device}, {kind}: {code}: {}", code.sentence())))
        }
        Event::Online | Event::Acked(_) | Event::Received(_) | Event::Beat => Ok(()),
    }
}

/// A line to standard error, now and then.
pub struct Progress {
    what: &'static str,
    next: Instant,
}

impl Progress {
    /// Of what there is progress.
    pub fn new(what: &'static str) -> Self {
        Self { what, next: Instant::now() + PROGRESS_EVERY }
    }

    /// Says how far it is, if it is time.
    pub fn show(&mut self, done: usize, all: usize) {
        let now = Instant::now();
        if now >= self.next {
            self.next = now + PROGRESS_EVERY;
            eprintln!("  {done} of {all} {}", self.what);
        }
    }
}

/// All books at one moment.
pub struct Books {
    at: Instant,
    /// The server's own figures.
    pub status: Status,
    /// The kernel's figures of the server.
    pub server: Process,
    own: Process,
    usage: Usage,
}

impl Books {
    /// Now.
    ///
    /// # Errors
    /// When the server does not answer.
    pub fn read(server: &Server) -> Result<Self, BenchError> {
        let status = server.status()?;
        Ok(Self {
            at: Instant::now(),
            server: server.process()?,
            own: Process::read(std::process::id())?,
            usage: Usage::read(),
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

    /// Who else used the machine since `before`: figures are only as good as this is small.
    pub fn disturbance_since(&self, before: &Self) -> Vec<Figure> {
        let used = |now: &Process, then: &Process| -> u64 {
            now.since(then).iter().map(|thread| thread.cpu_ns).sum()
        };
        let own_ns = used(&self.server, &before.server) + used(&self.own, &before.own);
        let (others, stolen) = self.usage.others_since(&before.usage, own_ns);
        let load_ns = used(&self.own, &before.own) as f64;
        let load = load_ns / 1e9 / self.seconds_since(before);
        vec![
            Figure::new("disturbance", OTHERS, "% of all cores", others),
            Figure::new("disturbance", "taken by the host", "% of all cores", stolen),
            Figure::new("disturbance", "the load itself", "% of a core", 100.0 * load),
        ]
    }
}
