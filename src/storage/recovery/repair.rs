//! Repairing a damaged log: what an operator would accept as lost, said before it is.
//!
//! Offline: the caller holds the [`Folder`], so no server runs. A [`Plan`] changes nothing;
//! [`Plan::accept`] writes one file into the shard's folder, and the next start honours it: the
//! log goes on behind the losses, under a new incarnation, which tells every client that ids may
//! be given once more. What can still be read stays.

use std::path::PathBuf;

use tern_core::log::Offset;
use tern_core::memory::MemoryTable;
use tern_core::placement::{Placement, ShardId};
use tern_core::shard::Recovery;
use tern_protocol::Incarnation;
use zerocopy::little_endian::U64;

use crate::error::RecoverError;
use crate::folder::{Folder, INCARNATION_FIRST};
use crate::recovery::accepted::{Accepted, RANGES_MAX, Range};
use crate::recovery::loss::Loss;
use crate::recovery::replay::LogScan;
use crate::recovery::scan::LogPlace;
use crate::recovery::visitor::Visitor;

/// What is lost of a shard's log, and what accepting it means.
#[derive(Debug)]
pub struct Plan {
    /// The shard.
    pub shard: ShardId,
    /// Everything that is lost, accepted earlier or not; those with `stops` are what accepting is
    /// about.
    pub losses: Vec<Loss>,
    /// The life of the log as it is.
    pub incarnation: Incarnation,
    accepted: Accepted,
}

/// Reads a shard's log and says what is lost. Changes nothing.
///
/// # Errors
/// When the log can't be opened even if all its losses are accepted: see [`RecoverError`].
pub fn plan(folder: &Folder, shard: ShardId) -> Result<Plan, RecoverError> {
    let placement = Placement::new(folder.shards(), 1);
    examine(
        folder,
        shard,
        &mut Recovery::new(shard, placement, MemoryTable::default(), Offset::NONE),
    )
}

/// Reads a shard's log as [`plan`] does, and tells a visitor of all of it.
///
/// # Errors
/// As there, and when the visitor refuses.
pub fn examine(
    folder: &Folder,
    shard: ShardId,
    visitor: &mut impl Visitor,
) -> Result<Plan, RecoverError> {
    let dir = folder.shard_dir(shard);
    let place = LogPlace { disk: &**folder.disk(), dir: &dir, folder: folder.id(), shard: shard.0 };
    let mut scan = LogScan::new(&place)?;
    let mut known = INCARNATION_FIRST;
    scan.replay(visitor, &mut known)?;
    let LogScan { verdict, newest, accepted, .. } = scan;
    let incarnation = newest.incarnation.max(accepted.incarnation);
    Ok(Plan { shard, losses: verdict.losses, incarnation, accepted })
}

impl Plan {
    /// Whether the shard takes nothing until its losses are accepted.
    pub fn is_stopped(&self) -> bool {
        self.losses.iter().any(|loss| loss.stops)
    }

    /// The life that the log begins once the losses are accepted.
    pub fn next_incarnation(&self) -> Incarnation {
        Incarnation(self.incarnation.0 + 1)
    }

    /// Accepts all of them, durably; the file that says so. What was accepted before stays so.
    ///
    /// # Errors
    /// When the file system refuses, or there are more losses than a file holds.
    pub fn accept(&self, folder: &Folder) -> Result<PathBuf, RecoverError> {
        let stopping = self.losses.iter().filter(|loss| loss.stops);
        let range = |loss: &Loss| Range { at: U64::new(loss.at), to: U64::new(loss.to) };
        let mut ranges = self.accepted.ranges.clone();
        ranges.extend(stopping.map(range));
        let dir = folder.shard_dir(self.shard);
        if ranges.len() > RANGES_MAX {
            let why = format!("it has more than {RANGES_MAX} losses: replace the disk");
            return Err(RecoverError::Damaged { path: dir, at: 0, to: 0, why });
        }
        let accepted = Accepted { incarnation: self.next_incarnation(), ranges };
        accepted.write(&**folder.disk(), &dir, folder.id(), self.shard.0)
    }
}
