//! `tern trace` with the real binary: a message on its way to its devices, beside the server, after
//! `kill -9`, across runs, when the recorder has overwritten it, and where the log is damaged.
#![expect(
    clippy::unwrap_used,
    reason = "a test may stop at the first thing that is not as it should be"
)]
#![allow(clippy::print_stdout, reason = "a test tells its figures")]

mod support;

use std::io::Write;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::Value;
use support::commands::Talking;
use support::server::{ANY_PORT, Server, tern};

/// How long anything may take that must happen.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the command prints as JSON, and whether it found the message.
fn trace(data: &Path, channel: &str, id: u64) -> (Value, bool) {
    let output = tern(data, &["trace", channel, &id.to_string(), "--json"]).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let object = serde_json::from_str(&said);
    (object.unwrap_or_else(|e| panic!("{e}: {said}{:?}", output.stderr)), output.status.success())
}

/// What it prints for people.
fn text(data: &Path, channel: &str, id: u64) -> String {
    let output = tern(data, &["trace", channel, &id.to_string()]).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// What happened to a message, in order.
fn happened(trace: &Value) -> Vec<&str> {
    let moments = trace["recorder"]["moments"].as_array().unwrap();
    moments.iter().map(|moment| moment["what"].as_str().unwrap()).collect()
}

/// What one device has of it.
fn device(trace: &Value, uin: u64, device: u32) -> Option<&Value> {
    let devices = trace["recorder"]["devices"].as_array()?;
    let uin = Value::from(uin.to_string());
    devices.iter().find(|one| one["uin"] == uin && one["device"] == device)
}

/// Ann sends these lines to bob.
fn send(data: &Path, from: u64, to: u64) {
    let arguments = ["send", "--as", "ann", "--to", "bob", "--stdin"];
    let mut child = tern(data, &arguments);
    let mut child = child.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    (from..=to).for_each(|n| writeln!(input, "this is line {n}").unwrap());
    drop(input);
    assert!(child.wait().unwrap().success());
}

/// A server with ann, bob, and bob's tablet.
fn start(data: &Path, options: &[&str]) -> Server {
    let server = Server::start(data, ANY_PORT, options);
    server.user("ann");
    server.user("bob");
    server.device("bob", "tablet");
    server
}

#[test]
fn a_message_is_followed_to_each_device_also_after_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let server = start(&data, &[]);
    let (ann, bob) = (server.account("ann").uin.0, server.account("bob").uin.0);
    let (ear, heard) = std::sync::mpsc::sync_channel(64);
    let online = Talking::start(&data, &["recv", "--as", "bob"], (), ear);
    send(&data, 1, 3);
    (0..3).for_each(|_| assert!(heard.recv_timeout(PATIENCE).unwrap().1.is_some()));
    let acked = |trace: &Value| device(trace, bob, 1).is_some_and(|one| !one["acked"].is_null());
    let late = Instant::now() + PATIENCE;
    while !acked(&trace(&data, "ann-bob", 2).0) {
        assert!(Instant::now() < late, "{}", text(&data, "ann-bob", 2));
    }
    let (beside, found) = trace(&data, "ann-bob", 2);
    assert!(found);
    assert_eq!(beside["log"]["sender"], ann.to_string());
    assert_eq!(beside["log"]["content_bytes"], "this is line 2".len());
    assert!(!beside["log"]["proof"].is_null() || beside["log"]["state"] == "found");
    let order = happened(&beside);
    // On a slow machine a second copy may come, and be refused, before the first is appended.
    let first = |what| order.iter().position(|happened| *happened == what).unwrap();
    let [received, appended, committed] = ["received", "appended", "committed"].map(first);
    assert!(received < appended && appended < committed, "{order:?}");
    let one = device(&beside, bob, 1).unwrap();
    let [granted, pushed, acked] = ["granted", "pushed", "acked"].map(|at| one[at].as_i64());
    assert!(granted <= pushed && pushed < acked, "{one}");
    assert_eq!(one["pushes"], "1");
    assert!(device(&beside, bob, 2).is_none(), "the tablet never was online");
    let silent = &beside["recorder"]["silent"];
    assert!(silent.as_array().unwrap().iter().any(|one| one["label"] == "tablet"), "{silent}");
    let words = text(&data, "bob-ann", 2);
    for part in ["bob.tablet", "nothing recorded", "durable: the ack may leave", "pushed by"] {
        assert!(words.contains(part), "{part} is not in {words}");
    }
    assert!(!trace(&data, "ann-bob", 4).1, "there is no such message");
    assert!(text(&data, "ann-bob", 4).contains("the newest of this channel is 3"));

    let address = server.address.to_string();
    server.kill();
    drop(online);
    let (after, found) = trace(&data, &format!("{ann}-{bob}"), 2);
    assert!(found);
    assert_eq!(after["recorder"]["moments"], beside["recorder"]["moments"]);

    // The next run goes on in the same recorder.
    let server = Server::start(&data, &address, &[]);
    send(&data, 4, 4);
    let (next, _) = trace(&data, "ann-bob", 4);
    assert_eq!(next["recorder"]["moments"][0]["run"], 2);
    assert_eq!(happened(&trace(&data, "ann-bob", 2).0)[..3], order[..3]);
    server.stop();
    let (stopped, _) = trace(&data, "ann-bob", 4);
    assert_eq!(stopped["log"]["state"], "found");
    assert!(!stopped["log"]["proof"].is_null(), "closed in order: {}", stopped["log"]);
    println!("TEST trace n=4 moments={} lost=0", happened(&after).len());
}

#[test]
fn what_was_overwritten_is_said_and_a_recorder_that_is_off_too() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let fast = ["--sends-per-second", "100000", "--trace-bytes"];
    let server = start(&data, &[&fast[..], &["1"]].concat());
    send(&data, 1, 200);
    let (first, found) = trace(&data, "ann-bob", 1);
    assert!(found && first["log"]["state"] == "found");
    assert!(!happened(&first).contains(&"appended"), "{first}");
    let overwritten: u64 = first["recorder"]["overwritten"].as_str().unwrap().parse().unwrap();
    assert!(overwritten > 200);
    assert!(text(&data, "ann-bob", 1).contains("older moments were overwritten"));
    assert!(happened(&trace(&data, "ann-bob", 200).0).contains(&"appended"), "the newest is there");
    server.stop();
    Server::start(&data, ANY_PORT, &[&fast[..], &["0"]].concat()).stop();
    let (off, found) = trace(&data, "ann-bob", 1);
    assert!(found);
    assert!(off["recorder"]["missing"].as_str().unwrap().contains("trace-bytes"), "{off}");
    println!("TEST trace-overwritten n=200 overwritten={overwritten}");
}

/// The first file of the log that holds these bytes, and where.
fn find(data: &Path, bytes: &[u8]) -> (PathBuf, u64) {
    let shards = std::fs::read_dir(data.join("log")).unwrap();
    let files = shards.flat_map(|shard| std::fs::read_dir(shard.unwrap().path()).unwrap());
    let mut found = files.filter_map(|file| {
        let path = file.unwrap().path();
        let text = std::fs::read(&path).unwrap();
        let at = text.windows(bytes.len()).position(|some| some == bytes)?;
        Some((path, at as u64))
    });
    found.next().unwrap()
}

#[test]
fn the_log_tells_of_edits_recalls_and_damage() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let server = start(&data, &[]);
    send(&data, 1, 5);
    server.tern(&["edit", "--as", "ann", "--to", "bob", "2", "other words"]);
    server.tern(&["recall", "--as", "ann", "--to", "bob", "2"]);
    let (told, found) = trace(&data, "ann-bob", 2);
    let mentions = told["log"]["mentions"].as_array().unwrap();
    let mentions: Vec<_> = mentions.iter().map(|one| one["what"].as_str().unwrap()).collect();
    assert!(found && mentions == ["recalled", "edited"], "{told}");
    server.kill();

    let (path, at) = find(&data, b"this is line 3");
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    file.write_all_at(b"T", at).unwrap();
    let (lost, found) = trace(&data, "ann-bob", 3);
    assert!(!found && lost["log"]["state"] == "lost", "{lost}");
    assert_eq!(lost["log"]["damage_all"], "1");
    assert!(happened(&lost).contains(&"committed"), "the recorder still knows of it: {lost}");
    assert!(text(&data, "ann-bob", 3).contains("LOST"));
    for id in [1, 2, 4, 5] {
        assert!(trace(&data, "ann-bob", id).1, "message {id} is whole");
    }
    let recording = std::fs::read_link(data.join("moments")).unwrap();
    let file = std::fs::File::options().write(true).open(&recording).unwrap();
    file.write_all_at(b"nothing", 0).unwrap();
    let (told, found) = trace(&data, "ann-bob", 1);
    assert!(found, "the log alone is enough");
    assert!(told["recorder"]["missing"].as_str().unwrap().contains("damaged"), "{told}");
    let wrong = tern(&data, &["trace", "ann", "1"]).output().unwrap();
    assert_eq!(wrong.status.code(), Some(2), "no channel");
    println!("TEST trace-damage n=7 lost=1 named=1");
}
