//! What a bad path costs a message: a fixed round trip, and packets that are lost both ways, each
//! for itself.

use std::time::{Duration, Instant};

use serde::Serialize;
use tern_badlink::{Figures, Protocol};
use tern_bench::error::BenchError;
use tern_bench::report::{Figure, Run};
use tern_netmodel::Conditions;
use tern_netmodel::conditions::Bursts;

use super::link::Link;
use super::talk::Talk;
use super::{connect, watch};
use crate::peer::Server;

/// A bad path.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct Path {
    /// There and back, in ms.
    pub rtt_ms: u64,
    /// Packets in a hundred that are lost, each way.
    pub loss_percent: f64,
    /// How long a time in which all are lost lasts on average, in ms; `None`: each is lost for
    /// itself.
    pub burst_ms: Option<u64>,
}

impl Path {
    /// One direction of it.
    fn conditions(&self) -> Conditions {
        let clear = Conditions::clear(self.rtt_ms / 2);
        let Self { loss_percent, .. } = *self;
        match self.burst_ms.filter(|_| loss_percent > 0.0) {
            None => Conditions { loss_percent, ..clear },
            Some(bad_ms) => {
                let good_ms = (bad_ms as f64 * (100.0 - loss_percent) / loss_percent) as u64;
                let bursts = Bursts { good_ms, bad_ms, loss_percent: 100.0 };
                Conditions { bursts: Some(bursts), ..clear }
            }
        }
    }
}

/// Its numbers.
#[derive(Clone, Debug, Serialize)]
pub struct Loss {
    /// Where.
    #[serde(flatten)]
    pub path: Path,
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
        let Path { rtt_ms, loss_percent, burst_ms } = self.path;
        let bursts = burst_ms.map(|ms| format!("-bursts-{ms}ms")).unwrap_or_default();
        format!("loss-{rtt_ms}ms-{loss_percent}{bursts}")
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
        let link = Link::open(server.address(), carrier, self.path.conditions(), seed)?;
        let mut load = server.load(link.address(), 2 * self.pairs, seed)?;
        connect(&mut *load, 2 * self.pairs)?;
        let (talk, start) = (self.talk(seed), Instant::now());
        let (from, to) = (start + talk.from, start + talk.to);
        let (talked, used) =
            watch::during(server, from, to, || talk.run(&mut *load, start, || None))?;
        let mut figures = talked.to_ack.figures("send to ack");
        figures.extend(talked.to_receive.figures("send to receive"));
        figures.extend(talked.ledger.figures());
        figures.extend(carried(&link.close(), talked.ledger.sent()));
        figures.extend(used.disturbance());
        let kind = format!("{} ms, {} % lost", self.path.rtt_ms, self.path.loss_percent);
        Ok(Run { figures, curves: talked.curves(&kind) })
    }
}

/// What the link did.
fn carried(figures: &Figures, sent: u64) -> Vec<Figure> {
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
