//! A real process, killed for real at any moment, again and again on one data folder.
#![allow(clippy::unwrap_used)] // also in the helpers of tests

mod support;

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use support::{Rig, Running, SHARD};
use tern_core::dedup::{DedupEntry, DedupTable, Verdict};
use tern_core::log::{Links, Log, Offset, Record, RecordKind};
use tern_core::shard::ReplayError;
use tern_protocol::{DeviceId, Epoch, Incarnation, SendCounter, SendKey, Uin};
use tern_storage::{Opened, ShmTable, Visitor};

/// Names the data folder to the child.
const CHILD: &str = "TERN_STORAGE_TEST_CHILD";

/// Tells the child to stop sending after some messages, and to wait for its end.
const RESTS: &str = "TERN_STORAGE_TEST_CHILD_RESTS";

/// Messages after which it rests.
const BEFORE_REST: u64 = 300;

/// Devices that send.
const DEVICES: u64 = 6000;

/// How often the child is killed.
const KILLS: usize = 14;

/// What a shard does with its log and its table, in small.
struct Replayer {
    table: ShmTable,
    applied: Offset,
    /// Newest record of each device, by the log alone.
    model: HashMap<u64, DedupEntry>,
    numbers: Vec<u64>,
}

fn key(number: u64) -> (Uin, DeviceId, SendKey) {
    let uin = Uin(number * 7919 % DEVICES + 1);
    (uin, DeviceId(1), SendKey { epoch: Epoch(1), counter: SendCounter(number as u32) })
}

impl Visitor for Replayer {
    fn record(&mut self, at: Offset, end: Offset, r: Record<'_>) -> Result<(), ReplayError> {
        let number = u64::from_le_bytes(r.body[..8].try_into().unwrap());
        let (uin, device, key) = key(number);
        let entry = DedupEntry::accept(self.model.get(&uin.0), key, at);
        self.model.insert(uin.0, entry);
        self.numbers.push(number);
        if at >= self.applied {
            put(&mut self.table, uin, device, key, at, end);
        }
        Ok(())
    }

    fn raise(&mut self, _: Incarnation) {
        panic!("nothing was lost");
    }
}

fn put(table: &mut ShmTable, uin: Uin, device: DeviceId, key: SendKey, at: Offset, end: Offset) {
    let old = table.get(uin, device);
    assert_eq!(DedupEntry::judge(old.as_ref(), key), Verdict::New);
    if old.is_none() {
        while table.reserve().is_err() {
            std::thread::yield_now();
        }
    }
    table.put(uin, device, DedupEntry::accept(old.as_ref(), key, at), end);
}

fn open(running: &Running) -> (Opened, Replayer) {
    let mut scan = running.storage.scan_shard(SHARD).unwrap();
    let (table, applied) = scan.attach_table().unwrap();
    let mut replayer = Replayer { table, applied, model: HashMap::new(), numbers: Vec::new() };
    let opened = scan.replay(&mut replayer).unwrap();
    (opened, replayer)
}

fn rig_at(path: &Path) -> Rig {
    let mut rig = Rig::new();
    rig.config.dedup_dir = path.join("shm");
    rig
}

/// Not a test of its own: what the parent starts, and kills. It says each number once that is
/// durable.
#[test]
fn child() {
    let Some(path) = std::env::var_os(CHILD) else { return };
    let rig = rig_at(Path::new(&path));
    let running = rig.start_at(Path::new(&path));
    let (opened, mut replayer) = open(&running);
    let mut log = opened.log;
    let mut out = std::io::stdout();
    let mut number = replayer.numbers.last().map_or(1, |last| last + 1);
    let mut told = number - 1;
    let mut waiting: std::collections::VecDeque<(u64, Offset)> = Default::default();
    let rest = std::env::var_os(RESTS).map_or(u64::MAX, |_| number + BEFORE_REST);
    while number < rest || !waiting.is_empty() {
        let body = vec![number as u8; 8 + number as usize * 31 % 1500];
        let (uin, device, key) = key(number);
        let parts = [&number.to_le_bytes()[..], &body];
        let room = if number < rest {
            log.append(RecordKind::Message, Links::default(), &parts).ok()
        } else {
            None
        };
        if let Some(at) = room {
            put(&mut replayer.table, uin, device, key, at, log.tail());
            waiting.push_back((number, at));
            number += 1;
        }
        log.commit();
        let proof = log.durable().unwrap();
        while waiting.front().is_some_and(|(_, at)| proof.covers(*at)) {
            told = waiting.pop_front().unwrap().0;
        }
        if number % 16 == 0 {
            writeln!(out, "acked {told}").unwrap();
            out.flush().unwrap();
        }
    }
    writeln!(out, "acked {told}").unwrap();
    loop {
        std::thread::park();
    }
}

/// The table grows while it is used, by the I/O thread's hand, and is found again.
#[test]
fn the_table_grows_beside_the_log() {
    let rig = Rig::new();
    let running = rig.start();
    let (mut opened, mut replayer) = open(&running);
    let devices = 150_000;
    for device in 1..=devices {
        let key = SendKey { epoch: Epoch(1), counter: SendCounter(1) };
        put(&mut replayer.table, Uin(device), DeviceId(1), key, Offset(0), Offset(0));
    }
    assert!((1..=devices).all(|uin| replayer.table.get(Uin(uin), DeviceId(1)).is_some()));
    assert_eq!(replayer.table.entries() as u64, devices);
    running.write(&mut opened.log, b"12345678");
    drop(replayer);
    running.close(opened.log);
    let files: Vec<_> = std::fs::read_dir(rig.shm.path()).unwrap().collect();
    assert_eq!(files.len(), 1, "{files:?}");
}

/// B-08, C-03: what was acked is there, in order and once, and the table says what the log says.
#[test]
fn killed_again_and_again() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("shm")).unwrap();
    let (mut taken_over, mut kept_to, mut random) = (0, 0, 12345u64);
    for kill in 0..KILLS {
        let rests = kill % 2 == 1;
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["child", "--exact", "--nocapture"]).env(CHILD, dir.path());
        if rests {
            command.env(RESTS, "1");
        }
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let out = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut acks = out.filter_map(|line| {
            line.unwrap().strip_prefix("acked ").map(|number| number.parse::<u64>().unwrap())
        });
        let mut acked = if rests {
            acks.find(|acked| *acked == kept_to + BEFORE_REST)
        } else {
            acks.nth((random >> 33) as usize & 127)
        };
        child.kill().unwrap();
        child.wait().unwrap();
        acked = acks.last().or(acked);
        let acked = acked.expect("the child acked something");

        let rig = rig_at(dir.path());
        let running = rig.start_at(dir.path());
        let (opened, replayer) = open(&running);
        assert!(replayer.numbers.iter().copied().eq(1..=replayer.numbers.len() as u64));
        assert!(replayer.numbers.len() as u64 >= acked, "kill {kill}: {acked} was acked");
        for (uin, entry) in &replayer.model {
            let found = replayer.table.get(Uin(*uin), DeviceId(1));
            assert_eq!(found, Some(*entry), "kill {kill}, {:?}", opened.report.table_rebuilt);
        }
        assert_eq!(replayer.table.entries(), replayer.model.len());
        kept_to = replayer.numbers.len() as u64;
        if rests {
            // All it knew was durable: only a growth under way keeps it from being taken over.
            let rebuilt = opened.report.table_rebuilt;
            assert!(matches!(rebuilt, None | Some("it was growing")), "kill {kill}: {rebuilt:?}");
            taken_over += u32::from(rebuilt.is_none());
        }
        running.kill(opened.log);
    }
    assert!(taken_over > 0, "it is not always growing");
}
