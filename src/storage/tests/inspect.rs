//! What a tool sees of a folder that a server has open, and of a damaged one.

#![allow(clippy::unwrap_used)] // also in the helpers of tests

mod support;

use std::fs;

use support::{Rig, SHARD};
use tern_core::dedup::{DedupEntry, DedupTable};
use tern_core::log::Offset;
use tern_protocol::{DeviceId, Epoch, SendCounter, SendKey, Uin};
use tern_storage::inspect::{self, Bad, Content, Decoder};
use tern_storage::{SEGMENT_HEADER_BYTES, TableView};

/// Place of the salt, by FORMAT.md.
const SALT: usize = 56;

/// Where the second copy of a segment's header stands.
const SECOND_COPY: usize = 2048;

#[test]
fn a_live_log_is_read_from_outside() {
    let rig = Rig::new();
    let running = rig.start();
    let mut log = running.log();
    let at = running.write(&mut log, b"hello");
    let facts = inspect::read_folder(rig.path()).unwrap();
    assert_eq!((facts.id, facts.shards), (running.storage.folder().id(), 1));
    assert_eq!(inspect::shard_dir(rig.path(), SHARD), rig.segments()[0].parent().unwrap());
    let path = &rig.segments()[0];
    assert_eq!(inspect::segment_number(path), Some(1));
    let bytes = fs::read(path).unwrap();
    let decoder = Decoder::new(path, &bytes).unwrap();
    assert_eq!(decoder.header.first(), SEGMENT_HEADER_BYTES as u64);
    let (len, mark) = decoder.record(4096, &bytes[4096..]).unwrap();
    assert!(matches!(mark, Content::Mark(mark) if !mark.clean));
    assert_eq!(4096 + len as u64, at.0);
    let (_, record) = decoder.record(at.0, &bytes[at.0 as usize..]).unwrap();
    assert!(matches!(record, Content::Record(record) if record.body == b"hello"));
    assert_eq!(decoder.record(at.0 + 8, &bytes[at.0 as usize + 8..]), Err(Bad::Broken));
    running.kill(log);
}

#[test]
fn a_damaged_header_is_believed_only_as_far_as_records_fit() {
    let rig = Rig::new();
    let running = rig.start();
    let mut log = running.log();
    running.write(&mut log, b"hello");
    running.close(log);
    let path = &rig.segments()[0];
    let good = fs::read(path).unwrap();
    let mut bytes = good.clone();
    bytes[40] ^= 1; // the base
    let decoder = Decoder::new(path, &bytes).unwrap();
    assert_eq!(decoder.header.base, 0, "its second copy is whole");
    assert!(!decoder.is_whole(&bytes) && decoder.is_whole(&good));
    bytes[SECOND_COPY + 40] ^= 1;
    assert!(Decoder::new(path, &bytes).is_err());
    let believed = Decoder::believing(&bytes).unwrap();
    assert_eq!(believed.header.base, 1);
    assert_eq!(believed.record(4097, &bytes[4096..]), Err(Bad::Broken));
    assert!(believed.at_base(0).record(4096, &bytes[4096..]).is_ok());
    bytes[SALT] ^= 1;
    let believed = Decoder::believing(&bytes).unwrap().at_base(0);
    assert_eq!(believed.record(4096, &bytes[4096..]), Err(Bad::Broken));
    assert!(Decoder::believing(&good[..100]).is_none());
}

#[test]
fn a_table_is_read_while_its_owner_has_it() {
    let rig = Rig::new();
    let running = rig.start();
    let (opened, mut table, _) = running.open();
    for uin in 1..=3 {
        let key = SendKey { epoch: Epoch(2), counter: SendCounter(uin as u32) };
        let entry = DedupEntry::accept(None, key, Offset(8192 * uin));
        table.reserve().unwrap();
        table.put(Uin(uin), DeviceId(1), entry, Offset(8192 * uin + 64));
    }
    let folder = inspect::read_folder(rig.path()).unwrap();
    let [path, other] = inspect::table_paths(rig.path(), rig.shm.path(), &folder.id, SHARD);
    assert!(!other.exists());
    let view = TableView::open(&path).unwrap();
    let facts = view.facts();
    assert!(facts.intact && facts.whole);
    assert_eq!((facts.folder, facts.shard, facts.entries), (folder.id, 0, 3));
    assert_eq!((facts.incarnation.0, facts.applied), (1, Some(Offset(8192 * 3 + 64))));
    let mut uins: Vec<u64> = view.entries().map(|entry| entry.unwrap().0.0).collect();
    uins.sort_unstable();
    assert_eq!(uins, [1, 2, 3]);
    running.kill(opened.log);

    let mut bytes = fs::read(&path).unwrap();
    bytes[4 * 8] ^= 1; // the incarnation
    fs::write(&path, bytes).unwrap();
    assert!(!TableView::open(&path).unwrap().facts().intact);
}
