//! How the server comes back: what it finds on its disk, from checkpoint and log, in which life.

use std::ops::Range;

use tern_core::Recovery;
use tern_core::Worker;
use tern_core::dedup::DedupTable;
use tern_core::log::{Offset, Record, RecordKind};
use tern_core::memory::MemoryTable;
use tern_core::placement::{Placement, ShardId, WorkerId};
use tern_core::shard::state::{DeviceRow, StateKind};
use tern_core::shard::{ReplayError, Shard};
use zerocopy::FromBytes;

use super::World;
use crate::disk::door::{AnyLog, AnyReader, AnyTable};
use crate::disk::{Death, Disk, DiskLog, DiskReader, DiskTable};
use crate::fault::Fault;
use crate::mutant::Mutant;
use crate::server::Seat;

/// Rows of a checkpoint in a hundred checkpoints that the defect "rows lost" drops.
const LOST_PERCENT: u64 = 3;

/// Times in a hundred that a copy of the logs is gone back to, once there is one; else another
/// copy is made.
const RESTORED_PERCENT: u64 = 60;

impl World {
    pub(super) fn recover(
        &mut self,
        placement: Placement,
        worker: WorkerId,
    ) -> Result<Seat, String> {
        let shards = placement.shards_of(worker).map(|shard| self.recover_shard(placement, shard));
        let shards: Result<Vec<_>, String> = shards.collect();
        let reader = AnyReader::Simulated(DiskReader::new(&self.disk));
        let worker = Worker::new(worker, placement, self.config.clone(), reader, shards?);
        Ok(Seat::new(worker, placement.workers()))
    }

    fn recover_shard(
        &mut self,
        placement: Placement,
        shard: ShardId,
    ) -> Result<Shard<AnyLog, AnyTable>, String> {
        let applied = self.disk.borrow_mut().open(shard);
        let table = AnyTable::Simulated(DiskTable::new(shard, &self.disk));
        let mut recovery = Recovery::new(shard, placement, table, applied);
        let records = self.disk.borrow().records(shard);
        let covered = match self.draw.faults.contains(&Fault::Checkpoints) {
            true => self.schedule.below(records as u64 + 1) as usize,
            false => 0,
        };
        let wrong = |error: ReplayError| error.to_string();
        self.begin_life(&mut recovery, shard, covered);
        for (at, kind, row) in self.checkpoint(placement, shard, covered).map_err(wrong)? {
            recovery.restore(at, kind, &row).map_err(wrong)?;
        }
        self.replay(&mut recovery, shard, covered..records).map_err(wrong)?;
        if !recovery.unexplained().is_empty() {
            return Err(format!("shard {} can't tell {:?}", shard.0, recovery.unexplained()));
        }
        let expired = self.disk.borrow_mut().expired(shard);
        for (channel, up_to) in expired {
            recovery.expire(channel, up_to);
        }
        self.disk.borrow_mut().entomb(shard, &recovery.tombstones());
        Ok(recovery.finish(AnyLog::Simulated(DiskLog::open(shard, &self.disk))))
    }

    /// The rows of a checkpoint of a log's first records.
    fn checkpoint(
        &mut self,
        placement: Placement,
        shard: ShardId,
        covered: usize,
    ) -> Result<Vec<(Offset, StateKind, Vec<u8>)>, ReplayError> {
        let (table, mut rows) = (MemoryTable::default(), Vec::new());
        let mut recovery = Recovery::new(shard, placement, table, Offset::NONE);
        self.begin_life(&mut recovery, shard, 0);
        self.replay(&mut recovery, shard, 0..covered)?;
        let at = Disk::offset_of(covered);
        let emitted: Result<(), ReplayError> = recovery.rows(|kind, parts| {
            rows.push((at, kind, parts.concat()));
            Ok(())
        });
        if self.mutant == Some(Mutant::LoginForgotten) {
            rows.iter_mut().for_each(|(_, kind, row)| forget_login(*kind, row));
        }
        let lost = self.mutant == Some(Mutant::RowsLost) && self.schedule.percent(LOST_PERCENT);
        let lost = lost.then(|| self.schedule.below(rows.len().max(1) as u64) as usize);
        if let Some(index) = lost.filter(|index| *index < rows.len()) {
            rows.remove(index);
        }
        emitted.map(|()| rows)
    }

    /// Hands records of a log to a recovery, as they are found.
    fn replay<T: DedupTable>(
        &self,
        recovery: &mut Recovery<T>,
        shard: ShardId,
        records: Range<usize>,
    ) -> Result<(), ReplayError> {
        for index in records.clone() {
            if index > records.start {
                self.raise_before(recovery, shard, index);
            }
            let disk = self.disk.borrow();
            let left = disk.left_of(shard, index);
            let copy = disk.record(shard, index).map(|(at, end, record)| {
                (at, end, record.kind, record.links, record.body.to_vec())
            });
            drop(disk); // the table is on it
            let Some((at, end, kind, links, body)) = copy else { break };
            if kind == RecordKind::Epoch && self.mutant == Some(Mutant::EpochLost) {
                continue;
            }
            match left {
                Some(links) => recovery.lost(at, end, links),
                None => recovery.replay(at, end, Record { kind, links, body: &body })?,
            }
        }
        if records.end > records.start {
            self.raise_before(recovery, shard, records.end);
        }
        Ok(())
    }

    /// Tells a recovery that starts before this record which life the log is in there.
    fn begin_life<T: DedupTable>(&self, recovery: &mut Recovery<T>, shard: ShardId, index: usize) {
        let disk = self.disk.borrow();
        let begun = disk.lives(shard).iter().rev().find(|(at, _)| *at <= index);
        if let Some((_, life)) = begun {
            recovery.raise(*life);
        }
    }

    /// Tells a recovery of the lives that begin before this record.
    fn raise_before<T: DedupTable>(
        &self,
        recovery: &mut Recovery<T>,
        shard: ShardId,
        index: usize,
    ) {
        let disk = self.disk.borrow();
        let begun = disk.lives(shard).iter().filter(|(at, _)| *at == index);
        begun.for_each(|(_, life)| recovery.raise(*life));
    }

    /// The server goes back to a copy of its logs; before there is one, or now and then, it is
    /// made instead. The real storage is not copied here.
    pub(super) fn restore_backup(&mut self) -> bool {
        if self.server.is_none() || self.engine.is_some() {
            return false;
        }
        let Some(backup) = self.backup.clone().filter(|_| self.chaos.percent(RESTORED_PERCENT))
        else {
            self.backup = Some(self.disk.borrow().backup());
            return false;
        };
        let is_forgotten = self.mutant == Some(Mutant::LifeNotRaised);
        self.end_life(|disk| {
            disk.restore(&backup);
            if !is_forgotten {
                disk.raise();
            }
        });
        true
    }

    /// The server comes back as a new life with all that it had.
    pub(super) fn raise_life(&mut self) -> bool {
        let runs = self.server.is_some() && self.engine.is_none();
        if runs {
            self.end_life(Disk::raise);
        }
        runs
    }

    fn end_life(&mut self, change: impl FnOnce(&mut Disk)) {
        self.kill_server(Death::Process);
        self.oracle.life_ends(&self.disk.borrow());
        let shards = (0..self.draw.shards).map(ShardId);
        let lives = shards.map(|shard| (shard, self.disk.borrow().life(shard))).collect();
        change(&mut self.disk.borrow_mut());
        self.oracle.life_ended(&self.disk.borrow(), lives, self.draw.shards);
        self.trace.note(self.now, &[18], &[], format_args!("the server begins a new life"));
    }
}

/// Takes one from the epoch in the row of a device.
fn forget_login(kind: StateKind, row: &mut [u8]) {
    if let (StateKind::Device, Ok(row)) = (kind, DeviceRow::mut_from_bytes(row)) {
        row.epoch = row.epoch.get().saturating_sub(1).into();
    }
}
