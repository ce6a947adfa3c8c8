//! What lies in a data folder: its own file, its owner, its shards and their segments.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::{fs, io};

use tern_core::placement::{Placement, SHARDS_MAX, ShardId};
use tern_protocol::ChannelId;
use tern_storage::inspect::{self, FolderFacts};

/// A data folder, seen from outside.
pub(crate) struct Folder {
    pub(crate) path: PathBuf,
    /// Where deduplication tables go if there is room.
    pub(crate) memory: PathBuf,
    /// What its file says, or why that can't be read.
    pub(crate) facts: Result<FolderFacts, String>,
    /// The process that has it, if one does.
    pub(crate) owner: Option<u32>,
    /// By the folder's file; by what lies there, where that can't be read.
    pub(crate) shards: u16,
}

impl Folder {
    pub(crate) fn open(path: &Path, memory: &Path) -> io::Result<Self> {
        fs::read_dir(path)?;
        let facts = inspect::read_folder(path).map_err(|error| error.to_string());
        let there = || {
            let dirs = (0..SHARDS_MAX).map(|shard| inspect::shard_dir(path, ShardId(shard)));
            dirs.take_while(|dir| dir.is_dir()).count() as u16 // fits: at most `SHARDS_MAX`
        };
        let shards = facts.as_ref().map_or_else(|_| there(), |facts| facts.shards);
        let owner = owner(&inspect::lock_path(path));
        Ok(Self { path: path.into(), memory: memory.into(), facts, owner, shards })
    }

    pub(crate) fn shard_ids(&self) -> impl Iterator<Item = ShardId> + use<> {
        (0..self.shards).map(ShardId)
    }

    /// Where a channel's messages are; `None` if there is no shard at all.
    pub(crate) fn shard_of(&self, channel: ChannelId) -> Option<ShardId> {
        let workers = 1; // does not matter
        (self.shards > 0).then(|| Placement::new(self.shards, workers).shard_of_channel(channel))
    }

    /// The segments of a shard by number, and how many files are not finished.
    pub(crate) fn segments(&self, shard: ShardId) -> io::Result<(Vec<(u64, PathBuf)>, usize)> {
        let (mut segments, mut unfinished) = (Vec::new(), 0);
        for entry in fs::read_dir(inspect::shard_dir(&self.path, shard))? {
            let path = entry?.path();
            match inspect::segment_number(&path) {
                Some(number) => segments.push((number, path)),
                None => unfinished += usize::from(path.extension().is_some_and(|e| e == "tmp")),
            }
        }
        segments.sort();
        Ok((segments, unfinished))
    }
}

/// The process that holds the lock, by the kernel's list of locks and by what it wrote into the
/// file: asking for the lock itself would be taking it.
fn owner(lock: &Path) -> Option<u32> {
    let inode = fs::metadata(lock).ok()?.ino();
    let pid: u32 = fs::read_to_string(lock).ok()?.trim().parse().ok()?;
    let locks = fs::read_to_string("/proc/locks").ok()?;
    locks.lines().any(|line| is_held_by(line, pid, inode)).then_some(pid)
}

/// `1: FLOCK  ADVISORY  WRITE 3254 fe:00:5653 0 EOF`, see proc_locks(5).
fn is_held_by(line: &str, pid: u32, inode: u64) -> bool {
    let words: Vec<&str> = line.split_ascii_whitespace().collect();
    let [_, "FLOCK", _, "WRITE", holder, file, ..] = words[..] else { return false };
    let of = file.rsplit(':').next().and_then(|inode| inode.parse().ok());
    holder.parse() == Ok(pid) && of == Some(inode)
}

#[cfg(test)]
mod tests {
    use super::is_held_by;

    #[test]
    fn locks_are_read_as_the_kernel_writes_them() {
        let line = "1: FLOCK  ADVISORY  WRITE 3254 fe:00:5653 0 EOF";
        assert!(is_held_by(line, 3254, 5653));
        assert!(!is_held_by(line, 325, 5653) && !is_held_by(line, 3254, 565));
        assert!(!is_held_by("2: POSIX  ADVISORY  WRITE 3254 fe:00:5653 0 EOF", 3254, 5653));
        assert!(!is_held_by("2: -> FLOCK", 3254, 5653));
    }
}
