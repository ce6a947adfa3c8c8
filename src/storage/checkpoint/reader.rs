//! Reading a checkpoint: proving the whole of it, giving its rows, looking one up.
//!
//! All reads are calls, never a mapping: a bad sector is an error value.

use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Advice, fadvise};
use tern_core::shard::state::StateKind;
use zerocopy::FromBytes;

use super::CheckpointError;
use super::format::{
    BLOCK_BYTES_MAX, BLOCK_HEADER_BYTES, BlockHeader, CheckpointHeader, INDEX_KIND, IndexRow,
    KINDS, PAGE_BYTES, RowKey, block_checksum,
};
use crate::disk::{Disk, DiskFile};
use crate::error::{IoError, Naming};
use crate::format::{Id, RECORD_ALIGN};

/// Bytes read at once.
const READ_BYTES: usize = 1024 * 1024;

/// A checkpoint whose header is good.
#[derive(Debug)]
pub(crate) struct Checkpoint {
    pub(crate) path: PathBuf,
    pub(crate) header: CheckpointHeader,
    file: Arc<dyn DiskFile>,
    seed: u32,
}

/// One block, proven by its checksum.
struct Block<'a> {
    place: u64,
    kind: u8,
    crc: u32,
    rows: Vec<&'a [u8]>,
}

impl Checkpoint {
    /// Opens the file and judges its header alone.
    pub(crate) fn open(
        disk: &dyn Disk,
        path: &Path,
        folder: &Id,
        shard: u16,
    ) -> Result<Self, CheckpointError> {
        let checkpoint = Self::open_any(disk.open(path).naming("open", path)?, path)?;
        let header = &checkpoint.header;
        if (&header.folder, header.shard) != (folder, shard) {
            let why = "it belongs to another data folder or shard";
            return Err(CheckpointError::bad(path, why));
        }
        if super::checkpoint_number(path).is_some_and(|number| number != header.number) {
            return Err(CheckpointError::bad(path, "it has another number than its name"));
        }
        Ok(checkpoint)
    }

    /// As [`Checkpoint::open`], of whatever folder and shard it is.
    pub(crate) fn open_any(file: Arc<dyn DiskFile>, path: &Path) -> Result<Self, CheckpointError> {
        let bytes = file.bytes().naming("open", path)?;
        let mut page = vec![0; PAGE_BYTES.min(bytes as usize)];
        file.handle().read_exact_at(&mut page, 0).naming("read", path)?;
        let header = CheckpointHeader::decode(path, &page)?;
        if header.bytes != bytes {
            let why = format!("it has {bytes} bytes of {}", header.bytes);
            return Err(CheckpointError::bad(path, why));
        }
        Ok(Self { path: path.into(), header, file, seed: crc32c::crc32c(&header.salt) })
    }

    /// Proves every byte of it: checksums, counts, order, index.
    pub(crate) fn verify(&self) -> Result<(), CheckpointError> {
        let bad = |why: &str| CheckpointError::bad(&self.path, why);
        let (mut digest, mut rows, mut newest) = (0, [0; KINDS.len()], None);
        let mut index = Vec::new();
        let header = &self.header;
        self.blocks(PAGE_BYTES as u64, header.index, |block| {
            digest = crc32c::crc32c_append(digest, &block.crc.to_le_bytes());
            let slot = KINDS.iter().position(|kind| *kind as u8 == block.kind);
            let slot = slot.ok_or_else(|| bad("it has rows of an unknown kind"))?;
            rows[slot] += block.rows.len() as u64;
            for (number, row) in block.rows.iter().enumerate() {
                let key = RowKey::of(KINDS[slot], row).ok_or_else(|| bad("a row is cut off"))?;
                let order = (block.kind, key);
                if newest.replace(order).is_some_and(|newest| newest >= order) {
                    return Err(bad("its rows are not in order"));
                }
                if number == 0 {
                    index.push((order, block.place));
                }
            }
            Ok(())
        })?;
        let mut indexed = index.into_iter();
        self.blocks(header.index, header.bytes, |block| {
            digest = crc32c::crc32c_append(digest, &block.crc.to_le_bytes());
            for row in index_rows(&block).ok_or_else(|| bad("its index is not one"))? {
                if indexed.next() != Some((row.order(), row.place.get())) {
                    return Err(bad("its index leads elsewhere"));
                }
            }
            Ok(())
        })?;
        match indexed.next().is_none() && rows == header.rows && digest == header.digest {
            true => Ok(()),
            false => Err(bad("it has other rows than its header says")),
        }
    }

    /// Hands out all rows, in order. Verify it first: rows in front of a bad place come out.
    pub(crate) fn rows(
        &self,
        mut visit: impl FnMut(StateKind, &[u8]) -> Result<(), CheckpointError>,
    ) -> Result<(), CheckpointError> {
        self.blocks(PAGE_BYTES as u64, self.header.index, |block| {
            let kind = StateKind::from_disk(block.kind);
            let unknown = || CheckpointError::bad(&self.path, "it has rows of an unknown kind");
            let kind = kind.ok_or_else(unknown)?;
            block.rows.iter().try_for_each(|row| visit(kind, row))
        })
    }

    /// The row with a key, if there is one: reads the index and one block.
    pub(crate) fn find(
        &self,
        kind: StateKind,
        key: RowKey,
    ) -> Result<Option<Vec<u8>>, CheckpointError> {
        let wanted = (kind as u8, key);
        let mut place = None;
        self.blocks(self.header.index, self.header.bytes, |block| {
            let bad = || CheckpointError::bad(&self.path, "its index is not one");
            let rows = index_rows(&block).ok_or_else(bad)?;
            let before = rows.iter().take_while(|row| row.order() <= wanted).last();
            place = before.map(|row| row.place.get()).or(place);
            Ok(())
        })?;
        let (Some(place), mut found) = (place, None) else { return Ok(None) };
        let mut first = true;
        self.blocks(place, self.header.index, |block| {
            if std::mem::take(&mut first) && block.kind == kind as u8 {
                let same = |row: &&&[u8]| RowKey::of(kind, row) == Some(key);
                found = block.rows.iter().find(same).map(|row| row.to_vec());
            }
            Ok(())
        })?;
        Ok(found)
    }

    /// Lets the kernel forget what it has in memory of it, so that the next read is of the disk.
    /// Where it does not, the read proves less.
    pub(super) fn forget(&self) {
        let _ = fadvise(self.file.handle(), 0, None, Advice::DontNeed);
    }

    /// After it was moved.
    pub(super) fn at_path(self, path: PathBuf) -> Self {
        Self { path, ..self }
    }

    /// All blocks from one place to another.
    fn blocks(
        &self,
        from: u64,
        to: u64,
        mut visit: impl FnMut(Block<'_>) -> Result<(), CheckpointError>,
    ) -> Result<(), CheckpointError> {
        let mut place = from;
        let mut buffer = Vec::new();
        while place < to {
            buffer.resize((to - place).min(READ_BYTES as u64) as usize, 0);
            let read = self.file.handle().read_exact_at(&mut buffer, place);
            read.map_err(|error| self.failed(error))?;
            let mut used = 0;
            loop {
                let rest = &buffer[used..];
                let whole = place + buffer.len() as u64 == to;
                if rest.is_empty() || !whole && rest.len() < BLOCK_BYTES_MAX {
                    break;
                }
                let at = place + used as u64;
                let len = block_len(rest).ok_or_else(|| self.broken(at))?;
                let block = self.block(at, &rest[..len]).ok_or_else(|| self.broken(at))?;
                visit(block)?;
                used += len;
            }
            place += used as u64;
        }
        Ok(())
    }

    /// The block that `bytes` are, if they are one.
    fn block<'a>(&self, place: u64, bytes: &'a [u8]) -> Option<Block<'a>> {
        let (header, mut rest) = BlockHeader::ref_from_prefix(bytes).ok()?;
        if block_checksum(self.seed, place, bytes) != header.crc.get() {
            return None;
        }
        let mut rows = Vec::with_capacity(header.rows.get().into());
        for _ in 0..header.rows.get() {
            let (len, after) = rest.split_first_chunk::<2>()?;
            let (row, after) = after.split_at_checked(u16::from_le_bytes(*len).into())?;
            rows.push(row);
            rest = after;
        }
        (rest.len() < RECORD_ALIGN && !rows.is_empty()).then_some(())?;
        Some(Block { place, kind: header.kind, crc: header.crc.get(), rows })
    }

    fn failed(&self, source: io::Error) -> CheckpointError {
        IoError { what: "read", path: self.path.clone(), source }.into()
    }

    fn broken(&self, place: u64) -> CheckpointError {
        CheckpointError::bad(&self.path, format!("the block at byte {place} is broken"))
    }
}

/// Length of the block that `bytes` begin with, if it lies in them.
fn block_len(bytes: &[u8]) -> Option<usize> {
    let (header, _) = BlockHeader::ref_from_prefix(bytes).ok()?;
    let len = header.len.get() as usize;
    let fits = len > BLOCK_HEADER_BYTES && len <= bytes.len().min(BLOCK_BYTES_MAX);
    (fits && len.is_multiple_of(RECORD_ALIGN)).then_some(len)
}

fn index_rows<'a>(block: &Block<'a>) -> Option<Vec<&'a IndexRow>> {
    (block.kind == INDEX_KIND).then_some(())?;
    block.rows.iter().map(|row| IndexRow::ref_from_bytes(row).ok()).collect()
}
