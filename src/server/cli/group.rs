//! `tern group`: makes groups, changes them, and shows who is in one.
//!
//! A change is a message of the group's channel under a send key of this device: what was taken
//! and not answered when the command ended is kept, and sent when the device starts again.

mod list;
mod words;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::{Subcommand, ValueEnum};
use tern_client::group::{GroupChange, GroupSettings, Role};
use tern_client::marks::GroupReceipts;
use tern_client::{Group, GroupError};
use tern_protocol::{ChannelId, MessageId, Uin, UnixMillis};

use super::chat::session::{self, Session, SessionArgs};
use super::output::{columns, time};
use super::{Exit, fail, print};

pub(super) use words::{change_json, sentence};

/// The command line of `tern group`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    session: SessionArgs,
    /// Print the answer as JSON
    #[arg(long, global = true)]
    json: bool,
    /// Give up waiting after this time, such as 30s; what was taken is kept and sent at the next
    /// start
    #[arg(long, value_name = "TIME", value_parser = session::parse_time, global = true)]
    timeout: Option<Duration>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a group; who makes it is its owner
    Create {
        /// What people call it
        name: String,
        /// Members from the start: names or uins
        #[arg(long = "member", value_name = "NAME|UIN")]
        members: Vec<String>,
        #[command(flatten)]
        settings: SettingArgs,
    },
    /// Make users members
    Add(Named),
    /// End the membership of users
    Kick(Named),
    /// Become a member of an open group
    Join(Which),
    /// Be a member no longer
    Leave(Which),
    /// Give members a role; `owner` hands the group over
    Role {
        /// Which role
        role: RoleName,
        #[command(flatten)]
        named: Named,
    },
    /// Let members post no more for a while
    Mute {
        /// For how long, such as 10m; 0 lets them post again
        #[arg(long = "for", value_name = "TIME", value_parser = session::parse_time)]
        time: Duration,
        #[command(flatten)]
        named: Named,
    },
    /// Give the group another name
    Rename {
        #[command(flatten)]
        which: Which,
        /// What people call it from now on
        name: String,
    },
    /// Set anew what members may do; what is not named is off
    Settings {
        #[command(flatten)]
        which: Which,
        #[command(flatten)]
        settings: SettingArgs,
    },
    /// End the group: nobody posts there any more, and what was said stays readable
    Dissolve(Which),
    /// List the groups that the user is in, with what is unread in each
    List,
    /// Show what a group is and who is in it
    Info(Which),
    /// Show how many members have a message, and how many have read it
    Receipts {
        #[command(flatten)]
        which: Which,
        /// The message
        id: u64,
    },
}

/// A group.
#[derive(Debug, clap::Args)]
struct Which {
    /// The group, as g and its number
    #[arg(value_parser = parse_group)]
    group: ChannelId,
}

/// A group and users.
#[derive(Debug, clap::Args)]
struct Named {
    #[command(flatten)]
    which: Which,
    /// Names or uins
    #[arg(required = true, value_name = "NAME|UIN")]
    users: Vec<String>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum RoleName {
    Member,
    Admin,
    Owner,
}

#[derive(Clone, Copy, Debug, clap::Args)]
struct SettingArgs {
    /// Newcomers may read everything that was said before
    #[arg(long)]
    history: bool,
    /// Every member may add others
    #[arg(long)]
    members_add: bool,
    /// Only admins and the owner may post
    #[arg(long)]
    admins_post: bool,
    /// Whoever knows the group's number may join
    #[arg(long)]
    open: bool,
}

impl From<SettingArgs> for GroupSettings {
    fn from(args: SettingArgs) -> Self {
        Self {
            history_all: args.history,
            members_add: args.members_add,
            admins_post: args.admins_post,
            open: args.open,
        }
    }
}

/// A group as [`ChannelId`] prints it.
pub(super) fn parse_group(text: &str) -> Result<ChannelId, String> {
    let id = text.strip_prefix('g').and_then(|digits| digits.parse::<u64>().ok());
    let id = id.filter(|id| *id != 0);
    id.map(ChannelId::group).ok_or_else(|| "a group is g and its number, such as g17".to_owned())
}

/// Asks for the change, or for the group, and prints the answer.
pub(super) fn run(args: Args) -> Exit {
    session::run(async move {
        let asked = Asked::of(&args)?;
        let mut session = args.session.open()?;
        let (client, me) = (session.client.clone(), session.profile.uin());
        let answer = session.during(asked.ask(client, me), args.timeout).await;
        session.client.close().await;
        match answer? {
            Ok(answer) => Ok(answer.print(args.json)),
            Err(error) => Err(exit(error)),
        }
    })
}

fn exit(error: GroupError) -> Exit {
    let exit = match error {
        GroupError::Invalid(_) => Exit::Usage,
        GroupError::Refused { .. } => Exit::Refused,
        GroupError::Unknown | GroupError::Changing | GroupError::Closed => Exit::Failed,
    };
    fail(exit, error)
}

/// What the command line asks for, with users by their numbers.
enum Asked {
    Create { name: String, settings: GroupSettings, members: Vec<Uin> },
    Change(ChannelId, GroupChange),
    List,
    Info(ChannelId),
    Receipts(ChannelId, MessageId),
}

/// What came of it.
enum Answer {
    Made(ChannelId),
    Changed(ChannelId, Option<MessageId>),
    All(Vec<list::Listed>),
    Is(Group),
    Counts(GroupReceipts),
}

impl Asked {
    fn of(args: &Args) -> Result<Self, Exit> {
        let users = |names: &[String]| -> Result<Vec<Uin>, Exit> {
            names.iter().map(|name| args.session.user(name)).collect()
        };
        let named = |named: &Named| Ok((named.which.group, users(&named.users)?));
        let (group, change) = match &args.command {
            Command::Create { name, members, settings } => {
                let (name, settings) = (name.clone(), (*settings).into());
                return Ok(Self::Create { name, settings, members: users(members)? });
            }
            Command::List => return Ok(Self::List),
            Command::Info(which) => return Ok(Self::Info(which.group)),
            Command::Receipts { which, id } => {
                return Ok(Self::Receipts(which.group, MessageId(*id)));
            }
            Command::Add(to) => named(to).map(|(group, users)| (group, GroupChange::Add(users)))?,
            Command::Kick(of) => {
                named(of).map(|(group, users)| (group, GroupChange::Kick(users)))?
            }
            Command::Role { role, named: to } => {
                let (group, members) = named(to)?;
                (group, GroupChange::Role { members, role: role_of(*role) })
            }
            Command::Mute { time, named: to } => {
                let (group, members) = named(to)?;
                (group, GroupChange::Mute { members, until: until(*time) })
            }
            Command::Join(which) => (which.group, GroupChange::Join),
            Command::Leave(which) => (which.group, GroupChange::Leave),
            Command::Dissolve(which) => (which.group, GroupChange::Dissolve),
            Command::Rename { which, name } => (which.group, GroupChange::Rename(name.clone())),
            Command::Settings { which, settings } => {
                (which.group, GroupChange::Settings((*settings).into()))
            }
        };
        Ok(Self::Change(group, change))
    }

    async fn ask(self, client: tern_client::Client, me: Uin) -> Result<Answer, GroupError> {
        match self {
            Self::Create { name, settings, members } => {
                client.create_group(&name, settings, &members).await.map(Answer::Made)
            }
            Self::Change(group, change) => {
                let id = client.change_group(group, &change).await?;
                Ok(Answer::Changed(group, id))
            }
            Self::List => list::ask(&client, me).await.map(Answer::All),
            Self::Info(group) => client.group(group).await.map(Answer::Is),
            Self::Receipts(group, id) => client.group_receipts(group, id).await.map(Answer::Counts),
        }
    }
}

fn role_of(role: RoleName) -> Role {
    match role {
        RoleName::Member => Role::Member,
        RoleName::Admin => Role::Admin,
        RoleName::Owner => Role::Owner,
    }
}

/// That long from now, by this machine's clock; 0 for no time at all.
fn until(time: Duration) -> UnixMillis {
    if time.is_zero() {
        return UnixMillis(0);
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMillis(u64::try_from((now + time).as_millis()).unwrap_or(u64::MAX))
}

impl Answer {
    fn print(&self, json: bool) -> Exit {
        print(&match self {
            Self::Made(channel) if json => {
                format!("{}\n", serde_json::json!({ "channel": channel.to_string() }))
            }
            Self::Made(channel) => format!("{channel}\n"),
            Self::Changed(channel, id) if json => {
                let id = id.map(|id| id.to_string());
                let channel = channel.to_string();
                format!("{}\n", serde_json::json!({ "channel": channel, "id": id }))
            }
            Self::Changed(channel, Some(id)) => format!("{channel} {id}\n"),
            Self::Changed(_, None) => {
                session::note("all of this was so already");
                return Exit::Ok;
            }
            Self::All(groups) if json => groups.iter().map(list::Listed::json).collect(),
            Self::All(groups) => list::table(groups),
            Self::Is(group) if json => format!("{}\n", words::group_json(group)),
            Self::Is(group) => table(group),
            Self::Counts(counts) if json => format!("{}\n", words::receipts_json(counts)),
            Self::Counts(GroupReceipts { members, delivered, read }) => {
                format!("{members} others, {delivered} have it, {read} have read it\n")
            }
        })
    }
}

fn table(group: &Group) -> String {
    let head = ["uin", "role", "muted until"].map(str::to_owned).to_vec();
    let rows = group.members.iter().map(|member| {
        let muted = Some(member.muted_until.0).filter(|ms| *ms != 0).map(time);
        vec![member.uin.to_string(), member.role.to_string(), muted.unwrap_or_default()]
    });
    let name = session::one_line(group.name.as_bytes());
    let settings = words::settings(&group.settings);
    let count = group.members.len();
    format!(
        "{name} ({}): {count} members; {settings}\n\n{}",
        group.channel,
        columns(&std::iter::once(head).chain(rows).collect::<Vec<_>>())
    )
}

impl Session {
    /// Waits for an answer while the connection comes and goes. What comes for the device
    /// meanwhile is left for the next `tern recv` or `tern chat`.
    pub(super) async fn during<T>(
        &mut self,
        answer: impl Future<Output = T>,
        timeout: Option<Duration>,
    ) -> Result<T, Exit> {
        let end = timeout.map(|timeout| tokio::time::Instant::now() + timeout);
        let (mut answer, mut asked_to_end) =
            (std::pin::pin!(answer), std::pin::pin!(session::asked_to_end()));
        loop {
            tokio::select! {
                biased;
                answer = &mut answer => return Ok(answer),
                event = self.events.next() => match event {
                    Some(event) => self.tell(&event)?,
                    None => return Err(Exit::Failed),
                },
                () = session::time_is_over(end) => return Err(Exit::Timeout),
                () = &mut asked_to_end => return Err(Exit::Failed),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_read_as_it_is_printed() {
        let group = ChannelId::group(17);
        assert_eq!(parse_group(&group.to_string()), Ok(group));
        for bad in ["", "g", "g0", "17", "g-1", "g18446744073709551616"] {
            assert!(parse_group(bad).is_err(), "{bad}");
        }
    }
}
