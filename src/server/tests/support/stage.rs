//! Where an attack takes place: a server with honest devices at work, and what is checked behind
//! every attack.

use std::fmt::Display;

use tempfile::TempDir;

use super::dial::Dial;
use super::honest::Honest;
use super::peer::Peer;
use super::server::{ANY_PORT, Account, Figures, Server};

/// A server under attack.
pub struct Stage {
    name: &'static str,
    pub server: Server,
    honest: Honest,
    before: Figures,
    rss_kib: u64,
    _folder: TempDir,
}

impl Stage {
    /// Starts a server with these options and the honest pair.
    pub fn start(name: &'static str, options: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let server = Server::start(&folder.path().join("data"), ANY_PORT, options);
        let honest = Honest::start(&server);
        let (before, rss_kib) = (server.figures(), server.rss_kib());
        Self { name, server, honest, before, rss_kib, _folder: folder }
    }

    /// A new user's device, logged in.
    pub fn device(&self, name: &str) -> (Peer, Account, u32) {
        let account = self.server.user(name);
        let (peer, logged_in) = Peer::device(self.server.address, &Dial::default(), &account);
        (peer, account, logged_in.epoch.get())
    }

    /// By how much a figure grew since the attack began.
    pub fn grown(&self, name: &str) -> u64 {
        self.server.figures().since(&self.before, name)
    }

    /// Waits until a figure has grown by this much since the attack began; by how much it did.
    pub fn await_grown(&self, name: &str, least: u64) -> u64 {
        let start = std::time::Instant::now();
        loop {
            let grown = self.grown(name);
            if grown >= least {
                return grown;
            }
            let late = start.elapsed() > super::peer::PATIENCE;
            assert!(!late, "{name} grew by {grown}, not by {least}");
        }
    }

    /// By how many KiB the server's memory grew since the attack began.
    pub fn rss_grown_kib(&self) -> u64 {
        self.server.rss_kib().saturating_sub(self.rss_kib)
    }

    /// Waits until the honest pair has exchanged this many more messages.
    pub fn honest_messages(&self, more: u32) {
        self.honest.wait_for(more);
    }

    /// The attack is over: the honest pair must not have noticed it, the server must live, and
    /// it must end in order. Prints the line of the test.
    pub fn finish(self, count: impl Display, figures: impl Display) {
        let Self { name, server, honest, .. } = self;
        let report = honest.finish();
        server.figures();
        server.stop();
        println!(
            "TEST {name} n={count} {figures} honest: {} messages, p50 {:.1} ms, p99 {:.1} ms",
            report.messages,
            report.p50.as_secs_f64() * 1e3,
            report.p99.as_secs_f64() * 1e3,
        );
    }
}
