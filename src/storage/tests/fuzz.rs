//! B-13: arbitrary and mutated bytes as segments, folder file, checkpoint and deduplication table.
//! Whatever is found is opened or refused, never a panic, and what opens can be appended to.
//!
//! Begins with the folder in `testdata/folder/`, whose files end before their zeros, and with the
//! checkpoint in `testdata/checkpoint/`. `TERN_FUZZ=100000` says how many folders are tried,
//! `TERN_FUZZ_SEED` repeats a run, and `TERN_FUZZ_CORPUS=1` writes the files anew, after a change
//! of the format.
#![allow(clippy::unwrap_used)] // also in the helpers of tests

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use support::chat::{Chat, checkpoints_at, open_rows, upkeep_rig};
use support::{Rig, SHARD};
use tern_core::log::{Links, Log, Offset, Record, RecordKind};
use tern_core::shard::ReplayError;
use tern_core::shard::state::StateKind;
use tern_diskmodel::quick::QuickDisk;
use tern_protocol::Incarnation;
use tern_random::{Stream, number_from_env};
use tern_storage::inspect::{CheckpointView, Decoder};
use tern_storage::{Folder, FolderOptions, RowKey, SEGMENT_HEADER_BYTES, Visitor};

/// Folders tried, unless `TERN_FUZZ` says how many.
const EXECS: u64 = 150;

/// Mutated checkpoints for each folder: one costs far less.
const CHECKPOINTS_EACH: u64 = 20;

/// Records in the folder that everything begins with.
const RECORDS: usize = 12;

/// Bytes before the slots of a deduplication table, and of each slot (FORMAT.md).
const TABLE_HEADER_BYTES: usize = 4096;
const SLOT_BYTES: usize = 48;

/// The files of a data folder, by their names in it.
type Files = BTreeMap<PathBuf, Vec<u8>>;

/// Takes everything, and adds up what it is told.
#[derive(Default)]
struct Anything {
    records: usize,
    lost: usize,
}

impl Visitor for Anything {
    fn record(&mut self, _: Offset, _: Offset, record: Record<'_>) -> Result<(), ReplayError> {
        self.records += 1;
        assert!(record.body.len() <= tern_storage::BODY_BYTES_MAX);
        Ok(())
    }

    fn raise(&mut self, _: Incarnation) {}

    fn state(&mut self, _: Offset, _: StateKind, _: &[u8]) -> Result<(), ReplayError> {
        Ok(())
    }

    fn lost(&mut self, _: Offset, _: Offset, _: Option<Links>) -> Result<(), ReplayError> {
        self.lost += 1;
        Ok(())
    }
}

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/folder")
}

/// How long a file is that begins so, where that matters: a segment's header fills a page, and a
/// table has all its slots.
fn bytes_of(path: &Path, bytes: &[u8]) -> usize {
    match path.extension().and_then(|kind| kind.to_str()) {
        Some("seg") => SEGMENT_HEADER_BYTES,
        Some("dedup") => {
            let slots = u64::from_ne_bytes(bytes[56..64].try_into().unwrap());
            TABLE_HEADER_BYTES + SLOT_BYTES * slots as usize
        }
        _ => 0,
    }
}

fn read_files(root: &Path, dir: &Path, files: &mut Files) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            read_files(root, &path, files);
        } else {
            let mut bytes = fs::read(&path).unwrap();
            let zeros = bytes_of(&path, &bytes).saturating_sub(bytes.len());
            bytes.extend(vec![0; zeros]);
            files.insert(path.strip_prefix(root).unwrap().into(), bytes);
        }
    }
}

fn write_files(root: &Path, files: &Files) {
    for (name, bytes) in files {
        fs::create_dir_all(root.join(name).parent().unwrap()).unwrap();
        fs::write(root.join(name), bytes).unwrap();
    }
}

fn quick() -> Rig {
    let mut rig = Rig::new();
    rig.disk = Arc::new(QuickDisk);
    rig.config.boot = Some([7; 16]);
    rig
}

/// A small log with its table, killed.
fn make_corpus() {
    let mut rig = quick();
    rig.config.dedup_dir = rig.path().join("shm");
    fs::create_dir_all(&rig.config.dedup_dir).unwrap();
    let running = rig.start();
    let mut log = running.log();
    for number in 0..RECORDS {
        running.write(&mut log, &vec![number as u8; 100 + 37 * number]);
    }
    running.kill(log);
    let mut files = Files::new();
    read_files(rig.path(), rig.path(), &mut files);
    for bytes in files.values_mut() {
        let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        bytes.truncate(end.next_multiple_of(8).min(bytes.len()));
    }
    files.retain(|name, bytes| !bytes.is_empty() && !name.ends_with("lock"));
    let _ = fs::remove_dir_all(corpus());
    write_files(&corpus(), &files);
}

/// Opens what is there; `None` if it is refused.
fn open(rig: &Rig, append: bool) -> Option<Anything> {
    let options = FolderOptions { shards: 1, disk: Arc::clone(&rig.disk) };
    drop(Folder::open(rig.path(), options).ok()?);
    let running = rig.start();
    let mut scan = running.storage.scan_shard(SHARD).ok()?;
    // A table needs room alone, so it is never refused.
    let (_table, _) = scan.attach_table().unwrap();
    let mut told = Anything::default();
    let mut log = scan.replay(&mut told).ok()?.log;
    if append && log.append(RecordKind::Message, Links::default(), &[b"more"]).is_ok() {
        log.commit();
        let end = log.tail();
        running.until(|| log.durable().is_ok_and(|proof| proof.end() >= end));
    }
    running.kill(log);
    Some(told)
}

/// Changes a file: bits, bytes, numbers that mean much, pieces moved, cut or added.
fn mutate(bytes: &mut Vec<u8>, random: &mut Stream) {
    let numbers = [0, 1, 0xff, u64::from(u32::MAX), u64::MAX, 4096, 1 << 40];
    for _ in 0..1 + random.below(4) {
        let len = bytes.len().max(1) as u64;
        let at = random.below(len) as usize;
        match random.below(7) {
            _ if bytes.is_empty() => bytes.push(random.draw() as u8),
            0 => bytes[at] ^= 1 << random.below(8),
            1 => bytes[at] = random.draw() as u8,
            2 => {
                let number = numbers[random.below(numbers.len() as u64) as usize].to_le_bytes();
                let (at, width) = (at / 4 * 4, 4 + 4 * random.below(2) as usize);
                let end = bytes.len().min(at + width);
                bytes[at..end].copy_from_slice(&number[..end - at]);
            }
            3 => bytes.truncate(at),
            4 => bytes.extend((0..random.below(200)).map(|byte| (byte * 31) as u8)),
            5 => {
                let piece = bytes[at..bytes.len().min(at + 512)].to_vec();
                let to = random.below(len - piece.len() as u64 + 1) as usize;
                bytes[to..to + piece.len()].copy_from_slice(&piece);
            }
            _ => {
                let end = bytes.len().min(at + random.below(600) as usize);
                bytes[at..end].fill(random.draw() as u8);
            }
        }
    }
}

/// Every place of a file, taken for a record; and the file, taken for a checkpoint.
fn decode(path: &Path, bytes: &[u8]) -> u64 {
    let mut records = 0;
    let page = bytes.get(..4096).unwrap_or(bytes);
    if let Ok(reader) = Decoder::new(path, page) {
        for at in (0..bytes.len()).step_by(8) {
            records += u64::from(reader.record(at as u64, &bytes[at..]).is_ok());
        }
    }
    if let Ok(checkpoint) = CheckpointView::open(path) {
        let _ = checkpoint.verify();
        let _ = checkpoint.rows(|_, _| {});
    }
    records
}

#[test]
fn b_13_any_bytes_are_opened_or_refused() {
    if std::env::var_os("TERN_FUZZ_CORPUS").is_some() {
        make_corpus();
    }
    let mut files = Files::new();
    read_files(&corpus(), &corpus(), &mut files);
    let whole = quick();
    write_files(whole.path(), &files);
    let told = open(&whole, true).expect("the corpus is whole, or written for another format");
    assert_eq!((told.records, told.lost), (RECORDS, 0), "write it anew: TERN_FUZZ_CORPUS=1");

    let (execs, seed) = (number_from_env("TERN_FUZZ", EXECS), number_from_env("TERN_FUZZ_SEED", 1));
    let mut random = Stream::new(seed);
    let (mut opened, mut records, mut lost, mut decoded) = (0, 0, 0, 0);
    let names: Vec<PathBuf> = files.keys().cloned().collect();
    for exec in 0..execs {
        let mut files = files.clone();
        let shard = Path::new("log/shard-00");
        let victim = match random.below(8) {
            0 => shard.join("0000000001.ckpt"),
            1 => shard.join("0000000003.seg"),
            2 => shard.join("accepted"),
            3 => PathBuf::from("clock"),
            _ => names[random.below(names.len() as u64) as usize].clone(),
        };
        let other = files[&names[random.below(names.len() as u64) as usize]].clone();
        mutate(files.entry(victim.clone()).or_insert(other), &mut random);
        let mut rig = quick();
        rig.config.dedup_dir = rig.path().join("shm");
        fs::create_dir_all(&rig.config.dedup_dir).unwrap();
        write_files(rig.path(), &files);
        decoded += decode(&rig.path().join(&victim), &files[&victim]);
        if let Some(told) = open(&rig, exec % 4 == 0) {
            opened += 1;
            records += told.records;
            lost += told.lost;
        }
    }
    println!(
        "TEST B-13 n={execs} seed={seed} opened={opened} refused={} records={records} \
         told_lost={lost} decoded={decoded} panics=0",
        execs - opened,
    );
    assert!(opened > 0 && opened < execs && decoded > 0, "the mutations reach something");
    assert!(lost > 0, "damage before the newest mark is reached");
}

fn checkpoint_corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/checkpoint/0000000001.ckpt")
}

/// The checkpoint of a log with rows of several kinds.
fn make_checkpoint() {
    let (mut rig, _) = upkeep_rig();
    rig.disk = Arc::new(QuickDisk);
    let running = rig.start();
    let (opened, _) = open_rows(&running).unwrap();
    let (mut log, mut chat) = (opened.log, Chat::new(1, 3, 2));
    while running.storage.stats(SHARD).segments < 4 {
        let at = chat.act(&running, &mut log, 5_000);
        running.make_durable(&mut log, at);
    }
    running.storage.maintain();
    running.close(log);
    fs::create_dir_all(checkpoint_corpus().parent().unwrap()).unwrap();
    fs::copy(&checkpoints_at(rig.path())[0], checkpoint_corpus()).unwrap();
}

/// What can be read of a checkpoint, and whether all of it is proven; `None` if it is none.
fn read_checkpoint(path: &Path, keys: &[(StateKind, RowKey)]) -> Option<(bool, usize, usize)> {
    let checkpoint = CheckpointView::open(path).ok()?;
    let mut rows = 0;
    // Rows before a bad one come out, whatever is wrong behind them.
    let _ = checkpoint.rows(|_, _| rows += 1);
    let found = |(kind, key): &&(StateKind, RowKey)| {
        let row = checkpoint.find(*kind, *key).ok().flatten();
        row.is_some_and(|row| RowKey::of(*kind, &row) == Some(*key))
    };
    Some((checkpoint.verify().is_ok(), rows, keys.iter().filter(found).count()))
}

#[test]
fn b_13_any_bytes_are_a_checkpoint_or_none() {
    if std::env::var_os("TERN_FUZZ_CORPUS").is_some() {
        make_checkpoint();
    }
    let mut keys = Vec::new();
    let view = CheckpointView::open(&checkpoint_corpus()).expect("whole: TERN_FUZZ_CORPUS=1");
    view.rows(|kind, row| keys.push((kind, RowKey::of(kind, row).unwrap()))).unwrap();
    let all = Some((true, keys.len(), keys.len()));
    assert_eq!(read_checkpoint(&checkpoint_corpus(), &keys), all);

    let whole = fs::read(checkpoint_corpus()).unwrap();
    let (folder, seed) = (tempfile::tempdir().unwrap(), number_from_env("TERN_FUZZ_SEED", 1));
    let path = folder.path().join("0000000001.ckpt");
    let (execs, mut random) =
        (CHECKPOINTS_EACH * number_from_env("TERN_FUZZ", EXECS), Stream::new(seed));
    let (mut opened, mut rows, mut found) = (0, 0, 0);
    for exec in 0..execs {
        let mut bytes = whole.clone();
        mutate(&mut bytes, &mut random);
        fs::write(&path, &bytes).unwrap();
        let read = read_checkpoint(&path, &keys);
        // Some file systems sync what is written over a file that was emptied.
        fs::remove_file(&path).unwrap();
        let Some((proven, read, looked_up)) = read else { continue };
        assert_eq!(proven, bytes == whole, "exec {exec} of seed {seed}");
        assert!(looked_up <= keys.len() && read <= keys.len(), "a row came to life");
        opened += 1;
        rows += read;
        found += looked_up;
    }
    println!(
        "TEST B-13 checkpoints n={execs} seed={seed} opened={opened} refused={} rows={rows} \
         found={found} of={} panics=0",
        execs - opened,
        opened as usize * keys.len(),
    );
    assert!(opened > 0 && opened < execs && rows > 0, "the mutations reach something");
}
