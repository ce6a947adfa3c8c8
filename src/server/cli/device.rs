//! `tern device`: the devices of users, and the profiles they start from.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use tern_client::profile::Profile;

use super::folder::strange;
use super::output::{columns, time};
use super::user::as_json;
use super::{Exit, FolderArgs, fail, print};
use crate::control::protocol::{AccountReply, AccountRequest, Added};
use crate::directory::{DeviceEntry, Label, Name};
use crate::folder::DataFolder;

/// The command line of `tern device`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Add a device to a user, and write its profile into the data folder
    Add {
        /// The user
        name: Name,
        /// What to call the device; by default its number
        #[arg(long = "device", value_name = "LABEL")]
        label: Option<Label>,
        #[command(flatten)]
        folder: FolderArgs,
    },
    /// List the devices of a user, or of all
    List {
        /// The user
        name: Option<String>,
        /// As JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        folder: FolderArgs,
    },
    /// Revoke a device, for ever: its session ends at once
    Revoke {
        /// The user
        name: String,
        /// The device's label or number
        device: String,
        #[command(flatten)]
        folder: FolderArgs,
    },
}

pub(super) fn run(args: Args) -> Exit {
    let done = match args.command {
        Command::Add { name, label, folder } => add(name, label, &folder),
        Command::List { name, json, folder } => list(name, json, &folder),
        Command::Revoke { name, device, folder } => revoke(name, device, &folder),
    };
    done.unwrap_or_else(|exit| exit)
}

fn add(name: Name, label: Option<Label>, folder: &FolderArgs) -> Result<Exit, Exit> {
    if let Some(label) = &label {
        profile_path(folder, &format!("{name}.{label}"))?;
    }
    match folder.ask_accounts(&AccountRequest::DeviceAdd { name, label })? {
        AccountReply::Added(added) => {
            let path = profile_path(folder, &format!("{}.{}", added.name, added.label))
                .inspect_err(|_| {
                    let (name, number) = (&added.name, added.device);
                    fail(
                        Exit::Failed,
                        format!("revoke the device without a profile: tern device revoke {name:?} {number}"),
                    );
                })?;
            let what = format!(
                "user {} (uin {}) has device {}, {:?}",
                added.name, added.uin, added.device, added.label
            );
            save(&added, &path, &what)
        }
        other => Err(strange(&other)),
    }
}

fn list(name: Option<String>, json: bool, folder: &FolderArgs) -> Result<Exit, Exit> {
    match folder.ask_accounts(&AccountRequest::DeviceList { name })? {
        AccountReply::Devices(devices) if json => as_json(&devices),
        AccountReply::Devices(devices) => Ok(print(&table(&devices))),
        other => Err(strange(&other)),
    }
}

fn table(devices: &[DeviceEntry]) -> String {
    let head = ["uin", "name", "device", "label", "state", "added"].map(str::to_owned).to_vec();
    let rows = devices.iter().map(|device| {
        let state = if device.revoked { "revoked" } else { "good" };
        vec![
            device.uin.to_string(),
            device.name.clone(),
            device.device.to_string(),
            device.label.clone(),
            state.to_owned(),
            time(device.created_ms),
        ]
    });
    columns(&std::iter::once(head).chain(rows).collect::<Vec<_>>())
}

fn revoke(name: String, device: String, folder: &FolderArgs) -> Result<Exit, Exit> {
    match folder.ask_accounts(&AccountRequest::DeviceRevoke { name, device })? {
        AccountReply::Device(device) => Ok(print(&format!(
            "device {}, {:?}, of user {} (uin {}) is revoked\n",
            device.device, device.label, device.name, device.uin
        ))),
        other => Err(strange(&other)),
    }
}

/// Where the profile of `who` goes; an error if there is one already, since it may hold the only
/// copy of another device's secret.
pub(super) fn profile_path(folder: &FolderArgs, who: &str) -> Result<PathBuf, Exit> {
    let options = folder.options()?;
    let data = DataFolder::open(&options.data).map_err(|error| fail(Exit::Failed, error))?;
    data.make_profiles().map_err(|error| fail(Exit::Failed, error))?;
    let path = Profile::path(data.path(), who);
    if path.exists() {
        let reason = format!(
            "the profile {} is there already; `tern device add` gives a user one more device; \
             for another user of this name, move the profile away",
            path.display()
        );
        return Err(fail(Exit::Failed, reason));
    }
    Ok(path)
}

/// Writes the profile of a device that was added, and says so.
pub(super) fn save(added: &Added, path: &Path, what: &str) -> Result<Exit, Exit> {
    let Added { name, uin, device, label, secret, server, pin } = added.clone();
    let profile = Profile { name, uin, device, label, secret, server, pin: Some(pin) };
    match profile.save(path) {
        Ok(()) => Ok(print(&format!("{what}\nprofile: {}\n", path.display()))),
        Err(error) => {
            let (name, device) = (&added.name, added.device);
            Err(fail(
                Exit::Failed,
                format!(
                    "{what}, but its profile can't be written: {error}; its secret is lost with \
                     it: tern device revoke {name:?} {device}, then tern device add {name:?}"
                ),
            ))
        }
    }
}
