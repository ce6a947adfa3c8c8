//! Random days of a log against a plain list of what was appended: appends, commits, reads forward
//! and back, checkpoints, expiry, want of room, failed syncs, the death of the process in the
//! middle of what it does, power cuts that keep any part of what was not synced.
//!
//! After each start: everything acked is there, nothing is there that was not appended, in order;
//! what is gone is past its retention; counters, epochs and send windows are those of the list,
//! whichever checkpoint the start took; chains lead where they should, in few steps.
//!
//! `TERN_SOAK` multiplies the logs, `TERN_SEED` says which; what the storage's own threads do in
//! between differs from run to run.

#![allow(clippy::unwrap_used)] // also in the helpers of tests

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use support::chat::{Hands, Rows, rows_of, upkeep_rig};
use support::plain::{Plain, Row};
use support::{Rig, Running, SHARD};
use tern_core::log::{Log, Offset, ReadError, Reader, Record, RecordKind};
use tern_core::memory::MemoryTable;
use tern_core::placement::Placement;
use tern_core::shard::state::StateKind;
use tern_core::shard::{Recovery, ReplayError};
use tern_diskmodel::power::{Lie, PowerDisk};
use tern_protocol::{Incarnation, MessageId};
use tern_random::{Stream, seed_from_env, soaked};
use tern_storage::{Disk, Durability, MappedLog, Opened, Raised, RecoverError, Space, Visitor};

/// Logs, and lives of each.
const LOGS: u64 = 16;
const LIVES: u64 = 10;

/// Logs in which a lie must be found out.
const CANARY_LOGS_MAX: u64 = 40;

/// Acts of a life at most.
const ACTS_MAX: u64 = 60;

/// Bytes of a message at most: some dozens fill a segment.
const MESSAGE_BYTES_MAX: u64 = 12_000;

/// Records that are appended at once at most.
const BURST_MAX: u64 = 6;

/// Milliseconds for which messages are kept, and of one step of the clock.
const RETENTION_MS: u64 = 4 * 60 * 60 * 1000;
const STEP_MS: u64 = 60 * 60 * 1000;

/// The disk, as the rig and the test have it.
#[derive(Debug)]
struct Shared(Arc<PowerDisk>);

impl Disk for Shared {
    fn create(&self, path: &std::path::Path) -> std::io::Result<Arc<dyn tern_storage::DiskFile>> {
        self.0.create(path)
    }

    fn open(&self, path: &std::path::Path) -> std::io::Result<Arc<dyn tern_storage::DiskFile>> {
        self.0.open(path)
    }

    fn rename(&self, from: &std::path::Path, to: &std::path::Path) -> std::io::Result<()> {
        self.0.rename(from, to)
    }

    fn remove(&self, path: &std::path::Path) -> std::io::Result<()> {
        self.0.remove(path)
    }

    fn sync_dir(&self, path: &std::path::Path) -> std::io::Result<()> {
        self.0.sync_dir(path)
    }

    fn space(&self, path: &std::path::Path) -> std::io::Result<Space> {
        self.0.space(path)
    }
}

/// What a replay told, and the state that the shard's own machine makes of it.
struct Told {
    records: Vec<(u64, RecordKind, Vec<u8>)>,
    state: Recovery<MemoryTable>,
}

impl Visitor for Told {
    fn record(&mut self, at: Offset, end: Offset, r: Record<'_>) -> Result<(), ReplayError> {
        self.records.push((at.0, r.kind, r.body.to_vec()));
        self.state.replay(at, end, r)
    }

    fn raise(&mut self, incarnation: Incarnation) {
        self.state.raise(incarnation);
    }

    fn state(&mut self, end: Offset, kind: StateKind, row: &[u8]) -> Result<(), ReplayError> {
        self.state.state(end, kind, row)
    }
}

/// What happened, for people.
#[derive(Debug, Default)]
struct Tally {
    starts: u64,
    starts_failed: u64,
    from_checkpoint: u64,
    power_cuts: u64,
    deaths: u64,
    failed_syncs: u64,
    refused: u64,
    appended: u64,
    acked: u64,
    cut: u64,
    expired: u64,
    read: u64,
    rows: u64,
    hops: u64,
}

/// One log through its lives.
struct Days {
    rig: Rig,
    disk: Arc<PowerDisk>,
    hands: Arc<Hands>,
    random: Stream,
    plain: Plain,
    /// Records of the list that were acked.
    acked: usize,
    boot: u8,
    tally: Tally,
}

impl Days {
    fn new(seed: u64, lie: Lie) -> Self {
        let (mut rig, hands) = upkeep_rig();
        let mut random = Stream::of(seed, "acts");
        rig.config.retention = Some(Duration::from_millis(RETENTION_MS));
        rig.config.durability =
            if random.percent(25) { Durability::Process } else { Durability::Disk };
        let disk = Arc::new(PowerDisk::new(rig.path(), Stream::of(seed, "disk"), lie));
        rig.disk = Arc::new(Shared(Arc::clone(&disk)));
        let tally = Tally::default();
        Self { rig, disk, hands, random, plain: Plain::default(), acked: 0, boot: 1, tally }
    }

    /// What has really passed, whatever the clock of retention makes of it.
    fn now_ms(&self) -> u64 {
        self.hands.boot_ms.load(Relaxed)
    }

    fn live(&mut self, what: &str) {
        self.rig.config.boot = Some([self.boot; 16]);
        let running = self.rig.start();
        if self.random.percent(20) {
            self.disk.die_after(Some(self.random.between(1, 12)));
        }
        self.tally.starts += 1;
        let cut_power = match open(&running) {
            Ok((opened, told)) => {
                let mut log = opened.log;
                let rows = rows_of(&told.state);
                let report = Start { raised: opened.raised, end: opened.report.end.0 };
                assert!(opened.read_only.is_none() && opened.report.losses.is_empty(), "{what}");
                self.tally.from_checkpoint += u64::from(opened.report.checkpoint.is_some());
                self.judge(&report, &told, what);
                self.compare(&running, &mut log, &rows, what);
                self.act(&running, &mut log, what);
                running.kill(log);
                self.random.percent(60)
            }
            Err(error) => {
                assert!(self.disk.is_dead(), "{what}: {error}");
                self.tally.starts_failed += 1;
                running.storage.shutdown();
                self.random.percent(60)
            }
        };
        self.tally.deaths += u64::from(self.disk.is_dead());
        self.disk.set_full(false, false);
        if cut_power {
            self.disk.cut_power();
            self.boot += 1;
            self.tally.power_cuts += 1;
        } else {
            self.disk.end_process();
        }
    }

    /// What the replay told is the list up to some record, and all that was acked.
    fn judge(&mut self, start: &Start, told: &Told, what: &str) {
        let kept = self.plain.0.partition_point(|row| row.end <= start.end);
        let process = self.rig.config.durability == Durability::Process;
        match start.raised {
            None => assert!(kept >= self.acked, "{what}: {kept} of {} acked", self.acked),
            Some(Raised::PowerCut) => assert!(process, "{what}: acks wait for the disk"),
            Some(why) => panic!("{what}: {why:?}"),
        }
        let first = kept.checked_sub(told.records.len());
        let first = first.unwrap_or_else(|| panic!("{what}: more than was appended"));
        for (row, (at, kind, body)) in self.plain.0[first..kept].iter().zip(&told.records) {
            assert_eq!((row.at, row.draft.kind), (*at, *kind), "{what}: another record");
            assert!(row.draft.body == *body, "{what}: other bytes at {at}");
        }
        self.tally.cut += (self.plain.0.len() - kept) as u64;
        self.plain.0.truncate(kept);
        self.acked = kept;
    }

    /// The state, each record and each chain, as the list has them.
    fn compare(&mut self, running: &Running, log: &mut MappedLog, rows: &Rows, what: &str) {
        let (rows, oldest) = self.plain.judge(rows, what);
        self.tally.rows += rows as u64;
        self.read_all(running, log, what);
        for (channel, oldest) in oldest {
            let gone = self.plain.messages(channel).take(oldest as usize - 1);
            let now = self.now_ms();
            let young = gone.filter(|row| now - row.ms < RETENTION_MS).count();
            assert_eq!(young, 0, "{what}: messages of {channel} are given up early");
            for row in self.plain.messages(channel).skip(oldest as usize - 1) {
                let read = log.with_record(Offset(row.at), |_| ());
                assert_eq!(read, Ok(()), "{what}: a message that is said to be there");
            }
        }
    }

    /// Reads all of it, forward, as the owner and as another worker.
    fn read_all(&mut self, running: &Running, log: &mut MappedLog, what: &str) {
        let now = self.now_ms();
        let mut reader = running.storage.reader();
        let mut is_kept = false;
        for row in &self.plain.0 {
            let same = |record: Record<'_>| {
                (record.kind, record.links) == (row.draft.kind, row.draft.links)
                    && record.body == &row.draft.body[..]
            };
            let own = log.with_record(Offset(row.at), same);
            match own {
                Err(ReadError::Expired) => {
                    assert!(!is_kept, "{what}: an old record stays, a newer one goes");
                    assert!(now - row.ms >= RETENTION_MS, "{what}: {} is young", row.at);
                    self.tally.expired += 1;
                }
                own => {
                    assert_eq!(own, Ok(true), "{what}: the record at {}", row.at);
                    is_kept = true;
                    self.tally.read += 1;
                }
            }
            // A commit may be under way, and prove it before, while or after it is read.
            let at = Offset(row.at);
            let mut is_proven = || log.durable().map(|proof| proof.covers(at));
            let before = is_proven();
            let other = reader.with_record(SHARD, at, same);
            match (before, is_proven()) {
                (Ok(true), _) => assert_eq!(other, own, "{what}: another worker at {at:?}"),
                (_, Ok(false)) => {
                    assert_eq!(other, Err(ReadError::LOST), "{what}: shown without a proof");
                }
                _ => assert!(other == own || other == Err(ReadError::LOST), "{what}: {other:?}"),
            }
        }
    }

    /// Back from the newest message to any other, by skip links and then by previous ones.
    fn walk_back(&mut self, log: &mut MappedLog, what: &str) {
        let Some(channel) = self.random.pick(&self.plain.channels()) else { return };
        let rows: Vec<&Row> = self.plain.messages(channel).collect();
        let newest = rows.len() as u64;
        let (wanted, mut id, mut hops) = (self.random.between(1, newest), newest, 0);
        while id > wanted {
            let at = Offset(rows[id as usize - 1].at);
            let (skip, link) = match log.with_record(at, |record| record.links) {
                Ok(links) if MessageId(id).skip().0 >= wanted => (true, links.skip),
                Ok(links) => (false, links.channel),
                Err(ReadError::Expired) => break,
                Err(error) => panic!("{what}: {id} of {channel}: {error:?}"),
            };
            id = if skip { MessageId(id).skip().0 } else { id - 1 };
            assert_eq!(link.0, self.plain.at_id(channel, id), "{what}: a link to {id}");
            hops += 1;
        }
        // Each bit of the way down costs its run of skips, and one step to get off its last one.
        let bits = u64::from(newest.ilog2() + 1);
        let bound = bits * (bits + 1) / 2 + bits;
        assert!(hops <= bound, "{what}: {hops} hops from {newest} to {wanted}");
        self.tally.hops += hops;
    }

    fn act(&mut self, running: &Running, log: &mut MappedLog, what: &str) {
        for _ in 0..self.random.between(1, ACTS_MAX) {
            let goes_on = match self.random.below(20) {
                0..=8 => self.append(running, log),
                9..=12 => self.commit(running, log, true),
                13 => self.commit(running, log, false),
                14 | 15 => {
                    running.storage.maintain();
                    while log.poll_expired().is_some() {}
                    true
                }
                16 => {
                    self.hands.pass(STEP_MS);
                    running.storage.clock();
                    true
                }
                17 => {
                    self.read_all(running, log, what);
                    true
                }
                18 => {
                    self.walk_back(log, what);
                    true
                }
                _ => self.trouble(),
            };
            if !goes_on {
                return;
            }
        }
    }

    /// Something goes wrong, now or soon.
    fn trouble(&mut self) -> bool {
        match self.random.below(6) {
            0 => self.disk.set_fails_next_sync(true),
            1 => self.disk.die_after(Some(self.random.between(1, 20))),
            2 => self.disk.set_full(true, false),
            3 | 4 => self.disk.set_full(false, false),
            _ => return false, // the end of this life
        }
        true
    }

    /// Appends some records; whether the log goes on.
    fn append(&mut self, running: &Running, log: &mut MappedLog) -> bool {
        for _ in 0..self.random.between(1, BURST_MAX) {
            let draft = self.plain.draft(&mut self.random, MESSAGE_BYTES_MAX);
            let parts: [&[u8]; 1] = [&draft.body];
            let Ok(at) = log.append(draft.kind, draft.links, &parts) else {
                self.tally.refused += 1;
                return self.commit(running, log, true);
            };
            let before = self.plain.0.last().map_or(0, |row| row.end);
            assert!(at.0 >= before, "an offset is given twice");
            let ms = self.now_ms();
            self.plain.0.push(Row { at: at.0, end: log.tail().0, ms, draft });
            self.tally.appended += 1;
        }
        true
    }

    /// Commits; with `wait` until all is durable. Whether the log goes on.
    fn commit(&mut self, running: &Running, log: &mut MappedLog, wait: bool) -> bool {
        let mut proof = Ok(Offset(0));
        running.until(|| {
            log.commit();
            proof = log.durable().map(|proof| proof.end());
            !wait || proof.is_err() || proof == Ok(log.tail())
        });
        let Ok(end) = proof else {
            self.tally.failed_syncs += 1;
            return false;
        };
        let acked = self.plain.0.partition_point(|row| row.end <= end.0);
        self.tally.acked += acked.saturating_sub(self.acked) as u64;
        self.acked = acked.max(self.acked);
        true
    }
}

/// What a start says of the log.
struct Start {
    raised: Option<Raised>,
    end: u64,
}

fn open(running: &Running) -> Result<(Opened, Told), RecoverError> {
    let mut scan = running.storage.scan_shard(SHARD)?;
    let (_table, _) = scan.attach_table()?;
    let (placement, table) = (Placement::new(1, 1), MemoryTable::default());
    let state = Recovery::new(SHARD, placement, table, Offset::NONE);
    let mut told = Told { records: Vec::new(), state };
    let opened = scan.replay(&mut told)?;
    Ok((opened, told))
}

#[test]
fn random_days_against_a_plain_list() {
    let first = seed_from_env(1);
    let (mut all, logs) = (BTreeMap::new(), soaked(LOGS));
    for seed in first..first + logs {
        let days = whole(seed, Lie::None);
        let told = format!("{:?}", days.tally);
        for part in told.trim_start_matches("Tally {").trim_end_matches('}').split(',') {
            let (name, count) = part.trim().split_once(": ").unwrap();
            *all.entry(name.to_owned()).or_insert(0) += count.parse::<u64>().unwrap();
        }
    }
    let never: Vec<&String> = all.iter().filter(|(_, count)| **count == 0).map(|n| n.0).collect();
    assert!(never.is_empty(), "never happened: {never:?}");
    let counts: Vec<String> = all.iter().map(|(name, count)| format!("{name}={count}")).collect();
    println!("TEST log-model seed={first} n={logs} {} lost=0", counts.join(" "));
}

/// All lives of one log.
fn whole(seed: u64, lie: Lie) -> Days {
    let mut days = Days::new(seed, lie);
    for life in 0..LIVES {
        days.live(&format!("life {life} of TERN_SEED={seed}"));
    }
    days
}

/// M-03: the same days on disks whose syncs do nothing, which must be found out.
#[test]
fn m_03_disks_that_lie_are_found_out() {
    for lie in [Lie::SyncsSkipped, Lie::NamesSkipped, Lie::SyncsRetried] {
        let lived = |seed| std::panic::catch_unwind(|| whole(seed, lie)).is_ok();
        let seed = (1..=CANARY_LOGS_MAX).find(|seed| !lived(*seed));
        let seed = seed.unwrap_or_else(|| panic!("{lie:?} goes unseen: these tests see nothing"));
        println!("TEST M-03 lie={lie:?} found_out_after={seed} logs");
    }
}
