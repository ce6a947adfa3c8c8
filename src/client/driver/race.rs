//! Finding the server: addresses are tried in a race, and the first that completes the handshake
//! wins; nothing else is said to the others.
//!
//! What comes in: names, and the addresses at which the device logged in before. What goes out: one
//! connection with its stream, or why there is none. The order (after RFC 8305, with names that
//! may be different servers):
//!
//! - The last address that worked on this kind of network begins, without asking any name. The
//!   others follow only if it does not answer within two of its round trips.
//! - Without one, the first address of each name begins at once, so the nearest server wins.
//! - Every further one begins [`STAGGER`] after the one before, or when one fails: known ones
//!   first, then those that names lead to, IPv6 and IPv4 in turn.

use std::collections::{HashSet, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use quinn::{ClientConfig, Connection, ConnectionError, Endpoint, RecvStream, SendStream};
use tern_protocol::Code;
use tern_protocol::frames::Network;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use super::link::{Problem, server_code};
use super::transport::local_address;
use crate::servers::{KnownServer, Resolve};

/// Time between two attempts: that of RFC 8305 §8.
const STAGGER: Duration = Duration::from_millis(250);

/// Bounds of the time in ms that the last good address has for itself: below, a hiccup would
/// already start a race; above, a server that is gone would cost a second.
const HEAD_START_MS_BOUNDS: (u32, u32) = (100, 1_000);

/// Time in ms that an address gets: a lost first packet and a slow path still fit.
const ADDRESS_MS_MAX: u64 = 3_000;

/// Attempts under way at once: each is a socket, and work for a server.
const ATTEMPTS_MAX: usize = 8;

/// Where a connection goes.
pub(super) struct Target {
    /// `host:port`, each.
    pub(super) servers: Vec<String>,
    /// Addresses that worked, the last one first.
    pub(super) known: Vec<KnownServer>,
    pub(super) network: Network,
    pub(super) resolver: Arc<dyn Resolve>,
    pub(super) config: ClientConfig,
    /// The local address, if it was chosen.
    pub(super) bind: Option<SocketAddr>,
}

/// An address, and the name that led there.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Via {
    pub(super) name: String,
    pub(super) address: SocketAddr,
}

/// A connection that is there.
pub(super) struct Opened {
    pub(super) via: Via,
    pub(super) endpoint: Endpoint,
    pub(super) connection: Connection,
    pub(super) send: SendStream,
    pub(super) receive: RecvStream,
}

/// Why there is none, with the server's code if it gave one.
pub(super) type Failed = (Option<Code>, Problem);

/// Opens a connection to whoever answers first.
pub(super) async fn open(target: &Target) -> Result<Opened, Failed> {
    let mut race = Race::new(target);
    loop {
        let may_start = !race.waiting.is_empty() && race.attempts.len() < ATTEMPTS_MAX;
        tokio::select! {
            Some(done) = race.attempts.join_next(), if !race.attempts.is_empty() => match done {
                Ok(Ok(opened)) => return Ok(*opened),
                Ok(Err(failed)) => race.failed(failed),
                // A task that panicked or was stopped has nothing to tell.
                Err(_) => race.next_at = Instant::now(),
            },
            Some(found) = race.lookups.join_next(), if !race.lookups.is_empty() => {
                if let Ok((name, found)) = found {
                    race.found(&name, found);
                }
            }
            () = sleep_until(race.next_at), if may_start => race.start_next(),
            else => break,
        }
    }
    let nowhere = || (None, Problem::Address("no server has an address".to_owned()));
    Err(race.failure.unwrap_or_else(nowhere))
}

struct Race<'a> {
    target: &'a Target,
    /// Addresses whose turn comes.
    waiting: VecDeque<Via>,
    seen: HashSet<Via>,
    attempts: JoinSet<Result<Box<Opened>, Failed>>,
    lookups: JoinSet<(String, io::Result<Vec<SocketAddr>>)>,
    /// Whether the last good address has its head start.
    has_head_start: bool,
    /// Names of which an address was started.
    started: HashSet<String>,
    next_at: Instant,
    failure: Option<Failed>,
}

impl<'a> Race<'a> {
    fn new(target: &'a Target) -> Self {
        let mut race = Self {
            target,
            waiting: VecDeque::new(),
            seen: HashSet::new(),
            attempts: JoinSet::new(),
            lookups: JoinSet::new(),
            has_head_start: false,
            started: HashSet::new(),
            next_at: Instant::now(),
            failure: None,
        };
        race.begin_with_known();
        for name in &target.servers {
            let (name, lookup) = (name.clone(), target.resolver.resolve(name));
            race.lookups.spawn(async move { (name, lookup.await) });
        }
        race
    }

    /// The last good one of this kind of network goes ahead; on another kind all of them race.
    fn begin_with_known(&mut self) {
        let Target { servers, known, network, .. } = self.target;
        let is_named = |known: &&KnownServer| servers.contains(&known.name);
        let (here, elsewhere): (Vec<_>, Vec<_>) =
            known.iter().filter(is_named).partition(|known| known.network == *network);
        let via = |known: &KnownServer| Via { name: known.name.clone(), address: known.address };
        if let Some(last_good) = here.first() {
            let (least, most) = HEAD_START_MS_BOUNDS;
            let head_start_ms = last_good.rtt_ms.saturating_mul(2).clamp(least, most);
            self.has_head_start = true;
            self.add(via(last_good));
            self.start_next();
            self.next_at = Instant::now() + Duration::from_millis(head_start_ms.into());
        }
        for known in here.into_iter().chain(elsewhere) {
            self.add(via(known));
        }
    }

    /// One more, unless it is there; the first one of a name begins at once.
    fn add(&mut self, via: Via) {
        if !self.seen.insert(via.clone()) {
            return;
        }
        let is_first = !self.started.contains(&via.name);
        if is_first && !self.has_head_start && self.attempts.len() < ATTEMPTS_MAX {
            self.start(via);
        } else {
            self.waiting.push_back(via);
        }
    }

    /// What a name leads to.
    fn found(&mut self, name: &str, found: io::Result<Vec<SocketAddr>>) {
        let addresses = match found {
            Ok(addresses) if !addresses.is_empty() => addresses,
            Ok(_) => return self.note((None, Problem::Address(format!("{name} has no address")))),
            Err(error) => return self.note((None, Problem::Address(format!("{name}: {error}")))),
        };
        for address in in_turn(addresses) {
            self.add(Via { name: name.to_owned(), address });
        }
    }

    fn start_next(&mut self) {
        if let Some(via) = self.waiting.pop_front() {
            self.start(via);
        }
    }

    fn start(&mut self, via: Via) {
        self.started.insert(via.name.clone());
        self.next_at = Instant::now() + STAGGER;
        let (config, bind) = (self.target.config.clone(), self.target.bind);
        self.attempts.spawn(async move {
            let limit = Duration::from_millis(ADDRESS_MS_MAX);
            let address = via.address;
            timeout(limit, attempt(via, config, bind)).await.unwrap_or_else(|_| {
                Err((None, Problem::Connection(format!("no answer from {address}"))))
            })
        });
    }

    fn failed(&mut self, failed: Failed) {
        self.note(failed);
        self.next_at = Instant::now();
    }

    /// Keeps the failure that tells most: what a server said, then what is wrong with its
    /// certificate, then the newest.
    fn note(&mut self, failed: Failed) {
        let weight = |failed: &Failed| match failed {
            (Some(_), _) => 2,
            (None, Problem::Tls(_)) => 1,
            (None, Problem::Address(_) | Problem::Connection(_)) => 0,
        };
        if self.failure.as_ref().is_none_or(|old| weight(old) <= weight(&failed)) {
            self.failure = Some(failed);
        }
    }
}

/// IPv6 and IPv4 in turn, each in the order in which the name gave them.
fn in_turn(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let (six, four): (Vec<_>, Vec<_>) = addresses.into_iter().partition(SocketAddr::is_ipv6);
    let longest = six.len().max(four.len());
    (0..longest).flat_map(|n| [six.get(n), four.get(n)]).flatten().copied().collect()
}

async fn attempt(
    via: Via,
    config: ClientConfig,
    bind: Option<SocketAddr>,
) -> Result<Box<Opened>, Failed> {
    let endpoint = Endpoint::client(local_address(bind, via.address))
        .map_err(|error| (None, Problem::Address(error.to_string())))?;
    let connecting = endpoint
        .connect_with(config, via.address, host(&via.name))
        .map_err(|error| (None, Problem::Address(error.to_string())))?;
    let lost = |error: ConnectionError| (server_code(&error), error.into());
    let connection = connecting.await.map_err(lost)?;
    let (send, receive) = connection.open_bi().await.map_err(lost)?;
    Ok(Box::new(Opened { via, endpoint, connection, send, receive }))
}

/// The host of `host:port`, without the brackets of an IPv6 address.
fn host(server: &str) -> &str {
    let host = server.rsplit_once(':').map_or(server, |(host, _)| host);
    host.trim_start_matches('[').trim_end_matches(']')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_of_every_kind_of_server() {
        for (server, expected) in [
            ("127.0.0.1:5190", "127.0.0.1"),
            ("[::1]:5190", "::1"),
            ("chat.example:5190", "chat.example"),
        ] {
            assert_eq!(host(server), expected);
        }
    }

    #[test]
    fn families_take_turns() {
        let [one, two] = [1, 2].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
        let six = SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], 6));
        assert_eq!(in_turn(vec![one, two, six]), [six, one, two]);
        assert_eq!(in_turn(vec![one, two]), [one, two]);
        assert_eq!(in_turn(Vec::new()), []);
    }
}
