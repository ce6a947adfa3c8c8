//! Where devices are, as the operator sees it: `tern device list` and `tern status` of a server
//! that runs.

use serde_json::Value;
use tern_protocol::Code;

use crate::support::dial::Dial;
use crate::support::peer::{PATIENCE, Peer};
use crate::support::server::{ANY_PORT, Server};

fn listed(server: &Server, name: &str) -> Value {
    let text = server.tern(&["device", "list", name, "--json"]);
    serde_json::from_str::<Value>(&text).unwrap()[0].clone()
}

/// Waits until the device is seen there, or away.
fn until_online(server: &Server, name: &str, online: bool) -> Value {
    let start = std::time::Instant::now();
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
    peer.connection.close(std::time::Instant::now(), code, Vec::new().into());
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
