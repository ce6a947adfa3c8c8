//! The mailbox that the SDK keeps on a device's disk, and `kill -9`.
//!
//! A device in a process of its own receives, reads and writes, and is killed at random moments,
//! again and again. After each kill its store is looked at as it lies there, beside what it had
//! said, and what the server knows of it by the receipts that its partner was told:
//!
//! - What it acked to the server stands in the mailbox, and its cursor is where the mailbox is.
//! - What it had said to be kept is kept, each message once.
//! - No message goes back: unsent, sending, acked; received, read.
//!
//! In the end both sides have the same channel. `TERN_SOAK` multiplies the number of kills;
//! `TERN_SEED` says which moments. What a power cut can do to the same file is in the tests of
//! the store.
#![expect(
    clippy::unwrap_used,
    reason = "a test may stop at the first thing that is not as it should be"
)]

mod device;
mod partner;
#[path = "../support/mod.rs"]
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use device::Said;
use partner::Partner;
use support::server::{ANY_PORT, Server};
use tern_client::mailbox::{KeptMessage, MailQuery, MailState};
use tern_client::profile::Profile;
use tern_client::store::Store;
use tern_protocol::{ChannelId, MessageId, Uin};
use tern_random::{Stream, seed_from_env};
use tokio::time::Instant;

/// Kills, unless `TERN_SOAK` wants more.
const KILLS: u32 = 15;

/// Most things that a device says before it is killed.
const SAID_MAX: u64 = 60;

/// Longest random time between these and the kill in µs: several commits of its store.
const MOMENT_US_MAX: u64 = 20_000;

/// Nothing that must come takes longer than this.
const PATIENCE: Duration = Duration::from_secs(60);

/// How often what is waited for is looked at.
const LOOK: Duration = Duration::from_millis(2);

/// More messages than there are.
const ALL: usize = 10_000_000;

/// The device's process.
struct Life {
    child: Child,
    said: Arc<Mutex<Vec<Said>>>,
    listener: JoinHandle<()>,
}

impl Life {
    fn begin(profile: &std::path::Path, server: &str, peer: Uin, number: u64) -> Self {
        let mut command = device::command(profile, server, peer, number);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut out = BufReader::new(child.stdout.take().expect("it is piped"));
        let said = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&said);
        let listener = std::thread::spawn(move || {
            let mut line = String::new();
            while out.read_line(&mut line).unwrap_or(0) > 0 && line.ends_with('\n') {
                heard.lock().unwrap().extend(Said::parse(line.trim_end()));
                line.clear();
            }
        });
        Self { child, said, listener }
    }

    fn count(&self) -> u64 {
        self.said.lock().unwrap().len() as u64
    }

    /// `kill -9`; everything that it said.
    fn kill(mut self) -> Vec<Said> {
        let ended = self.child.try_wait().unwrap();
        assert_eq!(ended, None, "the device ended by itself");
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.listener.join().unwrap();
        std::mem::take(&mut *self.said.lock().unwrap())
    }
}

/// What lies on the device's disk.
#[derive(Default)]
struct Lying {
    cursor: u64,
    read: u64,
    /// All messages by what they say, which no two do alike.
    mail: BTreeMap<String, (MailState, u64)>,
}

impl Lying {
    fn look(profile: &std::path::Path, channel: ChannelId) -> Self {
        let mut store = device::store(profile);
        let saved = store.load().unwrap();
        let at = |list: &[tern_client::machine::Position]| {
            let mut own = list.iter().filter(|at| at.channel == channel);
            own.next().map_or(0, |at| at.id.0)
        };
        let query = MailQuery { channel, before: None, limit: ALL };
        let mut mail = BTreeMap::new();
        for kept in store.mail(&query).unwrap() {
            let KeptMessage { state, id: MessageId(id), content, .. } = kept;
            let text = String::from_utf8(content.to_vec()).unwrap();
            let before = mail.insert(text.clone(), (state, id));
            assert_eq!(before, None, "{text} stands twice in the mailbox");
        }
        Self { cursor: at(&saved.cursors), read: at(&saved.reads), mail }
    }

    /// Whether it goes on from what lay there before: nothing is gone, nothing goes back.
    fn follows(&self, before: &Self) {
        assert!(self.cursor >= before.cursor && self.read >= before.read);
        for (text, (old, old_id)) in &before.mail {
            let (new, id) = self.mail.get(text).unwrap_or_else(|| panic!("{text} is gone"));
            assert!(rank(*new) >= rank(*old), "{text} went back from {old:?} to {new:?}");
            assert!(id == old_id || *old_id == 0, "{text} moved from {old_id} to {id}");
        }
    }

    /// Whether mailbox and cursor say the same, and hold what was told to the server, which says
    /// that so much was consumed and read.
    fn agrees(&self, partner: &Partner, is_end: bool) {
        let (cursor, read) = (self.cursor, self.read);
        assert!(partner.delivered <= cursor, "the server was told of {}", partner.delivered);
        assert!(partner.read <= read && read <= cursor, "read {read}, server {}", partner.read);
        let placed = self.mail.values().filter(|(_, id)| *id > 0);
        let ids: BTreeSet<u64> = placed.clone().map(|(_, id)| *id).collect();
        assert_eq!(ids.len(), placed.count(), "two messages stand at one place");
        let missing: Vec<u64> = (1..=cursor).filter(|id| !ids.contains(id)).collect();
        assert!(missing.is_empty(), "the cursor {cursor} passed {missing:?}");
        for (number, id) in &partner.places {
            let kept = self.mail.get(&partner::text(*number));
            assert!(kept.is_some_and(|(_, at)| at == id) || *id > cursor, "bob {number} at {id}");
        }
        for (text, (state, id)) in &self.mail {
            let expected = match state {
                MailState::Received => *id > read,
                MailState::Read => *id <= read,
                MailState::Acked => *id > 0,
                MailState::Unsent | MailState::Sending => *id == 0 && !is_end,
                MailState::Refused(_) | MailState::Recalled => false,
            };
            assert!(expected, "{text} is {state:?} at {id}, read {read}");
        }
    }

    /// Whether everything that the device said to be on the disk is there.
    fn holds(&self, said: &[Said]) {
        for said in said {
            let kept = |tag: u64| {
                let text = device::text(tag);
                *self.mail.get(&text).unwrap_or_else(|| panic!("{text} was kept: {said:?}"))
            };
            match *said {
                Said::Kept(tag) => {
                    kept(tag);
                }
                Said::Acked(tag, id) => assert_eq!(kept(tag), (MailState::Acked, id), "{tag}"),
                Said::Read(id) => assert!(self.read >= id, "read {} after {id}", self.read),
            }
        }
    }
}

/// How far a message has come; it never comes back.
fn rank(state: MailState) -> u8 {
    match state {
        MailState::Unsent | MailState::Received => 0,
        MailState::Sending | MailState::Read => 1,
        MailState::Acked => 2,
        MailState::Refused(_) | MailState::Recalled => panic!("{state:?}: nobody does that here"),
    }
}

/// Everything that goes on through all lives of the device.
struct World {
    profile: PathBuf,
    address: String,
    channel: ChannelId,
    peer: Uin,
    partner: Partner,
    random: Stream,
    lying: Lying,
    /// Lives whose store held messages that waited for an answer.
    found_waiting: u32,
    said: u64,
}

impl World {
    fn new(server: &Server, seed: u64) -> Self {
        let (ann, bob) = (server.user("ann"), server.user("bob"));
        let channel = ann.channel_with(&bob);
        Self {
            profile: Profile::path(&server.data, "ann"),
            address: server.address.to_string(),
            channel,
            peer: bob.uin,
            partner: Partner::new(&Profile::path(&server.data, "bob"), channel),
            random: Stream::new(seed),
            lying: Lying::default(),
            found_waiting: 0,
            said: 0,
        }
    }

    /// One life of the device, to its kill, and what lies there then.
    async fn live_and_die(&mut self, number: u64) {
        let life = Life::begin(&self.profile, &self.address, self.peer, number);
        let said = self.random.below(SAID_MAX);
        let deadline = Instant::now() + PATIENCE;
        while life.count() < said {
            assert!(Instant::now() < deadline, "the device said {} of {said}", life.count());
            self.partner.live_for(LOOK).await;
        }
        let moment = Duration::from_micros(self.random.below(MOMENT_US_MAX));
        self.partner.live_for(moment).await;
        let said = life.kill();
        // What is under way from the dead still counts.
        self.partner.listen_for(LOOK).await;
        let lying = Lying::look(&self.profile, self.channel);
        lying.agrees(&self.partner, false);
        lying.follows(&self.lying);
        lying.holds(&said);
        self.found_waiting += u32::from(lying.mail.values().any(|(_, id)| *id == 0));
        self.said += said.len() as u64;
        self.lying = lying;
    }

    /// The device lives once more, in this process, until both sides have everything.
    async fn settle(&mut self) {
        let (client, mut events) = device::connect(&self.profile, &self.address);
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.partner.listen_for(LOOK).await;
            // New keys are given only when all results under old ones are confirmed.
            let results = tokio::time::timeout(LOOK, events.next_many(ALL)).await;
            results.iter().flatten().for_each(|event| client.confirm(event));
            let query = MailQuery { channel: self.channel, before: None, limit: ALL };
            let mail = client.mail(query).await.unwrap();
            let open = (self.partner.open(), mail.iter().filter(|kept| kept.id.0 == 0).count());
            let count = self.partner.count();
            if open == (0, 0) && mail.len() == count {
                break;
            }
            let kept = mail.len();
            assert!(Instant::now() < deadline, "open {open:?}, kept {kept} of {count}");
        }
        client.close().await;
        let lying = Lying::look(&self.profile, self.channel);
        lying.follows(&self.lying);
        self.lying = lying;
    }

    /// Whether both sides have the same channel, each message once.
    fn judge(&self) -> u64 {
        self.lying.agrees(&self.partner, true);
        let own = |number: &u64| partner::text(*number);
        let written = self.partner.places.iter().map(|(number, id)| (*id, own(number)));
        let all: BTreeMap<u64, String> = written.chain(self.partner.came.clone()).collect();
        let kept: BTreeMap<u64, String> =
            self.lying.mail.iter().map(|(text, (_, id))| (*id, text.clone())).collect();
        assert_eq!(kept, all);
        let count = all.len() as u64;
        assert!(kept.into_keys().eq(1..=count), "ids are contiguous");
        count
    }
}

/// Not a test of its own: the device, where the environment says so.
#[test]
fn child() {
    device::live();
}

#[tokio::test]
async fn mailbox_and_cursor_agree_whenever_the_device_is_killed() {
    let (seed, kills) = (seed_from_env(1), support::scaled(KILLS));
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let server = Server::start(&data, ANY_PORT, &["--sends-per-second", "1000000"]);
    let mut world = World::new(&server, seed);
    for number in 0..u64::from(kills) {
        world.live_and_die(number).await;
    }
    let (delivered, read) = (world.partner.delivered, world.partner.read);
    world.settle().await;
    let count = world.judge();
    println!(
        "TEST B-08 mailbox seed={seed} n={count} lost=0 dup=0 kills={kills} said={} \
         found_waiting={} delivered={delivered} read={read}",
        world.said, world.found_waiting,
    );
    assert!(delivered > 0 && read > 0, "the server was told nothing: the test saw nothing");
    server.stop();
}
