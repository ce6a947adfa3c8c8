//! The ways in which a batch can reach the disk, and the two measurements of each.

use std::hint::{black_box, spin_loop};
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam::queue::ArrayQueue;

use crate::place::{Place, preemptions};

/// Bytes of a record: a message of a hundred bytes or two with its headers.
pub(crate) const RECORD_BYTES: usize = 256;

/// Time between two appends of the second measurement: 100,000 a second, far above what one
/// shard gets, so that an append falls into every part of a sync.
const APPEND_EVERY: Duration = Duration::from_micros(10);

/// How a batch reaches the disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Way {
    /// Records are stored through a mapping; `fdatasync` of the file.
    StoreFdatasync,
    /// Records are stored through a mapping; `msync` of the pages of the batch.
    StoreMsync,
    /// Records gather in memory; `pwrite` and `fdatasync`, beside a mapping that is only read.
    PwriteFdatasync,
}

impl Way {
    pub(crate) const ALL: [Self; 3] =
        [Self::StoreFdatasync, Self::StoreMsync, Self::PwriteFdatasync];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::StoreFdatasync => "mapped store + fdatasync",
            Self::StoreMsync => "mapped store + msync",
            Self::PwriteFdatasync => "pwrite + fdatasync (ours)",
        }
    }

    /// Makes what lies in a range durable, as far as stores left that to do.
    fn sync(self, place: &Place, range: Range<usize>) -> io::Result<()> {
        match self {
            Self::StoreFdatasync | Self::PwriteFdatasync => place.sync(),
            Self::StoreMsync => place.sync_range(range.start, range.len()),
        }
    }

    /// Has a batch written, made durable, and readable through the mapping.
    fn commit(self, place: &Place, at: usize, batch: &[u8]) -> io::Result<()> {
        match self {
            Self::StoreFdatasync | Self::StoreMsync => place.store(at, batch),
            Self::PwriteFdatasync => place.write(at, batch)?,
        }
        self.sync(place, at..at + batch.len())?;
        black_box(place.load(at));
        Ok(())
    }

    /// One batch after the other, until the time or the file has ended: ns of each commit.
    pub(crate) fn commits(
        self,
        place: &Place,
        records: usize,
        time: Duration,
    ) -> io::Result<Commits> {
        let batch = records * RECORD_BYTES;
        let (begin, mut commits_ns) = (Instant::now(), Vec::new());
        for at in (0..=place.bytes() - batch).step_by(batch) {
            if begin.elapsed() >= time {
                break;
            }
            let bytes = vec![commits_ns.len() as u8 | 1; batch]; // any bytes but zeros
            let start = Instant::now();
            self.commit(place, at, &bytes)?;
            commits_ns.push(start.elapsed().as_nanos() as u64);
            assert_eq!(place.load(at + batch - 1), bytes[0], "the mapping shows what was written");
        }
        let spent_ns: u64 = commits_ns.iter().sum();
        let records_per_s = (commits_ns.len() * records) as f64 / (spent_ns as f64 / 1e9);
        Ok(Commits { commits_ns, records_per_s })
    }

    /// Appends all the time while another thread syncs all the time.
    pub(crate) fn appends(self, place: &Place, time: Duration) -> io::Result<Appends> {
        match self {
            Self::StoreFdatasync | Self::StoreMsync => self.appends_stored(place, time),
            Self::PwriteFdatasync => self.appends_gathered(place, time),
        }
    }

    /// The appender stores into the mapping, below the other thread's syncs.
    fn appends_stored(self, place: &Place, time: Duration) -> io::Result<Appends> {
        let (written, ended) = (AtomicUsize::new(0), AtomicBool::new(false));
        thread::scope(|scope| {
            let syncs = scope.spawn(|| {
                let (mut from, mut syncs) = (0, Vec::new());
                while !ended.load(Ordering::Acquire) {
                    let to = written.load(Ordering::Acquire);
                    if to == from {
                        spin_loop();
                        continue;
                    }
                    let start = Instant::now();
                    self.sync(place, from..to)?;
                    syncs.push(start.elapsed().as_nanos() as u64);
                    from = to;
                }
                io::Result::Ok(syncs)
            });
            let record = [1; RECORD_BYTES];
            let mut appends = append_all_the_time(time, place.bytes(), |at| {
                place.store(at, &record);
                written.store(at + RECORD_BYTES, Ordering::Release);
            });
            ended.store(true, Ordering::Release);
            appends.syncs_ns = syncs.join().expect("syncing does not panic")?;
            Ok(appends)
        })
    }

    /// The appender copies into a batch in memory, and hands it over when the one before is back.
    fn appends_gathered(self, place: &Place, time: Duration) -> io::Result<Appends> {
        let handed: ArrayQueue<(usize, Vec<u8>)> = ArrayQueue::new(1);
        let back: ArrayQueue<Vec<u8>> = ArrayQueue::new(1);
        let ended = AtomicBool::new(false);
        back.push(Vec::with_capacity(RECORD_BYTES * 1024)).expect("it is empty");
        thread::scope(|scope| {
            let syncs = scope.spawn(|| {
                let mut syncs = Vec::new();
                while !ended.load(Ordering::Acquire) {
                    let Some((at, mut batch)) = handed.pop() else {
                        spin_loop();
                        continue;
                    };
                    let start = Instant::now();
                    self.commit(place, at, &batch)?;
                    syncs.push(start.elapsed().as_nanos() as u64);
                    batch.clear();
                    back.push(batch).expect("there are two, and the appender has the other");
                }
                io::Result::Ok(syncs)
            });
            let record = [1; RECORD_BYTES];
            let (mut gathering, mut start) = (Vec::with_capacity(RECORD_BYTES * 1024), 0);
            let mut appends = append_all_the_time(time, place.bytes(), |at| {
                gathering.extend_from_slice(&record);
                if let Some(empty) = back.pop() {
                    let full = std::mem::replace(&mut gathering, empty);
                    handed.push((start, full)).expect("the one before is back");
                    start = at + RECORD_BYTES;
                }
            });
            ended.store(true, Ordering::Release);
            appends.syncs_ns = syncs.join().expect("syncing does not panic")?;
            Ok(appends)
        })
    }
}

/// What one round of commits took.
pub(crate) struct Commits {
    pub(crate) commits_ns: Vec<u64>,
    pub(crate) records_per_s: f64,
}

/// What one round of appends beside syncs took.
pub(crate) struct Appends {
    /// Of appends in which the core was not taken away.
    pub(crate) appends_ns: Vec<u64>,
    /// Appends in which it was: their time says nothing of the way.
    pub(crate) preempted: u64,
    /// The other thread's commits.
    pub(crate) syncs_ns: Vec<u64>,
}

/// Times `append` of one record after the other at a steady pace.
fn append_all_the_time(time: Duration, bytes: usize, mut append: impl FnMut(usize)) -> Appends {
    let (begin, mut next) = (Instant::now(), Instant::now());
    let mut appends = Appends { appends_ns: Vec::new(), preempted: 0, syncs_ns: Vec::new() };
    for at in (0..=bytes - RECORD_BYTES).step_by(RECORD_BYTES) {
        while Instant::now() < next {
            spin_loop();
        }
        let before = preemptions();
        let start = Instant::now();
        append(at);
        let took = start.elapsed();
        if preemptions() == before {
            appends.appends_ns.push(took.as_nanos() as u64);
        } else {
            appends.preempted += 1;
        }
        next = start.max(next) + APPEND_EVERY;
        if begin.elapsed() >= time {
            break;
        }
    }
    appends
}
