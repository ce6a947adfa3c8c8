//! What networks do: clients move, datagrams stray.

use super::double::Told;
use super::harness::{Client, Plan, Server, run};
use super::session::clients_of_both;

/// Moves the client to another port.
pub(super) fn move_away(client: &Client) {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("a free port");
    client.endpoint.rebind(socket).expect("rebound");
}

#[test]
fn a_client_that_moves_keeps_its_connection_and_its_worker() {
    run(async {
        let server = Server::start(Plan { workers: 3, ..Plan::default() });
        let mut client = Client::connect(server.workers.address()).await;
        let worker = client.hello().await;
        for round in 1..=8 {
            move_away(&client);
            client.ping(round.try_into().expect("small")).await;
            assert_eq!(client.hello().await, worker);
            server.until("moved", |counts| counts.migrations >= round).await;
        }
        let counts = server.counts();
        assert_eq!((counts.strays_out, counts.links_opened, counts.links_now), (0, 1, 1));
        assert!(matches!(server.told()[..], [Told::Opened(_)]));
    });
}

/// S-05: each address that a client claims to be at is sent a full packet, so they are few.
#[test]
fn s05_a_client_moves_no_more_often_than_it_may() {
    run(async {
        let server = Server::start(Plan::default());
        let mut client = Client::connect(server.workers.address()).await;
        client.ping(1).await;
        for round in 2..=10 {
            move_away(&client);
            client.ping(round).await; // from the ninth address on only after a pause
        }
        let counts = server.counts();
        assert_eq!((counts.migrations, counts.links_now), (9, 1));
        assert!(counts.moves_dropped > 0, "nine moves at once");
    });
}

/// S-11: the keys change again and again.
#[test]
fn s11_key_updates_are_followed() {
    run(async {
        let server = Server::start(Plan::default());
        let mut client = Client::connect(server.workers.address()).await;
        for sequence in 0..50 {
            client.ping(sequence).await;
            client.connection.force_key_update();
        }
        assert_eq!(server.counts().links_now, 1);
    });
}

/// Each socket belongs to the other worker here, so the steering is always wrong.
#[test]
fn strays_are_handed_over_and_counted() {
    run(async {
        let server = Server::start(Plan { crossed: true, ..Plan::default() });
        let mut clients = clients_of_both(&server).await;
        for client in &mut clients {
            for sequence in 0..20 {
                client.ping(sequence).await;
            }
        }
        let counts = server.counts();
        assert!(counts.datagrams_in > 40);
        let strays = (counts.strays_out, counts.strays_in + counts.strays_dropped);
        assert_eq!(strays, (counts.datagrams_in, counts.datagrams_in));
    });
}
