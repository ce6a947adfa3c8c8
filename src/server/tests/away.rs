//! Three devices of one user, each behind a bad link of its own, come and go at random times while
//! they and another user write in a direct channel and in a group. In the end the logs of all
//! devices are the same: every acked message once, in the order of its channel.
//!
//! A device is away because it is closed, or because its link lets nothing through for a while;
//! what it has not looked at when it closes comes again. Its log and its store outlive it. One
//! device keeps its messages itself: its mailbox is its log.
//!
//! `TERN_SOAK` multiplies the number of times that each device goes; `TERN_SEED` says when.
#![expect(
    clippy::unwrap_used,
    reason = "a test may stop at the first thing that is not as it should be"
)]

mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use support::server::{ANY_PORT, Server};
use tern_badlink::{Captures, Plan, Protocol, Relay, Sharing};
use tern_client::group::GroupSettings;
use tern_client::machine::{Event, Message, SendOutcome};
use tern_client::mailbox::{KeptMessage, MailLimits, MailQuery};
use tern_client::profile::Profile;
use tern_client::store::DiskStore;
use tern_client::{Client, Events, Options};
use tern_netmodel::conditions::Outages;
use tern_netmodel::{Conditions, Counts, Profile as LinkProfile};
use tern_protocol::frames::{content_type, message_kind};
use tern_protocol::{ChannelId, DeviceId, MessageId, SendKey, Uin};
use tern_random::{Stream, seed_from_env};
use tokio::time::{Instant, timeout, timeout_at};

/// Times that each device goes away, unless `TERN_SOAK` wants more.
const TIMES_AWAY: u32 = 4;

/// Most messages that a device writes each time it is there.
const MESSAGES_MAX: u64 = 25;

/// Longest time in ms that a device is there, and that it is away.
const THERE_MS_MAX: u64 = 800;
const AWAY_MS_MAX: u64 = 1_000;

/// Nothing that must come takes longer than this.
const PATIENCE: Duration = Duration::from_secs(60);

/// The devices; the first three are one user's.
const DEVICES: [&str; 4] = ["ann", "ann.tablet", "ann.laptop", "bob"];

/// The one with a mailbox.
const WITH_MAIL: &str = "ann.laptop";

/// More messages than a channel here ever has.
const ALL: usize = 1_000_000;

/// What is compared of a message: all that every device sees alike.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Entry {
    id: MessageId,
    sender: Uin,
    device: DeviceId,
    key: SendKey,
    kind: u8,
    content: Bytes,
}

/// What a device was given, channel by channel.
type Log = BTreeMap<ChannelId, Vec<Entry>>;

/// A device, with what outlives its clients.
struct Device {
    path: PathBuf,
    keeps_mail: bool,
    relay: Relay,
    random: Stream,
    channels: [ChannelId; 2],
    log: Log,
    /// Messages written, by channel, and what became of each.
    written: BTreeMap<ChannelId, u64>,
    tags: u64,
    acked: BTreeMap<u64, MessageId>,
}

impl Device {
    async fn new(server: &Server, who: &str, seed: u64) -> Self {
        let weather = Conditions {
            loss_percent: 8.0,
            delay_ms: 25,
            jitter_ms: 15,
            duplicate_percent: 1.0,
            outages: Some(Outages { every_ms: 1_500, last_ms: 300 }),
            ..Conditions::default()
        };
        let plan = Plan {
            listen: "127.0.0.1:0".parse().unwrap(),
            server: server.address,
            profile: LinkProfile::symmetric(weather),
            seed,
            protocol: Protocol::Udp,
            sharing: Sharing::One,
            captures: Captures::default(),
        };
        Self {
            path: Profile::path(&server.data, who),
            keeps_mail: who == WITH_MAIL,
            relay: Relay::start(plan).await.unwrap(),
            random: Stream::of(seed, who),
            channels: [ChannelId::group(0); 2],
            log: Log::new(),
            written: BTreeMap::new(),
            tags: 0,
            acked: BTreeMap::new(),
        }
    }

    fn connect(&self) -> (Client, Events) {
        let profile = Profile::load(&self.path).unwrap();
        let store = Profile::store_path(&self.path);
        let mut store = DiskStore::open(&store, profile.uin(), profile.device()).unwrap();
        if self.keeps_mail {
            store = store.with_mail(MailLimits::default());
        }
        let mut options = Options::from_profile(&profile, Box::new(store)).unwrap();
        options.server = self.relay.address().to_string();
        Client::connect(options).unwrap()
    }

    /// Comes and goes, so many times.
    async fn live(&mut self, times: u32) {
        for _ in 0..times {
            let (client, mut events) = self.connect();
            self.write(&client);
            let there = Duration::from_millis(self.random.below(THERE_MS_MAX));
            let end = Instant::now() + there;
            while let Ok(event) = timeout_at(end, events.next()).await {
                self.take(&client, &event.expect("nobody ends the session"));
            }
            // What stands in `events` now was not looked at: it must come again.
            client.close().await;
            let away = Duration::from_millis(self.random.below(AWAY_MS_MAX));
            tokio::time::sleep(away).await;
        }
    }

    fn write(&mut self, client: &Client) {
        for _ in 0..self.random.below(MESSAGES_MAX + 1) {
            let channel = self.random.pick(&self.channels).unwrap();
            self.tags += 1;
            let text = format!("{} of {}", self.tags, self.path.display());
            client.send_nowait(channel, content_type::TEXT, text, self.tags).unwrap();
            *self.written.entry(channel).or_default() += 1;
        }
    }

    fn take(&mut self, client: &Client, event: &Event) {
        match event {
            Event::Message(_) if self.keeps_mail => {}
            Event::Message(message) => {
                let log = self.log.entry(message.position.channel).or_default();
                log.push(entry(message));
            }
            Event::Result(result) => {
                let SendOutcome::Acked { id, .. } = result.outcome else {
                    panic!("{}: {result:?}", self.path.display());
                };
                let before = self.acked.insert(result.tag, id);
                assert!(before.is_none_or(|before| before == id), "{result:?}, first {before:?}");
            }
            Event::Gap { .. } | Event::HistoryRestarted { .. } => panic!("{event:?}"),
            _ => {}
        }
        client.confirm(event);
    }

    /// Is there until it has all answers and so many messages of each channel.
    async fn settle(&mut self, expected: &BTreeMap<ChannelId, u64>) {
        let (client, mut events) = self.connect();
        self.look_into_mail(&client).await;
        while !self.has(expected) {
            let event = timeout(PATIENCE, events.next()).await.unwrap_or_else(|_| {
                panic!("{} waits, {}", self.path.display(), self.progress(expected))
            });
            self.take(&client, &event.expect("nobody ends the session"));
            self.look_into_mail(&client).await;
        }
        client.close().await;
    }

    /// The log of a device that keeps its messages is what it kept.
    async fn look_into_mail(&mut self, client: &Client) {
        for channel in self.channels.into_iter().filter(|_| self.keeps_mail) {
            let query = MailQuery { channel, before: None, limit: ALL };
            let page = client.mail(query).await.unwrap();
            let placed = page.into_iter().rev().filter(|kept| kept.id > MessageId(0));
            self.log.insert(channel, placed.map(kept_entry).collect());
        }
    }

    fn has(&self, expected: &BTreeMap<ChannelId, u64>) -> bool {
        let all = expected.iter().all(|(channel, count)| self.count(*channel) >= *count);
        all && self.acked.len() as u64 == self.tags
    }

    fn count(&self, channel: ChannelId) -> u64 {
        self.log.get(&channel).map_or(0, Vec::len) as u64
    }

    fn progress(&self, expected: &BTreeMap<ChannelId, u64>) -> String {
        let (acked, written) = (self.acked.len(), self.tags);
        let channels = expected.iter().map(|(channel, n)| (channel, self.count(*channel), n));
        format!("acked {acked} of {written}, has {:?}", channels.collect::<Vec<_>>())
    }
}

fn kept_entry(kept: KeptMessage) -> Entry {
    let KeptMessage { id, sender, device, key, kind, content, .. } = kept;
    Entry { id, sender, device, key: key.expect("it stands in its channel"), kind, content }
}

fn entry(message: &Message) -> Entry {
    Entry {
        id: message.position.id,
        sender: message.sender,
        device: message.device,
        key: message.key,
        kind: message.kind,
        content: message.content.clone(),
    }
}

/// The first device makes a group with bob; both channels that all write in.
async fn make_channels(first: &mut Device, data: &Path) -> [ChannelId; 2] {
    let uin = |who| Profile::load(&Profile::path(data, who)).unwrap().uin();
    let (client, _events) = first.connect();
    let group = client.create_group("crew", GroupSettings::default(), &[uin("bob")]).await;
    client.close().await;
    [ChannelId::direct(uin("ann"), uin("bob")), group.unwrap()]
}

/// How many messages each channel must hold: what was written, and the group's beginning.
fn expected(devices: &[Device]) -> BTreeMap<ChannelId, u64> {
    let mut expected = BTreeMap::from([(devices[0].channels[1], 1)]);
    for (channel, count) in devices.iter().flat_map(|device| &device.written) {
        *expected.entry(*channel).or_default() += count;
    }
    expected
}

/// Compares all logs with the first one, and that one with what was acked.
fn judge(devices: &[Device], expected: &BTreeMap<ChannelId, u64>) {
    let first = &devices[0].log;
    for (channel, count) in expected {
        let ids: Vec<u64> = first[channel].iter().map(|entry| entry.id.0).collect();
        assert_eq!(ids, (1..=*count).collect::<Vec<_>>(), "{channel}");
    }
    for device in devices {
        assert_eq!(&device.log, first, "{}", device.path.display());
        let own = Profile::load(&device.path).unwrap();
        let mut shown: Vec<MessageId> = first
            .values()
            .flatten()
            .filter(|entry| entry.kind == message_kind::CONTENT)
            .filter(|entry| (entry.sender, entry.device) == (own.uin(), own.device()))
            .map(|entry| entry.id)
            .collect();
        let mut acked: Vec<MessageId> = device.acked.values().copied().collect();
        shown.sort_unstable();
        acked.sort_unstable();
        assert_eq!(shown, acked, "{}", device.path.display());
    }
}

#[tokio::test]
async fn three_devices_that_come_and_go_end_with_identical_logs() {
    let (seed, times) = (seed_from_env(1), support::scaled(TIMES_AWAY));
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let server = Server::start(&data, ANY_PORT, &["--sends-per-second", "1000000"]);
    server.user("ann");
    server.device("ann", "tablet");
    server.device("ann", "laptop");
    server.user("bob");
    let mut devices = Vec::new();
    for (seed, who) in (seed..).zip(DEVICES) {
        devices.push(Device::new(&server, who, seed).await);
    }
    let channels = make_channels(&mut devices[0], &data).await;
    devices.iter_mut().for_each(|device| device.channels = channels);
    let [ann, tablet, laptop, bob] = &mut devices[..] else { panic!("four devices") };
    tokio::join!(ann.live(times), tablet.live(times), laptop.live(times), bob.live(times));
    let all = expected(&devices);
    let [ann, tablet, laptop, bob] = &mut devices[..] else { panic!("four devices") };
    tokio::join!(ann.settle(&all), tablet.settle(&all), laptop.settle(&all), bob.settle(&all));
    judge(&devices, &all);
    let mut packets = Counts::default();
    for device in &devices {
        let figures = device.relay.figures();
        packets += figures.up;
        packets += figures.down;
    }
    println!(
        "TEST three devices away seed={seed} n={} devices={} away={} lost=0 dup=0 reorder=0 \
         packets={} lost_packets={}",
        all.values().sum::<u64>(),
        devices.len(),
        times * DEVICES.len() as u32,
        packets.offered,
        packets.lost,
    );
    server.stop();
}
