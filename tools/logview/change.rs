//! A change of a group, as the content of a message of that kind, in words and in JSON.

use serde_json::{Value, json};
use tern_protocol::frames::{Change, action, role, settings};
use tern_protocol::group::ChangeView;

use crate::output::time;

/// Users that a line names.
const USERS_NAMED_MAX: usize = 8;

/// A change in words; `None` if the content is none.
pub(crate) fn change_line(content: &[u8]) -> Option<String> {
    let change = ChangeView::parse(content)?;
    let uins: Vec<String> = change.uins().map(|uin| uin.to_string()).collect();
    let mut line = action_name(change.head.action);
    for uin in uins.iter().take(USERS_NAMED_MAX) {
        line += &format!(" {uin}");
    }
    if uins.len() > USERS_NAMED_MAX {
        line += &format!(" and {} more", uins.len() - USERS_NAMED_MAX);
    }
    for argument in arguments(&change) {
        line += &format!(", {argument}");
    }
    Some(line)
}

/// A change in JSON; `None` if the content is none.
pub(crate) fn change_json(content: &[u8]) -> Option<Value> {
    let change = ChangeView::parse(content)?;
    let Change { action, role, settings, until, .. } = *change.head;
    let uins: Vec<String> = change.uins().map(|uin| uin.to_string()).collect();
    let mut object = json!({"action": action_name(action), "members": uins});
    if has_settings(action) {
        object["settings"] = setting_names(settings).into();
    }
    if action == action::ROLE {
        object["role"] = role_name(role).into();
    }
    if action == action::MUTE {
        object["until_ms"] = until.to_string().into();
    }
    if !change.name.is_empty() {
        object["name"] = String::from_utf8_lossy(change.name).into();
    }
    Some(object)
}

fn arguments(change: &ChangeView<'_>) -> Vec<String> {
    let Change { action, role, settings, until, .. } = *change.head;
    let name = (!change.name.is_empty())
        .then(|| format!("name {:?}", String::from_utf8_lossy(change.name)));
    let set = has_settings(action).then(|| match &setting_names(settings)[..] {
        [] => "no settings".to_owned(),
        names => format!("settings {}", names.join(" ")),
    });
    let role = (action == action::ROLE).then(|| format!("role {}", role_name(role)));
    let until = (action == action::MUTE).then(|| match until.get() {
        0 => "no longer".to_owned(),
        until => format!("until {}", time(until)),
    });
    [name, set, role, until].into_iter().flatten().collect()
}

fn has_settings(action: u8) -> bool {
    matches!(action, action::CREATE | action::SETTINGS)
}

fn action_name(action: u8) -> String {
    let known = match action {
        action::CREATE => "create",
        action::ADD => "add",
        action::JOIN => "join",
        action::LEAVE => "leave",
        action::KICK => "kick",
        action::ROLE => "role",
        action::MUTE => "mute",
        action::RENAME => "rename",
        action::SETTINGS => "settings",
        action::DISSOLVE => "dissolve",
        unknown => return format!("action {unknown}"),
    };
    known.to_owned()
}

fn role_name(role: u8) -> String {
    match role {
        role::MEMBER => "member".to_owned(),
        role::ADMIN => "admin".to_owned(),
        role::OWNER => "owner".to_owned(),
        unknown => unknown.to_string(),
    }
}

fn setting_names(bits: u8) -> Vec<&'static str> {
    let names = [
        (settings::HISTORY_ALL, "history-all"),
        (settings::MEMBERS_ADD, "members-add"),
        (settings::ADMINS_POST, "admins-post"),
        (settings::OPEN, "open"),
    ];
    names.into_iter().filter(|(bit, _)| bits & bit != 0).map(|(_, name)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::IntoBytes;
    use zerocopy::little_endian::U64;

    fn content(head: Change, members: &[u64], name: &[u8]) -> Vec<u8> {
        let members: Vec<U64> = members.iter().map(|uin| U64::new(*uin)).collect();
        [head.as_bytes(), members.as_bytes(), name].concat()
    }

    fn head(action: u8, members: u16, name_bytes: u16) -> Change {
        Change {
            action,
            role: 0,
            settings: 0,
            reserved: 0,
            members: members.into(),
            name_bytes: name_bytes.into(),
            until: 0.into(),
        }
    }

    #[test]
    fn changes_read_like_sentences() {
        let settings = settings::OPEN | settings::MEMBERS_ADD;
        let made = Change { settings, ..head(action::CREATE, 2, 5) };
        let made = content(made, &[7, 8], b"terns");
        let line = change_line(&made).unwrap();
        assert_eq!(line, "create 7 8, name \"terns\", settings members-add open");
        let json = change_json(&made).unwrap();
        assert_eq!(json["settings"], json!(["members-add", "open"]));
        assert_eq!((&json["members"], &json["name"]), (&json!(["7", "8"]), &json!("terns")));

        let many: Vec<u64> = (1..=10).collect();
        let kicked = content(head(action::KICK, 10, 0), &many, b"");
        assert_eq!(change_line(&kicked).unwrap(), "kick 1 2 3 4 5 6 7 8 and 2 more");
        let owner = Change { role: role::OWNER, ..head(action::ROLE, 1, 0) };
        assert_eq!(change_line(&content(owner, &[9], b"")).unwrap(), "role 9, role owner");
        assert_eq!(
            change_line(&content(head(action::MUTE, 1, 0), &[9], b"")).unwrap(),
            "mute 9, no longer"
        );
        assert_eq!(change_line(b"short"), None);
    }
}
