//! Groups on the real server: who is in one gets every message once and in order, also through
//! `kill -9`; who was away gets what was his; who left or was removed gets nothing said after.
#![expect(
    clippy::unwrap_used,
    reason = "a test may stop at the first thing that is not as it should be"
)]

mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use support::server::{ANY_PORT, Server};
use tempfile::TempDir;
use tern_client::group::{GroupChange, GroupSettings, Role};
use tern_client::machine::{Event, SendOutcome};
use tern_client::profile::Profile;
use tern_client::store::DiskStore;
use tern_client::{Client, Events, GroupError, Options};
use tern_protocol::frames::content_type;
use tern_protocol::{ChannelId, Code, Uin};

/// Nothing that must come takes longer than this.
const PATIENCE: Duration = Duration::from_secs(60);

/// Messages of each part of a story, unless `TERN_SOAK` wants more.
const MESSAGES: u32 = 30;

/// What a device was shown of one channel.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
struct View {
    /// What was said or done, by its id.
    shown: BTreeMap<u64, String>,
    /// Ids that are not for its user.
    hidden: u64,
    /// Ids that came twice, or out of order.
    wrong: Vec<u64>,
}

impl View {
    fn note(&mut self, id: u64, what: String) {
        let newest = self.shown.last_key_value().map_or(0, |(id, _)| *id);
        if id <= newest {
            self.wrong.push(id);
        }
        self.shown.insert(id, what);
    }

    fn newest(&self) -> u64 {
        self.shown.last_key_value().map_or(0, |(id, _)| *id)
    }

    fn ids(&self) -> Vec<u64> {
        self.shown.keys().copied().collect()
    }
}

/// A server, and the devices of its users.
struct House {
    server: Option<Server>,
    port: String,
    data: PathBuf,
    _folder: TempDir,
}

impl House {
    /// With these users and devices; `NAME.LABEL` is a further device of a user.
    fn new(devices: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        let server = Server::start(&data, ANY_PORT, &["--sends-per-second", "1000000"]);
        for who in devices {
            match who.split_once('.') {
                Some((name, label)) => server.device(name, label),
                None => server.user(who),
            };
        }
        let port = Profile::load(&Profile::path(&data, devices[0])).unwrap().server;
        Self { server: Some(server), port, data, _folder: folder }
    }

    /// `kill -9`, and a new process on the same folder and port.
    fn crash(&mut self) {
        self.server.take().unwrap().kill();
        self.server =
            Some(Server::start(&self.data, &self.port, &["--sends-per-second", "1000000"]));
    }
}

/// A device that shows what comes.
struct Device {
    client: Client,
    uin: Uin,
    views: Arc<Mutex<BTreeMap<ChannelId, View>>>,
    listening: tokio::task::JoinHandle<()>,
}

impl Device {
    /// Goes on where an earlier life of the device stopped, `views` included.
    fn start(data: &Path, who: &str, views: BTreeMap<ChannelId, View>) -> Self {
        let path = Profile::path(data, who);
        let profile = Profile::load(&path).unwrap();
        let store = DiskStore::open(&Profile::store_path(&path), profile.uin(), profile.device());
        let options = Options::from_profile(&profile, Box::new(store.unwrap())).unwrap();
        let (client, events) = Client::connect(options).unwrap();
        let views = Arc::new(Mutex::new(views));
        let listening = tokio::spawn(listen(client.clone(), events, Arc::clone(&views)));
        Self { client, uin: profile.uin(), views, listening }
    }

    fn new(house: &House, who: &str) -> Self {
        Self::start(&house.data, who, BTreeMap::new())
    }

    fn view(&self, channel: ChannelId) -> View {
        self.views.lock().unwrap().get(&channel).cloned().unwrap_or_default()
    }

    async fn until(&self, channel: ChannelId, newest: u64) -> View {
        let start = Instant::now();
        while self.view(channel).newest() < newest {
            assert!(start.elapsed() < PATIENCE, "{}: {:?}", self.uin, self.view(channel).ids());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        self.view(channel)
    }

    /// Says so many things and waits until all are acked; the last id.
    async fn say(&self, channel: ChannelId, count: u32) -> u64 {
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

    async fn change(&self, channel: ChannelId, change: GroupChange) -> u64 {
        self.client.change_group(channel, &change).await.unwrap().unwrap().0
    }

    async fn refused(&self, channel: ChannelId, change: GroupChange) -> Code {
        match self.client.change_group(channel, &change).await {
            Err(GroupError::Refused { code, .. }) => code,
            other => panic!("{}: {other:?}", self.uin),
        }
    }

    /// The process ends; what it showed is remembered.
    async fn stop(self) -> BTreeMap<ChannelId, View> {
        self.client.close().await;
        self.listening.await.unwrap();
        Arc::try_unwrap(self.views).unwrap().into_inner().unwrap()
    }
}

async fn listen(client: Client, mut events: Events, views: Arc<Mutex<BTreeMap<ChannelId, View>>>) {
    while let Some(event) = events.next().await {
        match &event {
            Event::Message(message) => {
                let text = String::from_utf8_lossy(&message.content).into_owned();
                let what = message.change().map_or(text, |change| format!("{change:?}"));
                let mut views = views.lock().unwrap();
                let view = views.entry(message.position.channel).or_default();
                view.note(message.position.id.0, what);
            }
            Event::Gap { channel, from, to, code } => {
                assert_eq!(*code, Code::NotVisible, "{channel}: {from} to {to}");
                views.lock().unwrap().entry(*channel).or_default().hidden += to.0 - from.0 + 1;
            }
            Event::HistoryRestarted { channel, at } => panic!("{channel} restarted at {at}"),
            _ => {}
        }
        client.confirm(&event);
    }
}

/// The ids from one to another.
fn all(from: u64, to: u64) -> Vec<u64> {
    (from..=to).collect()
}

#[tokio::test]
async fn every_member_gets_everything_once_and_in_order_through_kills_of_the_server() {
    let mut house = House::new(&["ann", "bob", "bob.tablet", "cat"]);
    let [ann, bob, tablet, cat] =
        ["ann", "bob", "bob.tablet", "cat"].map(|who| Device::new(&house, who));
    let members = [bob.uin, cat.uin];
    let crew = ann.client.create_group("crew", GroupSettings::default(), &members).await.unwrap();
    let (count, mut last) = (support::scaled(MESSAGES), 0);
    for _ in 0..3 {
        let said = tokio::join!(
            ann.say(crew, count),
            bob.say(crew, count),
            tablet.say(crew, count),
            async {
                tokio::time::sleep(Duration::from_millis(30)).await;
                house.crash();
            }
        );
        last = said.0.max(said.1).max(said.2);
    }
    assert_eq!(last, 1 + 9 * u64::from(count), "each message has one id, and none is left out");
    let view = ann.until(crew, last).await;
    assert_eq!((view.ids(), view.hidden, &view.wrong), (all(1, last), 0, &Vec::new()));
    for device in [&bob, &tablet, &cat] {
        assert_eq!(device.until(crew, last).await, view);
    }
    println!("TEST groups n={last} devices=4 kills=3 lost=0 dup=0 reorder=0");
}

#[tokio::test]
async fn who_was_removed_while_away_gets_what_was_his_and_nothing_after() {
    let house = House::new(&["ann", "bob", "cat"]);
    let [ann, bob, cat] = ["ann", "bob", "cat"].map(|who| Device::new(&house, who));
    let members = [bob.uin, cat.uin];
    let crew = ann.client.create_group("crew", GroupSettings::default(), &members).await.unwrap();
    let before = ann.say(crew, MESSAGES).await;
    cat.until(crew, before).await;
    let views = cat.stop().await;
    let missed = ann.say(crew, MESSAGES).await;
    let kick = ann.change(crew, GroupChange::Kick(members[1..].to_vec())).await;
    assert_eq!(kick, missed + 1);
    let after = ann.say(crew, MESSAGES).await;

    let cat = Device::start(&house.data, "cat", views);
    let outcome = cat.client.send(crew, content_type::TEXT, "still here?").await.unwrap();
    assert_eq!(outcome, SendOutcome::Refused(Code::NotAMember));
    assert_eq!(cat.until(crew, kick).await.ids(), all(1, kick));
    // Another member who came later than cat's return has all of it, so it could have come to her.
    bob.until(crew, after).await;
    let view = cat.view(crew);
    assert_eq!((view.newest(), view.hidden, view.wrong), (kick, 0, Vec::new()));
    let refused = cat.client.group(crew).await;
    assert_eq!(refused, Err(GroupError::Refused { code: Code::NotAMember, member: None }));
}

#[tokio::test]
async fn newcomers_read_what_the_settings_let_them() {
    let house = House::new(&["ann", "bob", "cat", "dan"]);
    let [ann, bob, cat, dan] = ["ann", "bob", "cat", "dan"].map(|who| Device::new(&house, who));
    let crew = ann.client.create_group("crew", GroupSettings::default(), &[]).await.unwrap();
    let before = ann.say(crew, MESSAGES).await;
    let closed = bob.refused(crew, GroupChange::Join).await;
    assert_eq!(closed, Code::NotAMember, "that there is a closed group is told to nobody");
    let added = ann.change(crew, GroupChange::Add(vec![bob.uin])).await;
    assert_eq!(added, before + 1);
    let said = ann.say(crew, 1).await;
    let view = bob.until(crew, said).await;
    assert_eq!((view.ids(), view.hidden), (all(added, said), before));

    let open = GroupSettings { history_all: true, open: true, ..GroupSettings::default() };
    ann.change(crew, GroupChange::Settings(open)).await;
    let joined = cat.change(crew, GroupChange::Join).await;
    assert_eq!(cat.until(crew, joined).await.ids(), all(1, joined));
    assert_eq!(bob.refused(crew, GroupChange::Add(vec![dan.uin])).await, Code::NotAllowed);
    let stranger = ann.client.change_group(crew, &GroupChange::Add(vec![Uin(77_777)])).await;
    let (code, member) = (Code::NoSuchUser, Some(Uin(77_777)));
    assert_eq!(stranger, Err(GroupError::Refused { code, member }));
}

#[tokio::test]
async fn roles_decide_who_may_do_what_and_all_devices_agree_on_the_group() {
    let house = House::new(&["ann", "bob", "cat"]);
    let [ann, bob, cat] = ["ann", "bob", "cat"].map(|who| Device::new(&house, who));
    let members = [bob.uin, cat.uin];
    let crew = ann.client.create_group("crew", GroupSettings::default(), &members).await.unwrap();
    assert_eq!(bob.refused(crew, GroupChange::Rename("x".into())).await, Code::NotAllowed);
    assert_eq!(ann.refused(crew, GroupChange::Leave).await, Code::OwnerStays);
    let admin = GroupChange::Role { members: vec![bob.uin], role: Role::Admin };
    ann.change(crew, admin.clone()).await;
    assert_eq!(ann.client.change_group(crew, &admin).await, Ok(None), "all was so already");
    bob.change(crew, GroupChange::Rename("deck".into())).await;
    let until = tern_protocol::UnixMillis(u64::MAX / 2);
    bob.change(crew, GroupChange::Mute { members: vec![cat.uin], until }).await;
    let outcome = cat.client.send(crew, content_type::TEXT, "mmh").await.unwrap();
    assert_eq!(outcome, SendOutcome::Refused(Code::Muted));
    let owner = GroupChange::Role { members: vec![bob.uin], role: Role::Owner };
    ann.change(crew, owner).await;
    ann.change(crew, GroupChange::Leave).await;

    let group = bob.client.group(crew).await.unwrap();
    let members: Vec<_> = group.members.iter().map(|m| (m.uin, m.role, m.muted_until)).collect();
    let (free, muted) = (tern_protocol::UnixMillis(0), until);
    assert_eq!(group.name, "deck");
    assert_eq!(members, [(bob.uin, Role::Owner, free), (cat.uin, Role::Member, muted)]);
    assert_eq!(cat.client.group(crew).await, Ok(group));
    let end = bob.change(crew, GroupChange::Dissolve).await;
    cat.until(crew, end).await;
    let outcome = bob.client.send(crew, content_type::TEXT, "anyone?").await.unwrap();
    assert_eq!(outcome, SendOutcome::Refused(Code::GroupDissolved));
}
