//! What clients and server write, carried in and out of the path.

use std::io;
use std::net::SocketAddr;

use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::{AbortHandle, JoinSet};

use super::namespace::{Accepted, Connector};

/// Bytes that the system keeps of what a client wrote before the path has taken them: little, so
/// that the client feels a path that is full. The system doubles it.
const NEAR_BUFFER_BYTES: usize = 32 * 1_024;

/// Starts to listen; where clients find it.
pub(super) async fn start(
    listen: SocketAddr,
    server: SocketAddr,
    connector: Connector,
    accepted: Accepted,
) -> io::Result<(SocketAddr, AbortHandle)> {
    let listener = TcpListener::bind(listen).await?;
    SockRef::from(&listener).set_recv_buffer_size(NEAR_BUFFER_BYTES)?; // those accepted inherit it
    let address = listener.local_addr()?;
    let task = tokio::spawn(run(listener, server, connector, accepted));
    Ok((address, task.abort_handle()))
}

async fn run(
    listener: TcpListener,
    server: SocketAddr,
    connector: Connector,
    mut accepted: Accepted,
) {
    let mut splices = JoinSet::new(); // those that run end with this task
    loop {
        tokio::select! {
            Ok((client, _)) = listener.accept() => {
                splices.spawn(enter(client, connector.clone()));
            }
            Some(out) = accepted.recv() => {
                splices.spawn(leave(out, server));
            }
            Some(_) = splices.join_next(), if !splices.is_empty() => {}
        }
    }
}

/// A client's connection goes into the path.
async fn enter(client: TcpStream, connector: Connector) {
    let (ask, answer) = oneshot::channel();
    let path = match connector.send(ask).await {
        Ok(()) => answer.await.unwrap_or_else(|_| Err(io::ErrorKind::BrokenPipe.into())),
        Err(_) => Err(io::ErrorKind::BrokenPipe.into()),
    };
    match path.and_then(TcpStream::from_std) {
        Ok(path) => join(client, path).await,
        Err(_) => reset(&client),
    }
}

/// A connection that came out of the path goes on to the server.
async fn leave(path: std::net::TcpStream, server: SocketAddr) {
    let Ok(path) = TcpStream::from_std(path) else { return };
    match TcpStream::connect(server).await {
        Ok(onward) => join(onward, path).await,
        Err(_) => reset(&path),
    }
}

/// Carries bytes and ends both ways; a reset of one side resets the other.
async fn join(mut outside: TcpStream, mut path: TcpStream) {
    for stream in [&outside, &path] {
        // What the client wrote at once leaves at once: its own Nagle has had its say.
        let _ = stream.set_nodelay(true);
    }
    if tokio::io::copy_bidirectional(&mut outside, &mut path).await.is_err() {
        reset(&outside);
        reset(&path);
    }
}

/// Closing the socket from now on says RST.
fn reset(stream: &TcpStream) {
    // A socket that can't be told so is closed in order.
    let _ = SockRef::from(stream).set_linger(Some(std::time::Duration::ZERO));
}
