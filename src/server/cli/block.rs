//! `tern block`, `tern unblock` and `tern blocked`: whom a user takes no messages from.

use std::time::Duration;

use tern_client::BlockError;
use tern_protocol::Uin;

use super::chat::session::{self, SessionArgs};
use super::{Exit, fail, print};

/// What the three commands have in common.
#[derive(Debug, clap::Args)]
pub(super) struct ListArgs {
    #[command(flatten)]
    session: SessionArgs,
    /// Give up waiting after this time, such as 30s
    #[arg(long, value_name = "TIME", value_parser = session::parse_time)]
    timeout: Option<Duration>,
    /// Print the answer as JSON
    #[arg(long)]
    json: bool,
}

/// The command line of `tern block` and `tern unblock`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    args: ListArgs,
    /// Whom: a name or uin
    #[arg(value_name = "NAME|UIN")]
    user: String,
}

/// Begins a block, or ends it.
pub(super) fn run(Args { args, user }: Args, begins: bool) -> Exit {
    session::run(async move {
        let mut session = args.session.open()?;
        let (uin, client) = (args.session.user(&user)?, session.client.clone());
        let asked =
            async move { if begins { client.block(uin).await } else { client.unblock(uin).await } };
        let done = session.during(asked, args.timeout).await;
        session.client.close().await;
        done?.map_err(exit)?;
        let what = if begins { "blocked" } else { "unblocked" };
        Ok(print(&match args.json {
            true => format!("{}\n", serde_json::json!({ what: uin.to_string() })),
            false => format!("{what} {uin}\n"),
        }))
    })
}

/// Lists whom the user has blocked: a uin a line.
pub(super) fn run_list(args: ListArgs) -> Exit {
    session::run(async move {
        let mut session = args.session.open()?;
        let client = session.client.clone();
        let uins = session.during(async move { client.blocked().await }, args.timeout).await;
        session.client.close().await;
        let uins = uins?.map_err(exit)?;
        let texts: Vec<String> = uins.iter().map(Uin::to_string).collect();
        Ok(print(&match args.json {
            true => format!("{}\n", serde_json::json!({ "blocked": texts })),
            false => texts.iter().map(|uin| format!("{uin}\n")).collect(),
        }))
    })
}

fn exit(error: BlockError) -> Exit {
    let exit = match error {
        BlockError::Refused(_) => Exit::Refused,
        BlockError::Closed => Exit::Failed,
    };
    fail(exit, error)
}
