//! Devices say what others said in a capture: [`crate::replay`] knows how.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use tern_protocol::{DeviceId, Uin};

use super::{Conductor, Done, progress};
use crate::error::BenchError;
use crate::load::{Approach, Identity};
use crate::measure::curves::Curves;
use crate::replay::{Played, Recording, play};

/// Which capture, and how.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Replay {
    /// What `wirecat --extract` wrote.
    pub file: PathBuf,
    /// How many times as fast as the capture; `None` as fast as answers come.
    pub speed: Option<f64>,
    /// The capture's device that each device of the order plays.
    pub roles: Vec<(u64, u32)>,
}

impl Replay {
    pub(super) fn run(
        &self,
        approach: Approach,
        identities: Vec<Identity>,
        conductor: &Conductor,
    ) -> Result<Done, BenchError> {
        let recording = Recording::read(&self.file)?;
        let roles = self.roles.iter().map(|(uin, device)| (Uin(*uin), DeviceId(*device)));
        let players: Vec<_> = roles.zip(identities).collect();
        conductor.wait_alone()?;
        let played = play(&recording, &players, approach, self.speed, progress)?;
        conductor.wait_alone()?;
        let mut curves = Curves::default();
        curves.add("send to ack", played.to_ack.clone());
        if played.lateness.count() > 0 {
            curves.add("behind schedule", played.lateness.clone());
        }
        let log = curves.to_log()?;
        Ok(Done { acked: played.acked, counts: counts(&played), log, ..Done::default() })
    }
}

/// All that was counted: group, name, how often.
fn counts(played: &Played) -> Vec<(String, String, u64)> {
    let mut counts = Vec::new();
    let mut tell = |group: &str, name: String, count| counts.push((group.to_owned(), name, count));
    for (kind, count) in &played.said {
        tell("frames said", kind.to_string(), *count);
    }
    tell("frames said", "of them logins for RESUME, TOKEN_LOGIN".to_owned(), played.became_logins);
    tell("frames said", "of them messages that were said before".to_owned(), played.said_before);
    for (why, count) in &played.left_out {
        tell("left out", (*why).to_owned(), *count);
    }
    for (kind, count) in &played.own {
        tell("said by the replay itself", kind.to_string(), *count);
    }
    for (kind, count) in &played.answers {
        tell("answers", kind.to_string(), *count);
    }
    for (kind, code, count) in &played.codes {
        tell("codes", format!("{kind}: {code}"), *count);
    }
    tell("messages", "durable".to_owned(), played.acked);
    tell("messages", "refused for good".to_owned(), played.refused);
    tell("messages", "never answered".to_owned(), played.unanswered);
    tell("connections", "lost".to_owned(), played.lost);
    counts
}
