//! What an application asks of groups, as calls that wait for their answers.

use std::fmt;

use tern_protocol::{ChannelId, Code, MessageId, Uin};
use tokio::sync::oneshot;

use super::{Ask, Client, Closed, Command};
use crate::group::{GroupChange, GroupMember, GroupPage, GroupSettings, InvalidChange};
use crate::machine::{SendOutcome, SendResult};

/// How often another id is tried for a new group whose id is taken already. One in some billion
/// ids is: the second has never been needed.
const CREATES_MAX: u32 = 3;

/// How often the members are asked for anew because the group changed between two pages.
const LISTS_MAX: u32 = 5;

/// Why a group could not be asked or changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GroupError {
    /// No server would take this change.
    Invalid(InvalidChange),
    /// The server refuses.
    Refused {
        /// Why.
        code: Code,
        /// The user because of whom, if it is because of one.
        member: Option<Uin>,
    },
    /// The server no longer knows whether it made the change; look before you ask for it again.
    Unknown,
    /// The group changed again and again while its members were asked for; page by page they can
    /// still be had.
    Changing,
    /// The client is closed.
    Closed,
}

impl fmt::Display for GroupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invalid(invalid) => invalid.fmt(f),
            Self::Refused { code, member: Some(uin) } => {
                write!(f, "{code}, because of user {uin}: {}", code.sentence())
            }
            Self::Refused { code, member: None } => write!(f, "{code}: {}", code.sentence()),
            Self::Unknown => f.write_str(
                "whether the group was changed is no longer known; look before you ask again",
            ),
            Self::Changing => f.write_str("the group's members change too fast to be listed"),
            Self::Closed => Closed.fmt(f),
        }
    }
}

impl std::error::Error for GroupError {}

impl From<Closed> for GroupError {
    fn from(Closed: Closed) -> Self {
        Self::Closed
    }
}

/// What a group is, whole.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Group {
    /// The group.
    pub channel: ChannelId,
    /// Id of its newest change.
    pub version: MessageId,
    /// What people call it.
    pub name: String,
    /// What its members may do.
    pub settings: GroupSettings,
    /// Everyone in it, in the order of their uins.
    pub members: Vec<GroupMember>,
}

impl Client {
    /// Makes a group with this device's user as its owner, and tells its channel.
    ///
    /// # Errors
    /// When the server refuses, for instance because a member does not exist, or the client is
    /// closed; if it is closed before the answer, the group is made at the next start.
    pub async fn create_group(
        &self,
        name: &str,
        settings: GroupSettings,
        members: &[Uin],
    ) -> Result<ChannelId, GroupError> {
        let (name, members) = (name.to_owned(), members.to_vec());
        let change = GroupChange::Create { name, settings, members };
        let mut tries = 1;
        loop {
            let result = self.change(None, &change).await?;
            match answer(&result) {
                Err(GroupError::Refused { code: Code::GroupExists, .. }) if tries < CREATES_MAX => {
                    tries += 1;
                }
                answer => return answer.map(|_| result.channel),
            }
        }
    }

    /// Changes a group, and waits for the final answer through any number of reconnects. Tells the
    /// change's place in the channel; `None` if all was so already.
    ///
    /// # Errors
    /// When the change is invalid, or refused, or the client is closed; then it is stored, and
    /// asked for at the next start.
    pub async fn change_group(
        &self,
        channel: ChannelId,
        change: &GroupChange,
    ) -> Result<Option<MessageId>, GroupError> {
        answer(&self.change(Some(channel), change).await?)
    }

    async fn change(
        &self,
        channel: Option<ChannelId>,
        change: &GroupChange,
    ) -> Result<SendResult, GroupError> {
        let content = change.encode().map_err(GroupError::Invalid)?;
        let (reply, result) = oneshot::channel();
        self.shared.room.acquire().await.map_err(|_| GroupError::Closed)?.forget();
        self.say(Command::Ask(Ask::Change { channel, content, reply }))?;
        result.await.map_err(|_| GroupError::Closed)
    }

    /// What a group is, with all its members: some 24 bytes of traffic for each. For large groups
    /// [`group_page`](Self::group_page) takes less memory.
    ///
    /// # Errors
    /// When this device's user is no member, the group changes too fast, or the client is closed.
    pub async fn group(&self, channel: ChannelId) -> Result<Group, GroupError> {
        for _ in 0..LISTS_MAX {
            if let Some(group) = self.list(channel).await? {
                return Ok(group);
            }
        }
        Err(GroupError::Changing)
    }

    /// The whole list, unless the group changes meanwhile.
    async fn list(&self, channel: ChannelId) -> Result<Option<Group>, GroupError> {
        let mut page = self.group_page(channel, Uin(0)).await?;
        let mut members = std::mem::take(&mut page.members);
        while !page.is_last {
            let version = page.version;
            let after = members.last().map_or(Uin(0), |member: &GroupMember| member.uin);
            page = self.group_page(channel, after).await?;
            if page.version != version {
                return Ok(None);
            }
            members.append(&mut page.members);
        }
        let GroupPage { version, name, settings, .. } = page;
        Ok(Some(Group { channel, version, name, settings, members }))
    }

    /// What a group is, with a page of its members: those with a uin above `after`.
    ///
    /// # Errors
    /// When this device's user is no member, or the client is closed.
    pub async fn group_page(
        &self,
        channel: ChannelId,
        after: Uin,
    ) -> Result<GroupPage, GroupError> {
        let (reply, page) = oneshot::channel();
        self.say(Command::Ask(Ask::GroupInfo { channel, after, reply }))?;
        let page = page.await.map_err(|_| GroupError::Closed)?;
        page.map_err(|code| GroupError::Refused { code, member: None })
    }
}

fn answer(result: &SendResult) -> Result<Option<MessageId>, GroupError> {
    match result.outcome {
        SendOutcome::Acked { id, .. } => Ok(Some(id)),
        SendOutcome::Refused(Code::ChangesNothing) => Ok(None),
        SendOutcome::Refused(code) => Err(GroupError::Refused { code, member: result.member }),
        SendOutcome::Unknown => Err(GroupError::Unknown),
    }
}
