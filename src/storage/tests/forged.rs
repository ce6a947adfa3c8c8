//! Records whose checksums are right and whose content makes no sense: what a bug would write, or
//! somebody who has the segment's salt. Each record of a log is forged in place in every way that
//! is listed here, then at random in several ways at once.
//!
//! Whatever comes of it: no panic, no endless walk, no record that is neither the log's nor the
//! forged one; a log that opens has told all others; one that does not names the place. The bytes
//! of a record are made here by FORMAT.md alone.

#![allow(clippy::unwrap_used)] // also in the helpers of tests

mod support;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;

use support::model::{Known, Model, Seen, small_log};
use support::{Rig, SHARD, copy_dir};
use tern_core::log::{Log, Offset, ReadError, Reader, RecordKind};
use tern_protocol::frames::PushBody;
use tern_random::{Stream, seed_from_env, soaked};
use tern_storage::inspect::Decoder;
use tern_storage::repair::examine;
use tern_storage::{
    Folder, FolderOptions, RECORD_HEADER_BYTES, RecoverError, SEGMENT_HEADER_BYTES,
};
use zerocopy::FromBytes;

/// Random forgeries, unless `TERN_SOAK` wants more.
const RANDOM: u64 = 1_500;

/// Of the forged logs that open for writing, every how many is opened so.
const OPENED_EACH: usize = 29;

/// Places of the fields of a record (FORMAT.md).
const CRC: usize = 4;
const KIND: usize = 8;
const VERSION: usize = 9;
const BODY_CRC: usize = 12;
const LINKS: [(&str, usize); 3] = [("channel", 16), ("device", 24), ("skip", 32)];

/// Places of the fields of a message's body (SPEC.md, PUSH).
const ID: usize = std::mem::offset_of!(PushBody, id);
const SENDER: usize = std::mem::offset_of!(PushBody, sender);
const EPOCH: usize = std::mem::offset_of!(PushBody, epoch);
const COUNTER: usize = std::mem::offset_of!(PushBody, counter);
const CHANNEL: usize = std::mem::offset_of!(PushBody, channel);

/// A log, and what it takes to forge its records.
struct Forge {
    rig: Rig,
    model: Model,
    salt: [u8; 16],
    /// The file as it is.
    bytes: Vec<u8>,
}

/// One change of a record.
#[derive(Clone, Debug)]
struct Change {
    name: String,
    at: usize,
    bytes: Vec<u8>,
}

fn change(name: &str, at: usize, bytes: &[u8]) -> Change {
    Change { name: name.into(), at, bytes: bytes.to_vec() }
}

impl Forge {
    fn new(seed: u64) -> Self {
        let rig = Rig::new();
        let model = small_log(&rig, 5, 10, seed);
        let path = rig.segments()[0].clone();
        let bytes = fs::read(&path).unwrap();
        let salt = Decoder::new(&path, &bytes[..SEGMENT_HEADER_BYTES]).unwrap().header.salt;
        Self { rig, model, salt, bytes }
    }

    /// The record with these changes, its checksums made right.
    fn record(&self, record: &Known, changes: &[Change]) -> Vec<u8> {
        let mut bytes = self.bytes[record.at as usize..record.end as usize].to_vec();
        for Change { at, bytes: new, .. } in changes {
            let end = bytes.len().min(at + new.len());
            if *at < end {
                bytes[*at..end].copy_from_slice(&new[..end - at]);
            }
        }
        let body = crc32c::crc32c(&bytes[RECORD_HEADER_BYTES..]);
        bytes[BODY_CRC..BODY_CRC + 4].copy_from_slice(&body.to_le_bytes());
        let crc = crc32c::crc32c_append(crc32c::crc32c(&self.salt), &record.at.to_le_bytes());
        let crc = crc32c::crc32c_append(crc, &bytes[..CRC]);
        let crc = crc32c::crc32c_append(crc, &bytes[KIND..RECORD_HEADER_BYTES]);
        bytes[CRC..CRC + 4].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Everything that is tried on one record alone.
    fn changes(&self, record: &Known) -> Vec<Change> {
        let mut all = Vec::new();
        let records = &self.model.records;
        let other = |wanted: fn(&Known, &Known) -> bool| {
            records.iter().rev().find(|it| wanted(it, record)).map_or(0, |it| it.at)
        };
        let places = [
            ("nowhere", 0),
            ("itself", record.at),
            ("the next one", record.end),
            ("the newest", records.last().unwrap().at),
            ("behind the log", records.last().unwrap().end + 4096),
            ("no place", u64::MAX),
            ("the middle of another", record.at.saturating_sub(24)),
            ("between two places", record.at.saturating_sub(3)),
            ("the header's page", 8),
            (
                "another channel",
                other(|it, own| it.at < own.at && it.name.map(|n| n.0) != own.name.map(|n| n.0)),
            ),
            ("a login", other(|it, own| it.at < own.at && it.kind == RecordKind::Epoch)),
        ];
        for (link, field) in LINKS {
            for (name, at) in places {
                all.push(change(&format!("{link} link to {name}"), field, &at.to_le_bytes()));
            }
        }
        for kind in [1, 2, 3, 7, 0x7f, 0x80, 0xff] {
            all.push(change(&format!("kind {kind}"), KIND, &[kind]));
        }
        all.push(change("version 9", VERSION, &[9]));
        let body = |at: usize| RECORD_HEADER_BYTES + at;
        let numbers = [0, 1, 2, 1 << 32, u64::MAX - 1, u64::MAX];
        let now = record.name.map_or(0, |(_, id)| id);
        for id in numbers.into_iter().chain([now + 1, now.wrapping_sub(1), now + 1000]) {
            all.push(change(&format!("id {id}"), body(ID), &id.to_le_bytes()));
        }
        for number in numbers {
            all.push(change(&format!("sender {number}"), body(SENDER), &number.to_le_bytes()));
            let short = (number as u32).to_le_bytes();
            all.push(change(&format!("epoch {number}"), body(EPOCH), &short));
            all.push(change(&format!("counter {number}"), body(COUNTER), &short));
            let channel = [number.to_le_bytes(), 1_u64.to_le_bytes()].concat();
            all.push(change(&format!("channel {number}"), body(CHANNEL), &channel));
        }
        all
    }
}

#[derive(Debug, Default)]
struct Tally {
    forged: usize,
    opened: usize,
    stopped: usize,
    refused: usize,
    written: usize,
}

impl Tally {
    /// Reads the log with this record forged.
    fn try_one(
        &mut self,
        forge: &Forge,
        folder: &Folder,
        file: &File,
        record: &Known,
        changes: &[Change],
    ) {
        let names: Vec<&str> = changes.iter().map(|change| &*change.name).collect();
        let what = format!("{:?} at {}: {}", record.kind, record.at, names.join(", "));
        file.write_all_at(&forge.record(record, changes), record.at).unwrap();
        let mut seen = Seen::new();
        match examine(folder, SHARD, &mut seen) {
            Ok(plan) => {
                self.opened += 1;
                self.stopped += usize::from(plan.is_stopped());
                let told: BTreeMap<u64, &Known> =
                    seen.records.iter().map(|it| (it.at, it)).collect();
                for known in forge.model.records.iter().filter(|it| it.at != record.at) {
                    assert_eq!(told.get(&known.at), Some(&known), "{what}: another record");
                }
                assert!(told.len() <= forge.model.records.len(), "{what}: an invented record");
                if !plan.is_stopped() && self.opened.is_multiple_of(OPENED_EACH) {
                    self.write_on(forge, &what);
                }
            }
            Err(RecoverError::Replay { .. } | RecoverError::Unknown { .. }) => self.refused += 1,
            Err(error) => panic!("{what}: {error}"),
        }
        self.forged += 1;
    }

    /// Opens it, reads every record and whatever its links lead to, and writes behind it.
    fn write_on(&mut self, forge: &Forge, what: &str) {
        let copy = tempfile::tempdir().unwrap();
        copy_dir(forge.rig.path(), copy.path());
        let rig = Rig::new();
        let running = rig.start_at(copy.path());
        let (opened, _, told) = running.open();
        let (mut log, mut reader) = (opened.log, running.storage.reader());
        for (at, links, _) in &told.records {
            assert!(log.with_record(*at, |_| ()).is_ok(), "{what}: the record at {at:?}");
            for link in [links.channel, links.device, links.skip] {
                let read = reader.with_record(SHARD, link, |_| ());
                let leads_nowhere = !told.records.iter().any(|(at, ..)| *at == link);
                assert_eq!(read.is_err(), leads_nowhere, "{what}: {link:?} gives {read:?}");
                assert_ne!(read, Err(ReadError::Expired), "{what}: nothing has expired");
            }
        }
        running.write(&mut log, b"goes on");
        running.close(log);
        self.written += 1;
    }
}

/// Every way on its own, for every record; then several at once.
#[test]
fn b_13_right_checksums_over_wrong_content() {
    let seed = seed_from_env(1);
    let forge = Forge::new(seed);
    let folder = Folder::open(forge.rig.path(), FolderOptions::default()).unwrap();
    let file = File::options().write(true).open(&forge.rig.segments()[0]).unwrap();
    let mut tally = Tally::default();
    let put_back = |record: &Known| {
        let good = &forge.bytes[record.at as usize..record.end as usize];
        file.write_all_at(good, record.at).unwrap();
    };
    for record in &forge.model.records {
        assert_eq!(
            forge.record(record, &[]),
            &forge.bytes[record.at as usize..record.end as usize],
            "checksums are made here as storage makes them"
        );
        for change in forge.changes(record) {
            tally.try_one(&forge, &folder, &file, record, std::slice::from_ref(&change));
        }
        put_back(record);
    }
    let single = tally.forged;
    let mut random = Stream::new(seed);
    for _ in 0..soaked(RANDOM) {
        let record = &forge.model.records[random.index(forge.model.records.len())];
        let all = forge.changes(record);
        let changes: Vec<Change> =
            (0..2 + random.below(4)).map(|_| all[random.index(all.len())].clone()).collect();
        tally.try_one(&forge, &folder, &file, record, &changes);
        put_back(record);
    }
    let mut seen = Seen::new();
    let plan = examine(&folder, SHARD, &mut seen).unwrap();
    assert_eq!((plan.losses.len(), seen.records.len()), (0, forge.model.records.len()));
    let Tally { forged, opened, stopped, refused, written } = tally;
    println!(
        "TEST B-13 forged seed={seed} n={forged} single={single} opened={opened} \
         read_only={stopped} refused={refused} written_on={written} invented=0 panics=0"
    );
    assert!(opened > 0 && refused > 0 && written > 0);
}

/// A message with no more than some bytes, forged where a login stood, is refused by name.
#[test]
fn a_message_too_short_to_be_one_is_named() {
    let forge = Forge::new(2);
    let login = forge.model.records.iter().find(|it| it.kind == RecordKind::Epoch).unwrap();
    let folder = Folder::open(forge.rig.path(), FolderOptions::default()).unwrap();
    let file = File::options().write(true).open(&forge.rig.segments()[0]).unwrap();
    let forged = forge.record(login, &[change("a message", KIND, &[1])]);
    assert!(PushBody::ref_from_prefix(&forged[RECORD_HEADER_BYTES..]).is_err());
    file.write_all_at(&forged, login.at).unwrap();
    let mut told = support::Told::default();
    examine(&folder, SHARD, &mut told).unwrap(); // storage alone minds no bodies
    assert!(told.records.iter().any(|(at, ..)| *at == Offset(login.at)));
    let error = tern_storage::repair::plan(&folder, SHARD).unwrap_err().to_string();
    assert!(error.contains(&login.at.to_string()) && error.contains("shorter"), "{error}");
}
