//! `tern stop`: the server goes down in order.

use super::folder::strange;
use super::{Exit, FolderArgs, print};
use crate::control::protocol::{Reply, Request};

/// The command line of `tern stop`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    folder: FolderArgs,
}

pub(super) fn run(args: &Args) -> Exit {
    match args.folder.ask_server(&Request::Stop) {
        Ok(Reply::Stopping) => print("the server goes down; its sessions are told to come back\n"),
        Ok(other) => strange(&other),
        Err(exit) => exit,
    }
}
