//! Which pushes may overtake others, and that only the ack of a device proves that they came.

mod common;

use common::groups::{Wish, gaps, ids};
use common::{Client, World, cursor, digest, direct};
use tern_core::config::Config;
use tern_core::io::Input;
use tern_core::io::Order::{self, Free, Kept};
use tern_core::memory::MemoryReader;
use tern_protocol::frames::{Ping, action, capabilities};
use tern_protocol::{Flags, Kind};

/// A world, alice and bob in it; both sides offer datagrams as told.
fn world(server: bool, clients: u64) -> (World, Client, Client) {
    let config = Config { datagrams: server, ..Config::default() };
    let mut world = World::over(MemoryReader::default(), 2, 1, config);
    world.capabilities = clients;
    let (alice, bob) = (world.login(0, 1, 1, &[]), world.login(0, 2, 1, &[]));
    (world, alice, bob)
}

fn orders(world: &mut World, client: &Client) -> Vec<Order> {
    world.orders.remove(&client.link).unwrap_or_default()
}

fn beat(world: &mut World, client: &Client) {
    let ping = Ping {
        sequence: 1.into(),
        network: 1,
        reserved: [0; 3],
        digest: 0.into(),
        heartbeat_ms: 0.into(),
        reserved_end: 0.into(),
    };
    client.say(world, Kind::Ping, Flags::NONE, &ping, b"");
}

#[test]
fn only_what_both_sides_offer_is_free() {
    for (server, clients) in [(false, capabilities::DATAGRAMS), (true, 0)] {
        let (mut world, mut alice, bob) = world(server, clients);
        for id in 1..=3 {
            alice.send(&mut world, direct(1, 2), b"hi");
            bob.ack(&mut world, direct(1, 2), id);
        }
        assert_eq!(orders(&mut world, &bob), [Kept, Kept, Kept]);
    }
}

#[test]
fn no_push_overtakes_the_first_word_of_a_history() {
    let (mut world, mut alice, bob) = world(true, capabilities::DATAGRAMS);
    alice.send(&mut world, direct(1, 2), b"first");
    alice.send(&mut world, direct(1, 2), b"second");
    assert_eq!(orders(&mut world, &bob), [Kept, Kept], "behind a CHANNEL that may not have come");
    bob.ack(&mut world, direct(1, 2), 2);
    alice.send(&mut world, direct(1, 2), b"third");
    assert_eq!(orders(&mut world, &bob), [Free]);

    // A device that names the incarnation in its cursor knows it.
    let tablet = world.login(0, 2, 2, &[cursor(direct(1, 2), 3, 1)]);
    alice.send(&mut world, direct(1, 2), b"fourth");
    assert_eq!(orders(&mut world, &tablet), [Free]);
}

#[test]
fn no_push_overtakes_the_answer_to_a_login() {
    let (mut world, mut alice, bob) = world(true, capabilities::DATAGRAMS);
    alice.send(&mut world, direct(1, 2), b"first");
    bob.ack(&mut world, direct(1, 2), 1);
    alice.send(&mut world, direct(1, 2), b"missed");
    world.input(bob.worker, Input::LinkClosed(bob.link));
    world.pass(1_000);
    let mut again = world.connect(0);
    again.hello_with(&mut world, digest(&[cursor(direct(1, 2), 1, 1)]), 0);
    again.resume(&mut world, 2, 1, &bob);
    assert_eq!(orders(&mut world, &again), [Kept], "its cursors are known, and nothing is heard");
    beat(&mut world, &again);
    alice.send(&mut world, direct(1, 2), b"third");
    assert_eq!(orders(&mut world, &again), [Free]);
}

#[test]
fn a_backlog_and_what_was_asked_for_keep_their_order() {
    let (mut world, mut alice, bob) = world(true, capabilities::DATAGRAMS);
    for _ in 0..9 {
        alice.send(&mut world, direct(1, 2), b"hi");
    }
    let tablet = world.login(0, 2, 2, &[cursor(direct(1, 2), 0, 1)]);
    assert_eq!(orders(&mut world, &tablet), [Kept; 9]);
    bob.ack(&mut world, direct(1, 2), 9);
    orders(&mut world, &bob);
    bob.fetch(&mut world, direct(1, 2), 8, 9);
    assert_eq!(orders(&mut world, &bob), [Kept, Kept]);
    alice.send(&mut world, direct(1, 2), b"new");
    assert_eq!(orders(&mut world, &bob), [Free]);
}

#[test]
fn what_was_free_and_is_never_acked_is_pushed_once_more() {
    let (mut world, mut alice, bob) = world(true, capabilities::DATAGRAMS);
    alice.send(&mut world, direct(1, 2), b"one");
    bob.ack(&mut world, direct(1, 2), 1);
    alice.send(&mut world, direct(1, 2), b"two");
    orders(&mut world, &bob);
    world.take(&bob);
    beat(&mut world, &bob);
    assert_eq!(world.pushes(&bob), [], "it may still be under way");
    beat(&mut world, &bob);
    assert_eq!(world.pushes(&bob), [(2, b"two".to_vec())]);
    assert_eq!(orders(&mut world, &bob), [Kept]);
    beat(&mut world, &bob);
    beat(&mut world, &bob);
    assert_eq!(world.pushes(&bob), [], "the stream brings it");
    bob.ack(&mut world, direct(1, 2), 2);
    alice.send(&mut world, direct(1, 2), b"three");
    bob.ack(&mut world, direct(1, 2), 3);
    (0..4).for_each(|_| beat(&mut world, &bob));
    assert_eq!(world.pushes(&bob), [(3, b"three".to_vec())], "acked: no need");
}

#[test]
fn what_is_pushed_once_more_keeps_its_room_in_the_window() {
    let config =
        Config { datagrams: true, window_messages: 2, window_messages_max: 2, ..Config::default() };
    let mut world = World::over(MemoryReader::default(), 2, 1, config);
    world.capabilities = capabilities::DATAGRAMS;
    let [mut alice, bob, mut carol] = [1, 2, 3].map(|uin| world.login(0, uin, 1, &[]));
    alice.send(&mut world, direct(1, 2), b"one");
    bob.ack(&mut world, direct(1, 2), 1);
    alice.send(&mut world, direct(1, 2), b"two");
    for text in [b"a", b"b", b"c"] {
        carol.send(&mut world, direct(2, 3), text);
    }
    let pushed = [(1, b"one".to_vec()), (2, b"two".to_vec()), (1, b"a".to_vec())];
    assert_eq!(world.pushes(&bob), pushed, "the window is full");
    (0..2).for_each(|_| beat(&mut world, &bob));
    assert_eq!(world.pushes(&bob), [(2, b"two".to_vec())], "and not what waits for room");
    bob.ack(&mut world, direct(1, 2), 2);
    assert_eq!(world.pushes(&bob), [(2, b"b".to_vec())]);
}

/// Who was thrown out and came back may not read what was said meanwhile, also where what he was
/// pushed before is pushed once more.
#[test]
fn what_is_pushed_once_more_is_for_who_may_read_it_now() {
    let (mut world, mut alice, bob) = world(true, capabilities::DATAGRAMS);
    let channel = alice.create(&mut world, 1, 0, &[2]);
    bob.ack(&mut world, channel, 1);
    alice.send(&mut world, channel, b"free, and lost");
    alice.change(&mut world, channel, &Wish::of(action::KICK, &[2]));
    alice.send(&mut world, channel, b"not for bob");
    alice.change(&mut world, channel, &Wish::of(action::ADD, &[2]));
    let got = world.take(&bob);
    assert_eq!((ids(&got, channel), gaps(&got, channel).len()), (vec![1, 2, 3, 5], 1));
    beat(&mut world, &bob);
    beat(&mut world, &bob);
    assert_eq!(ids(&world.take(&bob), channel), [5], "once more, as far as it is his");
}
