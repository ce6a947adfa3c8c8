//! The two ends of the path: a thread in a network namespace of its own, with a tunnel out of it.
//!
//! A socket belongs for ever to the namespace in which it was made, whichever thread uses it
//! later: so these threads only make sockets, and hand them over.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::thread;

use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};

use super::tun::Tun;
use super::{FAR, NEAR};

/// The port at the far end; any would do.
const PORT: u16 = 7;

/// Connections that wait to be made, or to be taken.
const WAITING_MAX: usize = 1_024;

/// Asks for a connection over the path.
pub(super) type Connector = mpsc::Sender<oneshot::Sender<io::Result<TcpStream>>>;

/// Connections that came out of the path.
pub(super) type Accepted = mpsc::Receiver<TcpStream>;

/// The clients' end: makes connections.
pub(super) fn near() -> io::Result<(Tun, Connector)> {
    let (connector, mut wanted) = mpsc::channel::<oneshot::Sender<_>>(WAITING_MAX);
    let tun = start(NEAR, async move {
        while let Some(answer) = wanted.recv().await {
            tokio::spawn(async move {
                // Who asked may have gone meanwhile.
                let _ = answer.send(connect().await);
            });
        }
        Ok(())
    })?;
    Ok((tun, connector))
}

/// The server's end: takes connections.
pub(super) fn far() -> io::Result<(Tun, Accepted)> {
    let (tell, accepted) = mpsc::channel(WAITING_MAX);
    let tun = start(FAR, async move {
        let listener = TcpListener::bind((FAR, PORT)).await?;
        loop {
            let came = tokio::select! {
                came = listener.accept() => came,
                () = tell.closed() => return Ok(()),
            };
            // A connection that is gone before it is taken is none.
            let Ok((stream, _)) = came else { continue };
            if tell.send(stream.into_std()?).await.is_err() {
                return Ok(());
            }
        }
    })?;
    Ok((tun, accepted))
}

async fn connect() -> io::Result<TcpStream> {
    let far: SocketAddr = SocketAddrV4::new(FAR, PORT).into();
    tokio::net::TcpStream::connect(far).await?.into_std()
}

/// Starts a thread in a new namespace, gives its tunnel, and lets it do its work.
fn start(
    address: Ipv4Addr,
    work: impl Future<Output = io::Result<()>> + Send + 'static,
) -> io::Result<Tun> {
    let (tell, told) = std::sync::mpsc::sync_channel(1);
    let body = move || {
        let tun = Tun::in_new_namespace(address);
        let is_made = tun.is_ok();
        if tell.send(tun).is_err() || !is_made {
            return;
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        // Without an end of the path no connection is made, which its clients see.
        let _ = runtime.and_then(|runtime| runtime.block_on(work));
    };
    thread::Builder::new().name("badlink-namespace".to_owned()).spawn(body)?;
    told.recv().map_err(|_| io::Error::other("the namespace's thread ended"))?
}
