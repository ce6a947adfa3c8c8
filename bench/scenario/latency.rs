//! Pairs of devices talk to each other, in turns, at a fixed rate of messages in all.

use std::time::Duration;

use serde::Serialize;

use super::talking::{LIMITLESS, Party, TAIL};
use super::{parse_count, parse_seconds};
use crate::error::BenchError;
use crate::load::{Arrivals, CONTENT_BYTES_MIN, Datagrams};
use crate::loader::Talk;
use crate::report::Run;
use crate::system::Server;

/// How long answers may take after the last message: on a bad path QUIC waits ever longer.
const LAST_ANSWERS: Duration = Duration::from_secs(60);

/// The command line of this scenario.
#[derive(Clone, Debug, clap::Args, Serialize)]
pub struct Latency {
    /// Messages a second, all pairs together
    #[arg(long, default_value_t = 2_000.0)]
    pub(super) rate: f64,
    /// How long to measure
    #[arg(long, value_name = "S", default_value_t = 20.0, value_parser = parse_seconds)]
    pub(super) seconds: f64,
    /// How long to send before that
    #[arg(long, value_name = "S", default_value_t = 3.0, value_parser = parse_seconds)]
    pub(super) warmup: f64,
    /// Pairs of devices, each device of a user of its own
    #[arg(long, default_value_t = 8)]
    pub(super) pairs: usize,
    /// Bytes of content of each message
    #[arg(long, default_value_t = 100)]
    pub(super) bytes: usize,
    /// When the server may ack: disk or process, see its options
    #[arg(long, default_value = "disk")]
    pub(super) durability: String,
    /// How messages are spread over time
    #[arg(long, value_enum, default_value_t = Arrivals::Poisson)]
    pub(super) arrivals: Arrivals,
    /// One seed gives one schedule
    #[arg(long, default_value_t = 1)]
    pub(super) seed: u64,
    /// Poll instead of sleeping: no wake-up of the load in the latencies; needs a core of its own
    #[arg(long)]
    pub(super) spin: bool,
    /// Processes of the load, the pairs divided among them
    #[arg(long, default_value_t = 1, value_parser = parse_count)]
    pub(super) loaders: usize,
    /// Addresses that the devices of each process come from
    #[arg(long, default_value_t = 1, value_parser = parse_count)]
    pub(super) sources: usize,
}

impl Latency {
    pub(super) fn check(&self) -> Result<(), BenchError> {
        let wrong = if !self.rate.is_finite() || self.rate <= 0.0 {
            "--rate: above 0".to_owned()
        } else if self.pairs < self.loaders {
            "--pairs: one for each process of the load at least".to_owned()
        } else if self.bytes < CONTENT_BYTES_MIN {
            format!("--bytes: {CONTENT_BYTES_MIN} at least, they carry the time of sending")
        } else {
            return Ok(());
        };
        Err(BenchError::Usage(wrong))
    }

    pub(super) fn server_options(&self) -> Vec<(String, String)> {
        let mut options = vec![("durability".to_owned(), self.durability.clone())];
        options.extend(LIMITLESS.map(|(name, value)| (name.to_owned(), value.to_owned())));
        options
    }

    pub(super) fn measure(&self, server: &Server) -> Result<Run, BenchError> {
        Ok(self.party().talk(server, &self.talk())?.into_run())
    }

    /// Who talks.
    pub(super) fn party(&self) -> Party {
        Party {
            pairs: self.pairs,
            loaders: self.loaders,
            sources: self.sources,
            weather: None,
            datagrams: Datagrams::Off,
        }
    }

    /// What they say, and when.
    pub(super) fn talk(&self) -> Talk {
        let from = Duration::from_secs_f64(self.warmup);
        let to = from + Duration::from_secs_f64(self.seconds);
        Talk {
            arrivals: self.arrivals,
            rate: self.rate,
            seed: self.seed,
            from,
            to,
            end: to + TAIL,
            bytes: self.bytes,
            spin: self.spin,
            roam_every: None,
            patience: LAST_ANSWERS,
            may_fall_behind: false,
        }
    }
}
