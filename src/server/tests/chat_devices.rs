//! Two users, three devices: each device prints the same messages in the same order, whether it
//! listens while they are sent, comes later, or sent them itself.
#![expect(
    clippy::unwrap_used,
    reason = "a test may stop at the first thing that is not as it should be"
)]

mod support;

use std::path::Path;
use std::process::Output;
use std::sync::mpsc::{Receiver, sync_channel};

use support::commands::{Heard, Talking};
use support::server::{ANY_PORT, Server, tern};
use tempfile::TempDir;

/// Messages in each direction, unless `TERN_SOAK` wants more.
const MESSAGES: u32 = 40;

/// Nothing that must come takes longer than this.
const PATIENCE: &str = "60s";

/// A server with ann, and with bob and his tablet.
struct House {
    server: Server,
    _folder: TempDir,
}

impl House {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let options = ["--sends-per-second", "1000000"];
        let server = Server::start(&folder.path().join("data"), ANY_PORT, &options);
        server.user("ann");
        server.user("bob");
        server.device("bob", "tablet");
        Self { server, _folder: folder }
    }

    fn data(&self) -> &Path {
        &self.server.data
    }

    /// Sends lines and waits until all are acked; their ids.
    fn send(&self, from: &str, to: &str, count: u32) -> Vec<u64> {
        let (ear, heard) = sync_channel(count as usize + 1);
        let arguments = ["send", "--as", from, "--to", to, "--stdin", "--timeout", PATIENCE];
        let mut send = Talking::start(self.data(), &arguments, (), ear);
        for line in 1..=count {
            assert!(send.say(&format!("{line} from {from}")));
        }
        send.close();
        let status = send.end();
        let acks = lines(&heard);
        assert!(status.success(), "{from}: {status}, {acks:?}\n{}", self.server_says());
        acks.iter().map(|ack| ack.rsplit(' ').next().unwrap().parse().unwrap()).collect()
    }

    /// Starts a device that prints so many messages and ends.
    fn listen(&self, device: &str, count: u32) -> Listening {
        let (ear, heard) = sync_channel(count as usize + 1);
        let count = count.to_string();
        let arguments = ["recv", "--as", device, "--count", &count, "--timeout", PATIENCE];
        Listening { recv: Talking::start(self.data(), &arguments, (), ear), heard }
    }

    /// For a test that failed: how the server does, and what it complained about.
    fn server_says(&self) -> String {
        self.server.tern(&["status"]) + &self.server.errors()
    }

    fn run(&self, arguments: &[&str]) -> Output {
        tern(self.data(), arguments).output().unwrap()
    }
}

/// A device that prints what comes.
struct Listening {
    recv: Talking,
    heard: Receiver<((), Heard)>,
}

impl Listening {
    /// What it printed until it ended, which must be in time.
    fn end(self) -> Vec<String> {
        let status = self.recv.end();
        let shown = lines(&self.heard);
        assert!(status.success(), "{status}, {shown:?}");
        shown
    }
}

fn lines(heard: &Receiver<((), Heard)>) -> Vec<String> {
    heard.try_iter().filter_map(|((), line)| line).collect()
}

/// The ids, in the order of the lines.
fn ids(lines: &[String]) -> Vec<u64> {
    lines.iter().map(|line| line.split(' ').nth(1).unwrap().parse().unwrap()).collect()
}

/// The texts, in the order of the lines.
fn texts(lines: &[String]) -> Vec<String> {
    lines.iter().map(|line| line.splitn(7, ' ').nth(6).unwrap().to_owned()).collect()
}

#[test]
fn all_devices_print_the_same_in_the_same_order() {
    let house = House::new();
    let count = support::scaled(MESSAGES);
    let (bob, tablet) = (house.listen("bob", count), house.listen("bob.tablet", count));
    let acked = house.send("ann", "bob", count);
    let (bob, tablet) = (bob.end(), tablet.end());
    assert_eq!(ids(&bob), (1..=u64::from(count)).collect::<Vec<_>>());
    assert_eq!(acked, ids(&bob));
    assert_eq!(texts(&bob), (1..=count).map(|n| format!("{n} from ann")).collect::<Vec<_>>());
    assert_eq!(bob, tablet);

    // Bob answers while nobody listens; the ids go on, and everybody goes on where it stopped.
    let answered = house.send("bob", "ann", count);
    assert_eq!(answered, (u64::from(count) + 1..=2 * u64::from(count)).collect::<Vec<_>>());
    let tablet_later = house.listen("bob.tablet", count).end();
    assert_eq!(ids(&tablet_later), answered);
    assert_eq!(house.listen("bob", count).end(), tablet_later);

    // Ann's device has printed nothing yet: it has both halves, with what it sent itself.
    let ann = house.listen("ann", 2 * count).end();
    assert_eq!(ann, [tablet, tablet_later].concat());
    println!("TEST devices n={} devices=3 lost=0 dup=0 reorder=0", 2 * count);
    house.server.stop();
}

#[test]
fn both_write_at_once_and_all_see_one_order() {
    let house = House::new();
    let count = support::scaled(MESSAGES);
    let tablet = house.listen("bob.tablet", 2 * count);
    std::thread::scope(|scope| {
        scope.spawn(|| house.send("ann", "bob", count));
        scope.spawn(|| house.send("bob", "ann", count));
    });
    let tablet = tablet.end();
    assert_eq!(ids(&tablet), (1..=2 * u64::from(count)).collect::<Vec<_>>());
    for name in ["ann", "bob"] {
        let sent: Vec<String> = (1..=count).map(|n| format!("{n} from {name}")).collect();
        let suffix = format!(" from {name}");
        let shown = texts(&tablet).into_iter().filter(|text| text.ends_with(&suffix));
        assert_eq!(shown.collect::<Vec<_>>(), sent);
        assert_eq!(house.listen(name, 2 * count).end(), tablet, "{name}");
    }
    house.server.stop();
}

#[test]
fn a_device_is_one_process_at_a_time() {
    let house = House::new();
    let listening = house.listen("bob", 2);
    assert_eq!(house.send("ann", "bob", 1), [1]);
    let first = listening.heard.recv().unwrap().1.unwrap();
    let second = house.run(&["recv", "--as", "bob", "--timeout", "1s"]);
    let reason = String::from_utf8(second.stderr).unwrap();
    assert_eq!(second.status.code(), Some(5), "{reason}");
    assert!(reason.contains("tern device add bob"), "{reason}");
    assert_eq!(house.send("ann", "bob", 1), [2]);
    assert_eq!(ids(&[vec![first], listening.end()].concat()), [1, 2]);
    house.server.stop();
}
