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
mod support;

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use ledger::{DeviceNo, Kind, Ledger, Mark, Showing};
use support::commands::{Heard, Talking};
use support::server::{ANY_PORT, Server};
use tempfile::TempDir;
use tern_random::{Stream, seed_from_env};

/// The device that `tern recv` is; the only one that the ledger watches.
const BOB: DeviceNo = DeviceNo(0);

/// The device that `tern send` is.
const ANN: DeviceNo = DeviceNo(1);

/// Kills, unless `TERN_SOAK` wants more.
const KILLS: u32 = 5;

/// Lines fed beyond those that are acked: as many as the server takes unanswered from a device.
const LINES_AHEAD: u64 = 64;

/// Most lines acked or shown between two kills.
const PROGRESS_MAX: u64 = 150;

/// Longest random time between some progress and the kill in microseconds: several commits, and
/// several turns of every loop.
const MOMENT_US_MAX: u64 = 40_000;

/// Messages that a receiver may print again after it was killed: the server pushes no more than
/// this beyond what the device has acked, and it acks what it has stored.
const AGAIN_MAX: u64 = 64;

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

/// Nothing that must come takes longer than this.
const PATIENCE: Duration = Duration::from_secs(60);

/// Lines that are heard and not yet looked at: more than a kill can leave behind.
const HEARD_MAX: usize = 65_536;

/// Which process said something: the role and its life.
type Who = (Victim, u32);

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
    send: Option<Talking>,
    recv: Option<Talking>,
    lives: u32,
    ear: SyncSender<(Who, Heard)>,
    heard: Receiver<(Who, Heard)>,
    /// The number of the newest line that was fed in this life of `send`.
    fed: u64,
    /// That of any life: what a killed one took may still be sent.
    fed_ever: u64,
    /// The number of the newest line that was acked; all before it are too.
    acked: u64,
    /// No more lines: this is the last one.
    last: Option<u64>,
    shown: u64,
    send_ended: bool,
    ledger: Ledger,
    upkeep: Upkeep,
    start: Instant,
    _folder: TempDir,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (ear, heard) = sync_channel(HEARD_MAX);
        let mut world = Self {
            data: folder.path().join("data"),
            listen: ANY_PORT.to_owned(),
            server: None,
            servers: 0,
            send: None,
            recv: None,
            lives: 0,
            ear,
            heard,
            fed: 0,
            fed_ever: 0,
            acked: 0,
            last: None,
            shown: 0,
            send_ended: false,
            ledger: Ledger::new(1, AGAIN_MAX),
            upkeep: Upkeep::default(),
            start: Instant::now(),
            _folder: folder,
        };
        world.start_server();
        for name in ["ann", "bob"] {
            world.server.as_ref().expect("just started").user(name);
        }
        world.start_send();
        world.start_recv();
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

    fn start_send(&mut self) {
        let from = (self.acked + 1).to_string();
        let arguments = ["send", "--as", "ann", "--to", "bob", "--stdin", "--from", &from];
        self.fed = self.acked;
        self.send_ended = false;
        self.send = Some(self.talk(Victim::Send, &arguments));
    }

    fn start_recv(&mut self) {
        self.recv = Some(self.talk(Victim::Recv, &["recv", "--as", "bob", "--json"]));
    }

    fn talk(&mut self, who: Victim, arguments: &[&str]) -> Talking {
        self.lives += 1;
        Talking::start(&self.data, arguments, (who, self.lives), self.ear.clone())
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
            Victim::Send => {
                self.send.take().expect("it is started after each kill").kill();
                self.hear_all();
                self.start_send();
            }
            Victim::Recv => {
                self.recv.take().expect("it is started after each kill").kill();
                self.hear_all();
                self.start_recv();
            }
        }
    }

    /// Keeps everybody busy until a checkpoint is half written, or for some time.
    fn await_half_written(&mut self) {
        let deadline = Instant::now() + HALF_WRITTEN_WAIT;
        while !self.half_written() && Instant::now() < deadline {
            self.live_for(Duration::from_micros(500));
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

    /// Feeds and listens until `done`.
    fn live_until(&mut self, what: &str, done: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !done(self) {
            self.feed();
            let left = deadline.saturating_duration_since(Instant::now());
            let heard = self.heard.recv_timeout(left);
            let (who, heard) = heard.unwrap_or_else(|_| panic!("no {what}: {}", self.progress()));
            self.handle(who, heard);
        }
    }

    /// Feeds and listens for this long.
    fn live_for(&mut self, time: Duration) {
        let deadline = Instant::now() + time;
        loop {
            self.feed();
            let left = deadline.saturating_duration_since(Instant::now());
            match self.heard.recv_timeout(left) {
                Ok((who, heard)) => self.handle(who, heard),
                Err(_) => return,
            }
        }
    }

    /// Takes in what was said before now.
    fn hear_all(&mut self) {
        while let Ok((who, heard)) = self.heard.try_recv() {
            self.handle(who, heard);
        }
    }

    fn feed(&mut self) {
        let Some(send) = &mut self.send else { return };
        let most = self.last.unwrap_or(u64::MAX).min(self.acked + LINES_AHEAD);
        while self.fed < most {
            self.fed += 1;
            self.fed_ever = self.fed.max(self.fed_ever);
            let mark = Mark { by: ANN, number: self.fed };
            self.ledger.sent(self.start.elapsed(), mark);
            assert!(send.say(&text(self.fed)), "`tern send` ended by itself");
        }
        if self.last == Some(self.fed) {
            send.close();
        }
    }

    fn handle(&mut self, (who, life): Who, heard: Heard) {
        match (who, heard) {
            (Victim::Send, Some(line)) => self.handle_answer(&line),
            (Victim::Recv, Some(line)) => self.handle_message(life, &line),
            // Who was killed is taken out before its end is heard.
            (Victim::Send, None) if self.send.is_some() => {
                assert!(self.last.is_some(), "`tern send` ended by itself: {}", self.progress());
                self.send_ended = true;
            }
            (Victim::Recv, None) => {
                assert!(self.recv.is_none(), "`tern recv` ended by itself: {}", self.progress());
            }
            (Victim::Send, None) | (Victim::Server, _) => {}
        }
    }

    fn handle_answer(&mut self, line: &str) {
        let words: Vec<&str> = line.split(' ').collect();
        let ["acked", number, _, id] = words[..] else { panic!("not an ack: {line}") };
        let (number, id) = (number.parse().unwrap(), id.parse().unwrap());
        assert_eq!(number, self.acked + 1, "answers come in order");
        self.acked = number;
        self.ledger.acked(self.start.elapsed(), Mark { by: ANN, number }, id);
    }

    fn handle_message(&mut self, life: u32, line: &str) {
        let message: serde_json::Value = serde_json::from_str(line).unwrap();
        let id = message["id"].as_str().unwrap().parse().unwrap();
        let number = message["text"].as_str().and_then(|text| text.strip_prefix("line "));
        let mark = number.map(|number| Mark { by: ANN, number: number.parse().unwrap() });
        self.shown += 1;
        self.ledger.showed(self.start.elapsed(), Showing { device: BOB, life, id, mark });
    }

    /// How far it is, and how the server does.
    fn progress(&self) -> String {
        let Self { fed, acked, shown, .. } = self;
        let says = self.server.as_ref().map(|it| it.tern(&["status"]) + &it.errors());
        format!("fed {fed}, acked {acked}, shown {shown}\n{}", says.unwrap_or_default())
    }
}

fn text(number: u64) -> String {
    format!("line {number}")
}

#[test]
fn every_line_stands_once_whoever_is_killed() {
    let (seed, kills) = (seed_from_env(1), support::scaled(KILLS));
    let mut random = Stream::new(seed);
    let mut world = World::new();
    let first = random.below(3) as u32;
    for kill in 0..kills {
        let acked = world.acked + 1 + random.below(PROGRESS_MAX);
        let shown = world.shown + 1 + random.below(PROGRESS_MAX);
        world.live_until("progress", |world| world.acked >= acked && world.shown >= shown);
        // Everybody stays busy until the moment, so that it finds anything half done.
        world.live_for(Duration::from_micros(random.below(MOMENT_US_MAX)));
        let victims = [Victim::Server, Victim::Send, Victim::Recv];
        world.kill(victims[(first + kill) as usize % victims.len()]);
    }
    let last = world.fed_ever;
    world.last = Some(last);
    world.live_until("end of sending", |world| world.send_ended);
    let status = world.send.take().expect("it was not killed").end();
    assert!(status.success(), "{status}: {}", world.progress());
    world.live_until("last message", |world| world.ledger.open().unseen == 0);

    let (segments, oldest) = world.numbers("seg");
    let (checkpoints, _) = world.numbers("ckpt");
    let Upkeep { half_written, tables_lost } = world.upkeep;
    println!(
        "TEST B-08 upkeep seed={seed} segments={segments} deleted={} checkpoints={checkpoints} \
         killed_in_a_checkpoint={half_written} tables_lost={tables_lost}",
        oldest.saturating_sub(1),
    );
    let verdict = world.ledger.verdict();
    let [lost, duplicated, disordered, answers] =
        [Kind::Lost, Kind::Duplicated, Kind::OutOfOrder, Kind::Answer]
            .map(|kind| verdict.count(kind));
    println!(
        "TEST B-08 seed={seed} n={last} acked={} lost={lost} dup={duplicated} \
         reorder={disordered} answers={answers} again={} kills={kills} seconds={:.1}",
        world.acked,
        verdict.devices[BOB.0].shown_again,
        world.start.elapsed().as_secs_f64(),
    );
    let told: Vec<String> =
        verdict.anomalies.iter().map(|it| it.describe(&["bob", "ann"]).to_string()).collect();
    assert!(told.is_empty(), "replay with TERN_SEED={seed}: {told:#?}");
    assert_eq!((world.acked, verdict.devices[BOB.0].delivered as u64), (last, last));
}
