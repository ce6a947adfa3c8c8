//! A shard is opened, and what recovery says of it is compared with the book: every record that
//! it finds was appended, as it is, and none is missing in front of the end that it finds.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;

use tern_core::dedup::DedupTable;
use tern_core::log::{Links, Offset, ReadError, Reader, Record, RecordKind};
use tern_core::placement::{Placement, ShardId};
use tern_core::shard::state::{StateKind, TombstoneRow};
use tern_core::shard::{Recovery, ReplayError, Shard};
use tern_protocol::Incarnation;
use tern_storage::{Durability, MappedReader, Opened, Visitor};

use super::Engine;
use super::log::RealLog;
use super::table::RealTable;
use crate::disk::door::{AnyLog, AnyTable};
use crate::disk::{Disk, SharedDisk};
use crate::mutant::Mutant;

/// A recovery whose every word is checked.
struct Judged<T> {
    recovery: Recovery<T>,
    book: SharedDisk,
    shard: ShardId,
    /// Where the rows of a checkpoint end.
    from: Offset,
    /// Places that recovery told of.
    seen: BTreeSet<Offset>,
    /// The first thing that was wrong.
    wrong: Option<String>,
    /// Acked messages may be gone, and then the log must say so.
    may_lose: bool,
    /// The life that was found last. A process that dies before a segment carries a new life
    /// leaves it to the next one to begin the same.
    life: Incarnation,
    /// A row of a channel is not handed on: a defect.
    loses_row: bool,
}

impl Engine {
    /// Opens a shard of the process that was started.
    ///
    /// # Errors
    /// What the storage says, or what is wrong with what it says.
    pub fn open(
        &mut self,
        placement: Placement,
        shard: ShardId,
    ) -> Result<Shard<AnyLog, AnyTable>, String> {
        let storage = &self.running().storage;
        let mut scan = storage.scan_shard(shard).map_err(|error| error.to_string())?;
        let (table, applied) = scan.attach_table().map_err(|error| error.to_string())?;
        let table = Rc::new(RefCell::new(table));
        let real = RealTable::new(Rc::clone(&table), self.book.clone());
        let loses_row = self.mutant == Some(Mutant::RowsLost);
        let mut judged = Judged {
            recovery: Recovery::new(shard, placement, AnyTable::Real(real), applied),
            book: self.book.clone(),
            shard,
            from: Offset::NONE,
            seen: BTreeSet::new(),
            wrong: None,
            may_lose: self.may_lose,
            life: self.found[usize::from(shard.0)],
            loses_row,
        };
        let opened = scan.replay(&mut judged).map_err(|error| error.to_string())?;
        let wrong = judged.wrong.take().or_else(|| judged.missing(&opened));
        self.count(&opened);
        self.found[usize::from(shard.0)] = opened.incarnation;
        // It is closed with the process, whose threads are dead by then.
        let log = RealLog::new(shard, opened.log, self.book.clone(), table);
        match wrong {
            Some(wrong) => {
                self.end_threads();
                Err(format!("shard {}: {wrong}", shard.0))
            }
            None => Ok(judged.recovery.finish(AnyLog::Real(log))),
        }
    }

    fn count(&mut self, opened: &Opened) {
        let (report, counts) = (&opened.report, &mut self.counts);
        counts.opened += 1;
        let is_unsynced = self.settings.durability == Durability::Process;
        counts.unsynced += u64::from(is_unsynced);
        counts.torn += u64::from(report.torn);
        counts.clean += u64::from(report.clean);
        counts.from_checkpoint += u64::from(report.checkpoint.is_some());
        counts.tables_kept += u64::from(report.table_rebuilt.is_none());
    }
}

impl<T: DedupTable> Judged<T> {
    /// What is wrong with the log as it was opened; the book ends where it does from now on.
    fn missing(&mut self, opened: &Opened) -> Option<String> {
        if let Some(why) = &opened.read_only {
            return Some(why.clone());
        }
        if let Some(why) = opened.raised
            && !self.may_lose
            && opened.incarnation != self.life
        {
            return Some(format!("a new incarnation begins for nothing: {why:?}"));
        }
        if let Some(bad) = opened.report.checkpoints_bad.first() {
            return Some(format!("a checkpoint is bad: {bad}"));
        }
        let book = &mut *self.book.borrow_mut();
        book.cut(self.shard, opened.report.end);
        let probe = book.probe.as_ref()?;
        (0..book.records(self.shard)).find_map(|index| {
            let stored = book.stored(self.shard, index)?;
            let (is_damaged, is_expired) = book.is_gone(self.shard, index);
            if stored.at >= self.from && !self.seen.contains(&stored.at) {
                return Some(format!("recovery does not tell of the record at {}", stored.at.0));
            }
            let stands = is_damaged || is_expired || probe.stands(self.shard, stored);
            (!stands).then(|| format!("the record at {} is not in its file", stored.at.0))
        })
    }

    fn check(&mut self, at: Offset, what: impl FnOnce(&Disk, usize) -> Option<String>) {
        let book = self.book.borrow();
        let index = book.index_of(self.shard, at);
        let known = book.stored(self.shard, index).is_some_and(|stored| stored.at == at);
        let wrong = match known {
            true => what(&book, index),
            false => Some(format!("recovery finds a record at {}, where none was put", at.0)),
        };
        drop(book);
        self.seen.insert(at);
        self.wrong = self.wrong.take().or(wrong);
    }
}

impl<T: DedupTable> Visitor for Judged<T> {
    fn record(&mut self, at: Offset, end: Offset, record: Record<'_>) -> Result<(), ReplayError> {
        let shard = self.shard;
        self.check(at, |book, index| {
            let same = book.record(shard, index).is_some_and(|(_, _, put)| put == record);
            (!same).then(|| format!("recovery finds another record at {} than was put", at.0))
        });
        if record.kind == RecordKind::Epoch && self.book.borrow().is(Mutant::EpochLost) {
            return Ok(());
        }
        self.recovery.record(at, end, record)
    }

    fn raise(&mut self, incarnation: Incarnation) {
        Visitor::raise(&mut self.recovery, incarnation);
    }

    fn state(&mut self, at: Offset, kind: StateKind, row: &[u8]) -> Result<(), ReplayError> {
        self.from = at;
        if kind == StateKind::Channel && std::mem::take(&mut self.loses_row) {
            return Ok(());
        }
        self.recovery.state(at, kind, row)
    }

    fn lost(&mut self, at: Offset, end: Offset, links: Option<Links>) -> Result<(), ReplayError> {
        let shard = self.shard;
        self.check(at, |book, index| {
            let (is_damaged, _) = book.is_gone(shard, index);
            (!is_damaged).then(|| format!("recovery calls the record at {} lost", at.0))
        });
        Visitor::lost(&mut self.recovery, at, end, links)
    }

    fn tombstones(&self) -> Vec<TombstoneRow> {
        Visitor::tombstones(&self.recovery)
    }

    fn unexplained(&self) -> Vec<Offset> {
        Visitor::unexplained(&self.recovery)
    }
}

/// The age of the oldest record that the book calls kept and the storage expired, which the book
/// then calls so too; `None` if there is none.
pub(super) fn expired_age(
    book: &mut Disk,
    reader: &mut MappedReader,
    shard: ShardId,
    now_ms: u64,
) -> Option<u64> {
    let index = book.expired_records(shard);
    let (at, made) = book.stored(shard, index).map(|stored| (stored.at, stored.confirmed_ms))?;
    let is_expired = reader.with_record(shard, at, |_| ()) == Err(ReadError::Expired);
    is_expired.then(|| {
        book.set_expired(shard, index + 1);
        now_ms.saturating_sub(made)
    })
}
