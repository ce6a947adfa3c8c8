//! A damaged log on the real binary: the server starts, serves the rest and names the shard; what
//! `tern repair` accepts is said before it is, and then the shard takes messages again.
#![expect(
    clippy::unwrap_used,
    reason = "a test may stop at the first thing that is not as it should be"
)]

mod support;

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Output;

use support::server::{ANY_PORT, Server, tern};
use tern_core::placement::Placement;
use tern_storage::SEGMENT_HEADER_BYTES;

/// Shards of a new folder.
const SHARDS: u16 = 4;

/// Place in a segment's file of its second record: behind the header and a mark.
const SECOND_RECORD: u64 = SEGMENT_HEADER_BYTES as u64 + 40;

fn run(data: &Path, arguments: &[&str]) -> Output {
    tern(data, arguments).output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8([output.stdout.clone(), output.stderr.clone()].concat()).unwrap()
}

fn send(server: &Server, text: &str) -> Output {
    send_from(server, "ann", "bob", "20s", text)
}

fn send_from(server: &Server, from: &str, to: &str, timeout: &str, text: &str) -> Output {
    let address = server.address.to_string();
    let who = ["send", "--as", from, "--to", to, "--server", &address];
    run(&server.data, &[&who[..], &["--timeout", timeout, text]].concat())
}

/// The first segment with records of each shard that has one.
fn written_segments(data: &Path) -> Vec<PathBuf> {
    let shards = std::fs::read_dir(data.join("log")).unwrap().flatten();
    let segments = shards.flat_map(|shard| std::fs::read_dir(shard.path()).unwrap().flatten());
    let mut paths: Vec<PathBuf> = segments
        .map(|segment| segment.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "seg"))
        .filter(|path| {
            let mut len = [0; 4];
            let file = std::fs::File::open(path).unwrap();
            file.read_exact_at(&mut len, SECOND_RECORD).is_ok() && len != [0; 4]
        })
        .collect();
    paths.sort();
    paths
}

#[test]
fn a_shard_that_lost_state_waits_for_a_person() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let server = Server::start(&data, ANY_PORT, &["--shards", "1"]);
    server.user("ann");
    server.user("bob");
    for number in 0..5 {
        assert!(send(&server, &format!("before {number}")).status.success());
    }
    server.stop();
    let whole = run(&data, &["repair"]);
    assert!(whole.status.success() && said(&whole).contains("nothing is damaged"), "{whole:?}");

    // The first record of a new folder is the epoch of a login.
    let segment = written_segments(&data).remove(0);
    let file = std::fs::File::options().write(true).open(&segment).unwrap();
    file.write_all_at(&[0xff; 24], SECOND_RECORD + 8).unwrap();
    drop(file);

    let server = Server::start(&data, ANY_PORT, &[]);
    let status = server.tern(&["status"]);
    assert!(status.contains("TROUBLE") && status.contains("tern repair"), "{status}");
    assert_eq!(server.figures().get("logs_failed_now"), 1);
    let busy = run(&data, &["repair", "--accept"]);
    assert_eq!(busy.status.code(), Some(5), "while a server runs: {busy:?}");
    assert!(!send_from(&server, "ann", "bob", "2s", "not taken").status.success());
    server.stop();

    let listed = run(&data, &["repair"]);
    assert_eq!(listed.status.code(), Some(1), "{listed:?}");
    let name = segment.file_name().unwrap().to_str().unwrap();
    assert!(
        said(&listed).contains(name) && said(&listed).contains("nothing was changed"),
        "{listed:?}"
    );
    let accepted = run(&data, &["repair", "--accept"]);
    assert!(accepted.status.success() && said(&accepted).contains("accepted in"), "{accepted:?}");

    let server = Server::start(&data, ANY_PORT, &[]);
    assert_eq!(server.figures().get("logs_failed_now"), 0);
    assert!(send(&server, "after").status.success(), "{}", server.errors());
    server.stop();
    let again = run(&data, &["repair"]);
    assert!(again.status.success() && said(&again).contains("accepted earlier"), "{again:?}");
    println!("TEST repair n=1 read_only=1 accepted=1");
}

/// Users by where they live: two whose homes and channel are none of the damaged shard's, and one
/// whose home it is.
fn people(server: &Server) -> ([String; 2], String, u16) {
    let placement = Placement::new(SHARDS, 1);
    let names: Vec<String> = (0..16).map(|number| format!("user-{number}")).collect();
    let all: Vec<_> = names.iter().map(|name| (name, server.user(name))).collect();
    for (damaged, homeless) in &all {
        let shard = placement.home_of(homeless.uin);
        let others: Vec<_> =
            all.iter().filter(|(_, it)| placement.home_of(it.uin) != shard).collect();
        let pair = others
            .windows(2)
            .find(|pair| placement.shard_of_channel(pair[0].1.channel_with(&pair[1].1)) != shard);
        if let Some(pair) = pair {
            let pair = [pair[0].0.clone(), pair[1].0.clone()];
            return (pair, (*damaged).clone(), shard.0);
        }
    }
    panic!("no such users among {}", names.len());
}

#[test]
fn a_shard_that_lost_state_stops_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let server = Server::start(&data, ANY_PORT, &["--shards", &SHARDS.to_string()]);
    let ([ann, bob], carl, shard) = people(&server);
    let talk = |server: &Server, text: &str| send_from(server, &ann, &bob, "20s", text);
    let carls = |server: &Server, timeout| send_from(server, &carl, &ann, timeout, "from carl");
    assert!(talk(&server, "before").status.success());
    // The login is what the shard knows; the first record of a new log is its epoch.
    assert!(carls(&server, "20s").status.success());
    server.stop();
    let dir = data.join(format!("log/shard-{shard:02}"));
    let mut written = written_segments(&data);
    written.retain(|path| path.starts_with(&dir));
    let file = std::fs::File::options().write(true).open(&written[0]).unwrap();
    file.write_all_at(&[0xff; 24], SECOND_RECORD + 8).unwrap();
    drop(file);

    let server = Server::start(&data, ANY_PORT, &[]);
    assert!(talk(&server, "beside it").status.success(), "{}", server.errors());
    let refused = carls(&server, "2s");
    assert!(!refused.status.success() && said(&refused).contains("SHARD_STOPPED"), "{refused:?}");
    let status = server.tern(&["status"]);
    let trouble = format!("TROUBLE the log of shard {shard} takes no more messages");
    assert!(status.contains(&trouble) && status.contains("tern repair"), "{status}");
    assert_eq!(server.figures().get("logs_failed_now"), 1);
    assert!(talk(&server, "still").status.success());
    server.stop();

    let accepted = run(&data, &["repair", "--accept"]);
    let text = said(&accepted);
    assert!(accepted.status.success() && text.contains("accepted in"), "{accepted:?}");
    let others = (0..SHARDS).filter(|other| *other != shard);
    let whole = |other: &u16| text.contains(&format!("shard {other}: nothing is damaged"));
    assert_eq!(others.filter(whole).count(), usize::from(SHARDS - 1), "{text}");
    let server = Server::start(&data, ANY_PORT, &[]);
    assert_eq!(server.figures().get("logs_failed_now"), 0);
    assert!(carls(&server, "20s").status.success(), "{}", server.errors());
    assert!(talk(&server, "after").status.success());
    server.stop();
    println!("TEST repair shard={shard} n=1 read_only=1 others_served=3 accepted=1");
}
