//! B-02, B-13: what a bad disk does to a log that was durable. The model knows each record by what
//! was appended, and shares nothing with recovery.

#![allow(clippy::unwrap_used)] // also in the helpers of tests

mod support;

use std::collections::HashMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use support::model::{Known, Model, SEGMENT, Seen, long_log, small_log};
use support::{Rig, SHARD, Told, copy_dir};
use tern_core::log::{AppendError, Links, Log, Offset, ReadError, Reader, RecordKind};
use tern_protocol::frames::PushBody;
use tern_protocol::{ChannelId, Incarnation, MessageId};
use tern_random::{Stream, soaked};
use tern_storage::repair::{Plan, examine, plan};
use tern_storage::{
    Folder, FolderOptions, Lost, RECORD_HEADER_BYTES, Raised, RecoverError, SEGMENT_HEADER_BYTES,
};
use zerocopy::IntoBytes;

/// Every how many of a long list one is tried: everyday runs sample, `TERN_SOAK` tries them all.
fn stride(everyday: u64) -> usize {
    (everyday / soaked(1)).max(1) as usize
}

fn folder(path: &Path) -> Folder {
    Folder::open(path, FolderOptions::default()).unwrap()
}

fn file(path: &Path) -> File {
    File::options().read(true).write(true).open(path).unwrap()
}

fn look(folder: &Folder, model: &Model, bad: &[std::ops::Range<u64>], what: &str) -> (Seen, Plan) {
    let mut seen = Seen::new();
    let plan = examine(folder, SHARD, &mut seen).unwrap_or_else(|error| panic!("{what}: {error}"));
    model.judge(&seen, &plan, bad, what);
    (seen, plan)
}

/// B-02: each bit of the used log and of the header, one at a time.
#[test]
fn every_bit_flipped() {
    let rig = Rig::new();
    let model = small_log(&rig, 5, 12, 1);
    let (folder, path) = (folder(rig.path()), rig.segments()[0].clone());
    let (file, used) = (file(&path), model.records.last().unwrap().end as usize);
    let step = stride(11);
    let [mut flips, mut read_only, mut lost] = [0, 0, 0];
    let all =
        (SEGMENT_HEADER_BYTES - 4096..used + 64).flat_map(|byte| (0..8).map(move |b| (byte, b)));
    let bits: Vec<_> = all
        .filter(|(byte, _)| !(160..2048).contains(byte) && !(2208..4096).contains(byte))
        .collect();
    for (byte, bit) in bits.iter().copied().step_by(step) {
        let mut good = [0];
        file.read_exact_at(&mut good, byte as u64).unwrap();
        file.write_all_at(&[good[0] ^ 1 << bit], byte as u64).unwrap();
        let at = byte as u64;
        let what = format!("bit {bit} of byte {byte}");
        let (_, plan) = look(&folder, &model, std::slice::from_ref(&(at..at + 1)), &what);
        file.write_all_at(&good, at).unwrap();
        let struck = model.records.iter().find(|r| (r.at..r.end).contains(&at));
        match struck.filter(|record| record.at < model.newest_batch) {
            Some(record) => {
                let in_body = at >= record.at + RECORD_HEADER_BYTES as u64;
                let [loss] = &plan.losses[..] else { panic!("{what}: {:?}", plan.losses) };
                assert_eq!((loss.at, loss.to), (record.at, record.end), "{what}");
                assert_eq!(matches!(loss.what, Lost::Unproven), !in_body, "{what}: {loss}");
                let is_message = record.kind == RecordKind::Message;
                assert!(!in_body || loss.stops || is_message, "{what}: state is lost");
                assert!(in_body || loss.stops, "{what}: nobody knows what it was");
                if let Some((channel, id)) = record.name {
                    let named = loss.messages == [(record.at, channel, MessageId(id))];
                    assert!(named || loss.messages.is_empty(), "{what}: {loss}");
                    lost += usize::from(named);
                }
                read_only += usize::from(plan.is_stopped());
            }
            None => assert!(!plan.is_stopped(), "{what}: {:?}", plan.losses),
        }
        flips += 1;
    }
    look(&folder, &model, &[], "all put right");
    assert!(lost > 0 && read_only > 0);
    println!(
        "TEST B-02 bits={flips} of {} records={} read_only={read_only} named={lost} lost=0",
        bits.len(),
        model.records.len()
    );
}

/// B-02: pages that are torn, zeroed or full of noise, at random places of a long log.
#[test]
fn torn_pages() {
    let rig = Rig::new();
    let model = long_log(&rig, 2);
    let (folder, mut random) = (folder(rig.path()), Stream::new(7));
    let paths = rig.segments();
    let rounds = soaked(24);
    let mut losses = 0;
    for round in 0..rounds {
        let used = model.records.last().unwrap().end;
        let (mut bad, mut good) = (Vec::new(), Vec::new());
        for _ in 0..1 + random.below(3) {
            let at = random.below(used / 512) * 512;
            let (segment, place) = (at / SEGMENT, at % SEGMENT);
            if place < SEGMENT_HEADER_BYTES as u64 {
                continue;
            }
            let len = (512 << random.below(4)).min(SEGMENT - place);
            let file = file(&paths[segment as usize]);
            let mut bytes = vec![0; len as usize];
            file.read_exact_at(&mut bytes, place).unwrap();
            let noise: Vec<u8> = match round % 3 {
                0 => vec![0; len as usize],
                1 => (0..len).map(|_| random.below(256) as u8).collect(),
                _ => bytes.iter().rev().copied().collect(),
            };
            file.write_all_at(&noise, place).unwrap();
            good.push((segment, place, bytes));
            bad.push(at..at + len);
        }
        let (_, plan) = look(&folder, &model, &bad, &format!("round {round} {bad:?}"));
        losses += plan.losses.len();
        for (segment, place, bytes) in good.into_iter().rev() {
            file(&paths[segment as usize]).write_all_at(&bytes, place).unwrap();
        }
    }
    look(&folder, &model, &[], "all put right");
    println!(
        "TEST B-02 torn rounds={rounds} losses={losses} records={} lost=0",
        model.records.len()
    );
}

/// What is done to the file of a segment.
#[derive(Clone, Copy, Debug)]
enum Deed {
    Missing,
    Empty,
    HalfHeader,
    Noise,
    Recycled,
    Foreign,
    OldVersion,
}

/// Missing, empty, recycled, foreign segments: the others are read, and the loss is named.
#[test]
fn whole_segments() {
    let (rig, other) = (Rig::new(), Rig::new());
    let model = long_log(&rig, 3);
    long_log(&other, 4);
    let mut cases = 0;
    for number in 0..3u64 {
        use Deed::*;
        for deed in [Missing, Empty, HalfHeader, Noise, Recycled, Foreign, OldVersion] {
            let what = format!("{deed:?} segment {}", number + 1);
            let path = rig.segments()[number as usize].clone();
            let good = fs::read(&path).unwrap();
            spoil(
                deed,
                &path,
                &rig.segments()[(number as usize + 1) % 3],
                &other.segments()[number as usize],
            );
            let folder = folder(rig.path());
            let bad = number * SEGMENT..(number + 1) * SEGMENT;
            if matches!(deed, OldVersion) {
                let error = plan(&folder, SHARD).unwrap_err();
                assert!(matches!(error, RecoverError::Version { found: 1, .. }), "{what}: {error}");
            } else if matches!((number, deed), (0, Missing)) {
                let error = plan(&folder, SHARD).unwrap_err();
                assert!(matches!(error, RecoverError::NoState { .. }), "{what}: {error}");
            } else {
                let (_, plan) = look(&folder, &model, std::slice::from_ref(&bad), &what);
                assert!(plan.is_stopped(), "{what}");
                let loss = plan.losses.iter().find(|loss| matches!(loss.what, Lost::Segment(_)));
                let loss = loss.unwrap_or_else(|| panic!("{what}: {:?}", plan.losses));
                assert_eq!((loss.at, loss.to, loss.segment), (bad.start, bad.end, number + 1));
                assert!(loss.path == path && !loss.messages.is_empty(), "{what}: {loss}");
            }
            fs::write(&path, good).unwrap();
            cases += 1;
        }
    }
    println!("TEST B-02 segments cases={cases} records={} lost=0", model.records.len());
}

fn spoil(deed: Deed, path: &PathBuf, next: &PathBuf, foreign: &PathBuf) {
    match deed {
        Deed::Missing => fs::remove_file(path).unwrap(),
        Deed::Empty => fs::write(path, []).unwrap(),
        Deed::HalfHeader => file(path).set_len(1000).unwrap(),
        Deed::Noise => file(path).write_all_at(&[0xa5; SEGMENT_HEADER_BYTES], 0).unwrap(),
        Deed::Recycled => fs::copy(next, path).map(drop).unwrap(),
        Deed::Foreign => fs::copy(foreign, path).map(drop).unwrap(),
        Deed::OldVersion => {
            let mut page = vec![0; SEGMENT_HEADER_BYTES];
            file(path).read_exact_at(&mut page, 0).unwrap();
            page[8..12].copy_from_slice(&1u32.to_le_bytes());
            let crc = crc32c::crc32c(&page[..140]);
            page[140..144].copy_from_slice(&crc.to_le_bytes());
            file(path).write_all_at(&page, 0).unwrap();
        }
    }
}

/// A shard that may have lost state: it is read, it takes nothing, it keeps every file; accepted,
/// it goes on under a new incarnation, which is raised once.
#[test]
fn read_only_until_accepted() {
    let rig = Rig::new();
    let model = long_log(&rig, 5);
    let state = model.records.iter().find(|r| r.kind == RecordKind::Epoch).unwrap();
    file(&rig.segments()[0]).write_all_at(&[0x77], state.at + 50).unwrap();
    fs::remove_file(&rig.segments()[1]).unwrap();
    let before = snapshot(rig.path());
    for _ in 0..2 {
        let running = rig.start();
        let (mut opened, _, told) = running.open();
        let why = opened.read_only.clone().unwrap();
        assert!(why.contains("tern repair") && why.contains("epoch of a login"), "{why}");
        assert_eq!(running.storage.read_only(SHARD), Some(&*why));
        let refused = opened.log.append(RecordKind::Message, Links::default(), &[b"no"]);
        assert_eq!(refused, Err(AppendError::Failed));
        assert!(opened.log.durable().is_ok() && opened.raised.is_none());
        let mut reader = running.storage.reader();
        for (at, links, body) in &told.records {
            let read = reader.with_record(SHARD, *at, |r| (r.links, r.body.to_vec()));
            assert_eq!(read, Ok((*links, body.clone())));
        }
        running.close(opened.log);
        assert_eq!(snapshot(rig.path()), before, "nothing is changed");
    }
    let folder = folder(rig.path());
    let lost = plan(&folder, SHARD).unwrap();
    assert!(lost.is_stopped() && lost.losses.iter().any(|loss| !loss.messages.is_empty()));
    lost.accept(&folder).unwrap();
    assert!(!plan(&folder, SHARD).unwrap().is_stopped());
    drop(folder);
    for start in 0..3 {
        let running = rig.start();
        let (opened, _, told) = running.open();
        assert_eq!(opened.raised, (start == 0).then_some(Raised::Accepted), "start {start}");
        assert_eq!((opened.incarnation, &opened.read_only), (Incarnation(2), &None));
        assert!(opened.report.losses.iter().all(|loss| loss.accepted || !loss.stops));
        assert_eq!(told.records.iter().filter(|r| r.2 == b"later").count(), start);
        let mut log = opened.log;
        running.write(&mut log, b"later");
        if start == 1 { running.kill(log) } else { running.close(log) }
    }
}

/// A message of a group, with no content.
fn in_group(id: u64) -> PushBody {
    PushBody {
        channel: ChannelId::group(7),
        id: id.into(),
        sender: 1.into(),
        device: 1.into(),
        epoch: 1.into(),
        counter: (id as u32).into(),
        content_type: 0.into(),
        kind: 1,
        version: 1,
        server_time: 0.into(),
        refers_to: 0.into(),
    }
}

/// A change of a group whose body is damaged may have thrown somebody out, a recall may have been
/// of any message: its shard takes nothing until that is accepted. Then readers are told of it as
/// of a lost message.
#[test]
fn a_lost_change_of_a_group_and_a_lost_recall_are_lost_state() {
    lose_state(RecordKind::Change, "a change of a group", Lost::Change);
    lose_state(RecordKind::Recall, "a recall of a message", Lost::Recall);
}

fn lose_state(kind: RecordKind, called: &str, lost_as: fn(Links) -> Lost) {
    let rig = Rig::new();
    let running = rig.start();
    let mut log = running.log();
    let before = running.write(&mut log, in_group(1).as_bytes());
    let links = Links { channel: before, device: before, skip: Offset::NONE };
    let change = log.append(kind, links, &[in_group(2).as_bytes()]).unwrap();
    running.make_durable(&mut log, change);
    let behind = Links { channel: change, device: change, skip: change };
    let after = running.append_linked(&mut log, behind, in_group(3).as_bytes());
    running.make_durable(&mut log, after);
    running.close(log);
    let body = change.0 + RECORD_HEADER_BYTES as u64;
    file(&rig.segments()[0]).write_all_at(&[0x77], body).unwrap();

    let running = rig.start();
    let (opened, _, told) = running.open();
    let why = opened.read_only.clone().unwrap();
    assert!(why.contains(called), "{why}");
    let is_told =
        |told: &Told| matches!(told.lost[..], [(at, _, l)] if at == change.0 && l == Some(links));
    assert!(is_told(&told), "{:?}", told.lost);
    running.close(opened.log);
    let folder = folder(rig.path());
    let lost = plan(&folder, SHARD).unwrap();
    assert!(lost.losses.iter().any(|loss| loss.stops && loss.what == lost_as(links)));
    lost.accept(&folder).unwrap();
    drop(folder);
    let running = rig.start();
    let (opened, _, told) = running.open();
    assert!(opened.read_only.is_none() && is_told(&told), "{:?}", told.lost);
    let mut reader = running.storage.reader();
    let read = reader.with_record(SHARD, change, |_| ());
    assert_eq!(read, Err(ReadError::Lost(links)));
    running.close(opened.log);
}

fn snapshot(path: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files: Vec<_> = fs::read_dir(path.join("log/shard-00")).unwrap().collect();
    files.sort_by_key(|entry| entry.as_ref().unwrap().path());
    files
        .into_iter()
        .map(|e| e.unwrap().path())
        .map(|p| (p.clone(), fs::read(p).unwrap()))
        .collect()
}

/// A lost message alone does not stop the shard: it goes on, and readers are led past it.
#[test]
fn a_lost_message_is_stepped_over() {
    let rig = Rig::new();
    let model = long_log(&rig, 6);
    let struck = model.records.iter().filter(|r| r.name.is_some_and(|(_, id)| id > 5)).nth(300);
    let struck = struck.unwrap();
    file(&rig.segments()[0]).write_all_at(&[0x55; 8], struck.at + 60).unwrap();
    let running = rig.start();
    let mut scan = running.storage.scan_shard(SHARD).unwrap();
    scan.attach_table().unwrap();
    let mut seen = Seen::new();
    let opened = scan.replay(&mut seen).unwrap();
    assert!(opened.read_only.is_none() && opened.raised.is_none());
    let (channel, id) = struck.name.unwrap();
    let [loss] = &opened.report.losses[..] else { panic!("{:?}", opened.report.losses) };
    assert_eq!(loss.messages, [(struck.at, channel, MessageId(id))]);
    assert!(loss.to_string().contains(&format!("message {id} of {channel}")), "{loss}");
    let read = running.storage.reader().with_record(SHARD, Offset(struck.at), |_| ());
    assert_eq!(read, Err(ReadError::Lost(struck.links)));
    let mut log = opened.log;
    running.write(&mut log, b"goes on");
    running.close(log);
}

/// A header that goes bad while the server runs: the reader is led past it all the same.
#[test]
fn salvage_finds_the_way_past_a_damaged_header() {
    let rig = Rig::new();
    let model = long_log(&rig, 8);
    let running = rig.start();
    let mut log = running.log();
    let at = running.write(&mut log, b"so that all before is old");
    assert!(at.0 > model.records.last().unwrap().end);
    let messages: Vec<_> = model.records.iter().filter(|r| r.links.channel.0 != 0).collect();
    let mut random = Stream::new(9);
    let mut salvaged = 0;
    for _ in 0..12 {
        let struck = messages[random.below(messages.len() as u64 - 50) as usize];
        let path = &rig.segments()[(struck.at / SEGMENT) as usize];
        file(path).write_all_at(&[0xee; 40], struck.at % SEGMENT).unwrap();
        let mut reader = running.storage.reader();
        let mut read = || reader.with_record(SHARD, Offset(struck.at), |_| ());
        assert_eq!(read(), Err(ReadError::Cold));
        running.warm(Offset(struck.at), None);
        let Err(ReadError::Lost(links)) = read() else { panic!("{:?}", read()) };
        assert_eq!(links.channel, struck.links.channel, "the message before, of that channel");
        salvaged += 1;
    }
    running.kill(log);
    println!("TEST B-12 salvaged={salvaged} of 12");
}

/// A message whose body is a whole, valid record, also of the very place where it stands.
#[test]
fn a_body_that_is_a_record() {
    let rig = Rig::new();
    let running = rig.start();
    let mut log = running.log();
    let first = running.write(&mut log, b"first");
    let bytes = fs::read(&rig.segments()[0]).unwrap();
    let record = &bytes[first.0 as usize..log.tail().0 as usize];
    let mut bodies = vec![b"first".to_vec()];
    // Its own bytes, then those bytes at every alignment, then a mark.
    for shift in 0..16 {
        let mut body = vec![0; shift];
        body.extend_from_slice(record);
        body.extend_from_slice(&bytes[SEGMENT_HEADER_BYTES..first.0 as usize]);
        running.write(&mut log, &body);
        bodies.push(body);
    }
    running.write(&mut log, b"last");
    bodies.push(b"last".to_vec());
    running.kill(log);
    assert_eq!(rig.peek().bodies(), bodies);
    // With the header of each damaged, what is in its body stays dead.
    let folder = folder(rig.path());
    let told = {
        let mut told = Told::default();
        examine(&folder, SHARD, &mut told).unwrap();
        told
    };
    for (at, _, _) in &told.records[1..17] {
        let file = file(&rig.segments()[0]);
        let mut good = [0; 8];
        file.read_exact_at(&mut good, at.0).unwrap();
        file.write_all_at(&[0xff; 8], at.0).unwrap();
        let mut again = Told::default();
        examine(&folder, SHARD, &mut again).unwrap();
        file.write_all_at(&good, at.0).unwrap();
        let expected: Vec<_> = told.records.iter().filter(|r| r.0 != *at).cloned().collect();
        assert_eq!(again.records, expected, "at {}", at.0);
    }
}

/// B-13: any bytes as the only segment, or behind a good header: no panic, bounded, never a record
/// that was not appended.
#[test]
fn any_bytes() {
    let rig = Rig::new();
    let model = small_log(&rig, 3, 8, 11);
    let (folder, path) = (folder(rig.path()), rig.segments()[0].clone());
    let good = fs::read(&path).unwrap();
    let mut random = Stream::new(12);
    let rounds = soaked(300);
    let mut refused = 0;
    for round in 0..rounds {
        let mut bytes = good[..8192].to_vec();
        let from = if round % 2 == 0 { 0 } else { SEGMENT_HEADER_BYTES };
        match random.below(3) {
            0 => bytes[from..].iter_mut().for_each(|byte| *byte = random.below(256) as u8),
            1 => {
                for _ in 0..1 + random.below(40) {
                    let at = from + random.below((bytes.len() - from) as u64) as usize;
                    bytes[at] = random.below(256) as u8;
                }
            }
            _ => {
                let at = from + random.below((bytes.len() - from) as u64) as usize;
                let to = at + random.below((bytes.len() - at) as u64) as usize;
                bytes.copy_within(at..to, from);
            }
        }
        bytes.truncate(random.below(8193) as usize);
        fs::write(&path, &bytes).unwrap();
        let mut seen = Seen::new();
        match examine(&folder, SHARD, &mut seen) {
            Ok(_) => {}
            Err(RecoverError::Io(error)) => panic!("round {round}: {error}"),
            Err(_) => refused += 1,
        }
        let known = |told: &Known| model.records.contains(told);
        assert!(seen.records.iter().all(known), "round {round}: an invented record");
    }
    println!("TEST B-13 execs={rounds} refused={refused} invented=0");
}

/// The chains lead where they should after any crash and any damage that recovery steps over.
#[test]
fn chains_lead_back_after_a_crash() {
    let rounds = soaked(4);
    let mut followed = 0;
    for seed in 0..rounds {
        let rig = Rig::new();
        let model = small_log(&rig, 6, 30, 100 + seed);
        let copy = tempfile::tempdir().unwrap();
        copy_dir(rig.path(), copy.path());
        let mut random = Stream::new(seed);
        let last = model.records.last().unwrap().end;
        let cut = last - random.below(last - model.newest_batch);
        let path = copy.path().join("log/shard-00").join(rig.segments()[0].file_name().unwrap());
        let zeros = vec![0; 4096];
        file(&path).write_all_at(&zeros, cut).unwrap();
        let running = rig.start_at(copy.path());
        let (opened, _, told) = running.open();
        assert!(opened.read_only.is_none());
        let kept = told.records.len();
        let expected = model.records.iter().filter(|r| r.end <= cut).count();
        assert_eq!(kept, expected, "seed {seed}, cut at {cut}");
        let mut reader = running.storage.reader();
        let by_name: HashMap<_, _> =
            model.records[..kept].iter().filter_map(|r| Some((r.name?, r.at))).collect();
        for record in &model.records[..kept] {
            let Some((channel, id)) = record.name else { continue };
            let links = reader.with_record(SHARD, Offset(record.at), |r| r.links).unwrap();
            let at = |id: u64| by_name.get(&(channel, id)).copied().unwrap_or(0);
            assert_eq!((links.channel.0, links.skip.0), (at(id - 1), at(MessageId(id).skip().0)));
            followed += 2;
        }
        running.kill(opened.log);
    }
    println!("TEST B-01 chains rounds={rounds} links={followed}");
}
