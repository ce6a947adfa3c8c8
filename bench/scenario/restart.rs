//! How long a server takes to be back after `kill -9`, with many groups and with none: two servers
//! with the same users, killed and started in turns.

use std::time::{Duration, Instant};

use serde::Serialize;
use tern_protocol::frames::Network;
use tern_protocol::limits::CHANGE_MEMBERS_MAX;
use tern_protocol::{ChannelId, Uin};

use super::talking::{LIMITLESS, sources};
use crate::error::BenchError;
use crate::load::{
    Approach, CONTENT_BYTES_MIN, Crowd, Datagrams, Event, Identity, Message, Swarm, Tickets, Wait,
    check,
};
use crate::measure::machine::Usage;
use crate::measure::process::Process;
use crate::report::{Figure, Run};
use crate::scenario::OTHERS;
use crate::system::{Plan, Server};

/// Groups that are made at once: each takes a record in the home shard of every member first.
const AT_ONCE: usize = 16;

/// How long a server may do nothing.
const PATIENCE: Duration = Duration::from_secs(30);

/// Tags of what makes a group, and of the message in it.
const MADE: u64 = 1;
/// See [`MADE`].
const SAID: u64 = 2;

/// The command line of this scenario.
#[derive(Clone, Debug, clap::Args, Serialize)]
pub struct Restart {
    /// Groups of the one server
    #[arg(long, default_value_t = 5_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    groups: u32,
    /// Members of each
    #[arg(long, default_value_t = 10)]
    members: usize,
    /// Users of each server
    #[arg(long, default_value_t = 500)]
    users: usize,
    /// How often each server is killed
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
}

/// A server that is killed again and again.
struct Subject {
    name: String,
    server: Server,
    user: Identity,
    figures: Vec<Start>,
}

/// A part of what a start took.
type Part = fn(&Start) -> Duration;

/// All of them, with their names.
const KINDS: [(&str, Part); 3] = [
    ("from kill to ready", |start| start.ready),
    ("from kill to a login answered", |start| start.login),
    ("CPU time until then", |start| start.cpu),
];

/// What a start took.
struct Start {
    ready: Duration,
    login: Duration,
    cpu: Duration,
}

impl Restart {
    pub(super) fn check(&self) -> Result<(), BenchError> {
        let most = (CHANGE_MEMBERS_MAX + 1).min(self.users);
        if !(2..=most).contains(&self.members) {
            return Err(BenchError::Usage(format!("--members: 2 to {most}")));
        }
        Ok(())
    }

    pub(super) fn server_options(&self) -> Vec<(String, String)> {
        let mut options = LIMITLESS.to_vec();
        options.push(("channels-per-hour", "1000000"));
        options.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    pub(super) fn run(&self, plan: &Plan) -> Result<Run, BenchError> {
        let groups = self.groups as usize;
        let mut subjects = Vec::new();
        for groups in [0, groups] {
            let name =
                if groups == 0 { "no groups".to_owned() } else { format!("{groups} groups") };
            subjects.push(self.subject(plan, name, groups)?);
        }
        let usage = Usage::read();
        for round in 1..=self.rounds {
            eprintln!("  round {round} of {}", self.rounds);
            for subject in &mut subjects {
                let start = restart(subject, plan);
                let start = start.map_err(|error| subject.server.with_words(error))?;
                subject.figures.push(start);
            }
        }
        let mut figures: Vec<Figure> = subjects.iter().flat_map(Subject::figures).collect();
        let (others, _) = Usage::read().others_since(&usage, 0);
        figures.push(Figure::new("disturbance", OTHERS, "% of all cores, all processes", others));
        subjects.into_iter().try_for_each(|subject| subject.server.stop())?;
        Ok(Run { figures, ..Run::default() })
    }

    fn subject(&self, plan: &Plan, name: String, groups: usize) -> Result<Subject, BenchError> {
        eprintln!("  a server with {} users and {name}", self.users);
        let server = Server::start(plan)?;
        let identities = server.add_users(self.users)?;
        let user = identities[0].clone();
        self.fill(&server, identities, groups).map_err(|error| server.with_words(error))?;
        Ok(Subject { name, server, user, figures: Vec::new() })
    }

    /// Every user makes groups of those behind it, and says something in each; without groups,
    /// users only log in.
    fn fill(
        &self,
        server: &Server,
        identities: Vec<Identity>,
        groups: usize,
    ) -> Result<(), BenchError> {
        let mut crowd = log_in(server, identities)?;
        let (count, mut asked, mut said) = (crowd.uins.len(), 0, 0);
        let mut open: Vec<Option<ChannelId>> = vec![None; count];
        let mut heard = Instant::now();
        while said < groups {
            // A user waits for the one before, so each of its answers is of the newest.
            while asked < groups && asked - said < AT_ONCE && open[asked % count].is_none() {
                let owner = asked % count;
                let first = owner + 1 + asked / count;
                let mut others: Vec<Uin> = (first..first + count)
                    .map(|n| crowd.uins[n % count])
                    .filter(|uin| *uin != crowd.uins[owner])
                    .take(self.members - 1)
                    .collect();
                others.sort_unstable();
                open[owner] = Some(crowd.swarm.create_group(owner, &others, MADE));
                asked += 1;
            }
            crowd.swarm.turn()?;
            while let Some((device, at, event)) = crowd.swarm.poll_event() {
                check(device, event)?;
                if matches!(event, Event::Acked(_)) {
                    heard = at; // a heartbeat is no step
                }
                match (event, open[device]) {
                    (Event::Acked(MADE), Some(channel)) => {
                        let content_bytes = CONTENT_BYTES_MIN;
                        crowd.swarm.send(device, Message { channel, tag: SAID, content_bytes });
                    }
                    (Event::Acked(SAID), Some(_)) => {
                        open[device] = None;
                        said += 1;
                    }
                    _ => {}
                }
            }
            if heard.elapsed() > PATIENCE {
                return Err(BenchError::Load(format!("{said} of {groups} groups were made")));
            }
            crowd.swarm.wait(heard + PATIENCE, Wait::Sleep)?;
        }
        Ok(())
    }
}

impl Subject {
    fn figures(&self) -> Vec<Figure> {
        let group = |what: &str| format!("{}: {what}", self.name);
        let mut figures = Vec::new();
        for (what, of) in KINDS {
            let mut ms: Vec<f64> =
                self.figures.iter().map(|start| of(start).as_secs_f64() * 1e3).collect();
            let rounds = ms.iter().enumerate();
            let rounds: Vec<Figure> = rounds
                .map(|(round, ms)| {
                    Figure::new(&group(what), format!("round {}", round + 1), "ms", *ms)
                })
                .collect();
            ms.sort_by(f64::total_cmp);
            figures.push(Figure::new(&group(what), "median", "ms", ms[ms.len() / 2]));
            figures.extend(rounds);
        }
        figures
    }
}

/// Kills the server, starts it again, and logs somebody in.
fn restart(subject: &mut Subject, plan: &Plan) -> Result<Start, BenchError> {
    let killed = Instant::now();
    subject.server.kill()?;
    subject.server.start_again(plan)?;
    let ready = killed.elapsed();
    drop(log_in(&subject.server, vec![subject.user.clone()])?);
    let login = killed.elapsed();
    let threads = subject.server.process()?.since(&Process::default());
    let cpu = Duration::from_nanos(threads.iter().map(|thread| thread.cpu_ns).sum());
    Ok(Start { ready, login, cpu })
}

fn log_in(server: &Server, identities: Vec<Identity>) -> Result<Crowd, BenchError> {
    let swarm = Swarm::new(Approach {
        server: server.address(),
        pin: server.pin(),
        sources: sources(server.address(), 0, 1),
        weather: None,
        datagrams: Datagrams::Off,
        returns: false,
        tickets: Tickets::None,
        seed: 1,
    })?;
    Crowd::log_in(swarm, identities, Network::Wired, |_| Ok(()))
}
