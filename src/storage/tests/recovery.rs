//! What a crash, a power cut or a bad disk may leave, and what is made of it.

#![allow(clippy::unwrap_used)] // also in the helpers of tests

mod support;

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use support::countdown::{CountdownDisk, Fault};
use support::faulty::FaultyDisk;
use support::{Rig, SHARD, Told, copy_dir, segments_at};
use tern_core::log::{Log, Offset, RecordKind};
use tern_storage::{Durability, Raised, SEGMENT_BYTES_MIN, SEGMENT_HEADER_BYTES};

/// A log of several batches in its last segment: bodies, and the offset behind each batch.
struct Written {
    bodies: Vec<Vec<u8>>,
    /// For each record, the place in the last segment behind it.
    ends: Vec<usize>,
}

const BATCHES: usize = 4;
const PER_BATCH: usize = 3;

fn write_batches(rig: &Rig) -> Written {
    let running = rig.start();
    let mut log = running.log();
    let (mut bodies, mut ends) = (Vec::new(), Vec::new());
    for batch in 0..BATCHES {
        let mut at = Offset(0);
        for number in 0..PER_BATCH {
            let body = vec![(batch * 16 + number) as u8; 10 + number * 30];
            at = log.append(RecordKind::Message, Default::default(), &[&body]).unwrap();
            bodies.push(body);
            ends.push(log.tail().0 as usize);
        }
        running.make_durable(&mut log, at);
    }
    running.kill(log);
    Written { bodies, ends }
}

/// The segment with the records: the one behind it is the spare.
fn data_segment(path: &Path) -> std::path::PathBuf {
    segments_at(path)[0].clone()
}

#[test]
fn kill_keeps_every_durable_record() {
    let rig = Rig::new();
    let written = write_batches(&rig);
    let running = rig.start();
    let (opened, _, told) = running.open();
    assert_eq!(told.bodies(), written.bodies);
    assert!(!opened.report.clean && opened.raised.is_none());
    assert_eq!(opened.incarnation.0, 1);
    running.kill(opened.log);
    for _ in 0..5 {
        assert_eq!(rig.peek().bodies(), written.bodies, "again and again");
    }
}

/// B-01: a last segment that is cut off anywhere gives a prefix of whole records.
#[test]
fn truncated_everywhere() {
    let rig = Rig::new();
    let written = write_batches(&rig);
    let path = data_segment(rig.path());
    let whole = fs::read(&path).unwrap();
    let last = *written.ends.last().unwrap();
    let running = rig.start();
    for len in (0..=last + 16).rev() {
        File::options().write(true).open(&path).unwrap().set_len(len as u64).unwrap();
        let scan = running.storage.scan_shard(SHARD);
        if len < SEGMENT_HEADER_BYTES {
            let report = scan.unwrap().report().clone();
            assert!(report.losses.len() == 1 && report.losses[0].stops, "{len} bytes: {report:?}");
            continue;
        }
        let expected = written.ends.iter().filter(|end| **end <= len).count();
        let mut scan = scan.unwrap();
        // Replaying goes on in a new segment, so only some of the lengths do.
        if len % 61 == 0 {
            let copy = tempfile::tempdir().unwrap();
            copy_dir(rig.path(), copy.path());
            let running = rig.start_at(copy.path());
            let (opened, _, told) = running.open();
            assert_eq!(told.bodies(), written.bodies[..expected], "{len} bytes");
            assert_eq!(opened.raised, Some(Raised::Shortened));
            assert_eq!(opened.incarnation.0, 2);
            running.kill(opened.log);
        }
        assert!(scan.attach_table().is_ok());
        assert_eq!(scan.report().records as usize, expected, "{len} bytes");
    }
    fs::write(&path, whole).unwrap();
    assert_eq!(running.storage.scan_shard(SHARD).unwrap().report().records, 12);
}

#[test]
fn a_shard_that_lost_all_its_segments_does_not_begin_anew() {
    let rig = Rig::new();
    write_batches(&rig);
    rig.segments().iter().for_each(|path| fs::remove_file(path).unwrap());
    let running = rig.start();
    let error = running.try_open().unwrap_err();
    assert!(error.to_string().contains("missing"), "{error}");
}

/// A batch that was torn, and valid bytes behind it: they were never acked, and after the cut they
/// must stay dead even though their checksums fit.
#[test]
fn what_is_behind_a_torn_record_stays_dead() {
    let rig = Rig::new();
    let written = write_batches(&rig);
    let path = data_segment(rig.path());
    let file = File::options().read(true).write(true).open(&path).unwrap();
    // The first record of the last batch; the two behind it stay valid.
    let torn = written.ends[PER_BATCH * (BATCHES - 1)] - 30;
    let mut byte = [0];
    file.read_exact_at(&mut byte, torn as u64).unwrap();
    file.write_all_at(&[!byte[0]], torn as u64).unwrap();
    let kept = &written.bodies[..PER_BATCH * (BATCHES - 1)];

    let running = rig.start();
    let (opened, _, told) = running.open();
    assert_eq!(told.bodies(), kept);
    assert!(opened.report.torn);
    let mut log = opened.log;
    let at = running.write(&mut log, b"after the cut");
    assert!(at.0 as usize > *written.ends.last().unwrap(), "offsets never go back");
    running.kill(log);
    // The torn record becomes whole: without the cut all three would be back.
    file.write_all_at(&byte, torn as u64).unwrap();
    let mut expected = kept.to_vec();
    expected.push(b"after the cut".to_vec());
    let running = rig.start();
    let told = match running.try_open() {
        Ok((opened, _, told)) => {
            running.kill(opened.log);
            told
        }
        Err(error) => panic!("{error}"),
    };
    assert_eq!(told.bodies(), expected);
}

/// B-03: any subset of the sectors of unsynced writes may have reached the disk.
#[test]
fn power_cuts_keep_what_was_acked() {
    let mut rig = Rig::new();
    let disk = FaultyDisk::default();
    let plan = Arc::clone(&disk.plan);
    rig.disk = Arc::new(disk);
    let running = rig.start();
    let mut log = running.log();
    let mut acked = Vec::new();
    let mut number = 0;
    // Enough to roll over while batches are under way.
    while rig.segments().len() < 4 {
        for _ in 0..40 {
            let body = vec![number as u8; 600 + number % 900];
            let at = running.append(&mut log, &body);
            acked.push((at, body));
            number += 1;
        }
        running.make_durable(&mut log, acked.last().unwrap().0);
    }
    let durable = acked.len();
    plan.lock().unwrap().syncs_left = Some(0);
    for number in 0..30 {
        let body = vec![number as u8; 2000];
        if let Ok(at) = log.append(RecordKind::Message, Default::default(), &[&body]) {
            acked.push((at, body));
        }
    }
    log.commit();
    running.until(|| log.durable().is_err());
    let mut random: u64 = 42;
    let mut seen = std::collections::BTreeSet::new();
    for image in 0..24 {
        let copy = tempfile::tempdir().unwrap();
        copy_dir(rig.path(), copy.path());
        plan.lock().unwrap().power_cut(rig.path(), copy.path(), || {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            match image {
                0 => true,
                1 => false,
                _ => random >> 33 & 7 < image as u64 % 8,
            }
        });
        let mut other = Rig::new();
        other.config.boot = Some([9; 16]);
        let running = other.start_at(copy.path());
        let (opened, _, told) = running.open();
        let bodies: Vec<_> = acked.iter().map(|(_, body)| body.clone()).collect();
        assert!(told.records.len() >= durable, "image {image}: an acked message is lost");
        assert_eq!(told.bodies(), bodies[..told.records.len()], "image {image}");
        assert_eq!(opened.raised, None, "nothing that was shown is lost");
        seen.insert(told.records.len());
        running.kill(opened.log);
    }
    assert!(seen.contains(&durable) && seen.contains(&acked.len()), "{seen:?} of {}", acked.len());
    running.kill(log);
}

/// B-05: the n-th sync fails, for all n of a run; what was acked before is there afterwards.
#[test]
fn every_sync_may_fail() {
    let mut passed = false;
    for syncs in 0..40 {
        let mut rig = Rig::new();
        let disk = FaultyDisk::default();
        let plan = Arc::clone(&disk.plan);
        rig.disk = Arc::new(disk);
        drop(rig.start().storage); // the folder is there
        plan.lock().unwrap().syncs_left = Some(syncs);
        let running = rig.start();
        let Ok((opened, ..)) = running.try_open() else { continue };
        let mut log = opened.log;
        let mut acked = 0;
        for number in 0..8u8 {
            let Ok(at) = log.append(RecordKind::Message, Default::default(), &[&[number; 99]])
            else {
                break;
            };
            log.commit();
            running.until(|| log.durable().map_or(true, |proof| proof.covers(at)));
            match log.durable() {
                Ok(_) => acked += 1,
                Err(_) => break,
            }
        }
        passed = acked == 8;
        running.kill(log);
        plan.lock().unwrap().syncs_left = None;
        let told = rig.peek();
        assert!(told.records.len() >= acked, "sync {syncs}: {} of {acked}", told.records.len());
    }
    assert!(passed, "with enough syncs all goes well");
}

#[test]
fn the_incarnation_is_raised_where_acks_may_be_lost() {
    let cases = [
        // durability, boot changed, closed in order, raised
        (Durability::Process, true, false, true),
        (Durability::Process, true, true, false),
        (Durability::Process, false, false, false),
        (Durability::Disk, true, false, false),
    ];
    for (durability, boot_changed, in_order, raised) in cases {
        let mut rig = Rig::new();
        rig.config.durability = durability;
        rig.config.boot = Some([1; 16]);
        let running = rig.start();
        let mut log = running.log();
        running.write(&mut log, b"acked");
        if in_order {
            running.close(log)
        } else {
            running.kill(log)
        }
        if boot_changed {
            rig.config.boot = Some([2; 16]);
        }
        let running = rig.start();
        let (opened, _, told) = running.open();
        assert_eq!(told.bodies(), [b"acked"]);
        assert_eq!(opened.raised, raised.then_some(Raised::PowerCut), "{durability:?}");
        assert_eq!(opened.incarnation.0, 1 + u32::from(raised));
        let expected = if raised { vec![(1, 2)] } else { vec![] };
        assert_eq!(told.raised, expected, "told after the last record of the old one");
        let mut log = opened.log;
        running.write(&mut log, b"later");
        running.close(log);
        let told = rig.peek();
        assert_eq!((told.records.len(), told.raised), (2, expected), "and remembered");
    }
}

/// A log that was closed in order went on, and a power cut left nothing whole of the later run: the
/// mark of the end in order does not speak for that run.
#[test]
fn the_end_of_an_earlier_run_says_nothing_of_a_later_one() {
    for torn_bytes in [16, 64, 4096] {
        let mut rig = Rig::new();
        rig.config.durability = Durability::Process;
        rig.config.boot = Some([1; 16]);
        for body in [b"first", b"later"] {
            let running = rig.start();
            let (opened, ..) = running.open();
            assert_eq!(opened.raised, None);
            let mut log = opened.log;
            running.write(&mut log, body);
            if body == b"first" { running.close(log) } else { running.kill(log) }
        }
        let is_later =
            |path: &&PathBuf| fs::read(path).unwrap().windows(5).any(|window| window == b"later");
        let path = rig.segments().iter().find(is_later).expect("it was written").clone();
        let file = File::options().write(true).open(path).unwrap();
        file.write_all_at(&vec![0; torn_bytes], SEGMENT_HEADER_BYTES as u64).unwrap();
        rig.config.boot = Some([2; 16]);
        let running = rig.start();
        let (opened, _, told) = running.open();
        assert_eq!(told.bodies(), [b"first"]);
        assert_eq!(opened.raised, Some(Raised::PowerCut), "{torn_bytes} bytes are gone");
        running.kill(opened.log);
    }
}

/// Acks that do not wait for the disk: a power cut may take any part of what was not synced, and
/// that is no damage.
#[test]
fn a_power_cut_in_process_mode_is_no_damage() {
    let mut rig = Rig::new();
    rig.config.durability = Durability::Process;
    let disk = FaultyDisk::default();
    let plan = Arc::clone(&disk.plan);
    rig.disk = Arc::new(disk);
    let running = rig.start();
    let mut log = running.log();
    let mut bodies = Vec::new();
    for number in 0..600usize {
        let body = vec![number as u8; 500 + number % 700];
        running.write(&mut log, &body);
        bodies.push(body);
    }
    let mut random: u64 = 7;
    let mut shortest = usize::MAX;
    for image in 0..16 {
        let copy = tempfile::tempdir().unwrap();
        copy_dir(rig.path(), copy.path());
        plan.lock().unwrap().power_cut(rig.path(), copy.path(), || {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            random >> 33 & 15 < image
        });
        let mut other = Rig::new();
        other.config.boot = Some([9; 16]);
        let running = other.start_at(copy.path());
        let (opened, _, told) = running.open();
        assert_eq!(told.bodies(), bodies[..told.records.len()]);
        assert_eq!(opened.raised, Some(Raised::PowerCut));
        shortest = shortest.min(told.records.len());
        running.kill(opened.log);
    }
    assert!(shortest < 600, "something was cut");
    assert!(shortest > 200, "what was synced at each new segment is there: {shortest}");
    running.kill(log);
}

#[test]
fn many_restarts_neither_lose_nor_hoard() {
    let rig = Rig::new();
    let mut expected = Vec::new();
    for start in 0..12u8 {
        let running = rig.start();
        let (opened, _, told) = running.open();
        assert_eq!(told.bodies(), expected);
        let mut log = opened.log;
        if start % 3 != 0 {
            running.write(&mut log, &[start; 100]);
            expected.push(vec![start; 100]);
        }
        if start % 2 == 0 { running.close(log) } else { running.kill(log) }
    }
    let bytes: u64 = rig.segments().iter().map(|path| path.metadata().unwrap().len()).sum();
    assert!(bytes <= 8 * 8192 + 3 * SEGMENT_BYTES_MIN, "{bytes} bytes");
}

/// A start that finds two segments without a record, and dies at each of its steps: the next one
/// goes on, and nothing is called damage.
#[test]
fn a_start_that_dies_at_any_step_leaves_a_log_that_opens() {
    let rig = Rig::new();
    let running = rig.start();
    let mut log = running.log();
    running.append(&mut log, b"never committed, and yet the next segment is made");
    running.until(|| rig.segments().len() == 2);
    running.kill(log);
    let mut steps = 0;
    loop {
        let copy = tempfile::tempdir().unwrap();
        copy_dir(rig.path(), copy.path());
        let disk = CountdownDisk::default();
        let plan = Arc::clone(&disk.plan);
        let dying = Rig { disk: Arc::new(disk), ..Rig::new() };
        let running = dying.start_at(copy.path());
        let mut scan = running.storage.scan_shard(SHARD).unwrap();
        scan.attach_table().unwrap();
        {
            let mut plan = plan.lock().unwrap();
            (plan.left, plan.again) = (Some((steps + 1, Fault::Broken)), true);
        }
        // Without a step more, the log opens for want of nothing but its next segment.
        let opened = scan.replay(&mut Told::default());
        running.storage.shutdown();
        drop(opened);
        let died = plan.lock().unwrap().fired.is_some();
        let running = Rig::new().start_at(copy.path());
        let (opened, _, told) = running.open();
        assert!(opened.report.losses.is_empty(), "step {steps}: {:?}", opened.report.losses);
        assert!(opened.read_only.is_none() && told.records.is_empty(), "step {steps}");
        let mut log = opened.log;
        running.write(&mut log, b"goes on");
        running.close(log);
        if !died {
            break;
        }
        steps += 1;
    }
    println!("TEST B-05 dying starts n={steps} lost=0");
    assert!(steps > 3, "it has steps to die at");
}
