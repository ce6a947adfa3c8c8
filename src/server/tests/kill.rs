//! The server, `tern send --stdin` and `tern recv` are killed at random moments, again and again,
//! and started again, the server with 1, 2 and 3 workers in turn. In the end every line that was
//! fed stands exactly once, in order, in what the receiver printed.
//!
//! Meanwhile the logs are as busy as they can be: their files are the shortest there are, each is
//! worth a checkpoint, and messages are kept for half a minute, so that files roll, checkpoints
//! are made and expired files go between and during the kills. Some kills wait for a checkpoint
//! that is half written; after every other kill of the server the tables in shared memory are
//! removed, as a power cut would.
//!
//! `TERN_SOAK` multiplies the number of kills; `TERN_SEED` says which random moments.
#![expect(
    clippy::unwrap_used,
    reason = "a test may stop at the first thing that is not as it should be"
)]

#[path = "../cli/demo/ledger/mod.rs"]
#[allow(dead_code, reason = "the demo uses the rest of its judge")]
mod ledger;
#[path = "support/lines.rs"]
#[allow(dead_code, reason = "each test binary uses a part of it")]
mod lines;
mod support;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use ledger::{DeviceNo, Kind};
use lines::Lines;
use support::server::{ANY_PORT, Server};
use tempfile::TempDir;
use tern_random::{Stream, seed_from_env};

/// The device that `tern recv` is; the only one that the ledger watches.
const BOB: DeviceNo = DeviceNo(0);

/// Kills, unless `TERN_SOAK` wants more.
const KILLS: u32 = 5;

/// Most lines acked or shown between two kills.
const PROGRESS_MAX: u64 = 150;

/// Longest random time between some progress and the kill in microseconds: several commits, and
/// several turns of every loop.
const MOMENT_US_MAX: u64 = 40_000;

/// Options that keep the logs busy: the shortest files, a checkpoint for each, and a retention that
/// is far longer than a receiver is ever away here, in days.
const BUSY_LOGS: [&str; 8] = [
    "--segment-bytes",
    "270336",
    "--segment-bytes-max",
    "270336",
    "--checkpoint-bytes",
    "1",
    "--retention-days",
    "0.0005",
];

/// How long a kill waits for a checkpoint that is half written.
const HALF_WRITTEN_WAIT: Duration = Duration::from_secs(2);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Victim {
    Server,
    Send,
    Recv,
}

/// What happened to the logs meanwhile.
#[derive(Default)]
struct Upkeep {
    /// Kills of the server while a checkpoint was half written.
    half_written: u32,
    /// Tables that were removed from shared memory.
    tables_lost: u32,
}

/// Everything that is killed and watched.
struct World {
    data: PathBuf,
    listen: String,
    server: Option<Server>,
    servers: u32,
    lines: Lines,
    upkeep: Upkeep,
    _folder: TempDir,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        let mut world = Self {
            lines: Lines::new(&data, "ann", "bob", &["bob"]),
            data,
            listen: ANY_PORT.to_owned(),
            server: None,
            servers: 0,
            upkeep: Upkeep::default(),
            _folder: folder,
        };
        world.start_server();
        for name in ["ann", "bob"] {
            world.server.as_ref().expect("just started").user(name);
        }
        world.lines.start_send();
        world.lines.start_recv(BOB.0);
        world
    }

    fn start_server(&mut self) {
        let workers = [2, 1, 3][self.servers as usize % 3];
        self.servers += 1;
        let options = [&["--sends-per-second", "1000000"], &BUSY_LOGS[..]].concat();
        let server = Server::start_with(&self.data, &self.listen, workers, &options);
        self.listen = server.address.to_string();
        self.server = Some(server);
    }

    fn kill(&mut self, victim: Victim) {
        match victim {
            Victim::Server => {
                if self.servers.is_multiple_of(3) {
                    self.await_half_written();
                }
                self.server.take().expect("it is started after each kill").kill();
                self.upkeep.half_written += u32::from(self.half_written());
                if self.servers.is_multiple_of(2) {
                    self.lose_tables();
                }
                self.start_server();
            }
            Victim::Send => self.lines.kill_send(),
            Victim::Recv => self.lines.kill_recv(BOB.0),
        }
    }

    /// Keeps everybody busy until a checkpoint is half written, or for some time.
    fn await_half_written(&mut self) {
        let deadline = Instant::now() + HALF_WRITTEN_WAIT;
        while !self.half_written() && Instant::now() < deadline {
            self.lines.live_for(Duration::from_micros(500));
        }
    }

    fn half_written(&self) -> bool {
        self.log_files().any(|path| path.to_string_lossy().ends_with(".ckpt.tmp"))
    }

    /// What a power cut does to shared memory.
    fn lose_tables(&mut self) {
        for entry in std::fs::read_dir(self.data.with_extension("shared")).unwrap().flatten() {
            if entry.path().extension().is_some_and(|extension| extension == "dedup") {
                std::fs::remove_file(entry.path()).unwrap();
                self.upkeep.tables_lost += 1;
            }
        }
    }

    /// Files of all shards; one that goes meanwhile may be missing.
    fn log_files(&self) -> impl Iterator<Item = PathBuf> + use<> {
        let shards = std::fs::read_dir(self.data.join("log")).into_iter().flatten().flatten();
        let files = shards.flat_map(|shard| std::fs::read_dir(shard.path()).into_iter().flatten());
        files.flatten().map(|file| file.path())
    }

    /// The highest number of a file with this ending, and the lowest one, in the busiest shard.
    fn numbers(&self, extension: &str) -> (u64, u64) {
        let number = |path: PathBuf| -> Option<(PathBuf, u64)> {
            let is_so = path.extension()? == extension;
            let number = path.file_stem()?.to_str()?.parse().ok()?;
            is_so.then(|| (path.with_file_name(""), number))
        };
        let all: Vec<(PathBuf, u64)> = self.log_files().filter_map(number).collect();
        let Some((busiest, newest)) = all.iter().max_by_key(|(_, number)| *number) else {
            return (0, 0);
        };
        let own = all.iter().filter(|(shard, _)| shard == busiest).map(|(_, number)| *number);
        (*newest, own.min().unwrap_or(0))
    }

    /// Lives until `done`, which must come.
    fn must(&mut self, what: &str, done: impl Fn(&Lines) -> bool) {
        let comes = self.lines.live_until(done);
        assert!(comes, "no {what}: {}", self.progress());
    }

    /// How far it is, and how the server does.
    fn progress(&self) -> String {
        let says = self.server.as_ref().map(|it| it.tern(&["status"]) + &it.errors());
        format!("{}\n{}", self.lines.progress(), says.unwrap_or_default())
    }
}

#[test]
fn every_line_stands_once_whoever_is_killed() {
    let (seed, kills) = (seed_from_env(1), support::scaled(KILLS));
    let mut random = Stream::new(seed);
    let mut world = World::new();
    let first = random.below(3) as u32;
    for kill in 0..kills {
        let acked = world.lines.acked + 1 + random.below(PROGRESS_MAX);
        let shown = world.lines.shown + 1 + random.below(PROGRESS_MAX);
        world.must("progress", |lines| lines.acked >= acked && lines.shown >= shown);
        // Everybody stays busy until the moment, so that it finds anything half done.
        world.lines.live_for(Duration::from_micros(random.below(MOMENT_US_MAX)));
        let victims = [Victim::Server, Victim::Send, Victim::Recv];
        world.kill(victims[(first + kill) as usize % victims.len()]);
    }
    assert!(world.lines.finish_sending(), "no end of sending: {}", world.progress());
    assert!(world.lines.settle(), "no last message: {}", world.progress());

    let (segments, oldest) = world.numbers("seg");
    let (checkpoints, _) = world.numbers("ckpt");
    let Upkeep { half_written, tables_lost } = world.upkeep;
    println!(
        "TEST B-08 upkeep seed={seed} segments={segments} deleted={} checkpoints={checkpoints} \
         killed_in_a_checkpoint={half_written} tables_lost={tables_lost}",
        oldest.saturating_sub(1),
    );
    let (verdict, told) = world.lines.verdict();
    let (last, acked) = (world.lines.count(), world.lines.acked);
    let [lost, duplicated, disordered, answers] =
        [Kind::Lost, Kind::Duplicated, Kind::OutOfOrder, Kind::Answer]
            .map(|kind| verdict.count(kind));
    println!(
        "TEST B-08 seed={seed} n={last} acked={acked} lost={lost} dup={duplicated} \
         reorder={disordered} answers={answers} again={} kills={kills} seconds={:.1}",
        verdict.devices[BOB.0].shown_again,
        world.lines.seconds(),
    );
    assert!(told.is_empty(), "replay with TERN_SEED={seed}: {told:#?}");
    assert_eq!((acked, verdict.devices[BOB.0].delivered as u64), (last, last));
}
