//! What a bad network costs a message: pairs of devices talk over a path that delays and loses
//! packets, by streams alone or with single messages in datagrams.
//!
//! Each pair says little, as people do, so that most messages are alone on their path: then a lost
//! one is noticed by nothing that comes after it.

use std::time::Duration;

use serde::Serialize;

use super::latency::Latency;
use super::parse_seconds;
use super::talking::Party;
use crate::error::BenchError;
use crate::load::{Arrivals, Datagrams, Weather};
use crate::report::Run;
use crate::system::Server;

/// How messages travel.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Carrier {
    /// All on the ordered stream.
    Streams,
    /// By stream, repaired by datagram.
    Repeated,
    /// By datagram, repaired by stream.
    Datagrams,
    /// By two datagrams while packets are lost, repaired by stream.
    Doubled,
}

impl Carrier {
    /// What server and devices do.
    fn datagrams(self) -> Datagrams {
        match self {
            Self::Streams => Datagrams::Off,
            Self::Repeated => Datagrams::Repeated,
            Self::Datagrams => Datagrams::Single,
            Self::Doubled => Datagrams::Doubled,
        }
    }
}

/// The command line of this scenario.
#[derive(Clone, Debug, clap::Args, Serialize)]
pub struct Loss {
    /// How messages travel
    #[arg(long, value_enum, default_value_t = Carrier::Streams)]
    pub(super) carrier: Carrier,
    /// Round trip of the path in ms
    #[arg(long, value_name = "MS", default_value_t = 50)]
    pub(super) rtt: u64,
    /// Of 100 packets, how many are lost, in each direction
    #[arg(long, value_name = "PERCENT", default_value_t = 3.5)]
    pub(super) loss: f64,
    /// Mean number of packets in a row that are lost; up to 1 / (1 - loss) each by itself
    #[arg(long, value_name = "PACKETS", default_value_t = 1.0)]
    pub(super) burst: f64,
    /// Pairs of devices, each device of a user of its own
    #[arg(long, default_value_t = 100)]
    pub(super) pairs: usize,
    /// Mean time between two messages of a pair, in seconds
    #[arg(long, value_name = "S", default_value_t = 0.7, value_parser = parse_seconds)]
    pub(super) every: f64,
    /// How long to measure
    #[arg(long, value_name = "S", default_value_t = 30.0, value_parser = parse_seconds)]
    pub(super) seconds: f64,
    /// Bytes of content of each message
    #[arg(long, default_value_t = 100)]
    pub(super) bytes: usize,
    /// One seed gives one schedule, and one series of losses
    #[arg(long, default_value_t = 1)]
    pub(super) seed: u64,
}

impl Loss {
    pub(super) fn check(&self) -> Result<(), BenchError> {
        if !(0.0..=50.0).contains(&self.loss) {
            return Err(BenchError::Usage("--loss: 0 to 50".to_owned()));
        }
        if !(1.0..=100.0).contains(&self.burst) {
            return Err(BenchError::Usage("--burst: 1 to 100".to_owned()));
        }
        self.talk().check()
    }

    pub(super) fn server_options(&self) -> Vec<(String, String)> {
        let mut options = self.talk().server_options();
        options.push(("datagrams".to_owned(), self.carrier.datagrams().server_option().to_owned()));
        options
    }

    pub(super) fn measure(&self, server: &Server) -> Result<Run, BenchError> {
        let weather = Weather {
            rtt: Duration::from_millis(self.rtt),
            loss: self.loss / 100.0,
            burst: self.burst,
        };
        let talk = self.talk();
        let datagrams = self.carrier.datagrams();
        let party = Party { weather: Some(weather), datagrams, ..talk.party() };
        Ok(party.talk(server, &talk.talk())?.into_run())
    }

    /// Who says what, and when.
    fn talk(&self) -> Latency {
        /// Time in seconds in which the devices learn the round trip.
        const WARMUP: f64 = 6.0;
        Latency {
            rate: self.pairs as f64 / self.every,
            seconds: self.seconds,
            warmup: WARMUP,
            pairs: self.pairs,
            bytes: self.bytes,
            durability: "process".to_owned(), // the disk is not what is measured
            arrivals: Arrivals::Poisson,
            seed: self.seed,
            spin: false,
            loaders: 1,
            sources: 1,
        }
    }
}
