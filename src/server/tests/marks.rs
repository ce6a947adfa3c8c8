//! Read markers, receipts and unread counts on the real server: what a user reads on one device
//! is read on all, who wrote is told, and a `kill -9` takes nothing forward and nothing back that
//! a device does not say again.
#![expect(
    clippy::unwrap_used,
    reason = "a test may stop at the first thing that is not as it should be"
)]

mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use support::server::{ANY_PORT, Server, tern};
use tempfile::TempDir;
use tern_client::group::GroupSettings;
use tern_client::machine::{Event, SendOutcome};
use tern_client::profile::Profile;
use tern_client::store::DiskStore;
use tern_client::{Client, Events, Options};
use tern_protocol::frames::content_type;
use tern_protocol::{ChannelId, MessageId, Uin};

/// Nothing that must come takes longer than this.
const PATIENCE: Duration = Duration::from_secs(60);

/// Messages of each part of a story.
const MESSAGES: u64 = 20;

/// A server, and the folder with the devices of its users.
struct House {
    server: Option<Server>,
    port: String,
    data: PathBuf,
    _folder: TempDir,
}

impl House {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        let server = Server::start(&data, ANY_PORT, &[]);
        server.user("ann");
        server.user("bob");
        server.device("bob", "tablet");
        server.user("cat");
        let port = Profile::load(&Profile::path(&data, "ann")).unwrap().server;
        Self { server: Some(server), port, data, _folder: folder }
    }

    /// `kill -9`, and a new process on the same folder and port.
    fn crash(&mut self) {
        self.server.take().unwrap().kill();
        self.server = Some(Server::start(&self.data, &self.port, &[]));
    }

    /// What a command prints.
    fn run(&self, arguments: &[&str]) -> String {
        let output = tern(&self.data, arguments).stdout(Stdio::piped()).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }
}

/// What a device was told of a channel.
#[derive(Clone, Copy, Default, Debug, PartialEq)]
struct Told {
    newest: u64,
    read: u64,
    /// Of the other side: delivered and read.
    receipt: (u64, u64),
    receipts: u64,
}

/// A device that remembers what it was told.
struct Device {
    client: Client,
    uin: Uin,
    told: Arc<Mutex<BTreeMap<ChannelId, Told>>>,
}

impl Device {
    fn start(data: &Path, who: &str) -> Self {
        let path = Profile::path(data, who);
        let profile = Profile::load(&path).unwrap();
        let store = DiskStore::open(&Profile::store_path(&path), profile.uin(), profile.device());
        let options = Options::from_profile(&profile, Box::new(store.unwrap())).unwrap();
        let (client, events) = Client::connect(options).unwrap();
        let told = Arc::default();
        tokio::spawn(listen(client.clone(), events, Arc::clone(&told)));
        Self { client, uin: profile.uin(), told }
    }

    async fn until(&self, channel: ChannelId, what: &str, fits: impl Fn(&Told) -> bool) -> Told {
        let start = Instant::now();
        loop {
            let told = self.told.lock().unwrap().get(&channel).copied().unwrap_or_default();
            if fits(&told) {
                return told;
            }
            assert!(start.elapsed() < PATIENCE, "{}: {what}: {told:?}", self.uin);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn say(&self, channel: ChannelId, count: u64) -> u64 {
        let mut last = 0;
        for number in 1..=count {
            let text = format!("{number} by {}", self.uin);
            match self.client.send(channel, content_type::TEXT, text).await.unwrap() {
                SendOutcome::Acked { id, .. } => last = id.0,
                other => panic!("{}: {other:?}", self.uin),
            }
        }
        last
    }
}

async fn listen(client: Client, mut events: Events, told: Arc<Mutex<BTreeMap<ChannelId, Told>>>) {
    while let Some(event) = events.next().await {
        {
            let mut all = told.lock().unwrap();
            match &event {
                Event::Message(message) => {
                    all.entry(message.position.channel).or_default().newest = message.position.id.0;
                }
                Event::Read(at) => {
                    let told = all.entry(at.channel).or_default();
                    assert!(at.id.0 <= told.newest.max(MESSAGES * 3), "a mark beyond all");
                    told.read = told.read.max(at.id.0);
                }
                Event::Receipt(receipt) => {
                    let told = all.entry(receipt.channel).or_default();
                    told.receipt = (receipt.delivered.0, receipt.read.0);
                    told.receipts += 1;
                }
                _ => {}
            }
        }
        client.confirm(&event);
    }
}

#[tokio::test]
async fn read_markers_sync_across_devices_and_receipts_come_through_a_kill() {
    let mut house = House::new();
    let [ann, bob, tablet] = ["ann", "bob", "bob.tablet"].map(|w| Device::start(&house.data, w));
    let channel = ChannelId::direct(ann.uin, bob.uin);
    let last = ann.say(channel, MESSAGES).await;
    let told = ann.until(channel, "delivered", |told| told.receipt.0 == last).await;
    assert_eq!(told.receipt.1, 0, "nobody has read");
    for device in [&bob, &tablet] {
        device.until(channel, "messages", |told| told.newest == last).await;
    }
    bob.client.mark_read(channel, MessageId(last - 5));
    for device in [&bob, &tablet] {
        device.until(channel, "the mark", |told| told.read == last - 5).await;
    }
    ann.until(channel, "read", |told| told.receipt == (last, last - 5)).await;
    let unread = tablet.client.unread(&[channel]).await.unwrap();
    assert_eq!((unread[0].count, unread[0].more), (5, false), "{unread:?}");

    // Within the seconds in which a mark is only in memory: the device says it again.
    house.crash();
    let later = ann.say(channel, MESSAGES).await;
    tablet.until(channel, "messages", |told| told.newest == later).await;
    tablet.client.mark_read(channel, MessageId(later));
    for device in [&bob, &tablet] {
        device.until(channel, "the mark", |told| told.read == later).await;
    }
    let told = ann.until(channel, "read", |told| told.receipt == (later, later)).await;
    println!("TEST marks n={later} devices=3 kills=1 receipts={}", told.receipts);
    assert!(told.receipts <= later, "a receipt for each of {later}: {}", told.receipts);
}

#[tokio::test]
async fn a_mark_that_is_on_disk_outlives_the_server() {
    let mut house = House::new();
    let [ann, bob] = ["ann", "bob"].map(|who| Device::start(&house.data, who));
    let channel = ChannelId::direct(ann.uin, bob.uin);
    let last = ann.say(channel, MESSAGES).await;
    bob.until(channel, "messages", |told| told.newest == last).await;
    bob.client.mark_read(channel, MessageId(last));
    bob.until(channel, "the mark", |told| told.read == last).await;
    bob.client.close().await;
    let start = Instant::now();
    loop {
        let status = house.run(&["status", "--json"]);
        let status: serde_json::Value = serde_json::from_str(&status).unwrap();
        if counted(&status, "marks_records") > 0 {
            break;
        }
        assert!(start.elapsed() < PATIENCE, "no mark was written down: {status}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    house.crash();
    let tablet = Device::start(&house.data, "bob.tablet");
    tablet.until(channel, "the mark", |told| told.read == last).await;
}

/// The sum of a count of all workers.
fn counted(status: &serde_json::Value, name: &str) -> u64 {
    let rows = status["workers"]["rows"].as_array().unwrap();
    let row = rows.iter().find(|row| row["name"] == name).unwrap();
    row["values"].as_array().unwrap().iter().map(|value| value.as_u64().unwrap()).sum()
}

#[tokio::test]
async fn commands_mark_and_count_and_a_group_counts_receipts() {
    let house = House::new();
    let [ann, bob] = ["ann", "bob"].map(|who| Device::start(&house.data, who));
    let cat = Profile::load(&Profile::path(&house.data, "cat")).unwrap().uin();
    let crew = ann.client.create_group("crew", GroupSettings::default(), &[bob.uin, cat]).await;
    let crew = crew.unwrap();
    let last = ann.say(crew, 3).await;
    bob.until(crew, "messages", |told| told.newest == last).await;
    bob.client.mark_read(crew, MessageId(last - 1));
    bob.until(crew, "the mark", |told| told.read == last - 1).await;
    let counts = ann.client.group_receipts(crew, MessageId(last)).await.unwrap();
    assert_eq!((counts.members, counts.delivered, counts.read), (2, 1, 0));
    let counts = ann.client.group_receipts(crew, MessageId(last - 1)).await.unwrap();
    assert_eq!((counts.members, counts.delivered, counts.read), (2, 1, 1));

    // Nothing of the change that made the group, and nothing of Ann's for Ann.
    let line = |read: u64, count: u64| format!("{crew} {read} {count}\n");
    assert_eq!(house.run(&["unread", "--as", "cat"]), line(0, 3));
    assert_eq!(house.run(&["unread", "--as", "bob.tablet"]), line(last - 1, 1));
    bob.client.close().await;
    let (crew, arguments) = (crew.to_string(), ["read", "--as", "bob", "--to"]);
    let read = house.run(&[&arguments[..], &[&crew]].concat());
    assert_eq!(read, line(last, 0));
    assert_eq!(house.run(&["unread", "--as", "bob.tablet"]), "");
}
