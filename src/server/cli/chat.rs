//! `tern chat`: two people in two terminals. A line that is typed is sent; `✓ ID` says that the
//! server has it, `✓✓` how far the other side has got. What comes is shown, and only then counts
//! as read.

pub(crate) mod session;

use std::pin::pin;

use tern_client::NotTaken;
use tern_client::machine::{Event, Message, SendOutcome, SendResult};
use tern_client::marks::{Receipt, Unread};
use tern_protocol::frames::content_type;
use tern_protocol::{ChannelId, Uin};

use super::Exit;
use super::group::sentence;
use session::{Session, SessionArgs};

/// The command line of `tern chat`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    session: SessionArgs,
    /// With whom: a user's name or uin, or a group as g and its number
    #[arg(long, value_name = "NAME|UIN|GROUP")]
    to: String,
}

/// Chats until the end of the input or a signal; lines that are not acked by then are waited for,
/// and kept if that is cut short.
pub(crate) fn run(args: Args) -> Exit {
    session::run(async move {
        let mut session = args.session.open()?;
        let done = chat(&mut session, &args).await;
        // What was shown is remembered and what was typed is kept, whatever ended it.
        session.client.close().await;
        done
    })
}

async fn chat(session: &mut Session, args: &Args) -> Result<Exit, Exit> {
    let channel = args.session.channel(session.profile.uin(), &args.to)?;
    let mut lines = session::lines()?;
    let mut open = session.client.earlier().len();
    let mut typing = true;
    let mut asked_to_end = pin!(session::asked_to_end());
    let (client, mut counted) = (session.client.clone(), false);
    let mut unread = pin!(async move { client.unread_all().await });
    session::note(&format!("chat with {}; a line is a message, Ctrl-D ends", args.to));
    while typing || open > 0 {
        tokio::select! {
            line = lines.recv(), if typing => match line {
                Some(line) if line.is_empty() => {}
                Some(line) => match session.client.send_nowait(channel, content_type::TEXT, line, 0) {
                    Ok(()) => open += 1,
                    Err(NotTaken::Full) => session::note(
                        "too many lines wait for the server; this one was not taken"
                    ),
                    Err(NotTaken::Closed) => return Ok(Exit::Failed),
                },
                None => typing = false,
            },
            counts = &mut unread, if !counted => {
                counted = true;
                note_unread(&counts.unwrap_or_default());
            }
            event = session.events.next() => {
                let Some(event) = event else { return Ok(Exit::Failed) };
                if let Event::Result(_) = &event {
                    open = open.saturating_sub(1);
                }
                if let Some(text) = show(session, &args.to, channel, &event) {
                    session::print(text).await?;
                }
                session.tell(&event)?;
                session.client.confirm(&event);
                if let Event::Message(message) = &event {
                    // It was shown, in whatever channel.
                    session.client.mark_read(message.position.channel, message.position.id);
                }
            },
            () = &mut asked_to_end => {
                if open > 0 {
                    session::note(&format!("{open} lines are not acked; they are kept"));
                }
                return Ok(Exit::Ok);
            }
        }
    }
    Ok(Exit::Ok)
}

/// Says in which channels something waits to be read; it comes by itself.
fn note_unread(counts: &[Unread]) {
    for count in counts.iter().filter(|count| count.count > 0) {
        let more = if count.more { "+" } else { "" };
        session::note(&format!("{}: {}{more} unread", count.channel, count.count));
    }
}

/// What a person sees of an event, if anything.
fn show(session: &Session, peer: &str, channel: ChannelId, event: &Event) -> Option<String> {
    match event {
        Event::Message(message) => {
            let (me, device) = (session.profile.uin(), session.profile.device());
            let is_echo = message.sender == me && message.device == device;
            (!is_echo).then(|| message_line(me, peer, channel, message))
        }
        Event::Result(result) => Some(result_line(result)),
        Event::Receipt(receipt) if receipt.channel == channel => {
            let Receipt { delivered, read, .. } = receipt;
            Some(format!("  ✓✓ {peer} has {delivered}, read {read}\n"))
        }
        _ => None,
    }
}

fn message_line(me: Uin, peer: &str, channel: ChannelId, message: &Message) -> String {
    let text = spoken(message);
    let from = if message.sender == me {
        format!("you, on device {}", message.device)
    } else if message.position.channel == channel {
        if channel.is_group() { message.sender.to_string() } else { peer.to_owned() }
    } else {
        format!("{} in {}", message.sender, message.position.channel)
    };
    format!("{from}: {text}\n")
}

/// What a message says, or does to the group or to an older message, in one line.
pub(super) fn spoken(message: &Message) -> String {
    let text = session::one_line(&message.content);
    if let Some(id) = message.recalls() {
        return format!("* recalled {id}");
    }
    match (message.change(), message.edits()) {
        (Some(change), _) => format!("* {}", sentence(&change)),
        (None, Some(id)) => format!("* edited {id}: {text}"),
        (None, None) => text,
    }
}

fn result_line(result: &SendResult) -> String {
    match result.outcome {
        SendOutcome::Acked { id, .. } => format!("  ✓ {id}\n"),
        SendOutcome::Refused(code) => format!("  ✗ {code}: {}\n", code.sentence()),
        SendOutcome::Unknown => {
            "  ? whether the server took a line is no longer known; look before you send it \
             again\n"
                .to_owned()
        }
    }
}
