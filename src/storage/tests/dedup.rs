//! The log is the truth of deduplication: whatever becomes of the table, a repeated send is known
//! as one (C-05). And what the crash tests put into the table's code is not in this program.
#![allow(clippy::unwrap_used)] // also in the helpers of tests

mod support;

use std::collections::BTreeMap;
use std::path::Path;

use support::{Rig, Running, SHARD, copy_dir};
use tern_core::dedup::{DedupEntry, DedupTable, Verdict};
use tern_core::log::{Log, Offset, Record};
use tern_core::shard::ReplayError;
use tern_protocol::{DeviceId, Epoch, Incarnation, SendCounter, SendKey, Uin};
use tern_storage::{Opened, ShmTable, Visitor};

/// Devices that send.
const DEVICES: u64 = 300;

/// Messages that a shard gets between two harms.
const MESSAGES: u64 = 1000;

/// A shard in small: what its log says, and the table that follows it.
struct Shard {
    table: ShmTable,
    applied: Offset,
    /// Newest key of each device, by the log alone.
    newest: BTreeMap<u64, DedupEntry>,
    numbers: u64,
}

/// The device and key of a message.
fn key(number: u64) -> (Uin, DeviceId, SendKey) {
    let counter = SendCounter((number / DEVICES) as u32 + 1);
    (Uin(number % DEVICES + 1), DeviceId(7), SendKey { epoch: Epoch(1), counter })
}

impl Visitor for Shard {
    fn record(&mut self, at: Offset, end: Offset, r: Record<'_>) -> Result<(), ReplayError> {
        let number = u64::from_le_bytes(r.body[..8].try_into().unwrap());
        assert_eq!(number, self.numbers, "a record is missing or came twice");
        self.numbers += 1;
        let (uin, _, key) = key(number);
        let entry = DedupEntry::accept(self.newest.get(&uin.0), key, at);
        self.newest.insert(uin.0, entry);
        if at >= self.applied {
            self.put(number, at, end);
        }
        Ok(())
    }

    fn raise(&mut self, _: Incarnation) {}
}

impl Shard {
    fn open(running: &Running) -> (Opened, Self) {
        let mut scan = running.storage.scan_shard(SHARD).unwrap();
        let (table, applied) = scan.attach_table().unwrap();
        let mut shard = Self { table, applied, newest: BTreeMap::new(), numbers: 0 };
        let opened = scan.replay(&mut shard).unwrap();
        (opened, shard)
    }

    fn judge(&self, number: u64) -> Verdict {
        let (uin, device, key) = key(number);
        DedupEntry::judge(self.table.get(uin, device).as_ref(), key)
    }

    fn put(&mut self, number: u64, at: Offset, end: Offset) {
        let (uin, device, key) = key(number);
        let old = self.table.get(uin, device);
        if old.is_none() {
            self.table.reserve().unwrap();
        }
        self.table.put(uin, device, DedupEntry::accept(old.as_ref(), key, at), end);
    }

    /// Sends all that was ever sent once more, then new messages; how many repeats were known.
    fn live(&mut self, running: &Running, opened: &mut Opened) -> u64 {
        let known = (0..self.numbers).filter(|number| self.judge(*number) != Verdict::New).count();
        for number in self.numbers..self.numbers + MESSAGES {
            assert_eq!(self.judge(number), Verdict::New);
            let at = running.append(&mut opened.log, &number.to_le_bytes());
            self.put(number, at, opened.log.tail());
            if number % 100 == 99 {
                running.make_durable(&mut opened.log, at);
            }
        }
        self.numbers += MESSAGES;
        known as u64
    }
}

fn files(dir: &Path) -> Vec<std::path::PathBuf> {
    std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn whatever_becomes_of_the_table_repeats_are_known() {
    type Harm = fn(&mut Rig);
    let harms: [(&str, Harm, Option<&str>); 6] = [
        ("nothing", |_| {}, None),
        ("its file is deleted", |rig| remove_all(rig.shm.path()), Some("there was none")),
        (
            "the machine starts again",
            |rig| rig.config.boot = Some([9; 16]),
            Some("it is of another log, incarnation, boot or layout"),
        ),
        (
            "it is cut short",
            |rig| {
                let file = std::fs::File::options().write(true).open(&files(rig.shm.path())[0]);
                file.unwrap().set_len(5000).unwrap();
            },
            Some("it can't be opened"),
        ),
        (
            "shared memory is gone",
            |rig| rig.config.dedup_dir = "/proc/self/nowhere".into(),
            Some("there was none"),
        ),
        ("it was in the data folder", |_| {}, None),
    ];
    let mut rig = Rig::new();
    let (mut repeats, mut sent) = (0, 0);
    let running = rig.start();
    let (mut opened, mut shard) = Shard::open(&running);
    repeats += shard.live(&running, &mut opened);
    running.kill(opened.log);
    drop(shard);
    for (what, harm, why) in harms {
        harm(&mut rig);
        sent += MESSAGES;
        let running = rig.start();
        let (mut opened, mut shard) = Shard::open(&running);
        assert_eq!((opened.report.table_rebuilt, shard.numbers), (why, sent), "{what}");
        let known = shard.live(&running, &mut opened);
        assert_eq!(known, sent, "{what}: a repeat would be a second message");
        repeats += known;
        running.kill(opened.log);
    }
    println!("TEST C-05 n={} repeats={repeats} dup=0", harms.len());
}

fn remove_all(dir: &Path) {
    files(dir).iter().for_each(|path| std::fs::remove_file(path).unwrap());
}

/// The data folder of an hour ago under the table of now, as after a snapshot of a machine whose
/// memory went on: the table knows of records that the log does not have.
#[test]
fn a_table_that_is_ahead_of_a_restored_log_is_thrown_away() {
    let rig = Rig::new();
    let running = rig.start();
    let (mut opened, mut shard) = Shard::open(&running);
    shard.live(&running, &mut opened);
    let before = tempfile::tempdir().unwrap();
    copy_dir(rig.path(), before.path());
    shard.live(&running, &mut opened);
    running.kill(opened.log);
    drop(shard);
    std::fs::remove_dir_all(rig.path()).unwrap();
    copy_dir(before.path(), rig.path());
    let running = rig.start();
    let (mut opened, mut shard) = Shard::open(&running);
    assert_eq!(opened.report.table_rebuilt, Some("it knows more than the log"));
    assert_eq!((shard.numbers, shard.live(&running, &mut opened)), (MESSAGES, MESSAGES));
    running.kill(opened.log);
    println!("TEST C-05 restored n={MESSAGES} dup=0");
}

/// The crash points of the table's own tests are compiled for those alone: this program, which
/// has the whole crate in it as a server has it, does not contain their words.
#[test]
fn a_server_has_no_crash_points() {
    let program = std::fs::read(std::env::current_exe().unwrap()).unwrap();
    let has = |text: &[u8]| program.windows(text.len()).any(|window| window == text);
    assert!(has(b"make the deduplication table"), "the crate is in it");
    let words = ["a process may", "kill itself"]; // in two pieces, or it would find itself
    assert!(!has(words.join(" ").as_bytes()), "a crash point is in it");
}
