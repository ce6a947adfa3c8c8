//! The command line: which profile, between whom, and what differs from the profile.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Parser;
use tern_badlink::{Captures, Plan, Protocol, Sharing};
use tern_netmodel::conditions::Bandwidth;
use tern_netmodel::{Conditions, Profile};

/// Puts a bad link between clients and a server, UDP or TCP.
#[derive(Parser, Debug)]
#[command(name = "badlink", version)]
pub struct Arguments {
    /// Where clients send to
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Where the server is
    #[arg(long, value_name = "ADDRESS", required_unless_present = "list")]
    to: Option<SocketAddr>,
    /// Relays TCP connections instead of UDP datagrams: Linux's own TCP runs over the link
    #[arg(long)]
    tcp: bool,
    /// How bad the link is: the name of a profile; --list shows them
    #[arg(long, value_name = "NAME", default_value = "wifi")]
    profile: String,
    /// More profiles, in TOML
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Decides what becomes of each packet
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    seed: u64,
    /// All clients share one link, instead of having one each
    #[arg(long)]
    shared: bool,
    /// Instead of the profile's: packets in a hundred that are lost, both ways
    #[arg(long, value_name = "PERCENT")]
    loss: Option<f64>,
    /// Instead of the profile's: time that a packet takes, both ways
    #[arg(long, value_name = "MS")]
    delay: Option<u64>,
    /// Instead of the profile's: how much that time varies, both ways
    #[arg(long, value_name = "MS")]
    jitter: Option<u64>,
    /// Instead of the profile's: packets in a hundred that come twice, both ways
    #[arg(long, value_name = "PERCENT")]
    duplicate: Option<f64>,
    /// Instead of the profile's: thousands of bits a second, both ways
    #[arg(long, value_name = "KBIT")]
    rate: Option<u64>,
    /// With --rate: bytes that wait before the line
    #[arg(long, value_name = "BYTES", default_value_t = 128_000, requires = "rate")]
    queue: u64,
    /// Instead of the profile's: average time after which a client has another address
    #[arg(long, value_name = "MS")]
    rebind_every: Option<u64>,
    /// Writes what passes the client's end into a pcap file: all that clients sent
    #[arg(long, value_name = "FILE")]
    pcap_client: Option<PathBuf>,
    /// Writes what passes the server's end into a pcap file: all that the server sent
    #[arg(long, value_name = "FILE")]
    pcap_server: Option<PathBuf>,
    /// Ends after this time; without it, when interrupted
    #[arg(long, value_name = "SECONDS")]
    pub seconds: Option<u64>,
    /// How often to say what was done; 0: only at the end
    #[arg(long, value_name = "SECONDS", default_value_t = 5)]
    pub every: u64,
    /// Shows the profiles and ends
    #[arg(long)]
    pub list: bool,
}

impl Arguments {
    /// The profiles that come with the program, and those of the file.
    ///
    /// # Errors
    /// When the file can't be read, or has no profiles in it.
    pub fn profiles(&self) -> Result<BTreeMap<String, Profile>, String> {
        let mut profiles = Profile::built_in();
        if let Some(path) = &self.file {
            let wrong = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
            let text = std::fs::read_to_string(path).map_err(|error| wrong(&error))?;
            profiles.extend(Profile::parse(&text).map_err(|error| wrong(&error))?);
        }
        Ok(profiles)
    }

    /// What the relay is to be.
    ///
    /// # Errors
    /// When no profile has the name, or a value makes no sense.
    pub fn plan(&self, profiles: &BTreeMap<String, Profile>) -> Result<Plan, String> {
        let server = self.to.ok_or("--to is missing: where is the server?")?;
        let mut profile = profiles.get(&self.profile).cloned().ok_or_else(|| {
            let names: Vec<&str> = profiles.keys().map(String::as_str).collect();
            format!("no profile is called {}; there are {}", self.profile, names.join(", "))
        })?;
        for conditions in [&mut profile.up, &mut profile.down] {
            self.change(conditions);
            conditions.check()?;
        }
        profile.nat.rebind_every_ms = self.rebind_every.or(profile.nat.rebind_every_ms);
        profile.nat.check()?;
        let sharing = if self.shared { Sharing::One } else { Sharing::Each };
        let captures =
            Captures { client: self.pcap_client.clone(), server: self.pcap_server.clone() };
        let protocol = if self.tcp { Protocol::Tcp } else { Protocol::Udp };
        let (listen, seed) = (self.listen, self.seed);
        Ok(Plan { listen, server, profile, seed, protocol, sharing, captures })
    }

    fn change(&self, conditions: &mut Conditions) {
        conditions.loss_percent = self.loss.unwrap_or(conditions.loss_percent);
        conditions.delay_ms = self.delay.unwrap_or(conditions.delay_ms);
        conditions.jitter_ms = self.jitter.unwrap_or(conditions.jitter_ms);
        conditions.duplicate_percent = self.duplicate.unwrap_or(conditions.duplicate_percent);
        if let Some(kbit_per_s) = self.rate {
            conditions.bandwidth = Some(Bandwidth { kbit_per_s, queue_bytes: self.queue });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(more: &[&str]) -> Result<Plan, String> {
        let base = ["badlink", "--to", "127.0.0.1:4000", "--profile", "lte-train"];
        let arguments = Arguments::parse_from(base.iter().chain(more));
        arguments.plan(&arguments.profiles()?)
    }

    #[test]
    fn flags_change_the_profile_both_ways() {
        let plan = parse(&["--loss", "7.5", "--rate", "64", "--rebind-every", "900"]).unwrap();
        for conditions in [&plan.profile.up, &plan.profile.down] {
            assert_eq!((conditions.loss_percent, conditions.delay_ms), (7.5, 60));
            assert_eq!(conditions.bandwidth.map(|line| line.kbit_per_s), Some(64));
        }
        assert_eq!(plan.profile.nat.rebind_every_ms, Some(900));
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_a_hint() {
        assert!(parse(&["--loss", "120"]).unwrap_err().contains("0 to 100"));
        let arguments =
            Arguments::parse_from(["badlink", "--to", "127.0.0.1:1", "--profile", "moon"]);
        let wrong = arguments.plan(&Profile::built_in()).unwrap_err();
        assert!(wrong.contains("moon") && wrong.contains("lte-train"), "{wrong}");
    }

    #[test]
    fn a_file_adds_profiles_and_replaces_those_of_its_names() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("more.toml");
        std::fs::write(
            &path,
            "[lte-train]\nup = { delay_ms = 1 }\n[moon]\nup = { delay_ms = 1300 }",
        )
        .unwrap();
        let text = path.to_str().unwrap();
        assert_eq!(
            parse(&["--file", text]).unwrap().profile.up,
            Conditions { delay_ms: 1, ..Conditions::default() }
        );
        std::fs::write(&path, "[moon]\nup = { dely_ms = 1300 }").unwrap();
        let wrong = parse(&["--file", text]).unwrap_err();
        assert!(wrong.contains("more.toml") && wrong.contains("dely_ms"), "{wrong}");
    }
}
