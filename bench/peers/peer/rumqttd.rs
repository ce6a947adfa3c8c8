//! rumqttd: an MQTT broker in Rust. Its log of messages is in memory, so it promises nothing about
//! the disk.

use std::path::{Path, PathBuf};

use tern_bench::error::BenchError;

use super::child::{Home, Recipe, Running, first_line};
use super::mosquitto::speak;
use super::{Peer, Places, Promise, Server, Site};

/// rumqttd.
pub struct Rumqttd;

impl Peer for Rumqttd {
    fn name(&self) -> &'static str {
        "rumqttd"
    }

    fn title(&self) -> &'static str {
        "rumqttd, MQTT QoS 1"
    }

    fn promise(&self) -> Promise {
        Promise::Later
    }

    fn setup(&self) -> &'static str {
        "TLS 1.3, QoS 1, sessions that stay; it keeps messages in memory only; 200 messages of a \
         session under way"
    }

    fn find(&self, places: &Places) -> Option<PathBuf> {
        places.find("rumqttd")
    }

    fn version(&self, program: &Path) -> String {
        first_line(program, &["--version"])
    }

    fn start(&self, program: &Path, site: &Site) -> Result<Box<dyn Server>, BenchError> {
        let home = Home::new(site)?;
        let (port, folder) = (home.port, home.path().display());
        let text = format!(
            "id = 0\n[router]\nid = 0\nmax_connections = 20000\nmax_outgoing_packet_count = 200\n\
             max_segment_size = 104857600\nmax_segment_count = 10\n\
             [v4.1]\nname = \"tls\"\nlisten = \"127.0.0.1:{port}\"\nnext_connection_delay_ms = 0\n\
             [v4.1.tls]\ncapath = \"{folder}/cert.pem\"\ncertpath = \"{folder}/cert.pem\"\n\
             keypath = \"{folder}/key.pem\"\n\
             [v4.1.connections]\nconnection_timeout_ms = 60000\nmax_payload_size = 20480\n\
             max_inflight_count = 200\ndynamic_filters = true\n"
        );
        let config = home.write("rumqttd.toml", &text)?;
        Ok(Box::new(Running::start(home, Recipe::plain(program, &["-c", &config], speak), site)?))
    }
}
