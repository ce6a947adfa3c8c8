//! Groups in words, for people and for programs.

use serde_json::{Value, json};
use tern_client::Group;
use tern_client::group::{GroupChange, GroupSettings};
use tern_client::marks::GroupReceipts;
use tern_protocol::Uin;

use super::time;
use crate::cli::chat::session::one_line;

/// What somebody did to a group, to stand behind who it was.
pub(in crate::cli) fn sentence(change: &GroupChange) -> String {
    let name = |name: &str| one_line(name.as_bytes());
    match change {
        GroupChange::Create { name: called, members, .. } if members.is_empty() => {
            format!("made the group \"{}\"", name(called))
        }
        GroupChange::Create { name: called, members, .. } => {
            format!("made the group \"{}\" with {}", name(called), list(members))
        }
        GroupChange::Add(members) => format!("added {}", list(members)),
        GroupChange::Join => "joined".to_owned(),
        GroupChange::Leave => "left".to_owned(),
        GroupChange::Kick(members) => format!("removed {}", list(members)),
        GroupChange::Role { members, role } => format!("made {} {role}", list(members)),
        GroupChange::Mute { members, until } if until.0 == 0 => {
            format!("let {} post again", list(members))
        }
        GroupChange::Mute { members, until } => {
            format!("muted {} until {}", list(members), time(until.0))
        }
        GroupChange::Rename(called) => format!("called the group \"{}\"", name(called)),
        GroupChange::Settings(to) => format!("set: {}", settings(to)),
        GroupChange::Dissolve => "dissolved the group".to_owned(),
    }
}

/// A change as an object; uins are strings, as many readers of JSON round large numbers.
pub(in crate::cli) fn change_json(change: &GroupChange) -> Value {
    let members = || uins(change.members());
    match change {
        GroupChange::Create { name, settings, .. } => json!({
            "action": "create", "name": name, "settings": settings_json(settings),
            "members": members(),
        }),
        GroupChange::Add(_) => json!({ "action": "add", "members": members() }),
        GroupChange::Join => json!({ "action": "join" }),
        GroupChange::Leave => json!({ "action": "leave" }),
        GroupChange::Kick(_) => json!({ "action": "kick", "members": members() }),
        GroupChange::Role { role, .. } => {
            json!({ "action": "role", "role": role.to_string(), "members": members() })
        }
        GroupChange::Mute { until, .. } => {
            json!({ "action": "mute", "until_ms": until.to_string(), "members": members() })
        }
        GroupChange::Rename(name) => json!({ "action": "rename", "name": name }),
        GroupChange::Settings(settings) => {
            json!({ "action": "settings", "settings": settings_json(settings) })
        }
        GroupChange::Dissolve => json!({ "action": "dissolve" }),
    }
}

/// A group as an object.
pub(super) fn group_json(group: &Group) -> Value {
    let member = |member: &tern_client::group::GroupMember| {
        json!({
            "uin": member.uin.to_string(),
            "role": member.role.to_string(),
            "muted_until_ms": member.muted_until.to_string(),
        })
    };
    json!({
        "channel": group.channel.to_string(),
        "name": group.name,
        "version": group.version.to_string(),
        "settings": settings_json(&group.settings),
        "members": group.members.iter().map(member).collect::<Vec<_>>(),
    })
}

fn settings_json(settings: &GroupSettings) -> Value {
    let GroupSettings { history_all, members_add, admins_post, open } = *settings;
    json!({
        "history": history_all, "members_add": members_add, "admins_post": admins_post,
        "open": open,
    })
}

/// What members may do, in words.
pub(super) fn settings(settings: &GroupSettings) -> String {
    let either = |is_so, so, not| if is_so { so } else { not };
    [
        either(settings.admins_post, "admins post", "everyone posts"),
        either(settings.members_add, "everyone adds members", "admins add members"),
        either(settings.open, "anyone may join", "nobody joins uninvited"),
        either(settings.history_all, "newcomers read all", "newcomers read what comes"),
    ]
    .join(", ")
}

fn list(uins: &[Uin]) -> String {
    uins.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn uins(uins: &[Uin]) -> Vec<String> {
    uins.iter().map(ToString::to_string).collect()
}

/// Counts of who has a message, in JSON.
pub(super) fn receipts_json(counts: &GroupReceipts) -> serde_json::Value {
    serde_json::json!({
        "members": counts.members,
        "delivered": counts.delivered,
        "read": counts.read,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_others_leave_the_terminal_alone() {
        let change = GroupChange::Rename("\x1b[2J".to_owned());
        assert_eq!(sentence(&change), "called the group \"\\u{1b}[2J\"");
        assert_eq!(sentence(&GroupChange::Kick(vec![Uin(1), Uin(2)])), "removed 1, 2");
    }
}
