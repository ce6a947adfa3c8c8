//! The systems that are compared, behind one trait: each is found, started on a port and a folder
//! of its own with a stated configuration, killed, started again, and spoken to by the devices of
//! [`client`](super::client).

mod child;

pub mod ejabberd;
pub mod mosquitto;
pub mod nats;
pub mod redis;
pub mod rumqttd;
pub mod tern;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tern_badlink::Protocol;
use tern_bench::error::BenchError;
use tern_bench::measure::process::Process;
use tern_bench::system::Plan;

use super::client::Load;

pub use child::Certificate;

/// What an answer to a sender means: systems that mean different things stand in different tables.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Promise {
    /// The message is on the disk (`fdatasync` or the like has returned).
    Durable,
    /// The message is in memory or in the page cache, and goes to the disk later or never.
    Later,
}

/// A system with one configuration.
pub trait Peer: Sync {
    /// Its name on the command line and in files.
    fn name(&self) -> &'static str;

    /// Its name in tables.
    fn title(&self) -> &'static str;

    /// What its answer means.
    fn promise(&self) -> Promise;

    /// How it is configured, in a sentence or two.
    fn setup(&self) -> &'static str;

    /// What carries its messages.
    fn carrier(&self) -> Protocol {
        Protocol::Tcp
    }

    /// Whether it is another one of these systems and only carries messages in another way.
    fn is_a_carrier(&self) -> bool {
        false
    }

    /// Where its program is, if it is there.
    fn find(&self, places: &Places) -> Option<PathBuf>;

    /// What the program says of its version.
    fn version(&self, program: &Path) -> String;

    /// Starts it and waits until it can be connected to.
    ///
    /// # Errors
    /// When it does not start.
    fn start(&self, program: &Path, site: &Site) -> Result<Box<dyn Server>, BenchError>;
}

/// A system that runs.
pub trait Server: Send + Sync {
    /// Where it listens.
    fn address(&self) -> SocketAddr;

    /// The kernel's figures of it.
    ///
    /// # Errors
    /// When it is gone.
    fn process(&self) -> Result<Process, BenchError>;

    /// Devices for it, to come to `address`: its own, or that of a link to it.
    ///
    /// # Errors
    /// When they can't be had.
    fn load(
        &self,
        address: SocketAddr,
        devices: usize,
        seed: u64,
    ) -> Result<Box<dyn Load>, BenchError>;

    /// Kills it as `kill -9` does.
    ///
    /// # Errors
    /// When it can't be killed.
    fn kill(&mut self) -> Result<(), BenchError>;

    /// Starts it again after a kill, on the same folder and port, and waits until it can be
    /// connected to.
    ///
    /// # Errors
    /// When it does not start.
    fn start_again(&mut self) -> Result<(), BenchError>;

    /// The last that it said.
    fn words(&self) -> String;
}

/// Where systems are started.
pub struct Site {
    /// Where folders are made, on which cores servers run.
    pub plan: Plan,
    /// What servers over TCP show.
    pub certificate: Certificate,
}

/// Where programs are looked for.
#[derive(Clone, Debug)]
pub struct Places {
    /// The folder of those that [`install.sh`](../install.sh) puts beside the system's.
    pub own: PathBuf,
    /// The folder of this program.
    pub beside: PathBuf,
    /// Tern's program, if it was named.
    pub tern: Option<PathBuf>,
}

impl Places {
    /// A program by its name: the installed one first, then those of the system.
    pub fn find(&self, name: &str) -> Option<PathBuf> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let system = std::env::split_paths(&path).collect::<Vec<_>>();
        let more = ["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from);
        let folders = [self.own.join("bin")].into_iter().chain(system).chain(more);
        let found = folders.map(|folder| folder.join(name)).find(|file| file.is_file());
        found.and_then(|file| std::path::absolute(file).ok()) // servers have folders of their own
    }
}

/// All systems, in the order in which they are told.
pub fn all() -> Vec<Box<dyn Peer>> {
    vec![
        Box::new(tern::TERN),
        Box::new(nats::SYNCED),
        Box::new(redis::Redis),
        Box::new(tern::TERN_LATER),
        Box::new(tern::TERN_STREAMS),
        Box::new(tern::TERN_REPEATED),
        Box::new(tern::TERN_SINGLE),
        Box::new(mosquitto::Mosquitto),
        Box::new(rumqttd::Rumqttd),
        Box::new(nats::DEFAULT),
        Box::new(ejabberd::Ejabberd),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_are_names_of_files_and_differ() {
        let all = all();
        let names: BTreeSet<&str> = all.iter().map(|peer| peer.name()).collect();
        assert_eq!(names.len(), all.len());
        let is_plain = |name: &&str| name.chars().all(|c| c.is_ascii_lowercase() || c == '-');
        assert!(names.iter().all(is_plain), "{names:?}");
        assert!(all.iter().all(|peer| !peer.setup().is_empty()));
    }
}
