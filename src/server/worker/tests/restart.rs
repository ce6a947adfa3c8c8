//! A server that died is noticed by clients that say nothing.

use std::path::Path;

use quinn::ConnectionError;

use super::super::take_peers;
use super::harness::{Client, LONG, Plan, Server, run};
use super::network::move_away;

fn plan(peers: &Path) -> Plan<'_> {
    Plan { peers: Some(peers), ..Plan::default() }
}

/// Dies as a crash would, and starts anew on the same port.
fn restart(server: Server, plan: Plan<'_>) -> Server {
    let listen = server.workers.address();
    server.workers.stop();
    Server::start(Plan { listen, ..plan })
}

async fn expect_reset(client: &Client) {
    let error = client.connection.closed().await;
    assert!(matches!(error, ConnectionError::Reset), "{error}");
}

#[test]
fn s08_idle_clients_of_a_crashed_server_are_reset_whatever_the_number_of_workers() {
    for (before, after) in [(2, 2), (2, 1), (1, 3)] {
        run(async {
            let folder = tempfile::tempdir().expect("a temporary folder");
            let server = Server::start(Plan { workers: before, ..plan(folder.path()) });
            let mut clients = Vec::new();
            for _ in 0..5 {
                clients.push(Client::connect(server.workers.address()).await);
            }
            server.until("connected", |counts| counts.links_opened == 5).await;
            server.until_quiet().await;
            let server = restart(server, Plan { workers: after, ..plan(folder.path()) });
            for client in &clients {
                expect_reset(client).await;
            }
            let counts = server.until("sent", |counts| counts.resets_restart >= 5).await;
            assert_eq!(counts.resets, 0, "no client had to ask");
        });
    }
}

#[test]
fn a_client_that_moved_before_the_crash_is_found() {
    run(async {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let server = Server::start(plan(folder.path()));
        let mut client = Client::connect(server.workers.address()).await;
        client.hello().await;
        for round in 0..3 {
            move_away(&client);
            client.ping(round).await;
        }
        server.until("moved", |counts| counts.migrations == 3).await;
        server.until_quiet().await;
        let server = restart(server, plan(folder.path()));
        expect_reset(&client).await;
        assert_eq!(server.counts().resets, 0, "the client did not have to ask");
    });
}

/// The server has many addresses; the client knows one that the system would not choose.
#[test]
fn a_reset_comes_from_the_address_that_the_client_knows() {
    run(async {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let listen = "0.0.0.0:0".parse().expect("an address");
        let server = Server::start(Plan { listen, ..plan(folder.path()) });
        let mut address = server.workers.address();
        address.set_ip([127, 0, 0, 9].into());
        let client = Client::connect(address).await;
        server.until("connected", |counts| counts.links_opened == 1).await;
        server.until_quiet().await;
        let server = restart(server, plan(folder.path()));
        expect_reset(&client).await;
        assert_eq!(server.counts().resets, 0, "the client did not have to ask");
    });
}

#[test]
fn a_client_that_speaks_is_reset_without_a_list() {
    run(async {
        let server = Server::start(Plan::default());
        let mut client = Client::connect(server.workers.address()).await;
        client.ping(1).await;
        let server = restart(server, Plan::default());
        client.command("close").await;
        expect_reset(&client).await;
        assert!(server.counts().resets > 0);
    });
}

#[test]
fn only_live_connections_are_listed() {
    run(async {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let server = Server::start(plan(folder.path()));
        let address = server.workers.address();
        let mut clients = Vec::new();
        for _ in 0..4 {
            let mut client = Client::connect(address).await;
            client.ping(1).await;
            clients.push(client);
        }
        clients[0].command("close").await;
        clients[0].closed().await;
        clients[1].connection.close(0_u32.into(), b"");
        server.until("gone", |counts| counts.links_now == 2).await;
        server.workers.stop();
        let mut listed: Vec<_> = take_peers(folder.path()).expect("read");
        listed.sort_by_key(|peer| peer.address);
        let mut live =
            [&clients[2], &clients[3]].map(|client| client.endpoint.local_addr().expect("bound"));
        live.sort_unstable();
        assert!(listed.iter().map(|peer| peer.address).eq(live));
    });
}

#[test]
fn an_orderly_end_leaves_nobody_listed() {
    run(async {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let server = Server::start(plan(folder.path()));
        let mut client = Client::connect(server.workers.address()).await;
        client.hello().await;
        let drain = tokio::task::spawn_blocking(move || server.workers.drain(LONG).len());
        client.closed().await;
        drain.await.expect("no panic");
        assert_eq!(take_peers(folder.path()).expect("read"), []);
    });
}
