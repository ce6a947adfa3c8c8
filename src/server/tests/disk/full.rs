//! B-10, B-14: a file system that is really full, by our own messages or by another program, and
//! kills on each kind of file system.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tern_protocol::Code;

use crate::mount::{Kind, Mounted};
use crate::support::random::Random;
use crate::support::scaled;
use crate::support::server::{ANY_PORT, Account, Server};
use crate::writer::{Book, Verdict, Writer, judge};

/// Bytes of each file of another program that goes away when the server is full: more than a
/// segment.
const HELD: u64 = 5 << 20;

/// Bytes left at first on a larger file system.
const LEFT: u64 = 22 << 20;

/// Refusals after which a server counts as full.
const REFUSALS: u64 = 100;

/// Time without an ack after which nothing more is expected.
const STILL: Duration = Duration::from_secs(5);

/// Kills on each kind of file system.
const KILLS: u32 = 3;

/// One shard, so that a small disk holds some segments; no limit of rate.
pub const OPTIONS: [&str; 4] = ["--shards", "1", "--sends-per-second", "1000000"];

/// A server on a file system of its own.
struct Stage {
    /// `None` only between a kill and a start.
    server: Option<Server>,
    data: PathBuf,
    ann: Account,
    bob: Account,
    book: Book,
    mounted: Mounted,
    _folder: TempDir,
}

impl Stage {
    fn new(id: &str, kind: Kind) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        let mounted = match Mounted::new(kind, &data) {
            Ok(mounted) => mounted,
            Err(why) => {
                println!("SKIPPED {id}: cannot mount {kind} (needs root and its tools): {why}");
                return None;
            }
        };
        let server = Server::start(&data, ANY_PORT, &OPTIONS);
        let (ann, bob) = (server.user("ann"), server.user("bob"));
        Some(Self {
            server: Some(server),
            data,
            ann,
            bob,
            book: Book::default(),
            mounted,
            _folder: folder,
        })
    }

    fn writer(&self) -> Writer {
        let server = self.server.as_ref().expect("it runs");
        Writer::start(server.address, &self.ann, &self.bob)
            .unwrap_or_else(|why| panic!("{why}: {}", server.errors()))
    }

    /// Writes until the server has no room: it refuses, or, where the file system wants room even
    /// for what was allocated, keeps what it took and acks nothing.
    fn fill_up(&mut self, writer: &mut Writer) {
        let before = writer.refusals(Code::DiskFull);
        let (mut acked, mut since) = (0, Instant::now());
        let full = writer.write_until(&mut self.book, |writer, book| {
            assert!(!writer.ended(), "a full disk ends no connection");
            if book.acked.len() > acked {
                (acked, since) = (book.acked.len(), Instant::now());
            }
            writer.refusals(Code::DiskFull) >= before + REFUSALS || since.elapsed() > STILL
        });
        let status = self.server.as_ref().expect("it runs").tern(&["status"]);
        assert!(full && status.contains("no room"), "{:?}: {status}", writer.refused);
    }

    /// Gives room back, and says how long it took until something was acked again.
    fn make_room(&mut self, writer: &mut Writer, file: &Path) -> Duration {
        let acked = self.book.acked.len();
        fs::remove_file(file).unwrap();
        let start = Instant::now();
        let goes_on = writer.write_until(&mut self.book, |_, book| book.acked.len() > acked);
        assert!(goes_on, "there is room and the server does not see it: {:?}", writer.refused);
        start.elapsed()
    }

    fn kill(&mut self) {
        self.server.take().expect("it runs until it is killed").kill();
    }

    fn start(&mut self) {
        self.server = Some(Server::start(&self.data, ANY_PORT, &OPTIONS));
    }

    fn address(&self) -> SocketAddr {
        self.server.as_ref().expect("it runs").address
    }

    fn judge(&self) -> Verdict {
        judge(self.address(), &self.bob, &self.ann, &self.book)
    }
}

fn full(kind: Kind) {
    let Some(mut stage) = Stage::new("B-10", kind) else { return };
    if stage.mounted.free() > 2 * LEFT {
        stage.mounted.fill("other", LEFT);
    }
    let hold = |name| stage.mounted.fill(name, stage.mounted.free().saturating_sub(HELD));
    let (first, second) = (hold("first"), hold("second"));
    let mut writer = stage.writer();
    // Full by our own messages, then there is room again.
    stage.fill_up(&mut writer);
    let ours = stage.make_room(&mut writer, &first);
    // Full by another program, to the last block.
    let third = stage.mounted.fill("third", 0);
    stage.fill_up(&mut writer);
    let refused = writer.refusals(Code::DiskFull);
    // A kill in this state. Without any room there is no start, or no login.
    drop(writer);
    stage.kill();
    match Server::try_start(&[], &stage.data, ANY_PORT, 2, &OPTIONS) {
        Err(said) => assert!(said.contains("No space left"), "{said}"),
        Ok(server) => {
            let login = Writer::start(server.address, &stage.ann, &stage.bob);
            assert!(login.is_err_and(|why| why.contains("DISK_FULL")));
            server.kill();
        }
    }
    [second, third].iter().for_each(|file| fs::remove_file(file).unwrap());
    stage.start();
    let start = Instant::now();
    let mut writer = stage.writer();
    let acked = stage.book.acked.len();
    assert!(writer.write_until(&mut stage.book, |_, book| book.acked.len() > acked + 10));
    let others = start.elapsed();
    let verdict = stage.judge();
    println!(
        "TEST B-10 fs={kind} n={} refused={refused} resumed_ms={},{} lost={} dup={}",
        stage.book.acked.len(),
        ours.as_millis(),
        others.as_millis(),
        verdict.lost,
        verdict.duplicated,
    );
    assert_eq!((verdict.lost, verdict.duplicated), (0, 0));
}

fn kills(kind: Kind) {
    let Some(mut stage) = Stage::new("B-14", kind) else { return };
    let (kills, mut random) = (scaled(KILLS), Random::seeded());
    for _ in 0..kills {
        let mut writer = stage.writer();
        let goal = stage.book.acked.len() + 50 + random.below(300);
        assert!(writer.write_until(&mut stage.book, |_, book| book.acked.len() >= goal));
        stage.kill();
        stage.start();
    }
    let verdict = stage.judge();
    let acked = stage.book.acked.len();
    let Verdict { lost, duplicated, .. } = verdict;
    println!("TEST B-14 fs={kind} n={acked} kills={kills} lost={lost} dup={duplicated}");
    assert_eq!((lost, duplicated), (0, 0));
}

#[test]
fn b_10_a_full_tmpfs() {
    full(Kind::Tmpfs);
}

#[test]
fn b_10_a_full_ext4() {
    full(Kind::Ext4);
}

#[test]
fn b_14_a_full_xfs() {
    full(Kind::Xfs);
}

#[test]
fn b_14_a_full_btrfs() {
    full(Kind::Btrfs);
}

#[test]
fn b_14_kills_on_each_file_system() {
    [Kind::Ext4, Kind::Xfs, Kind::Btrfs].into_iter().for_each(kills);
}
