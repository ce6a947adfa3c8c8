//! A shard's real log behind the door of core, and the reader of all of them: they keep the book
//! of what is appended, and carry what goes wrong between core and storage.

use std::cell::RefCell;
use std::rc::Rc;

use tern_core::dedup::{DedupEntry, DedupTable, Verdict};
use tern_core::log::{
    AppendError, Durable, Links, Log, LogFailed, Offset, ReadError, Reader, Record, RecordKind,
};
use tern_core::placement::ShardId;
use tern_protocol::frames::PushBody;
use tern_protocol::{ChannelId, MessageId};
use tern_storage::{MappedLog, MappedReader, ShmTable};
use zerocopy::FromBytes;

use crate::disk::{SharedDisk, Stored};
use crate::mutant::Mutant;

/// Reads in a hundred that the defect "reads lost" spoils.
const LOST_PERCENT: u64 = 2;

/// The log of one shard, for its owner.
#[derive(Debug)]
pub struct RealLog {
    shard: ShardId,
    log: MappedLog,
    book: SharedDisk,
    /// Everything before was called durable.
    proven: Offset,
    /// For the defect that writes the table first.
    table: Rc<RefCell<ShmTable>>,
}

/// Reads all logs.
#[derive(Clone, Debug)]
pub struct RealReader {
    reader: MappedReader,
    book: SharedDisk,
}

impl RealLog {
    pub(super) fn new(
        shard: ShardId,
        log: MappedLog,
        book: SharedDisk,
        table: Rc<RefCell<ShmTable>>,
    ) -> Self {
        Self { shard, log, book, proven: Offset::NONE, table }
    }

    /// Whether the disk is to be taken for busy now.
    fn is_busy(&self) -> bool {
        let book = &mut *self.book.borrow_mut();
        let busy = book.busy_percent > 0 && book.stream.percent(book.busy_percent);
        book.met[1] |= busy;
        busy
    }

    /// The defect: what is still to be appended stands in the table already.
    fn put_first(&self, body: &[&[u8]]) {
        let body = body.concat();
        let Ok((head, _)) = PushBody::ref_from_prefix(&body) else { return };
        let (uin, device, at) = (head.sender.into(), head.device.into(), self.log.tail());
        let table = &mut *self.table.borrow_mut();
        let old = table.get(uin, device);
        if DedupEntry::judge(old.as_ref(), head.key()) == Verdict::New {
            table.put(uin, device, DedupEntry::accept(old.as_ref(), head.key(), at), at);
        }
    }
}

impl RealReader {
    /// A reader of these logs.
    pub fn new(reader: MappedReader, book: SharedDisk) -> Self {
        Self { reader, book }
    }
}

impl Log for RealLog {
    fn append(
        &mut self,
        kind: RecordKind,
        links: Links,
        body: &[&[u8]],
    ) -> Result<Offset, AppendError> {
        let first = self.book.borrow().is(Mutant::TableFirst);
        if first && kind == RecordKind::Message {
            self.put_first(body);
        }
        if self.is_busy() {
            return Err(AppendError::Busy);
        }
        let result = self.log.append(kind, links, body);
        let book = &mut *self.book.borrow_mut();
        match result {
            Ok(at) => {
                let (body, end, proven) = (body.concat(), self.log.tail(), self.proven);
                let confirmed_ms = book.confirmed_ms;
                book.add(self.shard, Stored { kind, links, body, at, end, proven, confirmed_ms });
            }
            Err(AppendError::Full) => book.met[0] = true,
            Err(AppendError::Busy | AppendError::Failed) => {}
        }
        result
    }

    fn commit(&mut self) {
        self.log.commit();
    }

    fn durable(&mut self) -> Result<Durable, LogFailed> {
        let proof = self.log.durable()?;
        self.proven = proof.end();
        match self.book.borrow().is(Mutant::AckBeforeCommit) {
            true => Ok(Durable::assert_synced(self.log.tail())),
            false => Ok(proof),
        }
    }

    fn tail(&self) -> Offset {
        self.log.tail()
    }

    fn poll_expired(&mut self) -> Option<(ChannelId, MessageId)> {
        self.log.poll_expired()
    }

    fn with_record<T>(
        &mut self,
        at: Offset,
        read: impl FnOnce(Record<'_>) -> T,
    ) -> Result<T, ReadError> {
        if at < self.proven {
            look_whether_cold(&self.book, self.shard, at)?;
        }
        self.log.with_record(at, read)
    }
}

impl Reader for RealReader {
    fn with_record<T>(
        &mut self,
        shard: ShardId,
        at: Offset,
        read: impl FnOnce(Record<'_>) -> T,
    ) -> Result<T, ReadError> {
        {
            let book = &mut *self.book.borrow_mut();
            if book.is(Mutant::ReadsLost) && book.stream.percent(LOST_PERCENT) {
                return Err(ReadError::LOST);
            }
        }
        look_whether_cold(&self.book, shard, at)?;
        self.reader.with_record(shard, at, read)
    }
}

/// In memory everything is warm; some old records are taken for cold here.
fn look_whether_cold(book: &SharedDisk, shard: ShardId, at: Offset) -> Result<(), ReadError> {
    let book = &mut *book.borrow_mut();
    let index = book.index_of(shard, at);
    if book.is_cold(shard, index) {
        book.met[2] = true;
        return Err(ReadError::Cold);
    }
    Ok(())
}
