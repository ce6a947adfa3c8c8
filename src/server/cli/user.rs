//! `tern user`: who may use the server.

use clap::Subcommand;

use super::folder::strange;
use super::output::{columns, time};
use super::{Exit, FolderArgs, device, fail, print};
use crate::control::protocol::{AccountReply, AccountRequest};
use crate::directory::{Name, User};

/// The command line of `tern user`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Add a user with a first device, and write the device's profile into the data folder
    Add {
        /// 1 to 64 characters; it names the profile
        name: Name,
        #[command(flatten)]
        folder: FolderArgs,
    },
    /// List all users
    List {
        /// As JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        folder: FolderArgs,
    },
    /// Shut a user out: its sessions end at once, and none of its devices can log in
    Disable {
        /// The user
        name: String,
        #[command(flatten)]
        folder: FolderArgs,
    },
    /// Let a user in again
    Enable {
        /// The user
        name: String,
        #[command(flatten)]
        folder: FolderArgs,
    },
}

pub(super) fn run(args: Args) -> Exit {
    let done = match args.command {
        Command::Add { name, folder } => add(name, &folder),
        Command::List { json, folder } => list(json, &folder),
        Command::Disable { name, folder } => set_disabled(name, true, &folder),
        Command::Enable { name, folder } => set_disabled(name, false, &folder),
    };
    done.unwrap_or_else(|exit| exit)
}

fn add(name: Name, folder: &FolderArgs) -> Result<Exit, Exit> {
    let profile = device::profile_path(folder, name.as_str())?;
    match folder.ask_accounts(&AccountRequest::UserAdd { name })? {
        AccountReply::Added(added) => {
            let what =
                format!("user {} has uin {}, device {}", added.name, added.uin, added.device);
            device::save(&added, &profile, &what)
        }
        other => Err(strange(&other)),
    }
}

fn list(json: bool, folder: &FolderArgs) -> Result<Exit, Exit> {
    match folder.ask_accounts(&AccountRequest::UserList)? {
        AccountReply::Users(users) if json => as_json(&users),
        AccountReply::Users(users) => Ok(print(&table(&users))),
        other => Err(strange(&other)),
    }
}

fn table(users: &[User]) -> String {
    let head = ["uin", "name", "devices", "state", "added"].map(str::to_owned).to_vec();
    let rows = users.iter().map(|user| {
        let state = if user.disabled { "disabled" } else { "enabled" };
        vec![
            user.uin.to_string(),
            user.name.clone(),
            user.devices.to_string(),
            state.to_owned(),
            time(user.created_ms),
        ]
    });
    columns(&std::iter::once(head).chain(rows).collect::<Vec<_>>())
}

fn set_disabled(name: String, disabled: bool, folder: &FolderArgs) -> Result<Exit, Exit> {
    match folder.ask_accounts(&AccountRequest::UserSetDisabled { name, disabled })? {
        AccountReply::User(user) => {
            let done = if user.disabled { "disabled" } else { "enabled" };
            Ok(print(&format!("user {} (uin {}) is {done}\n", user.name, user.uin)))
        }
        other => Err(strange(&other)),
    }
}

/// Prints a list as one line of JSON.
pub(super) fn as_json(list: &impl serde::Serialize) -> Result<Exit, Exit> {
    let text = serde_json::to_string(list).map_err(|error| fail(Exit::Failed, error))?;
    Ok(print(&(text + "\n")))
}
