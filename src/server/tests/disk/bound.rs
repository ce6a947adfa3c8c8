//! The bound that an operator sets (`log-bytes-max`), used up by the real binary: the warnings on
//! the way, in `tern status`; what `refuse` does then, and what it takes to go on; what `evict`
//! does instead.

use std::path::Path;
use std::time::{Duration, Instant};

use tern_protocol::Code;

use crate::support::peer::PATIENCE;
use crate::support::server::{ANY_PORT, Account, Server};
use crate::writer::{Book, Writer, judge, read_back};

/// The bound in bytes: some thirty of the shortest segments, so that 80 and 95 % are seen apart.
const BOUND: u64 = 8 << 20;

/// Messages between two looks at the status: a part of a segment.
const STEP: usize = 50;

/// Refusals after which a server counts as full.
const REFUSALS: u64 = 100;

/// Messages that are more than the bound has room for.
const MUCH: usize = 7_000;

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

/// What a warning begins with, from first to last.
const WARNINGS: [&str; 3] = [
    "80 % of what the logs may use are used; full in about ",
    "95 % of what the logs may use are used; full in about ",
    "what the logs may use is used up; now ",
];

fn start(data: &Path, bound: u64, when_full: &str) -> Server {
    let bound = bound.to_string();
    let options = ["--log-bytes-max", &bound, "--when-full", when_full];
    Server::start(data, ANY_PORT, &[&OPTIONS[..], &options].concat())
}

fn writer(server: &Server, account: &Account, other: &Account) -> Writer {
    Writer::start(server.address, account, other).unwrap()
}

/// What `tern status` has to say to the operator, and the bytes that the logs hold.
fn status(server: &Server) -> (Vec<String>, u64) {
    let status: serde_json::Value =
        serde_json::from_str(&server.tern(&["status", "--json"])).unwrap();
    let troubles = status["troubles"].as_array().unwrap();
    let troubles = troubles.iter().map(|it| it.as_str().unwrap().to_owned()).collect();
    (troubles, status["disk"]["used_bytes"].as_u64().unwrap())
}

/// Asks until something is so, which must come.
fn poll(what: &str, is_so: impl Fn() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < PATIENCE, "no {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Waits until the server knows how fast its logs grow: before that it foretells nothing.
fn await_rate(server: &Server) {
    let is_known = || {
        let status: serde_json::Value =
            serde_json::from_str(&server.tern(&["status", "--json"])).unwrap();
        status["disk"]["bytes_per_second"].as_u64().unwrap() > 0
    };
    poll("the rate of the logs", is_known);
}

#[test]
fn a_bound_that_is_used_up_is_told_before_and_refuses() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let server = start(&data, BOUND, "refuse");
    let (ann, bob) = (server.user("ann"), server.user("bob"));
    let (mut book, mut sender) = (Book::default(), writer(&server, &ann, &bob));
    let mut seen: Vec<&str> = Vec::new();
    while sender.refusals(Code::DiskFull) < REFUSALS {
        let goal = book.acked.len() + STEP;
        assert!(sender.write_until(&mut book, |writer, book| {
            writer.refusals(Code::DiskFull) >= REFUSALS || book.acked.len() >= goal
        }));
        let (troubles, used) = status(&server);
        assert!(used <= BOUND, "{used} bytes");
        if used > BOUND / 2 && seen.is_empty() {
            await_rate(&server);
        }
        for warning in WARNINGS {
            let told = troubles.iter().find(|it| it.starts_with(warning));
            if let Some(told) = told.filter(|_| seen.last() != Some(&warning)) {
                assert!(told.contains("sends are refused with DISK_FULL"), "{told}");
                assert!(told.contains("What to do: raise the option log-bytes-max"), "{told}");
                seen.push(warning);
            }
        }
    }
    assert_eq!(seen, WARNINGS);
    let full = book.acked.len();
    // The log says it too, at its own pace.
    poll("the last warning", || server.errors().contains(WARNINGS[2]));
    drop(sender);
    server.stop();

    // What the warning told to do.
    let server = start(&data, 2 * BOUND, "refuse");
    let mut sender = writer(&server, &ann, &bob);
    assert!(sender.write_until(&mut book, |_, book| book.acked.len() >= full + STEP));
    assert_eq!(sender.refusals(Code::DiskFull), 0);
    drop(sender);
    let verdict = judge(server.address, &bob, &ann, &book);
    assert_eq!((verdict.lost, verdict.duplicated), (0, 0), "{verdict:?}");
    println!(
        "TEST bound when_full=refuse n={} warnings={} refused={REFUSALS} lost=0 dup=0",
        book.acked.len(),
        seen.len(),
    );
    server.stop();
}

#[test]
fn a_bound_that_is_used_up_lets_the_oldest_go() {
    let folder = tempfile::tempdir().unwrap();
    let server = start(&folder.path().join("data"), BOUND, "evict");
    let (ann, bob) = (server.user("ann"), server.user("bob"));
    let (mut book, mut sender) = (Book::default(), writer(&server, &ann, &bob));
    let mut most = 0;
    while book.acked.len() < MUCH {
        let goal = book.acked.len() + 10 * STEP;
        assert!(sender.write_until(&mut book, |_, book| book.acked.len() >= goal));
        most = most.max(status(&server).1);
    }
    let (refused, evicted) =
        (sender.refusals(Code::DiskFull), server.figures().get("segments_evicted"));
    assert!(evicted > 0, "{}", server.tern(&["status"]));
    drop(sender);
    // All that is left stands without a hole behind what was told as gone, up to the newest.
    let newest = book.acked.values().copied().max().expect("there are some");
    let read = read_back(server.address, &bob, &ann, |read| read.messages.contains_key(&newest));
    let oldest = read.expired + 1;
    // What stood before that may have come before it went, and behind the newest acked one what
    // the writer was not told of any more.
    let kept = || read.messages.range(oldest..).map(|(id, _)| *id);
    let last = kept().next_back().unwrap_or(0);
    assert!(oldest > 1 && last >= newest, "{oldest} to {last} of {newest}");
    assert!(kept().eq(oldest..=last), "{} of {oldest} to {last}", kept().count());
    let left = book.acked.iter().filter(|(_, id)| **id >= oldest);
    let wrong = left.filter(|(number, id)| read.messages.get(id) != Some(number)).count();
    assert_eq!(wrong, 0, "of what was left");
    println!(
        "TEST bound when_full=evict n={} kept={} segments_evicted={evicted} refused={refused} \
         most_bytes={most} bound={BOUND} lost=0",
        book.acked.len(),
        read.messages.len(),
    );
    server.stop();
}
