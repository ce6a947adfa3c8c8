//! `tern recv`: prints what comes for a device, one line a message, and remembers only what it
//! has printed.
//!
//! The window: what is there, at most [`BATCH_EVENTS_MAX`] events, is printed and flushed, then its
//! cursors are stored, and only then more is printed. Killed in between, the next start prints
//! that batch once more, which is one message where they come one by one; killed at any other
//! moment, each message is printed once. Channel and `id` tell a repeat from a new one.

use std::pin::pin;

use tern_client::machine::{Event, Message};
use tern_client::marks::Receipt;
use tern_protocol::frames::content_type;
use tokio::time::Instant;

use super::Exit;
use super::chat::session::{self, Session, SessionArgs};
use super::chat::spoken;
use super::group::change_json;

/// Events that are printed before their cursors are stored: the most that a killed `tern recv`
/// prints again. A disk that takes 2 ms to store them still lets 30,000 messages a second through.
const BATCH_EVENTS_MAX: usize = 64;

/// The command line of `tern recv`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    session: SessionArgs,
    /// End after this many messages
    #[arg(long, value_name = "MESSAGES")]
    count: Option<u64>,
    /// End after this time, such as 30s; too early for --count is exit code 4
    #[arg(long, value_name = "TIME", value_parser = session::parse_time)]
    timeout: Option<std::time::Duration>,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
    /// Also print what others have got and read, and what the user has read on his devices
    #[arg(long)]
    marks: bool,
}

/// Prints `channel id sender device key server-time text` for each message. Runs until the count,
/// the time, or a signal.
pub(crate) fn run(args: Args) -> Exit {
    session::run(async move {
        let mut session = args.session.open()?;
        let done = receive(&mut session, &args).await;
        // What was printed is remembered, whatever ended it.
        session.client.close().await;
        done
    })
}

async fn receive(session: &mut Session, args: &Args) -> Result<Exit, Exit> {
    let end = args.timeout.map(|timeout| Instant::now() + timeout);
    let mut asked_to_end = pin!(session::asked_to_end());
    let mut printed = 0;
    while args.count.is_none_or(|count| printed < count) {
        let missing = args.count.map_or(u64::MAX, |count| count - printed);
        let most = usize::try_from(missing).unwrap_or(usize::MAX).min(BATCH_EVENTS_MAX);
        let events = tokio::select! {
            events = session.events.next_many(most) => events,
            () = session::time_is_over(end) => return Ok(out_of_time(args, printed)),
            () = &mut asked_to_end => return Ok(Exit::Ok),
        };
        if events.is_empty() {
            return Ok(Exit::Failed);
        }
        printed += show(session, args, &events).await?;
    }
    Ok(Exit::Ok)
}

/// Prints a batch, and has it remembered before the next. Tells how many messages it held.
async fn show(session: &mut Session, args: &Args, events: &[Event]) -> Result<u64, Exit> {
    let text: String = events.iter().filter_map(|event| shown(event, args)).collect();
    if !text.is_empty() {
        session::print(text).await?;
    }
    for event in events {
        session.client.confirm(event);
    }
    for event in events {
        session.tell(event)?;
    }
    let messages = events.iter().filter(|event| matches!(event, Event::Message(_))).count();
    if messages > 0 {
        session.remember().await?;
    }
    Ok(messages as u64)
}

/// What is printed of an event, if anything.
fn shown(event: &Event, args: &Args) -> Option<String> {
    match event {
        Event::Message(message) if args.json => Some(json(message)),
        Event::Message(message) => Some(line(message)),
        event if args.marks => mark(event, args.json),
        _ => None,
    }
}

fn out_of_time(args: &Args, printed: u64) -> Exit {
    match args.count {
        None => Exit::Ok,
        Some(count) => {
            session::note(&format!("{printed} of {count} messages came in time"));
            Exit::Timeout
        }
    }
}

/// How far somebody has got, if the event tells that.
fn mark(event: &Event, json: bool) -> Option<String> {
    Some(match event {
        Event::Read(at) if json => {
            let (channel, id) = (at.channel.to_string(), at.id.to_string());
            format!("{}\n", serde_json::json!({ "read": { "channel": channel, "id": id } }))
        }
        Event::Read(at) => format!("read {} {}\n", at.channel, at.id),
        Event::Receipt(receipt) if json => {
            let object = serde_json::json!({ "receipt": {
                "channel": receipt.channel.to_string(),
                "uin": receipt.uin.to_string(),
                "delivered": receipt.delivered.to_string(),
                "read": receipt.read.to_string(),
            } });
            format!("{object}\n")
        }
        Event::Receipt(Receipt { channel, uin, delivered, read }) => {
            format!("receipt {channel} {uin} {delivered} {read}\n")
        }
        _ => return None,
    })
}

pub(super) fn line(message: &Message) -> String {
    let Message { position, sender, device, key, server_time, .. } = message;
    let text = spoken(message);
    format!("{} {} {sender} {device} {key} {server_time} {text}\n", position.channel, position.id)
}

/// Numbers of 64 bits are strings: many readers of JSON round them.
pub(super) fn json(message: &Message) -> String {
    let Message { position, sender, device, key, server_time, content, .. } = message;
    let mut object = serde_json::json!({
        "channel": position.channel.to_string(),
        "id": position.id.to_string(),
        "sender": sender.to_string(),
        "device": device.0,
        "key": key.to_string(),
        "server_time_ms": server_time.to_string(),
        "content_type": message.content_type,
    });
    if let Some(change) = message.change() {
        object["change"] = change_json(&change);
        return format!("{object}\n");
    }
    if let Some(id) = message.recalls() {
        object["recalls"] = id.to_string().into();
        return format!("{object}\n");
    }
    if let Some(id) = message.edits() {
        object["edits"] = id.to_string().into();
    }
    let text = std::str::from_utf8(content).ok();
    match text.filter(|_| message.content_type == content_type::TEXT) {
        Some(text) => object["text"] = text.into(),
        None => object["content_hex"] = tern_client::hex::encode(content).into(),
    }
    format!("{object}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    use tern_client::machine::Position;
    use tern_protocol::frames::message_kind;
    use tern_protocol::{
        ChannelId, DeviceId, Epoch, Incarnation, MessageId, SendCounter, SendKey, Uin, UnixMillis,
    };

    fn message(content: &'static [u8]) -> Message {
        let channel = ChannelId::direct(Uin(10_001), Uin(10_002));
        Message {
            position: Position { channel, id: MessageId(7), incarnation: Incarnation(1) },
            sender: Uin(10_002),
            device: DeviceId(3),
            key: SendKey { epoch: Epoch(4), counter: SendCounter(5) },
            server_time: UnixMillis(u64::MAX),
            kind: 1,
            content_type: content_type::TEXT,
            refers_to: MessageId(0),
            content: bytes::Bytes::from_static(content),
        }
    }

    #[test]
    fn a_message_is_one_line() {
        assert_eq!(
            line(&message(b"two\nlines")),
            "10001-10002 7 10002 3 4.5 18446744073709551615 two\\nlines\n"
        );
    }

    #[test]
    fn what_is_taken_back_or_said_otherwise_names_its_message() {
        let of = |kind, content| {
            let refers_to = MessageId(5);
            Message { kind, refers_to, ..message(content) }
        };
        let (recall, edit) = (of(message_kind::RECALL, b""), of(message_kind::EDIT, b"new"));
        assert!(line(&recall).ends_with(" * recalled 5\n"), "{}", line(&recall));
        assert!(line(&edit).ends_with(" * edited 5: new\n"), "{}", line(&edit));
        let object: serde_json::Value = serde_json::from_str(&json(&recall)).unwrap();
        assert_eq!((&object["recalls"], object.get("text")), (&"5".into(), None));
        let object: serde_json::Value = serde_json::from_str(&json(&edit)).unwrap();
        assert_eq!((&object["edits"], &object["text"]), (&"5".into(), &"new".into()));
    }

    #[test]
    fn json_keeps_every_byte() {
        let object: serde_json::Value = serde_json::from_str(&json(&message(b"a\nb"))).unwrap();
        assert_eq!(object["text"], "a\nb");
        assert_eq!(object["id"], "7");
        assert_eq!(object["server_time_ms"], "18446744073709551615");
        let object: serde_json::Value = serde_json::from_str(&json(&message(b"\xff"))).unwrap();
        assert_eq!(object["content_hex"], "ff");
        assert!(object.get("text").is_none());
    }
}
