//! `tern user`: who may use the server.

use clap::Subcommand;

use super::Exit;
use super::account::Common;
use super::folder::strange;
use super::output::{columns, time};
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
        common: Common,
    },
    /// List all users
    List {
        #[command(flatten)]
        common: Common,
    },
    /// Give a user another name; its number, and so its channels, stay
    ///
    /// Profiles keep the names of their files. Where tokens name the users, rename in both places:
    /// a token of the old name stands for another user from then on.
    Rename {
        /// The user
        name: String,
        /// The new name
        to: Name,
        #[command(flatten)]
        common: Common,
    },
    /// Shut a user out: its sessions end at once, and none of its devices can log in
    Disable {
        /// The user
        name: String,
        #[command(flatten)]
        common: Common,
    },
    /// Let a user in again
    Enable {
        /// The user
        name: String,
        #[command(flatten)]
        common: Common,
    },
}

pub(super) fn run(args: Args) -> Exit {
    let done = match args.command {
        Command::Add { name, common } => add(name, &common),
        Command::List { common } => list(&common),
        Command::Rename { name, to, common } => rename(name, to, &common),
        Command::Disable { name, common } => set_disabled(name, true, &common),
        Command::Enable { name, common } => set_disabled(name, false, &common),
    };
    done.unwrap_or_else(|exit| exit)
}

fn add(name: Name, common: &Common) -> Result<Exit, Exit> {
    let profile = common.fresh_profile(name.as_str())?;
    match common.ask(&AccountRequest::UserAdd { name })? {
        AccountReply::Added(added) => {
            let words =
                format!("user {} has uin {}, device {}", added.name, added.uin, added.device);
            common.save(&added, profile, &words)
        }
        other => Err(strange(&other)),
    }
}

fn list(common: &Common) -> Result<Exit, Exit> {
    match common.ask(&AccountRequest::UserList)? {
        AccountReply::Users(users) => common.show(&users, || table(&users)),
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

fn rename(name: String, to: Name, common: &Common) -> Result<Exit, Exit> {
    let old = name.clone();
    match common.ask(&AccountRequest::UserRename { name, to })? {
        AccountReply::User(user) => {
            common.show(&user, || format!("user {old} (uin {}) is {} now\n", user.uin, user.name))
        }
        other => Err(strange(&other)),
    }
}

fn set_disabled(name: String, disabled: bool, common: &Common) -> Result<Exit, Exit> {
    match common.ask(&AccountRequest::UserSetDisabled { name, disabled })? {
        AccountReply::User(user) => common.show(&user, || {
            let done = if user.disabled { "disabled" } else { "enabled" };
            format!("user {} (uin {}) is {done}\n", user.name, user.uin)
        }),
        other => Err(strange(&other)),
    }
}
