//! `tern tokens`: the keys by which tokens of the operator's own system are checked, and what the
//! server makes of a token.

use std::io::Read;

use clap::Subcommand;

use super::folder::strange;
use super::{Exit, FolderArgs, fail, print};
use crate::control::protocol::{Reply, Request, TokenText};

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
    /// Say whose token stands on standard input, or why the server does not take it
    Check {
        /// As JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        folder: FolderArgs,
    },
}

/// Most bytes that are read of standard input: a token that is too long is the server's to refuse.
const INPUT_BYTES_MAX: u64 = 16 << 10;

pub(super) fn run(args: &Args) -> Exit {
    match &args.command {
        Command::Reload { json, folder } => reload(*json, folder),
        Command::Check { json, folder } => check(*json, folder),
    }
}

fn reload(json: bool, folder: &FolderArgs) -> Exit {
    match folder.ask_server(&Request::ReloadTokens) {
        Ok(Reply::Keys(keys)) if json => print(&format!("{{\"keys\":{keys}}}\n")),
        Ok(Reply::Keys(1)) => print("the server has 1 key for tokens\n"),
        Ok(Reply::Keys(keys)) => print(&format!("the server has {keys} keys for tokens\n")),
        Ok(other) => strange(&other),
        Err(exit) => exit,
    }
}

/// The token is read from standard input, since others may read a command line.
fn check(json: bool, folder: &FolderArgs) -> Exit {
    let mut token = String::new();
    if let Err(error) = std::io::stdin().take(INPUT_BYTES_MAX).read_to_string(&mut token) {
        return fail(Exit::Failed, format!("the token can't be read: {error}"));
    }
    match folder.ask_server(&Request::CheckToken(TokenText(token.trim().to_owned()))) {
        Ok(Reply::Bearer(user, device)) if json => {
            print(&format!("{}\n", serde_json::json!({ "user": user, "device": device })))
        }
        Ok(Reply::Bearer(user, device)) => print(&format!(
            "the token is good, and stands for the device \"{device}\" of the user \"{user}\"\n"
        )),
        Ok(other) => strange(&other),
        Err(exit) => exit,
    }
}
