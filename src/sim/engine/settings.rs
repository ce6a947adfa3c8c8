//! What a seed chooses for its storage.

use std::collections::BTreeSet;

use tern_storage::Durability;

use crate::fault::Fault;
use crate::random::Stream;

/// Retentions that seeds draw, in ms: short enough that messages expire within a run, long
/// against all that a device is late.
const RETENTION_MS: [u64; 2] = [90_000, 240_000];

/// What a seed chose for its storage.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Shards of the folder.
    pub shards: u16,
    /// Who commits.
    pub committers: usize,
    /// Age in ms after which messages are deleted.
    pub retention_ms: Option<u64>,
    /// Checkpoints are made whenever a segment is sealed.
    pub eager_checkpoints: bool,
    /// On a full disk there is no room even for what was allocated.
    pub copies_on_write: bool,
    /// What an ack waits for.
    pub durability: Durability,
}

impl Settings {
    /// What a seed with these faults draws.
    ///
    /// Where acks wait for no sync a power cut takes some of what was acked, and the log begins a
    /// new life that says so.
    pub fn draw(stream: &mut Stream, shards: u16, faults: &BTreeSet<Fault>) -> Self {
        let [least, most] = RETENTION_MS;
        let expires = faults.contains(&Fault::Expiry);
        let retention_ms = expires.then(|| stream.between(least, most));
        let eager_checkpoints = faults.contains(&Fault::Checkpoints);
        let committers = stream.between(1, u64::from(shards).min(2)) as usize; // fits: 2
        let copies_on_write = stream.percent(50);
        let waits = stream.percent(60);
        let durability = if waits { Durability::Disk } else { Durability::Process };
        Self { shards, committers, retention_ms, eager_checkpoints, copies_on_write, durability }
    }
}
