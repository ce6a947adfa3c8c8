//! Devices at a running server: who is let in, who is shut out, and how soon.

use std::path::Path;

use rustix::process::Signal;
use tern_client::machine::{End, Event, SendOutcome, State};
use tern_client::profile::Profile;
use tern_client::store::MemoryStore;
use tern_client::{Client, Events, Options};
use tern_protocol::{ChannelId, Code, Uin};

use crate::child::{Server, done, refused};

/// Connects the device of a profile.
fn connect(data: &Path, who: &str, change: impl FnOnce(&mut Profile)) -> (Client, Events) {
    let mut profile = Profile::load(&Profile::path(data, who)).unwrap();
    change(&mut profile);
    let options = Options::from_profile(&profile, Box::new(MemoryStore::default())).unwrap();
    Client::connect(options).unwrap()
}

/// The state after the one of being on the way.
pub(crate) async fn settled(events: &mut Events) -> State {
    loop {
        match events.next().await.expect("the client lives") {
            Event::State(State::Connecting) => {}
            Event::State(state) => return state,
            _ => {}
        }
    }
}

fn added(data: &Path) -> Server {
    let server = Server::start(data, &[]);
    done(data, &["user", "add", "ann"]);
    done(data, &["device", "add", "ann"]);
    server
}

#[tokio::test]
async fn only_the_right_secret_is_let_in() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let _server = added(&data);
    let (_ann, mut events) = connect(&data, "ann", |_| {});
    assert!(matches!(settled(&mut events).await, State::Online { .. }));
    let wrong: [fn(&mut Profile); 3] = [
        |profile| profile.secret = "00".repeat(32),
        |profile| profile.device = 3,
        |profile| profile.uin = 9,
    ];
    for change in wrong {
        let (_client, mut events) = connect(&data, "ann.2", change);
        let ended = settled(&mut events).await;
        assert_eq!(ended, State::Ended(End::Refused(Code::BadCredentials)));
    }
}

#[tokio::test]
async fn who_is_shut_out_loses_its_session_at_once_and_is_told_why() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let _server = added(&data);
    let (_first, mut first) = connect(&data, "ann", |_| {});
    let (_second, mut second) = connect(&data, "ann.2", |_| {});
    assert!(matches!(settled(&mut first).await, State::Online { .. }));
    assert!(matches!(settled(&mut second).await, State::Online { .. }));

    done(&data, &["device", "revoke", "ann", "2"]);
    let revoked = State::Ended(End::Refused(Code::DeviceRevoked));
    assert_eq!(settled(&mut second).await, revoked);
    let (_again, mut again) = connect(&data, "ann.2", |_| {});
    assert_eq!(settled(&mut again).await, revoked);

    done(&data, &["user", "disable", "ann"]);
    let disabled = State::Ended(End::Refused(Code::UserDisabled));
    assert_eq!(settled(&mut first).await, disabled, "only now: revoking spared this device");
    let (_again, mut again) = connect(&data, "ann", |_| {});
    assert_eq!(settled(&mut again).await, disabled);

    done(&data, &["user", "enable", "ann"]);
    let (_again, mut again) = connect(&data, "ann", |_| {});
    assert!(matches!(settled(&mut again).await, State::Online { .. }));
}

#[tokio::test]
async fn a_new_secret_ends_the_session_of_the_old_one_and_lets_in_alone() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let _server = added(&data);
    let (_first, mut first) = connect(&data, "ann", |_| {});
    let (_second, mut second) = connect(&data, "ann.2", |_| {});
    assert!(matches!(settled(&mut first).await, State::Online { .. }));
    assert!(matches!(settled(&mut second).await, State::Online { .. }));
    let old = Profile::load(&Profile::path(&data, "ann.2")).unwrap();

    let made: serde_json::Value =
        serde_json::from_str(&done(&data, &["device", "rotate", "ann", "2", "--json"])).unwrap();
    let path = Profile::path(&data, "ann.2");
    assert_eq!(made["profile"].as_str(), path.to_str());
    assert!(made.get("secret").is_none(), "it stands in the profile alone");
    let new = Profile::load(&path).unwrap();
    assert_ne!(new.secret, old.secret);
    assert_eq!(Profile { secret: old.secret.clone(), ..new }, old, "nothing else is new");

    let ended = settled(&mut second).await;
    assert_eq!(ended, State::Ended(End::Refused(Code::SecretChanged)));
    let (_old, mut again) = connect(&data, "ann.2", |profile| profile.secret = old.secret);
    let ended = settled(&mut again).await;
    assert_eq!(ended, State::Ended(End::Refused(Code::BadCredentials)));
    let (_new, mut again) = connect(&data, "ann.2", |_| {});
    assert!(matches!(settled(&mut again).await, State::Online { .. }));

    done(&data, &["user", "disable", "ann"]);
    let disabled = State::Ended(End::Refused(Code::UserDisabled));
    assert_eq!(settled(&mut first).await, disabled, "only now: the other device was spared");
}

/// What the command said it did holds after a kill at the next moment.
#[tokio::test]
async fn an_old_secret_and_a_revoked_device_stay_out_after_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let server = added(&data);
    let old = Profile::load(&Profile::path(&data, "ann")).unwrap().secret;
    done(&data, &["device", "rotate", "ann", "1"]);
    done(&data, &["device", "revoke", "ann", "2"]);
    server.signal(Signal::KILL);
    server.end();
    let server = Server::start(&data, &[]);
    let here = |profile: &mut Profile| profile.server.clone_from(&server.address);
    let cases: [(&str, Option<&str>, Code); 2] =
        [("ann", Some(&old), Code::BadCredentials), ("ann.2", None, Code::DeviceRevoked)];
    for (who, secret, code) in cases {
        let (_client, mut events) = connect(&data, who, |profile| {
            here(profile);
            if let Some(secret) = secret {
                secret.clone_into(&mut profile.secret);
            }
        });
        assert_eq!(settled(&mut events).await, State::Ended(End::Refused(code)), "{who}");
    }
    let (_ann, mut events) = connect(&data, "ann", here);
    assert!(matches!(settled(&mut events).await, State::Online { .. }));
}

#[tokio::test]
async fn other_names_change_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let server = added(&data);
    done(&data, &["user", "add", "bob"]);
    let (ann, mut events) = connect(&data, "ann", |_| {});
    assert!(matches!(settled(&mut events).await, State::Online { .. }));
    let say = |args: &[&str]| done(&data, args);
    assert_eq!(say(&["user", "rename", "ann", "Anna"]), "user ann (uin 10001) is Anna now\n");
    say(&["device", "rename", "Anna", "2", "tablet"]);
    let json = |args: &[&str]| serde_json::from_str::<serde_json::Value>(&say(args)).unwrap();
    let list = json(&["device", "list", "Anna", "--json"]);
    assert_eq!((&list[1]["label"], &list[1]["name"]), (&"tablet".into(), &"Anna".into()));
    let last_login = |device: usize| list[device]["last_login_ms"].as_u64();
    assert!(last_login(0) >= list[0]["created_ms"].as_u64(), "{list}");
    assert_eq!(last_login(1), Some(0), "{list}");
    let why = refused(&data, &["device", "rename", "Anna", "1", "tablet"], 1);
    assert!(why.contains("already"), "{why}");
    let renamed = json(&["user", "rename", "Anna", "ann", "--json"]);
    assert_eq!((&renamed["uin"], &renamed["name"]), (&10_001.into(), &"ann".into()));
    let channel = ChannelId::direct(Uin(10_001), Uin(10_002));
    let sent = ann.send(channel, 0, "hi").await.expect("its session goes on");
    assert!(matches!(sent, SendOutcome::Acked { .. }), "{sent:?}");
    let (_again, mut again) = connect(&data, "ann.2", |_| {});
    assert!(matches!(settled(&mut again).await, State::Online { .. }), "by the profile of before");

    server.signal(Signal::TERM);
    server.end();
    say(&["device", "revoke", "ann", "tablet"]);
    let alone = json(&["device", "list", "ann", "--json"]);
    assert_eq!(alone[1]["revoked"], true, "without a server too");
    assert_eq!(alone[0]["last_login_ms"], list[0]["last_login_ms"], "noted before the end");
}

#[tokio::test]
async fn going_down_tells_clients_to_come_back() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let server = added(&data);
    let (_ann, mut events) = connect(&data, "ann", |_| {});
    assert!(matches!(settled(&mut events).await, State::Online { .. }));
    server.signal(Signal::TERM);
    let State::Offline { retry_in_ms, code } = settled(&mut events).await else {
        panic!("the connection is gone");
    };
    assert_eq!(code, Some(Code::Draining));
    assert!((1_000..=2_000).contains(&retry_in_ms), "{retry_in_ms}: as long as come-back-ms says");
    let (status, rest) = server.end();
    assert!(status.success(), "{status}: {rest}");
}

/// The client is there, and its runtime does not run: it hears nothing, so going down in order
/// takes as long as a client is given.
#[tokio::test]
async fn a_second_signal_ends_it_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let server = added(&data);
    let (_ann, mut events) = connect(&data, "ann", |_| {});
    assert!(matches!(settled(&mut events).await, State::Online { .. }));
    server.signal(Signal::TERM);
    // The word that it goes down is the proof that the first signal came.
    let (status, rest) = server.end_on("going down", Signal::INT);
    assert_eq!(status.code(), Some(130), "{rest}");
    assert!(!rest.contains("in order\n"), "{rest}");
}
