//! ejabberd: XMPP with stream management, offline messages and an archive of all messages, kept by
//! Mnesia, which writes to the disk behind the answer.

use std::path::{Path, PathBuf};

use tern_bench::error::BenchError;

use super::child::{Home, Recipe, Running};
use super::{Peer, Places, Promise, Server, Site};
use crate::client::dialect::Dialect;
use crate::client::xmpp::{HOST, Xmpp};

/// Where Erlang finds ejabberd's libraries on Debian.
const LIBRARIES: &str = "/usr/lib/x86_64-linux-gnu";

/// ejabberd.
pub struct Ejabberd;

impl Peer for Ejabberd {
    fn name(&self) -> &'static str {
        "ejabberd"
    }

    fn title(&self) -> &'static str {
        "ejabberd, XMPP"
    }

    fn promise(&self) -> Promise {
        Promise::Later
    }

    fn setup(&self) -> &'static str {
        "TLS 1.3 from the first byte; stream management, an answer asked for with each message; \
         `mod_offline` and `mod_mam` (all messages) on Mnesia; no shaper; Erlang's schedulers do \
         not spin"
    }

    /// It runs in Erlang's own program.
    fn find(&self, places: &Places) -> Option<PathBuf> {
        places.find("ejabberdctl").and_then(|_| places.find("erl"))
    }

    fn version(&self, _program: &Path) -> String {
        let named = std::fs::read_dir(LIBRARIES).ok().and_then(|entries| {
            let names = entries.flatten().map(|entry| entry.file_name());
            names.filter_map(|name| name.into_string().ok()).find(|n| n.starts_with("ejabberd-"))
        });
        named.unwrap_or_else(|| "ejabberd, unknown".to_owned())
    }

    fn start(&self, program: &Path, site: &Site) -> Result<Box<dyn Server>, BenchError> {
        let home = Home::new(site)?;
        let config = home.write("ejabberd.yml", &config(&home))?;
        home.write("both.pem", &both(site))?;
        let store = format!("\"{}\"", home.place("store"));
        let spin = ["+sbwt", "none", "+sbwtdcpu", "none", "+sbwtdio", "none"];
        let words = ["+K", "true", "+P", "250000"].into_iter().chain(spin);
        let words = words.chain(["-noinput", "-mnesia", "dir", &store, "-s", "ejabberd"]);
        let arguments = words.map(str::to_owned).collect();
        let environment = vec![
            ("EJABBERD_CONFIG_PATH", config),
            ("EJABBERD_LOG_PATH", home.place("ejabberd.log")),
            ("EJABBERD_PID_PATH", home.place("ejabberd.pid")),
            ("ERL_LIBS", LIBRARIES.to_owned()),
            ("ERL_CRASH_DUMP", home.place("crash.dump")),
            ("ERL_MAX_PORTS", "65536".to_owned()),
            ("HOME", home.path().display().to_string()),
        ];
        let recipe = Recipe { program: program.to_owned(), arguments, environment, speak };
        Ok(Box::new(Running::start(home, recipe, site)?))
    }
}

fn config(home: &Home) -> String {
    let (port, both) = (home.port, home.place("both.pem"));
    format!(
        "loglevel: warning\nhosts: [\"{HOST}\"]\ncertfiles: [\"{both}\"]\n\
         auth_method: internal\nauth_password_format: plain\n\
         registration_timeout: infinity\nmax_fsm_queue: 100000\n\
         access_rules:\n  all_rule: {{allow: all}}\n\
         api_permissions: {{}}\n\
         listen:\n  -\n    port: {port}\n    ip: \"127.0.0.1\"\n    module: ejabberd_c2s\n\
         \x20   tls: true\n    max_stanza_size: 262144\n    access: all_rule\n\
         modules:\n  mod_offline: {{access_max_user_messages: unlimited_rule}}\n\
         \x20 mod_mam: {{default: always, db_type: mnesia}}\n\
         \x20 mod_register: {{ip_access: all_rule, access: all_rule, welcome_message: {{}}}}\n\
         \x20 mod_stream_mgmt: {{max_ack_queue: infinity}}\n\
         shaper_rules:\n  unlimited_rule: {{infinity: all}}\n"
    )
}

/// The key and the certificate in one file, as ejabberd wants them.
fn both(site: &Site) -> String {
    [&*site.certificate.key_pem, &*site.certificate.certificate_pem].concat()
}

/// One connection a device.
fn speak(device: usize) -> Vec<Box<dyn Dialect>> {
    vec![Box::new(Xmpp::new(device))]
}
