//! Devices whose server dies: all log in and send a note to themselves, so that each has a channel
//! and a cursor; then the server is killed, and each comes back by itself as the SDK does, and
//! sends another note. It is back when that note has come to it.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tern_protocol::ChannelId;

use super::{Conductor, Done, progress};
use crate::error::BenchError;
use crate::load::{CONTENT_BYTES_MIN, Crowd, Event, Message, Wait, check};
use crate::measure::curves::Curves;
use crate::measure::latency::Latency;

/// Tag of the notes before the kill, and of those after it.
const BEFORE: u64 = 1;
const AFTER: u64 = 2;

/// How they come back.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ComeBack {
    /// How long it may take until all are back.
    pub patience: Duration,
}

impl ComeBack {
    pub(super) fn run(&self, mut crowd: Crowd, conductor: &Conductor) -> Result<Done, BenchError> {
        let count = crowd.uins.len();
        (0..count).for_each(|device| note(&mut crowd, device, BEFORE));
        let mut noted = 0;
        self.live(&mut crowd, |_, _, _, event| {
            noted += usize::from(event == Event::Received(BEFORE));
            progress(count + noted)?;
            Ok(noted == count)
        })?;
        conductor.wait(&mut crowd)?;

        let start = Instant::now();
        let (mut again, mut back) = (Latency::default(), Latency::default());
        let mut seen = vec![false; count];
        self.live(&mut crowd, |crowd, device, at, event| {
            let since = at.saturating_duration_since(start);
            match event {
                Event::Online { .. } if !std::mem::replace(&mut seen[device], true) => {
                    again.record(since);
                    note(crowd, device, AFTER);
                }
                Event::Received(AFTER) => back.record(since),
                _ => {}
            }
            progress(back.count() as usize)?;
            Ok(back.count() as usize == count)
        })?;
        conductor.wait(&mut crowd)?;
        let mut curves = Curves::default();
        curves.add("logged in again", again);
        curves.add("can talk again", back);
        Ok(Done { log: curves.to_log()?, ..Done::default() })
    }

    /// Lets them live until `hear` says that it has heard enough.
    fn live(
        &self,
        crowd: &mut Crowd,
        mut hear: impl FnMut(&mut Crowd, usize, Instant, Event) -> Result<bool, BenchError>,
    ) -> Result<(), BenchError> {
        let deadline = Instant::now() + self.patience;
        loop {
            crowd.swarm.turn()?;
            while let Some((device, at, event)) = crowd.swarm.poll_event() {
                check(device, event)?;
                if hear(crowd, device, at, event)? {
                    return Ok(());
                }
            }
            if Instant::now() > deadline {
                let what = "not every device has got the note that it sent to itself";
                return Err(BenchError::Load(what.to_owned()));
            }
            crowd.swarm.wait(deadline, Wait::Sleep)?;
        }
    }
}

/// A device sends a note to itself.
fn note(crowd: &mut Crowd, device: usize, tag: u64) {
    let uin = crowd.uins[device];
    let channel = ChannelId::direct(uin, uin);
    crowd.swarm.send(device, Message { channel, tag, content_bytes: CONTENT_BYTES_MIN });
}
