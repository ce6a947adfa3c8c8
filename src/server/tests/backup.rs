//! Backups of a server at work, brought back under the same devices: what came after the backup
//! is told as void, nothing stands twice, nothing is taken for delivered that is not, and sends
//! go on; on another number of workers, and from the same backup more than once.
#![expect(
    clippy::unwrap_used,
    reason = "a test may stop at the first thing that is not as it should be"
)]

mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use support::server::{ANY_PORT, Server, tern};
use tern_client::machine::{Event, SendOutcome, State};
use tern_client::profile::Profile;
use tern_client::store::MemoryStore;
use tern_client::{Client, Events, Options};
use tern_protocol::ChannelId;
use tern_protocol::frames::content_type;

/// Nothing that must come takes longer than this.
const PATIENCE: Duration = Duration::from_secs(60);

/// Messages before the backup, while it is made at least, behind it, and in each life after it.
const MESSAGES: u64 = 60;

/// What a device knows of the channel: every message at its id, and from which ids on it was told
/// that what it knew is void.
#[derive(Default)]
struct View {
    kept: BTreeMap<u64, String>,
    restarts: Vec<u64>,
    repeated: Vec<u64>,
    epochs: Vec<u32>,
}

/// A device that listens all the time.
struct Listener {
    client: Arc<Client>,
    view: Arc<Mutex<View>>,
}

impl Listener {
    fn start(data: &Path, who: &str) -> Self {
        let profile = Profile::load(&Profile::path(data, who)).unwrap();
        let options = Options::from_profile(&profile, Box::new(MemoryStore::default())).unwrap();
        let (client, events) = Client::connect(options).unwrap();
        let (client, view) = (Arc::new(client), Arc::new(Mutex::new(View::default())));
        tokio::spawn(listen(Arc::clone(&client), events, Arc::clone(&view)));
        Self { client, view }
    }

    fn look<T>(&self, see: impl FnOnce(&View) -> T) -> T {
        see(&self.view.lock().unwrap())
    }

    async fn until(&self, what: &str, so: impl Fn(&View) -> bool) {
        let start = Instant::now();
        while !self.look(&so) {
            let shows =
                self.look(|view| format!("{:?}, {:?}", view.kept.keys().last(), view.restarts));
            assert!(start.elapsed() < PATIENCE, "no {what}: newest and restarts {shows}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

async fn listen(client: Arc<Client>, mut events: Events, view: Arc<Mutex<View>>) {
    while let Some(event) = events.next().await {
        let mut view = view.lock().unwrap();
        match &event {
            Event::Message(message) => {
                let (id, text) = (message.position.id.0, String::from_utf8_lossy(&message.content));
                if view.kept.insert(id, text.into_owned()).is_some() {
                    view.repeated.push(id);
                }
            }
            Event::HistoryRestarted { at, .. } => {
                view.restarts.push(at.0);
                view.kept.split_off(&at.0);
            }
            Event::State(State::Online { epoch, .. }) => view.epochs.push(epoch.0),
            Event::State(State::Ended(end)) => panic!("a device was sent away: {end:?}"),
            Event::Gap { from, to, code, .. } => panic!("{from} to {to} never come: {code}"),
            Event::State(_)
            | Event::Result(_)
            | Event::Read(_)
            | Event::Receipt(_)
            | Event::GroupReceipts(_)
            | Event::History(_)
            | Event::Unread(_)
            | Event::Identity { .. }
            | Event::ServerError { .. }
            | Event::GroupPage(_)
            | Event::Blocked { .. }
            | Event::BlockPage(_)
            | Event::GroupRefused { .. } => {}
        }
        client.confirm(&event);
    }
}

/// Who writes, and what was acked in the life that lasts.
struct Writer {
    listener: Listener,
    channel: ChannelId,
    written: u64,
    acked: BTreeMap<u64, String>,
}

impl Writer {
    /// Writes so many lines, one after the other.
    async fn write(&mut self, count: u64) {
        for _ in 0..count {
            self.written += 1;
            let text = format!("line {}", self.written);
            let sent = self.listener.client.send(self.channel, content_type::TEXT, text.clone());
            let outcome = tokio::time::timeout(PATIENCE, sent).await.expect("an answer").unwrap();
            let SendOutcome::Acked { id, .. } = outcome else { panic!("{text}: {outcome:?}") };
            assert_eq!(self.acked.insert(id.0, text), None, "no id is given twice in one life");
        }
    }

    fn newest(&self) -> u64 {
        *self.acked.keys().last().expect("something was acked")
    }
}

fn run(data: &Path, arguments: &[&str]) -> String {
    let output = tern(data, arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn refused(data: &Path, arguments: &[&str]) -> String {
    let output = tern(data, arguments).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {output:?}");
    String::from_utf8(output.stderr).unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

async fn back_up_while_writing(data: &Path, backup: &Path, writer: &mut Writer) {
    let (data, backup) = (data.to_owned(), backup.to_owned());
    let making = tokio::task::spawn_blocking(move || run(&data, &["backup", text(&backup)]));
    while !making.is_finished() {
        writer.write(1).await;
    }
    let said = making.await.unwrap();
    assert!(said.contains("written and read back"), "{said}");
}

#[tokio::test]
async fn yesterdays_copy_under_live_devices() {
    let folder = tempfile::tempdir().unwrap();
    let (data, backup) = (folder.path().join("data"), folder.path().join("backup"));
    let options = ["--sends-per-second", "1000000"];
    let mut server = Server::start(&data, ANY_PORT, &options);
    let listen = server.address.to_string();
    let (ann, bob) = (server.user("ann"), server.user("bob"));
    server.device("bob", "tablet");
    let devices = ["bob", "bob.tablet"].map(|who| Listener::start(&data, who));
    let listener = Listener::start(&data, "ann");
    let mut writer =
        Writer { listener, channel: ann.channel_with(&bob), written: 0, acked: BTreeMap::new() };
    writer.write(MESSAGES).await;

    let before = writer.newest();
    back_up_while_writing(&data, &backup, &mut writer).await;
    let while_made = writer.newest() - before;
    writer.write(MESSAGES).await;
    run(&data, &["user", "add", "carol"]);
    let newest = writer.newest();
    for device in &devices {
        device.until("message", |view| view.kept.contains_key(&newest)).await;
    }

    let (mut void, mut lives) = (0, 0);
    for workers in [3, 1] {
        let restored = folder.path().join(format!("restored-{workers}"));
        let said = run(&restored, &["restore", text(&backup)]);
        assert!(said.contains(&format!("rise by {} incarnations", lives + 1)), "{said}");
        server.kill();
        server = Server::start_with(&restored, &listen, workers, &options);
        lives += 1;
        for device in devices.iter().chain([&writer.listener]) {
            device.until("restart", |view| view.restarts.len() == lives).await;
        }
        // Everybody was told the same, and nothing that the backup has is void.
        let at = devices[0].look(|view| view.restarts[lives - 1]);
        assert!((before + 1..=newest + 1).contains(&at), "{at}");
        void += writer.acked.split_off(&at).len();
        for device in devices.iter().chain([&writer.listener]) {
            assert_eq!(device.look(|view| view.restarts[lives - 1]), at);
        }
        writer.write(MESSAGES).await;
        let newest = writer.newest();
        for device in &devices {
            device.until("new message", |view| view.kept.contains_key(&newest)).await;
            device.look(|view| {
                assert_eq!(view.kept, writer.acked, "all that is acked and not void, and no more");
                assert!(view.repeated.is_empty(), "{:?}", view.repeated);
                assert!(view.epochs.is_sorted_by(|a, b| a < b), "{:?}", view.epochs);
            });
        }
        assert_eq!(newest, writer.acked.len() as u64, "ids have no hole");
        let carol = server.user("carol");
        assert!(carol.uin.0 > 1_000_000, "her number of before is not given again");
        assert_eq!(server.device("bob", "phone").device.0, 1_003, "nor one of bob's");
    }
    println!(
        "TEST B-15 seed=- n={} while_made={while_made} void={void} lives={lives} lost=0 dup=0",
        writer.written,
    );
    server.stop();
}

#[test]
fn a_backup_is_whole_or_none() {
    let folder = tempfile::tempdir().unwrap();
    let (data, backup) = (folder.path().join("data"), folder.path().join("backup"));
    let nothing = refused(&data, &["backup", text(&backup)]);
    assert!(nothing.contains("no data folder"), "{nothing}");
    let server = Server::start(&data, ANY_PORT, &[]);
    server.user("ann");
    let inside = refused(&data, &["backup", text(&data.join("backup"))]);
    assert!(inside.contains("in the data folder itself"), "{inside}");
    run(&data, &["backup", text(&backup)]);
    let full = refused(&data, &["backup", text(&backup)]);
    assert!(full.contains("is there already"), "{full}");
    server.stop();
    // Without a server it works the same.
    let closed = folder.path().join("closed");
    run(&data, &["backup", text(&closed)]);
    let occupied = refused(&data, &["restore", text(&closed)]);
    assert!(occupied.contains("is there already"), "{occupied}");

    let to = folder.path().join("to");
    let fails = |backup: &Path, why: &str| {
        let reason = refused(&to, &["restore", text(backup)]);
        assert!(reason.contains(why), "{reason}");
        assert!(!to.exists(), "nothing is left of it");
        assert!(!folder.path().join("to.restoring").exists());
    };
    fails(&data, "backup.json");
    let files: Vec<PathBuf> = ["directory.sqlite", "folder", "log/shard-00/0000000001.seg"]
        .iter()
        .map(|name| closed.join(name))
        .collect();
    for file in &files {
        let good = std::fs::read(file).unwrap();
        let mut bad = good.clone();
        bad[20] ^= 1;
        std::fs::write(file, &bad).unwrap();
        fails(&closed, "has other content");
        std::fs::write(file, &good[..good.len() - 1]).unwrap();
        fails(&closed, "has another length");
        std::fs::remove_file(file).unwrap();
        fails(&closed, text(file));
        std::fs::write(file, &good).unwrap();
    }
    std::fs::remove_file(closed.join("backup.json")).unwrap();
    fails(&closed, "no complete backup");
    run(&to, &["restore", text(&backup)]);
    let server = Server::start(&to, ANY_PORT, &[]);
    assert!(server.tern(&["user", "list"]).contains("ann"));
    println!("TEST B-15 broken backups n={} refused", 3 * files.len() + 2);
    server.stop();
}
