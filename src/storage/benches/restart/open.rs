//! Opens the logs as a server does, the shards shared out among some threads, and says how long it took.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{Advice, fadvise};
use tern_core::Recovery;
use tern_core::placement::{Placement, ShardId};
use tern_storage::{RecoveryReport, Storage};

use super::Size;
use super::fill::start;

pub(crate) fn open(size: &Size, data: &Path, what: &str) -> Result<(), String> {
    let began = Instant::now();
    let storage = start(size, data)?;
    let (shards_all, threads) = (size.shards, size.threads.min(size.shards));
    let placement = Placement::new(shards_all, threads);
    let reports: Result<Vec<Vec<RecoveryReport>>, String> = std::thread::scope(|scope| {
        let share = |thread: u16| {
            let storage = &storage;
            let shards = (thread..shards_all).step_by(usize::from(threads));
            scope.spawn(move || shards.map(|shard| read(storage, placement, shard)).collect())
        };
        let threads: Vec<_> = (0..threads).map(share).collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    });
    let took = began.elapsed();
    let reports: Vec<RecoveryReport> = reports?.into_iter().flatten().collect();
    storage.shutdown();
    tell(what, took, &reports);
    Ok(())
}

fn read(storage: &Storage, placement: Placement, shard: u16) -> Result<RecoveryReport, String> {
    let id = ShardId(shard);
    let mut scan = storage.scan_shard(id).map_err(|error| error.to_string())?;
    let (table, applied) = scan.attach_table().map_err(|error| error.to_string())?;
    let mut state = Recovery::new(id, placement, table, applied);
    let opened = scan.replay(&mut state).map_err(|error| error.to_string())?;
    std::mem::forget(opened.log); // not closed in order, so that the next one finds it as killed
    Ok(opened.report)
}

fn tell(what: &str, took: Duration, reports: &[RecoveryReport]) {
    let sum = |of: fn(&RecoveryReport) -> u64| reports.iter().map(of).sum::<u64>();
    let (records, bytes) = (sum(|report| report.records), sum(|report| report.bytes));
    let rows = sum(|report| report.checkpoint_rows);
    let longest =
        |of: fn(&RecoveryReport) -> Duration| reports.iter().map(of).max().unwrap_or_default();
    let (scan, replay) = (longest(|report| report.scan_took), longest(|r| r.replay_took));
    let rate = records as f64 / took.as_secs_f64() / 1e6;
    println!(
        "{what}: {took:.2?}; {rows} rows, {records} records, {} MiB; a shard at most: find the \
         end {scan:.2?}, replay {replay:.2?}; {rate:.2} million records/s",
        bytes >> 20
    );
}

pub(crate) fn forget_tables(data: &Path) -> Result<(), String> {
    remove(&data.join("tables"), |_| true)
}

pub(crate) fn forget_checkpoints(data: &Path) -> Result<(), String> {
    for dir in shards(data) {
        remove(&dir, |path| path.extension().is_some_and(|suffix| suffix == "ckpt"))?;
    }
    Ok(())
}

/// Writes back, and has the kernel drop, what it holds of the logs.
pub(crate) fn forget_pages(data: &Path) -> Result<(), String> {
    for path in shards(data).iter().flat_map(|dir| entries(dir)) {
        let file = File::open(&path).map_err(|error| error.to_string())?;
        file.sync_all().map_err(|error| error.to_string())?;
        fadvise(&file, 0, None, Advice::DontNeed).map_err(|error| error.to_string())?;
    }
    Ok(())
}

fn shards(data: &Path) -> Vec<PathBuf> {
    entries(&data.join("log"))
}

fn entries(dir: &Path) -> Vec<PathBuf> {
    fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

fn remove(dir: &Path, which: impl Fn(&Path) -> bool) -> Result<(), String> {
    for path in entries(dir).into_iter().filter(|path| which(path)) {
        fs::remove_file(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    Ok(())
}
