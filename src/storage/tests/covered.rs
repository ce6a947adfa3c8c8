//! Damage where checkpoints meet it: before what a start reads, under the one that is being made,
//! and at its very edge. The state is the same with the checkpoint and without it, or it is said
//! why not.

#![allow(clippy::unwrap_used)] // also in the helpers of tests

mod support;

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use support::chat::{Chat, checkpoints_at, open_rows, rows_of_copy, upkeep_rig};
use support::model::{SEGMENT, Seen, long_log};
use support::{Rig, Running, SHARD};
use tern_core::log::{Log, Offset, ReadError, Reader};
use tern_protocol::{ChannelId, Uin};
use tern_random::{Stream, seed_from_env, soaked};
use tern_storage::repair::{examine, plan};
use tern_storage::{
    Durability, Folder, FolderOptions, Lost, MappedLog, RECORD_HEADER_BYTES, Raised,
    SEGMENT_BYTES_MIN, SEGMENT_HEADER_BYTES,
};

/// Writes until the log has this many more segments, all durable.
fn fill(chat: &mut Chat, running: &Running, log: &mut MappedLog, segments: u64) {
    let goal = running.storage.stats(SHARD).segments + segments;
    while running.storage.stats(SHARD).segments < goal {
        let at = chat.act(running, log, 9_000);
        running.make_durable(log, at);
    }
}

/// Writes over bytes of the log that begin at an offset; all segments have the least size.
fn strike(rig: &Rig, at: u64, bytes: &[u8]) {
    let path = &rig.segments()[(at / SEGMENT_BYTES_MIN) as usize];
    let file = File::options().write(true).open(path).unwrap();
    file.write_all_at(bytes, at % SEGMENT_BYTES_MIN).unwrap();
}

/// A message that follows another one in its channel.
#[derive(Clone, Copy, Debug)]
struct Follower {
    channel: ChannelId,
    before: Offset,
    at: Offset,
}

/// All of them.
fn followers(chat: &Chat) -> Vec<Follower> {
    let pairs = chat.channels.iter().flat_map(|(channel, ids)| {
        ids.windows(2).map(|two| Follower { channel: named(channel), before: two[0], at: two[1] })
    });
    pairs.collect()
}

/// The newest message of each channel, behind another one.
fn newest(chat: &Chat) -> Vec<Follower> {
    let newest = chat.channels.iter().filter_map(|(channel, ids)| {
        let [.., before, at] = ids[..] else { return None };
        Some(Follower { channel: named(channel), before, at })
    });
    newest.collect()
}

/// The channel of two.
fn named((one, other): &(u64, u64)) -> ChannelId {
    ChannelId::direct(Uin(*one), Uin(*other))
}

/// What a reader of its channel makes of a message, with help where it asks for it.
fn read(running: &Running, message: &Follower) -> Result<(), ReadError> {
    let (mut reader, at) = (running.storage.reader(), message.at);
    if let Err(ReadError::Cold) = reader.with_record(SHARD, at, |_| ()) {
        running.warm(at, Some(message.channel));
    }
    reader.with_record(SHARD, at, |_| ())
}

/// The newest message of a channel, which no checkpoint knows yet, goes bad under its readers:
/// nothing in the log says of which channel it was, its readers do. Somebody who doesn't know it
/// may ask first.
#[test]
fn the_newest_message_goes_bad_under_its_readers() {
    let (rig, _) = upkeep_rig();
    let mut chat = Chat::new(seed_from_env(1), 5, 2);
    let running = rig.start();
    let mut log = open_rows(&running).unwrap().0.log;
    fill(&mut chat, &running, &mut log, 3);
    assert!(checkpoints_at(rig.path()).is_empty());
    let struck = newest(&chat);
    struck.iter().for_each(|it| strike(&rig, it.at.0, &[0xee; RECORD_HEADER_BYTES]));
    for (number, it) in struck.iter().enumerate() {
        if number % 2 == 0 {
            running.warm(it.at, None);
            let got = running.storage.reader().with_record(SHARD, it.at, |_| ());
            assert_eq!(got, Err(ReadError::LOST), "nothing is known of it");
            running.warm(it.at, Some(it.channel));
        }
        let Err(ReadError::Lost(links)) = read(&running, it) else { panic!("{it:?} is read") };
        assert_eq!(links.channel, it.before, "the message before, of that channel");
    }
    running.kill(log);
    assert!(struck.len() > 5);
    println!("TEST B-12 salvaged={n} of={n} newest lost=0", n = struck.len());
}

/// A header that is bad in a segment whose records no start reads any more.
#[test]
fn salvage_leads_past_damage_before_a_checkpoint() {
    let (rig, _) = upkeep_rig();
    let mut chat = Chat::new(seed_from_env(1), 5, 2);
    let running = rig.start();
    let mut log = open_rows(&running).unwrap().0.log;
    fill(&mut chat, &running, &mut log, 3);
    running.storage.maintain();
    let at = running.storage.upkeep(SHARD).checkpoint.unwrap().at;
    running.kill(log);
    // Half of them before the start, half while the server runs.
    let mut random = Stream::new(seed_from_env(1));
    // One of each channel, in every other one the newest: no message points to that.
    let mut struck = Vec::new();
    for (number, (channel, messages)) in chat.channels.iter().enumerate() {
        let covered = messages.iter().filter(|message| message.0 < at).count();
        let newest = covered.saturating_sub(1);
        let index = if number % 2 == 0 { newest } else { random.index(newest) };
        if let Some([before, at]) = messages.get(index.max(1) - 1..=index.max(1)) {
            struck.push(Follower { channel: named(channel), before: *before, at: *at });
        }
    }
    let hit = |it: &Follower| strike(&rig, it.at.0, &[0xee; RECORD_HEADER_BYTES]);
    let (before, after) = struck.split_at(struck.len() / 2);
    before.iter().for_each(hit);
    let running = rig.start();
    let (opened, _) = open_rows(&running).unwrap();
    assert!(opened.report.checkpoint.is_some() && opened.report.losses.is_empty());
    assert_eq!(opened.read_only, None, "the checkpoint has their state");
    after.iter().for_each(hit);
    for it in &struck {
        let Err(ReadError::Lost(links)) = read(&running, it) else { panic!("{it:?} is read") };
        assert_eq!(links.channel, it.before, "the message before, of that channel");
    }
    running.kill(opened.log);
    let struck = struck.len();
    assert!(struck > 5);
    println!("TEST B-12 salvaged={struck} of={struck} before_the_checkpoint lost=0");
}

/// How a log is damaged before a checkpoint is made over it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Harm {
    Body,
    Header,
    Page,
}

impl Harm {
    fn apply(self, rig: &Rig, at: u64) {
        match self {
            Self::Body => strike(rig, at + RECORD_HEADER_BYTES as u64, &[0xee; 16]),
            Self::Header => strike(rig, at, &[0xee; RECORD_HEADER_BYTES]),
            Self::Page => strike(rig, at, &[0xee; 4096]),
        }
    }
}

/// Damage that a start met, accepted where it had to be: the checkpoint that is made over it, and
/// the one that is made from that, say what a replay of the whole log says.
#[test]
fn a_checkpoint_over_damage_is_what_a_replay_is() {
    let (mut cases, mut rows_all) = (0, 0);
    let first = seed_from_env(1);
    for seed in first..first + soaked(3) {
        for harm in [Harm::Body, Harm::Header, Harm::Page] {
            let (rig, _) = upkeep_rig();
            let mut chat = Chat::new(seed, 4, 2);
            let running = rig.start();
            let mut log = open_rows(&running).unwrap().0.log;
            fill(&mut chat, &running, &mut log, 2);
            running.kill(log);
            let all = followers(&chat);
            harm.apply(&rig, all[all.len() / 2].at.0 & !7);
            accept(rig.path());
            for made in 1..=2_u64 {
                let running = rig.start();
                let (opened, _) = open_rows(&running).unwrap();
                assert_eq!(opened.read_only, None, "{harm:?}");
                let mut log = opened.log;
                fill(&mut chat, &running, &mut log, 2);
                running.storage.maintain();
                let upkeep = running.storage.upkeep(SHARD);
                assert_eq!((upkeep.suspended, upkeep.checkpoints_made), (None, 1), "{harm:?}");
                running.close(log);
                assert_eq!(checkpoints_at(rig.path()).len() as u64, made);
                let (with, rows) = rows_of_copy(&rig, rig.path(), true);
                let (without, expected) = rows_of_copy(&rig, rig.path(), false);
                assert_eq!((with.checkpoint, without.checkpoint), (Some(made), None));
                assert_eq!(rows, expected, "{harm:?} seed {seed} checkpoint {made}");
                rows_all += rows.len();
                cases += 1;
            }
        }
    }
    println!("TEST checkpoint over_damage n={cases} rows={rows_all} differing=0");
}

/// Accepts what a shard has lost, if it takes nothing because of it.
fn accept(path: &Path) {
    let folder = Folder::open(path, FolderOptions::default()).unwrap();
    let lost = plan(&folder, SHARD).unwrap();
    assert!(!lost.losses.is_empty(), "something is damaged");
    if lost.is_stopped() {
        lost.accept(&folder).unwrap();
    }
}

/// Damage that comes while the server runs, under a checkpoint that is about to be made: a message
/// is stepped over; what may be more keeps the checkpoint from being made, and is said.
#[test]
fn damage_under_a_checkpoint_that_is_being_made() {
    for harm in [Harm::Body, Harm::Header] {
        let (rig, _) = upkeep_rig();
        let mut chat = Chat::new(seed_from_env(1), 4, 2);
        let running = rig.start();
        let mut log = open_rows(&running).unwrap().0.log;
        fill(&mut chat, &running, &mut log, 2);
        let all = followers(&chat);
        let struck = all[all.len() / 3];
        harm.apply(&rig, struck.at.0);
        running.storage.maintain();
        let upkeep = running.storage.upkeep(SHARD);
        assert_eq!(upkeep.suspended.is_some(), harm == Harm::Header, "{harm:?}: {upkeep:?}");
        if let Some(why) = upkeep.suspended {
            assert!(why.contains("0000000001.seg") && checkpoints_at(rig.path()).is_empty());
        }
        let Err(ReadError::Lost(links)) = read(&running, &struck) else { panic!("{harm:?}") };
        assert_eq!(links.channel, struck.before, "{harm:?}");
        fill(&mut chat, &running, &mut log, 1);
        running.close(log);
        if harm == Harm::Body {
            let (with, rows) = rows_of_copy(&rig, rig.path(), true);
            let (_, expected) = rows_of_copy(&rig, rig.path(), false);
            assert!(with.checkpoint.is_some());
            assert_eq!(rows, expected, "the checkpoint counts what it stepped over");
        } else {
            let running = rig.start();
            let (opened, _) = open_rows(&running).unwrap();
            assert!(opened.read_only.unwrap().contains("0000000001.seg"));
            running.close(opened.log);
        }
    }
}

/// Two files that have changed their names: it is said which is which, all others are read, and
/// put right nothing is lost.
#[test]
fn two_swapped_segments() {
    let rig = Rig::new();
    let model = long_log(&rig, 3);
    let folder = Folder::open(rig.path(), FolderOptions::default()).unwrap();
    let paths = rig.segments();
    let aside = paths[0].with_extension("aside");
    let swap = |one: &Path, other: &Path| {
        fs::rename(one, &aside).unwrap();
        fs::rename(other, one).unwrap();
        fs::rename(&aside, other).unwrap();
    };
    for (one, other) in [(0, 1), (1, 2), (0, 2)] {
        swap(&paths[one], &paths[other]);
        let (mut seen, what) = (Seen::new(), format!("segments {one} and {other}"));
        let plan = examine(&folder, SHARD, &mut seen).unwrap();
        let bad = [one, other].map(|n| n as u64 * SEGMENT..(n as u64 + 1) * SEGMENT);
        model.judge(&seen, &plan, &bad, &what);
        assert!(plan.is_stopped(), "{what}");
        for (is, belongs) in [(one, other), (other, one)] {
            let named =
                |why: &str| why.contains(paths[belongs].file_name().unwrap().to_str().unwrap());
            let said = plan.losses.iter().any(|loss| {
                loss.path == paths[is] && matches!(&loss.what, Lost::Segment(why) if named(why))
            });
            assert!(said, "{what}: {:?}", plan.losses);
        }
        swap(&paths[one], &paths[other]);
        let mut seen = Seen::new();
        let plan = examine(&folder, SHARD, &mut seen).unwrap();
        assert_eq!((plan.losses.len(), seen.records.len()), (0, model.records.len()));
    }
    println!("TEST B-02 swapped n=3 records={} lost=0", model.records.len());
}

/// Acks that do not wait for the disk, and a power cut that takes every record of the segment in
/// which the checkpoint ends: the log goes on behind the checkpoint, under a new incarnation.
#[test]
fn a_power_cut_takes_the_segment_behind_a_checkpoint() {
    for zeros_from in [SEGMENT_HEADER_BYTES as u64, SEGMENT_HEADER_BYTES as u64 + 40] {
        let (mut rig, _) = upkeep_rig();
        rig.config.durability = Durability::Process;
        let mut chat = Chat::new(seed_from_env(1), 4, 2);
        let running = rig.start();
        let mut log = open_rows(&running).unwrap().0.log;
        fill(&mut chat, &running, &mut log, 2);
        // Proves what is before, so that this segment is where the checkpoint ends.
        for _ in 0..5 {
            let at = chat.act(&running, &mut log, 9_000);
            running.make_durable(&mut log, at);
        }
        running.storage.maintain();
        let at = running.storage.upkeep(SHARD).checkpoint.unwrap().at;
        running.kill(log);
        let (_, before) = rows_of_copy(&rig, rig.path(), true);
        let path = rig.segments()[(at / SEGMENT_BYTES_MIN) as usize].clone();
        let file = File::options().write(true).open(&path).unwrap();
        file.write_all_at(&vec![0; (SEGMENT_BYTES_MIN - zeros_from) as usize], zeros_from).unwrap();

        rig.config.boot = Some([9; 16]);
        let mut end = Offset(0);
        for start in 0..3_u32 {
            let running = rig.start();
            let (opened, rows) = open_rows(&running).unwrap();
            let raised = (start == 0).then_some(Raised::PowerCut);
            assert_eq!((opened.raised, &opened.read_only), (raised, &None), "start {start}");
            assert_eq!((opened.incarnation.0, opened.report.losses.len()), (2, 0));
            assert!(opened.report.checkpoint.is_some() && opened.report.end >= end);
            assert!(rows.len() <= before.len() + 1, "nothing is invented");
            let mut log = opened.log;
            assert!(log.tail().0 >= at, "offsets never go back");
            end = Chat::note(&running, &mut log);
            running.kill(log);
        }
    }
}
