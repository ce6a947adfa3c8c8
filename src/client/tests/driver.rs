//! The driver over real QUIC against a small server: what the machine decides really happens.

#[cfg(test)]
mod server;

use std::sync::Arc;
use std::time::Duration;

use server::Server;
use tern_client::machine::{End, Event, Identity, Message, Proof, SendOutcome, State, Tuning};
use tern_client::mailbox::{MailLimits, MailQuery, MailState};
use tern_client::servers::SystemResolver;
use tern_client::store::{DiskStore, MemoryStore, Store};
use tern_client::{Client, Events, Options, Problem, Trust};
use tern_protocol::frames::{Network, content_type};
use tern_protocol::{ChannelId, Code, DeviceId, Uin};

const ANN: Uin = Uin(10_001);
const BOB: Uin = Uin(10_002);

fn channel() -> ChannelId {
    ChannelId::direct(ANN, BOB)
}

fn options(server: &Server, uin: Uin, store: Box<dyn Store>) -> Options {
    Options {
        identity: Identity { uin, device: DeviceId(1), proof: Proof::Secret([7; 32]) },
        server: server.address.to_string(),
        resolver: Arc::new(SystemResolver),
        trust: Trust::Pin(server.pin()),
        store,
        network: Network::Wired,
        bind: None,
        sends_max: 1_000,
        tuning: Tuning::default(),
    }
}

fn client(server: &Server, uin: Uin) -> (Client, Events) {
    Client::connect(options(server, uin, Box::<MemoryStore>::default()))
        .expect("a store in memory and a pin can be had")
}

/// The first event that `wanted` takes; a minute is for a machine under load.
async fn wait_for<T>(events: &mut Events, mut wanted: impl FnMut(Event) -> Option<T>) -> T {
    let wait = async {
        loop {
            let event = events.next().await.expect("the client lives");
            if let Some(found) = wanted(event) {
                return found;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), wait).await.expect("it never came")
}

async fn next_message(events: &mut Events) -> Message {
    wait_for(events, |event| match event {
        Event::Message(message) => Some(message),
        _ => None,
    })
    .await
}

async fn online(events: &mut Events) {
    wait_for(events, |event| matches!(event, Event::State(State::Online { .. })).then_some(()))
        .await;
}

fn acked_id(outcome: SendOutcome) -> u64 {
    match outcome {
        SendOutcome::Acked { id, .. } => id.0,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_store_that_keeps_mail_has_each_message_once_though_nobody_confirms() {
    let server = Server::start();
    let folder = tempfile::tempdir().unwrap();
    let open = || {
        let store = DiskStore::open(&folder.path().join("bob.redb"), BOB, DeviceId(1)).unwrap();
        Box::new(store.with_mail(MailLimits::default()))
    };
    let (ann, _ann_events) = client(&server, ANN);
    let query = MailQuery { channel: channel(), before: None, limit: 99 };
    for life in 1..=3_u64 {
        let (bob, mut events) = Client::connect(options(&server, BOB, open())).unwrap();
        ann.send(channel(), content_type::TEXT, "from ann").await.unwrap();
        let own = bob.send(channel(), content_type::TEXT, "from bob").await.unwrap();
        let came: Vec<u64> = [next_message(&mut events).await, next_message(&mut events).await]
            .map(|message| message.position.id.0)
            .to_vec();
        assert_eq!(came, [2 * life - 1, 2 * life], "none of those before comes again");
        let kept = bob.mail(query).await.unwrap();
        let ids: Vec<u64> = kept.iter().map(|kept| kept.id.0).collect();
        assert_eq!(ids, (1..=2 * life).rev().collect::<Vec<_>>());
        let state = |id: u64| kept.iter().find(|kept| kept.id.0 == id).unwrap().state;
        assert_eq!(state(acked_id(own)), MailState::Acked);
        let others = kept.iter().filter(|kept| kept.sender == ANN);
        assert!(others.clone().all(|kept| kept.state == MailState::Received));
        assert_eq!(others.count() as u64, life);
        // Nothing of it was confirmed.
        bob.close().await;
    }
    // Without its server what it writes stands there too.
    let nowhere = Options { server: "127.0.0.1:9".to_owned(), ..options(&server, BOB, open()) };
    let (bob, _events) = Client::connect(nowhere).unwrap();
    bob.post(channel(), content_type::TEXT, "later", 0).await.unwrap();
    let kept = bob.mail(query).await.unwrap();
    assert_eq!((kept.len(), kept[0].state), (7, MailState::Unsent));
    assert_eq!(kept[0].content, "later");
    bob.close().await;
}

#[tokio::test]
async fn messages_go_there_and_back() {
    let server = Server::start();
    let (ann, mut ann_events) = client(&server, ANN);
    let (bob, mut bob_events) = client(&server, BOB);
    let id = acked_id(ann.send(channel(), content_type::TEXT, "hello").await.unwrap());
    assert_eq!(id, 1);
    let got = next_message(&mut bob_events).await;
    assert_eq!((got.sender, &got.content[..], got.position.id.0), (ANN, &b"hello"[..], 1));
    bob.delivered(got.position);
    assert_eq!(acked_id(bob.send(channel(), content_type::TEXT, "hi").await.unwrap()), 2);
    assert_eq!(&next_message(&mut ann_events).await.content[..], b"hello", "its own comes too");
    assert_eq!(&next_message(&mut ann_events).await.content[..], b"hi");
    ann.close().await;
    bob.logout().await;
}

#[tokio::test]
async fn a_wrong_pin_is_named_and_nothing_is_sent() {
    let server = Server::start();
    let mut wrong = options(&server, ANN, Box::<MemoryStore>::default());
    let mut pin = server.pin();
    pin[0] ^= 1;
    wrong.trust = Trust::Pin(pin);
    let (ann, mut events) = Client::connect(wrong).unwrap();
    wait_for(&mut events, |event| {
        matches!(event, Event::State(State::Offline { .. })).then_some(())
    })
    .await;
    assert!(matches!(ann.problem(), Some(Problem::Tls(_))), "{:?}", ann.problem());
    assert_eq!(server.logins(), 0);
}

#[tokio::test]
async fn a_certificate_authority_is_trusted_for_its_names_alone() {
    let server = Server::start();
    let roots = Trust::Roots(vec![server.certificate.clone()]);
    let port = server.address.port();
    for (host, trusted) in [("localhost", true), ("127.0.0.1", false)] {
        let mut by_roots = options(&server, ANN, Box::<MemoryStore>::default());
        by_roots.trust = roots.clone();
        by_roots.server = format!("{host}:{port}");
        let (_ann, mut events) = Client::connect(by_roots).unwrap();
        let is_online = wait_for(&mut events, |event| match event {
            Event::State(State::Online { .. }) => Some(true),
            Event::State(State::Offline { .. }) => Some(false),
            _ => None,
        });
        assert_eq!(is_online.await, trusted, "{host}");
    }
}

#[tokio::test]
async fn wrong_credentials_end_it_and_waiting_sends_hear_of_it() {
    let server = Server::start();
    let mut wrong = options(&server, ANN, Box::<MemoryStore>::default());
    wrong.identity.proof = Proof::Secret([0; 32]);
    let (ann, mut events) = Client::connect(wrong).unwrap();
    let sent = ann.send(channel(), content_type::TEXT, "never").await;
    assert!(sent.is_err());
    let end = wait_for(&mut events, |event| match event {
        Event::State(State::Ended(end)) => Some(end),
        _ => None,
    });
    assert_eq!(end.await, End::Refused(Code::BadCredentials));
    assert!(ann.send(channel(), content_type::TEXT, "nor later").await.is_err());
}

#[tokio::test]
async fn a_session_goes_on_after_lost_connections_and_a_restart() {
    let mut server = Server::start();
    let (ann, mut events) = client(&server, ANN);
    online(&mut events).await;
    for round in 0..3u64 {
        for n in 0..20 {
            ann.post(channel(), content_type::TEXT, format!("{round}.{n}"), round).await.unwrap();
        }
        match round {
            0 => server.close_all(Code::Draining),
            1 => server.restart().await,
            _ => {}
        }
        for n in 1..=20 {
            let result = wait_for(&mut events, |event| match event {
                Event::Result(result) => Some(result),
                _ => None,
            })
            .await;
            assert_eq!(acked_id(result.outcome), round * 20 + n);
            ann.settled(result.send);
        }
    }
    let expected: Vec<Vec<u8>> = (0..3)
        .flat_map(|round| (0..20).map(move |n| format!("{round}.{n}").into_bytes()))
        .collect();
    assert_eq!(server.contents(channel()), expected);
    assert!(server.logins() >= 3);
}

#[tokio::test]
async fn a_new_address_keeps_the_session() {
    let server = Server::start();
    let (ann, mut events) = client(&server, ANN);
    online(&mut events).await;
    let before = *server.remotes().last().unwrap();
    ann.rebind().await.unwrap();
    ann.send(channel(), content_type::TEXT, "from elsewhere").await.unwrap();
    let after = *server.remotes().last().unwrap();
    assert_ne!(before, after);
    assert_eq!(server.logins(), 1);
}

#[tokio::test]
async fn what_was_not_confirmed_comes_again_after_a_crash_and_what_was_does_not() {
    let server = Server::start();
    let (ann, _events) = client(&server, ANN);
    for n in 1..=5 {
        ann.send(channel(), content_type::TEXT, n.to_string()).await.unwrap();
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bob.redb");
    let open = || Box::new(DiskStore::open(&path, BOB, DeviceId(1)).unwrap());
    let (bob, mut events) = Client::connect(options(&server, BOB, open())).unwrap();
    for n in 1..=3 {
        let message = next_message(&mut events).await;
        assert_eq!(message.position.id.0, n);
        if n < 3 {
            bob.delivered(message.position);
        }
    }
    bob.close().await;
    let (_bob, mut events) = Client::connect(options(&server, BOB, open())).unwrap();
    for n in 3..=5 {
        assert_eq!(next_message(&mut events).await.position.id.0, n);
    }
}

#[tokio::test]
async fn what_was_sent_to_nobody_leaves_at_the_next_start() {
    let server = Server::start();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ann.redb");
    let open = || Box::new(DiskStore::open(&path, ANN, DeviceId(1)).unwrap());
    let mut nowhere = options(&server, ANN, open());
    let unused = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    nowhere.server = unused.local_addr().unwrap().to_string();
    let (ann, _events) = Client::connect(nowhere).unwrap();
    for n in 0..3u64 {
        ann.send_nowait(channel(), content_type::TEXT, n.to_string(), 100 + n).unwrap();
    }
    ann.close().await;
    let (ann, mut events) = Client::connect(options(&server, ANN, open())).unwrap();
    for n in 0..3 {
        let result = wait_for(&mut events, |event| match event {
            Event::Result(result) => Some(result),
            _ => None,
        })
        .await;
        assert_eq!((result.tag, acked_id(result.outcome)), (100 + n, n + 1));
        ann.settled(result.send);
    }
    ann.close().await;
}

#[tokio::test]
async fn sends_beyond_the_bound_wait_for_room() {
    let server = Server::start();
    let mut small = options(&server, ANN, Box::<MemoryStore>::default());
    small.sends_max = 2;
    let (ann, mut events) = Client::connect(small).unwrap();
    for _ in 0..2 {
        ann.send_nowait(channel(), content_type::TEXT, "x", 0).unwrap();
    }
    assert_eq!(
        ann.send_nowait(channel(), content_type::TEXT, "x", 0),
        Err(tern_client::NotTaken::Full)
    );
    let result = wait_for(&mut events, |event| match event {
        Event::Result(result) => Some(result),
        _ => None,
    })
    .await;
    ann.settled(result.send);
    ann.post(channel(), content_type::TEXT, "y", 0).await.unwrap();
}

#[tokio::test]
async fn a_server_must_be_named_with_its_port() {
    let server = Server::start();
    let mut unnamed = options(&server, ANN, Box::<MemoryStore>::default());
    unnamed.server = "localhost".to_owned();
    assert!(Client::connect(unnamed).is_err());
}
