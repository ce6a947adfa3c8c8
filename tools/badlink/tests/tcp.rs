//! TCP over the modelled path, where this machine lets a test make network namespaces.
#![expect(clippy::print_stdout, reason = "a test tells its figures")]

use std::io::ErrorKind;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use tern_badlink::{Captures, Plan, Protocol, Relay, Sharing};
use tern_netmodel::{Conditions, Profile};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// Bytes of the longer conversation.
const BYTES: usize = 300_000;

/// A relay before a listener; `None`, said aloud, where namespaces are not allowed.
async fn relay(conditions: Conditions) -> Option<(Relay, TcpListener)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a socket");
    let plan = Plan {
        listen: (Ipv4Addr::LOCALHOST, 0).into(),
        server: listener.local_addr().expect("bound"),
        profile: Profile::symmetric(conditions),
        seed: 5,
        protocol: Protocol::Tcp,
        sharing: Sharing::Each,
        captures: Captures::default(),
    };
    match Relay::start(plan).await {
        Ok(relay) => Some((relay, listener)),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            println!("TEST badlink-tcp not run: {error}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

fn run(test: impl Future<Output = Option<()>>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(test);
}

#[test]
fn a_connection_costs_the_round_trips_of_its_path() {
    run(async {
        let (relay, listener) = relay(Conditions::clear(30)).await?;
        let begun = Instant::now();
        let mut client = TcpStream::connect(relay.address()).await.expect("connected");
        client.write_all(b"hello").await.expect("written");
        let (mut server, _) = listener.accept().await.expect("accepted");
        let mut bytes = [0; 5];
        server.read_exact(&mut bytes).await.expect("read");
        server.write_all(&bytes).await.expect("written");
        client.read_exact(&mut bytes).await.expect("read");
        let took = begun.elapsed();
        assert!(took >= Duration::from_millis(120), "SYN, its answer, there and back: {took:?}");
        server.shutdown().await.expect("the server has said all");
        assert_eq!(client.read(&mut bytes).await.expect("an end"), 0);
        client.write_all(b"still").await.expect("the other half is open");
        server.read_exact(&mut bytes).await.expect("read");
        assert_eq!(&bytes, b"still");
        println!("TEST badlink-tcp rtt_ms=60 first_answer_ms={}", took.as_millis());
        Some(())
    });
}

#[test]
fn losses_cost_time_and_no_bytes() {
    run(async {
        let bad = Conditions { loss_percent: 3.0, jitter_ms: 2, ..Conditions::clear(4) };
        let (relay, listener) = relay(bad).await?;
        let said: Vec<u8> = (0..BYTES).map(|at| (at % 251) as u8).collect();
        let echo = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.expect("accepted");
            let (mut from, mut to) = stream.into_split();
            tokio::io::copy(&mut from, &mut to).await.expect("all of it")
        });
        let (mut from, mut to) =
            TcpStream::connect(relay.address()).await.expect("connected").into_split();
        let sent = said.clone();
        let write = tokio::spawn(async move {
            to.write_all(&sent).await.expect("written");
            to.shutdown().await.expect("said all");
        });
        let mut heard = Vec::new();
        from.read_to_end(&mut heard).await.expect("read to the end");
        write.await.expect("no panic");
        assert_eq!(echo.await.expect("no panic"), BYTES as u64);
        assert!(heard == said, "{} bytes came back", heard.len());
        let figures = relay.figures();
        let (up, down) = (figures.up, figures.down);
        println!("TEST badlink-tcp bytes={BYTES} lost_up={} lost_down={}", up.lost, down.lost);
        assert!(up.lost > 0 && down.lost > 0, "{figures:?}");
        Some(())
    });
}

#[test]
fn a_connection_does_not_survive_another_address() {
    run(async {
        let (relay, listener) = relay(Conditions::clear(1)).await?;
        let mut client = TcpStream::connect(relay.address()).await.expect("connected");
        client.write_all(b"a").await.expect("written");
        let (mut server, _) = listener.accept().await.expect("accepted");
        let mut byte = [0];
        server.read_exact(&mut byte).await.expect("read");
        relay.rebind();
        let error = loop {
            if let Err(error) = client.write_all(b"b").await {
                break error;
            }
            tokio::time::sleep(Duration::from_millis(5)).await; // each byte is a packet
        };
        let kinds = [ErrorKind::ConnectionReset, ErrorKind::BrokenPipe];
        assert!(kinds.contains(&error.kind()), "{error}");
        assert_eq!(relay.figures().nat.rebound, 1);
        Some(())
    });
}

#[test]
fn a_server_that_is_not_there_resets() {
    run(async {
        let (relay, listener) = relay(Conditions::clear(1)).await?;
        drop(listener);
        let mut client = TcpStream::connect(relay.address()).await.expect("by the relay");
        let mut byte = [0];
        let read = client.read(&mut byte).await;
        assert!(
            matches!(read, Err(ref error) if error.kind() == ErrorKind::ConnectionReset),
            "{read:?}"
        );
        Some(())
    });
}
