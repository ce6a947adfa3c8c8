//! Where the server is: names that lead to addresses, and the addresses that worked.
//!
//! A client is given one or more servers as `HOST:PORT`, in one text with commas between. The
//! addresses that it logged in at are remembered, the last one first, so that it finds its server
//! also when no name leads anywhere any more.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;

use tern_protocol::frames::Network;

/// Most addresses that are remembered: some servers, on each kind of network.
pub const KNOWN_SERVERS_MAX: usize = 32;

/// An address at which a device has logged in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KnownServer {
    /// What led there: `HOST:PORT`, as the client was given it.
    pub name: String,
    /// The address.
    pub address: SocketAddr,
    /// On which kind of network that was.
    pub network: Network,
    /// Round-trip time of the path in milliseconds, as it was last.
    pub rtt_ms: u32,
}

/// The names in a text of one or more `HOST:PORT` with commas between.
///
/// # Errors
/// The first that is none; an empty one if the text names nothing.
pub fn parse_servers(text: &str) -> Result<Vec<String>, String> {
    let names: Vec<String> = text.split(',').map(|name| name.trim().to_owned()).collect();
    let is_server = |name: &&String| {
        let parts = name.rsplit_once(':');
        parts.is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
    };
    match names.iter().find(|name| !is_server(name)) {
        Some(bad) => Err(bad.clone()),
        None => Ok(names),
    }
}

/// Puts a server in front of those that are known, as the last one that worked.
pub(crate) fn remember(known: &mut Vec<KnownServer>, server: KnownServer) {
    let same = |other: &KnownServer| {
        (&other.name, other.address, other.network)
            == (&server.name, server.address, server.network)
    };
    known.retain(|other| !same(other));
    known.insert(0, server);
    known.truncate(KNOWN_SERVERS_MAX);
}

/// What a name leads to, some day.
pub type Resolved = Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send>>;

/// Leads from names to addresses. An application may bring its own way, such as one that asks over
/// HTTPS where the network's own answers are not to be trusted.
pub trait Resolve: Send + Sync {
    /// The addresses of a server, given as `HOST:PORT`.
    fn resolve(&self, server: &str) -> Resolved;
}

impl fmt::Debug for dyn Resolve {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Resolve")
    }
}

/// The way of the operating system.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemResolver;

impl Resolve for SystemResolver {
    fn resolve(&self, server: &str) -> Resolved {
        let server = server.to_owned();
        Box::pin(async move { Ok(tokio::net::lookup_host(&server).await?.collect()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_named_with_their_ports() {
        let two = parse_servers("chat.example:5190, [::1]:5191").unwrap();
        assert_eq!(two, ["chat.example:5190", "[::1]:5191"]);
        for (text, bad) in [("", ""), ("a:1,", ""), ("a:1,b", "b"), (":1", ":1"), ("a:x", "a:x")] {
            assert_eq!(parse_servers(text), Err(bad.to_owned()), "{text}");
        }
    }

    #[test]
    fn the_last_good_one_stands_first_and_once() {
        let server = |port: u16, network, rtt_ms| KnownServer {
            name: "chat.example:5190".to_owned(),
            address: ([127, 0, 0, 1], port).into(),
            network,
            rtt_ms,
        };
        let mut known = Vec::new();
        remember(&mut known, server(1, Network::Wifi, 10));
        remember(&mut known, server(2, Network::Wifi, 10));
        remember(&mut known, server(1, Network::Cellular, 90));
        remember(&mut known, server(1, Network::Wifi, 20));
        let expected = [
            server(1, Network::Wifi, 20),
            server(1, Network::Cellular, 90),
            server(2, Network::Wifi, 10),
        ];
        assert_eq!(known, expected);
        (0..100).for_each(|port| remember(&mut known, server(port, Network::Wired, 1)));
        assert_eq!(known.len(), KNOWN_SERVERS_MAX);
    }
}
