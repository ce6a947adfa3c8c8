//! The process of one device in the demo: the SDK with a pipe on each side. It reads an [`Order`]
//! a line and writes a [`Report`] a line.
//!
//! What makes its answers hold through `kill -9`: it writes a report first and confirms the event
//! to the SDK after, so an event whose report was not written comes again at the next start; and
//! at the start it reports which messages are stored without an answer, so whoever gave it
//! others knows that those were not kept.

use std::io;
use std::path::PathBuf;

use tern_client::machine::{Event, SendOutcome, SendResult, State};
use tern_client::profile::Profile;
use tern_client::store::{DiskStore, Store};
use tern_client::{Client, Events, Options};
use tern_protocol::frames::content_type;
use tern_protocol::{ChannelId, Code, Uin};
use tokio::io::{AsyncBufReadExt, BufReader, Lines, Stdin};

use super::super::{Exit, print};
use super::words::{Order, Report};

/// The command line of a device's process.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The device's profile
    #[arg(long, value_name = "FILE")]
    profile: PathBuf,
    /// Where to find the server, instead of what the profile says
    #[arg(long, value_name = "HOST:PORT")]
    server: String,
    /// The user to send to
    #[arg(long, value_name = "UIN")]
    to: u64,
}

/// Runs a device until its standard input ends.
pub(crate) fn run(args: &Args) -> Exit {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let ended = match runtime {
        Ok(runtime) => {
            let ended = runtime.block_on(live(args));
            // A read of standard input can't be taken back; do not wait for it.
            runtime.shutdown_background();
            ended
        }
        Err(error) => Err(error.into()),
    };
    match ended {
        Ok(()) => Exit::Ok,
        Err(error) => {
            report(&Report::Failed { why: error.to_string() });
            Exit::Failed
        }
    }
}

/// Anything that keeps the device from going on; only its words matter.
type Failure = Box<dyn std::error::Error>;

async fn live(args: &Args) -> Result<(), Failure> {
    let profile = Profile::load(&args.profile)?;
    let _lock = profile.lock(&args.profile)?;
    let path = Profile::store_path(&args.profile);
    let mut store = DiskStore::open(&path, profile.uin(), profile.device())?;
    let kept = store.load()?.sends.iter().map(|send| send.tag).collect();
    let mut options = Options::from_profile(&profile, Box::new(store))?;
    options.server.clone_from(&args.server);
    let (client, events) = Client::connect(options)?;
    report(&Report::Started { kept });
    let channel = ChannelId::direct(profile.uin(), Uin(args.to));
    let orders = BufReader::new(tokio::io::stdin()).lines();
    Device { client, events, channel, orders }.run().await
}

struct Device {
    client: Client,
    events: Events,
    channel: ChannelId,
    orders: Lines<BufReader<Stdin>>,
}

impl Device {
    async fn run(mut self) -> Result<(), Failure> {
        loop {
            tokio::select! {
                event = self.events.next() => match event {
                    Some(event) => self.tell(&event),
                    None => return Err("the session has ended".into()),
                },
                order = self.orders.next_line() => match order? {
                    Some(line) => self.obey(serde_json::from_str(&line)?).await?,
                    None => break,
                },
            }
        }
        self.client.close().await;
        Ok(())
    }

    async fn obey(&mut self, order: Order) -> Result<(), Failure> {
        match order {
            Order::Send { number, text } => {
                self.client.post(self.channel, content_type::TEXT, text, number).await?;
            }
            Order::ChangeAddress => match self.client.rebind().await {
                // Without a connection the next one has another address anyway.
                Err(error) if error.kind() == io::ErrorKind::NotConnected => {}
                done => done?,
            },
        }
        Ok(())
    }

    /// Reports first, confirms after.
    fn tell(&self, event: &Event) {
        if let Some(said) = words_of(event) {
            report(&said);
        }
        self.client.confirm(event);
    }
}

fn words_of(event: &Event) -> Option<Report> {
    Some(match event {
        Event::Message(message) => Report::Showed {
            id: message.position.id.0,
            sender: message.sender.0,
            text: String::from_utf8_lossy(&message.content).into_owned(),
        },
        Event::Result(result) => answer(result),
        Event::Gap { from, to, code, .. } => {
            Report::HistoryLost { what: format!("ids {from} to {to}: {}", label(*code)) }
        }
        Event::HistoryRestarted { at, .. } => {
            Report::HistoryLost { what: format!("history restarted at id {at}") }
        }
        Event::State(State::Connecting)
        | Event::Read(_)
        | Event::Receipt(_)
        | Event::GroupReceipts(_)
        | Event::History(_)
        | Event::Unread(_)
        | Event::Identity { .. }
        | Event::GroupPage(_)
        | Event::Blocked { .. }
        | Event::BlockPage(_)
        | Event::GroupRefused { .. } => return None,
        Event::State(State::Online { resumed, .. }) => Report::Online { resumed: *resumed },
        Event::State(State::Offline { code, .. }) => Report::Offline { why: code.map(label) },
        Event::State(State::Ended(end)) => Report::Failed { why: format!("{end:?}") },
        Event::ServerError { code, kind } => {
            Report::Failed { why: format!("the server did not act on a {kind}: {}", label(*code)) }
        }
    })
}

fn answer(result: &SendResult) -> Report {
    let number = result.tag;
    match result.outcome {
        SendOutcome::Acked { id, .. } => Report::Acked { number, id: id.0 },
        SendOutcome::Refused(code) => Report::Refused { number, why: label(code) },
        SendOutcome::Unknown => Report::Refused { number, why: label(Code::KeyUnknown) },
    }
}

fn label(code: Code) -> String {
    code.to_string()
}

/// Writes a line, flushed. Without a reader nobody needs the device any more: its standard input
/// ends too.
fn report(report: &Report) {
    let mut line = serde_json::to_string(report).expect("a report is always JSON");
    line.push('\n');
    let _ = print(&line);
}
