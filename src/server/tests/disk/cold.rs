//! Catching up from far back when the old log is no longer in memory: the I/O thread waits for
//! the disk, the workers never do, and others write meanwhile.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::drop::drop_pages;
use crate::support::scaled;
use crate::support::server::{ANY_PORT, Account, Figures, Server};
use crate::writer::{Book, Writer, judge};

/// Catching up so often, each time from the first message on.
const ROUNDS: u32 = 3;

/// Messages of the past: a dozen segments.
const PAST: usize = 9_000;

/// Segments at the end of the log that stay in memory: the spare one, the one that is written,
/// and those from which the kept answers of the end of the last round may be.
const KEPT: usize = 4;

/// One shard with segments of 1 MiB, so that a short past has many of them; no limit of rate.
const OPTIONS: [&str; 8] = [
    "--shards",
    "1",
    "--sends-per-second",
    "1000000",
    "--segment-bytes",
    "1048576",
    "--segment-bytes-max",
    "1048576",
];

/// A server with a past that nobody has read since it started.
struct Stage {
    server: Server,
    bob: Account,
    ann: Account,
    past: Book,
    old: Vec<PathBuf>,
}

impl Stage {
    fn new(data: &Path) -> Self {
        let server = Server::start(data, ANY_PORT, &OPTIONS);
        let (ann, bob) = (server.user("ann"), server.user("bob"));
        let (mut past, mut writer) = (Book::default(), writer(&server, &ann, &bob));
        while past.acked.len() < PAST {
            let goal = past.acked.len() + PAST / 10;
            assert!(writer.write_until(&mut past, |_, book| book.acked.len() >= goal));
        }
        server.stop();
        // What a process wrote itself lately counts as in memory; what it found does not.
        let server = Server::start(data, ANY_PORT, &OPTIONS);
        let mut old: Vec<PathBuf> = fs::read_dir(data.join("log/shard-00"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|kind| kind == "seg"))
            .collect();
        old.sort();
        assert!(old.len() > 2 * KEPT, "{} segments are no past", old.len());
        old.truncate(old.len() - KEPT);
        Self { server, bob, ann, past, old }
    }

    /// Reads all of the past on bob's device.
    fn catch_up(&self) {
        let verdict = judge(self.server.address, &self.bob, &self.ann, &self.past);
        assert_eq!((verdict.lost, verdict.duplicated), (0, 0), "{verdict:?}");
    }

    /// Takes the past out of memory and catches up, again and again, and counts what it took;
    /// `None` where pages can't be taken.
    fn rounds(&self, written: &AtomicU64) -> Option<Figures> {
        // What is only touched the first time, of the program and the disk, is in memory then.
        self.catch_up();
        let before = self.server.figures();
        let (mut cold, faults) = (before.clone(), faults_of_io(&self.server));
        for round in 0..scaled(ROUNDS) {
            if let Err(why) = drop_pages(self.server.pid(), &self.old) {
                println!("SKIPPED cold-reads: can't take pages out of memory: {why}");
                return None;
            }
            let load = written.load(Ordering::Acquire);
            self.catch_up();
            let now = self.server.figures();
            let warmed = now.since(&cold, "reads_warmed");
            assert_eq!(now.since(&before, "major_faults"), 0, "round {round}: a worker waited");
            // How many depends on how far the kernel reads ahead.
            assert!(warmed > 0, "round {round}: nothing was cold");
            assert!(written.load(Ordering::Acquire) > load, "round {round}: there was no load");
            cold = now;
        }
        // The same counter of the kernel, of the thread that waited for the workers.
        assert!(faults_of_io(&self.server) > faults, "nothing was read from the disk");
        Some(before)
    }
}

fn writer(server: &Server, account: &Account, other: &Account) -> Writer {
    Writer::start(server.address, account, other).unwrap()
}

/// Page faults of the I/O thread that waited for the disk.
fn faults_of_io(server: &Server) -> u64 {
    let threads = fs::read_dir(format!("/proc/{}/task", server.pid())).unwrap();
    let stat = |entry: fs::DirEntry| fs::read_to_string(entry.path().join("stat")).ok();
    let stats: Vec<String> = threads.filter_map(|entry| stat(entry.unwrap())).collect();
    let io = stats.iter().find_map(|stat| stat.split_once("(tern-io) ")).expect("it runs");
    io.1.split(' ').nth(9).expect("proc_pid_stat(5)").parse().unwrap()
}

#[test]
fn workers_never_wait_for_cold_pages() {
    let folder = tempfile::tempdir().unwrap();
    let stage = Stage::new(&folder.path().join("data"));
    let (carl, dora) = (stage.server.user("carl"), stage.server.user("dora"));
    let (stop, written) = (AtomicBool::new(false), AtomicU64::new(0));
    let load = || {
        let (mut book, mut writer) = (Book::default(), writer(&stage.server, &carl, &dora));
        while !stop.load(Ordering::Acquire) {
            let goal = book.acked.len() + 1;
            assert!(writer.write_until(&mut book, |_, book| book.acked.len() >= goal));
            written.store(book.acked.len() as u64, Ordering::Release);
        }
        book
    };
    let (before, book) = std::thread::scope(|scope| {
        let load = scope.spawn(load);
        // A round that fails must end the load too, or nothing would ever end.
        let rounds =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| stage.rounds(&written)));
        stop.store(true, Ordering::Release);
        let book = load.join().unwrap();
        (rounds.unwrap_or_else(|why| std::panic::resume_unwind(why)), book)
    });
    let verdict = judge(stage.server.address, &dora, &carl, &book);
    assert_eq!((verdict.lost, verdict.duplicated), (0, 0), "{verdict:?}");
    let Some(before) = before else { return };
    let now = stage.server.figures();
    println!(
        "TEST cold-reads rounds={} n={} load={} reads_warmed={} major_faults={} lost=0",
        scaled(ROUNDS),
        stage.past.acked.len(),
        book.acked.len(),
        now.since(&before, "reads_warmed"),
        now.since(&before, "major_faults"),
    );
    stage.server.stop();
}
