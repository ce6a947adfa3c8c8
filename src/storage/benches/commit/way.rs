//! The ways in which a batch can reach the disk, and the two measurements of each.

use std::hint::{black_box, spin_loop};
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam::queue::ArrayQueue;

use crate::place::{Place, preemptions};
use crate::ring::Ring;

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
    /// The same with `pwritev`, each record a piece of its own.
    PwritevFdatasync,
    /// The same by `io_uring`: a write and a linked `fdatasync`, one system call.
    Uring,
}

impl Way {
    pub(crate) const ALL: [Self; 5] = [
        Self::StoreFdatasync,
        Self::StoreMsync,
        Self::PwriteFdatasync,
        Self::PwritevFdatasync,
        Self::Uring,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::StoreFdatasync => "mapped store + fdatasync",
            Self::StoreMsync => "mapped store + msync",
            Self::PwriteFdatasync => "pwrite + fdatasync (ours)",
            Self::PwritevFdatasync => "pwritev + fdatasync",
            Self::Uring => "io_uring, linked",
        }
    }

    /// Why this machine has not got this way, if so.
    pub(crate) fn refused(self, place: &Place) -> Option<io::Error> {
        Committer::new(self, place).err()
    }

    /// One batch after the other, until the time or the file has ended: ns of each commit.
    pub(crate) fn commits(
        self,
        place: &Place,
        records: usize,
        time: Duration,
    ) -> io::Result<Commits> {
        let batch = records * RECORD_BYTES;
        let mut committer = Committer::new(self, place)?;
        let (begin, mut commits_ns) = (Instant::now(), Vec::new());
        for at in (0..=place.bytes() - batch).step_by(batch) {
            if begin.elapsed() >= time {
                break;
            }
            let bytes = vec![commits_ns.len() as u8 | 1; batch]; // any bytes but zeros
            let start = Instant::now();
            committer.commit(at, &bytes)?;
            commits_ns.push(start.elapsed().as_nanos() as u64);
            assert_eq!(place.load(at + batch - 1), bytes[0], "the mapping shows what was written");
        }
        let spent_ns: u64 = commits_ns.iter().sum();
        let records_per_s = (commits_ns.len() * records) as f64 / (spent_ns as f64 / 1e9);
        Ok(Commits { commits_ns, records_per_s })
    }

    /// Appends all the time while another thread syncs all the time, at least so many records at
    /// once.
    pub(crate) fn appends(
        self,
        place: &Place,
        least: usize,
        time: Duration,
    ) -> io::Result<Appends> {
        match self {
            Self::StoreFdatasync | Self::StoreMsync => self.appends_stored(place, least, time),
            Self::PwriteFdatasync | Self::PwritevFdatasync | Self::Uring => {
                self.appends_gathered(place, least, time)
            }
        }
    }

    /// The appender stores into the mapping, below the other thread's syncs.
    fn appends_stored(self, place: &Place, least: usize, time: Duration) -> io::Result<Appends> {
        let (written, ended) = (AtomicUsize::new(0), AtomicBool::new(false));
        thread::scope(|scope| {
            let syncs = scope.spawn(|| {
                let committer = Committer::new(self, place)?;
                let (mut from, mut syncs) = (0, Vec::new());
                while !ended.load(Ordering::Acquire) {
                    let to = written.load(Ordering::Acquire);
                    if to - from < least * RECORD_BYTES {
                        spin_loop();
                        continue;
                    }
                    let start = Instant::now();
                    committer.sync(from..to)?;
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
    fn appends_gathered(self, place: &Place, least: usize, time: Duration) -> io::Result<Appends> {
        let handed: ArrayQueue<(usize, Vec<u8>)> = ArrayQueue::new(1);
        let back: ArrayQueue<Vec<u8>> = ArrayQueue::new(1);
        let ended = AtomicBool::new(false);
        back.push(Vec::with_capacity(RECORD_BYTES * 1024)).expect("it is empty");
        thread::scope(|scope| {
            let syncs = scope.spawn(|| {
                // Here, for a ring belongs to the thread that made it.
                let (mut committer, mut syncs) = (Committer::new(self, place)?, Vec::new());
                while !ended.load(Ordering::Acquire) {
                    let Some((at, mut batch)) = handed.pop() else {
                        spin_loop();
                        continue;
                    };
                    let start = Instant::now();
                    committer.commit(at, &batch)?;
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
                let enough = gathering.len() >= least * RECORD_BYTES;
                if let Some(empty) = enough.then(|| back.pop()).flatten() {
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

/// One thread's way to one file.
struct Committer<'a> {
    way: Way,
    place: &'a Place,
    ring: Option<Ring<'a>>,
}

impl<'a> Committer<'a> {
    fn new(way: Way, place: &'a Place) -> io::Result<Self> {
        let ring = (way == Way::Uring).then(|| Ring::new(place.file())).transpose()?;
        Ok(Self { way, place, ring })
    }

    /// Has a batch written, made durable, and readable through the mapping.
    fn commit(&mut self, at: usize, batch: &[u8]) -> io::Result<()> {
        match self.way {
            Way::StoreFdatasync | Way::StoreMsync => self.place.store(at, batch),
            Way::PwriteFdatasync => self.place.write(at, batch)?,
            Way::PwritevFdatasync => self.place.write_pieces(at, batch, RECORD_BYTES)?,
            Way::Uring => {
                assert!(at + batch.len() <= self.place.bytes());
                let ring = self.ring.as_mut().expect("made for this way");
                ring.commit(at as u64, batch)?; // it has synced too
            }
        }
        self.sync(at..at + batch.len())?;
        black_box(self.place.load(at));
        Ok(())
    }

    /// Makes what lies in a range durable, as far as its writing left that to do.
    fn sync(&self, range: Range<usize>) -> io::Result<()> {
        match self.way {
            Way::StoreFdatasync | Way::PwriteFdatasync | Way::PwritevFdatasync => self.place.sync(),
            Way::StoreMsync => self.place.sync_range(range.start, range.len()),
            Way::Uring => Ok(()),
        }
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
