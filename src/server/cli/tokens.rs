//! `tern tokens`: the keys by which tokens of the operator's own system are checked.

use clap::Subcommand;

use super::folder::strange;
use super::{Exit, FolderArgs, print};
use crate::control::protocol::{Reply, Request};

/// The command line of `tern tokens`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Have the server read its keys again, at once; it also does so when the file changes
    Reload {
        /// As JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        folder: FolderArgs,
    },
}

pub(super) fn run(args: &Args) -> Exit {
    let Command::Reload { json, folder } = &args.command;
    match folder.ask_server(&Request::ReloadTokens) {
        Ok(Reply::Keys(keys)) if *json => print(&format!("{{\"keys\":{keys}}}\n")),
        Ok(Reply::Keys(1)) => print("the server has 1 key for tokens\n"),
        Ok(Reply::Keys(keys)) => print(&format!("the server has {keys} keys for tokens\n")),
        Ok(other) => strange(&other),
        Err(exit) => exit,
    }
}
