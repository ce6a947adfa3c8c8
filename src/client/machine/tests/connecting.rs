//! The connection: greeting, login, silence, ends, and coming back.

use bytes::Bytes;
use tern_protocol::frames::Network;
use tern_protocol::{Code, DeviceId, Epoch, Frame, Kind, Uin};

use super::rig::{HEARTBEAT_MS, Rig, close, close_slot, error, identity, logged_in, pong, welcome};
use crate::machine::{End, Event, Identity, Input, Proof, State};

#[test]
fn the_order_of_a_login() {
    let mut rig = Rig::new();
    assert_eq!(rig.connects, 1);
    rig.say(Input::Connected);
    assert_eq!(rig.kinds(), [Kind::Hello, Kind::Login], "one flight");
    rig.say(Input::Frame(welcome()));
    assert!(rig.kinds().is_empty());
    rig.say(Input::Frame(logged_in(3, false)));
    assert_eq!(rig.kinds(), [Kind::Cursors]);
    assert_eq!(
        rig.states(),
        [State::Connecting, State::Online { epoch: Epoch(3), resumed: false }]
    );
}

#[test]
fn a_token_tells_the_client_who_it_is() {
    let nobody = |token: &'static [u8]| Identity {
        uin: Uin(0),
        device: DeviceId(0),
        proof: Proof::Token(Bytes::from_static(token)),
    };
    let mut rig = Rig::of(nobody(b"a.b.c"));
    rig.say(Input::Connected);
    assert_eq!(rig.kinds(), [Kind::Hello, Kind::TokenLogin]);
    rig.say(Input::Frame(welcome()));
    rig.say(Input::Frame(identity(7, 2)));
    let told = Event::Identity { uin: Uin(7), device: DeviceId(2) };
    assert!(rig.events.contains(&told), "{:?}", rig.events);
    rig.say(Input::Frame(logged_in(3, false)));
    rig.say(Input::Prove(Proof::Token(Bytes::from_static(b"d.e.f"))));
    rig.lose();
    rig.frames.clear();
    rig.say(Input::Connected);
    let Ok((Frame::Resume(resume), _)) = Frame::parse(&rig.frames[1]) else { panic!("RESUME") };
    assert_eq!((resume.uin.get(), resume.device.get()), (7, 2), "by the numbers it was told");
    rig.say(Input::Frame(welcome()));
    rig.frames.clear();
    rig.say(Input::Frame(error(Code::ResumeUnknown, Kind::Resume, 0)));
    let Ok((Frame::TokenLogin(login, token), _)) = Frame::parse(&rig.frames[0]) else {
        panic!("TOKEN_LOGIN")
    };
    assert_eq!((login.uin.get(), login.device.get(), token), (7, 2, &b"d.e.f"[..]), "the new one");
    rig.say(Input::Frame(identity(8, 2)));
    assert_eq!(rig.disconnects, [Code::Malformed], "it stays who it is");
}

#[test]
fn a_lost_connection_is_resumed() {
    let mut rig = Rig::online(3);
    rig.lose();
    rig.say(Input::Connected);
    rig.say(Input::Frame(welcome()));
    assert_eq!(rig.kinds(), [Kind::Hello, Kind::Resume]);
    rig.say(Input::Frame(logged_in(3, true)));
    assert_eq!(rig.kinds(), [Kind::Cursors]);
    assert_eq!(rig.machine.counters().resumes, 1);
}

#[test]
fn a_session_that_is_gone_is_followed_by_a_login_on_the_same_connection() {
    let mut rig = Rig::online(3);
    rig.send(2, "a");
    rig.lose();
    rig.say(Input::Connected);
    rig.say(Input::Frame(welcome()));
    rig.frames.clear();
    rig.say(Input::Frame(error(Code::ResumeUnknown, Kind::Resume, 0)));
    assert_eq!(rig.kinds(), [Kind::Login]);
    rig.say(Input::Frame(logged_in(4, false)));
    assert_eq!(rig.sends(), ["3.1<0:a"]);
    assert!(rig.disconnects.is_empty());
}

#[test]
fn a_new_process_never_resumes() {
    let mut rig = Rig::online(3).restart();
    rig.say(Input::Connected);
    rig.say(Input::Frame(welcome()));
    assert_eq!(rig.kinds(), [Kind::Hello, Kind::Login]);
}

#[test]
fn final_codes_end_it_and_nothing_is_tried_again() {
    let codes = [
        Code::BadCredentials,
        Code::UserDisabled,
        Code::DeviceRevoked,
        Code::Fenced,
        Code::Version,
        Code(0x7abc),
    ];
    for code in codes {
        let mut rig = Rig::online(1);
        rig.say(Input::Frame(close(code, 0)));
        assert_eq!(rig.states(), [State::Ended(End::Refused(code))]);
        assert_eq!(rig.machine.poll_timeout(rig.now), None, "{code}");
        let mut rig = Rig::new();
        rig.say(Input::Disconnected { code: Some(code) });
        assert_eq!(rig.machine.poll_timeout(rig.now), None, "{code} of the connection itself");
    }
}

#[test]
fn a_server_that_drains_is_left_in_peace_for_the_time_it_names() {
    let mut waits = Vec::new();
    for seed in 0..200 {
        let mut rig = Rig::on_seed(seed);
        rig.log_in(1);
        rig.say(Input::Frame(close(Code::Draining, 1_000)));
        let (when, why) = rig.machine.poll_timeout(rig.now).unwrap();
        assert_eq!(why, "reconnect");
        waits.push(when.since_ms(rig.now));
    }
    assert!(waits.iter().all(|wait| (1_000..=2_000).contains(wait)));
    assert!(waits.iter().any(|&wait| wait < 1_100) && waits.iter().any(|&wait| wait > 1_900));
}

/// 200 clients of a server that goes down with 100,000 sessions: nobody comes before the slot, also
/// on another network; they come spread over all of it, and with what they had to say.
#[test]
fn two_hundred_drained_clients_come_back_spread_over_their_slot_with_nothing_lost() {
    const CLIENTS: u64 = 200;
    const WAIT_MS: u64 = 1_000;
    const SLOT_MS: u64 = 50_000;
    let mut tenths = [0; 10];
    let mut said = 0;
    for seed in 0..CLIENTS {
        let mut rig = Rig::on_seed(seed);
        rig.log_in(1);
        rig.send(2, "unanswered");
        let unanswered = |sends: Vec<String>| sends.len() == 1 && sends[0].ends_with(":unanswered");
        assert!(unanswered(rig.sends()));
        let (start, connects) = (rig.now, rig.connects);
        rig.say(Input::Frame(close_slot(Code::Draining, 1_000, 500)));
        rig.say(Input::NetworkChanged(Network::Cellular));
        while rig.connects == connects {
            rig.tick();
        }
        let waited = rig.now.since_ms(start);
        assert!((WAIT_MS..=WAIT_MS + SLOT_MS).contains(&waited), "came after {waited} ms");
        tenths[((waited - WAIT_MS) * 10 / (SLOT_MS + 1)) as usize] += 1;
        rig.log_in(2);
        said += u64::from(unanswered(rig.sends()));
    }
    let (least, most) = (tenths.iter().min(), tenths.iter().max());
    println!("TEST come-back n={CLIENTS} lost={} tenths={tenths:?}", CLIENTS - said);
    assert!(least >= Some(&8) && most <= Some(&36), "of 20 expected in each tenth: {tenths:?}");
    assert_eq!(said, CLIENTS, "each says again what was not answered");
}

#[test]
fn a_server_that_cannot_be_reached_is_tried_ever_less_often() {
    let mut rig = Rig::new();
    let mut waited = 0;
    for _ in 0..200 {
        rig.say(Input::Disconnected { code: None });
        let (when, _) = rig.machine.poll_timeout(rig.now).unwrap();
        waited += when.since_ms(rig.now);
        assert!(when.since_ms(rig.now) <= 30_000);
        rig.tick();
    }
    assert_eq!(rig.connects, 201);
    assert!(waited > 190 * 10_000, "on average half of 30 s: {waited}");
}

#[test]
fn the_first_attempt_after_a_good_connection_comes_at_once() {
    let mut rig = Rig::online(1);
    for _ in 0..5 {
        rig.say(Input::Disconnected { code: None });
        rig.tick();
    }
    rig.resume(1);
    rig.wait_ms(5_000);
    rig.say(Input::Disconnected { code: None });
    let (when, _) = rig.machine.poll_timeout(rig.now).unwrap();
    assert!(when.since_ms(rig.now) <= 50);
}

#[test]
fn a_connection_that_never_comes_is_given_up() {
    let mut rig = Rig::new();
    assert_eq!(rig.tick(), "opening a connection");
    assert_eq!(rig.disconnects, [Code::TooSlow]);
    assert_eq!(rig.tick(), "reconnect");
    rig.say(Input::Connected);
    assert_eq!(rig.tick(), "login");
    assert_eq!(rig.disconnects.len(), 2);
}

#[test]
fn beats_come_as_the_server_asks() {
    let mut rig = Rig::online(1);
    rig.wait_ms(u64::from(HEARTBEAT_MS) - 1);
    assert!(rig.kinds().is_empty());
    rig.wait_ms(1);
    assert_eq!(rig.kinds(), [Kind::Ping]);
    rig.say(Input::Frame(pong(1, 7_000)));
    rig.wait_ms(6_999);
    assert!(rig.kinds().is_empty());
    rig.wait_ms(1);
    assert_eq!(rig.kinds(), [Kind::Ping]);
}

#[test]
fn a_beat_without_an_answer_ends_the_connection() {
    let mut rig = Rig::online(1);
    assert_eq!(rig.tick(), "heartbeat");
    rig.events.clear();
    assert_eq!(rig.tick(), "no answer to a heartbeat");
    assert_eq!(rig.disconnects, [Code::Offline]);
    assert!(matches!(rig.states()[..], [State::Offline { code: Some(Code::Offline), .. }]));
}

#[test]
fn silence_during_sends_is_noticed_long_before_the_beat() {
    let mut rig = Rig::online(1);
    rig.send(2, "a");
    rig.frames.clear();
    rig.wait_ms(2_000);
    assert_eq!(rig.kinds(), [Kind::Ping]);
    rig.wait_ms(5_000);
    assert_eq!(rig.disconnects, [Code::Offline]);
}

#[test]
fn another_network_is_told_at_once() {
    let mut rig = Rig::online(1);
    rig.say(Input::NetworkChanged(Network::Cellular));
    match Frame::parse(&rig.frames[0]).unwrap().0 {
        Frame::Ping(ping) => assert_eq!(ping.network, Network::Cellular.to_wire()),
        other => panic!("{other:?}"),
    }
    rig.say(Input::Disconnected { code: None });
    for _ in 0..6 {
        rig.tick();
        rig.say(Input::Disconnected { code: None });
    }
    let connects = rig.connects;
    rig.say(Input::NetworkChanged(Network::Wifi));
    assert_eq!(rig.connects, connects + 1, "a new network does not wait for the back-off");
}

#[test]
fn a_logout_says_so_and_ends() {
    let mut rig = Rig::online(1);
    rig.say(Input::Logout);
    assert_eq!(rig.kinds(), [Kind::Close]);
    assert_eq!(rig.disconnects, [Code::LoggedOut]);
    assert_eq!(rig.states(), [State::Ended(End::LoggedOut)]);
    assert_eq!(rig.machine.poll_timeout(rig.now), None);
}

#[test]
fn a_failed_store_ends_it() {
    let mut rig = Rig::online(1);
    rig.say(Input::StoreFailed);
    assert_eq!(rig.states(), [State::Ended(End::StoreFailed)]);
}

#[test]
fn errors_are_told_and_survived() {
    let mut rig = Rig::online(1);
    rig.say(Input::Frame(error(Code(0x6543), Kind::Fetch, 0)));
    assert_eq!(rig.events, [Event::ServerError { code: Code(0x6543), kind: Kind::Fetch }]);
    assert!(rig.disconnects.is_empty());
}

#[test]
fn a_login_that_is_refused_for_now_is_tried_later() {
    let mut rig = Rig::new();
    rig.say(Input::Connected);
    rig.say(Input::Frame(welcome()));
    rig.say(Input::Frame(close(Code::Busy, 4_000)));
    let (when, _) = rig.machine.poll_timeout(rig.now).unwrap();
    assert!((4_000..=8_000).contains(&when.since_ms(rig.now)));
}
