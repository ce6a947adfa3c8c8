//! The table against plain models, through growth, removal, kills and every doubt there is.

mod beside;
mod cost;
mod crash;
mod doubt;
mod model;
mod orders;
mod places;
mod table;

use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::{Arc, PoisonError, RwLock};

use tempfile::TempDir;
use tern_core::dedup::{DedupEntry, DedupTable};
use tern_core::log::Offset;
use tern_protocol::{DeviceId, Epoch, Incarnation, SendCounter, Uin};
use tern_random::{Stream, seed_from_env, soaked};

use super::{Attached, ShmTable, Supply, TableIdentity};
use crate::format::Id;
use crate::io::Mailbox;

const LIFE: Incarnation = Incarnation(1);
const END: Offset = Offset(1 << 40);

/// The seed of runs that are given none.
const SEED: u64 = 20_261_122;

/// Where tables are at home. Tests that make very many are done there in seconds.
const MEMORY: &str = "/dev/shm";

/// Held for writing while a process starts, which until it runs its own program has the
/// descriptors, and so the locks, of all tests here; for reading while a lock is asked for.
static STARTING: RwLock<()> = RwLock::new(());

/// Starts a process that has none of the locks of the tests here.
pub(crate) fn spawn(command: &mut Command) -> Child {
    let _alone = STARTING.write().unwrap_or_else(PoisonError::into_inner);
    let mut child = command.spawn().unwrap();
    let maps = format!("/proc/{}/maps", child.id());
    // The call returns before the kernel has let go of what the new program may not have. It has
    // when the program runs, and so has loaded its C library.
    let runs = |maps: String| maps.contains("/libc") || maps.contains("/ld-musl");
    while !runs(std::fs::read_to_string(&maps).unwrap()) && child.try_wait().unwrap().is_none() {
        std::thread::yield_now();
    }
    child
}

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

/// A supply whose first table has this many slots.
fn small_supply(dir: &Path, slots: usize) -> Arc<Supply> {
    let mut supply = Supply::new(identity(), vec![dir.to_owned()], Mailbox::new().handle());
    supply.slots_first = slots;
    Arc::new(supply)
}

/// Attaches as the opening `number` of a log.
fn attach(dir: &TempDir, number: u8, end: Offset) -> Attached {
    attach_from(&supply(dir), number, end)
}

fn attach_from(supply: &Arc<Supply>, number: u8, end: Offset) -> Attached {
    let openings = [opening(number - 1), opening(number)];
    let _quiet = STARTING.read().unwrap_or_else(PoisonError::into_inner);
    ShmTable::attach(supply, LIFE, openings, end).unwrap()
}

fn entry(last: u64) -> DedupEntry {
    let (epoch, newest) = (Epoch(last as u32 % 7 + 1), SendCounter(last as u32));
    DedupEntry { epoch, newest, window: last | 1, last: Offset(last) }
}

fn device(uin: u64) -> DeviceId {
    DeviceId(uin as u32 % 3)
}

/// Puts an entry whose record is at `last`.
fn put(table: &mut ShmTable, uin: u64, last: u64) -> DedupEntry {
    if table.get(Uin(uin), device(uin)).is_none() {
        table.reserve().unwrap();
    }
    table.put(Uin(uin), device(uin), entry(last), Offset(last + 8));
    entry(last)
}

/// Puts these uins, each at 8 times its number.
fn fill(table: &mut ShmTable, uins: std::ops::Range<u64>) {
    uins.for_each(|uin| {
        put(table, uin, uin * 8);
    });
}

fn remove(table: &mut ShmTable, uin: u64) {
    table.remove(Uin(uin), device(uin));
}

fn get(table: &ShmTable, uin: u64) -> Option<DedupEntry> {
    table.get(Uin(uin), device(uin))
}

fn only_file(dir: &TempDir) -> PathBuf {
    let mut paths = std::fs::read_dir(dir.path()).unwrap();
    let path = paths.next().unwrap().unwrap().path();
    assert!(paths.next().is_none());
    path
}
