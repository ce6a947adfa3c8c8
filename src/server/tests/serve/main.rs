//! The binary itself: a server comes up, takes commands, keeps others away, and goes down.
#![expect(
    clippy::unwrap_used,
    reason = "a test may stop at the first thing that is not as it should be"
)]

mod accounts;
mod child;
#[path = "../support/issuer.rs"]
#[allow(dead_code, reason = "the other tests of tokens use the rest")]
mod issuer;
mod tokens;

use std::io::Read;
use std::process::Command;

use child::{Server, TERN, done, profile, refused};
use rustix::process::Signal;

#[test]
fn a_server_takes_commands_and_goes_down_on_sigterm() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let server = Server::start(&data, &[]);
    assert!(server.plan.contains("2 workers"), "{}", server.plan);
    done(&data, &["user", "add", "ann"]);
    done(&data, &["device", "add", "ann", "--device", "phone"]);
    let (ann, phone) = (profile(&data, "ann"), profile(&data, "ann.phone"));
    assert_eq!(ann["server"].as_str(), Some(server.address.as_str()));
    assert_eq!((ann["device"].as_integer(), phone["device"].as_integer()), (Some(1), Some(2)));
    assert_ne!(ann["secret"], phone["secret"]);
    assert!(server.plan.contains(ann["pin"].as_str().unwrap()), "{}", server.plan);

    let status: serde_json::Value =
        serde_json::from_str(&done(&data, &["status", "--json"])).unwrap();
    assert_eq!(status["phase"], "ready");
    assert_eq!(status["workers"]["columns"].as_array().unwrap().len(), 2);
    assert_eq!(status["shards"]["columns"].as_array().unwrap().len(), 4);

    server.signal(Signal::TERM);
    let (status, rest) = server.end();
    assert!(status.success(), "{status}: {rest}");
    assert!(rest.ends_with("tern: stopped in order\n"), "{rest}");
    assert!(!data.join("control.sock").exists());
}

#[test]
fn commands_say_the_same_with_and_without_a_server() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    done(&data, &["user", "add", "ann"]);
    let alone = (
        done(&data, &["user", "list"]),
        done(&data, &["device", "list", "ann"]),
        refused(&data, &["device", "revoke", "ann", "7"], 1),
    );
    let server = Server::start(&data, &[]);
    let served = (
        done(&data, &["user", "list"]),
        done(&data, &["device", "list", "ann"]),
        refused(&data, &["device", "revoke", "ann", "7"], 1),
    );
    assert_eq!(alone, served);
    assert!(server.plan.contains(profile(&data, "ann")["pin"].as_str().unwrap()), "the same pin");
    assert_eq!(done(&data, &["stop"]).lines().count(), 1);
    assert!(server.end().0.success());
}

#[test]
fn a_second_server_is_told_why_it_cannot_be() {
    let folder = tempfile::tempdir().unwrap();
    let (data, other) = (folder.path().join("data"), folder.path().join("other"));
    let server = Server::start(&data, &[]);
    let reason = refused(&data, &["serve", "--listen", "127.0.0.1:0"], 5);
    let holder = format!("in use by process {}", server.child.id());
    assert!(reason.contains(&holder), "{reason}");
    let reason = refused(&other, &["serve", "--listen", &server.address], 5);
    let port = server.address.rsplit(':').next().unwrap();
    assert!(reason.contains(&format!("port {port}")), "{reason}");
    done(&data, &["status", "--json"]);
}

#[test]
fn a_killed_server_starts_again() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let server = Server::start(&data, &["--shards", "2"]);
    done(&data, &["user", "add", "ann"]);
    server.signal(Signal::KILL);
    assert!(!server.end().0.success());
    assert!(data.join("control.sock").exists(), "left by the killed one, and in nobody's way");

    let server = Server::start(&data, &["--ready-fd", "2"]);
    assert!(server.plan.contains("2 shards"), "{}", server.plan);
    assert!(done(&data, &["user", "list"]).contains("ann"));
    let address = server.address.clone();
    server.signal(Signal::INT);
    let mut server = server;
    let mut errors = String::new();
    server.child.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
    assert_eq!(errors, format!("{address}\n"), "the ready line on the descriptor");
    assert!(server.end().0.success());
    let reason = refused(&data, &["serve", "--shards", "3"], 1);
    assert!(reason.contains('2') && reason.contains('3'), "{reason}");
}

#[test]
fn wrong_usage_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path();
    let reason = refused(data, &["serve", "--content-bytes-max", "60001"], 2);
    assert!(reason.contains("content-bytes-max") && reason.contains("60000"), "{reason}");
    refused(data, &["user", "add", "a/b"], 2);
    let reason = refused(data, &["status"], 1);
    assert!(reason.contains("no server runs"), "{reason}");
    done(data, &["user", "add", "ann"]);
    let reason = refused(data, &["user", "add", "ann"], 1);
    assert!(reason.contains("tern device add"), "{reason}");
    std::fs::remove_file(data.join("profiles/ann.toml")).unwrap();
    let reason = refused(data, &["user", "add", "ann"], 1);
    assert!(reason.contains("already") && reason.contains("tern device add"), "{reason}");
    let help = Command::new(TERN).output().unwrap();
    let help = String::from_utf8([help.stdout, help.stderr].concat()).unwrap();
    assert!(help.contains("Try first") && help.contains("tern serve"), "{help}");
}
