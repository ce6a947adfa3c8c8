//! Marks, receipts and unread counts, one scene at a time.

mod common;

use common::groups::{Wish, refusal};
use common::marks::{all_marks, known, marks, receipts, unread};
use common::{Client, World, acks, cursor, direct, errors};
use tern_core::config::Config;
use tern_core::log::RecordKind;
use tern_core::mail::Mail;
use tern_core::memory::MemoryReader;
use tern_core::placement::ShardId;
use tern_core::progress::MarksMail;
use tern_protocol::frames::action;
use tern_protocol::{ChannelId, Code, Uin};

/// Time in which everything is told, in ms.
const TOLD_MS: u64 = 200;

/// Time in which everything is written down, in ms.
const KEPT_MS: u64 = 6_000;

/// Shards and workers of the worlds here.
const SIZE: (u16, u16) = (4, 2);

fn world() -> World {
    World::new(SIZE.0, SIZE.1)
}

/// The same server after a crash of its process.
fn crashed(reader: &MemoryReader) -> World {
    World::over(reader.clone(), SIZE.0, SIZE.1, Config::default())
}

/// Logs in and wants to know of marks.
fn listener(world: &mut World, uin: u64, device: u32) -> Client {
    let client = world.login(uin as usize % 2, uin, device, &[]);
    client.ask_marks(world, (0, 0));
    world.pass(TOLD_MS);
    world.take(&client);
    client
}

/// Alice (1) has written this many messages to Bob (2).
fn written(world: &mut World, count: usize) -> (Client, ChannelId) {
    let (mut alice, channel) = (listener(world, 1, 1), direct(1, 2));
    for _ in 0..count {
        alice.send(world, channel, b"tern");
    }
    world.pass(TOLD_MS);
    assert_eq!(acks(&world.take(&alice)).len(), count);
    (alice, channel)
}

#[test]
fn read_markers_sync_across_devices() {
    let mut world = world();
    let (alice, channel) = written(&mut world, 5);
    let (phone, desk) = (listener(&mut world, 2, 1), listener(&mut world, 2, 2));
    phone.ack(&mut world, channel, 4);
    world.pass(TOLD_MS);
    assert_eq!(marks(&world.take(&alice)), [(channel, 2, 4, 0)], "delivered, not read");
    assert_eq!(marks(&world.take(&desk)), [], "what was delivered is nothing to Bob himself");
    phone.read(&mut world, channel, 3);
    world.pass(TOLD_MS);
    for client in [&phone, &desk] {
        assert_eq!(marks(&world.take(client)), [(channel, 2, 4, 3)]);
    }
    assert_eq!(marks(&world.take(&alice)), [(channel, 2, 4, 3)]);
    desk.read(&mut world, channel, 2);
    world.pass(TOLD_MS);
    assert_eq!(marks(&world.take(&phone)), [], "a mark never goes back");
    desk.read(&mut world, channel, 99);
    world.pass(TOLD_MS);
    assert_eq!(marks(&world.take(&phone)), [(channel, 2, 5, 5)], "nor beyond what is there");
    desk.read(&mut world, direct(2, 3), 1);
    assert_eq!(errors(&world.take(&desk)), [Code::NotGranted]);
}

#[test]
fn who_comes_back_is_told_what_changed_meanwhile() {
    let mut world = world();
    let (alice, channel) = written(&mut world, 3);
    alice.ask_marks(&mut world, (0, 0));
    let seen = known(&world.take(&alice)).expect("an answer");
    let bob = listener(&mut world, 2, 1);
    let third = listener(&mut world, 3, 1);
    bob.read(&mut world, channel, 2);
    world.pass(TOLD_MS);
    let again = world.login(0, 1, 2, &[]);
    again.ask_marks(&mut world, (0, 0));
    let all = [(channel, 1, 0, 0), (channel, 2, 2, 2)];
    assert_eq!(all_marks(&world.take(&again)), all, "who knows nothing hears of each channel");
    again.ask_marks(&mut world, seen);
    let got = world.take(&again);
    assert_eq!(marks(&got), [(channel, 2, 2, 2)]);
    let newer = known(&got).expect("an answer");
    again.ask_marks(&mut world, newer);
    let got = world.take(&again);
    assert_eq!((marks(&got), known(&got)), (vec![], Some(newer)), "nothing is told twice");
    assert_eq!(marks(&world.take(&third)), [], "nor anything to others");
}

#[test]
fn a_read_in_silence_is_for_ones_own_devices() {
    let mut world = world();
    let (alice, channel) = written(&mut world, 2);
    let (phone, desk) = (listener(&mut world, 2, 1), listener(&mut world, 2, 2));
    phone.read_as(&mut world, channel, (2, 1), true);
    world.pass(TOLD_MS);
    assert_eq!(marks(&world.take(&desk)), [(channel, 2, 2, 2)]);
    assert_eq!(marks(&world.take(&alice)), [(channel, 2, 2, 0)]);
    phone.read(&mut world, channel, 1);
    world.pass(TOLD_MS);
    assert_eq!(marks(&world.take(&alice)), [(channel, 2, 2, 1)]);
}

#[test]
fn a_crash_takes_back_seconds_of_marks_and_nothing_else() {
    let reader = MemoryReader::default();
    let mut world = crashed(&reader);
    let (_, channel) = written(&mut world, 6);
    let bob = listener(&mut world, 2, 1);
    bob.read(&mut world, channel, 4);
    world.pass(KEPT_MS);
    bob.read(&mut world, channel, 6);
    world.pass(TOLD_MS);
    assert_eq!(marks(&world.take(&bob)).last(), Some(&(channel, 2, 6, 6)));
    let mut world = crashed(&reader);
    let bob = world.login(0, 2, 1, &[cursor(channel, 5, 1)]);
    bob.ask_marks(&mut world, (0, 0));
    world.pass(TOLD_MS);
    assert_eq!(marks(&world.take(&bob)), [(channel, 2, 5, 4)], "the cursor tells what came");
    let alice = world.login(0, 1, 1, &[]);
    alice.ask_marks(&mut world, (0, 0));
    world.pass(TOLD_MS);
    assert_eq!(marks(&world.take(&alice)), [(channel, 2, 5, 4)], "Bob's home shard is asked");
    bob.read(&mut world, channel, 6);
    world.pass(TOLD_MS);
    assert_eq!(marks(&world.take(&alice)), [(channel, 2, 6, 6)]);
}

#[test]
fn a_restart_of_history_takes_marks_back_to_it() {
    let reader = MemoryReader::default();
    let mut world = crashed(&reader);
    let (_, channel) = written(&mut world, 4);
    let bob = listener(&mut world, 2, 1);
    bob.read(&mut world, channel, 4);
    world.pass(KEPT_MS);
    let mut world = World::restarted(reader.clone(), SIZE.0, SIZE.1, Config::default(), 2);
    let mut alice = world.login(0, 1, 1, &[cursor(channel, 4, 1)]);
    alice.send(&mut world, channel, b"again");
    let bob = world.login(0, 2, 1, &[cursor(channel, 4, 1)]);
    bob.read_as(&mut world, channel, (5, 1), false);
    bob.ask_marks(&mut world, (0, 0));
    world.pass(TOLD_MS);
    let got = marks(&world.take(&bob));
    let own: Vec<_> = got.iter().filter(|mark| mark.1 == 2).collect();
    assert!(!own.is_empty() && own.iter().all(|mark| mark.3 == 4), "5 was another then: {got:?}");
    bob.read_as(&mut world, channel, (5, 2), false);
    world.pass(TOLD_MS);
    assert_eq!(marks(&world.take(&bob)), [(channel, 2, 5, 5)]);
}

#[test]
fn a_hint_that_is_lost_is_made_good_by_the_next_and_at_login() {
    let mut world = world();
    let (alice, channel) = written(&mut world, 4);
    let bob = listener(&mut world, 2, 1);
    world.lose = |mail| {
        let Mail::Marks(mail) = mail else { return false };
        matches!(mail, MarksMail::TellPeer { .. } | MarksMail::PeerSeen { .. })
    };
    bob.read(&mut world, channel, 2);
    world.pass(TOLD_MS);
    assert_eq!(marks(&world.take(&alice)), [], "the hint was lost");
    let desk = listener_got(&mut world, 1, 2);
    assert_eq!(desk, [(channel, 2, 2, 2)]);
    assert_eq!(marks(&world.take(&alice)), [(channel, 2, 2, 2)], "now known to all");
    world.lose = |_| false;
    bob.read(&mut world, channel, 3);
    world.pass(TOLD_MS);
    assert_eq!(marks(&world.take(&alice)), [(channel, 2, 3, 3)]);
}

#[test]
fn a_mark_that_is_asked_for_before_its_range_is_known_is_told_then() {
    /// Bob's home, which hears late of what there is.
    const LATE: ShardId = ShardId(2);
    let reader = MemoryReader::default();
    let mut world = crashed(&reader);
    let placement = world.placement;
    let worker_of = |channel| placement.worker_of(placement.shard_of_channel(channel));
    let is_far = |uin: &u64| {
        placement.home_of(Uin(*uin)) == LATE
            && worker_of(direct(1, *uin)) != placement.worker_of(LATE)
    };
    let bob = (2..).find(is_far).expect("users are spread over all shards");
    let (mut alice, channel) = (listener(&mut world, 1, 1), direct(1, bob));
    assert_ne!(placement.home_of(Uin(1)), LATE);
    alice.send(&mut world, channel, b"tern");
    let device = listener(&mut world, bob, 1);
    device.read(&mut world, channel, 1);
    world.pass(KEPT_MS);
    drop(world);
    let mut world =
        World::losing(reader, SIZE, |mail| matches!(mail, Mail::Notify { to: LATE, .. }));
    let alice = world.login(1, 1, 1, &[]);
    alice.ask_marks(&mut world, (0, 0));
    world.pass(TOLD_MS);
    let got = world.take(&alice);
    assert!(known(&got).is_some() && marks(&got).is_empty(), "{:?}", marks(&got));
    world.lose = |_| false;
    world.pass(KEPT_MS);
    assert_eq!(marks(&world.take(&alice)), [(channel, bob, 1, 1)], "though Bob is away");
    world.pass(KEPT_MS);
    assert_eq!(marks(&world.take(&alice)), [], "and once");
}

#[test]
fn a_mark_in_a_group_is_told_when_its_members_are_known_again() {
    let reader = MemoryReader::default();
    let mut world = crashed(&reader);
    let mut owner = world.login(0, 1, 1, &[]);
    let members: Vec<u64> = (2..20).collect();
    let group = owner.create(&mut world, 1, 0, &members);
    owner.send(&mut world, group, b"tern");
    // One whose home is on another worker than the group, so that mail between them can be lost.
    let placement = world.placement;
    let of_group = placement.worker_of(placement.shard_of_channel(group));
    let is_far = |uin: &u64| placement.worker_of(placement.home_of(Uin(*uin))) != of_group;
    let bob = members.into_iter().find(is_far).expect("they are spread over both");
    let device = listener(&mut world, bob, 1);
    device.read(&mut world, group, 2);
    world.pass(KEPT_MS);
    drop(world);
    // Nobody tells the home shards who is in the group, so what Bob may read is not known.
    let mut world = World::losing(reader, SIZE, |mail| matches!(mail, Mail::Members(_)));
    let device = world.login(0, bob, 1, &[]);
    device.ask_marks(&mut world, (0, 0));
    world.pass(TOLD_MS);
    let got = world.take(&device);
    assert!(known(&got).is_some() && marks(&got).is_empty(), "{:?}", marks(&got));
    world.lose = |_| false;
    world.pass(KEPT_MS);
    assert_eq!(marks(&world.take(&device)), [(group, bob, 2, 2)], "told of what he missed");
    world.pass(KEPT_MS);
    assert_eq!(marks(&world.take(&device)), [], "and once");
}

/// What a new device of a user is told of marks.
fn listener_got(world: &mut World, uin: u64, device: u32) -> Vec<common::marks::Seen> {
    let client = world.login(1, uin, device, &[]);
    client.ask_marks(world, (0, 0));
    world.pass(TOLD_MS);
    marks(&world.take(&client))
}

#[test]
fn receipts_of_a_group_are_counts() {
    let mut world = world();
    let mut owner = world.login(0, 1, 1, &[]);
    let members: Vec<u64> = (2..=40).collect();
    let group = owner.create(&mut world, 1, 0, &members);
    owner.send(&mut world, group, b"who has it?");
    let clients: Vec<Client> =
        members.iter().map(|uin| world.login(*uin as usize % 2, *uin, 1, &[])).collect();
    for client in &clients[..20] {
        client.ack(&mut world, group, 2);
    }
    for client in &clients[..10] {
        client.read(&mut world, group, 2);
    }
    clients[10].read_as(&mut world, group, (2, 1), true);
    clients[11].read(&mut world, group, 1);
    world.take(&owner);
    owner.ask_receipts(&mut world, group, 2);
    assert_eq!(receipts(&world.take(&owner)), [(39, 20, 10)]);
    clients[0].ask_receipts(&mut world, group, 2);
    assert_eq!(receipts(&world.take(&clients[0])), [(39, 19, 9)], "who asks is not counted");
    owner.change(&mut world, group, &Wish::of(action::KICK, &[2]));
    assert_eq!(refusal(&world.take(&owner)), None);
    owner.ask_receipts(&mut world, group, 2);
    assert_eq!(receipts(&world.take(&owner)), [(38, 19, 9)], "nor who has left");
    clients[0].ask_receipts(&mut world, group, 2);
    assert_eq!(errors(&world.take(&clients[0])), [Code::NotAMember]);
    owner.ask_receipts(&mut world, group, 99);
    assert_eq!(errors(&world.take(&owner)), [Code::NotGranted]);
}

#[test]
fn a_count_that_a_shard_does_not_answer_is_busy() {
    let mut world = world();
    let mut owner = world.login(0, 1, 1, &[]);
    let group = owner.create(&mut world, 1, 0, &(2..=40).collect::<Vec<_>>());
    world.lose = |mail| matches!(mail, Mail::Marks(MarksMail::Counted { .. }));
    owner.ask_receipts(&mut world, group, 1);
    owner.ask_receipts(&mut world, group, 1);
    assert_eq!(errors(&world.take(&owner)), [Code::Busy], "one is under way");
    world.pass(2_100);
    assert_eq!(errors(&world.take(&owner)), [Code::Busy], "given up");
    world.lose = |_| false;
    owner.ask_receipts(&mut world, group, 1);
    assert_eq!(receipts(&world.take(&owner)), [(39, 0, 0)]);
}

#[test]
fn unread_leaves_out_own_and_membership() {
    let mut world = world();
    let mut alice = world.login(0, 1, 1, &[]);
    let group = alice.create(&mut world, 1, 0, &[2, 3]); // 1
    let mut bob = world.login(1, 2, 1, &[]);
    for _ in 0..3 {
        alice.send(&mut world, group, b"hello"); // 2, 3, 4
    }
    bob.send(&mut world, group, b"I am here"); // 5
    alice.change(&mut world, group, &Wish::of(action::ADD, &[4])); // 6
    alice.send(&mut world, group, b"news"); // 7
    alice.send(&mut world, direct(1, 2), b"psst"); // in another channel
    world.take(&bob);
    let count = |world: &mut World, client: &Client, asked: &[(ChannelId, u64)]| {
        client.ask_unread(world, asked);
        unread(&world.take(client))
    };
    let asked = [(group, 0), (group, 3), (group, 4), (group, 7), (direct(1, 2), 0)];
    let counts = count(&mut world, &bob, &asked);
    let expected = [4, 2, 1, 0, 1];
    assert_eq!(counts.iter().map(|count| count.1).collect::<Vec<_>>(), expected);
    assert!(counts.iter().all(|count| !count.2));
    assert_eq!(count(&mut world, &alice, &[(group, 0)]), [(group, 1, false)], "Bob's alone");
    let late = world.login(0, 4, 1, &[]);
    assert_eq!(count(&mut world, &late, &[(group, 0)]), [(group, 1, false)], "since he joined");
    let other = direct(2, 3);
    late.ask_unread(&mut world, &[(other, 0)]);
    assert_eq!(unread(&world.take(&late)), [(other, 0, false)]);
}

#[test]
fn unread_is_counted_to_a_hundred_and_waits_for_the_disk() {
    let reader = MemoryReader::default();
    let mut world = crashed(&reader);
    let (_, channel) = written(&mut world, 150);
    let places = places(&reader, RecordKind::Message);
    assert_eq!(places.len(), 150);
    let bob = world.login(0, 2, 1, &[cursor(channel, 150, 1)]);
    for (shard, at) in &places {
        reader.chill(*shard, *at);
    }
    let mut found = Vec::new();
    for after in [0, 49, 50, 51, 149, 150] {
        bob.ask_unread(&mut world, &[(channel, after)]);
        found.extend(unread(&world.take(&bob)).iter().map(|count| (count.1, count.2)));
    }
    let expected = [(100, true), (100, true), (100, false), (99, false), (1, false), (0, false)];
    assert_eq!(found, expected);
    let cold: u64 = world.workers.iter().map(|worker| worker.counters().reads_cold).sum();
    assert!(cold >= 101, "{cold} cold reads");
    println!("TEST unread_is_counted_to_a_hundred n=6 cold_reads={cold}");
}

fn places(reader: &MemoryReader, kind: RecordKind) -> Vec<(ShardId, tern_core::log::Offset)> {
    let mut places = Vec::new();
    for shard in (0..SIZE.0).map(ShardId) {
        reader.replay(shard, |at, _, record| {
            if record.kind == kind {
                places.push((shard, at));
            }
        });
    }
    places
}

/// A thousand messages, delivered and read one by one on two devices: nothing of delivery is
/// written, and of reading one record for all that moved in some seconds.
#[test]
fn no_record_per_receipt() {
    let reader = MemoryReader::default();
    let mut world = crashed(&reader);
    let (mut alice, channel) = (listener(&mut world, 1, 1), direct(1, 2));
    let bobs = [listener(&mut world, 2, 1), listener(&mut world, 2, 2)];
    let (count, pause_ms) = (1_000_u64, 50);
    for id in 1..=count {
        alice.send(&mut world, channel, b"tern");
        for bob in &bobs {
            bob.ack(&mut world, channel, id);
            bob.read(&mut world, channel, id);
        }
        world.pass(pause_ms);
    }
    world.pass(KEPT_MS);
    let (messages, records) =
        (places(&reader, RecordKind::Message).len(), places(&reader, RecordKind::Read).len());
    let told = marks(&world.take(&alice));
    let seconds = count * pause_ms / 1_000;
    println!(
        "TEST no_record_per_receipt messages={messages} reads={} records={records} seconds={seconds} told={}",
        2 * count,
        told.len()
    );
    assert_eq!(messages as u64, count);
    assert!(records as u64 <= seconds / 5 + 1, "{records} records in {seconds} s");
    assert_eq!(told.last(), Some(&(channel, 2, count, count)));
    assert!((told.len() as u64) <= seconds * 10 + 1, "{} receipts in {seconds} s", told.len());
}

#[test]
fn who_is_blocked_hears_no_more_of_marks_until_the_block_ends() {
    let mut world = world();
    let (mut alice, channel) = written(&mut world, 4);
    let bob = listener(&mut world, 2, 1);
    bob.read(&mut world, channel, 1);
    world.pass(TOLD_MS);
    assert_eq!(marks(&world.take(&alice)), [(channel, 2, 1, 1)]);
    bob.block(&mut world, 1, true);
    bob.ack(&mut world, channel, 4);
    bob.read(&mut world, channel, 3);
    world.pass(TOLD_MS);
    assert_eq!(marks(&world.take(&alice)), [], "nor what was accepted before the block");
    let again = listener_got(&mut world, 1, 2);
    assert_eq!(again, [(channel, 2, 1, 1)], "nor who asks");
    // The other direction is open, and so are its receipts.
    let mut desk = listener(&mut world, 2, 2);
    desk.send(&mut world, channel, b"and you?");
    alice.ack(&mut world, channel, 5);
    alice.read(&mut world, channel, 5);
    world.pass(TOLD_MS);
    assert_eq!(marks(&world.take(&desk)).last(), Some(&(channel, 1, 5, 5)));
    world.take(&alice);
    bob.block(&mut world, 1, false);
    world.pass(TOLD_MS);
    let told = marks(&world.take(&alice));
    assert_eq!(told.last(), Some(&(channel, 2, 4, 3)), "what moved meanwhile");
    bob.read(&mut world, channel, 4);
    world.pass(TOLD_MS);
    assert_eq!(marks(&world.take(&alice)), [(channel, 2, 4, 4)]);
    alice.send(&mut world, channel, b"here");
    assert_eq!(acks(&world.take(&alice)).len(), 1, "and messages come again");
}
