//! The way of a message through the machine, and everything that may stand in it.

mod common;

use common::{Got, TestWorker, World, acks, closes, cursor, direct, errors, refusals};
use tern_core::config::Config;
use tern_core::io::{ComeBack, Effect, Input, LinkId, Outgoing};
use tern_core::log::RecordKind;
use tern_core::mail::Mail;
use tern_core::memory::MemoryReader;
use tern_protocol::{Code, Uin};

#[test]
fn a_message_reaches_every_device_of_both_users_once_and_in_order() {
    for (shards, workers) in [(1, 1), (4, 1), (4, 2), (5, 3)] {
        let mut world = World::new(shards, workers);
        let last = usize::from(workers) - 1;
        let mut alice = world.login(0, 1, 1, &[]);
        let bob = world.login(last, 2, 1, &[]);
        let bobs_tablet = world.login(0, 2, 2, &[]);
        for text in [b"one", b"two", b"six"] {
            alice.send(&mut world, direct(1, 2), text);
        }
        let expected: Vec<(u64, Vec<u8>)> =
            vec![(1, b"one".to_vec()), (2, b"two".to_vec()), (3, b"six".to_vec())];
        let got = world.take(&alice);
        assert_eq!(acks(&got), [(1, 1), (2, 2), (3, 3)]);
        assert_eq!(world.pushes(&bob), expected);
        assert_eq!(world.pushes(&bobs_tablet), expected);
    }
}

#[test]
fn nothing_is_shown_before_it_is_durable() {
    let reader = MemoryReader::default();
    let mut world = World::over(reader.clone(), 2, 2, Config::default());
    let mut alice = world.login(0, 1, 1, &[]);
    let bob = world.login(1, 2, 1, &[]);
    alice.send(&mut world, direct(1, 2), b"opens the channel");
    let (cursors, counter) = ([cursor(direct(1, 2), 1, 1)], alice.counter);
    drop((world.take(&alice), world.take(&bob)));

    // The same logs, which from now on are durable only when told.
    let mut world = World::over(reader, 2, 2, Config::default());
    let mut alice = world.login(0, 1, 1, &cursors);
    let bob = world.login(1, 2, 1, &cursors);
    drop((world.take(&alice), world.take(&bob)));
    world.hold_commits();
    alice.counter = counter;
    alice.send(&mut world, direct(1, 2), b"not yet");
    alice.send_as(&mut world, direct(1, 2), alice.epoch, alice.counter, 0, b"not yet");
    alice.send_as(&mut world, direct(1, 2), alice.epoch, alice.counter, 0, b"another");
    assert_eq!((world.take(&alice), world.take(&bob)), (vec![], vec![]));
    world.release_commits();
    let got = world.take(&alice);
    assert_eq!(acks(&got), [(2, 2), (2, 2)], "the ack, and that of the repeat");
    assert_eq!(refusals(&got), [(2, Code::KeyConflict)], "final, so it waits for the proof too");
    assert_eq!(world.pushes(&bob), [(2, b"not yet".to_vec())]);
}

#[test]
fn a_repeat_gets_the_first_ack_and_another_message_under_its_key_an_error() {
    let mut world = World::new(4, 2);
    let mut alice = world.login(0, 1, 1, &[]);
    alice.send(&mut world, direct(1, 2), b"once");
    let first = world.take(&alice);
    alice.send_as(&mut world, direct(1, 2), alice.epoch, 1, 0, b"once");
    assert_eq!(
        first.iter().find(|got| matches!(got, Got::Frame(Outgoing::SendAck(_)))),
        world.take(&alice).first(),
        "the same ack, byte for byte"
    );
    alice.send_as(&mut world, direct(1, 2), alice.epoch, 1, 0, b"twice");
    assert_eq!(refusals(&world.take(&alice)), [(1, Code::KeyConflict)]);
}

#[test]
fn a_message_waits_for_its_predecessor() {
    let mut world = World::new(1, 1);
    let mut alice = world.login(0, 1, 1, &[]);
    alice.send(&mut world, direct(1, 2), b"first");
    world.take(&alice);
    alice.send_as(&mut world, direct(1, 2), alice.epoch, 4, 3, b"fourth");
    alice.send_as(&mut world, direct(1, 2), alice.epoch, 3, 2, b"third");
    assert_eq!(world.take(&alice), vec![]);
    alice.send_as(&mut world, direct(1, 2), alice.epoch, 2, 1, b"second");
    let got = world.take(&alice);
    assert_eq!(acks(&got), [(2, 2), (3, 3), (4, 4)]);
    alice.send_as(&mut world, direct(1, 2), alice.epoch, 9, 8, b"too early");
    world.pass(2_000);
    assert_eq!(refusals(&world.take(&alice)), [(9, Code::Predecessor)]);
}

#[test]
fn a_message_is_never_appended_behind_a_younger_one_of_its_device() {
    let mut world = World::new(1, 1);
    let mut alice = world.login(0, 1, 1, &[]);
    alice.send(&mut world, direct(1, 2), b"first");
    alice.send_as(&mut world, direct(1, 2), alice.epoch, 3, 1, b"third: the second was refused");
    alice.send_as(&mut world, direct(1, 3), alice.epoch, 6, 0, b"elsewhere");
    let old = alice.epoch;
    let alice = world.login(0, 1, 1, &[cursor(direct(1, 2), 2, 1), cursor(direct(1, 3), 1, 1)]);
    world.take(&alice);
    alice.send_as(&mut world, direct(1, 2), old, 2, 1, b"second, said again");
    alice.send_as(&mut world, direct(1, 2), old, 5, 3, b"younger ones are elsewhere");
    let got = world.take(&alice);
    assert_eq!((refusals(&got), acks(&got)), (vec![(2, Code::KeyClosed)], vec![(5, 3)]));
}

#[test]
fn old_keys_are_looked_up_and_never_appended() {
    let mut world = World::new(1, 1);
    let mut alice = world.login(0, 1, 1, &[]);
    alice.send(&mut world, direct(1, 2), b"kept");
    let old = alice.epoch;
    let mut alice = world.login(0, 1, 1, &[]);
    assert_eq!(alice.epoch, old + 1);
    alice.send_as(&mut world, direct(1, 2), old, 2, 1, b"held under the old epoch");
    assert_eq!(acks(&world.take(&alice)), [(2, 2)], "nothing newer has closed it");
    alice.send(&mut world, direct(1, 2), b"closes it");
    world.take(&alice);
    alice.send_as(&mut world, direct(1, 2), old, 1, 0, b"kept");
    alice.send_as(&mut world, direct(1, 2), old, 3, 0, b"too late");
    let got = world.take(&alice);
    assert_eq!(acks(&got), [(1, 1)]);
    assert_eq!(refusals(&got), [(3, Code::KeyClosed)]);
    alice.send_as(&mut world, direct(1, 2), alice.epoch + 1, 1, 0, b"of a later login");
    assert_eq!(refusals(&world.take(&alice)), [(1, Code::KeyAhead)]);
}

#[test]
fn what_can_not_be_a_message_is_refused() {
    let mut world = World::new(2, 1);
    let mut alice = world.login(0, 1, 1, &[]);
    alice.send(&mut world, direct(1, 500), b"to nobody");
    alice.send(&mut world, direct(7, 8), b"not mine");
    alice.send(&mut world, direct(1, 2), &[0; 2_000]);
    alice.send_as(&mut world, direct(1, 2), alice.epoch, 0, 0, b"no key");
    let mut got = refusals(&world.take(&alice));
    got.sort_unstable();
    let expected = [
        (0, Code::KeyInvalid),
        (1, Code::NoSuchUser),
        (2, Code::NotAMember),
        (3, Code::ContentTooLong),
    ];
    assert_eq!(got, expected);
}

#[test]
fn the_rate_is_per_device_and_repeats_are_free() {
    let config = Config { sends_per_second: 1, sends_burst: 2, ..Config::default() };
    let mut world = World::over(MemoryReader::default(), 2, 1, config);
    let mut alice = world.login(0, 1, 1, &[]);
    alice.send(&mut world, direct(1, 2), b"one");
    for _ in 0..20 {
        alice.send_as(&mut world, direct(1, 2), alice.epoch, 1, 0, b"one");
    }
    alice.send(&mut world, direct(1, 2), b"two");
    alice.send(&mut world, direct(1, 2), b"three");
    let got = world.take(&alice);
    assert_eq!(refusals(&got), [(3, Code::RateLimited)]);
    assert_eq!(acks(&got).len(), 22);
    world.pass(1_000);
    alice.send_as(&mut world, direct(1, 2), alice.epoch, 3, 2, b"three");
    assert_eq!(acks(&world.take(&alice)), [(3, 3)]);
}

#[test]
fn everything_is_there_after_a_restart_with_another_number_of_workers() {
    let reader = MemoryReader::default();
    let mut world = World::over(reader.clone(), 4, 2, Config::default());
    let mut alice = world.login(0, 1, 1, &[]);
    for id in 1..=200u32 {
        alice.send(&mut world, direct(1, 2 + u64::from(id % 3)), &id.to_le_bytes());
    }
    for workers in [1, 3, 4] {
        let mut world = World::over(reader.clone(), 4, workers, Config::default());
        let bob = world.login(0, 2, 1, &[]);
        let mut got = world.pushes(&bob);
        while let Some((id, _)) = got.last().cloned() {
            bob.ack(&mut world, direct(1, 2), id);
            let more = world.pushes(&bob);
            if more.is_empty() {
                break;
            }
            got.extend(more);
        }
        let ids: Vec<u64> = got.iter().map(|(id, _)| *id).collect();
        assert_eq!(ids, (1..=66).collect::<Vec<u64>>());
        let again = world.login(0, 1, 1, &[cursor(direct(1, 3), 67, 1)]);
        again.send_as(&mut world, direct(1, 3), alice.epoch, 199, 0, &199u32.to_le_bytes());
        assert_eq!(acks(&world.take(&again)), [(199, 67)], "the first ack, from the log");
        assert!(again.epoch > alice.epoch);
    }
}

#[test]
fn a_device_reads_within_its_window_and_its_grant() {
    let config = Config { window_messages_max: 64, ..Config::default() };
    let mut world = World::over(MemoryReader::default(), 1, 1, config);
    let mut alice = world.login(0, 1, 1, &[]);
    for _ in 0..100 {
        alice.send(&mut world, direct(1, 2), b"message");
    }
    let bob = world.login(0, 2, 1, &[cursor(direct(1, 2), 10, 1)]);
    let ids = |got: Vec<(u64, Vec<u8>)>| got.into_iter().map(|(id, _)| id).collect::<Vec<_>>();
    assert_eq!(ids(world.pushes(&bob)), (11..=74).collect::<Vec<_>>(), "64 unacked at most");
    bob.ack(&mut world, direct(1, 2), 20);
    assert_eq!(ids(world.pushes(&bob)), (75..=84).collect::<Vec<_>>());
    bob.fetch(&mut world, direct(1, 2), 12, 13);
    assert_eq!(ids(world.pushes(&bob)), (12..=75).collect::<Vec<_>>(), "from there on again");
    bob.fetch(&mut world, direct(1, 2), 12, 101);
    bob.fetch(&mut world, direct(1, 3), 1, 1);
    bob.fetch(&mut world, direct(1, 2), 1, 5_000);
    bob.ack(&mut world, direct(1, 2), 101);
    let expected = [Code::NotGranted, Code::NotGranted, Code::RangeTooLong, Code::NotGranted];
    assert_eq!(errors(&world.take(&bob)), expected);
}

#[test]
fn a_later_login_fences_the_session_and_a_resume_goes_on_with_it() {
    let mut world = World::new(4, 2);
    let first = world.login(0, 1, 1, &[]);
    world.input(first.worker, Input::LinkClosed(first.link));
    let mut second = world.connect(1);
    second.hello(&mut world);
    second.resume(&mut world, 1, 1, &first);
    assert_eq!(second.epoch, first.epoch, "no epoch is granted");
    let third = world.login(0, 1, 1, &[]);
    assert_eq!(third.epoch, first.epoch + 1);
    assert_eq!(closes(&world.take(&second)), [Code::Fenced]);
    let mut fourth = world.connect(1);
    fourth.hello(&mut world);
    fourth.resume(&mut world, 1, 1, &first);
    assert_eq!(errors(&world.take(&fourth)), [Code::ResumeUnknown]);
    fourth.login(&mut world, 1, 1);
    assert_eq!(fourth.epoch, first.epoch + 2, "a login may follow on the same connection");
}

#[test]
fn a_kick_ends_sessions_and_their_tokens() {
    let mut world = World::new(4, 2);
    let phone = world.login(0, 1, 1, &[]);
    let tablet = world.login(1, 1, 2, &[]);
    for worker in 0..2 {
        let (device, code) = (None, Code::UserDisabled);
        world.input(worker, Input::Kick { uin: Uin(1), device, code });
    }
    assert_eq!(closes(&world.take(&phone)), [Code::UserDisabled]);
    assert_eq!(closes(&world.take(&tablet)), [Code::UserDisabled]);
    let mut again = world.connect(0);
    again.hello(&mut world);
    again.resume(&mut world, 1, 1, &phone);
    assert_eq!(errors(&world.take(&again)), [Code::ResumeUnknown]);
}

#[test]
fn silence_ends_a_session_and_a_connection_without_login() {
    let mut world = World::new(2, 1);
    let idle = world.connect(0);
    let alice = world.login(0, 1, 1, &[]);
    world.take(&alice);
    world.pass(5_000);
    assert_eq!(closes(&world.take(&idle)), [Code::TooSlow]);
    world.pass(84_999);
    assert_eq!(closes(&world.take(&alice)), []);
    world.pass(1);
    assert_eq!(closes(&world.take(&alice)), [Code::Offline], "three beats of 30 s");
}

#[test]
fn lost_notifies_heal() {
    let mut world = World::new(4, 4);
    let mut alice = world.login(0, 1, 1, &[]);
    let bob = world.login(1, 2, 1, &[]);
    alice.send(&mut world, direct(1, 2), b"opens the channel");
    world.take(&bob);
    world.lose = |mail| matches!(mail, Mail::Notify { .. } | Mail::Confirm { .. });
    alice.send(&mut world, direct(1, 2), b"its notify is lost");
    world.take(&alice);
    world.lose = |_| false;
    world.pass(1_000);
    assert_eq!(world.pushes(&bob), [(2, b"its notify is lost".to_vec())]);
    let before =
        world.workers.iter().map(|worker| worker.counters().notifies_repeated).sum::<u64>();
    world.pass(5_000);
    let after = world.workers.iter().map(|worker| worker.counters().notifies_repeated).sum::<u64>();
    assert_eq!(before, after, "all is confirmed");
}

#[test]
fn frames_out_of_turn_close_and_unknown_ones_are_answered() {
    use tern_protocol::{Flags, Kind};
    let mut world = World::new(1, 1);
    let client = world.connect(0);
    client.say(&mut world, Kind(0x77), Flags::NONE, &[0u8; 3], b"");
    client.say(&mut world, Kind::Hello, Flags(0x40), &[0u8; 32], b"");
    assert_eq!(errors(&world.take(&client)), [Code::UnknownKind, Code::UnknownFlag]);
    client.fetch(&mut world, direct(1, 2), 1, 1);
    assert_eq!(closes(&world.take(&client)), [Code::WrongState]);
    for (kind, bytes, code) in [
        (Kind::Welcome, 32, Code::WrongDirection),
        (Kind::Hello, 16, Code::Malformed),
        (Kind::Hello, 15, Code::Malformed),
        (Kind::Login, 48, Code::WrongState),
    ] {
        let client = world.connect(0);
        client.say(&mut world, kind, Flags::NONE, &(), &vec![0; bytes]);
        assert_eq!(closes(&world.take(&client)), [code], "{kind} of {bytes} bytes");
    }
}

#[test]
fn a_drain_tells_everyone_to_come_back() {
    let mut world = World::new(1, 1);
    let (alice, idle) = (world.login(0, 1, 1, &[]), world.connect(0));
    assert_eq!(world.workers[0].sessions(), (2, 1));
    world.input(0, Input::Drain);
    assert_eq!(closes(&world.take(&alice)), [Code::Draining]);
    assert_eq!(closes(&world.take(&idle)), [Code::Draining]);
    let late = world.connect(0);
    assert_eq!(closes(&world.take(&late)), [Code::Draining]);
    assert_eq!(world.workers[0].sessions(), (0, 0));
}

/// The slot is as long as it takes to log in all who are sent away.
#[test]
fn who_finds_no_room_or_a_server_that_goes_down_is_told_a_slot_for_the_whole_crowd() {
    const CROWD: u64 = 4_300;
    let config = Config { sessions_max: CROWD as usize, ..Config::default() };
    let mut world = World::over(MemoryReader::default(), 1, 1, config);
    let (now, worker) = (world.now, &mut world.workers[0]);
    let told = |worker: &mut TestWorker| {
        let effects = std::iter::from_fn(|| worker.poll_effect());
        let closes = effects.filter_map(|effect| match effect {
            Effect::Close { code, come_back, .. } => Some((code, come_back)),
            _ => None,
        });
        closes.collect::<Vec<_>>()
    };
    for link in 1..=CROWD {
        worker.handle(now, Input::LinkOpened(LinkId(link), now.mono));
    }
    assert_eq!(told(worker), []);
    let slot = ComeBack { ms: 1_000, slot_tenths: 22 }; // 4,300 logins, 2,000 a second
    worker.handle(now, Input::LinkOpened(LinkId(CROWD + 1), now.mono));
    assert_eq!(told(worker), [(Code::Busy, slot)]);
    worker.handle(now, Input::Drain);
    assert_eq!(told(worker), vec![(Code::Draining, slot); CROWD as usize]);
    worker.handle(now, Input::LinkOpened(LinkId(CROWD + 2), now.mono));
    assert_eq!(told(worker), [(Code::Draining, slot)], "late, and no earlier than the others");
}

#[test]
fn a_damaged_record_is_told_as_lost_and_the_rest_goes_on() {
    let reader = MemoryReader::default();
    let mut world = World::over(reader.clone(), 1, 1, Config::default());
    let mut alice = world.login(0, 1, 1, &[]);
    let bob = world.login(0, 2, 1, &[]);
    alice.send(&mut world, direct(1, 2), b"1");
    world.take(&bob); // and not acked
    let mut messages = Vec::new();
    let shard = world.placement.shard_of_channel(direct(1, 2));
    world.hold_commits();
    for text in [b"2", b"3"] {
        alice.send(&mut world, direct(1, 2), text);
    }
    reader.replay(shard, |at, _, record| {
        if record.kind == RecordKind::Message {
            messages.push(at);
        }
    });
    reader.damage(shard, messages[1], true);
    world.release_commits();
    let got = world.take(&bob);
    let gaps: Vec<_> = got
        .iter()
        .filter_map(|got| match got {
            Got::Frame(Outgoing::Gap(gap)) => {
                Some((gap.from.get(), gap.to.get(), Code(gap.code.get())))
            }
            _ => None,
        })
        .collect();
    assert_eq!(gaps, [(2, 2, Code::Lost)]);
    assert!(matches!(got.last(), Some(Got::Push { id: 3, .. })), "{got:?}");
    bob.ack(&mut world, direct(1, 2), 3);
    alice.send(&mut world, direct(1, 2), b"4");
    assert_eq!(world.pushes(&bob), [(4, b"4".to_vec())]);
}

#[test]
fn a_client_of_an_older_incarnation_forgets_what_was_lost() {
    let reader = MemoryReader::default();
    let mut world = World::over(reader.clone(), 1, 1, Config::default());
    let mut alice = world.login(0, 1, 1, &[]);
    alice.send(&mut world, direct(1, 2), b"kept");

    // Ids 2 of one channel and 1 to 5 of another were shown, and lost with the log's end.
    let mut world = World::restarted(reader, 1, 1, Config::default(), 2);
    let mut alice = world.login(0, 1, 1, &[]);
    alice.send(&mut world, direct(1, 2), b"second life");
    alice.send(&mut world, direct(2, 2), b"not mine");
    alice.send(&mut world, direct(1, 3), b"first of its channel");
    let bob = world.login(0, 2, 1, &[cursor(direct(1, 2), 2, 1)]);
    let carol = world.login(0, 3, 1, &[cursor(direct(1, 3), 5, 1)]);
    let restarts = |got: &[Got]| -> Vec<u64> {
        got.iter()
            .filter_map(|got| match got {
                Got::Frame(Outgoing::Channel(state)) => Some(state.restarted_at.get()),
                _ => None,
            })
            .collect()
    };
    let (bobs, carols) = (world.take(&bob), world.take(&carol));
    assert_eq!((restarts(&bobs), restarts(&carols)), (vec![2], vec![1]));
    assert!(matches!(bobs.last(), Some(Got::Push { id: 2, .. })), "{bobs:?}");
    assert!(matches!(carols.last(), Some(Got::Push { id: 1, .. })), "{carols:?}");
}

#[test]
fn a_late_login_on_an_older_connection_fences_nobody() {
    let mut world = World::new(4, 2);
    let mut old = world.connect(0);
    old.hello(&mut world);
    world.pass(100);
    let live = world.login(1, 1, 1, &[]);
    world.take(&live);
    old.login(&mut world, 1, 1);
    assert_eq!(closes(&world.take(&old)), [Code::TooSlow], "it may come again");
    assert_eq!(world.take(&live), []);
    world.pass(100);
    let newer = world.login(0, 1, 1, &[]);
    assert_eq!(newer.epoch, live.epoch + 1, "nothing was granted in between");
    assert_eq!(closes(&world.take(&live)), [Code::Fenced]);
}

/// The end of a handshake can come late too, with the login behind it: what counts is when the
/// handshake began.
#[test]
fn a_login_at_the_end_of_a_late_handshake_fences_nobody() {
    let mut world = World::new(4, 2);
    let begun = world.now.mono;
    world.pass(100);
    let live = world.login(1, 1, 1, &[]);
    world.pass(100);
    let mut old = world.connect_late(0, begun);
    old.hello(&mut world);
    old.login(&mut world, 1, 1);
    assert_eq!(closes(&world.take(&old)), [Code::TooSlow], "it may come again");
    assert!(closes(&world.take(&live)).is_empty());
}

#[test]
fn nobody_is_let_in_before_all_that_was_lost_at_the_start_was_said_again() {
    let reader = MemoryReader::default();
    let mut world = World::over(reader.clone(), 4, 2, Config::default());
    let placement = world.placement;
    let worker_of = |shard| placement.worker_of(shard);
    // The channel's shard tells another worker of it.
    let is_far = |uin: &u64| {
        let channel = placement.shard_of_channel(direct(1, *uin));
        worker_of(channel) != worker_of(placement.home_of(Uin(*uin)))
    };
    let peer = (2..50).find(is_far).expect("half of them are at home on the other worker");
    let mut alice = world.login(0, 1, 1, &[]);
    alice.send(&mut world, direct(1, peer), b"hello");
    let is_change = |mail: &Mail| matches!(mail, Mail::Notify { change: Some(_), .. });
    let mut world = World::losing(reader, (4, 2), is_change);
    let mut bob = world.connect(0);
    bob.hello(&mut world);
    bob.login(&mut world, peer, 1);
    assert_eq!(bob.epoch, 0, "he is let in, and one of his channels is unknown");
    world.lose = |_| false;
    world.pass(1_000);
    bob.note_login(&world);
    assert_eq!(bob.epoch, 1);
    bob.say_cursors(&mut world, &[]);
    assert_eq!(world.pushes(&bob), [(1, b"hello".to_vec())]);
}
