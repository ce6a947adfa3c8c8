//! What clients said in a capture is said again to a fresh server: which answers come, how fast,
//! and what that costs.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Serialize, Serializer};

use super::books::Books;
use super::talking::{LIMITLESS, costs, per_message, sources};
use crate::error::BenchError;
use crate::load::Datagrams;
use crate::loader::{self, Fleet, Order, Task};
use crate::replay::{Recording, provide};
use crate::report::{Figure, Run};
use crate::system::Server;

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
    #[arg(long, default_value = "disk")]
    durability: String,
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
        let options = [("durability", &*self.durability)].into_iter().chain(LIMITLESS);
        options.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    pub(super) fn measure(&self, server: &Server) -> Result<Run, BenchError> {
        let recording = Recording::read(&self.file)?;
        let frames = recording.steps.len();
        let speed = match self.speed {
            Speed::Times(times) => Some(times),
            Speed::Max => None,
        };
        let lasts = speed.map_or(Duration::ZERO, |times| recording.lasts().div_f64(times));
        let order = self.order(server, &recording, speed)?;
        let mut fleet = Fleet::prepare(&[order], "ready", 1)?;
        let pids = fleet.pids();
        let before = Books::read(server, &pids)?;
        fleet.start("frames", frames)?;
        fleet.wait_until_ready_within(lasts + SLACK)?;
        let after = Books::read(server, &pids)?;
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
        let seconds = after.seconds_since(&before);
        let messages = done.acked.max(1) as f64;
        figures.push(Figure::new(
            "rate",
            "acked, the quiet end included",
            "per s",
            done.acked as f64 / seconds,
        ));
        figures.extend(costs(&after.threads_since(&before), messages, seconds));
        figures.extend(per_message(&before.status, &after.status));
        figures.extend(after.disturbance_since(&before));
        Ok(Run { figures, curves })
    }

    fn order(
        &self,
        server: &Server,
        recording: &Recording,
        speed: Option<f64>,
    ) -> Result<Order, BenchError> {
        let players = provide(server, recording)?;
        let roles = players.iter().map(|((uin, device), _)| (uin.0, device.0)).collect();
        let devices = players.iter().map(|(_, own)| (own.uin.0, own.device.0, own.secret));
        Ok(Order {
            server: server.address(),
            pin: server.pin(),
            sources: sources(server.address(), 0, 1),
            devices: devices.collect(),
            weather: None,
            datagrams: Datagrams::Single,
            seed: 0,
            task: Task::Replay(loader::Replay { file: self.file.clone(), speed, roles }),
        })
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
