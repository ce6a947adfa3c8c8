//! Looking back with the commands: pages from the server, what retention has cut, what a new device
//! takes, and the list of a user's groups.
#![expect(
    clippy::unwrap_used,
    reason = "a test may stop at the first thing that is not as it should be"
)]

mod support;

use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::Value;
use support::server::{ANY_PORT, Server, tern};
use tempfile::TempDir;

/// Messages that ann writes to bob: more than two pages.
const MESSAGES: u64 = 75;

/// A server with ann, bob and bob's second device, and what ann wrote to bob.
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
        server.device("bob", "new");
        let house = Self { server, _folder: folder };
        house.send(1, MESSAGES);
        house
    }

    /// Ann sends these, in order.
    fn send(&self, from: u64, to: u64) {
        let arguments = ["send", "--as", "ann", "--to", "bob", "--stdin"];
        let mut send = tern(&self.server.data, &arguments);
        let mut send = send.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let mut input = send.stdin.take().unwrap();
        (from..=to).for_each(|n| writeln!(input, "line {n}").unwrap());
        drop(input);
        assert!(send.wait().unwrap().success());
    }

    /// The objects that a command prints, one a line.
    fn json(&self, arguments: &[&str]) -> Vec<Value> {
        let printed = self.server.tern(&[arguments, &["--json", "--timeout", "60s"]].concat());
        printed.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// What `tern group` prints, whose options stand before its own commands.
    fn group(&self, who: &str, command: &[&str]) -> String {
        let mut tern = Command::new(env!("CARGO_BIN_EXE_tern"));
        tern.arg("group").arg("--data").arg(&self.server.data).args(["--as", who]);
        let output = tern.args(["--timeout", "60s"]).args(command).output().unwrap();
        assert!(output.status.success(), "{command:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn history(&self, arguments: &[&str]) -> Vec<u64> {
        let command = [&["history", "--as", "bob", "ann"], arguments].concat();
        ids(&self.json(&command))
    }
}

fn ids(messages: &[Value]) -> Vec<u64> {
    messages.iter().map(|message| message["id"].as_str().unwrap().parse().unwrap()).collect()
}

#[test]
fn history_is_paged_back_and_consumes_nothing() {
    let house = House::new();
    assert_eq!(house.history(&[]), (56..=75).collect::<Vec<_>>(), "a screenful by default");
    assert_eq!(house.history(&["--limit", "70"]), (6..=75).collect::<Vec<_>>());
    assert_eq!(house.history(&["--before", "56", "--limit", "50"]), (6..=55).collect::<Vec<_>>());
    assert_eq!(house.history(&["--before", "6"]), (1..=5).collect::<Vec<_>>());
    assert_eq!(house.history(&["--limit", "1000"]), (1..=75).collect::<Vec<_>>());
    assert!(house.history(&["--before", "1"]).is_empty());
    let all = house.json(&["recv", "--as", "bob", "--count", "75"]);
    assert_eq!(ids(&all), (1..=75).collect::<Vec<_>>(), "all of them still come");

    let stranger = ["history", "--as", "bob", "g17", "--timeout", "60s"];
    let refused = tern(&house.server.data, &stranger).output().unwrap();
    assert!(!refused.status.success());
    assert!(String::from_utf8(refused.stderr).unwrap().contains("NOT_GRANTED"));

    let recall = ["recall", "--as", "ann", "--to", "bob", "75"];
    house.server.tern(&recall);
    let text = house.server.tern(&["history", "--as", "bob", "ann", "--limit", "3"]);
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].ends_with(" line 74"), "{text}");
    assert!(lines[1].ends_with(" 75-75 RECALLED"), "{text}");
    assert!(lines[2].ends_with(" * recalled 75"), "{text}");
    println!("TEST history commands n={MESSAGES} lost=0");
    house.server.stop();
}

#[test]
fn a_new_device_takes_what_it_wants_and_all_that_comes_later() {
    let house = House::new();
    let recv = ["recv", "--as", "bob.new", "--take-history", "5"];
    let first = house.json(&[&recv[..], &["--count", "5"]].concat());
    assert_eq!(ids(&first), (71..=75).collect::<Vec<_>>());
    house.send(76, 90);
    // It is no new device any more, whatever is said now.
    let later = ["recv", "--as", "bob.new", "--take-history", "none", "--count", "15"];
    assert_eq!(ids(&house.json(&later)), (76..=90).collect::<Vec<_>>());

    house.server.device("bob", "newer");
    let none = ["recv", "--as", "bob.newer", "--take-history", "none", "--timeout", "1s"];
    assert_eq!(house.server.tern(&none), "");
    house.send(91, 92);
    let both = ["recv", "--as", "bob.newer", "--count", "2"];
    assert_eq!(ids(&house.json(&both)), [91, 92]);
    let before = house.json(&["history", "--as", "bob.newer", "ann", "--before", "91"]);
    assert_eq!(ids(&before), (71..=90).collect::<Vec<_>>(), "and what it did not take is there");
    house.server.stop();
}

#[test]
fn the_groups_of_a_user_are_listed() {
    let house = House::new();
    let crew = house.group("ann", &["create", "crew", "--member", "bob"]).trim().to_owned();
    house.group("ann", &["create", "alone"]);
    house.server.tern(&["send", "--as", "ann", "--to", &crew, "hello"]);
    let listed = house.group("bob", &["list", "--json"]);
    let group: Value = serde_json::from_str(&listed).unwrap();
    assert_eq!((&group["channel"], &group["name"]), (&crew.clone().into(), &"crew".into()));
    assert_eq!((&group["members"], &group["role"]), (&2.into(), &"member".into()));
    assert_eq!(group["unread"], 1);
    let table = house.group("ann", &["list"]);
    assert_eq!(table.lines().count(), 3, "{table}");
    house.group("bob", &["leave", &crew]);
    assert_eq!(house.group("bob", &["list", "--json"]), "");
    house.server.stop();
}
