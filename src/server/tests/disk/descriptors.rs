//! Few open files: what is kept costs none, so a server with more files of its log than it may
//! open goes on, and starts again with as few; one that can't even begin says what to do.

use std::time::{Duration, Instant};

use tern_protocol::Code;

use crate::support::peer::PATIENCE;
use crate::support::server::{ANY_PORT, Server};
use crate::writer::{Book, Writer, judge};

/// One shard with the shortest files; no limit of rate.
const OPTIONS: [&str; 8] = [
    "--shards",
    "1",
    "--sends-per-second",
    "1000000",
    "--segment-bytes",
    "270336",
    "--segment-bytes-max",
    "270336",
];

/// What a process is given, and what it may take: some dozens more than a server without messages
/// has open.
const SOFT: u32 = 56;
const HARD: u32 = 90;

/// Files of the log: many more than may be open.
const SEGMENTS: u64 = 130;

/// What a server that wrote has open beyond one that did not: the file that it writes to, the next
/// one, the one before, what a checkpoint is made in, and commands.
const MORE: u64 = 8;

/// What is too few for a server to begin, though enough to look at its data folder.
const TOO_FEW: u32 = 24;

fn start(data: &std::path::Path, soft: u32, hard: u32) -> Result<Server, String> {
    let limited = format!("ulimit -Sn {soft} && ulimit -Hn {hard} && exec \"$0\" \"$@\"");
    Server::try_start(&["sh", "-c", &limited], data, ANY_PORT, 2, &OPTIONS)
}

/// Open files, and how many may be.
fn open_files(server: &Server) -> (u64, u64) {
    let status: serde_json::Value =
        serde_json::from_str(&server.tern(&["status", "--json"])).unwrap();
    let number = |name: &str| status["descriptors"][name].as_u64().unwrap();
    (number("open"), number("limit"))
}

/// Waits until no more files are open than this; how many are.
fn until_at_most(server: &Server, most: u64) -> u64 {
    let begin = Instant::now();
    loop {
        let (open, _) = open_files(server);
        if open <= most {
            return open;
        }
        assert!(begin.elapsed() < PATIENCE, "{open} files stay open, {most} may");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn files_of_the_log_that_are_only_kept_are_not_open() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let server = start(&data, SOFT, HARD).unwrap();
    let (ann, bob) = (server.user("ann"), server.user("bob"));
    let (before, limit) = open_files(&server);
    assert_eq!(limit, u64::from(HARD), "what it may have, not what it was given");
    let segments = |server: &Server| server.figures().get("log_segments_now");
    let mut book = Book::default();
    let mut sender = Writer::start(server.address, &ann, &bob).unwrap();
    while segments(&server) < SEGMENTS {
        let more = book.acked.len() + 1_000;
        let wrote = sender.write_until(&mut book, |_, book| book.acked.len() >= more);
        assert!(wrote, "{:?} after {}: {}", sender.refused, book.acked.len(), server.errors());
    }
    let kept = segments(&server);
    let full = until_at_most(&server, before + MORE);
    // Where the disk is slower than the writer, it is asked to wait for the next file.
    assert!(sender.refused.keys().all(|code| *code == Code::Busy.0), "{:?}", sender.refused);
    assert!(!server.errors().contains("open files"), "{}", server.errors());
    drop(sender);
    server.kill();

    let said = start(&data, TOO_FEW, TOO_FEW).err().expect("it needs more");
    assert!(said.contains("may open 24 files, and 38 are the least"), "{said}");
    assert!(said.contains("raise the hard limit"), "{said}");

    let server = start(&data, HARD, HARD).unwrap();
    let again = until_at_most(&server, before + MORE);
    let verdict = judge(server.address, &bob, &ann, &book);
    assert_eq!((verdict.lost, verdict.duplicated), (0, 0), "{verdict:?}");
    println!(
        "TEST D-08 descriptors n={} lost=0 dup=0 given={SOFT} taken={HARD} files_kept={kept} \
         open_empty={before} open_full={full} open_again={again}",
        book.acked.len(),
    );
    server.stop();
}
