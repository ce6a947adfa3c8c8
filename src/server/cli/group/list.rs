//! The groups of a user: what `tern group list` asks for and prints.

use tern_client::group::{GroupPage, Role};
use tern_client::marks::Unread;
use tern_client::{Client, GroupError};
use tern_protocol::{Code, Uin};

use crate::cli::chat::session;
use crate::cli::output::columns;

/// A group of which the user is a member.
pub(super) struct Listed {
    page: GroupPage,
    role: Role,
    unread: Unread,
}

/// All groups of which this user is a member, in the order of their numbers.
pub(super) async fn ask(client: &Client, me: Uin) -> Result<Vec<Listed>, GroupError> {
    let mut listed = Vec::new();
    for unread in client.unread_all().await? {
        if !unread.channel.is_group() {
            continue;
        }
        // The page that begins with this user, if he is still in it.
        let page = match client.group_page(unread.channel, Uin(me.0 - 1)).await {
            Err(GroupError::Refused { code: Code::NotAMember, .. }) => continue,
            page => page?,
        };
        let own = page.members.first().filter(|member| member.uin == me);
        let Some(role) = own.map(|member| member.role) else { continue };
        listed.push(Listed { page, role, unread });
    }
    Ok(listed)
}

impl Listed {
    fn count(&self) -> String {
        format!("{}{}", self.unread.count, if self.unread.more { "+" } else { "" })
    }

    /// Numbers of 64 bits are strings: many readers of JSON round them.
    pub(super) fn json(&self) -> String {
        let Self { page, role, unread } = self;
        let object = serde_json::json!({
            "channel": page.channel.to_string(),
            "name": page.name,
            "members": page.count,
            "role": role.to_string(),
            "read": unread.after.to_string(),
            "newest": unread.newest.to_string(),
            "unread": unread.count,
            "more": unread.more,
        });
        format!("{object}\n")
    }
}

/// A line each, below a head.
pub(super) fn table(groups: &[Listed]) -> String {
    let head = ["group", "name", "members", "role", "unread"].map(str::to_owned).to_vec();
    let rows = groups.iter().map(|listed| {
        vec![
            listed.page.channel.to_string(),
            session::one_line(listed.page.name.as_bytes()),
            listed.page.count.to_string(),
            listed.role.to_string(),
            listed.count(),
        ]
    });
    columns(&std::iter::once(head).chain(rows).collect::<Vec<_>>())
}
