//! `logview`: looks into a data folder, also into one that a server has open or that is damaged.
//!
//! What comes in is a folder; what goes out is text for people or JSON Lines for programs. It only
//! ever opens files to read them: it takes no lock, writes nothing and repairs nothing. Where
//! bytes can't be read it says where, what they look like, and where good records go on.
//!
//! - `folder`: which shards and segments are there, and whether a server has them;
//! - `segment`: the bytes of one file; `walk`: its records, and the gaps between them;
//! - `shard`: whether a gap is damage or a torn end;
//! - `list`, `records`, `channel`, `verify`, `dedup`: the commands; `show`, `output`: their words.
#![forbid(unsafe_code)]

mod checkpoints;
mod cli;

mod change;
mod channel;
mod dedup;
mod list;
mod records;
mod verify;

mod folder;
mod segment;
mod shard;
mod walk;

mod output;
mod show;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main().into()
}
