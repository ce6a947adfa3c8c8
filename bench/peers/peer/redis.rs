//! Redis Streams with an append-only file that is synced before each answer: what one builds on
//! when one builds a chat by oneself.

use std::path::{Path, PathBuf};

use tern_bench::error::BenchError;

use super::child::{Home, Recipe, Running, first_line};
use super::{Peer, Places, Promise, Server, Site};
use crate::client::dialect::Dialect;
use crate::client::redis::{Reader, Writer};

/// Redis.
pub struct Redis;

impl Peer for Redis {
    fn name(&self) -> &'static str {
        "redis"
    }

    fn title(&self) -> &'static str {
        "Redis Streams, fsync always"
    }

    fn promise(&self) -> Promise {
        Promise::Durable
    }

    fn setup(&self) -> &'static str {
        "TLS 1.3; `appendonly yes`, `appendfsync always`, no snapshots; two connections a device, \
         since XREAD blocks one; readers keep their place by themselves, so receiving costs the \
         server no write"
    }

    fn find(&self, places: &Places) -> Option<PathBuf> {
        places.find("redis-server")
    }

    fn version(&self, program: &Path) -> String {
        first_line(program, &["--version"])
    }

    fn start(&self, program: &Path, site: &Site) -> Result<Box<dyn Server>, BenchError> {
        let home = Home::new(site)?;
        let (port, folder) = (home.port, home.path().display());
        let text = format!(
            "port 0\ntls-port {port}\nbind 127.0.0.1\ntls-cert-file {folder}/cert.pem\n\
             tls-key-file {folder}/key.pem\ntls-ca-cert-file {folder}/cert.pem\n\
             tls-auth-clients no\ntls-protocols TLSv1.3\ndir {folder}\nappendonly yes\n\
             appendfsync always\nsave \"\"\nmaxclients 20000\n"
        );
        let config = home.write("redis.conf", &text)?;
        Ok(Box::new(Running::start(home, Recipe::plain(program, &[&config], speak), site)?))
    }
}

/// One connection sends, the other hears.
fn speak(device: usize) -> Vec<Box<dyn Dialect>> {
    vec![Box::new(Writer::new()), Box::new(Reader::new(device))]
}
