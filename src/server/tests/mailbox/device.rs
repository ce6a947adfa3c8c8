//! The device that is killed: a process of its own, made of this test binary, with the SDK's
//! mailbox on its disk. It says on its standard output what it knows to be on the disk, and what
//! it was told, one line each; a line that was cut off by the kill was not said.

use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use tern_client::machine::{Event, SendOutcome};
use tern_client::mailbox::MailLimits;
use tern_client::profile::Profile;
use tern_client::store::DiskStore;
use tern_client::{Client, Events, NotTaken, Options};
use tern_protocol::frames::content_type;
use tern_protocol::{ChannelId, MessageId, Uin};
use tern_random::Stream;
use tokio::time::{Instant, sleep_until};

/// Tells the child what it is: profile, server, the other user, and the number of its life.
const PROFILE: &str = "MAILBOX_TEST_PROFILE";
const SERVER: &str = "MAILBOX_TEST_SERVER";
const PEER: &str = "MAILBOX_TEST_PEER";
const LIFE: &str = "MAILBOX_TEST_LIFE";

/// Tags of one life; a life writes less than that.
const TAGS_PER_LIFE: u64 = 1_000_000;

/// Longest time between two messages that it writes, in µs.
const PAUSE_US_MAX: u64 = 4_000;

/// Sends that wait for an answer at once: more than leave in a round trip, so that some wait for
/// their turn.
const SENDS_MAX: usize = 60;

/// What it says of itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Said {
    /// The message with this tag is on its disk.
    Kept(u64),
    /// The message with this tag stands at this place, and that is on its disk.
    Acked(u64, u64),
    /// It has read up to this place, and that is on its disk.
    Read(u64),
}

impl Said {
    fn line(self) -> String {
        match self {
            Self::Kept(tag) => format!("said kept {tag} 0\n"),
            Self::Acked(tag, id) => format!("said acked {tag} {id}\n"),
            Self::Read(id) => format!("said read {id} 0\n"),
        }
    }

    /// What a line says; nothing, if the test's harness wrote it.
    pub fn parse(line: &str) -> Option<Self> {
        let mut words = line.strip_prefix("said ")?.split(' ');
        let (word, [first, second]) = (words.next()?, [words.next()?, words.next()?]);
        let (first, second) = (first.parse().unwrap(), second.parse().unwrap());
        Some(match word {
            "kept" => Self::Kept(first),
            "acked" => Self::Acked(first, second),
            "read" => Self::Read(first),
            other => panic!("{other} is no word of a device"),
        })
    }
}

/// What a message of the device says; no two say the same.
pub fn text(tag: u64) -> String {
    format!("ann {tag}")
}

/// How to start the device.
pub fn command(profile: &Path, server: &str, peer: Uin, life: u64) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "child", "--nocapture", "--test-threads", "1"]);
    command.env(PROFILE, profile).env(SERVER, server);
    command.env(PEER, peer.0.to_string()).env(LIFE, life.to_string());
    command
}

/// The device's own store, with its mailbox; nobody else may have it open.
pub fn store(profile: &Path) -> DiskStore {
    let whose = Profile::load(profile).unwrap();
    let store = DiskStore::open(&Profile::store_path(profile), whose.uin(), whose.device());
    store.unwrap().with_mail(MailLimits::default())
}

/// The device as the SDK runs it.
pub fn connect(profile: &Path, server: &str) -> (Client, Events) {
    let whose = Profile::load(profile).unwrap();
    let mut options = Options::from_profile(&whose, Box::new(store(profile))).unwrap();
    server.clone_into(&mut options.server);
    options.sends_max = SENDS_MAX;
    Client::connect(options).unwrap()
}

/// Lives until it is killed, if this process is such a device.
pub fn live() {
    let Some(profile) = std::env::var_os(PROFILE) else { return };
    let text = |name| std::env::var(name).unwrap();
    let number = |name| text(name).parse::<u64>().unwrap();
    let life = number(LIFE);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (client, events) = connect(Path::new(&profile), &text(SERVER));
        let whose = Profile::load(Path::new(&profile)).unwrap();
        let channel = ChannelId::direct(whose.uin(), Uin(number(PEER)));
        let tag = life * TAGS_PER_LIFE;
        Living { client, events, channel, tag, random: Stream::of(life, "device") }.go_on().await;
    });
}

struct Living {
    client: Client,
    events: Events,
    channel: ChannelId,
    /// Of the last message that it wrote.
    tag: u64,
    random: Stream,
}

impl Living {
    async fn go_on(mut self) -> ! {
        loop {
            let pause = Duration::from_micros(self.random.below(PAUSE_US_MAX));
            let end = Instant::now() + pause;
            loop {
                tokio::select! {
                    events = self.events.next_many(8) => self.take(&events).await,
                    () = sleep_until(end) => break,
                }
            }
            self.write().await;
        }
    }

    async fn write(&mut self) {
        let tag = self.tag + 1;
        match self.client.send_nowait(self.channel, content_type::TEXT, text(tag), tag) {
            Ok(()) => self.tag = tag,
            Err(NotTaken::Full) => return,
            Err(NotTaken::Closed) => panic!("nobody closes it"),
        }
        if self.random.percent(50) {
            self.client.remembered().await.unwrap();
            say(Said::Kept(tag));
        }
    }

    async fn take(&mut self, events: &[Event]) {
        assert!(!events.is_empty(), "nobody closes it");
        let mut known = Vec::new();
        for event in events {
            match event {
                Event::Message(message) if self.random.percent(30) => {
                    let MessageId(id) = message.position.id;
                    self.client.mark_read(self.channel, message.position.id);
                    known.push(Said::Read(id));
                }
                Event::Result(result) => {
                    let SendOutcome::Acked { id, .. } = result.outcome else {
                        panic!("{result:?}");
                    };
                    known.push(Said::Acked(result.tag, id.0));
                }
                Event::Gap { .. } | Event::HistoryRestarted { .. } => panic!("{event:?}"),
                _ => {}
            }
            // Not all results are confirmed: those are told again in its next life.
            if self.random.percent(90) {
                self.client.confirm(event);
            }
        }
        if !known.is_empty() {
            self.client.remembered().await.unwrap();
            known.into_iter().for_each(say);
        }
    }
}

fn say(said: Said) {
    let mut out = std::io::stdout().lock();
    out.write_all(said.line().as_bytes()).unwrap();
    out.flush().unwrap();
}
