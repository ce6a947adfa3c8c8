//! Few open files: each kept file of a log is one. The server takes as many as it may have, which
//! is more than it is given; at the very end it refuses messages and loses none, and a start that
//! can't have enough says what to do.

use crate::support::server::{ANY_PORT, Server};
use crate::writer::{Book, Writer, judge};

use tern_protocol::Code;

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

/// What a process is given, and what it may take: some dozen more than a server without messages
/// has open.
const SOFT: u32 = 56;
const HARD: u32 = 90;

/// What is too few for the logs that a server with [`HARD`] leaves.
const TOO_FEW: u32 = 64;

/// Refusals after which a server counts as full.
const REFUSALS: u64 = 50;

/// Messages that go on behind them.
const MORE: usize = 500;

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

#[test]
fn open_files_are_taken_told_and_at_their_end_nothing_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let server = start(&data, SOFT, HARD).unwrap();
    let (ann, bob) = (server.user("ann"), server.user("bob"));
    let (before, limit) = open_files(&server);
    assert_eq!(limit, u64::from(HARD), "what it may have, not what it was given");
    let mut book = Book::default();
    let mut sender = Writer::start(server.address, &ann, &bob).unwrap();
    let full = sender.write_until(&mut book, |it, _| it.refusals(Code::DiskFull) >= REFUSALS);
    assert!(full, "{:?} after {}: {}", sender.refused, book.acked.len(), server.errors());
    assert!(server.errors().contains("Too many open files"), "{}", server.errors());
    let (refused, at_the_end) = (sender.refusals(Code::DiskFull), book.acked.len());
    drop(sender);
    server.kill();

    let said = start(&data, TOO_FEW, TOO_FEW).err().expect("it can't open its logs");
    assert!(said.contains("raise the hard limit"), "{said}");

    let server = start(&data, 256, 256).unwrap();
    let (after, _) = open_files(&server);
    let mut sender = Writer::start(server.address, &ann, &bob).unwrap();
    assert!(sender.write_until(&mut book, |_, book| book.acked.len() >= at_the_end + MORE));
    drop(sender);
    let verdict = judge(server.address, &bob, &ann, &book);
    assert_eq!((verdict.lost, verdict.duplicated), (0, 0), "{verdict:?}");
    println!(
        "TEST D-08 descriptors n={} lost=0 dup=0 given={SOFT} taken={HARD} open_empty={before} \
         open_full={after} refused={refused}",
        book.acked.len(),
    );
    server.stop();
}
