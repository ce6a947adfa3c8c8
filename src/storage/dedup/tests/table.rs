//! What a table holds, against a plain map: through growth, removal and kills.

use std::collections::HashMap;

use proptest::prelude::*;
use tern_core::dedup::{DedupEntry, TableFull};

use super::super::table::SLOTS_MIN;
use super::*;

/// What can happen to a device.
#[derive(Clone, Copy, Debug)]
enum Step {
    Put(u64),
    Remove(u64),
}

fn step(devices: u64) -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (1..devices).prop_map(Step::Put),
        1 => (1..devices).prop_map(Step::Remove),
    ]
}

/// Puts and removes as told, with a kill before step `killed`, in a table of 16 slots at first.
fn agrees_with_a_map(steps: &[Step], killed: usize, devices: u64) -> Result<(), TestCaseError> {
    let dir = tempfile::tempdir_in(MEMORY).unwrap();
    let supply = small_supply(dir.path(), 16);
    let mut table = attach_from(&supply, 1, END).table;
    let mut model: HashMap<u64, DedupEntry> = HashMap::new();
    for (number, step) in steps.iter().enumerate() {
        if number == killed {
            drop(table); // as a kill: nothing is written when a table goes
            let Attached { table: again, rebuilt, .. } =
                attach_from(&small_supply(dir.path(), 16), 2, END);
            match rebuilt {
                None => prop_assert_eq!(again.entries(), model.len()),
                Some(why) => {
                    prop_assert!(why == "it was growing" || number == 0, "{}", why);
                    model.clear();
                }
            }
            table = again;
        }
        match *step {
            Step::Put(uin) => {
                prop_assert_eq!(get(&table, uin), model.get(&uin).copied());
                model.insert(uin, put(&mut table, uin, (number as u64 + 1) * 16));
            }
            Step::Remove(uin) => {
                remove(&mut table, uin);
                model.remove(&uin);
                prop_assert_eq!(get(&table, uin), None);
            }
        }
        prop_assert_eq!(table.entries(), model.len());
    }
    for uin in 1..devices {
        prop_assert_eq!(get(&table, uin), model.get(&uin).copied());
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(soaked(64) as u32))]

    /// Few devices, so that each is put, removed and put again, growth in between.
    #[test]
    fn few_devices_agree_with_a_map(
        steps in prop::collection::vec(step(60), 10..600),
        killed in 0usize..600,
    ) {
        agrees_with_a_map(&steps, killed, 60)?;
    }

    /// Many devices, so that it grows again and again.
    #[test]
    fn many_devices_agree_with_a_map(
        steps in prop::collection::vec(step(4000), 1000..4000),
        killed in 0usize..4000,
    ) {
        agrees_with_a_map(&steps, killed, 4000)?;
    }
}

#[test]
fn grows_without_losing_and_within_its_budget() {
    let dir = tempfile::tempdir_in(MEMORY).unwrap();
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
    let dir = tempfile::tempdir_in(MEMORY).unwrap();
    let supply = supply(&dir);
    let mut table = attach_from(&supply, 1, END).table;
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
    remove(&mut table, 2);
    assert_eq!(table.reserve(), Ok(()), "a device that left makes room");
    put(&mut table, uin, 1 << 31);
    assert_eq!(table.reserve(), Err(TableFull));
    supply.serve();
    assert_eq!(table.reserve(), Ok(()), "as soon as there is a larger one");
    put(&mut table, uin + 1, 1 << 32);
    assert_eq!(get(&table, uin + 1), Some(entry(1 << 32)));
    assert_eq!(get(&table, 2), None);
}

/// Devices come and go at the working load for as many turns as it has slots, and each look-up
/// still finds what it should: nothing is left of those that went.
#[test]
fn a_table_that_ages_is_as_good_as_new() {
    let dir = tempfile::tempdir_in(MEMORY).unwrap();
    let mut table = attach_from(&small_supply(dir.path(), 4096), 1, END).table;
    let alive = 4096 * 3 / 4; // just below where the next table is asked for
    let turns = soaked(20_000);
    (1..alive).for_each(|uin| {
        put(&mut table, uin, uin * 8);
    });
    for uin in alive..alive + turns {
        remove(&mut table, uin - alive + 1);
        put(&mut table, uin, uin * 8);
    }
    assert_eq!(table.bytes(), 4096 * 48, "it did not need to grow");
    assert_eq!(table.entries() as u64, alive - 1);
    let newest = alive + turns - 1;
    for uin in 1..=newest {
        let expected = (uin + alive > newest + 1).then(|| entry(uin * 8));
        assert_eq!(get(&table, uin), expected);
    }
    drop(table);
    assert_eq!(attach_from(&small_supply(dir.path(), 4096), 2, END).rebuilt, None);
    println!("TEST C-07 ageing n={turns} lost=0 revived=0");
}
