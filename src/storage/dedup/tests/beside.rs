//! Readers beside the owner: another thread, and another process, while the owner puts, removes
//! and grows at full speed (C-01).

use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};

use super::super::TableView;
use super::super::memory::crash::{Plan, plan};
use super::*;

/// Names the table's file to the process that reads it.
const READER: &str = "TERN_DEDUP_TEST_READER";

/// How many entries that process reads.
const READS: &str = "TERN_DEDUP_TEST_READS";

/// Devices that stay and are put again and again: the first 64.
const STAY: u64 = 64;

/// Devices that come and go around them, so that they move.
const GUESTS: std::ops::Range<u64> = 100..3000;

/// What a reader counted.
struct Seen {
    reads: u64,
    retries: u64,
    newest: [u64; STAY as usize],
}

impl Seen {
    fn nothing() -> Self {
        Self { reads: 0, retries: 0, newest: [0; STAY as usize] }
    }

    /// Reads one of the devices that stay: it is there, whole, and never older than before.
    fn read(&mut self, view: &TableView) {
        let uin = self.reads % STAY + 1;
        let Ok(found) = view.try_get(Uin(uin), device(uin)) else {
            self.retries += 1;
            std::hint::spin_loop();
            return;
        };
        let found = found.unwrap_or_else(|| panic!("{uin} was put before, and never removed"));
        assert_eq!(found, entry(found.last.0), "torn");
        let newest = &mut self.newest[uin as usize - 1];
        assert!(found.last.0 >= *newest, "{uin} went back");
        *newest = found.last.0;
        self.reads += 1;
    }
}

/// One turn of the owner: a device that stays sends, a guest goes, another comes.
fn turn(table: &mut ShmTable, number: u64) {
    put(table, number % STAY + 1, number * 8);
    let guests = GUESTS.end - GUESTS.start;
    remove(table, GUESTS.start + number % guests);
    put(table, GUESTS.start + (number + guests / 2) % guests, number * 8);
}

/// A table in which all that stay are there.
fn begun(dir: &TempDir) -> ShmTable {
    let mut table = attach(dir, 1, END).table;
    (1..=STAY).for_each(|uin| {
        put(&mut table, uin, uin * 8);
    });
    table
}

/// Not a test of its own: reads a table that another process writes.
#[test]
fn reader() {
    let Some(path) = std::env::var_os(READER) else { return };
    let reads: u64 = std::env::var(READS).unwrap().parse().unwrap();
    let view = TableView::open(Path::new(&path)).unwrap();
    let mut seen = Seen::nothing();
    while seen.reads < reads {
        seen.read(&view);
    }
    let mut listed = 0;
    for (uin, of, entry) in view.entries().flatten() {
        assert_eq!((of, entry), (device(uin.0), super::entry(entry.last.0)), "torn");
        listed += 1;
    }
    println!(
        "TEST C-01 second process n={} retries={} listed={listed} torn=0",
        seen.reads, seen.retries
    );
}

#[test]
fn another_process_reads_whole_entries() {
    let dir = tempfile::tempdir().unwrap();
    let mut table = begun(&dir);
    let mut reader = Command::new(std::env::current_exe().unwrap());
    reader
        .args(["dedup::tests::beside::reader", "--exact", "--nocapture"])
        .env(READER, only_file(&dir))
        .env(READS, soaked(200_000).to_string())
        .stdout(Stdio::piped());
    let mut reader = spawn(&mut reader);
    let (mut number, mut ended) = (STAY + 1, None);
    // Now and then the owner is interrupted between two stores, as a scheduler would do it.
    plan(Plan::Yield(997));
    while ended.is_none() {
        (0..1000).for_each(|_| {
            turn(&mut table, number);
            number += 1;
        });
        ended = reader.try_wait().unwrap();
    }
    plan(Plan::Nothing);
    let output = reader.wait_with_output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{said}");
    let line = said.lines().find(|line| line.contains("TEST C-01")).expect("it counted");
    let line = &line[line.find("TEST").unwrap()..];
    println!("{line} turns_of_the_owner={number}");
}

/// The owner is made to pause between stores at other places each time.
#[test]
fn another_thread_reads_whole_entries() {
    let (mut reads, mut retries) = (0, 0);
    for every in [3, 7, 13, 101, u64::MAX] {
        let dir = tempfile::tempdir().unwrap();
        let mut table = begun(&dir);
        let (path, stop) = (only_file(&dir), AtomicBool::new(false));
        let seen = std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let view = TableView::open(&path).unwrap();
                let mut seen = Seen::nothing();
                while !stop.load(Ordering::Relaxed) || seen.reads == 0 {
                    seen.read(&view);
                }
                assert_eq!(view.get(Uin(5000), DeviceId(0)), Ok(None));
                seen
            });
            plan(Plan::Yield(every));
            // A pause may cost as much as all others that want the core take.
            let turns = soaked(10_000.min(every.saturating_mul(200)));
            (STAY + 1..STAY + 1 + turns).for_each(|number| turn(&mut table, number));
            plan(Plan::Nothing);
            stop.store(true, Ordering::Relaxed);
            reader.join().unwrap()
        });
        reads += seen.reads;
        retries += seen.retries;
    }
    println!("TEST C-01 second thread n={reads} retries={retries} torn=0");
}

/// An entry whose owner died in the middle of writing it is told as such, and does not hold a
/// reader up for ever.
#[test]
fn a_reader_gives_up_on_what_stays_half_written() {
    let dir = tempfile::tempdir().unwrap();
    drop(begun(&dir));
    let path = only_file(&dir);
    let mut bytes = std::fs::read(&path).unwrap();
    let slots = bytes[4096..].chunks_mut(48);
    slots.filter(|slot| slot[8..16] != [0; 8]).for_each(|slot| slot[0] ^= 1);
    std::fs::write(&path, bytes).unwrap();
    let view = TableView::open(&path).unwrap();
    let torn = view.entries().filter(Result::is_err).count() as u64;
    assert_eq!((torn, view.get(Uin(1), device(1)).is_err()), (STAY, true));
}
