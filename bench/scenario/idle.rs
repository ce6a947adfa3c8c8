//! Sessions that are logged in and say nothing but heartbeats: what each costs in memory, what
//! bringing it up cost, and what all of them cost at rest.

use std::time::{Duration, Instant};

use serde::Serialize;
use tern_protocol::frames::Network;

use super::books::Books;
use super::parse_seconds;
use super::talking::sources;
use crate::error::BenchError;
use crate::load::{Approach, Crowd, Datagrams, Event, Swarm, Tickets};
use crate::progress::Progress;
use crate::report::{Figure, Run};
use crate::system::Server;

/// How long all is left alone after the last login before memory is read: what the handshakes
/// needed is given back by then.
const SETTLE: Duration = Duration::from_secs(3);

/// The seed of the load; it only places heartbeats.
const SEED: u64 = 1;

/// The command line of this scenario.
#[derive(Clone, Debug, clap::Args, Serialize)]
pub struct Idle {
    /// Sessions, each of a user of its own
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    sessions: u32,
    /// How long to watch them at rest; a heartbeat comes every 25 s by default
    #[arg(long, value_name = "S", default_value_t = 30.0, value_parser = parse_seconds)]
    seconds: f64,
}

impl Idle {
    pub(super) fn measure(&self, server: &Server) -> Result<Run, BenchError> {
        eprintln!("  adding {} users", self.sessions);
        let identities = server.add_users(self.sessions as usize)?;

        let empty = Books::read(server, &[])?;
        let swarm = Swarm::new(Approach {
            server: server.address(),
            pin: server.pin(),
            sources: sources(server.address(), 0, 1),
            weather: None,
            datagrams: Datagrams::Off,
            returns: false,
            tickets: Tickets::None,
            seed: SEED,
        })?;
        let mut growth = Growth::new(self.sessions as usize, &empty);
        let mut progress = Progress::new("logged in");
        let seen = |online| {
            progress.show(online, self.sessions as usize);
            growth.look(online, server)
        };
        let mut crowd = Crowd::log_in(swarm, identities, Network::Cellular, seen)?;
        let full = Books::read(server, &[])?;
        crowd.rest(Instant::now() + SETTLE, |_| {})?;

        eprintln!("  {} s at rest", self.seconds);
        let before = Books::read(server, &[])?;
        let mut beats = 0_u64;
        let end = Instant::now() + Duration::from_secs_f64(self.seconds);
        crowd.rest(end, |event| beats += u64::from(event == Event::Beat))?;
        let after = Books::read(server, &[])?;

        let mut figures = self.memory(&empty, &before);
        figures.extend(growth.figures);
        figures.extend(self.logins(&empty, &full));
        figures.extend(self.at_rest(&before, &after, beats));
        figures.extend(after.disturbance_since(&before));
        Ok(Run { figures, ..Run::default() })
    }

    fn memory(&self, empty: &Books, full: &Books) -> Vec<Figure> {
        const GROUP: &str = "memory";
        let kernel = (full.kernel_bytes, empty.kernel_bytes);
        let (empty, full) = (empty.server.memory, full.server.memory);
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        let each = |name: &str, full: u64, empty: u64| {
            let bytes = (full as f64 - empty as f64) / f64::from(self.sessions);
            Figure::new(GROUP, name, "bytes per session", bytes)
        };
        vec![
            Figure::new(GROUP, "resident without sessions", "MiB", mib(empty.rss)),
            Figure::new(GROUP, "resident with them", "MiB", mib(full.rss)),
            each("resident", full.rss, empty.rss),
            each("of it private", full.anonymous, empty.anonymous),
            each("of it files", full.file, empty.file),
            each("of it shared", full.shared, empty.shared),
            each("kernel, for all processes", kernel.0, kernel.1),
        ]
    }

    fn logins(&self, empty: &Books, full: &Books) -> Vec<Figure> {
        const GROUP: &str = "logins";
        let sessions = f64::from(self.sessions);
        let seconds = full.seconds_since(empty);
        let threads = full.threads_since(empty);
        let each = |ns: u64| ns as f64 / 1_000.0 / sessions;
        let all: u64 = threads.iter().map(|thread| thread.cpu_ns).sum();
        let mut figures = vec![
            Figure::new(GROUP, "rate", "per s", sessions / seconds),
            Figure::new(GROUP, "server's CPU time", "µs per login", each(all)),
        ];
        figures.extend(threads.iter().map(|thread| {
            Figure::new(GROUP, format!("by {}", thread.name), "µs per login", each(thread.cpu_ns))
        }));
        figures
    }

    fn at_rest(&self, before: &Books, after: &Books, beats: u64) -> Vec<Figure> {
        const GROUP: &str = "at rest";
        let seconds = after.seconds_since(before);
        let threads = after.threads_since(before);
        let per_second = |ns: u64| ns as f64 / 1_000.0 / seconds;
        let all: u64 = threads.iter().map(|thread| thread.cpu_ns).sum();
        let mut figures = vec![
            Figure::new(GROUP, "server's CPU time", "µs per s", per_second(all)),
            Figure::new(GROUP, "of a core", "%", per_second(all) / 1e4),
        ];
        figures.extend(threads.iter().map(|thread| {
            Figure::new(GROUP, format!("by {}", thread.name), "µs per s", per_second(thread.cpu_ns))
        }));
        figures.push(Figure::new(GROUP, "heartbeats", "per s", beats as f64 / seconds));
        if let Some(sessions) = after.status.figure("sessions_now") {
            figures.push(Figure::new(GROUP, "sessions at the end", "", sessions as f64));
        }
        figures
    }
}

/// How memory grows while sessions come in.
struct Growth {
    /// Sessions between two looks, and at the next one.
    step: usize,
    next: usize,
    empty: u64,
    figures: Vec<Figure>,
}

impl Growth {
    /// Looks while they come in.
    const LOOKS: usize = 10;

    fn new(sessions: usize, empty: &Books) -> Self {
        let step = sessions.div_ceil(Self::LOOKS);
        Self { step, next: step, empty: empty.server.memory.rss, figures: Vec::new() }
    }

    /// Notes the memory if it is time.
    fn look(&mut self, online: usize, server: &Server) -> Result<(), BenchError> {
        if online < self.next {
            return Ok(());
        }
        self.next += self.step;
        let grown = server.process()?.memory.rss as f64 - self.empty as f64;
        let mib = grown / f64::from(1 << 20);
        let name = online.to_string();
        self.figures.push(Figure::new("memory while they come in", name, "MiB", mib));
        Ok(())
    }
}
