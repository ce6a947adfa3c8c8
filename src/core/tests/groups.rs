//! Groups, one thing at a time: who may change what, who may post, who reads what from where to
//! where, and that all of it outlives a restart.

mod common;

use common::groups::{Wish, gaps, group_of, ids, pages, refusal};
use common::{Client, World, acks, direct, errors, refusals};
use tern_core::config::Config;
use tern_core::log::{Offset, RecordKind};
use tern_core::mail::Mail;
use tern_core::memory::MemoryReader;
use tern_core::placement::ShardId;
use tern_protocol::frames::{action, role, settings};
use tern_protocol::limits::GROUP_PAGE_MEMBERS_MAX;
use tern_protocol::{ChannelId, Code};

/// Users 1 to 4 with a device each, on workers in turn.
fn four(world: &mut World) -> [Client; 4] {
    let workers = world.workers.len();
    [1, 2, 3, 4].map(|uin| world.login(uin as usize % workers, uin, 1, &[]))
}

/// What the change or message that was said last came to: its id, or the refusal.
fn outcome(world: &mut World, client: &Client) -> Result<u64, (Code, u16)> {
    let got = world.take(client);
    match (acks(&got).last(), refusal(&got)) {
        (Some((counter, id)), None) if *counter == client.counter => Ok(*id),
        (_, Some(refused)) => Err(refused),
        (ack, None) => panic!("no answer to {}, but {ack:?}", client.counter),
    }
}

fn change(
    world: &mut World,
    client: &mut Client,
    channel: ChannelId,
    wish: &Wish,
) -> Result<u64, (Code, u16)> {
    world.take(client);
    client.change(world, channel, wish);
    outcome(world, client)
}

fn post(world: &mut World, client: &mut Client, channel: ChannelId) -> Result<u64, (Code, u16)> {
    world.take(client);
    client.send(world, channel, b"hello");
    outcome(world, client)
}

#[test]
fn a_group_is_made_and_everybody_hears_of_it_and_of_what_is_said() {
    let mut world = World::new(4, 2);
    let mut users = four(&mut world);
    let channel = users[0].create(&mut world, 1, 0, &[2, 3]);
    assert_eq!(acks(&world.take(&users[0])), [(1, 1)]);
    assert_eq!(ids(&world.take(&users[1]), channel), [1]);
    assert_eq!(post(&mut world, &mut users[1], channel), Ok(2));
    for (user, expected) in [(3, vec![1, 2]), (4, vec![])] {
        let got = world.take(&users[user - 1]);
        assert_eq!((ids(&got, channel), gaps(&got, channel)), (expected, vec![]), "user {user}");
    }
    assert_eq!(post(&mut world, &mut users[3], channel), Err((Code::NotAMember, 0)));
}

#[test]
fn a_copy_of_a_refused_message_is_refused_alike_after_a_later_login() {
    let mut world = World::new(1, 1);
    let mut users = four(&mut world);
    let channel = users[0].create(&mut world, 1, 0, &[2, 3]);
    assert_eq!(post(&mut world, &mut users[3], channel), Err((Code::NotAMember, 0)));
    let (epoch, counter) = (users[3].epoch, users[3].counter);
    let mut again = world.login(0, 4, 1, &[]);
    again.send(&mut world, direct(1, 4), b"closes the older epoch");
    world.take(&again);
    again.send_as(&mut world, channel, epoch, counter, 0, b"hello");
    assert_eq!(refusals(&world.take(&again)), [(counter, Code::NotAMember)]);
}

#[test]
fn a_repeated_creation_makes_no_second_group() {
    let mut world = World::new(4, 2);
    let mut users = four(&mut world);
    let channel = users[0].create(&mut world, 1, 0, &[2]);
    let wish = Wish::create(0, &[2]);
    world.take(&users[0]);
    users[0].change_as(&mut world, channel, (users[0].epoch, 1, 0), &wish);
    assert_eq!(acks(&world.take(&users[0])), [(1, 1)], "the same answer");
    let other = Wish::create(settings::OPEN, &[2]);
    users[0].change_as(&mut world, channel, (users[0].epoch, 1, 0), &other);
    assert_eq!(refusal(&world.take(&users[0])), Some((Code::KeyConflict, 0)));

    // The id is that of the key, and no other.
    let elsewhere = group_of(1, 1, users[0].epoch, 99);
    let answer = change(&mut world, &mut users[0], elsewhere, &wish);
    assert_eq!(answer, Err((Code::ChangeInvalid, 0)));
    let answer = change(&mut world, &mut users[1], elsewhere, &Wish::of(action::ADD, &[3]));
    assert_eq!(answer, Err((Code::NotAMember, 0)), "there is no such group");
}

#[test]
fn a_newcomer_who_does_not_exist_is_named_and_nothing_happens() {
    let mut world = World::new(4, 2);
    let mut users = four(&mut world);
    let channel = group_of(1, 1, users[0].epoch, 1);
    let wish = Wish::create(0, &[2, 3, 777]);
    assert_eq!(change(&mut world, &mut users[0], channel, &wish), Err((Code::NoSuchUser, 3)));
    assert_eq!(ids(&world.take(&users[1]), channel), []);
    let channel = users[0].create(&mut world, 1, 0, &[2]);
    let wish = Wish::of(action::ADD, &[3, 778, 779]);
    let (code, _) = change(&mut world, &mut users[0], channel, &wish).unwrap_err();
    assert_eq!(code, Code::NoSuchUser);
    assert_eq!(post(&mut world, &mut users[2], channel), Err((Code::NotAMember, 0)));
    let add = Wish::of(action::ADD, &[3]);
    assert_eq!(change(&mut world, &mut users[0], channel, &add), Ok(2), "no id was spent");
}

#[test]
fn roles_say_who_may_do_what() {
    let mut world = World::new(4, 2);
    let mut users = four(&mut world);
    let channel = users[0].create(&mut world, 1, 0, &[2, 3]);
    let wish = Wish::of;
    let admin = |members: &[u64]| Wish { role: role::ADMIN, ..wish(action::ROLE, members) };
    let rename = |name: &[u8]| Wish { name: name.to_vec(), ..Wish::plain(action::RENAME) };
    let not_allowed = Err((Code::NotAllowed, 0));
    let mut says =
        |user: usize, wish: Wish| change(&mut world, &mut users[user - 1], channel, &wish);

    // A member may do nothing but leave.
    for refused in [
        wish(action::ADD, &[4]),
        wish(action::KICK, &[3]),
        wish(action::MUTE, &[3]),
        admin(&[2]),
        rename(b"mine"),
        Wish { settings: settings::OPEN, ..Wish::plain(action::SETTINGS) },
        Wish::plain(action::DISSOLVE),
    ] {
        assert_eq!(says(2, refused.clone()), not_allowed, "{refused:?}");
    }
    // Who is none learns nothing.
    assert_eq!(says(4, Wish::plain(action::LEAVE)), Err((Code::NotAMember, 0)));
    assert_eq!(says(4, Wish::plain(action::JOIN)), Err((Code::NotAMember, 0)), "not open");

    assert_eq!(says(1, admin(&[2])), Ok(2));
    assert_eq!(says(1, admin(&[2])), Err((Code::ChangesNothing, 0)));
    assert_eq!(says(1, admin(&[4])), Err((Code::NoSuchMember, 1)));
    assert_eq!(says(2, rename(b"gulls")), Ok(3));
    assert_eq!(says(2, rename(b"gulls")), Err((Code::ChangesNothing, 0)));
    assert_eq!(says(2, wish(action::ADD, &[4])), Ok(4));
    assert_eq!(says(2, wish(action::ADD, &[3, 4])), Err((Code::ChangesNothing, 0)));
    assert_eq!(says(2, wish(action::KICK, &[1])), Err((Code::NotAllowed, 1)), "the owner");
    assert_eq!(says(2, wish(action::KICK, &[4])), Ok(5));
    assert_eq!(says(2, wish(action::KICK, &[4])), Err((Code::ChangesNothing, 0)));
    assert_eq!(says(2, admin(&[3])), not_allowed, "the owner alone gives roles");
    assert_eq!(says(1, Wish::plain(action::LEAVE)), Err((Code::OwnerStays, 0)));

    // The group is handed over; the old owner is an admin.
    let owner = Wish { role: role::OWNER, ..wish(action::ROLE, &[3]) };
    assert_eq!(says(1, owner), Ok(6));
    assert_eq!(says(1, Wish::plain(action::DISSOLVE)), not_allowed);
    assert_eq!(says(1, wish(action::KICK, &[2])), Err((Code::NotAllowed, 1)), "an equal");
    assert_eq!(says(3, wish(action::KICK, &[2])), Ok(7));
    assert_eq!(says(1, Wish::plain(action::LEAVE)), Ok(8));
    assert_eq!(says(3, Wish::plain(action::DISSOLVE)), Ok(9));
    assert_eq!(says(3, Wish::plain(action::DISSOLVE)), Err((Code::GroupDissolved, 0)));
    assert_eq!(says(3, wish(action::ADD, &[1])), Err((Code::GroupDissolved, 0)));
    assert_eq!(says(1, Wish::plain(action::JOIN)), Err((Code::NotAMember, 0)), "he had left");
}

#[test]
fn settings_say_who_adds_who_posts_and_who_joins() {
    let mut world = World::new(4, 2);
    let mut users = four(&mut world);
    let channel = users[0].create(&mut world, 1, settings::MEMBERS_ADD, &[2]);
    let add = Wish::of(action::ADD, &[3]);
    assert_eq!(change(&mut world, &mut users[1], channel, &add), Ok(2));
    let set = |bits| Wish { settings: bits, ..Wish::plain(action::SETTINGS) };
    let quiet = set(settings::ADMINS_POST | settings::OPEN);
    assert_eq!(change(&mut world, &mut users[0], channel, &quiet), Ok(3));
    assert_eq!(post(&mut world, &mut users[2], channel), Err((Code::NotAllowed, 0)));
    assert_eq!(post(&mut world, &mut users[0], channel), Ok(4));
    let join = Wish::plain(action::JOIN);
    assert_eq!(change(&mut world, &mut users[3], channel, &join), Ok(5));
    assert_eq!(change(&mut world, &mut users[3], channel, &join), Err((Code::ChangesNothing, 0)));
    assert_eq!(change(&mut world, &mut users[0], channel, &set(0)), Ok(6));
    assert_eq!(post(&mut world, &mut users[3], channel), Ok(7));
}

#[test]
fn who_is_muted_posts_again_when_the_time_has_come_and_leaving_does_not_help() {
    let mut world = World::new(4, 2);
    let mut users = four(&mut world);
    let channel = users[0].create(&mut world, 1, settings::OPEN, &[2]);
    let until = world.now.wall.0 + 60_000;
    let mute = |until| Wish { until, ..Wish::of(action::MUTE, &[2]) };
    assert_eq!(change(&mut world, &mut users[0], channel, &mute(until)), Ok(2));
    assert_eq!(post(&mut world, &mut users[1], channel), Err((Code::Muted, 0)));
    let plain = Wish::plain;
    assert_eq!(change(&mut world, &mut users[1], channel, &plain(action::LEAVE)), Ok(3));
    assert_eq!(change(&mut world, &mut users[1], channel, &plain(action::JOIN)), Ok(4));
    assert_eq!(post(&mut world, &mut users[1], channel), Err((Code::Muted, 0)));
    assert_eq!(change(&mut world, &mut users[0], channel, &mute(0)), Ok(5));
    assert_eq!(post(&mut world, &mut users[1], channel), Ok(6));
    assert_eq!(change(&mut world, &mut users[0], channel, &mute(until)), Ok(7));
    world.now.wall.0 = until;
    assert_eq!(post(&mut world, &mut users[1], channel), Ok(8), "the time has come");
}

#[test]
fn who_was_kicked_hears_that_and_nothing_more_on_any_device() {
    let mut world = World::new(4, 2);
    let mut users = four(&mut world);
    let second = world.login(1, 3, 2, &[]);
    let channel = users[0].create(&mut world, 1, 0, &[2, 3]);
    post(&mut world, &mut users[0], channel).unwrap();
    let kick = Wish::of(action::KICK, &[3]);
    assert_eq!(change(&mut world, &mut users[0], channel, &kick), Ok(3));
    for _ in 0..3 {
        post(&mut world, &mut users[0], channel).unwrap();
    }
    for device in [&users[2], &second] {
        assert_eq!(ids(&world.take(device), channel), [1, 2, 3]);
    }
    assert_eq!(post(&mut world, &mut users[2], channel), Err((Code::NotAMember, 0)));
    users[2].fetch(&mut world, channel, 2, 4);
    assert_eq!(errors(&world.take(&users[2])), [Code::NotGranted]);
    users[2].fetch(&mut world, channel, 2, 3);
    assert_eq!(ids(&world.take(&users[2]), channel), [2, 3]);
    // A device that was away hears the same, and no more.
    let late = world.login(0, 3, 3, &[]);
    let got = world.take(&late);
    assert_eq!((ids(&got, channel), gaps(&got, channel)), (vec![1, 2, 3], vec![]));
}

#[test]
fn newcomers_read_what_the_settings_allow_and_begin_anew_when_they_come_again() {
    let mut world = World::new(4, 2);
    let mut users = four(&mut world);
    let channel = users[0].create(&mut world, 1, 0, &[2]);
    for id in 2..=5 {
        assert_eq!(post(&mut world, &mut users[0], channel), Ok(id));
    }
    let add = |uin| Wish::of(action::ADD, &[uin]);
    assert_eq!(change(&mut world, &mut users[0], channel, &add(3)), Ok(6));
    let got = world.take(&users[2]);
    assert_eq!(gaps(&got, channel), [(1, 5, Code::NotVisible)]);
    assert_eq!(ids(&got, channel), [6]);
    users[2].fetch(&mut world, channel, 4, 6);
    let got = world.take(&users[2]);
    assert_eq!(gaps(&got, channel), [(4, 5, Code::NotVisible)]);
    assert_eq!(ids(&got, channel), [6]);
    users[2].ack(&mut world, channel, 6);

    let set = Wish { settings: settings::HISTORY_ALL, ..Wish::plain(action::SETTINGS) };
    assert_eq!(change(&mut world, &mut users[0], channel, &set), Ok(7));
    assert_eq!(change(&mut world, &mut users[0], channel, &add(4)), Ok(8));
    assert_eq!(ids(&world.take(&users[3]), channel), [1, 2, 3, 4, 5, 6, 7, 8]);

    // Who comes again begins anew.
    let reset = Wish::plain(action::SETTINGS);
    assert_eq!(change(&mut world, &mut users[0], channel, &reset), Ok(9));
    let leave = Wish::plain(action::LEAVE);
    assert_eq!(change(&mut world, &mut users[2], channel, &leave), Ok(10));
    assert_eq!(post(&mut world, &mut users[0], channel), Ok(11));
    world.take(&users[2]);
    assert_eq!(change(&mut world, &mut users[0], channel, &add(3)), Ok(12));
    let got = world.take(&users[2]);
    assert_eq!(gaps(&got, channel), [(11, 11, Code::NotVisible)]);
    assert_eq!(ids(&got, channel), [12]);
    let fresh = world.login(1, 3, 2, &[]);
    let got = world.take(&fresh);
    assert_eq!(gaps(&got, channel), [(1, 11, Code::NotVisible)]);
    assert_eq!(ids(&got, channel), [12]);
}

#[test]
fn all_of_it_outlives_a_restart() {
    let reader = MemoryReader::default();
    let mut world = World::over(reader.clone(), 4, 2, Config::default());
    let mut users = four(&mut world);
    let channel = users[0].create(&mut world, 1, settings::MEMBERS_ADD, &[2, 3]);
    assert_eq!(change(&mut world, &mut users[0], channel, &Wish::of(action::KICK, &[3])), Ok(2));
    assert_eq!(change(&mut world, &mut users[1], channel, &Wish::of(action::ADD, &[4])), Ok(3));
    let until = world.now.wall.0 + 60_000;
    let mute = Wish { until, ..Wish::of(action::MUTE, &[2]) };
    assert_eq!(change(&mut world, &mut users[0], channel, &mute), Ok(4));

    for workers in [1, 3] {
        let mut world = World::over(reader.clone(), 4, workers, Config::default());
        let mut users = four(&mut world);
        assert_eq!(post(&mut world, &mut users[1], channel), Err((Code::Muted, 0)));
        assert_eq!(post(&mut world, &mut users[2], channel), Err((Code::NotAMember, 0)));
        let got = world.take(&users[3]);
        assert_eq!(gaps(&got, channel), [(1, 2, Code::NotVisible)]);
        assert_eq!(ids(&got, channel)[..2], [3, 4]);
        assert!(post(&mut world, &mut users[3], channel).is_ok());
        let late = world.login(0, 3, 9, &[]);
        assert_eq!(ids(&world.take(&late), channel), [1, 2]);
    }
}

#[test]
fn a_member_pages_through_the_members() {
    let mut world = World::new(4, 2);
    world.users = (1..2_000).collect();
    let mut users = four(&mut world);
    let channel = users[0].create(&mut world, 1, settings::OPEN, &[2]);
    for first in (100..700).step_by(100) {
        let members: Vec<u64> = (first..first + 100).collect();
        change(&mut world, &mut users[0], channel, &Wish::of(action::ADD, &members)).unwrap();
    }
    let (mut after, mut all) = (0, Vec::new());
    loop {
        users[1].ask_group(&mut world, channel, after);
        let got = world.take(&users[1]);
        let [(head, name, members, last)] = &pages(&got)[..] else { panic!("one page") };
        assert_eq!((head.members.get(), head.version.get(), &name[..]), (602, 7, &b"terns"[..]));
        assert_eq!((head.settings, head.after.get()), (settings::OPEN, after));
        assert!(members.len() <= GROUP_PAGE_MEMBERS_MAX);
        all.extend(members.iter().map(|member| (member.uin.get(), member.role)));
        after = all.last().expect("members").0;
        if *last {
            break;
        }
    }
    let expected = [(1, role::OWNER), (2, role::MEMBER)].into_iter();
    let expected: Vec<_> = expected.chain((100..700).map(|uin| (uin, role::MEMBER))).collect();
    assert_eq!(all, expected);
    users[2].ask_group(&mut world, channel, 0);
    assert_eq!(errors(&world.take(&users[2])), [Code::NotAMember]);
    users[2].ask_group(&mut world, common::direct(2, 3), 0);
    assert_eq!(errors(&world.take(&users[2])), [Code::NotAMember]);
}

#[test]
fn one_page_is_under_way_and_waits_for_the_proof() {
    let mut world = World::new(4, 2);
    let mut users = four(&mut world);
    let channel = users[0].create(&mut world, 1, 0, &[2]);
    world.hold_commits();
    world.take(&users[0]);
    users[0].change(&mut world, channel, &Wish::of(action::KICK, &[2]));
    users[0].ask_group(&mut world, channel, 0);
    users[0].ask_group(&mut world, channel, 0);
    let got = world.take(&users[0]);
    assert_eq!((pages(&got).len(), errors(&got)), (0, vec![Code::Busy]));
    world.release_commits();
    let got = world.take(&users[0]);
    assert_eq!(pages(&got)[0].0.members.get(), 1);
}

#[test]
fn limits_are_held() {
    let config = Config { group_members_max: 4, channels_per_user: 3, ..Config::default() };
    let mut world = World::over(MemoryReader::default(), 4, 2, config);
    let mut users = four(&mut world);
    let own = group_of(1, 1, users[0].epoch, 1);
    let wish = Wish::create(0, &[2, 3, 4, 5]);
    assert_eq!(change(&mut world, &mut users[0], own, &wish), Err((Code::GroupFull, 0)));
    let channel = users[0].create(&mut world, 1, settings::OPEN, &[2, 3]);
    let add = Wish::of(action::ADD, &[2, 4, 5]);
    assert_eq!(change(&mut world, &mut users[0], channel, &add), Err((Code::GroupFull, 0)));
    let join = Wish::plain(action::JOIN);
    assert_eq!(change(&mut world, &mut users[3], channel, &join), Ok(2));
    let mut fifth = world.login(0, 5, 1, &[]);
    assert_eq!(change(&mut world, &mut fifth, channel, &join), Err((Code::GroupFull, 0)));

    for _ in 0..2 {
        users[1].create(&mut world, 2, 0, &[]);
        assert!(outcome(&mut world, &users[1]).is_ok());
    }
    users[1].create(&mut world, 2, 0, &[]);
    assert_eq!(outcome(&mut world, &users[1]), Err((Code::ChannelsFull, 0)));
    let made = users[0].create(&mut world, 1, 0, &[]);
    assert!(outcome(&mut world, &users[0]).is_ok());
    let add = Wish::of(action::ADD, &[2, 3]);
    assert_eq!(change(&mut world, &mut users[0], made, &add), Err((Code::ChannelsFull, 1)));
}

#[test]
fn what_is_said_while_newcomers_enter_comes_behind_the_change() {
    let mut world = World::new(4, 2);
    let mut users = four(&mut world);
    let channel = users[0].create(&mut world, 1, 0, &[2]);
    world.take(&users[0]);
    world.hold_commits();
    let (epoch, content) = (users[0].epoch, b"behind it");
    users[0].change_as(&mut world, channel, (epoch, 2, 0), &Wish::of(action::ADD, &[3]));
    users[0].send_as(&mut world, channel, epoch, 3, 2, content);
    users[0].change_as(&mut world, channel, (epoch, 4, 3), &Wish::of(action::ADD, &[4]));
    world.release_commits();
    assert_eq!(acks(&world.take(&users[0])), [(2, 2), (3, 3), (4, 4)]);
    assert_eq!(ids(&world.take(&users[2]), channel), [2, 3, 4]);
    assert_eq!(ids(&world.take(&users[3]), channel), [4]);
}

#[test]
fn lost_mail_about_members_is_asked_for_again() {
    let mut world = World::new(8, 3);
    let mut users = four(&mut world);
    world.lose = |mail| matches!(mail, Mail::Members(_) | Mail::AskMembers { .. });
    let channel = users[0].create(&mut world, 1, 0, &[2, 3, 4]);
    for _ in 0..3 {
        users[0].send(&mut world, channel, b"soon");
    }
    world.pass(1_100);
    world.lose = |_| false;
    world.pass(1_100);
    world.pass(1_100);
    for user in &users {
        assert_eq!(ids(&world.take(user), channel), [1, 2, 3, 4]);
    }
}

/// Places of the changes in the log of the only shard.
fn changes(reader: &MemoryReader) -> Vec<Offset> {
    let mut places = Vec::new();
    reader.replay(ShardId(0), |at, _, record| {
        if record.kind == RecordKind::Change {
            places.push(at);
        }
    });
    places
}

/// An operator has accepted the loss: readers step over the change, ids go on, and later changes
/// are applied to what is known.
#[test]
fn what_is_known_goes_on_behind_a_lost_change() {
    for (lost, posts) in [(1, [true, true, true, true]), (0, [false, false, false, true])] {
        let reader = MemoryReader::default();
        let mut world = World::over(reader.clone(), 1, 1, Config::default());
        let mut users = four(&mut world);
        let channel = users[0].create(&mut world, 1, 0, &[2, 3]);
        change(&mut world, &mut users[0], channel, &Wish::of(action::KICK, &[3])).unwrap();
        post(&mut world, &mut users[0], channel).unwrap();
        change(&mut world, &mut users[0], channel, &Wish::of(action::ADD, &[4])).unwrap();
        reader.damage(ShardId(0), changes(&reader)[lost], true);

        let mut world = World::over(reader.clone(), 1, 1, Config::default());
        let mut users = four(&mut world);
        let got = world.take(&users[1]);
        let (gap, seen) = (gaps(&got, channel), ids(&got, channel));
        match lost {
            1 => assert_eq!((gap, seen), (vec![(2, 2, Code::Lost)], vec![1, 3, 4])),
            _ => assert_eq!((gap, seen), (vec![], vec![]), "nobody knows that he is a member"),
        }
        let can_post = [0, 1, 2, 3].map(|user| post(&mut world, &mut users[user], channel).is_ok());
        assert_eq!(can_post, posts);
        let newest = 4 + posts.iter().filter(|posts| **posts).count() as u64;
        let late = world.login(0, 4, 2, &[]);
        assert_eq!(ids(&world.take(&late), channel), (4..=newest).collect::<Vec<_>>());
    }
}

/// More shards than logins: in most of them nothing was ever appended or proven.
#[test]
fn that_a_group_is_not_there_is_answered_at_once_also_by_an_empty_log() {
    let mut world = World::new(64, 2);
    let mut users = four(&mut world);
    for id in 1..=20 {
        let channel = ChannelId::group(id);
        assert_eq!(post(&mut world, &mut users[0], channel), Err((Code::NotAMember, 0)), "{id}");
        users[0].ask_group(&mut world, channel, 0);
        let got = world.take(&users[0]);
        assert_eq!(errors(&got), [Code::NotAMember], "{id}");
    }
}

/// By datagram a copy comes late, when the reason is gone: what its sender was told stays so.
#[test]
fn a_late_copy_of_what_was_refused_is_refused_although_it_might_be_said_by_now() {
    let mut world = World::new(4, 2);
    let mut users = four(&mut world);
    let channel = users[0].create(&mut world, 1, 0, &[2]);
    assert_eq!(post(&mut world, &mut users[2], channel), Err((Code::NotAMember, 0)));
    let add = Wish::of(action::ADD, &[3, 777]);
    assert_eq!(change(&mut world, &mut users[0], channel, &add), Err((Code::NoSuchUser, 2)));
    world.users.insert(777);
    assert_eq!(change(&mut world, &mut users[0], channel, &Wish::of(action::ADD, &[3])), Ok(2));

    let repeat = |world: &mut World, user: &Client| {
        world.take(user);
        user.send_as(world, channel, user.epoch, 1, 0, b"hello");
        let got = world.take(user);
        (acks(&got), refusal(&got))
    };
    assert_eq!(repeat(&mut world, &users[2]), (vec![], Some((Code::NotAMember, 0))));
    users[0].change_as(&mut world, channel, (users[0].epoch, 2, 0), &add);
    assert_eq!(outcome(&mut world, &users[0]), Err((Code::NoSuchUser, 2)));
    // No connection lives for so long in silence: what is said now is said by who was not told.
    world.pass(120_000);
    let again = world.login(0, 3, 1, &[]);
    let old = Client { epoch: users[2].epoch, ..again };
    assert_eq!(repeat(&mut world, &old), (vec![(1, 3)], None));
}

/// Also when nothing of the time before can be read any more.
#[test]
fn leaving_ends_no_mute_however_old_the_log_is() {
    let reader = MemoryReader::default();
    let mut world = World::over(reader.clone(), 1, 1, Config::default());
    let mut users = four(&mut world);
    let channel = users[0].create(&mut world, 1, settings::OPEN, &[2, 3]);
    let until = world.now.wall.0 + 60_000;
    let mute = Wish { until, ..Wish::of(action::MUTE, &[2]) };
    assert_eq!(change(&mut world, &mut users[0], channel, &mute), Ok(2));
    let leave = Wish::plain(action::LEAVE);
    assert_eq!(change(&mut world, &mut users[1], channel, &leave), Ok(3));
    assert_eq!(change(&mut world, &mut users[2], channel, &leave), Ok(4));
    post(&mut world, &mut users[0], channel).unwrap();
    let end = changes(&reader).last().map(|at| Offset(at.0 + 1)).unwrap();
    reader.expire(ShardId(0), end);
    world.run();
    for user in [1, 2] {
        let join = Wish::plain(action::JOIN);
        change(&mut world, &mut users[user], channel, &join).unwrap();
    }
    assert_eq!(post(&mut world, &mut users[1], channel), Err((Code::Muted, 0)));
    assert_eq!(post(&mut world, &mut users[2], channel), Ok(8));
}

#[test]
fn groups_that_were_left_do_not_count_unless_they_are_as_many_again() {
    let config = Config { channels_per_user: 3, ..Config::default() };
    let mut world = World::over(MemoryReader::default(), 4, 2, config);
    let mut users = four(&mut world);
    let full = |user| Err((Code::ChannelsFull, user));
    let add = Wish::of(action::ADD, &[2]);
    // None of their owners has more than three.
    let made = [0, 0, 0, 2, 2, 2, 3].map(|owner: usize| {
        let channel = users[owner].create(&mut world, owner as u64 + 1, 0, &[]);
        assert!(outcome(&mut world, &users[owner]).is_ok());
        (owner, channel)
    });
    let mut results = Vec::new();
    for (owner, channel) in made.iter().copied().take(4) {
        results.push(change(&mut world, &mut users[owner], channel, &add).map(|_| ()));
    }
    assert_eq!(results, [Ok(()), Ok(()), Ok(()), full(1)], "three at a time");
    for (_, channel) in &made[..3] {
        assert!(change(&mut world, &mut users[1], *channel, &Wish::plain(action::LEAVE)).is_ok());
    }
    results.clear();
    for (owner, channel) in made[3..].iter().copied() {
        results.push(change(&mut world, &mut users[owner], channel, &add).map(|_| ()));
    }
    assert_eq!(results, [Ok(()), Ok(()), Ok(()), full(1)], "and three others behind them");
    let (owner, channel) = made[3];
    assert!(change(&mut world, &mut users[1], channel, &Wish::plain(action::LEAVE)).is_ok());
    let (last_owner, last) = made[6];
    assert_eq!(
        change(&mut world, &mut users[last_owner], last, &add).map(|_| ()),
        full(1),
        "what was left holds something to read"
    );
    assert!(change(&mut world, &mut users[owner], channel, &add).is_ok(), "it is in the list");
}
