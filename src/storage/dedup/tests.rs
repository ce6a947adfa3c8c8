//! The table against a plain map, through growth, kills and every doubt there is.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use proptest::prelude::*;
use tempfile::TempDir;
use tern_core::dedup::{DedupEntry, DedupTable, TableFull};
use tern_core::log::Offset;
use tern_protocol::{DeviceId, Epoch, Incarnation, SendCounter, Uin};

use super::table::SLOTS_MIN;
use super::{Attached, ShmTable, Supply, TableIdentity, TableView};
use crate::format::Id;
use crate::io::Mailbox;

const LIFE: Incarnation = Incarnation(1);
const END: Offset = Offset(1 << 40);

fn opening(number: u8) -> Id {
    [number; 16]
}

fn identity() -> TableIdentity {
    TableIdentity { folder: [3; 16], shard: 2, boot: [4; 16] }
}

fn supply_of(identity: TableIdentity, dirs: &[&Path]) -> Arc<Supply> {
    let dirs = dirs.iter().map(|dir| dir.to_path_buf()).collect();
    Arc::new(Supply::new(identity, dirs, Mailbox::new().handle()))
}

fn supply(dir: &TempDir) -> Arc<Supply> {
    supply_of(identity(), &[dir.path()])
}

/// Attaches as the opening `number` of a log.
fn attach(dir: &TempDir, number: u8, end: Offset) -> Attached {
    let openings = [opening(number - 1), opening(number)];
    ShmTable::attach(&supply(dir), LIFE, openings, end).unwrap()
}

fn entry(last: u64) -> DedupEntry {
    let (epoch, newest) = (Epoch(last as u32 % 7 + 1), SendCounter(last as u32));
    DedupEntry { epoch, newest, window: last | 1, last: Offset(last) }
}

/// Puts an entry whose record is at `last`.
fn put(table: &mut ShmTable, uin: u64, last: u64) -> DedupEntry {
    let (uin, device) = (Uin(uin), DeviceId(uin as u32 % 3));
    if table.get(uin, device).is_none() {
        table.reserve().unwrap();
    }
    table.put(uin, device, entry(last), Offset(last + 8));
    entry(last)
}

fn get(table: &ShmTable, uin: u64) -> Option<DedupEntry> {
    table.get(Uin(uin), DeviceId(uin as u32 % 3))
}

fn only_file(dir: &TempDir) -> std::path::PathBuf {
    let mut paths = std::fs::read_dir(dir.path()).unwrap();
    let path = paths.next().unwrap().unwrap().path();
    assert!(paths.next().is_none());
    path
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Random devices, some again and again, over a growth and a kill.
    #[test]
    fn agrees_with_a_map(
        devices in prop::collection::vec(1u64..6000, 1000..6000),
        killed in 0usize..6000,
    ) {
        let dir = tempfile::tempdir().unwrap();
        let mut table = attach(&dir, 1, END).table;
        let mut model: HashMap<u64, DedupEntry> = HashMap::new();
        for (step, device) in devices.iter().enumerate() {
            if step == killed {
                drop(table); // as a kill: nothing is written when a table goes
                let Attached { table: again, applied, rebuilt } = attach(&dir, 2, END);
                match rebuilt {
                    None => prop_assert_eq!(applied, Offset(step as u64 * 16 + 8)),
                    Some("it was growing") => model.clear(),
                    // Attached before the first entry was put.
                    Some(why) => prop_assert!(step == 0, "{}", why),
                }
                table = again;
            }
            prop_assert_eq!(get(&table, *device), model.get(device).copied());
            let put = put(&mut table, *device, (step as u64 + 1) * 16);
            model.insert(*device, put);
        }
        prop_assert_eq!(table.entries(), model.len());
        for device in 1..6000 {
            prop_assert_eq!(get(&table, device), model.get(&device).copied());
        }
    }
}

#[test]
fn grows_without_losing_and_within_its_budget() {
    let dir = tempfile::tempdir().unwrap();
    let mut table = attach(&dir, 1, END).table;
    let mut grown = 0;
    for uin in 1..100_000 {
        let before = table.bytes();
        if table.entries() * 5 + 5 > before / 48 * 4 {
            grown += 1;
            assert!(before <= table.entries() * 61, "{before} bytes for {}", table.entries());
        }
        put(&mut table, uin, uin * 8);
    }
    assert!(grown >= 4);
    assert!((1..100_000).all(|uin| get(&table, uin) == Some(entry(uin * 8))));
    assert_eq!(get(&table, 100_000), None);
    drop(table);
    let again = attach(&dir, 2, END);
    assert_eq!((again.rebuilt, again.applied), (None, Offset(99_999 * 8 + 8)));
    assert_eq!(again.table.entries(), 99_999);
    only_file(&dir);
}

#[test]
fn a_table_that_cannot_grow_refuses_new_devices_only() {
    let dir = tempfile::tempdir().unwrap();
    let supply = supply(&dir);
    let openings = [opening(0), opening(1)];
    let mut table = ShmTable::attach(&supply, LIFE, openings, END).unwrap().table;
    supply.leave_to_io_thread(); // which does not run here
    let mut uin = 1;
    while table.reserve().is_ok() {
        put(&mut table, uin, uin * 8);
        uin += 1;
    }
    assert_eq!(table.entries(), SLOTS_MIN * 4 / 5);
    put(&mut table, 1, 1 << 30);
    assert_eq!(get(&table, 1), Some(entry(1 << 30)));
    assert_eq!(table.reserve(), Err(TableFull));
    supply.serve();
    assert_eq!(table.reserve(), Ok(()), "as soon as there is a larger one");
    put(&mut table, uin, 1 << 31);
    assert_eq!(get(&table, uin), Some(entry(1 << 31)));
}

/// A table with some entries, left by a process that was killed.
fn left() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let mut table = attach(&dir, 1, END).table;
    (1..500).for_each(|uin| {
        put(&mut table, uin, uin * 8);
    });
    dir
}

#[test]
fn every_doubt_throws_it_away() {
    let end = Offset(499 * 8 + 8);
    let [before, now] = [opening(1), opening(2)];
    let of = |identity, life, openings, end| {
        let dir = left();
        let supply = supply_of(identity, &[dir.path()]);
        let attached = ShmTable::attach(&supply, life, openings, end).unwrap();
        if attached.rebuilt.is_some() {
            assert_eq!((attached.table.entries(), attached.applied), (0, Offset(0)));
            assert_eq!(get(&attached.table, 1), None);
        }
        attached.rebuilt
    };
    let ours = identity();
    assert_eq!(of(ours, LIFE, [before, now], end), None);
    let wrong = "it is of another log, incarnation, boot or layout";
    let cases = [
        (TableIdentity { boot: [5; 16], ..ours }, LIFE, before, end, wrong),
        (ours, Incarnation(2), before, end, wrong),
        (ours, LIFE, opening(9), end, wrong),
        (ours, LIFE, before, Offset(end.0 - 8), "it knows more than the log"),
        (TableIdentity { folder: [5; 16], ..ours }, LIFE, before, end, "there was none"),
        (TableIdentity { shard: 3, ..ours }, LIFE, before, end, "there was none"),
    ];
    for (identity, life, opening, end, why) in cases {
        assert_eq!(of(identity, life, [opening, now], end), Some(why));
    }
    // Under the right name, and of another folder all the same.
    let (dir, other) = (left(), TableIdentity { folder: [5; 16], ..ours });
    let other = supply_of(other, &[dir.path()]);
    std::fs::rename(only_file(&dir), dir.path().join(other.name())).unwrap();
    let attached = ShmTable::attach(&other, LIFE, [before, now], end).unwrap();
    assert_eq!(attached.rebuilt, Some(wrong));
}

#[test]
fn an_unknown_boot_is_never_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let supply = supply_of(TableIdentity { boot: [0; 16], ..identity() }, &[dir.path()]);
    for number in 1..3 {
        let openings = [opening(number - 1), opening(number)];
        let attached = ShmTable::attach(&supply, LIFE, openings, END).unwrap();
        assert!(attached.rebuilt.is_some());
    }
}

/// Any bit of what counts: the header's words, and the slots.
#[test]
fn damage_throws_it_away() {
    let dir = left();
    let path = only_file(&dir);
    let whole = std::fs::read(&path).unwrap();
    let used = (4096..whole.len()).filter(|at| whole[*at] != 0).step_by(97);
    let places: Vec<_> = (0..15 * 8).step_by(3).chain(used).collect();
    assert!(places.len() > 100);
    for at in places {
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (at % 8);
        std::fs::write(&path, &bytes).unwrap();
        let attached = attach(&dir, 2, END);
        // A version may be any even number.
        let version = at >= 4096 && (at - 4096) % 48 < 4 && bytes[at] & 1 == whole[at] & 1;
        assert!(attached.rebuilt.is_some() || version, "at {at}");
        drop(attached);
    }
    for len in [0, 1, 4095, 4096, 4097, whole.len() - 1, whole.len() - 48] {
        std::fs::write(&path, &whole[..len]).unwrap();
        assert!(attach(&dir, 2, END).rebuilt.is_some(), "{len} bytes");
    }
}

#[test]
fn where_shared_memory_has_no_room_the_data_folder_takes_it() {
    let (data, nowhere) = (tempfile::tempdir().unwrap(), Path::new("/proc/self/nowhere"));
    let openings = [opening(0), opening(1)];
    let supply = supply_of(identity(), &[nowhere, data.path()]);
    let mut table = ShmTable::attach(&supply, LIFE, openings, END).unwrap().table;
    (1..5000).for_each(|uin| {
        put(&mut table, uin, uin * 8);
    });
    drop(table);
    only_file(&data);
    let openings = [opening(1), opening(2)];
    let supply = supply_of(identity(), &[nowhere, data.path()]);
    let again = ShmTable::attach(&supply, LIFE, openings, END).unwrap();
    assert_eq!((again.rebuilt, again.table.entries()), (None, 4999));
}

#[test]
fn a_table_in_use_is_left_alone() {
    let (dir, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut first = attach(&dir, 1, END).table;
    put(&mut first, 1, 8);
    let supply = supply_of(identity(), &[dir.path(), data.path()]);
    let openings = [opening(1), opening(2)];
    let second = ShmTable::attach(&supply, LIFE, openings, END).unwrap();
    assert_eq!(second.rebuilt, Some("another process uses it"));
    drop(second);
    only_file(&data);
    put(&mut first, 2, 16);
    drop(first);
    assert_eq!(attach(&dir, 2, END).table.entries(), 2);
}

#[test]
fn a_link_is_not_followed() {
    let (dir, target) = (tempfile::tempdir().unwrap(), left());
    let link = dir.path().join(supply(&dir).name());
    std::os::unix::fs::symlink(only_file(&target), &link).unwrap();
    assert_eq!(attach(&dir, 2, END).rebuilt, Some("it can't be opened"));
    assert!(link.symlink_metadata().unwrap().is_file());
    assert_eq!(attach(&target, 2, END).rebuilt, None, "the target was not touched");
}

/// Each entry's fields all come from one number; a reader that saw half of a write would notice.
#[test]
fn a_reader_beside_sees_whole_entries() {
    let dir = tempfile::tempdir().unwrap();
    let mut table = attach(&dir, 1, END).table;
    put(&mut table, 1, 8);
    let (path, stop) = (only_file(&dir), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let view = TableView::open(&path).unwrap();
            let (mut reads, mut newest) = (0, 0);
            while !stop.load(Ordering::Relaxed) || reads == 0 {
                let Ok(found) = view.get(Uin(1), DeviceId(1)) else { continue };
                let found = found.expect("it was put before");
                assert_eq!(found, entry(found.last.0));
                assert!(found.last.0 >= newest);
                newest = found.last.0;
                reads += 1;
            }
            assert_eq!(view.get(Uin(3000), DeviceId(0)), Ok(None));
            reads
        });
        for number in 2..300_000 {
            put(&mut table, 1, number * 8);
        }
        stop.store(true, Ordering::Relaxed);
        assert!(reader.join().unwrap() > 0);
    });
}
