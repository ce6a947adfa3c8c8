//! One segment of a log: a file of fixed capacity, and the list of all of a shard's.

pub(crate) mod map;
pub(crate) mod prepare;
pub(crate) mod sigbus;

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::disk::{Disk, DiskFile};
use crate::error::RecoverError;
use crate::format::{Bad, Content, RECORD_HEADER_BYTES, Seed, record_len_of};
use crate::header::{SEGMENT_HEADER_BYTES, SegmentHeader};
use crate::recovery::scan::files;
use crate::segment::map::SettledFile;

/// How the names of segments end.
pub(crate) const SEGMENT_SUFFIX: &str = ".seg";

/// How the name of a segment that is not finished ends; such a file is worth nothing.
pub(crate) const UNFINISHED_SUFFIX: &str = ".tmp";

/// A segment, mapped.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) header: SegmentHeader,
    pub(crate) path: PathBuf,
    pub(crate) seed: Seed,
    pub(crate) file: SettledFile,
}

impl Segment {
    /// Makes a segment of zeros whose room and name are durable when this returns.
    pub(crate) fn make(disk: &dyn Disk, dir: &Path, header: SegmentHeader) -> io::Result<Self> {
        let path = segment_path(dir, header.number);
        let fresh = path.with_added_extension(&UNFINISHED_SUFFIX[1..]);
        match Self::make_as(disk, dir, header, &fresh, &path) {
            Ok(segment) => Ok(segment),
            Err(error) => {
                // Half a segment would keep the room that is short. Failing to remove it does no
                // harm: the next attempt empties it.
                let _ = disk.remove(&fresh);
                Err(error)
            }
        }
    }

    fn make_as(
        disk: &dyn Disk,
        dir: &Path,
        header: SegmentHeader,
        fresh: &Path,
        path: &Path,
    ) -> io::Result<Self> {
        let file = disk.create(fresh)?;
        file.allocate(header.capacity)?;
        file.write_at(0, &header.encode())?;
        file.sync()?;
        disk.rename(fresh, path)?;
        disk.sync_dir(dir)?;
        Self::mapped(path, header, SettledFile::new(file, SEGMENT_HEADER_BYTES)?)
    }

    /// Opens a segment of which everything before the offset `end`, or all of it, is settled.
    pub(crate) fn open(
        disk: &dyn Disk,
        path: &Path,
        end: Option<u64>,
    ) -> Result<Self, RecoverError> {
        let name = |source| crate::error::IoError { what: "open", path: path.into(), source };
        let file = disk.open(path).map_err(name)?;
        let len = file.bytes().map_err(name)? as usize; // fits: this crate is for 64-bit machines
        if len < SEGMENT_HEADER_BYTES {
            return Err(RecoverError::Header { path: path.into(), why: "is cut off" });
        }
        let file = SettledFile::new(file, SEGMENT_HEADER_BYTES).map_err(name)?;
        file.populate(0, SEGMENT_HEADER_BYTES).map_err(name)?;
        let page = file.bytes(0, SEGMENT_HEADER_BYTES).expect("settled above");
        let header = SegmentHeader::decode(path, page)?;
        let settled = end.map_or(len, |end| len.min((end - header.base) as usize));
        file.settle(settled);
        Self::mapped(path, header, file).map_err(|error| name(error).into())
    }

    fn mapped(path: &Path, header: SegmentHeader, file: SettledFile) -> io::Result<Self> {
        Ok(Self { seed: Seed::new(&header.salt), header, path: path.into(), file })
    }

    /// The file, opened again if it was closed, for as long as the caller needs it.
    pub(crate) fn file(&self, disk: &dyn Disk) -> io::Result<Arc<dyn DiskFile>> {
        self.file.file().map_or_else(|| disk.open(&self.path), Ok)
    }

    /// Cuts the file to `len` bytes, behind what is settled.
    pub(crate) fn cut(&self, disk: &dyn Disk, len: u64) -> io::Result<()> {
        self.file(disk)?.set_len(len)?;
        self.file.was_cut(len);
        Ok(())
    }

    /// Whether both copies of the header are as they were written.
    pub(crate) fn has_whole_header(&self) -> bool {
        let page = self.file.bytes(0, SEGMENT_HEADER_BYTES).expect("settled when it was opened");
        self.header.is_whole(page)
    }

    /// Offset behind the last settled byte.
    pub(crate) fn settled_end(&self) -> u64 {
        self.header.base + self.file.settled() as u64
    }

    /// Place in the file of an offset that lies in this segment.
    pub(crate) fn place(&self, at: u64) -> usize {
        (at - self.header.base) as usize // fits: less than the capacity
    }

    /// The record or mark at an offset, with its length; reading it may wait for the disk.
    pub(crate) fn parse(&self, at: u64) -> Result<(usize, Content<'_>), Bad> {
        let rest = self.file.bytes(self.place(at), self.file.settled()).ok_or(Bad::Empty)?;
        self.seed.parse(at, rest)
    }

    /// Bytes of the record at an offset, by its header alone, which is not proven.
    pub(crate) fn record_len(&self, at: u64) -> Result<usize, Bad> {
        let from = self.place(at);
        let header = self.file.bytes(from, from + RECORD_HEADER_BYTES).ok_or(Bad::Empty)?;
        record_len_of(header)
    }
}

/// The segments of a shard, by growing base.
#[derive(Debug, Default)]
pub(crate) struct SegmentList(pub(crate) Vec<Arc<Segment>>);

impl SegmentList {
    /// The segment that an offset lies in.
    pub(crate) fn find(&self, at: u64) -> Option<&Arc<Segment>> {
        let after = self.0.partition_point(|segment| segment.header.base <= at);
        let segment = &self.0[after.checked_sub(1)?];
        (at < segment.header.end()).then_some(segment)
    }

    /// Offset before which there is no segment (any more).
    pub(crate) fn start(&self) -> u64 {
        self.0.first().map_or(0, |segment| segment.header.base)
    }
}

/// The file of a segment.
pub(crate) fn segment_path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:010}{SEGMENT_SUFFIX}"))
}

/// Confirmed milliseconds in the newest segment of a folder whose header can be read; 0 without
/// one.
pub(crate) fn newest_confirmed(dir: &Path) -> u64 {
    let mut paths: Vec<_> = files(dir).unwrap_or_default();
    paths.retain(|path| segment_number(path).is_some());
    paths.sort_unstable_by_key(|path| std::cmp::Reverse(segment_number(path)));
    paths.iter().find_map(|path| header_of(path)).map_or(0, |header| header.confirmed_ms)
}

fn header_of(path: &Path) -> Option<SegmentHeader> {
    let mut page = vec![0; SEGMENT_HEADER_BYTES];
    File::open(path).and_then(|mut file| file.read_exact(&mut page)).ok()?;
    SegmentHeader::decode(path, &page).ok()
}

/// The number in the name of a segment's file.
pub(crate) fn segment_number(path: &Path) -> Option<u64> {
    path.file_name()?.to_str()?.strip_suffix(SEGMENT_SUFFIX)?.parse().ok()
}
