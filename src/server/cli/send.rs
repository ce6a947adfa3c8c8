//! `tern send`: sends, and says that it is done only when the server has acked.
//!
//! With `--stdin` each line is a message; many are on their way at once, in order. For each line
//! one answer is printed and flushed: `acked LINE CHANNEL ID`, `refused LINE CHANNEL CODE` or
//! `unknown LINE CHANNEL`, in the order of the lines. Only then the device forgets the line: an
//! answer that comes before that of an older line waits for it, or who feeds the lines again from
//! that one on would send the younger a second time. What it had taken and not answered when it
//! was killed, it sends at its next start under the same keys, so a line that
//! was acked stands once. To go on after that, feed the lines again from the first one without an
//! answer, say by `--from` which one that is, and lines that were taken are not sent again.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;

use tern_client::machine::{Event, SavedSend, SendId, SendOutcome, SendResult};
use tern_client::{Client, NotTaken};
use tern_protocol::ChannelId;
use tern_protocol::frames::content_type;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::chat::session::{self, Session, SessionArgs};
use super::{Exit, fail};

/// The command line of `tern send`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    session: SessionArgs,
    /// Whom to write to: a user's name or uin, or a group as g and its number
    #[arg(long, value_name = "NAME|UIN|GROUP")]
    to: String,
    /// Send each line of standard input, and print one answer for each
    #[arg(long, conflicts_with = "text")]
    stdin: bool,
    /// The number of the first line on standard input; lines from here on that an earlier run
    /// took are not sent again
    #[arg(long, value_name = "LINE", default_value_t = 1, requires = "stdin")]
    from: u64,
    /// Give up waiting after this time, such as 30s; what was taken is kept and sent at the next
    /// start
    #[arg(long, value_name = "TIME", value_parser = session::parse_time)]
    timeout: Option<std::time::Duration>,
    /// The message; several words are joined by spaces
    #[arg(required_unless_present = "stdin")]
    text: Vec<String>,
}

/// Sends, and ends when everything is answered.
pub(crate) fn run(args: Args) -> Exit {
    session::run(async move {
        let mut session = args.session.open()?;
        let channel = args.session.channel(session.profile.uin(), &args.to)?;
        let mut sending = Sending::new(&session.client, channel, &args);
        let done = send(&mut session, &mut sending, &args).await;
        if done != Ok(Exit::Ok) {
            sending.tell_open();
        }
        // Everything that was taken is on the disk, whatever ended it.
        session.client.close().await;
        done
    })
}

async fn send(session: &mut Session, sending: &mut Sending, args: &Args) -> Result<Exit, Exit> {
    let mut lines = if args.stdin { Some(session::lines()?) } else { None };
    if !args.stdin {
        sending.take(&session.client, args.text.join(" ").into_bytes())?;
    }
    let end = args.timeout.map(|timeout| Instant::now() + timeout);
    let mut asked_to_end = pin!(session::asked_to_end());
    while lines.is_some() || sending.is_open() {
        tokio::select! {
            line = next_line(&mut lines), if lines.is_some() && sending.has_room() => match line {
                Some(line) => {
                    sending.take(&session.client, line)?;
                    sending.go_on(&session.client).await?;
                }
                None => {
                    lines = None;
                    sending.input_ended = true;
                    sending.go_on(&session.client).await?;
                }
            },
            event = session.events.next() => match event {
                Some(event) => {
                    session.tell(&event)?;
                    if let Event::Result(result) = event {
                        sending.answer(&session.client, result).await?;
                    }
                }
                None => return Ok(Exit::Failed),
            },
            () = session::time_is_over(end) => return Ok(Exit::Timeout),
            () = &mut asked_to_end => return Ok(Exit::Failed),
        }
    }
    Ok(sending.exit)
}

async fn next_line(lines: &mut Option<mpsc::Receiver<Vec<u8>>>) -> Option<Vec<u8>> {
    match lines {
        Some(lines) => lines.recv().await,
        None => None,
    }
}

/// What was taken and what is answered.
struct Sending {
    channel: ChannelId,
    stdin: bool,
    /// The number of the next line.
    next: u64,
    /// The first number of this run.
    from: u64,
    /// Lines that earlier runs took, by their numbers, as far as this run can meet them.
    earlier: BTreeMap<u64, SavedSend>,
    /// What earlier runs left open.
    left: BTreeMap<SendId, u64>,
    /// What this run has sent and not heard of.
    open: usize,
    /// The numbers of this run's lines that have no answer yet, also of those taken earlier.
    unanswered: BTreeSet<u64>,
    /// Answers that wait for those of older lines.
    held: BTreeMap<u64, SendResult>,
    /// No more lines come.
    input_ended: bool,
    /// A line that found no room.
    waiting: Option<Vec<u8>>,
    exit: Exit,
}

impl Sending {
    fn new(client: &Client, channel: ChannelId, args: &Args) -> Self {
        let earlier = client.earlier();
        let lines: BTreeMap<u64, SavedSend> = earlier
            .iter()
            .filter(|send| args.stdin && send.channel == channel && send.tag >= args.from)
            .map(|send| (send.tag, send.clone()))
            .collect();
        Self {
            channel,
            stdin: args.stdin,
            next: args.from,
            from: args.from,
            unanswered: lines.keys().copied().collect(),
            earlier: lines,
            left: earlier.iter().map(|send| (send.id, send.tag)).collect(),
            open: 0,
            held: BTreeMap::new(),
            input_ended: false,
            waiting: None,
            exit: Exit::Ok,
        }
    }

    fn is_open(&self) -> bool {
        self.open > 0 || self.waiting.is_some() || !self.left.is_empty()
    }

    fn has_room(&self) -> bool {
        self.waiting.is_none()
    }

    /// Sends the next line, unless an earlier run took it.
    fn take(&mut self, client: &Client, line: Vec<u8>) -> Result<(), Exit> {
        if let Some(earlier) = self.earlier.get(&self.next) {
            if earlier.content != line {
                let reason = format!(
                    "line {} is not what an earlier run took under this number; it is kept, and \
                     --from names another line",
                    self.next
                );
                return Err(fail(Exit::Usage, reason));
            }
            self.next += 1;
            return Ok(());
        }
        let tag = if self.stdin { self.next } else { 0 };
        match client.send_nowait(self.channel, content_type::TEXT, line.clone(), tag) {
            Ok(()) => {
                self.next += 1;
                self.open += 1;
                if self.stdin {
                    self.unanswered.insert(tag);
                }
                Ok(())
            }
            Err(NotTaken::Full) => {
                self.waiting = Some(line);
                Ok(())
            }
            Err(NotTaken::Closed) => Err(Exit::Failed),
        }
    }

    /// Takes an answer: prints it when its turn has come, and only then lets the device forget it.
    async fn answer(&mut self, client: &Client, result: SendResult) -> Result<(), Exit> {
        let left = self.left.remove(&result.send);
        if left.is_none() {
            self.open -= 1;
        }
        if left.is_none() || result.tag >= self.from {
            self.exit = match result.outcome {
                SendOutcome::Acked { .. } => self.exit,
                SendOutcome::Refused(_) | SendOutcome::Unknown => Exit::Refused,
            };
        }
        let is_line = self.stdin && (result.tag >= self.from || left.is_none());
        if is_line && result.channel == self.channel {
            self.unanswered.remove(&result.tag);
            self.held.insert(result.tag, result);
        } else {
            if is_line {
                session::print(line(&result)).await?;
            } else {
                tell_people(&result, left.is_some());
            }
            client.settled(result.send);
        }
        self.go_on(client).await
    }

    /// Prints what can be printed, and sends a line that found no room before.
    async fn go_on(&mut self, client: &Client) -> Result<(), Exit> {
        self.print_held(client).await?;
        match self.waiting.take() {
            Some(line) => self.take(client, line),
            None => Ok(()),
        }
    }

    /// Prints the answers that no older line is in front of.
    async fn print_held(&mut self, client: &Client) -> Result<(), Exit> {
        while let Some(first) = self.held.first_entry() {
            let tag = *first.key();
            let is_behind = self.unanswered.first().is_some_and(|older| *older < tag);
            // A line that was not fed yet is older too; where no more can be fed it is not awaited.
            let may_come = self.next <= tag && !self.input_ended && self.waiting.is_none();
            if is_behind || may_come {
                break;
            }
            let result = first.remove();
            session::print(line(&result)).await?;
            client.settled(result.send);
        }
        Ok(())
    }

    /// Says what is left when it ends early.
    fn tell_open(&self) {
        let open = self.open + self.left.len() + self.held.len();
        if open > 0 {
            session::note(&format!(
                "{open} unanswered; they are kept, and sent when this device starts again"
            ));
        }
    }
}

fn line(result: &SendResult) -> String {
    let SendResult { tag, channel, outcome, .. } = result;
    match outcome {
        SendOutcome::Acked { id, .. } => format!("acked {tag} {channel} {id}\n"),
        SendOutcome::Refused(code) => format!("refused {tag} {channel} {code}\n"),
        SendOutcome::Unknown => format!("unknown {tag} {channel}\n"),
    }
}

fn tell_people(result: &SendResult, left: bool) {
    let channel = result.channel;
    let which = if left { "a message of an earlier run" } else { "the message" };
    match result.outcome {
        SendOutcome::Acked { id, .. } if left => {
            session::note(&format!("{which} is acked as {channel} {id}"));
        }
        SendOutcome::Acked { .. } => {}
        SendOutcome::Refused(code) => {
            session::note(&format!("{which} to {channel} is refused: {code}: {}", code.sentence()));
        }
        SendOutcome::Unknown => session::note(&format!(
            "whether {which} to {channel} was accepted is no longer known; look before you send \
             it again"
        )),
    }
}
