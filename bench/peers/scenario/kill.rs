//! `kill -9` under load: the server dies at full rate and is started again at once on the same
//! folder and port, while messages go on being due. What was acked must come, once.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use serde::Serialize;
use tern_bench::error::BenchError;
use tern_bench::measure::latency;
use tern_bench::report::{Figure, Run};

use super::connect;
use super::talk::{Talk, Talked};
use crate::peer::Server;

/// Its numbers.
#[derive(Clone, Debug, Serialize)]
pub struct Kill {
    /// Pairs of devices.
    pub pairs: usize,
    /// Messages a second, of all.
    pub rate: f64,
    /// Seconds until the server dies.
    pub before: f64,
    /// Seconds that messages go on for after that.
    pub after: f64,
    /// Bytes of content.
    pub bytes: usize,
}

/// How long answers may take after the last message: what is sent again by a timer of half a
/// minute, as with some of the systems, comes within it.
const PATIENCE: Duration = Duration::from_secs(45);

/// Shares of the devices that are told, in percent.
const SHARES: [f64; 3] = [50.0, 99.0, 100.0];

impl Kill {
    pub(super) fn run(&self, server: &mut dyn Server, seed: u64) -> Result<Run, BenchError> {
        let (before, after) = (Duration::from_secs_f64(self.before), self.after);
        let talk = Talk {
            pairs: self.pairs,
            rate: self.rate,
            bytes: self.bytes,
            from: Duration::ZERO,
            to: before + Duration::from_secs_f64(after),
            patience: PATIENCE,
            seed,
        };
        let mut load = server.load(server.address(), 2 * self.pairs, seed)?;
        connect(&mut *load, 2 * self.pairs)?;
        let (killed, start) = (OnceLock::new(), Instant::now());
        let (talked, ready) = std::thread::scope(|scope| {
            let restart = scope.spawn(|| {
                std::thread::sleep((start + before).saturating_duration_since(Instant::now()));
                let at = *killed.get_or_init(Instant::now);
                server.kill()?;
                server.start_again()?;
                Ok(at.elapsed())
            });
            let talked = talk.run(&mut *load, start, || killed.get().copied())?;
            Ok::<_, BenchError>((talked, restart.join().expect("it does not panic")?))
        })?;
        let killed = killed.get().copied().expect("the server was killed before the talk ended");
        Ok(Run { figures: figures(&talked, killed, ready), ..Run::default() })
    }
}

fn figures(talked: &Talked, killed: Instant, ready: Duration) -> Vec<Figure> {
    const GROUP: &str = "time since the kill";
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    let mut back = latency::Latency::default();
    for at in talked.back.iter().flatten() {
        back.record(at.saturating_duration_since(killed));
    }
    let mut figures = vec![Figure::new(GROUP, "server can be connected to", "ms", ms(ready))];
    figures.extend(SHARES.map(|share| {
        let name = format!("{share:.0} % get new messages again");
        Figure::new(GROUP, name, "ms", ms(back.percentile(share)))
    }));
    let missing = talked.back.len() as f64 - back.count() as f64;
    figures.push(Figure::new(GROUP, "devices that never did", "", missing));
    figures.extend(talked.ledger.figures());
    figures
}
