//! Pairs of devices talk while each of them changes its address again and again, as phones do
//! between cells and networks: what that costs the messages that were due right after a change.

use std::time::Duration;

use serde::Serialize;

use super::latency::Latency;
use super::parse_seconds;
use super::talking::Party;
use crate::error::BenchError;
use crate::load::{Arrivals, Datagrams, Weather};
use crate::loader::Talk;
use crate::report::Run;
use crate::system::Server;

/// Addresses that devices change between.
const ADDRESSES: usize = 8;

/// The command line of this scenario.
#[derive(Clone, Debug, clap::Args, Serialize)]
pub struct Roam {
    /// How often each device changes its address, in seconds
    #[arg(long, value_name = "S", default_value_t = 5.0, value_parser = parse_seconds)]
    change: f64,
    /// Messages a second, all pairs together
    #[arg(long, default_value_t = 500.0)]
    rate: f64,
    /// Pairs of devices, each device of a user of its own
    #[arg(long, default_value_t = 50)]
    pairs: usize,
    /// Round trip of the path in ms
    #[arg(long, value_name = "MS", default_value_t = 50)]
    rtt: u64,
    /// How long to measure
    #[arg(long, value_name = "S", default_value_t = 20.0, value_parser = parse_seconds)]
    seconds: f64,
    /// Bytes of content of each message
    #[arg(long, default_value_t = 100)]
    bytes: usize,
    /// One seed gives one schedule
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

impl Roam {
    pub(super) fn check(&self) -> Result<(), BenchError> {
        self.talk().check()
    }

    pub(super) fn server_options(&self) -> Vec<(String, String)> {
        self.talk().server_options()
    }

    pub(super) fn measure(&self, server: &Server) -> Result<Run, BenchError> {
        let weather = Weather { rtt: Duration::from_millis(self.rtt), loss: 0.0, burst: 1.0 };
        let talk = self.talk();
        let party = Party { weather: Some(weather), datagrams: Datagrams::Doubled, ..talk.party() };
        let change = Some(Duration::from_secs_f64(self.change));
        Ok(party.talk(server, &Talk { roam_every: change, ..talk.talk() })?.into_run())
    }

    fn talk(&self) -> Latency {
        /// Time in seconds in which the devices learn the round trip.
        const WARMUP: f64 = 3.0;
        Latency {
            rate: self.rate,
            seconds: self.seconds,
            warmup: WARMUP,
            pairs: self.pairs,
            bytes: self.bytes,
            durability: "process".to_owned(), // the disk is not what is measured
            arrivals: Arrivals::Poisson,
            seed: self.seed,
            spin: false,
            loaders: 1,
            sources: ADDRESSES,
        }
    }
}
