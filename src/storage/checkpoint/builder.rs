//! Making a checkpoint: the one before it and the sealed segments behind that, through recovery's
//! own code, written, synced, read back, proven, and only then given its name.
//!
//! Off the workers, from files that nobody changes any more; in memory it needs what the shard's
//! state needs, once more, for as long as it takes.

use std::iter::Peekable;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use rustc_hash::FxHashMap;
use tern_core::log::{Offset, RecordKind};
use tern_core::memory::MemoryTable;
use tern_core::placement::{Placement, ShardId};
use tern_core::shard::Recovery;
use tern_protocol::{ChannelId, Incarnation, MessageId};

use super::format::KINDS;
use super::writer::Writer;
use super::{Checkpoint, CheckpointError, CheckpointHeader, checkpoint_path};
use crate::disk::Disk;
use crate::error::Naming;
use crate::folder::{INCARNATION_FIRST, random_id, wall_ms};
use crate::format::{Bad, Content, Head, Id};
use crate::recovery::loss::Loss;
use crate::recovery::scan::Steps;
use crate::segment::{Segment, UNFINISHED_SUFFIX};

/// What a checkpoint is made of.
pub(crate) struct Building<'a> {
    pub(crate) disk: &'a dyn Disk,
    pub(crate) dir: &'a Path,
    pub(crate) folder: Id,
    pub(crate) shard: ShardId,
    /// Shards of the folder.
    pub(crate) shards: u16,
    /// Its number.
    pub(crate) number: u64,
    /// The one to go on from; without one the segments begin with the first of all.
    pub(crate) previous: Option<&'a Checkpoint>,
    /// The sealed segments behind that one, in order.
    pub(crate) sealed: &'a [Arc<Segment>],
    /// Base and number of the segment behind those.
    pub(crate) at: (u64, u64),
    /// Base and number of the oldest segment that is kept.
    pub(crate) start: (u64, u64),
    /// The newest message of each channel in the segments before that.
    pub(crate) expired: &'a FxHashMap<ChannelId, MessageId>,
    pub(crate) confirmed_ms: u64,
    /// What recovery found to be lost, by growing offset.
    pub(crate) losses: &'a [Loss],
    /// Ends it early.
    pub(crate) stop: &'a AtomicBool,
}

/// Makes it; when this returns it has its name, durably.
pub(crate) fn build(building: &Building<'_>) -> Result<Checkpoint, CheckpointError> {
    let path = checkpoint_path(building.dir, building.number);
    let fresh = path.with_added_extension(&UNFINISHED_SUFFIX[1..]);
    let result = building.write(&fresh).and_then(|checkpoint| {
        building.disk.rename(&fresh, &path).naming("make", &path)?;
        building.disk.sync_dir(building.dir).naming("sync", building.dir)?;
        Ok(checkpoint.at_path(path))
    });
    if result.is_err() {
        // It would keep the room that may be short; the next start removes it as well.
        let _ = building.disk.remove(&fresh);
    }
    result
}

impl Building<'_> {
    fn write(&self, fresh: &Path) -> Result<Checkpoint, CheckpointError> {
        let state = self.state()?;
        let mut writer = Writer::new(self.disk, fresh, self.header())?;
        state.rows(|kind, parts| {
            self.go_on()?;
            writer.row(kind, parts).map_err(CheckpointError::from)
        })?;
        drop(state);
        let written = writer.finish()?;
        let checkpoint = Checkpoint::open(self.disk, fresh, &self.folder, self.shard.0)?;
        checkpoint.forget();
        checkpoint.verify()?;
        if checkpoint.header != written {
            return Err(CheckpointError::bad(fresh, "it reads otherwise than it was written"));
        }
        Ok(checkpoint)
    }

    /// The state that the log before `at` makes.
    fn state(&self) -> Result<Recovery<MemoryTable>, CheckpointError> {
        let placement = Placement::new(self.shards, 1);
        let table = MemoryTable::default();
        let mut state = Recovery::new(self.shard, placement, table, Offset::NONE);
        let mut known = INCARNATION_FIRST;
        if let Some(previous) = self.previous {
            let header = &previous.header;
            raise(&mut state, &mut known, header.incarnation);
            previous.rows(|kind, row| Ok(state.restore(Offset(header.end), kind, row)?))?;
        }
        let from = self.previous.map_or(0, |previous| previous.header.at);
        self.check_first(from)?;
        let mut losses = self.losses.iter().filter(|loss| loss.at >= from).peekable();
        for segment in self.sealed {
            while let Some(loss) = losses.next_if(|loss| loss.at < segment.header.first()) {
                lose(&mut state, loss);
            }
            raise(&mut state, &mut known, segment.header.incarnation);
            self.replay(&mut state, segment, &mut losses)?;
        }
        for (channel, up_to) in self.expired {
            state.expire(*channel, *up_to);
        }
        Ok(state)
    }

    /// All records of a sealed segment. What recovery found to be lost is told as it was there; of
    /// what was damaged since, only a message is stepped over.
    fn replay<'b>(
        &self,
        state: &mut Recovery<MemoryTable>,
        segment: &Segment,
        losses: &mut Peekable<impl Iterator<Item = &'b Loss>>,
    ) -> Result<(), CheckpointError> {
        let (mut at, mut steps) = (segment.header.first(), Steps::new(segment));
        while at < segment.settled_end() {
            self.go_on()?;
            if let Some(loss) = losses.next_if(|loss| loss.at == at) {
                lose(state, loss);
                at = loss.to;
                continue;
            }
            steps.reach(at)?;
            at = match segment.parse(at) {
                Ok((len, content)) => {
                    let end = at + len as u64;
                    if let Content::Record(record) = content {
                        state.replay(Offset(at), Offset(end), record)?;
                    }
                    end
                }
                Err(Bad::Body(Head { kind: RecordKind::Message, links, bytes })) => {
                    let end = at + bytes as u64;
                    state.lost(Offset(at), Offset(end), Some(links));
                    end
                }
                Err(_) => {
                    let why = format!("the record at offset {at} is broken");
                    return Err(CheckpointError::bad(&segment.path, why));
                }
            };
        }
        Ok(())
    }

    /// The log goes on where the checkpoint before it ends, but for what is known to be lost.
    fn check_first(&self, from: u64) -> Result<(), CheckpointError> {
        let first = self.sealed.first().map_or(from, |segment| segment.header.base);
        let is_lost = self.losses.iter().any(|loss| (from..first).contains(&loss.at));
        if first == from || is_lost {
            return Ok(());
        }
        let why = format!("the segment at offset {from}, from which on it is made, is missing");
        Err(CheckpointError::bad(self.dir, why))
    }

    fn go_on(&self) -> Result<(), CheckpointError> {
        if self.stop.load(Relaxed) { Err(CheckpointError::Stopped) } else { Ok(()) }
    }

    fn header(&self) -> CheckpointHeader {
        let previous = self.previous.map(|previous| previous.header);
        let last = self.sealed.last();
        let (start, start_number) = self.start;
        let (at, at_number) = self.at;
        let before = previous.map_or(INCARNATION_FIRST, |header| header.incarnation);
        CheckpointHeader {
            folder: self.folder,
            shard: self.shard.0,
            number: self.number,
            at,
            at_number,
            end: last
                .map(|segment| segment.settled_end())
                .or(previous.map(|header| header.end))
                .unwrap_or(0),
            start,
            start_number,
            incarnation: last.map_or(before, |segment| segment.header.incarnation),
            salt: random_id(),
            rows: [0; KINDS.len()],
            bytes: 0,
            index: 0,
            confirmed_ms: self.confirmed_ms,
            created_ms: wall_ms(),
            digest: 0,
        }
    }
}

fn lose(state: &mut Recovery<MemoryTable>, loss: &Loss) {
    if let Some(links) = loss.told() {
        state.lost(Offset(loss.first()), Offset(loss.to), links);
    }
}

fn raise(state: &mut Recovery<MemoryTable>, known: &mut Incarnation, incarnation: Incarnation) {
    if incarnation > *known {
        *known = incarnation;
        state.raise(incarnation);
    }
}
