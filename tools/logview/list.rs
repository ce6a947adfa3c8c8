//! `logview list`: the folder, its shards and their segments.

use std::io;

use serde_json::json;
use tern_storage::Durability;

use crate::checkpoints;
use crate::cli::Exit;
use crate::folder::Folder;
use crate::output::{Out, columns, hex, size, time};
use crate::shard::{Segment, Shard};
use crate::show::{problem_json, problem_line};

pub(crate) fn run(folder: &Folder, out: &mut Out) -> io::Result<Exit> {
    let mut exit = print_folder(folder, out)?;
    for id in folder.shard_ids() {
        let shard = match Shard::read(folder, id, |_| {}) {
            Ok(shard) => shard,
            Err(error) => {
                let why = format!("its folder can't be read: {error}");
                let line = format!("\nshard {}: DAMAGED, {why}", id.0);
                out.fact(|| json!({"what": "shard", "shard": id.0, "why": why}), || line)?;
                exit = Exit::Damaged;
                continue;
            }
        };
        print_shard(folder, &shard, out)?;
        exit = exit.and(Exit::well_if(!shard.is_damaged()));
    }
    out.flush()?;
    Ok(exit)
}

/// What is said of the folder before anything else.
pub(crate) fn print_folder(folder: &Folder, out: &mut Out) -> io::Result<Exit> {
    let path = folder.path.display().to_string();
    let owner = folder.owner.map_or("no server has it".into(), |pid| {
        format!("the server with process id {pid} has it, so figures may be a moment old")
    });
    match &folder.facts {
        Ok(facts) => out.fact(
            || {
                json!({"what": "folder", "path": path, "id": hex(&facts.id),
                       "shards": facts.shards, "created_ms": facts.created_ms.to_string(),
                       "owner": folder.owner})
            },
            || {
                let (id, made) = (hex(&facts.id), time(facts.created_ms));
                format!("{path}: id {id}, {} shards, made {made} UTC; {owner}", facts.shards)
            },
        )?,
        Err(why) => out.fact(
            || {
                json!({"what": "folder", "path": path, "why": why, "owner": folder.owner,
                       "shards": folder.shards})
            },
            || {
                format!(
                    "{path}: DAMAGED, {why}; going by its {} shard folders; {owner}",
                    folder.shards
                )
            },
        )?,
    }
    Ok(Exit::well_if(folder.facts.is_ok()))
}

fn print_shard(folder: &Folder, shard: &Shard, out: &mut Out) -> io::Result<()> {
    let records: u64 = shard.segments.iter().map(|segment| segment.records).sum();
    let state = state(folder, shard);
    out.fact(
        || {
            json!({"what": "shard", "shard": shard.id.0, "state": state,
                   "records": records.to_string(), "end": shard.end.to_string(),
                   "proven": shard.proven.to_string(), "segments": shard.segments.len(),
                   "unfinished": shard.unfinished})
        },
        || {
            let (id, end, proven) = (shard.id.0, shard.end, shard.proven);
            format!("\nshard {id}: {state}; {records} records, end {end}, proven {proven}")
        },
    )?;
    if out.is_json() {
        for segment in &shard.segments {
            out.fact(|| segment_json(shard, segment), String::new)?;
        }
    } else if !shard.segments.is_empty() {
        out.text(&columns(&table(shard)))?;
    }
    checkpoints::print(shard.id, &shard.checkpoints, out)?;
    for problem in &shard.problems {
        out.fact(|| problem_json(shard, problem), || problem_line(shard, problem))?;
    }
    Ok(())
}

/// In what state a shard's log is, in a word or two.
pub(crate) fn state(folder: &Folder, shard: &Shard) -> &'static str {
    match (shard.is_damaged(), shard.dead_from.is_some()) {
        (true, _) => "DAMAGED",
        (false, true) => "torn end",
        (false, false) if folder.owner.is_some() => "live",
        (false, false) if shard.clean => "closed in order",
        (false, false) if shard.end == 0 => "never used",
        (false, false) => "not closed",
    }
}

fn table(shard: &Shard) -> Vec<Vec<String>> {
    let head = [
        "segment",
        "state",
        "base",
        "capacity",
        "used",
        "spare",
        "records",
        "marks",
        "inc",
        "cut",
        "durability",
        "made (UTC)",
    ];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for segment in &shard.segments {
        let header = segment.file.decoder.map(|decoder| decoder.header);
        let of = |pick: fn(tern_storage::inspect::SegmentHeader) -> String| {
            header.map_or_else(|| "?".to_owned(), pick)
        };
        rows.push(vec![
            segment.file.number.to_string(),
            segment.state.name().to_owned(),
            of(|header| header.base.to_string()),
            of(|header| size(header.capacity)),
            size(segment.used),
            size(segment.spare()),
            segment.records.to_string(),
            segment.marks.to_string(),
            of(|header| header.incarnation.to_string()),
            of(|header| if header.cut == 0 { "-".into() } else { header.cut.to_string() }),
            of(|header| durability(header.durability).to_owned()),
            of(|header| time(header.created_ms)),
        ]);
    }
    rows
}

fn segment_json(shard: &Shard, segment: &Segment) -> serde_json::Value {
    let mut object = json!({
        "what": "segment", "shard": shard.id.0, "segment": segment.file.number.to_string(),
        "state": segment.state.name(), "path": segment.file.path.display().to_string(),
        "file_bytes": segment.file.bytes.to_string(), "used": segment.used.to_string(),
        "spare": segment.spare().to_string(), "records": segment.records.to_string(),
        "marks": segment.marks.to_string(),
    });
    if let Some(header) = segment.file.decoder.map(|decoder| decoder.header) {
        object["base"] = header.base.to_string().into();
        object["capacity"] = header.capacity.to_string().into();
        object["incarnation"] = header.incarnation.0.into();
        object["cut"] = header.cut.to_string().into();
        object["durability"] = durability(header.durability).into();
        object["created_ms"] = header.created_ms.to_string().into();
        object["folder"] = hex(&header.folder).into();
        object["boot"] = hex(&header.boot).into();
        object["opening"] = hex(&header.opening).into();
        object["confirmed_ms"] = header.confirmed_ms.to_string().into();
    }
    object
}

fn durability(durability: Durability) -> &'static str {
    match durability {
        Durability::Disk => "disk",
        Durability::Process => "process",
    }
}
