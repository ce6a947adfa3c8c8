//! `logview verify`: every checksum of a folder, with progress.

use std::io::{self, IsTerminal, Write};

use serde_json::json;

use crate::checkpoints;
use crate::cli::Exit;
use crate::dedup;
use crate::folder::Folder;
use crate::list::{print_folder, state};
use crate::output::{Out, size};
use crate::shard::Shard;
use crate::show::{problem_json, problem_line};

pub(crate) fn run(folder: &Folder, out: &mut Out) -> io::Result<Exit> {
    let mut exit = print_folder(folder, out)?;
    let mut progress = Progress::new(folder);
    for id in folder.shard_ids() {
        let read = Shard::read(folder, id, |bytes| progress.add(bytes));
        progress.clear();
        match read {
            Ok(shard) => {
                print(folder, &shard, out)?;
                exit = exit.and(Exit::well_if(!shard.is_damaged()));
            }
            Err(error) => {
                let line = format!("shard {}: DAMAGED, its folder can't be read: {error}", id.0);
                out.fact(|| json!({"what": "shard", "shard": id.0, "why": line}), || line.clone())?;
                exit = Exit::Damaged;
            }
        }
        out.flush()?;
    }
    dedup::verify(folder, out)?;
    let verdict = match exit {
        Exit::Well => "every checksum fits",
        Exit::Damaged => "something is DAMAGED; nothing was changed",
    };
    out.text(&format!("{verdict}: {} read", size(progress.done)))?;
    out.flush()?;
    Ok(exit)
}

fn print(folder: &Folder, shard: &Shard, out: &mut Out) -> io::Result<()> {
    let sum =
        |pick: fn(&crate::shard::Segment) -> u64| -> u64 { shard.segments.iter().map(pick).sum() };
    let (records, marks) = (sum(|segment| segment.records), sum(|segment| segment.marks));
    let (state, segments) = (state(folder, shard), shard.segments.len());
    out.fact(
        || {
            json!({"what": "verified", "shard": shard.id.0, "state": state,
                   "records": records.to_string(), "marks": marks.to_string(),
                   "segments": segments, "problems": shard.problems.len()})
        },
        || {
            let id = shard.id.0;
            format!(
                "shard {id}: {state}; {records} records and {marks} marks in {segments} segments"
            )
        },
    )?;
    checkpoints::print(shard.id, &shard.checkpoints, out)?;
    for problem in &shard.problems {
        let line = || format!("  {}", problem_line(shard, problem));
        out.fact(|| problem_json(shard, problem), line)?;
    }
    Ok(())
}

/// A line that is written over, where a person watches.
struct Progress {
    all: u64,
    done: u64,
    shown: bool,
}

impl Progress {
    fn new(folder: &Folder) -> Self {
        let shards = folder.shard_ids().filter_map(|id| folder.segments(id).ok());
        let files = shards.flat_map(|(segments, _)| segments);
        let bytes = |path: std::path::PathBuf| path.metadata().map_or(0, |meta| meta.len());
        let all = files.map(|(_, path)| bytes(path)).sum();
        Self { all, done: 0, shown: io::stderr().is_terminal() }
    }

    fn add(&mut self, bytes: u64) {
        self.done += bytes;
        if self.shown {
            let percent = self.done * 100 / self.all.max(1);
            eprint!("\r{percent:>3} % of {} read ", size(self.all));
        }
    }

    fn clear(&self) {
        if self.shown {
            eprint!("\r{:40}\r", "");
            let _ = io::stderr().flush();
        }
    }
}
