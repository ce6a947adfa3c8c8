//! The losses of a shard that an operator has accepted: a file in its folder, written by repair
//! and honoured by recovery; FORMAT.md draws it.
//!
//! A range in it is told as lost and no longer stops the log. It names the incarnation that the
//! log goes on with, so that however often the shard is opened, it is raised once.

use std::fs;
use std::path::{Path, PathBuf};

use tern_protocol::Incarnation;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::disk::Disk;
use crate::error::{Naming, RecoverError};
use crate::format::{FORMAT_VERSION, Id};
use crate::segment::UNFINISHED_SUFFIX;

/// Name of the file in a shard's folder.
pub(crate) const ACCEPTED_FILE: &str = "accepted";

/// First bytes of the file.
const MAGIC: [u8; 8] = *b"TERNACC\n";

/// Ranges that a file has at most: 1 MiB of them. A disk with more bad places is thrown away.
pub(crate) const RANGES_MAX: usize = 65_536;

/// What the file begins with.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Header {
    magic: [u8; 8],
    version: U32,
    shard: U16,
    reserved: U16,
    folder: Id,
    incarnation: U32,
    ranges: U32,
}

/// A range of offsets that is accepted as lost.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub(crate) struct Range {
    pub(crate) at: U64,
    pub(crate) to: U64,
}

const _: () = assert!(size_of::<Header>() == 40 && size_of::<Range>() == 16);

/// What was accepted.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Accepted {
    /// The life that the log begins because of it; 0 if nothing was accepted.
    pub(crate) incarnation: Incarnation,
    pub(crate) ranges: Vec<Range>,
}

impl Accepted {
    /// What a shard's folder says; nothing if the file is not there.
    pub(crate) fn read(dir: &Path, folder: Id, shard: u16) -> Result<Self, RecoverError> {
        let path = dir.join(ACCEPTED_FILE);
        match fs::read(&path) {
            Ok(bytes) => Self::decode(&bytes, folder, shard).ok_or(RecoverError::Accepted { path }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error).naming("read", &path)?,
        }
    }

    /// Writes it for good; it replaces what was there.
    pub(crate) fn write(
        &self,
        disk: &dyn Disk,
        dir: &Path,
        folder: Id,
        shard: u16,
    ) -> Result<PathBuf, RecoverError> {
        let path = dir.join(ACCEPTED_FILE);
        let fresh = path.with_added_extension(&UNFINISHED_SUFFIX[1..]);
        let file = disk.create(&fresh).naming("make", &fresh)?;
        file.write_at(0, &self.encode(folder, shard)).naming("write", &fresh)?;
        file.sync().naming("sync", &fresh)?;
        disk.rename(&fresh, &path).naming("make", &path)?;
        disk.sync_dir(dir).naming("sync", dir)?;
        Ok(path)
    }

    /// Whether all of a range is accepted.
    pub(crate) fn covers(&self, at: u64, to: u64) -> bool {
        self.ranges.iter().any(|range| range.at.get() <= at && to <= range.to.get())
    }

    fn encode(&self, folder: Id, shard: u16) -> Vec<u8> {
        let header = Header {
            magic: MAGIC,
            version: U32::new(FORMAT_VERSION),
            shard: U16::new(shard),
            reserved: U16::ZERO,
            folder,
            incarnation: U32::new(self.incarnation.0),
            ranges: U32::new(self.ranges.len() as u32), // fits: bounded by `RANGES_MAX`
        };
        let mut bytes = header.as_bytes().to_vec();
        bytes.extend_from_slice(self.ranges.as_bytes());
        let crc = crc32c::crc32c(&bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8], folder: Id, shard: u16) -> Option<Self> {
        let (content, crc) = bytes.split_last_chunk::<4>()?;
        let (header, ranges) = Header::ref_from_prefix(content).ok()?;
        let ranges = <[Range]>::ref_from_bytes(ranges).ok()?;
        let is_ours = header.magic == MAGIC
            && header.version.get() == FORMAT_VERSION
            && (header.folder, header.shard.get()) == (folder, shard)
            && header.ranges.get() as usize == ranges.len()
            && ranges.len() <= RANGES_MAX
            && crc32c::crc32c(content) == u32::from_le_bytes(*crc);
        let incarnation = Incarnation(header.incarnation.get());
        is_ours.then(|| Self { incarnation, ranges: ranges.to_vec() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bit_of_the_file_counts() {
        let range = Range { at: U64::new(8), to: U64::new(16) };
        let accepted = Accepted { incarnation: Incarnation(3), ranges: vec![range; 2] };
        let bytes = accepted.encode([1; 16], 2);
        assert_eq!(Accepted::decode(&bytes, [1; 16], 2), Some(accepted));
        assert_eq!(Accepted::decode(&bytes, [1; 16], 3), None, "another shard's");
        assert_eq!(Accepted::decode(&bytes, [2; 16], 2), None, "another folder's");
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Accepted::decode(&bad, [1; 16], 2), None, "bit {bit}");
        }
        for len in 0..bytes.len() {
            assert_eq!(Accepted::decode(&bytes[..len], [1; 16], 2), None, "{len} bytes");
        }
    }
}
