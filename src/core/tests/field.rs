//! What the counter, a group's diffusion and the router cost: in records of the log, in bytes a
//! member, in bytes a user.

mod common;

use std::collections::BTreeMap;

use common::groups::{Wish, group_of, ids, refusal};
use common::{Client, World, acks, direct};
use tern_core::Recovery;
use tern_core::config::Config;
use tern_core::log::{Offset, RecordKind};
use tern_core::memory::{MemoryReader, MemoryTable};
use tern_core::placement::{Placement, ShardId};
use tern_core::shard::state::{DeviceRow, EntryRow, StateKind};
use tern_protocol::frames::{action, settings};
use tern_protocol::limits::CHANGE_MEMBERS_MAX;
use tern_protocol::{ChannelId, Code, Uin};
use zerocopy::IntoBytes;

/// Shards of these worlds.
const SHARDS: u16 = 4;

/// Bytes that a user with one device may cost its home shard, which is where it is online and when
/// it logged in: a million of them fit 512 MiB.
const ROUTER_BYTES_MAX: u64 = 512;

/// Bytes that its first channel may cost on top: the list of channels grows by eleven at a time.
const CHANNEL_BYTES_MAX: u64 = 1_536;

/// Records of all logs by kind, with the bytes of their bodies.
fn records(reader: &MemoryReader) -> BTreeMap<String, (u64, usize)> {
    let mut all: BTreeMap<String, (u64, usize)> = BTreeMap::new();
    for shard in 0..SHARDS {
        reader.replay(ShardId(shard), |_, _, record| {
            let (count, bytes) = all.entry(format!("{:?}", record.kind)).or_default();
            *count += 1;
            *bytes += record.body.len();
        });
    }
    all
}

fn grown(
    before: &BTreeMap<String, (u64, usize)>,
    after: &BTreeMap<String, (u64, usize)>,
    kind: RecordKind,
) -> (u64, usize) {
    let of = |all: &BTreeMap<_, _>| all.get(&format!("{kind:?}")).copied().unwrap_or((0, 0));
    (of(after).0 - of(before).0, of(after).1 - of(before).1)
}

fn total(all: &BTreeMap<String, (u64, usize)>) -> u64 {
    all.values().map(|(count, _)| count).sum()
}

#[test]
fn ids_have_no_gap_over_restarts_and_the_counter_costs_no_record_of_its_own() {
    let (reader, lives, each) = (MemoryReader::default(), 4, 400);
    let (mut newest, mut extra) = (0, 0);
    for life in 1..=lives {
        let workers = (life % 3 + 1) as u16;
        let mut world = World::restarted(reader.clone(), SHARDS, workers, Config::default(), 1);
        let mut alice = world.login(0, 1, 1, &[]);
        alice.send(&mut world, direct(1, 2), b"opens it, the first time");
        newest += 1;
        let before = records(&reader);
        let mut got = acks(&world.take(&alice));
        for _ in 1..each {
            world.pass(20);
            alice.send(&mut world, direct(1, 2), b"counted");
            got.extend(acks(&world.take(&alice)));
        }
        let ids: Vec<u64> = got.iter().map(|(_, id)| *id).collect();
        assert_eq!(ids, (newest..newest + each).collect::<Vec<_>>(), "in life {life}");
        newest += each - 1;
        let after = records(&reader);
        assert_eq!(grown(&before, &after, RecordKind::Message).0, each - 1);
        extra += total(&after) - total(&before) - (each - 1);
    }
    println!("TEST counter n={newest} gaps=0 lives={lives} records_for_counting={extra}");
    assert_eq!(extra, 0, "the log of the messages is the counter's own");
}

/// A group of as many members as it may have, of whom one in a hundred is here.
fn full_group(world: &mut World, members: u64) -> (Client, ChannelId, Vec<Client>) {
    world.users.extend(1..=members + 1);
    let here: Vec<Client> =
        (2..=members).step_by(100).map(|uin| world.login(uin as usize % 2, uin, 1, &[])).collect();
    let mut owner = world.login(0, 1, 1, &[]);
    let all: Vec<u64> = (2..=members).collect();
    let (first, rest) = all.split_at(CHANGE_MEMBERS_MAX);
    let group = group_of(1, 1, owner.epoch, owner.counter + 1);
    owner.change(world, group, &Wish::create(settings::OPEN, first));
    for some in rest.chunks(CHANGE_MEMBERS_MAX) {
        world.pass(1_000);
        owner.change(world, group, &Wish::of(action::ADD, some));
        assert_eq!(refusal(&world.take(&owner)), None);
    }
    (owner, group, here)
}

#[test]
fn a_message_to_ten_thousand_members_is_stored_once_and_no_one_more_is_taken() {
    const MEMBERS: u64 = 10_000;
    const MESSAGES: u64 = 20;
    let content = [7; 1_000];
    let reader = MemoryReader::default();
    let config = Config { group_members_max: MEMBERS as usize, ..Config::default() };
    let mut world = World::over(reader.clone(), SHARDS, 2, config);
    let (mut owner, group, here) = full_group(&mut world, MEMBERS);
    owner.change(&mut world, group, &Wish::of(action::ADD, &[MEMBERS + 1]));
    assert_eq!(refusal(&world.take(&owner)), Some((Code::GroupFull, 0)));

    for client in &here {
        // All changes, a window at a time.
        while let Some(newest) = ids(&world.take(client), group).last() {
            client.ack(&mut world, group, *newest);
        }
    }
    let before = records(&reader);
    for _ in 0..MESSAGES {
        owner.send(&mut world, group, &content);
        world.pass(20);
    }
    let after = records(&reader);
    let (count, bytes) = grown(&before, &after, RecordKind::Message);
    let told =
        here.iter().filter(|client| ids(&world.take(client), group).len() as u64 >= MESSAGES);
    let told = told.count();
    let index = size_of::<EntryRow>();
    println!(
        "TEST diffusion members={MEMBERS} here={} n={MESSAGES} records={count} body_bytes={bytes} \
         index_bytes_a_member={index} told={told}",
        here.len()
    );
    assert_eq!((count, total(&after) - total(&before)), (MESSAGES, MESSAGES), "one write each");
    assert!(bytes < MESSAGES as usize * (content.len() + 128), "the body stands there once");
    assert_eq!(told, here.len(), "and who is here has all of them");
    assert!(index <= 32, "what a member costs on disk, whatever is said");
}

/// Bytes of this process that are in memory.
fn resident() -> u64 {
    const PAGE_BYTES: u64 = 4_096; // on all machines that this test is run on; larger ones measure less
    let text = std::fs::read_to_string("/proc/self/statm").expect("Linux tells it");
    text.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).expect("a number")
        * PAGE_BYTES
}

#[test]
fn a_million_users_fit_a_stated_number_of_bytes() {
    let users: u64 = 250_000; // maps are as full as with four times as many
    let before = resident();
    let (placement, table) = (Placement::new(1, 1), MemoryTable::default());
    let mut state = Recovery::new(ShardId(0), placement, table, Offset::NONE);
    let mut put = |kind, row: &[u8]| {
        state.restore(Offset(1 << 40), kind, row).expect("it is a row of this kind");
    };
    for user in 1..=users {
        let logins = [1.into(), 2.into(), 3.into(), 4.into()];
        let device = DeviceRow { uin: user.into(), device: 1.into(), epoch: 4.into(), logins };
        put(StateKind::Device, device.as_bytes());
    }
    let routed = resident();
    for user in 1..=users {
        let channel = ChannelId::direct(Uin(user), Uin(user + 1));
        put(StateKind::Entry, EntryRow { uin: user.into(), channel }.as_bytes());
    }
    let router = routed.saturating_sub(before) / users;
    let channel = resident().saturating_sub(routed) / users;
    println!("TEST router users={users} bytes_a_user={router} first_channel_bytes={channel}");
    assert!(router > 0 && router <= ROUTER_BYTES_MAX, "{router} bytes a user");
    assert!(channel <= CHANNEL_BYTES_MAX, "{channel} bytes for a user's first channel");
    drop(state);
}

/// Pushes of one turn of the only worker; and whether there is more to do at once.
fn turn(world: &mut World) -> (usize, bool) {
    world.step(0);
    world.step(1);
    let pushes = world.orders.values().map(Vec::len).sum();
    world.orders.clear();
    let more = world.workers[0].poll_timeout().is_some_and(|(at, _)| at <= world.now.mono);
    (pushes, more)
}

#[test]
fn members_of_a_large_group_are_told_a_few_a_turn_and_hold_up_nobody() {
    const MEMBERS: u64 = 300;
    const TURN_MAX: usize = 32 + 2; // and a message of two others, which is not the group's
    let mut world = World::new(SHARDS, 1);
    world.users.extend(1..=MEMBERS + 2);
    let mut login = |uin| {
        world.pass(10); // more at once wait for each other
        world.login(0, uin, 1, &[])
    };
    let here: Vec<Client> = (2..=MEMBERS).map(&mut login).collect();
    let [mut owner, mut ann, bob] = [1, MEMBERS + 1, MEMBERS + 2].map(login);
    let pair = direct(MEMBERS + 1, MEMBERS + 2);
    ann.send(&mut world, pair, b"opens it");
    let all: Vec<u64> = (2..=MEMBERS).collect();
    let group = group_of(1, 1, owner.epoch, owner.counter + 1);
    let (first, rest) = all.split_at(CHANGE_MEMBERS_MAX);
    owner.change(&mut world, group, &Wish::create(settings::OPEN, first));
    for some in rest.chunks(CHANGE_MEMBERS_MAX) {
        owner.change(&mut world, group, &Wish::of(action::ADD, some));
    }
    here.iter().chain([&owner, &ann, &bob]).for_each(|client| _ = world.take(client));
    world.orders.clear();

    world.by_steps = true;
    owner.send(&mut world, group, b"to all");
    let (mut turns, mut pushes, mut answered) = (0, 0, None);
    loop {
        let (some, more) = turn(&mut world);
        assert!(some <= TURN_MAX, "{some} in one turn");
        (turns, pushes) = (turns + 1, pushes + some);
        if turns == 3 {
            ann.send(&mut world, pair, b"meanwhile");
        }
        if turns >= 3 && !acks(&world.take(&ann)).is_empty() {
            answered.get_or_insert(turns);
        }
        if !more {
            break;
        }
    }
    let answered = answered.expect("an ack");
    println!("TEST S-15 fan-out n={pushes} turns={turns} answered_in={answered}");
    assert!(answered <= 5, "the pair was served in turn {answered} of {turns}");
    assert!(turns as u64 >= MEMBERS / 32);
    assert_eq!(pushes as u64, MEMBERS + 2, "each member once, the owner too, and the pair");
    assert!(here.iter().all(|client| ids(&world.take(client), group).len() == 1));
}
