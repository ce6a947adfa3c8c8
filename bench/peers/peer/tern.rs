//! Tern, twice: with every message on the disk before its answer, and with every message in the
//! page cache.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use tern_badlink::Protocol;
use tern_bench::error::BenchError;
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
}

/// With every message on the disk before its answer: the default.
pub const TERN: Tern = Tern {
    name: "tern",
    title: "Tern",
    promise: Promise::Durable,
    setup: "QUIC; `durability=disk` as by default, no limit of messages a second; messages also go \
            to the sender's own devices, as a chat wants them, which counts as no delivery",
    durability: "disk",
};

/// With every message in the page cache before its answer.
pub const TERN_LATER: Tern = Tern {
    name: "tern-process",
    title: "Tern, durability=process",
    promise: Promise::Later,
    setup: "QUIC; `durability=process`: an answer survives `kill -9` and not a power cut",
    durability: "process",
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

    fn find(&self, places: &Places) -> Option<PathBuf> {
        let named = places.tern.clone().or_else(|| Some(places.beside.join("tern")));
        named.filter(|file| file.is_file())
    }

    fn version(&self, program: &Path) -> String {
        first_line(program, &["--version"])
    }

    fn start(&self, program: &Path, site: &Site) -> Result<Box<dyn Server>, BenchError> {
        let options = [("durability", self.durability)].into_iter().chain(LIMITS);
        let options = options.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let plan = Plan { tern: program.to_owned(), options, ..site.plan.clone() };
        let server = system::Server::start(&plan)?;
        Ok(Box::new(Running { server, plan }))
    }
}

struct Running {
    server: system::Server,
    plan: Plan,
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
        Ok(Box::new(client::tern::Tern::new(address, self.server.pin(), identities, seed)?))
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
