//! What is measured, the same for every system: each scenario lays its load on a fresh server and
//! gives figures back.

pub mod idle;
pub mod kill;
pub mod latency;
mod ledger;
mod link;
pub mod loss;
mod talk;
pub mod throughput;
mod watch;

use std::path::Path;
use std::time::{Duration, Instant};

use serde::Serialize;
use tern_bench::error::BenchError;
use tern_bench::report::Run;

use crate::client::{Event, Load};
use crate::peer::{Peer, Site};

/// A scenario with its numbers.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "name", rename_all = "kebab-case")]
pub enum Scenario {
    /// Latency and cost at a fixed rate.
    Latency(latency::Latency),
    /// Latency over a path that delays and loses.
    Loss(loss::Loss),
    /// `kill -9` at full rate.
    Kill(kill::Kill),
    /// Memory of sessions that say nothing.
    Idle(idle::Idle),
    /// The highest rate that holds a gate on the tail.
    Throughput(throughput::Throughput),
}

impl Scenario {
    /// Its name in files: there is one for each rate, and one for each bad path.
    pub fn label(&self) -> String {
        match self {
            Self::Latency(latency) => format!("latency-{}", latency.rate),
            Self::Loss(loss) => loss.label(),
            Self::Kill(_) => "kill".to_owned(),
            Self::Idle(_) => "idle".to_owned(),
            Self::Throughput(_) => "throughput".to_owned(),
        }
    }

    /// Whether several systems may be measured at the same time: where time is spent on the path
    /// and not on the processor.
    pub fn is_parallel(&self) -> bool {
        matches!(self, Self::Loss(_))
    }

    /// Runs it once on a fresh server.
    ///
    /// # Errors
    /// When there are no figures to be had.
    pub fn run(
        &self,
        peer: &dyn Peer,
        program: &Path,
        site: &Site,
        seed: u64,
    ) -> Result<Run, BenchError> {
        if let Self::Throughput(throughput) = self {
            return throughput.run(peer, program, site, seed);
        }
        let mut server = peer.start(program, site)?;
        let run = match self {
            Self::Latency(latency) => latency.run(&*server, seed),
            Self::Loss(loss) => loss.run(&*server, peer.carrier(), seed),
            Self::Kill(kill) => kill.run(&mut *server, seed),
            Self::Idle(idle) => idle.run(&*server, seed),
            Self::Throughput(_) => unreachable!("it was taken above"),
        };
        run.map_err(|error| match error {
            BenchError::Load(what) => {
                BenchError::Load(format!("{what}; the server said: {}", server.words()))
            }
            other => other,
        })
    }
}

/// Connections under way at once.
const CONNECTS_AT_ONCE: usize = 32;

/// How long nobody may come online before something is wrong: a handshake over a bad path can
/// take a minute.
const PATIENCE: Duration = Duration::from_secs(90);

/// Connects this many devices and waits until all are online.
///
/// # Errors
/// When one can't.
pub fn connect(load: &mut dyn Load, devices: usize) -> Result<(), BenchError> {
    let (mut asked, mut online) = (0, 0);
    let mut heard = Instant::now();
    while online < devices {
        while asked < devices && asked - online.min(asked) < CONNECTS_AT_ONCE {
            load.connect()?;
            asked += 1;
        }
        load.turn()?;
        while let Some((device, _, event)) = load.poll_event() {
            heard = Instant::now();
            match event {
                Event::Online => online += 1,
                Event::Lost => online -= 1,
                other => check(device, &other)?,
            }
        }
        if heard.elapsed() > PATIENCE {
            return Err(BenchError::Load(format!("{online} of {devices} came online")));
        }
        load.wait(heard + PATIENCE)?;
    }
    Ok(())
}

/// A run ends with the first thing that goes wrong.
///
/// # Errors
/// When this is one.
pub fn check(device: usize, event: &Event) -> Result<(), BenchError> {
    match event {
        Event::Failed(why) => Err(BenchError::Load(format!("device {device}: {why}"))),
        _ => Ok(()),
    }
}
