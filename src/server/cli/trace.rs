//! `tern trace CHANNEL ID`: where is my message? Beside a running server, or about a folder whose
//! server is gone.

mod json;
mod text;

use std::collections::BTreeMap;

use tern_protocol::{ChannelId, MessageId, Uin};

use super::folder::strange;
use super::group::parse_group;
use super::{Exit, FolderArgs, fail, print};
use crate::control::access;
use crate::control::protocol::{AccountReply, AccountRequest};
use crate::directory::DeviceEntry;
use crate::trace::{Fate, Trace, look};

/// Users of whom names and devices are looked up, so that a large group is told of in time.
const USERS_MAX: usize = 256;

/// The command line of `tern trace`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Two users with a dash between, as names or uins, or a group as g and its number
    #[arg(value_name = "USER-USER|GROUP")]
    channel: String,
    /// The message's number in the channel
    id: u64,
    /// One JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    folder: FolderArgs,
}

/// A trace, and who the users in it are.
struct Told {
    trace: Trace,
    /// Devices of the users concerned, as far as the directory knows them.
    devices: BTreeMap<(u64, u32), DeviceEntry>,
}

pub(super) fn run(args: &Args) -> Exit {
    trace(args).unwrap_or_else(|exit| exit)
}

fn trace(args: &Args) -> Result<Exit, Exit> {
    let options = args.folder.options()?;
    // A folder that is none must not be made by the look at it.
    tern_storage::inspect::read_folder(&options.data).map_err(|error| fail(Exit::Failed, error))?;
    let channel = args.channel()?;
    let trace = look(&options.data, &options.shared_memory, channel, MessageId(args.id));
    let trace = trace.map_err(|error| fail(Exit::Failed, error))?;
    let devices = args.devices(&trace)?;
    let told = Told { trace, devices };
    print(&if args.json { json::whole(&told) } else { text::whole(&told) });
    match told.trace.log.fate {
        Fate::Found(_) => Ok(Exit::Ok),
        Fate::NotYet { .. } | Fate::Expired { .. } | Fate::Lost => Ok(Exit::Failed),
    }
}

impl Args {
    /// The channel, in any way that people write it.
    fn channel(&self) -> Result<ChannelId, Exit> {
        if let Ok(group) = parse_group(&self.channel) {
            return Ok(group);
        }
        // A name may have dashes, so each may be the one between.
        let halves = self.channel.match_indices('-').map(|(at, _)| {
            let (one, other) = self.channel.split_at(at);
            (one, &other[1..])
        });
        let mut refusal = None;
        for (one, other) in halves {
            match (self.user(one), self.user(other)) {
                (Ok(one), Ok(other)) => return Ok(ChannelId::direct(one, other)),
                (Err(error), _) | (_, Err(error)) => refusal = Some(error),
            }
        }
        Err(fail(
            Exit::Usage,
            match refusal {
                Some(error) => format!("{} is no channel: {error}", self.channel),
                None => format!(
                    "{} is no channel: it is two users, such as ann-bob or 10001-10002, or a \
                     group, such as g17",
                    self.channel
                ),
            },
        ))
    }

    fn user(&self, who: &str) -> Result<Uin, String> {
        match who.parse::<u64>() {
            Ok(0) => return Err("uins count from 1".to_owned()),
            Ok(uin) => return Ok(Uin(uin)),
            Err(_) => {}
        }
        let options = self.folder.options().map_err(|_| "the options are wrong".to_owned())?;
        let request = AccountRequest::Resolve { name: who.to_owned() };
        match access::ask(&options, &request) {
            Ok(AccountReply::User(user)) => Ok(Uin(user.uin)),
            Ok(other) => Err(format!("strange answer {other:?}")),
            Err(error) => Err(error.to_string()),
        }
    }

    /// The devices of the members of a direct channel, and of whoever is in the trace. Without a
    /// directory, as in a copy of the logs alone, there are numbers and no names.
    fn devices(&self, trace: &Trace) -> Result<BTreeMap<(u64, u32), DeviceEntry>, Exit> {
        let options = self.folder.options()?;
        let mut devices = BTreeMap::new();
        for uin in trace.users().into_iter().take(USERS_MAX) {
            let request = AccountRequest::DeviceList { name: Some(uin.to_string()) };
            match access::ask(&options, &request) {
                Ok(AccountReply::Devices(all)) => {
                    devices.extend(all.into_iter().map(|one| ((one.uin, one.device), one)));
                }
                Ok(other) => return Err(strange(&other)),
                Err(error) => {
                    tracing::info!(%error, "names and devices are not known");
                    break;
                }
            }
        }
        Ok(devices)
    }
}

impl Told {
    /// A user by name, if it is known.
    fn user(&self, uin: Uin) -> String {
        let mut devices = self.devices.range((uin.0, 0)..=(uin.0, u32::MAX));
        devices.next().map_or_else(|| uin.to_string(), |(_, one)| format!("{} ({uin})", one.name))
    }

    /// A device, as `ann.phone (10001, device 1)`.
    fn device(&self, uin: Uin, device: u32) -> String {
        match self.devices.get(&(uin.0, device)) {
            Some(one) => format!("{}.{} ({uin}, device {device})", one.name, one.label),
            None => format!("{uin}, device {device}"),
        }
    }

    /// Devices that the directory knows, that may log in, and to which nothing happened.
    fn silent(&self) -> Vec<&DeviceEntry> {
        let Ok(recorded) = &self.trace.recorded else { return Vec::new() };
        let seen = recorded.devices();
        let is_seen = |one: &DeviceEntry| {
            let same = |name: (u64, u32)| name == (one.uin, one.device);
            seen.iter().any(|story| same((story.device.uin.0, story.device.device.0)))
        };
        self.devices.values().filter(|one| !one.revoked && !is_seen(one)).collect()
    }
}
