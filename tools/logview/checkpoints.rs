//! The checkpoints of a shard: each read through, and said in a line.

use std::io;
use std::path::PathBuf;

use serde_json::{Value, json};
use tern_core::placement::ShardId;
use tern_core::shard::state::{ChannelRow, StateKind};
use tern_protocol::ChannelId;
use tern_storage::inspect::{self, CheckpointView};
use tern_storage::{CheckpointHeader, RowKey};
use zerocopy::FromBytes;

use crate::folder::Folder;
use crate::output::{Out, size, time};

/// One file.
pub(crate) struct CheckpointFile {
    pub(crate) number: u64,
    /// What it says of itself if every byte of it is good; else why it is not.
    pub(crate) found: Result<CheckpointHeader, String>,
}

/// Reads all of a shard's, oldest first. One that a server removes meanwhile is left out.
pub(crate) fn read(folder: &Folder, id: ShardId) -> io::Result<Vec<CheckpointFile>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(inspect::shard_dir(&folder.path, id))? {
        let path = entry?.path();
        let Some(number) = inspect::checkpoint_number(&path) else { continue };
        let view = CheckpointView::open(&path);
        let found = view.and_then(|view| view.verify().map(|()| *view.header()));
        if path.try_exists()? {
            files.push(CheckpointFile { number, found: found.map_err(|why| why.to_string()) });
        }
    }
    files.sort_unstable_by_key(|file| file.number);
    Ok(files)
}

/// What a start would begin with: the newest good one.
pub(crate) fn newest(files: &[CheckpointFile]) -> Option<&CheckpointHeader> {
    files.iter().rev().find_map(|file| file.found.as_ref().ok())
}

/// The oldest id of a channel that is within its retention, by the newest good one; 1 where none
/// says otherwise.
pub(crate) fn oldest(folder: &Folder, id: ShardId, channel: ChannelId) -> io::Result<u64> {
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(inspect::shard_dir(&folder.path, id))? {
        let path = entry?.path();
        paths.extend(inspect::checkpoint_number(&path).map(|number| (number, path)));
    }
    paths.sort_unstable();
    let (low, high) = channel.halves();
    let oldest = |(_, path): &(u64, PathBuf)| {
        let view = CheckpointView::open(path).and_then(|view| view.verify().map(|()| view)).ok()?;
        let row = view.find(StateKind::Channel, RowKey([low, high, 0])).ok()?;
        let row = row.and_then(|row| Some(ChannelRow::read_from_prefix(&row).ok()?.0.oldest.get()));
        Some(row.unwrap_or(1))
    };
    Ok(paths.iter().rev().find_map(oldest).unwrap_or(1))
}

/// A line, or an object, for each.
pub(crate) fn print(id: ShardId, files: &[CheckpointFile], out: &mut Out) -> io::Result<()> {
    files.iter().try_for_each(|file| out.fact(|| file.json(id), || file.line()))
}

impl CheckpointFile {
    fn line(&self) -> String {
        let number = self.number;
        match &self.found {
            Err(why) => format!("DAMAGED  checkpoint {number}: {why}"),
            Ok(header) => format!(
                "checkpoint {number}: {} rows, {}, up to offset {}; records follow from segment {} \
                 on, messages are kept from segment {} on; made {} UTC",
                header.rows_all(),
                size(header.bytes),
                header.end,
                header.at_number,
                header.start_number,
                time(header.created_ms)
            ),
        }
    }

    fn json(&self, id: ShardId) -> Value {
        let mut object = json!({"what": "checkpoint", "shard": id.0,
                                "checkpoint": self.number.to_string()});
        match &self.found {
            Err(why) => object["why"] = why.as_str().into(),
            Ok(header) => {
                object["rows"] = header.rows_all().to_string().into();
                object["bytes"] = header.bytes.to_string().into();
                object["end"] = header.end.to_string().into();
                object["at"] = header.at.to_string().into();
                object["at_segment"] = header.at_number.to_string().into();
                object["start_segment"] = header.start_number.to_string().into();
                object["incarnation"] = header.incarnation.0.into();
                object["confirmed_ms"] = header.confirmed_ms.to_string().into();
                object["created_ms"] = header.created_ms.to_string().into();
            }
        }
        object
    }
}
