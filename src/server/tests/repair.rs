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
use tern_storage::SEGMENT_HEADER_BYTES;

/// Place in a segment's file of its second record: behind the header and a mark.
const SECOND_RECORD: u64 = SEGMENT_HEADER_BYTES as u64 + 40;

fn run(data: &Path, arguments: &[&str]) -> Output {
    tern(data, arguments).output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8([output.stdout.clone(), output.stderr.clone()].concat()).unwrap()
}

fn send(server: &Server, text: &str) -> Output {
    let address = server.address.to_string();
    run(
        &server.data,
        &["send", "--as", "ann", "--to", "bob", "--server", &address, "--timeout", "20s", text],
    )
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
    assert!(!send(&server, "not taken").status.success());
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
