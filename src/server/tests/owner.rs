//! One data folder, one owner, with real processes: who comes second is refused; what a dead
//! holder left is in nobody's way; a server that was stopped while an operator forced another one
//! onto its folder does no harm when it goes on.
#![expect(
    clippy::unwrap_used,
    reason = "a test may stop at the first thing that is not as it should be"
)]

mod support;

use std::path::Path;
use std::process::Output;

use rustix::process::Signal;
use support::server::{ANY_PORT, Server, tern};

/// How long a stopped and taken server's clients try it, and it must not answer them with an ack.
const TRIES: &str = "3s";

fn run(data: &Path, arguments: &[&str]) -> Output {
    tern(data, arguments).output().unwrap()
}

fn send(server: &Server, text: &str, more: &[&str]) -> Output {
    let address = server.address.to_string();
    let arguments = ["send", "--as", "ann", "--to", "bob", "--server", &address];
    run(&server.data, &[&arguments, more, &[text]].concat())
}

/// What bob has, in order, from the server that owns the folder.
fn received(server: &Server, count: usize) -> Vec<String> {
    let (address, count) = (server.address.to_string(), count.to_string());
    let arguments =
        ["recv", "--as", "bob", "--server", &address, "--count", &count, "--timeout", "60s"];
    let output = run(&server.data, &arguments);
    assert!(output.status.success(), "{output:?}");
    let lines = String::from_utf8(output.stdout).unwrap();
    lines.lines().map(|line| line.splitn(7, ' ').nth(6).unwrap().to_owned()).collect()
}

#[test]
fn a_server_that_goes_on_after_a_takeover_does_no_harm() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let old = Server::start(&data, ANY_PORT, &["--shards", "1"]);
    old.user("ann");
    old.user("bob");
    assert!(send(&old, "one", &[]).status.success());

    // While the folder is held, also by a stopped process, nobody else gets it.
    old.signal(Signal::STOP);
    let refused = run(&data, &["serve", "--listen", ANY_PORT]);
    assert_eq!(refused.status.code(), Some(5), "{refused:?}");
    let reason = String::from_utf8(refused.stderr).unwrap();
    assert!(reason.contains(&format!("process {}", old.pid())), "{reason}");

    let silent = run(&data, &["status"]);
    assert_eq!(silent.status.code(), Some(1), "{silent:?}");
    let reason = String::from_utf8(silent.stderr).unwrap();
    assert!(reason.contains(&format!("`kill -CONT {}`", old.pid())), "{reason}");

    // What an operator can force, by removing the locks.
    for lock in ["tern.lock", "lock"] {
        std::fs::remove_file(data.join(lock)).unwrap();
    }
    // The directory's database has a lock of its own, which only a copy is free of.
    for part in ["directory.sqlite", "directory.sqlite-wal"] {
        let (held, copy) = (data.join(part), data.join("copy"));
        std::fs::copy(&held, &copy).unwrap();
        std::fs::rename(&copy, &held).unwrap();
    }
    let new = Server::start(&data, ANY_PORT, &["--shards", "1"]);
    let texts: Vec<String> = (0..20).map(|number| format!("new {number}")).collect();
    for text in &texts {
        assert!(send(&new, text, &[]).status.success());
    }

    old.signal(Signal::CONT);
    let late = send(&old, "late", &["--timeout", TRIES]);
    let acked = String::from_utf8(late.stdout).unwrap();
    assert!(!late.status.success() && !acked.contains("acked"), "{acked}");
    let (status, errors) = old.ended();
    assert_eq!(status.code(), Some(5), "{errors}");
    assert!(errors.contains("another process has taken the data folder"), "{errors}");

    // The new one serves on; the line that the old one did not ack is the sender's own to send.
    assert!(data.join("control.sock").exists(), "the old one took nothing away");
    assert!(send(&new, "after", &[]).status.success());
    let mut all = vec!["one".to_owned()];
    all.extend(texts);
    let mut shown = received(&new, all.len() + 2);
    assert_eq!(shown.split_off(all.len()), ["late", "after"], "once each");
    assert_eq!(shown, all);
    let listen = new.address.to_string();
    new.kill();
    let again = Server::start(&data, &listen, &[]);
    assert!(send(&again, "again", &[]).status.success());
    assert_eq!(received(&again, 1), ["again"]);
    again.stop();
    println!("TEST C-06 seed=- n={} lost=0 dup=0 acked_by_the_stopped=0", all.len() + 3);
}
