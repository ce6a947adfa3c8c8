//! A lossy link before a server: `tern-badlink`'s relay on a thread of its own, the same model for
//! datagrams and for TCP.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::mpsc::sync_channel;
use std::thread::JoinHandle;

use tern_badlink::{Captures, Figures, Plan, Protocol, Relay, Sharing};
use tern_bench::error::{BenchError, Tried};
use tern_netmodel::{Conditions, Profile};
use tokio::sync::oneshot;

/// A link that is open until it is closed.
pub struct Link {
    address: SocketAddr,
    close: oneshot::Sender<()>,
    thread: JoinHandle<Figures>,
}

impl Link {
    /// Opens one to `server`, the same both ways, a lane of its own for each address or connection.
    ///
    /// # Errors
    /// When it can't be had: for TCP it takes the right to make network namespaces.
    pub fn open(
        server: SocketAddr,
        protocol: Protocol,
        conditions: Conditions,
        seed: u64,
    ) -> Result<Self, BenchError> {
        let plan = Plan {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            server,
            profile: Profile::symmetric(conditions),
            seed,
            protocol,
            sharing: Sharing::Each,
            captures: Captures::default(),
        };
        let (close, closed) = oneshot::channel();
        let (tell, opened) = sync_channel(1);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let relay = runtime.and_then(|runtime| {
                let relay = runtime.block_on(Relay::start(plan))?;
                Ok((runtime, relay))
            });
            match relay {
                Ok((runtime, relay)) => {
                    // Who opened it waits for this.
                    let _ = tell.send(Ok(relay.address()));
                    // Closed, or forgotten: both end it.
                    let _ = runtime.block_on(closed);
                    relay.figures()
                }
                Err(error) => {
                    let _ = tell.send(Err(error));
                    Figures::default()
                }
            }
        });
        let address = opened.recv().expect("the thread tells before it ends");
        let address = address.tried("a lossy link")?;
        Ok(Self { address, close, thread })
    }

    /// Where clients find the server.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Closes it; what it did.
    pub fn close(self) -> Figures {
        // It may have ended by itself.
        let _ = self.close.send(());
        self.thread.join().expect("a link does not panic")
    }
}
