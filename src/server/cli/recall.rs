//! `tern recall` and `tern edit`: take back a message that was sent, or say it otherwise.
//!
//! Both are messages under a send key of this device: what was taken and not answered when the
//! command ended is kept, and sent when the device starts again.

use std::time::Duration;

use tern_client::machine::SendOutcome;
use tern_client::{Client, Closed};
use tern_protocol::frames::content_type;
use tern_protocol::{ChannelId, MessageId};

use super::chat::session::{self, SessionArgs};
use super::{Exit, fail, print};

/// The command line of `tern recall`, and the beginning of that of `tern edit`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    session: SessionArgs,
    /// Where it stands: with a user, by name or uin, or in a group as g and its number
    #[arg(long, value_name = "NAME|UIN|GROUP")]
    to: String,
    /// Give up waiting after this time, such as 30s; what was taken is kept and sent at the next
    /// start
    #[arg(long, value_name = "TIME", value_parser = session::parse_time)]
    timeout: Option<Duration>,
    /// Print the answer as JSON
    #[arg(long)]
    json: bool,
    /// The message, by its id; of an edited one the original's
    #[arg(value_name = "ID", value_parser = clap::value_parser!(u64).range(1..))]
    id: u64,
}

/// The command line of `tern edit`.
#[derive(Debug, clap::Args)]
pub(super) struct EditArgs {
    #[command(flatten)]
    args: Args,
    /// What it says from now on; several words are joined by spaces
    #[arg(required = true)]
    text: Vec<String>,
}

/// Takes a message back.
pub(super) fn run(args: Args) -> Exit {
    session::run(async move {
        let what = async |client: Client, channel, id| client.recall(channel, id).await;
        refer(&args, "recalled", what).await
    })
}

/// Says a message otherwise.
pub(super) fn run_edit(EditArgs { args, text }: EditArgs) -> Exit {
    session::run(async move {
        let text = text.join(" ").into_bytes();
        let what = async |client: Client, channel, id| {
            client.edit(channel, id, content_type::TEXT, text).await
        };
        refer(&args, "edited", what).await
    })
}

async fn refer(
    args: &Args,
    done: &str,
    what: impl AsyncFnOnce(Client, ChannelId, MessageId) -> Result<SendOutcome, Closed>,
) -> Result<Exit, Exit> {
    let mut session = args.session.open()?;
    let channel = args.session.channel(session.profile.uin(), &args.to)?;
    let asked = what(session.client.clone(), channel, MessageId(args.id));
    let outcome = session.during(asked, args.timeout).await;
    session.client.close().await;
    match outcome?.map_err(|closed| fail(Exit::Failed, closed))? {
        SendOutcome::Acked { id, .. } => Ok(print(&text(args, (channel, id), done))),
        SendOutcome::Refused(code) => {
            Err(fail(Exit::Refused, format!("{code}: {}", code.sentence())))
        }
        SendOutcome::Unknown => Err(fail(
            Exit::Failed,
            format!("whether the message was {done} is no longer known; look before you ask again"),
        )),
    }
}

fn text(args: &Args, (channel, by): (ChannelId, MessageId), done: &str) -> String {
    if !args.json {
        return format!("{done} {channel} {}\n", args.id);
    }
    let answer = serde_json::json!({
        "channel": channel.to_string(),
        done: args.id.to_string(),
        "id": by.to_string(),
    });
    format!("{answer}\n")
}
