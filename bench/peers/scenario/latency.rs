//! What a message takes and costs at a fixed rate.

use std::time::{Duration, Instant};

use serde::Serialize;
use tern_bench::error::BenchError;
use tern_bench::report::{Figure, Run};

use super::talk::{Talk, Talked};
use super::{connect, watch};
use crate::peer::Server;

/// Its numbers.
#[derive(Clone, Debug, Serialize)]
pub struct Latency {
    /// Pairs of devices.
    pub pairs: usize,
    /// Messages a second, of all.
    pub rate: f64,
    /// Seconds of the measured stretch.
    pub seconds: f64,
    /// Bytes of content.
    pub bytes: usize,
}

/// Seconds before the measured stretch: stores and caches grow.
const WARM_UP: f64 = 2.0;

/// How long answers may take after the last message.
const PATIENCE: Duration = Duration::from_secs(20);

impl Latency {
    /// The talk of it.
    fn talk(&self, seed: u64, patience: Duration) -> Talk {
        Talk {
            pairs: self.pairs,
            rate: self.rate,
            bytes: self.bytes,
            from: Duration::from_secs_f64(WARM_UP),
            to: Duration::from_secs_f64(WARM_UP + self.seconds),
            patience,
            seed,
        }
    }

    pub(super) fn run(&self, server: &dyn Server, seed: u64) -> Result<Run, BenchError> {
        let (talked, used) = self.measure(server, seed, PATIENCE)?;
        let delivered = talked.received_within.max(1) as f64;
        let mut figures = talked.to_ack.figures("send to ack");
        figures.extend(talked.to_receive.figures("send to receive"));
        let lateness = talked.lateness.figures("lateness of the load");
        figures.extend(lateness.into_iter().filter(|figure| figure.name != "samples"));
        let each = used.server_ns as f64 / 1e3 / delivered;
        figures.push(Figure::new("server's CPU time", "per message", "µs", each));
        let mib = used.resident as f64 / f64::from(1 << 20);
        figures.push(Figure::new("server's memory", "resident", "MiB", mib));
        figures.extend(talked.ledger.figures());
        figures.extend(used.disturbance());
        Ok(Run { figures, curves: talked.curves("fixed rate") })
    }

    /// Has them talk, with the server's books of the measured stretch. Answers may take `patience`
    /// after the last message.
    ///
    /// # Errors
    /// When something goes wrong.
    pub fn measure(
        &self,
        server: &dyn Server,
        seed: u64,
        patience: Duration,
    ) -> Result<(Talked, watch::Used), BenchError> {
        let talk = self.talk(seed, patience);
        let mut load = server.load(server.address(), 2 * self.pairs, seed)?;
        connect(&mut *load, 2 * self.pairs)?;
        let start = Instant::now();
        let (from, to) = (start + talk.from, start + talk.to);
        watch::during(server, from, to, || talk.run(&mut *load, start, || None))
    }
}
