//! Where devices are, as the operator sees it: `tern device list` and `tern status` of a server
//! that runs.

use std::time::{Duration, Instant};

use serde_json::Value;
use tern_protocol::Code;

use crate::support::dial::Dial;
use crate::support::peer::{PATIENCE, Peer};
use crate::support::scaled;
use crate::support::server::{ANY_PORT, Server};

/// The interval of heartbeats where a test waits for three of them, in ms.
const BEAT_MS: u64 = 1_000;

fn listed(server: &Server, name: &str) -> Value {
    let text = server.tern(&["device", "list", name, "--json"]);
    serde_json::from_str::<Value>(&text).unwrap()[0].clone()
}

/// Waits until the device is seen there, or away.
fn until_online(server: &Server, name: &str, online: bool) -> Value {
    let start = Instant::now();
    loop {
        let presence = listed(server, name)["presence"].clone();
        if presence["online"] == online {
            return presence;
        }
        assert!(start.elapsed() < PATIENCE, "it is not so: {presence}");
    }
}

#[test]
fn the_operator_sees_network_last_sign_and_the_newest_four_logins_of_a_device() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let server = Server::start(&data, ANY_PORT, &[]);
    let ann = server.user("ann");
    assert_eq!(listed(&server, "ann")["presence"], Value::Null, "it never logged in");
    let mut newest = None;
    for _ in 0..6 {
        newest = Some(Peer::device(server.address, &Dial::default(), &ann).0);
    }
    let mut peer = newest.expect("it logged in");
    peer.round_trip(1);
    let here = until_online(&server, "ann", true);
    assert_eq!(here["network"], "wired");
    let logins: Vec<u64> =
        here["logins_ms"].as_array().unwrap().iter().map(|at| at.as_u64().unwrap()).collect();
    assert!(logins.len() == 4 && logins.is_sorted_by(|a, b| a >= b), "{logins:?}");
    let number = |name: &str| here[name].as_u64().unwrap_or_else(|| panic!("{name}: {here}"));
    assert!(number("silent_ms") <= number("online_ms"));
    assert_eq!(number("beat_ms"), 10_000);
    let words = server.tern(&["device", "list", "ann"]);
    assert!(words.contains("here for ") && words.contains("wired, heard "), "{words}");
    let figures = server.figures();
    assert_eq!((figures.get("sessions_now"), figures.get("sessions_wired_now")), (1, 1));
    assert_eq!(figures.get("sessions_cellular_now"), 0);

    let code = u32::from(Code::LoggedOut.0).into();
    peer.connection.close(Instant::now(), code, Vec::new().into());
    peer.flush();
    let away = until_online(&server, "ann", false);
    assert_eq!(away["logins_ms"], here["logins_ms"]);
    assert!(away["away_ms"].is_u64() && away["online_ms"].is_null(), "{away}");
    server.stop();
    assert_eq!(
        serde_json::from_slice::<Value>(
            &crate::support::server::tern(&data, &["device", "list", "ann", "--json"])
                .output()
                .unwrap()
                .stdout
        )
        .unwrap()[0]["presence"],
        Value::Null,
        "without a server nobody knows"
    );
    println!("TEST router logins=6 kept={} seen=1", logins.len());
}

/// What the transport does is not what the session sees: the client's port changes under it, told
/// or not, and it is here all the while, by one and the same connection.
#[test]
fn a_session_survives_a_change_of_path_without_a_visible_offline() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(&folder.path().join("data"), ANY_PORT, &[]);
    let ann = server.user("ann");
    let (mut peer, _) = Peer::device(server.address, &Dial::default(), &ann);
    let (moves, mut online_ms) = (scaled(6), 0);
    for number in 0..moves {
        peer.move_port();
        if number % 2 == 0 {
            peer.connection.local_address_changed();
        }
        let before = listed(&server, "ann")["presence"].clone();
        peer.round_trip(number);
        let after = listed(&server, "ann")["presence"].clone();
        for seen in [before, after] {
            let so_long = seen["online_ms"].as_u64().unwrap_or_else(|| panic!("away: {seen}"));
            assert!(so_long >= online_ms, "another connection: {seen}");
            online_ms = so_long;
        }
    }
    let figures = server.figures();
    let [offline, logins, resumes, migrations] =
        ["sessions_offline", "logins", "resumes", "migrations"].map(|name| figures.get(name));
    println!("TEST path n={moves} migrations={migrations} offline={offline} logins={logins}");
    assert_eq!((offline, logins, resumes), (0, 1, 0));
    assert_eq!(migrations, u64::from(moves));
    server.stop();
}

/// The client's socket is gone, and its port answers as one that nobody has; the server sends to
/// it and is told so by the kernel. The device is offline when three heartbeats are missed, and
/// not a moment before.
#[test]
fn offline_is_declared_by_three_missed_beats_and_never_by_an_error_of_the_socket() {
    let folder = tempfile::tempdir().unwrap();
    let beat = BEAT_MS.to_string();
    let options = ["--heartbeat-wired-ms", &beat];
    let server = Server::start(&folder.path().join("data"), ANY_PORT, &options);
    let (ann, bob) = (server.user("ann"), server.user("bob"));
    let (mut writer, logged_in) = Peer::device(server.address, &Dial::default(), &ann);
    let (mut gone, _) = Peer::device(server.address, &Dial::default(), &bob);
    gone.round_trip(1);
    let heard = Instant::now();
    drop(gone);
    let (mut counter, mut seen) = (0, 0);
    let away = loop {
        counter += 1; // something to push, to a port that is closed
        let epoch = logged_in.epoch.get();
        writer.send(ann.channel_with(&bob), epoch, counter, b"to nobody's port");
        let presence = listed(&server, "bob")["presence"].clone();
        if presence["online"] == false {
            break heard.elapsed();
        }
        seen += 1;
        assert!(heard.elapsed() < PATIENCE, "it stays: {presence}");
        writer.round_trip(counter);
    };
    let offline = server.figures().get("sessions_offline");
    println!("TEST offline beat_ms={BEAT_MS} looks_while_online={seen} offline_after={away:?}");
    // Its last frame was heard before this test took the time.
    let late = Duration::from_millis(100);
    assert!(away + late >= Duration::from_millis(3 * BEAT_MS), "too early: {away:?}");
    assert!(offline == 1 && seen > 0);
    server.stop();
}
