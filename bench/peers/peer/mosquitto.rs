//! Mosquitto: MQTT at QoS 1 with sessions that stay and persistence on. It answers a publisher
//! before anything is on the disk; its store is written as a whole now and then.

use std::path::{Path, PathBuf};

use tern_bench::error::BenchError;

use super::child::{Home, Recipe, Running, first_line, is_root};
use super::{Peer, Places, Promise, Server, Site};
use crate::client::dialect::Dialect;
use crate::client::mqtt::Mqtt;

/// Mosquitto.
pub struct Mosquitto;

impl Peer for Mosquitto {
    fn name(&self) -> &'static str {
        "mosquitto"
    }

    fn title(&self) -> &'static str {
        "Mosquitto, MQTT QoS 1"
    }

    fn promise(&self) -> Promise {
        Promise::Later
    }

    fn setup(&self) -> &'static str {
        "TLS 1.3, QoS 1, sessions that stay; persistence on, its store written every second \
         (`autosave_interval 1`; half an hour by default); no limit on what is under way; \
         TCP_NODELAY"
    }

    fn find(&self, places: &Places) -> Option<PathBuf> {
        places.find("mosquitto")
    }

    fn version(&self, program: &Path) -> String {
        first_line(program, &["-h"])
    }

    fn start(&self, program: &Path, site: &Site) -> Result<Box<dyn Server>, BenchError> {
        let home = Home::new(site)?;
        let user = if is_root() { "user root\n" } else { "" };
        let (port, folder) = (home.port, home.path().display());
        let text = format!(
            "{user}per_listener_settings false\nlistener {port} 127.0.0.1\n\
             allow_anonymous true\ncertfile {folder}/cert.pem\nkeyfile {folder}/key.pem\n\
             tls_version tlsv1.3\npersistence true\npersistence_location {folder}/\n\
             autosave_interval 1\nautosave_on_changes false\nset_tcp_nodelay true\n\
             max_inflight_messages 0\nmax_queued_messages 0\nmax_queued_bytes 0\n\
             log_type error\nlog_type warning\n"
        );
        let config = home.write("mosquitto.conf", &text)?;
        Ok(Box::new(Running::start(home, Recipe::plain(program, &["-c", &config], speak), site)?))
    }
}

/// One connection a device.
pub fn speak(device: usize) -> Vec<Box<dyn Dialect>> {
    vec![Box::new(Mqtt::new(device))]
}
