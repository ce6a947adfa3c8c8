//! NATS with JetStream, twice: as it comes, where the disk is synced every two minutes, and with
//! a sync before each answer.

use std::path::{Path, PathBuf};

use tern_bench::error::BenchError;

use super::child::{Home, Recipe, Running, first_line};
use super::{Peer, Places, Promise, Server, Site};
use crate::client;
use crate::client::dialect::Dialect;

/// NATS with one configuration.
pub struct Nats {
    name: &'static str,
    title: &'static str,
    promise: Promise,
    setup: &'static str,
    /// `jetstream { sync_interval }`.
    sync_interval: &'static str,
}

/// With a sync before each answer.
pub const SYNCED: Nats = Nats {
    name: "nats-sync",
    title: "NATS JetStream, sync always",
    promise: Promise::Durable,
    setup: "TLS 1.3; one stream on disk, `sync_interval: always`, a message id with each message; \
            a durable push consumer of each device, each message acknowledged",
    sync_interval: "always",
};

/// As it comes.
pub const DEFAULT: Nats = Nats {
    name: "nats",
    title: "NATS JetStream, default sync",
    promise: Promise::Later,
    setup: "TLS 1.3; one stream on disk, `sync_interval: 2m` as by default, a message id with each \
            message; a durable push consumer of each device, each message acknowledged",
    sync_interval: "2m",
};

impl Peer for Nats {
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

    fn find(&self, places: &Places) -> Option<PathBuf> {
        places.find("nats-server")
    }

    fn version(&self, program: &Path) -> String {
        first_line(program, &["--version"])
    }

    fn start(&self, program: &Path, site: &Site) -> Result<Box<dyn Server>, BenchError> {
        let home = Home::new(site)?;
        let (port, folder, sync) = (home.port, home.path().display(), self.sync_interval);
        let text = format!(
            "listen: \"127.0.0.1:{port}\"\nserver_name: peer\n\
             tls {{ cert_file: \"{folder}/cert.pem\", key_file: \"{folder}/key.pem\", \
             handshake_first: true }}\n\
             jetstream {{ store_dir: \"{folder}/store\", sync_interval: {sync} }}\n"
        );
        let config = home.write("nats.conf", &text)?;
        Ok(Box::new(Running::start(home, Recipe::plain(program, &["-c", &config], speak), site)?))
    }
}

/// One connection a device.
fn speak(device: usize) -> Vec<Box<dyn Dialect>> {
    vec![Box::new(client::nats::Nats::new(device))]
}
