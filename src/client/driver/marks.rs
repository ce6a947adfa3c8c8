//! What an application says and asks of how far users have got.

use tern_protocol::limits::UNREAD_CHANNELS_MAX;
use tern_protocol::{ChannelId, Code, MessageId};
use tokio::sync::oneshot;

use super::groups::GroupError;
use super::{Ask, Client, Command};
use crate::marks::{GroupReceipts, Unread, Which};

impl Client {
    /// The user has read everything of the channel up to this message, as far as the application
    /// was given it. All his devices are told, and who wrote, unless reads are quiet. What the
    /// server has is told by [`crate::machine::Event::Read`].
    pub fn mark_read(&self, channel: ChannelId, id: MessageId) {
        // A closed client remembers nothing: the user will read it again.
        let _ = self.say(Command::Read { channel, id });
    }

    /// How many members of a group have a message.
    ///
    /// # Errors
    /// When this device's user is no member or may not read the message, the server is too busy
    /// to count, or the client is closed.
    pub async fn group_receipts(
        &self,
        channel: ChannelId,
        id: MessageId,
    ) -> Result<GroupReceipts, GroupError> {
        let (reply, answer) = oneshot::channel();
        self.say(Command::Ask(Ask::GroupReceipts { channel, id, reply }))?;
        answer.await.map_err(|_| GroupError::Closed)?.map_err(refused)
    }

    /// How much of these channels is unread, as the server counts it.
    ///
    /// # Errors
    /// When the server refuses, or the client is closed.
    pub async fn unread(&self, channels: &[ChannelId]) -> Result<Vec<Unread>, GroupError> {
        let mut all = Vec::with_capacity(channels.len());
        for part in channels.chunks(UNREAD_CHANNELS_MAX) {
            all.extend(self.count(Which::These(part.to_vec())).await?);
        }
        Ok(all)
    }

    /// The same of all channels of the user, in the order of their ids.
    ///
    /// # Errors
    /// When the server refuses, or the client is closed.
    pub async fn unread_all(&self) -> Result<Vec<Unread>, GroupError> {
        let mut all: Vec<Unread> = Vec::new();
        loop {
            let after = all.last().map(|last| last.channel);
            let part = self.count(Which::After(after)).await?;
            let is_last = part.len() < UNREAD_CHANNELS_MAX;
            all.extend(part);
            if is_last {
                return Ok(all);
            }
        }
    }

    async fn count(&self, which: Which) -> Result<Vec<Unread>, GroupError> {
        let (reply, answer) = oneshot::channel();
        self.say(Command::Ask(Ask::Unread { which, reply }))?;
        answer.await.map_err(|_| GroupError::Closed)?.map_err(refused)
    }
}

fn refused(code: Code) -> GroupError {
    GroupError::Refused { code, member: None }
}
