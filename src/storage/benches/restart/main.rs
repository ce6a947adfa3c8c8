//! How long a restart takes, and what a shard's state weighs at rest.
//!
//! Fills the logs of some shards through the library, with checkpoints as a server makes them, lets
//! the checkpoints catch up, then opens them again: as after `kill -9`, as after a reboot (no table
//! in shared memory, no file in the page cache), and once more without any checkpoint. Before that it restores states
//! of one kind of row each and asks the kernel how much memory they took.
#![allow(clippy::print_stdout, clippy::print_stderr)] // it speaks to people

mod fill;
mod open;
mod state;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use tern_storage::SHARDS_DEFAULT;

/// What is filled in.
pub(crate) struct Size {
    pub(crate) records: u64,
    /// Bytes of content of a message; 64 of fixed part and 40 of header come with it.
    pub(crate) content: usize,
    pub(crate) users: u64,
    /// Logs; each is read by one thread.
    pub(crate) shards: u16,
    /// Threads that read them.
    pub(crate) threads: u16,
}

const HELP: &str = "\
cargo bench -p tern-storage --bench restart -- [--records N] [--content BYTES] [--users N]
    [--shards N]  logs that the records are spread over [4, as in a new folder]
    [--threads N] threads that read them [2]
    [--dir DIR]   a folder for about N * (BYTES + 104) bytes, made and removed [the build folder]";

fn main() -> ExitCode {
    match read(std::env::args().skip(1)) {
        Ok(Some((size, dir))) => match run(&size, &dir) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(&error),
        },
        Ok(None) => {
            println!("{HELP}");
            ExitCode::SUCCESS
        }
        Err(error) => fail(&format!("{error}\n\n{HELP}")),
    }
}

fn fail(error: &str) -> ExitCode {
    eprintln!("{error}");
    ExitCode::FAILURE
}

fn read(mut args: impl Iterator<Item = String>) -> Result<Option<(Size, PathBuf)>, String> {
    let mut size =
        Size { records: 200_000, content: 200, users: 20_000, shards: SHARDS_DEFAULT, threads: 2 };
    let mut dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    while let Some(arg) = args.next() {
        let mut number = || {
            let text = args.next().ok_or_else(|| format!("{arg} needs a value"))?;
            text.parse::<u64>().map_err(|_| format!("{arg} {text}: not a whole number"))
        };
        match arg.as_str() {
            "--bench" => {} // cargo's own
            "--records" => size.records = number()?,
            "--content" => size.content = number()? as usize,
            "--users" => size.users = number()?.max(2),
            "--shards" => size.shards = number()?.clamp(1, 256) as u16, // fits: a format's bound
            "--threads" => size.threads = number()?.clamp(1, 256) as u16, // fits: one a shard
            "--dir" => dir = args.next().ok_or("--dir needs a value")?.into(),
            "--help" | "-h" => return Ok(None),
            _ => return Err(format!("there is no {arg}")),
        }
    }
    Ok(Some((size, dir)))
}

fn run(size: &Size, dir: &Path) -> Result<(), String> {
    state::weigh();
    let data = dir.join(format!("tern-restart-{}", std::process::id()));
    let result = measure(size, &data);
    std::fs::remove_dir_all(&data).map_err(|error| format!("{}: {error}", data.display()))?;
    result
}

fn measure(size: &Size, data: &Path) -> Result<(), String> {
    let Size { records, content, users, shards, threads } = size;
    println!(
        "{records} records of {content} bytes of content, {users} users, {shards} shards read by \
         {threads} threads"
    );
    fill::fill(size, data)?;
    open::open(size, data, "after kill -9, table and page cache there")?;
    open::forget_tables(data)?;
    open::forget_pages(data)?;
    open::open(size, data, "after a reboot, nothing in memory")?;
    open::forget_tables(data)?;
    open::open(size, data, "table lost, page cache there")?;
    open::forget_tables(data)?;
    open::forget_checkpoints(data)?;
    open::open(size, data, "table lost, no checkpoint: all is replayed")
}
