//! Many devices at once, each of a user of its own, who are let in by tokens: nobody has to add
//! them one by one.

use std::net::SocketAddr;
use std::path::Path;

use tempfile::TempDir;
use tern_client::group::{GroupChange, GroupSettings};
use tern_client::machine::{Identity, Proof};
use tern_client::profile::Profile;
use tern_client::store::MemoryStore;
use tern_client::{Client, GroupError};
use tern_protocol::limits::CHANGE_MEMBERS_MAX;
use tern_protocol::{ChannelId, Code, DeviceId, Uin};

use crate::device::Device;
use crate::support::issuer::{self, Issuer, claims_of, ed};
use crate::support::server::{ANY_PORT, Server};

/// A server that takes tokens.
pub struct Place {
    _folder: TempDir,
    pub issuer: Issuer,
    pub server: Server,
    options: Vec<String>,
}

impl Place {
    /// Starts one with these options beside; there is a user `operator`.
    pub fn start(options: &[&str]) -> Self {
        let (folder, issuer) = (tempfile::tempdir().unwrap(), Issuer::new());
        let mut all = issuer::options(&issuer.file());
        all.extend(options.iter().map(|option| (*option).to_owned()));
        let server = serve(&folder.path().join("data"), ANY_PORT, &all);
        server.user("operator");
        Self { _folder: folder, issuer, server, options: all }
    }

    /// Ends the server in order, and starts another one at the same address.
    pub fn restart(self) -> Self {
        let (data, address) = (self.server.data.clone(), self.server.address.to_string());
        self.server.stop();
        let server = serve(&data, &address, &self.options);
        Self { server, ..self }
    }

    /// Starts the device of user `name`, who is new or was here before.
    pub fn device(&self, name: &str) -> Device {
        let profile = Profile::load(&Profile::path(&self.server.data, "operator")).unwrap();
        let token = self.issuer.sign(&ed(), &claims_of(name, "phone"));
        let store = Box::new(MemoryStore::default());
        Device::start_as(&profile, self.server.address, store, |options| {
            let proof = Proof::Token(token.into_bytes().into());
            options.identity = Identity { uin: Uin(0), device: DeviceId(0), proof };
        })
    }

    /// So many of them, `NAME 1` and on, all logged in.
    pub async fn devices(&self, name: &str, count: u32) -> Vec<Device> {
        let all: Vec<Device> =
            (1..=count).map(|number| self.device(&format!("{name}{number}"))).collect();
        for device in &all {
            device.until("a login", |heard| heard.is_online() && heard.uin.is_some()).await;
        }
        all
    }

    /// Where the server listens.
    pub fn address(&self) -> SocketAddr {
        self.server.address
    }
}

/// Makes a group of these users and the client's own.
pub async fn group(owner: &Client, members: &[Uin]) -> ChannelId {
    let settings = GroupSettings::default();
    let (first, rest) = members.split_at(members.len().min(CHANGE_MEMBERS_MAX));
    let group = owner.create_group("crowd", settings, first).await.unwrap();
    for some in rest.chunks(CHANGE_MEMBERS_MAX) {
        owner.change_group(group, &GroupChange::Add(some.to_vec())).await.unwrap();
    }
    group
}

/// Adds one more; the code if that is refused.
pub async fn add(owner: &Client, group: ChannelId, uin: Uin) -> Option<Code> {
    match owner.change_group(group, &GroupChange::Add(vec![uin])).await {
        Ok(_) => None,
        Err(GroupError::Refused { code, .. }) => Some(code),
        Err(other) => panic!("{other}"),
    }
}

fn serve(data: &Path, listen: &str, options: &[String]) -> Server {
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    Server::start(data, listen, &options)
}
