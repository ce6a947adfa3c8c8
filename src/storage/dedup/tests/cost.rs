//! What a table costs: bytes an entry, time to take one over and to fill one anew, and how many
//! slots a removal touches. Times are of the processor, so that other programs don't count, and
//! include the counting of stores that only these tests do. Everyday sizes; `TERN_SOAK=50` in a
//! release build gives the figures of FORMAT.md.

use std::time::Duration;

use super::super::memory::crash::{Plan, passed, plan};
use super::super::slot::{SLOT_BYTES, SLOT_WORDS};
use super::*;

/// Time that this thread has had a processor.
fn used() -> Duration {
    let used = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(used.tv_sec as u64, used.tv_nsec as u32)
}

#[test]
fn filling_and_taking_over() {
    let dir = tempfile::tempdir_in(MEMORY).unwrap();
    let devices = soaked(20_000);
    let mut table = attach(&dir, 1, END).table;
    let begin = used();
    for uin in 1..=devices {
        put(&mut table, uin, uin * 8);
    }
    let filled = used() - begin;
    let bytes = table.bytes();
    drop(table);
    let begin = used();
    let again = attach(&dir, 2, END);
    let taken = used() - begin;
    assert_eq!((again.rebuilt, again.table.entries() as u64), (None, devices));
    let per_million = |took: Duration| took.as_secs_f64() * 1e9 / devices as f64;
    println!(
        "TEST C-04 n={devices} bytes_an_entry={:.1} fill_cpu_ms_per_1e6={:.0} take_over_cpu_ms_per_1e6={:.0}",
        bytes as f64 / devices as f64,
        per_million(filled),
        per_million(taken)
    );
}

/// Stores tell how many slots were written, at the working load: 7 words and a version twice.
#[test]
fn removing_touches_one_run() {
    const STORES: u64 = SLOT_WORDS as u64 + 3;
    let dir = tempfile::tempdir_in(MEMORY).unwrap();
    let slots = 1 << soaked(20_000).ilog2();
    let mut table = attach_from(&small_supply(dir.path(), slots), 1, END).table;
    let devices = (slots * 3 / 4) as u64;
    (1..=devices).for_each(|uin| {
        put(&mut table, uin, uin * 8);
    });
    let (mut most, mut all) = (0, 0);
    let begin = used();
    for uin in 1..=devices {
        plan(Plan::Nothing);
        remove(&mut table, uin);
        // Two stores count the moves, one the entries.
        let written = (passed() - 3) / STORES;
        (most, all) = (written.max(most), all + written);
        put(&mut table, uin, (devices + uin) * 8);
    }
    let took = used() - begin;
    assert!(most < 400, "{most} slots were written for one removal");
    println!(
        "TEST C-07 removals n={devices} of {slots} slots of {SLOT_BYTES} bytes: written on \
         average {:.2}, at most {most}; {:.0} ns of processor for removing and putting one",
        all as f64 / devices as f64,
        took.as_nanos() as f64 / devices as f64
    );
}
