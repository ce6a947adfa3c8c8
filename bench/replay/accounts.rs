//! Devices that a server knows already, who may play those of a capture.
//!
//! Comes in: a folder of profiles, as `tern user add` and `tern device add` write them. Goes out:
//! where their server is, and who of them plays whom.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::path::Path;

use serde::Deserialize;
use tern_protocol::{DeviceId, Uin};

use super::{Recording, Who};
use crate::error::{BenchError, Tried};
use crate::load::Identity;
use crate::system::from_hex;

/// The devices of one server.
pub struct Accounts {
    /// Where it listens.
    pub server: SocketAddr,
    /// SHA-256 of its certificate.
    pub pin: [u8; 32],
    devices: Vec<Identity>,
}

/// What is needed of a profile.
#[derive(Deserialize)]
struct Profile {
    uin: u64,
    device: u32,
    secret: String,
    server: String,
    pin: Option<String>,
}

impl Accounts {
    /// Reads all profiles in a folder.
    ///
    /// # Errors
    /// When there is none, one can't be used, or they are of several servers.
    pub fn read(folder: &Path) -> Result<Self, BenchError> {
        let files = std::fs::read_dir(folder).tried(folder.display().to_string())?;
        let mut paths: Vec<_> = files.flatten().map(|file| file.path()).collect();
        paths.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
        paths.sort();
        let mut all: Option<Self> = None;
        for path in paths {
            let named = |what: &str| BenchError::Usage(format!("{}: {what}", path.display()));
            let text = std::fs::read_to_string(&path).tried(path.display().to_string())?;
            let one = Self::parse(&text).map_err(named)?;
            let Some(all) = &mut all else {
                all = Some(one);
                continue;
            };
            if (all.server, all.pin) != (one.server, one.pin) {
                return Err(named("it is of another server than the one before"));
            }
            all.devices.extend(one.devices);
        }
        let none = || BenchError::Usage(format!("no profile is in {}", folder.display()));
        all.ok_or_else(none)
    }

    /// One profile, or what is wrong with it.
    fn parse(text: &str) -> Result<Self, &'static str> {
        let profile: Profile = toml::from_str(text).map_err(|_| "it is no profile of a device")?;
        let first = profile.server.split(',').next().unwrap_or_default().trim();
        let server = first.to_socket_addrs().ok().and_then(|mut all| all.next());
        let pin = profile.pin.ok_or("it has no pin; the replay trusts one certificate only")?;
        Ok(Self {
            server: server.ok_or("its server has no address")?,
            pin: from_hex(&pin).ok_or("its pin is no SHA-256 in hex")?,
            devices: vec![Identity {
                uin: Uin(profile.uin),
                device: DeviceId(profile.device),
                secret: from_hex(&profile.secret).ok_or("its secret is not 64 hex digits")?,
            }],
        })
    }

    /// For each device of the capture one of these; those of one user are one user's.
    ///
    /// # Errors
    /// When they do not suffice.
    pub fn assign(&self, recording: &Recording) -> Result<Vec<(Who, Identity)>, BenchError> {
        let wanted = most_first(recording.devices(), |who| who.0);
        let here = most_first(self.devices.iter().cloned(), |identity| identity.uin);
        let mut players = Vec::new();
        for (number, roles) in wanted.iter().enumerate() {
            let own = here.get(number).map_or(&[][..], |own| own);
            if own.len() < roles.len() {
                return Err(BenchError::Usage(format!(
                    "the capture has {} users with up to {} devices; the profiles lack a user with \
                     {} of them",
                    wanted.len(),
                    wanted[0].len(),
                    roles.len()
                )));
            }
            players.extend(roles.iter().copied().zip(own.iter().cloned()));
        }
        players.sort_by_key(|(who, _)| *who);
        Ok(players)
    }
}

/// Those of each user together, the users with the most first.
fn most_first<T>(all: impl IntoIterator<Item = T>, uin: impl Fn(&T) -> Uin) -> Vec<Vec<T>> {
    let mut users: BTreeMap<Uin, Vec<T>> = BTreeMap::new();
    for one in all {
        users.entry(uin(&one)).or_default().push(one);
    }
    let mut users: Vec<Vec<T>> = users.into_values().collect();
    users.sort_by_key(|own| Reverse(own.len()));
    users
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profile(uin: u64, device: u32, server: &str) -> String {
        let (secret, pin) = ("0a".repeat(32), "0b".repeat(32));
        format!(
            "name = \"a\"\nuin = {uin}\ndevice = {device}\nlabel = \"b\"\nsecret = \"{secret}\"\n\
             server = \"{server}\"\npin = \"{pin}\"\n"
        )
    }

    fn folder(profiles: &[String]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a folder");
        for (number, profile) in profiles.iter().enumerate() {
            std::fs::write(folder.path().join(format!("{number}.toml")), profile).expect("room");
        }
        std::fs::write(folder.path().join("other.lock"), "").expect("room");
        folder
    }

    fn recording(users: &[(u64, &[u32])]) -> Recording {
        let own = |devices: &[u32]| devices.iter().copied().map(DeviceId).collect();
        Recording {
            steps: Vec::new(),
            connections: Vec::new(),
            ids: BTreeMap::new(),
            users: users.iter().map(|(uin, devices)| (Uin(*uin), own(devices))).collect(),
        }
    }

    #[test]
    fn devices_of_a_user_play_those_of_one() {
        const AT: &str = "127.0.0.1:9000, 127.0.0.1:9001";
        let profiles = [(7, 1), (8, 1), (8, 2), (9, 4)].map(|(uin, n)| profile(uin, n, AT));
        let folder = folder(&profiles);
        let accounts = Accounts::read(folder.path()).expect("of one server");
        assert_eq!(accounts.server, "127.0.0.1:9000".parse().expect("an address"));
        assert_eq!(accounts.pin, [11; 32]);

        let capture = recording(&[(1, &[5]), (2, &[]), (3, &[6, 7])]);
        let players = accounts.assign(&capture).expect("enough");
        let who = |(role, own): &(Who, Identity)| (role.0.0, role.1.0, own.uin.0, own.device.0);
        let players: Vec<_> = players.iter().map(who).collect();
        assert_eq!(players, [(1, 5, 7, 1), (2, 0, 9, 4), (3, 6, 8, 1), (3, 7, 8, 2)]);

        for (users, lack) in [
            (&[(1, &[5, 6][..]), (2, &[5, 6])][..], "lack a user with 2"),
            (&[(1, &[]), (2, &[]), (3, &[]), (4, &[])], "4 users with up to 1"),
        ] {
            let error = accounts.assign(&recording(users)).err().expect("too few").to_string();
            assert!(error.contains(lack), "{error}");
        }
    }

    #[test]
    fn profiles_that_cannot_be_used_are_named() {
        let good = || profile(7, 1, "127.0.0.1:9000");
        for (profiles, wrong) in [
            (vec![], "no profile"),
            (vec![good(), profile(8, 1, "127.0.0.1:9001")], "1.toml: it is of another server"),
            (vec![good(), "name = 1".to_owned()], "1.toml: it is no profile"),
            (vec![good().replace("pin", "pen")], "0.toml: it has no pin"),
            (vec![good().replace("0a", "g")], "0.toml: its secret"),
            (vec![profile(7, 1, "nowhere")], "0.toml: its server"),
        ] {
            let folder = folder(&profiles);
            let error = Accounts::read(folder.path()).err().expect("can't be used").to_string();
            assert!(error.contains(wrong), "{error}");
        }
    }
}
