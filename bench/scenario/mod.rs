//! The scenarios, behind one enum: each lays its load on a fresh server and returns figures.

mod crowd;
mod idle;
mod latency;
mod loss;

use std::time::Duration;

use serde::Serialize;

use crate::error::BenchError;
use crate::report::Run;
use crate::system::{Plan, Server};

pub use crowd::OTHERS;

/// What can be measured.
#[derive(Clone, Debug, clap::Subcommand, Serialize)]
#[serde(tag = "name", rename_all = "kebab-case")]
pub enum Scenario {
    /// Pairs of devices talk to each other at a fixed rate: latency, and cost per message
    Latency(latency::Latency),
    /// The same over a path that delays and loses packets: what a bad network costs a message
    Loss(loss::Loss),
    /// Sessions that are logged in and say nothing: memory of each, and what they cost at rest
    Idle(idle::Idle),
}

impl Scenario {
    /// Its name on the command line.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Latency(_) => "latency",
            Self::Loss(_) => "loss",
            Self::Idle(_) => "idle",
        }
    }

    /// Whether it asks for what can be had.
    ///
    /// # Errors
    /// When it does not.
    pub fn check(&self) -> Result<(), BenchError> {
        match self {
            Self::Latency(latency) => latency.check(),
            Self::Loss(loss) => loss.check(),
            Self::Idle(_) => Ok(()),
        }
    }

    /// Options of the server that it needs.
    pub fn server_options(&self) -> Vec<(String, String)> {
        match self {
            Self::Latency(latency) => latency.server_options(),
            Self::Loss(loss) => loss.server_options(),
            Self::Idle(_) => Vec::new(),
        }
    }

    /// Runs it once, on a server of its own.
    ///
    /// # Errors
    /// When the server or the load did not do as they should.
    pub fn run(&self, plan: &Plan) -> Result<Run, BenchError> {
        let server = Server::start(plan)?;
        let measured = match self {
            Self::Latency(latency) => latency.measure(&server),
            Self::Loss(loss) => loss.measure(&server),
            Self::Idle(idle) => idle.measure(&server),
        };
        let run = measured.map_err(|error| server.with_words(error))?;
        server.stop()?;
        Ok(run)
    }
}

/// Seconds on the command line.
fn parse_seconds(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| "a number of seconds")?;
    let day = Duration::from_secs(86_400).as_secs_f64();
    if seconds > 0.0 && seconds <= day { Ok(seconds) } else { Err("above 0, a day at most".into()) }
}
