//! `logview dedup`: what the deduplication tables say, read beside their owner.

use std::io;
use std::path::PathBuf;

use serde_json::{Value, json};
use tern_core::dedup::DedupEntry;
use tern_core::placement::ShardId;
use tern_protocol::{DeviceId, Uin};
use tern_storage::{TableFacts, TableView, inspect};

use crate::cli::Exit;
use crate::folder::Folder;
use crate::output::Out;

/// A table that could be opened.
struct Table {
    path: PathBuf,
    facts: TableFacts,
    entries: Vec<(Uin, DeviceId, DedupEntry)>,
    /// Entries that were half written, or are damaged.
    torn: usize,
}

impl Table {
    /// The table of a shard, or why there is none to be read.
    fn read(folder: &Folder, shard: ShardId) -> Result<Self, String> {
        let facts = folder.facts.as_ref().map_err(Clone::clone)?;
        let mut why = "there is none; a start makes one from the log".to_owned();
        for path in inspect::table_paths(&folder.path, &folder.memory, &facts.id, shard) {
            match TableView::open(&path) {
                Ok(view) => return Ok(Self::of(path, &view)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => why = format!("can't open {}: {error}", path.display()),
            }
        }
        Err(why)
    }

    fn of(path: PathBuf, view: &TableView) -> Self {
        let (mut entries, mut torn) = (Vec::new(), 0);
        for entry in view.entries() {
            match entry {
                Ok(entry) => entries.push(entry),
                Err(_) => torn += 1,
            }
        }
        entries.sort_unstable_by_key(|(uin, device, _)| (*uin, *device));
        Self { path, facts: view.facts(), entries, torn }
    }

    fn print(&self, shard: ShardId, out: &mut Out) -> io::Result<()> {
        let TableFacts { intact, slots, whole, applied, incarnation, .. } = &self.facts;
        let (path, entries) = (self.path.display().to_string(), self.entries.len());
        out.fact(
            || {
                json!({"what": "table", "shard": shard.0, "path": path, "intact": intact,
                       "whole": whole, "slots": slots, "entries": entries, "torn": self.torn,
                       "incarnation": incarnation.0,
                       "applied": applied.map(|at| at.0.to_string())})
            },
            || {
                let state = match (intact, whole) {
                    (false, _) => "its header is damaged",
                    (true, false) => "growing, some entries may be elsewhere",
                    (true, true) => "whole",
                };
                let torn = match self.torn {
                    0 => String::new(),
                    torn => format!(", {torn} half written or damaged"),
                };
                let applied = applied.map_or("?".to_owned(), |at| at.0.to_string());
                format!(
                    "shard {}: {path}: {state}; {entries} devices in {slots} slots{torn}; knows \
                     the log of incarnation {incarnation} up to {applied}",
                    shard.0
                )
            },
        )
    }
}

pub(crate) fn run(folder: &Folder, uin: Option<Uin>, out: &mut Out) -> io::Result<Exit> {
    for shard in folder.shard_ids() {
        match Table::read(folder, shard) {
            Ok(table) => {
                table.print(shard, out)?;
                let entries = table.entries.iter();
                for entry in entries.filter(|(of, ..)| uin.is_none_or(|uin| uin == *of)) {
                    out.fact(|| entry_json(shard, entry), || entry_line(entry))?;
                }
            }
            Err(why) => print_missing(shard, &why, out)?,
        }
    }
    out.flush()?;
    Ok(Exit::well_if(folder.facts.is_ok()))
}

/// Says how the tables are. A bad one is no damage: the next start makes it anew from the log.
pub(crate) fn verify(folder: &Folder, out: &mut Out) -> io::Result<()> {
    out.text("deduplication tables (a cache: whatever is wrong with one, a start makes it anew)")?;
    for shard in folder.shard_ids() {
        match Table::read(folder, shard) {
            Ok(table) => table.print(shard, out)?,
            Err(why) => print_missing(shard, &why, out)?,
        }
    }
    Ok(())
}

fn print_missing(shard: ShardId, why: &str, out: &mut Out) -> io::Result<()> {
    out.fact(
        || json!({"what": "table", "shard": shard.0, "why": why}),
        || format!("shard {}: {why}", shard.0),
    )
}

fn entry_line((uin, device, entry): &(Uin, DeviceId, DedupEntry)) -> String {
    let DedupEntry { epoch, newest, window, last } = entry;
    format!(
        "  {uin}/{device}  newest key {epoch}.{newest}, window {window:016x}, newest record at {}",
        last.0
    )
}

fn entry_json(shard: ShardId, (uin, device, entry): &(Uin, DeviceId, DedupEntry)) -> Value {
    let DedupEntry { epoch, newest, window, last } = entry;
    json!({
        "what": "entry", "shard": shard.0, "uin": uin.to_string(), "device": device.0,
        "epoch": epoch.0, "newest": newest.0, "window": format!("{window:016x}"),
        "last": last.0.to_string(),
    })
}
