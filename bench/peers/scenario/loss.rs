//! What a bad path costs a message: a fixed round trip, and packets that are lost both ways, each
//! for itself.

use std::time::{Duration, Instant};

use serde::Serialize;
use tern_badlink::{Figures, Protocol};
use tern_bench::error::BenchError;
use tern_bench::report::{Figure, Run};
use tern_netmodel::Conditions;

use super::link::Link;
use super::talk::Talk;
use super::{connect, watch};
use crate::peer::Server;

/// Its numbers.
#[derive(Clone, Debug, Serialize)]
pub struct Loss {
    /// There and back, in ms.
    pub rtt_ms: u64,
    /// Packets in a hundred that are lost, each way.
    pub loss_percent: f64,
    /// Pairs of devices.
    pub pairs: usize,
    /// Messages a second of each pair.
    pub rate_each: f64,
    /// Seconds of the measured stretch.
    pub seconds: f64,
    /// Bytes of content.
    pub bytes: usize,
}

/// Seconds before the measured stretch: transports learn the path.
const WARM_UP: f64 = 6.0;

/// How long answers may take after the last message.
const PATIENCE: Duration = Duration::from_secs(60);

impl Loss {
    /// Its name in files.
    pub fn label(&self) -> String {
        format!("loss-{}ms-{}", self.rtt_ms, self.loss_percent)
    }

    fn talk(&self, seed: u64) -> Talk {
        Talk {
            pairs: self.pairs,
            rate: self.rate_each * self.pairs as f64,
            bytes: self.bytes,
            from: Duration::from_secs_f64(WARM_UP),
            to: Duration::from_secs_f64(WARM_UP + self.seconds),
            patience: PATIENCE,
            seed,
        }
    }

    pub(super) fn run(
        &self,
        server: &dyn Server,
        carrier: Protocol,
        seed: u64,
    ) -> Result<Run, BenchError> {
        let conditions = Conditions {
            delay_ms: self.rtt_ms / 2,
            loss_percent: self.loss_percent,
            keeps_order: true,
            ..Conditions::default()
        };
        let link = Link::open(server.address(), carrier, conditions, seed)?;
        let mut load = server.load(link.address(), 2 * self.pairs, seed)?;
        connect(&mut *load, 2 * self.pairs)?;
        let (talk, start) = (self.talk(seed), Instant::now());
        let (from, to) = (start + talk.from, start + talk.to);
        let (talked, used) =
            watch::during(server, from, to, || talk.run(&mut *load, start, || None))?;
        let mut figures = talked.to_ack.figures("send to ack");
        figures.extend(talked.to_receive.figures("send to receive"));
        figures.extend(talked.ledger.figures());
        figures.extend(path(&link.close(), talked.ledger.sent()));
        figures.extend(used.disturbance());
        let kind = format!("{} ms, {} % lost", self.rtt_ms, self.loss_percent);
        Ok(Run { figures, curves: talked.curves(&kind) })
    }
}

/// What the link did.
fn path(figures: &Figures, sent: u64) -> Vec<Figure> {
    let (up, down) = (figures.up, figures.down);
    let offered = up.offered + down.offered;
    let lost = 100.0 * (up.lost + down.lost) as f64 / offered.max(1) as f64;
    let bytes = (up.offered_bytes + down.offered_bytes) as f64 / sent.max(1) as f64;
    let packets = offered as f64 / sent.max(1) as f64;
    vec![
        Figure::new("path", "packets lost", "%", lost),
        Figure::new("path", "packets per message, connecting included", "", packets),
        Figure::new("path", "bytes per message, connecting included", "", bytes),
        Figure::new("path", "dropped by the link itself", "", figures.overrun as f64),
    ]
}
