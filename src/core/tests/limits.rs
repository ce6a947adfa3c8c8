//! What a user may have and how much it may ask: rates that outlive connections, rates over all
//! devices of a user, sessions, requests; and logins by token.

mod common;

use common::{Client, Got, TOKEN, World, acks, closes, direct, errors, refusals};
use tern_core::config::Config;
use tern_core::io::{Input, Outgoing};
use tern_core::log::RecordKind;
use tern_core::memory::MemoryReader;
use tern_core::placement::ShardId;
use tern_protocol::frames::{Identity, Ping, TokenLogin};
use tern_protocol::limits::TOKEN_BYTES_MAX;
use tern_protocol::{Code, Flags, Kind};

fn world(workers: u16, config: Config) -> World {
    World::over(MemoryReader::default(), 4, workers, config)
}

/// Sends that were acked and refused since the last look, and the codes of refusal.
fn counted(world: &mut World, client: &Client) -> (usize, Vec<Code>) {
    let got = world.take(client);
    let mut codes: Vec<Code> = refusals(&got).into_iter().map(|(_, code)| code).collect();
    codes.dedup();
    (acks(&got).len(), codes)
}

fn send_many(world: &mut World, client: &mut Client, count: usize) -> (usize, Vec<Code>) {
    for _ in 0..count {
        client.send(world, direct(1, 2), b"again");
        if !refusals(world.got.get(&client.link).map_or(&[], |got| got)).is_empty() {
            client.counter -= 1; // a key that was refused for now is not left out
        }
    }
    counted(world, client)
}

#[test]
fn connecting_again_gives_no_more_than_before() {
    for workers in [1, 3] {
        let config = Config { sends_per_second: 1, sends_burst: 5, ..Config::default() };
        let mut world = world(workers, config);
        let last = usize::from(workers) - 1;
        let mut first = world.login(0, 1, 1, &[]);
        assert_eq!(send_many(&mut world, &mut first, 4), (4, vec![]));

        let mut second = world.login(last, 1, 1, &[]);
        assert_eq!(closes(&world.take(&first)), [Code::Fenced]);
        let limited = vec![Code::RateLimited];
        assert_eq!(send_many(&mut world, &mut second, 9), (1, limited.clone()), "fenced");
        world.input(second.worker, Input::LinkClosed(second.link));
        world.pass(1_000);
        let mut third = world.connect(0);
        third.hello(&mut world);
        third.resume(&mut world, 1, 1, &second);
        third.counter = second.counter;
        world.take(&third);
        assert_eq!(send_many(&mut world, &mut third, 9), (1, limited.clone()), "resumed");
        world.pass(5_000);
        let mut tablet = world.login(0, 1, 2, &[]);
        assert_eq!(send_many(&mut world, &mut tablet, 9), (5, limited), "another device");
    }
}

#[test]
fn keys_that_were_left_out_are_no_way_around_the_rate() {
    let user =
        Config { user_sends_per_second: 1_000, user_sends_burst: 1_000, ..Config::default() };
    let config = Config { sends_per_second: 1, sends_burst: 5, ..user };
    let mut world = world(1, config);
    let device = world.login(0, 1, 1, &[]);
    let offer = |world: &mut World, counter| {
        device.send_as(world, direct(1, 2), device.epoch, counter, 0, b"again");
        counted(world, &device)
    };
    // The youngest key first: all others pass for repeats, and none is one.
    let first: usize = (1..=64).rev().map(|counter| offer(&mut world, counter).0).sum();
    assert_eq!(first, 64, "the burst, and the others on credit");
    let limited = (0, vec![Code::RateLimited]);
    assert_eq!(offer(&mut world, 65), limited);
    world.pass(58_900);
    assert_eq!(offer(&mut world, 65), limited, "what was taken is waited for");
    world.pass(1_200);
    assert_eq!(offer(&mut world, 65), (1, vec![]));
    assert_eq!(offer(&mut world, 66), limited);
}

#[test]
fn all_devices_of_a_user_share_its_rate() {
    for workers in [1, 3] {
        let config =
            Config { user_sends_per_second: 10, user_sends_burst: 20, ..Config::default() };
        let mut world = world(workers, config);
        let mut devices: Vec<Client> = (1..=5)
            .map(|device| world.login(device as usize % usize::from(workers), 1, device, &[]))
            .collect();
        let mut round = |world: &mut World| -> usize {
            devices.iter_mut().map(|device| send_many(world, device, 10).0).sum()
        };
        assert_eq!(round(&mut world), 20, "the burst, over {workers} workers");
        world.pass(100);
        assert_eq!(round(&mut world), 1);
        world.pass(1_000);
        assert_eq!(round(&mut world), 10);
        let mut late = world.login(0, 1, 9, &[]);
        let waits = vec![Code::UserRateLimited];
        assert_eq!(send_many(&mut world, &mut late, 3), (0, waits), "a new one waits too");
        let mut other = world.login(0, 2, 1, &[]);
        assert_eq!(send_many(&mut world, &mut other, 3), (3, vec![]), "another user does not");
    }
}

/// The home shard is told of batches; what was too much meanwhile is waited for.
#[test]
fn over_time_the_rate_of_a_user_holds() {
    let config = Config { user_sends_per_second: 100, user_sends_burst: 640, ..Config::default() };
    let batch = 10;
    let mut world = world(2, config);
    let mut devices: Vec<Client> =
        (1..=4).map(|device| world.login(device as usize % 2, 1, device, &[])).collect();
    let mut sent = 0;
    for _ in 0..60 {
        for device in &mut devices {
            sent += send_many(&mut world, device, 15).0;
        }
        world.pass(250);
    }
    let allowed = 640 + 59 * 25;
    println!("TEST user-rate allowed={allowed} n={sent} lost=0");
    assert!(sent >= allowed - 1 && sent <= allowed + devices.len() * batch, "{sent} of {allowed}");
}

#[test]
fn one_device_too_many_is_told_when_to_come_back() {
    let config = Config { sessions_per_user: 2, ..Config::default() };
    let mut world = world(2, config);
    let first = world.login(0, 1, 1, &[]);
    let second = world.login(1, 1, 2, &[]);
    let refused = |world: &mut World, device| {
        let client = world.login(0, 1, device, &[]);
        closes(&world.take(&client))
    };
    assert_eq!(refused(&mut world, 3), [Code::TooManySessions]);
    let again = world.login(1, 1, 2, &[]);
    assert_eq!(closes(&world.take(&second)), [Code::Fenced], "the same device is none more");
    assert_eq!(closes(&world.take(&again)), []);
    let other = world.login(0, 2, 3, &[]);
    assert_eq!(closes(&world.take(&other)), [], "another user");
    world.input(0, Input::LinkClosed(first.link));
    assert_eq!(refused(&mut world, 3), [], "one has left");
    let back = world.connect(0);
    let mut back = back;
    back.hello(&mut world);
    back.resume(&mut world, 1, 1, &first);
    assert_eq!(closes(&world.take(&back)), [Code::TooManySessions], "its place is taken");
}

#[test]
fn devices_that_come_at_once_get_as_many_places_as_there_are() {
    let config = Config { sessions_per_user: 3, ..Config::default() };
    let mut world = world(2, config);
    world.hold_commits();
    let clients: Vec<Client> = (1..=8)
        .map(|device| {
            let mut client = world.connect(device as usize % 2);
            client.hello(&mut world);
            client.login(&mut world, 1, device);
            client
        })
        .collect();
    world.release_commits();
    let refused = clients.iter().filter(|client| !closes(&world.take(client)).is_empty()).count();
    assert_eq!(refused, 5);
    assert_eq!(world.workers.iter().map(|worker| worker.sessions().1).sum::<usize>(), 3);
}

#[test]
fn requests_have_a_rate_and_their_own_code() {
    let config = Config { asks_per_second: 2, asks_burst: 4, ..Config::default() };
    let mut world = world(1, config);
    let client = world.login(0, 1, 1, &[]);
    let ping = Ping {
        sequence: 1.into(),
        network: 2,
        reserved: [0; 3],
        digest: 0.into(),
        heartbeat_ms: 0.into(),
        reserved_end: 0.into(),
    };
    let asked = |world: &mut World| {
        for _ in 0..3 {
            client.say(world, Kind::Ping, Flags::NONE, &ping, b"");
            client.fetch(world, direct(1, 2), 1, 1);
        }
        let got = world.take(&client);
        let pongs = got.iter().filter(|got| matches!(got, Got::Frame(Outgoing::Pong(_)))).count();
        let waits = got.iter().filter_map(|got| match got {
            Got::Frame(Outgoing::Error { code: Code::TooManyRequests, retry_after_ms, .. }) => {
                Some(*retry_after_ms)
            }
            _ => None,
        });
        (pongs, errors(&got).len(), waits.collect::<Vec<u32>>())
    };
    assert_eq!(asked(&mut world), (2, 4, vec![500, 500]), "four of six, two of them FETCHes");
    world.pass(500);
    assert_eq!(asked(&mut world), (1, 5, vec![500; 5]));
}

fn login_by(world: &mut World, uin: u64, token: &[u8]) -> Vec<Got> {
    let client = world.connect(0);
    client.hello(world);
    let head = TokenLogin { uin: uin.into(), device: 1.into(), reserved: 0.into() };
    client.say(world, Kind::TokenLogin, Flags::NONE, &head, token);
    world.take(&client)
}

#[test]
fn a_token_stands_for_a_login_and_says_who_it_is() {
    let mut world = world(2, Config { tokens: true, ..Config::default() });
    let got = login_by(&mut world, 7, TOKEN);
    let (uin, device) = (7.into(), 1.into());
    let identity = Got::Frame(Outgoing::Identity(Identity { uin, device, reserved: 0.into() }));
    let at = got.iter().position(|got| *got == identity).expect("IDENTITY");
    assert!(matches!(got[at + 1], Got::Frame(Outgoing::LoggedIn(_))), "{got:?}");
    assert_eq!(closes(&login_by(&mut world, 7, b"some.other.token")), [Code::TokenInvalid]);
    let long = vec![b'a'; TOKEN_BYTES_MAX + 1];
    assert_eq!(closes(&login_by(&mut world, 7, &long)), [Code::TokenInvalid]);
}

#[test]
fn a_server_without_keys_takes_no_token() {
    let mut world = world(1, Config::default());
    assert_eq!(closes(&login_by(&mut world, 7, TOKEN)), [Code::TokensNotTaken]);
}

/// Tries all devices in turn, every 50 ms for so long, a device's next message only once the one
/// before was admitted, and each admitted one once more; the wall clock jumps by years meanwhile.
/// How many were admitted of each.
fn admitted(
    world: &mut World,
    devices: &mut [Client],
    seconds: u64,
    repeats: &mut usize,
) -> Vec<usize> {
    const STEP_MS: u64 = 50;
    let mut admitted = vec![0; devices.len()];
    for step in 0..=seconds * 1_000 / STEP_MS {
        if step % 7 == 3 {
            let years = 365 * 86_400_000 * (step % 21);
            world.now.wall.0 = if step % 2 == 0 { years } else { u64::MAX / 4 - years };
        }
        for (device, admitted) in devices.iter_mut().zip(&mut admitted) {
            while send_many(world, device, 1).0 == 1 {
                *admitted += 1;
                let newest = device.counter;
                device.send_as(world, direct(1, 2), device.epoch, newest, 0, b"again");
                // It is answered at once, also where nothing is left to take.
                assert_eq!(counted(world, device), (1, vec![]));
                *repeats += 1;
            }
        }
        world.pass(STEP_MS);
    }
    admitted
}

/// Messages in all logs.
fn logged(reader: &MemoryReader) -> usize {
    let mut messages = 0;
    for shard in 0..4 {
        reader.replay(ShardId(shard), |_, _, record| {
            messages += usize::from(record.kind == RecordKind::Message);
        });
    }
    messages
}

#[test]
fn s_14_what_is_admitted_is_exact_whatever_clocks_do_and_the_rest_leaves_no_trace() {
    let seconds = 60;
    let strict = Config {
        sends_per_second: 1,
        sends_burst: 1,
        user_sends_per_second: 1,
        user_sends_burst: 1,
        ..Config::default()
    };
    let burst = Config { sends_per_second: 1, sends_burst: 60, ..Config::default() };
    let many = Config {
        user_sends_per_second: 2,
        user_sends_burst: 30,
        sends_per_second: 1,
        sends_burst: 60,
        ..Config::default()
    };
    for (name, config, devices, at_first, a_second) in [
        ("burst 60 then 1/s", burst.clone(), 1, 60, 1),
        ("strict", strict.clone(), 1, 1, 1),
        ("strict, 4 devices of one user", strict, 4, 1, 1),
        ("user 30 then 2/s, 5 devices", many, 5, 30, 2),
    ] {
        let reader = MemoryReader::default();
        let mut world = World::over(reader.clone(), 4, 2, config);
        let mut devices: Vec<Client> =
            (0..devices).map(|device| world.login(device % 2, 1, device as u32 + 1, &[])).collect();
        let mut repeats = 0;
        let each = admitted(&mut world, &mut devices, seconds, &mut repeats);
        let (sum, expected) =
            (each.iter().sum::<usize>(), at_first + (a_second * seconds) as usize);
        let traces = logged(&reader) - sum;
        println!(
            "TEST S-14 {name}: n={sum} expected={expected} by_device={each:?} repeats={repeats} traces={traces}"
        );
        assert!(sum.abs_diff(expected) <= 1, "{name}: {sum} admitted of {expected}");
        assert_eq!(traces, 0, "{name}: what is refused, or repeated, is nowhere in the log");
    }
}
