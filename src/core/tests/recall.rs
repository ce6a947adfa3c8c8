//! Recalls and edits, one by one: who may, until when, and who sees what.

mod common;

use common::groups::{Wish, gaps, ids};
use common::recalls::Saying;
use common::{Client, Got, World, acks, cursor, direct, refusals};
use tern_core::config::Config;
use tern_core::memory::MemoryReader;
use tern_protocol::frames::{action, role};
use tern_protocol::{ChannelId, Code};

/// A world with one channel of users 1 and 2, and a device of each.
fn talk() -> (World, ChannelId, Client, Client) {
    let mut world = World::new(3, 2);
    let ann = world.login(0, 1, 1, &[]);
    let bob = world.login(1, 2, 1, &[]);
    (world, direct(1, 2), ann, bob)
}

/// Says it and tells the code of its refusal; none if it was acked.
fn refused(
    world: &mut World,
    client: &mut Client,
    channel: ChannelId,
    saying: &Saying,
) -> Option<Code> {
    world.take(client);
    let counter = client.refer(world, channel, saying);
    let got = world.take(client);
    let is_acked = acks(&got).iter().any(|(acked, _)| *acked == counter);
    let code = refusals(&got).first().map(|(_, code)| *code);
    assert_ne!(is_acked, code.is_some(), "one answer: {got:?}");
    code
}

/// All content that a client was pushed of a channel.
fn contents(got: &[Got], of: ChannelId) -> Vec<Vec<u8>> {
    let content = |got: &Got| match got {
        Got::Push { channel, content, .. } if *channel == of => Some(content.clone()),
        _ => None,
    };
    got.iter().filter_map(content).collect()
}

#[test]
fn a_late_device_is_told_of_a_gap_and_never_gets_the_body() {
    let (mut world, channel, mut ann, bob) = talk();
    for text in [&b"one"[..], b"secret", b"three"] {
        ann.send(&mut world, channel, text);
    }
    ann.refer(&mut world, channel, &Saying::edit(2, b"secret, in other words"));
    ann.refer(&mut world, channel, &Saying::recall(2));
    let got = world.take(&bob);
    assert_eq!(ids(&got, channel), [1, 2, 3, 4, 5], "who was there saw it all");

    let late = world.login(0, 2, 2, &[]);
    let got = world.take(&late);
    assert_eq!(ids(&got, channel), [1, 3, 5]);
    let hidden = [(2, 2, Code::Recalled), (4, 4, Code::Recalled)];
    assert_eq!(gaps(&got, channel), hidden, "the message, and its edit");
    assert_eq!(contents(&got, channel), [b"one".to_vec(), b"three".to_vec(), Vec::new()]);

    late.ack(&mut world, channel, 5);
    world.take(&late);
    late.fetch(&mut world, channel, 1, 5);
    let got = world.take(&late);
    assert_eq!((ids(&got, channel), gaps(&got, channel)), (vec![1, 3, 5], hidden.to_vec()));
    bob.ack(&mut world, channel, 5);
    bob.fetch(&mut world, channel, 2, 4);
    let got = world.take(&bob);
    assert_eq!(gaps(&got, channel), hidden, "not again for who had it");
}

#[test]
fn many_recalls_in_a_row_are_few_gaps() {
    let (mut world, channel, mut ann, bob) = talk();
    for number in 1..=70 {
        ann.send(&mut world, channel, format!("{number}").as_bytes());
        bob.ack(&mut world, channel, number);
    }
    for id in 2..=69 {
        ann.refer(&mut world, channel, &Saying::recall(id));
        bob.ack(&mut world, channel, 69 + id);
    }
    let late = world.login(1, 2, 2, &[]);
    let mut got = Vec::new();
    for _ in 0..10 {
        got.extend(world.take(&late));
        let pushed = ids(&got, channel).last().copied();
        let hidden = gaps(&got, channel).last().map(|(_, to, _)| *to);
        late.ack(&mut world, channel, pushed.max(hidden).expect("something came"));
    }
    let expected: Vec<u64> = [1, 70].into_iter().chain(71..=138).collect();
    assert_eq!(ids(&got, channel), expected);
    let gaps = gaps(&got, channel);
    let hidden: u64 = gaps.iter().map(|(from, to, _)| to - from + 1).sum();
    assert!(gaps.iter().all(|(.., code)| *code == Code::Recalled));
    assert!(hidden == 68 && gaps.len() <= 4, "{gaps:?}");
}

#[test]
fn each_reason_has_its_own_code() {
    let config = Config { recall_ms_max: 1_000, edit_ms_max: 500, ..Config::default() };
    let mut world = World::over(MemoryReader::default(), 2, 1, config);
    let (mut ann, mut bob) = (world.login(0, 1, 1, &[]), world.login(0, 2, 1, &[]));
    let channel = direct(1, 2);
    let never = refused(&mut world, &mut ann, channel, &Saying::recall(1));
    assert_eq!(never, Some(Code::NoSuchMessage), "and no channel is opened by it");
    ann.send(&mut world, channel, b"one");
    ann.send(&mut world, channel, b"two");
    let mut says =
        |client: &mut Client, saying: Saying| refused(&mut world, client, channel, &saying);
    let empty = |kind| Saying { kind, refers_to: 0, content: Vec::new() };
    assert_eq!(says(&mut ann, empty(3)), Some(Code::ReferenceInvalid));
    assert_eq!(says(&mut ann, empty(4)), Some(Code::ReferenceInvalid));
    let wordy = Saying { content: b"x".to_vec(), ..Saying::recall(1) };
    assert_eq!(says(&mut ann, wordy), Some(Code::ReferenceInvalid));
    assert_eq!(says(&mut ann, empty(5)), Some(Code::KindUnknown));
    assert_eq!(says(&mut ann, Saying::recall(3)), Some(Code::NoSuchMessage));
    assert_eq!(says(&mut bob, Saying::recall(1)), Some(Code::NotYours));
    assert_eq!(says(&mut bob, Saying::edit(1, b"no")), Some(Code::NotYours));
    assert_eq!(says(&mut ann, Saying::edit(1, b"won")), None);
    assert_eq!(says(&mut ann, Saying::edit(3, b"wonn")), Some(Code::NotContent), "an edit");
    assert_eq!(says(&mut ann, Saying::recall(3)), Some(Code::NotContent), "an edit");
    assert_eq!(says(&mut ann, Saying::recall(1)), None);
    assert_eq!(says(&mut ann, Saying::recall(4)), Some(Code::NotContent), "a recall");
    assert_eq!(says(&mut ann, Saying::recall(1)), Some(Code::AlreadyRecalled));
    assert_eq!(says(&mut ann, Saying::edit(1, b"x")), Some(Code::AlreadyRecalled));
    world.pass(501);
    let late = refused(&mut world, &mut ann, channel, &Saying::edit(2, b"x"));
    assert_eq!(late, Some(Code::TooLate));
    world.pass(500);
    let late = refused(&mut world, &mut ann, channel, &Saying::recall(2));
    assert_eq!(late, Some(Code::TooLate));
}

#[test]
fn a_repeat_gets_the_same_ack_and_recalls_once() {
    let (mut world, channel, mut ann, _) = talk();
    ann.send(&mut world, channel, b"one");
    let counter = ann.refer(&mut world, channel, &Saying::recall(1));
    world.take(&ann);
    ann.refer_as(&mut world, channel, (ann.epoch, counter, 0), &Saying::recall(1));
    assert_eq!(acks(&world.take(&ann)), [(counter, 2)]);
    ann.refer_as(&mut world, channel, (ann.epoch, counter, 0), &Saying::edit(1, b""));
    assert_eq!(refusals(&world.take(&ann)), [(counter, Code::KeyConflict)]);
}

#[test]
fn in_a_group_who_stands_above_may_recall_and_only_the_author_may_edit() {
    let mut world = World::new(3, 1);
    let [mut owner, mut admin, mut other, mut member] =
        [1, 2, 3, 4].map(|uin| world.login(0, uin, 1, &[]));
    let crew = owner.create(&mut world, 1, 0, &[2, 3, 4]);
    let wish = Wish { role: role::ADMIN, ..Wish::of(action::ROLE, &[2, 3]) };
    owner.change(&mut world, crew, &wish);
    // 3 and 4 of the member, 5 of an admin, 6 of the owner
    member.send(&mut world, crew, b"a");
    member.send(&mut world, crew, b"b");
    admin.send(&mut world, crew, b"c");
    owner.send(&mut world, crew, b"d");
    let mut says = |client: &mut Client, saying: &Saying| refused(&mut world, client, crew, saying);
    assert_eq!(says(&mut member, &Saying::recall(5)), Some(Code::NotYours));
    assert_eq!(says(&mut other, &Saying::recall(5)), Some(Code::NotYours), "of the same role");
    assert_eq!(says(&mut other, &Saying::recall(6)), Some(Code::NotYours));
    assert_eq!(says(&mut admin, &Saying::edit(3, b"x")), Some(Code::NotYours));
    assert_eq!(says(&mut admin, &Saying::recall(3)), None);
    assert_eq!(says(&mut owner, &Saying::recall(5)), None);
    assert_eq!(says(&mut owner, &Saying::recall(1)), Some(Code::NotContent), "a change");

    let until = u64::MAX;
    admin.change(&mut world, crew, &Wish { until, ..Wish::of(action::MUTE, &[4]) });
    let muted = refused(&mut world, &mut member, crew, &Saying::edit(4, b"x"));
    assert_eq!(muted, Some(Code::Muted));
    assert_eq!(refused(&mut world, &mut member, crew, &Saying::recall(4)), None);

    let mut stranger = world.login(0, 5, 1, &[]);
    let out = refused(&mut world, &mut stranger, crew, &Saying::recall(6));
    assert_eq!(out, Some(Code::NotAMember));
    owner.change(&mut world, crew, &Wish::of(action::ADD, &[5]));
    let unseen = refused(&mut world, &mut stranger, crew, &Saying::recall(6));
    assert_eq!(unseen, Some(Code::NoSuchMessage), "it is not for newcomers");
}

#[test]
fn who_left_is_not_shown_what_was_recalled_since() {
    let mut world = World::new(4, 2);
    let mut owner = world.login(0, 1, 1, &[]);
    let crew = owner.create(&mut world, 1, 0, &[2, 3]);
    owner.send(&mut world, crew, b"secret");
    owner.send(&mut world, crew, b"plain");
    owner.change(&mut world, crew, &Wish::of(action::KICK, &[2]));
    owner.refer(&mut world, crew, &Saying::recall(2));
    let late = world.login(1, 2, 1, &[]);
    let got = world.take(&late);
    assert_eq!(ids(&got, crew), [1, 3, 4], "up to the change that ended it");
    assert_eq!(gaps(&got, crew), [(2, 2, Code::Recalled)]);
    let member = world.login(1, 3, 1, &[]);
    assert_eq!(ids(&world.take(&member), crew), [1, 3, 4, 5]);
}

#[test]
fn what_was_recalled_stays_so_after_a_restart_and_undone_with_the_record() {
    let reader = MemoryReader::default();
    let mut world = World::over(reader.clone(), 2, 1, Config::default());
    let mut ann = world.login(0, 1, 1, &[]);
    let channel = direct(1, 2);
    for text in [&b"one"[..], b"two"] {
        ann.send(&mut world, channel, text);
    }
    ann.refer(&mut world, channel, &Saying::recall(1));
    world.take(&ann);
    world.hold_commits();
    let counter = ann.refer(&mut world, channel, &Saying::recall(2));
    let again = ann.refer(&mut world, channel, &Saying::recall(2));
    assert_eq!((acks(&world.take(&ann)), again), (vec![], counter + 1), "nothing is durable");
    reader.cut_power();

    let mut world = World::over(reader, 2, 1, Config::default());
    let bob = world.login(0, 2, 1, &[]);
    let got = world.take(&bob);
    assert_eq!(ids(&got, channel), [2, 3], "the power cut took the second recall back");
    assert_eq!(gaps(&got, channel), [(1, 1, Code::Recalled)]);
    let mut ann = world.login(0, 1, 1, &[cursor(channel, 3, 1)]);
    let known = refused(&mut world, &mut ann, channel, &Saying::recall(1));
    assert_eq!(known, Some(Code::AlreadyRecalled));
    assert_eq!(refused(&mut world, &mut ann, channel, &Saying::recall(2)), None);
}

#[test]
fn a_refusal_waits_for_the_recall_that_it_rests_on() {
    let (mut world, channel, mut ann, _) = talk();
    ann.send(&mut world, channel, b"one");
    world.take(&ann);
    world.hold_commits();
    let first = ann.refer(&mut world, channel, &Saying::recall(1));
    let second = ann.refer(&mut world, channel, &Saying::recall(1));
    assert!(refusals(&world.take(&ann)).is_empty(), "a power cut would take the reason back");
    world.release_commits();
    let got = world.take(&ann);
    assert_eq!(acks(&got), [(first, 2)]);
    assert_eq!(refusals(&got), [(second, Code::AlreadyRecalled)]);
}

#[test]
fn a_cold_message_is_read_first_and_later_ones_stay_behind() {
    let reader = MemoryReader::default();
    let mut world = World::over(reader.clone(), 1, 1, Config::default());
    let (mut ann, bob) = (world.login(0, 1, 1, &[]), world.login(0, 2, 1, &[]));
    let channel = direct(1, 2);
    for number in 0..40 {
        ann.send(&mut world, channel, format!("{number}").as_bytes());
    }
    bob.ack(&mut world, channel, 40);
    world.take(&bob);
    let mut places = Vec::new();
    let shard = world.placement.shard_of_channel(channel);
    reader.replay(shard, |at, _, _| places.push(at));
    places.iter().for_each(|at| reader.chill(shard, *at));
    let before = world.workers[0].counters().reads_cold;

    world.by_steps = true;
    let recall = ann.refer(&mut world, channel, &Saying::recall(7));
    ann.counter += 1;
    let later = (ann.epoch, ann.counter, recall);
    ann.refer_as(&mut world, channel, later, &Saying::content(b"and on"));
    world.by_steps = false;
    world.run();
    assert!(world.workers[0].counters().reads_cold > before, "it was read for the recall");
    assert_eq!(acks(&world.take(&ann)).last_chunk(), Some(&[(recall, 41), (recall + 1, 42)]));
    let late = world.login(0, 2, 2, &[cursor(channel, 6, 1)]);
    let got = world.take(&late);
    assert_eq!(gaps(&got, channel), [(7, 7, Code::Recalled)]);
    assert_eq!(ids(&got, channel), (8..=42).collect::<Vec<_>>());
}

#[test]
fn a_lost_message_or_an_expired_one_can_not_be_recalled() {
    let reader = MemoryReader::default();
    let mut world = World::over(reader.clone(), 1, 1, Config::default());
    let (mut ann, channel) = (world.login(0, 1, 1, &[]), direct(1, 2));
    for number in 0..5 {
        ann.send(&mut world, channel, format!("{number}").as_bytes());
    }
    ann.refer(&mut world, channel, &Saying::recall(2));
    let (mut messages, shard) = (Vec::new(), world.placement.shard_of_channel(channel));
    reader.replay(shard, |at, _, record| {
        if record.kind.is_in_channel() {
            messages.push(at);
        }
    });
    reader.damage(shard, messages[3], true);
    let lost = refused(&mut world, &mut ann, channel, &Saying::recall(4));
    assert_eq!(lost, Some(Code::NoSuchMessage));
    reader.expire(shard, messages[2]);
    world.run();
    let gone = refused(&mut world, &mut ann, channel, &Saying::recall(1));
    assert_eq!(gone, Some(Code::TooLate));
    let late = world.login(0, 2, 2, &[]);
    let got = world.take(&late);
    let expected = [(1, 2, Code::Expired), (4, 4, Code::Lost)];
    assert_eq!(gaps(&got, channel), expected, "what expired is told as that");
    assert_eq!(ids(&got, channel), [3, 5, 6]);
}
