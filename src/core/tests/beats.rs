//! Heartbeats: the digest of cursors and what it heals, the interval, and devices that do not ack.

mod common;

use common::{Client, Got, World, closes, cursor, digest, direct};
use tern_core::config::Config;
use tern_core::io::{Input, Outgoing};
use tern_core::memory::MemoryReader;
use tern_core::sight::{DeviceSight, Place};
use tern_protocol::digest::UNSAID;
use tern_protocol::frames::{LoggedIn, Network, Ping, Pong};
use tern_protocol::{ChannelId, Code, Flags, Kind, Uin, UnixMillis};

/// A heartbeat; what the client got with it.
fn beat(world: &mut World, client: &Client, digest: u64, heartbeat_ms: u32) -> (Pong, Vec<Got>) {
    let ping = Ping {
        sequence: 7.into(),
        network: 2,
        reserved: [0; 3],
        digest: digest.into(),
        heartbeat_ms: heartbeat_ms.into(),
        reserved_end: 0.into(),
    };
    client.say(world, Kind::Ping, Flags::NONE, &ping, b"");
    let mut got = world.take(client);
    let at = got.iter().position(|got| matches!(got, Got::Frame(Outgoing::Pong(_))));
    match got.remove(at.expect("an answer")) {
        Got::Frame(Outgoing::Pong(pong)) => (pong, got),
        _ => unreachable!("it was just found"),
    }
}

fn asked(got: &[Got]) -> usize {
    got.iter().filter(|got| matches!(got, Got::Frame(Outgoing::AskCursors(_)))).count()
}

/// The ids of the channels' ends that the client was told instead of being pushed to.
fn news(got: &[Got]) -> Vec<u64> {
    got.iter()
        .filter_map(|got| match got {
            Got::Frame(Outgoing::Channel(state)) => Some(state.newest.get()),
            _ => None,
        })
        .collect()
}

fn pushed(got: &[Got]) -> Vec<u64> {
    got.iter()
        .filter_map(|got| match got {
            Got::Push { id, .. } => Some(*id),
            _ => None,
        })
        .collect()
}

fn logged_in(world: &World, client: &Client) -> LoggedIn {
    let got = world.got.get(&client.link).into_iter().flatten();
    let answers = got.filter_map(|got| match got {
        Got::Frame(Outgoing::LoggedIn(answer)) => Some(*answer),
        _ => None,
    });
    answers.last().expect("an answer to the login")
}

#[test]
fn equal_digests_cost_nothing_and_different_ones_heal() {
    let mut world = World::new(4, 2);
    let mut alice = world.login(0, 1, 1, &[]);
    let bob = world.login(1, 2, 1, &[]);
    for text in [b"one", b"two", b"six"] {
        alice.send(&mut world, direct(1, 2), text);
        alice.send(&mut world, direct(1, 1), text);
    }
    assert_eq!(pushed(&world.take(&bob)), [1, 2, 3]);
    bob.ack(&mut world, direct(1, 2), 2);
    bob.ack(&mut world, direct(1, 2), 3);
    bob.ack(&mut world, direct(1, 2), 1);
    let list = [cursor(direct(1, 2), 3, 1)];
    for said in [digest(&list), UNSAID] {
        let (_, got) = beat(&mut world, &bob, said, 0);
        assert_eq!(got, [], "equal, or not said: nothing but the answer");
    }

    let lost = [cursor(direct(1, 2), 1, 1)];
    let (_, got) = beat(&mut world, &bob, digest(&lost), 0);
    assert_eq!((asked(&got), pushed(&got).len()), (1, 0));
    let (_, got) = beat(&mut world, &bob, digest(&lost), 0);
    assert_eq!(asked(&got), 0, "once, until it has said them");
    bob.say_cursors(&mut world, &lost);
    assert_eq!(pushed(&world.take(&bob)), [2, 3], "delivery goes on from the client's cursor");
    let (_, got) = beat(&mut world, &bob, digest(&lost), 0);
    assert_eq!(got, [], "both know the same again");
    bob.ack(&mut world, direct(1, 2), 3);
    let (_, got) = beat(&mut world, &bob, digest(&list), 0);
    assert_eq!(got, []);
    bob.say_cursors(&mut world, &lost);
    assert_eq!(closes(&world.take(&bob)), [Code::WrongState], "not unasked");
}

#[test]
fn a_channel_that_the_client_forgot_is_delivered_from_its_start_and_others_are_left_alone() {
    let mut world = World::new(1, 1);
    let mut alice = world.login(0, 1, 1, &[]);
    for _ in 0..3 {
        alice.send(&mut world, direct(1, 2), b"to bob");
        alice.send(&mut world, direct(1, 3), b"to ann");
    }
    drop(world.take(&alice));
    alice.ack(&mut world, direct(1, 2), 3);
    alice.ack(&mut world, direct(1, 3), 2);
    let (_, got) = beat(&mut world, &alice, 5, 0);
    assert_eq!(asked(&got), 1);
    alice.say_cursors(&mut world, &[cursor(direct(1, 3), 2, 1)]);
    assert_eq!(
        pushed(&world.take(&alice)),
        [1, 2, 3],
        "nothing of the other one, which is as known"
    );
}

#[test]
fn a_session_that_goes_on_need_not_say_its_cursors_again() {
    let mut world = World::new(4, 2);
    let mut alice = world.login(0, 1, 1, &[]);
    let bob = world.login(1, 2, 1, &[]);
    for text in [b"one", b"two"] {
        alice.send(&mut world, direct(1, 2), text);
    }
    drop(world.take(&bob));
    bob.ack(&mut world, direct(1, 2), 1);
    let list = [cursor(direct(1, 2), 1, 1)];
    let come_back = |world: &mut World, from: &Client, digest, ms| {
        world.input(from.worker, Input::LinkClosed(from.link));
        world.pass(ms);
        let mut again = world.connect(0);
        again.hello_with(world, digest, 0);
        again.resume(world, 2, 1, from);
        let known = logged_in(world, &again).known;
        (again, known)
    };
    let (bob, known) = come_back(&mut world, &bob, digest(&list), 1_000);
    assert_eq!((known, pushed(&world.take(&bob))), (1, vec![2]), "it goes on by itself");
    alice.send(&mut world, direct(1, 2), b"six");
    assert_eq!(pushed(&world.take(&bob)), [3]);
    let (_, got) = beat(&mut world, &bob, digest(&list), 0);
    assert_eq!(got, [], "what was kept is what it said");

    let (bob, known) = come_back(&mut world, &bob, digest(&[]), 1_000);
    assert_eq!((known, pushed(&world.take(&bob))), (1, vec![1, 2, 3]), "a device without any");
    let (bob, known) = come_back(&mut world, &bob, digest(&list), 1_000);
    assert_eq!((known, pushed(&world.take(&bob))), (0, vec![]), "another list: it says it");
    bob.say_cursors(&mut world, &list);
    assert_eq!(pushed(&world.take(&bob)), [2, 3]);
}

#[test]
fn cursors_are_kept_only_while_the_session_may_go_on() {
    let config = Config { resume_ms: 5_000, ..Config::default() };
    let mut world = World::over(MemoryReader::default(), 1, 1, config);
    let mut alice = world.login(0, 1, 1, &[]);
    alice.send(&mut world, direct(1, 1), b"one");
    alice.ack(&mut world, direct(1, 1), 1);
    let list = [cursor(direct(1, 1), 1, 1)];
    for (ms, expected) in [(5_000, 1), (5_001, 0)] {
        world.input(0, Input::LinkClosed(alice.link));
        world.pass(ms);
        let mut again = world.connect(0);
        again.hello_with(&mut world, digest(&list), 0);
        again.login(&mut world, 1, 1);
        assert_eq!(logged_in(&world, &again).known, expected, "after {ms} ms");
        alice = again;
    }
    alice.say_cursors(&mut world, &list);
    alice.say(&mut world, Kind::Close, Flags::NONE, &[0_u8; 8], b"");
    let mut again = world.connect(0);
    again.hello_with(&mut world, digest(&list), 0);
    again.login(&mut world, 1, 1);
    assert_eq!(logged_in(&world, &again).known, 0, "who logged out leaves nothing");
}

#[test]
fn the_server_bounds_the_interval_and_says_when_the_address_changed() {
    let mut world = World::new(1, 1);
    let mut alice = world.connect(0);
    alice.hello_with(&mut world, UNSAID, 28_000);
    alice.login(&mut world, 1, 1);
    assert_eq!(logged_in(&world, &alice).heartbeat_ms.get(), 28_000, "what worked before");
    alice.say_cursors(&mut world, &[]);
    for (wanted, told) in [(0, 30_000), (28_000, 28_000), (1_000, 5_000), (60_000, 30_000)] {
        let (pong, _) = beat(&mut world, &alice, UNSAID, wanted);
        assert_eq!((pong.heartbeat_ms.get(), pong.moved), (told, 0), "wanted {wanted}");
    }
    world.input(0, Input::Moved(alice.link));
    assert_eq!(beat(&mut world, &alice, UNSAID, 0).0.moved, 1);
    assert_eq!(beat(&mut world, &alice, UNSAID, 0).0.moved, 0, "told once");
    // Three of the intervals that it was told last, and not one more.
    drop(beat(&mut world, &alice, UNSAID, 10_000));
    world.pass(29_999);
    assert_eq!(closes(&world.take(&alice)), []);
    world.pass(1);
    assert_eq!(closes(&world.take(&alice)), [Code::Offline]);
}

/// Sends so many messages, in bursts that the rate allows.
fn send_many(world: &mut World, from: &mut Client, to: u64, count: u32) {
    for _ in 0..count {
        from.send(world, direct(1, to), b"news");
        world.pass(20);
    }
}

#[test]
fn who_does_not_ack_is_told_instead_of_pushed_to_and_others_are_not_held_up() {
    let mut world = World::new(2, 2);
    let mut alice = world.login(0, 1, 1, &[]);
    let bob = world.login(1, 2, 1, &[]);
    let ann = world.login(1, 3, 1, &[]);
    send_many(&mut world, &mut alice, 2, 100);
    assert_eq!(pushed(&world.take(&bob)).len(), 64, "the window");
    for silent in 1..=3 {
        let (_, got) = beat(&mut world, &bob, UNSAID, 0);
        let expected = if silent == 3 { vec![100] } else { vec![] };
        assert_eq!((news(&got), pushed(&got)), (expected, vec![]), "beat {silent}");
        drop(beat(&mut world, &ann, UNSAID, 0));
        drop(beat(&mut world, &alice, UNSAID, 0));
    }
    send_many(&mut world, &mut alice, 2, 10);
    send_many(&mut world, &mut alice, 3, 1);
    assert_eq!(pushed(&world.take(&bob)), [], "nothing is pushed");
    assert_eq!(pushed(&world.take(&ann)), [1], "to others it is");
    assert_eq!(news(&beat(&mut world, &bob, UNSAID, 0).1), [110], "it has grown");
    assert_eq!(news(&beat(&mut world, &bob, UNSAID, 0).1), [], "once each");

    bob.ack(&mut world, direct(1, 2), 64);
    assert_eq!(pushed(&world.take(&bob)), (65..=68).collect::<Vec<_>>(), "a small window at first");
    let mut upto = 68;
    let mut rounds = Vec::new();
    while upto < 110 {
        bob.ack(&mut world, direct(1, 2), upto);
        let got = pushed(&world.take(&bob));
        rounds.push(got.len());
        upto = *got.last().expect("more");
    }
    assert!(rounds.windows(2).take(2).all(|pair| pair[1] > pair[0]), "{rounds:?} grows");
}

#[test]
fn a_fetch_ends_the_silence_too_and_brings_what_was_asked_for() {
    let mut world = World::new(1, 1);
    let mut alice = world.login(0, 1, 1, &[]);
    let bob = world.login(0, 2, 1, &[]);
    send_many(&mut world, &mut alice, 2, 80);
    drop(world.take(&bob));
    for _ in 0..3 {
        drop(beat(&mut world, &bob, UNSAID, 0));
        drop(beat(&mut world, &alice, UNSAID, 0));
    }
    bob.fetch(&mut world, direct(1, 2), 1, 80);
    let got = pushed(&world.take(&bob));
    assert_eq!(got, (1..=got.len() as u64).collect::<Vec<_>>());
    assert!(!got.is_empty(), "it is pushed to again");
}

#[test]
fn a_device_that_acks_catches_up_with_a_growing_window() {
    let mut world = World::new(1, 1);
    let mut alice = world.login(0, 1, 1, &[]);
    send_many(&mut world, &mut alice, 2, 2_000);
    drop(world.take(&alice));
    let bob = world.login(0, 2, 1, &[]);
    let (mut upto, mut rounds) = (0, Vec::new());
    loop {
        let got = pushed(&world.take(&bob));
        let Some(last) = got.last() else { break };
        assert_eq!(got[0], upto + 1, "in order, without a hole");
        rounds.push(got.len());
        upto = *last;
        bob.ack(&mut world, direct(1, 2), upto);
    }
    println!("TEST D-10 small n=2000 got={upto} lost=0 rounds={rounds:?}");
    assert_eq!(upto, 2_000);
    assert_eq!(rounds[..4], [64, 128, 256, 512]);
}

/// The router's facts: who is here, where, since when, and the newest four logins of each device.
#[test]
fn an_operator_sees_where_a_device_is_and_its_newest_four_logins() {
    let mut world = World::new(4, 2);
    let mut begun = Vec::new();
    for login in 0..6 {
        world.pass(60_000);
        begun.push(world.now.wall);
        world.login(login % 2, 7, 1, &[]);
    }
    begun.reverse();
    let phone = world.login(0, 7, 2, &[]);
    let see = |world: &World| {
        let seen = world.workers.iter().map(|worker| worker.see_user(world.now, Uin(7)));
        let mut seen: Vec<_> = seen.filter(|seen| !seen.is_empty()).collect();
        assert_eq!(seen.len(), 1, "one home shard knows the user");
        seen.remove(0)
    };
    let session = |world: &World, sight: &DeviceSight| match sight.place {
        Place::Online(at) => {
            world.workers[usize::from(at.worker.0)].see_session(world.now, at.link)
        }
        Place::Away { .. } => None,
    };
    let seen = see(&world);
    assert_eq!(seen[0].logins, begun[..4], "the newest first");
    assert_eq!(seen[1].logins[1..], [UnixMillis(0); 3], "it logged in once");
    assert_eq!(seen.iter().map(|sight| sight.network).collect::<Vec<_>>(), [Network::Wifi; 2]);
    let networks = |world: &World| {
        let all = world.workers.iter().map(|worker| worker.networks());
        all.fold([0; Network::COUNT], |sum, one| std::array::from_fn(|at| sum[at] + one[at]))
    };
    assert_eq!(networks(&world), [0, 0, 2, 0], "the fenced ones count no more");

    world.pass(20_000);
    beat(&mut world, &phone, UNSAID, 0);
    world.pass(5_000);
    let heard = session(&world, &see(&world)[1]).expect("it is here");
    assert_eq!((heard.online_ms, heard.silent_ms, heard.beat_ms), (25_000, 5_000, 30_000));

    world.input(phone.worker, Input::LinkClosed(phone.link));
    let resume_ms = u64::from(Config::default().resume_ms);
    for (ms, resumable) in [(0, true), (resume_ms, true), (resume_ms + 1, false)] {
        let gone = see(&world)[1].place;
        world.pass(if ms == 0 { resume_ms } else { 1 });
        assert_eq!(gone, Place::Away { for_ms: Some(ms), resumable });
    }
    assert_eq!(networks(&world), [0; 4], "the other one missed three heartbeats");
}

/// The channels of what was pushed, each once, in the order in which they began.
fn channels(got: &[Got]) -> Vec<ChannelId> {
    let mut channels = Vec::new();
    for got in got {
        if let Got::Push { channel, .. } = got
            && !channels.contains(channel)
        {
            channels.push(*channel);
        }
    }
    channels
}

#[test]
fn who_comes_back_gets_the_channels_with_the_newest_messages_first() {
    /// More than a page of the user's channels.
    const PEERS: u64 = 150;
    let mut world = World::new(2, 2);
    world.users.extend(100..100 + PEERS);
    // In an order that is neither that of the channels nor its reverse.
    let order: Vec<u64> = (0..PEERS).map(|n| 100 + n * 37 % PEERS).collect();
    for peer in &order {
        let mut client = world.login(0, *peer, 1, &[]);
        client.send(&mut world, direct(1, *peer), b"first");
        client.send(&mut world, direct(1, *peer), b"second");
        world.pass(1_000);
    }
    let bob = world.login(1, 1, 1, &[]);
    let mut began = Vec::new();
    loop {
        let got = world.take(&bob);
        if pushed(&got).is_empty() {
            break;
        }
        for channel in channels(&got) {
            bob.ack(&mut world, channel, 2);
            began.push(channel);
        }
    }
    let expected: Vec<_> = order.iter().rev().map(|peer| direct(1, *peer)).collect();
    assert_eq!(began, expected);
    println!("TEST D-10 newest-first n={PEERS} out_of_turn=0");
}

#[test]
fn short_news_pass_a_backlog() {
    let mut world = World::new(1, 1);
    let mut alice = world.login(0, 1, 1, &[]);
    let mut carol = world.login(0, 3, 1, &[]);
    send_many(&mut world, &mut alice, 2, 500);
    drop(world.take(&alice));
    let mut carol_again = world.login(0, 4, 1, &[]);
    let bob = world.login(0, 2, 1, &[]);
    assert_eq!(pushed(&world.take(&bob)), (1..=64).collect::<Vec<_>>(), "the window is full");
    carol.send(&mut world, direct(2, 3), b"hello");
    carol_again.send(&mut world, direct(2, 4), b"hello");
    bob.ack(&mut world, direct(1, 2), 4);
    let got = world.take(&bob);
    assert_eq!(channels(&got), [direct(2, 4), direct(2, 3), direct(1, 2)], "the backlog is last");
}
