//! `tern read` and `tern unread`: marks what a device has as read, and counts what is unread.

use std::time::Duration;

use tern_client::marks::Unread;
use tern_client::{Client, GroupError};
use tern_protocol::{ChannelId, MessageId};

use super::chat::session::{self, SessionArgs};
use super::{Exit, fail, print};

/// The command line of `tern read`.
#[derive(Debug, clap::Args)]
pub(super) struct ReadArgs {
    #[command(flatten)]
    session: SessionArgs,
    /// What was read: a user's name or uin, or a group as g and its number
    #[arg(long, value_name = "NAME|UIN|GROUP")]
    to: String,
    /// The last message that was read [default: the newest that this device has]
    #[arg(long, value_name = "ID")]
    id: Option<u64>,
    /// Print the answer as JSON
    #[arg(long)]
    json: bool,
    /// Give up waiting after this time, such as 30s; the mark is kept and said at the next start
    #[arg(long, value_name = "TIME", value_parser = session::parse_time)]
    timeout: Option<Duration>,
}

/// The command line of `tern unread`.
#[derive(Debug, clap::Args)]
pub(super) struct UnreadArgs {
    #[command(flatten)]
    session: SessionArgs,
    /// Also channels in which nothing is unread
    #[arg(long)]
    all: bool,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
    /// Give up waiting after this time, such as 30s
    #[arg(long, value_name = "TIME", value_parser = session::parse_time)]
    timeout: Option<Duration>,
}

/// Marks, and prints the channel, up to which message it is read, and how much is unread.
pub(super) fn read(args: ReadArgs) -> Exit {
    session::run(async move {
        let mut session = args.session.open()?;
        let channel = args.session.channel(session.profile.uin(), &args.to)?;
        let client = session.client.clone();
        client.mark_read(channel, MessageId(args.id.unwrap_or(u64::MAX)));
        let answer = session.during(told(client, channel), args.timeout).await;
        session.client.close().await;
        let counts = answer?.map_err(refused)?;
        Ok(show(counts.iter(), args.json))
    })
}

/// The count behind the mark, when the server has taken the mark. What a device says it says in
/// order: the answer to the second question means that the mark, said behind the first, was there.
async fn told(client: Client, channel: ChannelId) -> Result<Vec<Unread>, GroupError> {
    client.unread(&[channel]).await?;
    client.unread(&[channel]).await
}

/// Prints each channel with the user's mark in it, and how much is unread behind it.
pub(super) fn unread(args: UnreadArgs) -> Exit {
    session::run(async move {
        let mut session = args.session.open()?;
        let client = session.client.clone();
        let answer = session.during(async move { client.unread_all().await }, args.timeout).await;
        session.client.close().await;
        let counts = answer?.map_err(refused)?;
        Ok(show(counts.iter().filter(|count| args.all || count.count > 0), args.json))
    })
}

fn refused(error: GroupError) -> Exit {
    fail(Exit::Refused, error)
}

fn show<'a>(counts: impl Iterator<Item = &'a Unread>, json: bool) -> Exit {
    print(&counts.map(if json { count_json } else { count_line }).collect::<String>())
}

fn count_line(count: &Unread) -> String {
    let more = if count.more { "+" } else { "" };
    format!("{} {} {}{more}\n", count.channel, count.after, count.count)
}

/// Numbers of 64 bits are strings: many readers of JSON round them.
fn count_json(count: &Unread) -> String {
    let object = serde_json::json!({
        "channel": count.channel.to_string(),
        "read": count.after.to_string(),
        "newest": count.newest.to_string(),
        "unread": count.count,
        "more": count.more,
    });
    format!("{object}\n")
}
