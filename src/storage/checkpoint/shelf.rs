//! The checkpoints of one shard: which are there, which of them are good, and which may go.

use std::path::{Path, PathBuf};

use super::{Checkpoint, CheckpointError, checkpoint_number};
use crate::disk::Disk;
use crate::error::{IoError, Naming};
use crate::format::Id;
use crate::recovery::scan::files;

/// Checkpoints that are kept: one to start from, and one for when that goes bad.
const KEPT: usize = 2;

/// The checkpoints of one shard.
#[derive(Debug, Default)]
pub(crate) struct Shelf {
    /// Good as far as they were looked at, oldest first. The newest was read through when it was
    /// put here.
    good: Vec<Checkpoint>,
    /// Files that can't be used.
    bad: Vec<PathBuf>,
    newest_number: u64,
}

impl Shelf {
    /// Looks what is there, and reads the newest until one is good; what is wrong with the newer
    /// ones comes with it.
    pub(crate) fn look(
        disk: &dyn Disk,
        dir: &Path,
        folder: &Id,
        shard: u16,
    ) -> Result<(Self, Vec<CheckpointError>), IoError> {
        let mut paths: Vec<_> = files(dir)?
            .into_iter()
            .filter_map(|path| Some((checkpoint_number(&path)?, path)))
            .collect();
        paths.sort();
        let (mut shelf, mut errors) = (Self::default(), Vec::new());
        shelf.newest_number = paths.last().map_or(0, |(number, _)| *number);
        for (_, path) in paths.into_iter().rev() {
            let opened = Checkpoint::open(disk, &path, folder, shard);
            // The older ones are read before anything relies on them.
            let read = |checkpoint: Checkpoint| match shelf.good.is_empty() {
                true => checkpoint.verify().map(|()| checkpoint),
                false => Ok(checkpoint),
            };
            match opened.and_then(read) {
                Ok(checkpoint) => shelf.good.push(checkpoint),
                Err(error) => {
                    errors.push(error);
                    shelf.bad.push(path);
                }
            }
        }
        shelf.good.reverse();
        Ok((shelf, errors))
    }

    /// The one to start from, or to go on from.
    pub(crate) fn newest(&self) -> Option<&Checkpoint> {
        self.good.last()
    }

    /// Number for the next one.
    pub(crate) fn next_number(&self) -> u64 {
        self.newest_number + 1
    }

    /// Number of the oldest segment that both of the newest two keep; 0 without two.
    pub(crate) fn keeps_from(&self) -> u64 {
        let newest = self.good.iter().rev().take(KEPT);
        let starts = newest.map(|checkpoint| checkpoint.header.start_number);
        if self.good.len() < KEPT { 0 } else { starts.min().unwrap_or(0) }
    }

    /// Bytes of all files, but for those that can't be used.
    pub(crate) fn bytes(&self) -> u64 {
        self.good.iter().map(|checkpoint| checkpoint.header.bytes).sum()
    }

    /// Puts a proven one in front.
    pub(crate) fn add(&mut self, checkpoint: Checkpoint) {
        self.newest_number = checkpoint.header.number;
        self.good.push(checkpoint);
    }

    /// Reads the newest two through, from the disk: what follows relies on them. One that has
    /// gone bad leaves the good ones.
    pub(crate) fn prove_pair(&mut self) -> Result<(), CheckpointError> {
        (0..self.good.len()).rev().take(KEPT).try_for_each(|index| self.prove(index))
    }

    /// The same for the newest alone: the next one is made from it.
    pub(crate) fn prove_newest(&mut self) -> Result<(), CheckpointError> {
        self.good.len().checked_sub(1).map_or(Ok(()), |newest| self.prove(newest))
    }

    fn prove(&mut self, index: usize) -> Result<(), CheckpointError> {
        self.good[index].forget();
        self.good[index].verify().inspect_err(|_| {
            self.bad.push(self.good.remove(index).path);
        })
    }

    /// Removes what is older than the newest two, and what can't be used, once there are two.
    pub(crate) fn prune(&mut self, disk: &dyn Disk, dir: &Path) -> Result<(), IoError> {
        if self.good.len() < KEPT || self.good.len() == KEPT && self.bad.is_empty() {
            return Ok(());
        }
        for path in self.bad.drain(..) {
            disk.remove(&path).naming("remove", &path)?;
        }
        while self.good.len() > KEPT {
            let oldest = self.good.remove(0);
            disk.remove(&oldest.path).naming("remove", &oldest.path)?;
        }
        disk.sync_dir(dir).naming("sync", dir)
    }
}
