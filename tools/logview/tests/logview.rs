//! The program on folders that storage wrote: live, closed, torn, damaged.

#![allow(clippy::unwrap_used)] // also in the helpers of tests

mod support;

use std::fs;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use support::{A_B, Hands, Rig, Run};
use tern_storage::StorageConfig;

/// Place of the first message's record in the first segment: page and mark before it.
const FIRST: u64 = 4096 + 40;

/// Bytes of the record of a message with 8 bytes of content.
const RECORD: u64 = 40 + 64 + 8;

#[test]
fn a_closed_folder_in_words_and_in_json() {
    let rig = Rig::new();
    rig.write(3).close();
    let list = rig.run(&["list"]);
    list.ends_with(0);
    list.says("1 shards");
    list.says("no server has it");
    list.says("shard 0: closed in order; 3 records");
    list.says("active");
    let json = rig.run(&["--json", "list"]);
    assert!(json.out.contains(r#""what":"segment""#) && json.out.contains(r#""base":"0""#));
    let verify = rig.run(&["verify"]);
    verify.ends_with(0);
    verify.says("every checksum fits");
}

#[test]
fn a_live_folder_is_read_beside_its_owner() {
    let rig = Rig::new();
    let mut live = rig.write(3);
    let list = rig.run(&["list"]);
    list.ends_with(0);
    list.says(&format!("process id {}", std::process::id()));
    list.says("shard 0: live; 3 records");
    live.send(2);
    rig.run(&["list"]).says("shard 0: live; 5 records");
    rig.run(&["verify"]).ends_with(0);
    live.close();
}

#[test]
fn a_channel_a_message_and_an_export() {
    let rig = Rig::new();
    rig.write(5).close();
    let channel = rig.run(&["channel", A_B]);
    channel.ends_with(0);
    assert_eq!(channel.out.lines().count(), 5);
    channel.says("7/1 key 1.1  \"message1\"");
    let one = rig.run(&["message", "9-7", "2"]);
    one.ends_with(0);
    one.says(&format!("offset {}, byte {}", FIRST + RECORD, FIRST + RECORD));
    one.says(&format!("previous   message of the channel: {FIRST};"));
    rig.run(&["message", A_B, "6"]).ends_with(1);
    let export = rig.run(&["export", A_B, "--from", "2", "--to", "3"]);
    assert_eq!(export.out.lines().count(), 2);
    export.says(r#""channel":"7-9","content_type":1,"device":1,"id":"2","key":"1.2","kind":1"#);
    export.says(r#""text":"message3""#);
    rig.run(&["channel", "7-8"]).ends_with(0);
}

#[test]
fn records_in_the_order_of_the_log() {
    let rig = Rig::new();
    rig.write(2).close();
    let records = rig.run(&["records", "--shard", "0"]);
    records.says(&format!("{FIRST:>12} {RECORD:>6}  message "));
    records.says("mark    proven before it");
    records.says("closed in order");
    let one = rig.run(&["--json", "records", "--shard", "0", "--from", "4097", "--limit", "1"]);
    assert_eq!(one.out.lines().count(), 1);
    one.says(r#""what":"message""#);
    one.says(&format!(r#""at":"{FIRST}""#));
    rig.run(&["records", "--shard", "4"]).ends_with(1);
}

#[test]
fn a_flipped_bit_is_named_and_good_records_go_on_behind_it() {
    let rig = Rig::new();
    rig.write(4).close();
    let second = FIRST + RECORD;
    rig.flip(1, second + 100);
    let verify = rig.run(&["verify"]);
    verify.ends_with(1);
    verify.says(&format!("segment 1, offset {second} (byte {second} of the file)"));
    verify.says("perhaps 2 of 7-9 of 112 bytes whose header is whole and whose body is damaged");
    verify.says(&format!("good records go on at offset {}", second + RECORD));
    verify.says("it was durable");
    let channel = rig.run(&["channel", A_B]);
    channel.ends_with(1);
    channel.says("     2  LOST");
    channel.says("message4");
    let export = rig.run(&["export", A_B]);
    export.says(r#"{"channel":"7-9","lost":{"from":"2","to":"2"}}"#);
}

#[test]
fn a_torn_end_is_no_damage() {
    let rig = Rig::new();
    rig.write(4).kill();
    // All four are one batch, behind which nothing proves them.
    let last = FIRST + 3 * RECORD;
    rig.flip(1, last + 50);
    let verify = rig.run(&["verify"]);
    verify.ends_with(0);
    verify.says("shard 0: torn end; 3 records");
    verify.says(&format!("torn  segment 1, offset {last}"));
    verify.says("a start cuts it off here");
    rig.flip(1, last + 50);
    rig.flip(1, FIRST + 60);
    let records = rig.run(&["records", "--shard", "0"]);
    records.ends_with(0);
    records.says("DEAD");
    let channel = rig.run(&["channel", A_B]);
    assert_eq!(channel.out, "", "what a start cuts off is no message");
    let channel = rig.run(&["--json", "records", "--shard", "0"]);
    channel.says(r#""damage":false"#);
}

/// A start cuts off the torn end, and says so in the next segment's header.
#[test]
fn what_a_start_cut_off_is_no_damage() {
    let rig = Rig::new();
    rig.write(4).kill();
    let last = FIRST + 3 * RECORD;
    rig.flip(1, last + 50);
    rig.write(0).close();
    let list = rig.run(&["--json", "list"]);
    list.ends_with(0);
    list.says(&format!(r#""cut":"{last}""#));
    list.says(r#""state":"cut""#);
    rig.run(&["list"]).says("cut ");
    assert_eq!(rig.run(&["channel", A_B]).out.lines().count(), 3);
    rig.flip(1, FIRST + 50);
    let verify = rig.run(&["verify"]);
    verify.ends_with(1);
    verify.says(&format!("DAMAGED  segment 1, offset {FIRST}"));
}

#[test]
fn a_damaged_header_does_not_hide_its_records() {
    let rig = Rig::new();
    rig.write(4).close();
    rig.flip(1, 41); // the base
    rig.run(&["list"]).says("one of the two copies of its header is damaged; a start mends it");
    rig.flip(1, 2048 + 41);
    let list = rig.run(&["list"]);
    list.ends_with(1);
    list.says("has a wrong checksum");
    list.says("its salt is intact, so its records were read all the same");
    assert_eq!(rig.run(&["channel", A_B]).out.lines().count(), 4);
    rig.flip(1, 41);
    rig.flip(1, 2048 + 41);
    rig.flip(1, 60); // the salt
    rig.flip(1, 2048 + 60);
    let list = rig.run(&["list"]);
    list.ends_with(1);
    list.says("none of its records can be proven without the header");
    assert_eq!(rig.run(&["channel", A_B]).out, "");
}

#[test]
fn checkpoints_are_shown_and_stand_for_what_is_gone() {
    let rig = Rig::new();
    let live = rig.write(9_000);
    live.storage.maintain();
    live.storage.maintain();
    live.close();
    let list = rig.run(&["list"]);
    list.ends_with(0);
    list.says("checkpoint 1: 2 rows");
    list.says("messages are kept from segment 1 on");
    let path = rig.path().join("log/shard-00/0000000001.ckpt");
    let mut bytes = fs::read(&path).unwrap();
    bytes[4096 + 20] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let verify = rig.run(&["verify"]);
    verify.ends_with(1);
    verify.says("DAMAGED  checkpoint 1: ");
    verify.says("the block at byte 4096 is broken");
    let json = rig.run(&["list", "--json"]);
    json.says("\"what\":\"checkpoint\"");
}

/// Messages that are past their retention are no damage, nor are the links that lead to them.
#[test]
fn what_has_expired_is_not_lost() {
    let (rig, hands) = (Rig::new(), Arc::new(Hands::default()));
    let retention = Duration::from_secs(8 * 60 * 60);
    let settings =
        StorageConfig { retention: Some(retention), clock: hands.clone(), ..Default::default() };
    let live = rig.write_with(12_000, settings);
    for _ in 0..40 {
        hands.0.fetch_add(30 * 60 * 1_000, Relaxed);
        live.storage.clock();
    }
    live.storage.maintain();
    let upkeep = live.storage.upkeep(tern_core::placement::ShardId(0));
    assert!(upkeep.segments_deleted > 0, "{upkeep:?} {}", rig.run(&["list"]).out);
    live.close();
    rig.run(&["verify"]).ends_with(0);
    let channel = rig.run(&["channel", A_B]);
    channel.ends_with(0);
    assert!(!channel.out.contains("LOST"), "{}", &channel.out[..200]);
    let first = channel.out.lines().next().unwrap();
    let gone: u64 = first.split_whitespace().nth(2).unwrap().parse().unwrap();
    assert_eq!(first.trim(), format!("1  to {gone} EXPIRED"));
    assert_eq!(channel.out.lines().count() as u64, 1 + 12_000 - gone);
    let oldest = (gone + 1).to_string();
    let one = rig.run(&["message", A_B, &oldest]);
    one.ends_with(0);
    one.says("(deleted)");
    let before = rig.run(&["message", A_B, &gone.to_string()]);
    before.ends_with(1);
    assert!(before.err.contains("past its retention"), "{}", before.err);
    let export = rig.run(&["export", A_B, "--to", &oldest]);
    export.ends_with(0);
    export.says(&format!(r#"{{"channel":"7-9","expired":{{"from":"1","to":"{gone}"}}}}"#));
}

#[test]
fn a_missing_segment_is_named() {
    let rig = Rig::new();
    rig.write(9_000).close();
    assert!(rig.segment(3).exists(), "three segments at least");
    fs::remove_file(rig.segment(2)).unwrap();
    let list = rig.run(&["list"]);
    list.ends_with(1);
    list.says("DAMAGED  segment 2: segment 2 is missing");
    let channel = rig.run(&["channel", A_B]);
    channel.ends_with(1);
    channel.says(" LOST");
    channel.says("message1\"");
    channel.says("9000");
}

#[test]
fn every_byte_of_a_page_and_of_records_can_be_bad() {
    let rig = Rig::new();
    rig.write(2).close();
    let records = FIRST + 2 * RECORD;
    for place in (0..144).step_by(7).chain((4096..records).step_by(11)) {
        rig.flip(1, place);
        let Run { out, err, code } = rig.run(&["--json", "verify"]);
        assert_eq!(code, 1, "at {place}: {out}{err}");
        assert!(!err.contains("panicked"), "at {place}: {err}");
        rig.flip(1, place);
    }
    rig.run(&["verify"]).ends_with(0);
}

/// Damage or a torn end, and from where on: the same as a start would say, wherever a bit flips and
/// wherever the newest file ends.
#[test]
fn its_verdicts_are_those_of_a_start() {
    let rig = Rig::new();
    let mut live = rig.write(5_000); // three segments
    for _ in 0..6 {
        live.send(1);
    }
    live.kill();
    let newest = (1..).take_while(|number| rig.segment(*number).exists()).last().unwrap() - 1;
    let (mut damaged, mut torn) = (0, 0);
    let mut compare = |what: &str| {
        let (losses, run) = (rig.losses(), rig.run(&["--json", "verify"]));
        assert_eq!(run.code == 1, !losses.is_empty(), "{what}: {losses:?}\n{}", run.out);
        let places = losses.iter().map(|loss| format!(r#""at":"{}""#, loss.at));
        let missed = places.filter(|at| !run.out.contains(at)).count();
        assert_eq!(missed, 0, "{what}: {losses:?}\n{}", run.out);
        damaged += usize::from(run.code == 1);
        torn += usize::from(run.code == 0);
    };
    let bytes = |number| fs::read(rig.segment(number)).unwrap();
    for number in 1..=newest {
        let used = bytes(number).iter().rposition(|byte| *byte != 0).unwrap() as u64;
        let step = if number == newest { 4_001 } else { 20_011 };
        let near_end = (used.saturating_sub(1_000)..used).step_by(61);
        for place in (4_096..used).step_by(step).chain(near_end) {
            rig.flip(number, place);
            compare(&format!("a bit of byte {place} of segment {number}"));
            rig.flip(number, place);
        }
    }
    compare("all put right");
    println!("TEST logview verdicts n={} damaged={damaged} torn={torn}", damaged + torn);
    assert!(damaged > 50 && torn > 1);
}

#[test]
fn a_cut_file_and_a_lost_folder_file() {
    let rig = Rig::new();
    rig.write(4).close();
    let last = FIRST + 3 * RECORD;
    rig.truncate(1, last + 20);
    let list = rig.run(&["list"]);
    list.ends_with(1);
    list.says(&format!("the file has {} bytes of the", last + 20));
    assert_eq!(rig.run(&["channel", A_B]).out.lines().count(), 3);
    rig.truncate(1, 100);
    rig.run(&["list"]).says("unreadable");
    fs::remove_file(rig.path().join("folder")).unwrap();
    let list = rig.run(&["list"]);
    list.ends_with(1);
    list.says("going by its 1 shard folders");
}

#[test]
fn tables_are_shown_beside_their_owner() {
    let rig = Rig::new();
    let live = rig.write(3);
    let dedup = rig.run(&["dedup"]);
    dedup.ends_with(0);
    dedup.says("whole; 1 devices in 4096 slots");
    dedup.says(&format!(
        "7/1  newest key 1.3, window 0000000000000007, newest record at {}",
        FIRST + 2 * RECORD
    ));
    assert!(!rig.run(&["dedup", "--uin", "8"]).out.contains("newest key"));
    rig.run(&["--json", "dedup"]).says(r#""uin":"7""#);
    live.close();
}

/// Not a byte, not a name and no time of change.
#[test]
fn nothing_is_changed() {
    let rig = Rig::new();
    rig.write(4).kill();
    rig.flip(1, FIRST + 20);
    let before = rig.everything();
    let commands: [&[&str]; 8] = [
        &[],
        &["list"],
        &["verify"],
        &["dedup"],
        &["records", "--shard", "0"],
        &["channel", A_B],
        &["message", A_B, "1"],
        &["export", A_B],
    ];
    for command in commands {
        rig.run(command);
        assert_eq!(rig.everything(), before, "{command:?}");
    }
}

#[test]
fn help_has_examples_and_wrong_use_its_own_code() {
    let rig = Rig::new();
    rig.run(&["--help"]).says("logview export g5 --from 100 --to 200");
    rig.run(&["channel", "nobody"]).ends_with(2);
    fs::remove_dir(rig.path()).unwrap();
    let gone = rig.run(&["list"]);
    gone.ends_with(1);
    assert!(gone.err.contains("can't read"), "{}", gone.err);
}
