//! `tern device`: the devices of users, their secrets, and the profiles they start from.

use std::collections::BTreeMap;

use clap::Subcommand;
use serde::Serialize;

use super::account::Common;
use super::folder::strange;
use super::output::{columns, time};
use super::{Exit, fail};
use crate::control::presence::Presence;
use crate::control::protocol::{AccountReply, AccountRequest};
use crate::directory::{DeviceEntry, Label, Name};

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
        common: Common,
    },
    /// List the devices of a user, or of all; with a server that runs, where they are
    ///
    /// A device that is here: since when, on which network, and when it was last heard. One that
    /// is away: for how long, and whether its session waits for it. And its newest logins, four at
    /// most; coming back to a session that waited is no login.
    List {
        /// The user
        name: Option<String>,
        #[command(flatten)]
        common: Common,
    },
    /// Give a device another label; its number stays, and so does the name of its profile's file
    Rename {
        /// The user
        name: String,
        /// The device's label or number
        device: String,
        /// The new label
        to: Label,
        #[command(flatten)]
        common: Common,
    },
    /// Give a device another secret, and write it into the device's profile
    ///
    /// The old secret is refused from that moment on, and the device's session ends: it can come
    /// back only with the new profile. Messages that it has not sent or received yet stay with it.
    /// The command takes a second, so that no login by the old secret slips through.
    Rotate {
        /// The user
        name: String,
        /// The device's label or number
        device: String,
        #[command(flatten)]
        common: Common,
    },
    /// Revoke a device, for ever: its session ends at once
    Revoke {
        /// The user
        name: String,
        /// The device's label or number
        device: String,
        #[command(flatten)]
        common: Common,
    },
}

pub(super) fn run(args: Args) -> Exit {
    let done = match args.command {
        Command::Add { name, label, common } => add(name, label, &common),
        Command::List { name, common } => list(name, &common),
        Command::Rename { name, device, to, common } => rename(name, device, to, &common),
        Command::Rotate { name, device, common } => rotate(name, device, &common),
        Command::Revoke { name, device, common } => revoke(name, device, &common),
    };
    done.unwrap_or_else(|exit| exit)
}

fn add(name: Name, label: Option<Label>, common: &Common) -> Result<Exit, Exit> {
    if let Some(label) = &label {
        common.fresh_profile(&format!("{name}.{label}"))?;
    }
    let added = match common.ask(&AccountRequest::DeviceAdd { name, label })? {
        AccountReply::Added(added) => added,
        other => return Err(strange(&other)),
    };
    let (name, number) = (&added.name, added.device);
    let path = common.fresh_profile(&format!("{name}.{}", added.label)).inspect_err(|_| {
        let undo =
            format!("revoke the device without a profile: tern device revoke {name:?} {number}");
        fail(Exit::Failed, undo);
    })?;
    let words = format!("user {name} (uin {}) has device {number}, {:?}", added.uin, added.label);
    common.save(&added, path, &words)
}

fn list(name: Option<String>, common: &Common) -> Result<Exit, Exit> {
    match common.ask(&AccountRequest::DeviceList { name })? {
        AccountReply::Devices(devices) => {
            let mut uins: Vec<u64> = devices.iter().map(|device| device.uin).collect();
            uins.dedup();
            let mut seen: BTreeMap<_, _> = common
                .presences(&uins)?
                .into_iter()
                .map(|presence| ((presence.uin, presence.device), presence))
                .collect();
            let listed: Vec<Listed> = devices
                .into_iter()
                .map(|entry| Listed { presence: seen.remove(&(entry.uin, entry.device)), entry })
                .collect();
            common.show(&listed, || table(&listed))
        }
        other => Err(strange(&other)),
    }
}

/// A device of the list.
#[derive(Debug, Serialize)]
struct Listed {
    #[serde(flatten)]
    entry: DeviceEntry,
    /// `None` where no server runs, or it knows nothing of the device.
    presence: Option<Presence>,
}

fn table(devices: &[Listed]) -> String {
    let head = ["uin", "name", "device", "label", "state", "added", "last login"];
    let head = head.into_iter().chain(["where", "logins before"]);
    let head = head.map(str::to_owned).collect();
    let rows = devices.iter().map(|Listed { entry: device, presence }| {
        let state = if device.revoked { "revoked" } else { "good" };
        vec![
            device.uin.to_string(),
            device.name.clone(),
            device.device.to_string(),
            device.label.clone(),
            state.to_owned(),
            time(device.created_ms),
            match device.last_login_ms {
                0 => "never".to_owned(),
                last_login_ms => time(last_login_ms),
            },
            presence.as_ref().map_or_else(|| "-".to_owned(), whereabouts),
            presence.as_ref().map_or_else(|| "-".to_owned(), logins_before),
        ]
    });
    columns(&std::iter::once(head).chain(rows).collect::<Vec<_>>())
}

/// Where a device is, in words.
fn whereabouts(presence: &Presence) -> String {
    let network = presence.network;
    match (presence.online, presence.away_ms) {
        (true, _) => {
            let since = presence.online_ms.map(|ms| format!(" for {}", span(ms)));
            let heard = presence.silent_ms.map(|ms| format!(", heard {} ago", span(ms)));
            format!("here{}, {network}{}", since.unwrap_or_default(), heard.unwrap_or_default())
        }
        (false, Some(ms)) => {
            let waits = if presence.resumable { ", its session waits" } else { "" };
            format!("away for {}{waits}", span(ms))
        }
        (false, None) => "away".to_owned(),
    }
}

/// The logins before the newest one, newest first.
fn logins_before(presence: &Presence) -> String {
    let before: Vec<String> = presence.logins_ms.iter().skip(1).map(|ms| time(*ms)).collect();
    if before.is_empty() { "-".to_owned() } else { before.join(", ") }
}

/// A span of time by its largest unit, rounded down.
fn span(ms: u64) -> String {
    match ms / 1_000 {
        s @ 0..120 => format!("{s} s"),
        s @ 120..7_200 => format!("{} min", s / 60),
        s @ 7_200..172_800 => format!("{} h", s / 3_600),
        s => format!("{} days", s / 86_400),
    }
}

fn rename(name: String, device: String, to: Label, common: &Common) -> Result<Exit, Exit> {
    match common.ask(&AccountRequest::DeviceRename { name, device, to })? {
        AccountReply::Device(device) => common.show(&device, || {
            format!(
                "device {} of user {} (uin {}) is {:?} now\n",
                device.device, device.name, device.uin, device.label
            )
        }),
        other => Err(strange(&other)),
    }
}

fn rotate(name: String, device: String, common: &Common) -> Result<Exit, Exit> {
    let mut rotated = match common.ask(&AccountRequest::DeviceRotate { name, device })? {
        AccountReply::Added(rotated) => rotated,
        other => return Err(strange(&other)),
    };
    let number = rotated.device;
    let path = match common.profile_of(rotated.uin, number)? {
        Some((path, old)) => {
            rotated.server = old.server; // it may say another way to the server
            path
        }
        None => {
            let name = &rotated.name;
            common.fresh_profile(&format!("{name}.{}", rotated.label)).inspect_err(|_| {
                let again = format!("the new secret is lost: tern device rotate {name:?} {number}");
                fail(Exit::Failed, again);
            })?
        }
    };
    let words = format!(
        "device {number}, {:?}, of user {} (uin {}) has a new secret, and the old one is refused",
        rotated.label, rotated.name, rotated.uin
    );
    common.save(&rotated, path, &words)
}

fn revoke(name: String, device: String, common: &Common) -> Result<Exit, Exit> {
    match common.ask(&AccountRequest::DeviceRevoke { name, device })? {
        AccountReply::Device(device) => common.show(&device, || {
            format!(
                "device {}, {:?}, of user {} (uin {}) is revoked\n",
                device.device, device.label, device.name, device.uin
            )
        }),
        other => Err(strange(&other)),
    }
}
