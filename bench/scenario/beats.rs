//! What a heartbeat costs the server: stretches of one server in turns, in which idle sessions say
//! nothing, beat with the digest that the server has too, or beat with another, so that the server
//! asks for their cursors and hears them.

use std::time::{Duration, Instant};

use serde::Serialize;
use tern_protocol::ChannelId;
use tern_protocol::frames::Network;

use super::books::Books;
use super::parse_seconds;
use super::talking::{LIMITLESS, sources};
use crate::error::BenchError;
use crate::load::{
    Approach, CONTENT_BYTES_MIN, Crowd, Datagrams, Event, Message, Swarm, Tickets, Wait, check,
};
use crate::report::{Figure, Run};
use crate::system::{Server, Status};

/// How long all is left alone before the first stretch.
const SETTLE: Duration = Duration::from_secs(3);

/// First messages under way at once: a shard looks up few strangers at a time.
const AT_ONCE: usize = 64;

/// How long the channels may take to be there.
const PATIENCE: Duration = Duration::from_secs(120);

/// Heartbeat of the server in ms, its longest: only the beats of this scenario count.
const HEARTBEAT_MS: &str = "600000";

/// What sessions do in a stretch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Manner {
    Silent,
    Equal,
    Different,
}

const MANNERS: [(Manner, &str); 3] = [
    (Manner::Silent, "silent"),
    (Manner::Equal, "equal digests"),
    (Manner::Different, "different digests"),
];

/// Counts of the server that say what a heartbeat takes.
const COUNTS: [&str; 6] =
    ["datagrams_in", "datagrams_out", "receives", "transmits", "turns", "sleeps"];

/// The command line of this scenario.
#[derive(Clone, Debug, clap::Args, Serialize)]
pub struct Beats {
    /// Sessions, each of a user of its own
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(3..=1_000_000))]
    sessions: u32,
    /// Seconds between two heartbeats of a session; all of them are spread evenly
    #[arg(long, value_name = "S", default_value_t = 10.0, value_parser = parse_seconds)]
    every: f64,
    /// Channels of each session, an even number
    #[arg(long, default_value_t = 20)]
    channels: usize,
    /// How often to go through the three kinds of stretches
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// How long each is
    #[arg(long, value_name = "S", default_value_t = 10.0, value_parser = parse_seconds)]
    seconds: f64,
}

/// What one stretch took.
struct Stretch {
    manner: Manner,
    seconds: f64,
    beats: u64,
    /// Lists of cursors that the server asked for.
    asked: u64,
    cpu_us: f64,
    /// Of it, what the workers took.
    workers_us: f64,
    /// How much each of [`COUNTS`] grew.
    counts: [u64; COUNTS.len()],
}

impl Beats {
    pub(super) fn check(&self) -> Result<(), BenchError> {
        let most = self.sessions as usize - 1;
        if !self.channels.is_multiple_of(2) || self.channels == 0 || self.channels > most {
            return Err(BenchError::Usage(format!("--channels: even, 2 to {most}")));
        }
        Ok(())
    }

    pub(super) fn server_options(&self) -> Vec<(String, String)> {
        let mut options = vec![("heartbeat-wired-ms", HEARTBEAT_MS)];
        options.extend(LIMITLESS);
        options.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    pub(super) fn measure(&self, server: &Server) -> Result<Run, BenchError> {
        eprintln!("  adding {} users", self.sessions);
        let identities = server.add_users(self.sessions as usize)?;
        let swarm = Swarm::new(Approach {
            server: server.address(),
            pin: server.pin(),
            sources: sources(server.address(), 0, 1),
            weather: None,
            datagrams: Datagrams::Doubled,
            returns: false,
            tickets: Tickets::None,
            seed: 1,
        })?;
        let mut crowd = Crowd::log_in(swarm, identities, Network::Wired, |_| Ok(()))?;
        (0..crowd.uins.len()).for_each(|device| crowd.swarm.hold_beats(device));
        eprintln!("  {} channels each", self.channels);
        self.befriend(&mut crowd)?;
        crowd.rest(Instant::now() + SETTLE, |_| {})?;

        let start = Books::read(server, &[])?;
        let mut stretches = Vec::new();
        for round in 1..=self.rounds {
            eprintln!("  round {round} of {}", self.rounds);
            for (manner, _) in MANNERS {
                stretches.push(self.stretch(server, &mut crowd, manner)?);
            }
        }
        let mut figures = self.figures(&stretches)?;
        figures.extend(Books::read(server, &[])?.disturbance_since(&start));
        Ok(Run { figures, ..Run::default() })
    }

    /// Each device writes to the next ones, and so has as many channels to both sides.
    fn befriend(&self, crowd: &mut Crowd) -> Result<(), BenchError> {
        let (count, to_each) = (crowd.uins.len(), self.channels / 2);
        let all = count * to_each;
        let (deadline, mut sent, mut missing) = (Instant::now() + PATIENCE, 0, all);
        while missing > 0 {
            if Instant::now() > deadline {
                let what = format!("{missing} first messages have not come");
                return Err(BenchError::Load(what));
            }
            while sent < all && sent + missing < all + AT_ONCE {
                let (device, step) = (sent % count, sent / count + 1);
                let other = crowd.uins[(device + step) % count];
                let channel = ChannelId::direct(crowd.uins[device], other);
                let message = Message { channel, tag: 0, content_bytes: CONTENT_BYTES_MIN };
                crowd.swarm.send(device, message);
                sent += 1;
            }
            crowd.swarm.turn()?;
            while let Some((device, _, event)) = crowd.swarm.poll_event() {
                check(device, event)?;
                missing -= usize::from(event == Event::Received(0));
            }
            crowd.swarm.wait(deadline, Wait::Sleep)?;
        }
        Ok(())
    }

    fn stretch(
        &self,
        server: &Server,
        crowd: &mut Crowd,
        manner: Manner,
    ) -> Result<Stretch, BenchError> {
        let count = crowd.uins.len();
        let gap = Duration::from_secs_f64(self.every / count as f64);
        let before = Books::read(server, &[])?;
        let (start, mut due, mut heard) = (Instant::now(), 0_u32, 0);
        let end = start + Duration::from_secs_f64(self.seconds);
        while Instant::now() < end {
            while manner != Manner::Silent && start + gap * due <= Instant::now() {
                crowd.swarm.beat(due as usize % count, manner == Manner::Different);
                due += 1;
            }
            let next = if manner == Manner::Silent { end } else { start + gap * due };
            crowd.rest(next.min(end), |event| heard += u64::from(event == Event::Beat))?;
        }
        let after = Books::read(server, &[])?;
        let threads = after.threads_since(&before);
        let us = |name: &str| {
            let own = threads.iter().filter(|thread| thread.name.starts_with(name));
            own.map(|thread| thread.cpu_ns).sum::<u64>() as f64 / 1e3
        };
        let grown = |name: &str| {
            let count = |status: &Status| status.figure(name).unwrap_or(0);
            count(&after.status).saturating_sub(count(&before.status))
        };
        let (beats, asked) = (grown("beats"), grown("cursors_asked"));
        if heard.abs_diff(beats) > beats / 20 + 20 {
            let what = format!("{heard} beats were heard answered, the server counts {beats}");
            return Err(BenchError::Load(what));
        }
        let (seconds, cpu_us) = (after.seconds_since(&before), us(""));
        let (workers_us, counts) = (us("tern-worker"), COUNTS.map(grown));
        Ok(Stretch { manner, seconds, beats, asked, cpu_us, workers_us, counts })
    }

    fn figures(&self, stretches: &[Stretch]) -> Result<Vec<Figure>, BenchError> {
        let of = |manner| stretches.iter().filter(move |stretch| stretch.manner == manner);
        let mut figures = Vec::new();
        for (manner, name) in MANNERS {
            let (seconds, beats) =
                (total(of(manner), |s| s.seconds), total(of(manner), |s| s.beats as f64));
            let asked = total(of(manner), |s| s.asked as f64);
            let is_as_meant = match manner {
                Manner::Silent => beats == 0.0,
                Manner::Equal => beats > 0.0 && asked == 0.0,
                Manner::Different => beats > 0.0 && asked >= 0.9 * beats,
            };
            if !is_as_meant {
                let what = format!("{name}: {beats} beats, {asked} lists of cursors asked for");
                return Err(BenchError::Load(what));
            }
            figures.push(Figure::new(name, "heartbeats", "per s", beats / seconds));
            figures.push(Figure::new(name, "lists of cursors said", "per s", asked / seconds));
            let cpu = total(of(manner), |s| s.cpu_us) / seconds;
            figures.push(Figure::new(name, "server's CPU time", "µs per s", cpu));
            if manner == Manner::Silent {
                continue;
            }
            let each = |us: fn(&Stretch) -> f64| {
                // Each stretch against the silent one of its round.
                let pairs = of(manner).zip(of(Manner::Silent));
                pairs.map(move |(own, silent)| {
                    (us(own) - us(silent) * own.seconds / silent.seconds) / own.beats as f64
                })
            };
            let cpu: Vec<f64> = each(|s| s.cpu_us).collect();
            let workers: Vec<f64> = each(|s| s.workers_us).collect();
            let group = format!("a heartbeat, {name}");
            figures.push(Figure::new(&group, "server's CPU time", "µs", median(&cpu)));
            figures.push(Figure::new(&group, "of it the workers", "µs", median(&workers)));
            for (index, name) in COUNTS.into_iter().enumerate() {
                let counted = total(of(manner), |s| s.counts[index] as f64);
                figures.push(Figure::new(&group, name, "events", counted / beats));
            }
            figures.extend(
                cpu.iter().enumerate().map(|(round, us)| {
                    Figure::new(&group, format!("round {}", round + 1), "µs", *us)
                }),
            );
        }
        Ok(figures)
    }
}

fn total<'a>(stretches: impl Iterator<Item = &'a Stretch>, of: impl Fn(&Stretch) -> f64) -> f64 {
    stretches.map(of).sum()
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(0.0)
}
