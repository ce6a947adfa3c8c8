//! Room: what is left to others on a small disk, what is said before it runs out, and what happens
//! when it has. The disk says what the test wants it to.

#![allow(clippy::unwrap_used)] // also in the helpers of tests

mod support;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use support::chat::{Chat, Hands, open_rows, upkeep_rig};
use support::{Rig, Running, SHARD};
use tern_core::log::{AppendError, Log, Offset, ReadError, Reader, RecordKind};
use tern_diskmodel::quick::QuickDisk;
use tern_random::seed_from_env;
use tern_storage::{
    Disk, DiskFile, Eviction, Limit, MappedLog, SEGMENT_BYTES_MIN, Space, SpaceReport,
};

/// Bytes of the disk: so many that a fiftieth of them is less than what is left free by default.
const DISK_BYTES: u64 = 100 * SEGMENT_BYTES_MIN;

/// The least that segments leave free on it: 1/50 (FORMAT.md).
const LEFT_BYTES: u64 = DISK_BYTES / 50;

/// Bytes of the records that fill a log.
const RECORD_BYTES: usize = 60_000;

/// A disk of [`DISK_BYTES`] of which others use a part.
#[derive(Debug, Default)]
struct SmallDisk {
    /// Bytes that others use.
    others: AtomicU64,
    /// Bytes of all segments and checkpoints that were made here, by their files.
    root: std::path::PathBuf,
}

#[derive(Debug)]
struct Door(Arc<SmallDisk>);

impl SmallDisk {
    fn used(&self) -> u64 {
        let entries = std::fs::read_dir(self.root.join("log/shard-00")).into_iter().flatten();
        entries.filter_map(|entry| Some(entry.ok()?.metadata().ok()?.len())).sum()
    }
}

impl Disk for Door {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        QuickDisk.create(path)
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        QuickDisk.open(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        QuickDisk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        QuickDisk.remove(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        QuickDisk.sync_dir(path)
    }

    fn space(&self, _: &Path) -> io::Result<Space> {
        let used = self.0.used() + self.0.others.load(Relaxed);
        Ok(Space { free: DISK_BYTES.saturating_sub(used), total: DISK_BYTES })
    }
}

/// A shard on a small disk, of which nothing but the logs uses anything yet.
fn small() -> (Rig, Arc<Hands>, Arc<SmallDisk>) {
    let (mut rig, hands) = upkeep_rig();
    let disk = Arc::new(SmallDisk { root: rig.path().into(), ..SmallDisk::default() });
    rig.disk = Arc::new(Door(Arc::clone(&disk)));
    (rig, hands, disk)
}

/// Appends records until the log refuses one, or all are in; where they are.
fn fill(running: &Running, log: &mut MappedLog, records: usize) -> (Vec<Offset>, bool) {
    let (mut at, mut full) = (Vec::new(), false);
    while at.len() < records && !full {
        running.until(|| {
            let body = vec![at.len() as u8; RECORD_BYTES];
            let appended = log.append(RecordKind::Entry, Default::default(), &[&body]);
            full = appended == Err(AppendError::Full);
            at.extend(appended.ok());
            log.commit();
            log.durable().unwrap();
            full || appended.is_ok()
        });
    }
    settle(running, log);
    (at, full)
}

/// Waits until all of it is durable.
fn settle(running: &Running, log: &mut MappedLog) {
    running.until(|| {
        log.commit();
        log.durable().unwrap().end() == log.tail()
    });
}

/// Segments stop where others' room begins; when there is room again the log goes on by itself.
#[test]
fn segments_leave_room_to_others() {
    let (rig, _, disk) = small();
    let running = rig.start();
    let mut log = running.log();
    let others = DISK_BYTES - LEFT_BYTES - 5 * SEGMENT_BYTES_MIN;
    disk.others.store(others, Relaxed);
    let (before, full) = fill(&running, &mut log, 1_000);
    assert!(full, "a disk of which others use most is full");
    let free = DISK_BYTES - others - disk.used();
    assert!(free >= LEFT_BYTES, "{free} of {LEFT_BYTES} bytes are left to others");
    assert!(free < LEFT_BYTES + SEGMENT_BYTES_MIN, "and no more than a segment's beside");
    let space = running.storage.space();
    assert_eq!((space.reserve, space.free, space.limit), (LEFT_BYTES, Some(free), Limit::Disk));
    assert!(running.storage.is_full(SHARD) && space.room < SEGMENT_BYTES_MIN, "{space:?}");
    // Others take what is left: nothing of ours is touched.
    disk.others.store(DISK_BYTES, Relaxed);
    assert!(fill(&running, &mut log, 1).1, "it stays full");
    // And give back: the next append asks for a segment, which is made without a restart.
    disk.others.store(0, Relaxed);
    running.until(|| {
        let appended = log.append(RecordKind::Entry, Default::default(), &[&[1; RECORD_BYTES]]);
        log.commit();
        appended.is_ok()
    });
    settle(&running, &mut log);
    assert!(!running.storage.is_full(SHARD));
    for (number, at) in before.iter().enumerate() {
        let same = log.with_record(*at, |record| record.body == vec![number as u8; RECORD_BYTES]);
        assert_eq!(same, Ok(true), "the record {number} of {}", before.len());
    }
    println!("TEST B-10 reserve={LEFT_BYTES} left={free} records={} lost=0", before.len());
    running.close(log);
}

/// What is said of a log into which so many bytes come each time that so much time passes.
fn say_after(running: &Running, hands: &Hands, log: &mut MappedLog, rounds: u64) -> SpaceReport {
    for _ in 0..rounds {
        running.storage.maintain();
        fill(running, log, 1);
        hands.pass(10_000);
    }
    running.storage.maintain();
    running.storage.space()
}

/// The time until it is full is told long before, by the rate of the last minutes, and it is true.
#[test]
fn the_end_is_foretold() {
    let (mut rig, hands, _) = small();
    rig.config.bytes_max = 40 * SEGMENT_BYTES_MIN;
    let running = rig.start();
    let mut log = running.log();
    assert_eq!(running.storage.space().full_in, None, "at no rate it is never full");
    let space = say_after(&running, &hands, &mut log, 20);
    let rate = space.bytes_per_second;
    assert!((RECORD_BYTES as u64 / 10..RECORD_BYTES as u64 / 9).contains(&rate), "{space:?}");
    assert_eq!((space.limit, space.bound), (Limit::Bound, Some(40 * SEGMENT_BYTES_MIN)));
    let told = space.full_in.unwrap();
    assert_eq!(told, Duration::from_secs(space.room / rate), "room and rate say when");
    // It comes true, but for the ends of segments that no record of this size fits into.
    let (mut passed, mut percent) = (Duration::ZERO, Vec::new());
    while !fill(&running, &mut log, 1).1 {
        hands.pass(10_000);
        running.storage.maintain();
        passed += Duration::from_secs(10);
        let space = running.storage.space();
        percent.push(space.used * 100 / (space.used + space.room));
        assert!(passed <= told, "{passed:?} have passed, and it should be full after {told:?}");
    }
    assert!(passed * 4 > told * 3, "{passed:?} of {told:?}");
    // An operator is warned from 80 % on and again from 95 % on: both come, in this order.
    let from = |least: u64| percent.iter().position(|percent| *percent >= least);
    assert!(from(80) < from(95) && from(95).is_some(), "{percent:?}");
    // A segment counts as used a moment before it counts as room.
    assert!(percent.windows(2).all(|two| two[0] <= two[1] + 3), "{percent:?}");
    println!("TEST forecast told={told:?} came={passed:?} rate={rate}");
    running.close(log);
}

/// No end is foretold where retention makes room in time.
#[test]
fn retention_that_makes_room_in_time_foretells_no_end() {
    let minute = Duration::from_secs(60);
    for (retention, ends) in [(10 * minute, false), (10_000 * minute, true)] {
        let (mut rig, hands, _) = small();
        rig.config.bytes_max = 60 * SEGMENT_BYTES_MIN;
        rig.config.retention = Some(retention);
        let running = rig.start();
        let mut log = running.log();
        let space = say_after(&running, &hands, &mut log, 12);
        assert_eq!(space.full_in.is_some(), ends, "{retention:?}: {space:?}");
        running.close(log);
    }
}

/// A log that is full to its last byte, and then may evict: the oldest go, in the order of the
/// log, and what is new is taken; counters go on.
#[test]
fn a_full_log_evicts_and_goes_on() {
    let (mut rig, ..) = small();
    rig.config.bytes_max = 10 * SEGMENT_BYTES_MIN;
    rig.config.eviction = Eviction::Oldest;
    let mut chat = Chat::new(seed_from_env(1), 4, 2);
    let running = rig.start();
    let mut log = open_rows(&running).unwrap().0.log;
    let mut old = Vec::new();
    while running.storage.stats(SHARD).segments < 3 {
        old.push(chat.act(&running, &mut log, 20_000));
    }
    settle(&running, &mut log);
    let (more, full) = fill_entries(&running, &mut log);
    assert!(full && running.storage.is_full(SHARD), "nothing is evicted before upkeep is due");
    let space = running.storage.space();
    assert!(space.used * 100 >= 95 * (space.used + space.room), "{space:?}");
    running.storage.maintain();
    let upkeep = running.storage.upkeep(SHARD);
    assert!(upkeep.segments_evicted > 0 && upkeep.suspended.is_none(), "{upkeep:?}");
    let mut reader = running.storage.reader();
    let is_gone = |at: &Offset, reader: &mut tern_storage::MappedReader| {
        let read = reader.with_record(SHARD, *at, |_| ());
        assert!(matches!(read, Ok(()) | Err(ReadError::Expired)), "{at:?}: {read:?}");
        read.is_err()
    };
    let all: Vec<bool> = old.iter().chain(&more).map(|at| is_gone(at, &mut reader)).collect();
    let gone = all.iter().filter(|gone| **gone).count();
    assert!(all[..gone].iter().all(|gone| *gone), "the oldest go, in their order");
    assert!(gone > 0 && gone < all.len());
    let before = chat.newest();
    for _ in 0..20 {
        let at = chat.send(&running, &mut log, 9_000);
        running.make_durable(&mut log, at);
    }
    running.close(log);
    let running = rig.start();
    let (opened, rows) = open_rows(&running).unwrap();
    assert!(opened.report.losses.is_empty() && opened.report.checkpoint.is_some());
    let kept = support::chat::newest_of(&rows);
    assert_eq!(kept, chat.newest(), "ids go on");
    assert!(before.iter().all(|(channel, id)| kept[channel] >= *id));
    println!("TEST eviction full n={} evicted={gone} refused_after=0", all.len());
    running.close(opened.log);
}

/// Users enter channels until there is no room for one more.
fn fill_entries(running: &Running, log: &mut MappedLog) -> (Vec<Offset>, bool) {
    let (mut at, mut full) = (Vec::new(), false);
    while !full {
        let (entered, refused) = Chat::enter_or_full(running, log);
        at.extend(entered);
        full = refused;
    }
    settle(running, log);
    (at, full)
}
