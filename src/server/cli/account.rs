//! What the commands about users and devices share: the data folder, how a result is shown, and
//! the profiles that devices start from.

use std::path::PathBuf;

use serde::Serialize;
use tern_client::profile::Profile;

use super::folder::strange;
use super::{Exit, FolderArgs, fail, print};
use crate::control::presence::{Presence, USERS_MAX};
use crate::control::protocol::{AccountReply, AccountRequest, Added, Reply, Request};
use crate::folder::DataFolder;

/// What each of them takes.
#[derive(Debug, clap::Args)]
pub(super) struct Common {
    /// As JSON
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    folder: FolderArgs,
}

impl Common {
    /// Asks the server, or the store if none runs.
    pub(super) fn ask(&self, request: &AccountRequest) -> Result<AccountReply, Exit> {
        self.folder.ask_accounts(request)
    }

    /// Where the devices of these users are; nothing where no server runs, or none is ready.
    pub(super) fn presences(&self, uins: &[u64]) -> Result<Vec<Presence>, Exit> {
        let mut all = Vec::new();
        for page in uins.chunks(USERS_MAX) {
            match self.folder.ask_running(&Request::Presence(page.to_vec()))? {
                Some(Reply::Presence(Some(seen))) => all.extend(seen),
                Some(Reply::Presence(None)) | None => {}
                Some(other) => return Err(strange(&other)),
            }
        }
        Ok(all)
    }

    /// Prints a result: its words for people, or the whole of it as one line of JSON.
    pub(super) fn show(
        &self,
        result: &impl Serialize,
        words: impl FnOnce() -> String,
    ) -> Result<Exit, Exit> {
        match self.json {
            true => as_json(result),
            false => Ok(print(&words())),
        }
    }

    /// Where the profile of `who` goes; an error if there is one already, since it may hold the
    /// only copy of another device's secret.
    pub(super) fn fresh_profile(&self, who: &str) -> Result<PathBuf, Exit> {
        let data = self.data()?;
        data.make_profiles().map_err(|error| fail(Exit::Failed, error))?;
        let path = Profile::path(data.path(), who);
        if path.exists() {
            let reason = format!(
                "the profile {} is there already; `tern device add` gives a user one more \
                 device; for another user of this name, move the profile away",
                path.display()
            );
            return Err(fail(Exit::Failed, reason));
        }
        Ok(path)
    }

    /// The profile that a device has in the data folder, whatever its file is called.
    pub(super) fn profile_of(
        &self,
        uin: u64,
        device: u32,
    ) -> Result<Option<(PathBuf, Profile)>, Exit> {
        Ok(Profile::find(self.data()?.path(), uin, device))
    }

    /// Writes the profile of a device that has a new secret, and says so; `words` say what was
    /// done.
    pub(super) fn save(&self, made: &Added, path: PathBuf, words: &str) -> Result<Exit, Exit> {
        let Added { name, uin, device, label, secret, server, pin } = made.clone();
        let profile = Profile { name, uin, device, label, secret, server, pin: Some(pin) };
        match profile.save(&path) {
            Ok(()) => {
                let Profile { name, label, .. } = profile;
                self.show(&Made { name, uin, device, label, profile: path.clone() }, || {
                    format!("{words}\nprofile: {}\n", path.display())
                })
            }
            Err(error) => Err(fail(
                Exit::Failed,
                format!(
                    "{words}, but its profile can't be written: {error}; its secret is lost with \
                     it, and `tern device rotate {:?} {device}` makes another",
                    made.name
                ),
            )),
        }
    }

    fn data(&self) -> Result<DataFolder, Exit> {
        let options = self.folder.options()?;
        DataFolder::open(&options.data).map_err(|error| fail(Exit::Failed, error))
    }
}

/// A device whose profile was written, as JSON; the secret stands in the profile alone.
#[derive(Debug, Serialize)]
struct Made {
    name: String,
    uin: u64,
    device: u32,
    label: String,
    profile: PathBuf,
}

/// Prints something as one line of JSON.
pub(super) fn as_json(result: &impl Serialize) -> Result<Exit, Exit> {
    let text = serde_json::to_string(result).map_err(|error| fail(Exit::Failed, error))?;
    Ok(print(&(text + "\n")))
}
