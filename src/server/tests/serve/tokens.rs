//! Logins by tokens of the operator's own system, by the client library at the real binary: who
//! is added, which keys count from when on, and what ends a session.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;
use tern_client::machine::{End, Event, Identity, Proof, SendOutcome, State};
use tern_client::profile::Profile;
use tern_client::store::MemoryStore;
use tern_client::{Client, Events, Options};
use tern_protocol::{ChannelId, Code, DeviceId, Uin};

use crate::accounts::settled;
use crate::child::{Server, done, refused, tern};
use crate::issuer::{self, Issuer, claims_of, ed, with};

/// How long anything may take before a test gives up.
const PATIENCE: Duration = Duration::from_secs(30);

struct Stage {
    _folder: tempfile::TempDir,
    data: std::path::PathBuf,
    server: Server,
    issuer: Issuer,
}

impl Stage {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        let issuer = Issuer::new();
        let options = issuer::options(&issuer.file());
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        let server = Server::start(&data, &options);
        done(&data, &["user", "add", "operator"]);
        Self { _folder: folder, data, server, issuer }
    }

    /// Connects the bearer of a token that does not know its numbers.
    fn connect(&self, token: String) -> (Client, Events) {
        connect(&self.data, token)
    }

    /// What becomes of the bearer of a token.
    async fn settled(&self, token: &str) -> State {
        let (_client, mut events) = self.connect(token.to_owned());
        settled(&mut events).await
    }

    /// Waits until a token gets this code.
    async fn await_refused(&self, token: &str, code: Code) {
        let start = Instant::now();
        loop {
            match self.settled(token).await {
                State::Ended(End::Refused(refused)) => return assert_eq!(refused, code),
                other => assert!(start.elapsed() < PATIENCE, "{other:?}"),
            }
        }
    }
}

fn connect(data: &Path, token: String) -> (Client, Events) {
    let profile = Profile::load(&Profile::path(data, "operator")).unwrap();
    let mut options = Options::from_profile(&profile, Box::new(MemoryStore::default())).unwrap();
    let proof = Proof::Token(token.into_bytes().into());
    options.identity = Identity { uin: Uin(0), device: DeviceId(0), proof };
    Client::connect(options).unwrap()
}

/// The numbers that the server says, and then that it lets the client in.
async fn numbers(events: &mut Events) -> (Uin, DeviceId) {
    let mut numbers = None;
    loop {
        match events.next().await.expect("the client lives") {
            Event::Identity { uin, device } => numbers = Some((uin, device)),
            Event::State(State::Online { .. }) => return numbers.expect("they come before"),
            Event::State(State::Ended(end)) => panic!("{end:?}"),
            _ => {}
        }
    }
}

#[tokio::test]
async fn users_and_devices_of_tokens_are_added_once_and_talk() {
    let stage = Stage::start();
    let token = |user: &str, device: &str| stage.issuer.sign(&ed(), &claims_of(user, device));
    let (ann, mut of_ann) = stage.connect(token("ann", "phone"));
    let ann_is = numbers(&mut of_ann).await;
    let (_bob, mut of_bob) = stage.connect(token("bob", "phone"));
    let bob_is = numbers(&mut of_bob).await;
    assert_eq!(ann_is, (Uin(10_002), DeviceId(1)));
    assert_eq!(bob_is, (Uin(10_003), DeviceId(1)));
    let (_again, mut again) = stage.connect(token("ann", "tablet"));
    assert_eq!(numbers(&mut again).await, (ann_is.0, DeviceId(2)));

    let channel = ChannelId::direct(ann_is.0, bob_is.0);
    ann.send(channel, 0, "hello").await.unwrap();
    loop {
        if let Event::Message(message) = of_bob.next().await.expect("the client lives") {
            assert_eq!(message.content.as_ref(), b"hello");
            break;
        }
    }
    let users: serde_json::Value =
        serde_json::from_str(&done(&stage.data, &["user", "list", "--json"])).unwrap();
    let names: Vec<&str> =
        users.as_array().unwrap().iter().map(|user| user["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["operator", "ann", "bob"]);
}

#[tokio::test]
async fn a_revoked_device_loses_its_session_and_no_token_brings_it_back() {
    let stage = Stage::start();
    let token = stage.issuer.sign(&ed(), &claims_of("ann", "phone"));
    let (_ann, mut events) = stage.connect(token.clone());
    numbers(&mut events).await;
    done(&stage.data, &["device", "revoke", "ann", "phone"]);
    let start = Instant::now();
    let revoked = State::Ended(End::Refused(Code::DeviceRevoked));
    assert_eq!(settled(&mut events).await, revoked);
    println!("TEST revoke-live n=1 after_ms={:.1}", start.elapsed().as_secs_f64() * 1e3);
    assert_eq!(stage.settled(&token).await, revoked);
    done(&stage.data, &["user", "disable", "ann"]);
    let tablet = stage.issuer.sign(&ed(), &claims_of("ann", "tablet"));
    let state = stage.settled(&tablet).await;
    assert!(
        matches!(state, State::Ended(End::Refused(Code::UserDisabled))),
        "a new device of a disabled user: {state:?}"
    );
}

#[tokio::test]
async fn a_new_set_of_keys_counts_from_when_its_file_is_there() {
    let stage = Stage::start();
    let token = stage.issuer.sign(&ed(), &claims_of("ann", "phone"));
    let laptop = stage.issuer.sign(&ed(), &claims_of("ann", "laptop"));
    let (ann, mut live) = stage.connect(laptop);
    let ann_is = numbers(&mut live).await;
    let next = Issuer::new();
    stage.issuer.publish(&next.key_set());
    stage.await_refused(&token, Code::TokenInvalid).await;
    let by_next = next.sign(&ed(), &claims_of("ann", "tablet"));
    assert!(matches!(stage.settled(&by_next).await, State::Online { .. }));
    let operator = ChannelId::direct(ann_is.0, Uin(10_001));
    let sent = ann.send(operator, 0, "hello").await.expect("withdrawing a key ends no session");
    assert!(matches!(sent, SendOutcome::Acked { .. }), "{sent:?}");
}

#[test]
fn the_operator_is_told_what_becomes_of_a_token() {
    let stage = Stage::start();
    let check = |token: &str, format: &[&str]| {
        let mut command = tern(&stage.data, &[&["tokens", "check"], format].concat());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(format!("{token}\n").as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    let good = stage.issuer.sign(&ed(), &claims_of("ann", "phone"));
    let (code, said, _) = check(&good, &["--json"]);
    assert_eq!((code, said.as_str()), (Some(0), "{\"device\":\"phone\",\"user\":\"ann\"}\n"));
    let expired = with(claims_of("ann", "phone"), "exp", json!(1));
    let (code, said, why) = check(&stage.issuer.sign(&ed(), &expired), &[]);
    assert_eq!((code, said.as_str()), (Some(1), ""));
    assert!(why.contains("TOKEN_EXPIRED") && why.contains("\"exp\""), "{why}");
    let users = done(&stage.data, &["user", "list"]);
    assert!(!users.contains("ann"), "nobody is added by a look: {users}");
}

/// The file is changed so that its looks stay the same: only being asked makes the server read.
#[tokio::test]
async fn keys_are_read_again_on_sighup_and_by_command() {
    let stage = Stage::start();
    let first = stage.issuer.sign(&ed(), &claims_of("ann", "phone"));
    assert!(matches!(stage.settled(&first).await, State::Online { .. }));
    let (second, third) = (Issuer::new(), Issuer::new());
    let unseen = |text: String| {
        let file = stage.issuer.file();
        let before = std::fs::metadata(&file).unwrap();
        assert_eq!(before.len(), text.len() as u64);
        let file = File::options().write(true).open(file).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, text.as_bytes(), 0).unwrap();
        file.set_modified(before.modified().unwrap()).unwrap();
    };
    unseen(second.key_set());
    stage.server.signal(Signal::HUP);
    stage.await_refused(&first, Code::TokenInvalid).await;
    let by_second = second.sign(&ed(), &claims_of("ann", "phone"));
    assert!(matches!(stage.settled(&by_second).await, State::Online { .. }));

    unseen(third.key_set());
    assert_eq!(done(&stage.data, &["tokens", "reload", "--json"]), "{\"keys\":2}\n");
    let refusal = State::Ended(End::Refused(Code::TokenInvalid));
    assert_eq!(stage.settled(&by_second).await, refusal);
    let by_third = third.sign(&ed(), &claims_of("ann", "phone"));
    assert!(matches!(stage.settled(&by_third).await, State::Online { .. }));

    std::fs::write(stage.issuer.file(), "no keys").unwrap();
    let why = refused(&stage.data, &["tokens", "reload"], 1);
    assert!(why.contains("the keys of before stay"), "{why}");
    assert!(matches!(stage.settled(&by_third).await, State::Online { .. }));
}

#[test]
fn a_server_without_good_keys_does_not_start() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let keys = folder.path().join("keys");
    std::fs::write(&keys, "-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----\n")
        .unwrap();
    let serve = ["serve", "--listen", "127.0.0.1:0", "--token-keys", keys.to_str().unwrap()];
    let why = refused(&data, &serve, 1);
    assert!(why.contains("private key has no business here"), "{why}");
}
