//! What scripts rely on in `tern send`, `recv` and `chat`: exit codes, answers by line, what is
//! kept when a command ends early, and what is shown.
#![expect(
    clippy::unwrap_used,
    reason = "a test may stop at the first thing that is not as it should be"
)]

mod support;

use std::io::Write;
use std::path::Path;
use std::process::{Output, Stdio};

use support::server::{ANY_PORT, Server, tern};
use tempfile::TempDir;

/// Nothing that must come takes longer than this.
const PATIENCE: &str = "60s";

/// A server with ann and bob.
fn house() -> (Server, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(&folder.path().join("data"), ANY_PORT, &[]);
    server.user("ann");
    server.user("bob");
    (server, folder)
}

/// Runs a command to its end, fed with `input`.
fn run(data: &Path, arguments: &[&str], input: &str) -> Output {
    let mut command = tern(data, arguments);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A command that does not read may have ended already.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn complained(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// The texts that bob prints, so many.
fn received(data: &Path, count: &str) -> Vec<String> {
    let arguments = ["recv", "--as", "bob", "--count", count, "--timeout", PATIENCE];
    let output = run(data, &arguments, "");
    assert!(output.status.success(), "{output:?}");
    let lines = said(&output);
    lines.lines().map(|line| line.splitn(7, ' ').nth(6).unwrap().to_owned()).collect()
}

#[test]
fn the_exit_code_says_what_became_of_a_message() {
    let (server, _folder) = house();
    let data = server.data.as_path();
    let wrong_pin = "00".repeat(32);
    let cases: [(&[&str], i32, &str); 7] = [
        (&["--as", "ann", "--to", "bob", "hello", "bob"], 0, ""),
        (&["--as", "ann", "--to", "10002", "by number"], 0, ""),
        (&["--as", "ann", "--to", "99999", "x"], 3, "NO_SUCH_USER"),
        (&["--as", "ann", "--to", "nobody", "x"], 1, "nobody"),
        (&["--as", "carol", "--to", "bob", "x"], 1, "tern user add"),
        (&["--as", "../ann", "--to", "bob", "x"], 2, "../ann"),
        (&["--as", "bob", "--to", "ann", "--pin", &wrong_pin, "x"], 1, "certificate"),
    ];
    for (arguments, code, reason) in cases {
        let output = run(data, &[&["send"], arguments].concat(), "");
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {output:?}");
        assert!(complained(&output).contains(reason), "{arguments:?}: {output:?}");
    }
    assert_eq!(received(data, "2"), ["hello bob", "by number"]);
}

#[test]
fn a_server_that_is_away_costs_time_and_no_message() {
    let (server, _folder) = house();
    let data = server.data.clone();
    let nobody = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let nobody = nobody.local_addr().unwrap().to_string();
    let send = ["send", "--as", "ann", "--to", "bob", "--stdin"];
    let away = ["--server", &nobody, "--timeout", "1s"];
    let output = run(&data, &[&send[..], &away].concat(), "one\ntwo\nthree\n");
    assert_eq!(output.status.code(), Some(4), "{output:?}");
    assert!(complained(&output).contains("3 unanswered; they are kept"), "{output:?}");

    let other = run(&data, &send, "one\nTWO\n");
    assert_eq!(other.status.code(), Some(2), "line 2 is another one: {other:?}");

    let output = run(&data, &send, "one\ntwo\nthree\nfour\n");
    assert!(output.status.success(), "{output:?}");
    let answered = said(&other) + &said(&output);
    for line in 1..=4 {
        assert!(answered.contains(&format!("acked {line} 10001-10002 {line}\n")), "{answered}");
    }
    assert_eq!(received(&data, "4"), ["one", "two", "three", "four"]);
}

#[test]
fn recv_ends_by_count_or_by_time_and_goes_on_where_it_stopped() {
    let (server, _folder) = house();
    let data = server.data.as_path();
    let lines = "1\n2\n3\n4\n5\n";
    let sent = run(data, &["send", "--as", "ann", "--to", "bob", "--stdin"], lines);
    assert!(sent.status.success(), "{sent:?}");
    assert_eq!(received(data, "2"), ["1", "2"]);
    assert_eq!(received(data, "3"), ["3", "4", "5"]);
    let recv = ["recv", "--as", "bob", "--timeout", "500ms"];
    let without = run(data, &recv, "");
    assert_eq!((without.status.code(), said(&without)), (Some(0), String::new()));
    let with = run(data, &[&recv[..], &["--count", "1"]].concat(), "");
    assert_eq!(with.status.code(), Some(4), "{with:?}");
}

#[test]
fn a_chat_shows_what_comes_and_marks_what_is_acked() {
    let (server, _folder) = house();
    let data = server.data.as_path();
    let chat = run(data, &["chat", "--as", "ann", "--to", "bob"], "hello\nhow are you?\n");
    assert!(chat.status.success(), "{chat:?}");
    assert_eq!(said(&chat), "  ✓ 1\n  ✓ 2\n");
    assert_eq!(received(data, "2"), ["hello", "how are you?"]);
    let answer = run(data, &["send", "--as", "bob", "--to", "ann", "fine\u{1b}[2J"], "");
    assert!(answer.status.success(), "{answer:?}");
    // Ann's device has her own lines behind it; the next chat shows the answer, unharmed.
    let chat = run(data, &["chat", "--as", "ann", "--to", "bob"], "good\n");
    assert!(said(&chat).contains("  ✓ 4\n"), "{chat:?}");
    let shown = said(&chat).contains("bob: fine\\u{1b}[2J\n");
    let later = run(data, &["recv", "--as", "ann", "--timeout", "1s"], "");
    assert!(shown || said(&later).contains("fine\\u{1b}[2J\n"), "{chat:?} {later:?}");
}
