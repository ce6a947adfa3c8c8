//! What clients said in a capture is said again to a fresh server, or to one that runs already:
//! which answers come, how fast, and what that costs.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Serialize, Serializer};

use super::books::Books;
use super::on_fresh_server;
use super::talking::{LIMITLESS, costs, per_message, sources};
use crate::error::BenchError;
use crate::load::{Datagrams, Identity};
use crate::loader::{self, Fleet, Order, Task};
use crate::replay::{Accounts, Recording, Who, provide};
use crate::report::{Figure, Run};
use crate::system::{Plan, Server};

/// How long the replay may take beyond the capture: it gives up by itself what is not answered.
const SLACK: Duration = Duration::from_secs(600);

/// How long the load may take to end.
const PATIENCE: Duration = Duration::from_secs(30);

/// The command line of this scenario.
#[derive(Clone, Debug, clap::Args, Serialize)]
pub struct Replay {
    /// What `wirecat --extract` wrote
    file: PathBuf,
    /// How many times as fast as the capture, or max: as fast as answers come
    #[arg(long, default_value = "1", value_parser = parse_speed)]
    speed: Speed,
    /// When the server may ack: disk or process, see its options
    #[arg(long, default_value = "disk", conflicts_with_all = ["running", "profiles"])]
    durability: String,
    /// Say it to the server that runs on this data folder, instead of a fresh one; it is asked for
    /// new users over its control socket
    #[arg(long, value_name = "DIR", conflicts_with = "profiles")]
    running: Option<PathBuf>,
    /// Say it to the server of the profiles in this folder, as their devices
    #[arg(long, value_name = "DIR")]
    profiles: Option<PathBuf>,
}

/// Where it is said, and who says it.
struct Stage {
    server: SocketAddr,
    pin: [u8; 32],
    players: Vec<(Who, Identity)>,
}

/// How many times as fast as the capture.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Speed {
    Times(f64),
    Max,
}

impl Serialize for Speed {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Times(times) => serializer.serialize_f64(*times),
            Self::Max => serializer.serialize_str("max"),
        }
    }
}

fn parse_speed(text: &str) -> Result<Speed, String> {
    /// Faster than this, `max` is meant.
    const TIMES_MAX: f64 = 1e6;
    match text.parse::<f64>() {
        Ok(times) if times > 0.0 && times <= TIMES_MAX => Ok(Speed::Times(times)),
        _ if text == "max" => Ok(Speed::Max),
        _ => Err("a number above 0, a million at most, or max".to_owned()),
    }
}

impl Replay {
    pub(super) fn check(&self) -> Result<(), BenchError> {
        Recording::read(&self.file).map(drop)
    }

    pub(super) fn server_options(&self) -> Vec<(String, String)> {
        if self.elsewhere().is_some() {
            return Vec::new();
        }
        let options = [("durability", &*self.durability)].into_iter().chain(LIMITLESS);
        options.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    /// Where the server is that runs already; `None` if a fresh one is started.
    pub(super) fn elsewhere(&self) -> Option<&Path> {
        self.running.as_deref().or(self.profiles.as_deref())
    }

    pub(super) fn run(&self, plan: &Plan) -> Result<Run, BenchError> {
        if let Some(folder) = &self.profiles {
            let accounts = Accounts::read(folder)?;
            let recording = Recording::read(&self.file)?;
            let players = accounts.assign(&recording)?;
            let stage = Stage { server: accounts.server, pin: accounts.pin, players };
            return self.measure(&recording, stage, None);
        }
        if let Some(folder) = &self.running {
            return self.measure_on(&Server::find(folder)?);
        }
        on_fresh_server(plan, |server| self.measure_on(server))
    }

    fn measure_on(&self, server: &Server) -> Result<Run, BenchError> {
        let recording = Recording::read(&self.file)?;
        let players = provide(server, &recording)?;
        let stage = Stage { server: server.address(), pin: server.pin(), players };
        self.measure(&recording, stage, Some(server))
    }

    /// What it costs is told of a server that can be asked.
    fn measure(
        &self,
        recording: &Recording,
        stage: Stage,
        server: Option<&Server>,
    ) -> Result<Run, BenchError> {
        let frames = recording.steps.len();
        let speed = match self.speed {
            Speed::Times(times) => Some(times),
            Speed::Max => None,
        };
        let lasts = speed.map_or(Duration::ZERO, |times| recording.lasts().div_f64(times));
        let order = self.order(stage, speed);
        let mut fleet = Fleet::prepare(&[order], "ready", 1)?;
        let pids = fleet.pids();
        let read = || server.map(|server| Books::read(server, &pids)).transpose();
        let before = read()?;
        let start = Instant::now();
        fleet.start("frames", frames)?;
        fleet.wait_until_ready_within(lasts + SLACK)?;
        let (after, seconds) = (read()?, start.elapsed().as_secs_f64());
        fleet.start("done", frames)?;
        let (done, curves) = fleet.finish(PATIENCE)?;
        let mut figures = vec![
            Figure::new("capture", "lasts", "s", recording.lasts().as_secs_f64()),
            Figure::new("capture", "frames of clients", "", frames as f64),
            Figure::new("capture", "connections", "", recording.connections.len() as f64),
            Figure::new("capture", "users", "", recording.users.len() as f64),
        ];
        let counts = done.counts.iter();
        figures.extend(counts.map(|(group, name, n)| Figure::new(group, name, "", *n as f64)));
        for (name, latency) in curves.iter() {
            figures.extend(latency.figures(&name.replace('-', " ")));
        }
        let messages = done.acked.max(1) as f64;
        figures.push(Figure::new(
            "rate",
            "acked, the quiet end included",
            "per s",
            done.acked as f64 / seconds,
        ));
        if let (Some(before), Some(after)) = (before, after) {
            figures.extend(costs(&after.threads_since(&before), messages, seconds));
            figures.extend(per_message(&before.status, &after.status));
            figures.extend(after.disturbance_since(&before));
        }
        Ok(Run { figures, curves })
    }

    fn order(&self, stage: Stage, speed: Option<f64>) -> Order {
        let Stage { server, pin, players } = stage;
        let roles = players.iter().map(|((uin, device), _)| (uin.0, device.0)).collect();
        let devices = players.iter().map(|(_, own)| (own.uin.0, own.device.0, own.secret));
        Order {
            server,
            pin,
            sources: sources(server, 0, 1),
            devices: devices.collect(),
            weather: None,
            datagrams: Datagrams::Single,
            seed: 0,
            task: Task::Replay(loader::Replay { file: self.file.clone(), speed, roles }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speeds_are_numbers_or_the_most() {
        assert_eq!(parse_speed("10"), Ok(Speed::Times(10.0)));
        assert_eq!(parse_speed("0.5"), Ok(Speed::Times(0.5)));
        assert_eq!(parse_speed("max"), Ok(Speed::Max));
        for wrong in ["0", "-1", "inf", "nan", "1e7", "fast"] {
            assert!(parse_speed(wrong).is_err(), "{wrong}");
        }
    }
}
