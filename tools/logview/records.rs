//! `logview records`: what stands in one shard's log.

use std::io;
use std::ops::ControlFlow;

use clap::Args;
use serde_json::{Value, json};
use tern_core::placement::ShardId;

use crate::cli::Exit;
use crate::folder::Folder;
use crate::output::Out;
use crate::shard::{ProblemKind, Shard};
use crate::show::{kind_name, problem_json, problem_line, record_json, record_line};
use crate::walk::Piece;

/// Which records.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct Range {
    /// The shard
    #[arg(long, value_name = "N")]
    shard: u16,
    /// First offset
    #[arg(long, default_value_t = 0, value_name = "OFFSET")]
    from: u64,
    /// Records and marks at most
    #[arg(long, default_value_t = u64::MAX, hide_default_value = true, value_name = "N")]
    limit: u64,
}

pub(crate) fn run(folder: &Folder, range: &Range, out: &mut Out) -> io::Result<Exit> {
    if range.shard >= folder.shards {
        let what = format!("there is no shard {}: there are {}", range.shard, folder.shards);
        return Err(io::Error::other(what));
    }
    let shard = Shard::read(folder, ShardId(range.shard), |_| {})?;
    let mut left = range.limit;
    shard.visit(|_, piece| {
        let at = match &piece {
            Piece::Record { at, .. } | Piece::Mark { at, .. } => *at,
            Piece::Gap(gap) => gap.at,
        };
        if left == 0 {
            return Ok(ControlFlow::Break(()));
        }
        if at >= range.from {
            left -= 1;
            print(&shard, &piece, out)?;
        }
        io::Result::Ok(ControlFlow::Continue(()))
    })?;
    // Gaps stood in their places; these have none.
    for problem in &shard.problems {
        let placed = match &problem.kind {
            ProblemKind::Damage(gap) | ProblemKind::Torn(gap) => gap.to.is_some(),
            ProblemKind::File(_) => false,
        };
        if !placed {
            out.fact(|| problem_json(&shard, problem), || problem_line(&shard, problem))?;
        }
    }
    out.flush()?;
    Ok(Exit::well_if(!shard.is_damaged()))
}

fn print(shard: &Shard, piece: &Piece<'_>, out: &mut Out) -> io::Result<()> {
    match piece {
        Piece::Record { at, bytes, record } => {
            let dead = if shard.is_dead(*at) { "  DEAD" } else { "" };
            out.fact(
                || record_facts(shard, *at, *bytes, kind_name(record.kind), record_json(record)),
                || {
                    format!(
                        "{at:>12} {bytes:>6}  {:<8}{}{dead}",
                        kind_name(record.kind),
                        record_line(record)
                    )
                },
            )
        }
        Piece::Mark { at, bytes, mark } => {
            let says = json!({"proven": mark.proven.to_string(), "closed": mark.clean});
            out.fact(
                || record_facts(shard, *at, *bytes, "mark", says),
                || {
                    let closed = if mark.clean { ", closed in order" } else { "" };
                    format!(
                        "{at:>12} {bytes:>6}  mark    proven before it: {}{closed}",
                        mark.proven
                    )
                },
            )
        }
        Piece::Gap(gap) => {
            let of_gap = |kind: &ProblemKind| match kind {
                ProblemKind::Damage(other) | ProblemKind::Torn(other) => other.at == gap.at,
                ProblemKind::File(_) => false,
            };
            let problem = shard.problems.iter().find(|problem| of_gap(&problem.kind));
            let Some(problem) = problem else { return Ok(()) }; // mended by the live server
            out.fact(|| problem_json(shard, problem), || problem_line(shard, problem))
        }
    }
}

fn record_facts(shard: &Shard, at: u64, bytes: usize, kind: &str, says: Value) -> Value {
    json!({
        "what": kind, "shard": shard.id.0, "at": at.to_string(), "bytes": bytes,
        "dead": shard.is_dead(at), "says": says,
    })
}
