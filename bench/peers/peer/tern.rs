//! Tern, with every message on the disk before its answer, and with every message in the page
//! cache; the latter also with each of the carriers that messages can have.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use tern_badlink::Protocol;
use tern_bench::error::BenchError;
use tern_bench::load::Datagrams;
use tern_bench::measure::process::Process;
use tern_bench::system::{self, Plan};

use super::child::first_line;
use super::{Peer, Places, Promise, Server, Site};
use crate::client::{self, Load};

/// Tern with one configuration.
pub struct Tern {
    name: &'static str,
    title: &'static str,
    promise: Promise,
    setup: &'static str,
    /// `--durability`.
    durability: &'static str,
    carrier: Datagrams,
    /// Whether it stands here for its carrier alone.
    is_a_carrier: bool,
}

/// With every message on the disk before its answer: the default.
pub const TERN: Tern = Tern {
    name: "tern",
    title: "Tern",
    promise: Promise::Durable,
    setup: "QUIC; `durability=disk` as by default, no limit of messages a second; messages also go \
            to the sender's own devices, as a chat wants them, which counts as no delivery",
    durability: "disk",
    carrier: Datagrams::Doubled,
    is_a_carrier: false,
};

/// With every message in the page cache before its answer.
pub const TERN_LATER: Tern = Tern {
    name: "tern-process",
    title: "Tern, durability=process",
    promise: Promise::Later,
    setup: "QUIC; `durability=process`: an answer survives `kill -9` and not a power cut",
    durability: "process",
    carrier: Datagrams::Doubled,
    is_a_carrier: false,
};

/// Messages on the ordered stream alone.
pub const TERN_STREAMS: Tern = Tern {
    name: "tern-process-streams",
    title: "Tern, durability=process, by stream",
    setup: "the same; messages go by the one ordered stream, which QUIC repairs",
    carrier: Datagrams::Off,
    is_a_carrier: true,
    ..TERN_LATER
};

/// Messages on the ordered stream, and past it what is not acknowledged.
pub const TERN_REPEATED: Tern = Tern {
    name: "tern-process-repeated",
    title: "Tern, durability=process, by stream, repeated by datagram",
    setup: "the same; messages go by stream, and what is not acknowledged in 5/4 of a round trip \
            and 30 ms once more by datagram",
    carrier: Datagrams::Repeated,
    is_a_carrier: true,
    ..TERN_LATER
};

/// Messages by one datagram each, repaired by stream.
pub const TERN_SINGLE: Tern = Tern {
    name: "tern-process-datagrams",
    title: "Tern, durability=process, by datagram",
    setup: "the same; single messages go by one datagram, and what is not acknowledged in 5/4 of a \
            round trip and 30 ms by stream",
    carrier: Datagrams::Single,
    is_a_carrier: true,
    ..TERN_LATER
};

/// Limits of a device, as good as none: the others have none.
const LIMITS: [(&str, &str); 2] = [("sends-per-second", "1000000"), ("sends-burst", "1000000")];

impl Peer for Tern {
    fn name(&self) -> &'static str {
        self.name
    }

    fn title(&self) -> &'static str {
        self.title
    }

    fn promise(&self) -> Promise {
        self.promise
    }

    fn setup(&self) -> &'static str {
        self.setup
    }

    fn carrier(&self) -> Protocol {
        Protocol::Udp
    }

    fn is_a_carrier(&self) -> bool {
        self.is_a_carrier
    }

    fn find(&self, places: &Places) -> Option<PathBuf> {
        let named = places.tern.clone().or_else(|| Some(places.beside.join("tern")));
        named.filter(|file| file.is_file())
    }

    fn version(&self, program: &Path) -> String {
        first_line(program, &["--version"])
    }

    fn start(&self, program: &Path, site: &Site) -> Result<Box<dyn Server>, BenchError> {
        let own = [("durability", self.durability), ("datagrams", self.carrier.server_option())];
        let options = own.into_iter().chain(LIMITS);
        let options = options.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let plan = Plan { tern: program.to_owned(), options, ..site.plan.clone() };
        let server = system::Server::start(&plan)?;
        Ok(Box::new(Running { server, plan, carrier: self.carrier }))
    }
}

struct Running {
    server: system::Server,
    plan: Plan,
    carrier: Datagrams,
}

impl Server for Running {
    fn address(&self) -> SocketAddr {
        self.server.address()
    }

    fn process(&self) -> Result<Process, BenchError> {
        self.server.process()
    }

    fn load(
        &self,
        address: SocketAddr,
        devices: usize,
        seed: u64,
    ) -> Result<Box<dyn Load>, BenchError> {
        let identities = self.server.add_users(devices)?;
        let pin = self.server.pin();
        Ok(Box::new(client::tern::Tern::new(address, pin, identities, self.carrier, seed)?))
    }

    fn kill(&mut self) -> Result<(), BenchError> {
        self.server.kill()
    }

    fn start_again(&mut self) -> Result<(), BenchError> {
        self.server.start_again(&self.plan)
    }

    fn words(&self) -> String {
        self.server.words()
    }
}
