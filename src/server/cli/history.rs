//! `tern history`: looks back in a channel, from the server, and consumes nothing.
//!
//! Messages are printed in their order, as `tern recv` prints them; between them stand ids that
//! can't be read, as `CHANNEL FROM-TO CODE`, and before the first one, where retention has cut the
//! history, `CHANNEL TRUNCATED OLDEST`.

use std::time::Duration;

use tern_client::history::{HistoryItem, HistoryPage};
use tern_protocol::{Code, MessageId};

use super::chat::session::{self, SessionArgs};
use super::{Exit, fail, print, recv};

/// Messages that are shown by default: a screenful.
const LIMIT: u64 = 20;

/// The command line of `tern history`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    session: SessionArgs,
    /// Where to look: a user's name or uin, or a group as g and its number
    #[arg(value_name = "NAME|UIN|GROUP")]
    channel: String,
    /// Only messages before this one [default: the newest]
    #[arg(long, value_name = "ID")]
    before: Option<u64>,
    /// How many ids at most
    #[arg(long, value_name = "IDS", default_value_t = LIMIT)]
    limit: u64,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
    /// Give up waiting after this time, such as 30s
    #[arg(long, value_name = "TIME", value_parser = session::parse_time)]
    timeout: Option<Duration>,
}

/// Prints the messages, and what is missing of them.
pub(super) fn run(args: Args) -> Exit {
    session::run(async move {
        let mut session = args.session.open()?;
        let channel = args.session.channel(session.profile.uin(), &args.channel)?;
        let client = session.client.clone();
        let before = args.before.map(MessageId);
        let asked = async move { client.history(channel, before, args.limit).await };
        let answer = session.during(asked, args.timeout).await;
        session.client.close().await;
        let page = answer?.map_err(|error| fail(Exit::Refused, error))?;
        Ok(print(&text(&page, args.json)))
    })
}

fn text(page: &HistoryPage, json: bool) -> String {
    let head = page.cut.filter(|_| page.is_last).map(|code| cut(page, code, json));
    let items = page.items.iter().map(|item| match item {
        HistoryItem::Message(message) if json => recv::json(message),
        HistoryItem::Message(message) => recv::line(message),
        HistoryItem::Gap { from, to, code } => gap(page, (*from, *to), *code, json),
    });
    head.into_iter().chain(items).collect()
}

/// What lies before the oldest message: cut off by retention, or not for this user.
fn cut(page: &HistoryPage, code: Code, json: bool) -> String {
    let (channel, oldest) = (page.channel, page.oldest);
    let word = if code == Code::Expired { "TRUNCATED".to_owned() } else { code.to_string() };
    if !json {
        return format!("{channel} {word} {oldest}\n");
    }
    let object = serde_json::json!({ "cut": {
        "channel": channel.to_string(), "oldest": oldest.to_string(), "why": word,
    } });
    format!("{object}\n")
}

fn gap(page: &HistoryPage, (from, to): (MessageId, MessageId), code: Code, json: bool) -> String {
    let channel = page.channel;
    if !json {
        return format!("{channel} {from}-{to} {code}\n");
    }
    let object = serde_json::json!({ "gap": {
        "channel": channel.to_string(), "from": from.to_string(), "to": to.to_string(),
        "why": code.to_string(),
    } });
    format!("{object}\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use tern_protocol::{ChannelId, Incarnation};

    #[test]
    fn what_is_missing_is_said() {
        let (from, to) = (MessageId(7), MessageId(9));
        let page = HistoryPage {
            channel: ChannelId::group(17),
            incarnation: Incarnation(1),
            items: vec![HistoryItem::Gap { from, to, code: Code::Lost }],
            from,
            oldest: from,
            newest: to,
            is_last: true,
            cut: Some(Code::Expired),
        };
        assert_eq!(text(&page, false), "g17 TRUNCATED 7\ng17 7-9 LOST\n");
        let json = text(&page, true);
        let mut lines = json
            .lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).expect("an object a line"));
        assert_eq!(lines.next().expect("two lines")["cut"]["oldest"], "7");
        assert_eq!(lines.next().expect("two lines")["gap"]["why"], "LOST");
        let hidden = HistoryPage { cut: Some(Code::NotVisible), ..page };
        assert!(text(&hidden, false).starts_with("g17 NOT_VISIBLE 7\n"));
    }
}
