//! The scenarios, behind one enum: each lays its load on a fresh server, or a replay on one that
//! runs already, and returns figures.

mod beats;
mod books;
mod catchup;
mod crowds;
mod fanout;
mod floor;
mod idle;
mod latency;
mod login;
mod loss;
mod matrix;
mod mixed;
mod replay;
mod restart;
mod roam;
mod slow;
mod storm;
mod talking;
mod throughput;

use std::path::Path;
use std::time::Duration;

use serde::Serialize;

use crate::error::BenchError;
use crate::report::Run;
use crate::system::{Plan, Server};

pub use books::OTHERS;

/// What can be measured.
#[derive(Clone, Debug, clap::Subcommand, Serialize)]
#[serde(tag = "name", rename_all = "kebab-case")]
pub enum Scenario {
    /// Pairs of devices talk to each other at a fixed rate: latency, and cost per message
    Latency(latency::Latency),
    /// The highest rate of messages that holds a gate on the tail
    Throughput(throughput::Throughput),
    /// Members of a group talk: what a message to many takes and costs, for each size of group
    Fanout(fanout::Fanout),
    /// Some members of groups do not keep up: what that costs the others
    Slow(slow::Slow),
    /// Crowds come, go, or talk in a large group: what that costs those who are there
    Crowds(crowds::Crowds),
    /// A talk, and then as many datagrams and syncs by a process that does nothing else
    Floor(floor::Floor),
    /// Devices log in as fast as they can, cold and resumed: rate, and cost of each
    Login(login::Login),
    /// Sessions that are logged in and say nothing: memory of each, and what they cost at rest
    Idle(idle::Idle),
    /// A device comes back that missed many messages: how fast it has them, and who notices
    Catchup(catchup::Catchup),
    /// Sessions that only beat: what a heartbeat costs, with the digest of both sides equal or not
    Beats(beats::Beats),
    /// The server is killed under its sessions: how long until they can talk again
    Storm(storm::Storm),
    /// The server is killed and started, with many groups and with none
    Restart(restart::Restart),
    /// Pairs talk over a path that delays and loses packets: what a bad network costs a message
    Loss(loss::Loss),
    /// The same over all shares of loss and round trips, with each carrier
    Matrix(matrix::Matrix),
    /// Pairs talk while their devices change addresses
    Roam(roam::Roam),
    /// A day of chat, compressed: devices come and go, write, and catch up
    Mixed(mixed::Mixed),
    /// What clients said in a capture, said again at its own pace or faster
    Replay(replay::Replay),
}

impl Scenario {
    /// Its name on the command line.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Latency(_) => "latency",
            Self::Throughput(_) => "throughput",
            Self::Fanout(_) => "fanout",
            Self::Slow(_) => "slow",
            Self::Crowds(_) => "crowds",
            Self::Floor(_) => "floor",
            Self::Login(_) => "login",
            Self::Idle(_) => "idle",
            Self::Catchup(_) => "catchup",
            Self::Beats(_) => "beats",
            Self::Storm(_) => "storm",
            Self::Restart(_) => "restart",
            Self::Loss(_) => "loss",
            Self::Matrix(_) => "matrix",
            Self::Roam(_) => "roam",
            Self::Mixed(_) => "mixed",
            Self::Replay(_) => "replay",
        }
    }

    /// Whether it asks for what can be had.
    ///
    /// # Errors
    /// When it does not.
    pub fn check(&self) -> Result<(), BenchError> {
        match self {
            Self::Latency(latency) => latency.check(),
            Self::Throughput(throughput) => throughput.check(),
            Self::Fanout(fanout) => fanout.check(),
            Self::Slow(slow) => slow.check(),
            Self::Crowds(crowds) => crowds.check(),
            Self::Floor(floor) => floor.check(),
            Self::Restart(restart) => restart.check(),
            Self::Loss(loss) => loss.check(),
            Self::Matrix(matrix) => matrix.check(),
            Self::Roam(roam) => roam.check(),
            Self::Catchup(catchup) => catchup.check(),
            Self::Beats(beats) => beats.check(),
            Self::Mixed(mixed) => mixed.check(),
            Self::Replay(replay) => replay.check(),
            Self::Login(_) | Self::Idle(_) | Self::Storm(_) => Ok(()),
        }
    }

    /// What tells of the server, if it is one that runs already and is not to be started.
    pub fn elsewhere(&self) -> Option<&Path> {
        match self {
            Self::Replay(replay) => replay.elsewhere(),
            _ => None,
        }
    }

    /// Options of the server that it needs.
    pub fn server_options(&self) -> Vec<(String, String)> {
        match self {
            Self::Latency(latency) => latency.server_options(),
            Self::Throughput(throughput) => throughput.server_options(),
            Self::Fanout(fanout) => fanout.server_options(),
            Self::Slow(slow) => slow.server_options(),
            Self::Crowds(crowds) => crowds.server_options(),
            Self::Floor(floor) => floor.server_options(),
            Self::Restart(restart) => restart.server_options(),
            Self::Loss(loss) => loss.server_options(),
            Self::Roam(roam) => roam.server_options(),
            Self::Catchup(catchup) => catchup.server_options(),
            Self::Beats(beats) => beats.server_options(),
            Self::Mixed(mixed) => mixed.server_options(),
            Self::Replay(replay) => replay.server_options(),
            Self::Login(_) | Self::Idle(_) | Self::Storm(_) | Self::Matrix(_) => Vec::new(),
        }
    }

    /// Runs it once, on servers of its own.
    ///
    /// # Errors
    /// When the server or the load did not do as they should.
    pub fn run(&self, plan: &Plan) -> Result<Run, BenchError> {
        match self {
            Self::Latency(latency) => on_fresh_server(plan, |server| latency.measure(server)),
            Self::Throughput(throughput) => throughput.run(plan),
            Self::Fanout(fanout) => fanout.run(plan),
            Self::Slow(slow) => on_fresh_server(plan, |server| slow.measure(server)),
            Self::Crowds(crowds) => on_fresh_server(plan, |server| crowds.measure(server)),
            Self::Floor(floor) => floor.run(plan),
            Self::Login(login) => on_fresh_server(plan, |server| login.measure(server)),
            Self::Idle(idle) => on_fresh_server(plan, |server| idle.measure(server)),
            Self::Catchup(catchup) => on_fresh_server(plan, |server| catchup.measure(server)),
            Self::Beats(beats) => on_fresh_server(plan, |server| beats.measure(server)),
            Self::Storm(storm) => storm.run(plan),
            Self::Restart(restart) => restart.run(plan),
            Self::Loss(loss) => on_fresh_server(plan, |server| loss.measure(server)),
            Self::Matrix(matrix) => matrix.run(plan),
            Self::Roam(roam) => on_fresh_server(plan, |server| roam.measure(server)),
            Self::Mixed(mixed) => on_fresh_server(plan, |server| mixed.measure(server)),
            Self::Replay(replay) => replay.run(plan),
        }
    }
}

/// Measures something on a server that is there for nothing else.
fn on_fresh_server<T>(
    plan: &Plan,
    measure: impl FnOnce(&Server) -> Result<T, BenchError>,
) -> Result<T, BenchError> {
    let server = Server::start(plan)?;
    let measured = measure(&server).map_err(|error| server.with_words(error))?;
    server.stop()?;
    Ok(measured)
}

/// Seconds on the command line.
fn parse_seconds(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| "a number of seconds")?;
    let day = Duration::from_secs(86_400).as_secs_f64();
    if seconds > 0.0 && seconds <= day { Ok(seconds) } else { Err("above 0, a day at most".into()) }
}

/// A number of things on the command line.
fn parse_count(text: &str) -> Result<usize, String> {
    /// More processes or addresses than this serve no machine.
    const MOST: usize = 250;
    let count = text.parse().map_err(|_| "a number")?;
    if (1..=MOST).contains(&count) { Ok(count) } else { Err(format!("1 to {MOST}")) }
}
