//! Recalls, edits and blocks on the real server: a device that comes late never gets a recalled
//! body, searched for in everything that it received; what was recalled and who is blocked
//! outlives `kill -9`; the commands do what they say.
#![expect(
    clippy::unwrap_used,
    reason = "a test may stop at the first thing that is not as it should be"
)]
#![allow(clippy::print_stdout, reason = "a test tells its figures")]

mod support;

use std::path::{Path, PathBuf};
use std::time::Duration;

use support::server::{ANY_PORT, Server, tern};
use tempfile::TempDir;
use tern_client::machine::{Event, Message, SendOutcome};
use tern_client::profile::Profile;
use tern_client::store::MemoryStore;
use tern_client::{BlockError, Client, Events, Options};
use tern_protocol::frames::content_type;
use tern_protocol::{ChannelId, Code, MessageId, Uin};

/// Nothing that must come takes longer than this.
const PATIENCE: Duration = Duration::from_secs(60);

/// Messages of a story, unless `TERN_SOAK` wants more.
const MESSAGES: u32 = 40;

/// What a recalled message says: nothing else has these bytes.
const SECRET: &str = "sesame-open-yourself";

/// A server that is killed and started again on its port.
struct House {
    server: Option<Server>,
    port: String,
    data: PathBuf,
    _folder: TempDir,
}

impl House {
    fn new(devices: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        let server = Server::start(&data, ANY_PORT, &[]);
        for who in devices {
            match who.split_once('.') {
                None => _ = server.user(who),
                Some((name, label)) => _ = server.device(name, label),
            }
        }
        let port = server.address.to_string();
        Self { server: Some(server), port, data, _folder: folder }
    }

    fn server(&self) -> &Server {
        self.server.as_ref().unwrap()
    }

    /// Kills the server and starts it again.
    fn crash(&mut self) {
        self.server.take().unwrap().kill();
        self.server = Some(Server::start(&self.data, &self.port, &[]));
    }

    fn uin(&self, who: &str) -> Uin {
        self.server().account(who).uin
    }
}

/// A device without a disk: at each start it is new, and is given all there is.
struct Device {
    client: Client,
    events: Events,
}

impl Device {
    fn new(data: &Path, who: &str) -> Self {
        let profile = Profile::load(&Profile::path(data, who)).unwrap();
        let store = Box::new(MemoryStore::default());
        let options = Options::from_profile(&profile, store).unwrap();
        let (client, events) = Client::connect(options).unwrap();
        Self { client, events }
    }

    async fn say(&self, channel: ChannelId, text: &str) -> Result<u64, Code> {
        id_of(self.client.send(channel, content_type::TEXT, text.to_owned()).await.unwrap())
    }

    /// Everything that comes of a channel, up to an id: each message, and each gap.
    async fn read(&mut self, channel: ChannelId, up_to: u64) -> Vec<Result<Message, (u64, Code)>> {
        let mut read = Vec::new();
        let reading = async {
            while (read.len() as u64) < up_to {
                let event = self.events.next().await.unwrap();
                match &event {
                    Event::Message(message) if message.position.channel == channel => {
                        read.push(Ok(message.clone()));
                    }
                    Event::Gap { channel: of, from, to, code } if *of == channel => {
                        read.extend((from.0..=to.0).map(|id| Err((id, *code))));
                    }
                    _ => {}
                }
                self.client.confirm(&event);
            }
        };
        tokio::time::timeout(PATIENCE, reading).await.unwrap();
        read
    }
}

fn id_of(outcome: SendOutcome) -> Result<u64, Code> {
    match outcome {
        SendOutcome::Acked { id, .. } => Ok(id.0),
        SendOutcome::Refused(code) => Err(code),
        SendOutcome::Unknown => panic!("nothing is forgotten"),
    }
}

/// Whether these bytes were received, in whatever message.
fn has(read: &[Result<Message, (u64, Code)>], bytes: &str) -> bool {
    read.iter().flatten().any(|message| {
        message.content.windows(bytes.len()).any(|window| window == bytes.as_bytes())
    })
}

#[tokio::test]
async fn a_late_second_device_never_receives_a_recalled_body_through_kills() {
    let mut house = House::new(&["ann", "bob", "bob.tablet", "bob.phone"]);
    let channel = ChannelId::direct(house.uin("ann"), house.uin("bob"));
    let (ann, mut bob) = (Device::new(&house.data, "ann"), Device::new(&house.data, "bob"));
    let count = support::scaled(MESSAGES);
    let mut newest = 0;
    for number in 1..=count {
        let is_secret = number % 4 == 2;
        let text = if is_secret { format!("{SECRET} {number}") } else { format!("{number}") };
        newest = ann.say(channel, &text).await.unwrap();
    }
    let secrets: Vec<u64> = (1..=u64::from(count)).filter(|id| id % 4 == 2).collect();
    let edited = MessageId(secrets[0]);
    let edit = format!("{SECRET}, in other words");
    let edit = ann.client.edit(channel, edited, content_type::TEXT, edit).await.unwrap();
    let edit = id_of(edit).unwrap();
    let early = bob.read(channel, edit).await;
    assert!(has(&early, SECRET), "who is early gets it: the search finds what is there");
    assert_eq!((newest + 1, early.len() as u64), (edit, edit));

    for (index, id) in secrets.iter().enumerate() {
        if index % 4 == 1 {
            house.crash();
        }
        let recalled = ann.client.recall(channel, MessageId(*id)).await.unwrap();
        newest = id_of(recalled).unwrap();
    }
    let told = bob.read(channel, secrets.len() as u64).await;
    let told: Vec<u64> = told.into_iter().map(|m| m.unwrap().recalls().unwrap().0).collect();
    assert_eq!(told, secrets, "who had them is told");

    for (who, kill) in [("bob.tablet", false), ("bob.phone", true)] {
        if kill {
            house.crash();
        }
        let mut late = Device::new(&house.data, who);
        let read = late.read(channel, newest).await;
        let gaps: Vec<_> = read.iter().filter_map(|item| item.as_ref().err().copied()).collect();
        let hidden = secrets.iter().copied().chain([edit]);
        assert_eq!(gaps, hidden.map(|id| (id, Code::Recalled)).collect::<Vec<_>>(), "{who}");
        assert!(!has(&read, SECRET), "{who} received a recalled body");
        late.client.close().await;
    }
    let recalls = house.server().figures().get("recalls");
    assert_eq!(recalls, 0, "the last server made none of them: they came from its log");
    println!("TEST recall n={count} recalled={} kills=4 shown=0", secrets.len());
}

#[tokio::test]
async fn a_block_outlives_kills_and_loses_nothing_that_was_said_before() {
    let mut house = House::new(&["ann", "bob", "bob.tablet", "cat"]);
    let channel = ChannelId::direct(house.uin("ann"), house.uin("bob"));
    let (ann, bob) = (Device::new(&house.data, "ann"), Device::new(&house.data, "bob"));
    let cat = Device::new(&house.data, "cat");
    let before = ann.say(channel, "before").await.unwrap();
    bob.client.block(house.uin("ann")).await.unwrap();
    bob.client.block(house.uin("cat")).await.unwrap();
    assert_eq!(
        bob.client.block(house.uin("bob")).await,
        Err(BlockError::Refused(Code::BlockInvalid))
    );
    for _ in 0..2 {
        assert_eq!(ann.say(channel, "blocked").await, Err(Code::NoSuchUser));
        let first = ChannelId::direct(house.uin("cat"), house.uin("bob"));
        assert_eq!(cat.say(first, "blocked").await, Err(Code::NoSuchUser));
        house.crash();
    }
    let mut blocked = [house.uin("ann"), house.uin("cat")];
    blocked.sort_unstable();
    assert_eq!(bob.client.blocked().await.unwrap(), blocked);
    bob.client.unblock(house.uin("ann")).await.unwrap();
    house.crash();
    let after = ann.say(channel, "after").await.unwrap();
    assert_eq!((before, after), (1, 2));
    let read = Device::new(&house.data, "bob.tablet").read(channel, after).await;
    let said: Vec<_> = read.into_iter().map(|item| item.unwrap().content).collect();
    assert_eq!(said, ["before", "after"]);
    println!("TEST block n=2 kills=3 lost=0");
}

#[test]
fn the_commands_recall_edit_and_block() {
    let house = House::new(&["ann", "bob"]);
    let run = |arguments: &[&str]| {
        let output = tern(&house.data, arguments).output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let (ann, bob) = (house.uin("ann"), house.uin("bob"));
    for text in ["one", "two", "three"] {
        assert_eq!(run(&["send", "--as", "ann", "--to", "bob", text]).0, Some(0));
    }
    let channel = ChannelId::direct(ann, bob).to_string();
    let done = run(&["edit", "--as", "ann", "--to", "bob", "1", "eleven", "and", "one"]);
    assert_eq!(done, (Some(0), format!("edited {channel} 1\n")));
    let (code, answer) = run(&["recall", "--as", "ann", "--to", "bob", "2", "--json"]);
    let answer: serde_json::Value = serde_json::from_str(&answer).unwrap();
    assert_eq!((code, &answer["recalled"], &answer["id"]), (Some(0), &"2".into(), &"5".into()));
    let again = run(&["recall", "--as", "ann", "--to", "bob", "2"]);
    assert_eq!(again, (Some(3), String::new()), "refused");

    let (_, heard) = run(&["recv", "--as", "bob", "--count", "4", "--timeout", "60s", "--json"]);
    let heard: Vec<serde_json::Value> =
        heard.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let texts: Vec<_> = heard.iter().map(|message| message["text"].as_str()).collect();
    assert_eq!(texts, [Some("one"), Some("three"), Some("eleven and one"), None]);
    assert_eq!((&heard[2]["edits"], &heard[3]["recalls"]), (&"1".into(), &"2".into()));

    assert_eq!(run(&["block", "--as", "bob", "ann"]), (Some(0), format!("blocked {ann}\n")));
    assert_eq!(run(&["blocked", "--as", "bob"]), (Some(0), format!("{ann}\n")));
    assert_eq!(run(&["send", "--as", "ann", "--to", "bob", "x"]).0, Some(3));
    assert_eq!(run(&["unblock", "--as", "bob", "ann"]), (Some(0), format!("unblocked {ann}\n")));
    assert_eq!(run(&["send", "--as", "ann", "--to", "bob", "x"]).0, Some(0));
    let figures = house.server().figures();
    let counted = ["recalls", "edits", "blocks"].map(|name| figures.get(name));
    assert_eq!(counted, [1, 1, 2], "and `tern status` shows it");
}
