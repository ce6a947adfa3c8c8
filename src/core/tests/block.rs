//! Blocks, one by one: what they stop and what not, who is told what, and that they stay.

mod common;

use common::groups::ids;
use common::recalls::{Saying, block_answers, block_pages};
use common::{Client, World, acks, direct, errors, refusals};
use tern_core::config::Config;
use tern_core::memory::MemoryReader;
use tern_protocol::limits::BLOCK_PAGE_UINS_MAX;
use tern_protocol::{ChannelId, Code};

/// The code of a block that is done.
const DONE: Code = Code(0);

fn people(world: &mut World) -> [Client; 3] {
    [1, 2, 3].map(|uin| world.login(0, uin, 1, &[]))
}

fn block(world: &mut World, client: &Client, uin: u64, begins: bool) -> Code {
    world.take(client);
    client.block(world, uin, begins);
    let answers = block_answers(&world.take(client));
    let [(whom, what, code)] = answers[..] else { panic!("one answer: {answers:?}") };
    assert_eq!((whom, what), (uin, begins));
    code
}

/// Sends, and tells the code of the refusal; none if it was acked.
fn send(world: &mut World, client: &mut Client, channel: ChannelId) -> Option<Code> {
    world.take(client);
    let counter = client.send(world, channel, b"hello");
    let got = world.take(client);
    let code = refusals(&got).first().map(|(_, code)| *code);
    assert_ne!(acks(&got).iter().any(|(acked, _)| *acked == counter), code.is_some());
    code
}

#[test]
fn a_block_holds_from_the_next_message_on_in_one_direction_until_it_ends() {
    let mut world = World::new(3, 2);
    let [mut ann, mut bob, mut cat] = people(&mut world);
    let channel = direct(1, 2);
    assert_eq!(send(&mut world, &mut ann, channel), None);
    assert_eq!(block(&mut world, &bob, 1, true), DONE);
    assert_eq!(send(&mut world, &mut ann, channel), Some(Code::NoSuchUser));
    let edit = ann.refer(&mut world, channel, &Saying::edit(1, b"x"));
    assert_eq!(refusals(&world.take(&ann)), [(edit, Code::NoSuchUser)]);
    let recall = ann.refer(&mut world, channel, &Saying::recall(1));
    assert_eq!(acks(&world.take(&ann)), [(recall, 2)], "it only takes away");
    assert_eq!(send(&mut world, &mut bob, channel), None, "the other direction is open");
    assert_eq!(send(&mut world, &mut cat, direct(2, 3)), None, "others are not affected");
    assert_eq!(block(&mut world, &bob, 1, true), DONE, "asked again it is so already");
    assert_eq!(block(&mut world, &bob, 1, false), DONE);
    assert_eq!(send(&mut world, &mut ann, channel), None);
    let tablet = world.login(1, 1, 2, &[]);
    assert_eq!(ids(&world.take(&tablet), channel), [2, 3, 4], "the first was recalled");
}

#[test]
fn a_blocked_stranger_opens_no_channel_and_hears_what_is_said_of_nobody() {
    let mut world = World::new(3, 1);
    let [mut ann, bob, _] = people(&mut world);
    assert_eq!(block(&mut world, &bob, 1, true), DONE);
    assert_eq!(send(&mut world, &mut ann, direct(1, 777)), Some(Code::NoSuchUser));
    assert_eq!(send(&mut world, &mut ann, direct(1, 2)), Some(Code::NoSuchUser));
    let opened: usize = world.workers[0].shards().iter().map(|shard| shard.channels()).sum();
    assert_eq!(opened, 0);
    assert_eq!(block(&mut world, &bob, 1, false), DONE);
    assert_eq!(send(&mut world, &mut ann, direct(1, 2)), None);
}

#[test]
fn a_group_and_a_retry_are_not_affected() {
    let mut world = World::new(3, 1);
    let [mut ann, bob, _] = people(&mut world);
    let crew = ann.create(&mut world, 1, 0, &[2]);
    let counter = ann.send(&mut world, direct(1, 2), b"before");
    assert_eq!(block(&mut world, &bob, 1, true), DONE);
    assert_eq!(send(&mut world, &mut ann, crew), None);
    ann.send_as(&mut world, direct(1, 2), ann.epoch, counter, 0, b"before");
    assert_eq!(acks(&world.take(&ann)), [(counter, 1)], "what was acked keeps its answer");
    let tablet = world.login(0, 2, 2, &[]);
    assert_eq!(ids(&world.take(&tablet), direct(1, 2)), [1], "and is delivered");
}

#[test]
fn a_block_is_durable_before_it_is_answered_and_outlives_the_server() {
    let reader = MemoryReader::default();
    let mut world = World::over(reader.clone(), 2, 1, Config::default());
    let [mut ann, bob, _] = people(&mut world);
    assert_eq!(send(&mut world, &mut ann, direct(1, 2)), None);
    assert_eq!(block(&mut world, &bob, 3, true), DONE);
    world.hold_commits();
    bob.block(&mut world, 1, true);
    assert!(block_answers(&world.take(&bob)).is_empty(), "not before it is durable");
    let counter = ann.send(&mut world, direct(1, 2), b"x");
    let got = world.take(&ann);
    assert!(refusals(&got).is_empty() && acks(&got).is_empty(), "nor who is refused by it");
    world.release_commits();
    assert_eq!(block_answers(&world.take(&bob)), [(1, true, DONE)]);
    assert_eq!(refusals(&world.take(&ann)), [(counter, Code::NoSuchUser)]);
    world.hold_commits();
    bob.block(&mut world, 1, false);
    reader.cut_power();

    let mut world = World::over(reader, 2, 1, Config::default());
    let [mut ann, bob, mut cat] = people(&mut world);
    assert_eq!(send(&mut world, &mut ann, direct(1, 2)), Some(Code::NoSuchUser));
    assert_eq!(send(&mut world, &mut cat, direct(2, 3)), Some(Code::NoSuchUser));
    world.take(&bob);
    bob.ask_blocked(&mut world, 0);
    assert_eq!(block_pages(&world.take(&bob)), [(vec![1, 3], true)]);
}

#[test]
fn the_list_comes_from_all_shards_in_pages_and_is_the_users_own() {
    let config = Config { asks_burst: 10_000, ..Config::default() };
    let mut world = World::over(MemoryReader::default(), 5, 2, config);
    let [ann, bob, _] = people(&mut world);
    let count = BLOCK_PAGE_UINS_MAX as u64 * 2 + 100;
    for uin in 1_000..1_000 + count {
        assert_eq!(block(&mut world, &bob, uin, true), DONE);
    }
    assert_eq!(block(&mut world, &ann, 1_500, true), DONE);
    let (mut after, mut all, mut pages) = (0, Vec::new(), 0);
    loop {
        bob.ask_blocked(&mut world, after);
        let got = block_pages(&world.take(&bob));
        let [(uins, is_last)] = &got[..] else { panic!("one page: {got:?}") };
        all.extend_from_slice(uins);
        (after, pages) = (all[all.len() - 1], pages + 1);
        if *is_last {
            break;
        }
    }
    assert_eq!((all, pages), ((1_000..1_000 + count).collect(), 3));
}

#[test]
fn what_can_not_be_is_refused_with_its_code() {
    let config = Config { blocks_per_user: 2, ..Config::default() };
    let mut world = World::over(MemoryReader::default(), 1, 1, config);
    let [ann, ..] = people(&mut world);
    assert_eq!(block(&mut world, &ann, 1, true), Code::BlockInvalid, "oneself");
    assert_eq!(block(&mut world, &ann, 0, true), Code::BlockInvalid);
    assert_eq!(block(&mut world, &ann, 2, false), DONE, "it is so already");
    assert_eq!([2, 3].map(|uin| block(&mut world, &ann, uin, true)), [DONE; 2]);
    assert_eq!(block(&mut world, &ann, 4, true), Code::BlocksFull);
    assert_eq!(block(&mut world, &ann, 3, true), DONE, "it is so already");
    world.hold_commits();
    ann.block(&mut world, 3, false);
    ann.block(&mut world, 4, true);
    assert_eq!(block_answers(&world.take(&ann)), [(4, true, Code::Busy)], "one at a time");
    ann.ask_blocked(&mut world, 0);
    assert_eq!(errors(&world.take(&ann)), [Code::Busy]);
    world.release_commits();
    assert_eq!(block_answers(&world.take(&ann)), [(3, false, DONE)]);
    assert_eq!(block(&mut world, &ann, 4, true), DONE);
}
