//! Writing a checkpoint: rows come in, in order; blocks go out; the header last, when everything
//! about them is known. The file has its unfinished name until somebody has read it back.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tern_core::shard::state::StateKind;
use zerocopy::IntoBytes;

use super::format::{
    BLOCK_BYTES_MAX, BLOCK_HEADER_BYTES, BlockHeader, CheckpointHeader, INDEX_KIND, IndexRow,
    KINDS, PAGE_BYTES, RowKey, block_checksum,
};
use crate::disk::{Disk, DiskFile};
use crate::error::{IoError, Naming};
use crate::format::RECORD_ALIGN;

/// Bytes that are handed to the file at once.
const WRITE_BYTES: usize = 1024 * 1024;

/// A checkpoint that is being written.
pub(super) struct Writer {
    path: PathBuf,
    file: Arc<dyn DiskFile>,
    header: CheckpointHeader,
    seed: u32,
    /// Bytes that were not handed over yet, and their place.
    out: Vec<u8>,
    out_place: u64,
    /// The block that gathers, at the end of `out`: its start there, its kind, its rows.
    block: Option<(usize, u8, u16)>,
    index: Vec<IndexRow>,
    row: Vec<u8>,
    newest: Option<(StateKind, RowKey)>,
}

impl Writer {
    /// Makes the file `path`. Of `header` only what is known beforehand counts.
    pub(super) fn new(
        disk: &dyn Disk,
        path: &Path,
        header: CheckpointHeader,
    ) -> Result<Self, IoError> {
        let file = disk.create(path).naming("make", path)?;
        Ok(Self {
            path: path.into(),
            file,
            header: CheckpointHeader { rows: [0; KINDS.len()], digest: 0, ..header },
            seed: crc32c::crc32c(&header.salt),
            out: Vec::with_capacity(WRITE_BYTES + BLOCK_BYTES_MAX),
            out_place: PAGE_BYTES as u64,
            block: None,
            index: Vec::new(),
            row: Vec::new(),
            newest: None,
        })
    }

    /// The next row.
    ///
    /// # Panics
    /// If it does not come behind the row before it.
    pub(super) fn row(&mut self, kind: StateKind, parts: &[&[u8]]) -> Result<(), IoError> {
        self.row.clear();
        parts.iter().for_each(|part| self.row.extend_from_slice(part));
        let key = RowKey::of(kind, &self.row).expect("core gives whole rows");
        let order = (kind, key);
        assert!(self.newest.is_none_or(|newest| newest < order), "rows come sorted: {order:?}");
        self.newest = Some(order);
        let row = std::mem::take(&mut self.row);
        let place = self.push(kind as u8, &row)?;
        self.row = row;
        if let Some(place) = place {
            self.index.push(IndexRow::new(kind, key, place));
        }
        let slot = KINDS.iter().position(|known| *known == kind).expect("all kinds are listed");
        self.header.rows[slot] += 1;
        Ok(())
    }

    /// Ends the file: index, header, sync.
    pub(super) fn finish(mut self) -> Result<CheckpointHeader, IoError> {
        self.close_block();
        self.header.index = self.place();
        for row in std::mem::take(&mut self.index) {
            self.push(INDEX_KIND, row.as_bytes())?;
        }
        self.close_block();
        self.write_out()?;
        self.header.bytes = self.out_place;
        self.file.write_at(0, &self.header.encode()).naming("write", &self.path)?;
        self.file.sync().naming("sync", &self.path)?;
        Ok(self.header)
    }

    /// Adds a row to the block of its kind; the block's place if it is the first in it.
    fn push(&mut self, kind: u8, row: &[u8]) -> Result<Option<u64>, IoError> {
        let need = size_of::<u16>() + row.len();
        if let Some((start, of, _)) = self.block
            && (of != kind || self.out.len() - start + need > BLOCK_BYTES_MAX)
        {
            self.close_block();
            if self.out.len() >= WRITE_BYTES {
                self.write_out()?;
            }
        }
        let opened = self.block.is_none().then(|| self.place());
        let (start, of, rows) = self.block.unwrap_or_else(|| {
            let start = self.out.len();
            self.out.resize(start + BLOCK_HEADER_BYTES, 0);
            (start, kind, 0)
        });
        self.block = Some((start, of, rows + 1));
        self.out.extend_from_slice(&(row.len() as u16).to_le_bytes()); // fits: some hundred bytes
        self.out.extend_from_slice(row);
        Ok(opened)
    }

    /// Pads and signs the block that gathers.
    fn close_block(&mut self) {
        let Some((start, kind, rows)) = self.block.take() else { return };
        let len = (self.out.len() - start).next_multiple_of(RECORD_ALIGN);
        self.out.resize(start + len, 0);
        let place = self.out_place + start as u64;
        let block = &mut self.out[start..];
        block[..BLOCK_HEADER_BYTES].copy_from_slice(BlockHeader::new(len, kind, rows).as_bytes());
        let crc = block_checksum(self.seed, place, block).to_le_bytes();
        block[4..8].copy_from_slice(&crc);
        self.header.digest = crc32c::crc32c_append(self.header.digest, &crc);
    }

    /// Place of the next byte in the file.
    fn place(&self) -> u64 {
        self.out_place + self.out.len() as u64
    }

    fn write_out(&mut self) -> Result<(), IoError> {
        self.file.write_at(self.out_place, &self.out).naming("write", &self.path)?;
        self.out_place += self.out.len() as u64;
        self.out.clear();
        Ok(())
    }
}
